"""What the README says of each kind of DDL on MariaDB and MySQL, with a real worker: in every pair where
the target has a say in it, else from each source."""

from __future__ import annotations

from typing import Final

import pytest

from tests.killing import COPYING, STREAMING
from tests.mysql_crm import Connection, numbers, run
from tests.mysql_databases import MysqlDatabase
from tests.mysql_pairs import Pair, from_each_source
from tests.syncs import MakeSync, Sync
from tests.targets import SqliteTarget, state_of, tables_of

SCHEMA: Final = """
    CREATE TABLE markers (id int PRIMARY KEY);
    CREATE TABLE t (id int PRIMARY KEY, a varchar(5), b varchar(20));
    INSERT INTO t VALUES (1, 'one', 'x'), (2, 'two', 'y')"""


@pytest.fixture
def sync(pair: Pair, make_sync: MakeSync) -> Sync:
    """A sync of every table of the database that was copied once; nothing runs."""
    pair.source.execute(SCHEMA)
    made = make_sync(pair.source, pair.target, ["*"])
    made.finish()
    return made


def connection(sync: Sync) -> Connection:
    """A session of its own on the source."""
    assert isinstance(sync.source, MysqlDatabase)
    return sync.source.connect()


def stops(sync: Sync, *words: str) -> None:
    """The next run ends for good, and these words say why."""
    assert sync.start("--until-current").wait() == 1, sync.log_tail()
    for word in words:
        assert word in sync.log_tail(), sync.log_tail()


def rows_of(sync: Sync, table: str = "t") -> list[tuple[object, ...]]:
    return sorted(sync.target.rows(f"SELECT * FROM {table}"))


def test_an_added_column_stops_the_sync_and_names_the_statement(sync: Sync) -> None:
    """Once it is there the sync goes on, and rows that were there have its default value. Where in the
    row it stands does not matter."""
    sync.source.execute("ALTER TABLE t ADD COLUMN c varchar(10) DEFAULT 'new' AFTER id")
    sync.source.execute("INSERT INTO t (id, a, b, c) VALUES (3, 'three', 'z', 'c')")
    stops(sync, "no column c", "ADD COLUMN")
    assert rows_of(sync) == [(1, "one", "x"), (2, "two", "y")]
    sync.target.execute("ALTER TABLE t ADD COLUMN c varchar(10)")
    sync.finish()
    found = sorted(sync.target.rows("SELECT id, a, b, c FROM t"))
    assert found == [(1, "one", "x", "new"), (2, "two", "y", "new"), (3, "three", "z", "c")]


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
    """What does not fit is refused, and the sync names table and cause; SQLite takes it."""
    sync.source.execute("ALTER TABLE t MODIFY a varchar(400)")
    sync.source.execute("INSERT INTO t VALUES (3, 'longer than five', 'z')")
    if not isinstance(sync.target, SqliteTarget):
        stops(sync, f"{sync.source.name}.t")
        mysql = sync.target.kind != "postgres"
        sync.target.execute(
            f"ALTER TABLE t {'MODIFY a' if mysql else 'ALTER COLUMN a TYPE'} varchar(400)"
        )
    sync.finish()
    sync.assert_equal("t")


def test_a_new_value_of_an_enum(pair: Pair, make_sync: MakeSync) -> None:
    """Where the target keeps it as text it comes as text; a target's own enum needs it first."""
    pair.source.execute("CREATE TABLE m (id int PRIMARY KEY, mood enum('fine'))")
    pair.source.execute("INSERT INTO m VALUES (1, 'fine')")
    sync = make_sync(pair.source, pair.target, ["m"])
    sync.finish()
    pair.source.execute("ALTER TABLE m MODIFY mood enum('great', 'fine', 'good')")
    pair.source.execute("INSERT INTO m VALUES (2, 'great')")
    if pair.target.kind in ("mariadb", "mysql"):
        stops(sync, f"{pair.source.name}.m", "mood")
        pair.target.execute("ALTER TABLE m MODIFY mood enum('great', 'fine', 'good')")
    sync.finish()
    assert rows_of(sync, "m") == [(1, "fine"), (2, "great")]


