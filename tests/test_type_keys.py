"""Rows are found by keys of every sensible type: written, changed, moved, deleted and copied again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.databases import Database
from tests.syncs import MakeSync, Source, Sync
from tests.targets import PostgresTarget, SqliteTarget
from tests.type_tables import MARKERS, assert_kept, assert_same_text, streaming

TYPES: Final = """
    CREATE EXTENSION citext;
    CREATE TYPE size AS ENUM ('small', 'it''s, "big"', 'LARGE', '', 'é\t\\');
    CREATE DOMAIN code AS varchar(8);"""

MORE_TYPES: Final = """
    CREATE EXTENSION ltree;
    CREATE TYPE place AS (shelf text, number int);"""

ALONE: Final[Mapping[str, Sequence[str]]] = {
    "text": ("", "a", "A", "\\N", "a\tb\n\\.", "é", "e\u0301"),
    "char(3)": ("", "a", "a b", "\t", "é"),
    "uuid": ("0" * 32, "f" * 32, "a" * 32, "1" * 32, "0123456789abcdef" * 2),
    "bytea": ("", "\\x00", "\\xff00", "\\x5c4e", "\\x0a09"),
    "numeric": ("1.0", "1.00", "NaN", "-Infinity", "1e-50", "0"),
    "real": ("0", "-0", "NaN", "Infinity", "1e-45", "0.1"),
    "double precision": ("0", "-0", "NaN", "-Infinity", "5e-324", "0.1"),
    "date": ("infinity", "-infinity", "0044-03-15 BC", "5874897-12-31", "2000-02-29"),
    "timestamptz": (
        *("infinity", "0044-03-15 12:00 BC", "2024-10-27 02:30+02", "2024-10-27 02:30+01", "epoch"),
    ),
    "interval": ("1 day", "24:00:00", "1 mon -1 day", "-00:00:00.000001", "178956970 years", "0"),
    "jsonb": ('{"a": 1.0}', '{"a": 1.00}', "null", '""', '[1, "\\n"]', "1E400"),
    "citext": ("Ab", "aB", "é", "\\N", "", "x"),
    "size": ("small", 'it\'s, "big"', "LARGE", "", "é\t\\"),
}
"""Types of keys of one column. The first two values may be equal to the server, not to us: then the one
becomes the other by what is a change of the key in the log."""

TOGETHER: Final[Sequence[Mapping[str, Sequence[str]]]] = (
    {
        "varchar(9)": ("NULL", " ", "  ", "\U0001f980", "'"),
        "name": ("", "a b", "\\N", "ü", "'"),
        '"char"': ("", "a", "\\", "\n", "'"),
        "code": ("", "a", "A", "\\N", "é"),
    },
    {
        "smallint": ("0", "-32768", "32767", "-1", "256"),
        "bigint": ("0", "-9223372036854775808", "9223372036854775807", "-1", "256"),
        "oid": ("0", "4294967295", "1", "2", "2147483648"),
        "boolean": ("t", "f", "t", "f", "t"),
    },
    {
        "money": ("0", "-0.01", "92233720368547758.07", "1", "1234.56"),
        "numeric(6,2)": ("0", "-9999.99", "0.01", "NaN", "1.10"),
        "bit(3)": ("000", "111", "010", "001", "100"),
        "pg_lsn": ("0/0", "FFFFFFFF/FFFFFFFF", "1/2A", "0/1", "0/2"),
    },
    {
        "time": ("24:00:00", "00:00:00", "23:59:59.999999", "00:00:00.000001", "12:00"),
        "timetz": ("24:00-15:59", "00:00+15:59", "12:00+00", "13:00+01", "12:00:00.000001+05:45"),
        "timestamp": (
            *("infinity", "-infinity", "0044-03-15 12:00:00.000001 BC", "294276-12-31"),
            "1999-12-31 24:00",
        ),
    },
    {
        "inet": ("10.0.0.1/8", "10.0.0.1", "::1", "::ffff:1.2.3.4", "0.0.0.0/0"),
        "macaddr": (
            *("0:0:0:0:0:0", "ff:ff:ff:ff:ff:ff", "8:0:2b:1:2:3"),
            "1:2:3:4:5:6",
            "0:0:0:0:0:1",
        ),
        "text[]": ("{}", "{NULL}", '{""}', '{"a,\\"b\\"","\\\\"}', "[0:1]={a,b}"),
        "int4range": ("empty", "(,)", "[1,5)", "(,5)", "[5,)"),
    },
    {
        "text": ("a", "a", "a", "\\N", ""),
        "uuid": ("0" * 32, "0" * 32, "1" * 32, "f" * 32, "a" * 32),
        "numeric": ("1.0", "1.00", "1.0", "NaN", "-0.10"),
        "timestamptz": (*("infinity", "infinity", "infinity"), "0044-03-15 12:00 BC", "-infinity"),
    },
)
"""Keys of several columns, in the reverse of the table's order."""

TEXT_ONLY: Final[Mapping[str, Sequence[str]]] = {
    "ltree": ("", "a", "A.b", "a.b", "x_1.y"),
    "place": ("(,)", '("",0)', '("a ""b"", c",-1)', '("\\\\N",1)', "(é,)"),
    "regclass": ("pg_class", "pg_type", "-", "pg_proc", "information_schema.tables"),
}
"""Types that never come in binary form."""

BIG: Final = "lpad('', 3000, gen_random_uuid()::text)"
"""A value that is kept out of line, so that the log has it only when it changes."""

CASTS: Final = {"place": "::place", "regclass": "::regclass"}
"""Types whose `=` is not their own: it takes a literal for something else."""


