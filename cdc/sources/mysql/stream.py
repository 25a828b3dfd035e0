"""The log of a MySQL or MariaDB source, read as a replica reads it.

Measured from the socket to pieces, on two cores that were busy with more (MariaDB 10.11, 10 columns):
89,000 to 127,000 rows a second in transactions of 100 rows, where python-mysql-replication's
BinLogStreamReader made 13,000 to dicts of the same log; 32,000 to 43,000 transactions of one row, where
it made 2,900. A transaction of 1,000,000 rows takes the process to 50 MB; as one compressed event of
MySQL's to 72 MB. TLS costs nothing that can be measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import pymysql

from appliers.errors import SyncError, TransientError
from cdc.sources.mysql.connection import Connection
from cdc.sources.mysql.dump import open_dump, stream_error
from cdc.sources.mysql.gathering import RowChange
from cdc.sources.mysql.packets import lost
from cdc.sources.mysql.position import BinlogPosition, Prepared
from cdc.sources.mysql.tables import Tables
from cdc.sources.mysql.transactions import Transactions
from cdc.sources.source import GapError, Piece, Position, Progress

READ_BYTES: Final = 1 << 20
"""How much one `read` gives at most, about."""

BEHIND: Final = 500_000
"""Microseconds between a commit and its arrival that make a backlog."""

WHOLE_SECONDS: Final = 1_000_000
"""MariaDB's log has times in seconds: what was committed just now may look this much older."""

SILENCE: Final = 60.0
"""Seconds without a word (the server sends heartbeats) after which the connection counts as lost."""

Connect = Callable[[], Connection]


class ReplacedError(TransientError):
    """Tables have other rows now, and the log does not tell which. The position that was given last
    names them, so that it is in the checkpoint before this is known; a session that begins there
    copies them anew (`Source.resume`)."""


