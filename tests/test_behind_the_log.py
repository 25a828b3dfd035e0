"""Rows that change behind the log's back: the sync sees it, streaming or at its next start, and copies the
table again by itself, and no other. What leaves rows alone costs no copy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

import pytest

from tests.databases import Database, wait_until
from tests.servers import on_every_source
from tests.syncs import MakeSync, Sync
from tests.targets import Target, differences, state_of, tables_of

SCHEMA: Final = """
    CREATE TABLE markers (id int PRIMARY KEY);
    CREATE TYPE mood AS ENUM ('fine', 'bad');
    CREATE TABLE t (id int, part int, mood mood, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
    CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
    CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2) PARTITION BY RANGE (id);
    CREATE TABLE t21 PARTITION OF t2 FOR VALUES FROM (0) TO (100);
    CREATE TABLE t22 PARTITION OF t2 FOR VALUES FROM (100) TO (200);
    CREATE TABLE apart (LIKE t INCLUDING ALL);
    INSERT INTO apart VALUES (1, 3, 'bad'), (2, 3, 'bad');
    INSERT INTO t SELECT g, 1 + g % 2, 'fine' FROM generate_series(1, 120) g"""

UNTOLD: Final = {
    "attached": "ALTER TABLE t ATTACH PARTITION apart FOR VALUES IN (3)",
    "detached": "ALTER TABLE t DETACH PARTITION t1",
    "dropped below": "DROP TABLE t22",
    "truncated": "TRUNCATE t1; INSERT INTO t VALUES (1000, 1, 'bad'); ANALYZE t1",
    "a value renamed": "ALTER TYPE mood RENAME VALUE 'fine' TO 'well'",
    "not all published": """ALTER PUBLICATION cdc_{name} SET (publish = 'insert');
        DELETE FROM t WHERE id = 8; UPDATE t SET mood = 'bad' WHERE id = 9;
        ALTER PUBLICATION cdc_{name} SET (publish = 'insert, update, delete, truncate')""",
}
BY_ITSELF: Final = UNTOLD.keys() - {"not all published"}
"""Of one table."""


@pytest.fixture
def sync(source_db: Database, one_target: Target, make_sync: MakeSync) -> Sync:
    """A sync of two tables that were copied once; nothing runs."""
    source_db.execute(SCHEMA)
    made = make_sync(source_db, one_target, ["t", "markers"])
    made.finish()
    return made


def copies(sync: Sync, table: str = "t") -> int:
    return sync.log_count(f"table-planned table=public.{table} ")


@on_every_source
@pytest.mark.parametrize("what", UNTOLD)
def test_seen_at_the_next_start(sync: Sync, what: str) -> None:
    """Whatever it was; and what the log has of before is not redone on top of the copy."""
    sync.source.execute("UPDATE t SET mood = 'bad' WHERE id IN (3, 4)")
    sync.source.execute(UNTOLD[what].format(name=sync.name))
    sync.source.execute("UPDATE t SET mood = 'bad' WHERE id = 5")
    sync.finish()
    sync.assert_equal("t")
    assert copies(sync) == 2
    assert copies(sync, "markers") == (1 if what in BY_ITSELF else 2)
    sync.finish()
    assert copies(sync) == 2


@pytest.mark.parametrize("what", ["attached", "truncated", "a value renamed", "not all published"])
def test_seen_while_it_streams(sync: Sync, source_db: Database, what: str) -> None:
    """Nobody has to start the sync again."""
    sync.start()
    sync.catch_up()
    sync.source.execute(UNTOLD[what].format(name=sync.name))
    wait_until(lambda: not differences(source_db, sync.target, ["t"]), 60, "it is copied again")
    sync.source.execute("UPDATE t SET mood = 'bad' WHERE id = 5; DELETE FROM t WHERE id = 6")
    sync.catch_up()
    sync.assert_equal("t")
    assert copies(sync) == 2
    assert copies(sync, "markers") == (1 if what in BY_ITSELF else 2)


def test_a_partition_that_came_while_it_streamed_and_went_while_it_was_down(sync: Sync) -> None:
    """What is seen to be harmless is kept on the target: what comes later is told from that."""
    sync.start()
    sync.catch_up()
    before = fingerprint(sync)
    sync.source.execute("CREATE TABLE t4 PARTITION OF t FOR VALUES IN (4)")
    sync.source.execute("INSERT INTO t SELECT g, 4, 'fine' FROM generate_series(1, 9) g")
    sync.waits_for(lambda: fingerprint(sync) != before, "the new partition is known")
    sync.running.kill()
    assert copies(sync) == 1
    sync.source.execute("DROP TABLE t4")
    sync.finish()
    sync.assert_equal("t")
    assert copies(sync) == 2


def test_a_fingerprint_of_an_earlier_version(sync: Sync) -> None:
    """Nothing is known of what it has not, which is no change; from then on it is known."""
    with state_of(sync.target, sync.name) as state:
        for table in state.tables().values():
            known = json.loads(table.fingerprint)
            old = {name: known[name] for name in ("entry", "columns", "files")}
            state.put_table(replace(table, fingerprint=json.dumps(old)))
    sync.finish()
    assert copies(sync) == 1
    sync.source.execute("TRUNCATE t1")
    sync.finish()
    sync.assert_equal("t")
    assert copies(sync) == 2


def fingerprint(sync: Sync) -> str:
    return tables_of(sync.target, sync.name)["public.t"].fingerprint
