"""Statements, XA transactions and damage in the log of a MariaDB or MySQL source."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any, cast

import pytest

from appliers.errors import PermanentError
from cdc.sources.mysql import events
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.gathering import PIECE_BYTES
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.stream import ReplacedError
from cdc.sources.mysql.tables import Tables
from cdc.sources.mysql.transactions import Transactions
from cdc.sources.source import GapError, Piece, Progress, Stream
from tests.binlog_capture import (
    BinlogCapture,
    MakeBinlogCapture,
    changes_of,
    events_until,
    plain,
    run,
    told,
)
from tests.databases import wait_until
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql


@pytest.fixture
def capture(
    any_mysql_source: MysqlDatabase, make_binlog_capture: MakeBinlogCapture
) -> BinlogCapture:
    """A sync of table t (id, v), which is empty."""
    any_mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(200))")
    any_mysql_source.execute("CREATE TABLE other (id int PRIMARY KEY, v varchar(200))")
    made = make_binlog_capture(any_mysql_source)
    made.start("t")
    return made


def is_mariadb(capture: BinlogCapture) -> bool:
    return capture.database.server.flavour == "mariadb"


def stopped(stream: Stream) -> tuple[list[Any], PermanentError]:
    """What a stream gives before it stops, and why it does."""
    given: list[Any] = []

    def read() -> bool:
        given.extend(map(plain, changes_of(stream.read(0.2))))
        return False

    with pytest.raises(PermanentError) as caught:
        wait_until(read, message="the stream stops")
    return given, caught.value


def test_a_table_is_truncated(capture: BinlogCapture) -> None:
    """In every form that the servers log, and no other table with it."""
    forms = [
        "TRUNCATE t",
        "TRUNCATE TABLE `t`",
        f"/* t */ TRUNCATE TABLE {capture.database.name}.t",
    ]
    ansi = ["SET sql_mode = 'ANSI_QUOTES'", 'TRUNCATE TABLE "t"']
    if is_mariadb(capture):
        forms += ["SET STATEMENT max_statement_time = 9 FOR TRUNCATE t"]
    for form in forms:
        run(capture.database, "INSERT INTO t VALUES (1, 'a')", "TRUNCATE other", form)
    run(capture.database, "INSERT INTO t VALUES (1, 'a')", *ansi)
    assert told(capture) == [
        ("insert", "t", None, (1, "a")),
        ("truncate", "t", None, None),
    ] * (len(forms) + 1)


PASSING = "CREATE TEMPORARY TABLE {} (id int PRIMARY KEY, v text)"


@pytest.mark.parametrize(
    "statements",
    [
        ["SET SESSION binlog_format = 'STATEMENT'", PASSING.format("t"), "TRUNCATE t"],
        [
            f"CREATE PROCEDURE p() BEGIN {PASSING.format('x')}; INSERT INTO x VALUES (1, ''); TRUNCATE t; END",
            "CALL p()",
        ],
    ],
)
def test_a_truncate_that_may_be_of_a_temporary_table(
    capture: BinlogCapture, statements: list[str]
) -> None:
    """In statement format the log has what becomes of a temporary table of the synced one's name as if
    it were that one, and marks it as it marks all that a procedure does after it has used any
    temporary table. So the table is copied anew, which is right for both."""
    run(capture.database, "INSERT INTO t VALUES (1, 'a')", *statements)
    given: list[Piece | Progress] = []
    stream = capture.stream()
    with pytest.raises(ReplacedError, match=r"\.t \(TRUNCATE\): they are copied anew"):
        wait_until(lambda: given.extend(stream.read(0.2)), message="the stream ends")
    assert [plain(c) for c in changes_of(given)] == [("insert", "t", None, (1, "a"))]


def test_a_table_that_is_made_again_is_empty(capture: BinlogCapture) -> None:
    """DROP and CREATE, with IF NOT EXISTS too; CREATE TABLE … SELECT brings its rows. A table that is
    there already is left alone by IF NOT EXISTS."""
    shape = "(id int PRIMARY KEY, v varchar(200))"
    run(
        capture.database,
        "INSERT INTO t VALUES (1, 'a')",
        f"CREATE TABLE IF NOT EXISTS t {shape}",
        "INSERT INTO other VALUES (2, 'b')",
        "DROP TABLE t",
        f"CREATE TABLE t {shape} SELECT * FROM other",
        "DROP TABLE t",
        f"CREATE TABLE IF NOT EXISTS t {shape}",
        "INSERT INTO t VALUES (3, 'c')",
        f"CREATE TABLE IF NOT EXISTS t {shape} SELECT * FROM other",
        "DROP TABLE t",
        f"CREATE TABLE IF NOT EXISTS t {shape} SELECT * FROM other",
    )
    assert told(capture) == [
        ("insert", "t", None, (1, "a")),
        ("truncate", "t", None, None),
        ("insert", "t", None, (2, "b")),
        ("truncate", "t", None, None),
        ("insert", "t", None, (3, "c")),
        ("truncate", "t", None, None),
        ("insert", "t", None, (2, "b")),
    ]


@pytest.mark.parametrize(
    "form",
    [
        "ALTER TABLE t ADD SYSTEM VERSIONING",
        """ALTER TABLE t ADD s timestamp(6) AS ROW START, ADD e timestamp(6) AS ROW END,
        ADD PERIOD FOR SYSTEM_TIME (s, e), ADD SYSTEM VERSIONING""",
        "CREATE OR REPLACE TABLE t (id int PRIMARY KEY, v varchar(200)) WITH SYSTEM VERSIONING",
        "SET SESSION sql_log_bin = 0; ALTER TABLE t ADD SYSTEM VERSIONING; SET SESSION sql_log_bin = 1",
    ],
)
def test_a_table_that_keeps_its_history_stops_the_stream(
    mariadb_source: MysqlDatabase, make_binlog_capture: MakeBinlogCapture, form: str
) -> None:
    """From then on the log has rows of the past beside those that are there."""
    mariadb_source.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(200))")
    capture = make_binlog_capture(mariadb_source)
    capture.start("t")
    run(mariadb_source, "INSERT INTO t VALUES (1, 'a')", *form.split(";"), "UPDATE t SET v = 'b'")
    given, error = stopped(capture.stream())
    assert given == [("insert", "t", None, (1, "a"))]
    assert f"table {mariadb_source.name}.t keeps the history of its rows" in str(error)
    assert "DROP SYSTEM VERSIONING" in (error.hint or "")


def test_statements_that_are_none_of_ours(capture: BinlogCapture) -> None:
    """They name the table, and change nothing in it that rows do not say."""
    run(
        capture.database,
        "CREATE VIEW seen AS SELECT * FROM t",
        "CREATE TRIGGER watch BEFORE INSERT ON t FOR EACH ROW SET @n = 1",
        "CREATE PROCEDURE empty_it() BEGIN TRUNCATE t; DELETE FROM t; END",
        "ANALYZE TABLE t",
        "OPTIMIZE TABLE t",
        "CREATE INDEX i ON t (v)",
        "ALTER TABLE t COMMENT = 'RENAME TO other', ALGORITHM = INPLACE",
        "ALTER TABLE t ADD COLUMN c int, RENAME INDEX i TO j",
        "CREATE TABLE t_too LIKE t",
        "DROP TABLE t_too",
        "CREATE TEMPORARY TABLE t_passing AS SELECT * FROM t",
        "CREATE TEMPORARY TABLE t LIKE other",
        "DROP TEMPORARY TABLE t",
        "INSERT INTO t (id) VALUES (1)",
    )
    assert told(capture) == [("insert", "t", None, (1, None, None))]


@pytest.mark.parametrize(
    ("statement", "verb"),
    [
        ("INSERT INTO t SELECT * FROM other", "INSERT"),
        ("REPLACE INTO t VALUES (2, 'x')", "REPLACE"),
        ("UPDATE t SET v = 'x'", "UPDATE"),
        ("DELETE FROM t WHERE id > 0", "DELETE"),
    ],
)
def test_statements_in_place_of_rows_stop_the_stream(
    capture: BinlogCapture, statement: str, verb: str
) -> None:
    """What came before is given; the error names table, statement, place and remedy, and no value."""
    run(
        capture.database,
        "INSERT INTO t VALUES (1, 'a')",
        "INSERT INTO other VALUES (5, 'b')",
        "SET SESSION binlog_format = STATEMENT",
        "INSERT INTO other SELECT 7, MAX(v) FROM t",
        statement,
    )
    given, error = stopped(capture.stream())
    assert given == [("insert", "t", None, (1, "a"))]
    name = f"table {capture.database.name}.t was changed by {verb} in statement format"
    assert str(error).startswith(f"{name} ({capture.head().file}:")
    assert "binlog_format = ROW" in error.hint


def test_a_routine_in_statement_format_stops_the_stream(capture: BinlogCapture) -> None:
    """Its call is in the log, and not what it wrote."""
    capture.database.execute("SET GLOBAL log_bin_trust_function_creators = ON")
    run(
        capture.database,
        "CREATE FUNCTION put() RETURNS int BEGIN INSERT INTO t VALUES (9, 'f'); RETURN 1; END",
        "SET SESSION binlog_format = STATEMENT",
        "DO put()",
    )
    _, error = stopped(capture.stream())
    assert "wrote in statement format" in str(error)


@pytest.mark.parametrize(
    "statement",
    [
        "RENAME TABLE t TO away, other TO t",
        "ALTER TABLE parted DROP PARTITION p0",
        "ALTER TABLE parted TRUNCATE PARTITION p0",
        "ALTER TABLE t COMMENT = '\\', MODIFY v varchar(300) -- '",
    ],
)
def test_rows_that_are_replaced_without_a_trace(capture: BinlogCapture, statement: str) -> None:
    """Another table under the name, a partition that goes, a column that is converted: the position
    behind it names the table, then the stream ends; a session that resumes there is told to copy it,
    and the stream's first word is the position without it. A tail goes on."""
    capture.database.execute(
        "CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id)"
        " (PARTITION p0 VALUES LESS THAN (5), PARTITION p1 VALUES LESS THAN (10))"
    )
    capture.start("t", "parted")
    identity = capture.source.start(()).identity
    run(
        capture.database,
        "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'",
        "RENAME TABLE t TO u, u TO t",
        "INSERT INTO parted VALUES (1)",
        statement,
    )
    run(capture.database, "INSERT INTO parted VALUES (7)")
    given: list[Piece | Progress] = []
    stream = capture.stream()
    with pytest.raises(ReplacedError, match="they are copied anew"):
        wait_until(lambda: given.extend(stream.read(0.2)), message="the stream ends")
    table = f"{capture.database.name}.{'parted' if 'parted' in statement else 't'}"
    assert [plain(c)[:2] for c in changes_of(given)] == [("insert", "parted")]
    assert isinstance(given[-1], Piece)
    position = BinlogPosition.parse(str(given[-1].position))
    assert position.replaced == (table,)
    relations = capture.source.catalog(["t", "parted"]).relations
    assert capture.source.resume(identity, position, relations) == {table}
    assert capture.source.resume(identity, position, ()) == frozenset()
    again = capture.stream(position)
    first = again.read(0.2)[-1].position
    assert isinstance(first, BinlogPosition)
    assert first.covers(position)
    assert first.replaced == ()
    again.close()
    rest = events_until(capture.stream(position), capture.head())
    assert [plain(c)[3] for c in changes_of(rest)] == [(7,)]
    tail = capture.source.tail(
        from_start=True,
        checkpoint=lambda: capture.position,
        relations=relations,
        shape=lambda relation: relation,
    )
    beside = events_until(tail, capture.head())
    assert [plain(c)[3] for c in changes_of(beside)] == [(1,), (7,)]
    tail.close()


