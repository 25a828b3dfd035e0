"""Changes become customer deltas here, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import cast

from appliers.delta import Delta, Op, Run
from appliers.errors import PermanentError
from appliers.images import BINARY_KEY_TEXT
from appliers.relation import Relation, index_of
from cdc.config import Customer
from cdc.sources.source import Piece


class Deriver:
    """Makes deltas of one sync's changes. What a delta says of its customer is worked out once per
    relation (`shape`); per row only a tuple is made."""

    def __init__(self, customer: Customer | None) -> None:
        self._customer = customer

    def shape(self, relation: Relation) -> Relation:
        """The relation as deltas carry it: it knows which columns name the customer."""
        customer = self._customer
        if customer is None:
            return relation
        if _is(customer.table, relation):
            return replace(relation, customer_columns=relation.key_columns)
        for table, column in customer.related.items():
            if _is(table, relation):
                return replace(relation, customer_columns=_column(relation, column))
        return relation

    def deltas(self, piece: Piece) -> list[Delta | Run]:
        """The deltas of a piece's changes, in order."""
        new, inserts = tuple.__new__, Op.INSERTS
        return [new(Run if c[0] is inserts else Delta, c) for c in piece.runs]  # type: ignore[misc]

    def derive(self, piece: Piece) -> None:
        """Puts the deltas, tuples of the same fields, in the changes' place. The thread that reads does
        it: it has time while the other waits for the target, which stands still while that one works."""
        piece.runs = self.deltas(piece)  # type: ignore[assignment]


def deltas_of(pieces: Sequence[Piece]) -> list[Delta | Run]:
    """The deltas of pieces that `Deriver.derive` has been through, in order."""
    return cast("list[Delta | Run]", list(chain.from_iterable(p.runs for p in pieces)))


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
