"""Writes deltas one by one in the source's order: small batches, and those that a constraint forbids
to reduce. All statements travel in one message, with whatever goes before and after them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from appliers.delta import Delta, Op
from appliers.lines import GAP
from appliers.mysql import staged
from appliers.mysql.session import CHECKED, UNCHECKED, Outcome
from appliers.mysql.staging import joined
from appliers.mysql.table import Table
from appliers.mysql.work import Work
from appliers.net import merged
from appliers.relation import Key, Relation

MANY = 1000
"""Statements of `upsert` that gather before they are sent, and rows from which a set is staged."""


class _Note(NamedTuple):
    """What a delta was sent as, to be gone through if an update has found no row."""

    step: int
    """Its statement in the message; -1 where there is none."""
    relation: Relation
    key: Key
    image: bytes | None
    """None for a row that is deleted."""
    whole: bool
    """Whether the row is there afterwards without more ado, if its statement found it."""


class Rows:
    """One message, or one between truncates."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._steps: list[bytes] = []
        self._subjects: list[str] = []
        self._notes: list[_Note] = []
        self._rereads_due = False

    def write(
        self, deltas: Iterable[Delta], before: Iterable[bytes] = (), after: Iterable[bytes] = ()
    ) -> tuple[list[Outcome], list[Outcome]]:
        """Runs `before`, the deltas and `after`; returns the outcomes of `before` and `after`."""
        ahead, behind = list(before), list(after)
        first: list[Outcome] = []
        for sql in ahead:
            self._add(sql, "")
        truncates: list[Delta] = []
        for delta in deltas:
            if truncates and (delta[0] is not Op.TRUNCATE or delta.commit != truncates[0].commit):
                first += self._truncate(truncates)
                truncates = []
            if delta[0] is Op.TRUNCATE:
                truncates.append(delta)
            else:
                self._take(delta)
        if truncates:
            first += self._truncate(truncates)
        for sql in behind:
            self._add(sql, "")
        last = self._run()
        first += last
        return first[: len(ahead)], last[len(last) - len(behind) :]

    def upsert(self, table: Table, images: Iterable[bytes], *, stale: bool) -> None:
        """Writes whole rows over what is there; `stale` deletes rows of other keys that are in the way."""
        for image in images:
            self._upsert(table, table.row_fields(image), stale=stale)
            if len(self._steps) > MANY:
                self._run()
        self._run()

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
        fields = table.row_fields(after)
        if moved and before is not None:
            self._move(table, before, fields)
        if GAP in fields:
            self._write_partial(table, after, fields, moved=moved)
        else:
            self._write_whole(table, after, fields, fresh=moved or op is not Op.UPDATE)

    def _truncate(self, deltas: Sequence[Delta]) -> list[Outcome]:
        outcomes = self._run()
        self._work.truncate([d.relation for d in deltas])
        return outcomes

    def _move(self, table: Table, before: bytes, fields: Sequence[bytes]) -> None:
        """Clears the old key. Where foreign keys of others follow the row, it is given the new one: what
        follows writes it over itself. In a redo a row of the new key may be there already."""
        old = table.fields(before)
        if not self._work.tables.has_followers(table):
            step = self._send(table, table.delete_row(old))
        elif table.relation.table not in self._work.redo:
            step = self._send(table, table.move_row(old, fields))
        else:
            step = self._send_leaving(table, table.delete_row(old))
        key = table.relation.key(before)
        self._notes.append(_Note(step, table.relation, key, None, whole=True))

    def _delete(self, table: Table, image: bytes) -> None:
        relation = table.relation
        self._send(table, table.delete_row(table.fields(image)))
        self._notes.append(_Note(-1, relation, relation.key(image), None, whole=True))

    def _write_whole(
        self, table: Table, image: bytes, fields: Sequence[bytes], *, fresh: bool
    ) -> None:
        relation = table.relation
        redo = relation.table in self._work.redo
        step = -1
        if fresh or redo:
            self._upsert(table, fields, stale=redo)
        else:
            step = self._send(table, table.update_row(table.written, fields))
        self._notes.append(_Note(step, relation, relation.key(image), image, whole=True))

    def _write_partial(
        self, table: Table, image: bytes, fields: Sequence[bytes], *, moved: bool
    ) -> None:
        relation = table.relation
        redo = relation.table in self._work.redo
        present = tuple(i for i in table.written if fields[i] != GAP)
        step = -1
        if moved or (redo and table.is_half_given(present)):
            self._rereads_due = True
        else:
            if redo:
                for sql in table.stale_row(present, fields):
                    self._send_leaving(table, sql)
            step = self._send(table, table.update_row(present, fields))
        self._notes.append(_Note(step, relation, relation.key(image), image, whole=False))

    def _upsert(self, table: Table, fields: Sequence[bytes], *, stale: bool) -> None:
        if stale:
            for sql in table.stale_row(table.written, fields):
                self._send_leaving(table, sql)
        for sql in table.upsert_row(fields):
            self._send(table, sql)

    def _send_leaving(self, table: Table, sql: bytes) -> int:
        """A delete of a row that will come back: see `Work.leaving`."""
        if not (self._work.session.checks and self._work.tables.has_followers(table)):
            return self._send(table, sql)
        self._send(table, UNCHECKED.encode())
        step = self._send(table, sql)
        self._send(table, CHECKED.encode())
        return step

    def _send(self, table: Table, sql: bytes) -> int:
        return self._add(sql, table.subject)

    def _add(self, sql: bytes, subject: str) -> int:
        self._steps.append(sql)
        self._subjects.append(subject)
        return len(self._steps) - 1

    def _run(self) -> list[Outcome]:
        """Sends what has gathered and sees to the updates that found no row."""
        if not self._steps:
            return []
        outcomes: list[Outcome] = []
        try:
            self._work.session.run_all(self._steps, outcomes)
        except BaseException:
            if UNCHECKED.encode() in self._steps and self._work.session.is_open:
                self._work.session.execute(CHECKED)
            self._work.subject = self._subjects[min(len(outcomes), len(self._steps) - 1)]
            raise
        notes, self._notes = self._notes, []
        self._steps, self._subjects = [], []
        if self._rereads_due or any(n.step >= 0 and not outcomes[n.step].touched for n in notes):
            self._rereads_due = False
            self._heal(notes, outcomes)
        return outcomes

    def _heal(self, notes: Iterable[_Note], outcomes: Sequence[Outcome]) -> None:
        """Goes through the deltas in order to see which rows are missing at the end."""
        whole: dict[tuple[Relation, Key], bytes] = {}
        partial: dict[tuple[Relation, Key], bytes] = {}
        gone: set[tuple[Relation, Key]] = set()
        work = self._work
        healed = 0
        for note in notes:
            at = (note.relation, note.key)
            lost = note.step >= 0 and not outcomes[note.step].touched
            known = at in whole or at in partial or at in gone
            if note.image is None:
                gone.add(at)
            if lost and note.relation.table not in work.redo and not known:
                healed += 1
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
            self._upsert(table, table.fields(image), stale=False)
        self._run()
        reread_rows(work, partial)


