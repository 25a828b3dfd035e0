"""One sync's hand on one database of MySQL or MariaDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from appliers import faults
from appliers.batch import Applied, Batch, Chunk, Rereader, grown
from appliers.checkpoint import Copy
from appliers.errors import OrderError, SyncError
from appliers.finding import Finding
from appliers.mysql import preflight
from appliers.mysql.copying import Copying, demand_staging, stage_keys, sweep, unswept
from appliers.mysql.durability import Durability
from appliers.mysql.failures import translated
from appliers.mysql.lock import take_lock
from appliers.mysql.names import folded
from appliers.mysql.own import OwnTables
from appliers.mysql.session import Session
from appliers.mysql.stream import Stream
from appliers.mysql.tables import Tables
from appliers.mysql.threads import any_works
from appliers.relation import Relation
from appliers.state import State
from appliers.unrepresentable import DEFAULT, Unrepresentable


class MysqlApplier:
    """Writes into MySQL or MariaDB; see `appliers.applier.Applier` for what each method promises.

    All is written into the database of the URL: a table of another schema than the source's own gets
    its schema before its name (`names.name_of`). Transactions are READ COMMITTED: no gap is locked.
    What commits by itself on MySQL (DDL, TRUNCATE) never runs on a connection with a transaction.
    """

    dialect = "mysql"
    parallel = 4
    turn = 0.00005
    """A batch is some twenty short waits for the server, behind each of which the reader would have a
    whole turn: MariaDB to MariaDB 173,000 to 178,000 rows a second, with 1 ms 138,000 to 166,000. Into
    PostgreSQL, where the thread has more to do and less to wait for, inserts are a tenth slower so."""

    def __init__(
        self, url: str, password: str | None, sync: str, policy: Unrepresentable = DEFAULT
    ) -> None:
        self.sync = sync
        self.state = State(sync, self._execute)
        self._url = url
        self._password = password
        self._policy = policy
        self._opened: Session | None = None
        self._threads: set[int] = set()

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
        session = self._opened = self._connect()
        self._threads.add(session.number)
        self._own = OwnTables(session)
        if holder is not None:
            take_lock(session, self._own, self.sync, holder)
        self._durability = Durability(session)
        self._may_stage = preflight.may_stage(session)
        self._tables = Tables(session, self._policy, self._connect, self.state.tables)
        self._stream = Stream(
            session, self._tables, self.state, self.sync, may_stage=self._may_stage
        )
        self._copying: dict[Relation, Copying] = {}

    def close(self) -> None:
        session, self._opened = self._opened, None
        if session is not None:
            self._threads.discard(session.number)
            session.close()

    def fork(self) -> MysqlApplier:
        other = MysqlApplier(self._url, self._password, self.sync, self._policy)
        other._threads = self._threads
        other.open(None)
        return other

    def server(self) -> str:
        return self._session.version_text

    # -- tables -----------------------------------------------------------------------------------

    def accepts_binary(self, relation: Relation) -> bool:
        """Never: what MySQL reads is text, in LOAD DATA and in SQL."""
        return False

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
            work = self._stream.write(batch, reread)
            if batch.position is not None:
                faults.point("rows-written")
                self._commit()
                self._durability.committed(batch.position)
                faults.point("commit-acknowledged")
        return Applied(batch.rows, work.healed, work.rereads)

    def copy(self, chunk: Chunk, exact_at: str) -> int:
        try:
            return self._copy(chunk, exact_at)
        except OrderError as e:
            with suppress(SyncError), translated():
                brought = self._tables.names_of(self.state.tables(), chunk.relation.home)
                own = self._tables.keys_of(self._tables.of(chunk.relation))[0]
                parents = {folded(k.parent) for k in own if k.name == e.constraint}
                e.may_come = parents <= brought
            raise

    def _copy(self, chunk: Chunk, exact_at: str) -> int:
        table = self._tables.of(chunk.relation)
        with self._rolled_back(), translated(table.subject):
            self._session.execute("BEGIN")
            if not self.state.strike(chunk.relation.table, chunk.number):
                self._session.execute("ROLLBACK")
                return 0
            rows = self._copying_of(chunk.relation).write(chunk.blocks)
            self.state.copied(chunk.relation.table, chunk.counted(rows), exact_at)
            faults.point("chunk-written")
            self._commit()
            faults.point("chunk-committed")
        return rows

    def copy_together(self, chunks: Sequence[Chunk], exact_at: str) -> dict[str, int]:
        """No reference is looked at while both of its tables are copied: none has to wait."""
        return grown(chunks, lambda chunk: self.copy(chunk, exact_at))

    def sweep(
        self,
        relation: Relation,
        blocks: Iterator[list[bytes]],
        only: dict[str, str] | None,
        exact_at: str,
    ) -> int:
        table = self._tables.of(relation)
        demand_staging(relation.table, may_stage=self._may_stage)
        with self._rolled_back(), translated(table.subject):
            stage = stage_keys(self._session, self._stream.staging, table, blocks)
            found = unswept(table, stage, only or {})
            self._session.execute("BEGIN")
            under_redo = self._under_redo(relation.home)
            work = self._stream.work(frozenset(), None, None)
            deleted = sweep(work, table, found, self._stream.references_now, under_redo)
            self.state.copied(relation.table, 0, exact_at)
            self._commit()
            self._stream.staging.drop([stage])
        return deleted

    def demand_references(self, exact: Sequence[Relation], coming: Sequence[Relation]) -> None:
        with translated():
            self._stream.demand_references(exact, coming)

    def flushed(self) -> str | None:
        with translated():
            return self._durability.flushed()

    def flush(self) -> str | None:
        """Nobody but the server's own settings can have its logs flushed without a lock."""
        return self.flushed()

    def works(self) -> bool:
        with translated():
            return any_works(self._connect(), self._threads)

    # -- preflight and end ------------------------------------------------------------------------

    def check(self, relations: Sequence[Relation]) -> Iterator[Finding]:
        with translated():
            yield from preflight.findings(self._session, self._tables, relations)

    def drop(self) -> None:
        with self._rolled_back():
            if not self._own.exist():
                return
            self._session.execute("BEGIN")
            self._own.forget_holder(self.sync)
            last = self.state.forget()
            self._commit()
            if last:
                self._own.drop()

    # -- parts ------------------------------------------------------------------------------------

    @property
    def _session(self) -> Session:
        if self._opened is None:
            raise RuntimeError("the applier is not open")
        return self._opened

    def _connect(self) -> Session:
        return Session(self._url, self._password, f"cdc {self.sync}")

    def _execute(self, sql: str, values: Sequence[Any]) -> tuple[list[tuple[Any, ...]], int]:
        """How `State` talks to the target. Where the tables are missing, reads find nothing, and they
        are made before a transaction or a write begins."""
        session = self._session
        with translated("the cdc_ tables"):
            if not self._own.exist():
                if sql.startswith("SELECT"):
                    return [], 0
                if not session.in_transaction:
                    self._own.create()
            return session.execute(sql, values)

    def _commit(self) -> None:
        """A COMMIT whose reply is lost is an error: the next applier reads the checkpoint."""
        self._session.send_commit()
        faults.point("commit-sent")
        self._session.receive_commit()
        self._stream.over()

    def _under_redo(self, home: str) -> set[str]:
        """The folded names of the tables whose copy is not exact yet."""
        copied = (t.table for t in self.state.tables().values() if t.copy is not Copy.DONE)
        return self._tables.names_of(copied, home)

    def _copying_of(self, relation: Relation) -> Copying:
        found = self._copying.get(relation)
        if found is None:
            table = self._tables.of(relation)
            work = self._stream.work(frozenset(), None, None)
            found = self._copying[relation] = Copying(
                work,
                table,
                self._stream.references_now,
                lambda: self._under_redo(relation.home),
            )
        return found

    @contextmanager
    def _rolled_back(self) -> Iterator[None]:
        """Leaves nothing open after an error; PyMySQL's become ours."""
        try:
            with translated():
                yield
        except BaseException:
            with suppress(Exception):
                self._session.roll_back()
            raise
