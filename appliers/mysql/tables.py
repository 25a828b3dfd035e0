"""The target's tables that a session writes into: found, created, kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from appliers.errors import PermanentError, TableGoneError
from appliers.mysql.catalog import (
    ForeignKey,
    TargetTable,
    find_table,
    read_foreign_keys,
    read_table,
    read_tied_outside,
)
from appliers.mysql.demands import ENGINE, demand_key_columns
from appliers.mysql.names import folded, listed, name_of, quoted, target_name
from appliers.mysql.session import Session
from appliers.mysql.table import Table
from appliers.mysql.types import CHARACTERS, created_columns
from appliers.relation import Relation
from appliers.unrepresentable import Nulled, Unrepresentable


class Tables:
    """Tables by relation. A relation that was not prepared is, when it is first asked for."""

    def __init__(
        self,
        session: Session,
        policy: Unrepresentable,
        beside: Callable[[], Session],
        known: Callable[[], Iterable[str]],
    ) -> None:
        """`beside` opens another connection: DDL would commit what is open on this one. `known` are
        the source's tables that the sync has on this target."""
        self._session = session
        self._policy = policy
        self._beside = beside
        self._known = known
        self._nulled = Nulled()
        self._tables: dict[Relation, Table] = {}
        self._claimed: dict[str, str] = {}
        self._keys: list[ForeignKey] | None = None
        self._outside: set[str] | None = None
        self._ranks: dict[str, int] | None = None
        self._acted_on: set[str] | None = None

    def of(self, relation: Relation) -> Table:
        return self._tables.get(relation) or self.prepare(relation, create=False)

    def has(self, relation: Relation) -> bool:
        return find_table(self._session, target_name(relation)) is not None

    def prepare(self, relation: Relation, *, create: bool) -> Table:
        """Looks at the target's table, and with `create` makes it where it is missing."""
        demand_key_columns(relation)
        name = target_name(relation)
        self._claim(name, relation)
        target = read_table(self._session, name)
        if target is None:
            if not create:
                raise TableGoneError(f"table {quoted(name)} is not on the target any more")
            self._create(relation, name)
            target = read_table(self._session, name)
            assert target is not None, "the table was created a moment ago"
        table = self._tables[relation] = self.fitted(relation, target)
        self.look_at_keys()
        return table

    def fitted(self, relation: Relation, target: TargetTable) -> Table:
        """Raises PermanentError if the rows of `relation` do not fit."""
        server = (self._session.flavour, self._session.version)
        return Table(relation, target, server, self._policy, self._nulled)

    def refresh(self, relations: Iterable[Relation]) -> None:
        """Reads the catalog again: after a constraint was violated, it may be one that is new."""
        for relation in relations:
            if self._tables.pop(relation, None) is not None:
                self.prepare(relation, create=False)

    def rank(self, table: Table) -> int:
        """Lower for a table that others refer to by foreign keys. Tables that refer to each other in a
        circle come in any order."""
        if self._ranks is None:
            names = {folded(t.name) for t in self._tables.values()}
            parents: dict[str, set[str]] = {name: set() for name in names}
            for key in self.foreign_keys():
                parents.setdefault(folded(key.child), set()).add(folded(key.parent))
            self._ranks = _ranks(parents)
        return self._ranks[folded(table.name)]

    def keys_of(self, table: Table) -> tuple[Sequence[ForeignKey], Sequence[ForeignKey]]:
        """The foreign keys of a table, and those that refer to it."""
        name, keys = folded(table.name), self.foreign_keys()
        return (
            [k for k in keys if folded(k.child) == name],
            [k for k in keys if folded(k.parent) == name],
        )

    def has_followers(self, table: Table) -> bool:
        """Whether a foreign key deletes or changes rows of others with rows of the table."""
        if self._acted_on is None:
            self._acted_on = {folded(k.parent) for k in self.foreign_keys() if k.acting}
        return folded(table.name) in self._acted_on

    def look_at_keys(self) -> None:
        """Foreign keys are read again: somebody may have added one."""
        self._keys = self._outside = self._ranks = self._acted_on = None

    def may_go_unchecked(self, tables: Iterable[Table]) -> bool:
        """Whether we see every foreign key that the server does not look at then: those that are there
        now, and none to or from another database."""
        self.look_at_keys()
        return not any(map(self.is_tied_outside, tables))

    def is_tied_outside(self, table: Table) -> bool:
        """Whether a foreign key stands between a table and one of another database."""
        if self._outside is None:
            self._outside = read_tied_outside(self._session)
        return folded(table.name) in self._outside

    def named(self, tables: Collection[str]) -> set[str]:
        """The target's folded names of those of the source's tables that are prepared."""
        return {folded(t.name) for r, t in self._tables.items() if r.table in tables}

    def names_of(self, tables: Iterable[str], home: str) -> set[str]:
        """The target's folded names of the source's `tables`, prepared or not."""
        parts = (t.partition(".") for t in tables)
        return {folded(name_of(schema, bare, home)) for schema, _, bare in parts}

    def is_empty(self, relation: Relation) -> bool:
        target = read_table(self._session, target_name(relation))
        if target is None:
            return True
        return not self._session.rows(f"SELECT 1 FROM {target.sql_name} LIMIT 1")

    def foreign_keys(self) -> list[ForeignKey]:
        """All between tables of the target's database."""
        if self._keys is None:
            self._keys = read_foreign_keys(self._session)
        return self._keys

    def _claim(self, name: str, relation: Relation) -> None:
        """Two tables of the source never share one here: their rows would delete each other."""
        claimed = {}
        for table in self._known():
            schema, _, bare = table.partition(".")
            claimed[self._at(name_of(schema, bare, relation.home))] = table
        claimed.update(self._claimed)
        other = claimed.get(self._at(name), relation.table)
        if other != relation.table:
            raise PermanentError(
                f"{relation.table} and {other} would both be table {name} on the target",
                "leave one of them out of the sync's `tables`, or rename it on the source",
            )
        self._claimed[self._at(name)] = relation.table

    def _at(self, name: str) -> str:
        folds = self._session.variables.get("lower_case_table_names", "0") != "0"
        return folded(name) if folds else name

    def _create(self, relation: Relation, name: str) -> None:
        flavour, version = self._session.flavour, self._session.version
        key = relation.key_names
        types = created_columns(relation, flavour, self._policy, version)
        columns = [
            f"{quoted(c.name)} {declared}{' NOT NULL' if c.name in key else ''}"
            for c, declared in zip(relation.columns, types, strict=True)
        ]
        sql = (
            f"CREATE TABLE IF NOT EXISTS {quoted(name)}"
            f" ({', '.join(columns)}, PRIMARY KEY ({listed(key)}))"
            f" ENGINE = {ENGINE} ROW_FORMAT = DYNAMIC {CHARACTERS[flavour]}"
        )
        if not self._session.in_transaction:
            self._session.execute(sql)
            return
        other = self._beside()
        try:
            other.execute(sql)
        finally:
            other.close()


def _ranks(parents: Mapping[str, set[str]]) -> dict[str, int]:
    """Parents before children: each table after those that it refers to, depth first."""
    ranks: dict[str, int] = {}
    entered: set[str] = set()
    for start in parents:
        path = [(start, False)]
        while path:
            name, done = path.pop()
            if done:
                ranks.setdefault(name, len(ranks))
            elif name in parents and name not in entered:
                entered.add(name)
                path.append((name, True))
                path += [(p, False) for p in parents[name]]
    return ranks
