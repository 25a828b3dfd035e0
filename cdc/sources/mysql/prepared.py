"""XA transactions between XA PREPARE and their end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from cdc.sources.mysql.gathering import RowChange
from cdc.sources.mysql.position import Prepared, Xid

HELD_BYTES: Final = 4 << 20
"""What prepared transactions may keep in memory; the rows of others are read again when they commit."""

Recall = Callable[[Prepared], Iterator[list[RowChange]]]
"""Reads a prepared transaction's rows again, in parts that fit into a piece."""


@dataclass(slots=True)
class _Held:
    place: Prepared
    rows: list[RowChange] | None
    size: int


class PreparedTransactions:
    """Both servers log rows with XA PREPARE, and only the name with XA COMMIT or XA ROLLBACK, maybe
    days later and behind a restart.

    Invariant: `places` has every transaction that was prepared before the stream's position and is
    not over there; it is part of the position, so it moves with the checkpoint. The rows in memory
    are but a copy of what can be read at the place. So a death anywhere loses none: the next stream
    has the same places. That the server still has the file is checked when the rows are read; it
    keeps no file for a prepared transaction's sake.
    """

    def __init__(self, places: tuple[Prepared, ...], recall: Recall) -> None:
        self._held = {place.xid: _Held(place, None, 0) for place in places}
        self._recall = recall
        self._size = 0

    @property
    def places(self) -> tuple[Prepared, ...]:
        return tuple(held.place for held in self._held.values())

    def prepare(self, place: Prepared, rows: list[RowChange] | None, size: int) -> None:
        """`rows` None: they were too many."""
        if rows is None or self._size + size > HELD_BYTES:
            rows, size = None, 0
        self._held[place.xid] = _Held(place, rows, size)
        self._size += size

    def commit(self, xid: Xid) -> Iterator[list[RowChange]] | None:
        """The rows, in parts; None for a transaction that was prepared before the sync began."""
        held = self._forget(xid)
        if held is None:
            return None
        return self._recall(held.place) if held.rows is None else iter([held.rows])

    def roll_back(self, xid: Xid) -> None:
        self._forget(xid)

    def again(self, place: Prepared) -> Iterator[list[RowChange]]:
        """The rows of one that was committed in one phase and is too large to be kept."""
        return self._recall(place)

    def _forget(self, xid: Xid) -> _Held | None:
        held = self._held.pop(xid, None)
        if held is not None:
            self._size -= held.size
        return held
