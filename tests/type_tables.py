"""Tables with a column for every type: made, filled and changed on a source, and compared with a target.

A row is read as libpq hands it over, in text form: what the server prints, byte for byte, without an
adapter of ours and without a cast (bpchar::text would lose its blanks).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Final

from psycopg import pq

from tests.databases import Connection, Database
from tests.syncs import Sync
from tests.targets import SqliteTarget
from tests.type_values import Case

Raw = tuple[bytes | None, ...]

INTEGERS: Final = ("smallint", "integer", "bigint", "oid")
FLOATS: Final = ("real", "double precision")

STREAMED: Final = 1000
"""What is added to a row's key for the row that is inserted while the sync streams."""

UPDATED: Final = 2000
"""The same for the row that is inserted empty, and gets its values by an UPDATE."""

AGAIN: Final = 4000
"""The same for all of these once more, in batches of few changes."""


def create_table(name: str, cases: Sequence[Case], more: str = "") -> str:
    columns = [f"{c.column} {c.type}, {c.column}_array {c.type}[]" for c in cases]
    return f"CREATE TABLE {name} (id int PRIMARY KEY, note text DEFAULT '', {', '.join(columns)}{more})"


def fill_table(name: str, cases: Sequence[Case], version: int) -> Iterator[str]:
    """Statements that insert the k-th value of every type in row k; where there are no more, NULL.
    The last row is nothing but NULL."""
    columns = [values for c in cases for values in (c.literals(version), c.array_literals(version))]
    number = 0
    for number, row in enumerate(zip_longest(*columns, fillvalue="NULL"), 1):
        yield f"INSERT INTO {name} VALUES ({number}, '', {', '.join(row)})"
    yield f"INSERT INTO {name} (id) VALUES ({number + 1})"


def change_table(name: str, cases: Sequence[Case], offset: int = 0) -> Iterator[str]:
    """Statements that bring every value through the log: inserted, updated, and left alone by an
    update of another column, of which the log then has no out-of-line values."""
    names = ", ".join(f"{c.column}, {c.column}_array" for c in cases)
    ours = ", ".join(f"o.{c.column}, o.{c.column}_array" for c in cases)
    inserted, updated = STREAMED + offset, UPDATED + offset
    yield (
        f"INSERT INTO {name} (id, {names}) SELECT id + {inserted}, {names} FROM {name}"
        f" WHERE id < {STREAMED}"
    )
    yield f"INSERT INTO {name} (id) SELECT id + {updated} FROM {name} WHERE id < {STREAMED}"
    yield f"UPDATE {name} t SET ({names}) = ({ours}) FROM {name} o WHERE t.id = o.id + {updated}"
    yield f"UPDATE {name} SET note = note || '.' WHERE id % 2 = 0 AND id BETWEEN {offset} AND {updated}"


def turn_table(name: str, cases: Sequence[Case]) -> str:
    """A statement that gives every other row that was copied the values of the next one."""
    names = ", ".join(f"{c.column}, {c.column}_array" for c in cases)
    ours = ", ".join(f"o.{c.column}, o.{c.column}_array" for c in cases)
    return (
        f"UPDATE {name} t SET ({names}) = ({ours}) FROM {name} o"
        f" WHERE t.id % 2 = 1 AND o.id = t.id + 1 AND o.id < {STREAMED}"
    )


def raw_rows(db: Connection, query: str) -> list[Raw]:
    """The rows of a query in text form, as the server sends them."""
    result = db.pgconn.exec_(query.encode())
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise AssertionError(f"{query}: {result.error_message.decode(errors='replace')}")
    fields = range(result.nfields)
    return [tuple(result.get_value(row, f) for f in fields) for row in range(result.ntuples)]


