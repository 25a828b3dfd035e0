"""Rows of the binlog: every type, from real servers, compared with what they print themselves."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final

import pymysql
import pytest
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from appliers import lines
from cdc.sources.mysql import codes, images, table_map
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.events import decompressed_rows
from cdc.sources.mysql.floats import double_text, float_text
from cdc.sources.mysql.payload import payload_events
from cdc.sources.mysql.rows import RowsReader, compile_rows
from cdc.sources.mysql.table_map import LoggedColumn, TableMap
from tests.binlog_events import (
    COMPRESSED,
    DELETES,
    HEADER,
    INSERTS,
    PARTIAL_UPDATE,
    PAYLOAD,
    ROWS,
    TABLE_MAP,
    UPDATES,
    Event,
    recorded,
)
from tests.binlog_types import EXACT, TYPES, Type
from tests.implementations import in_both
from tests.mysql_databases import MysqlDatabase

implementation = in_both(images, "_Lines", "cdc.sources.mysql._rows")

SESSION: Final = (
    "SET time_zone = '+00:00', sql_mode = 'ALLOW_INVALID_DATES', foreign_key_checks = 0;"
)


def shapes(events: Sequence[Event]) -> list[TableMap]:
    return [table_map.parse(e.body) for e in events if e.kind == TABLE_MAP]


def types_of(db: MysqlDatabase, shape: TableMap) -> list[str | None]:
    types = dict(
        db.rows(
            "SELECT column_name, column_type FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s",
            [shape.schema, shape.name],
        )
    )
    return [types.get(column.name) for column in shape.columns]


def decoded(
    db: MysqlDatabase,
    events: Sequence[Event],
    *,
    gaps: bool = False,
    old: Sequence[int] | None = None,
) -> list[Any]:
    """Lines of inserts and deletes, pairs of updates, in the log's order."""
    readers = {s.table_id: compile_rows(s, types_of(db, s), old) for s in shapes(events)}
    found: list[Any] = []
    for kind, body, _ in events:
        if kind in ROWS:
            reader = readers[int.from_bytes(body[:6], "little")]
            found += rows_of(
                reader, kind, decompressed_rows(body, kind) if kind in COMPRESSED else body, gaps
            )
    return found


def rows_of(reader: RowsReader, kind: int, body: bytes, gaps: bool) -> Sequence[Any]:
    if kind in INSERTS:
        return reader.inserts(body, gaps=gaps)
    if kind in DELETES:
        return reader.deletes(body)
    return reader.updates(body) if kind in UPDATES else reader.partial_updates(body)


@contextmanager
def settings(db: MysqlDatabase, **values: int) -> Iterator[None]:
    """Global settings, as they were afterwards."""
    before = {name: db.value(f"SELECT @@GLOBAL.{name}") for name in values}
    try:
        for name, value in values.items():
            db.execute(f"SET GLOBAL {name} = {value}")
        yield
    finally:
        for name, old in before.items():
            db.execute(f"SET GLOBAL {name} = %s", [old])


def test_every_type(any_mysql_source: MysqlDatabase) -> None:
    """What the log holds of each type's hard values reads as what the server prints."""
    db = any_mysql_source
    flavour = db.server.flavour
    types = [t for t in TYPES if t.only in {"", flavour}]
    for number, kind in enumerate(types):
        db.execute(f"CREATE TABLE t{number} (id INT PRIMARY KEY, v {kind.sql})")

    def write() -> None:
        db.execute(SESSION)
        for number, kind in enumerate(types):
            rows = [f"({i}, {value})" for i, value in enumerate([*kind.values, "NULL"])]
            db.execute(f"INSERT IGNORE INTO t{number} VALUES {', '.join(rows)}".replace("%", "%%"))

    got = iter(decoded(db, recorded(db, write)))
    wrong = []
    for number, kind in enumerate(types):
        wanted = db.rows(f"SELECT id, {kind.asked} FROM t{number} ORDER BY id")
        for row, value in wanted:
            line = next(got)
            text = None if value is None else printed(kind, value)
            if lines.split(line, 2) != (str(row).encode(), text):
                wrong.append(f"{kind.sql}: got {line[:80]!r}, expected {text!r:.80}")
    assert not wrong
    assert next(got, None) is None


def printed(kind: Type, value: Any) -> bytes:
    """What the server has printed, in the words of a line."""
    if kind.asked == EXACT:
        return (float_text if kind.sql.startswith("FLOAT") else double_text)(float(value))
    return value if isinstance(value, bytes) else str(value).encode()


