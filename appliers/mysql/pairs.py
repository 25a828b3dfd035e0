"""What has to be done for a pair of a source's column and a target's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliers.errors import PermanentError
from appliers.mysql import fitting, fitting_texts
from appliers.mysql.catalog import TargetColumn
from appliers.mysql.fitting import Refuse, Step
from appliers.mysql.kinds import HEXADECIMAL, MYSQL_GEOMETRIES, NUMBERS, Kind, Shape, labels
from appliers.relation import Column
from appliers.unrepresentable import Unrepresentable

FIRST_TIMESTAMP: Final = b"1970-01-01 00:00:01"
LAST_TIMESTAMP: Final = b"2038-01-19 03:14:07.999999"
LAST_TIMESTAMP_64: Final = b"2106-02-07 06:28:15.999999"
"""MariaDB's from 11.5 on, on 64-bit machines (release notes, MDEV-32188)."""
LONGEST_TIME: Final = b"838:59:59"
"""MySQL's; MariaDB's has a fraction behind it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A column on its way."""

    table: str
    column: Column
    shape: Shape
    target: TargetColumn
    postgres: bool
    """Whether the source is PostgreSQL."""
    raw: bool
    """Whether values come as they are, not with a line's escapes."""
    mysql: bool
    """Whether the target is MySQL, not MariaDB."""
    last_timestamp: bytes
    policy: Unrepresentable
    refuse: Refuse

    @property
    def looks(self) -> bool:
        """Whether ranges are looked at here: where NULL shall stand for what is beyond them. Else the
        server refuses the value, and names the column."""
        return self.policy is Unrepresentable.NULL

    def step(self) -> Step | None:
        """What has to be done; None for nothing. PermanentError for types that never fit."""
        found = _TO.get(self.target.data_type)
        return found(self) if found else None

    def hopeless(self) -> PermanentError:
        return PermanentError(
            f"table {self.table}: column {self.column.name}: expected a type that can hold"
            f" {self.column.type}, got {self.target.column_type}",
            "change the column's type on the target; LONGTEXT holds what the source prints",
        )


def _to_integer(p: Pair) -> Step | None:
    match p.shape.kind:
        case Kind.INTEGER | Kind.YEAR:
            return None
        case Kind.BOOLEAN:
            return fitting.boolean(p.refuse)
        case Kind.DECIMAL if p.shape.scale == 0 and not p.shape.special:
            return None
        case Kind.TEXT:
            return fitting.spelled(fitting.whole(p.refuse), p.refuse)
        case Kind.DECIMAL | Kind.FLOAT | Kind.DOUBLE:
            return fitting.whole(p.refuse)
        case _:
            raise p.hopeless()


def _to_decimal(p: Pair) -> Step | None:
    kind, scale = p.shape.kind, p.target.numeric_scale or 0
    if kind in (Kind.INTEGER, Kind.YEAR):
        return None
    if kind is Kind.BOOLEAN:
        return fitting.boolean(p.refuse)
    if kind is Kind.DECIMAL and p.shape.scale is not None and p.shape.scale <= scale:
        return fitting.number(p.refuse) if p.shape.special else None
    if kind in NUMBERS or kind is Kind.TEXT:
        step = fitting.decimals(scale, p.refuse)
        return fitting.spelled(step, p.refuse) if kind is Kind.TEXT else step
    raise p.hopeless()


def _to_float(p: Pair) -> Step | None:
    kind, scale = p.shape.kind, p.target.numeric_scale
    single = p.target.data_type == "float"
    if kind is Kind.YEAR:
        return None
    if kind is Kind.BOOLEAN:
        return fitting.boolean(p.refuse)
    if kind not in NUMBERS and kind is not Kind.TEXT:
        raise p.hopeless()
    if kind is Kind.TEXT:
        exact = fitting.exact_float(p.refuse, single=single)
        step = exact if scale is None else fitting.decimals(scale, p.refuse)
        return fitting.spelled(step, p.refuse)
    if scale is not None and scale != p.shape.scale:
        return fitting.decimals(scale, p.refuse)
    if kind is Kind.FLOAT and single:
        return fitting.real(p.refuse, special=p.shape.special)
    if kind is Kind.FLOAT or (kind is Kind.DOUBLE and not single):
        return fitting.number(p.refuse) if p.shape.special else None
    if kind is Kind.INTEGER and (p.shape.length or 8) <= (3 if single else 4):
        return None
    return fitting.exact_float(p.refuse, single=single)


def _to_date(p: Pair) -> Step | None:
    match p.shape.kind:
        case Kind.DATE:
            return fitting.date(p.refuse) if p.postgres else None
        case Kind.TIMESTAMP | Kind.INSTANT | Kind.TEXT:
            return fitting.text_date(p.refuse)
        case _:
            raise p.hopeless()


def _to_datetime(p: Pair) -> Step | None:
    digits = p.target.datetime_precision or 0
    within = None
    if p.looks and p.target.data_type == "timestamp":
        within = (FIRST_TIMESTAMP, p.last_timestamp)
    same = within is None and (p.shape.scale or 0) <= digits
    match p.shape.kind:
        case Kind.DATE | Kind.TIMESTAMP if same:
            return fitting.date(p.refuse) if p.postgres else None
        case Kind.INSTANT if same:
            return fitting.instant(p.refuse)
        case Kind.DATE | Kind.TIMESTAMP | Kind.INSTANT | Kind.TEXT:
            return fitting.timestamp(digits, p.refuse, within)
        case _:
            raise p.hopeless()