@from_each_source
def test_values_that_an_alter_changes(pair: Pair, make_sync: MakeSync) -> None:
    """No row event says what becomes of rows that are there: a type that holds less, another character
    set, another expression. The table is copied again by itself."""
    pair.source.execute(
        "CREATE TABLE l (id int PRIMARY KEY, weight double, name varchar(20), note varchar(20)"
        " CHARACTER SET utf8mb4, times int AS (id * 2) STORED)"
    )
    pair.source.execute(
        "INSERT INTO l (id, weight, name, note) VALUES (1, 1.6, 'abcdef', '\u4e2d')"
    )
    sync = make_sync(pair.source, pair.target, ["l"])
    sync.finish()
    for change in (
        "MODIFY weight int",
        "MODIFY name varchar(3)",
        "CONVERT TO CHARACTER SET latin1",
        "MODIFY times int AS (id * 3) STORED",
    ):
        run(connection(sync), "SET SESSION sql_mode = ''", f"ALTER TABLE l {change}")
        sync.finish()
        sync.assert_equal("l")


@pytest.mark.parametrize(
    "alter",
    ["RENAME COLUMN a TO b, RENAME COLUMN b TO a", "DROP PRIMARY KEY, ADD PRIMARY KEY (n)"],
    ids=["names exchanged", "primary key"],
)
@from_each_source
def test_values_that_an_alter_moves(pair: Pair, make_sync: MakeSync, alter: str) -> None:
    """Nor does one say it of columns that exchange their names, whose shape is the same, or of NULLs that
    a new primary key makes zeros where sql_mode is not strict. The table is copied again by itself."""
    pair.source.execute("CREATE TABLE l (id int PRIMARY KEY, a text, b text, n int)")
    pair.source.execute("INSERT INTO l VALUES (1, 'one', 'x', NULL), (2, 'two', 'y', 5)")
    pair.target.execute(
        "CREATE TABLE l (id int PRIMARY KEY, a text, b text, n int, CONSTRAINT u UNIQUE (n))"
    )
    sync = make_sync(pair.source, pair.target, ["l"])
    sync.finish()
    run(connection(sync), "SET SESSION sql_mode = ''", f"ALTER TABLE l {alter}")
    sync.finish()
    sync.assert_equal("l")


@from_each_source
def test_killed_around_an_alter_that_changes_values(pair: Pair, make_sync: MakeSync) -> None:
    """That the table is to be copied again is never forgotten, wherever the worker dies: before the ALTER
    is behind the checkpoint, right after it, and in the copy."""
    pair.source.execute("CREATE TABLE l (id int PRIMARY KEY, n int, times int AS (id * 2) STORED)")
    pair.source.execute(f"INSERT INTO l (id) SELECT n FROM {numbers(100)}")
    sync = make_sync(pair.source, pair.target, ["l"])
    sync.finish()
    for number, point in enumerate(STREAMING):
        run(
            connection(sync),
            f"UPDATE l SET n = {number}",
            f"ALTER TABLE l MODIFY times int AS (id * 1{number}) STORED",
            f"INSERT INTO l (id) VALUES (20{number})",
        )
        sync.start(fault=f"{point}:1").dies_at_fault()
        # What is confirmed may be so after the copy.
        for copying in () if point == "position-confirmed" else COPYING:
            sync.start(fault=f"{copying}:1").dies_at_fault()
        sync.finish()
        sync.assert_equal("l")


