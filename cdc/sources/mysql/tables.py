"""What the stream asks about tables: the contract between the log's reader and the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from appliers.relation import Relation
    from cdc.sources.mysql.reach import Reach
    from cdc.sources.mysql.rows import RowsReader
    from cdc.sources.mysql.table_map import TableMap


class Doubt(NamedTuple):
    why: str
    grant: str
    """What lets the user see whether there is a reason; empty: nothing."""


class Tables(Protocol):
    """A sync's tables. Called by the stream's thread alone; nothing here is called per row."""

    folds_names: bool
    """Whether the server compares table names without regard to case (lower_case_table_names)."""

    def names(self) -> frozenset[tuple[str, str]]:
        """(database, table) of each synced table, as the server writes them in table maps."""

    def of_map(self, table_map: TableMap) -> tuple[Relation, RowsReader] | None:
        """The relation of rows that follow this table map, and what reads them; None: not synced.

        Asked once per distinct table map, and again after `changed`. Raises PermanentError when the
        table cannot be synced any more (its key is gone), TransientError when the catalog cannot be read.
        """

    def of_name(self, database: str, table: str) -> Relation:
        """The relation of a table that a statement emptied: its name counts, its columns may be
        those of today. Asked for synced tables only."""

    def doubt(self, reach: Reach, place: tuple[str, int], *, passing: bool) -> Doubt | None:
        """Why a statement that was logged in place of its rows, in a transaction that begins at `place`,
        may write a synced table though it names none among those that it writes; None: it does not.
        `passing`: it may use temporary tables."""

    def moved(self) -> None:
        """A statement in the log has made, dropped or renamed tables, views or triggers: what `doubt`
        has learnt may be no more."""

    def changed(self, database: str, table: str) -> None:
        """A statement in the log may have changed this synced table's shape: the catalog is to be
        read again before the next `of_map`."""
