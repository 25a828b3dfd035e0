"""FLOAT and DOUBLE as text. The log and a snapshot both give a float: they print it here, both.

MySQL and MariaDB print a FLOAT with six digits, which is not the value that is kept: a snapshot asks
for it as DOUBLE (`f * 1e0`; `f + 0e0` would make 0 of -0), which every server prints so
that it reads back as the same number (manual, "String to number conversion": FLOAT, "Type Conversion").
"""

from __future__ import annotations

import struct
from typing import Final

_FLOAT: Final = struct.Struct("<f")
_pack, _unpack = _FLOAT.pack, _FLOAT.unpack


def float_text(value: float) -> bytes:
    """A FLOAT, widened to a Python float: the shortest decimal that reads back as the same
    float32, written as Python's `repr` writes it: `1.5`, `0.1`, `16777216.0`, `1e+20`.

    Six digits are enough for whatever was written with six, nine for every float32 (IEEE 754).
    0.9 µs where six are enough, else up to 3 µs. Never raises: what is no float32 prints as it is.
    """
    for form in ("%.6g", "%.7g", "%.8g"):
        short = float(form % value)
        try:
            if _unpack(_pack(short))[0] == value:
                return b"%a" % short
        except OverflowError:  # rounded up beyond the greatest float32
            continue
    return b"%a" % float("%.9g" % value)  # noqa: UP031 - one form, four lengths


def double_text(value: float) -> bytes:
    """A DOUBLE as Python's `repr` writes it: the shortest text that reads back as the same number."""
    return b"%a" % value
