"""The contract that every source keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from appliers.batch import Reread
from appliers.delta import Commit, Content, Delta, Run
from appliers.errors import PermanentError
from appliers.finding import Finding
from appliers.relation import Relation

Shape = Callable[[Relation], Relation]
"""What the daemon makes of a source's relation before deltas carry it: `cdc.customers`."""


class Position(Protocol):
    """A place in a source's log. Only partly ordered in general (GTID sets)."""

    def __str__(self) -> str: ...

    @property
    def whole(self) -> bool:
        """Whether everything up to here has been given. False: not the rows of some tables, which a
        session that begins here copies."""

    def covers(self, other: Position) -> bool:
        """Whether everything up to `other` is also up to here."""

    def since(self, other: Position) -> int | None:
        """Bytes of log from `other` up to here, 0 if `other` covers this; None where this position
        does not know (MySQL: only what `Source.head` gave knows the files in between, and what lies
        behind that is of another log, or is newer)."""


@dataclass(slots=True)
class Piece:
    """Changes of whole transactions, in commit order; of a large one, a part."""

    deltas: list[Delta | Run]
    commit: Commit
    """The last transaction."""
    oldest: int
    """When the first of them was committed: microseconds since 1970-01-01 UTC."""
    position: Position | None
    """Behind the last transaction; None if more pieces of it follow."""
    size: int
    """Bytes that the changes came in."""
    content: Content = field(init=False)

    def __post_init__(self) -> None:
        self.content = Content.of(self.deltas)

    @property
    def rows(self) -> int:
        """How many changes there are, each row of a run for itself."""
        return self.content.rows

    def extend(self, piece: Piece) -> None:
        """Takes in the piece behind it."""
        self.deltas += piece.deltas
        self.commit, self.position = piece.commit, piece.position
        self.size += piece.size
        self.content |= piece.content


class Progress(NamedTuple):
    """The source says that nothing is left to send before `position`."""

    position: Position
    asked: bool = False
    """It waits to hear that this is durable on the target: it is being stopped."""


class Stream(Protocol):
    """The log from a position on. Used by one thread."""

    behind: bool
    """Whether the last transaction read was committed long ago (more than half a second): a backlog. Not
    where the stream has found that nothing follows."""

    def read(self, timeout: float) -> list[Piece | Progress]:
        """What has arrived, after at most `timeout` seconds; answers the server's keepalives.

        Pieces come in commit order, each transaction whole before the next. One that is larger than a
        few megabytes comes in several; the last may hold whole transactions behind it. Raises
        TransientError when the connection is lost and PermanentError for what will not pass (the log
        is gone, a table's shape is not to be had).
        """

    def keepalive(self) -> None:
        """To be called at least every second by whoever does not call `read`: keeps the connection."""

    def confirm(self, position: Position) -> None:
        """Tells the source that everything before `position` is durable on the target. Never moves
        back. Sent at once or with the next message."""

    def close(self) -> None: ...


class Plan(NamedTuple):
    """How a table is to be copied: what lies between each of `bounds` is a chunk."""

    bounds: list[str]
    rows_estimated: int
    fingerprint: str


class ChunkReader(Protocol):
    """Reads tables as they were at one position. Each thread has its own."""

    position: Position
    """Everything read is exactly (or at least) the state here, and never older."""

    def plan(self, relation: Relation) -> Plan:
        """How to copy a table. Raises StalePlanError, as do `read` and `keys`."""

    def read(self, relation: Relation, bounds: str, fingerprint: str) -> Iterator[list[bytes]]:
        """A chunk's rows in blocks of images. Raises StalePlanError when the table has been
        rewritten since it was planned. Holds locks only until the iterator ends."""

    def keys(self, relation: Relation, only: dict[str, str] | None) -> Iterator[list[bytes]]:
        """The keys of all rows (with these column values), every other column NULL."""

    def close(self) -> None: ...


class CopyRound(Protocol):
    """A moment at which tables can be read, held open for a while."""

    position: Position

    def reader(self) -> ChunkReader: ...

    def close(self) -> None: ...


class StalePlanError(Exception):
    """The table (its text, `schema.name`) was rewritten since its copy was planned, or since the round
    began: plan it anew in a later round."""


class GapError(PermanentError):
    """The log does not reach back to the checkpoint: changes are lost. Only a new snapshot mends it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A table that cannot be synced, and what would mend it."""

    table: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the configured table patterns stand for on the source now. Formats are those of the log
    in text; `Source.copy_relation` gives the one for copies."""

    relations: tuple[Relation, ...]
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceLog:
    """What a sync makes the source keep."""

    retained_bytes: int | None = None
    state: str | None = None
    """As the server calls it: reserved, extended, unreserved, lost; None: there is no slot."""
    by_age: bool = False
    """The server keeps its log for a time, not for a sync (MySQL): what is kept for one that stands at
    a position, only `Source.head().since(position)` tells, and None there says that it is lost."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a sync starts from."""

    identity: str
    """JSON: which server and history this is. Kept in the checkpoint, compared by `resume`."""
    position: Position
    created: bool = field(default=False)
    """The slot was made just now: every table has to be copied."""


