"""A table on a MySQL or MariaDB target, made and filled through what stands between source and target:
the types of created tables and the conversion of values. No applier: one plain INSERT per row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing, contextmanager
from itertools import zip_longest
from typing import Any

from appliers.delta import Value
from appliers.images import Format, compose, copy_text_line
from appliers.lines import NULL
from appliers.mysql import values
from appliers.mysql.catalog import read_table
from appliers.mysql.names import quoted
from appliers.mysql.pairs import HEXADECIMAL_TARGETS
from appliers.mysql.session import Session
from appliers.mysql.types import created_columns
from appliers.relation import Column, Relation
from appliers.unrepresentable import DEFAULT, Nulled, Unrepresentable
from cdc.sources.mysql import connection as mysql_source
from cdc.sources.mysql import printing, results
from cdc.sources.mysql.catalog import table_now
from cdc.sources.postgres import connection as postgres_source
from cdc.sources.postgres.catalog import load_tables, relation_of
from cdc.sources.postgres.types import TypeCatalog
from tests.databases import Database
from tests.mysql_databases import MysqlDatabase

Printed = tuple[bytes | None, ...]


def columns_relation(*types: tuple[str, str], dialect: str = "postgres") -> Relation:
    """A table with a number as its key and columns `c0`, `c1`, … of these types and their bases; its
    images are lines."""
    columns = [
        Column(f"c{i}", t, base, "enum" if base == "enum" else "base")
        for i, (t, base) in enumerate(types)
    ]
    key = Column("id", "integer", "int4" if dialect == "postgres" else "int", nullable=False)
    return Relation("public", "t", (key, *columns), (0,), Format.LINE, dialect)


def postgres_relation(source: Database, table: str) -> Relation:
    """What the source says of a table; its images are what pgoutput prints."""
    with closing(postgres_source.connect(source.url)) as db:
        [found] = [t for t in load_tables(db) if t.name == table]
        return relation_of(db, TypeCatalog(), found)


def copied_lines(source: Database, relation: Relation) -> list[bytes]:
    """A table's rows as the source's copy reads them."""
    names = ", ".join(f'"{c.name}"' for c in relation.columns)
    with (
        closing(postgres_source.connect(source.url)) as db,
        db.cursor() as cursor,
    ):
        # As `printing` has it: objects are printed with their schema where it is not on the path.
        cursor.execute("SET search_path = pg_catalog")
        query = f'SELECT {names} FROM public."{relation.name}"'
        with cursor.copy(f"COPY ({query}) TO STDOUT") as copy:
            text = b"".join(bytes(block) for block in copy)
    return text.splitlines(keepends=True)


def mysql_relation(source: MysqlDatabase, table: str) -> tuple[Relation, list[bytes]]:
    """A table of a MySQL source and its rows, as the source's copy reads them."""
    db = mysql_source.connect(source.url, None, "test")
    try:
        mysql_source.prepare(db)
        found = table_now(db, source.name, table)
        assert found is not None
        lines = printing.lines_of(found.fields)
        query = f"SELECT {lines.selected} FROM {found.quoted} ORDER BY id"
        rows = [line for block in results.packets(db, query) for line in lines.to_lines(block)]
        return found.relation(source.name), rows
    finally:
        db.close()


