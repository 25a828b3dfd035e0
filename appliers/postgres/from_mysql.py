"""Tables of a MySQL or MariaDB source in PostgreSQL: which types their columns get, and which types of
columns that are there already would change values without an error.

Types as the source's information_schema names them (`Column.base` is DATA_TYPE, `Column.type`
COLUMN_TYPE). What PostgreSQL makes of each text was measured on 15 and 18; docs/types.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from appliers.relation import Column
from appliers.unrepresentable import Unrepresentable

DATES: Final = frozenset(["date", "datetime", "timestamp"])
"""Types that may hold zeros (0000-00-00, 2024-00-10) and days that are in no calendar (2024-02-31,
sql_mode ALLOW_INVALID_DATES), none of which PostgreSQL's can."""

BYTES: Final = frozenset(
    "binary varbinary tinyblob blob mediumblob longblob vector geometry point linestring polygon"
    " multipoint multilinestring multipolygon geometrycollection geomcollection".split()
)
INTEGERS: Final = {
    "tinyint": ("smallint", "smallint"),
    "smallint": ("smallint", "integer"),
    "mediumint": ("integer", "integer"),
    "int": ("integer", "bigint"),
    "integer": ("integer", "bigint"),
    "bigint": ("bigint", "numeric(20)"),
}
"""Signed and unsigned. A tinyint(1) is a smallint too: MySQL has no boolean, its columns of that name
hold -128 to 127. A `boolean` column that is there already takes 0 and 1, and refuses the rest."""

_PLAIN: Final = {
    "float": "real",
    "double": "double precision",
    "date": "date",
    "year": "smallint",
    # Not jsonb: it refuses \u0000 and prints numbers and white space otherwise than MySQL.
    "json": "json",
    "uuid": "uuid",
    "inet4": "inet",
    "inet6": "inet",
}
_PRECISE: Final = {
    "datetime": "timestamp({})",
    "timestamp": "timestamptz({})",
    # MySQL's TIME goes from -838:59:59 to 838:59:59, PostgreSQL's from 00:00 to 24:00.
    "time": "interval({})",
}
TEXTLESS: Final = BYTES | INTEGERS.keys() | _PLAIN.keys() | _PRECISE.keys() | {"decimal", "bit"}
"""Types whose printed form holds nothing but printable ASCII, or (json) escapes what else there is."""

_NUMBERS: Final = INTEGERS.keys() | {"decimal", "float", "double"}
EXACT_IN: Final = {
    "float4": frozenset(["float", "tinyint", "smallint", "mediumint"]),
    "float8": frozenset(["float", "double", "tinyint", "smallint", "mediumint", "int", "integer"]),
}
"""Which numbers are themselves in PostgreSQL's floats, of 24 and of 53 bits."""

_FOR_BITS: Final = frozenset(("bit", "varbit", "bool", "text", "varchar", "bpchar", "citext"))
"""Types that read the digits of a BIT as such."""

_ARGUMENTS: Final = re.compile(r"\((\d+)(?:,\s*(-?\d+))?\)")


def created_type(column: Column, policy: Unrepresentable) -> str:
    """The type of a column that is to be created, in PostgreSQL's DDL. What no rule knows is text."""
    base = column.base
    if base in DATES and policy is Unrepresentable.TEXT:
        return "text"
    if base in INTEGERS:
        return INTEGERS[base]["unsigned" in column.type]
    if base in BYTES:
        return "bytea"
    return _PLAIN.get(base) or _sized(base, _arguments(column.type))


def _sized(base: str, numbers: Sequence[int]) -> str:
    """Types whose size or precision is kept. MySQL's DECIMAL alone is DECIMAL(10,0), its BIT is
    BIT(1), its times have no fraction."""
    if base in _PRECISE:
        return _PRECISE[base].format(*numbers or (0,))
    if base == "decimal":
        return f"numeric({','.join(map(str, numbers or (10, 0)))})"
    if base == "bit":
        return f"bit({numbers[0] if numbers else 1})"
    # MySQL has columns of no characters, PostgreSQL has none. A char is not padded on its way here.
    if base in ("char", "varchar") and numbers and numbers[0] > 0:
        return f"character varying({numbers[0]})"
    return "text"


def change_of(column: Column, kind: str, declared: str) -> str | None:
    """What a target's column of the type named `kind` would do to values without an error; None where
    it keeps them or refuses what it cannot keep. `declared` is the type with its modifiers."""
    base = column.base
    if kind in ("name", "char"):
        return "cuts what is too long"
    if base == "bit" and kind not in _FOR_BITS:
        return "reads its digits as another number, or as text"
    if kind == "money" and base in _NUMBERS and _scale(column) > 2:
        return "rounds"
    if base in DATES | {"time"}:
        return _change_of_time(column, kind, declared)
    if base in _NUMBERS - EXACT_IN.get(kind, _NUMBERS):
        return "rounds"
    if kind == "numeric" and base in _NUMBERS:
        held = _arguments(declared)
        if len(held) > 1 and held[1] < _scale(column):
            return "rounds"
    if kind == "bytea" and base not in TEXTLESS:
        return "reads backslashes as escapes"
    return None


def _change_of_time(column: Column, kind: str, declared: str) -> str | None:
    if column.base in ("datetime", "timestamp") and kind in ("date", "time", "timetz"):
        return "drops the time" if kind == "date" else "drops the date"
    if kind in ("timestamp", "timestamptz", "time", "timetz", "interval"):
        held, given = _arguments(declared), _arguments(column.type)
        if held and given and held[0] < given[0]:
            return "rounds"
    return None


def _scale(column: Column) -> int:
    """Digits behind the point; more than any numeric(p,s) has for those that float."""
    if column.base in ("float", "double"):
        return 2000
    numbers = _arguments(column.type) if column.base == "decimal" else ()
    return numbers[1] if len(numbers) > 1 else 0


def _arguments(type_name: str) -> Sequence[int]:
    found = _ARGUMENTS.search(type_name)
    return [int(n) for n in found.groups() if n is not None] if found else []
