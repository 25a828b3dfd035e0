"""Ranges of keys, and rows by their keys, as SQL.

A bound is a key of the table as the server gives it, compared by the server itself: under the column's
own collation, in the order of its own index. Bounds are kept as text that is safe to put into SQL
whoever wrote it: numbers, hex, or letters and digits.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from appliers.lines import unescape
from cdc.sources.mysql.catalog import Field
from cdc.sources.mysql.connection import quoted
from cdc.sources.mysql.printing import BYTES, INTEGERS, LABELS, TEXTS

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_FLOAT: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")
_HEX: Final = re.compile(r"([0-9A-Fa-f]{2})*")
_PLAIN: Final = re.compile(r"[0-9A-Za-z:. +-]*")
_NAME: Final = re.compile(r"[0-9A-Za-z_]+")
_FORMS: Final = {
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "datetime": re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?"),
    "timestamp": re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?"),
    "time": re.compile(r"-?\d{2,3}:\d\d:\d\d(\.\d{1,6})?"),
    "year": re.compile(r"\d{4}"),
    "bit": re.compile(r"[01]+"),
}


class BadKeyError(Exception):
    """A text that is no value of its column's type."""


def selected(field: Field) -> str:
    """What to select for a bound's value of this column."""
    name = quoted(field.name)
    if field.base in TEXTS or field.base in BYTES:
        return f"HEX({name})"
    if field.base in LABELS or field.base == "bit":
        # ENUM and SET are ordered by number, but compared with a text by their labels.
        return f"CAST({name} + 0 AS CHAR)"
    if field.base in ("float", "double"):
        return f"CAST({name} + 0e0 AS CHAR)"
    return f"CAST({name} AS CHAR)"


def literal(field: Field, bound: str) -> str:
    """A bound's value as SQL. Raises BadKeyError for a text that `selected` cannot have given."""
    if field.base in TEXTS:
        if not (_HEX.fullmatch(bound) and field.charset and field.collation):
            raise BadKeyError(field.name)
        if not (_NAME.fullmatch(field.charset) and _NAME.fullmatch(field.collation)):
            raise BadKeyError(field.name)
        return f"_{field.charset} x'{bound}' COLLATE {field.collation}"
    if field.base in BYTES:
        return f"x'{_checked(_HEX, field, bound)}'"
    if field.base in ("float", "double"):
        text = _checked(_FLOAT, field, bound)
        return text if "e" in text else f"{text}e0"
    if field.base in INTEGERS or field.base in LABELS or field.base in ("bit", "decimal", "year"):
        return _checked(_NUMBER, field, bound)
    return f"'{_checked(_PLAIN, field, bound)}'"


def after(fields: Sequence[Field], bounds: Sequence[str]) -> str:
    """The condition for keys behind a bound, written so that the index is used: `(a, b) > (x, y)` is
    not (MySQL manual, "Range Optimization of Row Constructor Expressions"), its expansion is."""
    return _beyond(fields, bounds, ">", ">")


def upto(fields: Sequence[Field], bounds: Sequence[str]) -> str:
    """The condition for keys that are a bound or before it."""
    return _beyond(fields, bounds, "<", "<=")


def _beyond(fields: Sequence[Field], bounds: Sequence[str], strictly: str, last: str) -> str:
    if len(fields) != len(bounds):
        raise BadKeyError(", ".join(f.name for f in fields))
    name, value = quoted(fields[-1].name), literal(fields[-1], bounds[-1])
    found = f"{name} {last} {value}"
    for field, bound in zip(reversed(fields[:-1]), reversed(bounds[:-1]), strict=True):
        name, value = quoted(field.name), literal(field, bound)
        found = f"({name} {strictly} {value} OR ({name} = {value} AND {found}))"
    return found


def equal(field: Field, text: str) -> str:
    """The condition for a column that has this value, as text the way images print it. Raises
    BadKeyError for a text that the column's type does not read: the server would take it for 0."""
    name, base = quoted(field.name), field.base
    if base in BYTES:
        if not text.startswith("\\x"):
            raise BadKeyError(field.name)
        return f"{name} = x'{_checked(_HEX, field, text[2:])}'"
    if base in TEXTS or base in LABELS:
        return f"{name} = _utf8mb4 x'{text.encode().hex()}'"
    if base in INTEGERS or base == "decimal":
        return f"{name} = {_checked(_NUMBER, field, text)}"
    if base in ("float", "double"):
        number = float(_checked(_FLOAT, field, text))
        if base == "float":
            # What the column holds: 0.1 is no float.
            (number,) = struct.unpack("<f", struct.pack("<f", number))
        found = repr(number)
        return f"{name} = {found if 'e' in found else found + 'e0'}"
    if base == "bit":
        return f"{name} = b'{_checked(_FORMS['bit'], field, text)}'"
    form = _FORMS.get(base, _PLAIN)
    return f"{name} = '{_checked(form, field, text)}'"


def rows_with(fields: Sequence[Field], keys: Iterable[Sequence[bytes]]) -> str:
    """The condition for rows with these keys, values as images have them. Raises BadKeyError."""
    return " OR ".join(
        "("
        + " AND ".join(
            equal(field, value.decode()) for field, value in zip(fields, key, strict=True)
        )
        + ")"
        for key in keys
    )


def _checked(form: re.Pattern[str], field: Field, text: str) -> str:
    if not form.fullmatch(text):
        raise BadKeyError(field.name)
    return text


__all__ = [
    "BadKeyError",
    "after",
    "equal",
    "literal",
    "rows_with",
    "selected",
    "unescape",
    "upto",
]
