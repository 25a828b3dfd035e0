"""What makes a source's deltas customer deltas: which columns name the customer."""

from __future__ import annotations

from dataclasses import replace

from appliers.errors import PermanentError
from appliers.images import BINARY_KEY_TEXT
from appliers.relation import Relation, index_of
from cdc.config import Customer
from cdc.sources.source import Shape


def shape_for(customer: Customer | None) -> Shape:
    """A function from a source's relation to the one that deltas carry: it knows which columns name the
    customer. So that is worked out once per relation, and nothing is done for it per row. The function
    raises PermanentError for a table that has no such column."""
    if customer is None:
        return lambda relation: relation

    def shape(relation: Relation) -> Relation:
        if _is(customer.table, relation):
            return replace(relation, customer_columns=relation.key_columns)
        for table, column in customer.related.items():
            if _is(table, relation):
                return replace(relation, customer_columns=_column(relation, column))
        return relation

    return shape


def customers_are_read(relation: Relation) -> bool:
    """Whether the customers' keys can be read from binary images."""
    return all(relation.columns[i].base in BINARY_KEY_TEXT for i in relation.customer_columns)


def _is(name: str, relation: Relation) -> bool:
    """Whether a name of the configuration means this table; a bare name means schema public, or the
    only schema that has it (see the catalogue of each source); of MySQL, the URL's database alone."""
    if relation.dialect == "mysql" and relation.schema != relation.home:
        return name == relation.table
    return name in (relation.table, relation.name)


def _column(relation: Relation, name: str) -> tuple[int, ...]:
    try:
        return index_of(relation.columns, [name])
    except KeyError:
        raise PermanentError(
            f"table {relation.table} has no column {name}, which `customer.related` names as its customer's key",
            f"its columns are {', '.join(c.name for c in relation.columns)}",
        ) from None
