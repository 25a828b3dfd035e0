"""What a PostgreSQL error means for a sync: one table from SQLSTATE to verdict and hint.

The server's own text is passed on only where it cannot hold a row's values. Classes 21, 22, 23, 27,
44 and P0 (data, constraints, exceptions of users' functions) are put into words of ours, from the
names that the server reports beside its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import psycopg

from appliers.errors import (
    FormatError,
    OrderError,
    PermanentError,
    SyncError,
    TableGoneError,
    TransientError,
)


class Verdict(NamedTuple):
    """What to do about an error: raise `kind` with `hint`."""

    kind: type[SyncError]
    hint: str


def _transient(hint: str) -> Verdict:
    return Verdict(TransientError, hint)


def _permanent(hint: str) -> Verdict:
    return Verdict(PermanentError, hint)


LOST: Final = _transient("see that the target is up and reachable; it is tried again until it is")

_OTHER: Final = "08OTH"
_TLS: Final = "08TLS"
_URL: Final = "08URL"
"""Codes of our own, for what the server has none of."""

VERDICTS: Final = {
    "08": LOST,
    _OTHER: _permanent(
        "correct host and port of the target's URL: what answers there is not PostgreSQL"
    ),
    _TLS: _permanent(
        "correct sslmode or sslrootcert in the target's URL, or the server's certificate"
    ),
    _URL: _permanent("correct the options in the target's URL"),
    "0A": _permanent(
        "the target's server cannot do this: see its version and the kind of the table"
    ),
    "21": _permanent("compare the unique indexes of the target's table with the source's"),
    "22": _permanent(
        "widen the target's column to the source's type, or correct the row on the source"
    ),
    "22P05": _permanent(
        "use a target database with ENCODING 'UTF8', or correct the row on the source"
    ),
    "23": _permanent("compare the constraints of the target's table with the source's"),
    "23503": Verdict(
        OrderError,
        "make the foreign key DEFERRABLE on the target, or sync the table it refers to in the same sync",
    ),
    "23505": _permanent(
        "make the unique constraint DEFERRABLE on the target, or find who else writes into the table"
    ),
    "25006": _transient(
        "the target is read-only: a standby, or default_transaction_read_only is on"
    ),
    "25": _transient("look into the target's server log: its settings end transactions"),
    "26": _transient(
        "connect to the target directly: a pooler that shares sessions cannot be used"
    ),
    "28": _permanent("see the role in the target's URL and the server's pg_hba.conf"),
    "28P01": _permanent("correct the password of the target's database in the configuration"),
    "3D000": _permanent("correct the database's name in the target's URL, or create the database"),
    "3F000": _permanent("create the schema on the target, or grant CREATE on the database"),
    "40": _transient("another transaction on the target was in the way; it is tried again"),
    "42501": _permanent(
        "grant the right to the role in the target's URL; `cdc check` lists the grants"
    ),
    "42": _permanent("the target's table was altered: run `cdc check`, then start the sync again"),
    "53100": _transient("make room on the target's disk"),
    "53300": _transient("raise max_connections on the target, or end sessions there"),
    "53": _transient("the target is short of a resource: look into its server log"),
    "55P03": _transient("a session on the target holds a lock on the table: see pg_locks there"),
    "55": _transient("another session on the target holds what is needed; it is tried again"),
    "57014": _transient("somebody cancelled the statement on the target; it is tried again"),
    "57": _transient("the target is stopping or starting; it is tried again until it is up"),
    "58": _transient("the target has trouble with its files: look into its server log"),
    "P0": _permanent(
        "a trigger or function on the target refuses the row: see the target's server log"
    ),
    "XX000": _transient("an internal error of the target: look into its server log"),
    "XX": _permanent("the target's data is damaged: look into its server log"),
}
"""By SQLSTATE, else by its class."""

UNKNOWN: Final = _permanent("look into the target's server log")

CONNECT: Final = (
    ("the database system is", "57"),
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("authentication failed", "28"),
    ("pg_hba.conf", "28"),
    ('role "', "28"),
    ('database "', "3D000"),
    ("permission denied", "42501"),
    ("certificate", _TLS),
    ("does not support SSL", _TLS),
    ("invalid response to SSL negotiation", _OTHER),
    ("expected authentication request", _OTHER),
    ("invalid sslmode value", _URL),
    ("invalid integer value", _URL),
    ("bad value for", _URL),
    ("too many", "53300"),
    ("connection slots", "53300"),
)
"""Words of libpq's messages, and the SQLSTATE that they stand for: a failed connect has none of its
own. In another language than English they are not found, and the error counts as transient."""

WORDS: Final = {
    "23502": "NULL in column {column}, which is NOT NULL on the target",
    "23503": "foreign key {constraint} is violated",
    "23505": "unique constraint {constraint} is violated",
    "23514": "check constraint {constraint} is violated",
    "23P01": "exclusion constraint {constraint} is violated",
    "22001": "a value is too long for column {column}",
    "22003": "a number is out of range for column {column}",
    "22007": "a date or time cannot be read by column {column}",
    "22008": "a date or time is out of range for column {column}",
    "22P02": "a value cannot be read by column {column}",
    "22P03": "a binary value cannot be read by column {column}",
    "22P05": "a text has a character that the encoding of the target's database has none for",
    "428C9": "column {column} is generated on the target",
    "44000": "a view's WITH CHECK OPTION is violated",
    "P0001": "a trigger or function raised an exception",
}
"""For errors whose own text may hold a row's values; other codes of their classes by number."""

