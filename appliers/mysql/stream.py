"""The stream's transactions: batches written one way after the other until the target is content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import pymysql

from appliers.batch import Batch, Rereader
from appliers.delta import each
from appliers.mysql.bulk import Bulk
from appliers.mysql.failures import (
    ALTERING,
    HAS_CHILDREN,
    ORDERLY,
    TOO_LARGE,
    code_of,
    translate,
)
from appliers.mysql.names import folded, target_name
from appliers.mysql.references import References, demand_held
from appliers.mysql.rows import Rows
from appliers.mysql.session import Session, WarnedError, with_values
from appliers.mysql.staging import InOrderError, Staging, TooWideError
from appliers.mysql.tables import Tables
from appliers.mysql.work import Work
from appliers.relation import Relation
from appliers.state import State

FEW: Final = 64
"""Up to so many deltas go row by row: two round trips in all, where sets need several a table."""

Attempt = Callable[[Work, Batch], None]


class FailedError(Exception):
    """An attempt that the server has refused."""

    def __init__(self, error: pymysql.err.MySQLError, subject: str) -> None:
        super().__init__()
        self.error = error
        self.subject = subject
        self.code = code_of(error)


class Stream:
    """Writes batches into the transaction that the applier commits.

    Invariant: outside of `write` the transaction, if one is open, has every row of the pieces so far
    and nothing of a failed attempt; `state.position` is what the checkpoint holds inside of it.
    """

    def __init__(
        self, session: Session, tables: Tables, state: State, sync: str, *, may_stage: bool
    ) -> None:
        self.staging = Staging(session)
        self._session = session
        self._tables = tables
        self._state = state
        self._sync = sync
        self._may_stage = may_stage
        self._open = False
        self._redo: set[str] = set()
        self._changes = self._healed = 0
        self._debts = self.references()

    def write(self, batch: Batch, reread: Rereader) -> Work:
        """Writes a batch, and the checkpoint where it has one; the transaction may be committed then."""
        work = self._write(batch, reread)
        self._redo.update(work.rereads)
        self._open = True
        self._changes += batch.rows
        self._healed += work.healed
        if batch.position is not None:
            redo = self._tables.named(self._redo | batch.redo)
            self._debts.settle(
                lambda key: not redo.isdisjoint((folded(key.child), folded(key.parent)))
            )
        return work

    def over(self) -> None:
        """The transaction has ended."""
        self._open = False
        self._redo.clear()
        self._changes = self._healed = 0

    def demand_references(self, exact: Sequence[Relation], coming: Sequence[Relation]) -> None:
        """See `appliers.applier.Applier`: what went unchecked under redo is looked at here."""
        self._tables.look_at_keys()
        demand_held(
            self._session,
            self._tables.foreign_keys(),
            {folded(target_name(r)) for r in exact},
            {folded(target_name(r)) for r in coming},
        )

    def references_now(self) -> References:
        """The same, with the foreign keys that are there now."""
        self._tables.look_at_keys()
        return self.references()

    def references(self) -> References:
        return References(self._session, self.staging, self._tables.keys_of)

    def work(self, redo: frozenset[str], batch: Batch | None, reread: Rereader | None) -> Work:
        return Work(
            self._session,
            self.staging,
            self._tables,
            self._redo | redo,
            batch.deltas[-1].commit if batch and batch.deltas else None,
            reread,
            self._may_stage,
        )

    # -- attempts ---------------------------------------------------------------------------------

    def _write(self, batch: Batch, reread: Rereader) -> Work:
        """Tries one way after the other until the target's constraints are content; and once more if
        the target's tables may have been altered since they were looked at."""
        try:
            return self._attempted(batch, reread)
        except FailedError as e:
            if e.code not in ORDERLY | ALTERING:
                raise translate(e.error, e.subject) from None
        self._tables.refresh(batch.content.relations)
        try:
            return self._attempted(batch, reread)
        except FailedError as e:
            raise translate(e.error, e.subject) from None

    def _attempted(self, batch: Batch, reread: Rereader) -> Work:
        """Raises FailedError with the error of the first attempt if none is left: nothing of the batch
        is there then; or with the one that no other attempt could mend."""
        position = self._state.position
        first: FailedError | None = None
        narrow = True
        attempt: Attempt | None = self._in_order if self._goes_by_rows(batch) else self._in_bulk
        while attempt is not None:
            work = self.work(batch.redo, batch, reread)
            work.may_stage &= narrow
            try:
                self._try(attempt, work, batch)
                return work
            except InOrderError as e:
                narrow &= not isinstance(e, TooWideError)
                rest = None if attempt == self._replacing else self._replacing
                attempt = rest if first else self._in_order
            except pymysql.err.MySQLError as e:
                failed = FailedError(e, work.subject)
                if failed.code not in ORDERLY | TOO_LARGE | ALTERING:
                    raise failed from None
                first = first or failed
                attempt = self._after(attempt, failed.code, work.redo)
            self._undo(position)
            if attempt == self._replacing and not self._may_replace(batch):
                break
        assert first is not None
        raise first

    def _try(self, attempt: Attempt, work: Work, batch: Batch) -> None:
        """One attempt; once more with its statements one by one if one of them had a warning."""
        position = self._state.position
        try:
            attempt(work, batch)
        except WarnedError:
            self._undo(position)
            work.healed, work.rereads = 0, {}
            with self._session.carefully():
                attempt(work, batch)

    def _goes_by_rows(self, batch: Batch) -> bool:
        return batch.rows <= FEW or not self._may_stage

    def _after(self, attempt: Attempt, code: int, redo: set[str]) -> Attempt | None:
        """The attempt that may do better. In order and in bulk each meet what only the other does not:
        but whatever one of them passes, the last attempt passes too."""
        if not self._may_stage or code in ALTERING or attempt == self._replacing:
            return None
        if code in TOO_LARGE:
            return self._in_bulk if attempt == self._in_order else None
        # Under redo a row may be there under a key that is unlike and equal, and would go at last.
        if attempt == self._in_bulk and code in HAS_CHILDREN and not redo:
            return self._deletes_last
        return self._replacing

    def _may_replace(self, batch: Batch) -> bool:
        return self._tables.may_go_unchecked({self._tables.of(r) for r in batch.content.relations})

    def _in_order(self, work: Work, batch: Batch) -> None:
        """Everything but COMMIT in one message, if no update misses its row."""
        with self._unchecked(self._is_unbound(work, batch)):
            self._by_rows(work, batch)

    def _by_rows(self, work: Work, batch: Batch) -> None:
        after = []
        if batch.position is not None:
            after.append(with_values(self._state.advance_sql(), self._advance_values(batch, work)))
        before, behind = Rows(work).write(each(batch.deltas), self._beginning(), after)
        self._demand_position(before[-1].rows)
        if batch.position is not None:
            self._state.advanced(batch.position, behind[-1].touched)
            if work.healed:
                self._state.advance(batch.position, batch.committed_at, 0, work.healed)
        self._settle(work)

    def _in_bulk(self, work: Work, batch: Batch) -> None:
        with self._unchecked(self._is_unbound(work, batch)):
            self._in_sets(Bulk(work), batch)

    def _deletes_last(self, work: Work, batch: Batch) -> None:
        self._in_sets(Bulk(work, deletes_last=True), batch)

    def _replacing(self, work: Work, batch: Batch) -> None:
        """The last: what the target checks at every row is looked at by us when the transaction ends."""
        work.references, work.dear = self.references(), True
        with self._unchecked():
            self._in_sets(Bulk(work, replace=True), batch)
        self._debts.add(work.references)

    def _unchecked(self, really: bool = True) -> AbstractContextManager[None]:
        return self._session.unchecked() if really else nullcontext()

    def _is_unbound(self, work: Work, batch: Batch) -> bool:
        """Whether no foreign key of the batch's tables has to hold now (see `references`)."""
        redo = self._tables.named(work.redo)
        if not redo:
            return False
        tables = {self._tables.of(r) for r in batch.content.relations}
        keys = {k for t in tables for some in self._tables.keys_of(t) for k in some}
        coming = all(
            not k.acting and not redo.isdisjoint((folded(k.child), folded(k.parent))) for k in keys
        )
        return bool(keys) and coming and not any(map(self._tables.is_tied_outside, tables))

    def _in_sets(self, bulk: Bulk, batch: Batch) -> None:
        rows: Sequence[tuple[Any, ...]] = ()
        for sql in self._beginning():
            rows, _ = self._session.execute(sql.decode())
        self._demand_position(rows)
        bulk.write(batch)
        if batch.position is not None:
            position, committed_at, _, changes, healed, *_ = self._advance_values(batch, bulk.work)
            self._state.advance(position, committed_at, changes, healed)
        self._settle(bulk.work)

    def _advance_values(self, batch: Batch, work: Work) -> tuple[Any, ...]:
        assert batch.position is not None
        return self._state.advance_values(
            batch.position,
            batch.committed_at,
            self._changes + batch.rows,
            self._healed + work.healed,
        )

    def _settle(self, work: Work) -> None:
        for table, position in work.rereads.items():
            self._state.redo(table, position)
        if self._open:
            self._session.execute("RELEASE SAVEPOINT cdc_piece")

    def _beginning(self) -> list[bytes]:
        """A transaction, or a savepoint in the one that an earlier piece has left open; and the
        checkpoint as it is, without a lock on it."""
        begin = b"SAVEPOINT cdc_piece" if self._open else b"BEGIN"
        return [
            begin,
            with_values("SELECT position FROM cdc_checkpoint WHERE sync = ?", (self._sync,)),
        ]

    def _demand_position(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """At the beginning and not only in `advance` at the end: a batch that another daemon has
        applied would meet its own rows first, and fail for a reason that is none."""
        if self._state.position is None or list(rows) != [(self._state.position,)]:
            self._state.advanced("", touched=0)

    def _undo(self, position: str | None) -> None:
        if self._open:
            self._session.execute("ROLLBACK TO SAVEPOINT cdc_piece")
            self._session.execute("RELEASE SAVEPOINT cdc_piece")
        else:
            self._session.execute("ROLLBACK")
        self._state.position = position
