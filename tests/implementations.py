"""The parts in C, for tests that hold them to the same promises as the Python beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import ModuleType
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


def in_both(holder: ModuleType, name: str, module: str) -> Any:
    """An autouse fixture with which a test module runs twice: with what `holder` has taken from a module
    in C, and without."""

    @pytest.fixture(scope="module", params=["c", "python"], autouse=True)
    def implementation(request: pytest.FixtureRequest) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            part = compiled(module, name.lstrip("_")) if request.param == "c" else None
            patch.setattr(holder, name, part)
            yield

    return implementation