class Case:
    """A table with columns of each kind, written with one row image, and what the log made of it."""

    def __init__(self, db: MysqlDatabase, image: str) -> None:
        self.db, self.image = db, image
        db.execute(
            "CREATE TABLE t (id INT PRIMARY KEY, n INT DEFAULT 7, s VARCHAR(20), b TEXT, e ENUM('x'))"
        )

    def run(self, *statements: str, **options: Any) -> list[Any]:
        def work() -> None:
            self.db.execute(
                f"SET SESSION binlog_row_image = {self.image}; " + "; ".join(statements)
            )

        return decoded(self.db, recorded(self.db, work), **options)


def test_whole_images(any_mysql_source: MysqlDatabase) -> None:
    """Old and new rows are whole, whatever the statement named."""
    case = Case(any_mysql_source, "FULL")
    assert case.run(
        "INSERT INTO t (id, s) VALUES (1, 'a'), (2, NULL)",
        "UPDATE t SET b = 'x', id = id + 10",
        "DELETE FROM t WHERE id = 11",
    ) == [
        b"1\t7\ta\t\\N\t\\N\n",
        b"2\t7\t\\N\t\\N\t\\N\n",
        (b"1\t7\ta\t\\N\t\\N\n", b"11\t7\ta\tx\t\\N\n"),
        (b"2\t7\t\\N\t\\N\t\\N\n", b"12\t7\t\\N\tx\t\\N\n"),
        b"11\t7\ta\tx\t\\N\n",
    ]


def test_old_rows_of_their_keys_alone(any_mysql_source: MysqlDatabase) -> None:
    """Of old rows no more is read than is wanted; new ones stay whole."""
    case = Case(any_mysql_source, "FULL")
    assert case.run(
        "INSERT INTO t VALUES (1, 2, 'a', 'b', 'x')",
        "UPDATE t SET s = 'c'",
        "DELETE FROM t",
        old=[0, 2],
    ) == [
        b"1\t2\ta\tb\tx\n",
        (b"1\t\\N\ta\t\\N\t\\N\n", b"1\t2\tc\tb\tx\n"),
        b"1\t\\N\tc\t\\N\t\\N\n",
    ]


def test_minimal_images(any_mysql_source: MysqlDatabase) -> None:
    """What the log left out is UNCHANGED; what the old row has of a new one is taken from there."""
    case = Case(any_mysql_source, "MINIMAL")
    case.db.execute("INSERT INTO t VALUES (1, 2, 'a', 'b', 'x'), (2, 3, 'a', 'b', 'x')")
    whole = [
        "UPDATE t SET s = 'c\\\\d' WHERE id = 1",
        "UPDATE t SET id = 5 WHERE id = 1",
        "DELETE FROM t",
    ]
    for old in (None, [0]):
        with_rows = case.run(*whole, "INSERT INTO t VALUES (1, 2, 'a', 'b', 'x')", old=old)
        assert with_rows == [
            (b"1\t\\=\t\\=\t\\=\t\\=\n", b"1\t\\=\tc\\\\d\t\\=\t\\=\n"),
            (b"1\t\\=\t\\=\t\\=\t\\=\n", b"5\t\\=\t\\=\t\\=\t\\=\n"),
            b"2\t\\=\t\\=\t\\=\t\\=\n",
            b"5\t\\=\t\\=\t\\=\t\\=\n",
            b"1\t2\ta\tb\tx\n",
        ]
        case.db.execute("INSERT INTO t VALUES (2, 3, 'a', 'b', 'x')")


def test_images_without_blobs(any_mysql_source: MysqlDatabase) -> None:
    """A text that was left alone is UNCHANGED, in old rows and in new ones."""
    case = Case(any_mysql_source, "NOBLOB")
    assert case.run(
        "INSERT INTO t VALUES (1, 2, 'a', 'b', 'x')",
        "UPDATE t SET s = 'c'",
        "UPDATE t SET b = 'c'",
        "DELETE FROM t",
    ) == [
        b"1\t2\ta\tb\tx\n",
        (b"1\t2\ta\t\\=\tx\n", b"1\t2\tc\t\\=\tx\n"),
        (b"1\t2\tc\t\\=\tx\n", b"1\t2\tc\tc\tx\n"),
        b"1\t2\tc\t\\=\tx\n",
    ]


