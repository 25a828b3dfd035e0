"""What the values of a source's column look like, whatever the source calls its type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from appliers.relation import Column


class Kind(Enum):
    """A form of printed values."""

    BOOLEAN = auto()
    """`t` and `f`."""
    INTEGER = auto()
    DECIMAL = auto()
    FLOAT = auto()
    """The shortest text that reads back as the same float32."""
    DOUBLE = auto()
    DATE = auto()
    TIMESTAMP = auto()
    """Date and time without a zone; MySQL's TIMESTAMP too, which comes in UTC."""
    INSTANT = auto()
    """Date and time with `+00` behind it."""
    TIME = auto()
    YEAR = auto()
    TEXT = auto()
    BYTES = auto()
    """`\\x` and hexadecimal digits, as are GEOMETRY and VECTOR."""
    BITS = auto()
    """Digits 0 and 1."""
    JSON = auto()
    ENUM = auto()
    SET = auto()
    GEOMETRY = auto()
    VECTOR = auto()


HEXADECIMAL: Final = frozenset([Kind.BYTES, Kind.GEOMETRY, Kind.VECTOR])
NUMBERS: Final = frozenset([Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT, Kind.DOUBLE])


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a column's values."""

    kind: Kind
    length: int | None = None
    """Most characters, bytes or bits; of an INTEGER the bytes it takes. None: no limit is known."""
    fixed: bool = False
    """Whether values are as long as `length` (BINARY), or are printed without trailing blanks (CHAR)."""
    precision: int | None = None
    """Digits of a DECIMAL, or of MySQL's FLOAT(M,D)."""
    scale: int | None = None
    """Digits behind the point, of numbers and of seconds. None: any number of them."""
    unsigned: bool = False
    labels: tuple[str, ...] = ()
    """Of ENUM and SET."""
    special: bool = False
    """Whether it has values that no type but text holds in MySQL: NaN, infinity, BC."""


MYSQL_GEOMETRIES: Final = frozenset(
    "geometry point linestring polygon multipoint multilinestring multipolygon geomcollection"
    " geometrycollection".split()
)

_POSTGRES: Final = {
    **dict.fromkeys(("bool", "boolean"), Shape(Kind.BOOLEAN)),
    **dict.fromkeys(("int2", "smallint"), Shape(Kind.INTEGER, 2)),
    **dict.fromkeys(("int4", "integer", "int"), Shape(Kind.INTEGER, 4)),
    **dict.fromkeys(("int8", "bigint"), Shape(Kind.INTEGER, 8)),
    **dict.fromkeys(("oid", "xid", "cid"), Shape(Kind.INTEGER, 4, unsigned=True)),
    "xid8": Shape(Kind.INTEGER, 8, unsigned=True),
    **dict.fromkeys(("float4", "real"), Shape(Kind.FLOAT, special=True)),
    **dict.fromkeys(("float8", "double precision"), Shape(Kind.DOUBLE, special=True)),
    "date": Shape(Kind.DATE, special=True),
    "bytea": Shape(Kind.BYTES),
    **dict.fromkeys(("json", "jsonb"), Shape(Kind.JSON)),
    "uuid": Shape(Kind.TEXT, 36),
    "name": Shape(Kind.TEXT, 64),
    "char": Shape(Kind.TEXT, 4),
    "macaddr": Shape(Kind.TEXT, 17),
    "macaddr8": Shape(Kind.TEXT, 23),
    **dict.fromkeys(("inet", "cidr"), Shape(Kind.TEXT, 50)),
}
"""PostgreSQL's types whose modifiers say nothing."""

_LENGTH: Final = re.compile(r"[a-z ]+\((\d+)\)")
_NUMERIC: Final = re.compile(r"(?:numeric|decimal)\((\d+)(?:, *(-?\d+))?\)")
_SECONDS: Final = re.compile(r"[a-z]+\((\d)\)(?: with(?:out)? time zone)?")

_LONGEST_LABEL: Final = 63
"""Bytes of an enum's label in PostgreSQL (NAMEDATALEN)."""


def shape_of(column: Column, dialect: str) -> Shape:
    """The shape of a column of a PostgreSQL (`postgres`) or MySQL (`mysql`) source. What is not known
    is text of any length."""
    return _of_mysql(column) if dialect == "mysql" else _of_postgres(column)


