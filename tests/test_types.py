"""Every value of every type of PostgreSQL arrives as it was, by copy and by stream, in both formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.databases import Database
from tests.servers import on_every_source
from tests.syncs import MakeSync
from tests.targets import PostgresTarget, SqliteTarget
from tests.type_tables import (
    AGAIN,
    MARKERS,
    assert_kept,
    assert_same_text,
    change_table,
    columns_of,
    create_table,
    fill_table,
    streaming,
    turn_table,
)
from tests.type_values import EXCLUDED, PORTABLE, TEXT_ONLY, XML, Case

Tables = Mapping[str, Sequence[Case]]

ROUTES: Final = pytest.mark.parametrize(
    ("source_server", "target_server"),
    [(18, 18), (15, 18), (18, 15)],
    indirect=True,
    ids=["18-to-18", "15-to-18", "18-to-15"],
)


UNUSUAL: Final = (
    {
        "datestyle": "German",
        "intervalstyle": "iso_8601",
        "timezone": "Asia/Kathmandu",
        "bytea_output": "escape",
        "extra_float_digits": "-15",
        "xmloption": "document",
        "search_path": "nowhere",
        "quote_all_identifiers": "on",
    },
    {
        "datestyle": "SQL, DMY",
        "intervalstyle": "sql_standard",
        "timezone": "America/St_Johns",
        "bytea_output": "escape",
        "extra_float_digits": "0",
        "xmloption": "document",
        "array_nulls": "off",
        "standard_conforming_strings": "off",
        "default_transaction_isolation": "serializable",
    },
)
"""Settings of a source's database and of a target's that change how values are printed and read."""


def make_unusual(*databases: Database) -> None:
    """For connections that are made from now on."""
    for database, settings in zip(databases, UNUSUAL, strict=False):
        for name, value in settings.items():
            database.execute(f"ALTER DATABASE {database.name} SET {name} = '{value}'")


def make_tables(source: Database, tables: Tables, version: int) -> None:
    """Tables with values that servers of `version` know; `version` is the older one's of both ends."""
    source.execute(f'CREATE TABLE "A Named Table" (); {MARKERS}')
    for name, cases in tables.items():
        source.execute("; ".join([create_table(name, cases), *fill_table(name, cases, version)]))


def change_tables(source: Database, tables: Tables) -> None:
    """All in one transaction: a large batch."""
    statements = [
        s for n, cases in tables.items() for s in (*change_table(n, cases), turn_table(n, cases))
    ]
    source.execute("; ".join(statements))


def go_round(
    source: Database, target: Database, make_sync: MakeSync, tables: Tables, *, binary: bool
) -> None:
    """The tables are copied, then changed in one large batch and in small ones; each time both sides
    print the same."""
    make_tables(source, tables, min(source.server.major, target.server.major))
    target.execute('CREATE TABLE "A Named Table" ()')
    make_unusual(source, target)
    sync = make_sync(source, PostgresTarget(target), [*tables, "markers"])
    with streaming(sync, binary=binary):
        assert_same_text(source, target, tables)
        change_tables(source, tables)
        sync.catch_up()
        assert_same_text(source, target, tables)
        for name, cases in tables.items():
            for statement in change_table(name, cases, AGAIN):
                source.execute(statement)
                sync.catch_up()
    assert_same_text(source, target, tables)
    for table in tables:
        assert columns_of(target, table) == columns_of(source, table)


@on_every_source
def test_every_type_has_values(source_db: Database) -> None:
    """No built-in type is forgotten, whatever a server's version adds: a type without a case, or a
    reason against one, fails here."""
    groups = {**PORTABLE, "text_only": TEXT_ONLY, "xmls": XML}
    for name, cases in groups.items():
        source_db.execute(create_table(name, cases))
    names = {
        name
        for (name,) in source_db.rows("""
            SELECT t.typname FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typlen = -1
            WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
              AND coalesce(e.typtype, 'b') IN ('b', 'r', 'm')
              AND t.oid NOT IN (SELECT atttypid FROM pg_attribute WHERE attrelid IN
                                (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace))""")
    }
    assert names - {"_gtsvector"} == EXCLUDED.keys()


@ROUTES
def test_in_binary(source_db: Database, target_db: Database, make_sync: MakeSync) -> None:
    """Every type that has a portable binary form goes round in it, with its array, and the created
    columns have the source's types."""
    go_round(source_db, target_db, make_sync, PORTABLE, binary=True)


@ROUTES
def test_in_text(source_db: Database, target_db: Database, make_sync: MakeSync) -> None:
    """The same in text; one table with types that are printed as names makes the sync take it."""
    go_round(source_db, target_db, make_sync, {**PORTABLE, "text_only": TEXT_ONLY}, binary=False)


@pytest.mark.parametrize(("source_server", "target_server"), [(15, 15)], indirect=True)
def test_xml(source_db: Database, target_db: Database, make_sync: MakeSync) -> None:
    """Documents and fragments of XML. (Between Debian's servers: the wheel's has no libxml.)"""
    go_round(source_db, target_db, make_sync, {"xmls": XML}, binary=False)


@on_every_source
def test_in_sqlite(source_db: Database, sqlite_path: Path, make_sync: MakeSync) -> None:
    """Every value is in SQLite as appliers/sqlite/types.py documents it, so that what the source
    prints can be had back from it."""
    tables: Tables = {**PORTABLE, "text_only": TEXT_ONLY}
    if source_db.server.major == 15:
        tables = {**tables, "xmls": XML}
    make_tables(source_db, tables, source_db.server.major)
    make_unusual(source_db)
    target = SqliteTarget(sqlite_path)
    sync = make_sync(source_db, target, [*tables, "markers"])
    with streaming(sync, binary=False):
        assert_kept(source_db, target, tables)
        change_tables(source_db, tables)
    assert_kept(source_db, target, tables)
