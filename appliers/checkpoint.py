"""What a sync keeps on its target: how far it is, and how far each table's copy is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Copy(StrEnum):
    """How far the copy of one table is."""

    PENDING = "pending"
    """Not planned yet."""
    COPYING = "copying"
    """Planned; chunks are left."""
    REDO = "redo"
    """All chunks are copied; exact when the stream has passed `TableState.exact_at`."""
    DONE = "done"


@dataclass(slots=True)
class TableState:
    """One table's copy. A table whose rows were read again goes back from DONE to REDO."""

    table: str
    copy: Copy = Copy.PENDING
    rows: int = 0
    """Rows copied so far."""
    rows_estimated: int = 0
    chunks: int = 0
    """Chunks in the plan."""
    exact_at: str | None = None
    """The latest position at which a chunk or a row was read: redo until the stream has passed it."""
    fingerprint: str = ""
    """What the plan depends on (PostgreSQL: the files of the table); another one voids the plan."""
    sweep: bool = False
    """The target's table had rows before the copy: those that the source does not have are to be
    deleted when the chunks are through."""
    swept: int | None = None
    """While that is done: how many of the source's keys have been read for it. Not kept."""


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """A chunk that is still to be copied: what lies between two bounds that only the source reads."""

    table: str
    number: int
    bounds: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a sync is. Written in the transaction that writes the rows."""

    source: str
    """The source's identity, as JSON that only the source reads."""
    position: str
    """Everything committed on the source before it is on the target, nothing behind it is."""
    committed_at: int = 0
    applied_at: int = 0
    """Microseconds since 1970-01-01 UTC, by the source's and by the target's clock."""
    changes: int = 0
    healed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A wish of a user to a daemon that may be running: copy a table, or a customer, again."""

    id: int
    table: str | None
    customer: str | None


@dataclass(frozen=True, slots=True)
class Control:
    """What users have asked for. `error` and `hint` are what a failed sync has left."""

    paused: bool = False
    error: str | None = None
    hint: str | None = None
    requests: tuple[Request, ...] = ()