@from_each_source
def test_every_row_is_read_in_its_own_shape(sync: Sync) -> None:
    """Scenario 10: a backlog across several ALTERs is decoded with the shapes that it was written with,
    by names and not by places."""
    sync.target.execute("ALTER TABLE t ADD COLUMN c varchar(20)")
    sync.target.execute("ALTER TABLE t ADD COLUMN d varchar(5)")
    run(
        connection(sync),
        "UPDATE t SET a = 'uno' WHERE id = 1",
        "ALTER TABLE t ADD COLUMN c varchar(20) FIRST",
        "INSERT INTO t (id, b, a, c) VALUES (3, 'bee', 'three', 'see')",
        "ALTER TABLE t DROP COLUMN a",
        "INSERT INTO t (id, b, c) VALUES (4, 'four', 'dee')",
        "ALTER TABLE t ADD COLUMN d varchar(5) AFTER c",
        "INSERT INTO t (id, b, c, d) VALUES (5, 'bee', 'eff', 'five')",
    )
    sync.finish()
    assert sorted(sync.target.rows("SELECT id, a, b, c, d FROM t")) == [
        (1, "uno", "x", None, None),
        (2, "two", "y", None, None),
        (3, "three", "bee", "see", None),
        (4, None, "four", "dee", None),
        (5, None, "bee", "eff", "five"),
    ]


@from_each_source
def test_a_backlog_of_before_an_alter_does_not_come_back(sync: Sync) -> None:
    """What the log has of rows that an ALTER has changed since is not redone on top of their copy."""
    run(
        connection(sync),
        "UPDATE t SET a = 'uno' WHERE id = 1",
        "ALTER TABLE t MODIFY b varchar(20) AFTER id",
        "INSERT INTO t (id, b, a) VALUES (3, 'bee', 'three')",
        "ALTER TABLE t DROP COLUMN a",
        "INSERT INTO t (id, b) VALUES (4, 'four')",
        "ALTER TABLE t ADD COLUMN a varchar(5) FIRST",
        "INSERT INTO t (id, b, a) VALUES (5, 'bee', 'five')",
    )
    sync.finish()
    sync.assert_equal("t")


@from_each_source
@pytest.mark.parametrize("customer", [None, "1"], ids=["of the table", "of a customer"])
def test_a_backlog_of_before_a_request_does_not_come_back(sync: Sync, customer: str | None) -> None:
    """Who has changed rows behind the log's back asks for a copy, while a sync has not read what the log
    has of them from before."""
    with sync.config.open("a") as config:
        config.write('[customer]\ntable = "t"\n')
    run(
        connection(sync),
        "UPDATE t SET a = 'uno' WHERE id = 1",
        "SET SESSION sql_log_bin = 0",
        "UPDATE t SET a = 'deux' WHERE id = 1",
        "SET SESSION sql_log_bin = 1",
    )
    with state_of(sync.target, sync.name) as state:
        state.request(None if customer else f"{sync.source.name}.t", customer)
    sync.finish()
    assert sync.log_count("copy-requested") == sync.log_count("copy-waits") == 1
    sync.assert_equal("t")


@from_each_source
def test_ddl_that_the_log_does_not_have(sync: Sync) -> None:
    """Scenario 32: a column added, moved and dropped with sql_log_bin = 0: rows are read by the names
    that stand beside them, so nothing is ever read into another column."""
    run(
        connection(sync),
        "UPDATE t SET b = 'before' WHERE id = 1",
        "SET SESSION sql_log_bin = 0",
        "ALTER TABLE t MODIFY b varchar(20) AFTER id",
        "SET SESSION sql_log_bin = 1",
        "INSERT INTO t (id, a, b) VALUES (3, 'three', 'bee')",
        "SET SESSION sql_log_bin = 0",
        "ALTER TABLE t DROP COLUMN a",
        "SET SESSION sql_log_bin = 1",
        "INSERT INTO t (id, b) VALUES (4, 'four')",
    )
    sync.finish()
    assert rows_of(sync) == [
        (1, "one", "before"),
        (2, "two", "y"),
        (3, "three", "bee"),
        (4, None, "four"),
    ]


