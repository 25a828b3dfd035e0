"""The publication and the replication slot of a sync, and whether the log behind them is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from psycopg import pq, sql

from appliers.errors import PermanentError, TransientError
from appliers.relation import Relation
from cdc.sources.postgres.connection import Connection, command, translating
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.source import GapError

NEW_SNAPSHOT = (
    "`cdc snapshot {}` accepts the gap: it copies every table again and goes on from there"
)

LOST: Final = {
    "wal_removed": "raise max_slot_wal_keep_size on the source",
    "rows_removed": "turn hot_standby_feedback on",
    "wal_level_insufficient": "keep wal_level = logical on the source",
    "idle_timeout": "raise idle_replication_slot_timeout on the source",
}
"""Why a server gives a slot up (pg_replication_slots.invalidation_reason), and what prevents it."""


def slot_name(sync: str) -> str:
    """Of the slot and the publication. PostgreSQL allows lower-case letters, digits and `_`."""
    return "cdc_" + sync.lower().replace("-", "_")


def identify(walsender: pq.abc.PGconn, name: str) -> str:
    """The identity that the checkpoint carries, as JSON (manual, IDENTIFY_SYSTEM)."""
    system, timeline, _, database = command(walsender, "IDENTIFY_SYSTEM")[0]
    return json.dumps(
        {"system": system, "timeline": int(timeline or 0), "database": database, "slot": name}
    )


def verify_identity(
    walsender: pq.abc.PGconn, known: str, position: Lsn, name: str, sync: str, head: Lsn
) -> None:
    """Refuses a source that is not the one the checkpoint was made on, or has lost what we have.

    A higher timeline alone is a promoted standby and fine, if it left the old timeline behind the
    checkpoint; one that left it before has lost transactions that the target has."""
    then, now = json.loads(known), json.loads(identify(walsender, name))
    if then["system"] != now["system"] or then["database"] != now["database"]:
        raise PermanentError(
            f"the source is not the one this sync was started on: expected system {then['system']} database"
            f" {then['database']}, got system {now['system']} database {now['database']}",
            "correct the source's URL, or `cdc drop` the sync and start it anew",
        )
    way_out = NEW_SNAPSHOT.format(sync) + ", if this source is the right one"
    if now["timeline"] != then["timeline"]:
        switch = _left_timeline(walsender, now["timeline"], then["timeline"])
        if switch is None or position > switch:
            where = (
                f"left timeline {then['timeline']} at {switch}, before the checkpoint {position}"
            )
            if switch is None:
                where = f"never was on timeline {then['timeline']} of the checkpoint {position}"
            raise GapError(
                f"the source was restored: its timeline {now['timeline']} {where}:"
                " the target may have changes that the source has lost",
                way_out,
            )
    if position > head:
        raise GapError(
            f"the source's log ends at {head}, before the checkpoint {position}: it was restored from a backup",
            way_out,
        )


def _left_timeline(walsender: pq.abc.PGconn, current: int, old: int) -> Lsn | None:
    """Where the current timeline's history left `old`; None if it never was on it."""
    if current < old or current == 1:
        return None
    content = command(walsender, f"TIMELINE_HISTORY {current}")[0][1] or ""
    for line in content.splitlines():
        fields = line.split()
        if len(fields) >= 2 and fields[0] == str(old):
            return Lsn.parse(fields[1])
    return None


def verify_slot(db: Connection, name: str, sync: str, position: Lsn) -> None:
    """Refuses to go on if the slot cannot give everything behind the checkpoint."""
    with translating():
        row = db.execute(
            "SELECT plugin, database, database = current_database(), wal_status, confirmed_flush_lsn::text,"
            " to_jsonb(s) ->> 'invalidation_reason' FROM pg_replication_slots AS s WHERE slot_name = %s",
            (name,),
        ).fetchone()
    way_out = NEW_SNAPSHOT.format(sync)
    if row is None:
        raise GapError(
            f"replication slot {name} is gone: changes since {position} are lost", way_out
        )
    plugin, database, here, wal_status, confirmed, reason = row
    if plugin != "pgoutput" or not here:
        raise foreign(name, plugin, database)
    if wal_status == "lost":
        reason = reason or "wal_removed"
        raise GapError(
            f"replication slot {name} is lost ({reason}): changes since {position} are gone from the source's log",
            f"{way_out}; {LOST.get(reason, LOST['wal_removed'])}",
        )
    if confirmed is not None and Lsn.parse(confirmed) > position:
        raise GapError(
            f"replication slot {name} stands at {confirmed}, past the checkpoint {position}: it was recreated or"
            " advanced by somebody else, and the changes between are lost",
            way_out,
        )


