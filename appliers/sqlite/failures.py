"""What SQLite's errors mean for a sync, and what to do about each."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from appliers.errors import PermanentError, SyncError, TableGoneError, TransientError

_VERDICTS: Final[dict[int, tuple[type[SyncError], str, str]]] = {
    sqlite3.SQLITE_BUSY: (
        TransientError,
        "is locked by another program",
        "find who holds a write transaction open: fuser -v {file}",
    ),
    sqlite3.SQLITE_LOCKED: (
        TransientError,
        "is locked by another program",
        "find who holds a write transaction open: fuser -v {file}",
    ),
    sqlite3.SQLITE_PROTOCOL: (
        TransientError,
        "could not be locked",
        "put the database on a local disk: SQLite's locks do not work on every network share",
    ),
    sqlite3.SQLITE_FULL: (TransientError, "has no room: the disk is full", "make room on {folder}"),
    sqlite3.SQLITE_IOERR: (
        TransientError,
        "cannot be read or written: disk error",
        "look into the kernel's log (dmesg), and check the disk of {folder}",
    ),
    sqlite3.SQLITE_NOMEM: (TransientError, "needs more memory than there is", "free some memory"),
    sqlite3.SQLITE_INTERRUPT: (TransientError, "interrupted the statement", ""),
    sqlite3.SQLITE_SCHEMA: (TransientError, "was altered while it was used", ""),
    # A file's rights and a mount's flags do not mend by waiting, as a server in recovery does.
    sqlite3.SQLITE_READONLY: (
        PermanentError,
        "is read-only",
        "let this user write {file} and {folder}, on a file system that is mounted writable",
    ),
    sqlite3.SQLITE_PERM: (PermanentError, "may not be used by this user", "chown {file}"),
    sqlite3.SQLITE_AUTH: (PermanentError, "may not be used by this user", "chown {file}"),
    sqlite3.SQLITE_CANTOPEN: (
        PermanentError,
        "cannot be opened",
        "let this user read and write {file} and create files in {folder}",
    ),
    sqlite3.SQLITE_NOTADB: (
        PermanentError,
        "is not a SQLite database (or it is encrypted)",
        "name another file in the target's url, or move this one away",
    ),
    sqlite3.SQLITE_CORRUPT: (
        PermanentError,
        "is damaged",
        "save what can be read with `sqlite3 {file} .recover`, move the file away, start again",
    ),
    sqlite3.SQLITE_TOOBIG: (
        PermanentError,
        "cannot take a value or row of more than 1,000,000,000 bytes",
        "leave this table out of the sync",
    ),
    sqlite3.SQLITE_ERROR: (
        PermanentError,
        "refused a statement",
        "compare the table on the target with the source's: `cdc check`",
    ),
    sqlite3.SQLITE_MISMATCH: (
        PermanentError,
        "refused a value",
        "compare the table's column types with the source's: `cdc check`",
    ),
    sqlite3.SQLITE_CONSTRAINT: (
        PermanentError,
        "refused a row",
        "remove the constraint from the target's table, or the row that stands against it",
    ),
}
"""By primary result code (https://www.sqlite.org/rescode.html)."""

# The text of these is SQLite's own, with names of tables and columns; others repeat what we say.
_TELLING: Final = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_IOERR}

_GONE: Final = re.compile(r"no such table: (?!main\.|temp\.)(.+)", re.DOTALL)
"""Not in a trigger: the names in those are given with their schema (sqlite3FixSrcList, attach.c)."""

UNIQUE: Final = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_ROWID,
}
"""Extended codes of a row that stands in the way of another."""


def is_unique(error: sqlite3.IntegrityError) -> bool:
    return error.sqlite_errorcode in UNIQUE


def failure(error: sqlite3.Error, file: Path) -> SyncError | None:
    """The error as a user may read it; None for one that SQLite did not raise: a bug of ours."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_ERROR and (gone := _GONE.fullmatch(str(error))):
        return TableGoneError(f"table {gone[1]} is not in {file} any more")
    if code == sqlite3.SQLITE_READONLY_DBMOVED:
        return TransientError(f"{file} was moved or replaced while it was used")
    kind, what, hint = _VERDICTS.get(primary, (PermanentError, "failed", ""))
    # A trigger's RAISE has a text of its own, which may have a row's values.
    telling = primary in _TELLING and code != sqlite3.SQLITE_CONSTRAINT_TRIGGER
    detail = (
        f": {error}"
        if telling
        else ": a trigger raised an error"
        if primary == sqlite3.SQLITE_CONSTRAINT
        else ""
    )
    return kind(f"{file} {what}{detail}", hint.format(file=file, folder=file.parent))


@contextmanager
def named(file: Path) -> Iterator[None]:
    """Lets SQLite's errors leave as a SyncError with a hint."""
    try:
        yield
    except sqlite3.Error as e:
        known = failure(e, file)
        if known is None:
            raise
        raise known from e
    except UnicodeDecodeError:
        # Not `from` it: that error carries the value.
        raise PermanentError(
            f"a value for {file} is not valid UTF-8",
            "convert the source's database from SQL_ASCII to UTF8",
        ) from None
