"""MySQL's binary JSON: printed as the server prints it, and put together from differences."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.json import double_text, json_text, json_tree, print_tree
from cdc.sources.mysql.partial_json import apply_diffs
from tests.binlog_events import INSERTS, recorded
from tests.mysql_databases import MysqlDatabase

DOCUMENTS = [
    *("'{}'", "'[]'", "'null'", "'true'", "'false'", "'\"x\"'", "'\"\"'", "'1'", "'-1'", "'1.5'"),
    *("'32767'", "'-32768'", "'32768'", "'-32769'", "'65535'", "'65536'", "'2147483648'"),
    *("'4294967295'", "'4294967296'", "'18446744073709551615'", "'-9223372036854775808'"),
    '\'{"a": 1, "bb": [1, 2, {"c": null}], "z": true, "": "", "aa": {}}\'',
    "JSON_OBJECT('d', CAST('2024-02-03' AS DATE), 't', CAST('-12:34:56.789' AS TIME(6)))",
    "JSON_OBJECT('zero', CAST('0000-00-00' AS DATE), 'y', CAST('9999-12-31' AS DATETIME(6)))",
    "JSON_ARRAY(CAST('2024-02-03 04:05:06.7' AS DATETIME(3)), TIMESTAMP '2024-01-01 00:00:00')",
    "JSON_ARRAY(CAST('838:59:59' AS TIME), CAST('-00:00:00.000001' AS TIME(6)))",
    "JSON_ARRAY(CAST(-12345.678900 AS DECIMAL(20,6)), CAST(-0.5 AS DECIMAL(5,5)))",
    "JSON_ARRAY(CAST(9 AS DECIMAL(65)), CAST(0 AS DECIMAL(5,2)), CAST(0.1 AS DECIMAL(65,30)))",
    "JSON_OBJECT('b', x'00ff', 'blob', REPEAT(x'01', 57), 'more', REPEAT(x'02', 200), 'bits', b'101')",
    "JSON_OBJECT('geo', POINT(1, 2.5))",
    "JSON_ARRAY(CAST(1.1 AS FLOAT), 1e20, 1e-20, -0e0, 100e0)",
    r"""JSON_ARRAY('tab\t nl\n cr\r bs\b " \\ /', CHAR(1, 12, 31, 127 USING utf8mb4), 'ü 𝄞')""",
    r"""JSON_OBJECT('key "\\\n', 1, 'ключ', 2)""",
    "JSON_ARRAY(REPEAT('x', 127), REPEAT('x', 128), REPEAT('y', 20000))",
    (
        "JSON_OBJECT(REPEAT('k', 300), 1, 'large', REPEAT('y', 70000), 'i32', 2147483647, 'u32', 4294967295,"
        " 'neg', -5, 'n', NULL, 't', TRUE, 'o', JSON_OBJECT('a', JSON_ARRAY(1, 2.5, -3)))"
    ),
    "JSON_ARRAY(REPEAT('y', 70000), 1, -1, 40000, 70000, -70000, NULL, FALSE, JSON_ARRAY(1))",
    "CONCAT(REPEAT('[', 99), REPEAT(']', 99))",
    "CONCAT('[0', REPEAT(',1', 40000), ']')",
]


def logged(db: MysqlDatabase, values: Sequence[str]) -> list[bytes]:
    """The documents' bytes in the log, each from its own row."""
    db.execute("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, j JSON)")

    def work() -> None:
        db.execute("SET sql_mode = 'ALLOW_INVALID_DATES'")
        for value in values:
            db.execute(f"INSERT INTO t (j) VALUES ({value})")

    # Number, flags, extra data, width, bitmap, NULLs, id, the document's length.
    head = 8 + 2 + 1 + 1 + 1 + 4 + 4
    return [e.body[head:] for e in recorded(db, work) if e.kind in INSERTS]


def test_every_kind(mysql_source: MysqlDatabase) -> None:
    """Every kind of value, at every size of its layout, is printed as by the server."""
    documents = logged(mysql_source, DOCUMENTS)
    shown = [text.encode() for [text] in mysql_source.rows("SELECT j FROM t ORDER BY id")]
    assert [json_text(d) for d in documents] == shown
    assert [print_tree(json_tree(d)) for d in documents] == shown


def test_doubles(mysql_source: MysqlDatabase) -> None:
    """Doubles are printed with the digits, the point and the exponent that the server chooses."""
    db, seeded = mysql_source, random.Random(5)
    values = [0.0, -0.0, 1.0, 1e14, 1e15, 1e16, 999999999999999.9, 1e-4, 1e-5, 1e-14, 1e-15, 9e-16]
    values += [5e-324, 1.7976931348623157e308, 1 / 3, 1918752846531026.5, 2716701035378046.25]
    for _ in range(300):
        [any_bits] = struct.unpack("<d", struct.pack("<Q", seeded.getrandbits(64)))
        values += [any_bits] if abs(any_bits) < float("inf") else []
        values.append(seeded.uniform(-1, 1) * 10 ** seeded.randint(-20, 20))
        values.append(float(seeded.randint(-(10**17), 10**17)))
    rows = ", ".join(f"({i}, {v!r})" for i, v in enumerate(values))
    db.execute("CREATE TABLE d (id INT PRIMARY KEY, v DOUBLE, j JSON)")
    db.execute(f"INSERT INTO d (id, v) VALUES {rows}; UPDATE d SET j = CAST(v AS JSON)")
    for text, kept in db.rows("SELECT j, v + 0e0 FROM d ORDER BY id"):
        assert double_text(kept).decode() == text