def test_an_xa_transaction_is_given_when_it_commits(capture: BinlogCapture) -> None:
    """Neither at XA PREPARE nor after XA ROLLBACK; with the place and number of its XA COMMIT."""
    stream = capture.stream()
    db = capture.database
    prepare = ("XA START {0}", "INSERT INTO t VALUES ({1}, 'xa')", "XA END {0}", "XA PREPARE {0}")
    for name, number in (("'a','b',5", 1), ("'c'", 2)):
        run(db, *(s.format(name, number) for s in prepare))
    run(
        db,
        "XA START 'd'",
        "INSERT INTO t VALUES (3, 'one')",
        "XA END 'd'",
        "XA COMMIT 'd' ONE PHASE",
    )
    run(db, "INSERT INTO t VALUES (4, 'between')")
    assert [change[3] for change in told(capture, stream)] == [(3, "one"), (4, "between")]
    run(db, "XA ROLLBACK 'c'")
    assert told(capture, stream) == []
    run(db, "XA COMMIT 'a','b',5")
    [event] = events_until(stream, capture.head())
    [change] = changes_of([event])
    assert plain(change)[3] == (1, "xa")
    assert isinstance(event.position, BinlogPosition)
    assert event.position.holds(change[4].position)
    assert event.position.prepared == ()


