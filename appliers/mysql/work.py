"""One attempt to write a batch: what its parts share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from appliers.batch import Rereader
from appliers.delta import Commit
from appliers.mysql.catalog import demand_uniques
from appliers.mysql.names import folded
from appliers.mysql.references import References
from appliers.mysql.session import Session
from appliers.mysql.staging import Staging
from appliers.mysql.table import T, Table
from appliers.mysql.tables import Tables
from appliers.relation import Relation


@dataclass(slots=True)
class Work:
    """Made anew for each attempt, so that nothing of a failed one is counted."""

    session: Session
    staging: Staging
    tables: Tables
    redo: set[str]
    commit: Commit | None
    """The last one of the batch: rows that are read again are read after it is visible, so that they
    contain everything that the batch does to them."""
    rereader: Rereader | None
    """None for a copy, whose rows are whole."""
    may_stage: bool = True
    references: References | None = None
    """Where the server does not check foreign keys: what has to be looked at instead."""
    dear: bool = False
    """Whether rows in the way are looked for also where no index finds them."""
    healed: int = 0
    rereads: dict[str, str] = field(default_factory=dict)
    subject: str = ""
    """The table that is written now, for errors."""

    def are_tied(self, relations: Collection[Relation], tables: Collection[str]) -> bool:
        """Whether a foreign key stands between a table of `relations` and one of the source's `tables`."""
        names = self.tables.named(tables)
        keys = [
            k for r in relations for some in self.tables.keys_of(self.table_of(r)) for k in some
        ]
        return any(folded(k.child) in names or folded(k.parent) in names for k in keys)

    def is_simple(self, table: Table) -> bool:
        """`Table.simple`, looked at again where it matters. The transaction must have touched the
        table: from then on it cannot be altered until the transaction ends (metadata lock)."""
        if table.simple:
            demand_uniques(self.session, table.target)
        return table.simple

    def is_bound(self, table: Table) -> bool:
        """Whether other rows can be in the way of a table's rows, or refer to them."""
        return bool(table.uniques) or (
            self.references is not None and self.references.concern(table)
        )

    def table_of(self, relation: Relation) -> Table:
        return self.tables.of(relation)

    def rank(self, table: Table) -> int:
        """Parents before children, by the target's foreign keys."""
        return self.tables.rank(table)

    def reread(self, relation: Relation, images: Sequence[bytes]) -> tuple[Table, Sequence[bytes]]:
        """Rows as the source has them now. From here on their table is under redo."""
        assert self.commit is not None and self.rereader is not None  # noqa: PT018
        found = self.rereader(relation, images, self.commit)
        self.redo.add(relation.table)
        self.rereads[relation.table] = found.position
        return self.table_of(found.relation), found.images

    def truncate(self, relations: Sequence[Relation]) -> None:
        """Empties tables together, children first. By DELETE: TRUNCATE would commit what is open."""
        tables = {t.name: t for t in map(self.table_of, relations)}
        for table in sorted(tables.values(), key=self.rank, reverse=True):
            self.subject = table.subject
            self.delete(table, f" FROM {table.target.sql_name} AS {T}")

    def leaving(self, table: Table) -> AbstractContextManager[None]:
        """While rows are deleted that will come back, or have another key: the target's foreign keys must
        not take others with them."""
        return self.session.unchecked() if self.tables.has_followers(table) else nullcontext()

    def delete(self, table: Table, found: str) -> int:
        """Deletes rows of a table: `found` is FROM and what follows."""
        if self.references is not None:
            self.references.gone(table, found)
        return self.session.run(f"DELETE {T}{found}")
