"""The position in a PostgreSQL log."""

from __future__ import annotations

from typing import Self

from appliers.errors import PermanentError


class Lsn(int):
    """A log sequence number: a byte's place in the write-ahead log. Prints as `0/1A2B3C8`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads back what `str` gave. Raises PermanentError."""
        high, _, low = text.partition("/")
        try:
            return cls((int(high, 16) << 32) | int(low, 16))
        except ValueError as e:
            raise PermanentError(
                f"expected a log position such as 0/1A2B3C8, got {text!r}",
                "the sync was started on another source: `cdc drop` it and start it anew",
            ) from e

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({self})"

    @property
    def whole(self) -> bool:
        return True

    def covers(self, other: object) -> bool:
        """PostgreSQL's log is one line: what lies before a position is covered by every later one."""
        if not isinstance(other, Lsn):
            raise TypeError(f"expected an Lsn, got {type(other).__name__}")
        return int(self) >= int(other)

    def since(self, other: object) -> int:
        """Bytes of log from `other` up to here."""
        if not isinstance(other, Lsn):
            raise TypeError(f"expected an Lsn, got {type(other).__name__}")
        return max(0, int(self) - int(other))
