"""What the README says of each kind of DDL on the source, with a real worker: into every kind of target
where that has a say in it, else into one."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import psycopg
import pytest

from tests.databases import Database, wait_until
from tests.syncs import MakeSync, Sync
from tests.targets import PostgresTarget, SqliteTarget, Target, tables_of

SCHEMA: Final = """
    CREATE TABLE markers (id int PRIMARY KEY);
    CREATE TABLE t (id int PRIMARY KEY, a varchar(5), b text);
    INSERT INTO t VALUES (1, 'one', 'x'), (2, 'two', 'y')"""


into_one_target = pytest.mark.parametrize("target", ["sqlite"], indirect=True)


@pytest.fixture
def sync(source_db: Database, target: Target, make_sync: MakeSync) -> Sync:
    """A sync of every table in `public` that was copied once; nothing runs."""
    source_db.execute(SCHEMA)
    made = make_sync(source_db, target, ["public.*"])
    made.finish()
    return made


def stops(sync: Sync, *words: str) -> None:
    """The next run ends for good, and these words say why."""
    assert sync.start("--until-current").wait() == 1, sync.log_tail()
    for word in words:
        assert word in sync.log_tail(), sync.log_tail()


def rows_of(sync: Sync, table: str = "t") -> list[tuple[object, ...]]:
    return sorted(sync.target.rows(f"SELECT * FROM {table}"))


def test_an_added_column_stops_the_sync_and_names_the_statement(sync: Sync) -> None:
    """Once it is there the sync goes on; rows that did not change have it after a new copy."""
    sync.source.execute("ALTER TABLE t ADD COLUMN c text DEFAULT 'new'")
    sync.source.execute("INSERT INTO t VALUES (3, 'three', 'z', 'c')")
    stops(sync, "no column c", "ADD COLUMN")
    assert rows_of(sync) == [(1, "one", "x"), (2, "two", "y")]
    sync.target.execute("ALTER TABLE t ADD COLUMN c text")
    sync.finish()
    assert rows_of(sync) == [(1, "one", "x", None), (2, "two", "y", None), (3, "three", "z", "c")]
    sync.start()
    sync.request("public.t")
    sync.assert_equal("t")


def test_a_dropped_column_stays_on_the_target(sync: Sync) -> None:
    """Rows keep what they had there; new ones have NULL."""
    sync.source.execute("ALTER TABLE t DROP COLUMN b")
    sync.source.execute("INSERT INTO t VALUES (3, 'three')")
    sync.source.execute("UPDATE t SET a = 'uno' WHERE id = 1")
    sync.finish()
    assert rows_of(sync) == [(1, "uno", "x"), (2, "two", "y"), (3, "three", None)]


def test_a_renamed_column_is_renamed_by_hand(sync: Sync) -> None:
    """It stops the sync as one that is missing; after the same on the target all is equal."""
    sync.source.execute("ALTER TABLE t RENAME COLUMN b TO bb")
    sync.source.execute("UPDATE t SET bb = 'new' WHERE id = 1")
    stops(sync, "no column bb")
    sync.target.execute("ALTER TABLE t RENAME COLUMN b TO bb")
    sync.finish()
    sync.assert_equal("t")


def test_a_widened_column_is_widened_by_hand(sync: Sync) -> None:
    """A server refuses what does not fit, and the sync names table and cause; SQLite takes it."""
    sync.source.execute("ALTER TABLE t ALTER COLUMN a TYPE varchar(20)")
    sync.source.execute("INSERT INTO t VALUES (3, 'longer than five', 'z')")
    if not isinstance(sync.target, SqliteTarget):
        stops(sync, "table public.t (key id): a value is too long for column")
        how = "ALTER COLUMN a TYPE" if isinstance(sync.target, PostgresTarget) else "MODIFY a"
        sync.target.execute(f"ALTER TABLE t {how} varchar(20)")
    sync.finish()
    sync.assert_equal("t")


@into_one_target
def test_values_that_an_alter_converts_come_with_a_copy(sync: Sync) -> None:
    """They are not in the log: rows that nobody writes keep what they had until then."""
    sync.source.execute("ALTER TABLE t ALTER COLUMN a TYPE varchar(4) USING 'x' || left(a, 3)")
    sync.source.execute("UPDATE t SET b = 'again' WHERE id = 2")
    sync.finish()
    assert rows_of(sync) == [(1, "one", "x"), (2, "xtwo", "again")]
    sync.start()
    sync.request("public.t")
    sync.assert_equal("t")


@pytest.mark.parametrize("at_once", [False, True], ids=["backlog", "one-batch"])
def test_every_row_is_read_in_its_own_shape(sync: Sync, at_once: bool) -> None:
    """Scenario 10: changes from before, between and behind several ALTERs are decoded with the shapes that
    they were written with, be it one row's whole life, be the ALTER within its transaction."""
    changes = (
        "UPDATE t SET a = 'uno' WHERE id = 1",
        "INSERT INTO t VALUES (5, 'first', 'life'), (6, 'kept', 'old')",
        "INSERT INTO t SELECT g, 'many', 'first' FROM generate_series(100, 199) g",
        """BEGIN; INSERT INTO t VALUES (3, 'three', 'z'); ALTER TABLE t DROP COLUMN b;
            UPDATE t SET a = 'tres' WHERE id = 3; INSERT INTO t VALUES (4, 'four');
            UPDATE t SET a = 'in 2' WHERE id = 5; COMMIT""",
        "DELETE FROM t WHERE id = 5 OR id BETWEEN 100 AND 149",
        "UPDATE t SET a = 'short' WHERE id >= 150",
        "UPDATE t SET id = 7 WHERE id = 6",
        # The table's first shape, once more.
        "ALTER TABLE t ADD COLUMN b text",
        "INSERT INTO t SELECT g, 'many', 'second' FROM generate_series(100, 119) g",
        "UPDATE t SET b = 'later' WHERE id >= 180",
        "UPDATE t SET b = 'bee' WHERE id IN (2, 4)",
        "INSERT INTO t VALUES (5, 'anew', 'life')",
        "ALTER TABLE t ALTER COLUMN a TYPE int USING length(a)",
        "UPDATE t SET b = 'of int' WHERE id = 4",
        "INSERT INTO t VALUES (8, 88, '8')",
    )
    if at_once:
        sync.start()
        sync.catch_up()
        with sync.running.held():
            for statement in changes:
                sync.source.execute(statement)
        sync.catch_up()
    else:
        for statement in changes:
            sync.source.execute(statement)
    sync.finish()
    rows = rows_of(sync)
    assert rows[:7] == [
        (1, "uno", "x"),
        (2, "two", "bee"),
        (3, "tres", "z"),
        (4, "4", "of int"),
        (5, "anew", "life"),
        # A new key is a new row.
        (7, "kept", None),
        (8, "88", "8"),
    ]
    assert rows[7:] == [
        *((n, "many", "second") for n in range(100, 120)),
        *((n, "short", "first") for n in range(150, 180)),
        *((n, "short", "later") for n in range(180, 200)),
    ]
    sync.assert_nothing_healed()


