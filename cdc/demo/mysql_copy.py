"""The demo's eyes on a MySQL or MariaDB target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pymysql

from appliers import mysql_url
from cdc.demo.copies import NUMBERS, Missing, Row, Table

SAME: Final = NUMBERS - {"boolean"}
"""Types whose values come to us as Python's own from both sides. All others are compared as text."""

GONE: Final = (1054, 1146)
"""No such column, no such table."""


class MysqlCopy:
    """The tables in the database of the URL. Values as docs/types.md says: truth as a number, times in
    UTC without a zone, all else as PostgreSQL prints it."""

    def __init__(self, url: str, password: str | None = None) -> None:
        self._db = mysql_url.Connection(
            **mysql_url.arguments(url, password), charset="utf8mb4", autocommit=True
        )

    def present(self, tables: Sequence[str]) -> list[str]:
        return [name for (name,) in self._rows("SHOW TABLES") if name in tables]

    def remove(self, tables: Sequence[str]) -> None:
        for name in tables:
            self._rows(f"DROP TABLE IF EXISTS `{name}`")

    def count(self, table: str) -> int | None:
        try:
            return int(self._rows(f"SELECT count(*) FROM `{table}`")[0][0])
        except pymysql.Error:
            return None

    def rows(self, table: Table) -> list[Row]:
        asked = ", ".join(map(_asked, table.columns, table.types))
        try:
            return self._rows(f"SELECT {asked} FROM `{table.name}`")
        except pymysql.Error as e:
            if e.args[0] not in GONE:
                raise
            raise Missing(e.args[1]) from e

    def expected(self, table: Table) -> Callable[[str, str], str]:
        return _expected

    def close(self) -> None:
        self._db.close()

    def _rows(self, statement: str) -> list[Row]:
        with self._db.cursor() as cursor:
            cursor.execute(statement)
            found: list[Any] = list(cursor.fetchall())
        return found


def _asked(column: str, kind: str) -> str:
    return f"`{column}`" if kind in SAME else f"CAST(`{column}` AS CHAR)"


def _expected(column: str, kind: str) -> str:
    """What PostgreSQL is to be asked for."""
    if kind in SAME:
        return column
    if kind == "boolean":
        return f"{column}::int::text"
    if kind == "timestamp with time zone":
        return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
    return f"{column}::text"
