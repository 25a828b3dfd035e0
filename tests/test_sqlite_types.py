"""What the SQLite applier makes of a source's values, types, names and keys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliers.batch import Batch
from appliers.delta import Delta, Op, Value
from appliers.errors import PermanentError
from appliers.images import Format, copy_text_line, pgoutput_image
from appliers.relation import Column, Relation
from appliers.sqlite.types import STORED, Storage, storage_of
from tests.applier_bed import Bed, SqliteTarget, commit, no_reread, position


@pytest.fixture
def bed(sqlite_path: Path) -> Iterator[Bed]:
    bed = Bed(SqliteTarget(sqlite_path))
    yield bed
    bed.close()


def table(
    name: str, *columns: Column, key: tuple[int, ...] = (0,), schema: str = "public"
) -> Relation:
    return Relation(schema, name, columns, key, Format.PGOUTPUT_TEXT)


ID = Column("id", "bigint", "int8", nullable=False)
TEXT = Column("name", "text", "text")


# Values

HARD: list[tuple[str, str, str, list[str]]] = [
    ("smallint", "int2", "base", ["-32768", "0", "32767"]),
    ("bigint", "int8", "base", ["-9223372036854775808", "9223372036854775807"]),
    ("oid", "oid", "base", ["4294967295"]),
    ("boolean", "bool", "base", ["t", "f"]),
    (
        "real",
        "float4",
        "base",
        ["3.4028235e+38", "1e-45", "-0", "NaN", "Infinity", "-Infinity", "0.1"],
    ),
    (
        "double precision",
        "float8",
        "base",
        [
            "1.7976931348623157e+308",
            "5e-324",
            "-0",
            "NaN",
            "Infinity",
            "-Infinity",
            "0.1",
            "100",
            "1e+15",
        ],
    ),
    (
        "numeric",
        "numeric",
        "base",
        ["1.50", "-0.000", "NaN", "Infinity", "9" * 131072 + "." + "9" * 16383, "007"],
    ),
    ("money", "money", "base", ["$1,234.50", "-$0.01"]),
    ("date", "date", "base", ["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"]),
    ("time", "time", "base", ["24:00:00", "00:00:00.000001"]),
    ("timestamptz", "timestamptz", "base", ["infinity", "2024-01-01 00:00:00.123456+05:30"]),
    ("interval", "interval", "base", ["-1 years -2 mons +3 days -04:05:06.789"]),
    ("jsonb", "jsonb", "base", ['{"a": [1, null, "\\u00e9"]}', "1.0", '"\U0001f600"']),
    ("json", "json", "base", ['{ "a":1, "a":2 }', "1e400"]),
    (
        "uuid",
        "uuid",
        "base",
        ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "12345678-1234-1234-1234-123456789012"],
    ),
    ("bit(3)", "bit", "base", ["101", "000"]),
    ("character(5)", "bpchar", "base", ["ab   ", "     "]),
    (
        "text",
        "text",
        "base",
        ["", "1.0", "0x10", " 7 ", "tab\tnew\nline\\", "NaN", "\u00e9\U0001f600", "inf"],
    ),
    ("mood", "mood", "enum", ["sad", "1"]),
    ("integer[]", "int4", "array", ["{1,NULL,3}", "{}"]),
    ("text[]", "text", "array", ['{"a\\"b",NULL,"NULL"}']),
    ("int4range", "int4range", "range", ["[1,5)", "empty"]),
    ("pair", "pair", "composite", ['(1,"a b")']),
    ("xml", "xml", "base", ["<a>\u00e9</a>"]),
    ("inet", "inet", "base", ["192.168.0.1/24", "::1"]),
    ("xid8", "xid8", "base", ["18446744073709551615"]),
    ("hstore", "hstore", "base", ['"a"=>NULL, "b"=>"1"']),
    ("tsvector", "tsvector", "base", ["'a':1A 'b':2"]),
]


def printed(value: Any, storage: Storage) -> str:
    """What is kept, as PostgreSQL prints it: the way back, which shows that nothing was lost."""
    if storage is Storage.BOOLEAN:
        return {1: "t", 0: "f"}[value]
    if storage is Storage.BLOB:
        return f"\\x{value.hex()}"
    if storage is Storage.FLOAT and isinstance(value, float):
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        text = repr(value)
        return text.removesuffix(".0") if text != "1000000000000000.0" else "1e+15"
    return str(value)


@pytest.mark.parametrize(("type_name", "base", "kind", "texts"), HARD, ids=[h[0] for h in HARD])
@pytest.mark.parametrize("format", [Format.PGOUTPUT_TEXT, Format.COPY_TEXT], ids=["log", "copy"])
def test_no_value_is_lost(
    bed: Bed, type_name: str, base: str, kind: str, texts: list[str], format: Format
) -> None:
    """What comes back from SQLite prints as it was sent, from the log and from a copy, NULL too."""
    column = Column("v", type_name, base, kind)
    relation = Relation("public", "hard", (ID, column), (0,), format)
    applier = bed.open(begun=True)
    applier.prepare(relation)
    rows: list[list[Value]] = [[str(n).encode(), t.encode()] for n, t in enumerate(texts)]
    rows.append([b"-1", None])
    images = [
        pgoutput_image(r, b"t") if format is Format.PGOUTPUT_TEXT else copy_text_line(r)
        for r in rows
    ]
    deltas = [Delta(Op.INSERT, relation, None, image, commit(1), 1) for image in images]
    applier.apply(Batch(deltas, position(1)), no_reread)
    storage = storage_of(column, "postgres")
    [(_, null), *kept] = bed.target.rows("SELECT id, v FROM hard ORDER BY id")
    assert null is None
    assert [printed(v, storage) for _, v in kept] == texts
    assert [v for _, v in kept] == [STORED[storage](t.encode()) for t in texts]


def test_every_byte_of_a_bytea(bed: Bed) -> None:
    """All 256, in both of PostgreSQL's formats; an empty one is not NULL."""
    relation = table("raw", ID, Column("v", "bytea", "bytea"))
    every = bytes(range(256))
    escaped = "".join(
        "\\\\" if b == 92 else chr(b) if 32 <= b < 127 else f"\\{b:03o}" for b in every
    ).encode()
    values = [b"\\x" + every.hex().encode(), escaped, b"\\x", b"", b"\\\\x41"]
    applier = bed.open(begun=True)
    applier.prepare(relation)
    deltas = [
        Delta(Op.INSERT, relation, None, pgoutput_image([str(n).encode(), v], b"t"), commit(1), 1)
        for n, v in enumerate(values)
    ]
    applier.apply(Batch(deltas, position(1)), no_reread)
    kept = [v for (v,) in bed.target.rows("SELECT v FROM raw ORDER BY id")]
    assert kept == [every, every, b"", b"", b"\\x41"]