def test_a_prepared_transaction_outlives_everything(capture: BinlogCapture) -> None:
    """Its place is in the position: a stream from there reads it again when it commits, from a file
    that was left long ago; and so does a stream for which it was too large to keep."""
    db, stream = capture.database, capture.stream()
    run(
        db,
        "XA START 'x'",
        "INSERT INTO t VALUES (1, 'small')",
        "XA END 'x'",
        "XA PREPARE 'x'",
    )
    count = PIECE_BYTES // 150
    rows = ",".join(f"({n}, REPEAT('x', 190))" for n in range(10, count))
    run(db, "XA START 'y'", f"INSERT INTO t VALUES {rows}", "XA END 'y'", "XA PREPARE 'y'")
    run(db, "FLUSH BINARY LOGS", "INSERT INTO t VALUES (2, 'between')")
    events = events_until(stream, capture.head())
    assert [plain(c)[3] for c in changes_of(events)] == [(2, "between")]
    position = events[-1].position
    assert isinstance(position, BinlogPosition)
    assert len(position.prepared) == 2
    later = capture.stream(BinlogPosition.parse(str(position)))
    run(db, "XA COMMIT 'y'", "XA COMMIT 'x'", "INSERT INTO t VALUES (3, 'after')")
    for each in (stream, later):
        changes = [plain(c)[3] for c in changes_of(events_until(each, capture.head()))]
        assert [c[0] for c in changes if c] == [*range(10, count), 1, 3]


