"""A PostgreSQL source, 14 and newer: keeps the contract in cdc/sources/source.py."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from psycopg import pq

from appliers.batch import Reread
from appliers.delta import Commit
from appliers.errors import PermanentError, TransientError
from appliers.finding import Finding
from appliers.images import Format
from appliers.relation import Relation
from cdc.sources.postgres import check, copying, reading, slot
from cdc.sources.postgres.catalog import catalog_of, relation_now
from cdc.sources.postgres.connection import (
    Connection,
    command,
    connect,
    connect_walsender,
    source_conninfo,
    start_replication,
    translating,
    walsender,
)
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.postgres.planned import (
    Published,
    has_news,
    have_changed,
    is_outdated,
    looked,
    published,
    renewed,
)
from cdc.sources.postgres.relations import RelationMaker
from cdc.sources.postgres.stream import PostgresStream
from cdc.sources.postgres.types import TypeCatalog
from cdc.sources.source import Catalog, GapError, Kept, Opening, Position, Shape, SourceLog

OLDEST = 140000
TEND_EVERY = 3.0
"""Seconds for which the application's updates may be refused after it has dropped a key."""

AGAIN = "the sync begins again, and copies what was not in the log"


class PostgresSource:
    """One sync's hand on a PostgreSQL source. Its ordinary connection is used by one thread; streams
    and rounds have connections of their own."""

    dialect = "postgres"

    def __init__(self, url: str, password: str | None, sync: str) -> None:
        self.sync = sync
        self.name = slot.slot_name(sync)
        self.kept = Kept(
            f"slot and publication {self.name}",
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            f" WHERE slot_name = '{self.name}' AND database = current_database();"
            f" DROP PUBLICATION IF EXISTS {self.name};",
        )
        application = f"cdc {sync}"
        self._info = source_conninfo(url, password, application)
        self._walsender_info = source_conninfo(url, password, application, replication="database")
        self._connection: Connection | None = None
        self._tended_at = time.monotonic()
        self._interrupted = threading.Event()
        self._types = TypeCatalog()
        self._catalog = Catalog(())
        self._published: Sequence[Relation] = ()
        self._found: dict[str, Published] = {}
        self._news = False

    def open(self) -> None:
        self._connection = connect(self._info)
        if self._db.info.server_version < OLDEST:
            raise PermanentError(
                f"source: PostgreSQL {self._db.info.server_version // 10000} is too old: 14 or newer is needed",
                "upgrade the source",
            )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def interrupt(self) -> None:
        """Ends waits for the source's transactions, now and from now on, with TransientError."""
        self._interrupted.set()

    def server(self) -> str:
        return f"PostgreSQL {self._db.info.parameter_status('server_version')}"

    def position(self, text: str) -> Lsn:
        return Lsn.parse(text)

    def catalog(self, patterns: Sequence[str]) -> Catalog:
        self._catalog = catalog_of(self._db, self._types, patterns)
        return self._catalog

    def start(self, relations: Sequence[Relation]) -> Opening:
        self._require_logical()
        self.publish(relations)
        with self._walsender() as walsender:
            identity = slot.identify(walsender, self.name)
            position = slot.create_slot(walsender, self._db, self.name, self._interrupted.is_set)
        return Opening(identity, position, created=True)

    def resume(
        self, identity: str, position: Position, relations: Sequence[Relation]
    ) -> frozenset[str]:
        at = _lsn(position)
        self._require_logical()
        with self._walsender() as walsender:
            slot.verify_identity(
                walsender, identity, at, self.name, self.sync, reading.head(self._db, "flush")
            )
        slot.verify_slot(self._db, self.name, self.sync, at)
        return slot.unpublished(self._db, self.name, relations)

    def publish(self, relations: Sequence[Relation]) -> None:
        slot.ensure_publication(self._db, self.name, relations)
        self._published, self._found = relations, published(self._db, self.name)
        self._news = True

    def outdated(self, fingerprints: Mapping[str, str]) -> frozenset[str]:
        now = self._found
        return frozenset(
            table
            for table, planned in fingerprints.items()
            if table in now and is_outdated(self._db, planned, now[table])
        )

    def renewed(self, fingerprints: Mapping[str, str]) -> dict[str, str]:
        if not self._news:
            return {}
        self._news = False
        now = self._found
        made = {t: renewed(was, now[t]) for t, was in fingerprints.items() if t in now}
        return {table: new for table, new in made.items() if new is not None}

    def head(self) -> Lsn:
        return reading.head(self._db, "flush")

    def committed_head(self) -> Lsn:
        """With `synchronous_commit = off` a commit is visible before it is flushed, and the walsender
        sends what is flushed; the WAL writer flushes it within three times wal_writer_delay (manual,
        "Asynchronous Commit")."""
        written = reading.head(self._db, "insert")
        with translating():
            row = self._db.execute(
                "SELECT setting::int FROM pg_settings WHERE name = 'wal_writer_delay'"
            ).fetchone()
        until = time.monotonic() + 3 * (row[0] if row else 200) / 1000
        while (flushed := self.head()) < written and time.monotonic() < until:
            time.sleep(0.02)
        return min(written, flushed)

    def log(self) -> SourceLog:
        with translating():
            row = self._db.execute(
                "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"
                " - restart_lsn)::bigint, wal_status FROM pg_replication_slots"
                " WHERE slot_name = %s AND database = current_database()",
                (self.name,),
            ).fetchone()
        return SourceLog(row[0], row[1]) if row else SourceLog()

    def tend(self) -> None:
        """A migration may drop the key of a published table while we stream, or make it anew; and somebody
        may alter the publication: what is not in the log is copied by the session that comes next."""
        now = time.monotonic()
        if now - self._tended_at < TEND_EVERY:
            return
        self._tended_at = now
        lost = slot.unpublish_keyless(self._db, self.name)
        if lost:
            raise TransientError(
                f"source: {', '.join(lost)} has lost its replica identity and was taken out of publication"
                f" {self.name}: PostgreSQL would have refused the application's updates",
                "give it a primary key again, or leave it out of `tables`",
            )
        left = slot.left_out(self._db, self.name, self._published)
        if left:
            raise TransientError(
                f"source: publication {self.name} does not publish {', '.join(left)} any more",
                AGAIN,
            )
        found = published(self._db, self.name)
        looks = {t: (was, found.get(t, was)) for t, was in self._found.items()}
        again = [t for t, look in looks.items() if have_changed(self._db, *look)]
        if again:
            raise TransientError(
                f"source: {', '.join(again)}, or a partition or an enum of it, was altered, or was out of publication"
                f" {self.name} for a while, or another table has its name now",
                AGAIN,
            )
        self._news |= any(has_news(*look) for look in looks.values())
        self._found = {table: looked(*look) for table, look in looks.items()}

    def stream(self, position: Position, *, binary: bool, shape: Shape) -> PostgresStream:
        conn = connect_walsender(self._walsender_info)
        return self._start(conn, self.name, _lsn(position), binary=binary, shape=shape)

    def tail(
        self,
        *,
        from_start: bool,
        checkpoint: Callable[[], Position | None],
        relations: Sequence[Relation],
        shape: Shape,
    ) -> PostgresStream:
        """A stream beside the sync, in text, from a temporary slot that ends with it: from now on, or
        from where the sync's own slot stands. Moves nothing. Raises GapError if `from_start` and there is no slot."""
        conn = connect_walsender(self._walsender_info)
        name = self._passing("tail")
        try:
            if from_start:
                if self.log().state is None:
                    raise GapError(
                        f"replication slot {self.name} does not exist: the sync was never started"
                    )
                command(
                    conn,
                    f"SELECT pg_copy_logical_replication_slot('{self.name}', '{name}', true)",
                )
            else:
                command(
                    conn,
                    f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT",
                    self._interrupted.is_set,
                )
        except BaseException:
            conn.finish()
            raise
        return self._start(conn, name, Lsn(0), binary=False, shape=shape)

    def copy_round(self, patience: float | None = None) -> copying.PostgresRound:
        return copying.PostgresRound(
            self._walsender_info,
            self._info,
            (self.name, self._found),
            self._passing("copy"),
            self._interrupted.is_set,
            patience,
        )

    def copy_relation(self, relation: Relation, *, binary: bool) -> Relation:
        return copying.copy_relation(relation, binary=binary)

    def customer_bounds(self, relation: Relation, customer: str) -> str:
        columns = customer_columns(relation, customer)
        copying.check_readable(self._db, relation, columns)
        return json.dumps({"customer": columns})

    def bounded_to(self, bounds: str) -> dict[str, str] | None:
        found: dict[str, str] | None = json.loads(bounds).get("customer")
        return found

    def reread(
        self, relation: Relation, images: Sequence[bytes], commit: Commit, shape: Shape
    ) -> Reread:
        now = relation_now(self._db, self._types, relation.ident)
        wanted = shape(copying.copy_relation(now or relation, binary=relation.format.binary))
        if now is None:
            return Reread(wanted, [], str(reading.head(self._db, "insert")))
        gone = set(relation.key_names) - {c.name for c in now.columns}
        if gone:
            raise PermanentError(
                f"table {relation.table} has lost column {', '.join(sorted(gone))} of its key:"
                " rows that its older changes leave incomplete cannot be read again",
                "`cdc drop` the sync and start it anew",
            )
        return reading.reread(self._db, relation, wanted, images, commit)

    def check(self, relations: Sequence[Relation]) -> Iterator[Finding]:
        return check.check(self._db, self.name, relations, self._walsender)

    def drop(self) -> None:
        slot.drop(self._db, self.name)

    @property
    def _db(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("the source is not open")
        return self._connection

    def _walsender(self) -> AbstractContextManager[pq.abc.PGconn]:
        return walsender(self._walsender_info)

    def _passing(self, purpose: str) -> str:
        """A name for a temporary slot. Process numbers are not enough: containers share them."""
        return f"{self.name[:40]}_{purpose}_{secrets.token_hex(4)}"

    def _require_logical(self) -> None:
        with translating():
            row = self._db.execute(
                "SELECT current_setting('wal_level'), pg_is_in_recovery()"
            ).fetchone()
        if row and row[1]:
            # It may be on its way to being promoted, behind an address that moves.
            raise TransientError(
                "source: the server is a standby, expected a primary", check.STANDBY
            )
        if row and row[0] != "logical":
            raise PermanentError(
                f"source: wal_level is {row[0]}, expected logical",
                "ALTER SYSTEM SET wal_level = logical; -- then restart the source",
            )

    def _start(
        self, conn: pq.abc.PGconn, name: str, at: Lsn, *, binary: bool, shape: Shape
    ) -> PostgresStream:
        options = f"proto_version '1', publication_names '\"{self.name}\"'" + (
            ", binary 'true'" if binary else ""
        )
        try:
            start_replication(conn, f"SLOT {name} LOGICAL {at} ({options})")
        except BaseException:
            conn.finish()
            raise
        images = Format.PGOUTPUT_BINARY if binary else Format.PGOUTPUT_TEXT
        maker = RelationMaker(self._catalog.relations, images, lambda: connect(self._info))
        return PostgresStream(conn, at, lambda message: shape(maker.relation(message)))


def customer_columns(relation: Relation, customer: str) -> dict[str, str]:
    """The customer's key as column values of this table. Raises PermanentError if it does not fit."""
    names = [relation.columns[i].name for i in relation.customer_columns]
    values = [customer] if len(names) == 1 else customer.split(",")
    if not names or len(names) != len(values):
        raise PermanentError(
            f"customer key of {len(values)} values for table {relation.table}, expected {len(names)}",
            "write the customer's key as the values of its columns, joined by commas",
        )
    return dict(zip(names, values, strict=True))


def _lsn(position: Position) -> Lsn:
    if not isinstance(position, Lsn):
        raise TypeError(f"expected an Lsn, got {type(position).__name__}")
    return position
