"""The statements over a staged set: a temporary table with columns of the target's types, whose rows
are numbered by `cdc n`.

In each the staged rows are walked and the target's looked up by the key's index (STRAIGHT_JOIN, FORCE
INDEX): what the server knows of the sizes of the two tables is not worth a choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appliers.mysql.catalog import IndexPart, UniqueIndex
from appliers.mysql.names import folded, listed, quoted
from appliers.mysql.table import T, Table

S = "`cdc s`"
NUMBER = "`cdc n`"


def create(table: Table, name: str, columns: Sequence[int], *, keyed: bool = False) -> str:
    """The temporary table for `columns`. `keyed` gives it an index on the key, to be looked up by."""
    index = f", KEY ({_key_parts(table)})" if keyed else ""
    names = "".join(f", {quoted(n)}" for n in table.names(columns))
    return (
        f"CREATE TEMPORARY TABLE {name} ({NUMBER} INT NOT NULL PRIMARY KEY{index}) ENGINE = InnoDB"
        f" SELECT 0 AS {NUMBER}{names} FROM {table.target.sql_name} WHERE 1 = 0"
    )


def found(table: Table, stage: str) -> str:
    """FROM and what follows, for the target's rows whose keys are staged."""
    return f" FROM {stage} AS {S} STRAIGHT_JOIN {_target(table)} ON {match(table)}"


def update(table: Table, stage: str, columns: Sequence[int]) -> str | None:
    """None where nothing but the key was staged: there is nothing to set."""
    names = table.names(table.settable(columns))
    if not names:
        return None
    sets = [f"{T}.{quoted(n)} = {S}.{quoted(n)}" for n in names]
    sets += [f"{T}.{quoted(n)} = {T}.{quoted(n)}" for n in table.kept(columns)]
    return (
        f"UPDATE {stage} AS {S} STRAIGHT_JOIN {_target(table)} ON {match(table)}"
        f" SET {', '.join(sets)}"
    )


def insert(table: Table, stage: str, columns: Sequence[int]) -> str:
    names = table.names(columns)
    return (
        f"INSERT INTO {table.target.sql_name} ({listed(names)})"
        f" SELECT {listed(names)} FROM {stage} AS {S} ORDER BY {NUMBER}"
    )


def insert_missing(table: Table, stage: str) -> str:
    """Writes the staged rows that the target does not have."""
    names = table.names(table.written)
    staged = ", ".join(f"{S}.{quoted(n)}" for n in names)
    return f"INSERT INTO {table.target.sql_name} ({listed(names)}) SELECT {staged}{_missing(table, stage)}"


def upsert(table: Table, stage: str, *, simple: bool) -> list[str]:
    """`simple`: ON DUPLICATE KEY UPDATE means the row of the key alone."""
    change = update(table, stage, table.written)
    if not (simple and change):
        return [*([change] if change else []), insert_missing(table, stage)]
    names = table.names(table.written)
    sets = ", ".join(
        f"{quoted(n)} = {S}.{quoted(n)}" for n in table.names(table.settable(table.written))
    )
    return (
        [f"{insert(table, stage, table.written)} ON DUPLICATE KEY UPDATE {sets}"] if names else []
    )


def missing(table: Table, stage: str) -> str:
    """The numbers of the staged rows whose keys the target does not have."""
    return f"SELECT {S}.{NUMBER}{_missing(table, stage)}"


def stale(table: Table, stage: str, columns: Sequence[int], *, dear: bool) -> list[str]:
    """FROM and what follows, for rows of other keys that hold a unique value of a staged row."""
    return [_stale(table, u, stage) for u in table.stale_indexes(columns, dear=dear)]


def completed(table: Table, whole: str, stage: str, columns: Sequence[int]) -> str:
    """Into the stage `whole` the rows that an update with the staged `columns` would make."""
    given = set(columns)
    names = table.names(table.written)
    row = ", ".join(
        f"{S if i in given else T}.{quoted(n)}" for i, n in zip(table.written, names, strict=True)
    )
    return f"INSERT INTO {whole} ({NUMBER}, {listed(names)}) SELECT {S}.{NUMBER}, {row}{found(table, stage)}"


