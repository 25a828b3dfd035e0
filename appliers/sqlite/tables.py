"""The target's tables that an applier writes into: found, created, kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from appliers.errors import PermanentError, TableGoneError
from appliers.relation import Relation
from appliers.sqlite.bounds import Bounds
from appliers.sqlite.failures import named
from appliers.sqlite.shape import (
    create_sql,
    demand_name,
    duplicate_columns,
    folded,
    problems,
    quoted,
    read_shape,
    target_name,
)
from appliers.sqlite.target import Target
from appliers.unrepresentable import Nulled, Unrepresentable


class Tables:
    """Targets by relation. One that was not prepared is, when it is first asked for."""

    def __init__(
        self,
        file: Path,
        opened: Callable[[], sqlite3.Connection],
        policy: Unrepresentable,
        known: Callable[[], Iterable[str]],
    ) -> None:
        """`opened` gives the connection; `known` are the source's tables that the sync has here."""
        self._file = file
        self._opened = opened
        self._policy = policy
        self._known_by_state = known
        self._nulled = Nulled()
        self._targets: dict[Relation, Target] = {}
        self._known: set[str] = set()

    def take_from(self, other: Tables) -> None:
        """What another applier of the same sync has prepared."""
        self._targets = other._targets.copy()

    def of(self, relation: Relation) -> Target:
        return self._targets.get(relation) or self.prepare(relation, create=False)

    def has(self, relation: Relation) -> bool:
        with named(self._file):
            name = target_name(relation.table, relation.home)
            return read_shape(self._opened(), name) is not None

    def is_empty(self, relation: Relation) -> bool:
        db = self._opened()
        with named(self._file):
            shape = read_shape(db, target_name(relation.table, relation.home))
            if shape is None:
                return True
            return db.execute(f"SELECT 1 FROM {quoted(shape.name)} LIMIT 1").fetchone() is None

    def prepare(self, relation: Relation, *, create: bool) -> Target:
        """Looks at the table, and with `create` makes it where it is missing."""
        found = self._targets.get(relation)
        if found is None:
            found = self._targets[relation] = self._made(relation, create=create)
        return found

    def _made(self, relation: Relation, *, create: bool) -> Target:
        table = relation.table
        if not relation.key_columns:
            raise PermanentError(
                f"{table} has no key, by which SQLite could find its rows",
                f"ALTER TABLE {table} ADD PRIMARY KEY (…) on the source",
            )
        double = duplicate_columns(relation.columns)
        if double is not None:
            raise PermanentError(
                f"{table} has two columns {double}: SQLite does not tell upper from lower case",
                "rename one of them on the source, or leave the table out of the sync",
            )
        name = demand_name(relation)
        self._claim(name, relation)
        db = self._opened()
        with named(self._file):
            if create and read_shape(db, name) is None:
                db.execute(create_sql(relation, name))
            shape = read_shape(db, name)
        if shape is None:
            raise TableGoneError(f"table {name} is not in {self._file} any more")
        for problem in problems(relation, shape, self._file):
            if problem.fatal:
                raise PermanentError(problem.message, problem.remedy)
        return Target(relation, shape, Bounds(relation, shape, self._policy, self._nulled))

    def _claim(self, name: str, relation: Relation) -> None:
        """Two tables of the source never share one here: their rows would delete each other."""
        self._known = self._known or set(self._known_by_state())
        self._known.add(table := relation.table)
        for other in self._known:
            if other != table and folded(target_name(other, relation.home)) == folded(name):
                raise PermanentError(
                    f"{table} and {other} would both be table {name} in {self._file}",
                    "leave one of them out of the sync's `tables`, or rename it on the source",
                )
