"""What PostgreSQL's own types do, without an error, to the values of a PostgreSQL source's wider ones.

What is too long, out of range or no such value at all is refused by the server. `from_mysql` has the same
for MySQL's types.
"""

from __future__ import annotations

import re
from typing import Final

from appliers.relation import Column

_ARGUMENTS: Final = re.compile(r"\((\d+)(?:,\s*(-?\d+))?\)")
_DIGITS: Final = {"int2": 0, "int4": 0, "int8": 0, "oid": 0, "money": 2}
"""Behind the point, of numbers that have no modifier."""
_ALL: Final = 20_000
"""More than any numeric(p,s) has: of numeric without a modifier, and of floats."""
_INEXACT: Final = {
    "float4": frozenset(["float8", "numeric", "int4", "int8", "oid", "money"]),
    "float8": frozenset(["numeric", "int8", "money"]),
}
_LOST: Final = {
    ("timestamp", "date"): "drops the time",
    ("timestamptz", "date"): "drops the time",
    ("timestamp", "time"): "drops the date",
    ("timestamp", "timetz"): "drops the date",
    ("timestamptz", "time"): "drops the date",
    ("timestamptz", "timetz"): "drops the date",
    ("timestamptz", "timestamp"): "drops the zone",
    ("timetz", "time"): "drops the zone",
}
_TIMES: Final = frozenset("timestamp timestamptz time timetz interval".split())
_TEXTS: Final = frozenset("text varchar bpchar citext".split())


def change_of(column: Column, kind: str, declared: str) -> str | None:
    """What a target's column of the type named `kind` would do; None where it keeps values or refuses
    them. `declared` is the type with its modifiers, as those of `column.type`; a domain has none."""
    base = column.base
    if column.kind not in ("base", "array"):
        return None
    if base in _INEXACT.get(kind, ()):
        return "rounds"
    if kind in ("name", "char") and base != kind:
        return "cuts what is too long"
    if kind == "bytea" and base in _TEXTS:
        return "reads backslashes as escapes"
    if (base, kind) in _LOST:
        return _LOST[base, kind]
    if kind == "numeric" or (kind == "money" and base != "money"):
        held = _scale(declared) if kind == "numeric" else 2
        given = _scale_of(column)
        return "rounds" if held is not None and given is not None and given > held else None
    if kind in _TIMES and base in _TIMES:
        held = _precision(declared)
        given = _precision(column.type)
        known = _is_spelled(column)
        return (
            "rounds"
            if held is not None and known and held < (6 if given is None else given)
            else None
        )
    return None


def _scale_of(column: Column) -> int | None:
    """None where it is not known, or no number."""
    if column.base in ("float4", "float8"):
        return _ALL
    if column.base == "numeric" and _is_spelled(column):
        found = _scale(column.type)
        return _ALL if found is None else found
    return _DIGITS.get(column.base)


def _is_spelled(column: Column) -> bool:
    """Whether `column.type` says the modifiers: a domain's name does not."""
    return column.type.startswith(("numeric", "timestamp", "time", "interval"))


def _scale(type_name: str) -> int | None:
    found = _ARGUMENTS.search(type_name)
    return int(found[2] or 0) if found else None


def _precision(type_name: str) -> int | None:
    found = _ARGUMENTS.search(type_name)
    return int(found[1]) if found else None