def replacements(table: Table, name: str, stage: str) -> str:
    """A temporary table of the staged rows that the target has, with the values of the columns that
    only the target has."""
    own = [c.name for c in table.target.columns.values() if not c.generated]
    ours = {folded(n) for n in table.names(table.written)}
    row = ", ".join(f"{S if folded(n) in ours else T}.{quoted(n)} AS {quoted(n)}" for n in own)
    return (
        f"CREATE TEMPORARY TABLE {name} ({NUMBER} INT NOT NULL PRIMARY KEY) ENGINE = InnoDB"
        f" SELECT {S}.{NUMBER}, {row}{found(table, stage)}"
    )


def replace(table: Table, name: str) -> str:
    """Writes what `replacements` has kept."""
    names = listed(c.name for c in table.target.columns.values() if not c.generated)
    return f"INSERT INTO {table.target.sql_name} ({names}) SELECT {names} FROM {name} ORDER BY {NUMBER}"


def unswept(table: Table, stage: str, only: Iterable[bytes]) -> str:
    """FROM and what follows, for the target's rows that are not staged; `only` are further conditions."""
    bounds = b"".join(b" AND " + condition for condition in only).decode()
    return (
        f" FROM {table.target.sql_name} AS {T} LEFT JOIN {stage} AS {S}"
        f" ON {match(table)} WHERE {S}.{NUMBER} IS NULL{bounds}"
    )


def match(table: Table) -> str:
    parts = []
    for i in table.key:
        name = quoted(table.own[i].name)
        parts.append(f"{T}.{name} = {S}.{name}")
        if not table.own[i].exact:
            parts.append(f"{table.exactly(f'{T}.{name}')} = {table.exactly(f'{S}.{name}')}")
    return " AND ".join(parts)


def _target(table: Table) -> str:
    return f"{table.target.sql_name} AS {T} FORCE INDEX ({quoted(table.index.name)})"


def _missing(table: Table, stage: str) -> str:
    absent = is_absent(f"{T}.{quoted(table.own[table.key[0]].name)}")
    return (
        f" FROM {stage} AS {S} LEFT JOIN {_target(table)} ON {match(table)}"
        f" WHERE {absent} ORDER BY {S}.{NUMBER}"
    )


def is_absent(column: str) -> str:
    """Whether a LEFT JOIN has found nothing, by a column that is not NULL where it has. A DATE or
    DATETIME that is NOT NULL and 0000-00-00 `IS NULL` (MySQL manual, "Comparison Functions and
    Operators"), but no function of it is."""
    return f"CONCAT({column}) IS NULL"


def _key_parts(table: Table) -> str:
    return listed(table.names(table.key))


def _stale(table: Table, index: UniqueIndex, stage: str) -> str:
    """What an index is over is worked out for the staged rows first, under names of ours: its
    expressions name the target's columns without a table."""
    keys = {f"cdc k{n}": quoted(table.own[i].name) for n, i in enumerate(table.key)}
    held = {f"cdc u{n}": _of_stage(p) for n, p in enumerate(index.parts)}
    inner = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in (keys | held).items())
    equal = " AND ".join(
        _alike(table, p, f"{S}.{quoted(name)}") for name, p in zip(held, index.parts, strict=True)
    )
    same = []
    for name, i in zip(keys, table.key, strict=True):
        column, key = f"{T}.{quoted(table.own[i].name)}", f"{S}.{quoted(name)}"
        same.append(f"{column} = {key}")
        if not table.own[i].exact:
            same.append(f"{table.exactly(column)} = {table.exactly(key)}")
    hint = f" FORCE INDEX ({quoted(index.name)})" if index.usable and index.plain else ""
    return (
        f" FROM (SELECT {inner} FROM {stage}) AS {S}"
        f" STRAIGHT_JOIN {table.target.sql_name} AS {T}{hint} ON {equal} WHERE ({' AND '.join(same)}) IS NOT TRUE"
    )


def _alike(table: Table, part: IndexPart, staged_value: str) -> str:
    """Whether a part of an index has one value for the source in both rows."""
    value = _of_target(part)
    own = table.alike(table.place(part.column), value, staged_value)
    return f"{value} = {staged_value}{own}"


def _of_stage(part: IndexPart) -> str:
    if part.expression is not None:
        return part.expression
    name = quoted(part.column or "")
    return f"LEFT({name}, {part.prefix})" if part.prefix else name


def _of_target(part: IndexPart) -> str:
    if part.column is None:
        return part.expression or ""
    name = f"{T}.{quoted(part.column)}"
    return f"LEFT({name}, {part.prefix})" if part.prefix else name