def test_the_declared_types(bed: Bed) -> None:
    """A single integer key is the rowid; the affinities are those of the README's table."""
    columns = (
        ID,
        Column("ok", "boolean", "bool"),
        Column("ratio", "real", "float4"),
        Column("raw", "bytea", "bytea"),
        Column("price", "numeric(10,2)", "numeric"),
        Column("mood", "public.integer_mood", "integer", "enum"),
    )
    applier = bed.open()
    applier.prepare(table("kinds", *columns))
    applier.prepare(table("pairs", ID, TEXT, key=(1, 0)))
    made = dict(
        bed.target.rows("SELECT name, sql FROM sqlite_master WHERE name IN ('kinds', 'pairs')")
    )
    assert made["kinds"] == (
        'CREATE TABLE "kinds" ("id" INTEGER NOT NULL PRIMARY KEY, "ok" INTEGER, "ratio", "raw" BLOB,'
        ' "price" TEXT, "mood" TEXT)'
    )
    assert made["pairs"] == (
        'CREATE TABLE "pairs" ("id" INTEGER NOT NULL, "name" TEXT NOT NULL, PRIMARY KEY ("name", "id"))'
    )


def test_mysqls_types_are_another_table() -> None:
    """What fits is a number or bytes; an unsigned bigint, decimals and what nobody knows stay text."""
    kinds = {
        "int(10) unsigned": Storage.INTEGER,
        "bigint(20)": Storage.INTEGER,
        "bigint(20) unsigned": Storage.TEXT,
        "double": Storage.FLOAT,
        "varbinary(9)": Storage.BLOB,
        "point": Storage.BLOB,
        "decimal(10,2)": Storage.TEXT,
        "bit(8)": Storage.TEXT,
        "bool": Storage.TEXT,
        "no such type": Storage.TEXT,
    }
    for name, storage in kinds.items():
        base = name.partition("(")[0].split()[0]
        assert storage_of(Column("v", name, base), "mysql") is storage, name


def test_keys_of_any_type(bed: Bed) -> None:
    """Four columns: text in any case, numeric by its text, uuid, -0: found, changed, deleted."""
    columns = (
        Column("a", "text", "text"),
        Column("b", "numeric", "numeric"),
        Column("c", "double precision", "float8"),
        Column("d", "bytea", "bytea"),
        Column("v", "integer", "int4"),
    )
    relation = table("keys", *columns, key=(0, 1, 2, 3))
    applier = bed.open(begun=True)
    applier.prepare(relation)

    def row(a: str, b: str, c: str, v: int) -> bytes:
        return pgoutput_image(
            [a.encode(), b.encode(), c.encode(), b"\\x00ff", str(v).encode()], b"t"
        )

    def change(op: Op, before: bytes | None, after: bytes | None) -> Delta:
        return Delta(op, relation, before, after, commit(1), 1)

    deltas = [
        change(Op.INSERT, None, row("k", "1.0", "-0", 1)),
        change(Op.INSERT, None, row("K", "1.0", "NaN", 2)),
        change(Op.INSERT, None, row("k", "1.00", "Infinity", 3)),
        change(Op.UPDATE, None, row("K", "1.0", "NaN", 22)),
        change(Op.UPDATE, row("k", "1.0", "-0", 1), row("k", "1.0", "0", 11)),
        change(Op.DELETE, row("k", "1.00", "Infinity", 3), None),
    ]
    applied = applier.apply(Batch(deltas, position(1)), no_reread)
    assert applied.healed == 0
    assert bed.target.rows("SELECT a, b, c, v FROM keys ORDER BY v") == [
        ("k", "1.0", 0.0, 11),
        ("K", "1.0", "NaN", 22),
    ]


