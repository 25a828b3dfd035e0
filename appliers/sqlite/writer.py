"""Writes deltas and rows into the tables, inside a transaction that the applier holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain, groupby
from operator import itemgetter, length_hint
from typing import cast

from appliers.batch import Rereader
from appliers.delta import Delta, Op, Run
from appliers.images import ImageError
from appliers.relation import Relation
from appliers.sqlite.failures import is_unique
from appliers.sqlite.target import Part, Target
from appliers.sqlite.types import Row

TargetOf = Callable[[Relation], Target]

_run_of = itemgetter(0, 1)


class Writer:
    """The writing of one batch: in the source's order, a run of like deltas by one statement.

    A net effect per key is not made first: it costs about 2 µs a row to read keys and to keep a
    dictionary, an UPDATE of a row in SQLite's cache 4 µs, so that it would pay only where most
    deltas of a batch hit the same few rows.

    Rows that have to be read again are read once, at the end of the batch (`read_again`). In between
    they are as if not copied yet, and what is read contains the whole batch, as a chunk would.
    """

    def __init__(self, db: sqlite3.Connection, target_of: TargetOf, redo: Iterable[str]) -> None:
        self._db = db
        self._target_of = target_of
        self.redo = set(redo)
        """Tables under the redo rules."""
        self.healed = 0
        self._deltas: Sequence[Delta | Run] = ()
        self._gone: dict[Target, set[Row]] = {}
        self._to_read: dict[Target, dict[Row, bytes]] = {}
        """Images that hold the keys of the rows to be read again."""

    def write(self, deltas: Sequence[Delta | Run]) -> None:
        """Raises IntegrityError where the order of the deltas does not keep within a constraint."""
        self._deltas = deltas
        self._gone.clear()
        for (op, relation), some in groupby(deltas, _run_of):
            target = self._target_of(relation)
            redo = relation.table in self.redo
            if op is Op.INSERTS:
                rows = chain.from_iterable(r.after for r in cast("Iterable[Run]", some))
                self.put(target, target.rows(rows), redo=redo)
                continue
            run = cast("Iterable[Delta]", some)
            if op is Op.UPDATE:
                self._update(target, run, redo=redo)
            elif op is Op.DELETE:
                self._db.executemany(target.delete, target.keys(_before(d) for d in run))
            elif op is Op.TRUNCATE:
                self._db.execute(target.empty)
                self.forget(target)
            else:
                self.put(target, target.rows(_after(d) for d in run), redo=redo)

    def put(self, target: Target, rows: Sequence[Row], *, redo: bool) -> None:
        """Writes whole rows over what has their key. In a redo, rows that stand in the way go."""
        if redo:
            self._each(target.upsert, rows, partial(self.replace, target))
        else:
            self._db.executemany(target.upsert, rows)

    def replace(self, target: Target, row: Row) -> None:
        """Writes a row and deletes those that stand in its way."""
        execute = self._db.execute
        for other in target.in_the_way:
            execute(other.sql, tuple(row[i] for i in other.pick))
        try:
            execute(target.upsert, row)
        except sqlite3.IntegrityError as e:
            # OR REPLACE would put a default where NOT NULL refuses NULL.
            if not is_unique(e) or any(row[i] is None for i in target.not_null):
                raise
            for other in target.in_the_way:
                # Two rows of the source, both right.
                if other.look and execute(other.look, tuple(row[i] for i in other.pick)).fetchone():
                    raise
            # An index with a WHERE or an expression: only SQLite knows the row in the way. It deletes
            # that one without firing triggers.
            if execute(target.update_or_replace, row).rowcount == 0:
                execute(target.insert_or_replace, row)

    def read_again(self, reread: Rereader, deltas: Sequence[Delta | Run]) -> dict[str, str]:
        """Reads the rows that this batch could not write whole, and writes them; gives the tables
        with the position from which each is exact."""
        exact_at = {}
        for wanted, images in self._to_read.items():
            relation = wanted.relation
            found = reread(relation, list(images.values()), deltas[-1].commit)
            target = self._target_of(found.relation)
            self.put(target, target.rows(found.images), redo=True)
            exact_at[relation.table] = found.position
        self._to_read.clear()
        return exact_at

    def want(self, target: Target, key: Row, image: bytes, *, lost: bool) -> None:
        """Has a row read again; `lost` if it should have been there."""
        wanted = self._to_read.setdefault(target, {})
        if lost and key not in wanted:
            self.healed += 1
        wanted[key] = image

    def wants(self, target: Target, key: Row) -> bool:
        return key in self._to_read.get(target, ())

    def forget(self, target: Target) -> None:
        """The table was emptied: nothing of it is to be read again."""
        self._to_read.pop(target, None)

    def _each(self, sql: str, rows: Sequence[Row], rescue: Callable[[Row], None]) -> int:
        """Runs `sql` for each row, `rescue` for those that meet another row's unique value; the
        number of rows that `sql` touched, -1 if a row was rescued."""
        rest = iter(rows)
        rescued = False
        while True:
            try:
                touched = self._db.executemany(sql, rest).rowcount
            except sqlite3.IntegrityError as e:
                if not is_unique(e) or not self._db.in_transaction:
                    raise
                # executemany takes the rows one by one, so the refused one was the last taken.
                rescue(rows[len(rows) - length_hint(rest) - 1])
                rescued = True
            else:
                return -1 if rescued else touched

    def _update(self, target: Target, run: Iterable[Delta], *, redo: bool) -> None:
        """Updates of one relation, in order: those that carry every column and keep their key
        together, the others by what they carry."""
        relation, convert, has_gap = target.relation, target.convert, target.has_gap
        values, key_of = relation.values, relation.key
        whole: list[Row] = []
        gaps: list[tuple[Part, Row, bytes]] = []
        for delta in run:
            before, after = delta.before, _after(delta)
            row = values(after)
            moved = before is not None and key_of(before) != key_of(after)
            if not (moved or has_gap(row)):
                if gaps:
                    self._update_partly(target, gaps, redo=redo)
                    gaps = []
                whole.append(convert(row))
                continue
            if whole:
                self._update_whole(target, whole, redo=redo)
                whole = []
            if moved:
                if gaps:
                    self._update_partly(target, gaps, redo=redo)
                    gaps = []
                self._move(target, delta, row, redo=redo)
            else:
                part = target.part(row)
                gaps.append((part, part.convert(row), after))
        if whole:
            self._update_whole(target, whole, redo=redo)
        if gaps:
            self._update_partly(target, gaps, redo=redo)

    def _update_whole(self, target: Target, rows: Sequence[Row], *, redo: bool) -> None:
        if redo:
            self.put(target, rows, redo=True)
        elif self._db.executemany(target.update, rows).rowcount != len(rows):
            latest = {target.key_of(row): row for row in rows}
            for key, row in latest.items():
                if not self.is_there(target, key):
                    self._db.execute(target.upsert, row)
                    self.healed += not self.wants(target, key)

    def _update_partly(
        self, target: Target, gaps: Iterable[tuple[Part, Row, bytes]], *, redo: bool
    ) -> None:
        """Updates that do not carry every column, those that carry the same ones together."""
        for part, group in groupby(gaps, itemgetter(0)):
            some = list(group)
            rows = [values for _, values, _ in some]
            if redo:
                touched = self._each(part.update, rows, partial(self._replace_part, target, part))
            else:
                touched = self._db.executemany(part.update, rows).rowcount
            if touched == len(rows):
                continue
            gone = self._deleted(target)
            for _, _, image in some:
                key = target.key_in(image)
                if not self.is_there(target, key):
                    self.want(target, key, image, lost=not redo and key not in gone)

    def _deleted(self, target: Target) -> set[Row]:
        """Keys of rows that these deltas delete: that an update does not find them is no wonder.

        Looked for once a batch: of minimal row images, every second delta may begin a run that asks."""
        gone = self._gone.get(target)
        if gone is None:
            gone = self._gone[target] = {
                target.key_in(d.before)
                for d in self._deltas
                if d.op is Op.DELETE and d.relation is target.relation and d.before is not None
            }
        return gone

    def _replace_part(self, target: Target, part: Part, values: Row) -> None:
        """`replace`, of a row of which the other columns stay as they are."""
        new = dict(zip(part.present, values, strict=True))
        key = tuple(new[i] for i in target.key)
        stored = self._db.execute(target.select, key).fetchone()
        self.replace(target, part.overlaid(values, stored))

    def _move(self, target: Target, delta: Delta, row: Row, *, redo: bool) -> None:
        """An update that changes the key."""
        old = target.key_in(_before(delta))
        lost = self._db.execute(target.delete, old).rowcount == 0
        lost = lost and not redo and not self.wants(target, old)
        image = _after(delta)
        if target.has_gap(row):
            self.want(target, target.key_in(image), image, lost=lost)
        else:
            self.put(target, [target.convert(row)], redo=redo)
            self.healed += lost

    def is_there(self, target: Target, key: Row) -> bool:
        return self._db.execute(target.exists, key).fetchone() is not None


def _before(delta: Delta) -> bytes:
    if delta.before is None:
        raise ImageError(f"{delta.op.label} of {delta.relation.table} without the old key")
    return delta.before


def _after(delta: Delta) -> bytes:
    if delta.after is None:
        raise ImageError(f"{delta.op.label} of {delta.relation.table} without a row")
    return delta.after