def _to_time(p: Pair) -> Step | None:
    digits = p.target.datetime_precision or 0
    longest = LONGEST_TIME if p.looks and p.mysql and not p.postgres and p.shape.scale else b""
    if p.shape.kind is Kind.TIME and (p.shape.scale or 0) <= digits and not longest:
        return None
    if p.shape.kind in (Kind.TIME, Kind.TEXT):
        return fitting.time(digits, p.refuse, longest)
    raise p.hopeless()


def _to_year(p: Pair) -> Step | None:
    if p.shape.kind is Kind.YEAR:
        return None
    if p.shape.kind in (Kind.INTEGER, Kind.TEXT):
        return fitting.year(p.refuse)
    raise p.hopeless()


def _to_text(p: Pair) -> Step | None:
    """As the source prints it."""
    may_be_padded = p.shape.kind in (Kind.TEXT, Kind.JSON) and not p.shape.fixed
    return (
        fitting_texts.padded(p.refuse) if may_be_padded and p.target.data_type == "char" else None
    )


def _to_bytes(p: Pair) -> Step | None:
    length = p.target.octet_length if p.target.data_type == "binary" else None
    if p.shape.kind not in HEXADECIMAL:
        return fitting_texts.encoded(raw=p.raw, length=length, refuse=p.refuse)
    if p.shape.fixed and p.shape.length == length:
        length = None
    return fitting_texts.hexadecimal(raw=p.raw, length=length, refuse=p.refuse)


def _to_bit(p: Pair) -> Step | None:
    length = p.target.numeric_precision or 1
    match p.shape.kind:
        case Kind.BITS | Kind.TEXT:
            return fitting_texts.bits(length, p.refuse, narrower=p.shape.kind is Kind.BITS)
        case Kind.BOOLEAN:
            return fitting.boolean(p.refuse, width=2 * ((length + 7) // 8))
        case Kind.INTEGER:
            return fitting_texts.bits(length, p.refuse, narrower=True, integer=True)
        case _:
            raise p.hopeless()


def _to_enum(p: Pair) -> Step | None:
    if p.shape.kind not in (Kind.ENUM, Kind.TEXT):
        raise p.hopeless()
    known = labels(p.target.column_type)
    # Strict MySQL takes the number 0 for the invalid value, in up to five digits where a label reads
    # the same (Field_enum::store, field.cc); strict MariaDB takes nothing (measured).
    zero = next((z for z in ("0", "00", "000") if z not in known), None)
    invalid = zero.encode() if zero and p.mysql and p.shape.kind is Kind.ENUM else None
    same = p.shape.labels == known
    return fitting_texts.label(known, same=same, invalid=invalid, raw=p.raw, refuse=p.refuse)


def _to_set(p: Pair) -> Step | None:
    known = labels(p.target.column_type)
    if p.shape.kind is Kind.SET and p.shape.labels == known:
        return None
    if p.shape.kind in (Kind.SET, Kind.TEXT, Kind.ENUM):
        return fitting_texts.members(known, raw=p.raw, refuse=p.refuse)
    raise p.hopeless()


def _to_json(p: Pair) -> Step | None:
    """MySQL's own: MariaDB's has the data type longtext."""
    if p.shape.kind not in (Kind.JSON, Kind.TEXT):
        raise p.hopeless()
    # jsonb and MySQL's JSON have each key once.
    keys = p.shape.kind is Kind.TEXT or (p.postgres and p.column.base == "json")
    return fitting_texts.document(raw=p.raw, keys=keys, refuse=p.refuse)


def _to_geometry(p: Pair) -> Step | None:
    if p.shape.kind is not Kind.GEOMETRY:
        raise p.hopeless()
    return fitting_texts.hexadecimal(raw=p.raw, length=None, refuse=p.refuse)


def _to_vector(p: Pair) -> Step | None:
    if p.shape.kind is not Kind.VECTOR:
        raise p.hopeless()
    return fitting_texts.hexadecimal(raw=p.raw, length=None, refuse=p.refuse)


def _to_uuid(p: Pair) -> Step | None:
    if p.column.base == "uuid" and p.shape.kind is Kind.TEXT:
        return None
    if p.shape.kind is Kind.TEXT:
        return fitting_texts.uuid(p.refuse)
    raise p.hopeless()


def _to_address(p: Pair) -> Step | None:
    if p.column.base == p.target.data_type:
        return None
    if p.shape.kind is Kind.TEXT:
        return fitting_texts.address(4 if p.target.data_type == "inet4" else 6, p.refuse)
    raise p.hopeless()


BYTES: Final = frozenset("binary varbinary tinyblob blob mediumblob longblob".split())

_TO: Final[dict[str, Callable[[Pair], Step | None]]] = {
    **dict.fromkeys("tinyint smallint mediumint int bigint".split(), _to_integer),
    "decimal": _to_decimal,
    **dict.fromkeys(("float", "double"), _to_float),
    "date": _to_date,
    **dict.fromkeys(("datetime", "timestamp"), _to_datetime),
    "time": _to_time,
    "year": _to_year,
    **dict.fromkeys("char varchar tinytext text mediumtext longtext".split(), _to_text),
    **dict.fromkeys(BYTES, _to_bytes),
    "bit": _to_bit,
    "enum": _to_enum,
    "set": _to_set,
    "json": _to_json,
    **dict.fromkeys(MYSQL_GEOMETRIES, _to_geometry),
    "vector": _to_vector,
    "uuid": _to_uuid,
    **dict.fromkeys(("inet4", "inet6"), _to_address),
}
"""By the target's data type. Of one that is not here, the server decides."""

HEXADECIMAL_TARGETS: Final = BYTES | MYSQL_GEOMETRIES | {"bit", "vector"}
