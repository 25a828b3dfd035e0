"""What a sync into a PostgreSQL target depends on, before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from appliers.errors import PermanentError
from appliers.finding import Finding, of_acting_key
from appliers.postgres.catalog import TargetTable, read_table
from appliers.postgres.connection import Session
from appliers.postgres.lock import FUNCTIONS, may_use_origins
from appliers.postgres.names import place, quoted
from appliers.postgres.own import SCHEMA
from appliers.postgres.table import Table
from appliers.postgres.types import created_types
from appliers.relation import Relation
from appliers.unrepresentable import DEFAULT, Nulled, Unrepresentable

OLDEST = 120000
"""Generated columns came with PostgreSQL 12."""


def findings(
    session: Session, relations: Sequence[Relation], policy: Unrepresentable
) -> Iterator[Finding]:
    """One line for each thing; changes nothing."""
    role, database = session.rows("SELECT current_user::text, pg_catalog.current_database()::text")[
        0
    ]
    yield _version(session)
    yield _writable(session, role, database)
    yield _own_tables(session, role, database)
    yield _temporary(session, role, database)
    yield _origins(session, role)
    for relation in relations:
        target = read_table(session, *place(relation))
        if target is None:
            yield _creatable(session, relation, role, database)
        else:
            yield from _table(session, relation, target, role, policy)


def _version(session: Session) -> Finding:
    said = f"PostgreSQL {session.version_text}"
    if session.version < OLDEST:
        return Finding(
            "FAILED", "target version", f"expected PostgreSQL 12 or newer, got {said}", "upgrade it"
        )
    return Finding("ok", "target version", said)


def _writable(session: Session, role: str, database: str) -> Finding:
    standby, read_only, source = session.rows(
        "SELECT pg_catalog.pg_is_in_recovery(), setting::bool, source FROM pg_catalog.pg_settings"
        " WHERE name = 'default_transaction_read_only'"
    )[0]
    if standby:
        return Finding(
            "FAILED", "target", "is a standby and read-only", "use the primary's address"
        )
    if read_only:
        whose = {
            "database": f"ALTER DATABASE {quoted(database)}",
            "user": f"ALTER ROLE {quoted(role)}",
            "database user": f"ALTER ROLE {quoted(role)} IN DATABASE {quoted(database)}",
        }.get(source)
        remedy = f"{whose} RESET default_transaction_read_only;"
        if whose is None:
            remedy = "take it out of the server's configuration, or of the URL's options"
        return Finding("FAILED", "target", "default_transaction_read_only is on", remedy)
    return Finding("ok", "target", "takes writes")


def _own_tables(session: Session, role: str, database: str) -> Finding:
    subject = f"schema {SCHEMA}"
    own, create = session.rows(
        "SELECT (SELECT pg_catalog.has_schema_privilege(oid, 'USAGE')"
        " AND pg_catalog.has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace"
        " WHERE nspname = $1), pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')",
        (SCHEMA,),
    )[0]
    if own or (own is None and create):
        return Finding("ok", subject, "is there" if own else "will be created")
    if own is None:
        return Finding(
            "FAILED", subject, f"role {role} may not create it", _grant_create(database, role)
        )
    remedy = f"GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO {quoted(role)};"
    return Finding("FAILED", subject, f"role {role} may not use it", remedy)


def _temporary(session: Session, role: str, database: str) -> Finding:
    subject = "temporary tables"
    if session.value(
        "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')"
    ):
        return Finding("ok", subject, "can be made")
    return Finding(
        "warn",
        subject,
        f"role {role} may not make them: changes are written row by row, and no sweep is possible",
        f"GRANT TEMPORARY ON DATABASE {quoted(database)} TO {quoted(role)};",
    )


def _origins(session: Session, role: str) -> Finding:
    subject = "replication origin"
    if may_use_origins(session):
        return Finding("ok", subject, "marks what the sync writes")
    functions = ", ".join(f"{name}({arguments})" for name, arguments in FUNCTIONS.items())
    return Finding(
        "warn",
        subject,
        f"role {role} may not set one: others cannot tell the sync's writes from the users'",
        f"GRANT EXECUTE ON FUNCTION {functions} TO {quoted(role)};",
    )


def _creatable(session: Session, relation: Relation, role: str, database: str) -> Finding:
    subject = f"table {relation.table}"
    schema, _ = place(relation)
    there = session.rows(
        "SELECT pg_catalog.has_schema_privilege(oid, 'USAGE')"
        " AND pg_catalog.has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace"
        " WHERE nspname = $1",
        (schema,),
    )
    if there and not there[0][0]:
        remedy = f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {quoted(role)};"
        return Finding("FAILED", subject, f"role {role} may not create it", remedy)
    if not there and not session.value(
        "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')"
    ):
        return Finding(
            "FAILED",
            subject,
            f"role {role} may not create its schema",
            _grant_create(database, role),
        )
    if relation.dialect != "postgres":
        # All types are others; docs/types.md says which.
        return Finding("ok", subject, "will be created")
    declared = created_types(session, relation, DEFAULT)
    changed = [
        f"{column.name} {column.type} as {made.removeprefix('pg_catalog.')}"
        for column, made in zip(relation.columns, declared, strict=True)
        if made != column.type
    ]
    if changed:
        message = f"will be created, with columns of other types: {', '.join(changed)}"
        return Finding("warn", subject, message, "create these types on the target to keep them")
    return Finding("ok", subject, "will be created")


def _table(
    session: Session, relation: Relation, target: TargetTable, role: str, policy: Unrepresentable
) -> Iterator[Finding]:
    subject = f"table {relation.table}"
    try:
        Table(relation, target, policy, Nulled())
    except PermanentError as e:
        yield Finding("FAILED", subject, str(e), e.hint)
        return
    lacking = [
        right
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
        if not session.value(
            "SELECT pg_catalog.has_table_privilege($1::int8::oid, $2)", (target.oid, right)
        )
    ]
    if lacking:
        remedy = f"GRANT {', '.join(lacking)} ON {target.sql_name} TO {quoted(role)};"
        yield Finding("FAILED", subject, f"role {role} may not {', '.join(lacking)}", remedy)
    elif session.value("SELECT pg_catalog.row_security_active($1::int8::oid)", (target.oid,)):
        remedy = f"ALTER ROLE {quoted(role)} BYPASSRLS;"
        yield Finding("FAILED", subject, f"row-level security hides rows from role {role}", remedy)
    else:
        yield Finding("ok", subject, "has all columns and a unique index on its key")
    yield from _side_effects(session, subject, target, relation.dialect)


def _side_effects(
    session: Session, subject: str, target: TargetTable, dialect: str
) -> Iterator[Finding]:
    """What the target's own schema does to applied rows."""
    triggers = session.rows(
        "SELECT tgname::text FROM pg_catalog.pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal"
        " AND tgenabled IN ('O', 'A') ORDER BY tgname",
        (target.oid,),
    )
    if triggers:
        names = ", ".join(name for (name,) in triggers)
        yield Finding("ok", subject, f"its triggers fire for what the sync writes: {names}")
    keys = session.rows(
        "SELECT conname::text, conrelid::regclass::text, confrelid::regclass::text,"
        " confdeltype NOT IN ('a', 'r') OR confupdtype NOT IN ('a', 'r'),"
        " conrelid = $1 AND confrelid <> $1 FROM pg_catalog.pg_constraint"
        " WHERE contype = 'f' AND (conrelid = $1 OR confrelid = $1) ORDER BY conname",
        (target.oid,),
    )
    for name, child, parent, acts, outgoing in keys:
        if outgoing:
            yield Finding(
                "ok",
                subject,
                f"foreign key {name}: its rows are copied after those of {parent}",
            )
        elif acts:
            instead = "ON DELETE NO ACTION ON UPDATE NO ACTION DEFERRABLE"
            yield of_acting_key(subject, name, child, dialect, instead)


def _grant_create(database: str, role: str) -> str:
    return f"GRANT CREATE ON DATABASE {quoted(database)} TO {quoted(role)};"
