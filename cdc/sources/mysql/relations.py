"""Relations for the shapes that the log announces, which may be older than the catalog's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final

from appliers.errors import PermanentError
from appliers.images import Format
from appliers.relation import Column, Relation, index_of
from cdc.sources.mysql import codes
from cdc.sources.mysql.catalog import ADD_KEY, VERSIONED, Field, Table, table_now
from cdc.sources.mysql.charsets import BINARY
from cdc.sources.mysql.connection import Connection, quoted
from cdc.sources.mysql.reach import Reach
from cdc.sources.mysql.rows import RowsReader, compile_rows
from cdc.sources.mysql.surroundings import Surroundings
from cdc.sources.mysql.table_map import LoggedColumn, TableMap
from cdc.sources.mysql.tables import Doubt
from cdc.sources.source import Shape

Connect = Callable[[], Connection]

BASES: Final[dict[int, str]] = {
    codes.TINY: "tinyint",
    codes.SHORT: "smallint",
    codes.INT24: "mediumint",
    codes.LONG: "int",
    codes.LONGLONG: "bigint",
    codes.NEWDECIMAL: "decimal",
    codes.FLOAT: "float",
    codes.DOUBLE: "double",
    codes.BIT: "bit",
    codes.YEAR: "year",
    codes.DATE: "date",
    codes.NEWDATE: "date",
    codes.TIME: "time",
    codes.TIME2: "time",
    codes.DATETIME: "datetime",
    codes.DATETIME2: "datetime",
    codes.TIMESTAMP: "timestamp",
    codes.TIMESTAMP2: "timestamp",
    codes.ENUM: "enum",
    codes.SET: "set",
    codes.JSON: "json",
    codes.GEOMETRY: "geometry",
    codes.VECTOR: "vector",
}
"""What information_schema calls a type that has one name only."""

_UNSIGNED: Final = {
    "tinyint",
    "smallint",
    "mediumint",
    "int",
    "bigint",
    "decimal",
    "float",
    "double",
}
_FRACTIONS: Final = {codes.TIME2, codes.DATETIME2, codes.TIMESTAMP2}
_STRINGS: Final = {
    codes.STRING,
    codes.VARCHAR,
    codes.VAR_STRING,
    codes.VARCHAR_COMPRESSED,
}
_BLOBS: Final = {1: "tiny", 2: "", 3: "medium", 4: "long"}
_OF_STRING: Final = {"char", "varchar", "binary", "varbinary"}


class SyncedTables:
    """The tables of one stream, as the log shows them: names, types and nullability come from each
    table map, so that a change of shape that is hidden from the log (`sql_log_bin = 0`) misaligns
    nothing; the catalog adds what a map does not say, where the two agree. Used by one thread."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        home: str,
        connect: Connect,
        shape: Shape,
        *,
        folds_names: bool,
    ) -> None:
        self.folds_names = folds_names
        self._tables = {(t.schema, t.name): t for t in tables.values()}
        self._names = frozenset(self._tables)
        self._home = home
        self._connect = connect
        self._shape = shape
        self._surroundings = Surroundings(connect, folds_names=folds_names)
        self._stale: set[tuple[str, str]] = set()
        self._made: dict[tuple[object, ...], tuple[Relation, RowsReader]] = {}
        self._last: dict[tuple[str, str], Relation] = {}

    def names(self) -> frozenset[tuple[str, str]]:
        return self._names

    def of_map(self, table_map: TableMap) -> tuple[Relation, RowsReader] | None:
        """See `tables.Tables`. One shape has one relation, whatever number its map has."""
        name = (table_map.schema, table_map.name)
        if name not in self._names:
            return None
        if table_map.problem is not None:
            raise table_map.problem
        if not table_map.named:
            raise PermanentError(
                f"table {table_map.table}: the log has its columns without their names",
                "SET GLOBAL binlog_row_metadata = FULL; the changes until then are lost for this sync:"
                " `cdc drop` it and start it anew",
            )
        shape = (name, table_map.columns, table_map.key)
        if (known := self._made.get(shape)) is not None and name not in self._stale:
            self._last[name] = known[0]
            return known
        table = self._table(table_map)
        fields = {f.name: f for f in table.fields} if table else {}
        matched = [_matching(c, fields.get(c.name or "")) for c in table_map.columns]
        columns = tuple(
            _column(c, field) for c, field in zip(table_map.columns, matched, strict=True)
        )
        relation = self._shape(
            Relation(
                schema=table_map.schema,
                name=table_map.name,
                columns=columns,
                key_columns=_key(table_map, columns, table),
                format=Format.LINE,
                dialect="mysql",
                whole_before=True,
                home=self._home,
            )
        )
        for known_one in (known and known[0], self._last.get(name)):
            if known_one is not None and _alike(known_one, relation):
                relation = known_one
                break
        reader = compile_rows(table_map, [field.type if field else None for field in matched])
        self._made[shape] = relation, reader
        self._last[name] = relation
        return relation, reader

    def of_name(self, database: str, table: str) -> Relation:
        name = (database, table)
        if (known := self._last.get(name)) is None:
            known = self._last[name] = self._shape(self._tables[name].relation(self._home))
        return known

    def changed(self, database: str, table: str) -> None:
        if (database, table) in self._names:
            self._stale.add((database, table))

    def doubt(self, reach: Reach, place: tuple[str, int], *, passing: bool) -> Doubt | None:
        return self._surroundings.doubt(reach, place, passing=passing)

    def moved(self) -> None:
        self._surroundings.forget()

    def _table(self, table_map: TableMap) -> Table | None:
        """The table's catalog; read again where it does not fit the map. None: it is gone."""
        name = (table_map.schema, table_map.name)
        known = self._tables[name]
        names = [c.name for c in table_map.columns]
        if name in self._stale or [f.name for f in known.fields] != names:
            with closing(self._connect()) as db:
                now = table_now(db, *name)
            self._stale.discard(name)
            if now is None:
                return None
            if now.kind == VERSIONED and (refused := now.refusal()) is not None:
                raise PermanentError(f"table {refused.table} {refused.reason}", refused.remedy)
            self._tables[name] = now
            return now
        return known


