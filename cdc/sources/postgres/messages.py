"""A walsender's messages become deltas here. `_messages.c` does the same in C, where it was built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from appliers.delta import Commit, Delta, Op, Run, new
from appliers.relation import Relation
from cdc.sources.postgres import pgoutput
from cdc.sources.postgres.lsn import Lsn

HEADER: Final = 25
"""Bytes of an XLogData message before pgoutput's own: kind, start, end, send time: 1 + 3 * 8."""

_XLOGDATA = ord("w")
_BEGIN, _COMMIT, _NEW_TUPLE = pgoutput.BEGIN, pgoutput.COMMIT, pgoutput.NEW_TUPLE
_INSERT, _UPDATE = pgoutput.INSERT, pgoutput.UPDATE

_COMMIT_SIZE = HEADER + 26

RowChange = tuple[Op, Relation, bytes | None, bytes | None]
Get = Callable[[int], tuple[int, Any]]
"""psycopg's `get_copy_data`: how long the next message is, and its bytes."""
Addresses = tuple[int, int, int]
"""Of PQgetCopyData, of PQfreemem and of a PGconn, for C alone."""


class Taken(NamedTuple):
    """What one `take` has come upon."""

    length: int
    """What libpq has said instead of giving one more message: 0 that there is none, -1 that the server has
    left copy mode, -2 (never with psycopg in between, which raises it) an error."""
    ended: bytes | None
    """The last message that ended a transaction."""
    last: Commit
    """The transaction that it ended."""
    whole: int
    """How many of the deltas had come by then, and with them whole transactions."""
    whole_size: int
    """How many bytes they came in."""
    idle: Lsn | None
    """Up to where the server says that nothing is left to send."""


class Messages:
    """Deltas that have come and are not given on yet, and where in a transaction they end."""

    inserts, update = Op.INSERTS, Op.UPDATE
    run_type, delta_type, commit_type = Run, Delta, pgoutput.LogCommit
    """What `_messages.c` makes deltas with."""

    def __init__(
        self,
        relations: dict[bytes, Relation],
        other: Callable[[int, bytes], Sequence[RowChange]],
        keepalive: Callable[[bytes, bool], Lsn | None],
    ) -> None:
        """`relations` by the four bytes of their oids. `other` gives what the rarer messages change,
        and refuses those that are damaged; `keepalive` takes what is not of the log, and whether a
        transaction is open."""
        self.relations = relations
        self.other = other
        self.keepalive = keepalive
        self.deltas: list[Delta | Run] = []
        self.commit: Commit = Commit("", 0, 0)
        self.ordinal = 0
        self.size = 0
        self.in_runs = 0
        """How many rows are in runs: more than there are runs."""
        self.inside = False

    def take(self, get: Get) -> Taken:
        """Takes every message that libpq has buffered: tens of kilobytes, or one larger message.

        Numbers are kept in local names, and only the last commit is looked into: half the time for a
        transaction of one row of what looking into each took.
        """
        relations, deltas = self.relations, self.deltas
        commit, ordinal, size, in_runs = self.commit, self.ordinal, self.size, self.in_runs
        inside, table, rows = self.inside, b"", list[bytes]()
        inserts, update, append = self.inserts, self.update, deltas.append
        ended, last, whole, whole_size = None, commit, 0, 0
        idle: Lsn | None = None
        while True:
            length, view = get(1)
            if length <= 0:
                break
            size += length
            data = bytes(view)
            if data[0] != _XLOGDATA:
                idle = self.keepalive(data, inside) or idle
                continue
            kind = data[HEADER]
            if kind == _INSERT and data[30] == _NEW_TUPLE:
                ordinal += 1
                if data[26:30] == table:
                    rows.append(data[31:])
                    in_runs += 1
                else:
                    table, rows = data[26:30], [data[31:]]
                    append(Run(inserts, relations[table], None, rows, commit, ordinal))
            elif kind == _UPDATE and data[30] == _NEW_TUPLE:
                ordinal += 1
                table = b""
                fields = (update, relations[data[26:30]], None, data[31:], commit, ordinal)
                append(new(Delta, fields))
            elif kind == _BEGIN:
                commit = pgoutput.read_begin(data, 26)
                ordinal, inside, table = 0, True, b""
            elif kind == _COMMIT and inside and length == _COMMIT_SIZE:
                inside, ended, last, table = False, data, commit, b""
                whole, whole_size = len(deltas), size
            else:
                table = b""
                for change in self.other(kind, data):
                    ordinal += 1
                    append(Delta(*change, commit, ordinal))
        self.commit, self.ordinal, self.size, self.in_runs = commit, ordinal, size, in_runs
        self.inside = inside
        return Taken(length, ended, last, whole, whole_size, idle)
