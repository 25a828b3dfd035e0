"""Writes deltas one by one in the source's order: small batches, and those that a constraint forbids
to reduce. All statements travel in one pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from psycopg import pq

from appliers.delta import UNCHANGED, Delta, Op, Value
from appliers.images import compose
from appliers.net import merged
from appliers.postgres.connection import Step, demand
from appliers.postgres.table import Table
from appliers.postgres.work import OrderNeededError, Work
from appliers.relation import Key, Relation


class _Note(NamedTuple):
    """What a delta was sent as, to be gone through if an update has found no row."""

    step: int
    """Its statement in the pipeline; -1 where there is none."""
    relation: Relation
    key: Key
    image: bytes | None
    """None for a row that is deleted."""
    whole: bool
    """Whether the row is there afterwards without more ado, if its statement found it."""


class Rows:
    """One pipeline, or one between truncates."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._steps: list[Step] = []
        self._subjects: list[str] = []
        self._notes: list[_Note] = []
        self._rereads_due = False
        self._left: list[tuple[int, Table]] = []
        """Queries that must find no row."""

    def write(self, deltas: Iterable[Delta]) -> None:
        truncates: list[Delta] = []
        for delta in deltas:
            if truncates and (delta[0] is not Op.TRUNCATE or delta.commit != truncates[0].commit):
                self._truncate(truncates)
                truncates = []
            if delta[0] is Op.TRUNCATE:
                truncates.append(delta)
            else:
                self._take(delta)
        if truncates:
            self._truncate(truncates)
        self._run()

    def upsert(self, table: Table, images: Iterable[bytes], *, stale: bool) -> None:
        """Writes whole rows over what is there; `stale` deletes rows of other keys that are in the way."""
        for image in images:
            self._upsert(table, table.values(image), stale=stale)
            if len(self._steps) > 1000:
                self._run()
        self._run()

    def missing(self, table: Table, images: Mapping[Key, bytes]) -> dict[Key, bytes]:
        """Those of the rows that are not there, whatever the target makes of their keys."""
        results = self._each(table, table.update_row(()), images)
        return {k: i for (k, i), r in zip(images.items(), results, strict=True) if not found(r)}

    def completed(self, table: Table, images: Mapping[Key, bytes]) -> dict[Key, bytes]:
        """Those of the rows that are there, their UNCHANGED values taken from the target."""
        relation = table.relation
        whole = {}
        results = self._each(table, table.select_row, images)
        for (key, image), result in zip(images.items(), results, strict=True):
            if result.ntuples:
                there = [result.get_value(0, c) for c in range(result.nfields)]
                whole[key] = merged(relation, compose(relation.format, there), image)
        return whole

    def _each(
        self, table: Table, sql: str, images: Mapping[Key, bytes]
    ) -> Sequence[pq.abc.PGresult]:
        """What a query by key gives for each of the images."""
        if table.binary:
            # Results come in text. Equal types print equal keys: hardly ever needed.
            raise OrderNeededError
        session = self._work.session
        name = session.prepare(sql, table.types)
        session.send([Step(name, table.key_values(i), None) for i in images.values()])  # type: ignore[arg-type]
        results = session.receive()
        demand(results[-1])
        return results

    def _take(self, delta: Delta) -> None:
        op, relation, before, after, _, _ = delta
        table = self._work.table_of(relation)
        if op is Op.DELETE:
            assert before is not None
            self._delete(table, before)
            return
        assert after is not None
        moved = (
            op is Op.UPDATE and before is not None and relation.key(before) != relation.key(after)
        )
        values = table.values(after)
        if moved and before is not None:
            self._move(table, before, values)
        if UNCHANGED in values:
            self._write_partial(table, after, values, moved=moved)
        else:
            self._write_whole(table, after, values, fresh=moved or op is not Op.UPDATE)

    def _truncate(self, deltas: Sequence[Delta]) -> None:
        self._run()
        self._work.truncate([d.relation for d in deltas])

    def _move(self, table: Table, before: bytes, values: Sequence[Value]) -> None:
        """Clears the old key. Where foreign keys of others follow the row, it is given the new one: what
        comes behind writes it over itself. In a redo a row of the new key may be there already."""
        relation, old = table.relation, table.key_values(before)
        redo = relation.table in self._work.redo
        if not table.has_followers:
            step = self._send(table, table.delete_row, old)
        else:
            present = tuple(i for i, v in enumerate(values) if v is not UNCHANGED)
            given = [None if v is UNCHANGED else v for v in values]
            both = [*given, *(old[i] for i in relation.key_columns)]
            if redo:
                for sql in table.stale_row(present):
                    self._send(table, sql, given)
            step = -1
            if table.movable:
                step = self._send(table, table.move_row(present, free=redo), both)
            if redo or not table.movable:
                delete, look = table.leave_row
                last = self._send(table, delete, both)
                step = last if step < 0 else step
                self._left.append((self._send(table, look, both), table))
        self._notes.append(_Note(step, relation, relation.key(before), None, whole=True))

    def _delete(self, table: Table, image: bytes) -> None:
        relation = table.relation
        self._send(table, table.delete_row, table.key_values(image))
        self._notes.append(_Note(-1, relation, relation.key(image), None, whole=True))

    def _write_whole(
        self, table: Table, image: bytes, values: Sequence[Value], *, fresh: bool
    ) -> None:
        relation = table.relation
        redo = relation.table in self._work.redo
        step = -1
        if fresh or redo:
            self._upsert(table, values, stale=redo)
        else:
            step = self._send(table, table.update_row(table.written), values)
        self._notes.append(_Note(step, relation, relation.key(image), image, whole=True))

    def _write_partial(
        self, table: Table, image: bytes, values: Sequence[Value], *, moved: bool
    ) -> None:
        relation = table.relation
        step = -1
        if moved:
            self._rereads_due = True
        else:
            present = tuple(i for i, v in enumerate(values) if v is not UNCHANGED)
            given = [None if v is UNCHANGED else v for v in values]
            if relation.table in self._work.redo:
                for sql in table.stale_row(present):
                    self._send(table, sql, given)
            step = self._send(table, table.update_row(present), given)
        self._notes.append(_Note(step, relation, relation.key(image), image, whole=False))

    def _upsert(self, table: Table, values: Sequence[Value], *, stale: bool) -> None:
        if stale:
            for sql in table.stale_row(table.written):
                self._send(table, sql, values)
        for sql in table.insert_row:
            self._send(table, sql, values)

    def _send(self, table: Table, sql: str, values: Sequence[Value]) -> int:
        self._work.subject = table.subject
        types, formats = table.types, table.formats
        if len(values) > len(types):
            types += table.key_types
            formats = formats and [1] * len(types)
        name = self._work.session.prepare(sql, types)
        return self._add(Step(name, values, formats), table.subject)  # type: ignore[arg-type]

    def _add(self, step: Step, subject: str) -> int:
        self._steps.append(step)
        self._subjects.append(subject)
        return len(self._steps) - 1

    def _run(self) -> None:
        """Sends what has gathered and sees to the updates that found no row."""
        if not self._steps:
            return
        session = self._work.session
        session.send(self._steps)
        results = session.receive()
        self._work.subject = self._subjects[len(results) - 1]
        demand(results[-1])
        for step, table in self._left:
            if found(results[step]):
                raise table.held()
        self._left = []
        notes, self._notes = self._notes, []
        self._steps, self._subjects = [], []
        if self._rereads_due or any(n.step >= 0 and not found(results[n.step]) for n in notes):
            self._rereads_due = False
            self._heal(notes, results)

    def _heal(self, notes: Iterable[_Note], results: Sequence[pq.abc.PGresult]) -> None:
        """Goes through the deltas in order to see which rows are missing at the end."""
        whole: dict[tuple[Relation, Key], bytes] = {}
        partial: dict[tuple[Relation, Key], bytes] = {}
        gone: set[tuple[Relation, Key]] = set()
        work = self._work
        healed = 0
        for note in notes:
            at = (note.relation, note.key)
            lost = note.step >= 0 and not found(results[note.step])
            known = at in whole or at in partial or at in gone
            if lost and note.relation.table not in work.redo and not known:
                healed += 1
            if note.image is None:
                gone.add(at)
            if note.image is None or note.whole:
                whole.pop(at, None)
                partial.pop(at, None)
                if lost and note.image is not None:
                    whole[at] = note.image
            elif lost and at in whole:
                whole[at] = merged(note.relation, whole[at], note.image)
            elif lost or note.step < 0:
                whole.pop(at, None)
                partial[at] = note.image
        work.healed += healed
        for (relation, _), image in whole.items():
            table = work.table_of(relation)
            self._upsert(table, table.values(image), stale=False)
        self._run()
        reread_rows(work, partial)


def reread_rows(work: Work, partial: dict[tuple[Relation, Key], bytes]) -> None:
    """Reads rows again, by relation, and writes what the source has of them."""
    images: dict[Relation, list[bytes]] = {}
    for (relation, _), image in partial.items():
        images.setdefault(relation, []).append(image)
    for relation, wanted in images.items():
        table, rows = work.reread(relation, wanted)
        Rows(work).upsert(table, rows, stale=True)


def found(result: pq.abc.PGresult) -> bool:
    """Whether a statement touched a row."""
    return bool(result.command_tuples)