@pytest.mark.parametrize(
    ("image", "line"), [("MINIMAL", b"1\t\\=\tb\t\\=\t\\=\n"), ("NOBLOB", b"1\t7\tb\t\\=\t\\N\n")]
)
def test_inserts_without_defaults(any_mysql_source: MysqlDatabase, image: str, line: bytes) -> None:
    """Defaults are not in the log: an insert that needs them stops, or has gaps if they are asked for."""
    case = Case(any_mysql_source, image)
    insert = "INSERT INTO t (id, s) VALUES (1, 'b')"
    with pytest.raises(ProtocolError) as caught:
        case.run(insert)
    assert str(caught.value) == (
        f"table {case.db.name}.t: expected an INSERT with all columns, got one without those of default value"
    )
    assert caught.value.hint.startswith("SET GLOBAL binlog_row_image = 'FULL'")
    case.db.execute("DELETE FROM t")
    assert case.run(insert, gaps=True) == [line]


def test_an_insert_of_nothing(mysql_source: MysqlDatabase) -> None:
    """A row that the log has no byte of cannot be counted: it stops."""
    mysql_source.execute("CREATE TABLE t (a INT DEFAULT 1)")
    statement = "SET SESSION binlog_row_image = MINIMAL; INSERT INTO t VALUES ()"
    events = recorded(mysql_source, lambda: mysql_source.execute(statement))
    with pytest.raises(ProtocolError, match="got rows of none"):
        decoded(mysql_source, events, gaps=True)


def test_patterns_of_null(any_mysql_source: MysqlDatabase) -> None:
    """More patterns of NULLs than functions are made for, between columns of every kind of layout,
    with values that have to be escaped and some that have not."""
    db = any_mysql_source
    seeded = random.Random(7)
    kinds = ["INT", "TINYINT", "VARCHAR(9)", "DATETIME(3)", "DECIMAL(9,4)", "VARBINARY(9)", "DATE"]
    kinds += ["MEDIUMINT", "TEXT", "TIME(1)", "BIGINT", "ENUM('a','b')", "DOUBLE"]
    values = [
        "5",
        "-1",
        "'a\\\\\tb'",
        "'2024-01-02 03:04:05.678'",
        "-1.5",
        "x'005c'",
        "'2024-01-02'",
    ]
    values += ["-8", "'é\\n'", "'-1:02:03.4'", "77", "'b'", "2.5"]
    columns = ", ".join(f"c{i} {kind}" for i, kind in enumerate(kinds))
    db.execute(f"CREATE TABLE t (id INT PRIMARY KEY, {columns})")
    rows = [[v if seeded.random() < 0.6 else "NULL" for v in values] for _ in range(300)]
    statement = ", ".join(f"({i}, {', '.join(row)})" for i, row in enumerate(rows))
    update = "UPDATE t SET c0 = NULL, c2 = 'x'"
    events = recorded(db, lambda: db.execute(f"INSERT INTO t VALUES {statement}; {update}"))
    assert len({tuple(v == "NULL" for v in row) for row in rows}) > 2 * images.MOST
    got = decoded(db, events)
    shown = [
        b"5",
        b"-1",
        b"a\\\\\\tb",
        b"2024-01-02 03:04:05.678",
        b"-1.5000",
        b"\\\\x005c",
        b"2024-01-02",
    ]
    shown += [b"-8", "é\\n".encode(), b"-01:02:03.4", b"77", b"b", b"2.5"]
    wanted = [
        [b"%d" % i, *(b"\\N" if v == "NULL" else text for v, text in zip(row, shown, strict=True))]
        for i, row in enumerate(rows)
    ]
    inserted = [b"\t".join(row) + b"\n" for row in wanted]
    updated = [b"\t".join([row[0], b"\\N", row[2], b"x", *row[4:]]) + b"\n" for row in wanted]
    assert got == inserted + list(zip(inserted, updated, strict=True))
    keys = [(b"%d" % i + b"\t\\N" * len(kinds) + b"\n", row) for i, row in enumerate(updated)]
    assert decoded(db, events, old=[0]) == inserted + keys


