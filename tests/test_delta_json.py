"""The JSON of a customer delta: its shape, and every type's values as the contract writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import pytest

from appliers.delta import UNCHANGED, Commit, Delta, Op, Value
from appliers.images import Format, pgoutput_image
from appliers.lines import line, split
from appliers.relation import Column, Relation
from cdc.delta_json import DeltaJson, codec_for, iso_time
from cdc.sources.registry import source_for
from tests.databases import Database

COMMIT: Final = Commit("0/1A2B3C8", 771, 1769860800123456)
COLUMNS: Final = (
    Column("id", "integer", "int4", nullable=False),
    Column("email", "text", "text"),
    Column("notes", "text", "text"),
)


def relation(*, whole_before: bool = False, key: Sequence[int] = (0,)) -> Relation:
    return Relation(
        schema="public",
        name="customers",
        columns=COLUMNS,
        key_columns=tuple(key),
        format=Format.PGOUTPUT_TEXT,
        customer_columns=(0,),
        whole_before=whole_before,
    )


def as_json(
    op: Op, of: Relation, before: Sequence[Value] | None, after: Sequence[Value] | None
) -> Any:
    old, new = (None if row is None else pgoutput_image(row, b"t") for row in (before, after))
    return json.loads(DeltaJson("crm").line(Delta(op, of, old, new, COMMIT, 3)))


def test_the_contracts_example() -> None:
    """An update of a table with replica identity FULL, to the letter."""
    found = as_json(
        Op.UPDATE,
        relation(whole_before=True),
        [b"42", b"a@example.com", b"same"],
        [b"42", b"b@example.com", b"same"],
    )
    assert found == {
        "id": "crm/0/1A2B3C8/3",
        "customer": "42",
        "table": "public.customers",
        "op": "update",
        "key": {"id": 42},
        "before": {"email": "a@example.com"},
        "after": {"email": "b@example.com"},
        "unchanged": [],
        "position": "0/1A2B3C8",
        "transaction": "771",
        "ordinal": 3,
        "committed_at": "2026-01-31T12:00:00.123456Z",
    }


def test_an_update_whose_log_cannot_tell() -> None:
    """Without the old row, `after` holds every column that the log carried and `unchanged` the rest."""
    found = as_json(Op.UPDATE, relation(), None, [b"42", None, UNCHANGED])
    assert found["before"] == {}
    assert found["after"] == {"id": 42, "email": None}
    assert found["unchanged"] == ["notes"]
    assert found["key"] == {"id": 42}


def test_a_changed_key() -> None:
    """`key` is the row's key now; the old one stands in `before`."""
    found = as_json(Op.UPDATE, relation(), [b"41", None, None], [b"42", b"e", b"n"])
    assert found["key"] == {"id": 42}
    assert found["before"] == {"id": 41}
    assert found["customer"] == "42"


def test_a_key_that_the_log_did_not_repeat() -> None:
    """A key value kept out of line is in the old image only."""
    found = as_json(Op.UPDATE, relation(key=(1,)), [None, b"long", None], [b"1", UNCHANGED, b"n"])
    assert found["key"] == {"email": "long"}
    assert found["unchanged"] == ["email"]


def test_insert_snapshot_delete_truncate() -> None:
    """What each has of before and after; a delete has what the log has of the old row."""
    row = [b"42", b"e", None]
    for op in (Op.INSERT, Op.SNAPSHOT):
        found = as_json(op, relation(), None, row)
        assert (found["op"], found["before"]) == (op.label, None)
        assert found["after"] == {"id": 42, "email": "e", "notes": None}
    found = as_json(Op.DELETE, relation(), [b"42", None, None], None)
    assert (found["key"], found["before"], found["after"]) == ({"id": 42}, {"id": 42}, None)
    found = as_json(Op.DELETE, relation(whole_before=True), row, None)
    assert found["before"] == {"id": 42, "email": "e", "notes": None}
    found = as_json(Op.TRUNCATE, relation(), None, None)
    assert (found["key"], found["before"], found["after"]) == (None, None, None)
    assert found["customer"] is None


def test_times_have_six_decimals() -> None:
    assert iso_time(0) == "1970-01-01T00:00:00.000000Z"
    assert iso_time(-1) == "1969-12-31T23:59:59.999999Z"


