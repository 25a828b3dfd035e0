"""The fixtures of the contract suite: a bed for every registered applier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import pytest

from appliers.registry import APPLIERS
from tests.applier_bed import Bed, MysqlTarget, PostgresTarget, SqliteTarget, Target


def _postgres(request: pytest.FixtureRequest) -> Target:
    return PostgresTarget(request.getfixturevalue("target_db"))


def _sqlite(request: pytest.FixtureRequest) -> Target:
    return SqliteTarget(request.getfixturevalue("sqlite_path"))


def _mariadb(request: pytest.FixtureRequest) -> Target:
    return MysqlTarget(request.getfixturevalue("mariadb_target"))


def _mysql(request: pytest.FixtureRequest) -> Target:
    return MysqlTarget(request.getfixturevalue("mysql_target"))


class Kind(NamedTuple):
    """A kind of target under the suite: its applier, how a fresh one is made, and the forms of images
    to be tried, `text` first."""

    applier: str
    make: Callable[[pytest.FixtureRequest], Target]
    forms: tuple[str, ...]


KINDS: Final = {
    "postgres": Kind("appliers.postgres:PostgresApplier", _postgres, ("text", "binary")),
    "sqlite": Kind("appliers.sqlite:SqliteApplier", _sqlite, ("text",)),
    "mariadb": Kind("appliers.mysql:MysqlApplier", _mariadb, ("text", "line")),
    "mysql": Kind("appliers.mysql:MysqlApplier", _mysql, ("text",)),
}
"""A new applier is one line here."""

MISSING: Final = sorted(set(APPLIERS.values()) - {kind.applier for kind in KINDS.values()})
FORMS: Final = [(name, form) for name, kind in KINDS.items() for form in kind.forms]


def _bed(request: pytest.FixtureRequest, name: str, form: str) -> Iterator[Bed]:
    if name not in KINDS:
        pytest.fail(f"no fixture for {name}: add one to tests/applier_fixtures.py", pytrace=False)
    bed = Bed(KINDS[name].make(request), form)
    yield bed
    bed.close()


@pytest.fixture(params=[*KINDS, *MISSING])
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """Every kind of target once, with images in text."""
    yield from _bed(request, request.param, "text")


@pytest.fixture(params=[*FORMS, *((name, "text") for name in MISSING)], ids="-".join)
def any_bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """Every kind of target with every form of images that it takes."""
    yield from _bed(request, *request.param)
