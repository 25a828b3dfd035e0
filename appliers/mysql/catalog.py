"""What the target's catalog says of one table."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import pymysql

from appliers.mysql.names import folded, quoted
from appliers.mysql.session import Session

_GENERATED: Final = re.compile(r"\b(VIRTUAL|STORED|PERSISTENT)( GENERATED)?\b", re.IGNORECASE)
"""In EXTRA of a generated column; `DEFAULT_GENERATED` is an expression as default."""

EXACT: Final = ("binary", "utf8mb4_0900_bin")
"""Collations under which equal is equal byte for byte, beside MariaDB's that end in `_nopad_bin`. The
other `_bin` ones ignore blanks at the end (PAD SPACE)."""

TEXTS: Final = frozenset("char varchar tinytext text mediumtext longtext".split())


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """A column of a table on the target, as information_schema.COLUMNS has it."""

    name: str
    data_type: str
    """Lower case, without modifiers: `int`, `varchar`, `datetime`."""
    column_type: str
    """With them: `int(10) unsigned`, `varchar(40)`, `datetime(6)`."""
    charset: str | None
    collation: str | None
    nullable: bool
    generated: bool
    numeric_precision: int | None
    numeric_scale: int | None
    datetime_precision: int | None
    octet_length: int | None
    auto_increment: bool
    has_default: bool = False
    """Whether it may be left out of an INSERT."""
    changes_itself: bool = False
    """ON UPDATE CURRENT_TIMESTAMP: an UPDATE that does not set it changes it."""
    expression: str | None = None
    """Of a generated column."""

    @property
    def exact(self) -> bool:
        """Whether two values that differ byte for byte can never be equal here."""
        if self.data_type not in TEXTS:
            return True
        collation = self.collation or ""
        return collation in EXACT or collation.endswith("_nopad_bin")


@dataclass(frozen=True, slots=True)
class IndexPart:
    """One part of an index: a column, the first `prefix` characters of one, or an expression."""

    column: str | None
    prefix: int | None
    expression: str | None
    """SQL over the table's columns, unqualified; of a column that is generated, too."""


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    name: str
    parts: tuple[IndexPart, ...]
    usable: bool
    """Whether FORCE INDEX takes it, and rows can be found by it: not if it is invisible or a hash."""

    @property
    def plain(self) -> tuple[str, ...] | None:
        """Its columns, if it is over whole columns alone that are not computed."""
        names = [
            p.column
            for p in self.parts
            if p.prefix is None and p.expression is None and p.column is not None
        ]
        return tuple(names) if len(names) == len(self.parts) else None


@dataclass(slots=True)
class TargetTable:
    """A table on the target, as it is now."""

    name: str
    engine: str
    """Empty for a view."""
    columns: dict[str, TargetColumn]
    """By folded name, in their order."""
    uniques: list[UniqueIndex] = field(default_factory=list)

    @property
    def sql_name(self) -> str:
        return quoted(self.name)

    def column(self, name: str) -> TargetColumn | None:
        return self.columns.get(folded(name))


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key between two tables of the target's database."""

    name: str
    child: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    acting: bool = False
    """Whether it deletes or changes rows of the child by itself (CASCADE, SET NULL)."""


def find_table(session: Session, name: str) -> tuple[str, str | None] | None:
    """The name, as the server has it, and engine of the table or view `name` of the URL's database; None
    where there is none."""
    found = session.rows(
        "SELECT table_name, engine FROM information_schema.tables"
        " WHERE table_schema = DATABASE() AND table_name = ?",
        (name,),
    )
    return (found[0][0], found[0][1]) if found else None


def read_table(session: Session, name: str) -> TargetTable | None:
    """The table or view; None where there is none (see `find_table`)."""
    found = find_table(session, name)
    if found is None:
        return None
    real, engine = found
    columns = session.rows(
        "SELECT column_name, data_type, column_type, character_set_name, collation_name, is_nullable,"
        " extra, generation_expression, column_default, numeric_precision, numeric_scale,"
        " datetime_precision, character_octet_length FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position",
        (real,),
    )
    table = TargetTable(real, engine or "", {folded(c[0]): _column(c) for c in columns})
    table.uniques = _uniques(session, table)
    return table


