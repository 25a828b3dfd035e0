"""A table that was out of the publication for a while is copied again, whatever befalls the session that
publishes it."""

from __future__ import annotations

from typing import Final

import pytest

from appliers.checkpoint import Copy, TableState
from tests.databases import Database, wait_until
from tests.syncs import MakeSync, Sync
from tests.targets import PostgresTarget, Target, differences, state_of

SCHEMA: Final = """
    CREATE TABLE markers (id int PRIMARY KEY);
    CREATE TABLE t (id int PRIMARY KEY, body text);
    INSERT INTO t SELECT g, 'of before' FROM generate_series(1, 50) g"""

MADE_AGAIN: Final = """
    DROP TABLE t;
    CREATE TABLE t (id int PRIMARY KEY, body text);
    INSERT INTO t SELECT g, 'made again' FROM generate_series(40, 60) g"""


def test_made_again_while_down(source_db: Database, target: Target, make_sync: MakeSync) -> None:
    """DROP and CREATE of a synced table take it out of the publication: the next start copies it, and
    the rows that only the old one had go."""
    sync = copied(source_db, target, make_sync)
    source_db.execute(MADE_AGAIN)
    sync.start()
    source_db.execute("UPDATE t SET body = 'and changed' WHERE id = 50")
    wait_until(lambda: not differences(source_db, target, ["t"]), 60, "the table is copied again")
    source_db.execute("UPDATE t SET body = 'and again' WHERE id = 50")
    sync.catch_up()
    sync.assert_equal("t")


@pytest.mark.parametrize(
    "altering",
    [
        MADE_AGAIN,
        """ALTER PUBLICATION cdc_{name} DROP TABLE t; DELETE FROM t WHERE id > 30;
        UPDATE t SET body = 'not in the log' WHERE id < 20; ALTER PUBLICATION cdc_{name} ADD TABLE t""",
    ],
    ids=["made again", "out for a while"],
)
def test_behind_a_backlog(
    source_db: Database, target: Target, make_sync: MakeSync, altering: str
) -> None:
    """What is copied is newer than what the log had of the table before, and is not overwritten by it: the
    log does not have what came in between, a DROP TABLE or rows that nobody published."""
    sync = copied(source_db, target, make_sync)
    source_db.execute("INSERT INTO t VALUES (1000, 'old'); UPDATE t SET body = 'old' WHERE id < 45")
    source_db.execute(altering.format(name=sync.name))
    source_db.execute("INSERT INTO t VALUES (1001, 'new'); UPDATE t SET body = 'new' WHERE id = 40")
    sync.finish()
    sync.assert_equal("t")


@pytest.mark.parametrize(
    "altering",
    [
        "ALTER PUBLICATION cdc_{name} DROP TABLE t",
        "ALTER PUBLICATION cdc_{name} SET TABLE t WHERE (id > 5), markers",
        MADE_AGAIN,
    ],
    ids=["dropped", "filtered", "made again"],
)
def test_taken_out_while_it_streams(
    source_db: Database, target: Target, make_sync: MakeSync, altering: str
) -> None:
    """Nobody has to start the sync again: it sees that changes are missing from the log, and copies."""
    sync = copied(source_db, target, make_sync)
    sync.start()
    sync.catch_up()
    source_db.execute(altering.format(name=sync.name))
    source_db.execute(
        "INSERT INTO t VALUES (1000, 'not in the log'); UPDATE t SET body = 'nor' WHERE id = 3"
    )
    wait_until(lambda: not differences(source_db, target, ["t"]), 60, "the table is copied again")
    source_db.execute("UPDATE t SET body = 'in the log' WHERE id = 1000")
    sync.catch_up()
    sync.assert_equal("t")


OUT_FOR_A_WHILE: Final = """
    ALTER PUBLICATION cdc_{name} DROP TABLE t;
    UPDATE t SET body = 'not in the log' WHERE id > 40;
    ALTER PUBLICATION cdc_{name} ADD TABLE t"""

PUBLISHED_BY_HAND: Final = MADE_AGAIN + "; ALTER PUBLICATION cdc_{name} ADD TABLE t"

SWAPPED: Final = """
    ALTER TABLE t RENAME TO other;
    ALTER TABLE u RENAME TO t;
    ALTER TABLE other RENAME TO u"""


@pytest.mark.parametrize("streams", [True, False], ids=["streaming", "down"])
@pytest.mark.parametrize(
    "altering",
    [OUT_FOR_A_WHILE, PUBLISHED_BY_HAND, SWAPPED],
    ids=["out for a while", "published by hand", "swapped"],
)
def test_published_under_the_same_name(
    source_db: Database, one_target: Target, make_sync: MakeSync, altering: str, *, streams: bool
) -> None:
    """The publication has every table that it should have, by name, and yet the log does not have every
    change since the copy: a table was out of it for a while, or another one has taken its name. It is
    copied again, and no other is."""
    source_db.execute(
        "CREATE TABLE u (id int PRIMARY KEY, body text); INSERT INTO u VALUES (7, 'u')"
    )
    sync = copied(source_db, one_target, make_sync)
    if streams:
        sync.start()
        sync.catch_up()
    source_db.execute(altering.format(name=sync.name))
    if not streams:
        sync.start()
    wait_until(
        lambda: not differences(source_db, one_target, ["t", "u"]), 60, "the table is copied again"
    )
    source_db.execute("UPDATE t SET body = 'in the log' WHERE id < 50; DELETE FROM t WHERE id = 50")
    sync.catch_up()
    sync.assert_equal("t", "u")
    assert sync.log_count("INFO s1 table-planned table=public.markers") == 1


