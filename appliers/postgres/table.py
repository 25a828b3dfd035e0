"""One relation's table on the target, and the statements that write into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import takewhile

from appliers import images, lines
from appliers.delta import Value
from appliers.errors import PermanentError
from appliers.postgres import from_mysql
from appliers.postgres.catalog import TargetColumn, TargetTable, UniqueIndex
from appliers.postgres.fitting import Fit
from appliers.postgres.names import listed, quoted
from appliers.postgres.types import BYTEWISE, SORTED_CHEAPLY
from appliers.relation import Column, Relation
from appliers.unrepresentable import DEFAULT, Nulled, Unrepresentable

Rows = Callable[[list[bytes]], bytes]
"""From images to joined rows for COPY. Raises ImageError for an UNCHANGED value among them."""

T = '"cdc t"'
S = '"cdc s"'


class Table:
    """How images of `relation` get into `target`. Raises PermanentError if they do not fit."""

    def __init__(
        self,
        relation: Relation,
        target: TargetTable,
        policy: Unrepresentable = DEFAULT,
        nulled: Nulled | None = None,
    ) -> None:
        self.relation = relation
        self.target = target
        self.binary = relation.format.binary
        _demand_columns(relation, target, policy)
        own = [target.columns[c.name] for c in relation.columns]
        self.types = tuple(c.type_oid for c in own)
        """Of the parameters $1…$n of `insert_row` and its like: the relation's columns, in order."""
        self.written = tuple(i for i, c in enumerate(own) if not c.generated)
        """The columns that are written; those that the target computes are not."""
        key = relation.key_columns
        self._settable = [i for i in self.written if i not in key and not own[i].identity_always]
        self._key_set = [
            i for i in key if not own[i].identity_always and own[i].type.name not in BYTEWISE
        ]
        index = _demand_key(relation, target)
        self._operators = [index.operator_of[n] for n in relation.key_names]
        self._order = list(
            takewhile(lambda n: target.columns[n].type.name in SORTED_CHEAPLY, index.operator_of)
        )
        self.immediate_key = index.immediate
        self.uniques = [u for u in target.uniques if u is not index]
        self._fit = None
        if relation.dialect == "mysql":
            self._fit = Fit(relation, own, policy, nulled or Nulled())
        self._rows: dict[tuple[int, ...], Rows] = {}
        self._update_rows: dict[tuple[int, ...], str] = {}
        self._stale_rows: dict[tuple[int, ...], list[str]] = {}
        self.formats = [1] * len(own) if self.binary else None
        self._overriding = " OVERRIDING SYSTEM VALUE" if any(c.identity_always for c in own) else ""

    @property
    def subject(self) -> str:
        """How errors name it."""
        return f"table {self.relation.table} (key {', '.join(self.relation.key_names)})"

    def names(self, columns: Iterable[int]) -> list[str]:
        return [self.relation.columns[i].name for i in columns]

    # -- images -----------------------------------------------------------------------------------

    def values(self, image: bytes) -> Sequence[Value]:
        """What is sent for an image's values. Raises PermanentError as `rows_of` does."""
        return self.relation.values(image if self._fit_all is None else self._fit_all(image))

    def key_values(self, image: bytes) -> list[Value]:
        """The same for its key alone; everything else, which an old image may have, too, is None."""
        key = self.relation.key_columns
        found: Sequence[Value] = self.relation.key(image)
        if self._fit is not None:
            found = lines.split(self.rows_of(key)([image]), len(key))
        values: list[Value] = [None] * len(self.types)
        for i, value in zip(key, found, strict=True):
            values[i] = value
        return values

    def rows_of(self, columns: Sequence[int]) -> Rows:
        """Images' `columns` as rows for COPY.

        Raises PermanentError where a value cannot be kept here and the policy does not say otherwise."""
        made = self._rows.get(columns := tuple(columns))
        if made is None:
            fit = self._fit.lines(columns) if self._fit else None
            made = self._rows[columns] = _fitted(self._plain_rows(columns), fit)
        return made

    @cached_property
    def copied_rows(self) -> Rows:
        """A chunk's images, which are whole, as rows for COPY. Lines pass as they are."""
        if len(self.written) < len(self.relation.columns) or self.relation.format.pgoutput:
            return self.rows_of(self.written)
        return _fitted(b"".join, self._fit_all)

    @cached_property
    def _fit_all(self) -> Callable[[bytes], bytes] | None:
        return self._fit.lines(range(len(self.types))) if self._fit else None

    def _plain_rows(self, columns: tuple[int, ...]) -> Rows:
        relation = self.relation
        sizes = [
            images.FIXED_SIZES.get(c.base) if c.kind == "base" and c.portable else None
            for c in relation.columns
        ]
        row = images.compile_copy_row(relation.format, len(sizes), columns, sizes)
        join = b"".join
        if relation.format is not images.Format.LINE or columns != tuple(range(len(sizes))):
            return lambda some: join(map(row, some))

        def rows(some: list[bytes]) -> bytes:
            # One search for gaps in all of them: 0.1 µs a row less than in each.
            data = join(some)
            return join(map(row, some)) if lines.GAP in data else data

        return rows

    def copy_sql(self, target: str, columns: Sequence[int]) -> str:
        options = " (FORMAT binary)" if self.binary else ""
        return f"COPY {target} ({listed(self.names(columns))}) FROM STDIN{options}"

    # -- statements over a staged set -------------------------------------------------------------

    def delete_staged(self, stage: str) -> str:
        return f"DELETE FROM {self.target.only} AS {T} USING {self._sorted(stage)} AS {S} WHERE {self._match_staged}"

    def update_staged(self, stage: str, columns: Sequence[int]) -> str | None:
        """None where nothing but the key was staged: there is nothing to set."""
        names = self.names(i for i in self._settable if i in columns)
        if not names:
            return None
        sets = ", ".join(f"{quoted(n)} = {S}.{quoted(n)}" for n in names)
        return (
            f"UPDATE {self.target.only} AS {T} SET {sets} FROM {self._sorted(stage)} AS {S}"
            f" WHERE {self._match_staged}"
        )

    def upsert_staged(self, stage: str) -> list[str]:
        names = listed(self.names(self.written))
        insert = (
            f"INSERT INTO {self.target.sql_name} AS {T} ({names}){self._overriding}"
            f" SELECT {names} FROM {self._sorted(stage)} AS {S}"
        )
        if self.immediate_key:
            return [f"{insert} {self._on_conflict}"]
        update = self.update_staged(stage, self.written)
        missing = (
            f"{insert} WHERE NOT EXISTS"
            f" (SELECT FROM {self.target.only} AS {T} WHERE {self._match_staged})"
        )
        return [update, missing] if update else [missing]

    def missing_staged(self, stage: str) -> str:
        """The staged keys that the target does not have."""
        keys = ", ".join(f"{S}.{quoted(n)}" for n in self.relation.key_names)
        return (
            f"SELECT {keys} FROM {stage} AS {S} WHERE NOT EXISTS"
            f" (SELECT FROM {self.target.only} AS {T} WHERE {self._match_staged})"
        )

    def completed_staged(self, stage: str, columns: Sequence[int]) -> str:
        """The whole rows that an update with the staged `columns` would make."""
        row = ", ".join(
            f"{S if i in columns else T}.{quoted(c.name)}"
            for i, c in enumerate(self.relation.columns)
        )
        return f"SELECT {row} FROM {stage} AS {S}, {self.target.only} AS {T} WHERE {self._match_staged}"

    def stale_staged(self, stage: str, columns: Sequence[int]) -> list[str]:
        """Deletes of rows of other keys that hold a unique value of a staged row."""
        names = frozenset(self.names(columns)) | frozenset(self.relation.key_names)
        return [self._stale(u, stage) for u in self.uniques if u.needs <= names]

    def sweep(self, stage: str, only: Sequence[str]) -> str:
        """Deletes what is not staged; `only` are columns whose values, as text, are the parameters."""
        bounds = "".join(
            f" AND {T}.{quoted(n)} = ${i}::{self.target.columns[n].declared}"
            for i, n in enumerate(only, 1)
        )
        return (
            f"DELETE FROM {self.target.only} AS {T} WHERE NOT EXISTS"
            f" (SELECT FROM {stage} AS {S} WHERE {self._match_staged}){bounds}"
        )

    # -- statements for one row; parameters are the relation's columns ----------------------------

    @cached_property
    def insert_row(self) -> list[str]:
        """Writes a whole row over what is there."""
        names = listed(self.names(self.written))
        values = ", ".join(f"${i + 1}" for i in self.written)
        head = f"INSERT INTO {self.target.sql_name} AS {T} ({names}){self._overriding}"
        if self.immediate_key:
            return [f"{head} VALUES ({values}) {self._on_conflict}"]
        update = self.update_row(self.written)
        insert = (
            f"{head} SELECT {values} WHERE NOT EXISTS"
            f" (SELECT FROM {self.target.only} AS {T} WHERE {self._match_row})"
        )
        return [update, insert] if update else [insert]

    def update_row(self, columns: tuple[int, ...]) -> str:
        """Sets `columns` of the row. Where only the key is given, looks whether the row is there."""
        sql = self._update_rows.get(columns)
        if sql is None:
            given = [i for i in self._settable if i in columns]
            names = zip(given, self.names(given), strict=True)
            sets = ", ".join(f"{quoted(n)} = ${i + 1}" for i, n in names)
            target = f"{self.target.only} AS {T}"
            head = f"UPDATE {target} SET {sets}" if sets else f"SELECT FROM {target}"
            sql = self._update_rows[columns] = f"{head} WHERE {self._match_row}"
        return sql

    @cached_property
    def select_row(self) -> str:
        names = listed(c.name for c in self.relation.columns)
        return f"SELECT {names} FROM {self.target.only} AS {T} WHERE {self._match_row}"

    @cached_property
    def delete_row(self) -> str:
        return f"DELETE FROM {self.target.only} AS {T} WHERE {self._match_row}"

    def stale_row(self, columns: tuple[int, ...]) -> list[str]:
        sql = self._stale_rows.get(columns)
        if sql is None:
            names = self.names(range(len(self.types)))
            row = ", ".join(f"${i} AS {quoted(n)}" for i, n in enumerate(names, 1))
            sql = self._stale_rows[columns] = self.stale_staged(f"(SELECT {row})", columns)
        return sql

    # -- parts ------------------------------------------------------------------------------------

    def _sorted(self, stage: str) -> str:
        return f"(SELECT * FROM {stage} ORDER BY {listed(self._order)})" if self._order else stage

    @cached_property
    def _match_staged(self) -> str:
        return self._match([f"{S}.{quoted(n)}" for n in self.relation.key_names])

    @cached_property
    def _match_row(self) -> str:
        return self._match([f"${i + 1}" for i in self.relation.key_columns])

    def _match(self, values: Sequence[str]) -> str:
        return " AND ".join(
            f"{T}.{quoted(n)} OPERATOR({op}) {value}"
            for n, op, value in zip(self.relation.key_names, self._operators, values, strict=True)
        )

    @cached_property
    def _on_conflict(self) -> str:
        names = self.names([*self._settable, *self._key_set])
        sets = ", ".join(f"{quoted(n)} = EXCLUDED.{quoted(n)}" for n in names)
        action = f"DO UPDATE SET {sets}" if sets else "DO NOTHING"
        return f"ON CONFLICT ({listed(self.relation.key_names)}) {action}"

    def _stale(self, unique: UniqueIndex, source: str) -> str:
        keys = [f"cdc k{i}" for i in range(len(self.relation.key_names))]
        values = [f"cdc u{i}" for i in range(len(unique.expressions))]
        inner = ", ".join(
            [
                f"{quoted(n)} AS {quoted(k)}"
                for n, k in zip(self.relation.key_names, keys, strict=True)
            ]
            + [f"{e} AS {quoted(v)}" for e, v in zip(unique.expressions, values, strict=True)]
        )
        where = f" WHERE {unique.predicate}" if unique.predicate else ""
        equal = " AND ".join(
            _equal(e, op, f"{S}.{quoted(v)}", nulls=unique.nulls_equal)
            for e, op, v in zip(unique.expressions, unique.operators, values, strict=True)
        )
        predicate = f" AND ({unique.predicate})" if unique.predicate else ""
        return (
            f"DELETE FROM {self.target.only} AS {T}"
            f' USING (SELECT {inner} FROM {source} AS "cdc r"{where}) AS {S}'
            f" WHERE {equal}{predicate} AND NOT ({self._match([f'{S}.{quoted(k)}' for k in keys])})"
        )