def demand_uniques(session: Session, table: TargetTable) -> None:
    """Raises an error (1176) that asks for another look at the table if its unique indexes are not
    those that were found."""
    number = session.value(
        "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE()"
        " AND table_name = ? AND non_unique = 0",
        (table.name,),
    )
    if number != sum(len(u.parts) for u in table.uniques):
        raise pymysql.err.OperationalError(1176, "the table has other unique indexes than before")


def read_foreign_keys(session: Session) -> list[ForeignKey]:
    """All of the URL's database: one question for all tables, because MariaDB opens every table of
    the database to answer it.

    Two queries and no join: for a join MariaDB opens the tables of all databases (EXPLAIN on 10.11:
    "Scanned all databases").
    """
    acting = {
        (table, name)
        for table, name, on_delete, on_update in session.rows(
            "SELECT table_name, constraint_name, delete_rule, update_rule"
            " FROM information_schema.referential_constraints WHERE constraint_schema = DATABASE()"
        )
        if not {on_delete, on_update} <= {"RESTRICT", "NO ACTION"}
    }
    grouped: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for table, name, *part in session.rows(
        "SELECT table_name, constraint_name, column_name, referenced_table_name,"
        " referenced_column_name FROM information_schema.key_column_usage"
        " WHERE table_schema = DATABASE() AND referenced_table_schema = DATABASE()"
        " ORDER BY table_name, constraint_name, ordinal_position"
    ):
        grouped.setdefault((table, name), []).append(tuple(part))
    return [
        ForeignKey(
            name,
            table,
            tuple(p[0] for p in parts),
            parts[0][1],
            tuple(p[2] for p in parts),
            acting=(table, name) in acting,
        )
        for (table, name), parts in grouped.items()
    ]


def read_tied_outside(session: Session) -> set[str]:
    """The tables, in folded names, that refer to another database's or are referred to by them."""
    found = session.rows(
        "SELECT table_name FROM information_schema.key_column_usage"
        " WHERE table_schema = DATABASE() AND referenced_table_schema <> DATABASE()"
        " UNION SELECT referenced_table_name FROM information_schema.key_column_usage"
        " WHERE referenced_table_schema = DATABASE() AND table_schema <> DATABASE()"
    )
    return {str(name).lower() for (name,) in found}


def _column(row: tuple[Any, ...]) -> TargetColumn:
    name, data_type, column_type, charset, collation, nullable, extra, expression, default = row[:9]
    precision, scale, seconds, octets = row[9:]
    generated = bool(expression) or _GENERATED.search(extra) is not None
    return TargetColumn(
        name,
        data_type.lower(),
        _text(column_type),
        charset,
        collation,
        nullable=nullable == "YES",
        generated=generated,
        numeric_precision=precision,
        numeric_scale=scale,
        datetime_precision=seconds,
        octet_length=octets,
        auto_increment="auto_increment" in extra.lower(),
        has_default=default is not None or nullable == "YES" or "auto_increment" in extra.lower(),
        changes_itself="on update" in extra.lower(),
        expression=_text(expression) if expression else None,
    )


def _uniques(session: Session, table: TargetTable) -> list[UniqueIndex]:
    """The primary key first."""
    extra = "NULL, 'YES'"
    if session.flavour == "mysql":
        extra = "expression, is_visible"
    elif session.version >= (10, 6):
        extra = "NULL, IF(ignored = 'YES', 'NO', 'YES')"
    rows = session.rows(
        f"SELECT index_name, column_name, sub_part, index_type, {extra}"
        " FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = ?"
        " AND non_unique = 0 ORDER BY index_name <> 'PRIMARY', index_name, seq_in_index",
        (table.name,),
    )
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return [
        UniqueIndex(
            name,
            tuple(_part(table, r) for r in parts),
            usable=parts[0][3] == "BTREE" and parts[0][5] == "YES",
        )
        for name, parts in found.items()
    ]


def _part(table: TargetTable, row: tuple[Any, ...]) -> IndexPart:
    _, name, prefix, _, expression, _ = row
    column = table.column(name) if name is not None else None
    if column is not None and column.generated:
        expression = column.expression
    # MySQL escapes the quotes of an index's expression.
    text = _text(expression).replace("\\'", "'") if expression else None
    return IndexPart(name, prefix, text)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
