"""How images are laid out.

Sources: PostgreSQL manual, "Logical Replication Message Formats" (TupleData) and "COPY", sections
"Text Format" and "Binary Format".
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Format(Enum):
    """How an image is laid out.

    PGOUTPUT_*: a TupleData of pgoutput: int16 column count, then per column a kind byte (`n` NULL,
    `u` unchanged, `t` text, `b` binary) and, for `t` and `b`, an int32 length and the value.
    COPY_BINARY: int16 column count, then per column an int32 length (-1 for NULL) and the value.
    COPY_TEXT: one line with its newline; tabs between values, `\\N` for NULL, backslash escapes.
    LINE: the same, and `\\=` for an unchanged value: what sources other than PostgreSQL send, in the
    text form that the source's own server prints.
    """

    PGOUTPUT_TEXT = "pgoutput-text"
    PGOUTPUT_BINARY = "pgoutput-binary"
    COPY_TEXT = "copy-text"
    COPY_BINARY = "copy-binary"
    LINE = "line"

    @property
    def lines(self) -> bool:
        return self in (Format.COPY_TEXT, Format.LINE)

    @property
    def binary(self) -> bool:
        return self in (Format.PGOUTPUT_BINARY, Format.COPY_BINARY)

    @property
    def pgoutput(self) -> bool:
        return self in (Format.PGOUTPUT_TEXT, Format.PGOUTPUT_BINARY)


COPY_BINARY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_BINARY_TRAILER: Final = b"\xff\xff"
COPY_BINARY_NULL: Final = b"\xff\xff\xff\xff"

MOST_COLUMNS: Final = 1664
"""No row has more (MaxTupleAttributeNumber, src/include/access/htup_details.h)."""
