"""The pairs of a MariaDB or MySQL source and a target that whole syncs are tested with."""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest

from tests.mysql_crm import schema, target_schema
from tests.mysql_databases import MysqlDatabase
from tests.targets import MysqlTarget, PostgresTarget, SqliteTarget, Target

PAIRS: Final = ("mariadb-postgres", "mariadb-mariadb", "mariadb-sqlite", "mysql-mysql")


class Pair(NamedTuple):
    source: MysqlDatabase
    target: Target

    def make_tables(self) -> None:
        """The CRM's, on both sides."""
        self.source.execute(schema(self.source.server.flavour))
        for statement in target_schema(self.target.kind).split(";"):
            if statement.strip():
                self.target.execute(statement)


from_each_source: Final = pytest.mark.parametrize(
    "pair", ["mariadb-sqlite", "mysql-mysql"], indirect=True
)
"""For promises that do not depend on the target."""


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """A source and a target, both empty, for this test alone. MySQL only where it can be had."""
    source, _, target = request.param.partition("-")
    return Pair(request.getfixturevalue(f"{source}_source"), mysql_pair_target(request, target))


def mysql_pair_target(request: pytest.FixtureRequest, kind: str) -> Target:
    if kind == "sqlite":
        return SqliteTarget(request.getfixturevalue("sqlite_path"))
    if kind == "postgres":
        return PostgresTarget(request.getfixturevalue("target_db"))
    return MysqlTarget(request.getfixturevalue(f"{kind}_target"))


def some_pairs(*usual: str) -> pytest.MarkDecorator:
    """These pairs in `make test`, the others in `make faults`: for what is long, and alike in all."""
    marked = [p if p in usual else pytest.param(p, marks=pytest.mark.faults) for p in PAIRS]
    return pytest.mark.parametrize("pair", marked, indirect=True)
