"""Connections to a PostgreSQL source: ordinary ones, and the walsender's that psycopg has no API for."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import conninfo, pq
from psycopg.rows import tuple_row

from appliers.errors import SyncError, TransientError
from appliers.postgres_url import parameters
from cdc.sources.postgres.errors import translated

Connection = psycopg.Connection[tuple[Any, ...]]

SETTINGS = {
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "row_security": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "search_path": "pg_catalog",
}
"""What decides how values are printed, and what may end a session. `row_security = off` makes a
filtered read an error instead of a short table. The walsender prints with its session's settings
(src/backend/replication/libpqwalreceiver sets the first ones for the same reason)."""

WAL_SENDER_TIMEOUT = 60.0
"""Seconds after which the server ends a walsender that it has not heard of. Set by us, so that how
often we speak (see `stream.STATUS_EVERY`) does not depend on the server's configuration."""

INTERRUPT_EVERY = 0.2
"""Seconds after which a wait for the server looks whether it is to end."""


def source_conninfo(url: str, password: str | None, application: str, **more: str) -> str:
    """A libpq connection string with our settings; those of the URL's own `options` come first."""
    given = parameters(url)
    settings = dict(SETTINGS)
    if "replication" in more:
        settings["wal_sender_timeout"] = str(int(WAL_SENDER_TIMEOUT * 1000))
    options = " ".join(f"-c {k}={v}" for k, v in settings.items())
    params: dict[str, Any] = {
        "connect_timeout": "10",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        **given,
        **more,
        "options": f"{given.get('options') or ''} {options}".strip(),
        "client_encoding": "UTF8",
        "application_name": application,
    }
    if password is not None:
        params["password"] = password
    return conninfo.make_conninfo(**params)


def connect(info: str) -> Connection:
    """An ordinary connection in autocommit mode."""
    with translating():
        db = psycopg.connect(info, autocommit=True, row_factory=tuple_row, prepare_threshold=None)
        if db.info.server_version >= 170000:
            db.execute("SET transaction_timeout = 0")
        return db


def connect_walsender(info: str) -> pq.abc.PGconn:
    """A connection that takes replication commands (manual, "Streaming Replication Protocol")."""
    conn = pq.PGconn.connect(info.encode())
    if conn.status != pq.ConnStatus.OK:
        message = conn.get_error_message()
        conn.finish()
        raise translated(psycopg.OperationalError(message))
    # While the server waits for transactions it would not see that we have died, and keep the slot.
    # Systems without the means (not Linux, macOS, BSD) refuse it.
    conn.exec_(b"SET client_connection_check_interval = '2s'")
    if conn.server_version >= 170000:
        conn.exec_(b"SET transaction_timeout = 0")
    return conn


@contextmanager
def walsender(info: str) -> Iterator[pq.abc.PGconn]:
    """A walsender's connection for a few commands."""
    conn = connect_walsender(info)
    try:
        yield conn
    finally:
        conn.finish()


def command(
    conn: pq.abc.PGconn, text: str, interrupted: Callable[[], bool] | None = None
) -> list[list[str | None]]:
    """Runs a replication command that gives rows or nothing. `interrupted` is asked several times a
    second, and ends it with TransientError: making a slot waits for the transactions that run on the source."""
    with translating():
        result = _reply(conn, text, interrupted)
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        if interrupted is not None and interrupted():
            raise TransientError(
                "source: the wait for the source's transactions was ended",
                "end those that are open for long: SELECT pid, xact_start, query FROM pg_stat_activity"
                " WHERE backend_xid IS NOT NULL ORDER BY xact_start",
            )
        raise translated(psycopg.errors.error_from_result(result))
    return [
        [
            None if (v := result.get_value(r, c)) is None else v.decode()
            for c in range(result.nfields)
        ]
        for r in range(result.ntuples)
    ]


def start_replication(conn: pq.abc.PGconn, what: str) -> None:
    """Turns a walsender's connection into a stream."""
    with translating():
        result = _reply(conn, f"START_REPLICATION {what}", None)
    if result.status != pq.ExecStatus.COPY_BOTH:
        raise translated(psycopg.errors.error_from_result(result))


def _reply(
    conn: pq.abc.PGconn, text: str, interrupted: Callable[[], bool] | None
) -> pq.abc.PGresult:
    """The last result of a command, waited for in turns: the interpreter stays free for signals."""
    conn.send_query(text.encode())
    conn.flush()
    poll = select.poll()
    poll.register(conn.socket, select.POLLIN)
    cancelled = False
    last: pq.abc.PGresult | None = None
    while True:
        while conn.is_busy():
            poll.poll(INTERRUPT_EVERY * 1000)
            conn.consume_input()
            if interrupted is not None and not cancelled and interrupted():
                # The server would go on waiting for its transactions, and keep the slot, if we left.
                conn.get_cancel().cancel()
                cancelled = True
        result = conn.get_result()
        if result is None:
            if last is None:
                raise psycopg.OperationalError("no reply")
            return last
        last = result
        if result.status == pq.ExecStatus.COPY_BOTH:
            return result


@contextmanager
def translating() -> Iterator[None]:
    """Turns what psycopg raises into transient and permanent errors."""
    try:
        yield
    except psycopg.Error as e:
        raise translated(e) from e


__all__ = [
    "Connection",
    "SyncError",
    "command",
    "connect",
    "connect_walsender",
    "source_conninfo",
    "translating",
    "walsender",
]