def foreign(name: str, plugin: str | None, database: str | None) -> PermanentError:
    """Slots belong to the whole server: databases that have syncs of one name share it."""
    return PermanentError(
        f"replication slot {name} is not this sync's: it is for database {database or 'none'},"
        f" plugin {plugin or 'none'}",
        f"rename the sync, or, if nobody needs it: SELECT pg_drop_replication_slot('{name}');",
    )


def create_slot(
    walsender: pq.abc.PGconn, db: Connection, name: str, interrupted: Callable[[], bool]
) -> Lsn:
    """Makes the slot, replacing one that a start before the first checkpoint left. Waits for the
    transactions that run now: its position is one before which every transaction is over."""
    with translating():
        row = db.execute(
            "SELECT active_pid, plugin, database, database = current_database()"
            " FROM pg_replication_slots WHERE slot_name = %s",
            (name,),
        ).fetchone()
        if row and (row[1] != "pgoutput" or not row[3]):
            raise foreign(name, row[1], row[2])
        if row and row[0]:
            raise TransientError(
                f"source: replication slot {name} is in use by process {row[0]}",
                "another target's sync may have the same name, or its connection is still ending",
            )
        if row:
            db.execute("SELECT pg_drop_replication_slot(%s)", (name,))
    version = db.info.server_version
    options = "NOEXPORT_SNAPSHOT"
    if version >= 150000:
        options = "(SNAPSHOT 'nothing'" + (", FAILOVER true)" if version >= 170000 else ")")
    rows = command(
        walsender, f"CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput {options}", interrupted
    )
    return Lsn.parse(rows[0][1] or "0/0")


def unpublished(db: Connection, name: str, relations: Sequence[Relation]) -> frozenset[str]:
    """Which of these tables are not wholly published: some of their changes are not in the log."""
    known, wanted = _known(db, name), {r.table for r in relations}
    if known is None:
        return frozenset(wanted)
    return frozenset(wanted - known.tables | wanted & known.filtered)


def ensure_publication(db: Connection, name: str, relations: Sequence[Relation]) -> None:
    """Makes the publication hold exactly these tables, which the catalog has found to be safe: a
    table without a usable identity in a publication would make PostgreSQL refuse the application's
    own UPDATE and DELETE."""
    known = _known(db, name)
    with translating():
        if known is None:
            db.execute(create_statement(name, relations))
        elif known.tables != {r.table for r in relations} or known.filtered:
            db.execute(
                sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(
                    sql.Identifier(name), _tables(relations)
                )
            )


def _known(db: Connection, name: str) -> Publication | None:
    """Raises PermanentError for one that leaves changes out."""
    known = publication(db, name)
    if known is not None and not known.whole:
        raise PermanentError(
            f"publication {name} is not as cdc makes it: expected insert, update, delete, truncate,"
            " via the partition root, for named tables, without generated columns",
            f"DROP PUBLICATION {name}; -- then `cdc snapshot`: changes may be missing from the log",
        )
    return known


def create_statement(name: str, relations: Sequence[Relation]) -> sql.Composed:
    return sql.SQL(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)"
    ).format(sql.Identifier(name), _tables(relations))


def _tables(relations: Sequence[Relation]) -> sql.Composed:
    """ONLY keeps tables that inherit from these out: nobody has looked at their keys. Partitions
    belong to their root all the same (manual, CREATE PUBLICATION)."""
    return sql.SQL(", ").join(
        sql.SQL("ONLY {}").format(sql.Identifier(r.schema, r.name))
        for r in sorted(relations, key=lambda r: r.table)
    )


