"""A customer delta as JSON, for people and scripts (`cdc tail`).

The shape is part of the contract that users rely on. `key` is the row's key after the change, and
before it for a delete; an update that changed the key has the old one in `before`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from appliers.delta import UNCHANGED, Commit, Delta, Op, Value
from appliers.relation import Column, Relation

Codec = Callable[[bytes], Any]
"""From a value in the text form of the source to what `json` writes."""

Row = tuple[Value, ...]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT: Final = 2**53
"""Up to here every integer is itself in the 64-bit floats that JSON readers use."""
_ZONE: Final = re.compile(r"([+-])(\d\d)(:\d\d)?(:\d\d)?$")


class DeltaJson:
    """Deltas of one source as JSON. What a column's type asks for is looked up once per relation."""

    def __init__(self, database: str) -> None:
        """`database` is the source's name in the configuration: the first part of every id."""
        self._database = database
        self._writers: dict[Relation, _Writer] = {}
        self._commit: Commit | None = None
        self._committed_at = ""

    def line(self, delta: Delta) -> str:
        """One line of JSON, without its end."""
        return json.dumps(self.object(delta), ensure_ascii=False)

    def object(self, delta: Delta) -> dict[str, Any]:
        commit, relation = delta.commit, delta.relation
        if commit is not self._commit:
            self._commit, self._committed_at = commit, iso_time(commit.committed_at)
        writer = self._writers.get(relation)
        if writer is None:
            writer = self._writers[relation] = _Writer(relation)
        return {
            "id": f"{self._database}/{commit.position}/{delta.ordinal}",
            "customer": delta.customer,
            "table": relation.table,
            "op": delta.op.label,
            **writer.images(delta),
            "position": commit.position,
            "transaction": str(commit.transaction),
            "ordinal": delta.ordinal,
            "committed_at": self._committed_at,
        }


class _Writer:
    """Reads the images of one relation."""

    def __init__(self, relation: Relation) -> None:
        self._relation = relation
        self._names = [c.name for c in relation.columns]
        self._codecs = [codec_for(c, relation.dialect) for c in relation.columns]
        self._all = range(len(self._names))

    def images(self, delta: Delta) -> dict[str, Any]:
        values = self._relation.values
        old = None if delta.before is None else values(delta.before)
        new = None if delta.after is None else values(delta.after)
        unchanged: list[str] = []
        if new is None:
            after = None
            before = None if old is None else self._some(old, self._carried())
        elif delta.op is Op.UPDATE:
            at = self._changed(old, new)
            unchanged = [self._names[i] for i in self._all if new[i] is UNCHANGED]
            after = self._some(new, at)
            before = {} if old is None else self._some(old, [i for i in self._carried() if i in at])
        else:
            before, after = None, self._some(new, self._all)
        return {
            "key": self._key(old, new),
            "before": before,
            "after": after,
            "unchanged": unchanged,
        }

    def _carried(self) -> Sequence[int]:
        """The columns that an old image holds."""
        return self._all if self._relation.whole_before else self._relation.key_columns

    def _changed(self, old: Row | None, new: Row) -> Sequence[int]:
        """The columns that an update changed; without the old row, all that the log carried."""
        there = [i for i in self._all if new[i] is not UNCHANGED]
        if old is None or not self._relation.whole_before:
            return there
        return [i for i in there if old[i] != new[i]]

    def _key(self, old: Row | None, new: Row | None) -> dict[str, Any] | None:
        row = new or old
        if row is None:
            return None
        if old is not None and new is not None:
            row = tuple(o if n is UNCHANGED else n for o, n in zip(old, new, strict=True))
        return self._some(row, self._relation.key_columns)

    def _some(self, row: Row, at: Sequence[int]) -> dict[str, Any]:
        names, codecs = self._names, self._codecs
        return {
            names[i]: codecs[i](value) if isinstance(value := row[i], bytes) else None
            for i in at
            if row[i] is not UNCHANGED
        }


