"""Preflight of a PostgreSQL source: every setting, grant and table that a sync depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from psycopg import pq, sql

from appliers.errors import SyncError
from appliers.finding import Finding
from appliers.relation import Relation
from cdc.sources.postgres.catalog import IDENTITIES
from cdc.sources.postgres.connection import Connection, translating
from cdc.sources.postgres.slot import Publication, create_statement, foreign, publication

STANDBY: Final = (
    "name the primary in the source's URL; a standby that is being promoted is taken when it is one"
)

Walsender = Callable[[], AbstractContextManager[pq.abc.PGconn]]

# pg_stat_activity hides what other roles' sessions are; pg_stat_get_wal_senders counts them all.
_SERVER = """
    SELECT current_setting('server_version'), current_setting('wal_level'),
           current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
           current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_get_wal_senders()),
           current_setting('max_slot_wal_keep_size'), current_user, r.rolreplication OR r.rolsuper,
           r.rolbypassrls OR r.rolsuper, has_database_privilege(current_database(), 'CREATE'), current_database(),
           pg_is_in_recovery()
    FROM pg_roles r WHERE r.rolname = current_user"""

_TABLE = """
    SELECT has_schema_privilege(c.relnamespace, 'USAGE'), pg_has_role(c.relowner, 'USAGE'),
           pg_get_userbyid(c.relowner), c.relkind::text, c.relreplident::text,
           EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped)
    FROM pg_class c WHERE c.oid = %s"""

_READ = """
    SELECT n.nspname, c.relname, has_table_privilege(c.oid, 'SELECT'),
           c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE'))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = %(oid)s OR c.oid IN (SELECT relid FROM pg_partition_tree(%(oid)s::oid::regclass))
    ORDER BY c.oid"""
"""A copy reads the partitions themselves, for which their own grants and policies count."""


class Role(NamedTuple):
    """Whom the sync connects as."""

    name: str
    bypasses: bool
    """Row-level security does not hide rows from it."""
    creates: bool
    """It may make a publication in this database."""

    @property
    def quoted(self) -> str:
        return sql.Identifier(self.name).as_string()


def check(
    db: Connection, name: str, relations: Sequence[Relation], walsender: Walsender
) -> Iterator[Finding]:
    """The findings, each FAILED with the statement that mends it."""
    with translating():
        server = db.execute(_SERVER).fetchone()
    if server is None:
        return
    version, wal_level, slots, senders, keep, user, *may, database, standby = server
    replicates, bypasses, creates = may
    role = Role(user, bypasses, creates)
    if standby:
        yield Finding("FAILED", "server", f"PostgreSQL {version} is a standby", STANDBY)
    else:
        yield Finding("ok", "server", f"PostgreSQL {version}")
    yield _level(wal_level)
    yield _replicates(role, replicates, walsender)
    yield from _slot(db, name, slots, senders, keep)
    published = publication(db, name)
    unowned: list[Relation] = []
    for relation in relations:
        with translating():
            row = db.execute(_TABLE, (relation.ident,)).fetchone()
            heaps = db.execute(_READ, {"oid": relation.ident}).fetchall()
        if row is None:
            continue
        yield from _table(relation, row, heaps, role)
        if not row[1]:
            unowned.append(relation)
    yield _publication(name, published, relations, unowned, role, database)


def _level(wal_level: str) -> Finding:
    if wal_level == "logical":
        return Finding("ok", "wal_level", "logical")
    return Finding(
        "FAILED",
        "wal_level",
        f"is {wal_level}, expected logical",
        "ALTER SYSTEM SET wal_level = logical; -- then restart the source",
    )


def _replicates(role: Role, replicates: bool, walsender: Walsender) -> Finding:
    if not replicates:
        remedy = f"ALTER ROLE {role.quoted} REPLICATION;"
        return Finding("FAILED", "role", f"{role.name} may not replicate", remedy)
    try:
        with walsender():
            return Finding("ok", "role", f"{role.name} may replicate")
    except SyncError as e:
        return Finding("FAILED", "replication connection", str(e), e.hint)


def _slot(db: Connection, name: str, slots: int, senders: int, keep: str) -> Iterator[Finding]:
    with translating():
        row = db.execute(
            "SELECT wal_status, active, plugin, database, database = current_database()"
            " FROM pg_replication_slots WHERE slot_name = %s",
            (name,),
        ).fetchone()
    if row is not None and (row[2] != "pgoutput" or not row[4]):
        error = foreign(name, row[2], row[3])
        yield Finding("FAILED", f"slot {name}", str(error), error.hint)
    elif row is not None:
        lost = row[0] == "lost"
        yield Finding(
            "FAILED" if lost else "ok",
            f"slot {name}",
            f"exists, its log is {row[0]}",
            "cdc snapshot copies everything again" if lost else "",
        )
    # A copy takes a second, temporary slot and walsender for its time.
    for what, free, needed, setting in (
        ("slots", slots, 1 if row else 2, "max_replication_slots"),
        ("walsenders", senders, 1 if row and row[1] else 2, "max_wal_senders"),
    ):
        if free >= needed:
            yield Finding("ok", setting, f"{free} {what} free")
            continue
        yield Finding(
            "FAILED",
            setting,
            f"{free} {what} free, {needed} needed",
            f"raise {setting} and restart the source",
        )
    if keep != "-1":
        yield Finding("ok", "max_slot_wal_keep_size", keep)
        return
    yield Finding(
        "warn",
        "max_slot_wal_keep_size",
        "unlimited: a sync that is down for long can fill the source's disk",
        "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf(); -- or what the disk can spare",
    )


def _table(
    relation: Relation, row: tuple[Any, ...], heaps: Sequence[tuple[Any, ...]], role: Role
) -> Iterator[Finding]:
    enters, _, _, kind, identity, generated = row
    subject = f"table {relation.table}"
    failures = list(_unreadable(relation, heaps, role, enters=enters))
    yield from failures
    if kind == "p":
        yield Finding(
            "warn",
            subject,
            "is partitioned: TRUNCATE, ATTACH and DETACH of a single partition are not in the log",
            "after one of them: cdc snapshot --table " + relation.table,
        )
    if generated:
        yield Finding(
            "warn",
            subject,
            "its generated columns are not in the log: the target computes or omits them",
        )
    if not failures:
        keys = ", ".join(relation.key_names)
        yield Finding("ok", subject, f"key {keys}, replica identity {IDENTITIES[identity]}")


def _unreadable(
    relation: Relation, heaps: Sequence[tuple[Any, ...]], role: Role, *, enters: bool
) -> Iterator[Finding]:
    """What keeps a copy from reading all rows of a table and its partitions."""
    subject = f"table {relation.table}"
    if not enters:
        schema = sql.Identifier(relation.schema).as_string()
        yield Finding(
            "FAILED",
            subject,
            f"{role.name} may not use its schema",
            f"GRANT USAGE ON SCHEMA {schema} TO {role.quoted};",
        )
    hidden = [sql.Identifier(h[0], h[1]).as_string() for h in heaps if not h[2]]
    if hidden:
        whole = len(heaps) == 1
        yield Finding(
            "FAILED",
            subject,
            f"{role.name} may not read it"
            if whole
            else f"{role.name} may not read all of its partitions",
            f"GRANT SELECT ON {', '.join(hidden)} TO {role.quoted};",
        )
    if any(h[3] for h in heaps) and not role.bypasses:
        yield Finding(
            "FAILED",
            subject,
            f"has row-level security that hides rows from {role.name}",
            f"ALTER ROLE {role.quoted} BYPASSRLS;",
        )


def _publication(
    name: str,
    found: Publication | None,
    relations: Sequence[Relation],
    unowned: Sequence[Relation],
    role: Role,
    database: str,
) -> Finding:
    """Only the owner of all tables can make or extend it; somebody else who may can do so for us."""
    subject = f"publication {name}"
    if found is None:
        if not unowned and role.creates:
            return Finding("ok", subject, "will be made at the first start")
        if not unowned:
            quoted = sql.Identifier(database).as_string()
            remedy = f"GRANT CREATE ON DATABASE {quoted} TO {role.quoted};"
            return Finding("FAILED", subject, f"{role.name} may not make it", remedy)
        return Finding(
            "FAILED",
            subject,
            f"only the owner of {unowned[0].table} can make it, and {role.name} is not",
            f"have a superuser run: {create_statement(name, relations).as_string()};",
        )
    if not found.whole or found.filtered:
        return Finding(
            "FAILED",
            subject,
            "does not publish every change of its tables",
            f"DROP PUBLICATION {name}; -- then cdc snapshot copies everything again",
        )
    missing = [r for r in relations if r.table not in found.tables]
    if not missing or (found.owned and not set(missing) & set(unowned)):
        return Finding("ok", subject, "exists" + (", tables will be added" if missing else ""))
    tables = ", ".join("ONLY " + sql.Identifier(r.schema, r.name).as_string() for r in missing)
    return Finding(
        "FAILED",
        subject,
        f"is without {missing[0].table}, which {role.name} may not add",
        f"have a superuser run: ALTER PUBLICATION {name} ADD TABLE {tables};",
    )
