"""A target that works for long is told from one that hangs: the daemon kills a worker only for the second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from appliers.batch import Chunk
from cdc import witness
from tests.applier_bed import A, Bed
from tests.databases import Database, wait_until
from tests.proxy import Proxy
from tests.syncs import MakeSync, Sync, told
from tests.targets import MysqlTarget, PostgresTarget, SqliteTarget, Target
from tests.test_worker import SCHEMA, TABLES, running

pytest_plugins = ["tests.applier_fixtures"]

LONG: Final = 4.0
"""Seconds that the target takes for a row."""


def make_slow(target: Target) -> None:
    """From now on each row of `events` keeps the target busy for about LONG seconds."""
    if isinstance(target, PostgresTarget):
        target.execute(f"""
            CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_sleep({LONG}); RETURN NULL; END $$;
            CREATE TRIGGER slow AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow();
            ALTER TABLE events ENABLE ALWAYS TRIGGER slow""")
    elif isinstance(target, MysqlTarget):
        target.execute(
            f"CREATE TRIGGER slow AFTER INSERT ON events FOR EACH ROW SET @slept = SLEEP({LONG})"
        )
    else:
        assert isinstance(target, SqliteTarget)
        begun = time.monotonic()
        target.rows(_counting(3_000_000))
        rows = int(3_000_000 * LONG / (time.monotonic() - begun))
        target.execute(f"CREATE TRIGGER slow AFTER INSERT ON events BEGIN {_counting(rows)}; END")


def _counting(rows: int) -> str:
    return (
        "SELECT count(*) FROM (WITH RECURSIVE c(i) AS"
        f" (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT {rows}) SELECT i FROM c)"
    )


def standing(sync: Sync, until: float) -> float:
    """The longest time in seconds that the worker's beat has stood, watched until a clock's time."""
    longest, beat, since = 0.0, -1, time.monotonic()
    while (now := time.monotonic()) < until:
        live = sync.live()
        if live is not None and live.beat != beat:
            beat, since = live.beat, now
        longest = max(longest, now - since)
        time.sleep(0.05)
    return longest


def test_a_target_that_works_for_long_is_progress(
    source_db: Database, target: Target, make_sync: MakeSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beat goes on inside one statement, for as long as the target says that it works on it."""
    monkeypatch.setattr(witness, "LOOK_EVERY", 0.3)
    source_db.execute(SCHEMA)
    sync = make_sync(source_db, target, TABLES)
    with running(sync):
        wait_until(lambda: told(sync).state == "streaming", message="it streams")
        make_slow(target)
        source_db.execute("INSERT INTO events VALUES (1, 'slow')")
        wait_until(lambda: (told(sync).lag_seconds or 0) > 0.5, message="the target is at it")
        assert standing(sync, time.monotonic() + LONG - 1) < LONG / 2
        wait_until(lambda: sync.target.rows("SELECT id FROM events") == [(1,)], 60, "it arrives")


def test_a_target_that_hangs_is_no_progress(
    source_db: Database,
    target_db: Database,
    make_sync: MakeSync,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that lives and says nothing gives no beat, so that the daemon may end the worker."""
    monkeypatch.setattr(witness, "LOOK_EVERY", 0.3)
    source_db.execute(SCHEMA)
    with Proxy(target_db.server.port) as proxy:
        sync = make_sync(source_db, PostgresTarget(target_db, proxy.url(target_db.url)), TABLES)
        with running(sync):
            wait_until(lambda: told(sync).state == "streaming", message="it streams")
            with proxy.stalled():
                source_db.execute("INSERT INTO events VALUES (1, 'stuck')")
                wait_until(lambda: (told(sync).lag_seconds or 0) > 0.5, message="it waits")
                assert standing(sync, time.monotonic() + 3) > 2.5
            wait_until(
                lambda: sync.target.rows("SELECT id FROM events") == [(1,)], 60, "it arrives"
            )


def test_a_target_that_waits_for_us_does_not_work(bed: Bed) -> None:
    """In the middle of a copy whose source says nothing, the statement runs and nobody works."""
    applier = bed.open(begun=True)
    bed.plan(applier, 1)
    applier.prepare(bed.copied)
    held, goes_on = threading.Event(), threading.Event()

    def blocks() -> Iterator[list[bytes]]:
        # More than waits on our side: the target is in the middle of its statement.
        yield [
            bed.copied_image(A._replace(id=i, code=str(i), big="x" * 200)) for i in range(20_000)
        ]
        held.set()
        goes_on.wait(30)

    with copying(lambda: applier.copy(Chunk(bed.copied, 0, blocks()), "0/1")):
        assert held.wait(30)
        try:
            wait_until(lambda: not applier.works(), 5, "the target has worked off what it has")
        finally:
            goes_on.set()


@contextmanager
def copying(work: Callable[[], int]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)