_KEYLESS: Final = """
    SELECT DISTINCT n.nspname, c.relname
    FROM pg_publication_rel AS r
    JOIN pg_publication AS p ON p.oid = r.prpubid
    JOIN pg_class AS c ON c.oid = r.prrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN LATERAL (
        WITH RECURSIVE tree (oid) AS (
            SELECT c.oid
            UNION ALL
            SELECT i.inhrelid FROM tree JOIN pg_inherits AS i ON i.inhparent = tree.oid AND c.relkind = 'p')
        SELECT oid FROM tree) AS t ON true
    JOIN pg_class AS l ON l.oid = t.oid AND l.relkind = 'r'
    WHERE p.pubname = %s AND l.relreplident <> 'f' AND NOT EXISTS (
        SELECT FROM pg_index AS i WHERE i.indrelid = l.oid AND i.indisvalid AND i.indimmediate
           AND CASE l.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END)"""
"""Published tables, by their root, whose rows no identity tells apart (CheckCmdReplicaIdentity,
src/backend/executor/execReplication.c; RelationGetIndexList, src/backend/utils/cache/relcache.c).
Not by pg_partition_tree, which waits for whoever has a partition locked, and the sync with it."""

UNPUBLISH_PATIENCE: Final = "2s"
"""How long to wait for whoever alters the table."""


def unpublish_keyless(db: Connection, name: str) -> list[str]:
    """Takes tables that have lost their identity out of the publication, because PostgreSQL refuses the
    application's own UPDATE and DELETE on them as long as they are in it. Returns their names.

    Their next rows are not in the log, and need not be marked here: whoever publishes them again is
    told to copy them (`unpublished`)."""
    with translating():
        found = db.execute(_KEYLESS, (name,)).fetchall()
        if found:
            tables = (sql.SQL("ONLY {}").format(sql.Identifier(*table)) for table in found)
            with db.transaction():
                db.execute(f"SET LOCAL lock_timeout = '{UNPUBLISH_PATIENCE}'")
                db.execute(
                    sql.SQL("ALTER PUBLICATION {} DROP TABLE {}").format(
                        sql.Identifier(name), sql.SQL(", ").join(tables)
                    )
                )
    return [f"{schema}.{table}" for schema, table in found]


def left_out(db: Connection, name: str, relations: Sequence[Relation]) -> list[str]:
    """Those of these tables that are `unpublished`, and are there: of one that was dropped there is
    nothing to miss."""
    missing = unpublished(db, name, relations)
    lost = [r for r in relations if r.table in missing]
    if not lost:
        return []
    with translating():
        found = db.execute(
            "SELECT schema || '.' || name FROM unnest(%s::text[], %s::text[]) AS lost (schema, name)"
            " WHERE to_regclass(format('%%I.%%I', schema, name)) IS NOT NULL",
            ([r.schema for r in lost], [r.name for r in lost]),
        ).fetchall()
    return [table for (table,) in found]


class Publication(NamedTuple):
    """What a publication publishes."""

    whole: bool
    """Every kind of change, of named tables, via the partition root."""
    owned: bool
    """The role may alter it."""
    tables: set[str]
    filtered: set[str]
    """Tables with a WHERE or a list of columns (PostgreSQL 15 and newer)."""


def publication(db: Connection, name: str) -> Publication | None:
    """The sync's publication; None if there is none."""
    with translating():
        row = db.execute(
            "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot AND NOT puballtables"
            " AND coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 'n', pg_has_role(pubowner, 'USAGE')"
            " FROM pg_publication AS p WHERE pubname = %s",
            (name,),
        ).fetchone()
        if row is None:
            return None
        rows = db.execute(
            "SELECT n.nspname || '.' || c.relname,"
            " coalesce(to_jsonb(r) ->> 'prqual', to_jsonb(r) ->> 'prattrs') IS NOT NULL"
            " FROM pg_publication_rel AS r"
            " JOIN pg_publication AS p ON p.oid = r.prpubid JOIN pg_class AS c ON c.oid = r.prrelid"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE p.pubname = %s",
            (name,),
        ).fetchall()
    return Publication(row[0], row[1], {r[0] for r in rows}, {r[0] for r in rows if r[1]})


def drop(db: Connection, name: str) -> None:
    """Removes slot and publication where they are; never another database's slot."""
    with translating():
        row = db.execute(
            "SELECT active_pid FROM pg_replication_slots"
            " WHERE slot_name = %s AND database = current_database()",
            (name,),
        ).fetchone()
        if row and row[0]:
            raise TransientError(
                f"replication slot {name} is in use by process {row[0]}: the sync still runs",
                "stop the daemon, then drop again",
            )
        if row:
            db.execute("SELECT pg_drop_replication_slot(%s)", (name,))
        db.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))
