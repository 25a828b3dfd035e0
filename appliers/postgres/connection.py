"""One connection to the target: how it is opened, and the three ways to talk over it.

`execute` for single statements, `copy_in` for COPY, `pipeline` for many prepared statements in one
round trip. The last two drive libpq themselves and wait in `poll`, because libpq's own blocking calls
hold Python's lock while they wait, and the thread that reads the source would stand still with them.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import pq

from appliers.postgres.errors import translated
from appliers.postgres_url import parameters

SETTINGS: Final = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmloption": "content",
    "array_nulls": "on",
    "lc_monetary": "C",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "client_connection_check_interval": "1s",
    "row_security": "off",
    "jit": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "temp_buffers": "32MB",
    "synchronous_commit": "off",
}
"""Session settings, whatever role and database have as their defaults.

The planner is kept on the target's key index: a plan that was made when the table was empty would
otherwise scan it for every row once it has grown. `client_connection_check_interval` makes the
server notice within a second that a killed daemon is gone, so that its lock is free for the next.
`synchronous_commit` may be set in the URL (`options=-c synchronous_commit=on`): we need it off only
for speed, because nothing is confirmed to the source before it is flushed.
`lock_timeout` is shorter than the daemon's patience with a worker that stands still, so that the lock is
named instead.
`search_path` stays as the role has it, for the sake of unqualified names in the users' own
triggers; our statements qualify every name and every operator."""

OURS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""libpq's options where the URL does not say otherwise."""

FLUSH_AT: Final = 131072
"""Bytes of COPY data that may wait in libpq before they are pushed to the server."""


class Step(NamedTuple):
    """One prepared statement in a pipeline."""

    name: bytes
    values: Sequence[bytes | None]
    formats: Sequence[int] | None
    """1 for binary values; None for text throughout."""