def iso_time(microseconds: int) -> str:
    """Microseconds since 1970 as ISO 8601 in UTC, always with six decimals."""
    at = _EPOCH + timedelta(microseconds=microseconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def codec_for(column: Column, dialect: str) -> Codec:
    """How values of a column are written. Arrays, ranges, enums and composites are the source's text."""
    codecs = _MYSQL if dialect == "mysql" else _CODECS
    return codecs.get(column.base, _text) if column.kind == "base" else _text


def _text(value: bytes) -> str:
    # Only a SQL_ASCII database can hold what is not UTF-8.
    return value.decode(errors="backslashreplace")


def _integer(value: bytes) -> int | str:
    number = int(value)
    return number if -_EXACT <= number <= _EXACT else str(number)


def _float(value: bytes) -> float | str:
    return _text(value) if value in (b"NaN", b"Infinity", b"-Infinity") else float(value)


def _bytea(value: bytes) -> str:
    return base64.b64encode(bytes.fromhex(value[2:].decode())).decode()


def _timestamp(value: bytes) -> str:
    """PostgreSQL prints `infinity` and years before Christ in ways that ISO 8601 has none for: these
    stay as they are."""
    text = _text(value)
    if text.endswith(("infinity", "BC")):
        return text
    return _zone(text.replace(" ", "T", 1))


def _zone(text: str) -> str:
    """An offset as ISO 8601 has it: `Z` for +00, else with minutes."""
    time_at = text.find(":")
    match = _ZONE.search(text, time_at) if time_at >= 0 else None
    if match is None:
        return text
    sign, hours, minutes, seconds = match.groups()
    offset = (
        "Z" if hours == "00" and not minutes else f"{sign}{hours}{minutes or ':00'}{seconds or ''}"
    )
    return text[: match.start()] + offset


_CODECS: Final[dict[str, Codec]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), _integer),
    **dict.fromkeys(("float4", "float8"), _float),
    "bool": lambda value: value == b"t",
    "bytea": _bytea,
    **dict.fromkeys(("timestamp", "timestamptz"), _timestamp),
    "timetz": lambda value: _zone(_text(value)),
}
"""By base type. What is not here is PostgreSQL's text: numeric and money too, because JSON's readers
round them, and json, because its text is the value that the column holds."""


def _datetime(value: bytes) -> str:
    """Zeros and days that are in no calendar, which ISO 8601 does not have, stay as MySQL prints them."""
    text = _text(value)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return text
    return text.replace(" ", "T", 1)


def _utc(value: bytes) -> str:
    text = _datetime(value)
    return f"{text}Z" if "T" in text else text


def _json(value: bytes) -> Any:
    """The document itself; its numbers as those of columns: exact, or a string."""
    try:
        return json.loads(value, parse_int=_number, parse_float=_number, parse_constant=str)
    except (ValueError, RecursionError):
        return _text(value)


def _number(text: str) -> int | float | str:
    if text.lstrip("-").isdigit():
        return _integer(text.encode())
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else text


_MYSQL: Final[dict[str, Codec]] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "integer", "bigint"), _integer),
    **dict.fromkeys(("float", "double"), _float),
    **dict.fromkeys(("binary", "varbinary", "vector"), _bytea),
    **dict.fromkeys(("tinyblob", "blob", "mediumblob", "longblob"), _bytea),
    **dict.fromkeys(("geometry", "point", "linestring", "polygon", "multipoint"), _bytea),
    **dict.fromkeys(("multilinestring", "multipolygon"), _bytea),
    **dict.fromkeys(("geometrycollection", "geomcollection"), _bytea),
    "datetime": _datetime,
    "timestamp": _utc,
    "json": _json,
}
"""By base type of MySQL and MariaDB. What is not here is the server's text: decimals, dates, times,
years, the digits of a bit, labels, and MariaDB's json, which is a longtext."""
