"""A transaction that is so large that it comes in pieces, and is cut short in its middle: by the source that
is lost, by a clean stop. None of it is to be seen on the target, and then all of it, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.databases import Database
from tests.mysql_crm import numbers
from tests.mysql_pairs import Pair, some_pairs
from tests.proxy import Proxy
from tests.syncs import MakeSync, Source, Sync, told
from tests.targets import Target

ROWS: Final = 50_000
"""Three pieces of up to 20,000."""

SLOW: Final = 0.03
"""Seconds that each piece of data from the source takes: a transaction comes in some seconds."""


def cut(sync: Sync, near: Proxy) -> None:
    assert near.cut() > 0


def stop(sync: Sync, near: Proxy) -> None:
    assert sync.running.stop() < 8


def cut_short(
    sync: Sync,
    near: Proxy,
    insert: Callable[[int], str],
    act: Callable[[Sync, Proxy], None],
    first: int,
) -> None:
    """Acts while pieces of a transaction are on the target and its end is not."""
    before = told(sync).changes_applied
    near.delay(SLOW)
    sync.source.execute(insert(first))
    sync.waits_for(lambda: told(sync).changes_applied > before, "a piece has been written")
    act(sync, near)
    there = sync.target.rows(f"SELECT count(*) FROM events WHERE id > {first}")
    assert there == [(0,)], f"{act.__name__}: {there}"
    near.delay(0.0)
    if not sync.running.running:
        sync.start()
    sync.catch_up()
    there = sync.target.rows(f"SELECT count(*) FROM events WHERE id > {first}")
    assert there == [(ROWS,)], f"{act.__name__}: {there}\n{sync.log_tail()}"


def survives(
    source: Source, target: Target, make_sync: MakeSync, insert: Callable[[int], str]
) -> None:
    with Proxy(source.server.port) as near:
        sync = make_sync(source, target, ("events", "markers"), source_url=near.url(source.url))
        sync.start()
        sync.wait_copied()
        target.count_writes("events")
        for number, act in enumerate((cut, stop)):
            cut_short(sync, near, insert, act, number * ROWS)
        sync.assert_nothing_healed()
    # Each row was written once, because as many writes as rows were of as many rows.
    writes = target.rows("SELECT count(*), count(DISTINCT id) FROM events_writes")
    assert writes == [(2 * ROWS, 2 * ROWS)]


def test_from_postgres(source_db: Database, target: Target, make_sync: MakeSync) -> None:
    """Scenarios 1 and 7, for every target."""
    source_db.execute("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
    source_db.execute("CREATE TABLE markers (id bigint PRIMARY KEY)")

    def insert(first: int) -> str:
        rows = f"generate_series({first + 1}, {first + ROWS}) g"
        return f"INSERT INTO events SELECT g, repeat('x', 100) FROM {rows}"

    survives(source_db, target, make_sync, insert)


@some_pairs("mariadb-mariadb", "mariadb-sqlite")
def test_from_mysql(pair: Pair, make_sync: MakeSync) -> None:
    """The same from MariaDB and MySQL, in every pair."""
    pair.source.execute("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
    pair.source.execute("CREATE TABLE markers (id bigint PRIMARY KEY)")

    def insert(first: int) -> str:
        return f"INSERT INTO events SELECT {first} + n, REPEAT('x', 100) FROM {numbers(ROWS)}"

    survives(pair.source, pair.target, make_sync, insert)
