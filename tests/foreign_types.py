"""Hard values of every type of MySQL and MariaDB, in the canonical text that a source gives them, and
what PostgreSQL and SQLite make of each."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from appliers.postgres.from_mysql import BYTES

SESSION: Final = "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES'"
"""For connections that write the values into a server."""


class Hard(NamedTuple):
    """Values of one type."""

    type: str
    """COLUMN_TYPE of information_schema."""
    texts: Sequence[str]
    postgres: str
    """The type of the column that is made, as format_type prints it."""
    in_postgres: Sequence[str]
    """What PostgreSQL prints (UTC, ISO)."""
    in_sqlite: Sequence[Any]
    key: bool
    """Whether a key may be of this type."""

    @property
    def base(self) -> str:
        return self.type.partition("(")[0].split()[0]

    def without(self, text: str) -> Hard:
        rest = [i for i, t in enumerate(self.texts) if t != text]
        each = (self.texts, self.in_postgres, self.in_sqlite)
        texts, in_postgres, in_sqlite = ([some[i] for i in rest] for some in each)
        return self._replace(texts=texts, in_postgres=in_postgres, in_sqlite=in_sqlite)

    @property
    def printed(self) -> str:
        """How a server is asked for the text of the column v, but for floats: they come as numbers."""
        if self.base in BYTES:
            return r"CONCAT('\\x', LOWER(HEX(v)))"
        if self.base == "bit":
            return f"LPAD(BIN(v + 0), {len(self.texts[0])}, '0')"
        if self.base in ("float", "double"):
            return "v * 1e0"
        # With ZEROFILL the server pads.
        return f"CAST({'v + 0' if 'zerofill' in self.type else 'v'} AS CHAR CHARACTER SET utf8mb4)"

    def literal(self, text: str) -> tuple[str, object]:
        """A value in a statement, and its parameter."""
        if self.base in BYTES:
            return "UNHEX(%s)", text.removeprefix("\\x")
        if self.base == "bit":
            return "CAST(CONV(%s, 2, 10) AS UNSIGNED)", text
        if self.base == "float":
            # As a double: the greatest float, rounded up to eight digits, is out of range.
            return "%s", struct.unpack("<f", struct.pack("<f", float(text)))[0]
        return "%s", text


def _hard(
    type_name: str,
    texts: str | Sequence[str],
    postgres: str,
    in_postgres: str | Sequence[str] | None = None,
    in_sqlite: Sequence[Any] | type | None = None,
    *,
    key: bool = True,
) -> Hard:
    """Values as a sequence, or as words; what a target prints is left out where it is the same."""
    given = texts.split() if isinstance(texts, str) else texts
    printed = in_postgres.split() if isinstance(in_postgres, str) else in_postgres
    kept: Sequence[Any] = given
    if in_sqlite is bytes:
        kept = [bytes.fromhex(t.removeprefix("\\x")) for t in given]
    elif isinstance(in_sqlite, type):
        kept = [in_sqlite(t) for t in given]
    elif in_sqlite is not None:
        kept = in_sqlite
    return Hard(type_name, given, postgres, given if printed is None else printed, kept, key)


_TEXTS: Final = (
    "",
    "a",
    "A",
    " a b ",
    "\\",
    "\\N",
    "\\=",
    "\\x41",
    "a\tb\nc\rd\\.",
    "é\U0001f600",
    "'\"",
    "NaN",
)
_BYTES: Final = ("\\x", "\\x00", "\\x00ff5c0a09", "\\x" + bytes(range(1, 256)).hex(), "\\x20")
_POINT: Final = "\\x00000000" + "0101000000000000000000f03f0000000000000040"
_JSON: Final = (
    '{"a": [1, null, "é", 1.1, "\\u0000"]}',
    '"text"',
    "18446744073709551615",
    '"\\ttab \\"quoted\\" \\\\"',
    "null",
    "{}",
)

HARD: Final = (
    _hard("tinyint(4)", "-128 0 127", "smallint", in_sqlite=int),
    _hard("tinyint(1)", "0 1 -128 127", "smallint", in_sqlite=int),
    _hard("tinyint(3) unsigned", "0 1 255", "smallint", in_sqlite=int),
    _hard("smallint(6)", "-32768 0 32767", "smallint", in_sqlite=int),
    _hard("smallint(5) unsigned", "0 1 65535", "integer", in_sqlite=int),
    _hard("mediumint(9)", "-8388608 0 8388607", "integer", in_sqlite=int),
    _hard("mediumint(8) unsigned", "0 1 16777215", "integer", in_sqlite=int),
    _hard("int(11)", "-2147483648 0 2147483647", "integer", in_sqlite=int),
    _hard("int", "-2147483648 0 2147483647", "integer", in_sqlite=int),
    _hard("int(10) unsigned", "0 1 4294967295", "bigint", in_sqlite=int),
    # A source leaves the padding out: the log has the number alone.
    _hard("int(6) unsigned zerofill", "0 42 999999", "bigint", in_sqlite=int),
    _hard("bigint(20)", "-9223372036854775808 0 9223372036854775807", "bigint", in_sqlite=int),
    _hard("bigint(20) unsigned", "0 1 18446744073709551615", "numeric(20,0)"),
    _hard("bigint unsigned", "0 1 18446744073709551615", "numeric(20,0)"),
    _hard("decimal(10,2)", "0.00 -99999999.99 0.01 1.50", "numeric(10,2)"),
    _hard("decimal(10,0)", "0 -9999999999 1", "numeric(10,0)"),
    _hard(
        "decimal(65,30)",
        ("9" * 35 + "." + "9" * 30, "-0." + "0" * 29 + "1", "0." + "0" * 30),
        "numeric(65,30)",
    ),
    _hard("decimal(8,2) unsigned zerofill", "0.00 42.50 999999.99", "numeric(8,2)"),
    _hard(
        "float",
        "0.0 -0.0 0.1 3.4028235e+38 1.1754944e-38 1.4013e-45 16777216.0 1e+20",
        "real",
        "0 -0 0.1 3.4028235e+38 1.1754944e-38 1e-45 1.6777216e+07 1e+20",
        float,
        key=False,
    ),
    _hard(
        "double",
        "0.0 -0.0 0.1 1.7976931348623157e+308 5e-324 1e+22 123456789012345.0",
        "double precision",
        "0 -0 0.1 1.7976931348623157e+308 5e-324 1e+22 123456789012345",
        float,
        key=False,
    ),
    _hard("double(10,2) unsigned", "0.5 1.0", "double precision", "0.5 1", float, key=False),
    _hard("bit(1)", "0 1", "bit(1)"),
    _hard("bit(8)", "00000000 10000001 11111111", "bit(8)"),
    _hard("bit(64)", ("0" * 64, "1" * 64, "10" * 32), "bit(64)"),
    _hard("date", "0001-01-01 2024-02-29 2000-02-29 9999-12-31 1999-11-30", "date"),
    _hard(
        "datetime",
        ("0001-01-01 00:00:00", "2024-02-29 23:59:59", "9999-12-31 23:59:59"),
        "timestamp(0) without time zone",
    ),
    _hard(
        "datetime(6)",
        ("2024-02-29 12:00:00.000001", "2024-02-29 12:00:00.500000", "9999-12-31 23:59:59.999999"),
        "timestamp(6) without time zone",
        ("2024-02-29 12:00:00.000001", "2024-02-29 12:00:00.5", "9999-12-31 23:59:59.999999"),
    ),
    _hard(
        "timestamp",
        ("1970-01-01 00:00:01", "2024-10-27 00:30:00", "2038-01-19 03:14:07"),
        "timestamp(0) with time zone",
        ("1970-01-01 00:00:01+00", "2024-10-27 00:30:00+00", "2038-01-19 03:14:07+00"),
    ),
    _hard(
        "timestamp(3)",
        ("1970-01-01 00:00:01.000", "2024-10-27 00:30:00.120", "2038-01-19 03:14:07.999"),
        "timestamp(3) with time zone",
        ("1970-01-01 00:00:01+00", "2024-10-27 00:30:00.12+00", "2038-01-19 03:14:07.999+00"),
    ),
    _hard("time", "-838:59:59 00:00:00 24:00:00 838:59:59 12:34:56", "interval(0)"),
    _hard(
        "time(6)",
        "-838:59:59.000000 -00:00:00.000001 24:00:00.000000 838:59:58.999999 12:34:56.500000",
        "interval(6)",
        "-838:59:59 -00:00:00.000001 24:00:00 838:59:58.999999 12:34:56.5",
    ),
    _hard("year(4)", "0000 1901 2155", "smallint", "0 1901 2155"),
    _hard("year", "0000 1901 2155", "smallint", "0 1901 2155"),
    _hard("char(40)", ("", "a", "A", " a", "é\U0001f600", "\\N"), "character varying(40)"),
    _hard("char(0)", ("",), "text"),
    _hard("varchar(40)", _TEXTS, "character varying(40)"),
    _hard("varchar(16000)", ("", "a", "é" * 1000), "character varying(16000)"),
    *(_hard(kind, _TEXTS, "text") for kind in ("tinytext", "text", "mediumtext", "longtext")),
    _hard("enum('small','it''s, \"big\"','')", ("small", 'it\'s, "big"', ""), "text"),
    _hard("set('a','b','c')", ("", "a", "a,b"), "text"),
    _hard("json", _JSON, "json", key=False),
    _hard("binary(4)", "\\x00000000 \\x00ff5c0a \\x20000000", "bytea", in_sqlite=bytes),
    *(
        _hard(kind, _BYTES, "bytea", in_sqlite=bytes)
        for kind in ("varbinary(300)", "tinyblob", "blob", "mediumblob", "longblob")
    ),
    *(
        _hard(kind, (_POINT,), "bytea", in_sqlite=bytes, key=False)
        for kind in (
            "geometry",
            "point",
            "linestring",
            "polygon",
            "multipoint",
            "multilinestring",
            "multipolygon",
            "geometrycollection",
            "geomcollection",
        )
    ),
    _hard("vector(2)", ("\\x0000803f00000040",), "bytea", in_sqlite=bytes, key=False),
    _hard(
        "uuid",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 00000000-0000-0000-0000-000000000000"
        " ffffffff-ffff-ffff-ffff-ffffffffffff",
        "uuid",
    ),
    _hard(
        "inet4",
        "0.0.0.0 10.0.0.1 255.255.255.255",
        "inet",
        "0.0.0.0 10.0.0.1 255.255.255.255",
    ),
    _hard(
        "inet6",
        ":: ::1 ::ffff:1.2.3.4 2001:db8::ff00:42:8329",
        "inet",
        ":: ::1 ::ffff:1.2.3.4 2001:db8::ff00:42:8329",
    ),
    _hard("xmltype", ("<a>é</a>",), "text"),
)

NOT_THERE: Final = {
    "mariadb": ("json", "vector", "geomcollection", "xmltype"),
    "mysql": ("uuid", "inet4", "inet6", "xmltype"),
}
"""Types that MariaDB 10.11 (whose json is a longtext) or MySQL does not have."""

OTHER_SHAPES: Final = frozenset(
    "linestring polygon multipoint multilinestring multipolygon geometrycollection geomcollection".split()
)
"""Geometries that our point is none of."""


def cases_of(flavour: str) -> Iterator[Hard]:
    """What a server of this flavour can hold of HARD."""
    for hard in HARD:
        if hard.base not in OTHER_SHAPES and hard.base not in NOT_THERE[flavour]:
            # MariaDB has no negative zero: it keeps 0.
            yield hard.without("-0.0") if flavour == "mariadb" else hard
