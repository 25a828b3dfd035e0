"""What an applier gets: whole transactions of the source, or a piece of one that is too large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from appliers.delta import NOTHING, Commit, Content, Delta, Run
from appliers.relation import Relation


@dataclass(slots=True)
class Batch:
    """Deltas in the source's order.

    `position` is the source's position behind the last of them, to be checkpointed in the
    transaction that writes them. None says that this is a piece of a transaction that is not over:
    the applier writes it and leaves its target transaction open; the next batch goes on in it.
    A batch without deltas moves the checkpoint only.
    """

    deltas: Sequence[Delta | Run]
    position: str | None
    committed_at: int = 0
    """Microseconds since 1970-01-01 UTC: when the last transaction was committed; 0 where there is none."""
    redo: frozenset[str] = field(default_factory=frozenset)
    """Tables (`schema.name`) that are copied now or were read again: their rows on the target may
    be newer than these deltas, so the redo rules of `Applier.apply` hold."""
    content: Content = NOTHING
    """Of the deltas, which are gone through for it if it is not given."""

    def __post_init__(self) -> None:
        if self.content is NOTHING and self.deltas:
            self.content = Content.of(self.deltas)

    @property
    def rows(self) -> int:
        """How many deltas there are, each row of a `Run` for itself."""
        return self.content.rows


@dataclass(frozen=True, slots=True)
class Reread:
    """Rows read again from the source, at a moment when the change's commit was visible."""

    relation: Relation
    images: Sequence[bytes]
    """Those of the asked rows that exist, whole, in the format of `relation`."""
    position: str
    """The source's position that is not before anything that was read: the copy of this table is
    exact only when the stream has passed it."""


Rereader = Callable[[Relation, Sequence[bytes], Commit], Reread]
"""Reads rows again: the relation and images that hold their keys, and the commit to wait for."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a table, to be copied. `number` names it in the plan, `rows` is read once.

    The rows come in blocks (lists of images in the format of `relation`), so that nothing is done
    per row that a target does not need."""

    relation: Relation
    number: int
    blocks: Iterator[list[bytes]]
    again: bool = False
    """Other chunks have brought these rows, or will: they are a customer's."""

    def counted(self, rows: int) -> int:
        """How many of its rows make the table's copy larger."""
        return 0 if self.again else rows


def grown(chunks: Iterable[Chunk], copy: Callable[[Chunk], int]) -> dict[str, int]:
    """By how many rows each table's copy grows when `copy`, which gives the rows that it wrote, has been
    called for each chunk in turn."""
    rows: dict[str, int] = {}
    for chunk in chunks:
        table = chunk.relation.table
        rows[table] = rows.get(table, 0) + chunk.counted(copy(chunk))
    return rows


@dataclass(frozen=True, slots=True)
class Applied:
    """What an `Applier.apply` did."""

    rows: int
    """Deltas of this batch."""
    healed: int = 0
    """Updates that found no row outside of a redo: divergences, each read again and written."""
    reread: dict[str, str] = field(default_factory=dict)
    """Tables of which rows were read again, with the position from which they are exact."""
