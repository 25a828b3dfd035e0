"""One sync's hand on one PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import count
from typing import Any, Final

import psycopg

from appliers import faults
from appliers.batch import Applied, Batch, Chunk, Rereader
from appliers.delta import each
from appliers.errors import OrderError, SyncError, TransientError
from appliers.finding import Finding
from appliers.postgres import own, preflight
from appliers.postgres.backends import any_works
from appliers.postgres.bulk import Bulk
from appliers.postgres.connection import Session, Step, demand, has_touched_none, touching
from appliers.postgres.copying import Copies, sweep
from appliers.postgres.durability import Durability
from appliers.postgres.errors import translate, translated
from appliers.postgres.lock import (
    application_name,
    drop_origins,
    origin_name,
    take_lock,
    use_origin,
)
from appliers.postgres.rows import Rows
from appliers.postgres.staging import Staging
from appliers.postgres.tables import Tables
from appliers.postgres.work import OrderNeededError, Work
from appliers.relation import Relation
from appliers.state import State
from appliers.unrepresentable import DEFAULT, Unrepresentable

FEW: Final = 64
"""Up to so many deltas go row by row: two round trips in all, where sets need several a table."""

Attempt = Callable[[Work, Batch], None]


class PostgresApplier:
    """Writes into PostgreSQL; see `appliers.applier.Applier` for what each method promises.

    Commits are asynchronous: what is told to the source is what `flushed` finds in the target's
    flushed log, as PostgreSQL's own subscriptions do.
    """

    dialect = "postgres"
    parallel = 4
    turn = 0.001

    def __init__(
        self, url: str, password: str | None, sync: str, policy: Unrepresentable = DEFAULT
    ) -> None:
        self.sync = sync
        self.policy = policy
        self.state = State(sync, self._execute, prefix=f"{own.SCHEMA}.")
        self._url = url
        self._password = password
        self._fork = 0
        self._forks = count(1)
        self._backends: set[int] = set()
        self._opened: Session | None = None
        self._open = self._marked = False
        self._redo: set[str] = set()
        self._changes = self._healed = 0

    # -- life -------------------------------------------------------------------------------------

    def open(self, holder: str | None) -> None:
        try:
            with translated():
                self._set_up(holder)
            self.state.load()
        except BaseException:
            self.close()
            raise

    def _set_up(self, holder: str | None) -> None:
        name = application_name(self.sync, holder)
        session = self._opened = Session(self._url, self._password, name)
        self._backends.add(session.backend)
        self._own = own.OwnTables(session)
        if holder is not None:
            take_lock(session, self.sync)
            self._own.create()
        if holder is not None or self._fork:
            self._marked = use_origin(session, origin_name(self.sync, self._fork))
        self._durability = Durability(session)
        self._staging = Staging(session)
        self._tables = Tables(session, self._staging, self.policy)
        self._may_stage = session.value(
            "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')"
        )
        work = partial(self._work, Batch([], None), None)
        self._copies = Copies(work, self._tables, self.state, may_stage=self._may_stage)

    def close(self) -> None:
        session, self._opened = self._opened, None
        if session is not None:
            self._backends.discard(session.backend)
            session.close()

    def fork(self) -> PostgresApplier:
        other = PostgresApplier(self._url, self._password, self.sync, self.policy)
        other._fork = next(self._forks)
        other._backends = self._backends
        other.open(None)
        return other

    def server(self) -> str:
        return f"PostgreSQL {self._session.version_text}"

    # -- tables -----------------------------------------------------------------------------------

    def accepts_binary(self, relation: Relation) -> bool:
        with translated(relation.table):
            return self._tables.accepts_binary(relation)

    def has_table(self, relation: Relation) -> bool:
        with translated(f"table {relation.table}"):
            return self._tables.has(relation)

    def prepare(self, relation: Relation, *, create: bool = True) -> None:
        with translated(f"table {relation.table}"):
            self._tables.prepare(relation, create=create)

    def is_empty(self, relation: Relation) -> bool:
        with translated(f"table {relation.table}"):
            return self._tables.is_empty(relation)

    # -- the stream -------------------------------------------------------------------------------

    def apply(self, batch: Batch, reread: Rereader) -> Applied:
        faults.point("batch-taken")
        with self._rolled_back():
            work = self._write(batch, reread)
            self._redo.update(work.rereads)
            self._open = True
            self._changes += batch.rows
            self._healed += work.healed
            if batch.position is not None:
                faults.point("rows-written")
                self._commit(batch)
                faults.point("commit-acknowledged")
        return Applied(batch.rows, work.healed, work.rereads)

    def copy(self, chunk: Chunk, exact_at: str) -> int:
        try:
            return self._copy(chunk, exact_at)
        except OrderError as e:
            with suppress(SyncError), translated():
                e.may_come = self._tables.brought(chunk.relation, e.constraint, self.state.tables())
            raise

    def _copy(self, chunk: Chunk, exact_at: str) -> int:
        with self._rolled_back(), translated(f"table {chunk.relation.table}"):
            self._session.execute("BEGIN")
            rows = self._copies.write(chunk, exact_at)
            self._commit_chunks()
        return rows

    def copy_together(self, chunks: Sequence[Chunk], exact_at: str) -> dict[str, int]:
        with self._rolled_back():
            self._session.execute("BEGIN")
            self._tables.defer_references()
            written = self._copies.write_all(self._tables.parents_first(chunks), exact_at)
            self._commit_chunks()
        return written

    def sweep(
        self,
        relation: Relation,
        blocks: Iterator[list[bytes]],
        only: dict[str, str] | None,
        exact_at: str,
    ) -> int:
        with self._rolled_back(), translated(f"table {relation.table}"):
            self._session.execute("BEGIN")
            deleted = sweep(self._session, self._tables.of(relation), blocks, only or {})
            self.state.copied(relation.table, 0, exact_at)
            self._commit()
        return deleted

    def demand_references(self, exact: Sequence[Relation], coming: Sequence[Relation]) -> None:
        """The server has checked each row when it was written."""

    def flushed(self) -> str | None:
        with translated():
            return self._durability.flushed(self.state.position)

    def flush(self) -> str | None:
        with translated():
            # Seen before the flush, which then lies behind it.
            self._durability.flushed(self.state.position)
            self._durability.flush()
            return self._durability.flushed(self.state.position)

    def works(self) -> bool:
        with translated():
            session = Session(self._url, self._password, f"cdc {self.sync}")
            return any_works(session, self._backends.copy())

    # -- preflight and end ------------------------------------------------------------------------

    def check(self, relations: Sequence[Relation]) -> Iterator[Finding]:
        with translated():
            yield from preflight.findings(self._session, relations, self.policy)

    def drop(self) -> None:
        session = self._session
        with self._rolled_back():
            if self._own.exist():
                session.execute("BEGIN")
                if self.state.forget():
                    self._own.drop()
                self._commit()
            if self._marked:
                session.execute("SELECT pg_catalog.pg_replication_origin_session_reset()")
                self._marked = False
            drop_origins(session, self.sync)

    # -- parts ------------------------------------------------------------------------------------

    @property
    def _session(self) -> Session:
        if self._opened is None:
            raise RuntimeError("the applier is not open")
        return self._opened

    def _execute(self, sql: str, values: Sequence[Any]) -> tuple[list[tuple[Any, ...]], int]:
        """How `State` talks to the target. Where the tables are missing, reads find nothing and the
        first write makes them."""
        session = self._session
        with translated("the cdc_ tables"):
            if not self._own.exist():
                if sql.startswith("SELECT"):
                    return [], 0
                if not sql.startswith(("BEGIN", "COMMIT", "ROLLBACK")):
                    self._own.create()
            return session.execute(_numbered(sql), values)

    def _write(self, batch: Batch, reread: Rereader) -> Work:
        """Tries one way after the other until the target's constraints are content."""
        failed: SyncError | None = None
        held: OrderError | None = None
        position, staged = self.state.position, self._staging.mark()
        attempts = self._attempts(batch.rows)
        while attempts:
            attempt, *attempts = attempts
            work = self._work(batch, reread)
            try:
                attempt(work, batch)
                return work
            except (psycopg.errors.IntegrityError, psycopg.errors.CardinalityViolation) as e:
                if failed is None or attempt == self._in_order:
                    failed = translate(e, work.subject)
            except OrderNeededError:
                pass
            except OrderError as e:
                held = e
            except psycopg.DataError as e:
                # COPY names the column; a statement for one row, or with rows as a value, does not.
                if attempt != self._in_order and self._staging.by_value:
                    attempts = [attempt]
                elif attempt != self._in_order or not self._may_stage or failed is not None:
                    raise translate(e, work.subject) from None
                self._staging.by_value = False
                failed = translate(e, work.subject)
            except psycopg.Error as e:
                raise translate(e, work.subject) from None
            self._undo()
            self.state.position = position
            self._staging.restore(staged.copy())
            self._tables.refresh(batch.content.relations)
        raise held or failed or AssertionError("no attempt has failed, and none has ended")

    def _attempts(self, deltas: int) -> list[Attempt]:
        if not self._may_stage:
            return [self._in_order]
        usual = [self._in_order, self._in_bulk]
        return [*usual[:: 1 if deltas <= FEW else -1], self._deletes_last, self._replacing]

    def _work(self, batch: Batch, reread: Rereader | None) -> Work:
        return Work(
            self._session,
            self._staging,
            self._tables.of,
            self._tables.rank,
            self._redo | batch.redo,
            batch.deltas[-1].commit if batch.deltas else None,
            reread,
        )

    def _in_order(self, work: Work, batch: Batch) -> None:
        self._session.begin(self._beginning())
        Rows(work).write(each(batch.deltas))
        self._settle(work)

    def _in_bulk(self, work: Work, batch: Batch) -> None:
        self._in_sets(Bulk(work), batch)

    def _deletes_last(self, work: Work, batch: Batch) -> None:
        self._in_sets(Bulk(work, deletes_last=True), batch)

    def _replacing(self, work: Work, batch: Batch) -> None:
        self._in_sets(Bulk(work, replace=True), batch)

    def _in_sets(self, bulk: Bulk, batch: Batch) -> None:
        self._session.begin(self._beginning())
        bulk.write(batch)
        self._settle(bulk.work)

    def _settle(self, work: Work) -> None:
        for table, position in work.rereads.items():
            self.state.redo(table, position)
        if self._open:
            self._session.execute("RELEASE SAVEPOINT cdc_piece")

    def _beginning(self) -> list[str]:
        """A transaction, or a savepoint in the one that an earlier piece has left open."""
        if self._open:
            return ["SAVEPOINT cdc_piece"]
        defer = ["SET CONSTRAINTS ALL DEFERRED"] if self._tables.deferrable else []
        return ["BEGIN", *defer]

    def _undo(self) -> None:
        if self._open:
            self._session.execute("ROLLBACK TO SAVEPOINT cdc_piece")
            self._session.execute("RELEASE SAVEPOINT cdc_piece")
        else:
            self._session.execute("ROLLBACK")

    def _commit(self, batch: Batch | None = None) -> None:
        """Commits; of a batch, moves the checkpoint in the same round trip. A checkpoint that is not
        where it was is an error of the statement that moves it, behind which COMMIT is not run."""
        position = None if batch is None else batch.position
        steps = [self._step("COMMIT")]
        if batch is not None and position is not None:
            values = self.state.advance_values(
                position, batch.committed_at, self._changes, self._healed
            )
            texts = [None if v is None else str(v).encode() for v in values]
            steps.insert(0, self._step(touching(_numbered(self.state.advance_sql())), texts))
        self._session.send(steps)
        faults.point("commit-sent")
        results = self._session.receive()
        if position is not None and has_touched_none(results[0]):
            self.state.advanced(position, 0)
        demand(results[-1])
        if results[-1].command_status != b"COMMIT":
            raise TransientError(
                "the target has rolled back instead of committing", "it is tried again"
            )
        if position is not None:
            self.state.advanced(position, 1)
        self._open = False
        self._redo.clear()
        self._changes = self._healed = 0

    def _commit_chunks(self) -> None:
        faults.point("chunk-written")
        self._commit()
        faults.point("chunk-committed")

    def _step(self, sql: str, values: Sequence[bytes | None] = ()) -> Step:
        return Step(self._session.prepare(sql, ()), values, None)

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """Leaves nothing open after an error; psycopg's become ours."""
        try:
            with translated():
                yield
        except BaseException:
            self._open = False
            with suppress(Exception):
                self._session.roll_back()
            raise


@cache
def _numbered(sql: str) -> str:
    """The statement with $1, $2 … for its question marks."""
    first, *parts = sql.split("?")
    return first + "".join(f"${i}{part}" for i, part in enumerate(parts, 1))
