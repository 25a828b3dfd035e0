"""What the code that reads rows is put together from: a piece for each column.

A piece works on an event's body `m` at position `p`; `{0}`, `{1}`… are the numbers that struct read
for it, `{v}` is a variable of its own, other names in braces stand for the objects in `names`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

FULL_METADATA: Final = (
    "SET GLOBAL binlog_row_metadata = 'FULL'; then `cdc snapshot` copies everything again"
)


class Native(NamedTuple):
    """How `_rows.c` reads the value."""

    kind: str
    size: int
    """Its bytes; for `text`, `hex` and `call` the bytes of the length that stands before it."""
    more: int = 0
    """integer: 1 if it is signed; decimal: digits behind the point; times: digits of a fraction."""
    digits: int = 0
    """decimal: digits before the point; timestamp: 1 if it is little-endian."""
    object: Any = None
    """call: the function from the bytes to the text; labels: the texts by number."""


@dataclass(frozen=True, slots=True)
class Code:
    """How one column's value becomes its field of the line."""

    values: tuple[str, ...]
    """Expressions for the placeholders of `form`."""
    form: bytes = b"%b"
    slots: str = ""
    """struct's letters for a value of fixed size; empty for others."""
    order: str = ""
    """struct's byte order; empty where either does."""
    read: tuple[str, ...] = ()
    """Statements before the values: those of a value that has no fixed size move `p` behind it."""
    skip: tuple[str, ...] = ()
    """Statements that move `p` behind a value that has no fixed size."""
    names: dict[str, Any] = field(default_factory=dict)
    text: bool = False
    """Whether the (only) value can hold what a line has to escape."""
    native: Native | None = None
    """None: the rows of a table that has the column are read in Python."""
