"""The parts in C, for tests that hold them to the same promises as the Python beside them."""

from __future__ import annotations

import os
from typing import Any

import pytest

from appliers.extension import extension


def compiled(module: str, name: str) -> Any:
    """`name` of a module in C. Without a compiler it was not built: then the test is skipped, in CI not."""
    found = extension(module, name)
    if found is None:
        missing = f"{module} was not built: is there a C compiler? `make install` builds it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found