def _alike(one: Relation, other: Relation) -> bool:
    return one.columns == other.columns and one.key_columns == other.key_columns


def _key(table_map: TableMap, columns: Sequence[Column], table: Table | None) -> tuple[int, ...]:
    """The catalog's key, where the map has its columns and no primary key of another kind: that is
    the key which the table had then."""
    index, names = (table.key() if table else None) or ("", [])
    logged = [columns[i].name for i in table_map.key or ()]
    at = {c.name for c in columns}
    missing = not names or not set(names) <= at
    if logged and set(logged) != set(names) and (missing or index == "PRIMARY"):
        names = logged
    if not names or not set(names) <= at:
        raise PermanentError(
            f"table {table_map.table} has lost its key: no row can be told from another",
            ADD_KEY.format(quoted(table_map.schema, table_map.name)),
        )
    return index_of(columns, names)


def _matching(column: LoggedColumn, field: Field | None) -> Field | None:
    """The catalog's column of this name, if it is of the type that the log has."""
    if field is None:
        return None
    base = BASES.get(column.type)
    if base is None:
        return field if _is_string(column, field) else None
    if field.base != base and not (column.type == codes.GEOMETRY and not field.octets):
        return None
    differs = (
        (base in _UNSIGNED and field.unsigned is not bool(column.unsigned))
        or (base == "decimal" and column.meta != (field.precision, field.scale))
        or (base == "bit" and column.meta[0] != field.precision)
        or (column.type in _FRACTIONS and _fraction(base, column.meta[0]) != field.type.lower())
        or (base in ("enum", "set") and len(column.labels or ()) != _count(field.type))
    )
    return None if differs else field


def _is_string(column: LoggedColumn, field: Field) -> bool:
    """Whether a text or binary column of the log can be this one. MariaDB's uuid and inet6 look like
    binary ones there."""
    if column.type in _STRINGS:
        if field.base in _OF_STRING:
            return (column.collation == BINARY) == field.base.endswith("binary")
        return field.octets is None and field.base not in BASES.values()
    if field.base.endswith(("text", "blob")):
        binary = field.base.endswith("blob")
        return (column.collation == BINARY) == binary and column.type not in _STRINGS
    return False


def _column(column: LoggedColumn, field: Field | None) -> Column:
    """The catalog's column where there is one, else one made of what the log says."""
    name = column.name or ""
    if field is not None:
        return replace(field.column, name=name, nullable=column.nullable)
    base = BASES.get(column.type) or _string_base(column)
    kind = "enum" if base == "enum" else "base"
    return Column(name, _declared(column, base), base, kind, column.nullable)


def _string_base(column: LoggedColumn) -> str:
    binary = column.collation == BINARY
    if column.type == codes.STRING:
        return "binary" if binary else "char"
    if column.type in _STRINGS:
        return "varbinary" if binary else "varchar"
    return _BLOBS.get(column.meta[0], "long") + ("blob" if binary else "text")


def _declared(column: LoggedColumn, base: str) -> str:
    """A type as DDL, of what the log says. Lengths of texts are in bytes: wide enough in any case."""
    if base in ("enum", "set"):
        labels = ",".join(
            "'" + label.decode(errors="replace").replace("'", "''") + "'"
            for label in column.labels or ()
        )
        return f"{base}({labels})"
    if base in _OF_STRING:
        return f"{base}({max(column.meta[0], 1)})"
    if base == "decimal":
        base = f"decimal({column.meta[0]},{column.meta[1]})"
    elif base == "bit":
        return f"bit({column.meta[0]})"
    elif column.type in _FRACTIONS:
        return _fraction(base, column.meta[0])
    return f"{base} unsigned" if column.unsigned and base != "year" else base


def _fraction(base: str, digits: int) -> str:
    return f"{base}({digits})" if digits else base


def _count(declared: str) -> int:
    """The labels of an ENUM or SET as information_schema writes them: quotes in labels are doubled."""
    inside = declared[declared.index("(") + 1 : declared.rindex(")")]
    count, quoted_now = 1, False
    for letter in inside:
        if letter == "'":
            quoted_now = not quoted_now
        elif letter == "," and not quoted_now:
            count += 1
    return count