class Bed:
    """One relation's table on a target, made under a policy or there already."""

    def __init__(
        self,
        target: MysqlDatabase,
        relation: Relation,
        policy: Unrepresentable = DEFAULT,
        columns: Sequence[str] | None = None,
    ) -> None:
        """`columns` are the types of a table that is there; None: it is created."""
        self.target = target
        self.relation = relation
        self.policy = policy
        self.name = relation.name
        with self.session() as session:
            self.flavour = session.flavour
            self.version = session.version
            made = columns or created_columns(relation, self.flavour, policy, self.version)
            key = ", ".join(quoted(relation.columns[i].name) for i in relation.key_columns)
            declared = [
                f"{quoted(c.name)} {ddl}" for c, ddl in zip(relation.columns, made, strict=True)
            ]
            session.execute(f"DROP TABLE IF EXISTS {quoted(self.name)}")
            sql = f"CREATE TABLE {quoted(self.name)} ({', '.join(declared)}, PRIMARY KEY ({key}))"
            session.execute(sql)
            table = read_table(session, self.name)
        assert table is not None
        self.columns = list(table.columns.values())
        self.types = [c.column_type for c in self.columns]

    @contextmanager
    def session(self) -> Any:
        session = Session(self.target.url, None, "test")
        try:
            yield session
        finally:
            session.close()

    def convert(self) -> values.Row:
        made = values.compile_line(
            self.relation, self.columns, self.policy, Nulled(), self.flavour, self.version
        )
        return made or (lambda image: image)

    def write(self, images: Iterable[bytes]) -> None:
        """Every image as a row. A warning of the server's is an error."""
        convert = self.convert()
        kinds = [values.is_hex(c) for c in self.columns]
        with self.session() as session:
            session.execute("BEGIN")
            for image in images:
                fields = convert(image).removesuffix(b"\n").split(b"\t")
                row = [_literal(f, hexed=k) for f, k in zip(fields, kinds, strict=True)]
                into = b"INSERT INTO " + quoted(self.name).encode()
                session.run(into + b" VALUES (" + b", ".join(row) + b")")
            session.execute("COMMIT")

    def write_rows(self, rows: Iterable[Sequence[Value]]) -> None:
        """The same of values in text form."""
        self.write(
            compose(self.relation.format, row)
            if self.relation.format is not Format.COPY_TEXT
            else copy_text_line(row)
            for row in rows
        )

    def put(self, *columns: Sequence[str | None]) -> list[list[bytes | None]]:
        """Values of the columns behind the key, one list for each, and what the server prints of them."""
        encoded = [[None if v is None else v.encode() for v in c] for c in columns]
        rows = list(zip_longest(*encoded))
        self.write_rows((b"%d" % i, *row) for i, row in enumerate(rows))
        printed = [row[1:] for row in self.printed()]
        return [[row[i] for row in printed[: len(values)]] for i, values in enumerate(encoded)]

    def put_one(self, index: int, value: str) -> None:
        """Converts a row with one value in the column of that number behind the key, others NULL; writes
        nothing."""
        row: list[bytes | None] = [None] * len(self.columns)
        row[0], row[index + 1] = b"1", value.encode()
        self.convert()(compose(self.relation.format, row))

    def printed(self) -> list[Printed]:
        """The rows as the server prints them; see `printed_by`."""
        return printed_by(self.target, self.name, [(c.name, c.data_type) for c in self.columns])


def _literal(field: bytes, *, hexed: bool) -> bytes:
    """A field as it stands in SQL; its escapes are those of a literal."""
    if field == NULL:
        return b"NULL"
    return b"X'" + field + b"'" if hexed else b"'" + field.replace(b"'", b"''") + b"'"


def printed_by(
    database: MysqlDatabase, table: str, columns: Iterable[tuple[str, str]]
) -> list[Printed]:
    """A table's rows as the server prints them, by its first column; bytes and geometries in hex, bits
    as a number in hex, floats as doubles."""
    wanted = ", ".join(_printed(name, data_type) for name, data_type in columns)
    with (
        closing(database.connect(conv={}, init_command="SET time_zone = '+00:00'")) as db,
        db.cursor() as cursor,
    ):
        cursor.execute(f"SELECT {wanted} FROM {quoted(table)} ORDER BY 1")
        return [
            tuple(v.encode() if isinstance(v, str) else v for v in row) for row in cursor.fetchall()
        ]


def _printed(name: str, data_type: str) -> str:
    name = quoted(name)
    if data_type in ("float", "double"):
        return f"CAST({name} AS DOUBLE)"
    if data_type == "bit":
        return f"LOWER(HEX({name} + 0))"
    return f"LOWER(HEX({name}))" if data_type in HEXADECIMAL_TARGETS else name
