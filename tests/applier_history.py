"""Random histories of a table, and a sync that is led through them: the model of copy and redo.

The source is a list of states, one per committed transaction. Chunks and rereads take what they read
from states that are later than what has been applied, as a source under load gives them.
"""

from __future__ import annotations

import itertools
import random
from typing import Final, NamedTuple

from appliers.batch import Chunk
from appliers.checkpoint import Copy, TableState
from appliers.delta import UNCHANGED, Delta
from tests.applier_bed import TABLE, Bed, Item, Rereads, position

Rows = dict[int, Item]


class Event(NamedTuple):
    """One change: `item` None is a delete of `key`; `key` None an insert; both an update."""

    key: int | None
    item: Item | None
    bound: bool = False
    """One statement with the event after it, which makes good what this one violates."""


class History:
    """`states[n]` is the source after `transactions[:n]`. Unique values are unique in every state, but
    within a transaction two rows may swap theirs, as a deferrable constraint allows."""

    def __init__(self, seed: int, transactions: int, keys: int) -> None:
        self._random: Final = random.Random(seed)
        self._keys: Final = keys
        self._codes: Final = [f"code {n}" for n in range(keys)]
        self._rows: Rows = {k: Item(k, f"code {k}", 0, f"big {k}") for k in range(keys // 2)}
        self.states: Final[list[Rows]] = [dict(self._rows)]
        self.transactions: Final[list[list[Event]]] = []
        for _ in range(transactions):
            events: list[Event] = []
            for _ in range(self._random.randint(1, 3)):
                self._change(events)
            self.transactions.append(events)
            self.states.append(dict(self._rows))

    def _change(self, events: list[Event]) -> None:
        draw, rows = self._random, self._rows
        choice = draw.random()
        key = draw.randrange(self._keys)
        if choice < 0.25:
            if key not in rows:
                rows[key] = Item(key, draw.choice(self._free()), draw.randint(0, 9), self._big())
                events.append(Event(None, rows[key]))
        elif choice < 0.4:
            if rows.pop(key, None) is not None:
                events.append(Event(key, None))
        elif choice < 0.5:
            self._swap(events)
        elif rows:
            self._update(events, draw.choice(sorted(rows)))

    def _update(self, events: list[Event], key: int) -> None:
        draw, rows = self._random, self._rows
        new = draw.randrange(self._keys) if draw.random() < 0.25 else key
        if new in rows:
            new = key
        old = rows.pop(key)
        code = draw.choice([*self._free(), old.code]) if draw.random() < 0.4 else old.code
        big = old.big if draw.random() < 0.6 else self._big()
        rows[new] = Item(new, code, old.n + 1, big)
        # The log leaves out a value that is stored apart and did not change.
        logged = rows[new]._replace(big=UNCHANGED) if big == old.big else rows[new]
        events.append(Event(key, logged))

    def _swap(self, events: list[Event]) -> None:
        if len(self._rows) < 2:
            return
        a, b = self._random.sample(sorted(self._rows), 2)
        one, two = self._rows[a], self._rows[b]
        self._rows[a], self._rows[b] = one._replace(code=two.code), two._replace(code=one.code)
        whole = self._random.random() < 0.5
        for key in (a, b):
            item = self._rows[key]
            logged = item if whole else item._replace(big=UNCHANGED)
            events.append(Event(key, logged, bound=key == a))

    def _free(self) -> list[str | None]:
        used = {item.code for item in self._rows.values()}
        return [None, *(c for c in self._codes if c not in used)]

    def _big(self) -> str:
        return f"big {self._random.random()}"


class Sync:
    """Leads an applier through a history: batches of one to three transactions, chunks in between.

    `exact` says that the target must now equal the source: nothing is being copied, and everything
    that was read again has been passed by the stream.
    """

    def __init__(self, bed: Bed, history: History, seed: int) -> None:
        self.bed = bed
        self.history = history
        self.at = 0
        self.healed = 0
        self._random = random.Random(seed)
        self._exact_at = 0
        self._chunks: list[tuple[int, range]] = []
        self._rereads = Rereads(bed, self._read_after)
        self.applier = bed.begun_again()

    @property
    def exact(self) -> bool:
        return not self._chunks and self.at >= self._exact_at

    @property
    def over(self) -> bool:
        return self.at == len(self.history.transactions)

    def start_exact(self) -> None:
        """The target has the source's first state, and the copy is done."""
        self.bed.target.execute("DELETE FROM item")
        rows = self.history.states[0].values()
        self.bed.apply(self.applier, [self.bed.insert(i) for i in rows], self._next())
        with self.applier.state.transaction():
            self.applier.state.put_table(TableState(TABLE, Copy.DONE))

    def start_copy(self, keys: int) -> None:
        """The target is empty and the table planned in chunks."""
        self.bed.target.execute("DELETE FROM item")
        bounds = sorted({0, keys, *(self._random.randrange(keys) for _ in range(3))})
        ranges = [range(a, b) for a, b in itertools.pairwise(bounds)]
        self.bed.plan(self.applier, len(ranges))
        self._chunks = list(enumerate(ranges))

    def step(self) -> None:
        if self._chunks and (self.over or self._random.random() < 0.5):
            self._copy()
        elif not self.over:
            self._stream()

    def _copy(self) -> None:
        number, keys = self._chunks.pop(0)
        read_at = self._random.randint(self.at, min(len(self.history.transactions), self.at + 6))
        self._exact_at = max(self._exact_at, read_at)
        rows = self.history.states[read_at]
        chunk: Chunk = self.bed.chunk(number, [rows[k] for k in keys if k in rows])
        self.applier.copy(chunk, position(self._exact_at))

    def _stream(self) -> None:
        redo = [] if self.exact else [TABLE]
        deltas: list[Delta] = []
        if self._random.random() < 0.3:
            deltas = self._all_but_a_piece(redo)
        else:
            for _ in range(self._random.randint(1, 3)):
                if not self.over:
                    self.at += 1
                    deltas += [self._delta(e) for e in self.history.transactions[self.at - 1]]
        self._apply(deltas, self._next(), redo)

    def _all_but_a_piece(self, redo: list[str]) -> list[Delta]:
        """Applies the first events of a transaction as pieces of their own; gives the others."""
        self.at += 1
        deltas: list[Delta] = []
        bound = False
        for event in self.history.transactions[self.at - 1]:
            if deltas and not bound and self._random.random() < 0.7:
                self._apply(deltas, None, redo)
                deltas = []
            deltas.append(self._delta(event))
            bound = event.bound
        return deltas

    def _apply(self, deltas: list[Delta], to: int | None, redo: list[str]) -> None:
        applied = self.bed.apply(self.applier, deltas, to, redo, self._rereads)
        self.healed += applied.healed
        if applied.reread:
            assert applied.reread.keys() == {TABLE}
            self._exact_at = max(self._exact_at, int(applied.reread[TABLE].partition("/")[2], 16))

    def _delta(self, event: Event) -> Delta:
        if event.item is None:
            assert event.key is not None
            return self.bed.delete(event.key, self.at)
        if event.key is None:
            return self.bed.insert(event.item, self.at)
        moved = event.key != event.item.id
        return self.bed.update(event.item, event.key if moved else None, self.at)

    def _read_after(self, number: int) -> tuple[int, Rows]:
        read_at = self._random.randint(number, len(self.history.transactions))
        return read_at, self.history.states[read_at]

    def _next(self) -> int:
        """The checkpoint's number: the first is taken by `begin`."""
        return self.at + 1
