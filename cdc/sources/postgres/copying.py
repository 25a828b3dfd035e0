"""Reading tables of a PostgreSQL source: chunks of a copy, keys, single rows again.

A chunk is a range of blocks of one heap, read with a TID range scan (PostgreSQL 14 and newer), not a
range of keys: it is read at the speed of a sequential scan whatever the key is, and needs no order
that the key's type, collation or the number of its columns could spoil. That is exact under copy and
redo: a row that moves to another block after the plan was made was changed after it, so its change is
in the log behind the sync's position and is redone; a table that was rewritten without changing rows
(VACUUM FULL, CLUSTER) has another file, which every chunk checks under its lock (`fingerprint`).
"""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import pq, sql

from appliers.errors import PermanentError, TransientError
from appliers.images import (
    COPY_BINARY_HEADER,
    COPY_BINARY_TRAILER,
    Format,
)
from appliers.relation import Relation
from cdc.sources.postgres.connection import (
    Connection,
    command,
    connect,
    connect_walsender,
    translating,
)
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.postgres.planned import (
    Published,
    fingerprint,
    have_changed,
    is_stale,
    published,
)
from cdc.sources.source import Plan, StalePlanError

CHUNK_BLOCKS: Final = 2048
CHUNK_ROWS: Final = 100_000
"""At most 16 MB of a heap and of what stands out of line, and at most so many rows: a second's work that
a kill can lose. Neither is ever smaller than a block."""

SAMPLE_BLOCKS: Final = 16
GUESSED_DENSITY: Final = 40.0
"""Rows a block, of a heap that was never analyzed and has none in its sample."""

BLOCK_ROWS: Final = 512
VISIBLE_WITHIN: Final = 60.0
TLS_LOOK: Final = 10
"""Milliseconds."""

_HEAPS = """
    SELECT c.oid, n.nspname, c.relname, pg_relation_filenode(c.oid),
           coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int,
           coalesce(pg_relation_size(c.reltoastrelid), 0) / current_setting('block_size')::int,
           CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples::float8 / c.relpages END,
           pg_relation_filenode(c.oid) IS NOT DISTINCT FROM c.relfilenode
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND (c.oid = %(root)s
      OR c.oid IN (SELECT relid FROM pg_partition_tree(%(root)s::oid::regclass)))
    ORDER BY c.oid"""


class Heap(NamedTuple):
    """A table's, or one of its partitions'."""

    oid: int
    schema: str
    name: str
    filenode: int
    blocks: int
    toasted: int
    """Blocks of what stands out of line."""
    density: float | None
    """Rows a block; None if it was never analyzed."""
    current: bool
    """It is that of the snapshot: pg_class is read under it, but pg_relation_filenode looks at now."""

    def starts(self, density: float) -> range:
        """The first blocks of its chunks."""
        held = CHUNK_BLOCKS * self.blocks // max(self.blocks + self.toasted, 1)
        return range(0, self.blocks, max(1, min(held, int(CHUNK_ROWS / density))))


class PostgresRound:
    """A snapshot exported by a temporary logical slot: exactly the state at the slot's consistent
    point. A plain SELECT would not do: a commit reaches the log before other sessions see it.
    `publication` is its name, and the tables as the session has found them in it."""

    def __init__(
        self,
        walsender_info: str,
        info: str,
        publication: tuple[str, Mapping[str, Published]],
        name: str,
        interrupted: Callable[[], bool],
        patience: float | None,
    ) -> None:
        self._info = info
        self._publication = publication
        self._patience = patience
        until = None if patience is None else time.monotonic() + patience
        self._conn = connect_walsender(walsender_info)
        try:
            modern = self._conn.server_version >= 150000
            options = "(SNAPSHOT 'export')" if modern else "EXPORT_SNAPSHOT"
            row = command(
                self._conn,
                f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput {options}",
                lambda: interrupted() or (until is not None and time.monotonic() > until),
            )[0]
        except BaseException:
            self._conn.finish()
            raise
        self.position = Lsn.parse(row[1] or "")
        self._snapshot = row[2] or ""

    def reader(self) -> PostgresChunkReader:
        db = connect(self._info)
        if self._patience is not None:
            with translating():
                db.execute(f"SET lock_timeout = {int(self._patience * 1000)}")
        return PostgresChunkReader(db, self._publication, self._snapshot, self.position)

    def close(self) -> None:
        self._conn.finish()