class Kept(NamedTuple):
    """What a sync keeps in its source until `Source.drop`, for people."""

    what: str
    by_hand: str
    """The statements that remove it."""


class Source(Protocol):
    """One sync's hand on one source database. Errors as in `appliers.applier.Applier`."""

    dialect: str
    kept: Kept | None
    """None: nothing, and `drop` has nothing to do."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def interrupt(self) -> None:
        """Ends waits for the source's transactions (`start`, `copy_round`), now and from now on, with
        TransientError. May be called by another thread or a signal's handler."""

    def server(self) -> str:
        """Product and version, for people."""

    def position(self, text: str) -> Position:
        """Reads back what `str(position)` gave."""

    def catalog(self, patterns: Sequence[str]) -> Catalog:
        """The tables that `patterns` (`name`, `schema.name`, `schema.*`, `*`) stand for.

        A table that is named and cannot be synced raises PermanentError with its remedy; one that
        only a wildcard covers is left out and reported in `refused`."""

    def start(self, relations: Sequence[Relation]) -> Opening:
        """For a sync without a checkpoint: makes what it needs in the source (publication, slot)
        and says where its log begins."""

    def resume(
        self, identity: str, position: Position, relations: Sequence[Relation]
    ) -> frozenset[str]:
        """For a sync with a checkpoint: raises PermanentError if the source is another one, or the
        log since `position` is not whole, naming the gap and the way out. Returns the tables some of
        whose changes are not in it: they have to be copied, whatever was known of them."""

    def publish(self, relations: Sequence[Relation]) -> None:
        """Has the log hold the changes of exactly these tables from now on. Called after `resume`, once
        the target knows which tables are to be copied: nobody can tell them from the others any more."""

    def outdated(self, fingerprints: Mapping[str, str]) -> frozenset[str]:
        """Of tables whose copies were planned with these fingerprints those that have to be copied again:
        another table has the name now, the table was out of the log for a while, or its rows have changed
        behind the log's back. Called after `publish`; what comes later `tend` finds."""

    def renewed(self, fingerprints: Mapping[str, str]) -> dict[str, str]:
        """Of tables that are not outdated those whose fingerprints are to be replaced, and by which: the
        source has seen what leaves rows alone, and tells by it what comes later. Called after `outdated`
        and after each `tend`; costs nothing where there is nothing new."""

    def head(self) -> Position:
        """The end of the log that the stream can reach now."""

    def committed_head(self) -> Position:
        """A position that the stream will reach, before which everything committed by now lies. May
        take a moment."""

    def log(self) -> SourceLog: ...

    def tend(self) -> None:
        """Takes care, about every second of a sync that streams, that what it has made in the source does
        no harm there. Raises TransientError where the sync has to begin again for that."""

    def stream(self, position: Position, *, binary: bool, shape: Shape) -> Stream: ...

    def tail(
        self,
        *,
        from_start: bool,
        checkpoint: Callable[[], Position | None],
        relations: Sequence[Relation],
        shape: Shape,
    ) -> Stream:
        """The log beside the sync, in text: from now on, or from where the sync itself stands, which
        `checkpoint` reads on the target for sources that keep no place of their own. Moves nothing,
        and leaves nothing behind when it is closed. Raises GapError if the sync has no place in the
        log to start from."""

    def copy_round(self, patience: float | None = None) -> CopyRound:
        """A round for reading tables as they are at a position not before any stream position
        given out so far. Raises TransientError when transactions that run on the source have been
        waited for longer than `patience` seconds, and so do its readers at locks; None: no limit."""

    def copy_relation(self, relation: Relation, *, binary: bool) -> Relation:
        """The relation of images that `ChunkReader.read` and `reread` give for this table."""

    def customer_bounds(self, relation: Relation, customer: str) -> str:
        """The bounds of the chunk that holds a customer's rows of this table."""

    def bounded_to(self, bounds: str) -> dict[str, str] | None:
        """The column values that bounds from `customer_bounds` keep to; None for a plan's bounds."""

    def reread(
        self, relation: Relation, images: Sequence[bytes], commit: Commit, shape: Shape
    ) -> Reread:
        """Reads rows again by the keys in `images`, after `commit` is visible."""

    def check(self, relations: Sequence[Relation]) -> Iterator[Finding]:
        """Preflight. Changes nothing."""

    def drop(self) -> None:
        """Removes what this sync made in the source; what is not there is no error."""
