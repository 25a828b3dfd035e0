"""What `cdc init` wants to know of a database beyond its tables: who refers to whom, and what it needs.

One module for each kind of database, by the scheme of its URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

from appliers.imports import imported
from appliers.relation import Relation

MODULES: Final = {
    "postgresql": "cdc.init_postgres",
    "postgres": "cdc.init_postgres",
    "mysql": "cdc.init_mysql",
    "mariadb": "cdc.init_mysql",
}
"""Databases that have users and grants."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key. Tables are called as relations call them: `schema.name`."""

    child: str
    parent: str
    child_columns: tuple[str, ...]
    parent_columns: tuple[str, ...]


class Facts(Protocol):
    """What a source says of itself."""

    @property
    def superuser(self) -> str | None:
        """Whom the URL connects as, if that may do everything: not who a daemon should be."""

    @property
    def references(self) -> Sequence[Reference]:
        """Of one table, those that cannot be NULL first: they are likelier to say whose a row is."""

    def grants(
        self, relations: Sequence[Relation], role: str | None, syncs: Sequence[str]
    ) -> Iterator[str]:
        """The statements that a role for the source needs, settings included, for syncs of these
        names. A line that begins with `--` is a remark; so is what stands behind one in a line."""


def read_facts(url: str, password: str | None) -> Facts:
    """Asks a source. Raises what its connection raises."""
    read = cast("Callable[[str, str | None], Facts]", _of(url, "read_facts"))
    return read(url, password)


def target_grants(
    url: str, relations: Sequence[Relation], role: str | None, database: str, superuser: str | None
) -> Iterator[str] | None:
    """The statements that a role for a target needs; None for a target without roles. `superuser` is
    a name that is not to be taken for one of a daemon's."""
    if url.partition(":")[0] not in MODULES:
        return None
    grants = cast(
        "Callable[[Sequence[Relation], str | None, str, str | None], Iterator[str]]",
        _of(url, "target_grants"),
    )
    return grants(relations, role, database, superuser)


def _of(url: str, name: str) -> object:
    return imported(f"{MODULES[url.partition(':')[0]]}:{name}")
