"""Any bytes in place of events: rows or a ProtocolError, nothing else, in bounded time and memory."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliers.errors import SyncError
from cdc.sources.mysql import codes, images, table_map
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.gtid import parse_gtids
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.relations import SyncedTables
from cdc.sources.mysql.rows import RowsReader, compile_rows
from cdc.sources.mysql.source import MysqlSource
from cdc.sources.mysql.table_map import LoggedColumn, TableMap
from cdc.sources.mysql.transactions import Transactions
from tests.binlog_events import (
    DELETES,
    HEADER,
    INSERTS,
    ROWS,
    TABLE_MAP,
    Event,
    recorded,
)
from tests.binlog_types import TYPES
from tests.implementations import in_both
from tests.mysql_databases import MysqlDatabase
from tests.pieces import changes_in

implementation = in_both(images, "_Lines", "cdc.sources.mysql._rows")

KINDS: list[tuple[int, tuple[int, int]]] = [
    *(
        (kind, (0, 0))
        for kind in (codes.TINY, codes.SHORT, codes.INT24, codes.LONG, codes.LONGLONG)
    ),
    *(
        (kind, (0, 0))
        for kind in (codes.DATE, codes.TIME, codes.DATETIME, codes.TIMESTAMP, codes.YEAR)
    ),
    *(
        (kind, (digits, 0))
        for kind in (codes.TIME2, codes.DATETIME2, codes.TIMESTAMP2)
        for digits in range(7)
    ),
    *((codes.NEWDECIMAL, meta) for meta in ((65, 30), (12, 2), (5, 5), (1, 0), (20, 0))),
    *((codes.BIT, (bits, 0)) for bits in (1, 8, 9, 64)),
    *((codes.ENUM, (size, 0)) for size in (1, 2)),
    *((codes.SET, (size, 0)) for size in (1, 2, 3, 4, 8)),
    *(
        (kind, (size, 0))
        for kind in (codes.BLOB, codes.JSON, codes.GEOMETRY)
        for size in range(1, 5)
    ),
    *((codes.VARCHAR, (length, 0)) for length in (10, 300)),
    *((codes.STRING, (length, 0)) for length in (10, 300)),
    *((codes.FLOAT, (4, 0)), (codes.DOUBLE, (8, 0)), (codes.VECTOR, (4, 0))),
    *((codes.BLOB_COMPRESSED, (2, 0)), (codes.VARCHAR_COMPRESSED, (50, 0))),
]
COLLATIONS = [8, 13, 28, 33, 35, 45, 54, 60, 63, 95, 97, 255, 249, 10]


@st.composite
def shapes(draw: st.DrawFn) -> TableMap:
    columns = []
    for number in range(draw(st.integers(1, 12))):
        kind, meta = draw(st.sampled_from(KINDS))
        columns.append(
            LoggedColumn(
                kind,
                meta,
                nullable=True,
                name=f"c{number}",
                unsigned=draw(st.booleans()),
                collation=draw(st.sampled_from(COLLATIONS)),
                labels=(b"a", b"b\t", b"\0c"),
            )
        )
    return TableMap(1, "d", "t", tuple(columns))


TYPES_OF_STRINGS = st.sampled_from([None, "uuid", "inet4", "inet6", "binary(10)"])


@settings(max_examples=400)
@given(shapes(), TYPES_OF_STRINGS, st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_rows(
    shape: TableMap, declared: str | None, data: bytes, extra: bool, keys: bool
) -> None:
    """Any shape, any bytes behind a header that fits it or does not."""
    try:
        reader = compile_rows(shape, [declared] * len(shape.columns), [0] if keys else None)
    except ProtocolError:
        return
    width = len(shape.columns)
    bitmap = b"\xff" * ((width + 7) // 8)
    head = b"\0" * 8 + (b"\x02\0" if extra else b"") + bytes([width])
    for body in (data, head + data, head + bitmap + data, head + 2 * bitmap + data):
        for read in readings(reader):
            survives(read, body)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_table_map(data: bytes) -> None:
    """Any bytes; and any bytes behind the names and types of a table."""
    for body in (data, b"\0" * 8 + b"\x01d\0\x01t\0" + data):
        try:
            shape = table_map.parse(body)
            compile_rows(shape, [None] * len(shape.columns))
        except ProtocolError:
            continue


def readings(reader: RowsReader) -> list[Callable[[bytes], Sequence[object]]]:
    return [
        lambda body: reader.inserts(body, gaps=True),
        lambda body: reader.inserts(body, 1),
        lambda body: reader.inserts(body, 2),
        reader.deletes,
        reader.updates,
        reader.partial_updates,
    ]


def survives(read: Callable[[bytes], Sequence[object]], body: bytes) -> None:
    """The row's bytes are in nothing that is printed with the error."""
    error = None
    begun = time.thread_time()
    try:
        read(body)
    except ProtocolError as e:
        error = e
    assert time.thread_time() - begun < 2
    if error is not None:
        assert error.__suppress_context__
        assert str(error).startswith("table ")