def _of_postgres(column: Column) -> Shape:
    if column.kind == "enum":
        return Shape(Kind.TEXT, _LONGEST_LABEL)
    if column.kind != "base":
        return Shape(Kind.TEXT)
    # A domain's type is its own name, without the modifiers of what it stands for.
    match column.base:
        case "numeric" | "decimal":
            return _numeric(column.type)
        case "timestamp" | "timestamptz" | "time":
            seconds = _SECONDS.fullmatch(column.type)
            kind = {"timestamp": Kind.TIMESTAMP, "timestamptz": Kind.INSTANT, "time": Kind.TIME}
            special = column.base != "time"
            return Shape(
                kind[column.base], scale=int(seconds[1]) if seconds else 6, special=special
            )
        case "varchar" | "bpchar":
            found = _LENGTH.fullmatch(column.type)
            # Blanks at the end of PostgreSQL's char are printed: they are kept.
            return Shape(Kind.TEXT, int(found[1]) if found else None)
        case "bit" | "varbit":
            found = _LENGTH.fullmatch(column.type)
            return Shape(Kind.TEXT, int(found[1]) if found else 1 if column.type == "bit" else None)
        case _:
            return _POSTGRES.get(column.base, Shape(Kind.TEXT))


def _numeric(type_name: str) -> Shape:
    """NUMERIC(p,s) with MySQL's meaning of the two: PostgreSQL's scale may be negative (roundings
    before the point) or larger than the precision (zeros behind it)."""
    found = _NUMERIC.fullmatch(type_name)
    if found is None:
        return Shape(Kind.DECIMAL, special=True)
    precision, scale = int(found[1]), int(found[2] or 0)
    if scale < 0:
        precision, scale = precision - scale, 0
    return Shape(Kind.DECIMAL, precision=max(precision, scale), scale=scale, special=True)


_INTEGERS: Final = {"tinyint": 1, "smallint": 2, "mediumint": 3, "int": 4, "bigint": 8}
_PLAIN: Final = {
    "date": Shape(Kind.DATE),
    "year": Shape(Kind.YEAR),
    "json": Shape(Kind.JSON),
    "vector": Shape(Kind.VECTOR),
    "uuid": Shape(Kind.TEXT, 36),
    "inet6": Shape(Kind.TEXT, 45),
    "inet4": Shape(Kind.TEXT, 15),
    # The limit is one of bytes in the column's character set: no more characters than that.
    "tinytext": Shape(Kind.TEXT, 255),
    "text": Shape(Kind.TEXT, 65_535),
    "mediumtext": Shape(Kind.TEXT, 2**24 - 1),
    "tinyblob": Shape(Kind.BYTES, 255),
    "blob": Shape(Kind.BYTES, 65_535),
    "mediumblob": Shape(Kind.BYTES, 2**24 - 1),
    "longblob": Shape(Kind.BYTES),
    **dict.fromkeys(MYSQL_GEOMETRIES, Shape(Kind.GEOMETRY)),
}
_NUMBERS: Final = re.compile(r"\w+ *\((\d+)(?:, *(\d+))?\)")
_LABEL: Final = re.compile(r"'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
_ESCAPED: Final = re.compile(r"''|\\(.)", re.DOTALL)
_LETTERS: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "Z": "\x1a"}


def _of_mysql(column: Column) -> Shape:
    base = column.base
    found = _NUMBERS.match(column.type)
    first = int(found[1]) if found else None
    second = int(found[2]) if found and found[2] else None
    unsigned = "unsigned" in column.type
    match base:
        case "decimal":
            shape = Shape(Kind.DECIMAL, precision=first, scale=second or 0, unsigned=unsigned)
        case "float" | "double":
            kind = Kind.FLOAT if base == "float" else Kind.DOUBLE
            shape = Shape(kind, precision=first, scale=second, unsigned=unsigned)
        case "datetime" | "timestamp" | "time":
            kind = Kind.TIME if base == "time" else Kind.TIMESTAMP
            shape = Shape(kind, scale=first or 0)
        case "char" | "varchar":
            shape = Shape(Kind.TEXT, first, fixed=base == "char")
        case "binary" | "varbinary":
            shape = Shape(Kind.BYTES, first, fixed=base == "binary")
        case "bit":
            shape = Shape(Kind.BITS, first or 1)
        case "enum" | "set":
            kind = Kind.ENUM if base == "enum" else Kind.SET
            shape = Shape(kind, labels=labels(column.type))
        case _ if base in _INTEGERS:
            shape = Shape(Kind.INTEGER, _INTEGERS[base], unsigned=unsigned)
        case _:
            shape = _PLAIN.get(base, Shape(Kind.TEXT))
    return shape


def labels(column_type: str) -> tuple[str, ...]:
    """The labels of an ENUM or SET, as information_schema.COLUMNS.COLUMN_TYPE lists them: quotes are
    doubled; backslash and newline are escaped, a tab is not (measured on both servers)."""
    return tuple(
        _ESCAPED.sub(lambda m: _LETTERS.get(m[1], m[1]) if m[1] else "'", found)
        for found in _LABEL.findall(column_type)
    )
