"""What stands around the synced tables: views, and tables with triggers, through which statements write.

It is looked up when a statement that was logged in place of its rows asks for it, and what is there now
is not what was there then. So the log is read ahead to its end: what was dropped or renamed on the way
proves nothing. What comes into being on the way is taken as if it had been there. Once read so far, the
stream itself sees what changes, and forgets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Final
from zlib import crc32

from cdc.sources.mysql import events
from cdc.sources.mysql.connection import Connection, one, quoted, rows, server_of
from cdc.sources.mysql.dump import whole_log
from cdc.sources.mysql.grants import Grants, account
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.reach import Reach, Table
from cdc.sources.mysql.statements import opened
from cdc.sources.mysql.tables import Doubt

_TYPES = """
    SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES
    WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"""
_TRIGGERS = """
    SELECT EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS
    WHERE EVENT_OBJECT_SCHEMA = %s AND EVENT_OBJECT_TABLE = %s"""

_MOVES = re.compile(r"\s*(?:CREATE|ALTER|DROP|RENAME)\b(?!\s+TEMPORARY\b)", re.IGNORECASE)
_HIDES = re.compile(
    r"\b(?:DROP|REPLACE)\b.*?\b(?:TRIGGER|DATABASE|SCHEMA)\b", re.IGNORECASE | re.DOTALL
)
_TAKES = re.compile(
    r"\s*(?:DROP\s+(?:TABLES?|VIEW)|RENAME\s+TABLES?|CREATE\s+OR\s+REPLACE\s+TABLE"
    r"|ALTER\b.*\b(?:RENAME(?!\s+(?:COLUMN|INDEX|KEY)\b)|CONVERT\s+TABLE))\b",
    re.IGNORECASE | re.DOTALL,
)
"""Behind it, a name may be that of a table without triggers which was a view's, or a table's with some.
One of a view that is replaced is still a view's."""
_WORD = re.compile(r"`((?:[^`]|``)*)`|([\w$\u0080-\U0010ffff]+)")

_SEEN: Final = {"SELECT", "TRIGGER"}
"""Privileges, each of which shows every table and view of its database."""
_EVERYTHING: Final = "*"


def moves(text: str, mode: int = 0) -> frozenset[str] | None:
    """The names that a statement may take from what has them, in lower case; `*` stands for triggers of
    any table. None: it makes, alters and drops nothing."""
    text, _ = opened(text, mode)
    if not _MOVES.match(text):
        return None
    if _HIDES.search(text):
        return frozenset([_EVERYTHING])
    if not _TAKES.search(text):
        return frozenset()
    return frozenset(
        (quoted_name.replace("``", "`") or word).lower()
        for quoted_name, word in _WORD.findall(text)
    )


class Surroundings:
    """Used by the stream's thread alone."""

    def __init__(self, connect: Callable[[], Connection], *, folds_names: bool) -> None:
        self._connect = connect
        self._fold = str.lower if folds_names else str
        self._known: dict[Table, tuple[str, Doubt | None]] = {}
        """What each table is, and why it is not known whether it has triggers, or that it has."""
        self._taken: set[str] = set()
        """Names that were something else, somewhere from here up to where what is known is of."""

    def forget(self) -> None:
        self._known = {}
        self._taken = set()

    def doubt(self, reach: Reach, place: tuple[str, int], *, passing: bool) -> Doubt | None:
        """See `Tables.doubt`."""
        if reach.called:
            return Doubt(f"it calls function {reach.called}, which may write", "")
        self._look({*reach.written, *reach.read}, place)
        for table in (*reach.written, *reach.read):
            kind, triggers = self._known[table]
            name = ".".join(table)
            if kind == "VIEW":
                return Doubt(f"{name} is a view", "")
            if self._taken & {_EVERYTHING, table[1].lower()}:
                return Doubt(
                    f"tables, views or triggers were dropped or renamed since, and {name} may have been"
                    " a view, or have had triggers",
                    "",
                )
            if kind == "HIDDEN":
                return Doubt(f"{name} cannot be seen, and may be a view", self._grant(table))
            if kind == "ABSENT":
                # What is in no catalog, and was not dropped, is temporary, or WITH has named it.
                if passing or (table not in reach.inserted and table[1].lower() in reach.common):
                    continue
                return Doubt(f"{name} is not there, and may have been a view", "")
            if table in reach.written and triggers is not None:
                return triggers
        return None

    def _look(self, tables: set[Table], place: tuple[str, int]) -> None:
        unknown = [t for t in tables if t not in self._known]
        if not unknown:
            return
        with closing(self._connect()) as db:
            grants = Grants(db, server_of(db))
            for table in unknown:
                self._known[table] = self._found(db, grants, table)
        for statement in _statements(self._connect, BinlogPosition(*place)):
            self._taken.update(moves(statement.text, statement.mode) or ())

    def _found(self, db: Connection, grants: Grants, table: Table) -> tuple[str, Doubt | None]:
        types = [r[2] for r in rows(db, _TYPES, table) if self._same(r[:2], table)]
        if not types:
            return ("ABSENT" if grants.may(_SEEN, table[0], "*") else "HIDDEN"), None
        if types[0] == "VIEW":
            return "VIEW", None
        name = ".".join(table)
        if any(self._same(r, table) for r in rows(db, _TRIGGERS, table)):
            return "TABLE", Doubt(f"{name} has triggers", "")
        if not grants.may({"TRIGGER"}, *table):
            return "TABLE", Doubt(f"whether {name} has triggers cannot be seen", self._grant(table))
        return "TABLE", None

    def _same(self, row: Iterable[str], table: Table) -> bool:
        return [self._fold(str(part)) for part in row] == [self._fold(part) for part in table]

    def _grant(self, table: Table) -> str:
        with closing(self._connect()) as db:
            user = account(str(one(db, "SELECT CURRENT_USER()")[0]))
        return f"GRANT TRIGGER ON {quoted(table[0])}.* TO {user};"


def _statements(
    connect: Callable[[], Connection], start: BinlogPosition
) -> Iterator[events.Statement]:
    """Every statement in the log from `start` up to its end."""
    for data in whole_log(connect, start, "cdc ahead"):
        if data[4] in (events.QUERY, events.QUERY_COMPRESSED):
            checked = crc32(data) == events.RESIDUE
            body = data[events.HEADER : -4 if checked else None]
            if data[4] == events.QUERY_COMPRESSED:
                body = events.decompressed_query(body)
            yield events.read_statement(body, 0)
