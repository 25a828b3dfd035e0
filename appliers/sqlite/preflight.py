"""What `cdc check` says about a SQLite target. Reads only."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from appliers.errors import PermanentError
from appliers.finding import Finding
from appliers.relation import Relation
from appliers.sqlite.failures import named
from appliers.sqlite.shape import demand_name, duplicate_columns, folded, problems, read_shape

_OLDEST = (3, 35, 0)
_LITTLE_ROOM = 1 << 30


def findings(
    file: Path, db: sqlite3.Connection | None, relations: Sequence[Relation]
) -> Iterator[Finding]:
    """`db` is None where there is no file yet."""
    yield _library()
    yield _room(file)
    if db is None:
        yield Finding("ok", str(file), "does not exist yet and will be made")
    elif not os.access(file, os.W_OK) or not os.access(file.parent, os.W_OK):
        yield Finding(
            "FAILED",
            str(file),
            "this user may not write the file, or create SQLite's log beside it",
            f"chown or chmod {file} and {file.parent}",
        )
    else:
        yield _journal(file, db)
    names: dict[str, str] = {}
    for relation in relations:
        try:
            name = demand_name(relation)
            first = names.setdefault(folded(name), relation.table)
            yield from _table(file, db, relation, name, first)
        except PermanentError as e:
            yield Finding("FAILED", relation.table, str(e), e.hint)


def _table(
    file: Path, db: sqlite3.Connection | None, relation: Relation, name: str, first: str
) -> Iterator[Finding]:
    table = relation.table
    if first != table:
        yield Finding(
            "FAILED",
            table,
            f"{table} and {first} would both be table {name} in {file}",
            "leave one of them out of the sync's `tables`, or rename it on the source",
        )
        return
    double = duplicate_columns(relation.columns)
    if double is not None:
        yield Finding(
            "FAILED",
            table,
            f"has two columns {double}: SQLite does not tell upper from lower case",
            "rename one of them on the source, or leave the table out of the sync",
        )
        return
    with named(file):
        shape = read_shape(db, name) if db is not None else None
    if shape is None:
        yield Finding("ok", table, f"table {name} will be made")
        return
    found = list(problems(relation, shape, file))
    for problem in found:
        yield Finding("FAILED" if problem.fatal else "warn", table, problem.message, problem.remedy)
    if not found:
        yield Finding("ok", table, f"table {name} takes its rows")


def _library() -> Finding:
    version = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info >= _OLDEST:
        return Finding("ok", version, "is new enough")
    return Finding("FAILED", version, "expected 3.35.0 or newer", "use a newer Python")


def _room(file: Path) -> Finding:
    folder = next(p for p in file.parents if p.exists())
    if folder != file.parent:
        return Finding(
            "FAILED", str(file), f"there is no directory {file.parent}", f"mkdir -p {file.parent}"
        )
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_ROOM:
        return Finding("warn", str(folder), f"{free >> 20} MB are free", "make room on that disk")
    return Finding("ok", str(folder), f"{free >> 30} GB are free")


def _journal(file: Path, db: sqlite3.Connection) -> Finding:
    with named(file):
        [mode] = db.execute("PRAGMA journal_mode").fetchone()
    if mode == "wal":
        return Finding("ok", str(file), "uses a write-ahead log")
    return Finding(
        "ok", str(file), f"uses journal mode {mode}; the sync will change it to a write-ahead log"
    )