class PostgresChunkReader:
    """Reads under a round's snapshot; each read is a transaction of its own, so that a schema
    migration waits for one chunk at most."""

    def __init__(
        self,
        db: Connection,
        publication: tuple[str, Mapping[str, Published]],
        snapshot: str,
        position: Lsn,
    ) -> None:
        self.position = position
        self._db = db
        self._publication, self._found = publication
        self._snapshot = snapshot

    def plan(self, relation: Relation) -> Plan:
        with translating(), self._transaction():
            heaps, planned = self._lock(relation)
            densities = [self._density(h) for h in heaps]
        bounds = [
            json.dumps({"heap": [h.schema, h.name], "from": start, "to": start + starts.step})
            for h, starts in zip(heaps, map(Heap.starts, heaps, densities), strict=True)
            for start in starts
        ]
        rows = sum(h.blocks * d for h, d in zip(heaps, densities, strict=True))
        return Plan(bounds, round(rows), planned)

    def read(self, relation: Relation, bounds: str, fingerprint: str) -> Iterator[list[bytes]]:
        columns = sql.SQL(", ").join(sql.Identifier(c.name) for c in relation.columns)
        where = json.loads(bounds)
        if "customer" in where:
            return self._copy(relation, columns, condition=_equals(where["customer"]))
        condition = _blocks(where["from"], where["to"])
        heap = sql.Identifier(*where["heap"])
        return self._copy(relation, columns, heap=heap, condition=condition, expected=fingerprint)

    def keys(self, relation: Relation, only: dict[str, str] | None) -> Iterator[list[bytes]]:
        columns = sql.SQL(", ").join(
            sql.Identifier(c.name) if i in relation.key_columns else sql.SQL("NULL")
            for i, c in enumerate(relation.columns)
        )
        return self._copy(relation, columns, condition=_equals(only) if only else None)

    def close(self) -> None:
        self._db.close()

    def _transaction(self) -> Any:
        """A transaction that reads the round's snapshot."""
        return _SnapshotTransaction(self._db, self._snapshot)

    def _copy(
        self,
        relation: Relation,
        columns: sql.Composable,
        *,
        heap: sql.Composable | None = None,
        condition: sql.Composable | None,
        expected: str | None = None,
    ) -> Iterator[list[bytes]]:
        """Rows of one heap, which has to be the one that was planned, or of the whole table."""
        with translating(), self._transaction():
            heaps, _ = self._lock(relation, expected)
            table: sql.Composable = sql.Identifier(relation.schema, relation.name)
            if heap is not None or any(h.oid == relation.ident for h in heaps):
                # What inherits from a table is not part of it, as in the publication.
                table = sql.SQL("ONLY {}").format(heap or table)
            kind = "binary" if relation.format is Format.COPY_BINARY else "text"
            statement = sql.SQL("COPY (SELECT {} FROM {}{}) TO STDOUT (FORMAT {})").format(
                columns,
                table,
                sql.SQL(" WHERE {}").format(condition) if condition else sql.SQL(""),
                sql.SQL(kind),
            )
            yield from _copy_out(self._db.pgconn, statement.as_bytes(self._db), relation.format)

    def _density(self, heap: Heap) -> float:
        """Rows a block: what the server knows, or how it is in the heap's middle."""
        if heap.density is not None or not heap.blocks:
            return heap.density or GUESSED_DENSITY
        start = max(0, (heap.blocks - SAMPLE_BLOCKS) // 2)
        stop = min(heap.blocks, start + SAMPLE_BLOCKS)
        name = sql.Identifier(heap.schema, heap.name)
        query = sql.SQL("SELECT count(*) FROM ONLY {} WHERE {}").format(name, _blocks(start, stop))
        [[rows]] = self._db.execute(query).fetchall()
        return rows / (stop - start) or GUESSED_DENSITY

    def _lock(self, relation: Relation, expected: str | None = None) -> tuple[list[Heap], str]:
        """Locks the table and returns its heaps, which stay what they are until the transaction ends, and
        the fingerprint of a plan of them.

        A table that was rewritten after the snapshot looks empty under it (manual, "Caveats" of
        "Concurrency Control"), and nothing of that is in the log: it can only be read later."""
        name = sql.Identifier(relation.schema, relation.name)
        self._db.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(name))
        heaps = [Heap(*h) for h in self._db.execute(_HEAPS, {"root": relation.ident})]
        [now] = published(self._db, self._publication, relation.ident).values() or [None]
        self._require_unchanged(relation.table, now)
        found = fingerprint(now, {h.oid: h.filenode for h in heaps})
        if expected is not None and is_stale(expected, found):
            raise StalePlanError(relation.table)
        row = self._db.execute("SELECT to_regclass(%s)::oid", (name.as_string(),)).fetchone()
        if row != (relation.ident,):
            raise TransientError(
                f"source: table {relation.table} was made anew while it was being copied"
            )
        if not all(h.current for h in heaps):
            raise StalePlanError(relation.table)
        return heaps, found

    def _require_unchanged(self, table: str, now: Published | None) -> None:
        """Raises TransientError for a table that is not what the session has found: the stream may not be
        past what the log does not tell of it. The next session waits for that."""
        was = self._found.get(table)
        if was is not None and (now is None or have_changed(self._db, was, now)):
            raise TransientError(
                f"source: table {table} was altered, or was out of publication {self._publication}, just now",
                "the sync begins again, and copies it then",
            )


