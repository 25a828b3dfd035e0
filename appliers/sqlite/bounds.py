"""Numbers of a MySQL source that SQLite's integers, which end at 2^63, cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from appliers.relation import Relation
from appliers.sqlite.shape import Shape
from appliers.unrepresentable import Nulled, Unrepresentable, refusal

TOO_LARGE: Final = 2**63


class Bounds:
    """What becomes of an unsigned bigint in a column of numbers that was there already: one of a table
    that we made is text."""

    def __init__(
        self, relation: Relation, shape: Shape, policy: Unrepresentable, nulled: Nulled
    ) -> None:
        self._relation = relation
        self._shape = shape
        self._policy = policy
        self._nulled = nulled

    def of(self, index: int) -> Callable[[int], int | None]:
        """For the relation's column `index`: the number, or None under the policy that allows it; else
        it raises the policy's PermanentError."""
        return partial(self._bounded, index)

    def _bounded(self, index: int, number: int) -> int | None:
        if number < TOO_LARGE:
            return number
        relation = self._relation
        name = relation.columns[index].name
        said = (relation.table, name, "a number of 2^63 or more", "an INTEGER of SQLite")
        column = self._shape.column(name)
        fixed = index in relation.key_columns or (column is not None and column.not_null)
        if self._policy is not Unrepresentable.NULL or fixed:
            raise refusal(*said, self._policy)
        self._nulled.tell(*said)
        return None
