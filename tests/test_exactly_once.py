"""Every change of the source arrives once: under kill -9, whatever is being done at that moment."""

from __future__ import annotations

import random

import pytest

from tests.crm import SCHEMA, TABLES, fill, large_transaction
from tests.databases import Database
from tests.killing import STREAMING, Killing
from tests.syncs import MakeSync, Sync
from tests.targets import Target, written_twice
from tests.workload import Workload


def survive(
    source: Database, target: Target, sync: Sync, seed: int, *, rounds: int, large: int
) -> int:
    """The workload runs while the sync is killed, first in its copy and then in its stream; at the end
    every row is equal and every event was written once. Returns the number of kills."""
    source.execute(SCHEMA)
    fill(source.connect())
    target.make_tables(SCHEMA)
    killing = Killing(sync, random.Random(f"{seed}/kills"))
    with Workload(source.url, seed) as workload:
        killing.in_copies(1)
        workload.truncate_too()
        killing.in_copies(min(rounds, 3) - 1)
        sync.start()
        sync.wait_copied()
        target.count_writes("events")
        since = source.value("SELECT max(id) FROM events")
        sync.running.kill()
        for number in range(rounds):
            if number == rounds // 2:
                large_transaction(source.connect(), large)
            killing.at_points(STREAMING, most=4)
            killing.at_random(2, longest=1.5)
        assert workload.commits > 10 * killing.kills
    sync.finish(timeout=300)
    sync.assert_equal()
    sync.assert_nothing_healed()
    assert not written_twice(source, target, "events", since)
    return killing.kills


def test_killed_at_every_point(
    source_db: Database, target: Target, make_sync: MakeSync, seed: int
) -> None:
    """Exactly once, under SIGKILL at every named point and at random moments, in copy and stream."""
    sync = make_sync(source_db, target, TABLES)
    assert survive(source_db, target, sync, seed, rounds=1, large=30_000) >= 10


@pytest.mark.faults
def test_killed_again_and_again(
    source_db: Database, target: Target, make_sync: MakeSync, seed: int
) -> None:
    """The same with more than fifty kills on each target, and a transaction of 200,000 rows."""
    sync = make_sync(source_db, target, TABLES)
    assert survive(source_db, target, sync, seed, rounds=7, large=200_000) >= 50


def test_a_killed_daemon(
    source_db: Database, one_target: Target, make_sync: MakeSync, seed: int
) -> None:
    """The daemon's own death takes its worker along, and the next daemon goes on where that one was."""
    source_db.execute(SCHEMA)
    fill(source_db.connect())
    sync = make_sync(source_db, one_target, TABLES)
    sync.start(daemon=True)
    sync.wait_copied()
    one_target.count_writes("events")
    since = source_db.value("SELECT max(id) FROM events")
    with Workload(source_db.url, seed, slow=0, pace=0.02) as workload:
        workload.truncate_too()
        for _ in range(2):
            sync.catch_up()
            sync.running.kill()
            sync.start(daemon=True)
        sync.catch_up()
    sync.running.stop()
    assert sync.start("--until-current", daemon=True).wait() == 0
    sync.assert_equal()
    assert not written_twice(source_db, one_target, "events", since)
