"""Rows on their way from events to pieces."""

from __future__ import annotations

from typing import Any, Final

from appliers.delta import UNCHANGED, Commit, Delta, Op, Run, new
from appliers.relation import Relation
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.rows import ALL_COLUMNS, NOT_ALL
from cdc.sources.source import Piece

PIECE_BYTES: Final = 4 << 20
"""A transaction larger than this comes in pieces: bounds memory together with the mailbox."""

PIECE_ROWS: Final = 20_000

RowChange = tuple[Op, Relation, bytes | None, bytes | None] | tuple[Op, Relation, None, list[bytes]]
"""A change, or a run of inserts, without its transaction and its number."""


class Gathering:
    """Changes of whole transactions, and behind them those of one that is not over.

    Whole transactions are given together: a piece for each transaction of one row took twice the time
    of what is done now. Those of an open one are given only when they are too many to be kept, and
    can be dropped until then.
    """

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.pieces_size = 0
        self.in_pieces = False
        """A part of a transaction was given whose end was not."""
        self.size = 0
        """Bytes of the log that are gathered; whoever reads events adds to it."""
        self.commit = Commit("", 0, 0)
        self.ordinal = 0
        """Of the open transaction's last change."""
        self.given = 0
        """How many of the open transaction's changes were given."""
        self._deltas: list[Delta | Run] = []
        self._rows = 0
        self._whole = self._whole_rows = self._whole_size = 0
        self._ended: Commit | None = None

    @property
    def full(self) -> bool:
        return self.size >= PIECE_BYTES or self._rows >= PIECE_ROWS

    def begin(self, commit: Commit) -> None:
        self.commit = commit
        self.ordinal = self.given = 0

    def inserts(self, relation: Relation, rows: list[bytes]) -> None:
        self._deltas.append(Run(Op.INSERTS, relation, None, rows, self.commit, self.ordinal + 1))
        self._count(len(rows))

    def gapped_inserts(self, relation: Relation, rows: list[bytes]) -> None:
        """New rows of which the log lacks values: no row is there, then one comes that only the source
        has whole. Raises ProtocolError for those whose key is lacking too."""
        for row in rows:
            values = relation.values(row)
            if any(values[i] is UNCHANGED for i in relation.key_columns):
                raise ProtocolError(f"table {relation.table}: {NOT_ALL}", ALL_COLUMNS)
            self.append([(Op.DELETE, relation, row, None), (Op.UPDATE, relation, None, row)])

    def deletes(self, relation: Relation, rows: list[bytes]) -> None:
        op, commit = Op.DELETE, self.commit
        numbers = range(self.ordinal + 1, self.ordinal + len(rows) + 1)
        self._deltas += [
            new(Delta, (op, relation, row, None, commit, n))
            for row, n in zip(rows, numbers, strict=True)
        ]
        self._count(len(rows))

    def updates(self, relation: Relation, rows: list[tuple[bytes | None, bytes]]) -> None:
        op, commit = Op.UPDATE, self.commit
        numbers = range(self.ordinal + 1, self.ordinal + len(rows) + 1)
        self._deltas += [
            new(Delta, (op, relation, before, after, commit, n))
            for (before, after), n in zip(rows, numbers, strict=True)
        ]
        self._count(len(rows))

    def append(self, rows: list[RowChange]) -> None:
        for op, relation, before, after in rows:
            fields: Any = (op, relation, before, after, self.commit, self.ordinal + 1)
            self._deltas.append(Run(*fields) if op is Op.INSERTS else Delta(*fields))
            self._count(len(after) if op is Op.INSERTS and after else 1)

    def end(self, *, telling: bool = False) -> None:
        """The open transaction is whole. `telling`: its position matters, be there changes or not."""
        if len(self._deltas) > self._whole or self.given or telling:
            self._whole, self._ended = len(self._deltas), self.commit
        self._whole_rows, self._whole_size = self._rows, self.size

    def drop(self) -> None:
        """What of the open transaction was not given."""
        del self._deltas[self._whole :]
        self._rows, self.size = self._whole_rows, self._whole_size

    def back_to(self, ordinal: int) -> None:
        """Drops the open transaction's changes behind this one, which was not given. They began with
        a statement, and so no run of inserts reaches over it."""
        while len(self._deltas) > self._whole and self._deltas[-1][5] > ordinal:
            self._deltas.pop()
        self._rows -= self.ordinal - ordinal
        self.ordinal = ordinal

    def take_open(self) -> tuple[list[RowChange], int]:
        """The open transaction's changes and their bytes, which are dropped here."""
        rows = [delta[:4] for delta in self._deltas[self._whole :]]
        size = self.size - self._whole_size
        self.drop()
        return rows, size

    def give_whole(self, position: BinlogPosition | None) -> None:
        """Whole transactions, if there are any, as one piece; `position` is behind the last."""
        if self._ended is not None:
            self._give(position, self._whole, self._whole_size, self._ended)
            self._ended = None
        if not self._deltas:
            self.size = self._whole_size = 0

    def give_part(self) -> None:
        """What there is of the open transaction, which is all that there is."""
        self.given += self._rows
        self._give(None, len(self._deltas), self.size, self.commit)

    @property
    def has_whole(self) -> bool:
        return self._ended is not None

    def _give(self, position: BinlogPosition | None, count: int, size: int, commit: Commit) -> None:
        deltas, self._deltas = self._deltas[:count], self._deltas[count:]
        oldest = (deltas[0][4] if deltas else commit).committed_at
        self.pieces.append(Piece(deltas, commit, oldest, position, size))
        self.pieces_size += size
        self.size -= size
        self._rows -= self.pieces[-1].rows
        self._whole = self._whole_rows = self._whole_size = 0
        self.in_pieces = position is None

    def _count(self, rows: int) -> None:
        self.ordinal += rows
        self._rows += rows
