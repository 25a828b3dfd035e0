"""The column types of MariaDB and MySQL, with values that are hard to read out of a binlog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

TEXT: Final = "CONVERT(v USING utf8mb4)"
HEX: Final = r"CONCAT('\\x', LOWER(HEX(v)))"
PLAIN: Final = "CAST(v AS CHAR)"
INTEGER: Final = "CAST(v AS DECIMAL(65))"
EXACT: Final = "v + 0e0"


class Type(NamedTuple):
    """A column type, hard values of it as SQL, and how the server is asked for them."""

    sql: str
    values: Sequence[str]
    asked: str = PLAIN
    only: str = ""
    """The product that has it; both where empty."""


def _texts(charset: str, *values: str) -> list[str]:
    return [
        f"CONVERT(_utf8mb4'{v}' USING {charset})"
        for v in ("", "abc", "a\\\\b\\tc\\nd\\re", *values)
    ]


CHARSETS: Final = {
    "latin1": ["äöüß€", "\x81\x8d\x8f\x90\x9d"],
    "latin2": ["ąęłŁŻ"],
    "ascii": ["plain"],
    "utf8mb3": ["äß€漢字"],
    "utf8mb4": ["äß€漢字😀", "😀"],
    "utf16": ["äß€漢字😀", "Ġ†"],
    "utf16le": ["äß€漢字😀"],
    "utf32": ["äß€漢字😀"],
    "ucs2": ["äß€漢字", "††††"],
    "gbk": ["漢字\uff0c中文"],
    "gb2312": ["汉字\uff0c中文"],
    "big5": ["漢字裏碁"],
    "sjis": ["漢字カナかな"],
    "cp932": ["漢字①㈱カナ"],
    "ujis": ["漢字カナかな"],
    "eucjpms": ["漢字①㈱髙\uff5e"],
    "euckr": ["한글갂"],
    "koi8r": ["Привет"],
    "koi8u": ["Привіт"],
    "cp1251": ["Привет"],
    "cp1257": ["ąčęž"],
    "greek": ["Ελλάδα"],
    "hebrew": ["שלום"],
    "tis620": ["ไทย"],
    "swe7": ["ÄÖÅé"],
    "armscii8": ["Հայերեն"],
    "geostd8": ["ქართული"],
    "keybcs2": ["ľščťž"],
    "hp8": ["äöü"],
    "dec8": ["äöü"],
    "macroman": ["äöü"],
    "cp850": ["äöü"],
}
SECONDS: Final = range(7)
CLOCKS: Final = (
    "'12:34:56.789012'",
    "'-00:00:00.000001'",
    "'-01:02:03.987654'",
    "'838:59:59'",
    "'-838:59:59'",
    "'00:00:00'",
    "'-100:00:00.5'",
    "'100:00:00.999999'",
)

TYPES: Final = [
    *[
        Type(f"{name}{sign}", [str(low), str(high), "0", "1", str(high - 1)], INTEGER)
        for name, bits in (
            ("TINYINT", 8),
            ("SMALLINT", 16),
            ("MEDIUMINT", 24),
            ("INT", 32),
            ("BIGINT", 64),
        )
        for sign, low, high in (
            ("", -(1 << bits - 1), (1 << bits - 1) - 1),
            (" UNSIGNED", 0, (1 << bits) - 1),
        )
    ],
    Type("INT(5) ZEROFILL", ["7", "123456"], INTEGER),
    Type("BOOLEAN", ["TRUE", "FALSE"], INTEGER),
    *[
        Type(
            f"DECIMAL({p},{s})",
            [f"{sign}{whole}.{part}" for sign in ("", "-") for whole, part in pairs],
        )
        for p, s in (
            (65, 30),
            (12, 2),
            (5, 5),
            (1, 0),
            (10, 0),
            (18, 9),
            (20, 6),
            (65, 0),
            (30, 30),
        )
        for pairs in [
            [
                ("9" * (p - s) or "0", "9" * s or "0"),
                ("1" * min(p - s, 3) or "0", "0" * (s - 1) + "1" if s else "0"),
                ("0", "0"),
                ("1" + "0" * (p - s - 1) if p > s else "0", "5" if s else "0"),
                ("0", "000000001"[:s] or "0"),
            ]
        ]
    ],
    Type("DECIMAL(12,2) UNSIGNED", ["0.01", "9999999999.99"]),
    Type(
        "FLOAT",
        [
            "0.1",
            "1.5",
            "-1e20",
            "16777216",
            "16777217",
            "3.4028234e38",
            "1.17549e-38",
            "1e-45",
            "0",
            "123456.789",
            "0.333333333333",
            "1e10",
        ],
        EXACT,
    ),
    Type("FLOAT UNSIGNED", ["1.1"], EXACT),
    Type(
        "DOUBLE",
        [
            "0.1",
            "1e300",
            "-1.7976931348623157e308",
            "5e-324",
            "0",
            "123456789012345678",
            "0.1 + 0.2e0",
            "1e15",
            "1e16",
            "2.5",
        ],
        EXACT,
    ),
    *[
        Type(
            f"BIT({n})",
            ["0", "1", str((1 << n) - 1), str(1 << n - 1)],
            f"LPAD(BIN(v + 0), {n}, '0')",
        )
        for n in (1, 7, 8, 9, 24, 63, 64)
    ],
    Type("YEAR", ["1901", "2155", "2024", "0"]),
    Type(
        "DATE",
        [
            "'2024-02-29'",
            "'0000-00-00'",
            "'2024-00-10'",
            "'2024-02-00'",
            "'9999-12-31'",
            "'0001-01-01'",
            "'2024-02-31'",
        ],
    ),
    *[Type(f"TIME({n})", CLOCKS) for n in SECONDS],
    *[
        Type(
            f"DATETIME({n})",
            [
                "'2024-02-29 23:59:58.123456'",
                "'0000-00-00 00:00:00'",
                "'0001-01-01'",
                "'9999-12-31 23:59:59'",
                "'2024-00-10 00:00:00.5'",
                "'2024-02-31 01:02:03'",
            ],
        )
        for n in SECONDS
    ],
    *[
        Type(
            f"TIMESTAMP({n}) NULL",
            [
                "'2024-02-29 23:59:58.123456'",
                "'0000-00-00 00:00:00'",
                "'1970-01-01 00:00:01.000001'",
                "'2038-01-19 03:14:07'",
            ],
        )
        for n in SECONDS
    ],
    *[
        Type(f"{kind} CHARACTER SET {charset}", _texts(charset, *values), TEXT)
        for charset, values in CHARSETS.items()
        for kind in ("CHAR(20)", "VARCHAR(40)", "TEXT")
    ],
    Type(
        "CHAR(255) CHARACTER SET utf8mb4",
        ["'x'", "REPEAT('é', 255)", "'trailing   '", "'\\t'"],
        TEXT,
    ),
    Type("VARCHAR(255) CHARACTER SET latin1", ["REPEAT('é', 255)", "'trailing   '"], TEXT),
    Type("VARCHAR(256) CHARACTER SET latin1", ["REPEAT('é', 256)", "'x'"], TEXT),
    Type("TINYTEXT", ["''", "'x'", "REPEAT('x', 255)"], TEXT),
    Type("MEDIUMTEXT", ["REPEAT('x\\\\n', 40000)"], TEXT),
    Type("LONGTEXT", ["REPEAT('äx', 70000)", "'\\\\\\\\N'", "'\\\\\\\\='", "'\\0'"], TEXT),
    Type("BINARY(5)", ["''", "'a'", "x'6100000000'", "x'0000000000'", "x'2020202020'"], HEX),
    Type("BINARY(255)", ["x'00'", "REPEAT(x'ff', 255)"], HEX),
    Type("VARBINARY(10)", ["''", "x'00'", "x'610000'", "x'5c090a0d'"], HEX),
    Type("VARBINARY(300)", ["''", "REPEAT(x'01', 300)"], HEX),
    *[
        Type(f"{kind}BLOB", ["''", "x'00'", "REPEAT(x'5c0a', 100)"], HEX)
        for kind in ("TINY", "", "MEDIUM", "LONG")
    ],
    Type(
        "ENUM('a','ä','b\\\\\\\\c','x\\ty','') CHARACTER SET latin1",
        ["'a'", "'ä'", "3", "4", "5", "0"],
        TEXT,
    ),
    Type("ENUM('é','漢') CHARACTER SET ucs2", ["1", "2"], TEXT),
    Type("ENUM(" + ",".join(f"'v{i}'" for i in range(300)) + ")", ["1", "255", "256", "300"], TEXT),
    Type("SET('a','ü','c') CHARACTER SET latin1", ["''", "'a'", "'a,ü'", "'c,a'", "7"], TEXT),
    *[
        Type(
            "SET(" + ",".join(f"'v{i}'" for i in range(n)) + ")",
            ["0", "1", str((1 << n) - 1)],
            TEXT,
        )
        for n in (9, 17, 25, 64)
    ],
    Type("GEOMETRY", ["POINT(1, -2)", "ST_GeomFromText('LINESTRING(0 0,1 1)')"], HEX),
    Type("POINT", ["ST_GeomFromText('POINT(1 2)', 4326)"], HEX),
    Type("VECTOR(3)", ["STRING_TO_VECTOR('[1, -2.5, 3e10]')"], HEX, "mysql"),
    Type(
        "UUID",
        [
            "'123e4567-e89b-12d3-a456-426655440000'",
            "'00000000-0000-0000-0000-000000000000'",
            "'ffffffff-ffff-ffff-ffff-ffffffffff00'",
            "'017f22e2-79b0-7cc3-98c4-dc0c0c07398f'",
            "'6ba7b810-9dad-11d1-80b4-00c04fd43000'",
        ],
        only="mariadb",
    ),
    Type("INET4", ["'1.2.3.4'", "'0.0.0.0'", "'255.255.255.0'"], only="mariadb"),
    Type(
        "INET6",
        [
            "'::'",
            "'::1'",
            "'1::'",
            "'1:2:3:4:5:6:7:8'",
            "'2001:db8::ff00:42:8329'",
            "'::ffff:192.0.2.128'",
            "'::192.0.2.128'",
            "'1:0:0:2:0:0:0:3'",
            "'1:0:0:2:3:0:0:4'",
            "'1:0:2:3:4:5:6:7'",
            "'::ffff:0:0'",
            "'::1:2'",
            "'0:0:0:0:0:1:2:3'",
            "'::ffff:0'",
            "'1:2:3:4:5:6:7::'",
        ],
        only="mariadb",
    ),
    Type("JSON", ["'{\"a\": [1, 2.5, null]}'", "'[]'"], TEXT, only="mariadb"),
    Type(
        "VARCHAR(100) COMPRESSED CHARACTER SET latin1",
        ["''", "'x'", "REPEAT('aé', 50)"],
        TEXT,
        "mariadb",
    ),
    Type(
        "TEXT COMPRESSED CHARACTER SET utf8mb4",
        ["''", "'x'", "REPEAT('aé\\n', 5000)"],
        TEXT,
        "mariadb",
    ),
    Type("BLOB COMPRESSED", ["''", "x'00'", "REPEAT(x'0001', 5000)"], HEX, "mariadb"),
    Type("VARBINARY(200) COMPRESSED", ["''", "x'00'", "REPEAT(x'0001', 100)"], HEX, "mariadb"),
]
