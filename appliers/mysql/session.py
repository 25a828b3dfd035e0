"""One connection to the target: how it is opened, and the ways to talk over it.

`execute` for single statements with parameters, `run` for one that writes rows, `run_all` for many in
one message (PyMySQL has no prepared statements; the server runs a message's statements one after the
other and stops at the first that fails), `load` for LOAD DATA LOCAL out of memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, NamedTuple

import pymysql
from pymysql.constants import CLIENT

from appliers import mysql_url
from appliers.mysql.failures import NOT_LOCAL, ORDERLY, TOO_LARGE, code_of, translated
from appliers.mysql.wire import Wire

Flavour = Literal["mysql", "mariadb"]

SQL_MODE: Final = (
    "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES"
)
"""Strict, but for dates: a MySQL source may hold 0000-00-00 and, under ALLOW_INVALID_DATES, the 31st of
February. NO_AUTO_VALUE_ON_ZERO: a 0 of the source stays 0 in an AUTO_INCREMENT column. Backslashes
escape (no NO_BACKSLASH_ESCAPES): what `literals` makes depends on it."""

SETTINGS: Final[dict[str, str]] = {
    "sql_mode": f"'{SQL_MODE}'",
    "time_zone": "'+00:00'",
    "transaction_isolation": "'READ-COMMITTED'",
    "tx_isolation": "'READ-COMMITTED'",
    # What an error is about, a column or the lack of room, is read in its text.
    "lc_messages": "'en_US'",
    "completion_type": "0",
    "foreign_key_checks": "1",
    "unique_checks": "1",
    "check_constraint_checks": "1",
    "sql_notes": "1",
    "sql_auto_is_null": "0",
    "sql_big_selects": "1",
    "sql_safe_updates": "0",
    "innodb_lock_wait_timeout": "30",
    "lock_wait_timeout": "30",
    "wait_timeout": "28800",
    "net_read_timeout": "600",
    "net_write_timeout": "600",
    "idle_transaction_timeout": "0",
    "idle_write_transaction_timeout": "0",
    "idle_readonly_transaction_timeout": "0",
    "note_verbosity": "'basic'",
    "max_statement_time": "0",
    "max_execution_time": "0",
}
"""Session settings, whatever the server has as its defaults; those that this server does not know are
left out. `sql_notes`, `note_verbosity`: MySQL says only in a note that it has rounded a number, MariaDB
that it has cut blanks. `net_read_timeout`: the source may pause in the middle of a chunk, and between
the pieces of a transaction (`idle_transaction_timeout`). Locks are waited for less long than the daemon
waits for a worker that stands still, so that the lock is named instead."""

WISHED: Final[dict[str, str]] = {
    "explicit_defaults_for_timestamp": "1",
    "binlog_format": "'ROW'",
    "auto_increment_increment": "1",
    "auto_increment_offset": "1",
    "max_error_count": "64",
}
"""Settings that some servers let only administrators make; the server's own stays where they are
refused. Without the first, NULL becomes the current time in a TIMESTAMP column that is NOT NULL.
`binlog_format`: under MIXED, MariaDB's default, staged rows would be written to the binlog as well."""

BENIGN: Final = frozenset([1050, 1051, 1287, 1592, 1618, 1681, 1751, 3135, 3719, 3778])
"""Warnings that are not about a row: a table is there already, something is deprecated, a statement
unsafe for a statement-based binlog, temporary tables that a rollback does not remove."""

MESSAGE: Final = 1 << 18
"""Bytes of a message of many statements, of a multi-row INSERT, of a packet of LOAD DATA. Measured on
MariaDB 10.11, 10 columns, 20,000 rows a batch: INSERTs of 256 kB 116,000 to 144,000 rows/s, of 4 MB
83,000 to 121,000."""

UNCHECKED: Final = "SET SESSION foreign_key_checks = 0"
CHECKED: Final = "SET SESSION foreign_key_checks = 1"

_VERSION: Final = re.compile(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)")


