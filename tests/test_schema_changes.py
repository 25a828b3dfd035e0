"""What the README says of each kind of DDL on the source, with a real worker: into every kind of target
where that has a say in it, else into one."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import psycopg
import pytest

from tests.databases import Database, wait_until
from tests.syncs import MakeSync, Sync
from tests.targets import PostgresTarget, SqliteTarget, Target, differences, tables_of
from tests.test_snapshot import ROWS, make_wide

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
    """Once it is there the sync goes on, and copies what rows that did not change have in it."""
    sync.source.execute("ALTER TABLE t ADD COLUMN c text DEFAULT 'new'")
    sync.source.execute("INSERT INTO t VALUES (3, 'three', 'z', 'c')")
    stops(sync, "no column c", "ADD COLUMN")
    assert rows_of(sync) == [(1, "one", "x"), (2, "two", "y")]
    sync.target.execute("ALTER TABLE t ADD COLUMN c text")
    sync.finish()
    assert rows_of(sync) == [(1, "one", "x", "new"), (2, "two", "y", "new"), (3, "three", "z", "c")]


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


CONVERTED: Final = {
    "a type, USING": "ALTER TABLE t ALTER COLUMN a TYPE varchar(4) USING 'x' || left(a, 3)",
    "a type, rounding": "ALTER TABLE t ALTER COLUMN n TYPE numeric(6, 1)",
    "a default": "ALTER TABLE t ADD COLUMN c text DEFAULT 'new'",
    "a volatile default": "ALTER TABLE t ADD COLUMN c text DEFAULT gen_random_uuid()::text",
    "another under its name": "ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN b text",
    "swapped names": """ALTER TABLE t RENAME COLUMN b TO x; ALTER TABLE t RENAME COLUMN c TO b;
        ALTER TABLE t RENAME COLUMN x TO c""",
    "no longer generated": "ALTER TABLE t ALTER COLUMN g DROP EXPRESSION",
    "the same type, USING": "ALTER TABLE t ALTER COLUMN b TYPE text USING upper(b)",
    "a zone": "SET timezone = 'UTC'; ALTER TABLE t ALTER COLUMN s TYPE timestamptz",
    "a domain's default": "CREATE DOMAIN d AS text DEFAULT 'new'; ALTER TABLE t ADD COLUMN c d",
    "a default that is gone": """ALTER TABLE t ADD COLUMN c text DEFAULT gen_random_uuid()::text;
        ALTER TABLE t ALTER COLUMN c DROP DEFAULT""",
}


@pytest.mark.parametrize("streams", [True, False], ids=["streaming", "down"])
@pytest.mark.parametrize("alter", CONVERTED.values(), ids=CONVERTED)
def test_values_that_an_alter_changes_come_with_a_copy(
    source_db: Database, one_target: Target, make_sync: MakeSync, alter: str, *, streams: bool
) -> None:
    """They are not in the log. The table is copied anew by itself, behind what the log has of before, and
    no other is."""
    source_db.execute(
        """CREATE TABLE markers (id int PRIMARY KEY);
        CREATE TABLE t (id int PRIMARY KEY, a varchar(5), b text, n numeric(6, 2),
            g int GENERATED ALWAYS AS (id * 2) STORED, s timestamp DEFAULT '2026-01-31');
        INSERT INTO t VALUES (1, 'one', 'x', 1.26), (2, 'two', 'y', 2.34), (3, 'tri', 'z', 3.19)"""
    )
    if "COLUMN c TO" in alter:
        source_db.execute("ALTER TABLE t ADD COLUMN c text; UPDATE t SET c = 'c of ' || id")
    sync = make_sync(source_db, one_target, ["public.*"])
    sync.finish()
    if "ADD COLUMN c" in alter:
        one_target.execute("ALTER TABLE t ADD COLUMN c text")
    elif "COLUMN g" in alter:
        one_target.execute("ALTER TABLE t ADD COLUMN g int")
    if streams:
        sync.start()
        sync.catch_up()
    source_db.execute("UPDATE t SET b = 'of before' WHERE id = 2")
    source_db.execute(alter)
    source_db.execute("UPDATE t SET b = 'of now' WHERE id = 3")
    if not streams:
        sync.start()
    wait_until(lambda: not differences(source_db, one_target, ["t"]), 60, "it is copied again")
    source_db.execute("DELETE FROM t WHERE id = 1")
    sync.catch_up()
    sync.assert_equal("t")
    assert sync.log_count("INFO s1 table-planned table=public.t ") == 2
    assert sync.log_count("INFO s1 table-planned table=public.markers ") == 1


@into_one_target
def test_another_name_and_other_values(sync: Sync) -> None:
    """A column that was renamed is still the one whose values an ALTER has changed."""
    sync.source.execute(
        """ALTER TABLE t RENAME COLUMN b TO bb;
        ALTER TABLE t ALTER COLUMN bb TYPE text USING upper(bb)"""
    )
    sync.target.execute("ALTER TABLE t RENAME COLUMN b TO bb")
    sync.finish()
    sync.assert_equal("t")


def test_an_alter_of_partitions_that_have_come_since(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """Of those that were copied none is left to tell whether they were written anew, as where old months
    are dropped: the table is copied anew."""
    source_db.execute(
        """CREATE TABLE m (id int PRIMARY KEY, b varchar(9)) PARTITION BY RANGE (id);
        CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (1) TO (10); INSERT INTO m VALUES (1, 'x')"""
    )
    sync = make_sync(source_db, one_target, ["m"])
    sync.finish()
    source_db.execute(
        """CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20);
        INSERT INTO m VALUES (11, 'y'); DELETE FROM m WHERE id = 1; DROP TABLE m1"""
    )
    sync.finish()
    source_db.execute("ALTER TABLE m ALTER COLUMN b TYPE varchar(5) USING upper(b)")
    sync.finish()
    sync.assert_equal("m")


def test_an_alter_in_the_middle_of_a_copy(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """What was copied is copied again, and what the log has of before is not redone on top of that."""
    make_wide(source_db, 2 * ROWS)
    sync = make_sync(source_db, one_target, ("wide", "markers"))
    sync.start()
    sync.waits_for(lambda: sync.log_count("table-planned table=public.wide "), "it has begun")
    # Not while it is held: it may have the table locked.
    source_db.execute("UPDATE wide SET body = 'of before' WHERE id % 100 = 0")
    source_db.execute("ALTER TABLE wide ALTER COLUMN body TYPE varchar(9) USING left(body, 5)")
    wait_until(
        lambda: one_target.rows("SELECT count(*) FROM wide WHERE body = 'of be'") == [(200,)],
        message="it is copied again",
    )
    sync.wait_copied()
    sync.catch_up()
    sync.assert_equal()


@pytest.mark.parametrize(
    "alter",
    [
        "ALTER TABLE t ADD COLUMN c text",
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t ALTER COLUMN a TYPE varchar(20)",
        "ALTER TABLE t ALTER COLUMN a TYPE text",
        "ALTER TABLE t ALTER COLUMN b SET DEFAULT 'z', ALTER COLUMN b SET NOT NULL",
        "ALTER TABLE t ALTER COLUMN b SET STATISTICS 9; ALTER TABLE t ALTER COLUMN a SET STORAGE MAIN",
        "VACUUM FULL t",
        "ALTER TABLE t RENAME COLUMN b TO bb",
    ],
)
@into_one_target
def test_an_alter_that_leaves_rows_alone_costs_no_copy(sync: Sync, alter: str) -> None:
    """A large table is not copied again because it has one column more."""
    sync.source.execute(alter)
    if "RENAME" in alter:
        sync.target.execute(alter)
    sync.finish()
    assert sync.log_count("table-planned table=public.t ") == 1


SHAPES: Final = (
    "UPDATE t SET a = 'uno' WHERE id = 1",
    "INSERT INTO t VALUES (5, 'first', 'life'), (6, 'kept', 'old')",
    "INSERT INTO t SELECT g, 'many', 'first' FROM generate_series(100, 199) g",
    """BEGIN; INSERT INTO t VALUES (3, 'three', 'z'); ALTER TABLE t DROP COLUMN b;
        UPDATE t SET a = 'tres' WHERE id = 3; INSERT INTO t VALUES (4, 'four');
        UPDATE t SET a = 'in 2' WHERE id = 5; COMMIT""",
    "DELETE FROM t WHERE id = 5 OR id BETWEEN 100 AND 149",
    "UPDATE t SET a = 'short' WHERE id >= 150",
    "UPDATE t SET id = 7 WHERE id = 6",
    "ALTER TABLE t ADD COLUMN c text",
    "INSERT INTO t SELECT g, 'many', 'second' FROM generate_series(100, 119) g",
    "UPDATE t SET c = 'later' WHERE id >= 180",
    "UPDATE t SET c = 'see' WHERE id IN (2, 4)",
    "INSERT INTO t VALUES (5, 'anew', 'life')",
    "ALTER TABLE t ALTER COLUMN a TYPE text",
    "UPDATE t SET c = 'text' WHERE id = 4",
    "INSERT INTO t VALUES (8, '88', '8')",
)
ROW_BY_ROW: Final = [
    (1, "uno", "x", None),
    (2, "two", "y", "see"),
    (3, "tres", "z", None),
    (4, "four", None, "text"),
    (5, "anew", None, "life"),
    # A new key is a new row.
    (7, "kept", None, None),
    (8, "88", None, "8"),
    *((n, "many", None, "second") for n in range(100, 120)),
    *((n, "short", "first", None) for n in range(150, 180)),
    *((n, "short", "first", "later") for n in range(180, 200)),
]

REWRITTEN: Final = (
    *SHAPES,
    "ALTER TABLE t ALTER COLUMN a TYPE int USING length(a)",
    "UPDATE t SET c = 'of int' WHERE id = 4",
    "INSERT INTO t VALUES (9, 99, '9')",
    "ALTER TABLE t DROP COLUMN c, ADD COLUMN c text",
    "UPDATE t SET c = 'again' WHERE id = 5",
)


@pytest.mark.parametrize("changes", [SHAPES, REWRITTEN], ids=["kept", "rewritten"])
@pytest.mark.parametrize("at_once", [False, True], ids=["backlog", "one-batch"])
def test_every_row_is_read_in_its_own_shape(
    sync: Sync, changes: tuple[str, ...], at_once: bool
) -> None:
    """Scenario 10: changes from before, between and behind several ALTERs are decoded with the shapes that
    they were written with, be it one row's whole life, be the ALTER within its transaction."""
    sync.target.execute("ALTER TABLE t ADD COLUMN c text")
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
    if changes is SHAPES:
        assert rows_of(sync) == ROW_BY_ROW
    else:
        there = sync.source.rows("SELECT id, a::text, c FROM t ORDER BY id")
        assert sorted(sync.target.rows("SELECT id, a, c FROM t")) == there
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
    """At the first change it is copied under that; the old table stays."""
    sync.start()
    sync.catch_up()
    sync.source.execute("ALTER TABLE t RENAME TO u")
    sync.source.execute("UPDATE u SET b = 'new' WHERE id = 1")
    sync.catch_up()
    sync.wait_copied()
    assert "table public.t is called public.u now" in sync.log_tail()
    sync.assert_equal("u")
    assert rows_of(sync) == [(1, "one", "x"), (2, "two", "y")]