VALUES: Final[tuple[tuple[str, str, Any], ...]] = (
    ("smallint", "-32768", -32768),
    ("bigint", "9007199254740992", 9007199254740992),
    ("bigint", "9007199254740993", "9007199254740993"),
    ("bigint", "-9223372036854775808", "-9223372036854775808"),
    ("oid", "4294967295", 4294967295),
    ("numeric(10,2)", "1.50", "1.50"),
    ("numeric", "NaN", "NaN"),
    ("money", "12.50", "$12.50"),
    ("real", "0.1", 0.1),
    ("double precision", "1e300", 1e300),
    ("double precision", "-0", -0.0),
    ("double precision", "NaN", "NaN"),
    ("double precision", "-Infinity", "-Infinity"),
    ("boolean", "true", True),
    ("boolean", "false", False),
    ("text", 'é "\\ \n', 'é "\\ \n'),
    ("text", "", ""),
    ("char(4)", "ab", "ab  "),
    ("bytea", "\\x00ff10", "AP8Q"),
    ("bytea", "", ""),
    ("date", "2026-01-31", "2026-01-31"),
    ("date", "infinity", "infinity"),
    ("date", "0044-03-15 BC", "0044-03-15 BC"),
    ("timestamp", "2026-01-31 12:00:00.5", "2026-01-31T12:00:00.5"),
    ("timestamp", "-infinity", "-infinity"),
    ("timestamptz", "2026-01-31 12:00:00+00", "2026-01-31T12:00:00Z"),
    ("timestamptz", "0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00+00 BC"),
    ("time", "24:00:00", "24:00:00"),
    ("timetz", "12:00:00+05:30", "12:00:00+05:30"),
    ("timetz", "12:00:00-02", "12:00:00-02:00"),
    ("timetz", "12:00:00+00", "12:00:00Z"),
    ("interval", "1 year 2 days", "1 year 2 days"),
    ("json", '{"a":  1.0}', '{"a":  1.0}'),
    ("jsonb", '{"a":  1.0}', '{"a": 1.0}'),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("integer[]", "{1,NULL,{}}".replace("{}", "2"), "{1,NULL,2}"),
    ("bytea[]", '{"\\\\x00"}', '{"\\\\x00"}'),
    ("int4range", "[1,5)", "[1,5)"),
    ("inet", "10.0.0.1/8", "10.0.0.1/8"),
)


def test_every_type_as_the_server_prints_it(source_db: Database) -> None:
    """The values go through a table of a real server, its catalogue and COPY, as in a delta."""
    declared = ", ".join(f"c{i} {type_}" for i, (type_, _, _) in enumerate(VALUES))
    source_db.execute(f"CREATE TABLE t (id int PRIMARY KEY, {declared})")
    marks = ", ".join(["%s"] * len(VALUES))
    source_db.execute(f"INSERT INTO t VALUES (1, {marks})", [v for _, v, _ in VALUES])
    source = source_for(source_db.url, None, "types")
    source.open()
    try:
        [table] = source.catalog(["t"]).relations
    finally:
        source.close()
    connection = source_db.connect()
    connection.execute("SET timezone = 'UTC'")
    with connection.cursor().copy("COPY t TO STDOUT") as copy:
        [line] = [bytes(block) for block in copy]
    row = split(line, len(table.columns))
    for column, value, (type_, given, expected) in zip(
        table.columns[1:], row[1:], VALUES, strict=True
    ):
        assert isinstance(value, bytes)
        found = codec_for(column, "postgres")(value)
        assert (type(found), repr(found)) == (type(expected), repr(expected)), f"{type_} {given}"
        assert json.loads(json.dumps(found)) == expected or found != found  # noqa: PLR0124


@pytest.mark.parametrize("value", [b"\xff", b"\xc3\xa9"])
def test_text_that_is_no_utf8_is_still_json(value: bytes) -> None:
    """A SQL_ASCII database may hold anything."""
    json.dumps(codec_for(COLUMNS[1], "postgres")(value)).encode()


