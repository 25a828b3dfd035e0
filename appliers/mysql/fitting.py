"""One column's values, as the source prints them, made into what MySQL takes without changing them.

A `Step` is what has to be done for one pair of source and target column. MySQL and MariaDB change
values even in strict mode: of text for an integer the fraction is rounded, of DATETIME fractions are
cut (MariaDB) or rounded (MySQL), CHAR loses its blanks at the end, ENUM takes a number for its
index, YEAR takes 70 for 1970, all without a warning (measured, 10.11 and 9.7). Such values are
found here, before they are sent.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

Refuse = Callable[[str], bytes]
"""What is done about a value of that kind: raises, or returns the field for NULL."""
Convert = Callable[[bytes], bytes]

FLOAT_MAX_PRINTED: Final = 3.4028235e38
"""The shortest text of the largest float32. As a double it is beyond it, which is how the servers
compare it (error 1264): they are given 3.4028234663852886e+38, which is the same float32."""


@dataclass(frozen=True, slots=True)
class Step:
    """How the values of one column are made.

    `fits` is a Python expression over the field `v`: where it is true, the field becomes `then`,
    another expression over `v`; else what `otherwise` returns, which is never given NULL or a gap.
    The expressions are ours, no name and no value of a table gets into them; `known` in them is the
    step's own. `only_if` is one over the whole line `m`, false where the step has nothing to do.
    """

    otherwise: Convert
    fits: str = "False"
    then: str = "v"
    known: Any = None
    only_if: str = ""


# -- numbers ------------------------------------------------------------------------------------------

_SPECIAL_ENDS: Final = 'v[-1:] not in b"yN"'
"""Of NaN, Infinity and -Infinity, of no number; and of NULL."""
_INTEGER: Final = re.compile(rb"[-+]?\d+(?:\.0*)?")
_NUMBER: Final = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,6})?|NaN|-?Infinity")
_PADDED: Final = re.compile(rb"\+|-?0\d")
_YEAR: Final = re.compile(rb"0000|19\d\d|2[01]\d\d")
LARGEST_EXACT: Final = 15
"""Digits that every DOUBLE holds (DBL_DIG)."""


def boolean(refuse: Refuse, width: int = 1) -> Step:
    """`t` and `f` as 1 and 0, with zeros before them."""

    known = {b"t": b"%0*d" % (width, 1), b"f": b"0" * width}
    return Step(lambda v: refuse("a text that is no boolean"), "v in known", "known[v]", known)


def number(refuse: Refuse) -> Step:
    """A DECIMAL with the target's digits, or a DOUBLE: everything but NaN and the infinities."""
    return Step(lambda v: refuse(_special(v)), _SPECIAL_ENDS)


def whole(refuse: Refuse) -> Step:
    """A number, or text, for an integer. MySQL would round it."""

    def other(value: bytes) -> bytes:
        if _INTEGER.fullmatch(value):
            return value.partition(b".")[0]
        if (found := _decimal(value)) is None:
            return refuse("a text that is no number")
        if not found.is_finite() or found != found.to_integral_value():
            return refuse(_special(value))
        if found.adjusted() >= 66:
            return refuse("a number of so many digits")
        return b"%d" % int(found)

    return Step(other, "v.isdigit()")


def spelled(step: Step, refuse: Refuse) -> Step:
    """For texts: of those that are one number only the one that a number would print, or rows whose
    keys are `1` and `01` would become one."""

    def other(value: bytes) -> bytes:
        if _PADDED.match(value):
            return refuse("a text that a number would not print")
        return step.otherwise(value)

    return Step(other, "v.isdigit() and v[0] != 48" if step.fits == "v.isdigit()" else "False")


def year(refuse: Refuse) -> Step:
    """A number or text for a YEAR: four digits, or MySQL would guess the century."""

    def other(value: bytes) -> bytes:
        return (
            value
            if _YEAR.fullmatch(value)
            else refuse("a number that is no year from 1901 to 2155")
        )

    return Step(other)


def decimals(scale: int, refuse: Refuse) -> Step:
    """A number, or text, for a DECIMAL with `scale` digits, or a FLOAT(M,D). MySQL would round it."""

    def other(value: bytes) -> bytes:
        found = _decimal(value)
        if found is None:
            return refuse("a text that is no number")
        if not found.is_finite():
            return refuse(_special(value))
        if _places(found) <= scale:
            return value
        return refuse(f"a number with more than {scale} decimal places")

    return Step(other, "v.isdigit()")


def real(refuse: Refuse, *, special: bool) -> Step:
    """A float32's text for a FLOAT."""

    def other(value: bytes) -> bytes:
        if value[-4:] != b"e+38" or not _NUMBER.fullmatch(value):
            return refuse(_special(value))
        if abs(float(value)) > FLOAT_MAX_PRINTED:
            return refuse("a number that is no float32")
        held = struct.unpack("f", struct.pack("f", float(value)))[0]
        return repr(held).encode()

    end = 'v[-4:] != b"e+38"'
    if special:
        return Step(other, f"{_SPECIAL_ENDS} and {end}")
    return Step(other, end, only_if='b"e+38" in m')