@from_each_source
def test_a_created_table_joins_at_the_next_start(sync: Sync) -> None:
    """A running worker does not know it; the next one copies it. CREATE TABLE … AS SELECT writes rows."""
    later = f"{sync.source.name}.later"
    sync.start()
    sync.catch_up()
    sync.source.execute("CREATE TABLE later (id int PRIMARY KEY)")
    sync.source.execute("INSERT INTO later VALUES (1)")
    sync.source.execute("CREATE TABLE copied (id int PRIMARY KEY) AS SELECT id, a FROM t")
    sync.catch_up()
    assert later not in tables_of(sync.target, sync.name)
    sync.finish()
    sync.assert_equal("later", "copied")


def test_a_table_that_is_made_again(sync: Sync) -> None:
    """DROP and CREATE of a synced table while the sync streams: the rows of before go, those that its
    CREATE TABLE … AS SELECT brings come."""
    sync.start()
    sync.catch_up()
    run(
        connection(sync),
        "CREATE TABLE spare AS SELECT * FROM t WHERE id = 2",
        "DROP TABLE t",
        "CREATE TABLE t (id int PRIMARY KEY, a varchar(5), b varchar(20)) AS SELECT * FROM spare",
        "DROP TABLE spare",
        "INSERT INTO t VALUES (9, 'nine', 'n')",
    )
    sync.catch_up()
    sync.finish()
    sync.assert_equal("t")


@from_each_source
def test_a_renamed_table_goes_on_under_its_new_name(sync: Sync) -> None:
    """With a wildcard: all of its rows are there after the next start; the old table stays."""
    sync.start()
    sync.catch_up()
    sync.source.execute("RENAME TABLE t TO u")
    sync.source.execute("UPDATE u SET b = 'new' WHERE id = 1")
    sync.source.execute("INSERT INTO markers VALUES (1000)")
    sync.waits_for(lambda: sync.target.rows("SELECT 1 FROM markers WHERE id = 1000"), "it goes on")
    sync.finish()
    sync.assert_equal("u")
    assert rows_of(sync) == [(1, "one", "x"), (2, "two", "y")]


@from_each_source
def test_tables_that_change_places(sync: Sync) -> None:
    """As online schema tools do it: a copy is filled, then both are renamed at once. What is under the
    name at the end is on the target."""
    sync.start()
    sync.catch_up()
    run(
        connection(sync),
        "CREATE TABLE _t_new LIKE t",
        "ALTER TABLE _t_new MODIFY a varchar(50)",
        "INSERT INTO _t_new SELECT * FROM t",
        "UPDATE t SET b = 'moved' WHERE id = 2",
        "REPLACE INTO _t_new SELECT * FROM t WHERE id = 2",
        "RENAME TABLE t TO _t_old, _t_new TO t",
        "INSERT INTO t VALUES (3, 'three', 'z')",
        "DROP TABLE _t_old",
    )
    sync.source.execute("INSERT INTO markers VALUES (1000)")
    sync.waits_for(lambda: sync.target.rows("SELECT 1 FROM markers WHERE id = 1000"), "it goes on")
    sync.finish()
    sync.assert_equal("t")


@from_each_source
def test_a_renamed_table_that_is_named_stops_the_next_start(
    pair: Pair, make_sync: MakeSync
) -> None:
    """Rather than to sync nothing."""
    pair.source.execute(SCHEMA)
    sync = make_sync(pair.source, pair.target, ["t"])
    sync.finish()
    pair.source.execute("RENAME TABLE t TO u")
    stops(sync, "table t does not exist on the source")


@from_each_source
def test_a_dropped_table_stays_on_the_target(sync: Sync) -> None:
    """Its rows are not the sync's to delete."""
    sync.source.execute("UPDATE t SET b = 'last' WHERE id = 1")
    sync.source.execute("DROP TABLE t")
    sync.finish()
    sync.finish()
    assert [row[0] for row in rows_of(sync)] == [1, 2]


