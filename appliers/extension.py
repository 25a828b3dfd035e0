"""Parts that were built in C. Each stands beside the Python that does the same without a compiler."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any


def extension(module: str, name: str) -> Any:
    """`name` of a module in C; None where it was not built, or CDC_PURE_PYTHON is set."""
    if os.environ.get("CDC_PURE_PYTHON"):
        return None
    try:
        return getattr(import_module(module), name)
    except ImportError:
        return None