_PRIVATE: Final = ("21", "22", "23", "27", "44", "P0")
_BINARY: Final = ("22P03", "08P01")
_NO_TABLE: Final = "42P01"
_COPY_COLUMN: Final = re.compile(r"^COPY .*?, line \d+, column ([^:,]+)", re.MULTILINE)


def verdict(sqlstate: str | None) -> Verdict:
    """What an SQLSTATE means; None is a connection that broke without a word."""
    if sqlstate is None:
        return LOST
    return VERDICTS.get(sqlstate) or VERDICTS.get(sqlstate[:2]) or UNKNOWN


def translate(error: psycopg.Error, subject: str = "", *, connecting: bool = False) -> SyncError:
    """The error that leaves the applier. `subject` names the table and its key columns, or is ""."""
    sqlstate = error.sqlstate
    if connecting and sqlstate is None:
        return _of_connect(error)
    before = f"{subject}: " if subject else ""
    if sqlstate in _BINARY:
        return FormatError(f"{before}the target cannot take the rows in binary form any more")
    if sqlstate == _NO_TABLE and not error.diag.context:
        # With a context it is missed by a trigger's function.
        return TableGoneError(f"{before}{_said(error, sqlstate)} on the target any more")
    kind, hint = verdict(sqlstate)
    if sqlstate is None:
        return kind(f"{before}lost the connection to the target: {_line(str(error))}", hint)
    text = f"{before}{_said(error, sqlstate)} (SQLSTATE {sqlstate})"
    if kind is OrderError:
        return OrderError(text, hint, error.diag.constraint_name or "")
    return kind(text, hint)


@contextmanager
def translated(subject: str = "", *, connecting: bool = False) -> Iterator[None]:
    """Lets psycopg's errors leave as ours, without the original as their cause: it may hold values."""
    try:
        yield
    except psycopg.Error as e:
        raise translate(e, subject, connecting=connecting) from None


def _said(error: psycopg.Error, sqlstate: str) -> str:
    diag = error.diag
    # A trigger raises whatever it likes under any code; PL/pgSQL says so in the context.
    private = " at RAISE" in (diag.context or "") or verdict(sqlstate) is UNKNOWN
    if sqlstate not in WORDS and not sqlstate.startswith(_PRIVATE) and not private:
        return _line(diag.message_primary or str(error))
    column = diag.column_name
    if column is None and (found := _COPY_COLUMN.search(diag.context or "")):
        column = found[1]
    words = WORDS.get(sqlstate, "the target refuses a row")
    return words.format(
        column=column or "(unknown)", constraint=diag.constraint_name or "(unnamed)"
    )


def _of_connect(error: psycopg.Error) -> SyncError:
    text = _line(str(error))
    for words, sqlstate in CONNECT:
        if words in text:
            kind, hint = verdict(sqlstate)
            return kind(f"cannot connect to the target: {text}", hint)
    return TransientError(
        f"cannot connect to the target: {text}",
        "see host and port in the target's URL, and that the server is up",
    )


def _line(text: str) -> str:
    return "; ".join(part.strip() for part in text.splitlines() if part.strip())
