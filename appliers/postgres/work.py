"""One attempt to write a batch: what its parts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from appliers.batch import Rereader
from appliers.delta import Commit
from appliers.postgres.connection import Session
from appliers.postgres.staging import Staging
from appliers.postgres.table import Table
from appliers.relation import Relation


class OrderNeededError(Exception):
    """The set-based way cannot tell rows apart: they have to be written in the source's order."""


@dataclass(slots=True)
class Work:
    """Made anew for each attempt, so that nothing of a failed one is counted."""

    session: Session
    staging: Staging
    table_of: Callable[[Relation], Table]
    rank: Callable[[Table], int]
    """Parents before children, by the target's foreign keys."""
    redo: set[str]
    commit: Commit | None
    """The last one of the batch: rows that are read again are read after it is visible, so that they
    contain everything that the batch does to them."""
    rereader: Rereader | None
    """None for a copy, whose rows are whole."""
    healed: int = 0
    rereads: dict[str, str] = field(default_factory=dict)
    subject: str = ""
    """The table that is written now, for errors."""

    def reread(self, relation: Relation, images: Sequence[bytes]) -> tuple[Table, Sequence[bytes]]:
        """Rows as the source has them now. From here on their table is under redo."""
        assert self.commit is not None and self.rereader is not None  # noqa: PT018
        found = self.rereader(relation, images, self.commit)
        self.redo.add(relation.table)
        self.rereads[relation.table] = found.position
        return self.table_of(found.relation), found.images

    def clear(self, table: Table, stage: str, columns: Sequence[int]) -> None:
        """Deletes rows of other keys that hold a unique value of a staged row. Raises OrderError where the
        target would delete or change others with one of them."""
        for sql in table.stale_staged(stage, columns):
            self.session.execute(sql)
        if any(self.session.execute(sql)[1] for sql in table.stale_there(stage, columns)):
            raise table.held()

    def truncate(self, relations: Sequence[Relation]) -> None:
        """Empties tables together; row by row where TRUNCATE is refused (a foreign key of a table that
        is not among them, pending constraint checks, a right that is missing)."""
        tables = sorted({self.table_of(r) for r in relations}, key=self.rank, reverse=True)
        names = ", ".join(t.target.only for t in tables)
        session = self.session
        session.execute("SAVEPOINT cdc_truncate")
        try:
            session.execute(f"TRUNCATE {names}")
        except (
            psycopg.errors.FeatureNotSupported,
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.ObjectInUse,
        ):
            session.execute("ROLLBACK TO SAVEPOINT cdc_truncate")
            for table in tables:
                self.subject = table.subject
                session.execute(f"DELETE FROM {table.target.only}")
        session.execute("RELEASE SAVEPOINT cdc_truncate")
