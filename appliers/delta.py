"""What a source says has happened: `Delta`, the change of one row, and `Commit`, its transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from appliers.relation import Relation


class Unchanged:
    """The type of `UNCHANGED`. It has one instance, and that has no truth value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNCHANGED"

    def __bool__(self) -> bool:
        raise TypeError("UNCHANGED is neither true nor false: compare with `is`")


UNCHANGED: Final = Unchanged()
"""A value that the log did not carry because the change left it alone. Never NULL."""

Value = object
"""A column's value as the source sent it: `bytes` in the image's encoding for PostgreSQL, `None` for
NULL, `UNCHANGED` where the log did not carry it."""


class Op(IntEnum):
    INSERT = 1
    UPDATE = 2
    DELETE = 3
    TRUNCATE = 4
    SNAPSHOT = 5
    INSERTS = 6
    """Of a `Run` alone; its rows are INSERTs."""

    @property
    def label(self) -> str:
        return self.name.lower()


class Commit(NamedTuple):
    """One committed transaction of the source."""

    position: str
    """Where it is in the log; all its changes share it (PostgreSQL: LSN of the commit record)."""
    transaction: int
    """Its number on the source (PostgreSQL: the 32-bit xid)."""
    committed_at: int
    """Microseconds since 1970-01-01 UTC, by the source's clock."""


class Delta(NamedTuple):
    """The change of one row, as an applier gets it.

    `before` and `after` are images: opaque bytes that `relation` reads (see `Relation.values` and
    `Relation.key`). A tuple, because one is made for every row: measured 0.15 µs against 0.45 µs
    for a class with slots and an `__init__`. Sources make it with `new`, which takes the fields as a
    tuple and is not the constructor's Python.
    """

    op: Op
    relation: Relation
    before: bytes | None
    """Update and delete: the old row, or only its key, or None where the key did not change."""
    after: bytes | None
    """Insert, update, snapshot: the new row; may have `UNCHANGED` values in an update."""
    commit: Commit
    ordinal: int
    """The change's number in its transaction, from 1. With `commit.position` it names the change."""

    @property
    def customer(self) -> str | None:
        """The customer's key as text, several columns joined by a comma; None where the log has none."""
        return self.relation.customer(self.before, self.after)


class Run(NamedTuple):
    """Rows that one transaction has inserted into one table, one behind the other: what a `Delta` for
    each would say, in its fields' order. A tuple and a delta a row, and what every step does with
    them, cost a quarter of the way of a backlog of 100-row inserts.
    """

    op: Op
    """INSERTS."""
    relation: Relation
    before: None
    after: list[bytes]
    """The new rows; never empty."""
    commit: Commit
    ordinal: int
    """The first row's number in its transaction; the others follow."""


def each(deltas: Iterable[Delta | Run]) -> Iterator[Delta]:
    """A delta for every row."""
    for delta in deltas:
        if isinstance(delta, Run):
            _, relation, _, rows, commit, ordinal = delta
            for number, row in enumerate(rows, ordinal):
                yield Delta(Op.INSERT, relation, None, row, commit, number)
        else:
            yield delta


new: Final = tuple.__new__
"""`new(Delta, fields)`, `new(Run, fields)`."""


class Content(NamedTuple):
    """What there is in some deltas. Made where they are read, so that who writes them, whom the target
    waits for, need not go through them again for it."""

    rows: int
    """How many there are, each row of a `Run` for itself."""
    relations: frozenset[Relation]
    truncates: bool
    """Whether there are TRUNCATEs among them."""

    @classmethod
    def of(cls, deltas: Sequence[Delta | Run]) -> Content:
        ops = list(map(itemgetter(0), deltas))
        rows = len(deltas)
        if Op.INSERTS in ops:
            rows += sum([len(d.after) - 1 for d in deltas if isinstance(d, Run)])
        return cls(rows, frozenset(map(itemgetter(1), deltas)), Op.TRUNCATE in ops)

    def __or__(self, other: Content) -> Content:
        return Content(
            self.rows + other.rows,
            self.relations | other.relations,
            self.truncates or other.truncates,
        )


NOTHING: Final = Content(0, frozenset(), truncates=False)
