"""Writes chunks of a copy, and deletes what a copy did not have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from typing import Final

import pymysql

from appliers.errors import PermanentError
from appliers.lines import line
from appliers.mysql import staged
from appliers.mysql.failures import DUPLICATE, HAS_CHILDREN, NO_PARENT, code_of
from appliers.mysql.names import folded
from appliers.mysql.references import References
from appliers.mysql.rows import Rows, overwrite
from appliers.mysql.session import Session
from appliers.mysql.staging import Staging, TooWideError, insert, joined
from appliers.mysql.table import T, Table
from appliers.mysql.work import Work

Blocks = Iterator[list[bytes]]

KEPT_BYTES: Final = 16 * 2**20
"""What one statement straight into the table may hold. Its rows can be read from the source once only,
and are needed again if one of them is there already."""


class Copying:
    """The copy of one table: straight into it, until a row is found to be there already; then by way
    of a staged set that overwrites."""

    def __init__(
        self,
        work: Work,
        table: Table,
        references: Callable[[], References],
        under_redo: Callable[[], Collection[str]],
    ) -> None:
        """`under_redo` gives the folded names of the tables whose rows may still have to come."""
        self._work = work
        self._table = table
        self._references = references
        self._under_redo = under_redo
        self._straight = True
        self._unchecked = False

    def write(self, blocks: Blocks) -> int:
        """Writes a chunk inside the open transaction; returns its rows.

        Rows of one chunk that refer to each other may come in an order that the server, which checks
        at each row, does not take: then they are written unchecked, and looked at when all are there,
        but for references to tables that are copied too: the chunk may be newer than those.
        """
        if self._unchecked:
            return self._write_unchecked(blocks)
        rows = 0
        while (block := next(blocks, None)) is not None:
            rows += self._write_checked(chain([block], blocks))
        return rows

    def _write_checked(self, blocks: Blocks) -> int:
        """Up to KEPT_BYTES of them, while the server looks at foreign keys; all, once it refuses."""
        session = self._work.session
        kept: list[list[bytes]] = []
        session.execute("SAVEPOINT cdc_copy")
        try:
            write = self._write_straight if self._straight else self._write_over
            rows = write(blocks, kept)
        except pymysql.err.MySQLError as e:
            code = code_of(e)
            self._unchecked = (
                code in NO_PARENT | HAS_CHILDREN
                and self._work.may_stage
                and self._work.tables.may_go_unchecked([self._table])
            )
            if not self._unchecked and not (self._straight and code in DUPLICATE | NO_PARENT):
                raise
            session.execute("ROLLBACK TO SAVEPOINT cdc_copy")
            self._straight = False
            return self.write(chain(kept, blocks))
        session.execute("RELEASE SAVEPOINT cdc_copy")
        return rows

    def _write_straight(self, blocks: Blocks, kept: list[list[bytes]]) -> int:
        table, session = self._table, self._work.session
        data = self._data(blocks, kept)
        return insert(session, table, table.target.sql_name, table.written, data)

    def _write_unchecked(self, blocks: Blocks) -> int:
        work, session = self._work, self._work.session
        work.references = self._references()
        try:
            with session.unchecked():
                rows = sum(self._write_over(chain([block], blocks), []) for block in blocks)
                coming = self._under_redo()
                work.references.settle(lambda key: folded(key.parent) in coming)
        finally:
            work.references = None
        return rows

    def _write_over(self, blocks: Blocks, kept: list[list[bytes]]) -> int:
        table, work = self._table, self._work
        if not work.may_stage:
            for _ in self._data(blocks, kept):
                pass
            images = [image for block in kept for image in block]
            with work.session.carefully():
                Rows(work).upsert(table, images, stale=True)
            return len(images)
        try:
            stage, number = work.staging.fill(
                table, table.written, self._data(blocks, kept), "copy"
            )
        except TooWideError:
            # What is unchecked now is looked at when the copy is exact.
            work.may_stage, again = False, kept.copy()
            kept.clear()
            return self._write_over(chain(again, blocks), kept)
        try:
            return overwrite(work, table, stage, number)
        except pymysql.err.MySQLError as e:
            if code_of(e) not in DUPLICATE or work.dear:
                raise
            # What is in the way is found by no index.
            work.dear = True
            return overwrite(work, table, stage, number)

    def _data(self, blocks: Blocks, kept: list[list[bytes]]) -> Iterator[bytes]:
        """Blocks as lines, up to KEPT_BYTES; the blocks themselves go into `kept`."""
        rows = self._table.rows_of(self._table.written)
        size = 0
        for block in blocks:
            kept.append(block)
            data = rows(block)
            size += len(data)
            yield data
            if size > KEPT_BYTES:
                return


def stage_keys(session: Session, staging: Staging, table: Table, blocks: Blocks) -> str:
    """All keys of `blocks` in a temporary table, committed piece by piece; its name."""
    stage = staging.fresh(table, "sweep")
    session.execute(staged.create(table, stage, table.key, keyed=True))
    rows = table.rows_of(table.key)
    number = 0
    for block in blocks:
        lines = joined(rows, iter(block))
        number += insert(session, table, stage, table.key, lines, number_from=number)
    return stage


def sweep(
    work: Work,
    table: Table,
    found: str,
    references: Callable[[], References],
    under_redo: Collection[str],
) -> int:
    """Deletes rows, `found` by `unswept`, inside the open transaction.

    InnoDB checks foreign keys at each row, and tables are swept one after the other: rows that others
    refer to go unchecked if those are `under_redo` (folded names), because they are swept or read too."""
    delete, session = f"DELETE {T}{found}", work.session
    session.execute("SAVEPOINT cdc_sweep")
    try:
        return session.run(delete)
    except pymysql.err.MySQLError as e:
        if code_of(e) not in HAS_CHILDREN or not work.tables.may_go_unchecked([table]):
            raise
    session.execute("ROLLBACK TO SAVEPOINT cdc_sweep")
    due = references()
    with session.unchecked():
        due.gone(table, found)
        deleted = session.run(delete)
        due.settle(lambda key: folded(key.child) in under_redo)
    return deleted


def unswept(table: Table, stage: str, only: Mapping[str, str]) -> str:
    """FROM and what follows, for rows whose keys are not staged. The values of `only` are the source's,
    and mean themselves alone."""
    at = {folded(c.name): i for i, c in enumerate(table.relation.columns)}
    values: list[bytes | None] = [None] * len(table.own)
    for name, value in only.items():
        values[at[folded(name)]] = value.encode()
    fields = table.fields(line(values))
    conditions = [table.same(at[folded(name)], fields[at[folded(name)]]) for name in only]
    return staged.unswept(table, stage, conditions)


def demand_staging(sync_table: str, *, may_stage: bool) -> None:
    if not may_stage:
        raise PermanentError(
            f"table {sync_table}: rows that the source does not have cannot be found without temporary"
            " tables",
            "grant CREATE TEMPORARY TABLES to the user in the target's URL; `cdc check` lists the grants",
        )
