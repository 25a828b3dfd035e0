"""Which tables a PostgreSQL source has, what identifies their rows, and which cannot be synced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from appliers.errors import PermanentError
from appliers.images import Format
from appliers.relation import Relation
from cdc.sources.postgres.connection import Connection, translating
from cdc.sources.postgres.pgoutput import Field
from cdc.sources.postgres.types import TypeCatalog
from cdc.sources.source import Catalog, Refused

_TABLES = """
    SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text,
           c.relispartition,
           ARRAY(SELECT p.relid::oid FROM pg_partition_ancestors(c.oid) AS p(relid) WHERE p.relid <> c.oid),
           current_setting('server_version_num')::int
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND n.nspname NOT IN ('information_schema', 'cdc') AND NOT starts_with(n.nspname, 'pg_')
      AND (%(only)s::oid IS NULL OR c.oid = %(only)s)
    ORDER BY n.nspname, c.relname"""

_COLUMNS = """
    SELECT attrelid, attnum, attname, atttypid, atttypmod, attnotnull, attgenerated::text
    FROM pg_attribute WHERE attrelid = ANY(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum"""

_INDEXES = """
    SELECT i.indrelid, i.indisprimary, i.indisreplident, i.indimmediate,
           (i.indkey::int2[])[0:i.indnkeyatts - 1]
    FROM pg_index i
    WHERE i.indrelid = ANY(%s) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    ORDER BY i.indrelid, i.indisprimary DESC, i.indexrelid"""

_LEAVES = """
    SELECT r.root, c.relreplident::text, c.relkind::text, c.relpersistence::text,
           (SELECT array_agg(a.attname) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
              AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
            WHERE i.indrelid = c.oid AND i.indimmediate AND i.indisvalid
              AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END), c.relname
    FROM unnest(%s::oid[]) AS r(root), pg_partition_tree(r.root) p JOIN pg_class c ON c.oid = p.relid
    WHERE p.isleaf AND c.relkind <> 'p' ORDER BY r.root, c.oid"""

IDENTITIES = {"d": "DEFAULT", "f": "FULL", "i": "USING INDEX", "n": "NOTHING"}
ADD_KEY = "add a primary key, or a unique index on NOT NULL columns and ALTER TABLE {} REPLICA IDENTITY USING INDEX …"


@dataclass
class Table:
    """A table's catalogue rows."""

    oid: int
    schema: str
    name: str
    kind: str
    persistence: str
    identity: str
    is_partition: bool
    ancestors: list[int]
    version: int
    """The server's."""
    columns: list[tuple[Any, ...]] = field(default_factory=list)
    indexes: list[tuple[Any, ...]] = field(default_factory=list)
    leaves: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def table(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        return sql.Identifier(self.schema, self.name).as_string()

    def key_names(self) -> list[str] | None:
        """What identifies a row in the log: the identity index; with FULL, the primary key or else
        any unique index on NOT NULL columns.

        A deferrable index is none: inside a transaction two rows may have one key. Nor is one with
        generated columns, which the log does not have."""
        names = {c[1]: c[2] for c in self.columns if not c[6]}
        not_null = {c[1] for c in self.columns if c[5]}
        for _, primary, replident, immediate, attnums in self.indexes:
            usable = {
                "d": primary,
                "i": replident,
                "f": all(a in not_null for a in attnums),
            }.get(self.identity, False)
            if usable and immediate and all(a in names for a in attnums):
                # An index may have a column twice.
                return list(dict.fromkeys(names[a] for a in attnums))
        return None

    def refusal(self) -> Refused | None:
        """Why this table cannot be synced, if it cannot."""
        quoted = self.quoted
        if self.kind not in "rp":
            kind = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}[self.kind]
            return Refused(
                self.table,
                f"is {kind}: its changes are not in the log",
                "sync the tables behind it",
            )
        if self.persistence != "p":
            return Refused(
                self.table,
                "is unlogged: its changes are not in the log",
                f"ALTER TABLE {quoted} SET LOGGED;",
            )
        if self.identity == "n":
            return Refused(
                self.table,
                "has REPLICA IDENTITY NOTHING: the log does not say which row changed",
                f"ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT;",
            )
        key = self.key_names()
        if key is None:
            return Refused(
                self.table,
                "has no usable key: no row can be told from another",
                ADD_KEY.format(quoted),
            )
        if self.identity == "f" and self.version >= 180000 and any(c[6] for c in self.columns):
            # publicationcmds.c, pub_contains_invalid_column.
            return Refused(
                self.table,
                "has generated columns and REPLICA IDENTITY FULL: once published, PostgreSQL refuses its UPDATEs",
                f"ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT; -- with a primary key",
            )
        if self.kind == "p":
            return self._refused_leaves(key)
        return None

    def _refused_leaves(self, key: list[str]) -> Refused | None:
        """A partition's own identity decides what is logged, and ALTER TABLE … REPLICA IDENTITY on the
        root does not reach it."""
        for _, identity, kind, persistence, leaf_key, name in self.leaves:
            if kind == "f" or persistence != "p":
                what = "foreign" if kind == "f" else "unlogged"
                return Refused(
                    self.table,
                    f"has a {what} partition, {name}: its changes are not in the log",
                    f"ALTER TABLE {self.quoted} DETACH PARTITION {name}; -- or sync the others by name",
                )
            if identity != self.identity and not (self.identity == "d" and identity == "f"):
                return Refused(
                    self.table,
                    f"has a partition, {name}, with replica identity {IDENTITIES[identity]},"
                    f" expected {IDENTITIES[self.identity]} as the table itself has",
                    f"ALTER TABLE {name} REPLICA IDENTITY {IDENTITIES[self.identity]};",
                )
            if identity != "f" and set(leaf_key or ()) != set(key):
                return Refused(
                    self.table,
                    f"has a partition, {name}, with another key: expected {', '.join(key)},"
                    f" got {', '.join(sorted(leaf_key or ())) or 'none'}",
                    ADD_KEY.format(self.quoted),
                )
        return None


def load_tables(db: Connection, only: int | None = None) -> list[Table]:
    """Every table of the database, or one, with what decides whether it can be synced."""
    with translating(), db.transaction():
        tables = {r[0]: Table(*r) for r in db.execute(_TABLES, {"only": only})}
        oids = list(tables)
        for row in db.execute(_COLUMNS, (oids,)):
            tables[row[0]].columns.append(row)
        for row in db.execute(_INDEXES, (oids,)):
            tables[row[0]].indexes.append(row)
        for row in db.execute(_LEAVES, ([o for o, t in tables.items() if t.kind == "p"],)):
            tables[row[0]].leaves.append(row)
    return list(tables.values())


def relation_of(db: Connection, types: TypeCatalog, table: Table) -> Relation:
    """The relation of a table whose `refusal` is None, with images as pgoutput prints them in text."""
    kept = [c for c in table.columns if not c[6]]
    key = table.key_names() or []
    fields = [Field(c[2], c[3], c[4], identity=False) for c in kept]
    types.load(db, fields)
    columns = types.columns(fields, [not c[5] for c in kept])
    names = [c[2] for c in kept]
    return Relation(
        schema=table.schema,
        name=table.name,
        columns=columns,
        key_columns=tuple(names.index(k) for k in key),
        format=Format.PGOUTPUT_TEXT,
        whole_before=table.identity == "f",
        ident=table.oid,
    )


def select(tables: Sequence[Table], patterns: Sequence[str]) -> tuple[list[Table], list[Refused]]:
    """The tables that patterns stand for. Raises PermanentError for a named table that is not there
    or cannot be synced; what only a wildcard covers is refused by name."""
    chosen: dict[int, Table] = {}
    refused: dict[int, Refused] = {}
    for pattern in patterns:
        wildcard = pattern == "*" or pattern.endswith(".*")
        matches = _wild(tables, pattern) if wildcard else [_named(tables, pattern)]
        for table in matches:
            refusal = table.refusal()
            if refusal is None:
                chosen[table.oid] = table
            elif wildcard:
                refused[table.oid] = refusal
            else:
                raise PermanentError(f"table {refusal.table} {refusal.reason}", refusal.remedy)
    _require_names(chosen.values())
    for table in chosen.values():
        above = [chosen[a].table for a in table.ancestors if a in chosen]
        if above:
            raise PermanentError(
                f"table {table.table} is a partition of {above[0]}, which is synced too: its changes come as"
                " those of the latter",
                "name one of them in `tables`",
            )
    return list(chosen.values()), list(refused.values())


def _require_names(tables: Iterable[Table]) -> None:
    """A name with a dot in it can make two tables one in everything that goes by `schema.name`."""
    known: dict[str, Table] = {}
    for table in tables:
        other = known.setdefault(table.table, table)
        if other is not table:
            raise PermanentError(
                f"{other.quoted} and {table.quoted} would both be table {table.table} of the sync",
                "rename one of them, or name another schema's tables in `tables`",
            )


def _wild(tables: Sequence[Table], pattern: str) -> list[Table]:
    """Partitions come through their root; views are no tables to a wildcard."""
    schema = None if pattern == "*" else pattern[:-2]
    return [
        t
        for t in tables
        if (schema is None or t.schema == schema) and t.kind in "rp" and not t.is_partition
    ]


def _named(tables: Sequence[Table], pattern: str) -> Table:
    by_name: dict[str, list[Table]] = defaultdict(list)
    for t in tables:
        by_name[t.table].append(t)
        by_name[t.name].append(t)
    found = by_name.get(pattern, [])
    if len(found) > 1:
        found = [t for t in found if t.schema == "public"] or found
    if not found:
        raise PermanentError(
            f"table {pattern} does not exist on the source, or its role may not see it",
            "compare `tables` in the configuration with the source's tables",
        )
    if len(found) > 1:
        raise PermanentError(
            f"table {pattern} exists in several schemas: {', '.join(t.table for t in found)}",
            "write it as schema.table",
        )
    return found[0]


def relation_now(db: Connection, types: TypeCatalog, oid: int) -> Relation | None:
    """The relation of a table as it is now, under whatever name; None if it was dropped."""
    tables = load_tables(db, oid)
    return relation_of(db, types, tables[0]) if tables else None


def catalog_of(db: Connection, types: TypeCatalog, patterns: Sequence[str]) -> Catalog:
    chosen, refused = select(load_tables(db), patterns)
    return Catalog(tuple(relation_of(db, types, t) for t in chosen), tuple(refused))
