"""One sync at work, from the connection to its end: copies, streams, applies, checkpoints, confirms."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from appliers.applier import Applier
from appliers.batch import Applied, Batch, Reread
from appliers.checkpoint import Checkpoint, Copy, Request, TableState
from appliers.delta import Commit
from appliers.errors import FormatError, OrderError, PermanentError, SyncError
from appliers.relation import Relation
from cdc.config import Customer, Sync
from cdc.confirming import Confirming
from cdc.customers import customers_are_read, shape_for
from cdc.goal import Ending, Goal
from cdc.gone import gone
from cdc.logs import event
from cdc.mailbox import Mailbox, Parcel
from cdc.progress import Tracker
from cdc.reader import Reader
from cdc.requests import fulfil, is_full
from cdc.setbacks import CopyFailedError, UnsettledError
from cdc.snapshot import Holdoff, Snapshot
from cdc.sources.source import GapError, Piece, Position, Source
from cdc.witness import Witness

log = logging.getLogger(__name__)

IDLE: Final = 0.25
"""Seconds that one turn of the loop waits for work."""

CONTROL_EVERY: Final = 1.0
CHECKPOINT_IDLE_EVERY: Final = 3.0
"""Seconds between checkpoints that only follow an idle source's log. Each is one commit on the
target; without them the source would keep its log from the last change on."""


class Session:
    """Runs one sync over one source and one applier, both not opened yet, both closed at the end.

    Exactly once rests on three things, each with its test in tests/test_exactly_once.py: the
    checkpoint moves in the transaction that writes the rows (`Applier.apply`); a session begins by
    reading it back and streams from there; nothing behind it is told to the source before the
    target calls it durable. So a death at any line leaves either all of a batch with its
    checkpoint, or nothing of it.
    """

    def __init__(
        self,
        sync: Sync,
        customer: Customer | None,
        source: Source,
        applier: Applier,
        tracker: Tracker,
        stop: threading.Event,
        goal: Goal,
    ) -> None:
        self._sync = sync
        self._source = source
        self._applier = applier
        self._tracker = tracker
        self._stop = stop
        self._goal = goal
        self._shape = shape_for(customer)
        self._prepared: set[Relation] = set()
        self._written: Position | None = None
        self._open = self._fresh = False
        self._target: Position | None = None
        self._control_at = self._checkpoint_at = 0.0

    def interrupt(self) -> None:
        """Ends the wait for transactions that run on the source, if the session is in it. May be
        called by any thread."""
        self._source.interrupt()

    def run(self, holder: str, *, binary_allowed: bool, joins: bool, holdoff: Holdoff) -> Ending:
        """Works until the goal is reached, a pause is asked for or `stop` is set. Raises SyncError.

        `binary_allowed`, `joins` and `holdoff` are what earlier sessions have taught. `joins` (after an
        UnsettledError): a transaction on the target goes on to where the rows were read that were
        copied, or read again in it: only there do they fit together with all others."""
        self._holdoff = holdoff
        self._joins = joins
        self._owed: list[Position] = []
        try:
            self._applier.open(holder)
            if self._applier.state.control().paused:
                return Ending.PAUSED
            self._source.open()
            self._begin(binary_allowed=binary_allowed)
            mailbox = Mailbox()
            reader = self._start_reader(mailbox)
            confirming = Confirming(self._source, self._applier, reader)
            try:
                with Witness(self._applier, self._tracker):
                    ending = self._loop(mailbox, confirming)
                if not self._open:
                    confirming.end()
                return ending
            finally:
                reader.stop()
        finally:
            self._applier.close()
            self._source.close()

    def _begin(self, *, binary_allowed: bool) -> None:
        """Finds or makes the checkpoint and everything that a stream from it needs."""
        catalog = self._source.catalog(self._sync.tables)
        for refused in catalog.refused:
            event(
                log, "table-left-out", logging.WARNING, table=refused.table, reason=refused.reason
            )
        relations = [self._shape(r) for r in catalog.relations]
        if not relations:
            raise PermanentError(
                f"no table of the source can be synced: {', '.join(self._sync.tables)}",
                "correct `tables`; `cdc check` says why a table is left out",
            )
        self._binary = binary_allowed and all(self._takes_binary(r) for r in relations)
        copied = [
            self._shape(self._source.copy_relation(r, binary=self._binary)) for r in relations
        ]
        self._relations = {r.table: r for r in copied}
        state = self._applier.state
        control = state.control()
        checkpoint = state.load()
        if checkpoint is None:
            self._start(relations, control.requests)
        elif control.error is not None and any(is_full(r) for r in control.requests):
            # Whatever it was, a copy of everything needs no log from before.
            self._start_anew(control.error, relations, control.requests)
        else:
            self._resume(checkpoint, relations, control.requests)
        if control.error is not None:
            state.fail(None, None)
        self._snapshot = Snapshot(
            self._source, self._applier, self._relations, self._tracker.beat, self._holdoff
        )
        if not self._fresh:
            self._snapshot.resume(failed=control.error is not None or self._joins)
        self._written = self._through = self._source.position(state.position or "")
        self._committed_at = checkpoint.committed_at if checkpoint else 0
        self._tracker.begin(self._snapshot.tables, checkpoint)
        if self._goal.until_current:
            self._target = self._source.committed_head()
        event(
            log,
            "session-begun",
            position=state.position,
            tables=len(relations),
            binary=self._binary,
        )

    def _takes_binary(self, relation: Relation) -> bool:
        return customers_are_read(relation) and self._applier.accepts_binary(relation)

    def _start(self, relations: Sequence[Relation], requests: Sequence[Request]) -> None:
        """The first start: a slot, then the checkpoint where it begins. Dying between the two leaves
        a slot that the next start replaces."""
        with self._tracker.waiting("for the transactions that run on the source"):
            opening = self._source.start(relations)
        state = self._applier.state
        with state.transaction():
            state.begin(opening.identity, str(opening.position), self._relations)
            self._forget_others()
            for request in requests:
                state.fulfilled(request.id)
        self._fresh = True
        event(log, "sync-started", position=opening.position)

    def _resume(
        self, checkpoint: Checkpoint, relations: Sequence[Relation], requests: Sequence[Request]
    ) -> None:
        try:
            untold = self._source.resume(
                checkpoint.source, self._source.position(checkpoint.position), relations
            )
        except GapError as gap:
            if not any(is_full(r) for r in requests):
                raise
            self._start_anew(str(gap), relations, requests)
            return
        state = self._applier.state
        known = state.tables()
        lost = set(gone(self._applier, known, self._relations.values()))
        for table in lost:
            event(log, "table-gone", logging.WARNING, table=table)
        with state.transaction():
            for table in self._relations.keys() - known.keys() | untold | lost:
                state.put_table(TableState(table, sweep=table in known.keys() - lost))
            self._forget_others()
        self._source.publish(relations)

    def _start_anew(
        self, error: str, relations: Sequence[Relation], requests: Sequence[Request]
    ) -> None:
        """The way out that a user has asked for: a new slot, and a copy of every table."""
        event(log, "starting-anew", logging.WARNING, error=error)
        self._source.drop()
        self._start(relations, requests)

    def _forget_others(self) -> None:
        """Tables that are no longer part of the sync."""
        state = self._applier.state
        for table in state.tables().keys() - self._relations.keys():
            state.forget_table(table)

    def _start_reader(self, mailbox: Mailbox) -> Reader:
        stream = self._source.stream(self._through, binary=self._binary, shape=self._shape)
        reader = Reader(stream, mailbox)
        reader.start()
        return reader

    def _loop(self, mailbox: Mailbox, confirming: Confirming) -> Ending:
        while not self._stop.is_set():
            self._tracker.beat()
            if not self._open:
                if self._look_at_control():
                    return Ending.PAUSED
                if self._snapshot.due(self._through):
                    self._copy_round()
                    continue
                if self._is_done():
                    self._advance(0.0)
                    return Ending.DONE
            parcel = mailbox.take(IDLE)
            if parcel is not None:
                self._take(parcel, mailbox)
            else:
                self._tracker.idle()
            if not self._open:
                asked = parcel is not None and parcel.asked
                self._advance(0.0 if asked else CHECKPOINT_IDLE_EVERY)
                confirming.turn()
        if not self._open:
            self._advance(0.0)
        return Ending.STOPPED

    def _look_at_control(self) -> bool:
        """Looks after the source, does what users asked for on the target; True for a pause."""
        now = time.monotonic()
        if now - self._control_at < CONTROL_EVERY:
            return False
        self._control_at = now
        self._source.tend()
        self._snapshot.renew()
        control = self._applier.state.control()
        for request in control.requests:
            fulfil(request, self._source, self._applier.state, self._relations)
            self._snapshot.reload()
            self._holdoff.over()
        return control.paused

    def _copy_round(self) -> None:
        """A round of copies. What fails in it must not stop a stream that does without it; a command
        that waits for the copy is to hear of it, and so is whoever starts a sync for the first time."""
        urgent = self._goal.until_current or self._goal.copy_only or not self._snapshot.beside
        try:
            with self._tracker.waiting("for the transactions that run on the source"):
                opened = self._source.copy_round(None if urgent else self._holdoff.patience)
        except SyncError as e:
            if urgent and not self._stop.is_set():
                raise
            self._hold_off(e)
            return
        try:
            self._snapshot.round(opened, stop=self._stop.is_set)
        except SyncError as e:
            if urgent and not self._snapshot.may_settle(e):
                raise
            self._hold_off(e)
            # The applier may have been in the middle of something: only a new session is sure.
            raise CopyFailedError(str(e), e.hint) from e
        self._holdoff.over()
        self._tracker.copy_failed(None, "")

    def _settle(self, through: Position) -> None:
        """Ends copies. Rows whose parents nobody has brought do not stop a stream; a command that waits
        for the copy is to hear of them."""
        try:
            if self._snapshot.settle(through):
                self._holdoff.over()
                self._tracker.copy_failed(None, "")
        except OrderError as e:
            if self._goal.copy_only or (self._target is not None and through.covers(self._target)):
                raise
            self._hold_off(e)

    def _hold_off(self, error: SyncError) -> None:
        seconds = self._holdoff.failed()
        event(
            log, "copy-failed", logging.WARNING, error=str(error), hint=error.hint, seconds=seconds
        )
        self._tracker.copy_failed(str(error), error.hint)

    def _take(self, parcel: Parcel, mailbox: Mailbox) -> None:
        position = parcel.position
        if parcel.piece is not None:
            self._write(parcel.piece, None if self._joins else position, mailbox)
        elif position is not None and not self._open:
            self._through = position
            self._tracker.through(position)
        if self._open and position is not None and all(position.covers(p) for p in self._owed):
            self._apply(Batch([], str(position), self._committed_at, self._snapshot.redo))
            self._ended(position)

    def _write(self, piece: Piece, position: Position | None, mailbox: Mailbox) -> None:
        if self._joins and not self._open:
            self._owed = self._snapshot.ahead()
        self._tracker.applying(piece.oldest)
        for relation in piece.content.relations - self._prepared:
            self._prepare(relation)
        at = self._committed_at = piece.commit.committed_at
        end = None if position is None else str(position)
        applied = self._apply(Batch(piece.deltas, end, at, self._snapshot.redo, piece.content))
        for table, exact_at in applied.reread.items():
            self._snapshot.reread(table, exact_at)
            self._owed.append(self._source.position(exact_at))
        self._tracker.applied(applied, waiting=mailbox.waiting)
        self._open = position is None
        if position is not None:
            self._ended(position)

    def _ended(self, position: Position) -> None:
        """The target's transaction is committed, with the checkpoint there."""
        self._open = False
        self._owed = []
        self._through = self._written = position
        self._checkpoint_at = time.monotonic()
        self._settle(position)
        self._tracker.through(position)

    def _apply(self, batch: Batch) -> Applied:
        """Raises UnsettledError for references that do not hold while rows are newer than the stream."""
        rereads = []

        def reread(relation: Relation, images: Sequence[bytes], commit: Commit) -> Reread:
            rereads.append(relation)
            return self._reread(relation, images, commit)

        try:
            return self._applier.apply(batch, reread)
        except OrderError as e:
            if batch.redo or rereads:
                raise UnsettledError(e, copying=self._snapshot.goes_on) from e
            raise

    def _prepare(self, relation: Relation) -> None:
        if relation.format.binary and not customers_are_read(relation):
            raise FormatError(
                f"table {relation.table} has changed: its rows are taken as text from now on"
            )
        state = self._snapshot.tables.get(relation.table)
        # One that was copied is never made again as an empty one.
        self._applier.prepare(relation, create=state is None or state.copy is Copy.PENDING)
        self._prepared.add(relation)

    def _reread(self, relation: Relation, images: Sequence[bytes], commit: Commit) -> Reread:
        found = self._source.reread(relation, images, commit, self._shape)
        known = self._relations.get(found.relation.table)
        if known is not None and known.columns == found.relation.columns:
            found = replace(found, relation=known)
        if found.relation not in self._prepared:
            self._prepare(found.relation)
        return found

    def _advance(self, every: float) -> None:
        """Moves the checkpoint to where an idle stream has come, at most every so many seconds, and at
        once when a table's copy waits for it."""
        if self._through is self._written:
            # An idle log may stand for ever where a table was read: no later position will come.
            self._settle(self._through)
            return
        now = time.monotonic()
        if now - self._checkpoint_at < every and not self._snapshot.settles(self._through):
            return
        batch = Batch([], str(self._through), self._committed_at, self._snapshot.redo)
        self._applier.apply(batch, self._reread)
        self._written, self._checkpoint_at = self._through, now
        self._settle(self._through)

    def _is_done(self) -> bool:
        if not (self._goal.until_current or self._goal.copy_only):
            return False
        if any(t.copy is not Copy.DONE for t in self._snapshot.tables.values()):
            return False
        if self._goal.copy_only:
            return True
        through = self._through
        return self._target is not None and through.whole and through.covers(self._target)
