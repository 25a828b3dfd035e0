"""Table maps and what reads the rows behind them."""

from __future__ import annotations

from typing import Final

from appliers.relation import Relation
from cdc.sources.mysql import table_map
from cdc.sources.mysql.rows import RowsReader
from cdc.sources.mysql.tables import Tables

REMEMBERED: Final = 2_000
"""Table maps that are remembered. The server gives a table another number whenever it opens it anew."""

Target = tuple[Relation, RowsReader]


class Shapes:
    """Remembers table maps by their bytes, so that a table map costs one look-up; the relation and
    its reader are made once per shape, whatever number the server gives the table."""

    def __init__(self, tables: Tables, *, mariadb: bool) -> None:
        self.of_number: dict[bytes, Target | None] = {}
        """By the 6 bytes that rows begin with; None: not synced."""
        self._tables = tables
        self._mariadb = mariadb
        self._maps: dict[bytes, Target | None] = {}
        self._shapes: dict[bytes, Target | None] = {}

    def add(self, body: bytes) -> None:
        """A table map's body. Raises what `Tables.of_map` raises."""
        maps = self._maps
        if body not in maps:
            shape = body[6:]
            if shape not in self._shapes:
                self._shapes[shape] = self._tables.of_map(
                    table_map.parse(body, mariadb=self._mariadb)
                )
            maps[body] = self._shapes[shape]
        self.of_number[body[:6]] = maps[body]

    def trim(self) -> None:
        """Between transactions: no rows will follow that refer to a table map from before."""
        if len(self._maps) > REMEMBERED:
            self.forget()

    def forget(self) -> None:
        """Shapes may mean something else now. Numbers stay: rows of a statement may still follow."""
        self._maps.clear()
        self._shapes.clear()