class MysqlStream:
    """A dump thread's stream. Keeps `Stream`'s contract (cdc/sources/source.py).

    Invariant: a `Progress` and a `Piece.position` are given only for positions before which every
    committed transaction has been given whole (prepared ones: see `PreparedTransactions`), so a
    checkpoint there misses nothing; and a dump from there sends everything behind it and nothing
    before: by GTID the server leaves out what the position holds, by file and offset it begins there.
    The server keeps no place for a reader, so `confirm` tells it nothing.
    """

    def __init__(
        self,
        connect: Connect,
        start: BinlogPosition,
        tables: Tables,
        *,
        reader: str = "cdc",
        by_gtid: bool | None = None,
        copies: bool = True,
    ) -> None:
        """`connect` gives a new connection with the right to REPLICATION SLAVE. `reader` names the sync
        to whoever lists the server's replicas. `by_gtid` None: if `start` has GTIDs. `copies`: when a
        table's rows are replaced in a way that the log does not tell, a position says which
        (`BinlogPosition.replaced`), and then the stream ends with ReplacedError; False: it goes on."""
        self.behind = False
        self._connect = connect
        self._tables = tables
        self._start = start
        self._reader = reader
        by_gtid = start.gtids is not None if by_gtid is None else by_gtid
        self._dump = open_dump(connect, start, reader, by_gtid=by_gtid)
        self._transactions = Transactions(
            tables, start, self._recall, mariadb=self._dump.mariadb, tells_replaced=copies
        )
        self._transactions.checksums = self._dump.checksums
        self._more = False
        self._failed: SyncError | None = None
        # That the tables are copied is known when a stream begins: its first word is a position without.
        self._said = ("", 0) if start.replaced else start.place()
        self._heard = self._read_at = time.monotonic()

    def read(self, timeout: float) -> list[Piece | Progress]:
        now = time.monotonic()
        until = now + timeout
        if now - self._read_at > 1:
            # Nobody read: that nothing was heard is no wonder.
            self._heard = now
        if self._failed is not None:
            raise self._failed
        try:
            self._fill(until)
        except SyncError as e:
            # What was whole before it can be applied: so a sync stops right at what stopped it.
            self._transactions.give_whole()
            if not self._transactions.rows.pieces:
                raise
            self._failed = e
        self._read_at = time.monotonic()
        return self._taken()

    def _fill(self, until: float) -> None:
        """Reads until there is something to give and nothing more has arrived, or it is enough."""
        packets, transactions = self._dump.packets, self._transactions
        rows = transactions.rows
        try:
            while rows.pieces_size < READ_BYTES:
                if self._more:
                    self._more = transactions.step()
                    if transactions.replaced:
                        raise _replaced(transactions.replaced)
                elif found := packets.take():
                    transactions.load(found)
                    self._more = True
                elif packets.fill():
                    self._heard = time.monotonic()
                elif rows.pieces or not packets.wait(until - time.monotonic()):
                    break
        except pymysql.Error as e:
            raise stream_error(e, self._start) from e
        if time.monotonic() - self._heard > SILENCE:
            raise lost(f"nothing was heard for {SILENCE:.0f} seconds")

    def keepalive(self) -> None:
        """Nothing to say: the server sends, and finds out by itself that nobody reads."""

    def confirm(self, position: Position) -> None:
        if not isinstance(position, BinlogPosition):
            raise TypeError(f"expected a BinlogPosition, got {type(position).__name__}")

    def close(self) -> None:
        self._dump.packets.close()

    def _taken(self) -> list[Piece | Progress]:
        """What has become whole, and how far the log was read behind it."""
        transactions, rows = self._transactions, self._transactions.rows
        found: list[Piece | Progress] = [*rows.pieces]
        rows.pieces, rows.pieces_size = [], 0
        if transactions.committed_at:
            granted = BEHIND + (WHOLE_SECONDS if self._dump.mariadb else 0)
            late = time.time() * 1e6 + self._dump.clock - transactions.committed_at
            self.behind = late > granted
            transactions.committed_at = 0
        if rows.in_pieces:
            # Whoever has those holds a transaction open until the rest comes.
            return found
        position = transactions.position() if self._said != transactions.place.mark() else None
        if position is not None:
            self._said = transactions.place.mark()
            if not found or position != found[-1].position:
                found.append(Progress(position))
        return found

    def _recall(self, prepared: Prepared) -> Iterator[list[RowChange]]:
        """Reads a prepared transaction's rows again, at their place in the log, over a connection of
        their own. Raises GapError if its file is gone."""
        start = BinlogPosition(prepared.file, prepared.offset)
        dump = open_dump(self._connect, start, self._reader, by_gtid=False, block=False)
        transactions = Transactions(
            self._tables, start, self._recall, mariadb=dump.mariadb, recalling=True
        )
        transactions.checksums = dump.checksums
        try:
            while not transactions.prepared_read:
                if found := dump.packets.take():
                    transactions.load(found)
                    while transactions.step() and not transactions.prepared_read:
                        yield from _rows(transactions)
                    yield from _rows(transactions)
                elif not dump.packets.fill():
                    dump.packets.wait(1.0)
        except pymysql.Error as e:
            error = stream_error(e, start)
            if isinstance(error, GapError):
                raise GapError(
                    "source: an XA transaction was committed whose rows are no longer in its log:"
                    f" they were prepared at {prepared.file}:{prepared.offset}",
                    error.hint,
                ) from e
            raise error from e
        finally:
            dump.packets.close()


def _replaced(tables: dict[str, str]) -> ReplacedError:
    named = ", ".join(f"{table} ({verb})" for table, verb in tables.items())
    return ReplacedError(f"source: other rows stand in {named}: they are copied anew")


def _rows(transactions: Transactions) -> Iterator[list[RowChange]]:
    for piece in transactions.rows.pieces:
        yield [change[:4] for change in piece.deltas]
    transactions.rows.pieces.clear()