def test_a_prepared_transaction_whose_log_is_gone_is_a_gap(
    make_mariadb: MakeMysql, make_binlog_capture: MakeBinlogCapture
) -> None:
    """The server keeps no file for its sake. That is said when it commits, with the way out."""
    db = MysqlDatabase(make_mariadb())
    db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_binlog_capture(db)
    capture.start("t")
    run(db, "XA START 'x'", "INSERT INTO t VALUES (1)", "XA END 'x'", "XA PREPARE 'x'")
    stream = capture.stream()
    position = events_until(stream, capture.head())[-1].position
    assert isinstance(position, BinlogPosition)
    # Behind a restart nothing of it is in memory.
    db.server.restart()
    run(db, "FLUSH BINARY LOGS", "INSERT INTO t VALUES (2)")
    run(db, f"PURGE BINARY LOGS TO '{capture_head(db)}'")
    run(db, "XA COMMIT 'x'")
    again = make_binlog_capture(db)
    again.source.catalog(["t"])
    head = again.head()
    stream = again.stream(replace(head, offset=4, gtids=None, prepared=position.prepared))
    given, error = stopped(stream)
    assert [row[3] for row in given] == [(2,)]
    assert isinstance(error, GapError)
    assert "XA transaction" in str(error)
    assert "cdc snapshot" in error.hint


def capture_head(db: MysqlDatabase) -> str:
    return str(db.rows("SHOW MASTER STATUS")[0][0])


