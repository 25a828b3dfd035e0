"""One sync's hand on one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

from appliers import faults
from appliers.batch import Applied, Batch, Chunk, Rereader, grown
from appliers.errors import LockedError, PermanentError
from appliers.finding import Finding
from appliers.relation import Relation
from appliers.sqlite import preflight
from appliers.sqlite.connection import connect, exists, path_of, use_wal
from appliers.sqlite.failures import is_unique, named
from appliers.sqlite.lock import WriterLock
from appliers.sqlite.net import write_net
from appliers.sqlite.shape import OWN_TABLES
from appliers.sqlite.tables import Tables
from appliers.sqlite.turns import Turns
from appliers.sqlite.writer import Writer
from appliers.state import TABLES, State
from appliers.unrepresentable import DEFAULT, Unrepresentable

_HOLDER = "(sync VARCHAR(190) NOT NULL PRIMARY KEY, holder TEXT NOT NULL)"
"""`cdc_holder`: who took a sync's lock last. Only read while the lock is held; a row that a crash
left says nothing."""

BUSY_SECONDS = 20.0
"""How long to wait for a program that writes into the same file, before it is an error to retry."""


class SqliteApplier:
    """Writes into a SQLite file; see `appliers.applier.Applier` for what each method promises.

    Writes are one transaction each, begun with BEGIN IMMEDIATE, so that a second writer waits at the
    start and never fails in the middle.
    """

    dialect = "sqlite"
    parallel = 1
    turn = 0.001

    def __init__(
        self, url: str, password: str | None, sync: str, policy: Unrepresentable = DEFAULT
    ) -> None:
        """`password` is not used: a SQLite file has none."""
        self.sync, self.policy = sync, policy
        self.busy_seconds = BUSY_SECONDS
        self._url = url
        self._file = path_of(url)
        self._db: sqlite3.Connection | None = None
        self._ready = False
        self._lock: WriterLock | None = None
        self._turns = Turns()
        self._flushed: str | None = None
        self._redo: set[str] = set()
        self._changes = self._healed = 0
        self.state = State(sync, self._execute)
        self._tables = Tables(self._file, self._opened, policy, self.state.tables)

    def open(self, holder: str | None) -> None:
        if holder is not None:
            db = self._connect(create=True)
            self._take_lock(db, holder)
            use_wal(db, self._file)
            self._make_tables(db)
            with named(self._file):
                db.execute("INSERT OR REPLACE INTO cdc_holder VALUES (?, ?)", (self.sync, holder))
        elif exists(self._file):
            self._connect(create=False)
        self.state.load()

    def close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.rollback()
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def fork(self) -> SqliteApplier:
        other = SqliteApplier(self._url, None, self.sync, self.policy)
        other.busy_seconds = self.busy_seconds
        other._turns = self._turns
        other._tables.take_from(self._tables)
        other.open(None)
        return other

    def server(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def accepts_binary(self, relation: Relation) -> bool:
        """Never: SQLite's values are Python's numbers, text and bytes, made from text."""
        return False

    def has_table(self, relation: Relation) -> bool:
        return self._tables.has(relation)

    def prepare(self, relation: Relation, *, create: bool = True) -> None:
        self._tables.prepare(relation, create=create)

    def is_empty(self, relation: Relation) -> bool:
        return self._tables.is_empty(relation)

    def apply(self, batch: Batch, reread: Rereader) -> Applied:
        faults.point("batch-taken")
        db = self._opened()
        with self._rolled_back(db):
            applied = self._write(db, batch, reread)
            self._redo.update(applied.reread)
            self._changes += applied.rows
            self._healed += applied.healed
            for table, position in applied.reread.items():
                self.state.redo(table, position)
            if batch.position is None:
                return applied
            self.state.advance(batch.position, batch.committed_at, self._changes, self._healed)
            faults.point("rows-written")
            faults.point("commit-sent")
            db.execute("COMMIT")
        faults.point("commit-acknowledged")
        self._flushed = batch.position
        self._redo.clear()
        self._changes = self._healed = 0
        return applied

    def copy(self, chunk: Chunk, exact_at: str) -> int:
        db = self._opened()
        target = self._tables.of(chunk.relation)
        table = chunk.relation.table
        # The first rows are waited for before others are kept from writing.
        first = next(chunk.blocks, None)
        rows = 0
        with self._rolled_back(db):
            db.execute("BEGIN IMMEDIATE")
            if not self.state.strike(table, chunk.number):
                db.execute("ROLLBACK")
                return 0
            writer = Writer(db, self._tables.of, (table,))
            for block in chain([first] if first else [], chunk.blocks):
                writer.put(target, target.rows(block), redo=True)
                rows += len(block)
            self.state.copied(table, chunk.counted(rows), exact_at)
            faults.point("chunk-written")
            db.execute("COMMIT")
        faults.point("chunk-committed")
        return rows

    def copy_together(self, chunks: Sequence[Chunk], exact_at: str) -> dict[str, int]:
        """No reference is looked at: none has to wait."""
        return grown(chunks, lambda chunk: self.copy(chunk, exact_at))

    def sweep(
        self,
        relation: Relation,
        blocks: Iterator[list[bytes]],
        only: dict[str, str] | None,
        exact_at: str,
    ) -> int:
        db = self._opened()
        target = self._tables.of(relation)
        at = {c.name: i for i, c in enumerate(relation.columns)}
        within = {at[name]: value.encode() for name, value in (only or {}).items()}
        make, index, insert = target.key_table("cdc_keys")
        with self._rolled_back(db):
            # The keys first, into a temporary table: others may write until the last one is read.
            db.execute("BEGIN")
            db.execute(make)
            db.execute(index)
            for block in blocks:
                db.executemany(insert, target.keys(block))
            db.execute("COMMIT")
            db.execute("BEGIN IMMEDIATE")
            deleted = db.execute(
                target.delete_unlisted("cdc_keys", list(within)),
                tuple(target.value(i, text) for i, text in within.items()),
            ).rowcount
            self.state.redo(relation.table, exact_at)
            db.execute("COMMIT")
            db.execute("DROP TABLE temp.cdc_keys")
        return deleted

    def demand_references(self, exact: Sequence[Relation], coming: Sequence[Relation]) -> None:
        """Foreign keys are off on our connections: they are left to whoever switches them on."""

    def flushed(self) -> str | None:
        """The last committed position: with synchronous = FULL a commit returns after its fsync."""
        return self._flushed

    def flush(self) -> str | None:
        return self._flushed

    def works(self) -> bool:
        return self._turns.moved()

    def check(self, relations: Sequence[Relation]) -> Iterator[Finding]:
        return preflight.findings(self._file, self._db, relations)

    def drop(self) -> None:
        if not self._has_tables():
            return
        db = self._opened()
        with self._rolled_back(db):
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM cdc_holder WHERE sync = ?", (self.sync,))
            if self.state.forget():
                for table in OWN_TABLES:
                    db.execute(f"DROP TABLE {table}")
                self._ready = False
            db.execute("COMMIT")

    def _connect(self, *, create: bool) -> sqlite3.Connection:
        self._db = connect(self._file, create=create, busy_seconds=self.busy_seconds)
        self._turns.count(self._db)
        return self._db

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self._connect(create=True)
        assert self._db is not None
        return self._db

    def _take_lock(self, db: sqlite3.Connection, holder: str) -> None:
        lock = WriterLock(self._file, self.sync)
        try:
            taken = lock.acquire()
        except OSError as e:
            raise PermanentError(
                f"{self._file} cannot be locked: {e.strerror}",
                "put the database on a local disk: locks do not work on every file system",
            ) from e
        if taken:
            self._lock = lock
            return
        found = None
        if self._has_tables():
            with named(self._file):
                found = db.execute(
                    "SELECT holder FROM cdc_holder WHERE sync = ?", (self.sync,)
                ).fetchone()
        raise LockedError(
            f"sync {self.sync} is already run by {found[0] if found else 'another process'},"
            f" which writes into {self._file}",
            "stop that one first, or let it do the work",
        )

    def _has_tables(self) -> bool:
        if not self._ready and self._db is not None:
            with named(self._file):
                [(count,)] = self._db.execute(
                    "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN"
                    f" ({', '.join('?' for _ in OWN_TABLES)})",
                    OWN_TABLES,
                )
            self._ready = count == len(OWN_TABLES)
        return self._ready

    def _make_tables(self, db: sqlite3.Connection) -> None:
        if self._has_tables():
            return
        with self._rolled_back(db):
            db.execute("BEGIN IMMEDIATE")
            for name, columns in {**TABLES, "cdc_holder": _HOLDER}.items():
                db.execute(f"CREATE TABLE IF NOT EXISTS {name} {columns}")
            db.execute("COMMIT")
        self._ready = True

    def _execute(self, sql: str, values: Sequence[Any]) -> tuple[list[tuple[Any, ...]], int]:
        """`State`'s way to the tables. Where they are missing there is nothing to read, and they are
        made before something is written: looking at a sync that never ran leaves no trace."""
        if not self._has_tables():
            if sql.startswith("SELECT"):
                return [], 0
            self._make_tables(self._opened())
        db = self._opened()
        if sql == "BEGIN":
            # A transaction that reads first and writes later could be refused in the middle.
            sql = "BEGIN IMMEDIATE"
        elif sql == "ROLLBACK" and not db.in_transaction:
            return [], 0  # SQLite has rolled back by itself, as on a full disk
        with named(self._file):
            cursor = db.execute(sql, values)
            return cursor.fetchall(), cursor.rowcount

    def _write(self, db: sqlite3.Connection, batch: Batch, reread: Rereader) -> Applied:
        """Writes the rows of a batch: in the source's order, else by their net effect."""
        inside = db.in_transaction
        self._begin(db, inside=inside)
        writer = self._writer(db, batch)
        try:
            writer.write(batch.deltas)
        except sqlite3.IntegrityError as e:
            self._restart(db, e, inside=inside)
            writer = self._writer(db, batch)
            try:
                write_net(db, self._tables.of, writer, batch.deltas)
            except sqlite3.IntegrityError as e:
                if batch.position is not None:
                    raise
                # What is in the way may be moved by the transaction's next piece: such a row is
                # stale as one in a redo is.
                self._restart(db, e, inside=inside)
                self._redo.update(r.table for r in batch.content.relations)
                writer = self._writer(db, batch)
                writer.write(batch.deltas)
        exact_at = writer.read_again(reread, batch.deltas)
        if inside:
            db.execute("RELEASE batch")
        return Applied(batch.rows, writer.healed, exact_at)

    def _writer(self, db: sqlite3.Connection, batch: Batch) -> Writer:
        return Writer(db, self._tables.of, batch.redo | self._redo)

    def _begin(self, db: sqlite3.Connection, *, inside: bool) -> None:
        if inside:
            # A piece of a transaction is written already; it stays if this one is written again.
            db.execute("SAVEPOINT batch")
            return
        db.execute("BEGIN IMMEDIATE")
        rows = db.execute(
            "SELECT position FROM cdc_checkpoint WHERE sync = ?", (self.sync,)
        ).fetchall()
        if self.state.position is None or rows != [(self.state.position,)]:
            # Here and not only by `advance` at the end: a batch that was applied before would meet
            # its own rows first, and fail for a reason that is none.
            self.state.advanced("", touched=0)

    def _restart(
        self, db: sqlite3.Connection, error: sqlite3.IntegrityError, *, inside: bool
    ) -> None:
        """Back to the batch's beginning, if another way to write it may do better."""
        if not is_unique(error) or not db.in_transaction:
            raise error
        if inside:
            db.execute("ROLLBACK TO batch")
            db.execute("RELEASE batch")
        else:
            db.execute("ROLLBACK")
        self._begin(db, inside=inside)

    @contextmanager
    def _rolled_back(self, db: sqlite3.Connection) -> Iterator[None]:
        """Whatever goes wrong inside ends the transaction: others are not kept waiting for it."""
        try:
            with named(self._file):
                yield
        except BaseException:
            with suppress(sqlite3.Error):
                db.rollback()
            raise
