"""What a table was when its copy was planned, kept in the plan's fingerprint: so that it is seen when its
rows have become others since, and the log has not told.

That is so when the publication has another entry for it, or the table another oid: it was out of the log
for a while, or has another's name. When the publication was altered itself: for a while it may have left
out every update. When a column's values have changed by an ALTER TABLE, of which pgoutput sends no rows
(manual, "Logical Replication", "Restrictions"): a type, a USING, a column added with a default, another
column under a known name; or because an enum's value was renamed. And when rows have come or gone with a
partition (`parts`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cdc.sources.postgres import parts
from cdc.sources.postgres.connection import Connection, translating
from cdc.sources.postgres.parts import Part

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
    """A table as its publication has it now. What None is of, an earlier version has not kept: it is not
    known. Rows of the catalogue stand here as their xmin, which every change of them changes, and VACUUM
    FREEZE and FULL do not."""

    entry: str
    """The table's oid and that of its entry in the publication."""
    columns: dict[str, Column]
    files: dict[str, int]
    """Its heaps by oid, and the file of each."""
    options: str | None = None
    """The publication without its tables: ALTER PUBLICATION ADD, DROP and SET TABLE leave its row alone."""
    labels: dict[str, str] | None = None
    """Of the enums in the columns, by oid: a new value is another, a renamed one is the same."""
    parts: dict[str, Part] | None = None
    """All tables below a partitioned one, by oid."""
    seen: str | None = None
    """Transactions before this one were over then."""


_FIRST_MADE: Final = 16384
"""The first oid that is none of the server's own (transam.h, FirstNormalObjectId)."""

_LABELS: Final = f"""(
    WITH RECURSIVE used (type) AS (
        SELECT a.atttypid FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= {_FIRST_MADE}
        UNION
        SELECT i.type FROM used JOIN pg_type AS t ON t.oid = used.type, LATERAL (
            VALUES (t.typelem), (t.typbasetype)
            UNION ALL SELECT g.rngsubtype FROM pg_range AS g WHERE t.oid IN (g.rngtypid, g.rngmultitypid)
            UNION ALL SELECT a.atttypid FROM pg_attribute AS a
            WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS i (type)
        WHERE i.type >= {_FIRST_MADE})
    SELECT json_object_agg(e.oid, e.xmin::text) FROM used JOIN pg_enum AS e ON e.enumtypid = used.type)"""
"""Also of arrays, domains, ranges and composite types of enums, one in the other."""

_PUBLISHED: Final = f"""
    SELECT n.nspname || '.' || c.relname, r.prrelid || '/' || r.oid,
           (SELECT json_object_agg(a.attname, json_build_array(
                       a.attnum, a.atttypid::bigint, a.atttypmod,
                       a.atthasmissing OR a.atthasdef OR a.attidentity <> '', a.attgenerated <> '',
                       a.xmin::text::bigint))
            FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
           json_build_object(c.oid, json_build_array('', c.relfilenode::bigint)),
           CASE c.relkind WHEN 'p' THEN {parts.BELOW} END, {_LABELS},
           p.xmin::text, pg_snapshot_xmin(pg_current_snapshot())::text
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
        table: Published(
            entry, _columns(columns or {}), _files(root | below), options, labels or {}, below, seen
        )
        for table, entry, columns, root, below, labels, options, seen in (
            (*row[:3], _parts(row[3]), _parts(row[4] or {}), *row[5:]) for row in found
        )
    }


def fingerprint(table: Published | None, files: Mapping[int, int]) -> str:
    """Of a plan that was made of the table's heaps, by oid the file of each; None: it is not published."""
    return json.dumps((table or Published("", {}, {}))._asdict() | {"files": files})


def is_stale(planned: str, now: str) -> bool:
    """Whether chunks of the plan are none of what is there now."""
    then, there = _read(planned), _read(now)
    return (then.entry, then.files) != (there.entry, there.files)


def is_outdated(db: Connection, planned: str, now: Published) -> bool:
    """Whether the table's rows may have become others since, and the log has not told."""
    return have_changed(db, _read(planned), now)


def have_changed(db: Connection, was: Published, now: Published) -> bool:
    """The same of two looks."""
    return (
        was.entry != now.entry
        or was.options not in (None, now.options)
        or any((now.labels or {}).get(oid, row) != row for oid, row in (was.labels or {}).items())
        or _columns_have_changed(was, now)
        or parts.rows_came_or_went(db, was.parts, now.parts or {}, was.seen)
    )


def _columns_have_changed(was: Published, now: Published) -> bool:
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


def looked(was: Published, now: Published) -> Published:
    """What the next look is compared with, when this one has found no change. Columns and files stay: one that
    was dropped may be added again, and another file counts with a column that was altered before."""
    return now._replace(columns=was.columns, files=was.files)


def has_news(was: Published, now: Published) -> bool:
    """Whether something has come since of which it can be seen what becomes of it."""
    return (was.options, was.labels, was.parts) != (now.options, now.labels, now.parts)


def renewed(planned: str, now: Published) -> str | None:
    """The fingerprint of a table that is not outdated as `looked`; None: there are no news."""
    was = _read(planned)
    return json.dumps(looked(was, now)._asdict()) if has_news(was, now) else None


def _are_alike(old: int, new: int) -> bool:
    return old == new or any(old in types and new in types for types in ALIKE)


def _is_rewritten(was: Mapping[str, int], now: Mapping[str, int]) -> bool:
    """Whether one of the heaps has another file. Partitions that are not there any more say nothing; when
    none of them is, nobody can say that the others were not."""
    kept = was.keys() & now.keys()
    return not kept or any(was[oid] != now[oid] for oid in kept)


def _columns(found: Mapping[str, Any]) -> dict[str, Column]:
    return {name: Column(*column) for name, column in found.items()}


def _files(heaps: Mapping[str, Part]) -> dict[str, int]:
    return {oid: part.file for oid, part in heaps.items() if part.file}


def _parts(found: Mapping[str, Any]) -> dict[str, Part]:
    return {oid: Part(*part) for oid, part in found.items()}


def _read(planned: str) -> Published:
    """What is none of ours (of another version's plan) is of another table."""
    try:
        read: dict[str, Any] = json.loads(planned)
    except ValueError:
        return Published("none", {}, {})
    found = {name: read[name] for name in Published._fields if name in read}
    found["columns"] = _columns(found["columns"])
    if found.get("parts") is not None:
        found["parts"] = _parts(found["parts"])
    return Published(**found)
