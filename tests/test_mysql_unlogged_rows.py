"""Statements that were logged in place of their rows, and may write synced tables that they do not name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from appliers.errors import PermanentError
from cdc.sources.mysql.functions import NEVER_STORED, NEVER_STORED_CLOSE
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.reach import Reach, reach_of
from cdc.sources.mysql.surroundings import moves
from tests.binlog_capture import BinlogCapture, MakeBinlogCapture, changes_of, plain, run, told
from tests.databases import wait_until
from tests.mysql_databases import MysqlDatabase, quoted
from tests.mysql_fixtures import FreshDatabase

STATEMENT = "SET SESSION binlog_format = STATEMENT"
LAST = (99, "last")
REPLICATION = "REPLICATION SLAVE, REPLICATION CLIENT ON *.*"


def shaped(database: MysqlDatabase) -> None:
    """Table t, which is synced; around it tables, views, triggers and functions that write it."""
    database.execute("SET GLOBAL log_bin_trust_function_creators = ON")
    run(
        database,
        *(
            f"CREATE TABLE {name} (id int PRIMARY KEY, v varchar(200))"
            for name in ("t", "other", "more", "watched", "passed_on")
        ),
        "INSERT INTO more VALUES (1, 'm'), (2, 'n')",
        "CREATE VIEW seen AS SELECT * FROM t",
        "CREATE VIEW seen_again AS SELECT * FROM seen WHERE id > 0",
        "CREATE TRIGGER writes AFTER INSERT ON watched FOR EACH ROW INSERT INTO t VALUES (NEW.id, 'trigger')",
        "CREATE TRIGGER passes AFTER INSERT ON passed_on FOR EACH ROW INSERT INTO watched VALUES (NEW.id, 'on')",
        "CREATE FUNCTION put(n int) RETURNS int BEGIN INSERT INTO t VALUES (n, 'function'); RETURN n; END",
        "CREATE VIEW puts AS SELECT put(id) AS id FROM more",
        "CREATE PROCEDURE work() BEGIN UPDATE seen SET v = 'p'; END",
    )


@pytest.fixture
def capture(
    any_mysql_source: MysqlDatabase, make_binlog_capture: MakeBinlogCapture
) -> BinlogCapture:
    shaped(any_mysql_source)
    made = make_binlog_capture(any_mysql_source)
    made.start("t")
    return made


def stop(capture: BinlogCapture, position: BinlogPosition | None = None) -> PermanentError:
    """Why a stream stops, which gives nothing that was committed behind that."""
    stream = capture.stream(position)
    given: list[object] = []

    def read() -> bool:
        given.extend(plain(c)[3] for c in changes_of(stream.read(0.2)))
        return False

    with pytest.raises(PermanentError) as caught:
        wait_until(read, message="the stream stops")
    assert LAST not in given
    return caught.value


THROUGH: list[tuple[str, str]] = [
    ("INSERT INTO seen VALUES (1, 'x')", "seen is a view"),
    ("REPLACE INTO seen VALUES (1, 'x')", "seen is a view"),
    ("UPDATE seen SET v = 'x'", "seen is a view"),
    ("UPDATE more JOIN seen_again AS s USING (id) SET s.v = 'x'", "seen_again is a view"),
    ("DELETE FROM seen_again WHERE id > 0", "seen_again is a view"),
    ("UPDATE /*! seen */ SET v = 'x'", "seen is a view"),
    ("INSERT INTO watched VALUES (7, 'x')", "watched has triggers"),
    ("INSERT INTO passed_on SELECT * FROM more", "passed_on has triggers"),
    ("INSERT INTO other VALUES (put(5), 'x')", "calls function put"),
    ("INSERT INTO other SELECT id, 'x' FROM puts", "puts is a view"),
    ("CALL work()", "seen is a view"),
]


@pytest.mark.parametrize(("statement", "why"), THROUGH)
def test_what_writes_through_others_stops_the_stream(
    capture: BinlogCapture, statement: str, why: str
) -> None:
    """A view, a trigger, a function: what the log does not name is not dropped in silence."""
    run(capture.database, STATEMENT, statement)
    run(capture.database, "INSERT INTO t VALUES (99, 'last')")
    error = stop(capture)
    assert "in statement format" in str(error)
    assert (
        str(error)
        .partition(": the rows are not in the log, and may be of synced tables: ")[2]
        .endswith((why, f"{why}, which may write"))
    )
    assert "binlog_format = ROW" in error.hint


@pytest.mark.parametrize(
    "statements",
    [
        ["SET @v = 'x'", "PREPARE p FROM 'UPDATE seen SET v = ?'", "EXECUTE p USING @v"],
        ["SET sql_mode = 'ANSI_QUOTES'", 'UPDATE "seen" SET v = \'"\''],
        ["SET sql_mode = 'NO_BACKSLASH_ESCAPES'", "UPDATE more SET v = '\\' WHERE put(id) > '\\'"],
    ],
)
def test_sessions_of_every_kind(capture: BinlogCapture, statements: list[str]) -> None:
    """Prepared statements are logged as they ran; quotes are read as the session meant them."""
    run(capture.database, STATEMENT, *statements)
    assert "may be of synced tables" in str(stop(capture))


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE t JOIN more USING (id) SET t.v = 'x'"],
        ["DELETE t FROM t JOIN more USING (id)"],
        ["DELETE FROM a USING more a JOIN t b USING (id)"],
        ["SET sql_mode = 'ANSI_QUOTES'", 'REPLACE INTO "t" VALUES (1, \'"\')'],
        ["UPDATE /*!40000 t */ SET v = 'x'"],
        ["DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, v varchar(200)) SELECT * FROM more"],
    ],
)
def test_the_synced_table_in_every_place(capture: BinlogCapture, statements: Sequence[str]) -> None:
    """Also where a statement has made the table anew and filled it."""
    run(capture.database, STATEMENT, *statements)
    assert f"table {capture.database.name}.t was changed by" in str(stop(capture))


def test_with_before_update(
    mysql_source: MysqlDatabase, make_binlog_capture: MakeBinlogCapture
) -> None:
    """MySQL alone takes WITH … UPDATE."""
    shaped(mysql_source)
    capture = make_binlog_capture(mysql_source)
    for target, said in (("t", "t was changed by UPDATE"), ("seen", "seen is a view")):
        capture.start("t")
        run(
            mysql_source,
            STATEMENT,
            f"WITH c AS (SELECT 1 AS id) UPDATE {target} JOIN c USING (id) SET v = 'x'",
        )
        assert said in str(stop(capture))


@pytest.mark.parametrize(("table", "said"), [("t", "t was changed by LOAD"), ("seen", "a view")])
def test_load_data_stops_the_stream(
    capture: BinlogCapture, tmp_path: Path, table: str, said: str
) -> None:
    """Its rows are in other events than those that a row format has."""
    file = tmp_path / "rows"
    file.write_text("1\tx\n")
    run(capture.database, STATEMENT, f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE {table}")
    error = stop(capture)
    assert said in str(error)
    assert "in statement format" in str(error)


def test_what_is_harmless_goes_by(capture: BinlogCapture, tmp_path: Path) -> None:
    """Other tables without views, triggers and functions of ours, temporary ones among them."""
    file = tmp_path / "rows"
    file.write_text("50\tx\n")
    run(
        capture.database,
        STATEMENT,
        "INSERT INTO other (id, v) VALUES (1, CONCAT('seen', UPPER('put(1)'))), (2, NULL)",
        "INSERT INTO other SELECT m.id + 10, TRIM(LEADING 'x' FROM m.v) FROM more m, other o WHERE o.id = 1",
        "UPDATE other AS o JOIN (SELECT MAX(id) AS id FROM t) AS x USING (id) SET o.v = 'x'",
        "INSERT INTO other (id) VALUES (1) ON DUPLICATE KEY UPDATE v = VALUES(v)",
        "DELETE FROM other WHERE id IN (SELECT id FROM more) ORDER BY id LIMIT 1",
        "INSERT INTO other WITH c AS (SELECT 77 AS id) SELECT id, 'c' FROM c",
        "CREATE TEMPORARY TABLE passing (id int)",
        "INSERT INTO passing VALUES (60)",
        "INSERT INTO other SELECT id, 'p' FROM passing",
        "CREATE TABLE made SELECT * FROM more",
        f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE other",
    )
    run(capture.database, "SET SESSION binlog_format = MIXED", "UPDATE more SET v = 'mixed'")
    run(
        capture.database, "INSERT INTO t VALUES (99, 'last')", "INSERT INTO watched VALUES (7, 'x')"
    )
    assert [row for *_, row in told(capture)] == [LAST, (7, "trigger")]


@pytest.mark.parametrize(
    ("statement", "after"),
    [
        ("UPDATE seen SET v = 'x'", ["DROP VIEW seen"]),
        ("UPDATE seen SET v = 'x'", ["DROP VIEW seen", "CREATE TABLE seen (id int)"]),
        ("INSERT INTO watched VALUES (7, 'x')", ["DROP TRIGGER writes"]),
        ("INSERT INTO watched VALUES (7, 'x')", ["RENAME TABLE watched TO w, other TO watched"]),
    ],
)
def test_what_is_there_no_more(
    capture: BinlogCapture, statement: str, after: Sequence[str]
) -> None:
    """The catalog is of now, the statement of then: what was dropped since is found in the log."""
    run(capture.database, "INSERT INTO t VALUES (1, 'a')", STATEMENT, statement, *after)
    assert "in statement format" in str(stop(capture))


def test_what_comes_while_it_is_read(capture: BinlogCapture) -> None:
    """A stream that knows its surroundings forgets them when a statement changes them."""
    run(capture.database, STATEMENT, "INSERT INTO other VALUES (1, 'x')")
    stream = capture.stream()
    told(capture, stream)
    run(
        capture.database,
        "CREATE TRIGGER late AFTER INSERT ON other FOR EACH ROW INSERT INTO t VALUES (NEW.id, 'late')",
        STATEMENT,
        "INSERT INTO other VALUES (2, 'x')",
    )
    with pytest.raises(PermanentError, match="other has triggers"):
        wait_until(lambda: not stream.read(0.2) and False, message="the stream stops")


def test_a_user_who_cannot_see_triggers(
    any_mysql_source: MysqlDatabase, make_binlog_capture: MakeBinlogCapture
) -> None:
    """Stops where a trigger may be, and says which grant would show it; with that it goes on."""
    shaped(any_mysql_source)
    user = any_mysql_source.create_user("SELECT", REPLICATION)
    url = any_mysql_source.url_as(*user)
    capture = make_binlog_capture(any_mysql_source, url=url)
    capture.start("t")
    run(any_mysql_source, STATEMENT, "INSERT INTO other VALUES (1, 'x')")
    run(any_mysql_source, "INSERT INTO t VALUES (99, 'last')")
    error = stop(capture)
    name = quoted(any_mysql_source.name)
    assert "other has triggers cannot be seen" in str(error)
    grant = f"GRANT TRIGGER ON {name}.* TO '{user.name}'@'%';"
    assert error.hint.startswith(grant)
    any_mysql_source.execute(grant)
    again = make_binlog_capture(any_mysql_source, url=url)
    again.source.catalog(["t"])
    assert [row for *_, row in told(again, again.stream(capture.position))] == [LAST]


def test_mysql_says_which_databases_were_written(
    mysql_source: MysqlDatabase,
    fresh_mysql_database: FreshDatabase,
    make_binlog_capture: MakeBinlogCapture,
) -> None:
    """So a user who sees nothing of another database need not: what stays there is harmless, and what
    comes from there through a view, a trigger or a function is not."""
    shaped(mysql_source)
    user = mysql_source.create_user("SELECT", REPLICATION)
    other = fresh_mysql_database(mysql_source.server)
    run(
        other,
        "CREATE TABLE a (id int PRIMARY KEY)",
        f"CREATE VIEW far AS SELECT id FROM {quoted(mysql_source.name)}.t",
        "CREATE FUNCTION own(n int) RETURNS int BEGIN INSERT INTO a VALUES (n); RETURN n; END",
    )
    capture = make_binlog_capture(mysql_source, url=mysql_source.url_as(*user))
    capture.start("t")
    run(other, STATEMENT, "INSERT INTO a VALUES (1)", "DO own(2)")
    run(mysql_source, "INSERT INTO t VALUES (1, 'a')")
    assert [row for *_, row in told(capture)] == [(1, "a")]
    run(other, STATEMENT, "UPDATE far SET id = 2")
    assert "far cannot be seen, and may be a view" in str(stop(capture))


def test_built_in_functions_are_no_stored_ones(any_mysql_source: MysqlDatabase) -> None:
    """No name that is taken for a built-in one calls a stored function of that name."""
    any_mysql_source.execute("SET GLOBAL log_bin_trust_function_creators = ON")
    for name in NEVER_STORED | NEVER_STORED_CLOSE:
        run(any_mysql_source, f"CREATE FUNCTION `{name}`(n int) RETURNS int RETURN 424242")
    called = set()
    db = any_mysql_source.connect()
    for name in NEVER_STORED | NEVER_STORED_CLOSE:
        for space in ("", " ") if name in NEVER_STORED else ("",):
            with db.cursor() as cursor:
                try:
                    cursor.execute(f"SELECT {name}{space}(1)")
                except Exception:  # noqa: BLE001 S112 - it is not what was called
                    continue
                called |= {name for row in cursor.fetchall() if 424242 in row}
    assert called == set()


def reach(text: str) -> tuple[list[str], list[str], str]:
    found = reach_of(text, "a")
    assert isinstance(found, Reach)
    written, read = ([".".join(t) for t in tables] for tables in (found.written, found.read))
    return written, read, found.called


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INSERT t () VALUES ()", (["a.t"], [], "")),
        ("INSERT INTO b.t (x) (SELECT y FROM (u, v AS w) JOIN c.z ON 1)", None),
        ("INSERT INTO t TABLE u", (["a.t"], ["a.u"], "")),
        ("UPDATE t SET a = (SELECT b FROM u, v)", (["a.t"], ["a.u", "a.v"], "")),
        ("UPDATE t FOR PORTION OF p FROM '1' TO '2' SET a = 1", (["a.t"], [], "")),
        ("DELETE FROM t WHERE EXTRACT(DAY FROM d) = 1", (["a.t"], [], "")),
        ("INSERT INTO t VALUES (now (1))", (["a.t"], [], "now")),
        ("INSERT INTO t VALUES (`abs`(1))", (["a.t"], [], "abs")),
        ("INSERT INTO t VALUES (b.abs(1))", (["a.t"], [], "b.abs")),
        ("INSERT INTO t SELECT CAST(a AS CHAR(3)) FROM u FOR UPDATE", (["a.t"], ["a.u"], "")),
        ("INSERT INTO t SELECT 1 FROM JSON_TABLE('[]', '$' COLUMNS (a int)) j, u", None),
        ("LOAD DATA INFILE 'f' INTO TABLE t LINES TERMINATED BY 'x' (a) SET b = f(@a)", None),
    ],
)
def test_what_statements_name(text: str, expected: tuple[list[str], list[str], str] | None) -> None:
    """Tables that are written and read, and what may be a stored function."""
    more = {
        "INSERT INTO b.t": (["b.t"], ["a.u", "a.v", "c.z"], ""),
        "INSERT INTO t S": (["a.t"], ["a.u"], "COLUMNS"),
        "LOAD DATA INFIL": (["a.t"], [], "f"),
    }
    assert reach(text) == (expected or more[text[:15]])


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO",
        "UPDATE t, SET a = 1",
        "DELETE FROM 't'",
        "INSERT INTO quick VALUES (1)",
        "WITH x",
    ],
)
def test_what_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        reach_of(text, "a")


def test_what_statements_take_away() -> None:
    """Names that may have been something else before."""
    assert moves("DROP VIEW `a``b`, c") == frozenset(["drop", "view", "a`b", "c"])
    assert moves("/*!50000 DROP TRIGGER x */") == frozenset("*")
    assert moves("SET STATEMENT a = 1 FOR DROP VIEW v") == frozenset(["drop", "view", "v"])
    assert moves("CREATE TABLE a (b int)") == frozenset()
    for leaves in (
        "ALTER TABLE a DROP COLUMN b",
        "ALTER TABLE a RENAME COLUMN b TO c",
        "DROP INDEX i ON a",
    ):
        assert moves(leaves) == frozenset()
    assert moves("CREATE OR REPLACE VIEW v AS SELECT b FROM a") == frozenset()
    for takes in ("ALTER TABLE a DROP COLUMN b, RENAME TO c", "CREATE OR REPLACE TABLE a (b int)"):
        assert "a" in (moves(takes) or ())
    assert moves("DROP TEMPORARY TABLE a") is None
    assert moves("INSERT INTO a VALUES ('DROP VIEW v')") is None
