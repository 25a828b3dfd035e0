"""From events to pieces: which rows belong to which transaction, and which of them were committed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from zlib import crc32

from appliers.delta import Commit
from appliers.errors import PermanentError
from cdc.sources.mysql import events
from cdc.sources.mysql.ddl import Ddl
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.events import Head
from cdc.sources.mysql.gathering import Gathering, RowChange
from cdc.sources.mysql.payload import payload_events
from cdc.sources.mysql.place import Place
from cdc.sources.mysql.position import BinlogPosition, Prepared
from cdc.sources.mysql.prepared import PreparedTransactions, Recall
from cdc.sources.mysql.shapes import Shapes, Target
from cdc.sources.mysql.statements import savepoint_name
from cdc.sources.mysql.tables import Tables
from cdc.sources.source import GapError

Handler = Callable[[bytes, Head], None]

_TYPE, _SERVER, _LENGTH, _END, _FLAGS = 1, 2, 3, 4, 5
_OWN_CHECKSUM: Final = frozenset({events.FORMAT_DESCRIPTION, events.ROTATE})
_COPY: Final = "`cdc snapshot` copies everything again"
_LOOK: Final = f"look into the source's error log; {_COPY}"


class Transactions:
    """Takes events, gives pieces. No connection, no clock: the same events give the same pieces.

    Invariants. Rows are given only once their transaction's commit was read, or as parts of one
    (`Piece.position` None) whose end will follow. What was prepared (XA PREPARE) is given with its
    XA COMMIT and dropped with its XA ROLLBACK. Positions lie only between two transactions, so a
    stream from one repeats nothing and misses nothing.
    """

    def __init__(
        self,
        tables: Tables,
        position: BinlogPosition,
        recall: Recall,
        *,
        mariadb: bool,
        recalling: bool = False,
        tells_replaced: bool = True,
    ) -> None:
        """`recalling`: one prepared transaction is read again, and is given as if it were committed.
        `tells_replaced`: whoever reads copies tables anew that are `replaced`."""
        self.rows = Gathering()
        self.checksums = False
        self.committed_at = 0
        """When the transaction that was read last was committed: microseconds; 0: none was read."""
        self.prepared_read = False
        """XA PREPARE was read: where a transaction that is recalled ends."""
        self.replaced: dict[str, str] = {}
        """Tables that have other rows now, which the log does not tell, and by what statement."""
        self.place = Place(position, mariadb=mariadb)
        self._recalling = recalling
        self._tells_replaced = tells_replaced
        self._shapes = Shapes(tables, mariadb=mariadb)
        self._ddl = Ddl(tables)
        self._prepared = PreparedTransactions(position.prepared, recall)
        self._events: Iterator[bytes] = iter(())
        self._inner: Iterator[bytes] | None = None
        self._recalled: Iterator[list[RowChange]] | None = None
        self._start = 0
        self._inside = self._begun = self._xa = self._lost = False
        self._savepoints: dict[str, int] = {}
        self._handlers = self._by_type()

    def load(self, found: Iterable[bytes]) -> None:
        """The next events; all that were loaded before have been stepped through."""
        self._events = iter(found)

    def step(self) -> bool:
        """Goes through events until there are none (False) or a piece is full (True), and gives what
        is whole by then, as one piece."""
        rows = self.rows
        more = self._go_on() or self._run(self._events)
        self.give_whole()
        if rows.full:
            if self._xa:
                # It may never be committed; if it is, it is read again.
                self._lost = True
                rows.drop()
            else:
                rows.give_part()
        return more

    def give_whole(self) -> None:
        self.rows.give_whole(self.position() if self.rows.has_whole else None)

    def position(self) -> BinlogPosition:
        """Behind the last transaction that was read to its end."""
        return self.place.position(self._prepared.places, tuple(sorted(self.replaced)))

    def _go_on(self) -> bool:
        """With what an event has begun: rows that are recalled, or a payload's events."""
        if self._recalled is not None and self._recall_some():
            return True
        if self._inner is not None and self._run(self._inner, outer=False):
            return True
        self._inner = None
        return False

    def _run(self, source: Iterator[bytes], *, outer: bool = True) -> bool:
        """Whether it stopped before the end."""
        handlers, read, place, rows = self._handlers, events.read_header, self.place, self.rows
        for data in source:
            head: Head = read(data)
            kind = head[_TYPE]
            if not outer:
                body = data[events.HEADER :]
            else:
                if not self.checksums or kind in _OWN_CHECKSUM:
                    body = events.unchecked(kind, data)
                elif crc32(data) == events.RESIDUE:
                    body = data[events.HEADER : -4]
                else:
                    raise self._damaged(head, "its checksum is wrong")
                if head[_END]:
                    place.at(head[_END])
            try:
                handlers.get(kind, self._unknown)(body, head)
            except (IndexError, ValueError, struct.error) as e:
                raise self._damaged(head, "it was cut short") from e
            rows.size += len(data)
            if rows.full or self._pauses(outer=outer):
                return True
        return False

    def _pauses(self, *, outer: bool) -> bool:
        return (
            self._recalled is not None
            or (outer and self._inner is not None)
            or (self._recalling and self.prepared_read)
            or bool(self.replaced)
        )

    # Rows

    def _table_map(self, body: bytes, _: Head) -> None:
        self._shapes.add(body)

    def _inserts(self, body: bytes, head: Head) -> None:
        if target := self._target(body, head):
            relation, reader = target
            found = reader.inserts(body, events.VERSIONS[head[_TYPE]], gaps=True)
            (self.rows.gapped_inserts if reader.gapped else self.rows.inserts)(relation, found)

    def _deletes(self, body: bytes, head: Head) -> None:
        if target := self._target(body, head):
            self.rows.deletes(target[0], target[1].deletes(body, events.VERSIONS[head[_TYPE]]))

    def _updates(self, body: bytes, head: Head) -> None:
        if target := self._target(body, head):
            self.rows.updates(target[0], target[1].updates(body, events.VERSIONS[head[_TYPE]]))

    def _partial_updates(self, body: bytes, head: Head) -> None:
        if target := self._target(body, head):
            self.rows.updates(target[0], target[1].partial_updates(body))

    def _compressed(self, body: bytes, head: Head) -> None:
        if self._target(body, head):
            kind = events.COMPRESSED[head[_TYPE]]
            plain = events.decompressed_rows(body, head[_TYPE])
            self._handlers[kind](plain, (head[0], kind, *head[2:]))

    def _target(self, body: bytes, head: Head) -> Target | None:
        """None: the rows are not synced, or not wanted now."""
        if not self._inside:
            raise self._damaged(head, "it is outside of a transaction")
        try:
            target = self._shapes.of_number[body[:6]]
        except KeyError:
            raise self._damaged(head, "its table was not announced") from None
        return None if self._lost else target

    # Where transactions begin

    def _mariadb_gtid(self, body: bytes, head: Head) -> None:
        number, domain, flags = events.read_mariadb_gtid(body)
        server = head[_SERVER]
        self._begin(head, Commit(f"{domain}-{server}-{number}", number, head[0] * 1_000_000))
        self.place.owns(domain, server, number)
        self._begun = not flags & events.STANDALONE
        self._xa = bool(flags & events.PREPARED_XA) and not self._recalling

    def _mysql_gtid(self, body: bytes, head: Head) -> None:
        tagged = head[_TYPE] == events.GTID_TAGGED
        source, number, at = (events.read_tagged_gtid if tagged else events.read_mysql_gtid)(body)
        at = at or head[0] * 1_000_000
        if head[_TYPE] == events.ANONYMOUS_GTID or not self.place.numbered:
            self._begin_unnamed(head, at)
        else:
            self._begin(head, Commit(f"{source}:{number}", number, at))
            self.place.owns(source, number)

    def _begin_unnamed(self, head: Head, committed_at: int) -> None:
        start = self.place.start(head[_END], head[_LENGTH])
        self._begin(head, Commit(f"{self.place.file}:{start}", start, committed_at))

    def _begin(self, head: Head, commit: Commit) -> None:
        if self._inside:
            raise self._damaged(head, "the transaction before it has no end")
        self._inside = True
        self._begun = self._xa = self._lost = False
        self._start = self.place.start(head[_END], head[_LENGTH])
        self.rows.begin(commit)
        self.committed_at = commit[2]
        if self._savepoints:
            self._savepoints = {}
        self._shapes.trim()

    # Where they end

    def _xid(self, _: bytes, head: Head) -> None:
        if not self._inside:
            raise self._damaged(head, "it ends a transaction that did not begin")
        self._end()

    def _end(self) -> None:
        """Committed: everything up to here is whole."""
        self._inside = False
        self.place.passed()
        self.rows.end(telling=bool(self.replaced))

    def _undone(self) -> None:
        """Not committed: its rows never were."""
        if self.rows.given:
            raise PermanentError(
                f"source: a large transaction that begins at {self.place.file}:{self._start} was"
                " rolled back in the log after parts of it were read",
                _COPY,
            )
        self._inside = False
        self.rows.drop()
        self.place.passed()
        self.rows.end()

    def _xa_prepare(self, body: bytes, head: Head) -> None:
        if not self._inside:
            raise self._damaged(head, "it ends a transaction that did not begin")
        one_phase, xid = events.read_xa_prepare(body)
        place = Prepared(xid, self.place.file, self._start)
        lost, self._xa, self._lost = self._lost, False, False
        self.prepared_read = True
        if one_phase and lost:
            self._recalled = self._prepared.again(place)
        elif one_phase or self._recalling:
            self._end()
        else:
            found, size = self.rows.take_open()
            self._prepared.prepare(place, None if lost else found, size)
            self._undone()

    def _recall_some(self) -> bool:
        rows = self.rows
        for found in self._recalled or ():
            rows.append(found)
            rows.size += sum(
                len(before or b"") + len(after or b"") for _, _, before, after in found
            )
            if rows.full:
                return True
        self._recalled = None
        self._end()
        return False

    # Statements

    def _query(self, body: bytes, head: Head) -> None:
        text = events.query_text(body)
        if not self._inside:
            self._begin_unnamed(head, head[0] * 1_000_000)
        if text == b"BEGIN":
            self._begun = True
        elif text == b"COMMIT":
            self._end()
        elif text == b"ROLLBACK":
            self._undone()
        elif text.startswith(b"XA "):
            self._xa_statement(text)
        elif text.startswith(b"SAVEPOINT "):
            self._savepoints[savepoint_name(text[10:])] = self.rows.ordinal
        elif text.startswith(b"ROLLBACK TO "):
            self._back_to(text[12:])
        else:
            self._statement(events.read_statement(body, head[_FLAGS]))

    def _xa_statement(self, text: bytes) -> None:
        if text.startswith(b"XA START "):
            self._begun, self._xa = True, not self._recalling
        elif text.startswith(b"XA COMMIT "):
            self._recalled = self._prepared.commit(events.read_xid(text))
            if self._recalled is None:
                self.replaced |= self._ddl.anywhere("XA COMMIT") if self._tells_replaced else {}
                self._end()
        elif text.startswith(b"XA ROLLBACK "):
            self._prepared.roll_back(events.read_xid(text))
            self._undone()
        elif not text.startswith(b"XA END "):
            raise ProtocolError(
                "expected XA START, END, COMMIT or ROLLBACK, got another XA statement"
            )

    def _back_to(self, name: bytes) -> None:
        """Rows that were rolled back are logged if a temporary table was made (MariaDB 10.11)."""
        if (kept := self._savepoints.get(savepoint_name(name))) is None:
            raise ProtocolError("expected a savepoint of this transaction, got another's name")
        if kept < self.rows.given:
            self._undone()
        self.rows.back_to(kept)

    def _statement(self, statement: events.Statement) -> None:
        place = self.place.file, self._start
        outcome = self._ddl.outcome(statement, place, begun=self._begun)
        if outcome.shapes:
            self._shapes.forget()
        if self._tells_replaced:
            self.replaced |= outcome.replaced
        self.rows.append(outcome.changes)
        if not self._begun:
            self._end()

    # The log itself

    def _format(self, body: bytes, head: Head) -> None:
        if body[:2] != b"\4\0" or body[56] != events.HEADER:
            raise self._damaged(head, f"expected a log of version 4, got {body[0]}")
        self._cut_off()
        self.checksums = body[-5] == events.CRC32
        self._between(body, head)

    def _rotate(self, body: bytes, _: Head) -> None:
        self._cut_off()
        self.place.passed()
        self.place.rotate(*events.read_rotate(body))

    def _cut_off(self) -> None:
        """A new file begins in a transaction: the server crashed while it wrote it."""
        if self._inside:
            self._undone()

    def _between(self, _: bytes, head: Head) -> None:
        """Says no more than that the log was read up to its end."""
        if not self._inside and head[_END]:
            self.place.passed()

    def _payload(self, body: bytes, _: Head) -> None:
        self._inner = payload_events(body)

    def _incident(self, _: bytes, head: Head) -> None:
        raise GapError(f"source: its log lacks changes {self._at(head)}: an incident event", _LOOK)

    def _unknown(self, body: bytes, head: Head) -> None:
        if not head[_FLAGS] & events.IGNORABLE:
            raise ProtocolError(
                f"expected an event that this program knows, got type {head[_TYPE]} {self._at(head)}",
                "report this with the server's version",
            )
        self._between(body, head)

    def _damaged(self, head: Head, why: str) -> ProtocolError:
        text = f"source: an event of type {head[_TYPE]} {self._at(head)} cannot be read: {why}"
        return ProtocolError(text, _LOOK)

    def _at(self, head: Head) -> str:
        return f"at {self.place.file}:{self.place.start(head[_END], head[_LENGTH])}"

    def _by_type(self) -> dict[int, Handler]:
        return {
            **dict.fromkeys(events.IGNORED, self._between),
            **dict.fromkeys(events.INSERTS, self._inserts),
            **dict.fromkeys(events.UPDATES, self._updates),
            **dict.fromkeys(events.DELETES, self._deletes),
            **dict.fromkeys(events.COMPRESSED, self._compressed),
            **dict.fromkeys(events.HEARTBEATS, self._between),
            **dict.fromkeys(events.MYSQL_GTIDS, self._mysql_gtid),
            events.PARTIAL_UPDATE: self._partial_updates,
            events.TABLE_MAP: self._table_map,
            events.QUERY: self._query,
            events.QUERY_COMPRESSED: lambda b, h: self._query(events.decompressed_query(b), h),
            events.EXECUTE_LOAD_QUERY: lambda b, h: self._statement(
                events.read_statement(b, h[_FLAGS], load=True)
            ),
            events.XID: self._xid,
            events.MARIADB_GTID: self._mariadb_gtid,
            events.XA_PREPARE: self._xa_prepare,
            events.TRANSACTION_PAYLOAD: self._payload,
            events.FORMAT_DESCRIPTION: self._format,
            events.ROTATE: self._rotate,
            events.INCIDENT: self._incident,
        }