def test_damage(mysql_source: MysqlDatabase) -> None:
    """Documents cut short or with a byte changed are other documents, or errors, and soon."""
    for document in logged(mysql_source, DOCUMENTS[:-5]):
        document = document[:600]  # noqa: PLW2901
        for end in range(1, len(document)):
            survives(document[:end])
            for byte in (0, 1, 12, 15, 127, 255, document[end] ^ 1):
                survives(document[:end] + bytes([byte]) + document[end + 1 :])


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Any bytes are a document or a ProtocolError."""
    survives(data)


@given(st.binary(min_size=2, max_size=60), st.binary(max_size=60))
def test_any_differences(document: bytes, differences: bytes) -> None:
    """Any differences give a document or a ProtocolError."""
    try:
        apply_diffs(document, differences)
        apply_diffs(b"\x00\x01\x00\x0c\x00\x0b\x00\x01\x00\x05\x01\x00k", differences)
    except ProtocolError:
        pass


def survives(data: bytes) -> None:
    try:
        text = json_text(data)
        json_tree(data)
    except ProtocolError:
        pass
    else:
        # Control characters take six bytes; numbers up to twenty for one byte of an entry.
        assert len(text) <= 24 * len(data) + 100


def test_an_endless_document() -> None:
    """A document that holds itself, many times over, is refused at once."""
    inside = b"\x02\x00\x00" * 1000
    body = struct.pack("<HH", 1000, 4 + len(inside)) + inside
    with pytest.raises(ProtocolError) as caught:
        json_text(b"\x02" + body)
    assert str(caught.value) == "expected a JSON document, got a damaged one"


@pytest.mark.parametrize(
    "path",
    [b"$" + b"[0]" * 20_000, b"$[" + b"9" * 5000 + b"]", b'$."\\ud800"', b"$[9" + b"9" * 40 + b"]"],
)
def test_paths_that_nobody_writes(path: bytes) -> None:
    """Depths and numbers beyond every document are errors like others."""
    length = b"\xfd" + len(path).to_bytes(3, "little")
    for operation in (b"\x00", b"\x01"):
        difference = operation + length + path + b"\x03\x05\x07\x00"
        with contextlib.suppress(ProtocolError):
            assert apply_diffs(b"\x02\x01\x00\x07\x00\x05\x09\x00", difference) == b"[7]"


@pytest.mark.parametrize(
    ("path", "operation", "expected"),
    [
        (b"$.a", 0, b'{"a": 7, "b": [1, {"c": 2}]}'),
        (b"$.n", 1, b'{"a": 1, "b": [1, {"c": 2}], "n": 7}'),
        (b'$."a"', 2, b'{"b": [1, {"c": 2}]}'),
        (b"$.b[0]", 2, b'{"a": 1, "b": [{"c": 2}]}'),
        (b"$.b[0]", 1, b'{"a": 1, "b": [7, 1, {"c": 2}]}'),
        (b"$.b[9]", 1, b'{"a": 1, "b": [1, {"c": 2}, 7]}'),
        (b"$.b[last]", 0, b'{"a": 1, "b": [1, 7]}'),
        (b"$.b[last-1]", 0, b'{"a": 1, "b": [7, {"c": 2}]}'),
        (b"$.b[1].c", 0, b'{"a": 1, "b": [1, {"c": 7}]}'),
        (b"$.b[1][0].c", 0, b'{"a": 1, "b": [1, {"c": 7}]}'),
        (b"$.a[0]", 0, b'{"a": 7, "b": [1, {"c": 2}]}'),
        (b"$[0]", 0, b"7"),
        (b"$", 0, b"7"),
    ],
)
def test_differences(
    mysql_source: MysqlDatabase, path: bytes, operation: int, expected: bytes
) -> None:
    """Each operation, at each kind of path."""
    [document] = logged(mysql_source, ['\'{"a": 1, "b": [1, {"c": 2}]}\''])
    value = b"" if operation == 2 else b"\x03\x05\x07\x00"
    difference = bytes([operation, len(path)]) + path + value
    assert apply_diffs(document, difference) == expected


@pytest.mark.parametrize(
    "difference",
    [
        b"\x00\x03$.x\x03\x05\x07\x00",
        b"\x01\x03$.a\x03\x05\x07\x00",
        b"\x02\x06$.b[5]",
        b"\x02\x01$",
        b"\x03\x01$",
        b"\x00\x03$.a\x09",
        b"\x00\x02xx\x03\x05\x07\x00",
        b"\x00\xfb",
        b"\x02\x05$.a.b",
    ],
)
def test_differences_that_do_not_fit(mysql_source: MysqlDatabase, difference: bytes) -> None:
    """Nothing is guessed: the message says how to do without partial updates."""
    [document] = logged(mysql_source, ['\'{"a": 1, "b": [1, {"c": 2}]}\''])
    with pytest.raises(ProtocolError) as caught:
        apply_diffs(document, difference)
    assert "binlog_row_value_options = ''" in caught.value.hint