class Outcome(NamedTuple):
    """What a statement came to. `touched`: rows found (not: changed), or rows of the result."""

    touched: int
    rows: Sequence[tuple[Any, ...]]


class WarnedError(Exception):
    """A statement among many in one message had a warning, and which one can only be asked after the
    last of a message: they have to be sent again one by one (`Session.careful`)."""


class Session:
    """A connection with our settings. Not for two threads at once."""

    def __init__(self, url: str, password: str | None, application: str) -> None:
        """Connects. Raises TransientError or PermanentError."""
        self.packet = 1 << 16
        """Bytes that a statement may have: max_allowed_packet, once it is known."""
        self.careful = False
        """Statements travel one by one, so that the warnings of each can be read."""
        self.checks = True
        """Whether the server looks at foreign keys, and lets them act."""
        with translated(connecting=True):
            self._db = Wire(
                **mysql_url.arguments(url, password),
                charset="utf8mb4",
                autocommit=True,
                client_flag=CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
                program_name=application,
            )
        try:
            with translated():
                self._settle()
        except BaseException:
            self.close()
            raise

    def _settle(self) -> None:
        said = self._db.greeting
        found = _VERSION.match(said)
        self.version: tuple[int, ...] = tuple(map(int, found.groups())) if found else (0,)
        self.flavour: Flavour = "mariadb" if "mariadb" in said.lower() else "mysql"
        # First and alone: SHOW would stop at it, too.
        self.execute("SET SESSION sql_select_limit = 18446744073709551615")
        rows = self.rows("SHOW SESSION VARIABLES")
        self.variables: dict[str, str] = {name.lower(): value for name, value in rows}
        known = [f"SESSION {n} = {v}" for n, v in SETTINGS.items() if n in self.variables]
        self.execute(f"SET {', '.join(known)}")
        for name, value in WISHED.items():
            if self.variables.get(name) not in (None, "ON", "ROW"):
                with suppress(pymysql.err.MySQLError):
                    self.execute(f"SET SESSION {name} = {value}")
        self.packet = int(self.variables["max_allowed_packet"]) - 1024
        self.may_load = self.variables.get("local_infile") == "ON"

    @property
    def version_text(self) -> str:
        product = "MariaDB" if self.flavour == "mariadb" else "MySQL"
        return f"{product} {'.'.join(map(str, self.version))}"

    @property
    def number(self) -> int:
        """What the server calls the connection."""
        return self._db.number

    @property
    def is_open(self) -> bool:
        """False once it was closed here, or has broken; the server may not know yet."""
        return bool(self._db.open)

    @property
    def database(self) -> str:
        return str(self.value("SELECT DATABASE()"))

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def close(self) -> None:
        """Never raises. The server rolls back what is open."""
        self._db.discard()

    def roll_back(self) -> None:
        """Best effort: a connection that is broken is left to `close`."""
        if self._db.open and self.in_transaction:
            self.execute("ROLLBACK")

    # -- statements -------------------------------------------------------------------------------

    def execute(self, sql: str, values: Sequence[Any] = ()) -> tuple[list[tuple[Any, ...]], int]:
        """Runs one statement with `?` for parameters; its rows, and the number that it touched."""
        outcome = self._query(with_values(sql, values) if values else sql.encode())
        return list(outcome.rows), outcome.touched

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.execute(sql, values)[0]

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return self.execute(sql, values)[0][0][0]

    def run(self, sql: str | bytes) -> int:
        """Runs a statement that writes rows; the number that it found. A value that the server would
        have changed is an error (DataError with the number of the warning)."""
        outcome = self._query(sql.encode() if isinstance(sql, str) else sql)
        self._see_to_warnings()
        return outcome.touched

    def run_all(self, statements: Sequence[bytes], done: list[Outcome]) -> None:
        """Runs statements in as few messages as may be, and appends what each came to to `done`: if one
        fails, it is that of number `len(done)`. Raises WarnedError where one had a warning."""
        if self.careful:
            for sql in statements:
                done.append(self._query(sql))
                self._see_to_warnings()
            return
        for message, number in self._messages(statements):
            outcome = self._query(message)
            warned = self._db.warnings
            done.append(outcome)
            for _ in range(number - 1):
                self._db.finish()
                warned += self._db.warnings
                done.append(Outcome(*self._db.found))
            if warned:
                raise WarnedError

    @contextmanager
    def carefully(self) -> Iterator[None]:
        """Statements travel one by one meanwhile."""
        was, self.careful = self.careful, True
        try:
            yield
        finally:
            self.careful = was

    @contextmanager
    def unchecked(self) -> Iterator[None]:
        """The server does not look at foreign keys meanwhile, and none of them acts."""
        if not self.checks:
            yield
            return
        self.execute(UNCHECKED)
        self.checks = False
        try:
            yield
        finally:
            self.checks = True
            # LOAD DATA whose rows could not be made has closed it: that error is the one to be told.
            if self.is_open:
                self.execute(CHECKED)

    def load(self, sql: str, pieces: Iterable[bytes]) -> int:
        """Runs LOAD DATA LOCAL over `pieces`; the number of rows that were written, all of them.

        LOCAL makes errors into warnings: rows that meet a unique value are skipped, values that do not
        fit are changed. Here each of those is an error again, so the caller must roll back. An
        exception out of `pieces` closes the connection, because the protocol knows no giving up.
        """
        db = self._db
        db.start_load(sql.encode())
        try:
            for piece in pieces:
                for start in range(0, len(piece), MESSAGE):
                    db.send_piece(piece[start : start + MESSAGE])
        except BaseException:
            self.close()
            raise
        db.finish_load()
        self._see_to_warnings()
        return db.found[0]

    def send_commit(self) -> None:
        """`receive_commit` must follow."""
        self._db.start(b"COMMIT")

    def receive_commit(self) -> None:
        self._db.finish()

    def may_not_load(self, error: pymysql.err.MySQLError) -> bool:
        """Whether `error` says that LOAD DATA LOCAL is not to be had here; remembered."""
        if code_of(error) in NOT_LOCAL:
            self.may_load = False
        return not self.may_load

    # -- parts ------------------------------------------------------------------------------------

    def _query(self, sql: bytes) -> Outcome:
        if len(sql) > self.packet:
            raise pymysql.err.OperationalError(min(TOO_LARGE), "")
        self._db.start(sql)
        self._db.finish()
        return Outcome(*self._db.found)

    def _see_to_warnings(self) -> None:
        number = self._db.warnings
        if not number:
            return
        shown = self.rows("SHOW WARNINGS")
        for _, code, text in shown:
            if code not in BENIGN:
                kind = pymysql.err.IntegrityError if code in ORDERLY else pymysql.err.DataError
                raise kind(code, text)
        if number > len(shown):
            raise pymysql.err.DataError(1265, "more warnings than the server keeps")

    def _messages(self, statements: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
        """Statements joined, with their number."""
        gathered: list[bytes] = []
        size = 0
        for sql in statements:
            if gathered and size + len(sql) >= min(MESSAGE, self.packet):
                yield b";".join(gathered), len(gathered)
                gathered, size = [], 0
            gathered.append(sql)
            size += len(sql) + 1
        if gathered:
            yield b";".join(gathered), len(gathered)


def with_values(sql: str, values: Sequence[Any]) -> bytes:
    """The statement with literals for its question marks."""
    first, *parts = sql.encode().split(b"?")
    return first + b"".join(literal(v) + part for v, part in zip(values, parts, strict=True))


def literal(value: Any) -> bytes:
    """None, a whole number or a text as it stands in SQL."""
    if value is None:
        return b"NULL"
    if isinstance(value, int):
        return b"%d" % value
    return text_literal(str(value).encode())


def text_literal(text: bytes) -> bytes:
    return b"'" + text.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"
