"""Rows that come or go with a partition of a published table, of which its log has nothing: ATTACH, DETACH
and DROP of one, and TRUNCATE of one alone (pgoutput.c, pgoutput_truncate, leaves out the partitions of what
is published by its root).

Whether that was so is told by the catalogue, from one look to the next. A partition that is made by CREATE
TABLE PARTITION OF is empty, and every row of it is in the log from then on; so is one that is empty when it
is seen for the first time. VACUUM FULL gives a partition another file, as TRUNCATE does, but leaves rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from psycopg import sql

from cdc.sources.postgres.connection import Connection, translating


class Part(NamedTuple):
    """A table below a partitioned one, at whatever depth."""

    link: str
    """The xmin of what makes it a partition: another one if it was detached and attached again."""
    file: int
    """0: it is partitioned itself."""


BELOW: Final = """(
    WITH RECURSIVE below (oid, link) AS (
        SELECT i.inhrelid, i.xmin FROM pg_inherits AS i WHERE i.inhparent = c.oid
        UNION ALL
        SELECT i.inhrelid, i.xmin FROM below AS b JOIN pg_inherits AS i ON i.inhparent = b.oid)
    SELECT json_object_agg(l.oid, json_build_array(b.link::text, l.relfilenode::bigint))
    FROM below AS b JOIN pg_class AS l ON l.oid = b.oid)"""
"""What is below the partitioned table c. Not pg_partition_tree, which waits for whoever alters one."""

_MADE: Final = """
    SELECT bool_and(
        i.xmax = '0' AND c.relfilenode IN (0, c.oid) AND EXISTS (
            SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND a.xmin = i.xmin AND a.xmax = '0' AND a.cmin::text::bigint < i.cmin::text::bigint)
        OR c.relfilenode IN (0, c.oid) AND (
            SELECT sum(pg_relation_size(t.relid)) FROM pg_partition_tree(c.oid) AS t) = 0)
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhrelid = ANY (%s::oid[])"""
"""Whether these brought no rows. The file of a table has its oid for a name until it is rewritten or
truncated. A column of a partition that is made as one stands in the catalogue before its being a
partition does; in one that is attached it is written again by that (tablecmds.c, DefineRelation,
MergeAttributesIntoExisting)."""

_NAMES: Final = """
    SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = ANY (%s::oid[])"""


_KEPT: Final = """
    SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - %s::bigint < 2000000000
       AND EXISTS (SELECT FROM ONLY {} WHERE age(xmin) > age(%s::xid8::xid))"""
"""Numbers of transactions go round after 2^31: later nobody can tell which of two is the older."""


def rows_came_or_went(
    db: Connection, was: Mapping[str, Part] | None, now: Mapping[str, Part], seen: str | None
) -> bool:
    """Whether that may be so between two looks. Transactions before `seen` were over at the first of them;
    `was` is None if there was none."""
    if was is None or was == now:
        return False
    if any(oid not in now or now[oid].link != part.link for oid, part in was.items()):
        return True
    new = now.keys() - was.keys()
    rewritten = [oid for oid, part in was.items() if now[oid].file != part.file]
    with translating():
        return bool(
            (new and not _came_empty(db, new))
            or (rewritten and not _were_kept(db, rewritten, seen))
        )


def _came_empty(db: Connection, partitions: Iterable[str]) -> bool:
    row = db.execute(_MADE, (list(partitions),)).fetchone()
    return bool(row and row[0])


def _were_kept(db: Connection, partitions: list[str], seen: str | None) -> bool:
    """Whether each has a row of before, which TRUNCATE would not have left: so it has to be one whose
    transaction was over at the first look."""
    names = db.execute(_NAMES, (partitions,)).fetchall()
    for name in names:
        query = sql.SQL(_KEPT).format(sql.Identifier(*name))
        [[kept]] = db.execute(query, (seen, seen)).fetchall()
        if not kept:
            return False
    return len(names) == len(partitions)