class Keys:
    """A table whose key is of `types`, and the changes of its rows, which are told by number."""

    def __init__(self, table: str, types: Mapping[str, Sequence[str]]) -> None:
        self.table = table
        self._columns = [f"k{n}" for n in range(len(types))]
        self._keys = list(zip(*types.values(), strict=True))
        self._casts = [CASTS.get(kind, "") for kind in types]
        columns = ", ".join(f"{c} {kind}" for c, kind in zip(self._columns, types, strict=True))
        self.ddl = (
            f"CREATE TABLE {table} (v text, {columns}, big text DEFAULT {BIG},"
            f" PRIMARY KEY ({', '.join(reversed(self._columns))}));"
            f"ALTER TABLE {table} ALTER big SET STORAGE EXTERNAL"
        )

    def insert(self, *numbers: int) -> str:
        """Rows whose key is there are left out."""
        columns = ", ".join([*self._columns, "v"])
        rows = ", ".join(f"({', '.join(map(_quoted, self._keys[n]))}, 'row {n}')" for n in numbers)
        return f"INSERT INTO {self.table} ({columns}) VALUES {rows} ON CONFLICT DO NOTHING"

    def delete(self, number: int) -> str:
        return f"DELETE FROM {self.table} WHERE {self._where(number)}"

    def write(self, number: int) -> str:
        return f"UPDATE {self.table} SET v = v || ', again' WHERE {self._where(number)}"

    def move(self, number: int, to: int, also: str = ", v = v || ', moved'") -> str:
        each = zip(self._columns, self._keys[to], strict=True)
        sets = ", ".join(f"{c} = {_quoted(v)}" for c, v in each)
        return f"UPDATE {self.table} SET {sets}{also} WHERE {self._where(number)}"

    def touch(self, number: int, to: int) -> str:
        """Moves a row and leaves everything else unchanged, the out-of-line value too."""
        return self.move(number, to, also="")

    def changes(self) -> list[list[str]]:
        """Transactions. The keys 0 and 1 may be equal on the server; key 3 is not there at the end."""
        return [
            [self.touch(2, 3)],
            [self.insert(2, 4)],
            [self.write(0)],
            [self.delete(2)],
            [self.move(3, 2)],
            [self.touch(4, 3)],
            [self.delete(3), self.insert(3), self.write(3), self.move(3, 4), self.insert(3)],
            [self.delete(1), self.write(0), self.delete(0), self.insert(0)],
            [self.touch(0, 1)],
            [self.move(1, 0), self.move(0, 1), self.write(1), self.write(2)],
            [self.touch(1, 0)],
            [self.write(0)],
            [self.move(0, 1), self.delete(1), self.insert(0)],
            [self.insert(1)],
            [self.delete(2), self.delete(3), self.touch(4, 2)],
        ]

    def run_changes(self, source: Source) -> None:
        for transaction in self.changes():
            source.execute("; ".join(transaction))

    def _where(self, number: int) -> str:
        each = zip(self._columns, self._keys[number], self._casts, strict=True)
        return " AND ".join(f"{c} = {_quoted(v)}{cast}" for c, v, cast in each)


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def change_by_key(sync: Sync, *, binary: bool) -> Iterator[list[str]]:
    """Yields the tables whenever both sides are to be equal: after the copy, after all changes in one
    batch, after those of each table in one of its own, and after a copy over what is there."""
    groups = [*({kind: values} for kind, values in ALONE.items()), *TOGETHER]
    if not binary:
        groups.append(TEXT_ONLY)
    source, tables = sync.source, [Keys(f"key_{n}", types) for n, types in enumerate(groups)]
    names = [t.table for t in tables]
    source.execute(MARKERS)
    for table in tables:
        source.execute(table.ddl)
        source.execute(table.insert(0, 1, 2))
    with streaming(sync, binary=binary):
        yield names
        source.execute("; ".join(s for t in tables for changes in t.changes() for s in changes))
        sync.catch_up()
        yield names
        for table in tables:
            source.execute(f"DELETE FROM {table.table}; {table.insert(0, 1, 2)}")
        sync.catch_up()
        for table in tables:
            table.run_changes(source)
            sync.catch_up()
        yield names
        for table in tables:
            sync.target.execute(f"UPDATE {table.table} SET v = 'stale', big = NULL")
            assert sync.target.execute(table.insert(3)) == 1
        sync.request()
    yield names


def test_keys_in_binary(source_db: Database, target_db: Database, make_sync: MakeSync) -> None:
    """Keys that come in binary form; the target has the types too."""
    source_db.execute(TYPES)
    target_db.execute(TYPES)
    sync = make_sync(source_db, PostgresTarget(target_db), ["*"])
    for tables in change_by_key(sync, binary=True):
        assert_same_text(source_db, target_db, tables)


@pytest.mark.parametrize("source_server", [15], indirect=True, ids=["15-to-18"])
def test_keys_in_text(source_db: Database, target_db: Database, make_sync: MakeSync) -> None:
    """All keys in text; the target has none of the source's own types, and keeps them as text."""
    source_db.execute(TYPES + MORE_TYPES)
    sync = make_sync(source_db, PostgresTarget(target_db), ["*"])
    for tables in change_by_key(sync, binary=False):
        assert_same_text(source_db, target_db, tables)


def test_keys_in_sqlite(source_db: Database, sqlite_path: Path, make_sync: MakeSync) -> None:
    """All keys in SQLite."""
    source_db.execute(TYPES + MORE_TYPES)
    target = SqliteTarget(sqlite_path)
    sync = make_sync(source_db, target, ["*"])
    for tables in change_by_key(sync, binary=False):
        assert_kept(source_db, target, tables)
