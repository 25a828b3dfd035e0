"""The demo's own eyes: reads source and target without any code of the sync that it judges."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import psycopg
from psycopg import conninfo, sql

from appliers.sqlite.connection import path_of

Key = tuple[Any, ...]
Row = tuple[Any, ...]

SESSION: Final = (
    "-c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=3"
    " -c bytea_output=hex"
)
"""How values are printed: the same on both sides, and as the type mapping of SQLite says."""

NUMBERS: Final = {"smallint", "integer", "bigint", "boolean", "double precision", "real", "bytea"}
"""Types that SQLite keeps as numbers or bytes (README, types of SQLite). All others are text there."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the source: what is to be compared, and by which key."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    key: tuple[int, ...]
    """Indices of the primary key's columns."""

    def key_of(self, row: Row) -> Key:
        return tuple(row[i] for i in self.key)


class Missing(Exception):
    """The target has no such table, or lacks one of its columns."""


class Copy(Protocol):
    """A target of the demo, looked at beside the sync."""

    def present(self, tables: Sequence[str]) -> list[str]:
        """Those of `tables` that are there."""

    def remove(self, tables: Sequence[str]) -> None: ...

    def count(self, table: str) -> int | None:
        """Its rows; None where it is not there yet or cannot be read just now."""

    def rows(self, table: Table) -> list[Row]:
        """Every row, its columns in the order of `table`. Raises Missing."""

    def expected(self, table: Table) -> Callable[[str, str], str]:
        """How a column of the source has to be asked for, by its name and type, so that its values
        are those which `rows` must give."""

    def close(self) -> None: ...


class PostgresCopy:
    """Tables in schema `public` of a PostgreSQL database: the source, or a target."""

    def __init__(self, url: str, password: str | None = None) -> None:
        given: dict[str, Any] = conninfo.conninfo_to_dict(url)
        given["options"] = f"{given.get('options') or ''} {SESSION}".strip()
        given["application_name"] = "cdc demo"
        if password is not None:
            given["password"] = password
        info = conninfo.make_conninfo(**given)
        self._db: psycopg.Connection[Row] = psycopg.connect(info, autocommit=True)

    def present(self, tables: Sequence[str]) -> list[str]:
        rows = self._db.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY(%s)",
            (list(tables),),
        )
        return [name for (name,) in rows]

    def remove(self, tables: Sequence[str]) -> None:
        for name in tables:
            self._db.execute(
                sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("public", name))
            )

    def count(self, table: str) -> int | None:
        try:
            row = self._db.execute(
                sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("public", table))
            ).fetchone()
        except psycopg.Error:
            return None
        return row[0] if row else None

    def rows(self, table: Table) -> list[Row]:
        try:
            return self.select(table, self.expected(table))
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as e:
            raise Missing(e.diag.message_primary) from e

    def expected(self, table: Table) -> Callable[[str, str], str]:
        return lambda name, _: f"{name}::text"

    def select(self, table: Table, ask: Callable[[str, str], str]) -> list[Row]:
        """Every row, each column asked for as `ask` says."""
        asked = ", ".join(
            ask(sql.Identifier(name).as_string(), kind)
            for name, kind in zip(table.columns, table.types, strict=True)
        )
        return self._db.execute(
            f"SELECT {asked} FROM {sql.Identifier('public', table.name).as_string()}"
        ).fetchall()

    def table(self, name: str) -> Table:
        """What the catalogue says of a table."""
        columns = self._db.execute(
            "SELECT attname, format_type(atttypid, NULL), attnum FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (f"public.{name}",),
        ).fetchall()
        key = self._db.execute(
            "SELECT unnest(conkey) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'",
            (f"public.{name}",),
        ).fetchall()
        at = {number: i for i, (_, _, number) in enumerate(columns)}
        return Table(
            name,
            tuple(c for c, _, _ in columns),
            tuple(t for _, t, _ in columns),
            tuple(at[number] for (number,) in key),
        )

    def head(self) -> str:
        """The end of the log."""
        [(position,)] = self._db.execute("SELECT pg_current_wal_insert_lsn()::text").fetchall()
        return str(position)

    def is_behind(self, position: str, reached: str | None) -> bool:
        """Whether the log's `position` lies at or before the one that was reached."""
        [(behind,)] = self._db.execute(
            "SELECT %s::pg_lsn <= coalesce(%s, '0/0')::pg_lsn", (position, reached)
        ).fetchall()
        return bool(behind)

    def close(self) -> None:
        self._db.close()


class SqliteCopy:
    """A SQLite file. What it keeps as numbers and bytes is compared as such, type and value; all
    else as PostgreSQL prints it."""

    def __init__(self, url: str) -> None:
        self._file = path_of(url)

    def present(self, tables: Sequence[str]) -> list[str]:
        found = self._ask("SELECT name FROM sqlite_master")
        return [name for (name,) in found if name in tables]

    def remove(self, tables: Sequence[str]) -> None:
        with sqlite3.connect(self._file) as db:
            for name in tables:
                db.execute(f'DROP TABLE IF EXISTS "{name}"')
        db.close()

    def count(self, table: str) -> int | None:
        try:
            return int(self._ask(f'SELECT count(*) FROM "{table}"')[0][0])
        except (sqlite3.Error, IndexError):
            return None

    def rows(self, table: Table) -> list[Row]:
        # A quoted name that is no column would be taken for a string: with the table's it is not.
        asked = ", ".join(f'"{table.name}"."{c}"' for c in table.columns)
        try:
            return self._ask(f'SELECT {asked} FROM "{table.name}"')
        except sqlite3.OperationalError as e:
            raise Missing(str(e)) from e

    def expected(self, table: Table) -> Callable[[str, str], str]:
        return lambda name, kind: name if kind in NUMBERS else f"{name}::text"

    def close(self) -> None:
        """Nothing is held open between two looks."""

    def _ask(self, statement: str) -> list[Row]:
        if not self._file.exists():
            return []
        db = sqlite3.connect(f"{self._file.as_uri()}?mode=ro", uri=True)
        try:
            return db.execute(statement).fetchall()
        finally:
            db.close()