def columns_of(database: Database, table: str) -> dict[str, str]:
    """The types of a table's columns, as DDL has them."""
    return dict(
        database.rows(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            f" WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
    )


def bases_of(database: Database, table: str) -> dict[str, str]:
    """The types of a table's columns without modifiers, and of domains what they stand for."""
    return dict(
        database.rows(
            f"""
            WITH RECURSIVE t (name, number, oid) AS (
                SELECT attname, attnum, atttypid FROM pg_attribute
                WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped
                UNION ALL SELECT name, number, typbasetype FROM t JOIN pg_type USING (oid)
                WHERE typtype = 'd')
            SELECT name, format_type(t.oid, NULL) FROM t JOIN pg_type USING (oid)
            WHERE typtype <> 'd' ORDER BY number"""
        )
    )


MARKERS: Final = "CREATE TABLE markers (id int PRIMARY KEY)"
"""What `streaming` needs on the source, and among the sync's tables."""


@contextmanager
def streaming(sync: Sync, *, binary: bool) -> Iterator[None]:
    """A worker has made the copy and streams, and has caught up at the end. All its rows must come in
    one session, in the format that is meant."""
    sync.start()
    sync.wait_copied()
    yield
    sync.catch_up()
    begun = [line for line in sync.log.read_text().splitlines() if " session-begun " in line]
    assert len(begun) == 1, sync.log_tail()
    assert f"binary={binary}" in begun[0], begun[0]


def assert_same_text(source: Database, target: Database, tables: Iterable[str]) -> None:
    """Every row of every table is printed the same on both sides."""
    ours, theirs = printing(source), printing(target)
    found: list[str] = []
    for table in tables:
        columns = columns_of(source, table)
        rows = printed_rows(ours, table, columns)
        found += differences(table, columns, rows, printed_rows(theirs, table, columns))
    assert not found, "\n".join(found)


def assert_kept(source: Database, target: SqliteTarget, tables: Iterable[str]) -> None:
    """Every row of every table is in SQLite, each value as appliers/sqlite/types.py documents it, and
    what the source prints can be had back from it."""
    db = printing(source)
    found: list[str] = []
    for table in tables:
        columns = bases_of(source, table)
        rows = printed_rows(db, table, columns)
        found += differences(table, columns, rows, kept_rows(db, target, table, columns))
    assert not found, "\n".join(found)


def printing(database: Database) -> Connection:
    """A connection with the settings under which both sides are compared."""
    db = database.connect(client_encoding="UTF8")
    db.execute(
        "SET timezone = 'UTC'; SET search_path = pg_catalog; SET datestyle = 'ISO';"
        "SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1;"
        "SET quote_all_identifiers = off; SET xmloption = 'content'"
    )
    return db


def printed_rows(db: Connection, table: str, columns: Iterable[str]) -> list[Raw]:
    """The rows of a table as the server prints them."""
    return raw_rows(db, f"SELECT {_listed(columns)} FROM public.{table}")


def kept_rows(
    db: Connection, target: SqliteTarget, table: str, columns: Mapping[str, str]
) -> list[Raw]:
    """The rows of a table in SQLite as PostgreSQL would print them. `columns` are names and types,
    `db` any connection of `printing`."""
    return [
        tuple(_printed(db, kind, v) for kind, v in zip(columns.values(), row, strict=True))
        for row in target.rows(f"SELECT {_listed(columns)} FROM {table}")
    ]


def differences(
    table: str, columns: Mapping[str, str], ours: Iterable[Raw], theirs: Iterable[Raw]
) -> list[str]:
    """Which rows differ, and in which columns, if the first is `id`, the key."""
    expected, got = Counter(ours), Counter(theirs)
    missing, extra = [*(expected - got).elements()], [*(got - expected).elements()]
    by_id = {row[0]: row for row in extra} if next(iter(columns)) == "id" else {}
    found = []
    for row in missing:
        other = by_id.pop(row[0], None)
        if other is None:
            found.append(f"{table} lacks {', '.join(map(_short, row))}")
            continue
        extra.remove(other)
        found += [
            f"{table} row {row[0]!r}: {name} ({kind}) is {_short(value)}, got {_short(there)}"
            for (name, kind), value, there in zip(columns.items(), row, other, strict=True)
            if value != there
        ]
    return found + [f"{table} has {', '.join(map(_short, row))}" for row in extra]


def _printed(db: Connection, kind: str, value: object) -> bytes | None:
    """What PostgreSQL prints of the value of type `kind` that SQLite keeps as `value`."""
    match value:
        case None:
            return None
        case 0 | 1 if kind == "boolean":
            return b"t" if value else b"f"
        case int() if kind in INTEGERS:
            return b"%d" % value
        case float() if kind in FLOATS and not math.isnan(value):
            [(text,)] = db.execute(f"SELECT %s::{kind}::text", [repr(value)]).fetchall()
            return str(text).encode()
        case bytes() if kind == "bytea":
            return b"\\x" + value.hex().encode()
        case "NaN" if kind in FLOATS:
            return b"NaN"
        case str() if kind not in (*INTEGERS, *FLOATS, "boolean", "bytea"):
            return value.encode()
    return f"{kind} kept as {type(value).__name__}".encode()


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(f'"{c}"' for c in columns)


def _short(value: bytes | None) -> str:
    return (
        repr(value)
        if value is None or len(value) < 200
        else f"{value[:80]!r}… ({len(value)} bytes)"
    )