@pytest.mark.parametrize(
    "altering",
    [OUT_FOR_A_WHILE, MADE_AGAIN, PUBLISHED_BY_HAND, SWAPPED],
    ids=["out for a while", "made again", "published by hand", "swapped"],
)
def test_a_backlog_of_before_does_not_come_back(
    source_db: Database, one_target: Target, make_sync: MakeSync, altering: str
) -> None:
    """What the log has of the table's former life, or of the time before it was out, is not redone on
    top of the copy: rows that it had written stay away, and those of now keep what they have."""
    source_db.execute(
        "CREATE TABLE u (id int PRIMARY KEY, body text); INSERT INTO u VALUES (7, 'u')"
    )
    sync = copied(source_db, one_target, make_sync)
    source_db.execute("INSERT INTO t VALUES (999, 'of before')")
    source_db.execute("UPDATE t SET body = 'of before' WHERE id IN (3, 45)")
    source_db.execute(altering.format(name=sync.name))
    sync.finish()
    sync.assert_equal("t", "u")


def test_a_backlog_of_before_a_table_left_the_sync_does_not_come_back(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """A table that was taken out of the configuration and comes back while the log of before is still there."""
    sync = copied(source_db, one_target, make_sync)
    source_db.execute("UPDATE t SET body = 'of before' WHERE id IN (3, 45)")
    with state_of(one_target, sync.name) as state:
        state.forget_table("public.t")
    source_db.execute(f"ALTER PUBLICATION cdc_{sync.name} DROP TABLE t")
    source_db.execute("UPDATE t SET body = 'while it was out' WHERE id = 3")
    source_db.execute("DELETE FROM t WHERE id = 45")
    sync.finish()
    sync.assert_equal("t")


def test_a_plan_that_nobody_can_read(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """As an earlier version has left it: nothing is known of the table, so that it is copied again, once."""
    sync = copied(source_db, one_target, make_sync)
    with state_of(one_target, sync.name) as state:
        state.put_table(TableState("public.t", Copy.DONE, fingerprint="16384:16384"))
    for _ in range(2):
        sync.finish()
    assert sync.log_count("table-outdated table=public.t") == 1
    sync.assert_equal("t")


def test_one_table_more_is_the_only_one_that_is_copied(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """What the publication has for the others stays as it is."""
    sync = copied(source_db, one_target, make_sync)
    source_db.execute("CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (7)")
    sync.finish()
    sync.assert_equal("t", "u")
    assert sync.log_count("INFO s1 table-planned table=public.t ") == 1


def test_killed_before_the_target_knows(
    source_db: Database, target_db: Database, make_sync: MakeSync
) -> None:
    """What is to be copied is written down on the target before the publication has the table: who finds
    it there could not tell any more that its rows were never in the log."""
    sync = copied(source_db, PostgresTarget(target_db), make_sync)
    source_db.execute(MADE_AGAIN)
    holder = target_db.connect(autocommit=False)
    holder.execute("LOCK TABLE cdc.cdc_table IN EXCLUSIVE MODE")
    sync.start()
    waits = "SELECT 1 FROM pg_locks WHERE relation = 'cdc.cdc_table'::regclass AND NOT granted"
    wait_until(lambda: target_db.rows(waits), message="the session writes down what it will copy")
    sync.running.kill()
    holder.rollback()
    sync.finish()
    sync.assert_equal("t")


def copied(source: Database, target: Target, make_sync: MakeSync) -> Sync:
    """A sync of every table in `public` that was copied once; nothing runs."""
    source.execute(SCHEMA)
    sync = make_sync(source, target, ["public.*"])
    sync.finish()
    return sync


def test_a_table_that_is_published_by_somebody_else(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """What was put into the publication by hand, before the sync knows of it, is copied with the next
    start; that a row of it has to be read again until then ends nothing."""
    sync = copied(source_db, one_target, make_sync)
    sync.start()
    sync.catch_up()
    source_db.execute(
        "CREATE TABLE u (id int PRIMARY KEY, n int, body text);"
        "ALTER TABLE u ALTER body SET STORAGE EXTERNAL;"
        "INSERT INTO u SELECT g, g, repeat('x', 5000) FROM generate_series(1, 5) g"
    )
    source_db.execute(
        f"ALTER PUBLICATION cdc_{sync.name} ADD TABLE u; UPDATE u SET n = 7 WHERE id = 1"
    )
    sync.catch_up()
    sync.running.stop()
    sync.finish()
    sync.assert_equal("t", "u")
