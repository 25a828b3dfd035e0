"""Every change of MariaDB and MySQL arrives once: under kill -9, whatever is being done at that moment."""

from __future__ import annotations

import random

import pytest

from tests.killing import STREAMING, Killing
from tests.mysql_crm import TABLES, fill, large_transaction
from tests.mysql_pairs import Pair, some_pairs
from tests.mysql_workload import Workload
from tests.syncs import MakeSync, Sync
from tests.targets import written_twice


def survive(pair: Pair, sync: Sync, seed: int, *, rounds: int, large: int) -> int:
    """The workload runs while the sync is killed, first in its copy and then in its stream; at the end
    every row is equal and every event was written once. Returns the number of kills."""
    source, target = pair
    pair.make_tables()
    fill(source.connect())
    killing = Killing(sync, random.Random(f"{seed}/kills"))
    with Workload(source, seed) as workload:
        killing.in_copies(min(rounds, 3))
        sync.start()
        sync.wait_copied()
        target.count_writes("events")
        since = source.value("SELECT MAX(id) FROM events")
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


@some_pairs("mariadb-postgres", "mysql-mysql")
def test_killed_at_every_point(pair: Pair, make_sync: MakeSync, seed: int) -> None:
    """Exactly once, under SIGKILL at every named point and at random moments, in copy and stream."""
    sync = make_sync(pair.source, pair.target, TABLES)
    assert survive(pair, sync, seed, rounds=1, large=30_000) >= 10


@pytest.mark.faults
def test_killed_again_and_again(pair: Pair, make_sync: MakeSync, seed: int) -> None:
    """The same with more than fifty kills on each target, and a transaction of 200,000 rows."""
    sync = make_sync(pair.source, pair.target, TABLES)
    assert survive(pair, sync, seed, rounds=7, large=200_000) >= 50