def exact_float(refuse: Refuse, *, single: bool) -> Step:
    """A number, or text, for a FLOAT (`single`) or DOUBLE that must hold it exactly: what it prints
    is the same number."""

    def other(value: bytes) -> bytes:
        found = _decimal(value)
        if found is None:
            return refuse("a text that is no number")
        if not found.is_finite():
            return refuse(_special(value))
        if held(found, single=single):
            return value
        return refuse("a number with more digits than it holds")

    few = 7 if single else LARGEST_EXACT + 1
    return Step(other, f"v.isdigit() and len(v) < {few}")


def held(number: Decimal, *, single: bool) -> bool:
    try:
        if not single:
            return Decimal(repr(float(number))) == number
        held = struct.unpack("f", struct.pack("f", float(number)))[0]
    except OverflowError:
        return False
    return Decimal(f"{held:.9g}") == number or Decimal(held) == number or _shortest(held) == number


def _shortest(value: float) -> Decimal:
    """The shortest decimal that reads back as this float32."""
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == value:
            return Decimal(text)
    return Decimal(value)


def _decimal(value: bytes) -> Decimal | None:
    return Decimal(value.decode()) if _NUMBER.fullmatch(value) else None


def _places(number: Decimal) -> int:
    """Digits behind the point, without zeros at the end. Not by `normalize`, which rounds to 28 digits."""
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or exponent >= 0 or not number:
        return 0
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return max(0, -exponent - zeros)


def _special(value: bytes) -> str:
    return (
        "NaN"
        if value[-1:] == b"N"
        else "an infinite number"
        if value[-1:] == b"y"
        else "a fraction"
    )


# -- dates and times ----------------------------------------------------------------------------------

_DATE: Final = re.compile(rb"\d{4}-\d\d-\d\d")
_TIMESTAMP: Final = re.compile(rb"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?)?")
_TIME: Final = re.compile(rb"-?\d{2,3}:\d\d:\d\d(?:\.(\d{1,6}))?")

_OF_OUR_ERA: Final = 'v[4:5] == b"-" and v[-1:] != b"C"'
"""Of a date that PostgreSQL prints: its year has four digits (infinity and -infinity have other
letters there), and it does not end with BC."""


def date(refuse: Refuse) -> Step:
    """A DATE of PostgreSQL."""
    return Step(lambda v: refuse(_beyond(v)), _OF_OUR_ERA)


def text_date(refuse: Refuse) -> Step:
    """Anything printed, for a DATE. MySQL would cut off a time."""

    def other(value: bytes) -> bytes:
        plain = value.removesuffix(b"+00")
        found = _TIMESTAMP.fullmatch(plain)
        if found is None:
            return refuse(_beyond(value))
        if (found[2] or b"").strip(b"0:") or (found[3] or b"").strip(b"0"):
            return refuse("a time of day")
        return found[1]

    return Step(other)


def instant(refuse: Refuse) -> Step:
    """A timestamptz of PostgreSQL, with its `+00`, for a DATETIME of six digits."""

    def other(value: bytes) -> bytes:
        return refuse(_beyond(value))

    return Step(other, 'v[4:5] == b"-" and v[-3:] == b"+00"', "v[:-3]")


def timestamp(digits: int, refuse: Refuse, within: tuple[bytes, bytes] | None = None) -> Step:
    """Any printed date and time for a DATETIME of `digits` behind the point. `within` are the first
    and the last that the target's TIMESTAMP holds, if it has to be looked at here."""

    def other(value: bytes) -> bytes:
        plain = value.removesuffix(b"+00")
        found = _TIMESTAMP.fullmatch(plain)
        if found is None:
            return refuse(_beyond(value))
        if len((found[3] or b"").rstrip(b"0")) > digits:
            return refuse(f"a time with more than {digits} digits behind the second")
        if within and not (within[0] <= plain <= within[1] or plain.startswith(b"0000-00-00")):
            return refuse("a time outside of its range")
        return plain

    return Step(other)


def time(digits: int, refuse: Refuse, longest: bytes = b"") -> Step:
    """Any printed time for a TIME of `digits` behind the point. `longest` is the longest it holds."""

    def other(value: bytes) -> bytes:
        found = _TIME.fullmatch(value)
        if found is None:
            return refuse("a text that is no time")
        if len((found[1] or b"").rstrip(b"0")) > digits:
            return refuse(f"a time with more than {digits} digits behind the second")
        plain = value.lstrip(b"-")
        if (
            longest
            and len(plain.partition(b":")[0]) > 2
            and plain.rstrip(b"0").rstrip(b".") > longest
        ):
            return refuse("a time outside of its range")
        return value

    return Step(other)


def _beyond(value: bytes) -> str:
    if value[-2:] == b"BC":
        return "a date before year 1"
    if value[-8:] == b"infinity":
        return "an infinite date"
    if value[:5].isdigit() and len(value) > 5:
        return "a date after year 9999"
    return "a text that is no date"
