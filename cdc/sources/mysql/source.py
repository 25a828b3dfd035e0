"""A MySQL (8.0 and newer) or MariaDB (10.6 and newer) source: keeps the contract in cdc/sources/source.py."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from appliers import mysql_url
from appliers.batch import Reread
from appliers.delta import Commit
from appliers.errors import PermanentError
from appliers.finding import Finding
from appliers.relation import Relation
from cdc.sources.mysql import check, identity, keys, reading
from cdc.sources.mysql.catalog import ADD_KEY, Table, catalog_of, table_now
from cdc.sources.mysql.connection import (
    Connection,
    Server,
    close,
    connect,
    rows,
    server_of,
    variables,
)
from cdc.sources.mysql.copying import MysqlRound
from cdc.sources.mysql.filters import require_logged
from cdc.sources.mysql.grants import require_columns
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.relations import SyncedTables
from cdc.sources.mysql.snapshots import end_of_log, open_snapshot, start_of_stream
from cdc.sources.mysql.stream import MysqlStream
from cdc.sources.source import (
    Catalog,
    GapError,
    Opening,
    Piece,
    Position,
    Progress,
    Shape,
    SourceLog,
    Stream,
)

NEVER_STARTED: Final = "the sync has no checkpoint: it was never started"


class MysqlSource:
    """One sync's hand on a MySQL or MariaDB source. Its ordinary connection is used by one thread;
    streams and rounds have connections of their own. It leaves nothing on the source."""

    dialect = "mysql"
    kept = None

    def __init__(self, url: str, password: str | None, sync: str) -> None:
        self.sync = sync
        self._url, self._password = url, password
        self._home = mysql_url.database(url)
        self._connection: Connection | None = None
        self._interrupted = threading.Event()
        self._tables: dict[str, Table] = {}
        self._given: BinlogPosition | None = None

    def open(self) -> None:
        self._connection = self._connect()

    def close(self) -> None:
        if self._connection is not None:
            close(self._connection)

    def interrupt(self) -> None:
        self._interrupted.set()

    def server(self) -> str:
        return str(self._server)

    def position(self, text: str) -> BinlogPosition:
        return BinlogPosition.parse(text)

    def catalog(self, patterns: Sequence[str]) -> Catalog:
        found, self._tables = catalog_of(self._db, patterns, self._home)
        return found

    def start(self, relations: Sequence[Relation]) -> Opening:
        self._require(relations)
        known = identity.identify(self._db, self._server, self._home)
        position = start_of_stream(self._db, self._server, self._connect, self._interrupted.is_set)
        return Opening(known, position, created=True)

    def resume(
        self, identity_: str, position: Position, relations: Sequence[Relation]
    ) -> frozenset[str]:
        """Tables whose rows were replaced without a trace right before the position are to be copied."""
        at = _place(position)
        self._require(relations)
        identity.verify_identity(self._db, self._server, self._connect, self._home, identity_, at)
        identity.verify_log(self._db, self._server, self._connect, at, self.sync)
        return frozenset(at.replaced) & {r.table for r in relations}

    def publish(self, relations: Sequence[Relation]) -> None:
        """The log has every table."""

    def outdated(self, fingerprints: Mapping[str, str]) -> frozenset[str]:
        """None: the log has every table, and tells when another takes its name."""
        return frozenset()

    def renewed(self, fingerprints: Mapping[str, str]) -> dict[str, str]:
        return {}

    def head(self) -> BinlogPosition:
        return replace(end_of_log(self._db, self._server), files=identity.files(self._db))

    def committed_head(self) -> BinlogPosition:
        return self.head()

    def log(self) -> SourceLog:
        return SourceLog(by_age=True)

    def tend(self) -> None:
        """Nothing is made in the source."""

    def stream(self, position: Position, *, binary: bool, shape: Shape) -> Stream:
        """`binary` changes nothing: there is one format of images, in text."""
        at = _place(position)
        self._given = at
        return _Watched(self._stream(at, shape, "stream"), self._give)

    def tail(
        self,
        *,
        from_start: bool,
        checkpoint: Callable[[], Position | None],
        relations: Sequence[Relation],
        shape: Shape,
    ) -> Stream:
        self._require(relations)
        if not from_start:
            now = start_of_stream(self._db, self._server, self._connect, self._interrupted.is_set)
            return self._stream(now, shape, "tail")
        found = checkpoint()
        if found is None:
            raise GapError(NEVER_STARTED, f"cdc run {self.sync}")
        return self._stream(_place(found), shape, "tail")

    def copy_round(self, patience: float | None = None) -> MysqlRound:
        return MysqlRound(self._connect, self._given, self._interrupted.is_set, patience)

    def copy_relation(self, relation: Relation, *, binary: bool) -> Relation:
        return relation

    def customer_bounds(self, relation: Relation, customer: str) -> str:
        names = [relation.columns[i].name for i in relation.customer_columns]
        values = [customer] if len(names) == 1 else customer.split(",")
        if not names or len(names) != len(values):
            raise PermanentError(
                f"customer key of {len(values)} values for table {relation.table}, expected {len(names)}",
                "write the customer's key as the values of its columns, joined by commas",
            )
        table = self._tables[relation.table]
        try:
            for name, value in zip(names, values, strict=True):
                keys.equal(table.field_of(name), value)
        except keys.BadKeyError as e:
            raise PermanentError(
                f"no customer of {relation.table} can have this key: it does not fit {', '.join(names)}",
                "write the customer's key as it stands in the table",
            ) from e
        return json.dumps({"customer": dict(zip(names, values, strict=True))})

    def bounded_to(self, bounds: str) -> dict[str, str] | None:
        found: dict[str, str] | None = json.loads(bounds).get("customer")
        return found

    def reread(
        self, relation: Relation, images: Sequence[bytes], commit: Commit, shape: Shape
    ) -> Reread:
        position = open_snapshot(
            self._db, self._server, self._given, self._interrupted.is_set, commit.position
        )
        try:
            table = table_now(self._db, relation.schema, relation.name)
            if table is None:
                return Reread(relation, [], str(position))
            _require_key(relation, table)
            wanted = shape(table.relation(self._home))
            return reading.reread(self._db, relation, wanted, table, images, position)
        finally:
            if self._db.open:
                rows(self._db, "ROLLBACK")

    def check(self, relations: Sequence[Relation]) -> Iterator[Finding]:
        return check.check(self._db, self._server, relations)

    def drop(self) -> None:
        """A sync leaves nothing on this source."""

    @property
    def _db(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("the source is not open")
        return self._connection

    @property
    def _server(self) -> Server:
        return server_of(self._db)

    def _require(self, relations: Sequence[Relation]) -> None:
        """Raises PermanentError for a log that has not all of these tables, and for columns that a reader
        of the log would have, and of the tables not."""
        identity.require_log(self._db)
        require_logged(self._db, self._server, relations)
        require_columns(self._db, self._server, relations)

    def _connect(self) -> Connection:
        return connect(self._url, self._password, f"cdc {self.sync}")

    def _stream(self, at: BinlogPosition, shape: Shape, purpose: str) -> MysqlStream:
        folds = variables(self._db, "lower_case_table_names").get("lower_case_table_names", "0")
        tables = SyncedTables(
            self._tables, self._home, self._connect, shape, folds_names=folds != "0"
        )
        return MysqlStream(
            self._connect,
            at,
            tables,
            reader=f"cdc {purpose} {self.sync}",
            copies=purpose != "tail",
        )

    def _give(self, position: BinlogPosition) -> None:
        self._given = position


class _Watched:
    """A stream that tells how far it has read: copies and rereads must not be behind that."""

    def __init__(self, stream: Stream, give: Callable[[BinlogPosition], None]) -> None:
        self._stream = stream
        self._give = give
        self.behind = stream.behind
        self.keepalive = stream.keepalive
        self.confirm = stream.confirm
        self.close = stream.close

    def read(self, timeout: float) -> list[Piece | Progress]:
        found = self._stream.read(timeout)
        self.behind = self._stream.behind
        for event in reversed(found):
            if isinstance(event.position, BinlogPosition):
                # Before anybody gets to see what lies before it.
                self._give(event.position)
                break
        return found


def _require_key(relation: Relation, table: Table) -> None:
    gone = set(relation.key_names) - {f.name for f in table.fields}
    if gone:
        raise PermanentError(
            f"table {relation.table} has lost column {', '.join(sorted(gone))} of its key:"
            " rows that its older changes leave incomplete cannot be read again",
            "`cdc drop` the sync and start it anew",
        )
    if table.key() is None:
        raise PermanentError(
            f"table {relation.table} has lost its key: no row can be told from another",
            ADD_KEY.format(table.quoted),
        )


def _place(position: Position) -> BinlogPosition:
    if not isinstance(position, BinlogPosition):
        raise TypeError(f"expected a BinlogPosition, got {type(position).__name__}")
    return position