def test_generated_and_hidden_columns(any_mysql_source: MysqlDatabase) -> None:
    """Generated columns are in the log, virtual ones too, and so are invisible ones."""
    db = any_mysql_source
    db.execute(
        "CREATE TABLE t (id INT PRIMARY KEY, a INT, v INT AS (a + 1) VIRTUAL, s TEXT AS (CONCAT('x', a)) STORED,"
        " i INT DEFAULT 3 INVISIBLE)"
    )
    statements = "INSERT INTO t (id, a) VALUES (1, 5); UPDATE t SET a = 6; DELETE FROM t"
    one, other = b"1\t5\t6\tx5\t3\n", b"1\t6\t7\tx6\t3\n"
    got = decoded(db, recorded(db, lambda: db.execute(statements)))
    assert got == [one, (one, other), other]


def test_compressed_events(mariadb_source: MysqlDatabase) -> None:
    """MariaDB's compressed events are the events that they stand for."""
    db = mariadb_source
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, s TEXT)")

    def work() -> None:
        db.execute("INSERT INTO t SELECT seq, REPEAT('ab', 200) FROM seq_1_to_50")
        db.execute("UPDATE t SET s = CONCAT(s, id)")
        db.execute("DELETE FROM t")

    with settings(db, log_bin_compress=1):
        events = recorded(db, work)
    assert {e.kind for e in events} >= {166, 167, 168}
    rows = [(b"%d\t" % i + b"ab" * 200, b"%d" % i) for i in range(1, 51)]
    assert decoded(db, events) == [
        *[row + b"\n" for row, _ in rows],
        *[(row + b"\n", row + i + b"\n") for row, i in rows],
        *[row + i + b"\n" for row, i in rows],
    ]
    for event in events:
        if event.kind in COMPRESSED:
            for end in range(len(event.body)):
                with pytest.raises((ProtocolError, IndexError)):
                    decompressed_rows(event.body[:end], event.kind)


def test_compressed_transactions(mysql_source: MysqlDatabase) -> None:
    """The events inside of a compressed transaction are events."""
    db = mysql_source
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, s TEXT)")
    statements = (
        "SET SESSION binlog_transaction_compression = ON; INSERT INTO t VALUES (1, REPEAT('a', 99))"
    )
    events = recorded(db, lambda: db.execute(statements))
    [payload] = [e for e in events if e.kind == PAYLOAD]
    inner = [Event(data[4], data[HEADER:], 0) for data in payload_events(payload.body)]
    assert decoded(db, inner) == [b"1\t" + b"a" * 99 + b"\n"]


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 7, 8, 9, 251, 300])
def test_versions_are_told_apart(any_mysql_source: MysqlDatabase, columns: int) -> None:
    """An event's version is found out whatever MySQL has put before its columns: partitions are
    named there, in as many bytes as a table may have columns."""
    db = any_mysql_source
    names = ", ".join(f"c{i} INT" for i in range(1, columns))
    comma = ", " if names else ""
    db.execute(
        f"CREATE TABLE t (c0 INT PRIMARY KEY{comma}{names}) PARTITION BY HASH(c0) PARTITIONS 4"
    )
    values = ", ".join(str(i) for i in range(1, columns))
    statements = f"INSERT INTO t VALUES (3{comma}{values}); UPDATE t SET c0 = 8; DELETE FROM t"
    rest = (b"\t" if values else b"") + values.replace(", ", "\t").encode() + b"\n"
    got = decoded(db, recorded(db, lambda: db.execute(statements)))
    assert got == [b"3" + rest, (b"3" + rest, b"8" + rest), b"8" + rest]


def test_large_values(any_mysql_source: MysqlDatabase) -> None:
    """Values of more than 16 MB."""
    db = any_mysql_source
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB, s LONGTEXT)")
    size = 17 << 20
    with settings(db, max_allowed_packet=64 << 20), closing(db.connect()) as other:
        insert = f"INSERT INTO t VALUES (1, REPEAT(x'0a', {size}), REPEAT('\\n', 70000))"
        [line] = decoded(db, recorded(db, lambda: other.cursor().execute(insert)))
    assert line == b"1\t\\\\x" + b"0a" * size + b"\t" + b"\\n" * 70000 + b"\n"


