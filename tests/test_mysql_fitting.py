"""Into tables that are there already, with other types: a value arrives as it was, or is refused. MySQL
and MariaDB would change many without a word, strict as they are told to be."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliers.errors import PermanentError
from appliers.images import Format, ImageError, pgoutput_image
from appliers.lines import line, split
from appliers.mysql import values
from appliers.mysql.catalog import TargetColumn
from appliers.mysql.types import created_columns
from appliers.relation import Column, Relation
from appliers.unrepresentable import Unrepresentable
from tests.mysql_databases import MysqlDatabase
from tests.mysql_values_bed import Bed, columns_relation

PG: Final = {
    "bool": "boolean",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "time": "time without time zone",
}
"""What PostgreSQL's DDL calls types whose names differ there."""

KEPT: Final[tuple[tuple[str, str, dict[str, str | None]], ...]] = (
    ("bool", "int", {"t": "1", "f": "0"}),
    ("bool", "bit(9)", {"t": "1", "f": "0"}),
    ("bool", "varchar(5)", {"t": "t", "f": "f"}),
    ("int8", "double", {"9007199254740992": "9.007199254740992e15", "-1": "-1"}),
    ("int4", "year", {"1901": "1901", "0000": "0000"}),
    ("int4", "bit(8)", {"255": "ff", "0": "0"}),
    ("float8", "int", {"16777216.0": "16777216", "1e3": "1000", "-0.0": "0"}),
    ("float8", "decimal(10,2)", {"1.25": "1.25", "100": "100.00", "1e2": "100.00"}),
    ("numeric", "decimal(10,2)", {"1.5": "1.50", "1.5000": "1.50", "-7": "-7.00"}),
    ("numeric", "double", {"0.1": "0.1", "1.50": "1.5"}),
    ("numeric", "float", {"0.1": None, "16777216": None}),
    ("numeric", "bigint", {"42.000": "42", "-42": "-42"}),
    ("text", "int", {"42": "42", "-1": "-1"}),
    ("text", "decimal(5,2)", {"1.25": "1.25"}),
    ("text", "date", {"2024-02-29": "2024-02-29"}),
    ("text", "datetime(3)", {"2024-02-29 12:00:00.1": "2024-02-29 12:00:00.100"}),
    ("text", "time(6)", {"-01:02:03.5": "-01:02:03.500000", "24:00:00": "24:00:00.000000"}),
    ("text", "enum('a','it''s','1')", {"a": "a", "it's": "it's", "1": "1"}),
    ("text", "set('a','b')", {"": "", "a,b": "a,b"}),
    ("text", "blob", {"a\tb\\": "6109625c", "": ""}),
    ("text", "binary(2)", {"ab": "6162"}),
    ("text", "char(5)", {"a": "a", " a": " a"}),
    ("text", "varchar(5)", {"a  ": "a  "}),
    ("text", "bit(4)", {"0101": "5"}),
    ("date", "datetime(6)", {"2024-02-29": "2024-02-29 00:00:00.000000"}),
    ("timestamp", "date", {"2024-02-29 00:00:00": "2024-02-29"}),
    ("timestamptz", "datetime", {"2024-02-29 12:00:00+00": "2024-02-29 12:00:00"}),
    ("timestamptz", "datetime(3)", {"2024-02-29 12:00:00.5+00": "2024-02-29 12:00:00.500"}),
    (
        *("timestamptz", "timestamp(6) NULL"),
        {"2024-02-29 12:00:00.000001+00": "2024-02-29 12:00:00.000001"},
    ),
    ("timestamptz", "varchar(40)", {"2024-02-29 12:00:00+00": "2024-02-29 12:00:00+00"}),
    ("bytea", "varbinary(3)", {"\\x00ff": "00ff", "\\x": ""}),
    ("bytea", "binary(2)", {"\\x00ff": "00ff"}),
    ("bytea", "text", {"\\x00ff": "\\x00ff"}),
    ("jsonb", "json", {'{"a": 1.5}': '{"a": 1.5}', "[1, 2]": "[1, 2]"}),
)
"""Source type, target type, and what the target prints of values (None: a FLOAT, not looked at)."""

