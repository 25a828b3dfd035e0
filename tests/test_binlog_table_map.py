"""Table maps of real servers, and what is made of damaged ones."""

from __future__ import annotations

import pytest

from cdc.sources.mysql import codes, table_map
from cdc.sources.mysql.charsets import charset_of, converter
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.rows import compile_rows
from tests.binlog_events import TABLE_MAP, recorded
from tests.mysql_databases import MysqlDatabase

COLUMNS = """
    g GEOMETRY, a INT UNSIGNED NOT NULL, y YEAR, s VARCHAR(300) CHARACTER SET latin1, f FLOAT,
    e ENUM('ä', 'b') CHARACTER SET latin1, st SET('x', 'y') CHARACTER SET ucs2, b BLOB, bi BIT(9),
    c CHAR(100) CHARACTER SET utf8mb4, d DECIMAL(20,5), bin BINARY(5), t TIME(3), `käse` TEXT CHARACTER SET koi8r,
    PRIMARY KEY (s(5), a)"""


def logged(db: MysqlDatabase, columns: str) -> bytes:
    """The body of the table map of a table t with one row."""
    db.execute(f"CREATE TABLE t ({columns})")
    name = db.value(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
        " AND data_type = 'int' ORDER BY ordinal_position LIMIT 1"
    )
    events = recorded(
        db, lambda: db.execute(f"SET sql_mode = ''; INSERT INTO t ({name}) VALUES (1)")
    )
    [body] = [e.body for e in events if e.kind == TABLE_MAP]
    return body


def test_what_a_map_says(any_mysql_source: MysqlDatabase) -> None:
    """Names, types, signs, character sets, labels and the key, be the server named or guessed."""
    db = any_mysql_source
    mariadb = db.server.flavour == "mariadb"
    body = logged(db, COLUMNS)
    shape = table_map.parse(body, mariadb=mariadb)
    assert shape == table_map.parse(body)
    assert (shape.schema, shape.name, shape.table) == (db.name, "t", f"{db.name}.t")
    assert shape.named
    assert shape.key == (3, 1)
    columns = {c.name: c for c in shape.columns}
    assert list(columns) == "g a y s f e st b bi c d bin t käse".split()
    assert [c.name for c in shape.columns if not c.nullable] == ["a", "s"]
    assert {n: c.unsigned for n, c in columns.items() if c.unsigned is not None} == {
        "a": True,
        "y": True,
        "f": False,
        "d": False,
    }
    assert columns["e"].labels == ("ä".encode("latin1"), b"b")
    assert columns["st"].labels == (b"\0x", b"\0y")
    assert {n: charset_of(c.collation) for n, c in columns.items() if c.collation and n != "g"} == {
        "s": "latin1",
        "e": "latin1",
        "st": "ucs2",
        "b": "binary",
        "c": "utf8mb4",
        "bin": "binary",
        "käse": "koi8r",
    }
    assert {n: (c.type, *c.meta) for n, c in columns.items() if c.meta != (0, 0)} == {
        "g": (codes.GEOMETRY, 4, 0),
        "s": (codes.VARCHAR, 300, 0),
        "f": (codes.FLOAT, 4, 0),
        "e": (codes.ENUM, 1, 0),
        "st": (codes.SET, 1, 0),
        "b": (codes.BLOB, 2, 0),
        "bi": (codes.BIT, 9, 0),
        "c": (codes.STRING, 400, 0),
        "d": (codes.NEWDECIMAL, 20, 5),
        "bin": (codes.STRING, 5, 0),
        "t": (codes.TIME2, 3, 0),
        "käse": (codes.BLOB, 2, 0),
    }


@pytest.mark.parametrize("first", ["s1 VARCHAR(9)", "s1 BLOB", "g0 POINT, s1 BLOB"])
def test_whose_log_it_is(any_mysql_source: MysqlDatabase, first: str) -> None:
    """A geometry has a character set in MariaDB's log alone: the others keep theirs, guessed or told."""
    db = any_mysql_source
    texts = "s2 VARCHAR(9), s3 VARCHAR(9), s4 TEXT, s5 TEXT CHARACTER SET latin1"
    body = logged(db, f"id INT PRIMARY KEY, {first}, g1 POINT, {texts}")
    for mariadb in (None, db.server.flavour == "mariadb"):
        shape = table_map.parse(body, mariadb=mariadb)
        found = {c.name: charset_of(c.collation) for c in shape.columns if c.collation is not None}
        binary = "BLOB" in first
        assert found.pop("s1") == ("binary" if binary else "utf8mb4")
        assert {n: c for n, c in found.items() if n and n[0] != "g"} == {
            **dict.fromkeys(("s2", "s3", "s4"), "utf8mb4"),
            "s5": "latin1",
        }


