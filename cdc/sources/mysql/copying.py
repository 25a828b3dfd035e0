"""Reading tables of a MySQL or MariaDB source: chunks of a copy, and keys.

A chunk is a range of keys, read through the key's index; the first and the last are open, so that
every key is in exactly one.

A read must not keep an ALTER of its table waiting for longer than a chunk takes. A savepoint that is
rolled back gives the table's lock up and keeps the snapshot (sql/transaction.cc,
trans_rollback_to_savepoint; mysqldump does so too), so that all reads of a round see one snapshot. On
MariaDB it gives the lock up only in a session with `sql_log_bin = 0` (measured on 10.11), which takes
the privilege BINLOG ADMIN; without it each chunk is read under a snapshot of its own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Final

from appliers.errors import PermanentError, TransientError
from appliers.relation import Relation
from cdc.sources.mysql import keys, printing, results
from cdc.sources.mysql.catalog import Field, Table, table_now
from cdc.sources.mysql.connection import (
    Connection,
    close,
    one,
    quoted,
    rows,
    server_of,
    translating,
)
from cdc.sources.mysql.failures import TableAlteredError
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.snapshots import Interrupted, open_alike, open_snapshot
from cdc.sources.source import Plan, StalePlanError

CHUNK_BYTES: Final = 16 << 20
FEWEST_ROWS: Final = 1_000
MOST_ROWS: Final = 50_000
"""A chunk is a second's work, which a kill can lose."""

READERS: Final = 5
"""Connections of a round that share a snapshot: one for each thread that copies, and one that plans."""

Blocks = Generator[list[bytes], None, None]

_SAVEPOINT: Final = "cdc_chunk"