REFUSED: Final[tuple[tuple[str, str, dict[str, str]], ...]] = (
    ("bool", "int", {"yes": "a text that is no boolean"}),
    ("int8", "double", {"9007199254740993": "a number with more digits than it holds"}),
    ("int4", "float", {"16777217": "a number with more digits than it holds"}),
    ("int4", "year", {"70": "a number that is no year from 1901 to 2155"}),
    ("int4", "bit(8)", {"256": "a value that is no 8 bits", "-1": "a value that is no 8 bits"}),
    ("float8", "int", {"1.5": "a fraction", "NaN": "NaN", "1e400": "a number of so many digits"}),
    (
        *("numeric", "decimal(60,10)"),
        {"1234567890123456789012345678.12345678901": "a number with more than 10 decimal places"},
    ),
    ("float8", "float", {"0.30000000000000004": "a number with more digits than it holds"}),
    (
        "float8",
        "decimal(10,2)",
        {"0.001": "a number with more than 2 decimal places", "NaN": "NaN"},
    ),
    ("numeric", "decimal(10,2)", {"1.005": "a number with more than 2 decimal places"}),
    ("numeric", "double(10,2)", {"1.005": "a number with more than 2 decimal places"}),
    ("numeric", "double", {"0.12345678901234567": "a number with more digits than it holds"}),
    (
        "text",
        "int",
        {"abc": "a text that is no number", "1 ": "a text that is no number", "1.5": "a fraction"},
    ),
    ("text", "date", {"24-1-1": "a text that is no date", "2024-01-01 12:00:00": "a time of day"}),
    ("text", "time", {"11": "a text that is no time", "1 11:11:11": "a text that is no time"}),
    (
        "text",
        "enum('a','b')",
        {"A": "a text that is none of its labels", "1": "a text that is none of its labels"},
    ),
    (
        *("text", "set('a','b')"),
        dict.fromkeys(
            ("b,a", "A", "a,a", "3"), "a text that is no list of its labels in their order"
        ),
    ),
    ("text", "char(5)", {"a ": "a text that ends with blanks"}),
    ("text", "binary(3)", {"ab": "fewer than 3 bytes"}),
    ("text", "bit(4)", {"101": "a value that is no 4 bits", "abcd": "a value that is no 4 bits"}),
    ("timestamp", "date", {"2024-02-29 12:00:00": "a time of day"}),
    (
        *("timestamp", "datetime(3)"),
        {"2024-02-29 12:00:00.0001": "a time with more than 3 digits behind the second"},
    ),
    (
        *("timestamptz", "datetime"),
        {"2024-02-29 12:00:00.5+00": "a time with more than 0 digits behind the second"},
    ),
    ("time", "time(3)", {"12:00:00.0001": "a time with more than 3 digits behind the second"}),
    ("bytea", "binary(3)", {"\\x00ff": "fewer than 3 bytes"}),
)

REFUSED_BY_MYSQL_JSON: Final = {
    '{"a": 0.12345678901234567}': "a number with more digits than DOUBLE holds",
    "[1E400]": "a number with more digits than DOUBLE holds",
    "1e-400": "a number with more digits than DOUBLE holds",
    "18446744073709551616": "a number with more digits than DOUBLE holds",
    '{"a": 1, "a": 2}': "an object that repeats a key",
}

HOPELESS: Final = (
    ("bool", "date"),
    ("int4", "datetime"),
    ("int4", "geometry"),
    ("date", "int"),
    ("jsonb", "int"),
    ("bytea", "int"),
    ("bytea", "point"),
    ("time", "datetime"),
    ("timestamp", "time"),
    ("float8", "enum('a')"),
    ("float8", "bit(8)"),
)


def relation(*bases: str) -> Relation:
    return columns_relation(*((PG.get(base, base), base) for base in bases))


def test_what_fits_is_kept(any_mysql_target: MysqlDatabase) -> None:
    """Values that the target's own type can hold arrive, and print as its type prints them."""
    bed = Bed(
        any_mysql_target,
        relation(*(base for base, _, _ in KEPT)),
        columns=["int", *(ddl for _, ddl, _ in KEPT)],
    )
    printed = bed.put(*(list(expected) for _, _, expected in KEPT))
    for (base, ddl, expected), got in zip(KEPT, printed, strict=True):
        wanted = [None if v is None else v.encode() for v in expected.values()]
        assert None in wanted or got == wanted, f"{base} into {ddl}"