class _SnapshotTransaction:
    def __init__(self, db: Connection, snapshot: str) -> None:
        self._db = db
        self._snapshot = snapshot

    def __enter__(self) -> None:
        self._db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            self._db.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(self._snapshot))
        except (psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue) as e:
            self._db.execute("ROLLBACK")
            raise TransientError(
                "source: the copy's snapshot is gone: the connection that held it was lost",
                "check that the source is up",
            ) from e

    def __exit__(self, kind: object, *_: object) -> None:
        if self._db.closed:
            return
        if self._db.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            # A copy that was left half-way: nothing can be sent before it is read to its end.
            self._db.close()
        else:
            self._db.execute("ROLLBACK" if kind else "COMMIT")


def _blocks(start: int, stop: int) -> sql.Composable:
    """Rows of these blocks."""
    return sql.SQL("ctid >= {} AND ctid < {}").format(f"({start},0)", f"({stop},0)")


def _equals(values: dict[str, str]) -> sql.Composable:
    """Columns equal to these texts, which the server reads as the columns' types."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(text))
        for name, text in values.items()
    )


def _copy_out(conn: pq.abc.PGconn, statement: bytes, format: Format) -> Iterator[list[bytes]]:
    """The rows of a COPY TO STDOUT in blocks. One CopyData message holds one row (copyto.c,
    CopySendEndOfRow); in binary the header comes with the first and the trailer by itself."""
    conn.send_query(statement)
    poll = select.poll()
    poll.register(conn.socket, select.POLLIN)
    result = _next_result(conn, poll)
    if result is None or result.status != pq.ExecStatus.COPY_OUT:
        raise _copy_error(result)
    binary = format is Format.COPY_BINARY
    get = conn.get_copy_data
    block: list[bytes] = []
    first = binary
    while True:
        length, view = get(1)
        if length > 0:
            data = bytes(view)
            if first:
                data = data[len(COPY_BINARY_HEADER) :]
                first = False
            if data != COPY_BINARY_TRAILER or not binary:
                block.append(data)
                if len(block) >= BLOCK_ROWS:
                    yield block
                    block = []
        elif length == 0:
            _wait(conn, poll)
        else:
            break
    if block:
        yield block
    while (result := _next_result(conn, poll)) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise _copy_error(result)


def _next_result(conn: pq.abc.PGconn, poll: select.poll) -> pq.abc.PGresult | None:
    """The next result, waiting without holding the interpreter."""
    conn.flush()
    while conn.is_busy():
        _wait(conn, poll)
    return conn.get_result()


def _wait(conn: pq.abc.PGconn, poll: select.poll) -> None:
    """Takes what the server has sent. With TLS the rest of a record may wait inside OpenSSL, where the
    socket does not show it: after a moment without news we look there."""
    poll.poll(TLS_LOOK if conn.ssl_in_use else None)
    conn.consume_input()


def _copy_error(result: pq.abc.PGresult | None) -> Exception:
    if result is None:
        return TransientError("source: no reply to COPY", "check that the source is up")
    return psycopg.errors.error_from_result(result)


def check_readable(db: Connection, relation: Relation, values: dict[str, str]) -> None:
    """Raises PermanentError for values that the columns' types do not read: a plan with them would fail
    for ever."""
    query = sql.SQL("SELECT FROM {} WHERE {} LIMIT 0").format(
        sql.Identifier(relation.schema, relation.name), _equals(values)
    )
    with translating():
        try:
            db.execute(query)
        except psycopg.DataError as e:
            names = ", ".join(values)
            raise PermanentError(
                f"no customer of {relation.table} can have this key: it does not fit {names}",
                "write the customer's key as it stands in the table",
            ) from e


def copy_relation(relation: Relation, *, binary: bool) -> Relation:
    return replace(relation, format=Format.COPY_BINARY if binary else Format.COPY_TEXT)