def reread_rows(work: Work, partial: dict[tuple[Relation, Key], bytes]) -> None:
    """Reads rows again, by relation, and writes what the source has of them."""
    images: dict[Relation, list[bytes]] = {}
    for (relation, _), image in partial.items():
        images.setdefault(relation, []).append(image)
    for relation, wanted in images.items():
        table, rows = work.reread(relation, wanted)
        work.subject = table.subject
        if work.may_stage and (len(rows) > MANY or work.dear):
            write_over(work, table, rows)
        else:
            Rows(work).upsert(table, rows, stale=True)


def write_over(work: Work, table: Table, images: Iterable[bytes]) -> int:
    """Writes whole rows as a set over what is there, and deletes rows of other keys that are in the
    way; returns their number."""
    items = iter(images)
    rows = 0
    while some := list(islice(items, 50_000)):
        lines = joined(table.rows_of(table.written), iter(some))
        rows += overwrite(work, table, *work.staging.fill(table, table.written, lines, "over"))
    return rows


def overwrite(work: Work, table: Table, stage: str, number: int) -> int:
    """Writes `number` whole rows that are staged over what is there."""
    if not number:
        return 0
    with work.leaving(table):
        for found in staged.stale(table, stage, table.written, dear=work.dear):
            work.delete(table, found)
    if work.references is not None:
        work.references.gone(table, staged.found(table, stage))
        kept = work.staging.more()
        work.session.execute(
            f"CREATE TEMPORARY TABLE {kept} (PRIMARY KEY ({staged.NUMBER})) ENGINE = InnoDB"
            f" SELECT * FROM {stage}"
        )
        work.references.written(table, kept)
    for sql in staged.upsert(table, stage, simple=work.is_simple(table)):
        work.session.run(sql)
    return number
