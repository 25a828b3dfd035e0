"""From a target's URL to an open connection with the settings that the applier relies on."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import unquote

from appliers.errors import PermanentError
from appliers.sqlite.failures import named

CHECKPOINT_PAGES = 4000
"""SQLite's default, 1000, copies the write-ahead log into the file every 4 MB; with 4000, a page that
is written again and again is copied less often. The log stays at about 16 MB, or a batch."""
CACHE_KIB = 16_000
"""Measured on 100,000 updates at random places of 200,000 rows: 2 MB 52,000 rows/s, 16 MB 74,000,
64 MB 81,000."""
_EFFECTIVE = os.access in os.supports_effective_ids


def path_of(url: str) -> Path:
    """The file of `sqlite:///relative.db` or `sqlite:////absolute.db`, as an absolute path."""
    scheme, separator, rest = url.partition("://")
    name, question, _ = rest.partition("?")
    if scheme != "sqlite" or not separator or not name.startswith("/") or question or "#" in name:
        raise PermanentError(
            f"expected sqlite:///relative.db or sqlite:////absolute.db, got {url}",
            "write ? and # in a file's name as %3F and %23",
        )
    name = unquote(name[1:])
    if name in ("", ":memory:"):
        raise PermanentError(
            f"expected a file behind sqlite:///, got {name or 'nothing'}",
            "a database in memory would not outlive the process: name a file",
        )
    return Path(os.path.abspath(name))  # noqa: PTH100 - resolve() would follow a link that may move


def connect(file: Path, *, create: bool, busy_seconds: float) -> sqlite3.Connection:
    """Opens `file`, and makes it where it is missing if `create`.

    Raises PermanentError with the reason where the file or its folder do not allow it; SQLite's own
    message ("unable to open database file") does not say which of them it is.
    """
    _demand_usable(file, create=create)
    with named(file):
        db = sqlite3.connect(
            f"{file.as_uri()}?mode={'rwc' if create else 'rw'}",
            uri=True,
            timeout=busy_seconds,
            isolation_level=None,
            # A fork is made by one thread and used by another; never by two at a time.
            check_same_thread=False,
            cached_statements=512,
        )
        try:
            # Reads the header: the first statement that tells a database from any other file.
            db.execute("PRAGMA schema_version").fetchone()
            # A row comes with its own cascades in the source's log, so no foreign key has to act
            # here, and rows of one transaction may come child first. OFF is SQLite's default, but a
            # build may choose another.
            db.execute("PRAGMA foreign_keys = OFF")
            # The schema is a file's that others write too: its triggers fire, but may not use
            # functions and virtual tables with effects outside of the database.
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            # NORMAL may lose the last commits when the power fails; a position is confirmed to the
            # source as soon as it is committed here, so they would be lost for good. Measured: no
            # difference on batches of 100 rows and more, 0.55 against 0.13 ms on those of one.
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        except BaseException:
            db.close()
            raise
    return db


def use_wal(db: sqlite3.Connection, file: Path) -> None:
    """Readers then never wait for the sync, nor it for them. The mode stays with the file."""
    with named(file):
        if db.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            return
        [mode] = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise PermanentError(
            f"{file} cannot use a write-ahead log: journal mode stays {mode}",
            "put the database on a local disk: shared memory does not work on every file system",
        )


def exists(file: Path) -> bool:
    """Whether there is a file; PermanentError where there is not even its directory."""
    folder = file.parent
    try:
        found = file.exists()
        if found or folder.is_dir():
            return found
    except PermissionError:
        raise PermanentError(
            f"{file} cannot be reached: this user may not enter a directory above it",
            f"namei -l {file} shows which; give it the x right",
        ) from None
    raise PermanentError(
        f"{file} cannot be opened: there is no directory {folder}", f"mkdir -p {folder}"
    )


def _demand_usable(file: Path, *, create: bool) -> None:
    found = exists(file)
    folder = file.parent
    if file.is_dir():
        raise PermanentError(f"{file} is a directory", "name a file in the target's url")
    if create and not os.access(folder, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE):
        raise PermanentError(
            f"{file} cannot be written: this user may not create files in {folder}, and SQLite keeps"
            " its log beside the database",
            f"chown or chmod {folder} so that this user may write it",
        )
    if found and not os.access(file, os.R_OK, effective_ids=_EFFECTIVE):
        raise PermanentError(f"{file} may not be read by this user", f"chown or chmod {file}")
    if found and create and not os.access(file, os.W_OK, effective_ids=_EFFECTIVE):
        raise PermanentError(
            f"{file} is read-only for this user",
            f"chown or chmod {file}, or remount its disk writable",
        )
