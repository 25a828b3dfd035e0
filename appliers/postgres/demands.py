"""Whether a table of the target can take the rows of a relation: PermanentError where not."""

from __future__ import annotations

from appliers.errors import PermanentError
from appliers.postgres import from_mysql, narrowing
from appliers.postgres.catalog import TargetColumn, TargetTable, UniqueIndex
from appliers.postgres.names import listed, quoted
from appliers.relation import Column, Relation
from appliers.unrepresentable import DEFAULT, Unrepresentable


def demand_columns(relation: Relation, target: TargetTable, policy: Unrepresentable) -> None:
    foreign = relation.dialect == "mysql"
    for column in relation.columns:
        there = target.columns.get(column.name)
        if there is None:
            made = from_mysql.created_type(column, policy) if foreign else column.type
            raise PermanentError(
                f"table {relation.table} on the target has no column {column.name} ({made})",
                f"ALTER TABLE {target.sql_name} ADD COLUMN {quoted(column.name)} {made};",
            )
        if there.generated and column.name in relation.key_names:
            raise PermanentError(
                f"table {relation.table}: key column {column.name} is generated on the target",
                f"ALTER TABLE {target.sql_name} ALTER COLUMN {quoted(column.name)} DROP EXPRESSION;",
            )
        if column.name in relation.key_names and folds_more(column, there):
            raise PermanentError(
                f"table {relation.table}: key column {column.name} ({there.declared}) takes unlike texts for"
                " equal on the target, so that two rows of the source would be one there",
                f"ALTER TABLE {target.sql_name} ALTER COLUMN {quoted(column.name)} TYPE text"
                ' COLLATE "default";',
            )
        if not there.generated:
            _demand_type(relation, target, column, there)


def _demand_type(
    relation: Relation, target: TargetTable, column: Column, there: TargetColumn
) -> None:
    foreign = relation.dialect == "mysql"
    look = from_mysql.change_of if foreign else narrowing.change_of
    change = look(column, there.type.element or there.type.name, there.declared)
    if change is not None:
        needed = from_mysql.created_type(column, DEFAULT) if foreign else column.type
        raise PermanentError(
            f"table {relation.table}: column {column.name} is {column.type} on the source and"
            f" {there.declared} on the target, which {change} without an error",
            f"ALTER TABLE {target.sql_name} ALTER COLUMN {quoted(column.name)} TYPE {needed};",
        )


def demand_key(relation: Relation, target: TargetTable) -> UniqueIndex:
    key = frozenset(relation.key_names)
    for index in target.uniques:
        if index.operator_of.keys() == key and index.predicate is None:
            return index
    raise PermanentError(
        f"table {relation.table} on the target has no unique index on its key ({', '.join(relation.key_names)})",
        f"CREATE UNIQUE INDEX ON {target.sql_name} ({listed(relation.key_names)});",
    )


def folds_more(column: Column, there: TargetColumn) -> bool:
    """Whether the target takes texts for one value that are two for the source."""
    return there.folds and not column.folds
