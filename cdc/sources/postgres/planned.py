"""What a table was when its copy was planned, kept in the plan's fingerprint: so that it is seen when its
rows have become others since, and the log has not told.

That is so when the publication has another entry for it, or the table another oid: it was out of the log
for a while, or has another's name. And when a column's values have changed by an ALTER TABLE, of which
pgoutput sends no rows (manual, "Logical Replication", "Restrictions"): a type, a USING, a column added
with a default, another column under a known name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cdc.sources.postgres.connection import Connection, translating

ALIKE: Final = (
    {25, 1042, 1043},  # text, character, character varying
    {1560, 1562},  # bit, bit varying
)
"""Types one of which a column may get in the other's place without being written anew, and whose values
look the same. Others do not: timestamp gets a zone where the session's is UTC, cidr as inet loses its
mask."""


class Column(NamedTuple):
    number: int
    type: int
    modifier: int
    filled: bool
    """Rows that were there when it was added may have values in it: it has a default, or an identity."""
    generated: bool
    touched: int = 0
    """The transaction that was the last to alter it: an ALTER TYPE to the type that it has, with USING, leaves
    nothing else. So do others, which write no row anew."""


class Published(NamedTuple):
    """A table as its publication has it now."""

    entry: str
    """The table's oid and that of its entry in the publication."""
    columns: dict[str, Column]
    files: dict[str, int]
    """Its heaps by oid, and the file of each."""


_PUBLISHED = """
    SELECT n.nspname || '.' || c.relname, r.prrelid || '/' || r.oid,
           (SELECT json_object_agg(a.attname, json_build_array(
                       a.attnum, a.atttypid::bigint, a.atttypmod,
                       a.atthasmissing OR a.atthasdef OR a.attidentity <> '', a.attgenerated <> '',
                       a.xmin::text::bigint))
            FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
           (SELECT json_object_agg(h.oid, h.relfilenode::bigint)
            FROM pg_class AS h WHERE h.relkind = 'r' AND (h.oid = c.oid
              OR c.relkind = 'p' AND h.oid IN (SELECT relid FROM pg_partition_tree(c.oid))))
    FROM pg_publication_rel AS r
    JOIN pg_publication AS p ON p.oid = r.prpubid JOIN pg_class AS c ON c.oid = r.prrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE p.pubname = %s AND (%s::oid IS NULL OR c.oid = %s)"""
"""Columns and files are of one snapshot: new files beside old columns would look unaltered for ever."""


def published(db: Connection, publication: str, oid: int | None = None) -> dict[str, Published]:
    """The publication's tables by name; only that with this oid, if one is given. Entries of tables that
    stay in a publication are kept by its SET TABLE."""
    with translating():
        found = db.execute(_PUBLISHED, (publication, oid, oid)).fetchall()
    return {
        table: Published(entry, _columns(columns or {}), files or {})
        for table, entry, columns, files in found
    }


def fingerprint(table: Published | None, files: Mapping[int, int]) -> str:
    """Of a plan that was made of the table's heaps, by oid the file of each; None: it is not published."""
    known = table or Published("", {}, {})
    return json.dumps({"entry": known.entry, "columns": known.columns, "files": files})


def is_stale(planned: str, now: str) -> bool:
    """Whether chunks of the plan are none of what is there now."""
    then, there = _read(planned), _read(now)
    return (then.entry, then.files) != (there.entry, there.files)


def is_outdated(planned: str, now: Published) -> bool:
    """Whether the table's rows may have become others since, and the log has not told."""
    return have_changed(_read(planned), now)


def have_changed(was: Published, now: Published) -> bool:
    """The same of two looks."""
    if was.entry != now.entry:
        return True
    rewritten = _is_rewritten(was.files, now.files)
    numbers = {column.number: column for column in was.columns.values()}
    for name, column in now.columns.items():
        # Under another name it is still the same.
        old = was.columns.get(name) or numbers.get(column.number)
        if old is None:
            if column.filled or rewritten:
                return True
        elif (
            old.number != column.number
            or (old.generated and not column.generated)
            or not _are_alike(old.type, column.type)
            or (rewritten and old != column)
        ):
            return True
    return False


def _are_alike(old: int, new: int) -> bool:
    return old == new or any(old in types and new in types for types in ALIKE)


def _is_rewritten(was: Mapping[str, int], now: Mapping[str, int]) -> bool:
    """Whether one of the heaps has another file. Partitions that are not there any more say nothing; when
    none of them is, nobody can say that the others were not."""
    kept = was.keys() & now.keys()
    return not kept or any(was[oid] != now[oid] for oid in kept)


def _columns(found: Mapping[str, Any]) -> dict[str, Column]:
    return {name: Column(*column) for name, column in found.items()}


def _read(planned: str) -> Published:
    """What is none of ours (of another version's plan) is of another table."""
    try:
        found: dict[str, Any] = json.loads(planned)
    except ValueError:
        return Published("none", {}, {})
    return Published(found["entry"], _columns(found["columns"]), found["files"])