# Names and tables


def test_a_schema_stands_before_the_name(bed: Bed) -> None:
    """`public` does not; two tables that would share one are refused by name, also after a restart."""
    applier = bed.open(begun=True)
    applier.prepare(table("orders", ID, TEXT, schema="sales"))
    applier.prepare(table("orders", ID, TEXT))
    assert {"orders", "sales_orders"} <= bed.target.tables()
    with pytest.raises(
        PermanentError, match=r"public\.sales_orders and sales\.orders would both be"
    ):
        applier.prepare(table("sales_orders", ID, TEXT))
    with applier.state.transaction():
        applier.state.begin("{}", position(0), ["public.orders", "public.ORDERS"])
    applier.close()
    with pytest.raises(
        PermanentError, match=r"public\.orders .*public\.ORDERS|public\.ORDERS .*orders"
    ):
        bed.open().prepare(table("orders", ID, TEXT))


@pytest.mark.parametrize("name", ["cdc_checkpoint", "CDC_holder", "sqlite_stat1"])
def test_reserved_names_are_refused(bed: Bed, name: str) -> None:
    """A source's table never takes the place of the sync's own, or SQLite's."""
    with pytest.raises(PermanentError, match="reserved"):
        bed.open().prepare(table(name, ID, TEXT))


def test_awkward_names(bed: Bed) -> None:
    """Quotes, spaces, reserved words and other scripts; columns that differ in case only are refused."""
    relation = table('sel"ect \u00e9', Column('"', "text", "text"), Column("order", "text", "text"))
    applier = bed.open(begun=True)
    applier.prepare(relation)
    images = [pgoutput_image([b"k", v], b"t") for v in (b"1", b"2")]
    deltas = [
        Delta(Op.INSERT, relation, None, images[0], commit(1), 1),
        Delta(Op.UPDATE, relation, None, images[1], commit(1), 2),
    ]
    applier.apply(Batch(deltas, position(1)), no_reread)
    assert bed.target.rows('SELECT """", "order" FROM "sel""ect \u00e9"') == [("k", "2")]
    with pytest.raises(PermanentError, match="upper from lower"):
        applier.prepare(table("twice", ID, TEXT, Column("NAME", "text", "text")))


def test_a_key_that_compares_otherwise_is_refused(bed: Bed) -> None:
    """NOCASE, or an affinity that makes '007' and '7' one: two rows of the source would be one."""
    bed.target.execute("CREATE TABLE a (name TEXT COLLATE NOCASE PRIMARY KEY)")
    bed.target.execute("CREATE TABLE b (name DECIMAL PRIMARY KEY)")
    applier = bed.open()
    with pytest.raises(PermanentError, match="compares with NOCASE") as caught:
        applier.prepare(table("a", TEXT))
    bed.target.execute(caught.value.hint)
    applier.prepare(table("a", TEXT))
    with pytest.raises(PermanentError, match="two keys could become one"):
        applier.prepare(table("b", TEXT))


def test_a_nocase_column_with_an_exact_index(bed: Bed) -> None:
    """The source's equality decides which row is meant, not the column's collation."""
    bed.target.execute("CREATE TABLE a (name TEXT COLLATE NOCASE, v TEXT)")
    bed.target.execute("CREATE UNIQUE INDEX a_key ON a (name COLLATE BINARY)")
    relation = table("a", TEXT, Column("v", "text", "text"))
    applier = bed.open(begun=True)
    applier.prepare(relation)

    def change(op: Op, name: bytes, v: bytes) -> Delta:
        image = pgoutput_image([name, v], b"t")
        return Delta(op, relation, image, image, commit(1), 1)

    deltas = [change(Op.INSERT, b"x", b"1"), change(Op.INSERT, b"X", b"2")]
    deltas += [
        change(Op.UPDATE, b"x", b"11"),
        change(Op.INSERT, b"y", b"3"),
        change(Op.DELETE, b"Y", b""),
    ]
    applier.apply(Batch(deltas, position(1)), no_reread)
    assert bed.target.rows("SELECT name, v FROM a ORDER BY v") == [
        ("x", "11"),
        ("X", "2"),
        ("y", "3"),
    ]


def test_a_lossy_column_is_a_warning(bed: Bed) -> None:
    """A user's own DECIMAL column is used, and `check` says what it does to the values."""
    bed.target.execute(
        "CREATE TABLE item (id BIGINT PRIMARY KEY, code DECIMAL(9, 2), n INTEGER, big TEXT)"
    )
    found = [f for f in bed.open(None).check([bed.log]) if f.level == "warn"]
    assert [f.subject for f in found] == ["public.item"]
    assert "code is declared DECIMAL(9, 2)" in found[0].message
