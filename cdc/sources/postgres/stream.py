"""The log of a PostgreSQL source, read from a replication slot."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg
from psycopg import pq

from appliers.delta import Content, Op
from appliers.errors import PermanentError, SyncError, TransientError
from appliers.extension import extension
from appliers.images import ImageError, pgoutput_end
from appliers.relation import Relation
from cdc.sources.postgres import pgoutput
from cdc.sources.postgres.connection import WAL_SENDER_TIMEOUT
from cdc.sources.postgres.errors import translated
from cdc.sources.postgres.intake import Intake
from cdc.sources.postgres.libpq import messages_of
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.postgres.messages import HEADER, Messages, RowChange, Taken
from cdc.sources.source import GapError, Piece, Position, Progress

PIECE_BYTES: Final = 4 << 20
"""A transaction larger than this comes in pieces: bounds memory together with the mailbox."""

PIECE_ROWS: Final = 20_000
READ_BYTES: Final = 1 << 19
FIRST_BYTES: Final = 1 << 17
"""How much one `read` gives at most, about: at first, and then twice as much each time. Whoever waits for
the beginning of a backlog has nothing to do, and half as much, with half as many rows that make a batch
(WORTH_ROWS), takes 3 % off the time of 100,000 one-row transactions (medians of 9, in turns)."""

STATUS_EVERY: Final = WAL_SENDER_TIMEOUT / 6
"""Seconds between status messages when nothing else makes us speak."""

BEHIND: Final = 500_000
"""Microseconds between a commit and its arrival that make a backlog."""

_KEEPALIVE = ord("k")
_keepalive = struct.Struct(">QqB").unpack_from
_send_time = struct.Struct(">q").unpack_from
_status = struct.Struct(">cQQQqB").pack

take: Callable[[Messages, Any], Taken] = (
    extension("cdc.sources.postgres._messages", "take") or Messages.take
)

MakeRelation = Callable[[pgoutput.Shape], Relation]


class PostgresStream:
    """A walsender's stream. Keeps `Stream`'s contract (cdc/sources/source.py).

    Invariant: a `Progress` and a `Piece.position` are given only for positions before which every
    committed transaction has been given whole; so a checkpoint there misses nothing, and
    START_REPLICATION from there sends everything behind it and nothing before (the server skips
    transactions that were committed before the start position: SnapBuildXactNeedsSkip).
    """

    def __init__(self, conn: pq.abc.PGconn, start: Lsn, make_relation: MakeRelation) -> None:
        self.behind = False
        self._conn = conn
        self._make = make_relation
        self._relations: dict[bytes, Relation] = {}
        self._announced: dict[bytes, bytes] = {}
        self._keyless: set[Relation] = set()
        """Tables that are gone: of what the log still has of them nothing is given."""
        self._received = start
        # Not `start`: that the target holds it does not mean that it would after a crash. Zero says
        # nothing to the server (walsender.c, ProcessStandbyReplyMessage).
        self._confirmed = Lsn(0)
        self._spoke = 0.0
        self._owed = self._asked = False
        self._intake = Intake(conn)
        conn.notice_handler = self._on_notice
        self._notice: SyncError | None = None
        self._messages = Messages(self._relations, self._other, self._on_keepalive)
        self._in_pieces = False
        self._out: list[Piece | Progress] = []
        self._out_size = 0
        self._most = FIRST_BYTES
        self._said = start
        self._lulls = 0

    def read(self, timeout: float) -> list[Piece | Progress]:
        until = time.monotonic() + timeout
        self._lulls = 0
        while True:
            try:
                took = self._drain()
                self.keepalive()
                if self._reads_on(took, until):
                    self._intake.read(backlog=self.behind)
                elif self._out or time.monotonic() >= until:
                    out, self._out, self._out_size = self._out, [], 0
                    self._most = min(2 * self._most, READ_BYTES)
                    return out
            except psycopg.Error as e:
                raise translated(e) from e
            except (KeyError, IndexError, struct.error, pgoutput.ProtocolError, ImageError) as e:
                what = str(e) if isinstance(e, pgoutput.ProtocolError | ImageError) else repr(e)
                raise PermanentError(
                    f"source: damaged message from pgoutput: {what}", "report this as a bug"
                ) from e

    def _reads_on(self, took: int, until: float) -> bool:
        """Whether to read once more, after having waited for what there is to read.

        Whoever takes the pieces is woken once for many: so a read goes on while more is there. In a
        backlog it is worth waiting for: it takes three lulls, the last of them a rest that has brought
        next to nothing, to say that it is over.
        """
        if self._out_size >= self._most:
            return False
        if self.behind and (self._out or self._messages.deltas):
            self._lulls = 0 if self._intake.had_more(took) else self._lulls + 1
            if self._lulls == 1:
                # What is on its way, in the kernel's hands, is there in no time.
                self._intake.wait(0.001)
            elif self._lulls == 2:
                # A long one once a read may take what gathers meanwhile.
                self._intake.rest(long=self._most == READ_BYTES)
            if self._lulls < 3:
                return True
            self.behind = False
            if self._out:
                return False
        # After some messages more are likely: to ask the socket first would let go of the
        # interpreter, which the other thread gives back only after its switch interval.
        return took > 0 or self._wait(0.0 if self._out else until - time.monotonic())

    def keepalive(self) -> None:
        now = time.monotonic()
        if not self._owed and now - self._spoke < STATUS_EVERY:
            return
        if self._closed():
            raise TransientError("source: the stream was closed")
        clock = time.time_ns() // 1000 - pgoutput.EPOCH
        message = _status(b"r", self._received, self._confirmed, self._confirmed, clock, 0)
        try:
            self._conn.put_copy_data(message)
            self._conn.flush()
        except psycopg.Error as e:
            raise translated(e) from e
        self._owed = False
        self._spoke = now

    def confirm(self, position: Position) -> None:
        if not isinstance(position, Lsn):
            raise TypeError(f"expected an Lsn, got {type(position).__name__}")
        if position > self._confirmed:
            self._confirmed = position
            self._owed = True

    def close(self) -> None:
        self._conn.finish()

    def _closed(self) -> bool:
        return self._conn.status != pq.ConnStatus.OK

    def _wait(self, seconds: float) -> bool:
        """Whether there is something to read, after at most so many seconds."""
        if self._intake.wait(0.0):
            return True
        if self._conn.ssl_in_use:
            # OpenSSL may hold the rest of a record (16 kB) that did not fit into libpq's buffer
            # (8 kB free), and the socket does not tell.
            for _ in range(3):
                self._conn.consume_input()
            if self._drain():
                return True
        return seconds > 0 and self._intake.wait(seconds)

    def _drain(self) -> int:
        """Takes what libpq has buffered, and gives what has become whole transactions by then as one
        piece. How many bytes there were."""
        messages = self._messages
        before = messages.size
        length, ended, last, whole, whole_size, idle = take(messages, messages_of(self._conn))
        took = messages.size - before
        if ended is not None:
            self.behind = _sent_at(ended) - last.committed_at > BEHIND
            self._give_whole(pgoutput.read_commit(ended, HEADER + 1), whole, whole_size)
        self._give_rest(idle)
        if length < 0 or self._notice is not None:
            self._ended(length)
        return took

    def _other(self, kind: int, data: bytes) -> Sequence[RowChange]:
        """What the rarer messages change. The frequent ones come here if they are not as they must be."""
        if kind == pgoutput.UPDATE:
            return [self._update(data)]
        if kind == pgoutput.DELETE and data[30] in (pgoutput.OLD_ROW, pgoutput.OLD_KEY):
            return [(Op.DELETE, self._relations[data[26:30]], data[31:], None)]
        body = data[HEADER + 1 :]
        if kind == pgoutput.TRUNCATE:
            oids = pgoutput.read_truncate(body)
            return [(Op.TRUNCATE, self._relations[oid], None, None) for oid in oids]
        if kind == pgoutput.RELATION:
            self._announce(body)
        elif kind not in (pgoutput.TYPE, pgoutput.ORIGIN, pgoutput.MESSAGE):
            raise pgoutput.ProtocolError(
                f"a message of kind {chr(kind)!r} that is unknown or misplaced"
            )
        return ()

    def _announce(self, body: bytes) -> None:
        """A Relation message. The server sends one again after every TRUNCATE and whatever else makes it
        look at a table anew: the same words are the same shape, which everybody has prepared for. But with
        replica identity FULL they do not say what the key is."""
        oid = body[:4]
        again = self._announced.get(oid) == body
        known = self._relations.get(oid)
        if again and known is not None and not known.whole_before:
            return
        made = self._make(pgoutput.read_relation(body))
        if not again or known is None or made.key_columns != known.key_columns:
            self._relations[oid] = made
            self._announced[oid] = body
            if not made.key_columns:
                self._keyless.add(made)

    def _update(self, data: bytes) -> RowChange:
        relation = self._relations[data[26:30]]
        end = pgoutput_end(data, 31)
        if data[30] not in (pgoutput.OLD_ROW, pgoutput.OLD_KEY) or data[end] != pgoutput.NEW_TUPLE:
            raise pgoutput.ProtocolError(f"an update of {relation.table} without its new row")
        before, after = data[31:end], data[end + 1 :]
        if relation.has_unchanged(after):
            after = _filled(before, after)
        return Op.UPDATE, relation, before, after

    def _give_whole(self, end: Lsn, count: int, size: int) -> None:
        """Gives the first `count` changes, with which the transactions up to `end` are whole."""
        self._received = max(self._received, end)
        if count or self._in_pieces:
            self._give(end, count, size)
            self._said = end
        else:
            self._progress(end)

    def _give_rest(self, idle: Lsn | None) -> None:
        """What the server has said without sending anything, and what there is of a transaction that
        is too large to be kept."""
        if idle is not None:
            self._progress(idle)
        messages = self._messages
        if not messages.deltas:
            # What was said meanwhile, keepalives and empty transactions, is of none that follows.
            messages.size = 0
        elif messages.size >= PIECE_BYTES or len(messages.deltas) + messages.in_runs >= PIECE_ROWS:
            self._give(None, len(messages.deltas), messages.size)

    def _give(self, position: Lsn | None, count: int, size: int) -> None:
        messages = self._messages
        deltas, rest = messages.deltas[:count], messages.deltas[count:]
        if self._keyless:
            deltas = [d for d in deltas if d.relation not in self._keyless]
        commit = deltas[-1][4] if deltas else messages.commit
        oldest = (deltas[0][4] if deltas else commit).committed_at
        messages.deltas = rest
        messages.in_runs = Content.of(rest).rows - len(rest)
        piece = Piece(deltas, commit, oldest, position, size)
        last = self._out[-1] if self._out else None
        if position is not None and isinstance(last, Piece) and last.position is not None:
            # libpq's buffer ends a piece every 16 kB, and each is gone through on its own further on.
            last.extend(piece)
        else:
            self._out.append(piece)
        self._out_size += size
        messages.size -= size
        self._in_pieces = position is None

    def _on_keepalive(self, data: bytes, inside: bool) -> Lsn | None:
        """Up to where the log has been sent, if no transaction is open."""
        if data[0] != _KEEPALIVE:
            raise pgoutput.ProtocolError(f"unknown message {data[:1]!r} from the walsender")
        position, _, asked = _keepalive(data, 1)
        if asked:
            # A server that is being stopped fast ends its walsenders when they are confirmed up to the
            # end of the log (walsender.c, WalSndDone); it asks once.
            self._owed = self._asked = True
        if inside:
            return None
        self._received = max(self._received, Lsn(position))
        return Lsn(position)

    def _progress(self, position: Lsn) -> None:
        if position > self._said or self._asked:
            self._said = max(position, self._said)
            if self._out and isinstance(self._out[-1], Progress):
                self._out.pop()
            self._out.append(Progress(self._said, self._asked))
            self._asked = False

    def _on_notice(self, notice: pq.abc.PGresult) -> None:
        """PostgreSQL 18 leaves out the changes of a publication that is not there, with a warning;
        older ones raise an error (pgoutput.c, LoadPublications)."""
        error = psycopg.errors.error_from_result(notice)
        if "skipped loading publication" in str(error):
            self._notice = GapError(
                f"source: {error.diag.message_primary}: changes are missing from the log",
                "`cdc snapshot` copies everything again",
            )

    def _ended(self, length: int) -> None:
        """The server has left copy mode (its error, or a shutdown that waited for us), or has warned."""
        if self._notice is not None:
            raise self._notice
        if length == -2:
            raise psycopg.OperationalError(self._conn.get_error_message())
        result = self._conn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise translated(psycopg.errors.error_from_result(result))
        raise TransientError("source: the server ended the stream", "check that the source is up")


def _sent_at(message: bytes) -> int:
    """When the server has sent an XLogData message: microseconds since 1970."""
    sent: int = _send_time(message, 17)[0]
    return sent + pgoutput.EPOCH


def _filled(before: bytes, after: bytes) -> bytes:
    """The new image with those UNCHANGED values that the old row or key has: all of a whole row; of
    a key those of its columns (one stored out of line is logged with the key although it is the same:
    ExtractReplicaIdentity). NULL is what a key says of other columns; no unchanged value is NULL."""
    old, new = _fields(before), _fields(after)
    return after[:2] + b"".join(
        o if n == b"u" and o != b"n" else n for o, n in zip(old, new, strict=True)
    )


def _fields(image: bytes) -> list[bytes]:
    """The columns of a TupleData that `pgoutput_end` has been through, each with its kind."""
    fields, at = [], 2
    while at < len(image):
        end = at + 1
        if image[at] in b"tb":
            end += 4 + int.from_bytes(image[end : end + 4], "big")
        fields.append(image[at:end])
        at = end
    return fields
