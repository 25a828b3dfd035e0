"""The second way to write a batch: what each row is in the end, old rows out, new rows in."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from appliers.delta import Delta, Op, Run, each
from appliers.sqlite.target import Target
from appliers.sqlite.types import Row
from appliers.sqlite.writer import TargetOf, Writer


class Net:
    """One table's net effect. Rows that swap the values of a unique column (which the source allows
    where its constraint is deferrable) pass, because all that the batch touched is deleted first.

    Keys are SQLite's, so two keys that differ for the source alone (-0 and 0) are one here too.
    """

    def __init__(self, db: sqlite3.Connection, target: Target, writer: Writer) -> None:
        self.target: Final = target
        self._db = db
        self._writer = writer
        self._rows: dict[Row, Row | None] = {}
        self._emptied = False

    def note(self, delta: Delta) -> None:
        target, rows = self.target, self._rows
        if delta.op is Op.TRUNCATE:
            rows.clear()
            self._writer.forget(target)
            self._emptied = True
        elif delta.op is Op.DELETE and delta.before is not None:
            rows[target.key_in(delta.before)] = None
        elif delta.op is Op.UPDATE and delta.after is not None:
            self._note_update(delta.before, delta.after)
        elif delta.after is not None:
            [row] = target.rows([delta.after])
            rows[target.key_of(row)] = row

    def flush(self) -> None:
        """Writes it. Raises IntegrityError where a row that the batch did not touch is in the way."""
        if self._emptied:
            self._db.execute(self.target.empty)
        self._db.executemany(self.target.delete, self._rows)
        self._writer.put(self.target, [r for r in self._rows.values() if r is not None], redo=False)

    def _note_update(self, before: bytes | None, image: bytes) -> None:
        target, rows, writer = self.target, self._rows, self._writer
        key = target.key_in(image)
        old = target.key_in(before) if before is not None else key
        stored = self._stored(old)
        lost = stored is None and old not in rows and not writer.wants(target, old)
        if old != key:
            rows[old] = None
        values = target.relation.values(image)
        if not target.has_gap(values):
            rows[key] = target.convert(values)
            writer.healed += lost
        elif old == key and stored is not None:
            part = target.part(values)
            rows[key] = part.overlaid(part.convert(values), stored)
        else:
            rows[key] = None
            writer.want(target, key, image, lost=lost)

    def _stored(self, key: Row) -> Row | None:
        if key in self._rows or self._emptied:
            return self._rows.get(key)
        row: Row | None = self._db.execute(self.target.select, key).fetchone()
        return row


def write_net(
    db: sqlite3.Connection, target_of: TargetOf, writer: Writer, deltas: Sequence[Delta | Run]
) -> None:
    """Writes the deltas of tables that are not under redo; those that are come in their order."""
    nets: dict[str, Net] = {}
    for delta in each(deltas):
        table = delta.relation.table
        if table in writer.redo:
            continue
        target = target_of(delta.relation)
        if table in nets and nets[table].target is not target:
            # The table was altered in between: its rows so far have the old shape.
            nets.pop(table).flush()
        if table not in nets:
            nets[table] = Net(db, target, writer)
        nets[table].note(delta)
    for net in nets.values():
        net.flush()
    writer.write([d for d in deltas if d.relation.table in writer.redo])