MYSQL: Final[tuple[tuple[str, str, Any], ...]] = (
    ("tinyint(1)", "1", 1),
    ("int(6) unsigned zerofill", "42", 42),
    ("bigint(20)", "-9007199254740993", "-9007199254740993"),
    ("bigint(20) unsigned", "18446744073709551615", "18446744073709551615"),
    ("bigint(20) unsigned", "9007199254740992", 9007199254740992),
    ("decimal(10,2)", "1.50", "1.50"),
    ("float", "0.1", 0.1),
    ("double", "-0.0", -0.0),
    ("double", "1e+22", 1e22),
    ("bit(8)", "00000101", "00000101"),
    ("year(4)", "2024", "2024"),
    ("date", "2024-02-29", "2024-02-29"),
    ("date", "0000-00-00", "0000-00-00"),
    ("datetime", "2024-02-29 12:00:00", "2024-02-29T12:00:00"),
    ("datetime(6)", "2024-02-29 12:00:00.000001", "2024-02-29T12:00:00.000001"),
    ("datetime(1)", "2024-02-29 12:00:00.5", "2024-02-29T12:00:00.5"),
    ("datetime", "0000-00-00 00:00:00", "0000-00-00 00:00:00"),
    ("datetime(3)", "2024-00-10 01:00:00.000", "2024-00-10 01:00:00.000"),
    ("datetime", "2024-02-31 00:00:00", "2024-02-31 00:00:00"),
    ("timestamp", "2024-10-27 00:30:00", "2024-10-27T00:30:00Z"),
    ("timestamp(3)", "2024-10-27 00:30:00.120", "2024-10-27T00:30:00.120Z"),
    ("timestamp", "0000-00-00 00:00:00", "0000-00-00 00:00:00"),
    ("time(1)", "-838:59:59.0", "-838:59:59.0"),
    ("varchar(9)", 'é "\\ \n', 'é "\\ \n'),
    ("char(4)", "", ""),
    ("enum('a','b')", "a", "a"),
    ("set('a','b')", "a,b", "a,b"),
    ("binary(3)", "\\x00ff10", "AP8Q"),
    ("longblob", "\\x", ""),
    ("point", "\\x00000000", "AAAAAA=="),
    ("json", '{"a": [1, null, 1.5, "é"]}', {"a": [1, None, 1.5, "é"]}),
    ("json", "18446744073709551615", "18446744073709551615"),
    (
        "json",
        "[9007199254740993, 0.1000000000000000000001, 1e400, -7, 1.50]",
        ["9007199254740993", "0.1000000000000000000001", "1e400", -7, 1.5],
    ),
    ("json", "null", None),
    ("json", '"\\u0000"', "\x00"),
    ("longtext", '{"a": 1}', '{"a": 1}'),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("inet6", "::ffff:1.2.3.4", "::ffff:1.2.3.4"),
)


@pytest.mark.parametrize(("type_name", "given", "expected"), MYSQL)
def test_every_type_of_mysql(type_name: str, given: str, expected: Any) -> None:
    """Numbers that JSON holds are numbers, bytes base64, a TIMESTAMP is in UTC, a JSON column is JSON;
    what ISO 8601 has no form for stays as the server prints it."""
    base = type_name.partition("(")[0].split()[0]
    column = Column("v", type_name, base, "enum" if base == "enum" else "base")
    found = codec_for(column, "mysql")(given.encode())
    assert (type(found), repr(found)) == (type(expected), repr(expected))
    assert json.loads(json.dumps(found)) == expected


def test_a_delta_of_mysql() -> None:
    """Lines with gaps and whole old rows: what changed, what it was, and what the log left out."""
    of = Relation(
        "crm",
        "customers",
        (
            Column("id", "bigint(20) unsigned", "bigint", nullable=False),
            Column("seen", "timestamp", "timestamp"),
            Column("photo", "blob", "blob"),
        ),
        (0,),
        Format.LINE,
        dialect="mysql",
        customer_columns=(0,),
        whole_before=True,
        home="crm",
    )
    before = [b"42", b"2024-01-01 00:00:00", b"\\x00"]
    old, new = line(before), line([b"42", b"2024-01-02 00:00:00", UNCHANGED])
    found = json.loads(DeltaJson("crm").line(Delta(Op.UPDATE, of, old, new, COMMIT, 1)))
    assert (found["table"], found["customer"], found["key"]) == ("crm.customers", "42", {"id": 42})
    assert found["before"] == {"seen": "2024-01-01T00:00:00Z"}
    assert found["after"] == {"seen": "2024-01-02T00:00:00Z"}
    assert found["unchanged"] == ["photo"]
