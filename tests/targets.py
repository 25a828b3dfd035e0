"""Targets as the tests see them: made, looked into and meddled with, beside the sync that writes them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from appliers.checkpoint import TableState
from appliers.registry import applier_for
from appliers.state import State
from tests.databases import Database
from tests.mysql_databases import MysqlDatabase

Row = tuple[Any, ...]

_AS_IT_IS: Final = ("int2", "int4", "int8", "bytea")


class Target(Protocol):
    """What a test asks of a target, whatever it is."""

    kind: str

    @property
    def url(self) -> str: ...

    def execute(self, statement: str) -> int:
        """Runs a statement that both dialects know; the number of rows of the last."""
        ...

    def rows(self, query: str) -> list[Row]: ...

    def make_tables(self, schema: str) -> None:
        """Makes the tables of a source's schema here, with their unique and foreign keys."""
        ...

    def count_writes(self, table: str) -> None:
        """From now on counts how often each row of `table` is written, inside the transaction that
        writes it."""
        ...

    def table_rows(self, table: str, columns: Sequence[tuple[str, str]]) -> list[Row]:
        """Rows in any order; `columns` are names and PostgreSQL types."""
        ...


class PostgresTarget:
    kind = "postgres"

    def __init__(self, database: Database, url: str | None = None) -> None:
        """`url` is where the sync connects, if not straight to the database."""
        self.database = database
        self._url = url

    @property
    def url(self) -> str:
        return self._url or self.database.url

    def execute(self, statement: str) -> int:
        return self.database.execute(statement)

    def rows(self, query: str) -> list[Row]:
        return self.database.rows(query)

    def make_tables(self, schema: str) -> None:
        # A foreign key that deletes or changes rows by itself would do here what the log does, too.
        acting = r"REFERENCES \w+ ON (DELETE|UPDATE) CASCADE[^;]*? DEFERRABLE"
        self.database.execute(re.sub(r"INSERT INTO [^;]*;", "", re.sub(acting, "", schema)))

    def count_writes(self, table: str) -> None:
        self.database.execute(f"""
            CREATE TABLE {table}_writes (id bigint, n int);
            CREATE FUNCTION count_{table}() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO public.{table}_writes VALUES (NEW.id, 1); RETURN NULL; END $$;
            CREATE TRIGGER counting AFTER INSERT OR UPDATE ON {table}
                FOR EACH ROW EXECUTE FUNCTION count_{table}();
            ALTER TABLE {table} ENABLE ALWAYS TRIGGER counting""")

    def table_rows(self, table: str, columns: Sequence[tuple[str, str]]) -> list[Row]:
        return source_rows(self.database, table, columns)


class SqliteTarget:
    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def execute(self, statement: str) -> int:
        with closing(self._connect()) as db, db:
            return db.execute(statement).rowcount

    def rows(self, query: str) -> list[Row]:
        with closing(self._connect()) as db:
            return db.execute(query).fetchall()

    def make_tables(self, schema: str) -> None:
        with closing(self._connect()) as db, db:
            for statement in _sqlite_schema(schema):
                db.execute(statement)

    def count_writes(self, table: str) -> None:
        with closing(self._connect()) as db, db:
            db.execute(f"CREATE TABLE {table}_writes (id INTEGER, n INTEGER)")
            for when in ("INSERT", "UPDATE"):
                db.execute(
                    f"CREATE TRIGGER counting_{when} AFTER {when} ON {table}"
                    f" BEGIN INSERT INTO {table}_writes VALUES (NEW.id, 1); END"
                )

    def table_rows(self, table: str, columns: Sequence[tuple[str, str]]) -> list[Row]:
        return self.rows(f"SELECT {', '.join(_quoted(name) for name, _ in columns)} FROM {table}")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=30)


class MysqlTarget:
    """MariaDB or MySQL."""

    def __init__(self, database: MysqlDatabase, url: str | None = None) -> None:
        """`url` is where the sync connects, if not straight to the database."""
        self.database = database
        self.kind: str = database.server.flavour
        self._url = url

    @property
    def url(self) -> str:
        return self._url or self.database.url

    def execute(self, statement: str) -> int:
        return self.database.execute(statement)

    def rows(self, query: str) -> list[Row]:
        return self.database.rows(query)

    def make_tables(self, schema: str) -> None:
        for statement in _mysql_schema(schema):
            self.database.execute(statement)

    def count_writes(self, table: str) -> None:
        self.database.execute(f"CREATE TABLE {table}_writes (id bigint, n int)")
        for when in ("INSERT", "UPDATE"):
            self.database.execute(
                f"CREATE TRIGGER {table}_{when} AFTER {when} ON {table}"
                f" FOR EACH ROW INSERT INTO {table}_writes VALUES (NEW.id, 1)"
            )

    def table_rows(self, table: str, columns: Sequence[tuple[str, str]]) -> list[Row]:
        wanted = ", ".join(_printed(f"`{name}`", kind) for name, kind in columns)
        return self.rows(f"SELECT {wanted} FROM {table}")


