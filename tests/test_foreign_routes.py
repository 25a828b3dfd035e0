"""Every value of every type of MySQL and MariaDB on its whole way into PostgreSQL and SQLite: by copy and
by stream, against what is documented; and what a sync does with a value that its target cannot hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest

from tests.databases import Database
from tests.foreign_types import SESSION, Hard, cases_of
from tests.mysql_databases import MysqlDatabase
from tests.syncs import MakeSync
from tests.targets import PostgresTarget, SqliteTarget, Target

ADDED: Final = 100
"""The first key of the rows that come by the stream."""
MOVED: Final = 1000
"""What is added to the keys of rows whose key is changed."""

Case = tuple[str, Hard]


class Writer:
    """Writes the cases' values into tables of the source."""

    def __init__(self, source: MysqlDatabase, cases: Sequence[Case]) -> None:
        self._cases = cases
        self._db = source.connect(init_command=SESSION, autocommit=False)

    def _run(self, statement: str, values: Sequence[object] = ()) -> None:
        with self._db.cursor() as cursor:
            cursor.execute(statement, values or None)

    def create(self) -> None:
        self._run("CREATE TABLE markers (id int PRIMARY KEY)")
        for name, hard in self._cases:
            self._run(f"CREATE TABLE {name} (id int PRIMARY KEY, v {hard.type}, w int)")

    def insert(self, add: int) -> None:
        """A row for each value, and before them one with NULL, all in one transaction."""
        for name, hard in self._cases:
            for number, text in enumerate(hard.texts):
                literal, given = hard.literal(text)
                values = [number + add, given]
                self._run(f"INSERT INTO {name} (id, v) VALUES (%s, {literal})", values)
            self._run(f"INSERT INTO {name} (id) VALUES (%s)", [add - 1])
        self._db.commit()

    def change(self) -> None:
        """Each value is written over the one before it, and left alone; keys are changed."""
        for name, hard in self._cases:
            for number in range(len(hard.texts)):
                literal, given = hard.literal(hard.texts[number - 1])
                self._run(f"UPDATE {name} SET v = {literal} WHERE id = %s", [given, number])
            self._run(f"UPDATE {name} SET w = 1")
            self._run(f"UPDATE {name} SET id = id + {MOVED} WHERE id BETWEEN 0 AND 50")
        self._db.commit()


def rows_in(target: Target, table: str) -> list[tuple[Any, ...]]:
    """Not by a cast in PostgreSQL, which prints an inet with its mask."""
    value = "v"
    if isinstance(target, PostgresTarget):
        target.database.execute("SET timezone = 'UTC'")
        value = "CASE WHEN v IS NOT NULL THEN format('%s', v) END"
    return target.rows(f"SELECT id, {value} FROM {table} ORDER BY id")


def differing(target: Target, cases: Sequence[Case], *, changed: bool, added: bool) -> list[Any]:
    """Tables that do not have what they should, with the rows there and the rows expected."""
    found = []
    for name, hard in cases:
        kept = list(hard.in_sqlite if isinstance(target, SqliteTarget) else hard.in_postgres)
        expected: list[Any] = [(-1, None)]
        if added:
            expected += [(ADDED - 1, None), *enumerate(kept, ADDED)]
        if changed:
            expected += enumerate([kept[-1], *kept[:-1]], MOVED)
        else:
            expected += enumerate(kept)
        rows = rows_in(target, name)
        if [(k, type(v), v) for k, v in rows] != [(k, type(v), v) for k, v in sorted(expected)]:
            found.append((name, hard.type, rows, expected))
    return found


@pytest.fixture(params=["postgres", "sqlite"])
def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "sqlite":
        return SqliteTarget(request.getfixturevalue("sqlite_path"))
    return PostgresTarget(request.getfixturevalue("target_db"))


def test_every_type_arrives(
    any_mysql_source: MysqlDatabase, target: Target, make_sync: MakeSync
) -> None:
    """The same value is the same on the target whether it came by the copy or by the stream, as the
    documented mapping has it; also after updates, of which some leave it alone, and changed keys."""
    cases = [(f"t{n}", h) for n, h in enumerate(cases_of(any_mysql_source.server.flavour))]
    writer = Writer(any_mysql_source, cases)
    writer.create()
    writer.insert(0)
    sync = make_sync(any_mysql_source, target, [*(name for name, _ in cases), "markers"])
    sync.start()
    sync.wait_copied()
    assert not differing(target, cases, changed=False, added=False)
    writer.insert(ADDED)
    sync.catch_up()
    assert not differing(target, cases, changed=False, added=True)
    writer.change()
    sync.catch_up()
    assert not differing(target, cases, changed=True, added=True)
    sync.assert_nothing_healed()
    sync.request()
    assert not differing(target, cases, changed=True, added=True)


@pytest.mark.parametrize("policy", ["error", "null", "text"])
def test_zero_dates_under_each_policy(
    mariadb_source: MysqlDatabase, target_db: Database, make_sync: MakeSync, policy: str
) -> None:
    """By copy and by stream: the sync stops with table and column named, or keeps NULL or the text."""
    mariadb_source.execute(
        "CREATE TABLE markers (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, d datetime);"
        "SET sql_mode = ''; INSERT INTO t VALUES (1, '0000-00-00'), (2, '2024-02-29')"
    )
    sync = make_sync(mariadb_source, PostgresTarget(target_db), ["t", "markers"])
    text = sync.config.read_text()
    sync.config.write_text(f'{text}on_unrepresentable = "{policy}"\n')
    sync.start()
    if policy == "error":
        assert sync.running.wait() != 0
        assert "column d: a zero date cannot be kept" in sync.log_tail()
        assert "0000-00-00" not in sync.log_tail()
        return
    sync.wait_copied()
    mariadb_source.execute(
        "INSERT INTO t VALUES (3, '2024-00-10'); UPDATE t SET d = 0 WHERE id = 2"
    )
    sync.catch_up()
    zero, part = (
        (None, None) if policy == "null" else ("0000-00-00 00:00:00", "2024-00-10 00:00:00")
    )
    rows = target_db.rows("SELECT id, d::text FROM t ORDER BY id")
    assert rows == [(1, zero), (2, zero), (3, part)]