class Session:
    """A connection with our settings. Not for two threads at once."""

    def __init__(self, url: str, password: str | None, application: str) -> None:
        """Connects. Raises TransientError or PermanentError."""
        with translated(connecting=True):
            given = parameters(url)
            options: dict[str, Any] = {k: v for k, v in OURS.items() if k not in given}
            if password is not None:
                options["password"] = password
            self._db: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(
                url,
                autocommit=True,
                prepare_threshold=None,
                cursor_factory=psycopg.RawCursor,
                client_encoding="UTF8",
                application_name=application,
                **options,
            )
        self._libpq = self._db.pgconn
        self._poll = select.poll()
        self._fd = self._libpq.socket
        self._poll.register(self._fd, select.POLLIN)
        self._names = count(1)
        self._prepared: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._ahead: list[Step] = []
        self._sent_ahead = 0
        settings = dict(SETTINGS)
        if "synchronous_commit" in str(given.get("options")):
            del settings["synchronous_commit"]
        try:
            with translated():
                # First and alone: a short one of the role's own would end the statement that follows.
                self.execute("SET statement_timeout = 0")
                self._set(settings)
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> int:
        """Such as 180006."""
        return self._libpq.server_version

    @property
    def version_text(self) -> str:
        return (self._libpq.parameter_status(b"server_version") or b"?").decode()

    @property
    def backend(self) -> int:
        """The process id of the server's side."""
        return self._libpq.backend_pid

    @property
    def in_transaction(self) -> bool:
        return bool(self._ahead) or self._libpq.transaction_status != pq.TransactionStatus.IDLE

    def close(self) -> None:
        """Never raises. The server rolls back what is open."""
        with suppress(Exception):
            self._db.close()

    def roll_back(self) -> None:
        """Best effort: a connection that is in the middle of something is left to `close`."""
        self._ahead = []
        if self._libpq.transaction_status in (
            pq.TransactionStatus.INTRANS,
            pq.TransactionStatus.INERROR,
        ):
            self._db.execute("ROLLBACK")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> tuple[list[tuple[Any, ...]], int]:
        """Runs one statement with `$1` for parameters; its rows, and the number that it touched."""
        self._go_ahead()
        cursor = self._db.execute(sql, values or None)
        return (cursor.fetchall() if cursor.description is not None else []), cursor.rowcount

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.execute(sql, values)[0]

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return self.execute(sql, values)[0][0][0]

    def raw_rows(self, sql: str, *, binary: bool) -> list[tuple[bytes | None, ...]]:
        """The rows of a query as the server sends them, in binary or in text form."""
        self._go_ahead()
        self._libpq.send_query_params(sql.encode(), None, result_format=int(binary))
        self._flush()
        result = self._outcome()
        columns = range(result.nfields)
        return [tuple(result.get_value(r, c) for c in columns) for r in range(result.ntuples)]

    def copy_in(self, sql: str, data: Iterable[bytes]) -> int:
        """Runs COPY … FROM STDIN over `data`; returns the number of rows.

        `sql` may hold statements before the COPY. `data` may raise: the COPY is then given up.
        """
        self._go_ahead()
        libpq = self._libpq
        libpq.send_query(sql.encode())
        self._flush()
        while (result := self._next()) is not None:
            if result.status == pq.ExecStatus.COPY_IN:
                break
            demand(result)
        put, waiting = libpq.put_copy_data, 0
        try:
            for piece in data:
                put(piece)
                waiting += len(piece)
                if waiting > FLUSH_AT:
                    self._flush()
                    waiting = 0
        except BaseException:
            with suppress(psycopg.Error):
                libpq.put_copy_end(b"given up by the client")
                self._flush()
                self._drain()
            raise
        libpq.put_copy_end()
        self._flush()
        return self._outcome().command_tuples or 0

    def prepare(self, sql: str, types: Sequence[int]) -> bytes:
        """The name of a prepared statement, made at its first use; it lives as long as the session."""
        at = (sql, tuple(types))
        name = self._prepared.get(at)
        if name is None:
            name = b"cdc_%d" % next(self._names)
            self._libpq.send_prepare(name, sql.encode(), types)
            self._flush()
            self._outcome()
            self._prepared[at] = name
        return name

    def touched(self, sql: str, values: Iterable[bytes]) -> int:
        """Runs one statement for each value, binary and its $1, in one pipeline; the number of rows
        that they touched. `values` must not raise."""
        name = self.prepare(sql, ())
        self._enter_pipeline()
        for value in values:
            self._libpq.send_query_prepared(name, [value], [1])
            self._flush()
        self._libpq.pipeline_sync()
        self._flush()
        results = self.receive()
        for result in results:
            demand(result)
        return sum(r.command_tuples or 0 for r in results)

    def begin(self, statements: Sequence[str]) -> None:
        """Statements that begin something: they travel with whatever is sent next, in front of it. Their
        errors are raised there."""
        self._ahead += [Step(self.prepare(sql, ()), (), None) for sql in statements]

    def send(self, steps: Sequence[Step]) -> None:
        """Sends prepared statements as one pipeline; `receive` must follow.

        The server's answers are taken in while sending, or both sides would wait for the other to
        read as soon as more is under way than the sockets hold.
        """
        self._enter_pipeline()
        send = self._libpq.send_query_prepared
        for number, (name, values, formats) in enumerate(steps, 1):
            send(name, values, formats)
            if not number & 63:
                self._flush()
        self._libpq.pipeline_sync()
        self._flush()

    def _enter_pipeline(self) -> None:
        self._libpq.enter_pipeline_mode()
        for name, values, formats in self._ahead:
            self._libpq.send_query_prepared(name, values, formats)
        self._sent_ahead, self._ahead = len(self._ahead), []

    def _go_ahead(self) -> None:
        """Sends what is to go ahead on its own."""
        if self._ahead:
            self.send([])
            self.receive()

    def receive(self) -> list[pq.abc.PGresult]:
        """The outcomes of the steps sent, up to and with the first that failed: see `demand`."""
        results: list[pq.abc.PGresult] = []
        nothing = 0
        while nothing < 2:
            result = self._next()
            if result is None:
                nothing += 1
                continue
            nothing = 0
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                self._libpq.exit_pipeline_mode()
                for begun in results[: self._sent_ahead]:
                    demand(begun)
                return results[self._sent_ahead :]
            if result.status != pq.ExecStatus.PIPELINE_ABORTED:
                results.append(result)
        raise psycopg.OperationalError("the connection ended in the middle of a pipeline")

    @contextmanager
    def locally(self, **settings: str) -> Any:
        """Other session settings for a while."""
        self._set(settings)
        try:
            yield
        finally:
            if self._libpq.transaction_status in (
                pq.TransactionStatus.IDLE,
                pq.TransactionStatus.INTRANS,
            ):
                self._set({name: SETTINGS[name] for name in settings})

    def _set(self, settings: dict[str, str]) -> None:
        """Settings that this server's version does not have are left out."""
        self.execute(
            "SELECT pg_catalog.set_config(s.name, v.setting, false) FROM pg_catalog.pg_settings AS s"
            " JOIN ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]))"
            " AS v (name, setting) ON pg_catalog.lower(s.name) = pg_catalog.lower(v.name)",
            (list(settings), list(settings.values())),
        )

    def _flush(self) -> None:
        """Pushes everything to the server, taking in what it says meanwhile."""
        libpq = self._libpq
        while libpq.flush():
            self._poll.modify(self._fd, select.POLLIN | select.POLLOUT)
            ready = self._poll.poll()[0][1]
            self._poll.modify(self._fd, select.POLLIN)
            if ready & ~select.POLLOUT:
                libpq.consume_input()

    def _next(self) -> pq.abc.PGresult | None:
        libpq = self._libpq
        while libpq.is_busy():
            self._poll.poll()
            libpq.consume_input()
        return libpq.get_result()

    def _outcome(self) -> pq.abc.PGresult:
        """The last result of what was sent; raises the first error."""
        last: pq.abc.PGresult | None = None
        failed: pq.abc.PGresult | None = None
        while (result := self._next()) is not None:
            last = result
            if failed is None and result.status == pq.ExecStatus.FATAL_ERROR:
                failed = result
        if failed is not None:
            demand(failed)
        if last is None:
            raise psycopg.OperationalError("the connection ended before the answer")
        return last

    def _drain(self) -> None:
        while self._next() is not None:
            pass


def demand(result: pq.abc.PGresult) -> None:
    """Raises the error that a result is."""
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)


@cache
def touching(sql: str) -> str:
    """The statement, made an error where it touches no row: what stands behind it in a pipeline is then
    not run. `has_touched_none` knows it."""
    division = "1 OPERATOR(pg_catalog./) pg_catalog.count(*)"
    return f"WITH touched AS ({sql} RETURNING 1) SELECT {division} FROM touched"


def has_touched_none(result: pq.abc.PGresult) -> bool:
    return result.error_field(pq.DiagnosticField.SQLSTATE) == b"22012"  # division_by_zero
