"""Where in the log the reader is."""

from __future__ import annotations

from typing import Any

from cdc.sources.mysql.gtid import MariadbGtids
from cdc.sources.mysql.position import BinlogPosition, Prepared

_WRAP = 1 << 32


class Place:
    """Follows file, offset and GTIDs from event to event.

    An event's header has the low 32 bits of its end, and a file can be larger: it ends with the
    transaction in which it passes max_binlog_size. A dump by GTID begins at a file's head and leaves
    out what lies before the start; positions there are the start's.
    """

    def __init__(self, start: BinlogPosition, *, mariadb: bool) -> None:
        self._from = start
        self.file = start.file
        self._offset = start.offset
        self._high, self._low = start.offset & -_WRAP, start.offset % _WRAP
        self._gtids = None if start.gtids is None else start.gtids.copy()
        if mariadb and not self._gtids:
            self._gtids = MariadbGtids()
        self._own: tuple[Any, ...] | None = None

    @property
    def numbered(self) -> bool:
        """Whether transactions go by GTIDs."""
        return self._gtids is not None

    def at(self, end: int) -> None:
        """An event that ends there; 0 for one that stands in no file."""
        if end + _WRAP // 2 < self._low:
            self._high += _WRAP
        self._low = end

    def start(self, end: int, length: int) -> int:
        """Where an event begins."""
        return self._high + end - length if end else self._offset

    def rotate(self, file: str, offset: int) -> None:
        # At the begin of a dump by GTID the file is told from its head on.
        begins = file == self._from.file and self._offset == self._from.offset
        self._high = max(offset, self._from.offset if begins else 0) & -_WRAP
        self._low = offset % _WRAP
        self.file = file
        self._offset = self._high + self._low

    def owns(self, *gtid: int | str) -> None:
        """The GTID of the transaction that begins: domain, server, number, or MySQL's source, number.
        Raises ValueError for the number 0, which no transaction has."""
        if not gtid[-1]:
            raise ValueError(gtid)
        self._own = gtid

    def passed(self) -> None:
        """What was read last ends a transaction, or stands between two."""
        self._offset = self._high + self._low
        if self._own is not None:
            if self._gtids is not None:
                self._gtids.add(*self._own)
            self._own = None

    def position(self, prepared: tuple[Prepared, ...], replaced: tuple[str, ...]) -> BinlogPosition:
        gtids = self._gtids and self._gtids.copy()
        here = BinlogPosition(self.file, self._offset, gtids, prepared, replaced)
        start = self._from
        if here.covers(start) or not start.same_log(here):
            return here
        return BinlogPosition(start.file, start.offset, gtids, prepared, replaced)

    def mark(self) -> tuple[str, int]:
        """Cheap to compare: changes whenever the position does."""
        return self.file, self._offset
