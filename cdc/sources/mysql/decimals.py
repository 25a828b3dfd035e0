"""DECIMAL as the log and JSON documents keep it (MySQL strings/decimal.cc, `decimal2bin`).

Nine digits stand in four bytes, big-endian, fewer in fewer; the digits before the point that make no
nine come first, those behind it last. The first bit is inverted; of a negative number every bit is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.pieces import Code, Native
from cdc.sources.mysql.table_map import LoggedColumn

BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""How many bytes so many digits take."""
NINE: Final = 10**9
MOST: Final = 65
"""The greatest precision (manual, "DECIMAL Data Type Characteristics")."""


def groups(precision: int, scale: int) -> tuple[list[int], list[int]]:
    """The digits of each group before and behind the point. Raises ValueError for no such type."""
    whole = precision - scale
    if not 0 < precision <= MOST or whole < 0:
        raise ValueError("no DECIMAL")
    before = [whole % 9] * (whole % 9 > 0) + [9] * (whole // 9)
    return before, [9] * (scale // 9) + [scale % 9] * (scale % 9 > 0)


def size(precision: int, scale: int) -> int:
    """Bytes of a value."""
    before, behind = groups(precision, scale)
    return sum(BYTES[digits] for digits in before + behind)


def decimal_text(stored: bytes, precision: int, scale: int) -> bytes:
    """The value as the server prints it. Raises ValueError for bytes that no server writes."""
    before, behind = groups(precision, scale)
    if len(stored) != size(precision, scale):
        raise ValueError("no DECIMAL")
    bits = 8 * len(stored)
    number = int.from_bytes(stored, "big") ^ 1 << bits - 1
    sign = b""
    if number >> bits - 1:
        sign, number = b"-", number ^ (1 << bits) - 1
    part = 0
    power = 1
    for digits in reversed(behind):
        number, group = divmod(number, 1 << 8 * BYTES[digits])
        part += _within(group, digits) * power
        power *= 10**digits
    whole, power = 0, 1
    for digits in reversed(before):
        number, group = divmod(number, 1 << 8 * BYTES[digits])
        whole += _within(group, digits) * power
        power *= 10**digits
    return b"%b%d.%0*d" % (sign, whole, scale, part) if scale else b"%b%d" % (sign, whole)


def _within(group: int, digits: int) -> int:
    if group >= 10**digits:
        raise ValueError("no DECIMAL")
    return group


def decimal_code(column: LoggedColumn) -> Code:
    """One integer of the digits before the point, one of those behind."""
    precision, scale = column.meta
    try:
        before, behind = groups(precision, scale)
    except ValueError:
        raise ProtocolError(f"expected a DECIMAL, got one of ({precision},{scale})") from None
    letters, plus, minus, parts = "", [], [], []
    for number, digits in enumerate(before + behind):
        octets = BYTES[digits]
        slot = len(letters)
        letters += {1: "B", 2: "H", 3: "BH", 4: "I"}[octets]
        found = f"{{{slot}}}" if octets != 3 else f"({{{slot}}} << 16 | {{{slot + 1}}})"
        full = (1 << 8 * octets) - 1
        top = 1 << 8 * octets - 1 if number == 0 else 0
        plus.append(f"{{v}}_{number} = {found}" + (f" ^ {top}" if top else ""))
        minus.append(f"{{v}}_{number} = {found} ^ {full ^ top}")
        parts.append(f"{{v}}_{number}")
    whole = _joined(parts[: len(before)], before)
    part = _joined(parts[len(before) :], behind)
    first = (
        "{0} & 128" if letters[0] == "B" else "{0} & 32768" if letters[0] == "H" else "{0} >> 31"
    )
    read = (
        f"if {first}:",
        *(f"    {line}" for line in [*plus, "{v} = b''"]),
        "else:",
        *(f"    {line}" for line in [*minus, "{v} = b'-'"]),
        f"{{v}}w = {whole}",
        f"{{v}}f = {part}",
        f"if {{v}}w >= {10 ** sum(before)} or {{v}}f >= {10 ** sum(behind)}:",
        "    raise ValueError",
    )
    native = Native("decimal", size(precision, scale), scale, precision - scale)
    form = b"%%b%%d.%%0%dd" % scale if scale else b"%b%d"
    values = ("{v}", "{v}w", "{v}f") if scale else ("{v}", "{v}w")
    return Code(values, form, letters, ">", read, native=native)


def _joined(parts: Sequence[str], digits: Sequence[int]) -> str:
    if not parts:
        return "0"
    found = parts[0]
    for part, count in zip(parts[1:], digits[1:], strict=True):
        found = f"({found}) * {10**count} + {part}"
    return found
