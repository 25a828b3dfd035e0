"""What a table was when its copy was planned, kept in the plan's fingerprint: so that it is seen when its
rows have become others since, and the log has not told.

That is so when the publication has another entry for it, or the table another oid: it was out of the log
for a while, or has another's name. And when a column's values have changed by an ALTER TABLE, of which
pgoutput sends no rows (manual, "Logical Replication", "Restrictions"): a type that made the server write
the table anew, a column added with a default, another column under a known name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cdc.sources.postgres.connection import Connection, translating


class Column(NamedTuple):
    number: int
    type: int
    modifier: int
    filled: bool
    """Rows that were there when it was added may have values in it: it has a default, or an identity."""
    generated: bool


class Published(NamedTuple):
    """A table as its publication has it now."""

    entry: str
    """The table's oid and that of its entry in the publication."""
    columns: dict[str, Column]


_PUBLISHED = """
    SELECT n.nspname || '.' || c.relname, r.prrelid || '/' || r.oid,
           (SELECT json_object_agg(a.attname, json_build_array(
                       a.attnum, a.atttypid::bigint, a.atttypmod,
                       a.atthasmissing OR a.atthasdef OR a.attidentity <> '', a.attgenerated <> ''))
            FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
    FROM pg_publication_rel AS r
    JOIN pg_publication AS p ON p.oid = r.prpubid JOIN pg_class AS c ON c.oid = r.prrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE p.pubname = %s AND (%s::oid IS NULL OR c.oid = %s)"""

_FILES = """
    SELECT oid::text, pg_relation_filenode(oid)
    FROM pg_class WHERE oid = ANY (%s::oid[]) AND pg_relation_filenode(oid) IS NOT NULL"""


def published(db: Connection, publication: str, oid: int | None = None) -> dict[str, Published]:
    """The publication's tables by name; only that with this oid, if one is given. Entries of tables that
    stay in a publication are kept by its SET TABLE."""
    with translating():
        found = db.execute(_PUBLISHED, (publication, oid, oid)).fetchall()
    return {
        table: Published(entry, {n: Column(*c) for n, c in (columns or {}).items()})
        for table, entry, columns in found
    }


def fingerprint(table: Published | None, files: Mapping[int, int]) -> str:
    """Of a plan that was made of the table's heaps, by oid the file of each; None: it is not published."""
    known = table or Published("", {})
    return json.dumps({"entry": known.entry, "columns": known.columns, "files": files})


def is_stale(planned: str, now: str) -> bool:
    """Whether chunks of the plan are none of what is there now."""
    then, there = _read(planned), _read(now)
    return bool((then["entry"], then["files"]) != (there["entry"], there["files"]))


def is_outdated(db: Connection, planned: str, now: Published) -> bool:
    """Whether the table's rows may have become others since, and the log has not told."""
    then = _read(planned)
    was = Published(then["entry"], {n: Column(*c) for n, c in then["columns"].items()})
    return have_changed(was, now, lambda: _is_rewritten(db, then["files"]))


def have_changed(
    was: Published, now: Published, rewritten: Callable[[], bool] | None = None
) -> bool:
    """The same of two looks. A column's type may change and leave each value as it is, as varchar(10) to
    varchar(20) does; then the table was not `rewritten`, if somebody can say so."""
    if was.entry != now.entry:
        return True
    numbers = {column.number for column in was.columns.values()}
    retyped = False
    for name, column in now.columns.items():
        old = was.columns.get(name)
        if old is None:
            if column.filled and column.number not in numbers:
                return True
        elif old.number != column.number or (old.generated and not column.generated):
            return True
        else:
            retyped |= (old.type, old.modifier) != (column.type, column.modifier)
    return retyped and (rewritten is None or rewritten())


def _read(planned: str) -> dict[str, Any]:
    """What is none of ours (of another version's plan) is of another table."""
    try:
        found: dict[str, Any] = json.loads(planned)
    except ValueError:
        return {"entry": None, "columns": {}, "files": {}}
    return found


def _is_rewritten(db: Connection, files: Mapping[str, int]) -> bool:
    """Whether one of the heaps has another file. Partitions that are not there any more say nothing."""
    with translating():
        found: Sequence[tuple[Any, ...]] = db.execute(_FILES, (list(files),)).fetchall()
    return any(files[oid] != file for oid, file in found)