def _printed(name: str, kind: str) -> str:
    """A column of MariaDB or MySQL as PostgreSQL prints it, whose type `kind` is."""
    if kind in (*_AS_IT_IS, "bool"):
        return name
    if kind in ("timestamp", "timestamptz"):
        zone = "+00" if kind == "timestamptz" else ""
        return f"CONCAT(TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {name})), '{zone}')"
    return f"CAST({name} AS CHAR)"


def _mysql_schema(schema: str) -> Iterator[str]:
    """The tables of a PostgreSQL schema for MariaDB and MySQL: what differs is what these tests use."""
    for statement in schema.split(";"):
        text = statement.strip()
        if text.startswith("CREATE"):
            for pattern, instead in (
                (r" REFERENCES (\w+)[^,)]*", r" REFERENCES \1 (id)"),
                (r" DEFERRABLE( INITIALLY \w+)?", ""),
                (r"\btext NOT NULL", "varchar(200) COLLATE utf8mb4_bin NOT NULL"),
                (r"\b(text\[\]|text|jsonb)(?=[,)])", "longtext COLLATE utf8mb4_bin"),
                (r"\bnumeric\b", "decimal"),
                (r"\bbytea\b", "longblob"),
                (r"\btimestamptz\b", "datetime(6)"),
                (r"\bbigserial\b", "bigint"),
            ):
                text = re.sub(pattern, instead, text)
            yield text


def _sqlite_schema(schema: str) -> Iterator[str]:
    """The tables of a PostgreSQL schema for SQLite: what differs is what these tests use of it."""
    for statement in schema.split(";"):
        text = statement.strip()
        if text.startswith("CREATE"):
            for pattern, instead in (
                (r"\b(bigint|int|bigserial|boolean)\b", "INTEGER"),
                (r"\b(numeric\(\d+, \d+\)|timestamptz|jsonb)", "TEXT"),
                (r"\bbytea\b", "BLOB"),
                (r"\btext\[\]", "TEXT"),
                (r"INTEGER PRIMARY KEY", "INTEGER NOT NULL PRIMARY KEY"),
                (r" DEFERRABLE( INITIALLY \w+)?", ""),
            ):
                text = re.sub(pattern, instead, text)
            yield text


def source_rows(database: Database, table: str, columns: Sequence[tuple[str, str]]) -> list[Row]:
    """A PostgreSQL table's rows as a SQLite target is to hold them: numbers and bytes as they are,
    truth as a number, everything else as the server prints it."""
    wanted = ", ".join(
        _quoted(name) + ("" if kind in _AS_IT_IS else "::int" if kind == "bool" else "::text")
        for name, kind in columns
    )
    database.execute("SET timezone = 'UTC'")
    return database.rows(f"SELECT {wanted} FROM {table}")


def differences(source: Database, target: Target, tables: Sequence[str]) -> list[str]:
    """What differs between the two, row by row and column by column; empty if they are equal."""
    found = []
    for table in tables:
        columns = source.rows(
            "SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
            f" WHERE a.attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = '' ORDER BY attnum"
        )
        names = [name for name, _ in columns]
        ours = _by_key(source_rows(source, table, columns))
        theirs = _by_key(target.table_rows(table, columns))
        told = []
        for key in ours.keys() | theirs.keys():
            row, other = ours.get(key), theirs.get(key)
            if row is None or other is None:
                told.append(f"{table} {key}: {'missing' if other is None else 'too many'}")
            elif row != other:
                unlike = [n for n, a, b in zip(names, row, other, strict=True) if a != b]
                told.append(f"{table} {key}: differs in {', '.join(unlike)}")
        found += sorted(told)[:20]
        if len(told) > 20:
            found.append(f"{table}: {len(told)} rows differ")
    return found


def _by_key(rows: list[Row]) -> dict[Any, Row]:
    """By the first column, which is the key of every table here (or the first part of the row)."""
    found: dict[Any, Row] = {}
    for row in rows:
        key: Any = row[0]
        while key in found:
            # Two rows of one key: one of them must not be there.
            key = (key, "again")
        found[key] = tuple(v.tobytes() if isinstance(v, memoryview) else v for v in row)
    return found


def written_twice(
    source: Database | MysqlDatabase, target: Target, table: str, since: int
) -> list[str]:
    """The rows of an append-only table that were not written exactly once since `count_writes`; those
    up to the key `since` may have been there before."""
    counts: dict[int, int] = dict(target.rows(f"SELECT id, sum(n) FROM {table}_writes GROUP BY id"))
    keys = {key for (key,) in source.rows(f"SELECT id FROM {table}")}
    wrong = [f"{key}: {n} times" for key, n in counts.items() if n != 1]
    wrong += [f"{key}: never" for key in keys if key > since and key not in counts]
    return sorted(wrong)[:20]


@contextmanager
def state_of(target: Target, sync: str) -> Iterator[State]:
    """The sync's state on the target, as the commands see it."""
    applier = applier_for(target.url, None, sync)
    try:
        applier.open(None)
        yield applier.state
    finally:
        applier.close()


def tables_of(target: Target, sync: str) -> dict[str, TableState]:
    with state_of(target, sync) as state:
        return state.tables()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
