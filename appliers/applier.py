"""The contract that every target keeps. One suite, tests/test_applier_contract.py, runs over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from appliers.batch import Applied, Batch, Chunk, Rereader
from appliers.finding import Finding
from appliers.relation import Relation
from appliers.state import State


class Applier(Protocol):
    """One sync's hand on one target database.

    Made by `appliers.registry.applier_for`; connects in `open`. Used by one thread at a time; for
    parallel copies each thread has its own `fork`. After any exception out of `open`, `apply`,
    `copy` or `sweep` the applier is only good for `close`: the caller makes a new one, reads the
    checkpoint back and goes on from there. So "was the commit whose reply I lost durable?" is
    always answered by the target itself.

    Errors: every database error leaves as a `TransientError` (connection lost, server shutting
    down, deadlock, lock timeout, disk full, read-only) or a `PermanentError` (constraint, missing
    table, column, grant), with a hint; other exceptions are bugs.
    """

    dialect: str
    """sqlglot's name of the target's SQL dialect."""
    parallel: int
    """How many forks may copy side by side."""
    turn: float
    """Seconds after which the thread that reads the source's log has to let this applier's go on
    (`sys.setswitchinterval`), when both have something to do."""
    state: State
    """What the sync keeps on the target. Valid after `open`. Its statements are part of the
    caller's transaction where there is one, else committed one by one."""

    def open(self, holder: str | None) -> None:
        """Connects and makes the `cdc_` tables where they are missing.

        `holder` (host and pid) takes the sync's lock until `close` or the connection's end, and
        names us to others; a lock that is held elsewhere raises `LockedError` with the holder's
        name. None takes no lock and writes nothing unless asked to (status, pause, fork).
        """

    def close(self) -> None:
        """Ends the connection, rolling back what is open. Never raises."""

    def fork(self) -> Applier:
        """Another applier of this sync, opened, without the lock, good for `copy` only."""

    def server(self) -> str:
        """The target's product and version, for people."""

    def accepts_binary(self, relation: Relation) -> bool:
        """Whether the images of `relation` may come in binary form. Looks at the target's table
        where there is one (binary only between equal types), else at what would be created."""

    def has_table(self, relation: Relation) -> bool:
        """Whether the target has the table of `relation`, fit for its rows or not."""

    def prepare(self, relation: Relation, *, create: bool = True) -> None:
        """Makes ready for images of `relation`, with `create` making the target's table where it is
        missing. No other method makes one.

        Raises TableGoneError where the table is missing, without `create`; FormatError where images
        are binary and it does not take them so; PermanentError where it cannot take the rows: a
        column is missing, or no unique index stands on the key. Must be
        called before the first batch, chunk or sweep of a `Relation`; committed when it returns,
        unless a transaction is open.
        """

    def is_empty(self, relation: Relation) -> bool:
        """Whether the target's table has no row."""

    def apply(self, batch: Batch, reread: Rereader) -> Applied:
        """Writes the batch and moves the checkpoint, in one transaction, exactly once.

        "Returned" means committed, if `batch.position` is not None. The checkpoint is moved by
        compare-and-set from the position that `open`/`load` saw or the last `apply` wrote: if it
        stands elsewhere, FencedError, and nothing is written. So a batch that is given twice, to
        two processes, is applied once.

        Rules per row, outside of a redo:
        - insert: the row is written. A row with its key that is there already is overwritten.
        - update: the row is written; values that are UNCHANGED keep what the target has. A changed
          key is a delete of the old key and an insert of the new one. If the row is not there: it is
          written if the image is whole, else read again (`reread`); counted as healed.
        - update with a changed key and UNCHANGED values: delete the old key, read the new one again.
        - delete: the row is not there afterwards; that it was not there before is no error.
        - truncate: the tables of adjacent truncates are emptied together.
        In a redo (the relation's table is in `batch.redo`) the same, and: inserts and whole
        updates overwrite; a row of another key that stands in the way of a secondary unique value
        is deleted; nothing is counted as healed.
        After a reread its table is under redo for the rest of the transaction, and `exact_at` and
        the copy state REDO are written in the same transaction.

        The batch is reduced to its net effect per key and written in bulk. If that meets a
        constraint, it is rolled back to the transaction's start (or savepoint) and applied again
        in the source's order, in the same transaction.
        """

    def copy(self, chunk: Chunk, exact_at: str) -> int:
        """Writes a chunk and strikes it off the plan in one transaction; returns its rows.

        Rows that are there already are overwritten; a row of another key that stands in the way of
        a unique value is deleted. Sets the table's `exact_at` to `exact_at`, adds to its `rows`.
        If the chunk was struck off before (seen twice), nothing is written and 0 returned. An OrderError
        says whether a table of the sync may still bring what its rows refer to.
        """

    def copy_together(self, chunks: Sequence[Chunk], exact_at: str) -> dict[str, int]:
        """Writes chunks whose rows refer to each other's in a circle, so that `copy` of none of them can
        be the first; returns by how many rows each table's copy has grown. Where the target looks at
        references, all are written in one transaction or none is: those that can wait do until it
        ends. Raises OrderError where that is not enough. Each chunk's blocks are read to their end
        before the next one's are begun."""

    def sweep(
        self,
        relation: Relation,
        blocks: Iterator[list[bytes]],
        only: dict[str, str] | None,
        exact_at: str,
    ) -> int:
        """Deletes the rows whose keys are not among `blocks` (key images: every column but the key
        is NULL); returns their number. `only` keeps it to rows with these column values (as text).
        Sets the table's `exact_at` in the same transaction."""

    def demand_references(self, exact: Sequence[Relation], coming: Sequence[Relation]) -> None:
        """For tables whose copy is about to be called `exact`: raises OrderError where the target has a
        foreign key, from or to one of them, that its rows violate. Targets whose own checks every row
        has passed look at nothing. Not between tables of which one is `coming`: its rows are not all
        there yet. The applier is good for everything afterwards."""

    def flushed(self) -> str | None:
        """The last position that would survive a crash of the target now; None: none since `open`.

        May ask the target. What is told to the source as durable comes from here alone."""

    def flush(self) -> str | None:
        """As `flushed`, at a clean end: has what is committed written to the target's disk first, where
        the target lets us."""

    def works(self) -> bool:
        """Whether the target works, at this moment, on a statement of this applier or of a fork.

        May be called by another thread while this one waits in any other method; the target itself
        is asked, over a connection of its own. A statement that waits for us is none. Raises
        SyncError where the target cannot be asked."""

    def check(self, relations: Sequence[Relation]) -> Iterator[Finding]:
        """Preflight: what a sync of `relations` into this target depends on. Changes nothing."""

    def drop(self) -> None:
        """Removes what this sync left on the target; the `cdc_` tables too when it was the last one."""
