"""Which types the columns of created tables get, and whose binary form a target's column can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliers.postgres import from_mysql
from appliers.postgres.connection import Session
from appliers.postgres.names import quoted
from appliers.relation import Column, Relation
from appliers.unrepresentable import Unrepresentable

TEXT: Final = "pg_catalog.text"

TEXTS: Final = frozenset(["text", "varchar", "bpchar", "citext"])
"""Types whose binary form is the text itself. `name` is not among them as a target: its text input cuts
what is too long, its binary input refuses it."""

NOT_READ_BACK: Final = frozenset(["int2vector", "oidvector"])
"""Types whose binary input refuses what their binary output makes of an empty value (int2vectorrecv)."""

BYTEWISE: Final = frozenset(
    "int2 int4 int8 text varchar uuid bytea bool date timestamp timestamptz oid inet name".split()
)
"""Types of which equal values have equal bytes, so that an upsert need not write the key again. (A text
column can have a collation that knows no case; then the key's own change comes as a change of key.)"""

SORTED_CHEAPLY: Final = frozenset(
    "int2 int4 int8 oid numeric uuid date timestamp timestamptz".split()
)
"""Key types by which staged rows are sorted, so that index and table are walked in order: measured
on 300,000 rows, 14,000 random updates cost the server 4.4 µs each instead of 6.8. Texts are left
alone: comparing them under a language's rules costs more than that."""


PRINTED_ONLY: Final = frozenset(
    "pg_node_tree pg_ndistinct pg_dependencies pg_mcv_list gtsvector pg_brin_bloom_summary"
    " pg_brin_minmax_multi_summary".split()
)
"""Built-in types that the server prints but never reads: what is printed is kept as text."""

_TYPTYPES: Final = {
    "base": "b",
    "array": "b",
    "enum": "e",
    "composite": "c",
    "range": "r",
    "multirange": "m",
}


@dataclass(frozen=True, slots=True)
class TargetType:
    """A type on the target, domains resolved."""

    oid: int
    name: str
    kind: str
    """pg_type.typtype: `b`ase, `e`num, `c`omposite, `r`ange, `m`ultirange."""
    element: str | None
    """The element's type name, for arrays."""


def equal_in_binary(column: Column, target: TargetType) -> bool:
    """Whether the binary form of the source's column means the same to the target's type."""
    if not column.portable or column.base in NOT_READ_BACK:
        return False
    if column.kind == "array":
        return target.element == column.base
    if target.element is not None:
        return False
    texts = column.kind == "enum" or column.base in TEXTS
    if texts and (target.kind == "e" or target.name in TEXTS):
        # The binary form of an enum's value is its label.
        return True
    return column.kind != "enum" and target.kind != "e" and column.base == target.name


def types_of(session: Session, oids: Sequence[int]) -> dict[int, TargetType]:
    """What the target says of types, by the number that was asked for."""
    rows = session.rows(
        """
        WITH RECURSIVE resolved (asked, oid, typtype, base) AS (
            SELECT oid, oid, typtype, typbasetype FROM pg_catalog.pg_type WHERE oid = ANY ($1::oid[])
            UNION ALL
            SELECT r.asked, t.oid, t.typtype, t.typbasetype
            FROM resolved AS r JOIN pg_catalog.pg_type AS t ON t.oid = r.base WHERE r.typtype = 'd')
        SELECT r.asked::int8, t.oid::int8, t.typname::text, t.typtype::text, e.typname::text
        FROM resolved AS r JOIN pg_catalog.pg_type AS t USING (oid)
        LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND t.typlen = -1 AND e.typarray = t.oid
        WHERE r.typtype <> 'd'
        """,
        (list(oids),),
    )
    return {asked: TargetType(oid, name, kind, element) for asked, oid, name, kind, element in rows}


def created_types(session: Session, relation: Relation, policy: Unrepresentable) -> list[str]:
    """The types of the columns of a table that is to be created, in the target's DDL.

    The source's own type where the target has it; of a domain, else, the base type; of everything
    else text, which holds what the source prints. MySQL's types have a table of their own.
    """
    if relation.dialect != "postgres":
        return [from_mysql.created_type(c, policy) for c in relation.columns]
    wanted = [(c, (c.type, _base(c))) for c in relation.columns]
    numbers = _numbers(session, {name for _, names in wanted for name in names})
    found = types_of(session, list(numbers.values()))
    return [
        next((n for n in names if n in numbers and _is_alike(c, found[numbers[n]])), TEXT)
        for c, names in wanted
    ]


def created_target_types(
    session: Session, relation: Relation, policy: Unrepresentable
) -> list[TargetType]:
    """The same, as the target sees them."""
    names = created_types(session, relation, policy)
    numbers = _numbers(session, set(names))
    found = types_of(session, list(numbers.values()))
    return [found[numbers[name]] for name in names]


def _numbers(session: Session, names: set[str]) -> dict[str, int]:
    """The numbers of those types that the target has. A table's row type is none: the name may stand
    for something else on the source, and the type changes whenever the table does."""
    rows = session.rows(
        "SELECT name, t.oid::int8 FROM pg_catalog.unnest($1::text[]) AS name"
        " JOIN pg_catalog.pg_type AS t ON t.oid = pg_catalog.to_regtype(name)"
        " LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND e.typarray = t.oid"
        " LEFT JOIN pg_catalog.pg_class AS c ON c.oid = coalesce(e.typrelid, t.typrelid)"
        " WHERE c.relkind IS NULL OR c.relkind = 'c'",
        (list(names),),
    )
    return dict(rows)


def _is_alike(column: Column, target: TargetType) -> bool:
    """Whether a type that has the name of a column's is of the same kind."""
    return (
        target.kind == _TYPTYPES[column.kind]
        and (target.element is not None) == (column.kind == "array")
        and target.name not in PRINTED_ONLY
    )


def _base(column: Column) -> str:
    if column.kind in ("enum", "composite"):
        return TEXT
    return quoted(column.base) + ("[]" if column.kind == "array" else "")