def test_what_would_be_changed_is_refused(any_mysql_target: MysqlDatabase) -> None:
    """A value that the server would round, cut, pad or take for another is an error that names the
    column, and NULL under that policy."""
    cases = [*REFUSED]
    if any_mysql_target.server.flavour == "mysql":
        cases.append(("json", "json", REFUSED_BY_MYSQL_JSON))
    bed = Bed(
        any_mysql_target,
        relation(*(base for base, _, _ in cases)),
        columns=["int", *(ddl for _, ddl, _ in cases)],
    )
    for i, (_, _, expected) in enumerate(cases):
        for value, what in expected.items():
            with pytest.raises(PermanentError) as refused:
                bed.put_one(i, value)
            assert str(refused.value) == (
                f"table public.t: column c{i}: {what} cannot be kept in {bed.types[i + 1]}"
            )
    bed.policy = Unrepresentable.NULL
    printed = bed.put(*(list(expected) for _, _, expected in cases))
    assert {v for column in printed for v in column} == {None}


def test_ranges_under_the_policy_null(any_mysql_target: MysqlDatabase) -> None:
    """What is beyond a TIMESTAMP's range is the server's error; NULL has to be found before."""
    bed = Bed(
        any_mysql_target, relation("timestamptz"), Unrepresentable.NULL, ["int", "timestamp NULL"]
    )
    kept = "2038-01-19 03:14:07+00"
    lost = ["1970-01-01 00:00:00+00", "9999-12-31 23:59:59+00", "infinity"]
    assert bed.put([kept, *lost]) == [[kept[:19].encode(), None, None, None]]


def test_hopeless_pairs_are_refused_at_once(mariadb_target: MysqlDatabase) -> None:
    """Types that never fit are an error before the first row."""
    for base, ddl in HOPELESS:
        bed = Bed(mariadb_target, relation(base), columns=["int", ddl])
        with pytest.raises(PermanentError) as refused:
            bed.convert()
        assert str(refused.value) == (
            f"table public.t: column c0: expected a type that can hold {PG.get(base, base)},"
            f" got {bed.types[1]}"
        )
        assert refused.value.hint == (
            "change the column's type on the target; LONGTEXT holds what the source prints"
        )


def test_the_other_products_types(mariadb_target: MysqlDatabase) -> None:
    """MariaDB's UUID and INET columns take what they print the same, and nothing else."""
    cases = (
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
        ("inet4", "10.1.2.3", "10.1.2.0/24"),
        ("inet6", "2001:db8::1", "2001:DB8::1"),
        ("inet6", "::ffff:1.2.3.4", "1.2.3.4"),
    )
    bed = Bed(
        mariadb_target, relation(*["text"] * len(cases)), columns=["int", *(c[0] for c in cases)]
    )
    assert bed.put(*([good] for _, good, _ in cases)) == [[c[1].encode()] for c in cases]
    for i, (_, _, bad) in enumerate(cases):
        with pytest.raises(PermanentError, match=f"column c{i}: a"):
            bed.put_one(i, bad)


# -- created tables -----------------------------------------------------------------------------------


def keyed(*types: tuple[str, str]) -> Relation:
    """A relation whose columns are its key."""
    columns = tuple(Column(f"k{i}", t, base) for i, (t, base) in enumerate(types))
    return Relation("public", "t", columns, tuple(range(len(types))), Format.LINE)


def test_keys_that_differ_stay_different(any_mysql_target: MysqlDatabase) -> None:
    """Case, accents, blanks at the end, what looks alike: each is a row of its own."""
    texts = [
        "a",
        "A",
        "a ",
        "\u00e4",
        "a\u0308",
        "",
        " ",
        "\u00df",
        "ss",
        "a\t",
        "\U0001f980",
        "\u200b",
    ]
    bed = Bed(any_mysql_target, keyed(("text", "text")))
    bed.write_rows([(t.encode(),) for t in texts])
    assert sorted(row[0] or b"" for row in bed.printed()) == sorted(t.encode() for t in texts)
    blobs = [b"\\x", b"\\x00", b"\\x0000", b"\\x20", b"\\x5c"]
    bed = Bed(any_mysql_target, keyed(("bytea", "bytea")))
    bed.write_rows([(b,) for b in blobs])
    assert [row[0] for row in bed.printed()] == [b[2:] for b in blobs]


@pytest.mark.parametrize(
    "types",
    [
        [("text", "text")] * 5,
        [("text", "text"), ("bytea", "bytea"), ("bigint", "int8")],
        [
            ("numeric", "numeric"),
            ("character varying(40)", "varchar"),
            ("character varying(9000)", "varchar"),
        ],
        [("jsonb", "jsonb"), ("inet", "inet"), ("uuid", "uuid"), ("mood[]", "mood")],
        [
            ("timestamp with time zone", "timestamptz"),
            ("numeric(30,5)", "numeric"),
            ("text", "text"),
        ],
        [("text", "text")] * 16,
    ],
)
def test_every_key_fits_an_index(
    any_mysql_target: MysqlDatabase, types: list[tuple[str, str]]
) -> None:
    """The columns of a key share what room an index has, and short ones keep their length."""
    bed = Bed(any_mysql_target, keyed(*types))
    if types[1:2] == [("character varying(40)", "varchar")]:
        assert bed.types == ["varchar(364)", "varchar(40)", "varchar(364)"]


