"""A source, a target of each kind and a worker between them, shared by all the tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from cdc.demo.server import LocalPostgres
from tests.databases import Database
from tests.mysql_databases import MysqlDatabase
from tests.syncs import TARGETS, Sync, sync_maker
from tests.targets import MysqlTarget, PostgresTarget, SqliteTarget, Target

SCHEMA: Final = """
CREATE TABLE markers (id bigint PRIMARY KEY);
CREATE TABLE events (id bigint PRIMARY KEY, body text);
CREATE TABLE pairs (id bigint PRIMARY KEY, code int NOT NULL UNIQUE, place int UNIQUE);
CREATE TABLE parents (
    id bigint PRIMARY KEY, boss bigint REFERENCES parents DEFERRABLE INITIALLY DEFERRED, body text);
CREATE TABLE children (
    id bigint PRIMARY KEY, parent bigint NOT NULL REFERENCES parents DEFERRABLE INITIALLY DEFERRED,
    body text);
CREATE TABLE left_box (id bigint PRIMARY KEY, body text);
CREATE TABLE right_box (id bigint PRIMARY KEY, body text);
CREATE TABLE by_key (id bigint PRIMARY KEY, code text NOT NULL, n int, t text, j jsonb, b bytea, a text[]);
CREATE TABLE by_row (id bigint PRIMARY KEY, code text NOT NULL, n int, t text, j jsonb, b bytea, a text[]);
CREATE TABLE by_code (id bigint NOT NULL, code text NOT NULL, n int, t text, j jsonb, b bytea, a text[]);
CREATE UNIQUE INDEX by_code_code ON by_code (code);
"""

SOURCE_ONLY: Final = """
ALTER TABLE by_row REPLICA IDENTITY FULL;
ALTER TABLE by_code REPLICA IDENTITY USING INDEX by_code_code;
CREATE TABLE not_synced (id bigint PRIMARY KEY, body text);
""" + "".join(
    f"ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE EXTERNAL;"
    for table in ("by_key", "by_row", "by_code")
    for column in "tjba"
)

WIDE: Final = ("by_key", "by_row", "by_code")
SYNCED: Final = (
    "markers",
    "events",
    "pairs",
    "parents",
    "children",
    "left_box",
    "right_box",
    *WIDE,
)


class Stage:
    """A source, a target and the worker between them, kept for all the tests of a target."""

    def __init__(self, source: Database, target: Target, sync: Sync) -> None:
        self.source = source
        self.target = target
        self.sync = sync

    def settle(self, *tables: str) -> None:
        """Everything has arrived, and is equal."""
        self.sync.catch_up()
        self.sync.assert_equal(*tables)

    def held(self, statements: Callable[[], None]) -> None:
        """What is committed meanwhile reaches the worker at once, and so is one batch."""
        with self.sync.running.held():
            statements()

    def restart(self, fault: str = "") -> None:
        if self.sync.running.running:
            self.sync.running.kill()
        self.sync.start(fault=fault)


@pytest.fixture(scope="module", params=TARGETS)
def stage(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    source_server: LocalPostgres,
    target_server: LocalPostgres,
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    with ExitStack() as after:
        source = Database(source_server)
        after.callback(source.drop)
        target: Target = SqliteTarget(folder / "target.sqlite")
        if request.param == "postgres":
            database = Database(target_server)
            after.callback(database.drop)
            target = PostgresTarget(database)
        elif request.param == "mariadb":
            there = MysqlDatabase(request.getfixturevalue("second_mariadb"))
            after.callback(there.drop)
            target = MysqlTarget(there)
        source.execute(SCHEMA)
        source.execute(SOURCE_ONLY)
        source.execute("INSERT INTO pairs SELECT g, g, g FROM generate_series(1, 20) g")
        target.make_tables(SCHEMA)
        sync = after.enter_context(sync_maker(folder))(source, target, SYNCED)
        sync.start()
        sync.wait_copied()
        target.count_writes("events")
        yield Stage(source, target, sync)
