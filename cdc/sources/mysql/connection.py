"""Connections to a MySQL or MariaDB source, and which server it is."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import pymysql

from appliers import mysql_url
from appliers.errors import PermanentError
from cdc.sources.mysql.failures import code_of, translating

Connection = pymysql.Connection
Row = tuple[Any, ...]
Flavour = Literal["mysql", "mariadb"]

OLDEST: Final[dict[str, tuple[int, int]]] = {"mysql": (8, 0), "mariadb": (10, 6)}

SETTINGS: Final[dict[str, str]] = {
    # How values are printed: no padded CHAR, no other meaning of quotes and backslashes.
    "sql_mode": "''",
    "sql_quote_show_create": "1",
    # What an error is about is read in its text.
    "lc_messages": "'en_US'",
    "time_zone": "'+00:00'",
    "tx_isolation": "'REPEATABLE-READ'",
    "transaction_isolation": "'REPEATABLE-READ'",
    # What may end a session, or a copy that the target takes slowly.
    "wait_timeout": "31536000",
    "net_write_timeout": "3600",
    "net_read_timeout": "3600",
    "max_statement_time": "0",
    "max_execution_time": "0",
    "idle_transaction_timeout": "0",
    "idle_readonly_transaction_timeout": "0",
    # What would make a read a short one.
    "sql_select_limit": "18446744073709551615",
    "sql_big_selects": "1",
    "lock_wait_timeout": "31536000",
    # information_schema tells what is, not what was cached up to a day ago (MySQL).
    "information_schema_stats_expiry": "0",
}
"""Session variables, each set where the server has it. 31536000 is the longest that both take."""

READ_TIMEOUT: Final = 300
"""Seconds without a byte from the server until a query counts as lost."""

KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


@dataclass(frozen=True, slots=True)
class Server:
    """Which server a connection leads to."""

    flavour: Flavour
    version: tuple[int, int, int]
    text: str
    """As the server calls its version."""

    @property
    def product(self) -> str:
        return "MariaDB" if self.flavour == "mariadb" else "MySQL"

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))}"


def connect(url: str, password: str | None, application: str) -> Connection:
    """A connection in autocommit mode with our settings; rows are read, never written. Raises
    PermanentError for a server that is too old, else what `failures` says."""
    arguments = mysql_url.arguments(url, password)
    with translating():
        db = mysql_url.Connection(
            **arguments,
            charset="utf8mb4",
            autocommit=True,
            read_timeout=READ_TIMEOUT,
            write_timeout=READ_TIMEOUT,
            program_name=application,
        )
    try:
        server_of(db)
        _keepalive(db)
        prepare(db)
    except BaseException:
        close(db)
        raise
    return db


def prepare(db: Connection) -> None:
    """Gives a session our settings; those that its server does not have are left out."""
    with translating():
        known = {r[0] for r in _rows(db, "SHOW SESSION VARIABLES")}
        if {"tx_isolation", "transaction_isolation"} <= known:
            known.remove("tx_isolation")
        settings = ", ".join(f"SESSION {k} = {v}" for k, v in SETTINGS.items() if k in known)
        _rows(db, f"SET {settings}")
        _rows(db, "SET SESSION TRANSACTION READ ONLY")


def server_of(db: Connection) -> Server:
    """Which server a connection leads to, by what it said in its greeting. Raises PermanentError if
    it is none of those that can be read."""
    # MariaDB 10 puts `5.5.5-` before its own number for old replicas.
    text = str(db.get_server_info())  # type: ignore[no-untyped-call]
    flavour: Flavour = "mariadb" if "mariadb" in text.lower() else "mysql"
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text.removeprefix("5.5.5-"))
    if match is None:
        raise PermanentError(
            f"source: a server of version {text} is neither MySQL nor MariaDB",
            "correct the source's URL",
        )
    version = (int(match[1]), int(match[2]), int(match[3]))
    server = Server(flavour, version, text)
    oldest = OLDEST[flavour]
    if version[:2] < oldest:
        raise PermanentError(
            f"source: {server} is too old: {oldest[0]}.{oldest[1]} or newer is needed",
            "upgrade the source",
        )
    return server


def rows(db: Connection, statement: str, parameters: Sequence[Any] | None = None) -> list[Row]:
    """A statement's rows. Raises what `failures` says."""
    with translating():
        return _rows(db, statement, parameters)


def one(db: Connection, statement: str, parameters: Sequence[Any] | None = None) -> Row:
    """The first row; an empty one where there is none."""
    found = rows(db, statement, parameters)
    return found[0] if found else ()


def named(db: Connection, statement: str) -> dict[str, Any]:
    """The first row by the names of its columns, which differ in number between versions."""
    with translating(), db.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
        names = [d[0] for d in cursor.description or ()]
    return dict(zip(names, row, strict=True)) if row else {}


def variables(db: Connection, *names: str) -> dict[str, str]:
    """Global variables as text; those that the server does not have are left out."""
    wanted = ", ".join(["%s"] * len(names))
    found = rows(db, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({wanted})", names)
    return {str(name).lower(): str(value) for name, value in found}


def log_end(db: Connection, server: Server) -> dict[str, Any]:
    """The binary log's end as the server tells it: `File`, `Position`, and for MySQL
    `Executed_Gtid_Set`. Raises PermanentError where there is no binary log."""
    modern = server.flavour == "mysql" and server.version >= (8, 2, 0)
    found = named(db, "SHOW BINARY LOG STATUS" if modern else "SHOW MASTER STATUS")
    if not found:
        raise PermanentError(
            "source: its binary log is off",
            "log_bin = binlog in the source's configuration, and restart it",
        )
    return found


def quoted(*names: str) -> str:
    """A name as SQL, its parts joined by dots."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def close(db: Connection) -> None:
    """Ends a connection, whatever state it is in; never raises."""
    with suppress(pymysql.Error, OSError):
        db.close()


def cut(db: Connection) -> None:
    """Ends a connection in the middle of a reply, without a word to the server."""
    db._force_close()  # type: ignore[attr-defined]  # noqa: SLF001


def _rows(db: Connection, statement: str, parameters: Sequence[Any] | None = None) -> list[Row]:
    with db.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


def _keepalive(db: Connection) -> None:
    """A server that is gone without a word is noticed by the system within about a minute."""
    sock: socket.socket = db._sock  # type: ignore[attr-defined]  # noqa: SLF001
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        for name, value in KEEPALIVE:
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


__all__ = [
    "Connection",
    "Server",
    "close",
    "code_of",
    "connect",
    "cut",
    "log_end",
    "named",
    "one",
    "prepare",
    "quoted",
    "rows",
    "server_of",
    "translating",
    "variables",
]
