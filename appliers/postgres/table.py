"""One relation's table on the target, and the statements that write into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import takewhile

from appliers import images, lines
from appliers.delta import Value
from appliers.errors import OrderError
from appliers.postgres.catalog import TargetTable, UniqueIndex
from appliers.postgres.demands import demand_columns, demand_key, folds_more
from appliers.postgres.fitting import Fit
from appliers.postgres.names import listed, quoted
from appliers.postgres.types import BYTEWISE, SORTED_CHEAPLY
from appliers.relation import Relation
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
        demand_columns(relation, target, policy)
        own = [target.columns[c.name] for c in relation.columns]
        self.types = tuple(c.type_oid for c in own)
        """Of the parameters $1…$n of `insert_row` and its like: the relation's columns, in order."""
        self.written = tuple(i for i, c in enumerate(own) if not c.generated)
        """The columns that are written; those that the target computes are not."""
        key = relation.key_columns
        self.key_types = tuple(own[i].type_oid for i in key)
        self._settable = [i for i in self.written if i not in key and not own[i].identity_always]
        self._key_set = [
            i for i in key if not own[i].identity_always and own[i].type.name not in BYTEWISE
        ]
        index = demand_key(relation, target)
        self._operators = [index.operator_of[n] for n in relation.key_names]
        self._order = list(
            takewhile(lambda n: target.columns[n].type.name in SORTED_CHEAPLY, index.operator_of)
        )
        self.immediate_key = index.immediate
        self.uniques = [u for u in target.uniques if u is not index]
        self.movable = not any(own[i].identity_always for i in key)
        """Whether an UPDATE may give a row another key."""
        self._fit = None
        if relation.dialect == "mysql":
            self._fit = Fit(relation, own, policy, nulled or Nulled())
        self._folded = {c.name for c in relation.columns if folds_more(c, target.columns[c.name])}
        self._rows: dict[tuple[int, ...], Rows] = {}
        self._array_rows: dict[tuple[int, ...], Rows | None] = {}
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

    @property
    def has_followers(self) -> bool:
        """Whether foreign keys of others delete or change their rows with rows of the table."""
        return bool(self.target.followers)

    def held(self) -> OrderError:
        """That a row would have to go for a while, and others with it."""
        names = ", ".join(f.name for f in self.target.followers if f.deletes)
        return OrderError(
            f"{self.subject}: a row has to make way for another for a while, with which foreign key {names}"
            " would delete or change rows that nothing brings back",
            "make the foreign key ON DELETE NO ACTION DEFERRABLE on the target",
        )

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
        return images.compile_copy_rows(relation.format, len(sizes), columns, sizes)

    def array_rows(self, columns: Sequence[int]) -> Rows | None:
        """Images' `columns` as elements of an array of rows; None where COPY has to do."""
        columns = tuple(columns)
        if columns not in self._array_rows:
            rows = images.compile_array_rows(self.relation.format, len(self.types), columns)
            types = b"".join(self.types[i].to_bytes(4, "big") for i in columns)
            self._array_rows[columns] = None if rows is None else lambda some: rows(some, types)
        return self._array_rows[columns]

    def copy_sql(self, target: str, columns: Sequence[int]) -> str:
        options = " (FORMAT binary)" if self.binary else ""
        return f"COPY {target} ({listed(self.names(columns))}) FROM STDIN{options}"

    # -- statements over a staged set -------------------------------------------------------------

    def delete_staged(self, stage: str, but: str | None = None) -> str:
        """`but` is a stage of rows that stay."""
        return (
            f"DELETE FROM {self.target.only} AS {T} USING {self._sorted(stage)} AS {S}"
            f" WHERE {self._match_staged}{self._but(but)}"
        )

    def delete_unfollowed(self, stage: str, but: str | None) -> str:
        """The same, but for rows with which the target would delete or change others."""
        return self.delete_staged(stage, but) + self._unfollowed

    def staged_there(self, stage: str, but: str | None) -> str:
        return (
            f"SELECT FROM {stage} AS {S}, {self.target.only} AS {T}"
            f" WHERE {self._match_staged}{self._but(but)} LIMIT 1"
        )

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

    def stale_staged(self, stage: str, columns: Iterable[int]) -> list[str]:
        """Deletes of rows of other keys that hold a unique value of a staged row; but for those with which
        the target would delete or change others, which do not come back as they do."""
        return [
            f"DELETE FROM {self.target.only} AS {T} USING {found}{self._unfollowed}"
            for found in self._stale(stage, columns)
        ]

    def stale_there(self, stage: str, columns: Iterable[int]) -> list[str]:
        """Queries for those that are left."""
        found = self._stale(stage, columns) if self._unfollowed else []
        return [f"SELECT FROM {self.target.only} AS {T}, {f} LIMIT 1" for f in found]

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

    def move_row(self, columns: Sequence[int], *, free: bool) -> str:
        """Gives the row another key, and what `columns` have; with `free` only if no row has that one. The
        parameters are those of the new row, and behind them the old key."""
        given = [*(i for i in self._settable if i in columns), *self.relation.key_columns]
        names = zip(given, self.names(given), strict=True)
        sets = ", ".join(f"{quoted(n)} = ${i + 1}" for i, n in names)
        sql = f"UPDATE {self.target.only} AS {T} SET {sets} WHERE {self._match_old}"
        if free:
            sql += (
                f" AND NOT EXISTS (SELECT FROM {self.target.only} AS {T} WHERE {self._match_row})"
            )
        return sql

    @cached_property
    def leave_row(self) -> list[str]:
        """Deletes the old row of a move, unless the target would delete or change others with it; and
        looks whether it is still there. Parameters as those of `move_row`."""
        return [
            f"DELETE FROM {self.target.only} AS {T} WHERE {self._match_old}{self._unfollowed}",
            f"SELECT FROM {self.target.only} AS {T} WHERE {self._match_old}",
        ]

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

    @property
    def bytewise(self) -> bool:
        """Whether keys that are equal here are so byte for byte."""
        return not self._key_set

    def _but(self, stage: str | None) -> str:
        if stage is None or self.bytewise:
            return ""
        return f" AND NOT EXISTS (SELECT FROM {stage} AS {S} WHERE {self._match_staged})"

    def _sorted(self, stage: str) -> str:
        return f"(SELECT * FROM {stage} ORDER BY {listed(self._order)})" if self._order else stage

    @cached_property
    def _match_staged(self) -> str:
        return self._match([f"{S}.{quoted(n)}" for n in self.relation.key_names])

    @cached_property
    def _match_row(self) -> str:
        return self._match([f"${i + 1}" for i in self.relation.key_columns])

    @cached_property
    def _match_old(self) -> str:
        first = len(self.types) + 1
        return self._match([f"${i}" for i in range(first, first + len(self._operators))])

    @cached_property
    def _unfollowed(self) -> str:
        deleting = (f for f in self.target.followers if f.deletes)
        return "".join(f" AND NOT EXISTS (SELECT {f.following})" for f in deleting)

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

    def _stale(self, source: str, columns: Iterable[int]) -> list[str]:
        names = frozenset(self.names(columns)) | frozenset(self.relation.key_names)
        return [self._stale_by(u, source) for u in self.uniques if u.needs <= names]

    def _stale_by(self, unique: UniqueIndex, source: str) -> str:
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
        # What only the target takes for one value are two rows of the source, both right.
        equal += "".join(
            f' AND {T}.{quoted(n)}::text COLLATE "C" OPERATOR(pg_catalog.=) {S}.{quoted(v)}::text COLLATE "C"'
            for n, v in zip(unique.operator_of, values, strict=False)
            if n in self._folded
        )
        predicate = f" AND ({unique.predicate})" if unique.predicate else ""
        return (
            f'(SELECT {inner} FROM {source} AS "cdc r"{where}) AS {S}'
            f" WHERE {equal}{predicate} AND ({self._match([f'{S}.{quoted(k)}' for k in keys])}) IS NOT TRUE"
        )


def _equal(left: str, operator: str, right: str, *, nulls: bool) -> str:
    equal = f"{left} OPERATOR({operator}) {right}"
    return f"({equal} OR ({left} IS NULL AND {right} IS NULL))" if nulls else equal


def _fitted(rows: Rows, fit: Callable[[bytes], bytes] | None) -> Rows:
    return rows if fit is None else lambda some: fit(rows(some))
