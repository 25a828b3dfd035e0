"""A table as SQLite has it, and whether it can take the rows of a relation."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from appliers.errors import PermanentError
from appliers.relation import Column, Relation
from appliers.sqlite.types import DECLARED, Storage, storage_of
from appliers.state import TABLES

OWN_TABLES = (*TABLES, "cdc_holder")


class Affinity(Enum):
    """What SQLite makes of a value that is written into a column (datatype3.html, section 3.1)."""

    INTEGER = "INTEGER"
    TEXT = "TEXT"
    BLOB = "BLOB"
    REAL = "REAL"
    NUMERIC = "NUMERIC"

    @classmethod
    def of(cls, declared: str) -> Affinity:
        """The affinity of a declared type, by the rules in their order."""
        words = declared.upper()
        if "INT" in words:
            return cls.INTEGER
        if any(w in words for w in ("CHAR", "CLOB", "TEXT")):
            return cls.TEXT
        if not words or "BLOB" in words:
            return cls.BLOB
        if any(w in words for w in ("REAL", "FLOA", "DOUB")):
            return cls.REAL
        return cls.NUMERIC


@dataclass(frozen=True, slots=True)
class TargetColumn:
    name: str
    declared: str
    required: bool
    """NOT NULL and without a default."""
    not_null: bool
    generated: bool


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index over plain columns, with the collation of each."""

    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A table that exists. Names compare as SQLite compares them: ASCII letters without case."""

    name: str
    columns: dict[str, TargetColumn]
    unique: tuple[UniqueIndex, ...]
    """Without those that have a WHERE or an expression: they name no rows by their columns."""

    def column(self, name: str) -> TargetColumn | None:
        return self.columns.get(folded(name))


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a table cannot take the rows (`fatal`), or would not keep them as they are."""

    message: str
    remedy: str
    fatal: bool = True


def folded(name: str) -> str:
    """The name as SQLite compares it. It folds ASCII only: É and é are two names."""
    return "".join(c.lower() if c.isascii() else c for c in name)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def target_name(table: str, home: str) -> str:
    """The table in SQLite of a source's `schema.name`: SQLite has no schemas, so what is in the
    source's schema `home` (`Relation.home`) keeps its name and everything else gets its schema before
    it: `sales.orders` is `sales_orders`."""
    if table.startswith(f"{home}."):
        return table[len(home) + 1 :]
    schema, _, name = table.partition(".")
    return f"{schema}_{name}"


def demand_name(relation: Relation) -> str:
    """`target_name`, or PermanentError where SQLite or the sync itself needs that name."""
    table = relation.table
    name = target_name(table, relation.home)
    if folded(name) in OWN_TABLES or folded(name).startswith("sqlite_"):
        raise PermanentError(
            f"{table} cannot be kept in SQLite: the name {name} is reserved",
            "rename the table on the source, or leave it out of the sync's `tables`",
        )
    return name


def read_shape(db: sqlite3.Connection, name: str) -> Shape | None:
    """The table `name`, None where there is none."""
    found = db.execute(
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND lower(name) = lower(?)",
        (name,),
    ).fetchone()
    if found is None:
        return None
    rows = db.execute(f"PRAGMA table_xinfo({quoted(name)})").fetchall()
    columns = {
        folded(column): TargetColumn(
            column, declared, bool(not_null) and default is None, bool(not_null), hidden > 1
        )
        for _, column, declared, not_null, default, _, hidden in rows
    }
    unique = []
    for index, partial in db.execute(
        'SELECT name, partial FROM pragma_index_list(?) WHERE "unique"', (found[0],)
    ).fetchall():
        parts = db.execute(
            "SELECT name, coll FROM pragma_index_xinfo(?) WHERE key", (index,)
        ).fetchall()
        if not partial and all(column is not None for column, _ in parts):
            unique.append(UniqueIndex(tuple((c, coll.upper()) for c, coll in parts)))
    # An INTEGER PRIMARY KEY is the rowid and has no index of its own.
    primary = [r for r in rows if r[5]]
    if len(primary) == 1 and primary[0][2].upper() == "INTEGER":
        unique.insert(0, UniqueIndex(((primary[0][1], "BINARY"),)))
    return Shape(found[0], columns, tuple(unique))


