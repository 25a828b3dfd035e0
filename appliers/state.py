"""The sync's state on an SQL target, in SQL that every target understands.

Times are microseconds since 1970-01-01 UTC. The tables' names begin with `cdc_`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from appliers.checkpoint import Checkpoint, Control, Copy, PlannedChunk, Request, TableState
from appliers.errors import FencedError

Execute = Callable[[str, Sequence[Any]], tuple[list[tuple[Any, ...]], int]]
"""Runs one statement with `?` for parameters; gives its rows and the number of rows it touched."""

TABLES = {
    "cdc_checkpoint": """(
        sync VARCHAR(190) NOT NULL PRIMARY KEY,
        source TEXT, position TEXT,
        committed_at BIGINT NOT NULL DEFAULT 0, applied_at BIGINT NOT NULL DEFAULT 0,
        changes BIGINT NOT NULL DEFAULT 0, healed BIGINT NOT NULL DEFAULT 0,
        paused INTEGER NOT NULL DEFAULT 0, error TEXT, hint TEXT)""",
    "cdc_table": """(
        sync VARCHAR(190) NOT NULL, name VARCHAR(400) NOT NULL,
        copy VARCHAR(20) NOT NULL, row_count BIGINT NOT NULL, row_estimate BIGINT NOT NULL,
        chunks BIGINT NOT NULL, exact_at TEXT, fingerprint TEXT NOT NULL,
        sweep INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (sync, name))""",
    "cdc_chunk": """(
        sync VARCHAR(190) NOT NULL, name VARCHAR(400) NOT NULL, number INTEGER NOT NULL,
        bounds TEXT NOT NULL, PRIMARY KEY (sync, name, number))""",
    "cdc_request": """(
        sync VARCHAR(190) NOT NULL, id BIGINT NOT NULL, name VARCHAR(400), customer TEXT,
        PRIMARY KEY (sync, id))""",
}
"""The tables and their columns. `cdc_checkpoint` has a row per sync; `position` NULL means that the
sync has only been paused or has failed before its first checkpoint."""


def now() -> int:
    return time.time_ns() // 1000


class State:
    """The rows of one sync in the `cdc_` tables. Holds no state of its own but the checkpoint's
    last known position, which fences `advance`."""

    def __init__(self, sync: str, execute: Execute, prefix: str = "") -> None:
        self.sync = sync
        self.position: str | None = None
        self._execute = execute
        self._at = prefix

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes several changes of state one. Not to be used where the applier has one open."""
        self._execute("BEGIN", ())
        try:
            yield
        except BaseException:
            self._execute("ROLLBACK", ())
            raise
        self._execute("COMMIT", ())

    def load(self) -> Checkpoint | None:
        """The checkpoint, or None before the first. Later calls of `advance` are fenced by it."""
        rows, _ = self._execute(
            f"SELECT source, position, committed_at, applied_at, changes, healed"
            f" FROM {self._at}cdc_checkpoint WHERE sync = ? AND position IS NOT NULL",
            (self.sync,),
        )
        checkpoint = Checkpoint(*rows[0]) if rows else None
        self.position = checkpoint.position if checkpoint else None
        return checkpoint

    def begin(self, source: str, position: str, tables: Iterable[str]) -> None:
        """Writes the first checkpoint (or replaces it, where a gap was accepted) and marks every
        table for copying. The caller holds a transaction."""
        self._ensure_row()
        self._execute(
            f"UPDATE {self._at}cdc_checkpoint SET source = ?, position = ?, applied_at = ?,"
            f" committed_at = 0 WHERE sync = ?",
            (source, position, now(), self.sync),
        )
        for table in tables:
            self.put_table(TableState(table))
        self.position = position

    def advance(self, position: str, committed_at: int, changes: int, healed: int) -> None:
        """Moves the checkpoint from where it was last seen. Raises FencedError if it is not there."""
        _, touched = self._execute(
            self.advance_sql(), self.advance_values(position, committed_at, changes, healed)
        )
        self.advanced(position, touched)

    def advance_sql(self) -> str:
        """The statement of `advance`, for appliers that send it together with the rows."""
        return (
            f"UPDATE {self._at}cdc_checkpoint SET position = ?, committed_at = ?, applied_at = ?,"
            f" changes = changes + ?, healed = healed + ? WHERE sync = ? AND position = ?"
        )

    def advance_values(
        self, position: str, committed_at: int, changes: int, healed: int
    ) -> tuple[Any, ...]:
        return (position, committed_at, now(), changes, healed, self.sync, self.position)

    def advanced(self, position: str, touched: int) -> None:
        """Takes the outcome of `advance_sql`: the number of rows it touched."""
        if touched != 1:
            raise FencedError(
                f"the checkpoint of sync {self.sync} is not at {self.position} any more: somebody else moved it",
                "make sure that only one daemon runs this sync, then start it again",
            )
        self.position = position

    def tables(self) -> dict[str, TableState]:
        rows, _ = self._execute(
            f"SELECT name, copy, row_count, row_estimate, chunks, exact_at, fingerprint, sweep"
            f" FROM {self._at}cdc_table WHERE sync = ? ORDER BY name",
            (self.sync,),
        )
        return {
            name: TableState(
                name, Copy(copy), count, estimate, chunks, exact_at, fingerprint, bool(sweep)
            )
            for name, copy, count, estimate, chunks, exact_at, fingerprint, sweep in rows
        }

    def put_table(self, state: TableState) -> None:
        """Writes a table's state, and forgets its plan unless it is COPYING."""
        key = (self.sync, state.table)
        self._execute(f"DELETE FROM {self._at}cdc_table WHERE sync = ? AND name = ?", key)
        self._execute(
            f"INSERT INTO {self._at}cdc_table (sync, name, copy, row_count, row_estimate, chunks, exact_at,"
            f" fingerprint, sweep) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *key,
                state.copy.value,
                state.rows,
                state.rows_estimated,
                state.chunks,
                state.exact_at,
                state.fingerprint,
                int(state.sweep),
            ),
        )
        if state.copy is not Copy.COPYING:
            self._execute(f"DELETE FROM {self._at}cdc_chunk WHERE sync = ? AND name = ?", key)

    def forget_table(self, table: str) -> None:
        """Removes the state of a table that is no longer part of the sync."""
        for name in ("cdc_table", "cdc_chunk"):
            self._execute(
                f"DELETE FROM {self._at}{name} WHERE sync = ? AND name = ?", (self.sync, table)
            )

    def plan(self, state: TableState, bounds: Sequence[str]) -> None:
        """Replaces a table's plan: its chunks are numbered from 0. The caller holds a transaction."""
        state.copy, state.rows, state.chunks = Copy.COPYING, 0, len(bounds)
        self._execute(
            f"DELETE FROM {self._at}cdc_chunk WHERE sync = ? AND name = ?", (self.sync, state.table)
        )
        self.put_table(state)
        for number, bound in enumerate(bounds):
            self._execute(
                f"INSERT INTO {self._at}cdc_chunk (sync, name, number, bounds) VALUES (?, ?, ?, ?)",
                (self.sync, state.table, number, bound),
            )

    def add_chunk(self, table: str, bounds: str) -> None:
        """Plans one more chunk of a table, be it copied already or not."""
        key = (self.sync, table)
        rows, _ = self._execute(
            f"SELECT max(number) FROM {self._at}cdc_chunk WHERE sync = ? AND name = ?", key
        )
        last = rows[0][0]
        self._execute(
            f"UPDATE {self._at}cdc_table SET copy = 'copying' WHERE sync = ? AND name = ? AND copy <> 'pending'",
            key,
        )
        self._execute(
            f"INSERT INTO {self._at}cdc_chunk (sync, name, number, bounds) VALUES (?, ?, ?, ?)",
            (*key, 0 if last is None else last + 1, bounds),
        )

    def chunks(self) -> list[PlannedChunk]:
        """The chunks that are left, table by table."""
        rows, _ = self._execute(
            f"SELECT name, number, bounds FROM {self._at}cdc_chunk WHERE sync = ? ORDER BY name, number",
            (self.sync,),
        )
        return [PlannedChunk(*r) for r in rows]

    def strike(self, table: str, number: int) -> bool:
        """Takes a chunk off the plan; False if it was struck before."""
        _, touched = self._execute(
            f"DELETE FROM {self._at}cdc_chunk WHERE sync = ? AND name = ? AND number = ?",
            (self.sync, table, number),
        )
        return touched == 1

    def copied(self, table: str, rows: int, exact_at: str) -> None:
        """Adds copied rows to a table and moves the position from which its copy is exact. Callers
        give positions that only grow within a round."""
        self._execute(
            f"UPDATE {self._at}cdc_table SET row_count = row_count + ?, exact_at = ? WHERE sync = ? AND name = ?",
            (rows, exact_at, self.sync, table),
        )

    def redo(self, table: str, exact_at: str) -> None:
        """Puts a table whose rows were read again under redo; one that is being copied stays so."""
        self._execute(
            f"UPDATE {self._at}cdc_table SET exact_at = ?,"
            f" copy = CASE WHEN copy = 'done' THEN 'redo' ELSE copy END WHERE sync = ? AND name = ?",
            (exact_at, self.sync, table),
        )

    def control(self) -> Control:
        rows, _ = self._execute(
            f"SELECT paused, error, hint FROM {self._at}cdc_checkpoint WHERE sync = ?", (self.sync,)
        )
        wishes, _ = self._execute(
            f"SELECT id, name, customer FROM {self._at}cdc_request WHERE sync = ? ORDER BY id",
            (self.sync,),
        )
        paused, error, hint = rows[0] if rows else (0, None, None)
        return Control(bool(paused), error, hint, tuple(Request(*w) for w in wishes))

    def pause(self, paused: bool) -> None:
        self._ensure_row()
        self._execute(
            f"UPDATE {self._at}cdc_checkpoint SET paused = ? WHERE sync = ?",
            (int(paused), self.sync),
        )

    def fail(self, error: str | None, hint: str | None) -> None:
        """Notes why the sync has failed, or None that it has not."""
        self._ensure_row()
        self._execute(
            f"UPDATE {self._at}cdc_checkpoint SET error = ?, hint = ? WHERE sync = ?",
            (error, hint, self.sync),
        )

    def request(self, table: str | None, customer: str | None) -> int:
        """Notes a wish for a copy; returns its number."""
        number = time.time_ns()
        self._execute(
            f"INSERT INTO {self._at}cdc_request (sync, id, name, customer) VALUES (?, ?, ?, ?)",
            (self.sync, number, table, customer),
        )
        return number

    def fulfilled(self, request: int) -> None:
        self._execute(
            f"DELETE FROM {self._at}cdc_request WHERE sync = ? AND id = ?", (self.sync, request)
        )

    def forget(self) -> bool:
        """Removes every row of this sync; True if no sync is left in the tables."""
        for table in TABLES:
            self._execute(f"DELETE FROM {self._at}{table} WHERE sync = ?", (self.sync,))
        rows, _ = self._execute(f"SELECT count(*) FROM {self._at}cdc_checkpoint", ())
        return bool(rows[0][0] == 0)

    def _ensure_row(self) -> None:
        rows, _ = self._execute(
            f"SELECT 1 FROM {self._at}cdc_checkpoint WHERE sync = ?", (self.sync,)
        )
        if not rows:
            self._execute(f"INSERT INTO {self._at}cdc_checkpoint (sync) VALUES (?)", (self.sync,))