@pytest.mark.parametrize(
    "types",
    [
        ["character varying(60)"] * 150,
        ["character varying(16000)"] * 40,
        ["character varying(255)"] * 100,
        ["text"] * 190,
        ["character varying(20)"] * 190,
        ["bigint"] * 900,
    ],
    ids=lambda types: f"{len(types)} {types[0]}",
)
def test_wide_tables_can_be_created(any_mysql_target: MysqlDatabase, types: list[str]) -> None:
    """What a row has no room for as VARCHAR becomes TEXT."""
    bases = {"text": "text", "bigint": "int8"}
    columns = [Column(f"c{i}", t, bases.get(t, "varchar")) for i, t in enumerate(types)]
    columns.insert(0, Column("id", "integer", "int4"))
    Bed(any_mysql_target, Relation("public", "t", tuple(columns), (0,), Format.LINE))


def test_timestamps_do_not_change_by_themselves(any_mysql_target: MysqlDatabase) -> None:
    """A created TIMESTAMP column keeps NULL, and its value when other columns are updated."""
    columns = (
        Column("id", "int(11)", "int", nullable=False),
        Column("c", "timestamp", "timestamp", nullable=False),
        Column("n", "timestamp", "timestamp"),
        Column("o", "int", "int"),
    )
    old, table = b"2001-02-03 04:05:06", Relation("d", "t", columns, (0,), Format.LINE, "mysql")
    bed = Bed(any_mysql_target, table)
    bed.write_rows([(b"1", old, None, b"1")])
    any_mysql_target.execute("UPDATE t SET o = 2")
    assert bed.printed() == [(b"1", old, None, b"2")]


def test_types_of_one_product_only() -> None:
    """What the target's product, or its version, does not have becomes text or bytes."""
    names = {"uuid": "uuid", "inet6": "inet6", "vector(3)": "vector", "decimal(65,38)": "decimal"}
    columns = tuple(Column(base, t, base) for t, base in names.items())
    key = Column("id", "int(11)", "int")
    table = Relation(
        "d",
        "t",
        (key, *columns, Column("g", "geomcollection", "geomcollection")),
        (0,),
        Format.LINE,
        "mysql",
    )
    text = "CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"
    assert created_columns(table, "mysql", version=(8, 0, 40)) == [
        *("int", f"VARCHAR(36) {text}", f"VARCHAR(45) {text}", "LONGBLOB", f"VARCHAR(68) {text}"),
        "geometrycollection",
    ]
    assert created_columns(table, "mysql", version=(9, 7))[3] == "vector(3)"
    mariadb = created_columns(table, "mariadb", version=(10, 11))
    assert mariadb[1:] == ["uuid", "inet6", "LONGBLOB", "decimal(65,38)", "geometrycollection"]
    assert created_columns(table, "mariadb", version=(10, 6))[1].startswith("VARCHAR(36) ")
    assert created_columns(table, "mariadb", version=(11, 7))[3] == "vector(3)"


# -- lines --------------------------------------------------------------------------------------------


def target(data_type: str, column_type: str = "") -> TargetColumn:
    return TargetColumn(
        *("c", data_type, column_type or data_type, None, None),
        nullable=True,
        generated=False,
        numeric_precision=None,
        numeric_scale=None,
        datetime_precision=6,
        octet_length=None,
        auto_increment=False,
    )


VALUES: Final = st.one_of(
    st.none(), st.binary(max_size=12), st.sampled_from([b"\\N", b"\\=", b"\t\\"])
)


@given(st.lists(VALUES, min_size=3, max_size=3))
def test_any_text_goes_through_as_it_is(texts: list[bytes | None]) -> None:
    """Whatever is in a text, and whatever has to be done for its neighbours."""
    columns = (
        *(Column(f"c{i}", "text", "text") for i in range(3)),
        Column("b", "bytea", "bytea"),
        Column("t", "boolean", "bool"),
    )
    targets = [target("longtext")] * 3 + [target("longblob"), target("tinyint")]
    for layout in (Format.PGOUTPUT_TEXT, Format.LINE):
        table = Relation("public", "t", columns, (0,), layout)
        convert = values.compile_line(table, targets)
        row = (*texts, b"\\x00ff", b"t")
        image = pgoutput_image(row, b"t") if layout is Format.PGOUTPUT_TEXT else line(row)
        assert convert is not None
        assert split(convert(image), 5) == (*texts, b"00ff", b"1")