def create_sql(relation: Relation, name: str) -> str:
    """The statement that makes the table: every column as it can be kept without loss, and the key."""
    key = set(relation.key_columns)
    alone = len(key) == 1
    parts = []
    for i, column in enumerate(relation.columns):
        part = definition(column, relation.dialect)
        if i in key:
            part += " NOT NULL PRIMARY KEY" if alone else " NOT NULL"
        parts.append(part)
    if not alone:
        parts.append(f"PRIMARY KEY ({', '.join(quoted(n) for n in relation.key_names)})")
    return f"CREATE TABLE IF NOT EXISTS {quoted(name)} ({', '.join(parts)})"


def storage_in(column: Column, dialect: str, target: TargetColumn | None) -> Storage:
    """How `column` is kept in a column that may have been there already. MySQL's unsigned bigints are
    mostly keys that users keep as numbers: so do we, where their column is one of numbers."""
    if (
        dialect == "mysql"
        and column.base == "bigint"
        and target is not None
        and "unsigned" in column.type
        and Affinity.of(target.declared) in (Affinity.INTEGER, Affinity.NUMERIC)
    ):
        return Storage.UNSIGNED
    return storage_of(column, dialect)


def definition(column: Column, dialect: str) -> str:
    return quoted(column.name) + DECLARED[storage_of(column, dialect)]


def problems(relation: Relation, shape: Shape, file: object) -> Iterator[Problem]:
    """What stands against writing the rows of `relation` into a table that exists."""
    where = f"table {shape.name} in {file}"
    missing = [c for c in relation.columns if shape.column(c.name) is None]
    if missing:
        yield Problem(
            f"{where} has no column {', '.join(c.name for c in missing)}, which {relation.table} has",
            " ".join(
                f"ALTER TABLE {quoted(shape.name)} ADD COLUMN {definition(c, relation.dialect)};"
                for c in missing
            ),
        )
    ours = {folded(c.name) for c in relation.columns}
    for column in shape.columns.values():
        if column.generated and folded(column.name) in ours:
            yield Problem(
                f"{where}: column {column.name} is generated and cannot be written",
                "make it an ordinary column, or leave the table out of the sync",
            )
        elif column.required and folded(column.name) not in ours:
            yield Problem(
                f"{where}: column {column.name} is NOT NULL, has no default, and {relation.table} has no"
                " such column",
                "give the column a default",
            )
    yield from _key_problems(relation, shape, where)
    yield from _affinity_problems(relation, shape, where)


def _key_problems(relation: Relation, shape: Shape, where: str) -> Iterator[Problem]:
    key = ", ".join(relation.key_names)
    fits = [i for i in shape.unique if {folded(c) for c, _ in i.columns} == _key(relation)]
    columns = ", ".join(quoted(n) for n in relation.key_names)
    remedy = (
        f"CREATE UNIQUE INDEX {quoted(f'{shape.name}_key')} ON {quoted(shape.name)} ({columns});"
    )
    if not fits:
        yield Problem(f"{where} has no unique index on the key ({key}) of {relation.table}", remedy)
    elif not any(is_exact(i) for i in fits):
        yield Problem(
            f"{where}: the unique index on the key ({key}) compares with {fits[0].columns[0][1]}, so that"
            " two rows of the source would be one here",
            remedy.replace(
                columns, ", ".join(f"{quoted(n)} COLLATE BINARY" for n in relation.key_names)
            ),
        )


def _key(relation: Relation) -> set[str]:
    return {folded(n) for n in relation.key_names}


def is_exact(index: UniqueIndex) -> bool:
    return all(collation == "BINARY" for _, collation in index.columns)


def _affinity_problems(relation: Relation, shape: Shape, where: str) -> Iterator[Problem]:
    """Text that looks like a number becomes one in a column of numeric affinity: '007' is 7."""
    for i, column in enumerate(relation.columns):
        target = shape.column(column.name)
        if target is None or storage_in(column, relation.dialect, target) is not Storage.TEXT:
            continue
        if Affinity.of(target.declared) in (Affinity.TEXT, Affinity.BLOB):
            continue
        in_key = i in relation.key_columns
        yield Problem(
            f"{where}: column {column.name} is declared {target.declared}, which turns text that looks"
            f" like a number into one; {relation.table} has {column.type}"
            + (", and two keys could become one" if in_key else ""),
            f"declare the column {column.name} TEXT",
            fatal=in_key,
        )


def duplicate_columns(columns: Sequence[Column]) -> str | None:
    """The first name that SQLite would take for another one of `columns`."""
    seen: set[str] = set()
    for column in columns:
        if folded(column.name) in seen:
            return column.name
        seen.add(folded(column.name))
    return None
