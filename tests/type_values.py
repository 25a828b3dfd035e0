"""Every built-in type of PostgreSQL that a column can have, with the values that are hard to carry.

One `Case` is one column, and a second one of its array type. A value is what the type's input reads;
`Sql` is an expression, for values that are too long to write out. tests/test_types.py fails when a
server has a type that is neither here nor in EXCLUDED.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final


class Sql(str):
    """A value as an SQL expression."""

    __slots__ = ()


LONG: Final = Sql("(SELECT string_agg(md5(i::text), E'\\t\\\\') FROM generate_series(1, 1000) i)")
"""35 kB of text that compress to far more than 2 kB: it is kept out of line."""

BYTES: Final = Sql(
    "(SELECT string_agg(set_byte('\\x00', 0, i), '') FROM generate_series(0, 255) i)"
)

CHARACTERS: Final = Sql("(SELECT string_agg(chr(i), '') FROM generate_series(1, 160) i)")


@dataclass(frozen=True)
class Case:
    """One type with its modifiers, as DDL has it."""

    type: str
    values: Sequence[str]
    since: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """Values that only servers from a version on know: of both ends, the older one counts."""
    arrays: Sequence[str] | None = None
    """Of the array type, where ARRAY[…] does not make them; else they are made of the values."""

    @property
    def column(self) -> str:
        return re.sub(r"\W+", "_", self.type.replace('"', "_")).lower()

    def literals(self, version: int) -> list[str]:
        """SQL for its values on servers of `version`."""
        more = [v for since, values in self.since.items() if since <= version for v in values]
        return [self._literal(v) for v in (*self.values, *more)]

    def array_literals(self, version: int) -> list[str]:
        if self.arrays is not None:
            return [f"'{a}'::{self.type}[]" for a in self.arrays]
        # What is long is there once already; with arrays of it a row had megabytes.
        values = [v for v in self.literals(version) if "series" not in v and "repeat" not in v]
        return [
            f"ARRAY[{', '.join([*values, 'NULL'])}]::{self.type}[]",
            f"'{{}}'::{self.type}[]",
            f"array_fill({values[0]}, ARRAY[2, 1, 2], ARRAY[-3, 0, 2147483640])",
            f"ARRAY[ARRAY[NULL, {values[-1]}], ARRAY[{values[-1]}, NULL]]::{self.type}[]",
        ]

    def _literal(self, value: str) -> str:
        text = value if isinstance(value, Sql) else "'" + value.replace("'", "''") + "'"
        return f"{text}::{self.type}"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _with_multirange(name: str, *values: str) -> tuple[Case, Case]:
    """A range type and its multirange, which prints the ranges the same way."""
    several = [f"{{{v}}}" for v in values] + ["{}", f"{{{values[0]},{values[1]}}}"]
    return (
        Case(f"{name}range", ("empty", "(,)", *values)),
        Case(f"{name}multirange", ("{(,)}", *several)),
    )


NUMBERS: Final = (
    Case("boolean", ("true", "false")),
    Case("smallint", _words("-32768 0 32767")),
    Case("integer", _words("-2147483648 0 2147483647")),
    Case("bigint", _words("-9223372036854775808 9007199254740993 9223372036854775807")),
    Case(
        "numeric",
        (
            *_words("0 -0.0 0.000 1 1.0 1.50 -1.500 NaN Infinity -Infinity 1e-16383 9999.9999"),
            *_words("10000 123456789012345678901234567890.123456789012345678901234567890"),
            Sql("repeat('9', 131072)"),
            Sql("('-' || repeat('9', 131072) || '.' || repeat('9', 16383))"),
            Sql("('1' || repeat('0', 131071))"),
            Sql("('0.' || repeat('0', 16382) || '1')"),
        ),
    ),
    Case("numeric(10,2)", _words("-99999999.99 0.00 0.5 NaN")),
    Case("numeric(4,-2)", _words("123456 -999900")),
    Case("numeric(3,5)", _words("0.00123 -0.00999")),
    Case(
        "real",
        (
            *_words("-0 0 NaN Infinity -Infinity 1e-45 1.17549435e-38 3.4028235e+38"),
            *_words("-3.4028235e+38 0.1 16777216 1e+15 1.2345679e-05"),
        ),
    ),
    Case(
        "double precision",
        (
            *_words("-0 0 NaN Infinity -Infinity 5e-324 2.2250738585072014e-308 0.1 1e15 1e16"),
            *_words("1.7976931348623157e+308 -1.7976931348623157e+308 0.30000000000000004"),
            *_words("9007199254740993 1e-5"),
        ),
    ),
    Case("money", _words("0 -0.01 1234.56 -92233720368547758.08 92233720368547758.07")),
    Case("oid", _words("0 2147483648 4294967295")),
)

TIMES: Final = (
    Case(
        "date",
        (
            *("infinity", "-infinity", "4714-11-24 BC", "0001-12-31 BC", "0001-01-01"),
            *_words("1582-10-10 2000-02-29 9999-12-31 10000-01-01 5874897-12-31"),
        ),
    ),
    Case("time", _words("00:00 24:00:00 23:59:59.999999 00:00:00.000001 12:00:00.1")),
    Case("time(0)", _words("23:59:59.5 12:34:56.4")),
    Case(
        "timetz", _words("24:00-15:59:59 00:00+15:59:59 12:00:00.123456+05:45 23:59:59.999999+00")
    ),
    Case("timetz(3)", _words("23:59:59.9999-03:30 01:02:03+01")),
    Case(
        "timestamp",
        (
            *("infinity", "-infinity", "4714-11-24 00:00:00 BC", "0044-03-15 12:00:00.000001 BC"),
            *("294276-12-31 23:59:59.999999", "1999-12-31 23:59:59.999999", "2000-01-01"),
            *("2024-02-29 24:00:00", "1970-01-01 00:00:00.1"),
        ),
    ),
    Case("timestamp(3)", ("2024-12-31 23:59:59.9996", "infinity")),
    Case(
        "timestamptz",
        (
            *("infinity", "-infinity", "4714-11-24 00:00:00+00 BC", "0044-03-15 12:00-08 BC"),
            *("294276-12-31 23:59:59.999999+00", "1999-12-31 23:59:59.999999+14", "epoch"),
            *("1893-01-01 Europe/Berlin", "2024-03-31 02:30:00+01", "2024-10-27 02:30:00.5+02"),
            *("2024-10-27 02:30:00.5+01", "2024-06-30 12:00:00.000001+05:45"),
        ),
    ),
    Case("timestamptz(0)", ("2024-12-31 23:59:59.5-11", "-infinity")),
    Case(
        "interval",
        (
            *("0", "1 year -2 mons +3 days -04:05:06.789", "-1 year -2 mons +3 days"),
            *("1 mon -1 day", "-1 days +23:59:59.999999", "00:00:00.000001", "-00:00:00.000001"),
            *("1 day", "24:00:00", "178956970 years 7 mons", "-178956970 years -8 mons"),
            *("2147483647 days", "-2147483648 days", "2562047788:00:54.775807"),
            *("-2562047788:00:54.775807", "1234567:00:00.1", "P1Y2M3DT4H5M6S"),
        ),
        since={17: ("infinity", "-infinity")},
    ),
    Case("interval year to month", ("5 years -3 mons",)),
    Case("interval day to second(2)", ("3 days -04:05:06.789",)),
)

AWKWARD: Final = (
    *("", " ", "NULL", "null", "\\N", "\\.", "\\", "\\\\", "\t", "\n", "\r", "\r\n", "\\t"),
    *("a\tb\nc\rd\be\ff\vg", "it's", '"quoted"', "`$$ $1 %s {0} ?", "{a,b}", "(,)", "[1,2)", ","),
    *(";", "--", "\\x00", "é", "e\u0301", "\u00a0\u2028\u200d\ufeff", "\U0010ffff", "\ue000"),
    *(
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0391\u03c9 \u05e9\u05dc \u0645 \u4e2d\u6587",
    ),
    *("\u0131\u0130\u00df", "\ufffe\uffff\ufffd", "\x7f\u0080\u009f"),
)

TEXTS: Final = (
    Case("text", (*AWKWARD, CHARACTERS, LONG)),
    Case("varchar", (*AWKWARD, CHARACTERS, LONG)),
    Case("varchar(10)", ("", "  x  ", "\U0001f980" * 10, "\\N\t\n")),
    Case("bpchar", ("", "a  ", "  a", "\\N")),
    Case("char(5)", ("", "a", "abcde", "\U0001f980", "\t\\\n", " a")),
    Case("name", ("", "a b", "\\N", "x" * 63, "\u00fc" * 31)),
    Case('"char"', ("", "a", "\\", "'", " ", "\t", "\n", "\\200", "\\377")),
    Case(
        "bytea",
        (
            *("", "\\x00", "\\x5c", "\\x5c2e", "\\x0a0d09"),
            BYTES,
            Sql(f"convert_to({LONG}, 'UTF8')"),
        ),
    ),
    Case("uuid", ("0" * 32, "{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}", "f" * 32)),
    Case("refcursor", ("", "a cursor", "\\N")),
)

DOCUMENTS: Final = (
    Case(
        "json",
        (
            *('{"a": 1, "a": 2, "b": {"a": 1, "a": null}}', "null", '""', "[]", "1E400", "-0.0"),
            *(' {\t"b" :\n[ 1 , 2.50,1e5, -0 ]\r}  ', '"\\u0000 \\ud800 \\ud83d\\ude00 \\/ \\n"'),
            *('"\U0001f980 \u2028"', '"\\\\N"', Sql(f"to_json({LONG})::text")),
        ),
    ),
    Case(
        "jsonb",
        (
            *('{"a": 1, "a": 2, "bb": 1, "B": 1, "": ""}', "null", '""', "1.50", "1E400", "-0.0"),
            *("1e-400", "[]", "{}", "[" * 20 + "]" * 20, '[1, "1", true, null, {"k": [0]}]'),
            *('"\\ud83d\\ude00 \\u00e9 \\u2028 \\u0001 \\u007f \\uffff \\" \\\\ \\/ \\t\\n"',),
            *(
                '{"\\t\\n\\\\": "\\\\N"}',
                '"\U0010ffff\u0301"',
                Sql(f"jsonb_build_object('k', {LONG})"),
            ),
        ),
    ),
    Case(
        "jsonpath",
        (
            *("$", 'strict $.a[*] ? (@.b == "x\\ty" && @.c > 1.50).d', "$var.type().size()"),
            *('$[0 to last] ? (@ like_regex "^a\\\\d" flag "iq")', "-$.a.double() + 1e400"),
            *('lax $."$x y".**{2 to last}.keyvalue()',),
        ),
        since={17: ("$.a.bigint()", "$.decimal(4,2)", "$.t.timestamp_tz(3)")},
    ),
    Case(
        "tsvector",
        (
            *("", "a:1A b:2B,3C c", "'it''s':4 'back\\\\slash':16383D 'two words' '\t'"),
            *("\u00e9:1 \U0001f980:2A",),
            Sql("to_tsvector('english', 'The quick brown foxes jumped over 12.5 lazy dogs')"),
            Sql(f"array_to_tsvector(string_to_array({LONG}, E'\\t'))"),
        ),
    ),
)

NETWORK: Final = (
    Case(
        "inet",
        (
            *_words("0.0.0.0/0 255.255.255.255 10.1.2.3/8 ::/0 ::1 ::ffff:1.2.3.4"),
            *_words("2001:db8::ff00:42:8329/64"),
        ),
    ),
    Case(
        "cidr",
        _words("0.0.0.0/0 10.0.0.0/8 192.168.1.7/32 ::/0 2001:db8::/32 ::ffff:1.2.3.0/120"),
    ),
    Case("macaddr", _words("00:00:00:00:00:00 ff:ff:ff:ff:ff:ff 08002b010203")),
    Case("macaddr8", _words("00:00:00:00:00:00:00:00 ff:ff:ff:ff:ff:ff:ff:ff 08:00:2b:01:02:03")),
    Case("bit", _words("0 1")),
    Case("bit(11)", _words("00000000000 10101010101 11111111111")),
    Case("varbit", ("", "0", "1", "101010101", Sql("repeat('10', 4000)"))),
    Case("varbit(7)", ("", "1111111")),
)

GEOMETRY: Final = (
    Case(
        "point",
        _words("(0,-0) (NaN,Infinity) (5e-324,-1.7976931348623157e+308) (0.1,0.30000000000000004)"),
    ),
    Case("line", ("{1,-1,0}", "{0.1,0.2,NaN}", "{-0.5,-1,1e300}")),
    Case("lseg", ("[(0,0),(1,-1)]", "[(0.1,1e-300),(Infinity,NaN)]")),
    Case("box", ("(1,1),(0,0)", "(0.1,1e300),(-0.2,-Infinity)")),
    Case("path", ("[(0,0),(1,1)]", "((0,0),(1,1),(2,0))", "[(NaN,1e-300)]")),
    Case("polygon", ("((0,0))", "((0,0),(0.1,1e100),(2,-0.5))")),
    Case("circle", ("<(0,0),0>", "<(0.1,-0.2),5e-324>", "<(1,2),Infinity>")),
)

RANGES: Final = (
    *_with_multirange("int4", "[1,5)", "[7,)", "(,-2147483648]", "[2147483646,2147483647)"),
    *_with_multirange("int8", "[-9223372036854775808,0)", "[7,)", "(,5)"),
    *_with_multirange("num", "[1.0,1.00]", "[1.50,NaN]", "(-Infinity,Infinity)", "(,-0.10)"),
    *_with_multirange(
        *(
            "date",
            "[0044-03-15 BC,2024-02-29]",
            "[infinity,)",
            "[-infinity,infinity)",
            "(,2000-01-01)",
        )
    ),
    *_with_multirange(
        *("ts", '["0044-03-15 00:00:00 BC","1999-12-31 23:59:59.999999"]', "[infinity,infinity]"),
        "(,2000-01-01)",
    ),
    *_with_multirange(
        *("tstz", '["2024-03-31 02:30:00+01","2024-10-27 02:30:00.000001+02")', "[infinity,)"),
        "[-infinity,infinity]",
    ),
)

_VECTORS: Final = ("{}", '{"1 2","",NULL}', '[-1:0]={"0",NULL}')

SYSTEM: Final = (
    Case("pg_lsn", _words("0/0 1/2A FFFFFFFF/FFFFFFFF")),
    Case("xid", _words("0 3 4294967295")),
    Case("xid8", _words("0 4294967296 18446744073709551615")),
    Case("cid", _words("0 4294967295")),
    Case("tid", _words("(0,0) (4294967295,65535)")),
    Case("pg_snapshot", _words("1:1: 10:20:10,14,15 4294967297:4294967300:4294967298")),
    Case("txid_snapshot", _words("1:1: 10:20:10,14,15")),
)

TEXT_ONLY: Final = (
    Case("int2vector", ("", "1", "-32768 0 32767"), arrays=_VECTORS),
    Case("oidvector", ("", "0", "4294967295 1"), arrays=_VECTORS),
    Case(
        "tsquery",
        (
            *("", "'a' & !'b' | ('c' <-> 'd') <3> 'e':*AB", "!!('a b' | '\u00e9')"),
            *("'it''s' & 'back\\\\slash':D",),
        ),
    ),
    Case("regproc", _words("now - 4294967295")),
    Case("regprocedure", ("sum(integer)", "abs(numeric)", "now()", "-")),
    Case("regoper", ("||/", "0", "4294967295")),
    Case("regoperator", ("+(integer,integer)", "-(NONE,bigint)", "0")),
    Case("regclass", ('"A Named Table"', "pg_class", "information_schema.tables", "-")),
    Case("regcollation", ('"C"', '"default"', "-")),
    Case("regtype", ("integer", "timestamp with time zone", "varchar[]", '"char"', "-")),
    Case("regrole", ("postgres", "pg_monitor", "-")),
    Case("regnamespace", ("public", "pg_catalog", "-")),
    Case("regconfig", ("english", "simple", "-")),
    Case("regdictionary", ("english_stem", "simple", "-")),
    Case("aclitem", ("postgres=arwd/postgres", "=r/postgres", "pg_monitor=a*r*/postgres")),
)
"""Always text: in binary these are the numbers of objects, which are other ones elsewhere, or are not
read (see NOT_PORTABLE in cdc/sources/postgres/types.py)."""

XML: Final = (
    Case(
        "xml",
        (
            *("", "<a/>", "text &amp; <b>\u00e9 \U0001f980</b>", "<a>\n\t<![CDATA[ ]]]]></a><b/>"),
            *('<?xml version="1.0" encoding="ISO-8859-1"?><a x="\'"/>',),
            *('<!DOCTYPE a [<!ENTITY e "v">]><a>&amp;</a>',),
        ),
    ),
)
"""Only of servers that were built with libxml; the wheel's was not."""

PORTABLE: Final[Mapping[str, Sequence[Case]]] = {
    "numbers": NUMBERS,
    "times": TIMES,
    "texts": TEXTS,
    "documents": DOCUMENTS,
    "network": NETWORK,
    "geometry": GEOMETRY,
    "ranges": RANGES,
    "system": SYSTEM,
}
"""Tables whose rows go in binary form, by name."""

EXCLUDED: Final = {
    "gtsvector": "lives in indexes; no column ever gets a value: it has neither input nor function",
    "pg_brin_bloom_summary": "lives in indexes; no column ever gets a value",
    "pg_brin_minmax_multi_summary": "lives in indexes; no column ever gets a value",
    "pg_node_tree": "has no input: test_types_without_input",
    "pg_ndistinct": "has no input: test_types_without_input",
    "pg_dependencies": "has no input: test_types_without_input",
    "pg_mcv_list": "has no input: test_types_without_input",
}
"""Built-in types without a case, and why. Their arrays with them."""
