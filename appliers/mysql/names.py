"""Names in SQL, and what the source's tables are called here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from appliers.errors import PermanentError
from appliers.relation import Relation

LONGEST: Final = 64
"""Characters of a table's name (MySQL manual, "Identifier Length Limits")."""


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever it holds."""
    return "`" + name.replace("`", "``") + "`"


def listed(names: Iterable[str]) -> str:
    """Names as a list of columns."""
    return ", ".join(map(quoted, names))


def folded(name: str) -> str:
    """A name as the server compares names of columns: without regard to case."""
    return name.lower()


def name_of(schema: str, name: str, home: str) -> str:
    """What the source's table `schema.name` is called in the database of the target's URL.

    A sync writes into that one database alone. What stands in the source's `home` (PostgreSQL:
    `public`, MySQL: the database of its URL) keeps its name, everything else gets its schema before
    it: `sales.orders` is `sales_orders`. A database of the schema's name would be another one than
    the configuration says, which two syncs into two databases of one server could share.
    """
    return name if schema == home else f"{schema}_{name}"


def target_name(relation: Relation) -> str:
    """`name_of`, or PermanentError where that name cannot be, or is ours."""
    name = name_of(relation.schema, relation.name, relation.home)
    if folded(name).startswith("cdc_"):
        raise PermanentError(
            f"table {relation.table} cannot be kept here: names that begin with cdc_ are the sync's own",
            "rename the table on the source, or leave it out of the sync's `tables`",
        )
    if not 0 < len(name) <= LONGEST or name.endswith(" ") or not _is_basic(name):
        raise PermanentError(
            f"table {relation.table} cannot be kept here: expected a name of 1 to {LONGEST} characters"
            f" of Unicode's first plane without a blank at its end, got {len(name)} characters",
            "rename the table on the source, or leave it out of the sync's `tables`",
        )
    return name


def _is_basic(name: str) -> bool:
    return all(0 < ord(c) <= 0xFFFF for c in name)