def test_an_xa_transaction_from_before_replaces_rows(capture: BinlogCapture) -> None:
    """One that was prepared before the sync began: its rows were in no copy and are in no log that is
    read, so that every table is copied anew."""
    run(
        capture.database,
        "XA START 'x'",
        "INSERT INTO t VALUES (1, 'a')",
        "XA END 'x'",
        "XA PREPARE 'x'",
    )
    start = capture.head()
    run(capture.database, "XA COMMIT 'x'")
    stream = capture.stream(start)
    with pytest.raises(ReplacedError, match=r"\.t \(XA COMMIT\): they are copied anew"):
        wait_until(lambda: not stream.read(0.2) and False, message="the stream ends")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restarted_server(
    make_mariadb: MakeMysql, make_binlog_capture: MakeBinlogCapture, mode: Any
) -> None:
    """Stopped or crashed, it begins a new file: a stream from before gives the rest of both."""
    db = MysqlDatabase(make_mariadb(durable=True))
    db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_binlog_capture(db)
    start = capture.start("t")
    run(db, "INSERT INTO t VALUES (1)")
    db.server.restart(mode)
    run(db, "INSERT INTO t VALUES (2)")
    again = make_binlog_capture(db)
    again.source.catalog(["t"])
    assert [row[3] for row in told(again, again.stream(start))] == [(1,), (2,)]


# Events that no server writes


def event(kind: int, body: bytes = b"", *, flags: int = 0, end: int = 1000) -> bytes:
    head = struct.pack("<IBIIIH", 1_700_000_000, kind, 7, 19 + len(body), end, flags)
    return head + body


def transactions() -> Transactions:
    none = cast("Tables", type("NoTables", (), {"names": frozenset, "folds_names": False})())
    start = BinlogPosition("binlog.000001", 500)
    return Transactions(none, start, lambda _: iter(()), mariadb=True)


def fed(*found: bytes) -> Transactions:
    made = transactions()
    made.load(found)
    while made.step():
        pass
    return made


def test_an_unknown_event_stops_the_stream() -> None:
    """Unless the server has marked it as one that may be left out."""
    with pytest.raises(ProtocolError, match=r"got type 200 at binlog\.000001:981"):
        fed(event(200))
    assert fed(event(200, flags=events.IGNORABLE)).position().offset == 1000


def test_an_incident_is_a_gap() -> None:
    """The server itself says that its log lacks changes."""
    with pytest.raises(GapError, match=r"lacks changes at binlog\.000001:977"):
        fed(event(events.INCIDENT, b"\1\0\0\0"))


def test_rows_that_belong_nowhere_stop_the_stream() -> None:
    """Outside of a transaction, or of a table that was not announced."""
    with pytest.raises(ProtocolError, match="outside of a transaction"):
        fed(event(events.INSERTS[0], bytes(12)))
    begin = event(events.MARIADB_GTID, struct.pack("<QIB", 1, 0, 0) + bytes(6))
    with pytest.raises(ProtocolError, match="was not announced"):
        fed(begin, event(events.INSERTS[0], bytes(12)))
    with pytest.raises(ProtocolError, match="cut short"):
        fed(event(events.MARIADB_GTID, b"\1"))


def test_a_wrong_checksum_stops_the_stream() -> None:
    """A flipped bit is not taken for a value."""
    made = transactions()
    made.checksums = True
    plain_event = event(events.STOP, b"")
    good = plain_event + struct.pack("<I", zlib.crc32(plain_event))
    made.load([good])
    made.step()
    made.load([good[:-1] + bytes([good[-1] ^ 1])])
    with pytest.raises(ProtocolError, match="checksum is wrong"):
        made.step()


def test_positions_in_a_file_of_more_than_4_gb() -> None:
    """An event has the low 32 bits of its end only."""
    step = 1 << 30
    ends = [(n * step) % (1 << 32) for n in range(1, 7)]
    made = fed(
        event(events.ROTATE, struct.pack("<Q", 4) + b"binlog.000002", end=0),
        *(event(events.STOP, end=end + 5) for end in ends),
    )
    assert made.position().offset == 6 * step + 5
    assert made.position().file == "binlog.000002"


def test_a_transaction_that_a_crash_cut_off_was_none() -> None:
    """The next file begins in its middle: its rows are not given, and nothing stops."""
    begin = event(events.MARIADB_GTID, struct.pack("<QIB", 1, 0, 0) + bytes(6))
    made = fed(begin, event(events.ROTATE, struct.pack("<Q", 4) + b"binlog.000002", end=0), begin)
    assert made.position().file == "binlog.000002"
    assert made.rows.pieces == []
