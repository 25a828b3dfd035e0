"""Rows of PostgreSQL are found on MariaDB and MySQL by keys of every sensible type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.databases import Database
from tests.mysql_databases import MysqlDatabase
from tests.syncs import MakeSync, Sync
from tests.targets import MysqlTarget
from tests.test_type_keys import ALONE, MORE_TYPES, TEXT_ONLY, TOGETHER, TYPES, Keys
from tests.type_tables import MARKERS, streaming

TIMES: Final = {
    "infinity": "9999-12-31",
    "-infinity": "0001-01-01",
    "0044-03-15 BC": "0044-03-15",
    "0044-03-15 12:00 BC": "0044-03-15 12:00",
    "0044-03-15 12:00:00.000001 BC": "0044-03-15 12:00:00.000001",
    "5874897-12-31": "1582-10-10",
    "294276-12-31": "9999-12-31 23:59:59.999999",
}
NUMBERS: Final = {"NaN": "-2.5", "Infinity": "3e+38", "-Infinity": "-3e+38"}
INSTEAD: Final[Mapping[str, Mapping[str, str]]] = {
    **dict.fromkeys(("date", "timestamp", "timestamptz"), TIMES),
    **dict.fromkeys(("real", "double precision", "numeric(6,2)"), NUMBERS),
}
"""What stands for values that MySQL cannot hold."""


def held(types: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {
        kind: [INSTEAD.get(kind, {}).get(v, v) for v in values] for kind, values in types.items()
    }


def assert_same(sync: Sync, tables: Sequence[Keys], when: str) -> None:
    query = "SELECT v, big FROM {} ORDER BY v, big"
    unlike = [
        (t.ddl, ours, theirs)
        for t in tables
        if (ours := sorted(sync.source.rows(query.format(t.table))))
        != (theirs := sorted(sync.target.rows(query.format(t.table))))
    ]
    assert not unlike, f"{when}: {unlike}\n{sync.log_tail(15)}"


def test_keys_in_mysql(
    source_db: Database, any_mysql_target: MysqlDatabase, make_sync: MakeSync
) -> None:
    """Copied, changed in one batch and in small ones, and copied over what is there: every change meets its
    row."""
    source_db.execute(TYPES + MORE_TYPES + MARKERS)
    groups = [*({kind: values} for kind, values in ALONE.items()), *TOGETHER, TEXT_ONLY]
    tables = [Keys(f"key_{n}", held(group)) for n, group in enumerate(groups)]
    for table in tables:
        source_db.execute(f"{table.ddl}; {table.insert(0, 1, 2)}")
    sync = make_sync(source_db, MysqlTarget(any_mysql_target), ["*"])
    with streaming(sync, binary=False):
        assert_same(sync, tables, "copied")
        source_db.execute("; ".join(s for t in tables for changes in t.changes() for s in changes))
        sync.catch_up()
        assert_same(sync, tables, "in one batch")
        for table in tables:
            source_db.execute(f"DELETE FROM {table.table}; {table.insert(0, 1, 2)}")
        for table in tables:
            table.run_changes(source_db)
            sync.catch_up()
        assert_same(sync, tables, "one by one")
        sync.assert_nothing_healed()
        for table in tables:
            sync.target.execute(f"UPDATE {table.table} SET v = 'stale', big = NULL")
        sync.request()
    assert_same(sync, tables, "copied again")
