"""Names in SQL."""

from __future__ import annotations

from collections.abc import Iterable

from appliers.relation import Relation


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def listed(names: Iterable[str]) -> str:
    """Names as a list of columns."""
    return ", ".join(map(quoted, names))


def place(relation: Relation) -> tuple[str, str]:
    """Schema and name of a relation's table here. PostgreSQL's schemas keep their names; of a source
    whose schemas are databases, the one in its URL is our `public`."""
    return place_of(relation, relation.schema, relation.name)


def place_of(relation: Relation, schema: str, name: str) -> tuple[str, str]:
    """The same for another table of the relation's source."""
    at_home = relation.dialect != "postgres" and schema == relation.home
    return "public" if at_home else schema, name