AND_BACK: Final = (
    "ALTER TABLE t RENAME TO u",
    "UPDATE u SET b = 'renamed' WHERE id = 1; INSERT INTO u VALUES (3, 'three', 'z')",
    "ALTER TABLE u RENAME TO t",
)


@into_one_target
@pytest.mark.parametrize("how", ["one transaction", "down", "streaming"])
def test_a_table_that_is_renamed_and_back(sync: Sync, how: str) -> None:
    """What it was called in between does not matter: its changes are its own."""
    if how == "one transaction":
        sync.start()
        sync.catch_up()
        sync.source.execute(";".join(AND_BACK))
    elif how == "down":
        for statement in AND_BACK:
            sync.source.execute(statement)
        sync.start()
    else:
        sync.start()
        sync.catch_up()
        for statement in AND_BACK:
            sync.source.execute(statement)
            sync.catch_up()
    sync.source.execute("DELETE FROM t WHERE id = 2")
    sync.catch_up()
    sync.wait_copied()
    sync.assert_equal("t")


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
@pytest.mark.parametrize(
    ("altering", "words"),
    [
        (
            "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (a, id)",
            "has no unique index on the key (a, id)",
        ),
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", "public.t has lost its key"),
    ],
    ids=["another key", "none"],
)
def test_another_key_with_identity_full(sync: Sync, altering: str, words: str) -> None:
    """With REPLICA IDENTITY FULL the log does not say what tells rows apart. Under an old key, rows that
    are two since it was changed would overwrite each other: the sync stops at the first of them."""
    sync.source.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    sync.start()
    sync.source.execute("UPDATE t SET b = 'before' WHERE id = 2")
    sync.catch_up()
    sync.source.execute(altering)
    sync.source.execute("INSERT INTO t VALUES (1, 'other', 'z')")
    assert sync.running.wait() == 1
    assert words in sync.log_tail()
    assert rows_of(sync) == [(1, "one", "x"), (2, "two", "before")]


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