class MysqlRound:
    """Snapshots on connections of their own: one for all readers, where the source's commits leave the
    time to open it several times and locks can be given up under it."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        given: BinlogPosition | None,
        interrupted: Interrupted,
        patience: float | None,
    ) -> None:
        self._connect = connect
        self._given = given
        self._interrupted = interrupted
        self._patience = patience
        self._lock = threading.Lock()
        self._free: list[MysqlChunkReader] = []
        self._closed = False
        dbs: list[Connection] = []
        try:
            dbs.append(self._connected())
            self._server = server_of(dbs[0])
            self._keeps = self._server.flavour == "mysql" or _unlogged(dbs[0])
            while self._keeps and len(dbs) < READERS:
                dbs.append(self._connected())
            positions = open_alike(dbs, self._server, given, interrupted)
        except BaseException:
            for db in dbs:
                close(db)
            raise
        self._free = [self._reader(db, at) for db, at in zip(dbs, positions, strict=True)]
        self.position = next(p for p in positions if all(p.covers(q) for q in positions))

    def reader(self) -> MysqlChunkReader:
        """May be called by several threads."""
        with self._lock:
            if self._free:
                return self._free.pop()
        db = self._connected()
        try:
            return self._reader(db, self._open(db))
        except BaseException:
            close(db)
            raise

    def close(self) -> None:
        with self._lock:
            free, self._free = self._free, []
            self._closed = True
        for reader in free:
            reader.end()

    def _connected(self) -> Connection:
        db = self._connect()
        try:
            if server_of(db).flavour == "mariadb":
                _unlogged(db)
            if self._patience is not None:
                rows(db, f"SET SESSION lock_wait_timeout = {max(1, round(self._patience))}")
        except BaseException:
            close(db)
            raise
        return db

    def _open(self, db: Connection) -> BinlogPosition:
        return open_snapshot(db, self._server, self._given, self._interrupted)

    def _reader(self, db: Connection, position: BinlogPosition) -> MysqlChunkReader:
        again = None if self._keeps else lambda: self._open(db)
        return MysqlChunkReader(db, position, self._back, again)

    def _back(self, reader: MysqlChunkReader) -> None:
        with self._lock:
            if not self._closed:
                self._free.append(reader)
                return
        reader.end()


class MysqlChunkReader:
    """Reads under one snapshot, or with `again`, which opens one, under a new one for each time that
    `position` was asked for. `close` gives it back to its round."""

    def __init__(
        self,
        db: Connection,
        position: BinlogPosition,
        back: Callable[[MysqlChunkReader], None],
        again: Callable[[], BinlogPosition] | None,
    ) -> None:
        self._db = db
        self._position = position
        self._back = back
        self._again = again
        self._open, self._used, self._busy = True, False, False
        self._packet = 0
        self._blocks = _nothing()

    @property
    def position(self) -> BinlogPosition:
        """Covers what is read from now on, until it is asked for again."""
        if self._again is not None and self._used and not self._busy:
            self._let_go()
        return self._ensured()

    def plan(self, relation: Relation) -> Plan:
        with self._reading(relation) as table:
            index, names = table.key() or ("", [])
            key = [table.field_of(n) for n in names]
            source = f"{table.quoted} FORCE INDEX ({quoted(index)})"
            size = max(FEWEST_ROWS, min(MOST_ROWS, CHUNK_BYTES // max(table.row_length, 1)))
            ends = list(self._ends(source, key, size))
            last = f" WHERE {keys.after(key, ends[-1])}" if ends else ""
            (rest,) = one(self._db, f"SELECT COUNT(*) FROM {source}{last}")
            fingerprint = table.fingerprint()
        bounds = [
            json.dumps({"after": start, "upto": stop})
            for start, stop in zip([None, *ends], [*ends, None], strict=True)
        ]
        return Plan(bounds, len(ends) * size + int(rest), fingerprint)

    def read(self, relation: Relation, bounds: str, fingerprint: str) -> Iterator[list[bytes]]:
        return self._next(self._chunk(relation, bounds, fingerprint))

    def _chunk(self, relation: Relation, bounds: str, fingerprint: str) -> Blocks:
        where = json.loads(bounds)
        with self._reading(relation) as table:
            if "customer" in where:
                yield from self._rows(table, customer_condition(table, where["customer"]))
                return
            if table.fingerprint() != fingerprint:
                raise StalePlanError(relation.table)
            _, names = table.key() or ("", [])
            key = [table.field_of(n) for n in names]
            try:
                conditions = [
                    *([keys.after(key, where["after"])] if where["after"] else []),
                    *([keys.upto(key, where["upto"])] if where["upto"] else []),
                ]
            except keys.BadKeyError as e:
                raise StalePlanError(relation.table) from e
            yield from self._rows(table, " AND ".join(f"({c})" for c in conditions), forced=True)

    def keys(self, relation: Relation, only: dict[str, str] | None) -> Iterator[list[bytes]]:
        return self._next(self._keys(relation, only))

    def _keys(self, relation: Relation, only: dict[str, str] | None) -> Blocks:
        with self._reading(relation) as table:
            condition = customer_condition(table, only) if only else ""
            yield from self._rows(table, condition, forced=not only, wanted=relation.key_columns)

    def close(self) -> None:
        self._next(_nothing())
        if self._db.open:
            if self._again is not None:
                self._let_go()
            self._back(self)

    def end(self) -> None:
        close(self._db)

    def _next(self, blocks: Blocks) -> Blocks:
        """Ends a read that was left half-way, maybe by an error that still holds it, for the next."""
        self._blocks.close()
        self._blocks = blocks
        return blocks

    def _ends(self, source: str, key: list[Field], size: int) -> Iterator[list[str]]:
        """The last keys of full chunks: steps through the index at some millions of keys a second."""
        values = ", ".join(map(keys.selected, key))
        order = ", ".join(quoted(f.name) for f in key)
        after = ""
        while True:
            found = one(
                self._db,
                f"SELECT {values} FROM {source}{after} ORDER BY {order} LIMIT 1 OFFSET {size - 1}",
            )
            if not found:
                return
            bound = [str(v) for v in found]
            yield bound
            after = f" WHERE {keys.after(key, bound)}"

    def _rows(
        self,
        table: Table,
        condition: str,
        *,
        forced: bool = False,
        wanted: tuple[int, ...] | None = None,
    ) -> Blocks:
        lines = printing.lines_of(table.fields, wanted, self._most_joined())
        index, _ = table.key() or ("", [])
        force = f" FORCE INDEX ({quoted(index)})" if forced else ""
        where = f" WHERE {condition}" if condition else ""
        statement = f"SELECT {lines.selected} FROM {table.quoted}{force}{where}"
        with closing(results.packets(self._db, statement)) as blocks:
            for block in blocks:
                yield lines.read(block, table.table)

    def _most_joined(self) -> int:
        if not self._packet:
            (size,) = one(self._db, "SELECT @@SESSION.max_allowed_packet")
            self._packet = int(size)
        return min(self._packet, printing.MOST_JOINED)

    @contextmanager
    def _reading(self, relation: Relation) -> Iterator[Table]:
        """Holds the table's lock against ALTER. Raises StalePlanError for a table that was altered
        after the snapshot: it can only be read later."""
        self._ensured()
        self._busy = self._used = True
        try:
            rows(self._db, f"SAVEPOINT {_SAVEPOINT}")
            rows(self._db, f"SELECT 1 FROM {quoted(relation.schema, relation.name)} LIMIT 0")
            with translating():
                yield self._unaltered(relation)
        except TableAlteredError as e:
            raise StalePlanError(relation.table) from e
        finally:
            self._busy = False
            if self._db.open:
                rows(self._db, f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")

    def _ensured(self) -> BinlogPosition:
        if not self._open and self._again is not None:
            self._position = self._again()
            self._open, self._used = True, False
        return self._position

    def _let_go(self) -> None:
        rows(self._db, "ROLLBACK")
        self._open = False

    def _unaltered(self, relation: Relation) -> Table:
        """The table as it is, which has to be as the session knows it."""
        table = table_now(self._db, relation.schema, relation.name)
        columns = tuple(f.column for f in table.fields) if table else ()
        if table is None or table.refusal() or columns != relation.columns:
            raise TransientError(
                f"source: table {relation.table} was altered just now",
                "the sync begins again with its new shape",
            )
        if tuple((table.key() or ("", []))[1]) != relation.key_names:
            raise TransientError(
                f"source: table {relation.table} has another key since just now",
                "the sync begins again with its new shape",
            )
        return table


def _nothing() -> Blocks:
    yield from ()


def _unlogged(db: Connection) -> bool:
    """MariaDB: whether this session may do without the log, which it does not write to anyway."""
    try:
        rows(db, "SET SESSION sql_log_bin = 0")
    except PermanentError:
        return False
    return True


def customer_condition(table: Table, values: dict[str, str]) -> str:
    """Columns equal to these texts. Raises TransientError if the table has lost one of them."""
    at = {f.name: f for f in table.fields}
    if not values.keys() <= at.keys():
        raise TransientError(f"source: table {table.table} was altered just now")
    return " AND ".join(keys.equal(at[name], text) for name, text in values.items())
