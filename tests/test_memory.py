"""Scenario 12: the worker's memory while transactions of every kind pass that do not fit into it. Those of
INSERTs are measured in tests/test_faults.py and tests/test_mysql_faults.py, with a million rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from tests.databases import Database
from tests.mysql_crm import numbers, run
from tests.mysql_pairs import Pair
from tests.syncs import MakeSync, Source, Sync
from tests.targets import Target

pytestmark = pytest.mark.faults

ROWS: Final = 300_000
MOST: Final = 200
"""Megabytes."""
TABLES: Final = """
CREATE TABLE events (id bigint PRIMARY KEY, body text);
CREATE TABLE markers (id bigint PRIMARY KEY);
"""
STATEMENTS: Final = (
    "UPDATE events SET body = repeat('y', 100)",
    "UPDATE events SET id = -id",
    "DELETE FROM events",
)
"""Old rows and new ones, changed keys, old rows alone."""


def streaming(source: Source, target: Target, make_sync: MakeSync) -> Sync:
    source.execute(TABLES)
    sync = make_sync(source, target, ("events", "markers"))
    sync.start(fresh=True)
    sync.wait_copied()
    return sync


def pass_large_transactions(sync: Sync, execute: Callable[[str], object], rows: str) -> None:
    for statement in (f"INSERT INTO events SELECT {rows}", *STATEMENTS):
        execute(statement)
        sync.catch_up(timeout=300)
        most = sync.running.memory("VmHWM")
        assert most < MOST, f"{statement}: {most:.0f} MB"
    assert list(sync.target.rows("SELECT count(*) FROM events")) == [(0,)]
    sync.assert_nothing_healed()


def test_from_postgres(source_db: Database, target: Target, make_sync: MakeSync) -> None:
    """With whole old rows in the log, into every target."""
    sync = streaming(source_db, target, make_sync)
    source_db.execute("ALTER TABLE events REPLICA IDENTITY FULL")
    rows = f"g, repeat('x', 100) FROM generate_series(1, {ROWS}) g"
    pass_large_transactions(sync, source_db.execute, rows)


def test_from_mysql(pair: Pair, make_sync: MakeSync) -> None:
    """In every pair; from MySQL each as one compressed event."""
    sync = streaming(pair.source, pair.target, make_sync)
    session = pair.source.connect()
    if pair.source.server.flavour == "mysql":
        run(session, "SET SESSION binlog_transaction_compression = ON")
    rows = f"n, REPEAT('x', 100) FROM {numbers(ROWS)}"
    pass_large_transactions(sync, lambda statement: run(session, statement), rows)
