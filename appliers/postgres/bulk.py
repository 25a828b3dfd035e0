"""Writes many deltas at once: reduced to their net effect per key, in sets, a few statements a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from appliers.batch import Batch
from appliers.delta import UNCHANGED, Delta, Run
from appliers.images import ImageError, compose
from appliers.net import Images, Net, inserts_of, reduced, segments
from appliers.postgres.rows import Rows, reread_rows
from appliers.postgres.staging import ARRAY_PIECE, FIRST, PIECE, about, framed, joined
from appliers.postgres.table import Table
from appliers.postgres.work import OrderNeededError, Work
from appliers.relation import Key, Relation

LARGE: Final = 16 << 20
"""An image of so many bytes goes by COPY: the target would hold an array of it three times."""


@dataclass(slots=True)
class _Effect:
    """What is to be done to one table; `rows` are inserts that needed no reduction."""

    table: Table
    net: Net
    rows: list[bytes]
    written: str | None = None
    """The stage of the rows that were written already, if deletes must not meet them."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """A set-based way to write deltas. The usual one deletes first: what is deleted cannot stand in
    the way of what is written. The others are for targets that check at once what the source has
    checked at the end of its transaction."""

    work: Work
    deletes_last: bool = False
    """For rows that are referred to until the rows that refer to them are written."""
    replace: bool = False
    """Every row that is touched is deleted before any is written, where no foreign key refers to it."""

    def write(self, batch: Batch) -> None:
        for segment in segments(batch.deltas, batch.content):
            if segment.truncates:
                self.work.truncate(segment.truncates)
            effects = [self._effect(r, group) for r, group in segment.groups.items()]
            effects.sort(key=lambda e: self.work.rank(e.table))
            if not self.deletes_last:
                self._delete(effects)
            for effect in effects:
                self.work.subject = effect.table.subject
                if effect.table.relation.table in self.work.redo:
                    self._write_over(effect)
                else:
                    self._write(effect)
            if self.deletes_last:
                self._delete(effects)
            for effect in effects:
                relation = effect.table.relation
                reread_rows(self.work, {(relation, k): i for k, i in effect.net.rereads.items()})

    def _effect(self, relation: Relation, deltas: list[Delta | Run]) -> _Effect:
        table = self.work.table_of(relation)
        if relation.table not in self.work.redo and (rows := inserts_of(deltas)) is not None:
            return _Effect(table, Net(), rows)
        net = reduced(relation, deltas)
        if self.deletes_last:
            for key in net.inserts.keys() & net.deletes.keys():
                del net.deletes[key]
                net.updates[key] = net.inserts.pop(key)
        if self.replace and not table.target.referenced:
            self._replace(table, net)
        return _Effect(table, net, [])

    def _replace(self, table: Table, net: Net) -> None:
        """Makes updates into deletes and inserts, UNCHANGED values taken from the rows that are there."""
        relation = table.relation
        partial = {k: i for k, i in net.updates.items() if relation.has_unchanged(i)}
        for present, group in self._groups(table, partial).items():
            rows = joined(table.rows_of(present), iter(group.values()))
            stage, _ = self.work.staging.fill(table, present, rows)
            sql = table.completed_staged(stage, present)
            found = self.work.session.raw_rows(sql, binary=table.binary)
            whole = {relation.key(i): i for i in (compose(relation.format, v) for v in found)}
            if not whole.keys() <= group.keys():
                # The target prints its keys otherwise than the source.
                whole = Rows(self.work).completed(table, group)
            net.inserts |= whole
        for key, image in net.updates.items():
            if key not in partial:
                net.inserts[key] = image
            elif key not in net.inserts:
                net.rereads[key] = image
        net.moved |= net.updates.keys()
        net.deletes |= net.updates
        net.updates = {}

    def _delete(self, effects: Sequence[_Effect]) -> None:
        for effect in reversed(effects):
            table, images = effect.table, effect.net.deletes
            moved = effect.net.moved & images.keys()
            if moved and table.has_followers and not (self.deletes_last or self.replace):
                # Sets know deletes and inserts, but no change of a key, which others may follow.
                raise OrderNeededError
            if images:
                self.work.subject = table.subject
                stage = self._staged_keys(table, images.values())
                if effect.net.moved and table.relation.table not in self.work.redo:
                    lost = self._missing(table, stage, images)
                    self.work.healed += len(lost.keys() & effect.net.moved)
                if moved and table.has_followers:
                    self._delete_moved(effect, [images[k] for k in moved])
                self.work.session.execute(table.delete_staged(stage, effect.written))

    def _delete_moved(self, effect: _Effect, images: Sequence[bytes]) -> None:
        """Deletes what has another key now. Raises OrderError where others would go with it."""
        table, session = effect.table, self.work.session
        stage = self._staged_keys(table, images, "moved")
        session.execute(table.delete_unfollowed(stage, effect.written))
        if session.execute(table.staged_there(stage, effect.written))[1]:
            raise table.held()

    def _staged_keys(self, table: Table, images: Iterable[bytes], purpose: str = "delete") -> str:
        key = table.relation.key_columns
        rows = joined(table.rows_of(key), iter(images))
        return self.work.staging.fill(table, key, rows, purpose)[0]

    def _write(self, effect: _Effect) -> None:
        table, net = effect.table, effect.net
        if net.updates:
            self._update(table, net)
        rows: Sequence[bytes] = effect.rows or list(net.inserts.values())
        if rows and self.deletes_last and net.deletes and not table.bytewise:
            # A row may be there under a key that is unlike and equal, numeric 1.0 and 1.00: it is this one.
            stage, _ = self.work.staging.fill(
                table, table.written, joined(table.rows_of(table.written), iter(rows)), "over"
            )
            effect.written = stage
            for sql in table.upsert_staged(stage):
                self.work.session.execute(sql)
        elif rows:
            copied = joined(table.rows_of(table.written), iter(rows))
            sql = table.copy_sql(table.target.sql_name, table.written)
            self.work.session.copy_in(sql, framed(table, copied))

    def _update(self, table: Table, net: Net) -> None:
        partial: Images = {}
        updated = self._updated_at_once(table, table.written, net.updates, partial)
        if updated is None or updated < len(net.updates) - len(partial):
            rows = (data for _, data in _whole_rows(table, net.updates, partial))
            stage, staged = self.work.staging.fill(table, table.written, rows)
            if updated is None:
                updated = self._updated(table, stage, table.written)
            if updated < staged:
                whole = {k: i for k, i in net.updates.items() if k not in partial}
                missing = self._missing(table, stage, whole)
                self.work.healed += len(missing)
                Rows(self.work).upsert(table, missing.values(), stale=False)
        if partial:
            missing = self._update_partial(table, partial)
            self.work.healed += len(missing)
            net.rereads |= missing

    def _updated_at_once(
        self, table: Table, columns: Sequence[int], images: Images, partial: Images
    ) -> int | None:
        """How many rows were found by an UPDATE that took theirs as values; None, with nothing done, if
        they have to be staged for it. Those with UNCHANGED values are put into `partial`."""
        arrays = self.work.staging.arrays(table, columns)
        sql = table.update_staged(arrays.rows, columns) if arrays else None
        if not arrays or not sql or max(map(len, images.values())) > LARGE:
            return None
        rows = _whole_rows(table, images, partial, arrays.elements, ARRAY_PIECE)
        return self.work.session.touched(sql, (arrays.value(*some) for some in rows))

    def _write_over(self, effect: _Effect) -> None:
        """The rules of a redo."""
        table, net, work = effect.table, effect.net, self.work
        if not net.updates and not net.inserts:
            return
        partial: Images = {}
        rows = _whole_rows(table, net.updates | net.inserts, partial)
        stage, staged = work.staging.fill(table, table.written, (d for _, d in rows), "over")
        if staged:
            effect.written = stage if self.deletes_last else None
            work.clear(table, stage, table.written)
            for sql in table.upsert_staged(stage):
                work.session.execute(sql)
        if partial:
            net.rereads |= self._update_partial(table, partial)

    def _update_partial(self, table: Table, images: Images) -> Images:
        """Rows with UNCHANGED values, by the set of columns that they have; gives those not there."""
        relation, work = table.relation, self.work
        missing: Images = {}
        for present, group in self._groups(table, images).items():
            redo = relation.table in work.redo
            updated = None if redo else self._updated_at_once(table, present, group, {})
            if updated == len(group):
                continue
            rows = joined(table.rows_of(present), iter(group.values()))
            stage, staged = work.staging.fill(table, present, rows)
            if redo:
                work.clear(table, stage, present)
            if updated is None:
                updated = self._updated(table, stage, present)
            if updated < staged:
                missing |= self._missing(table, stage, group)
        return missing

    def _groups(self, table: Table, images: Images) -> dict[tuple[int, ...], Images]:
        """Images by the set of columns that they have and that are written."""
        groups: dict[tuple[int, ...], Images] = {}
        for key, image in images.items():
            values = table.relation.values(image)
            present = tuple(i for i in table.written if values[i] is not UNCHANGED)
            groups.setdefault(present, {})[key] = image
        return groups

    def _updated(self, table: Table, stage: str, columns: Sequence[int]) -> int:
        sql = table.update_staged(stage, columns)
        # Without a column to set, nobody has counted: whether rows are missing must be asked.
        return self.work.session.execute(sql)[1] if sql else -1

    def _missing(self, table: Table, stage: str, images: Images) -> Images:
        """Those of the staged rows whose keys the target does not have. None, where a trigger of the
        target has refused the update."""
        keys = self.work.session.raw_rows(table.missing_staged(stage), binary=table.binary)
        try:
            return {key: images[key] for key in map(_key, keys)}
        except KeyError:
            # The target prints its keys otherwise than the source (numeric(10,2) against numeric).
            return Rows(self.work).missing(table, images)


def _key(values: tuple[bytes | None, ...]) -> Key:
    return Key(values)  # type: ignore[arg-type]


def _whole_rows(
    table: Table,
    images: Images,
    partial: Images,
    rows: Callable[[list[bytes]], bytes] | None = None,
    piece: int = PIECE,
) -> Iterator[tuple[int, bytes]]:
    """Whole images, some at a time: their number, and what `rows` makes of them, which are rows for
    COPY if nothing else is said. Puts those with UNCHANGED values into `partial`.

    Nobody asks each image whether it is whole: making the row fails if it is not.
    """
    rows, has_unchanged = rows or table.rows_of(table.written), table.relation.has_unchanged
    keys, values = iter(images), iter(images.values())
    number = FIRST
    while some := list(islice(values, number)):
        named = list(islice(keys, len(some)))
        try:
            data = rows(some)
        except ImageError:
            partial |= {k: i for k, i in zip(named, some, strict=True) if has_unchanged(i)}
            some = [i for k, i in zip(named, some, strict=True) if k not in partial]
            data = rows(some)
        if data:
            yield len(some), data
            number = about(number, data, piece)