WORDS: Final = st.one_of(
    st.binary(max_size=30),
    st.from_regex(rb"[-+0-9.eEyNC :BxX_tf]{0,30}", fullmatch=True),
    st.sampled_from([b"e+38", b"xe+38", b"1e999999999", b"sNaN", b"\\x0", b"9" * 5000, b"\xff+00"]),
)


@given(st.data())
def test_whatever_a_value_is_it_is_kept_or_refused(data: st.DataObject) -> None:
    """No text makes a conversion fail in another way than by naming table and column."""
    base, ddl, _ = data.draw(st.sampled_from(KEPT + REFUSED + (("json", "json", {}),)))
    data_type = ddl.partition("(")[0].partition(" ")[0]
    layout = data.draw(st.sampled_from([Format.PGOUTPUT_TEXT, Format.LINE]))
    table = replace(relation(base), format=layout)
    convert = values.compile_line(table, [target("int"), target(data_type, ddl)])
    row = (b"1", data.draw(WORDS))
    image = pgoutput_image(row, b"t") if layout is Format.PGOUTPUT_TEXT else line(row)
    with suppress(PermanentError):
        made = image if convert is None else convert(image)
        assert len(split(made, 2)) == 2


def test_mysql_to_mysql_is_nothing_to_do() -> None:
    """Without bytes, bits, labels or floats, the source's lines are the target's."""
    names = (
        "int",
        "varchar",
        "datetime",
        "decimal",
        "timestamp",
        "longtext",
        "date",
        "time",
        "year",
    )
    columns = tuple(Column(n, n, n) for n in names)
    table = Relation("d", "t", columns, (0,), Format.LINE, "mysql")
    assert values.compile_line(table, [target(n) for n in names]) is None
    enum = Relation(
        "d", "t", (*columns, Column("e", "enum('a')", "enum", "enum")), (0,), Format.LINE, "mysql"
    )
    convert = values.compile_line(enum, [target(n) for n in names] + [target("enum", "enum('a')")])
    image = b"1\t2\t3\t4\t5\t6\t7\t8\t9\ta\n"
    assert convert is not None
    assert convert(image) is image


def test_copied_lines_lose_the_escapes_that_mysql_reads_otherwise() -> None:
    """COPY writes a form feed as `\\f`, which in MySQL is an f; a backslash before an f stays one."""
    table = Relation("public", "t", (Column("c", "text", "text"),), (0,), Format.COPY_TEXT)
    convert = values.compile_line(table, [target("longtext")])
    assert convert is not None
    assert convert(b"\\f\\v\\\\f\\\\\\v\\t\\N\n") == b"\f\v\\\\f\\\\\v\\t\\N\n"


@pytest.mark.parametrize(
    "image", [b"", b"\0", b"\0\2", b"\0\2t\0\0\0\1", b"\0\1n", b"\0\2nx", b"\0\2nnn"]
)
def test_damaged_images_are_an_error(image: bytes) -> None:
    """Too short, too long, or of an unknown kind."""
    columns = (Column("a", "boolean", "bool"), Column("b", "text", "text"))
    targets = [target("tinyint"), target("longtext")]
    for layout in (Format.PGOUTPUT_TEXT, Format.LINE):
        convert = values.compile_line(Relation("public", "t", columns, (0,), layout), targets)
        assert convert is not None
        with pytest.raises(ImageError):
            convert(image)


def test_gaps_stay_gaps() -> None:
    """UNCHANGED values, and the columns that a key image does not have."""
    columns = (Column("a", "boolean", "bool"), Column("b", "bytea", "bytea"))
    targets = [target("tinyint"), target("longblob")]
    lines = Relation("public", "t", columns, (0,), Format.LINE)
    convert = values.compile_line(lines, targets)
    assert convert is not None
    assert convert(b"t\t\\=\n") == b"1\t\\=\n"
    assert convert(b"\\N\t\\N\n") == b"\\N\t\\N\n"
    tuples = values.compile_line(
        Relation("public", "t", columns, (0,), Format.PGOUTPUT_TEXT), targets
    )
    assert tuples is not None
    assert tuples(b"\0\2t\0\0\0\1fu") == b"0\t\\=\n"
