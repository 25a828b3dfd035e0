"""Foreign keys, looked at by us where the server is told not to.

A source checks some constraints at the end of a statement or of a transaction, MySQL every one at
each row: rows that refer to each other in a circle, or a parent that swaps a unique value, pass no
order of statements. The last attempt to write a batch therefore runs under `foreign_key_checks = 0`,
under which InnoDB neither checks nor cascades, and what it has touched is looked at before the
commit: no row that was written may refer to a row that is not there, and no row may refer to a value
that a deleted or changed row had and no other row has now.

Between tables of which one is under redo nothing is looked at: rows that are newer than the stream may
refer to what is still to come, or miss what is already gone, and hold again when the copy is exact. A
stream that stopped at them would never get there. Whether they hold then is looked at once, for all
rows (`demand_held`): the source may have no such foreign key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from appliers.errors import OrderError
from appliers.mysql import staged
from appliers.mysql.catalog import ForeignKey
from appliers.mysql.failures import ORDER
from appliers.mysql.names import folded, quoted
from appliers.mysql.session import Session
from appliers.mysql.staging import Staging
from appliers.mysql.table import T, Table

KeysOf = Callable[[Table], tuple[Sequence[ForeignKey], Sequence[ForeignKey]]]
"""The foreign keys of a table, and those that refer to it."""


class _Due(NamedTuple):
    """A question that must have no answer, and what it means if it has one."""

    sql: str
    subject: str
    key: ForeignKey


class References:
    """What has to be looked at before the transaction ends. The temporary tables that hold it stay
    until `settle` or `forget`."""

    def __init__(self, session: Session, staging: Staging, keys_of: KeysOf) -> None:
        self._session = session
        self._staging = staging
        self._keys_of = keys_of
        self._due: list[_Due] = []
        self._kept: list[str] = []

    def concern(self, table: Table) -> bool:
        """Whether a foreign key is the table's, or refers to it."""
        return any(self._keys_of(table))

    def gone(self, table: Table, found: str) -> None:
        """Notes the values that others may refer to, of rows that are about to be deleted or changed;
        `found` is FROM and what follows."""
        for key in self._keys_of(table)[1]:
            name = self._keep()
            values = ", ".join(
                f"{T}.{quoted(c)} AS {quoted(f'cdc r{n}')}"
                for n, c in enumerate(key.parent_columns)
            )
            self._session.execute(
                f"CREATE TEMPORARY TABLE {name} (`cdc p` INT NOT NULL AUTO_INCREMENT PRIMARY KEY)"
                f" ENGINE = InnoDB SELECT DISTINCT {values}{found}"
            )
            absent = staged.is_absent(f"p.{quoted(key.parent_columns[0])}")
            was = [f"v.{quoted(f'cdc r{n}')}" for n in range(len(key.columns))]
            self._due.append(
                _Due(
                    f"SELECT 1 FROM {name} AS v STRAIGHT_JOIN {quoted(key.child)} AS c"
                    f" ON {_equal('c', key.columns, was)} LEFT JOIN {quoted(key.parent)} AS p"
                    f" ON {_equal('p', key.parent_columns, was)}"
                    f" WHERE {absent} LIMIT 1",
                    table.subject,
                    key,
                )
            )

    def written(self, table: Table, stage: str) -> None:
        """Notes the rows whose keys are staged: their own references have to hold. `stage` must be one
        of `Staging.more`."""
        self._kept.append(stage)
        for key in self._keys_of(table)[0]:
            own = [f"{T}.{quoted(c)}" for c in key.columns]
            given = " AND ".join(f"{c} IS NOT NULL" for c in own)
            absent = staged.is_absent(f"p.{quoted(key.parent_columns[0])}")
            self._due.append(
                _Due(
                    f"SELECT 1{staged.found(table, stage)} LEFT JOIN {quoted(key.parent)} AS p"
                    f" ON {_equal('p', key.parent_columns, own)}"
                    f" WHERE {given} AND {absent} LIMIT 1",
                    table.subject,
                    key,
                )
            )

    def add(self, other: References) -> None:
        """Takes over what another attempt has left to be looked at."""
        self._due += other._due
        self._kept += other._kept

    def settle(self, exempt: Callable[[ForeignKey], bool] = lambda _: False) -> None:
        """Looks at everything but the keys that are `exempt`. Raises OrderError for the first foreign key
        that is violated."""
        for due in self._due:
            if not exempt(due.key) and self._session.rows(due.sql):
                raise OrderError(
                    f"{due.subject}: foreign key {due.key.name} is violated at the end of the transaction",
                    ORDER.hint,
                    due.key.name,
                )
        self.forget()

    def forget(self) -> None:
        self._due.clear()
        self._staging.drop(self._kept)
        self._kept.clear()

    def _keep(self) -> str:
        name = self._staging.more()
        self._kept.append(name)
        return name


def demand_held(
    session: Session, keys: Sequence[ForeignKey], exact: Collection[str], coming: Collection[str]
) -> None:
    """Raises OrderError for the first foreign key from or to a table of `exact` that rows violate, but
    for those from or to a table of `coming` (folded names)."""
    for key in keys:
        ends = {folded(key.child), folded(key.parent)}
        if ends.isdisjoint(exact) or not ends.isdisjoint(coming):
            continue
        own = [f"c.{quoted(c)}" for c in key.columns]
        given = " AND ".join(f"{c} IS NOT NULL" for c in own)
        if session.rows(
            f"SELECT 1 FROM {quoted(key.child)} AS c LEFT JOIN {quoted(key.parent)} AS p"
            f" ON {_equal('p', key.parent_columns, own)}"
            f" WHERE {given} AND {staged.is_absent(f'p.{quoted(key.parent_columns[0])}')} LIMIT 1"
        ):
            raise OrderError(
                f"table {key.child}: foreign key {key.name} is violated: rows refer to rows of"
                f" {key.parent} that are not there",
                ORDER.hint,
                key.name,
            )


def _equal(alias: str, columns: Sequence[str], values: Sequence[str]) -> str:
    return " AND ".join(
        f"{alias}.{quoted(c)} = {value}" for c, value in zip(columns, values, strict=True)
    )