def test_partial_json(mysql_source: MysqlDatabase) -> None:
    """Differences of documents give the documents that the server has."""
    db = mysql_source
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, a JSON, n INT, b JSON)")
    start = (
        r"""'{"k": [1, 2, {"x": "y"}], "name": "old\\tname", "zz": {"deep": {"er": 1}}, "s": 5}'"""
    )
    db.execute(f"INSERT INTO t VALUES (1, {start}, 0, {start}), (2, {start}, 0, '[1, 2, 3]')")
    changes = [
        "a = JSON_SET(a, '$.name', 'x')",
        "a = JSON_SET(a, '$.name', 'new', '$.added', JSON_OBJECT('q', 1.5))",
        "a = JSON_REMOVE(a, '$.k[0]'), b = JSON_SET(b, '$[1]', 'y')",
        "a = JSON_SET(a, '$.k[10]', TRUE, '$.zz.deep.er', NULL), n = 1",
        "a = JSON_REPLACE(a, '$.k[last]', 'l'), b = JSON_SET(b, '$[last]', CAST('2024-01-02' AS DATE))",
        "a = JSON_SET(a, '$.s[0]', 6)",
        "a = JSON_SET(a, '$.s[1]', 7)",
        r"""a = JSON_SET(a, '$."a key"', '1', '$."q\\"uote"', 2)""",
        "a = JSON_REMOVE(a, '$.k', '$.name'), b = '[]'",
        "n = 3",
    ]
    shown: list[list[bytes]] = []

    def work() -> None:
        db.execute("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'")
        for change in changes:
            db.execute(f"UPDATE t SET {change} ORDER BY id")
            rows = db.rows("SELECT id, a, n, b FROM t ORDER BY id")
            shown.append([lines.line([str(v).encode() for v in row]) for row in rows])

    events = recorded(db, work)
    assert len([e for e in events if e.kind == PARTIAL_UPDATE]) == len(changes)
    got = decoded(db, events)
    assert [after for _, after in got] == [line for rows in shown for line in rows]
    assert [before for before, _ in got[2:]] == [after for _, after in got[:-2]]


def test_partial_json_without_the_old_document(mysql_source: MysqlDatabase) -> None:
    """Differences to a document that the log has not: the message says what to set."""
    db = mysql_source
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, n INT, a JSON, b JSON)")
    db.execute("""INSERT INTO t VALUES (1, 1, '{"x": "yyyy"}', '{"x": "yyyy"}')""")
    session = "SET SESSION binlog_row_value_options = 'PARTIAL_JSON', binlog_row_image = MINIMAL; "
    whole = "UPDATE t SET b = '[1]'"
    events = recorded(db, lambda: db.execute(session + whole))
    assert decoded(db, events) == [(b"1\t\\=\t\\=\t\\=\n", b"1\t\\=\t\\=\t[1]\n")]
    change = "UPDATE t SET a = JSON_SET(a, '$.x', 'z')"
    events = recorded(db, lambda: db.execute(session + change))
    with pytest.raises(ProtocolError) as caught:
        decoded(db, events)
    assert str(caught.value).endswith(
        "expected the old JSON document with its differences, got the differences alone"
    )
    assert "binlog_row_value_options = ''" in caught.value.hint


