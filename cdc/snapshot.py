"""Copies of tables, by copy and redo (design, decision 5).

While the stream stands still at the checkpoint P, a round reads chunks as they are at one position
L, not before P, and writes each in a transaction of its own that also strikes it off the plan. Then
the stream goes on from P and redoes every later change on top. Invariant: between rounds, every row
of a table that is under redo is, on the target, as it was on the source at some moment not before
the stream's position, or is missing although a change or a chunk that is still to come will bring
it. So once the plan is empty and the stream has passed the last L, the copy is exact.

That takes a log that has every change from P on. Where it may lack some (an ALTER TABLE that changes rows,
a time out of the publication, another table under the name), the stream goes first to where the log ends
when that is seen, and P is there (`_wait`): changes of before, redone on a copy of after, would stay.

What fails without it: tests/test_snapshot.py (writes during the copy, kills between chunks), and
the model of copy and redo, ported as a property test to tests/test_applier_contract.py; for `_wait`,
tests/test_published_again.py, test_schema_changes.py and test_mysql_schema_changes.py (`backlog of before`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

from appliers.applier import Applier
from appliers.checkpoint import Copy, TableState
from appliers.errors import OrderError, SyncError
from appliers.relation import Relation
from cdc.lanes import Lanes, beating
from cdc.logs import event
from cdc.sources.source import ChunkReader, CopyRound, Position, Source, StalePlanError

log = logging.getLogger(__name__)

LANES: Final = 4
"""At most so many chunks side by side, however many the target could take."""

ALONE: Final = 300.0
"""Seconds of a round while nothing else needs the stream: a first snapshot. Bounds how long the
source keeps old row versions for us."""

BESIDE: Final = 2.0
"""Seconds of a round on a sync that streams other tables: how long those stand still."""


FIRST_HOLDOFF: Final = 2.0
LONGEST_HOLDOFF: Final = 60.0
"""Seconds between a copy that failed and the next try; doubled each time."""


LOOKED_AT: Final = 10.0
"""The stream goes on at least so many times as long as it has stood still for a look at the references of
tables that were exact, before the next: rows of a large table may be read again all the time."""

ORDER_TRIES: Final = 4
"""Rounds whose rows may refer to rows that are not there, although the stream goes on between them."""


class Holdoff:
    """How long copies wait after one that failed, so that the stream gets on between two tries. It
    outlives sessions."""

    def __init__(self) -> None:
        self._until = 0.0
        self._delay = FIRST_HOLDOFF
        self.failures = 0
        """One after the other, until now."""

    @property
    def holds(self) -> bool:
        return time.monotonic() < self._until

    @property
    def patience(self) -> float:
        """Seconds that a round may wait for others on the source while the stream stands still: never
        longer than the stream then has for itself."""
        return self._delay

    def failed(self) -> float:
        """Returns the seconds until the next try."""
        self.failures += 1
        delay, self._delay = self._delay, min(LONGEST_HOLDOFF, self._delay * 2)
        self._until = time.monotonic() + delay
        return delay

    def over(self) -> None:
        """A copy went well, or somebody has asked for one."""
        self._until, self._delay, self.failures = 0.0, FIRST_HOLDOFF, 0


class Snapshot:
    """The copies of one sync's tables: what is left to do, and the rounds that do it."""

    def __init__(
        self,
        source: Source,
        applier: Applier,
        relations: Mapping[str, Relation],
        beat: Callable[[], None],
        holdoff: Holdoff,
    ) -> None:
        self._source = source
        self._applier = applier
        self._relations = relations
        self._beat = beat
        self._holdoff = holdoff
        self._rounds_end: Position | None = None
        self._dangling = False
        self._rests_until = 0.0
        self.tables: dict[str, TableState] = applier.state.tables()
        self._gates: dict[str, Position] = {}
        """Tables that are not to be planned before the stream has come here."""
        self._waits = True
        self._settling = {t.table for t in self.tables.values() if t.copy is Copy.REDO}
        """Under redo because they were copied, not because a row was read again."""

    def resume(self, *, failed: bool) -> None:
        """Goes on behind a checkpoint. Has tables copied again of which the log may not have told everything
        since they were planned. `failed`: what has stopped the stream may be what a copy mends that somebody
        has asked for, so that this one does not wait for the stream."""
        self._waits = not failed
        outdated = self._source.outdated(self._planned())
        for table in outdated:
            event(log, "table-outdated", logging.WARNING, table=table)
            with self._applier.state.transaction():
                self._applier.state.put_table(TableState(table, sweep=True))
        self.reload()
        self._wait(outdated)
        self.renew()

    def renew(self) -> None:
        """Keeps what the source has seen of tables since they were planned, with no harm to their rows: the
        next session tells what has come by then from what is kept."""
        for table, fingerprint in self._source.renewed(self._planned()).items():
            state = self.tables[table]
            state.fingerprint = fingerprint
            with self._applier.state.transaction():
                self._applier.state.put_table(state)

    def _planned(self) -> dict[str, str]:
        return {t.table: t.fingerprint for t in self.tables.values() if t.copy is not Copy.PENDING}

    @property
    def redo(self) -> frozenset[str]:
        """Tables whose rows may be newer than the stream."""
        return frozenset(t.table for t in self.tables.values() if t.copy is not Copy.DONE)

    @property
    def goes_on(self) -> bool:
        """Whether chunks are left to copy or to plan that do not wait for the stream."""
        return any(self._is_left(t) and t.table not in self._gates for t in self.tables.values())

    def _is_left(self, state: TableState) -> bool:
        return state.copy in (Copy.PENDING, Copy.COPYING)

    @property
    def beside(self) -> bool:
        """Whether the stream keeps rows up to date while copies wait: those of other tables, or those
        that an earlier copy has left."""
        return any(t.sweep or t.copy in (Copy.REDO, Copy.DONE) for t in self.tables.values())

    def ahead(self) -> list[Position]:
        """Where rows were read that may be newer than the stream."""
        return [
            self._source.position(t.exact_at)
            for t in self.tables.values()
            if t.copy is not Copy.DONE and t.exact_at is not None
        ]

    def due(self, through: Position) -> bool:
        """Whether a round may begin: the stream has moved past the last one and to where the tables may be
        planned, and none has just failed."""
        self._gates = {t: p for t, p in self._gates.items() if not through.covers(p)}
        return (
            self.goes_on
            and not self._holdoff.holds
            and (self._rounds_end is None or through.covers(self._rounds_end))
        )

    def may_settle(self, error: SyncError) -> bool:
        """Whether the stream may bring what the rows of a chunk refer to: other tables are as they were
        before the last round, by an earlier round or by the stream alone. A few times: the row may be
        one that nobody brings."""
        end = self._rounds_end
        return (
            isinstance(error, OrderError)
            and error.may_come
            and end is not None
            and self._holdoff.failures < ORDER_TRIES
            and any(
                t.copy is Copy.DONE
                or (t.exact_at is not None and not self._source.position(t.exact_at).covers(end))
                for t in self.tables.values()
            )
        )

    def reread(self, table: str, exact_at: str) -> None:
        """Rows of a table were read again (the applier has written that down). One that was renamed just
        now is no part of the sync yet: the next session copies it."""
        state = self.tables.get(table)
        if state is None:
            return
        state.exact_at = exact_at
        if state.copy is Copy.DONE:
            state.copy = Copy.REDO

    def reload(self) -> None:
        """Takes over what has been asked for or planned in the state."""
        before = {t.table for t in self.tables.values() if t.copy is Copy.COPYING}
        self.tables.clear()
        self.tables.update(self._applier.state.tables())
        if self._waits:
            self._wait({t.table for t in self.tables.values() if self._is_left(t)} - before)

    def _wait(self, tables: set[str] | frozenset[str]) -> None:
        """Has these tables planned only when the stream has come to where the source's log ends now. Not
        written down: the next session would wait for an end that lies further on."""
        if tables - self._gates.keys():
            end = self._source.committed_head()
            self._gates |= dict.fromkeys(tables, end)
            event(log, "copy-waits", tables=len(tables), until=end)

    def settles(self, through: Position) -> list[TableState]:
        """The tables that the stream has made exact."""
        if time.monotonic() < self._rests_until or (self._dangling and self._holdoff.holds):
            return []
        return [
            t
            for t in self.tables.values()
            if t.copy is Copy.REDO
            and t.exact_at is not None
            and through.covers(self._source.position(t.exact_at))
        ]

    def settle(self, through: Position) -> bool:
        """Ends the redo of those tables; whether an OrderError was mended by that. The checkpoint must
        already be at `through`: otherwise a crash would replay changes onto newer rows without the redo
        rules. Raises OrderError where rows refer to rows that are not there, although nothing is to come."""
        states = self.settles(through)
        if not states:
            return False
        exact = {t.table for t in states}
        coming = {t.table for t in self.tables.values() if t.copy is not Copy.DONE} - exact
        begun = time.monotonic()
        dangled, self._dangling = self._dangling, True
        self._applier.demand_references(self._known(exact), self._known(coming))
        self._dangling = False
        self._rests_until = time.monotonic() + LOOKED_AT * (time.monotonic() - begun)
        for state in states:
            state.copy = Copy.DONE
            with self._applier.state.transaction():
                self._applier.state.put_table(state)
            if state.table in self._settling:
                self._settling.discard(state.table)
                event(log, "table-copied", table=state.table, rows=state.rows)
        return dangled

    def _known(self, tables: Iterable[str]) -> list[Relation]:
        return [self._relations[t] for t in tables if t in self._relations]

    def round(self, copying: CopyRound, *, stop: Callable[[], bool]) -> None:
        """Copies chunks for a while and closes the round. The caller applies nothing meanwhile."""
        alone = all(t.copy is not Copy.DONE for t in self.tables.values())
        until = time.monotonic() + (ALONE if alone else BESIDE)
        try:
            self._rounds_end = copying.position
            reader = copying.reader()
            try:
                self._plan(reader)
                self._copy(copying, stop=lambda: stop() or time.monotonic() > until)
                if not stop():
                    self._finish(reader)
            finally:
                reader.close()
        finally:
            copying.close()

    def _plan(self, reader: ChunkReader) -> None:
        """Plans the tables that have none. After the round's moment: a row that the plan's blocks do
        not hold was written after it, so the log has it."""
        for state in self.tables.values():
            if state.copy is not Copy.PENDING or state.table in self._gates:
                continue
            relation = self._relations[state.table]
            self._applier.prepare(relation)
            state.sweep = state.sweep or not self._applier.is_empty(relation)
            try:
                plan = reader.plan(relation)
            except StalePlanError:
                event(log, "table-rewritten", table=state.table)
                continue
            state.fingerprint, state.rows_estimated = plan.fingerprint, plan.rows_estimated
            state.exact_at = str(reader.position)
            with self._applier.state.transaction():
                self._applier.state.plan(state, plan.bounds)
            event(
                log,
                "table-planned",
                table=state.table,
                chunks=len(plan.bounds),
                rows=plan.rows_estimated,
            )

    def _copy(self, copying: CopyRound, *, stop: Callable[[], bool]) -> None:
        """Copies what is planned. Chunks whose rows refer to rows that have not come yet are tried
        again, one after the other, for as long as that gets any of them written; then all at once."""
        lanes = Lanes(
            self._source, self._applier, self._relations, self.tables, copying, self._beat, stop
        )
        chunks = [c for c in self._applier.state.chunks() if c.table not in self._gates]
        late = lanes.copy(chunks, LANES)
        while late and not stop():
            again = lanes.copy(list(late), 1)
            if len(again) == len(late):
                lanes.copy_together(again)
                break
            late = again
        self._wait(lanes.stale)
        for table in lanes.stale:
            state = self.tables[table]
            event(log, "table-rewritten", table=table)
            state.copy, state.rows, state.chunks = Copy.PENDING, 0, 0
            with self._applier.state.transaction():
                self._applier.state.put_table(state)

    def _finish(self, reader: ChunkReader) -> None:
        """Puts the tables whose plan is through under redo, deleting what the source does not have."""
        left = {c.table for c in self._applier.state.chunks()}
        for state in self.tables.values():
            if state.copy is not Copy.COPYING or state.table in left:
                continue
            try:
                if state.sweep and not self._swept(reader, state):
                    continue
            finally:
                state.swept = None
            state.copy, state.sweep, state.exact_at = Copy.REDO, False, str(reader.position)
            self._settling.add(state.table)
            with self._applier.state.transaction():
                self._applier.state.put_table(state)

    def _swept(self, reader: ChunkReader, state: TableState) -> bool:
        """Whether the rows that the source does not have are gone from the target; False: the table was
        rewritten meanwhile, and the next round tries again."""
        relation = self._relations[state.table]
        event(log, "table-sweeping", table=state.table)
        self._applier.prepare(relation, create=False)
        keys = _counted(state, beating(self._beat, reader.keys(relation, None)))
        try:
            # Here and not by the applier, which would be in the middle of something. From the first
            # block on the table is locked.
            first = next(keys, None)
        except StalePlanError:
            event(log, "table-rewritten", table=state.table)
            return False
        blocks = keys if first is None else chain([first], keys)
        deleted = self._applier.sweep(relation, blocks, None, str(reader.position))
        event(log, "table-swept", table=state.table, rows=deleted)
        return True


def _counted(state: TableState, blocks: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    """Tells how far a sweep is."""
    state.swept = 0
    for block in blocks:
        state.swept += len(block)
        yield block