def test_a_new_value_of_an_enum_comes_as_text(
    source_db: Database, target: Target, make_sync: MakeSync
) -> None:
    """A column of an enum that the target does not have is text there."""
    source_db.execute("CREATE TYPE mood AS ENUM ('fine')")
    source_db.execute("CREATE TABLE m (id int PRIMARY KEY, mood mood)")
    source_db.execute("INSERT INTO m VALUES (1, 'fine')")
    sync = make_sync(source_db, target, ["m"])
    sync.finish()
    source_db.execute("ALTER TYPE mood ADD VALUE 'great'")
    source_db.execute("INSERT INTO m VALUES (2, 'great')")
    sync.finish()
    assert rows_of(sync, "m") == [(1, "fine"), (2, "great")]


@into_one_target
def test_a_created_table_joins_at_the_next_start(sync: Sync) -> None:
    """A running worker does not know it; the next one copies it."""
    sync.start()
    sync.catch_up()
    sync.source.execute("CREATE TABLE later (id int PRIMARY KEY)")
    sync.source.execute("INSERT INTO later VALUES (1)")
    sync.catch_up()
    assert "public.later" not in tables_of(sync.target, sync.name)
    sync.finish()
    sync.assert_equal("later")


@into_one_target
def test_a_renamed_table_goes_on_under_its_new_name(sync: Sync) -> None:
    """Changes go there at once, the other rows with the next start; the old table stays."""
    sync.start()
    sync.catch_up()
    sync.source.execute("ALTER TABLE t RENAME TO u")
    sync.source.execute("UPDATE u SET b = 'new' WHERE id = 1")
    sync.catch_up()
    assert rows_of(sync, "u") == [(1, "one", "new")]
    sync.finish()
    sync.assert_equal("u")
    assert rows_of(sync) == [(1, "one", "x"), (2, "two", "y")]


@into_one_target
def test_a_dropped_key_does_not_stop_the_application(sync: Sync) -> None:
    """PostgreSQL refuses updates of published rows that nothing identifies: the table leaves the
    publication within seconds, the others go on, and with a key it is copied again."""
    sync.start()
    sync.catch_up()
    sync.source.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")

    def updated() -> bool:
        with suppress(psycopg.errors.ObjectNotInPrerequisiteState):
            sync.source.execute("UPDATE t SET b = 'without a key' WHERE id = 1")
            return True
        return False

    assert not updated()
    wait_until(updated, message="the application may write again")
    sync.catch_up()
    assert "public.t has lost its replica identity" in sync.log_tail()
    sync.source.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
    sync.source.execute("INSERT INTO t VALUES (3, 'three', 'z')")
    sync.finish()
    sync.assert_equal("t")


@into_one_target
def test_a_renamed_table_that_is_named_stops_the_next_start(
    source_db: Database, target: Target, make_sync: MakeSync
) -> None:
    """Rather than to sync nothing."""
    source_db.execute(SCHEMA)
    sync = make_sync(source_db, target, ["t"])
    sync.finish()
    source_db.execute("ALTER TABLE t RENAME TO u")
    stops(sync, "table t does not exist on the source")


@into_one_target
def test_a_dropped_table_stays_on_the_target(sync: Sync) -> None:
    """Its rows are not the sync's to delete."""
    sync.source.execute("UPDATE t SET b = 'last' WHERE id = 1")
    sync.source.execute("DROP TABLE t")
    sync.finish()
    sync.finish()
    assert [row[0] for row in rows_of(sync)] == [1, 2]


def test_a_generated_column_is_not_in_the_log(
    source_db: Database, target: Target, make_sync: MakeSync
) -> None:
    """A table that the sync makes does not have it; one of the user's own computes it."""
    made = "id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED"
    source_db.execute(f"CREATE TABLE ours ({made}); CREATE TABLE theirs ({made})")
    target.execute(f"CREATE TABLE theirs ({made.replace('id int', 'id integer NOT NULL')})")
    for table in ("ours", "theirs"):
        source_db.execute(f"INSERT INTO {table} VALUES (1, 5)")
    sync = make_sync(source_db, target, ["public.*"])
    sync.finish()
    source_db.execute("UPDATE ours SET a = 7; UPDATE theirs SET a = 7")
    sync.finish()
    assert rows_of(sync, "ours") == [(1, 7)]
    assert rows_of(sync, "theirs") == [(1, 7, 14)]
