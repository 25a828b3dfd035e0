"""Whether a table of the target can take the rows of a relation."""

from __future__ import annotations

from appliers.errors import PermanentError
from appliers.mysql.catalog import TargetColumn, TargetTable, UniqueIndex
from appliers.mysql.names import folded, listed, quoted
from appliers.relation import Relation

ENGINE = "InnoDB"
"""Rows and checkpoint must be one transaction: of what the servers ship, InnoDB's alone are."""


def demand_key_columns(relation: Relation) -> None:
    """Raises PermanentError for a relation that no table here could hold."""
    if not relation.key_columns:
        raise PermanentError(
            f"table {relation.table} has no key, by which its rows could be found on the target",
            f"ALTER TABLE {relation.table} ADD PRIMARY KEY (…) on the source",
        )
    seen: set[str] = set()
    for column in relation.columns:
        if folded(column.name) in seen:
            raise PermanentError(
                f"table {relation.table} has two columns {column.name}: MySQL does not tell upper from"
                " lower case",
                "rename one of them on the source, or leave the table out of the sync",
            )
        seen.add(folded(column.name))
        if folded(column.name) == "cdc n":
            raise PermanentError(
                f"table {relation.table}: column {column.name} cannot be kept here: the name is the sync's own",
                "rename it on the source, or leave the table out of the sync's `tables`",
            )


def demand_engine(relation: Relation, target: TargetTable) -> None:
    if target.engine.lower() != ENGINE.lower():
        what = f"uses the engine {target.engine}" if target.engine else "is a view"
        raise PermanentError(
            f"table {relation.table} on the target {what}: its rows cannot be written in the"
            " transaction of the checkpoint",
            f"ALTER TABLE {target.sql_name} ENGINE = {ENGINE};"
            if target.engine
            else "name the table behind it in the sync's `map`, or drop the view",
        )


def demand_columns(
    relation: Relation, target: TargetTable, declared: list[str]
) -> list[TargetColumn]:
    """The target's columns of the relation's, in their order. `declared` are the types that we would
    create."""
    found: list[TargetColumn] = []
    for column, type_name in zip(relation.columns, declared, strict=True):
        there = target.column(column.name)
        if there is None:
            raise PermanentError(
                f"table {relation.table} on the target has no column {column.name} ({column.type})",
                f"ALTER TABLE {target.sql_name} ADD COLUMN {quoted(column.name)} {type_name};",
            )
        if there.generated and column.name in relation.key_names:
            raise PermanentError(
                f"table {relation.table}: key column {column.name} is generated on the target",
                f"ALTER TABLE {target.sql_name} MODIFY COLUMN {quoted(column.name)}"
                f" {there.column_type} NOT NULL;",
            )
        found.append(there)
    ours = {folded(c.name) for c in relation.columns}
    for name, there in target.columns.items():
        if name not in ours and not there.has_default and not there.generated:
            raise PermanentError(
                f"table {relation.table} on the target: column {there.name} is NOT NULL, has no default,"
                " and the source has no such column",
                f"ALTER TABLE {target.sql_name} MODIFY COLUMN {quoted(there.name)}"
                f" {there.column_type} NULL;",
            )
    return found


def demand_key(relation: Relation, target: TargetTable) -> UniqueIndex:
    """The unique index by which rows are found."""
    key = {folded(n) for n in relation.key_names}
    for index in target.uniques:
        names = index.plain
        if names is not None and {folded(n) for n in names} == key and index.usable:
            return index
    raise PermanentError(
        f"table {relation.table} on the target has no unique index on its key"
        f" ({', '.join(relation.key_names)})",
        f"ALTER TABLE {target.sql_name} ADD UNIQUE INDEX ({listed(relation.key_names)});",
    )
