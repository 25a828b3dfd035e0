"""What `cdc init` asks a PostgreSQL source, and the grants that it and such a target need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import sql

from appliers.postgres.lock import FUNCTIONS
from appliers.postgres.names import place
from appliers.relation import Relation
from cdc.config import slot_name
from cdc.init_facts import Reference
from cdc.sources.postgres.connection import connect, source_conninfo, translating

_SERVER = """
    SELECT current_setting('wal_level'), current_user, rolsuper, current_database()
    FROM pg_roles WHERE rolname = current_user"""

_OWNERS = """
    SELECT c.oid, r.rolname, r.rolsuper, c.relrowsecurity
    FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"""

_REFERENCES = """
    SELECT table(f.conrelid), table(f.confrelid), names(f.conrelid, f.conkey), names(f.confrelid, f.confkey)
    FROM pg_constraint f JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
    WHERE f.contype = 'f' AND f.conparentid = 0
    ORDER BY f.conrelid, a.attnotnull DESC, f.conkey"""

_NAMES = (
    "ARRAY(SELECT attname::text FROM unnest({1}) WITH ORDINALITY AS k(n, i)"
    " JOIN pg_attribute ON attrelid = {0} AND attnum = k.n ORDER BY k.i)"
)


class Owner(NamedTuple):
    """Who owns a table, and whether the table has row-level security."""

    role: str
    superuser: bool
    secured: bool


_TABLE = (
    "(SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.oid = {0})"
)


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """What the source says of itself. Keeps the protocol `Facts`."""

    wal_level: str
    role: str
    almighty: bool
    database: str
    owners: dict[int, Owner]
    references: tuple[Reference, ...]

    @property
    def superuser(self) -> str | None:
        return self.role if self.almighty else None

    def grants(
        self, relations: Sequence[Relation], role: str | None, syncs: Sequence[str]
    ) -> Iterator[str]:
        """None of it a superuser's rights."""
        to = _name("cdc" if self.almighty or role is None else role)
        if self.wal_level == "logical":
            yield "-- wal_level is logical already"
        else:
            yield f"ALTER SYSTEM SET wal_level = logical;   -- is {self.wal_level}; needs a restart"
        if self.almighty:
            yield f"-- {self.role} is a superuser and needs no grant; a role of its own is safer:"
        yield f"CREATE ROLE {to} LOGIN REPLICATION PASSWORD '...';   -- or ALTER ROLE, if it is there"
        yield f"GRANT CREATE ON DATABASE {_name(self.database)} TO {to};   -- to make the publication"
        for schema in _schemas(relations):
            yield f"GRANT USAGE ON SCHEMA {_name(schema)} TO {to};"
        yield f"GRANT SELECT ON {_tables(relations)} TO {to};"
        owners = {self.owners[r.ident] for r in relations if r.ident in self.owners}
        for owner in sorted({o.role for o in owners if not o.superuser} - {to.strip('"')}):
            yield f"GRANT {_name(owner)} TO {to};   -- only a table's owner can publish it"
        if any(o.superuser for o in owners):
            yield "-- only a table's owner can publish it, and a superuser's rights are not for a daemon:"
            for name in map(slot_name, syncs):
                tables = f"TABLE {_tables(relations)} WITH (publish_via_partition_root = true)"
                yield f"CREATE PUBLICATION {_name(name)} FOR {tables};"
                yield f"ALTER PUBLICATION {_name(name)} OWNER TO {to};"
        if any(o.secured for o in owners):
            yield f"ALTER ROLE {to} BYPASSRLS;   -- some tables have row-level security"


def read_facts(url: str, password: str | None) -> PostgresFacts:
    with translating(), connect(source_conninfo(url, password, "cdc init")) as db:
        server = db.execute(_SERVER).fetchone() or ("?", "?", False, "?")
        owners = {oid: Owner(*owner) for oid, *owner in db.execute(_OWNERS)}
        query = _REFERENCES.replace(
            "names(f.conrelid, f.conkey)", _NAMES.format("f.conrelid", "f.conkey")
        ).replace("names(f.confrelid, f.confkey)", _NAMES.format("f.confrelid", "f.confkey"))
        for side in ("conrelid", "confrelid"):
            query = query.replace(f"table(f.{side})", _TABLE.format(f"f.{side}"))
        references = tuple(
            Reference(c, p, tuple(cc), tuple(pc)) for c, p, cc, pc in db.execute(query)
        )
    level, role, superuser, database = server
    return PostgresFacts(level, role, superuser, database, owners, references)


def target_grants(
    relations: Sequence[Relation], role: str | None, database: str, superuser: str | None
) -> Iterator[str]:
    """The statements that a role for a PostgreSQL target needs."""
    to = _name("cdc" if role in (None, "postgres", superuser) else role or "")
    yield f"CREATE ROLE {to} LOGIN PASSWORD '...';   -- or ALTER ROLE, if it is there"
    name = _name(database or "postgres")
    yield f"GRANT CREATE, TEMPORARY ON DATABASE {name} TO {to};   -- schema cdc: the checkpoint"
    for schema in sorted({place(r)[0] for r in relations}):
        yield f"GRANT USAGE, CREATE ON SCHEMA {_name(schema)} TO {to};   -- tables that are missing"
    functions = ", ".join(f"{name}({arguments})" for name, arguments in FUNCTIONS.items())
    yield f"GRANT EXECUTE ON FUNCTION {functions} TO {to};   -- marks the sync's own writes"
    yield "-- for each table that is there already:"
    tables = ", ".join(sql.Identifier(*place(r)).as_string() for r in relations)
    yield f"-- GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {tables} TO {to};"


def _schemas(relations: Sequence[Relation]) -> list[str]:
    return sorted({r.schema for r in relations})


def _tables(relations: Sequence[Relation]) -> str:
    return ", ".join(sql.Identifier(r.schema, r.name).as_string() for r in relations)


def _name(name: str) -> str:
    return sql.Identifier(name).as_string()
