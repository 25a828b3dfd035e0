"""A database of MariaDB or MySQL for one test. Nothing of it outlives the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, TypeAlias

import pymysql
from pymysql.constants import CLIENT
from pymysql.cursors import Cursor

from tests.databases import _numbers, wait_until
from tests.mysql_servers import LocalMysql

Connection: TypeAlias = "pymysql.Connection[Cursor]"

# No such thread: it ended before it was asked to.
ER_NO_SUCH_THREAD: Final = 1094


class User(NamedTuple):
    """`database.url_as(*user)` is how it comes in."""

    name: str
    password: str


class MysqlDatabase:
    """A fresh database on a running server. Statements commit at once (autocommit)."""

    def __init__(self, server: LocalMysql) -> None:
        self.server = server
        self.name = f"test_{next(_numbers)}"
        self.log_start = server.log.stat().st_size
        self._connections: list[Connection] = []
        self._main: Connection | None = None
        self._users: list[User] = []
        # PyMySQL's connections are one thread's at a time; a test's reader may be another thread.
        self._lock = threading.Lock()
        with self._admin() as admin:
            admin.execute(f"CREATE DATABASE {quoted(self.name)}")

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def url_as(self, user: str, password: str | None = None) -> str:
        return self.server.url(self.name, user, password)

    def connect(self, **options: Any) -> Connection:
        """Another connection, as root and autocommit unless told otherwise; closed with the database."""
        connection = pymysql.connect(**(self._address() | {"database": self.name} | options))
        self._connections.append(connection)
        return connection

    def execute(self, statement: str, params: Sequence[Any] | None = None) -> int:
        """Runs one statement or several; the number of rows of the last, found rather than changed."""
        with self._lock, self._connection().cursor() as cursor:
            rows = cursor.execute(statement, params)
            while cursor.nextset():
                rows = cursor.rowcount
        return rows

    def rows(self, query: str, params: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        with self._lock, self._connection().cursor() as cursor:
            cursor.execute(query, params)
            return list(cursor.fetchall())

    def value(self, query: str, params: Sequence[Any] | None = None) -> Any:
        """The one value of a query that has one row of one column."""
        [(value,)] = self.rows(query, params)
        return value

    def create_user(self, *grants: str, options: str = "", password: str | None = None) -> User:
        """A user from any host, dropped with the database.

        A grant is what stands between GRANT and TO; without ON it is one on this database:
        `create_user("SELECT", "REPLICATION SLAVE ON *.*")`. `options` ends CREATE USER, such as
        "REQUIRE SSL". The password has what URLs and quoting stumble over.
        """
        name = f"user_{next(_numbers)}"
        user = User(name, f"p@ss/w:rd%'{name}" if password is None else password)
        with self._admin() as admin:
            admin.execute(
                f"CREATE USER {quoted(name)}@'%%' IDENTIFIED BY %s {options}", [user.password]
            )
            self._users.append(user)
            for grant in grants:
                where = "" if " ON " in grant.upper() else f" ON {quoted(self.name)}.*"
                admin.execute(f"GRANT {grant}{where} TO {quoted(name)}@'%'")
        return user

    def drop(self) -> None:
        """Drops it and its users, and ends their sessions, the readers of the binlog too.

        A session of root without this database, a reader's above all, may be another test's: it
        stays, and ends with who opened it.
        """
        for connection in self._connections:
            if connection.open:
                connection.close()
        if not self.server.running:
            return
        with self._admin() as admin:
            wait_until(
                lambda: self._end_sessions(admin), message=f"no session is left in {self.name}"
            )
            _end_prepared(admin)
            # By default it waits for a day for whoever still uses a table.
            admin.execute("SET SESSION lock_wait_timeout = 20, foreign_key_checks = 0")
            admin.execute(f"DROP DATABASE IF EXISTS {quoted(self.name)}")
            for user in self._users:
                admin.execute(f"DROP USER IF EXISTS {quoted(user.name)}@'%'")

    def _end_sessions(self, admin: Cursor) -> bool:
        names = [user.name for user in self._users] or [""]
        admin.execute(
            "SELECT id FROM information_schema.processlist "
            "WHERE (db = %s OR user IN %s) AND id <> connection_id()",
            [self.name, names],
        )
        sessions = [row[0] for row in admin.fetchall()]
        for session in sessions:
            try:
                admin.execute("KILL %s", [session])
            except pymysql.MySQLError as error:
                if error.args[0] != ER_NO_SUCH_THREAD:
                    raise
        return not sessions

    def _connection(self) -> Connection:
        if self._main is not None:
            try:
                self._main.ping(reconnect=False)
            except pymysql.MySQLError:
                # The server was restarted, or the test ended all connections.
                with suppress(pymysql.MySQLError):
                    self._main.close()
                self._main = None
        if self._main is None:
            flags = CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS
            self._main = self.connect(client_flag=flags)
        return self._main

    @contextmanager
    def _admin(self) -> Iterator[Cursor]:
        with pymysql.connect(**self._address()) as connection, connection.cursor() as cursor:
            yield cursor

    def _address(self) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.server.port,
            "user": "root",
            "charset": "utf8mb4",
            "autocommit": True,
            "connect_timeout": 30,
            "ssl_disabled": True,
        }


def _end_prepared(admin: Cursor) -> None:
    """Rolls back the XA transactions that a test has left prepared: they outlive their session, and a table
    of theirs is dropped only after innodb_lock_wait_timeout, 50 seconds."""
    admin.execute("XA RECOVER")
    for number, length, _, found in admin.fetchall():
        data = found if isinstance(found, bytes) else found.encode()
        admin.execute(f"XA ROLLBACK X'{data[:length].hex()}', X'{data[length:].hex()}', {number}")


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