def test_invisible_columns(mysql_source: MysqlDatabase) -> None:
    """They are in the log, and it says that they are not seen."""
    shape = table_map.parse(logged(mysql_source, "id INT PRIMARY KEY, i INT INVISIBLE, j INT"))
    assert [(c.name, c.visible) for c in shape.columns] == [("id", True), ("i", False), ("j", True)]


def test_without_metadata(any_mysql_source: MysqlDatabase) -> None:
    """With binlog_row_metadata MINIMAL there are no names; rows that need more are refused."""
    db = any_mysql_source
    none = "NO_LOG" if db.server.flavour == "mariadb" else "MINIMAL"
    db.execute(f"SET GLOBAL binlog_row_metadata = {none}")
    try:
        shape = table_map.parse(logged(db, "id INT PRIMARY KEY, e ENUM('a')"))
    finally:
        db.execute("SET GLOBAL binlog_row_metadata = FULL")
    assert not shape.named
    assert shape.key is None
    assert [c.type for c in shape.columns] == [codes.LONG, codes.ENUM]
    with pytest.raises(ProtocolError) as caught:
        compile_rows(shape, [None, None])
    assert "binlog_row_metadata = 'FULL'" in caught.value.hint


def test_metadata_of_the_future(any_mysql_source: MysqlDatabase) -> None:
    """A field that is not known is somebody else's."""
    body = logged(any_mysql_source, "id INT PRIMARY KEY, s TEXT")
    assert table_map.parse(body + b"\x63\x03abc") == table_map.parse(body)


def test_a_type_of_the_future(any_mysql_source: MysqlDatabase) -> None:
    """A table that nobody reads may have any type; whoever wants its rows learns which it is."""
    body = logged(any_mysql_source, "id INT PRIMARY KEY, s INT")
    shape = table_map.parse(body.replace(b"\x02\x03\x03", b"\x02\x03\xc8"))
    assert shape.name == "t"
    assert shape.columns == ()
    with pytest.raises(ProtocolError) as caught:
        compile_rows(shape, [])
    assert str(caught.value) == (
        f"table {shape.table}: expected a known column type, got number 200"
    )


def test_cut_short(any_mysql_source: MysqlDatabase) -> None:
    """However much is missing, it is an error, or a map without what stood at the end."""
    body = logged(any_mysql_source, COLUMNS)
    refused = 0
    for end in range(len(body)):
        try:
            shape = table_map.parse(body[:end])
        except ProtocolError:
            refused += 1
            continue
        assert shape.name == "t"
    assert refused > 10


WIDE = {"ucs2", "utf16", "utf16le", "utf32"}
SINGLE = [bytes([i]) for i in range(256)]
DOUBLE = [bytes([a, b]) for a in range(128, 256) for b in range(64, 256)]
TRIPLE = [bytes([0x8F, a, b]) for a in range(161, 256) for b in range(161, 256)]
UNICODE = "".join(chr(i) for i in [*range(1, 0xD800), *range(0xE000, 0x10000)])
BEYOND = "".join(map(chr, range(0x10000, 0x30000, 97)))


def test_every_character_of_every_set(any_mysql_source: MysqlDatabase) -> None:
    """The characters of every set are those that the server makes of it, in both directions."""
    db = any_mysql_source
    sets = db.rows("SELECT character_set_name, maxlen FROM information_schema.character_sets")
    for charset, longest in sets:
        if charset in {"binary", "utf8mb3", "utf8mb4"}:
            continue
        convert = converter(charset)
        assert convert is not None
        text = UNICODE + (BEYOND if longest == 4 else "")
        [[made, read]] = db.rows(
            f"SELECT HEX(CONVERT(%s USING {charset})),"
            f" HEX(CONVERT(CONVERT(%s USING {charset}) USING utf8mb4))",
            [text, text],
        )
        assert convert(bytes.fromhex(made)) == bytes.fromhex(read), charset
        if charset in WIDE:
            continue
        # What no character is written as, but reads as one all the same.
        tried = SINGLE if longest == 1 else DOUBLE + (TRIPLE if longest == 3 else [])
        found = [value for value in tried if (c := convert(value).decode()) != "?" and len(c) == 1]
        [[read]] = db.rows(
            f"SELECT HEX(CONVERT(CONVERT(x'{b''.join(found).hex()}' USING {charset}) USING utf8mb4))"
        )
        assert convert(b"".join(found)) == bytes.fromhex(read), charset


def test_every_collation(any_mysql_source: MysqlDatabase) -> None:
    """Every number that the server has is known, with its character set."""
    db = any_mysql_source
    table = (
        "collation_character_set_applicability" if db.server.flavour == "mariadb" else "collations"
    )
    known = db.rows(
        f"SELECT id, character_set_name FROM information_schema.{table} WHERE id IS NOT NULL"
    )
    assert len(known) > 200
    assert {n: charset_of(n) for n, _ in known} == dict(known)
