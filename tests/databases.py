"""A database for one test, with what a test asks of it. Nothing of it outlives the test."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, LiteralString, TypeVar, cast

import psycopg
from psycopg import sql

from cdc.demo.server import LocalPostgres

Connection = psycopg.Connection[tuple[Any, ...]]
Answer = TypeVar("Answer")

# One sequence for all servers: a name in a log or in an error then says which test it was.
_numbers: Final = itertools.count(1)


def wait_until(
    condition: Callable[[], Answer], timeout: float = 60.0, message: str = "the condition"
) -> Answer:
    """Asks until the answer is true, and returns it; AssertionError with the last one if too late.

    To ask may take more of the processor than what is waited for (a status opens two connections). So it
    rests twice as long as an answer took, and the longer it has waited, the longer.
    """
    begun = asked = time.monotonic()
    while not (answer := condition()):
        now = time.monotonic()
        if now >= begun + timeout:
            raise AssertionError(f"not within {timeout:g} seconds: {message}; last: {answer!r}")
        time.sleep(max(0.01, min(0.1, (now - begun) / 20), min(0.5, 2 * (now - asked))))
        asked = time.monotonic()
    return answer


class Database:
    """A fresh database on a running server. Statements commit at once (autocommit)."""

    def __init__(self, server: LocalPostgres) -> None:
        self.server = server
        self.name = f"test_{next(_numbers)}"
        self.log_start = server.log.stat().st_size
        self._connections: list[Connection] = []
        self._main: Connection | None = None
        self._roles: list[str] = []
        with self._admin() as admin:
            self._known_origins = _origins(admin)
            # FILE_COPY writes 4 kB of log where WAL_LOG writes 4 MB, which every slot of the server
            # would have to read; its checkpoints cost nothing without fsync. 14 knows no other.
            how = " STRATEGY FILE_COPY" if admin.info.server_version >= 150000 else ""
            admin.execute(_compose("CREATE DATABASE {} TEMPLATE template0" + how, self.name))

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def url_as(self, role: str, password: str | None = None) -> str:
        return self.server.url(self.name, role, password)

    def connect(self, **options: Any) -> Connection:
        """Another connection, autocommit unless told otherwise; closed with the database."""
        connection = cast(
            "Connection", psycopg.connect(self.url, **({"autocommit": True} | options))
        )
        self._connections.append(connection)
        return connection

    def execute(self, statement: str, params: Sequence[Any] | None = None) -> int:
        """Runs one statement, or several if without parameters; the number of rows of the last."""
        return self._connection().execute(statement, params).rowcount

    def rows(self, query: str, params: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        return self._connection().execute(query, params).fetchall()

    def value(self, query: str, params: Sequence[Any] | None = None) -> Any:
        """The one value of a query that has one row of one column."""
        [(value,)] = self.rows(query, params)
        return value

    def create_role(self, options: LiteralString = "LOGIN") -> str:
        """A role with a name of its own. Roles belong to the server: it is dropped with the database."""
        role = f"role_{next(_numbers)}"
        with self._admin() as admin:
            admin.execute(_compose("CREATE ROLE {} " + options, role))
        self._roles.append(role)
        return role

    def drop(self) -> None:
        """Drops it and what it left on the server: slots, origins, roles."""
        for connection in self._connections:
            connection.close()
        if not self.server.running:
            return
        with self._admin() as admin:
            wait_until(lambda: self._drop_slots(admin), message=f"no slot is left in {self.name}")
            admin.execute(_compose("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name))
            for origin in _origins(admin) - self._known_origins:
                admin.execute("SELECT pg_replication_origin_drop(%s)", [origin])
            for role in self._roles:
                admin.execute(_compose("DROP ROLE IF EXISTS {}", role))

    def _connection(self) -> Connection:
        if self._main is not None:
            try:
                self._main.execute("SELECT 1")
            except psycopg.OperationalError:
                # The server was restarted, or the test ended all connections.
                self._main.close()
        if self._main is None or self._main.closed:
            self._main = self.connect()
        return self._main

    def _drop_slots(self, admin: Connection) -> bool:
        slots = admin.execute(
            "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s",
            [self.name],
        ).fetchall()
        for name, pid in slots:
            if pid is not None:
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])
                continue
            # Taken again, or gone with its session: the next look tells.
            with suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                admin.execute("SELECT pg_drop_replication_slot(%s)", [name])
        return not slots

    def _admin(self) -> Connection:
        return cast("Connection", psycopg.connect(self.server.url(), autocommit=True))


def _origins(admin: Connection) -> set[str]:
    return {
        name for (name,) in admin.execute("SELECT roname FROM pg_replication_origin").fetchall()
    }


def _compose(statement: LiteralString, name: str) -> sql.Composed:
    return sql.SQL(statement).format(sql.Identifier(name))