@pytest.fixture
def events(any_mysql_source: MysqlDatabase) -> list[Event]:
    """A table map of all types, and rows: inserted, updated, deleted."""
    db = any_mysql_source
    types = [t for t in TYPES if t.only in {"", db.server.flavour} and "1000" not in t.sql][::2]
    columns = ", ".join(f"c{i} {t.sql}" for i, t in enumerate(types) if len(t.sql) < 60)
    values = ", ".join(f"c{i} = {t.values[0]}" for i, t in enumerate(types) if len(t.sql) < 60)
    db.execute(f"CREATE TABLE t (id INT PRIMARY KEY, {columns})")

    def work() -> None:
        db.execute(
            f"SET sql_mode = ''; INSERT IGNORE INTO t SET id = 1, {values}; INSERT INTO t (id) VALUES (2);"
            " UPDATE t SET id = id + 10; DELETE FROM t"
        )

    return [e for e in recorded(db, work) if e.kind == TABLE_MAP or e.kind in ROWS]


def test_damaged_events(events: list[Event]) -> None:
    """Real events with a byte changed, or cut short, or with more behind them."""
    seeded = random.Random(11)
    begun = time.thread_time()
    shape = next(table_map.parse(e.body) for e in events if e.kind == TABLE_MAP)
    reader = compile_rows(shape, [None] * len(shape.columns))
    for kind, body, _ in events:
        if kind == TABLE_MAP:
            continue
        read = (
            reader.inserts
            if kind in INSERTS
            else reader.deletes
            if kind in DELETES
            else reader.updates
        )
        assert read(body)
        for _ in range(400):
            survives(read, damaged(body, seeded))
    for body in {e.body for e in events if e.kind == TABLE_MAP}:
        for _ in range(150):
            try:
                other = table_map.parse(damaged(body, seeded))
                compile_rows(other, [None] * len(other.columns))
            except ProtocolError:
                continue
    assert time.thread_time() - begun < 60


def damaged(body: bytes, seeded: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(seeded.choice((1, 1, 2, 5))):
        changed[seeded.randrange(len(changed))] = seeded.choice((0, 255, seeded.randrange(256)))
    cut = seeded.random()
    if cut < 0.2:
        return bytes(changed[: seeded.randrange(len(changed))])
    return bytes(changed) + (seeded.randbytes(5) if cut > 0.9 else b"")


WORK = """
    SET SESSION {}; INSERT INTO t VALUES (1, REPEAT('a', 300), 5), (2, 'b', NULL);
    UPDATE t SET n = 7; DELETE FROM t WHERE id = 2;
    BEGIN; INSERT INTO t VALUES (3, 'c', 1); SAVEPOINT one; INSERT INTO t VALUES (4, 'd', 1);
    ROLLBACK TO one; COMMIT;
    XA START 'x', 'y', 3; INSERT INTO t VALUES (5, 'e', 1); XA END 'x', 'y', 3; XA PREPARE 'x', 'y', 3;
    XA COMMIT 'x', 'y', 3; CREATE TABLE u LIKE t; ALTER TABLE u ADD COLUMN c INT; DROP TABLE u; TRUNCATE t"""


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_any_event_of_a_log(request: pytest.FixtureRequest, flavour: str, seed: int) -> None:
    """Every type of event that a log has, one of them damaged: changes, or an error for users to read."""
    db: MysqlDatabase = request.getfixturevalue(f"{flavour}_source")
    db.execute("CREATE TABLE t (id INT PRIMARY KEY, s TEXT, n INT)")
    compressing = "binlog_transaction_compression = {}" if flavour == "mysql" else "sql_mode = ''"
    found: list[Event] = []
    for how in ("OFF", "ON"):
        with logging_compressed(db, flavour, how):
            found += recorded(db, partial(db.execute, WORK.format(compressing.format(how))))
    source = MysqlSource(db.url, None, "fuzz")
    source.open()
    source.catalog(["t"])
    raw = [
        struct.pack("<IBIIIH", 1, e.kind, 7, HEADER + len(e.body), e.end, 0) + e.body for e in found
    ]
    assert read_all(source, raw, flavour), "the log as it is gives changes"
    seeded = random.Random(seed)
    refused = 0
    for number, event in enumerate(found):
        for _ in range(15):
            broken = raw[number][:HEADER] + damaged(event.body + b"\0", seeded)
            try:
                read_all(source, [*raw[:number], broken, *raw[number + 1 :]], flavour)
            except SyncError:
                refused += 1
    source.close()
    assert refused > len(found)


@contextmanager
def logging_compressed(db: MysqlDatabase, flavour: str, how: str) -> Iterator[None]:
    """What MariaDB has as a setting of the whole server."""
    if flavour == "mysql":
        yield
        return
    db.execute(f"SET GLOBAL log_bin_compress = {how}, GLOBAL log_bin_compress_min_len = 10")
    try:
        yield
    finally:
        db.execute("SET GLOBAL log_bin_compress = OFF, GLOBAL log_bin_compress_min_len = 256")


def read_all(source: MysqlSource, raw: Sequence[bytes], flavour: str) -> int:
    """How many changes the events come to."""
    tables = SyncedTables(
        source._tables, source._home, source._connect, lambda r: r, folds_names=False
    )
    start = BinlogPosition("binlog.000001", 4, parse_gtids("0-1-1" if flavour == "mariadb" else ""))
    made = Transactions(tables, start, lambda _: iter(()), mariadb=flavour == "mariadb")
    made.load(raw)
    while made.step():
        pass
    return sum(len(changes_in(p)) for p in made.rows.pieces)
