"""A MariaDB or MySQL source, a target and a worker between them, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from tests.databases import Database
from tests.mysql_crm import numbers, spelled
from tests.mysql_databases import MysqlDatabase
from tests.mysql_pairs import PAIRS
from tests.syncs import Sync, sync_maker
from tests.targets import MysqlTarget, PostgresTarget, SqliteTarget, Target

_TABLES: Final = """
CREATE TABLE markers (id {big} NOT NULL PRIMARY KEY);
CREATE TABLE events (id {big} NOT NULL PRIMARY KEY, body {text});
CREATE TABLE pairs (id {big} NOT NULL PRIMARY KEY, code {int} NOT NULL UNIQUE, place {int} UNIQUE);
CREATE TABLE parents (id {big} NOT NULL PRIMARY KEY, boss {big}, body {text},
    FOREIGN KEY (boss) REFERENCES parents (id){acting});
CREATE TABLE children (id {big} NOT NULL PRIMARY KEY, parent {big} NOT NULL, body {text},
    FOREIGN KEY (parent) REFERENCES parents (id){acting});
CREATE TABLE left_box (id {big} NOT NULL PRIMARY KEY, body {text});
CREATE TABLE wide (id {big} NOT NULL PRIMARY KEY, code {text}, n {int}, t {notes}, j {json}, b {blob});
CREATE TABLE folded (code {folded} NOT NULL, part {int} NOT NULL, n {int}, t {notes}, PRIMARY KEY (code, part));
"""
SYNCED: Final = (
    "markers",
    "events",
    "pairs",
    "parents",
    "children",
    "left_box",
    "wide",
    "folded",
)


class MysqlStage:
    """A source, a target and the worker between them, kept for all the tests of a pair."""

    def __init__(self, source: MysqlDatabase, target: Target, sync: Sync) -> None:
        self.source = source
        self.target = target
        self.sync = sync

    def settle(self, *tables: str) -> None:
        """Everything has arrived, and is equal."""
        self.sync.catch_up()
        self.sync.assert_equal(*tables)

    def held(self, statements: Callable[[], object]) -> None:
        """What is committed meanwhile reaches the worker at once, and so is one batch."""
        with self.sync.running.held():
            statements()

    def restart(self, fault: str = "") -> None:
        if self.sync.running.running:
            self.sync.running.kill()
        self.sync.start(fault=fault)


@pytest.fixture(scope="module", params=PAIRS)
def mysql_stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MysqlStage]:
    folder = tmp_path_factory.mktemp("stage")
    source_kind, _, target_kind = request.param.partition("-")
    with ExitStack() as after:
        source = MysqlDatabase(request.getfixturevalue(source_kind))
        after.callback(source.drop)
        target: Target
        if target_kind == "sqlite":
            target = SqliteTarget(folder / "target.sqlite")
        elif target_kind == "postgres":
            database = Database(request.getfixturevalue("target_server"))
            after.callback(database.drop)
            target = PostgresTarget(database)
        else:
            there = MysqlDatabase(request.getfixturevalue(f"second_{target_kind}"))
            after.callback(there.drop)
            target = MysqlTarget(there)
        source.execute(spelled(_TABLES, "mysql"))
        source.execute("CREATE TABLE not_synced (id bigint PRIMARY KEY, body text)")
        source.execute(f"INSERT INTO pairs SELECT n, n, n FROM {numbers(20)}")
        for statement in spelled(_TABLES, target.kind).split(";"):
            if statement.strip():
                target.execute(statement)
        sync = after.enter_context(sync_maker(folder))(source, target, SYNCED)
        sync.start()
        sync.wait_copied()
        target.count_writes("events")
        yield MysqlStage(source, target, sync)
