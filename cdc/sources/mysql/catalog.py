"""Which tables a MySQL or MariaDB source has, what identifies their rows, and which cannot be synced."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from appliers.errors import PermanentError
from appliers.images import Format
from appliers.relation import Column, Relation
from cdc.sources.mysql.connection import Connection, one, quoted, rows, server_of
from cdc.sources.mysql.grants import Grants, account
from cdc.sources.source import Catalog, Refused

SYSTEM: Final = ("information_schema", "mysql", "performance_schema", "sys")
ENGINE: Final = "InnoDB"
VERSIONED: Final = "SYSTEM VERSIONED"
"""A kind of tables: MariaDB's that keep the history of their rows."""
OWN: Final = "cdc_"

ADD_KEY: Final = "ALTER TABLE {} ADD PRIMARY KEY (…), or a UNIQUE index on NOT NULL columns"

_TABLES = """
    SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, CAST(TABLE_ROWS AS CHAR), CAST(AVG_ROW_LENGTH AS CHAR)
    FROM information_schema.TABLES WHERE {}"""

_COLUMNS = """
    SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, IS_NULLABLE, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME,
           COLLATION_NAME, CHARACTER_OCTET_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, EXTRA
    FROM information_schema.COLUMNS WHERE {} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"""

_INDEXES = """
    SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, INDEX_TYPE
    FROM information_schema.STATISTICS WHERE {} AND NON_UNIQUE = 0 AND {}
    ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"""

_SEEN: Final = {"mysql": "IS_VISIBLE = 'YES'", "mariadb": "IGNORED = 'NO'"}
"""No copy can be read through an index that the optimizer is not to see."""

_COMMENT = re.compile(r"\s*/\*.*?\*/")


@dataclass(frozen=True, slots=True)
class Field:
    """A column as information_schema has it."""

    name: str
    nullable: bool
    base: str
    """DATA_TYPE in lower case."""
    type: str
    """COLUMN_TYPE, without what MariaDB writes in comments (`/*M!100301 COMPRESSED*/`)."""
    charset: str | None
    collation: str | None
    octets: int | None
    """The most bytes that a text or binary value may have."""
    precision: int | None
    scale: int | None
    extra: str

    @property
    def virtual(self) -> bool:
        """Computed when it is read: not stored, so not a key that the log could be trusted to have."""
        return "VIRTUAL" in self.extra.upper()

    @property
    def unsigned(self) -> bool:
        return "unsigned" in self.type

    @property
    def column(self) -> Column:
        kind = "enum" if self.base == "enum" else "base"
        rule = self.collation or ""
        return Column(
            *(self.name, self.type, self.base, kind, self.nullable),
            folds="_ci" in rule,
            collation=rule,
        )


