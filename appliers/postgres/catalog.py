"""What the target's catalog says of one table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from appliers.postgres.connection import Session
from appliers.postgres.names import quoted
from appliers.postgres.types import TargetType, types_of


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """A column of a table on the target."""

    name: str
    type_oid: int
    """As declared: a domain's own number."""
    type: TargetType
    declared: str
    generated: bool
    identity_always: bool
    not_null: bool
    folds: bool
    """Whether unlike texts are equal here: citext, a nondeterministic collation."""


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index; partial, deferrable and expression ones too."""

    name: str
    operator_of: dict[str, str]
    """The equality of each key column, qualified; empty where it has expressions."""
    needs: frozenset[str]
    """Every column that its expressions and its predicate may read."""
    expressions: tuple[str, ...]
    """Its key in SQL over the table's columns, unqualified."""
    operators: tuple[str, ...]
    """The equality of each, qualified."""
    predicate: str | None
    immediate: bool
    nulls_equal: bool


@dataclass(frozen=True, slots=True)
class Follower:
    """A foreign key that changes or deletes rows of another table with those it refers to."""

    name: str
    deletes: bool
    """Whether a delete does that."""
    following: str
    """FROM and WHERE for the rows that refer to a row of `"cdc t"`."""


@dataclass(slots=True)
class TargetTable:
    """A table on the target, as it is now."""

    oid: int
    sql_name: str
    partitioned: bool
    columns: dict[str, TargetColumn]
    uniques: list[UniqueIndex]
    parents: set[int] = field(default_factory=set)
    """Tables that it refers to by foreign keys."""
    referenced: bool = False
    """Whether other tables, or it itself, refer to it."""
    followers: list[Follower] = field(default_factory=list)
    deferrable: bool = False
    """Whether it has, or is referred to by, constraints that may be deferred."""

    @property
    def only(self) -> str:
        """The name for statements that must not reach tables that inherit from it."""
        return self.sql_name if self.partitioned else f"ONLY {self.sql_name}"


def find_table(session: Session, schema: str, name: str) -> tuple[int, bool] | None:
    """The table's oid, and whether it is partitioned; None where there is none. Something else of that
    name counts as none."""
    found = session.rows(
        "SELECT c.oid::int8, c.relkind = 'p' FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')",
        (schema, name),
    )
    return (found[0][0], found[0][1]) if found else None


def read_table(session: Session, schema: str, name: str) -> TargetTable | None:
    """The table, or None where there is none (see `find_table`)."""
    found = find_table(session, schema, name)
    if found is None:
        return None
    oid, partitioned = found
    columns = _columns(session, oid)
    table = TargetTable(
        oid, f"{quoted(schema)}.{quoted(name)}", partitioned, columns, _uniques(session, oid)
    )
    for child, parent, deferrable in session.rows(
        "SELECT conrelid::int8, confrelid::int8, condeferrable FROM pg_catalog.pg_constraint"
        " WHERE conrelid = $1 OR confrelid = $1",
        (oid,),
    ):
        table.deferrable |= deferrable
        if parent == oid:
            table.referenced = True
        elif child == oid and parent:
            table.parents.add(parent)
    if table.referenced:
        table.followers = [Follower(*row) for row in session.rows(_FOLLOWERS, (oid,))]
    return table


_FOLLOWERS: Final = """
    SELECT k.conname::text, k.confdeltype NOT IN ('a', 'r'),
           'FROM ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
           || ' AS "cdc c" WHERE ' || pg_catalog.string_agg('"cdc t".' || pg_catalog.quote_ident(p.attname)
           || ' OPERATOR(' || pg_catalog.quote_ident(s.nspname) || '.' || o.oprname || ') "cdc c".'
           || pg_catalog.quote_ident(a.attname), ' AND ')
    FROM pg_catalog.pg_constraint AS k
    JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL pg_catalog.generate_subscripts(k.conkey, 1) AS i
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[i]
    JOIN pg_catalog.pg_attribute AS p ON p.attrelid = k.confrelid AND p.attnum = k.confkey[i]
    JOIN pg_catalog.pg_operator AS o ON o.oid = k.conpfeqop[i]
    JOIN pg_catalog.pg_namespace AS s ON s.oid = o.oprnamespace
    WHERE k.contype = 'f' AND k.confrelid = $1
      AND (k.confdeltype NOT IN ('a', 'r') OR k.confupdtype NOT IN ('a', 'r'))
    GROUP BY k.oid, k.conname, k.confdeltype, n.nspname, c.relname ORDER BY k.conname"""


def _columns(session: Session, oid: int) -> dict[str, TargetColumn]:
    rows = session.rows(
        "SELECT attname::text, atttypid::int8, pg_catalog.format_type(atttypid, atttypmod),"
        " attgenerated <> '', attidentity = 'a', attnotnull, coalesce(NOT collisdeterministic, false)"
        " FROM pg_catalog.pg_attribute LEFT JOIN pg_catalog.pg_collation AS c ON c.oid = attcollation"
        " WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (oid,),
    )
    types = types_of(session, [r[1] for r in rows])
    return {
        name: TargetColumn(
            name,
            type_oid,
            types[type_oid],
            declared,
            generated,
            identity_always,
            not_null,
            loose or types[type_oid].name == "citext",
        )
        for name, type_oid, declared, generated, identity_always, not_null, loose in rows
    }


def _uniques(session: Session, oid: int) -> list[UniqueIndex]:
    rows = session.rows(
        """
        SELECT c.relname::text, i.indimmediate, pg_catalog.pg_get_expr(i.indpred, i.indrelid),
               i.indexprs IS NOT NULL,
               coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
               k.expressions, k.operators, k.columns,
               ARRAY(SELECT DISTINCT a.attname::text FROM pg_catalog.pg_depend AS d
                     JOIN pg_catalog.pg_attribute AS a
                       ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                     WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
                       AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = i.indrelid
                       AND d.refobjsubid > 0)
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
        JOIN pg_catalog.pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'
        CROSS JOIN LATERAL (
            SELECT pg_catalog.array_agg(pg_catalog.pg_get_indexdef(i.indexrelid, n, false) ORDER BY n),
                   pg_catalog.array_agg(pg_catalog.quote_ident(s.nspname) || '.' || o.oprname ORDER BY n),
                   pg_catalog.array_agg(a.attname::text ORDER BY n)
            FROM pg_catalog.generate_series(1, i.indnkeyatts::int) AS n
            JOIN pg_catalog.pg_opclass AS p ON p.oid = i.indclass[n - 1]
            JOIN pg_catalog.pg_amop AS e ON e.amopfamily = p.opcfamily AND e.amopstrategy = 3
             AND e.amoplefttype = p.opcintype AND e.amoprighttype = p.opcintype
            JOIN pg_catalog.pg_operator AS o ON o.oid = e.amopopr
            JOIN pg_catalog.pg_namespace AS s ON s.oid = o.oprnamespace
            LEFT JOIN pg_catalog.pg_attribute AS a
              ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1] AND a.attnum > 0
        ) AS k (expressions, operators, columns)
        WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND k.expressions IS NOT NULL
        ORDER BY NOT i.indisprimary, NOT i.indimmediate, c.relname
        """,
        (oid,),
    )
    return [
        UniqueIndex(
            name,
            {} if has_expressions else dict(zip(columns, operators, strict=True)),
            frozenset(needs) | frozenset(c for c in columns if c is not None),
            tuple(f"({e})" for e in expressions),
            tuple(operators),
            predicate,
            immediate,
            nulls_equal,
        )
        for name, immediate, predicate, has_expressions, nulls_equal, expressions, operators, columns, needs in rows
    ]
