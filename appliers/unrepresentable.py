"""What becomes of a value that a target cannot hold: the policy of a sync, and its error.

NaN in MySQL, a zero date in PostgreSQL: no engine holds every value of every other. Which values
those are stands in docs/types.md; none is ever changed in silence.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Final

from appliers.errors import PermanentError

log = logging.getLogger(__name__)


class Unrepresentable(StrEnum):
    """A sync's `on_unrepresentable`.

    ERROR: the sync stops, with a `refusal`.
    NULL: NULL is written instead, told once per column; a column of the key or one that is NOT NULL
    on the target stays an error.
    TEXT: in tables that we create, a column whose type has such values is made text and holds what
    the source prints; in a column that is there already and is no text it stays an error.
    """

    ERROR = "error"
    NULL = "null"
    TEXT = "text"


DEFAULT: Final = Unrepresentable.ERROR


def refusal(
    table: str, column: str, what: str, held_in: str, policy: Unrepresentable
) -> PermanentError:
    """The error of a value that cannot be kept. `what` is its kind ("NaN", "a date before year 0"),
    never the value; `held_in` is the target's type."""
    if policy is Unrepresentable.NULL:
        hint = (
            f"NULL cannot stand for it in column {column}, which is NOT NULL on the target or part of"
            " the key: change the value on the source, or the column's type on the target"
        )
    elif policy is Unrepresentable.TEXT:
        hint = (
            f"make column {column} a text type on the target: text holds what the source prints;"
            " or change the value on the source"
        )
    else:
        hint = (
            f"change the value on the source, make column {column} a text type on the target, or set"
            ' on_unrepresentable = "null", or "text" before the table is created'
        )
    return PermanentError(
        f"table {table}: column {column}: {what} cannot be kept in {held_in}", hint
    )


class Nulled:
    """Tells, once per column of a table, that values became NULL under the policy `null`.

    One per applier: copies in parallel may tell the same column once each.
    """

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def tell(self, table: str, column: str, what: str, held_in: str) -> None:
        """Cheap enough to be called for each such value."""
        if (table, column) not in self._told:
            self._told.add((table, column))
            fields = {"table": table, "column": column, "value": what, "type": held_in}
            log.warning("value-becomes-null", extra={"fields": fields})