def test_old_formats_of_time(mariadb_source: MysqlDatabase) -> None:
    """Tables from before MariaDB 10.1 are read; those with fractions are refused by name."""
    db = mariadb_source
    db.execute("SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
    with settings(db, mysql56_temporal_format=0):
        db.execute("CREATE TABLE t (id INT PRIMARY KEY, d DATETIME, t TIME, s TIMESTAMP NULL)")
        db.execute("CREATE TABLE f (id INT PRIMARY KEY, d DATETIME(6))")
    rows = [
        "(1, '2024-02-29 12:34:56', '-12:34:56', '2024-02-29 12:34:56')",
        "(2, '0000-00-00', '838:59:59', 0), (3, '2024-00-10 01:02:03', '00:00:01', NULL)",
    ]
    events = recorded(db, lambda: db.execute(f"INSERT INTO t VALUES {', '.join(rows)}"))
    assert decoded(db, events) == [
        b"1\t2024-02-29 12:34:56\t-12:34:56\t2024-02-29 12:34:56\n",
        b"2\t0000-00-00 00:00:00\t838:59:59\t0000-00-00 00:00:00\n",
        b"3\t2024-00-10 01:02:03\t00:00:01\t\\N\n",
    ]
    events = recorded(db, lambda: db.execute("INSERT INTO f VALUES (1, '2024-01-02 03:04:05.6')"))
    with pytest.raises(ProtocolError) as caught:
        decoded(db, events)
    assert str(caught.value) == (
        f"table {db.name}.f, column d: expected seconds without a fraction in MariaDB 5.3's format"
    )
    assert "ALTER TABLE" in caught.value.hint


def test_text_that_is_not_utf8() -> None:
    """Bytes that are no text, in a column of text, stop; the message holds none of them."""
    reader = one_column(LoggedColumn(codes.VARCHAR, (20, 0), True, "v", collation=45))
    with pytest.raises(ProtocolError) as caught:
        reader.inserts(insert_of(b"\x03ab\xff"), 2)
    assert (
        str(caught.value) == "table d.t: column v: expected text in UTF-8, got bytes that are none"
    )
    assert caught.value.__cause__ is None


def test_an_unknown_collation_matters_when_it_is_read() -> None:
    """NULLs of such a column are rows; a value is an error with the collation's number."""
    reader = one_column(LoggedColumn(codes.VARCHAR, (20, 0), True, "v", collation=999))
    assert reader.inserts(b"\0" * 8 + b"\x02\0\x01\x01\x01", 2) == [b"\\N\n"]
    with pytest.raises(ProtocolError) as caught:
        reader.inserts(insert_of(b"\x01a"), 2)
    assert str(caught.value) == "table d.t: expected a known collation, got number 999"


@pytest.mark.parametrize("kind", [codes.LONG, codes.ENUM])
def test_without_full_metadata(kind: int) -> None:
    """What the log has to say of a column, and has not: the message says what to set."""
    column = LoggedColumn(kind, (1, 0), True, "v")
    with pytest.raises(ProtocolError) as caught:
        one_column(column)
    assert str(caught.value).startswith("table d.t, column v: expected the ")
    assert caught.value.hint.startswith("SET GLOBAL binlog_row_metadata = 'FULL'")


def one_column(column: LoggedColumn) -> RowsReader:
    return compile_rows(TableMap(1, "d", "t", (column,)), [None])


def insert_of(value: bytes) -> bytes:
    """An event's body, of version 2, with one row of one column."""
    return b"\0" * 8 + b"\x02\0\x01\x01\0" + value


@pytest.mark.filterwarnings("ignore:'db' is deprecated", "ignore:'passwd' is deprecated")
def test_as_the_library_reads(any_mysql_source: MysqlDatabase) -> None:
    """Where python-mysql-replication is right, it says the same."""
    db = any_mysql_source
    db.execute(
        "CREATE TABLE t (id BIGINT UNSIGNED PRIMARY KEY, i INT, m MEDIUMINT, d DECIMAL(65,30), "
        "at DATETIME(6), ts TIMESTAMP(6) NULL, s VARCHAR(99), k TEXT CHARACTER SET koi8r, y YEAR)"
    )
    row = "-%s, -8388608, -1.5, '2024-01-02 03:04:05.000006', '2024-01-02 03:04:05.000700', '€😀', 'я', 1999"
    with closing(db.connect()) as connection:
        start = position(connection)
    statements = [
        f"INSERT INTO t VALUES (18446744073709551615, {row % 5}), (2, {row % 6})",
        "UPDATE t SET s = NULL, i = i + 1",
        "DELETE FROM t",
    ]
    events = recorded(db, lambda: db.execute("SET time_zone = '+00:00'; " + "; ".join(statements)))
    ours: list[Any] = []
    for found in decoded(db, events):
        ours += found if isinstance(found, tuple) else [found]
    assert [lines.split(line, 9) for line in ours] == list(theirs(db, start))


def position(connection: pymysql.Connection[Any]) -> tuple[str, int]:
    with connection.cursor() as cursor:
        try:
            cursor.execute("SHOW BINARY LOG STATUS")
        except pymysql.MySQLError:
            cursor.execute("SHOW MASTER STATUS")
        [row] = cursor.fetchall()
        return row[0], row[1]


def theirs(db: MysqlDatabase, start: tuple[str, int]) -> Iterator[tuple[object, ...]]:
    settings = {"host": "127.0.0.1", "port": db.server.port, "user": "root"}
    reader = BinLogStreamReader(
        connection_settings=settings,
        server_id=4_000_000_001,
        log_file=start[0],
        log_pos=start[1],
        resume_stream=True,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
        only_schemas=[db.name],
    )
    with closing(reader):
        for event in reader:
            for row in event.rows:
                for image in ("values",) if "values" in row else ("before_values", "after_values"):
                    yield tuple(map(theirs_as_text, row[image].values()))


def theirs_as_text(value: object) -> object:
    return None if value is None else value if isinstance(value, bytes) else str(value).encode()
