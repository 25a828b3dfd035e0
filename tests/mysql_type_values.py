"""Every type of MySQL and MariaDB with the values that are hard to carry, and what a target that is one of
them prints of a value: the mapping that docs/types.md documents."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Final

from appliers.mysql.kinds import labels
from appliers.relation import Column
from tests.mysql_databases import MysqlDatabase
from tests.mysql_values_bed import Printed
from tests.type_tables import differences

MAY_BE_TEXT: Final = ("float4", "float8", "numeric", "date", "timestamp", "timestamptz")
"""What `on_unrepresentable = "text"` makes text."""

_SECONDS: Final = re.compile(rb"^(.*:\d\d)(?:\.(\d+))?$")


def in_mysql(column: Column, printed: bytes | None, *, text: bool) -> bytes | None:
    """What the target prints of a value that PostgreSQL prints: the documented mapping. None for NULL
    and for what it cannot hold; `text`: columns that can have such values were created as text."""
    if printed is None or column.kind != "base" or (text and column.base in MAY_BE_TEXT):
        return printed
    match column.base:
        case "bool":
            return b"1" if printed == b"t" else b"0"
        case "bytea":
            return printed[2:]
        case "float4" | "float8":
            return printed if math.isfinite(float(printed)) else None
        case "numeric":
            return None if printed[-1:] in b"yN" and "(" in column.type else printed
        case "date" | "timestamp" | "timestamptz" | "time":
            lost = printed[-1:] in b"yC" or re.match(rb"\d{5}", printed)
            return None if lost else _with_digits(column, printed.removesuffix(b"+00"))
        case _:
            return printed


def _with_digits(column: Column, printed: bytes) -> bytes:
    """Dates and times have as many digits behind the second as the type says."""
    found = _SECONDS.match(printed)
    if found is None:
        return printed
    modifier = re.search(r"\((\d)\)", column.type)
    digits = int(modifier[1]) if modifier else 6
    fraction = (found[2] or b"").ljust(digits, b"0")
    return found[1] + (b"." + fraction if digits else b"")


def assert_same(
    columns: Sequence[Column], ours: Iterable[Printed], theirs: Iterable[Printed], *, mariadb: bool
) -> None:
    """Equal rows; floats by their number, and 0 for the -0 that MariaDB does not have."""

    def comparable(row: Printed) -> Printed:
        return tuple(
            _number(c, v, mariadb=mariadb) if v is not None and c.kind == "base" else v
            for c, v in zip(columns, row, strict=True)
        )

    names = {c.name: c.type for c in columns}
    found = differences("table", names, map(comparable, ours), map(comparable, theirs))
    assert not found, "\n".join(found)


def _number(column: Column, value: bytes, *, mariadb: bool) -> bytes:
    if column.base not in ("float4", "float8", "float", "double"):
        return value
    number = float(value)
    if column.base in ("float4", "float"):
        number = struct.unpack("f", struct.pack("f", number))[0]
    return repr(number + 0.0 if mariadb else number).encode()


LABELS: Final = "'a','it''s','back\\\\slash','two\\nlines','\ttab','é','comma-less','A','0','x y'"

OF_MYSQL: Final[dict[str, Sequence[str]]] = {
    "tinyint": ("-128", "0", "127"),
    "tinyint unsigned": ("255",),
    "tinyint(1)": ("0", "1", "-7"),
    "smallint": ("-32768", "32767"),
    "smallint unsigned": ("65535",),
    "mediumint": ("-8388608", "8388607"),
    "mediumint unsigned": ("16777215",),
    "int": ("-2147483648", "2147483647"),
    "int unsigned": ("4294967295",),
    "int(8) unsigned zerofill": ("42", "0", "123456789"),
    "bigint": ("-9223372036854775808", "9223372036854775807"),
    "bigint unsigned": ("18446744073709551615",),
    "decimal(65,30)": ("-99999999999999999999999999999999999.999999999999999999999999999999", "0"),
    "decimal(10)": ("-9999999999",),
    "decimal(5,2) unsigned zerofill": ("1.5",),
    "float": (
        "-0e0",
        "0.1",
        "3.4028234663852886e38",
        "1e-45",
        "16777216",
        "1.17549435e-38",
        "1e20",
    ),
    "float(7,3)": ("1234.567", "-0.001"),
    "double": (
        "-0e0",
        "0.1",
        "1.7976931348623157e308",
        "5e-324",
        "9007199254740993",
        "1e15",
        "1e16",
    ),
    "double(10,2)": ("12345678.91",),
    "bit(1)": ("b'0'", "b'1'"),
    "bit(9)": ("b'101010101'", "0"),
    "bit(64)": ("18446744073709551615",),
    "date": ("'0000-00-00'", "'2024-00-10'", "'2024-02-31'", "'0001-01-01'", "'9999-12-31'"),
    "datetime": ("'0000-00-00'", "'2024-02-31 12:00:00'", "'9999-12-31 23:59:59'"),
    "datetime(6)": ("'0001-01-01 00:00:00.000001'", "'2024-00-00 01:02:03.5'"),
    "datetime(3)": ("'2024-12-31 23:59:59.999'",),
    "timestamp NULL": ("'1970-01-01 00:00:01'", "'0000-00-00'", "'2038-01-19 03:14:07'"),
    "timestamp(6) NULL": ("'2024-03-31 02:30:00.000001'", "'2038-01-19 03:14:07.999999'"),
    "time": ("'-838:59:59'", "'838:59:59'", "'24:00:00'", "'00:00:00'", "'-00:00:01'"),
    "time(6)": ("'-00:00:00.000001'", "'101:00:00.5'", "'838:59:59.5'"),
    "year": ("'0000'", "1901", "2155", "1970"),
    "char(10)": ("''", "'a  '", "'  a'", "'\U0001f980'", "'\\\\N'", "'a\tb'"),
    "char(10) CHARACTER SET latin1": ("x'818D8F90E9'",),
    "varchar(100)": (
        "''",
        "'a  '",
        "'NULL'",
        "'\\\\N'",
        "'\\\\='",
        "'\\\\x00'",
        "'a\tb\nc\rd\0e\x1a'",
    ),
    "varchar(100) CHARACTER SET gbk": ("_utf8mb4 '中文\\\\'",),
    "varchar(100) CHARACTER SET sjis": ("_utf8mb4 '表示'",),
    "varchar(100) CHARACTER SET utf16": ("_utf8mb4 '\U0001f980 é'",),
    "varchar(4000) CHARACTER SET latin1": ("REPEAT(x'E9', 4000)",),
    "varchar(9000) CHARACTER SET latin1": ("REPEAT(x'80', 9000)",),
    "tinytext CHARACTER SET latin1": ("REPEAT(x'80', 255)",),
    "text CHARACTER SET latin1": ("REPEAT(x'80', 65535)",),
    "mediumtext": ("''", "'  '", "'it''s \"quoted\" ? %s'"),
    "longtext": ("'\U0010ffff \U0001f468\u200d\U0001f469'",),
    "binary(4)": ("x''", "x'00FF'", "x'5C5C78'"),
    "varbinary(10)": ("x''", "x'00'", "x'5C78'", "x'20'"),
    "tinyblob": ("x'090A0D5C'",),
    "blob": ("REPEAT(x'00FF', 1000)",),
    "mediumblob": ("x'C3'",),
    "longblob": ("x''",),
    f"enum({LABELS})": ("'a'", "'it''s'", "3", "4", "5", "'é'", "'A'", "'0'", "'x y'", "0"),
    "enum('x','é') CHARACTER SET latin1": ("'é'", "0"),
    "enum('','x')": ("''", "0", "'x'"),
    "set('a','é','0','c d')": ("''", "'a,é'", "15", "'0'"),
    "geometry": ("ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 -1)', 4326)"),
    "point": ("ST_GeomFromText('POINT(0.1 1e300)')",),
    "polygon": ("ST_GeomFromText('POLYGON((0 0,0 1,1 1,0 0))')",),
    "geometrycollection": ("ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1))')",),
    "json": (
        *("'null'", """'{"b": [1, 2.5, true, "x\\\\ty"], "a": null}'""", "'18446744073709551615'"),
        *(
            "'-9223372036854775808'",
            "'\"\\\\u0000 \\\\\\\\ é\"'",
            "'1e100'",
            "'[0.1, 1.7976931348623157e308]'",
        ),
        "JSON_OBJECT('price', CAST(19.90 AS DECIMAL(5,2)))",
        "JSON_ARRAY(CAST(12345678901234567890.123 AS DECIMAL(30,3)))",
    ),
}
"""The hard values of every type that both servers have, as SQL."""

OF_ONE: Final[dict[str, dict[str, Sequence[str]]]] = {
    "mariadb": {
        "uuid": (
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'00000000-0000-0000-0000-000000000000'",
        ),
        "inet4": ("'0.0.0.0'", "'255.255.255.255'"),
        "inet6": ("'::'", "'::ffff:1.2.3.4'", "'2001:db8::ff00:42:8329'"),
        "decimal(65,38)": ("0.00000000000000000000000000000000000001",),
        "text COMPRESSED": ("REPEAT('ab', 1000)",),
    },
    "mysql": {
        "vector(2)": ("STRING_TO_VECTOR('[1.5,-0.25]')",),
        "point SRID 4326": ("ST_GeomFromText('POINT(1 2)', 4326)",),
    },
}


def make_mysql_table(source: MysqlDatabase) -> None:
    """A column for every type, with its k-th value in row k."""
    types = OF_MYSQL | OF_ONE[source.server.flavour]
    columns = ", ".join(f"c{i} {t}" for i, t in enumerate(types))
    db = source.connect(init_command="SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
    with db.cursor() as cursor:
        cursor.execute(f"CREATE TABLE every (id int PRIMARY KEY, {columns}) CHARACTER SET utf8mb4")
        for number, row in enumerate(zip_longest(*types.values(), fillvalue="NULL"), 1):
            cursor.execute(f"INSERT INTO every VALUES ({number}, {', '.join(row)})")
        cursor.execute(f"INSERT INTO every (id) VALUES ({number + 1})")


def in_other(column: Column, printed: bytes | None, *, mysql: bool, text: bool) -> bytes | None:
    """What the target prints of a value that a MySQL source prints. None for what it cannot hold."""
    match column.base:
        case "enum" if printed == b"" and not mysql and "" not in labels(column.type):
            return b"" if text else None
        case "time" if printed == b"838:59:59.500000" and mysql:
            return None
        case "json" if mysql and not text and printed is not None:
            if b"12345678901234567890.123" in printed:
                return None
            # Trailing zeros are no part of a DOUBLE.
            return printed.replace(b"19.90", b"19.9")
        case _:
            return printed