@dataclass
class Table:
    """A table's rows in information_schema."""

    schema: str
    name: str
    kind: str
    engine: str | None
    rows_estimated: int
    row_length: int
    """Bytes of an average row, as far as the server knows."""
    fields: list[Field] = field(default_factory=list)
    indexes: dict[str, list[tuple[str | None, Any, str]]] = field(default_factory=dict)
    """Unique ones: columns, lengths of their prefixes, and the index's type."""

    @property
    def table(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        return quoted(self.schema, self.name)

    def field_of(self, name: str) -> Field:
        return next(f for f in self.fields if f.name == name)

    def key(self) -> tuple[str, list[str]] | None:
        """The index that identifies a row, and its columns: the primary key, else the unique index of
        NOT NULL columns with the fewest of them. Not one on prefixes of values or on expressions,
        which leaves rows alike that are not."""
        at = {f.name: f for f in self.fields}
        usable = []
        for index, parts in self.indexes.items():
            names = [name for name, _, _ in parts if name in at]
            whole = len(names) == len(parts) and all(
                prefix is None and kind == "BTREE" for _, prefix, kind in parts
            )
            if whole and not any(at[n].nullable or at[n].virtual for n in names):
                usable.append((index != "PRIMARY", len(names), index, names))
        if not usable:
            return None
        _, _, index, names = min(usable)
        return index, names

    def refusal(self) -> Refused | None:
        """Why this table cannot be synced, if it cannot."""
        if self.kind in ("VIEW", "SYSTEM VIEW"):
            return Refused(
                self.table,
                "is a view: its changes are not in the log",
                "sync the tables behind it",
            )
        if self.kind == VERSIONED:
            return Refused(
                self.table,
                "keeps the history of its rows: the log does not tell them from those that are there",
                f"ALTER TABLE {self.quoted} DROP SYSTEM VERSIONING;",
            )
        if self.kind != "BASE TABLE":
            return Refused(self.table, f"is a {self.kind.lower()}, no table", "leave it out")
        if self.engine != ENGINE:
            return Refused(
                self.table,
                f"is of engine {self.engine or 'none that works'}, expected {ENGINE}: without transactions no"
                " copy of it is exact",
                f"ALTER TABLE {self.quoted} ENGINE = {ENGINE};",
            )
        if self.key() is None:
            return Refused(
                self.table,
                "has no usable key: no row can be told from another",
                ADD_KEY.format(self.quoted),
            )
        return None

    def relation(self, home: str) -> Relation:
        """The relation of a table whose `refusal` is None."""
        _, names = self.key() or ("", [])
        at = {f.name: i for i, f in enumerate(self.fields)}
        return Relation(
            schema=self.schema,
            name=self.name,
            columns=tuple(f.column for f in self.fields),
            key_columns=tuple(at[n] for n in names),
            format=Format.LINE,
            dialect="mysql",
            whole_before=True,
            home=home,
        )

    def fingerprint(self) -> str:
        """What a plan of ranges of keys, and the text of the values read by it, depend on."""
        shape = [[f.name, f.type, f.charset, f.collation, f.virtual] for f in self.fields]
        text = json.dumps([shape, self.key()])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def load_tables(
    db: Connection, schemas: Iterable[str], only: tuple[str, str] | None = None
) -> list[Table]:
    """Every table and view of these databases, or the one table `only`, in three statements.

    MariaDB opens each table of a database that is asked for, so that others are not."""
    wanted = [only[0]] if only else sorted(schemas)
    if not wanted:
        return []
    condition = f"TABLE_SCHEMA IN ({', '.join(['%s'] * len(wanted))})"
    values: list[str] = list(wanted)
    if only:
        condition += " AND TABLE_NAME = %s"
        values.append(only[1])
    found = rows(db, _TABLES.format(condition), values)
    tables = {
        (r[0], r[1]): Table(r[0], r[1], r[2], r[3], int(r[4] or 0), int(r[5] or 0))
        for r in sorted(found, key=lambda r: (r[0], r[1]))
    }
    for schema, name, *rest in rows(db, _COLUMNS.format(condition), values):
        if (table := tables.get((schema, name))) is not None:
            table.fields.append(_field(rest))
    indexes = _INDEXES.format(condition, _SEEN[server_of(db).flavour])
    for schema, name, index, *part in rows(db, indexes, values):
        if (table := tables.get((schema, name))) is not None:
            table.indexes.setdefault(index, []).append((part[0], part[1], part[2]))
    return list(tables.values())


def table_now(db: Connection, schema: str, name: str) -> Table | None:
    """A table as it is now; None if it is not there."""
    found = load_tables(db, (), (schema, name))
    return found[0] if found else None


def _field(row: Sequence[Any]) -> Field:
    name, nullable, base, type_, charset, collation, octets, precision, scale, extra = row
    return Field(
        name,
        nullable == "YES",
        _text(base).lower(),
        _COMMENT.sub("", _text(type_)),
        charset,
        collation,
        None if octets is None else int(octets),
        None if precision is None else int(precision),
        None if scale is None else int(scale),
        _text(extra),
    )


def _text(value: Any) -> str:
    """MySQL's dictionary has some of its texts as binary."""
    return value.decode() if isinstance(value, bytes) else str(value or "")


def schemas_of(patterns: Sequence[str], home: str) -> set[str]:
    """The databases that have to be looked at for these patterns. A name with a dot may be a table of
    the URL's database too."""
    return {home} | {p.partition(".")[0] for p in patterns if "." in p} - set(SYSTEM)


def select(
    tables: Sequence[Table], patterns: Sequence[str], home: str
) -> tuple[list[Table], list[Refused]]:
    """The tables that patterns stand for. Raises PermanentError for a named table that is not there
    or cannot be synced; what only a wildcard covers is refused by name."""
    chosen: dict[str, Table] = {}
    refused: dict[str, Refused] = {}
    for pattern in patterns:
        wildcard = pattern == "*" or pattern.endswith(".*")
        schema = home if pattern == "*" else pattern[:-2]
        matches = _wild(tables, schema) if wildcard else [_named(tables, pattern, home)]
        for table in matches:
            refusal = table.refusal()
            if wildcard and refusal is None and table.name.startswith(OWN):
                refusal = Refused(
                    table.table,
                    f"begins with {OWN}, as what a sync keeps on its target does",
                    "name it in `tables` if it is another",
                )
            if refusal is None:
                chosen[table.table] = table
            elif wildcard:
                refused[table.table] = refusal
            else:
                raise PermanentError(f"table {refusal.table} {refusal.reason}", refusal.remedy)
    return list(chosen.values()), list(refused.values())


def _wild(tables: Sequence[Table], schema: str) -> list[Table]:
    """Views and sequences are no tables to a wildcard."""
    return [t for t in tables if t.schema == schema and t.kind in ("BASE TABLE", VERSIONED)]


class UnseenError(PermanentError):
    """A table that is named is not there, or is not shown to this user. `name` is how SQL has it."""

    def __init__(self, pattern: str, home: str) -> None:
        super().__init__(
            f"table {pattern} does not exist on the source, or its user may not see it",
            "compare `tables` in the configuration with the source's tables",
        )
        schema, dot, name = pattern.partition(".")
        self.schema = schema if dot else home
        self.name = quoted(self.schema, name if dot else pattern)


def _named(tables: Sequence[Table], pattern: str, home: str) -> Table:
    """A bare name means the URL's database."""
    by_name = {t.table: t for t in tables} | {t.name: t for t in tables if t.schema == home}
    if (found := by_name.get(pattern)) is None:
        raise UnseenError(pattern, home)
    return found


def catalog_of(
    db: Connection, patterns: Sequence[str], home: str
) -> tuple[Catalog, dict[str, Table]]:
    """What the patterns stand for, and the tables behind it by their names."""
    tables = load_tables(db, schemas_of(patterns, home))
    try:
        chosen, refused = select(tables, patterns, home)
    except UnseenError as e:
        if not Grants(db, server_of(db)).may({"SELECT"}, e.schema, "*"):
            user = account(str(one(db, "SELECT CURRENT_USER()")[0]))
            e.hint += f"; if it is there: GRANT SELECT ON {e.name} TO {user};"
        raise
    relations = tuple(t.relation(home) for t in chosen)
    return Catalog(relations, tuple(refused)), {t.table: t for t in chosen}
