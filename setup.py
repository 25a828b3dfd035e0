"""What pyproject.toml cannot say: the parts in C, each beside the Python that does the same.

They are optional: where there is no compiler, or no header of Python's, the rest is installed without.
"""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = sorted(p for package in ("appliers", "cdc") for p in Path(package).rglob("_*.c"))
HEADERS = ["appliers/_lines.h"]

setup(
    ext_modules=[
        Extension(".".join(p.with_suffix("").parts), [p.as_posix()], depends=HEADERS, optional=True)
        for p in SOURCES
    ]
)
