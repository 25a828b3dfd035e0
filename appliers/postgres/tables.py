"""The target's tables that a session writes into: found, created, kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import psycopg

from appliers.batch import Chunk
from appliers.errors import FormatError, TableGoneError
from appliers.postgres.catalog import TargetTable, find_table, read_table
from appliers.postgres.connection import Session
from appliers.postgres.names import listed, place, place_of, quoted
from appliers.postgres.staging import Staging
from appliers.postgres.table import Table
from appliers.postgres.types import created_target_types, created_types, equal_in_binary
from appliers.relation import Relation
from appliers.unrepresentable import Nulled, Unrepresentable


class Tables:
    """Tables by relation. A relation that was not prepared is, when it is first asked for."""

    def __init__(self, session: Session, staging: Staging, policy: Unrepresentable) -> None:
        self._session = session
        self._policy = policy
        self._nulled = Nulled()
        self._staging = staging
        self._tables: dict[Relation, Table] = {}
        self._ranks: dict[int, int] | None = None
        self.deferrable = False
        """Whether a table has constraints that a transaction may defer."""

    def of(self, relation: Relation) -> Table:
        return self._tables.get(relation) or self.prepare(relation, create=False)

    def has(self, relation: Relation) -> bool:
        return find_table(self._session, *place(relation)) is not None

    def prepare(self, relation: Relation, *, create: bool) -> Table:
        """Looks at the target's table, and with `create` makes it where it is missing."""
        target = read_table(self._session, *place(relation))
        if target is None:
            if not create:
                raise TableGoneError(
                    f"table {'.'.join(map(quoted, place(relation)))} is not on the target any more"
                )
            self._create(relation)
            target = read_table(self._session, *place(relation))
            assert target is not None, "the table was created a moment ago"
        if relation.format.binary and not _fit_in_binary(relation, target):
            raise FormatError(
                f"table {relation.table}: its binary rows do not fit the columns on the target",
                "it is tried again with rows in text form",
            )
        table = self._tables[relation] = Table(relation, target, self._policy, self._nulled)
        self.deferrable |= target.deferrable
        self._ranks = None
        return table

    def refresh(self, relations: Iterable[Relation]) -> None:
        """Reads the catalog again: after a constraint was violated, it may be one that is new."""
        for relation in relations:
            known = self._tables.pop(relation, None)
            if known is not None:
                self._staging.forget(known)
                self.prepare(relation, create=False)

    def rank(self, table: Table) -> int:
        """Lower for a table that others refer to by foreign keys. Tables that refer to each other in a
        circle come in any order."""
        if self._ranks is None:
            self._ranks = _ranks({t.target.oid: t.target.parents for t in self._tables.values()})
        return self._ranks[table.target.oid]

    def brought(self, relation: Relation, constraint: str, synced: Iterable[str]) -> bool:
        """Whether the rows that a foreign key of the table refers to are those of the source's tables
        `synced`. True for a key that is another table's."""
        parents = self._session.rows(
            "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_constraint AS k"
            " JOIN pg_catalog.pg_class AS c ON c.oid = k.confrelid"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE k.contype = 'f' AND k.conrelid = $1 AND k.conname = $2",
            (self.of(relation).target.oid, constraint),
        )
        names = (t.partition(".") for t in synced)
        return {tuple(p) for p in parents} <= {place_of(relation, s, name) for s, _, name in names}

    def defer_references(self) -> None:
        """Foreign keys that may wait do so until the open transaction ends. No unique constraint: a row
        that is in the way has to be found at once."""
        names = self._session.value(
            "SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('%I.%I', n.nspname, k.conname), ', ')"
            " FROM pg_catalog.pg_constraint AS k"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = k.connamespace"
            " WHERE k.contype = 'f' AND k.condeferrable"
        )
        if names:
            self._session.execute(f"SET CONSTRAINTS {names} DEFERRED")

    def parents_first(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """By the foreign keys that do not wait."""
        parents: dict[int, set[int]] = {self.of(c.relation).target.oid: set() for c in chunks}
        for child, parent in self._session.rows(
            "SELECT conrelid::int8, confrelid::int8 FROM pg_catalog.pg_constraint"
            " WHERE contype = 'f' AND NOT condeferrable"
        ):
            if child in parents:
                parents[child].add(parent)
        ranks = _ranks(parents)
        return sorted(chunks, key=lambda c: ranks[self.of(c.relation).target.oid])

    def accepts_binary(self, relation: Relation) -> bool:
        """Whether every column's binary form means the same to the target's table, or to the one that
        would be made."""
        if not _is_portable(relation):
            return False
        target = read_table(self._session, *place(relation))
        if target is not None:
            return _fit_in_binary(relation, target)
        types = created_target_types(self._session, relation, self._policy)
        return all(map(equal_in_binary, relation.columns, types))

    def is_empty(self, relation: Relation) -> bool:
        target = read_table(self._session, *place(relation))
        if target is None:
            return True
        return self._session.value(f"SELECT NOT EXISTS (SELECT FROM {target.only})") is True

    def _create(self, relation: Relation) -> None:
        session = self._session
        schema, table = place(relation)
        with suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateSchema):
            # Another session may make the same schema at the same moment.
            if not session.rows(
                "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1", (schema,)
            ):
                session.execute(f"CREATE SCHEMA {quoted(schema)}")
        key = relation.key_names
        types = created_types(session, relation, self._policy)
        columns = [
            f"{quoted(c.name)} {declared}{' NOT NULL' if c.name in key else ''}"
            for c, declared in zip(relation.columns, types, strict=True)
        ]
        name = f"{quoted(schema)}.{quoted(table)}"
        with suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable):
            session.execute(
                f"CREATE TABLE {name} ({', '.join(columns)}, PRIMARY KEY ({listed(key)}))"
            )


def _is_portable(relation: Relation) -> bool:
    return relation.dialect == "postgres" and all(c.portable for c in relation.columns)


def _fit_in_binary(relation: Relation, target: TargetTable) -> bool:
    found = [target.columns.get(c.name) for c in relation.columns]
    return _is_portable(relation) and all(
        own is not None and equal_in_binary(column, own.type)
        for column, own in zip(relation.columns, found, strict=True)
    )


def _ranks(parents: dict[int, set[int]]) -> dict[int, int]:
    """Parents before children: each table after those that it refers to, depth first."""
    ranks: dict[int, int] = {}
    entered: set[int] = set()
    for start in parents:
        path = [(start, False)]
        while path:
            oid, done = path.pop()
            if done:
                ranks.setdefault(oid, len(ranks))
            elif oid in parents and oid not in entered:
                entered.add(oid)
                path.append((oid, True))
                path += [(p, False) for p in parents[oid]]
    return ranks
