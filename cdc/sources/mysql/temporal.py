"""Dates and times of the log as text.

The layouts stand in MySQL mysys/my_time.cc (`my_datetime_packed_to_binary` and the like) and MariaDB
sql/compat56.cc; the ones before MySQL 5.6, which MariaDB keeps for old tables, in sql/field.cc.
Dates are looked up in tables that fill themselves: one date stands in many rows. Zero dates and
days that no calendar has are texts like others. What no server writes raises LookupError or ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Final

from cdc.sources.mysql import codes
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.pieces import Code, Native
from cdc.sources.mysql.table_map import LoggedColumn

_EPOCH: Final = date(1970, 1, 1).toordinal()
_MOST: Final = 20_000
"""Dates in one table, 55 years of them; then it begins anew, so that odd data costs no memory."""


class _Texts(dict[int, bytes]):
    """Texts by number, made when first asked for."""

    def __init__(self, make: Callable[[int], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, number: int) -> bytes:
        if len(self) >= _MOST:
            self.clear()
        text = self[number] = self._make(number)
        return text


def _ymd(year: int, month: int, day: int) -> bytes:
    if year > 9999 or month > 12 or day > 31:
        raise ValueError("no date")
    return b"%04d-%02d-%02d" % (year, month, day)


def _packed_day(number: int) -> bytes:
    """The upper 23 of the 40 bits of a DATETIME: a one, year * 13 + month, day."""
    if number < 1 << 22:
        raise ValueError("no DATETIME")
    months = (number & 0x3FFFFF) >> 5
    return _ymd(months // 13, months % 13, number & 31) + b" "


def _epoch_day(number: int) -> bytes:
    return date.fromordinal(_EPOCH + number).isoformat().encode() + b" "


DATES: Final = _Texts(lambda number: _ymd(number >> 9, number >> 5 & 15, number & 31))
"""A DATE: 15 bits of year, 4 of month, 5 of day."""

PACKED_DAYS: Final = _Texts(_packed_day)
"""The date of a DATETIME, with the blank behind it."""

EPOCH_DAYS: Final = _Texts(_epoch_day)
"""The date of a day after 1970-01-01, with the blank behind it."""

ZERO_DAY: Final = b"0000-00-00 "

PACKED_MINUTES: Final = {
    hour << 6 | minute: b"%02d:%02d:" % (hour, minute) for hour in range(24) for minute in range(60)
}
"""Hour and minute of a DATETIME: 5 and 6 bits."""

DAY_MINUTES: Final = tuple([b"%02d:%02d:" % divmod(minute, 60) for minute in range(24 * 60)])
SECONDS: Final = tuple([b"%02d" % second for second in range(60)])
YEARS: Final = (b"0000", *(b"%d" % (1900 + year) for year in range(1, 256)))


def time_text(stored: bytes, digits: int) -> bytes:
    """A TIME with `digits` of fraction: big-endian, offset to be positive; the fraction counts in
    hundredths, in ten thousandths or in millionths (my_time.cc, `my_time_packed_from_binary`)."""
    octets = (digits + 1) // 2
    value = int.from_bytes(stored, "big") - (0x800000 << 8 * octets)
    seconds, fraction = divmod(abs(value), 1 << 8 * octets)
    hour, minute, second = seconds >> 12, seconds >> 6 & 63, seconds & 63
    if hour > 838 or minute > 59 or second > 59:
        raise ValueError("no TIME")
    text = b"%b%02d:%02d:%02d" % (b"-" if value < 0 else b"", hour, minute, second)
    return text + fraction_text(fraction, digits) if digits else text


def fraction_text(fraction: int, digits: int) -> bytes:
    """A fraction of a second as it is kept for an even number of digits, with its point."""
    if fraction >= 10 ** (digits + digits % 2):
        raise ValueError("no fraction")
    return b".%0*d" % (digits, fraction // 10 if digits % 2 else fraction)


def old_time(number: int) -> bytes:
    """A TIME of before 5.6: the decimal digits hhmmss, negative ones too."""
    rest, second = divmod(abs(number), 100)
    hour, minute = divmod(rest, 100)
    if hour > 838 or minute > 59 or second > 59:
        raise ValueError("no TIME")
    return b"%b%02d:%02d:%02d" % (b"-" if number < 0 else b"", hour, minute, second)


def old_datetime(number: int) -> bytes:
    """A DATETIME of before 5.6: the decimal digits yyyymmddhhmmss."""
    days, clock = divmod(number, 1_000_000)
    year, rest = divmod(days, 10_000)
    minutes, second = divmod(clock, 100)
    hour, minute = divmod(minutes, 100)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("no DATETIME")
    return b"%b %02d:%02d:%02d" % (_ymd(year, *divmod(rest, 100)), hour, minute, second)


def packed_text(kind: str, packed: int) -> bytes:
    """What a JSON document holds as `date`, `time` or `datetime`: 40 bits and 24 of microseconds."""
    whole, micros = divmod(abs(packed), 1 << 24)
    if micros > 999_999:
        raise ValueError("no fraction")
    if kind == "time":
        return time_text((whole + 0x800000).to_bytes(3, "big"), 0).join(
            (b"-" if packed < 0 else b"", b".%06d" % micros)
        )
    months = whole >> 22
    day = _ymd(months // 13, months % 13, whole >> 17 & 31)
    if kind == "date":
        return day
    clock = PACKED_MINUTES[whole >> 6 & 0x7FF] + SECONDS[whole & 63]
    return b"%b %b.%06d" % (day, clock, micros)


# ---- the code that reads them

OLD_TEMPORAL: Final = {codes.TIME, codes.DATETIME, codes.TIMESTAMP}
"""The types of before MySQL 5.6, which MariaDB writes with `mysql56_temporal_format = OFF` and for
tables older than 10.1. Of those with a fraction the log does not say how many digits they have."""

REBUILD: Final = (
    "SET GLOBAL mysql56_temporal_format = ON; ALTER TABLE … FORCE;"
    " then `cdc snapshot` copies everything again"
)


def old_code(column: LoggedColumn, declared: str) -> Code:
    """`declared` is COLUMN_TYPE as far as it is known: `datetime(6) /* mariadb-5.3 */`."""
    if "(" in declared and "(0)" not in declared:
        raise ProtocolError("expected seconds without a fraction in MariaDB 5.3's format", REBUILD)
    if column.type == codes.TIMESTAMP:
        return timestamp_code(column)
    return _OLD_TIME if column.type == codes.TIME else _OLD_DATETIME


_FRACTIONS: Final = ("", "B", "B", "H", "H", "BH", "BH")


def _digits(column: LoggedColumn) -> int:
    digits = column.meta[0]
    if digits > 6:
        raise ProtocolError(f"expected at most 6 digits of a second, got {digits}")
    return digits


def _fraction(digits: int, slot: int) -> tuple[tuple[str, ...], tuple[str, ...], bytes]:
    """Statements, value and form of a fraction whose numbers begin at `slot`."""
    if not digits:
        return (), (), b""
    found = f"{{{slot}}}" if digits < 5 else f"{{{slot}}} << 16 | {{{slot + 1}}}"
    most = 10 ** (digits + digits % 2)
    read = (f"{{v}} = {found}", f"if {{v}} >= {most}:", "    raise ValueError")
    return read, ("{v} // 10" if digits % 2 else "{v}",), b".%%0%dd" % digits


def datetime_code(column: LoggedColumn) -> Code:
    digits = _digits(column)
    read, values, form = _fraction(digits, 2)
    names = {
        "days": PACKED_DAYS,
        "minutes": PACKED_MINUTES,
        "seconds": SECONDS,
    }
    clock = ("{days}[{0} << 15 | {1} >> 17]", "{minutes}[{1} >> 6 & 2047]", "{seconds}[{1} & 63]")
    slots, native = "BI" + _FRACTIONS[digits], Native("datetime", 5 + (digits + 1) // 2, digits)
    return Code((*clock, *values), b"%b%b%b" + form, slots, ">", read, names=names, native=native)


def timestamp_code(column: LoggedColumn) -> Code:
    """Seconds since 1970; nought, with no fraction, is the zero date."""
    digits = _digits(column)
    read, values, form = _fraction(digits, 1)
    names = {
        "days": EPOCH_DAYS,
        "minutes": DAY_MINUTES,
        "seconds": SECONDS,
        "zero": ZERO_DAY,
    }
    some = "{0} or {v}" if digits else "{0}"
    clock = (
        f"{{days}}[{{0}} // 86400] if {some} else {{zero}}",
        "{minutes}[{0} % 86400 // 60]",
        "{seconds}[{0} % 60]",
    )
    order = "<" if column.type == codes.TIMESTAMP else ">"
    slots = "I" + _FRACTIONS[digits]
    native = Native("timestamp", 4 + (digits + 1) // 2, digits, int(order == "<"))
    return Code((*clock, *values), b"%b%b%b" + form, slots, order, read, names=names, native=native)


def time_code(column: LoggedColumn) -> Code:
    digits = _digits(column)

    def text(stored: bytes) -> bytes:
        return time_text(stored, digits)

    size = 3 + (digits + 1) // 2
    native = Native("time", size, digits)
    return Code(("{time}({0})",), slots=f"{size}s", names={"time": text}, native=native)


DATE_CODE: Final = Code(
    ("{dates}[{1} << 16 | {0}]",),
    b"%b",
    "HB",
    "<",
    names={"dates": DATES},
    native=Native("date", 3),
)
YEAR_CODE: Final = Code(
    ("{years}[{0}]",), slots="B", names={"years": YEARS}, native=Native("year", 1)
)
_OLD_TIME: Final = Code(("{time}({1} << 16 | {0})",), b"%b", "Hb", "<", names={"time": old_time})
_OLD_DATETIME: Final = Code(("{datetime}({0})",), b"%b", "Q", "<", names={"datetime": old_datetime})
