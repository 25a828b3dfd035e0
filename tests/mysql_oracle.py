"""Whether a target holds what a MariaDB or MySQL source holds, as both print it themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

from tests.mysql_databases import MysqlDatabase, quoted
from tests.targets import PostgresTarget, Row, SqliteTarget, Target

BYTES: Final = ("blob", "binary")
NUMBERS: Final = ("float", "double")
INSTANTS: Final = ("datetime", "timestamp")


class Column(NamedTuple):
    """A column of the source: `type` is its whole type, `datetime(6)`."""

    name: str
    base: str
    type: str

    @property
    def fraction(self) -> int:
        """Digits behind the second."""
        return int(self.type[-2]) if self.type.endswith(")") else 0


def differences(source: MysqlDatabase, target: Target, tables: Sequence[str]) -> list[str]:
    """What differs between the two, row by row and column by column; empty if they are equal."""
    return [line for table in tables for line in _differences(source, target, table)]


def _differences(source: MysqlDatabase, target: Target, table: str) -> Iterator[str]:
    columns = _columns(source, table)
    names = [column.name for column in columns]
    key = [names.index(name) for name in _key(source, table)]
    ours = _by_key(mysql_rows(source, table, columns), key)
    theirs = _by_key(target_rows(target, table, columns), key)
    told = []
    for at in ours.keys() | theirs.keys():
        mine, other = ours.get(at, []), theirs.get(at, [])
        if len(mine) != len(other):
            told.append(f"{table} {at}: {len(mine)} rows here, {len(other)} there")
        elif mine != other:
            unlike = [n for n, a, b in zip(names, mine[0], other[0], strict=True) if a != b]
            told.append(f"{table} {at}: differs in {', '.join(unlike)}")
    yield from sorted(told)[:20]
    if len(told) > 20:
        yield f"{table}: {len(told)} rows differ"


def mysql_rows(database: MysqlDatabase, table: str, columns: Sequence[Column]) -> list[Row]:
    """Numbers of floating point as they are, bytes in hex, everything else as the server prints it."""
    session = "SET time_zone = '+00:00'"
    wanted = ", ".join(_printed(column) for column in columns)
    # One query is one consistent read of a table.
    with closing(database.connect(init_command=session)) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT {wanted} FROM {quoted(table)}")
        return list(cursor.fetchall())


def target_rows(target: Target, table: str, columns: Sequence[Column]) -> list[Row]:
    """A target's rows in the same words, where its types are those that the sync makes."""
    if isinstance(target, PostgresTarget):
        wanted = ", ".join(_postgres(column) for column in columns)
        return target.database.rows(f'SELECT {wanted} FROM "{table}"')
    if isinstance(target, SqliteTarget):
        wanted = ", ".join(_sqlite(column) for column in columns)
        return target.rows(f'SELECT {wanted} FROM "{table}"')
    database: MysqlDatabase = target.database  # type: ignore[attr-defined]
    return mysql_rows(database, table, columns)


def _columns(source: MysqlDatabase, table: str) -> list[Column]:
    found = source.rows(
        "SELECT column_name, data_type, column_type FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name = %s ORDER BY ordinal_position",
        [table],
    )
    assert found, f"the source has no table {table}"
    return [Column(*row) for row in found]


def _key(source: MysqlDatabase, table: str) -> list[str]:
    found = source.rows(
        "SELECT column_name FROM information_schema.statistics WHERE table_schema = DATABASE()"
        " AND table_name = %s AND index_name = 'PRIMARY' ORDER BY seq_in_index",
        [table],
    )
    return [name for (name,) in found]


def _by_key(rows: list[Row], key: Sequence[int]) -> dict[Any, list[Row]]:
    """Two rows of one key: one of them must not be there."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[i] for i in key), []).append(row)
    return found


def _printed(column: Column) -> str:
    name = quoted(column.name)
    if column.base.endswith(BYTES):
        return f"LOWER(HEX({name}))"
    if column.base in NUMBERS:
        return name
    return f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"


def _postgres(column: Column) -> str:
    name = f'"{column.name}"'
    if column.base.endswith(BYTES):
        return f"encode({name}, 'hex')"
    if column.base in NUMBERS:
        return name
    if column.base in INSTANTS:
        there = f"{name} AT TIME ZONE 'UTC'" if column.base == "timestamp" else name
        digits = {0: "", 3: ".MS", 6: ".US"}[column.fraction]
        return f"to_char({there}, 'YYYY-MM-DD HH24:MI:SS{digits}')"
    return f"{name}::text"


def _sqlite(column: Column) -> str:
    name = f'"{column.name}"'
    if column.base.endswith(BYTES):
        # hex() of NULL is an empty text.
        return f"CASE WHEN {name} IS NOT NULL THEN lower(hex({name})) END"
    return name if column.base in NUMBERS else f"CAST({name} AS TEXT)"