def test_a_generated_column(pair: Pair, make_sync: MakeSync) -> None:
    """The log has it, stored or not, and so has the table that the sync makes."""
    pair.source.execute(
        "CREATE TABLE g (id int PRIMARY KEY, a int, twice int AS (a * 2) STORED,"
        " thrice int AS (a * 3) VIRTUAL)"
    )
    pair.source.execute("INSERT INTO g (id, a) VALUES (1, 5)")
    sync = make_sync(pair.source, pair.target, ["*"])
    sync.finish()
    pair.source.execute("UPDATE g SET a = 7")
    pair.source.execute("INSERT INTO g (id, a) VALUES (2, 8)")
    sync.finish()
    sync.assert_equal("g")


@from_each_source
def test_a_statement_in_place_of_rows_stops_the_sync(sync: Sync) -> None:
    """A session with binlog_format = STATEMENT: what it did to a synced table is not in the log. The
    sync stops and names the table; a new snapshot is the way out."""
    run(
        connection(sync),
        "SET SESSION binlog_format = 'STATEMENT'",
        "UPDATE t SET b = 'unseen' WHERE id = 1",
    )
    stops(sync, f"{sync.source.name}.t", "UPDATE", "binlog_format")


def test_an_insert_that_leaves_columns_out(pair: Pair, make_sync: MakeSync) -> None:
    """A minimal row image of an INSERT lacks the columns that have their default value, and the log does
    not say which that is: the row is read again from the source. That is no divergence. Without its
    key it cannot be: then the sync stops and names the table."""
    pair.source.execute(
        "CREATE TABLE d (id int PRIMARY KEY, a varchar(20) DEFAULT 'of old', b int DEFAULT 5, u int UNIQUE)"
    )
    pair.source.execute("CREATE TABLE k (id int PRIMARY KEY DEFAULT 7, a int)")
    sync = make_sync(pair.source, pair.target, ["d", "k"])
    sync.finish()
    run(
        connection(sync),
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "INSERT INTO d VALUES (1, 'all', 1, 1)",
        "INSERT INTO d (id) VALUES (2), (3), (4)",
        "INSERT INTO d (id, u) VALUES (5, 5)",
        "UPDATE d SET id = 6 WHERE id = 2",
        "DELETE FROM d WHERE id = 3",
        "UPDATE d SET u = 1 - u WHERE id = 1",
        "INSERT INTO d (id, u) VALUES (7, 1)",
        "ALTER TABLE d ALTER a SET DEFAULT 'new'",
        "INSERT INTO d (id, b) VALUES (8, NULL)",
    )
    sync.finish()
    sync.assert_equal("d")
    sync.assert_nothing_healed()
    run(
        connection(sync),
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "INSERT INTO k (a) VALUES (1)",
    )
    stops(sync, f"{sync.source.name}.k", "binlog_row_image")


@from_each_source
def test_a_migration_under_traffic(sync: Sync) -> None:
    """Scenario 50: many statements of DDL on tables that are written all the while; the worker that
    runs goes through, and everything is equal at the end."""
    db = connection(sync)
    sync.start()
    for n in range(5):
        run(
            db,
            f"CREATE TABLE made_{n} (id int PRIMARY KEY, v int)",
            f"INSERT INTO made_{n} VALUES (1, {n})",
            f"INSERT INTO t SELECT 100 * {n} + 10 + n, 'a', 'b' FROM {numbers(50)}",
            f"ALTER TABLE t ADD INDEX by_{n} (a)",
            f"ALTER TABLE t ADD CONSTRAINT c_{n} CHECK (id > -{n})"
            if n % 2
            else f"ALTER TABLE t ENGINE = InnoDB, COMMENT = 'round {n}'",
            f"UPDATE t SET b = 'round {n}' WHERE id % 5 = {n}",
            "ALTER TABLE t MODIFY a varchar(5) NOT NULL"
            if n == 2
            else "DELETE FROM t WHERE id = 11",
        )
    sync.catch_up()
    sync.finish()
    sync.assert_equal("t", *(f"made_{n}" for n in range(5)))
