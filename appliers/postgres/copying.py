"""Writes chunks of a copy, and deletes what a copy did not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

import psycopg

from appliers.batch import Chunk, grown
from appliers.postgres.connection import Session
from appliers.postgres.errors import translated
from appliers.postgres.names import listed
from appliers.postgres.rows import Rows
from appliers.postgres.staging import framed, joined
from appliers.postgres.table import Table
from appliers.postgres.tables import Tables
from appliers.postgres.work import Work
from appliers.relation import Relation
from appliers.state import State

Blocks = Iterator[list[bytes]]

KEPT_BYTES: Final = 16 * 2**20
"""What one COPY straight into the table may hold. Its rows can be read from the source once only, and
are needed again if one of them is there already."""


class Copying:
    """The copy of one table: straight into it, until a row is found to be there already; then by way
    of a staged set that overwrites."""

    def __init__(self, work: Work, table: Table, *, may_stage: bool) -> None:
        self._work = work
        self._table = table
        self._may_stage = may_stage
        self._straight = True

    def write(self, blocks: Blocks) -> int:
        """Writes a chunk inside the open transaction; returns its rows."""
        rows = 0
        while (block := next(blocks, None)) is not None:
            blocks_here = chain([block], blocks)
            rows += (
                self._write_straight(blocks_here)
                if self._straight
                else self._write_over(blocks_here)
            )
        return rows

    def _write_straight(self, blocks: Blocks) -> int:
        table, session = self._table, self._work.session
        kept: list[list[bytes]] = []
        session.execute("SAVEPOINT cdc_copy")
        try:
            sql = table.copy_sql(table.target.sql_name, table.written)
            rows = session.copy_in(sql, framed(table, self._data(blocks, kept)))
        except psycopg.errors.UniqueViolation:
            session.execute("ROLLBACK TO SAVEPOINT cdc_copy")
            self._straight = False
            return self._write_over(iter(kept))
        session.execute("RELEASE SAVEPOINT cdc_copy")
        return rows

    def _write_over(self, blocks: Blocks) -> int:
        table, work = self._table, self._work
        if not self._may_stage:
            kept: list[list[bytes]] = []
            for _ in self._data(blocks, kept):
                pass
            images = [image for block in kept for image in block]
            Rows(work).upsert(table, images, stale=True)
            return len(images)
        stage, staged = work.staging.fill(table, table.written, self._data(blocks, []), "copy")
        work.clear(table, stage, table.written)
        for sql in table.upsert_staged(stage):
            work.session.execute(sql)
        return staged

    def _data(self, blocks: Blocks, kept: list[list[bytes]]) -> Iterator[bytes]:
        """Blocks as data for COPY, up to KEPT_BYTES; the blocks themselves go into `kept`."""
        rows = self._table.copied_rows
        size = 0
        for block in blocks:
            kept.append(block)
            data = rows(block)
            size += len(data)
            yield data
            if size > KEPT_BYTES:
                return


class Copies:
    """The copies of an applier's tables, each chunk struck off the plan with its rows, inside of the
    transaction that is open."""

    def __init__(
        self, work: Callable[[], Work], tables: Tables, state: State, *, may_stage: bool
    ) -> None:
        self._work = work
        self._tables = tables
        self._state = state
        self._may_stage = may_stage
        self._copying: dict[Relation, Copying] = {}

    def write(self, chunk: Chunk, exact_at: str) -> int:
        """Returns its rows; nothing is written of one that was struck off before."""
        table = chunk.relation.table
        with translated(f"table {table}"):
            if not self._state.strike(table, chunk.number):
                return 0
            rows = self._of(chunk.relation).write(chunk.blocks)
            self._state.copied(table, chunk.counted(rows), exact_at)
        return rows

    def write_all(self, chunks: Iterable[Chunk], exact_at: str) -> dict[str, int]:
        """Returns by how many rows each table's copy has grown."""
        return grown(chunks, lambda chunk: self.write(chunk, exact_at))

    def _of(self, relation: Relation) -> Copying:
        found = self._copying.get(relation)
        if found is None:
            table = self._tables.of(relation)
            found = Copying(self._work(), table, may_stage=self._may_stage)
            self._copying[relation] = found
        return found


def sweep(session: Session, table: Table, blocks: Blocks, only: Mapping[str, str]) -> int:
    """Deletes the rows whose keys are not among `blocks`, inside the open transaction.

    All keys are compared at once, so the planner gets back the joins that the stream's statements
    must not use.
    """
    keys = table.relation.key_columns
    stage = "pg_temp.cdc_sweep"
    session.execute(
        f"CREATE TEMPORARY TABLE {stage} ON COMMIT DROP AS"
        f" SELECT {listed(table.names(keys))} FROM {table.target.sql_name} WITH NO DATA"
    )
    rows = joined(table.rows_of(keys), chain.from_iterable(blocks))
    session.copy_in(table.copy_sql(stage, keys), framed(table, rows))
    session.execute(f"ANALYZE {stage}")
    for name in ("enable_hashjoin", "enable_mergejoin", "enable_seqscan"):
        session.execute(f"SET LOCAL {name} = on")
    return session.execute(table.sweep(stage, list(only)), list(only.values()))[1]
