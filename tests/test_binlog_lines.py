"""Rows of a binary log, read in C: what Python reads, byte for byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.sources.mysql import codes, images
from cdc.sources.mysql.decimals import BYTES, groups
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.rows import RowsReader, compile_rows
from cdc.sources.mysql.table_map import LoggedColumn, TableMap
from tests.implementations import compiled

UTF8, LATIN1, BINARY = 45, 8, 63
INTEGERS = {codes.TINY: 1, codes.SHORT: 2, codes.INT24: 3, codes.LONG: 4, codes.LONGLONG: 8}
DAYS = st.tuples(st.integers(0, 9999), st.integers(0, 12), st.integers(0, 31))
CLOCKS = st.tuples(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59)).map(
    lambda t: t[0] << 12 | t[1] << 6 | t[2]
)
TEXTS = st.lists(
    st.sampled_from(
        [b"a", b"\\", b"\t", b"\n", b"\r", b"\\N", b"\\=", b"=", "\u00e9\u8868".encode()]
    )
)

Column = tuple[LoggedColumn, st.SearchStrategy[bytes]]


def column(
    kind: int, meta: tuple[int, int], *, unsigned: bool = False, collation: int = BINARY
) -> LoggedColumn:
    return LoggedColumn(
        kind,
        meta,
        nullable=True,
        name="c",
        unsigned=unsigned,
        collation=collation,
        labels=(b"a", b"b\t", b""),
    )


def sized(octets: int, value: bytes) -> bytes:
    return len(value).to_bytes(octets, "little") + value


def fraction(digits: int) -> st.SearchStrategy[bytes]:
    octets = (digits + 1) // 2
    top = 10 ** (digits + digits % 2) - 1
    return st.integers(0, top).map(lambda n: n.to_bytes(octets, "big"))


@st.composite
def integers(draw: st.DrawFn) -> Column:
    kind = draw(st.sampled_from(sorted(INTEGERS)))
    size = INTEGERS[kind]
    hard = st.sampled_from(
        [b"\0" * size, b"\xff" * size, b"\xff" * (size - 1) + b"\x7f", b"\0" * (size - 1) + b"\x80"]
    )
    return column(kind, (0, 0), unsigned=draw(st.booleans())), st.one_of(
        hard, st.binary(min_size=size, max_size=size)
    )


@st.composite
def decimals(draw: st.DrawFn) -> Column:
    precision = draw(st.integers(1, 65))
    scale = draw(st.integers(0, min(30, precision)))
    parts = [d for part in groups(precision, scale) for d in part]

    def stored(numbers: Sequence[int], negative: bool) -> bytes:
        data = b"".join(n.to_bytes(BYTES[d], "big") for n, d in zip(numbers, parts, strict=True))
        data = bytes([data[0] ^ 0x80]) + data[1:]
        return bytes(b ^ 0xFF for b in data) if negative else data

    digits = [st.one_of(st.just(0), st.integers(0, 10**d - 1)) for d in parts]
    return column(codes.NEWDECIMAL, (precision, scale)), st.builds(
        stored, st.tuples(*digits), st.booleans()
    )


@st.composite
def times(draw: st.DrawFn) -> Column:
    digits = draw(st.integers(0, 6))
    kind = draw(st.sampled_from([codes.DATETIME2, codes.TIMESTAMP2, codes.TIME2]))
    if kind == codes.TIMESTAMP2:
        whole = st.one_of(st.just(0), st.integers(0, 2**32 - 1)).map(lambda n: n.to_bytes(4, "big"))
        value = st.tuples(whole, fraction(digits)).map(b"".join)
    elif kind == codes.DATETIME2:
        day = DAYS.map(lambda t: t[0] * 13 + t[1] << 5 | t[2])
        whole = st.tuples(day, CLOCKS).map(
            lambda t: (1 << 39 | t[0] << 17 | t[1]).to_bytes(5, "big")
        )
        value = st.tuples(whole, fraction(digits)).map(b"".join)
    else:
        octets = (digits + 1) // 2

        def stored(number: int, part: bytes, negative: bool) -> bytes:
            found = number << 8 * octets | int.from_bytes(part, "big")
            return ((0x800000 << 8 * octets) + (-found if negative else found)).to_bytes(
                3 + octets, "big"
            )

        hours = st.tuples(st.integers(0, 838), CLOCKS).map(lambda t: t[0] << 12 | t[1] & 0xFFF)
        value = st.builds(stored, hours, fraction(digits), st.booleans())
    return column(kind, (digits, 0)), value


@st.composite
def texts(draw: st.DrawFn) -> Column:
    octets = draw(st.integers(1, 4))
    kind, meta = draw(
        st.sampled_from(
            [(codes.BLOB, (octets, 0)), (codes.VARCHAR, (300, 0)), (codes.STRING, (99, 0))]
        )
    )
    length = octets if kind == codes.BLOB else 2 if kind == codes.VARCHAR else 1
    collation = draw(
        st.sampled_from([UTF8, LATIN1] if kind == codes.STRING else [UTF8, LATIN1, BINARY])
    )
    value = st.binary(max_size=20) if collation == BINARY else TEXTS.map(b"".join)
    return column(kind, meta, collation=collation), value.map(lambda v: sized(length, v))


OTHERS: list[Column] = [
    (
        column(codes.DATE, (0, 0)),
        DAYS.map(lambda t: (t[0] << 9 | t[1] << 5 | t[2]).to_bytes(3, "little")),
    ),
    (column(codes.YEAR, (0, 0)), st.binary(min_size=1, max_size=1)),
    (column(codes.DOUBLE, (8, 0)), st.floats().map(struct.Struct("<d").pack)),
    (column(codes.BIT, (6, 0)), st.integers(0, 63).map(lambda n: bytes([n]))),
    (
        column(codes.ENUM, (2, 0), collation=UTF8),
        st.integers(0, 3).map(lambda n: n.to_bytes(2, "little")),
    ),
]
COLUMNS = st.one_of(integers(), decimals(), times(), texts(), st.sampled_from(OTHERS))


@st.composite
def tables(draw: st.DrawFn) -> tuple[TableMap, list[list[bytes | None]]]:
    """A table, and rows of it."""
    found = draw(st.lists(COLUMNS, min_size=1, max_size=11))
    row = st.tuples(*[st.one_of(st.none(), value) for _, value in found]).map(list)
    return TableMap(1, "d", "t", tuple(c for c, _ in found)), draw(
        st.lists(row, min_size=1, max_size=4)
    )


def body_of(rows: Sequence[Sequence[bytes | None]], *, images: int) -> bytes:
    """An event of version 1 whose rows have all columns."""
    width = len(rows[0])
    octets = (width + 7) // 8
    body = bytes(8) + bytes([width]) + images * (b"\xff" * octets)
    for row in rows:
        nulls = sum(1 << i for i, v in enumerate(row) if v is None)
        body += nulls.to_bytes(octets, "little") + b"".join(v for v in row if v is not None)
    return body


def both(shape: TableMap, old: Sequence[int] | None = None) -> tuple[RowsReader, RowsReader]:
    lines = compiled("cdc.sources.mysql._rows", "Lines")
    made = []
    for part in (lines, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(images, "_Lines", part)
            reader = compile_rows(shape, [None] * len(shape.columns), old)
            # Images are made when the first event is read: empty ones have them made now.
            for read, count in ((reader.inserts, 1), (reader.deletes, 1), (reader.updates, 2)):
                read(body_of([[None] * len(shape.columns)] * count, images=count), 1)
            made.append(reader)
    return made[0], made[1]


@settings(max_examples=400)
@given(tables())
def test_rows_that_a_server_may_write(case: tuple[TableMap, list[list[bytes | None]]]) -> None:
    """Inserts, deletes and updates, whole and with the old key alone; and C reads them by itself."""
    shape, rows = case
    body, pairs = body_of(rows, images=1), body_of(rows * 2, images=2)
    for old in (None, [0]):
        c, python = both(shape, old)
        assert c.inserts(body, 1) == python.inserts(body, 1)
        assert c.deletes(body, 1) == python.deletes(body, 1)
        assert c.updates(pairs, 1) == python.updates(pairs, 1)
        assert c._insert is not None
        native = c._insert.images[0].compiled
        assert native is not None
        assert native.rows(body, c._insert.at) == python.inserts(body, 1)


@settings(max_examples=400)
@given(tables(), st.data())
def test_damaged_rows(case: tuple[TableMap, list[list[bytes | None]]], data: st.DataObject) -> None:
    """What Python refuses is refused, in the same words; nothing else is. Of text that is none, Python does
    not know the column where a value has a tab."""
    shape, rows = case
    body = bytearray(body_of(rows * 2, images=1))
    start = 9 + (len(shape.columns) + 7) // 8
    at = data.draw(st.integers(start, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(at + 1, len(body)))])
    c, python = both(shape)
    assert outcome(c, cut) == outcome(python, cut)


def outcome(reader: RowsReader, body: bytes) -> object:
    try:
        return reader.inserts(body, 1)
    except ProtocolError as e:
        return str(e).replace("column c: expected text in UTF-8", "expected text in UTF-8")


@pytest.mark.parametrize(
    "column",
    [
        (True, True, "unknown", 1, 0, 0, None),
        (True, True, "integer", 9, 0, 0, None),
        (True, True, "decimal", 4, 2, 10, None),
        (True, True, "time", 3, 7, 0, None),
        (True, True, "text", 5, 0, 0, None),
        (True, True, "labels", 1, 0, 0, [b"a"]),
        (True, True, "integer", 4),
        None,
    ],
)
def test_a_column_that_is_none(column: object) -> None:
    """Sizes that do not belong together would have it read beyond a value: they are an error."""
    lines = compiled("cdc.sources.mysql._rows", "Lines")
    with pytest.raises((ValueError, TypeError)):
        lines((column,))
