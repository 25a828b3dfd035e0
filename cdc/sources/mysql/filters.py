"""What a server is told to keep out of its binary log: binlog_do_db and binlog_ignore_db.

Of rows the table's own database counts, whatever the session's default one is (MySQL manual, "Evaluation
of Database-Level Replication and Binary Logging Options").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from appliers.errors import PermanentError, SyncError
from appliers.relation import Relation
from cdc.sources.mysql.connection import Connection, Server, log_end

_OPTIONS: Final = {"Binlog_Do_DB": "binlog_do_db", "Binlog_Ignore_DB": "binlog_ignore_db"}
"""Columns of the log's status, which alone tells them, and the options that they show."""


class Filter(NamedTuple):
    """One of the two options, where it is set."""

    option: str
    databases: str
    """As the server says them: separated by commas."""

    @property
    def remedy(self) -> str:
        return f"take {self.option} out of the source's configuration, and restart it"

    def hides(self, database: str) -> bool:
        """Whether rows of this database are not in the log."""
        named = database in self.databases.split(",")
        return named if self.option == "binlog_ignore_db" else not named


def filters(db: Connection, server: Server) -> Iterator[Filter]:
    """None where the user may not ask for the log's status."""
    try:
        found = log_end(db, server)
    except SyncError:
        return
    for column, option in _OPTIONS.items():
        if found.get(column):
            yield Filter(option, str(found[column]))


def require_logged(db: Connection, server: Server, relations: Sequence[Relation]) -> None:
    """Raises PermanentError for a table whose changes would never come."""
    for found in filters(db, server):
        for relation in relations:
            if found.hides(relation.schema):
                raise PermanentError(
                    f"source: {found.option} = {found.databases} keeps table {relation.table} out of the log",
                    found.remedy,
                )