def _equal(left: str, operator: str, right: str, *, nulls: bool) -> str:
    equal = f"{left} OPERATOR({operator}) {right}"
    return f"({equal} OR ({left} IS NULL AND {right} IS NULL))" if nulls else equal


def _fitted(rows: Rows, fit: Callable[[bytes], bytes] | None) -> Rows:
    return rows if fit is None else lambda some: fit(rows(some))


def _demand_columns(relation: Relation, target: TargetTable, policy: Unrepresentable) -> None:
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
        if foreign and not there.generated:
            _demand_type(relation, target, column, there)


def _demand_type(
    relation: Relation, target: TargetTable, column: Column, there: TargetColumn
) -> None:
    change = from_mysql.change_of(column, there.type.name, there.declared)
    if change is not None:
        needed = from_mysql.created_type(column, DEFAULT)
        raise PermanentError(
            f"table {relation.table}: column {column.name} is {column.type} on the source and"
            f" {there.declared} on the target, which {change} without an error",
            f"ALTER TABLE {target.sql_name} ALTER COLUMN {quoted(column.name)} TYPE {needed};",
        )


def _demand_key(relation: Relation, target: TargetTable) -> UniqueIndex:
    key = frozenset(relation.key_names)
    for index in target.uniques:
        if index.operator_of.keys() == key and index.predicate is None:
            return index
    raise PermanentError(
        f"table {relation.table} on the target has no unique index on its key ({', '.join(relation.key_names)})",
        f"CREATE UNIQUE INDEX ON {target.sql_name} ({listed(relation.key_names)});",
    )
