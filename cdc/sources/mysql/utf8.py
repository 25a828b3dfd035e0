"""Text that is none: MariaDB keeps halves of surrogate pairs in UTF-8, UCS-2 and UTF-32, MySQL in UCS-2."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Final

from cdc.sources.mysql.errors import ProtocolError

CORRECT: Final = (
    "correct such rows on the source: no character is encoded so, as are halves of a surrogate pair; then"
    " `cdc snapshot` copies everything again"
)
TAB: Final = b"\t"
_PIECE: Final = 1 << 20


def whole_utf8(lines: Sequence[bytes], columns: Sequence[str]) -> bytes:
    """All lines in one; they must be UTF-8 (of ASCII, a search in C at memory's speed). Raises
    ProtocolError, which names the column."""
    block = lines[0] if len(lines) == 1 else b"".join(lines)
    if not block.isascii():
        check = getincrementaldecoder("utf-8")().decode
        try:
            # In pieces: as text it takes up to four times the memory.
            for start in range(0, len(block), _PIECE):
                check(block[start : start + _PIECE])
            check(b"", final=True)
        except UnicodeDecodeError:
            raise ProtocolError(
                f"{_column(lines, columns)}expected text in UTF-8, got bytes that are none", CORRECT
            ) from None
    return block


def _column(lines: Sequence[bytes], columns: Sequence[str]) -> str:
    for line in lines:
        try:
            line.decode()
        except UnicodeDecodeError as e:
            # Tabs in values are escaped later in the lines of the log.
            if line.count(TAB) == len(columns) - 1:
                return f"column {columns[line.count(TAB, 0, e.start)]}: "
            break
    return ""
