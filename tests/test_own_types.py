"""Types of users and of extensions, columns of other types on the target, and values that need care."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg import sql

from appliers.registry import applier_for
from cdc.sources.registry import source_for
from tests.databases import Database
from tests.syncs import MakeSync
from tests.targets import MysqlTarget, PostgresTarget, SqliteTarget, Target, differences, state_of
from tests.type_tables import (
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
from tests.type_values import AWKWARD, Case

EXTENSIONS: Final = "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;"

TYPES: Final = """
    CREATE TYPE {0}mood AS ENUM ('sad', 'ok', 'it''s "so, so"', '', 'é\t\\{{}}');
    CREATE DOMAIN {0}moody AS {0}mood DEFAULT 'ok';
    CREATE TYPE {0}address AS (street text, "no." int, at timestamptz, moods {0}mood[]);
    CREATE DOMAIN {0}positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN {0}small AS {0}positive NOT NULL CHECK (VALUE < 100);
    CREATE DOMAIN {0}code AS varchar(8);
    CREATE DOMAIN {0}series AS int[];
    CREATE TYPE {0}span AS RANGE (subtype = text, collation = "C");"""
"""With what their names begin with."""

_MOODS: Final = ("sad", 'it\'s "so, so"', "", "é\t\\{}")
_PLACES: Final = (
    *(
        "(,,,)",
        '("",0,infinity,{})',
        '("a ""b"" \\\\ c,\t",-1,"0044-03-15 12:00:00 BC","{sad,NULL}")',
    ),
    '("\\\\N",2147483647,,"{""it\'s \\\\""so, so\\\\"""",""""}")',
)

EXTENDING: Final = (
    Case(
        "hstore",
        ("", '"a"=>"1", "b"=>NULL, ""=>""', '"q\\"uo,te"=>"=>\\\\", "NULL"=>"NULL"', '"é"=>"\t\n"'),
    ),
    Case("citext", AWKWARD),
    Case("ltree", ("", "Top.Science.Astronomy", "a_b.C")),
    Case("lquery", ("*.a.*{1,2}", "!x|y@*.z")),
    Case("ltxtquery", ("a & b*@", "!c")),
)


def own(prefix: str = "") -> tuple[Case, ...]:
    """The types of TYPES."""
    return (
        Case(f"{prefix}mood", _MOODS),
        Case(f"{prefix}moody", _MOODS[:2]),
        Case(f"{prefix}address", _PLACES),
        Case(f"{prefix}code", ("", "\U0001f980" * 8, "\\N")),
        Case(
            f"{prefix}series", ("{}", "{1,NULL}", "[0:1]={1,2}"), arrays=("{}", '{"{1,NULL}",NULL}')
        ),
        Case(f"{prefix}span", ("empty", "(,)", '["a b","c,d")', '["",)', '("\\\\N",a]')),
        Case(f"{prefix}span_multirange", ("{}", '{[a,b),["c d",)}')),
    )


BECOMES: Final = {
    "gone_mood": ("text", "text"),
    "gone_moody": ("text", "text"),
    "gone_address": ("text", "text"),
    "gone_code": ("character varying", "character varying[]"),
    "gone_series": ("integer[]", "text"),
    "gone_span": ("text", "text"),
    "gone_span_multirange": ("text", "text"),
}
"""What columns of types, and of their arrays, are created as where the target has none of the name.
An array of a domain over arrays is no array of integers: it is printed in two layers."""


def change(source: Database, table: str, cases: Sequence[Case]) -> None:
    source.execute("; ".join([*change_table(table, cases), turn_table(table, cases)]))


def fill(source: Database, table: str, cases: Sequence[Case]) -> None:
    source.execute("; ".join([create_table(table, cases), *fill_table(table, cases, 15)]))


def test_own_types(source_db: Database, target_db: Database, make_sync: MakeSync) -> None:
    """Types that the target has too are the columns' types; else a domain's base type, or text. A
    type elsewhere on the target's search path counts, a table of the same name does not."""
    source_db.execute(EXTENSIONS + TYPES.format("") + TYPES.format("gone_"))
    target_db.execute("CREATE SCHEMA elsewhere; CREATE EXTENSION citext SCHEMA elsewhere")
    target_db.execute(f"ALTER DATABASE {target_db.name} SET search_path = public, elsewhere")
    target_db.execute("CREATE EXTENSION hstore; CREATE EXTENSION ltree;" + TYPES.format(""))
    target_db.execute("CREATE TABLE gone_mood (id int)")
    tables: Mapping[str, Sequence[Case]] = {
        "extending": EXTENDING,
        "here": own(),
        "gone": own("gone_"),
    }
    for table, cases in tables.items():
        fill(source_db, table, cases)
    source_db.execute(MARKERS)
    sync = make_sync(source_db, PostgresTarget(target_db), [*tables, "markers"])
    with streaming(sync, binary=False):
        assert_same_text(source_db, target_db, tables)
        for table, cases in tables.items():
            change(source_db, table, cases)
    assert_same_text(source_db, target_db, tables)
    assert columns_of(target_db, "here") == columns_of(source_db, "here")
    assert columns_of(target_db, "extending") == columns_of(source_db, "extending") | {
        "citext": "elsewhere.citext",
        "citext_array": "elsewhere.citext[]",
    }
    expected = {c: t for n, (t, a) in BECOMES.items() for c, t in ((n, t), (f"{n}_array", a))}
    assert columns_of(target_db, "gone") == {"id": "integer", "note": "text"} | expected


def test_own_types_in_binary(source_db: Database, target_db: Database, make_sync: MakeSync) -> None:
    """Enums, citext and hstore go in binary form, into the same types and, but hstore, into text."""
    source_db.execute(EXTENSIONS + TYPES.format("") + TYPES.format("gone_"))
    target_db.execute("CREATE EXTENSION hstore;" + TYPES.format(""))
    for name in ("mood", "moody", "gone_mood", "gone_moody", "hstore", "citext"):
        source_db.execute(f"CREATE TABLE t_{name} (id int PRIMARY KEY, v {name})")
    tables = [
        t
        for (t,) in source_db.rows(
            r"SELECT relname FROM pg_class WHERE relname LIKE 't\_%' AND relkind = 'r'"
        )
    ]
    values = {c.type: c.literals(15) for c in (*EXTENDING, *own(), *own("gone_"))}

    def write(table: str, add: int) -> None:
        rows = ", ".join(f"({n + add}, {v})" for n, v in enumerate([*values[table[2:]], "NULL"]))
        source_db.execute(f"INSERT INTO {table} VALUES {rows}")

    for table in tables:
        write(table, 1)
    source_db.execute(MARKERS)
    sync = make_sync(source_db, PostgresTarget(target_db), [*tables, "markers"])
    with streaming(sync, binary=True):
        assert_same_text(source_db, target_db, tables)
        for table in tables:
            write(table, 101)
            source_db.execute(
                f"UPDATE {table} t SET v = o.v FROM {table} o WHERE t.id + 101 = o.id"
            )
    assert_same_text(source_db, target_db, tables)


def test_own_types_in_sqlite(source_db: Database, sqlite_path: Path, make_sync: MakeSync) -> None:
    """Types of users and of extensions are text in SQLite, domains are what they stand for."""
    source_db.execute(EXTENSIONS + TYPES.format(""))
    fill(source_db, "extending", EXTENDING)
    cases = (*own(), Case("small", ("1", "99"), arrays=("{1,99}", "{}")))
    source_db.execute("ALTER DOMAIN small DROP NOT NULL")
    fill(source_db, "here", cases)
    target = SqliteTarget(sqlite_path)
    source_db.execute(MARKERS)
    sync = make_sync(source_db, target, ["extending", "here", "markers"])
    with streaming(sync, binary=False):
        assert_kept(source_db, target, ["extending", "here"])
        change(source_db, "extending", EXTENDING)
        change(source_db, "here", cases)
    assert_kept(source_db, target, ["extending", "here"])


WIDER: Final = (
    *(
        ("smallint", "integer", "7"),
        ("smallint", "numeric", "-7"),
        ("integer", "bigint", "-2147483648"),
    ),
    *(("bigint", "numeric", "9223372036854775807"), ("oid", "bigint", "4294967295")),
    *(("real", "double precision", "1.5e-05"), ("numeric(10,2)", "numeric", "1.50")),
    *(("boolean", "text", "t"), ("date", "text", "0044-03-15 BC"), ("money", "text", "$1,234.56")),
    *(("time(0)", "time", "24:00:00"), ("timestamp(3)", "timestamp", "infinity")),
    *(("timestamptz", "text", "2024-10-27 00:30:00.5+00"), ("interval", "text", "-1 mons +1 day")),
    *(("bytea", "text", "\\x005cff"), ("uuid", "text", "00000000-0000-0000-0000-000000000000")),
    *(
        ("json", "text", ' {"a":1,"a":2}'),
        ("jsonb", "json", '{"a": 1.50}'),
        ("jsonb", "text", "{}"),
    ),
    *(
        ("json", "jsonb", '{"a": "\U0001f980"}'),
        ("inet", "text", "10.1.2.3/8"),
        ("name", "text", "\\N"),
    ),
    *(
        ("integer[]", "bigint[]", "[0:1]={1,NULL}"),
        ("varchar(9)[]", "text[]", '{NULL,"a,\\"b",""}'),
    ),
    *(
        ("int4range", "text", "[1,5)"),
        ("int4range", "int8range", "[1,5)"),
        ("text", "varchar(9)", "\t\\"),
    ),
    *(("mood", "other", "sad"), ("mood[]", "text[]", '{sad,NULL,""}'), ("text", "mood", "sad")),
    *(
        ("bit(3)", "varbit", "101"),
        ("char(4)", "text", "a   "),
        ("xid", "text", "3"),
    ),
    *(
        ("text", "integer", "-12"),
        ("varchar(8)", "jsonb", "[1, 2]"),
        ("cidr", "text", "10.0.0.0/8"),
    ),
)
"""The source's type, another one on the target, and a value that both print the same way."""

SAME_IN_BINARY: Final = {
    *(("mood", "other"), ("text", "varchar(9)"), ("char(4)", "text"), ("text", "mood")),
    *(("numeric(10,2)", "numeric"), ("time(0)", "time"), ("timestamp(3)", "timestamp")),
}
"""Of these, those whose binary forms are one."""


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "text"])
def test_other_columns(
    source_db: Database, target_db: Database, make_sync: MakeSync, *, binary: bool
) -> None:
    """Columns of the target may have other types than the source's. Only where both types have one
    binary form may the rows come in it; everything else comes as text, which the target reads."""
    source_db.execute(TYPES.format(""))
    target_db.execute(TYPES.format("") + "CREATE TYPE other AS ENUM ('', 'sad')")
    names = [f"c{number}" for number in range(len(WIDER))]
    for name, (ours, theirs, _) in zip(names, WIDER, strict=True):
        source_db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v {ours})")
        target_db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v {theirs})")
    taken = taken_in_binary(source_db, target_db, names)
    assert {pair[:2] for pair, yes in zip(WIDER, taken, strict=True) if yes} == SAME_IN_BINARY

    chosen = {
        n: p for n, p in zip(names, WIDER, strict=True) if not binary or p[:2] in SAME_IN_BINARY
    }
    for database, side in ((source_db, 0), (target_db, 1)):
        columns = ", ".join(f"{name} {pair[side]}" for name, pair in chosen.items())
        database.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns})")
    listed, values = ", ".join(chosen), ", ".join(f"'{value}'" for *_, value in chosen.values())
    source_db.execute(f"INSERT INTO wide VALUES (1, {values}); INSERT INTO wide VALUES (2)")
    source_db.execute(MARKERS)
    sync = make_sync(source_db, PostgresTarget(target_db), ["wide", "markers"])
    with streaming(sync, binary=binary):
        assert_same_text(source_db, target_db, ["wide"])
        source_db.execute(f"INSERT INTO wide VALUES (3, {values}); INSERT INTO wide VALUES (4)")
        source_db.execute(f"UPDATE wide SET ({listed}) = ROW ({values}) WHERE id = 2")
    assert_same_text(source_db, target_db, ["wide"])


def taken_in_binary(source: Database, target: Database, tables: Sequence[str]) -> list[bool]:
    """What the applier says of each table."""
    with ExitStack() as after:
        reading = source_for(source.url, None, "s1")
        reading.open()
        after.callback(reading.close)
        applier = applier_for(target.url, None, "s1")
        applier.open(None)
        after.callback(applier.close)
        relations = {r.name: r for r in reading.catalog(tables).relations}
        return [applier.accepts_binary(relations[t]) for t in tables]


def test_types_without_input(source_db: Database, target: Target, make_sync: MakeSync) -> None:
    """Types that the server prints but never reads are kept as the text that is printed."""
    source_db.execute("""
        CREATE TABLE defaults (a int DEFAULT 7 + 1, b text DEFAULT 'x');
        CREATE TABLE twins AS SELECT i % 3 AS a, i % 3 AS b FROM generate_series(1, 300) i;
        CREATE STATISTICS s (ndistinct, dependencies, mcv) ON a, b FROM twins; ANALYZE twins;
        CREATE TABLE printed AS SELECT oid::int AS id, adbin FROM pg_attrdef;
        CREATE TABLE measured AS
            SELECT stxoid::int AS id, stxdndistinct, stxddependencies, stxdmcv FROM pg_statistic_ext_data;
        ALTER TABLE printed ADD PRIMARY KEY (id); ALTER TABLE measured ADD PRIMARY KEY (id)""")
    tables = ["printed", "measured"]
    assert all(source_db.value(f"SELECT count(*) FROM {t}") for t in tables)
    source_db.execute(MARKERS)
    sync = make_sync(source_db, target, [*tables, "markers"])
    with streaming(sync, binary=False):
        for table in tables:
            source_db.execute(f"UPDATE {table} SET id = -id WHERE id % 2 = 0")
    if isinstance(target, SqliteTarget):
        assert_kept(source_db, target, tables)
    elif isinstance(target, MysqlTarget):
        assert differences(source_db, target, tables) == []
    else:
        assert isinstance(target, PostgresTarget)
        assert_same_text(source_db, target.database, tables)
        types = {t for table in tables for t in columns_of(target.database, table).values()}
        assert types == {"integer", "text"}


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "text"])
def test_other_encodings(
    source_db: Database, target_db: Database, make_sync: MakeSync, *, binary: bool
) -> None:
    """A source that is not in UTF-8: its text arrives as the same characters, in both formats."""
    encode(source_db, "LATIN1")
    source_db.execute("CREATE TYPE mood AS ENUM ('gr\u00fcn', '\u00df')")
    values = {
        "text": "\u00c4\u00d6\u00dc\t\\N", "varchar(9)": "\u00ff\u00a0", "char(3)": "\u00e9", "name": "\u00fc",
        "jsonb": '{"\u00e9": "\\u00e9"}', "json": '{"\u00e9" : 1}', "text[]": '{"\u00e9,",NULL}',
        "tsvector": "\u00e9:1", "mood": "gr\u00fcn", '"char"': "a", "bytea": "\\xe9c3a9",
        **({} if binary else {"mood[]": '{"\u00df"}', "regclass": '"t\u00fcr"'}),
    }  # fmt: skip
    columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(values))
    source_db.execute(f'CREATE TABLE "t\u00fcr" (id int PRIMARY KEY, "sch\u00f6n" text, {columns})')
    row = ", ".join(["'\u00f6'", *(f"'{v}'" for v in values.values())])
    source_db.execute(f'INSERT INTO "t\u00fcr" VALUES (1, {row})')
    source_db.execute(MARKERS)
    sync = make_sync(source_db, PostgresTarget(target_db), ["t\u00fcr", "markers"])
    with streaming(sync, binary=binary):
        source_db.execute(f'INSERT INTO "t\u00fcr" VALUES (2, {row})')
    assert_same_text(source_db, target_db, ['"t\u00fcr"'])


def test_without_encoding(source_db: Database, target_db: Database, make_sync: MakeSync) -> None:
    """A source that says nothing of its encoding is taken for UTF-8. What is not stops the sync, which
    names it, and goes on when the row is corrected."""
    encode(source_db, "SQL_ASCII")
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, v text, r regclass)")
    source_db.execute(r"INSERT INTO t VALUES (1, E'\xc3\xa9'), (2, E'\xe9')")
    sync = make_sync(source_db, PostgresTarget(target_db), ["t"])
    assert sync.start("--until-current").wait() == 1
    assert 'Error: source: invalid byte sequence for encoding "UTF8": 0xe9' in sync.log_tail()
    assert "Try: the source holds text that is not in its encoding" in sync.log_tail()
    source_db.execute("UPDATE t SET v = 'e' WHERE id = 2")
    assert sync.start("--until-current").wait() == 0
    assert target_db.rows("SELECT id, v FROM t ORDER BY id") == [(1, "é"), (2, "e")]


def test_without_encoding_in_the_log(
    source_db: Database, target_db: Database, make_sync: MakeSync
) -> None:
    """What the log has stays there when the row is corrected: the hint names what helps then, and it does."""
    encode(source_db, "SQL_ASCII")
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    sync = make_sync(source_db, PostgresTarget(target_db), ["t"])
    sync.finish()
    source_db.execute(r"INSERT INTO t VALUES (1, E'\xe9')")
    source_db.execute("UPDATE t SET v = 'e'")
    assert sync.start("--until-current").wait() == 1
    assert (
        "if its log has it by now, `cdc snapshot` then copies everything again" in sync.log_tail()
    )
    with state_of(sync.target, sync.name) as state:
        state.request(None, None)
    assert sync.start("--until-current").wait() == 0
    assert target_db.rows("SELECT id, v FROM t") == [(1, "e")]


def test_a_target_in_another_encoding(
    source_db: Database, target_db: Database, make_sync: MakeSync
) -> None:
    """Text arrives as the same characters; one that the target's encoding has not stops the sync, which
    says that it is the encoding, and nothing is written in its place."""
    encode(target_db, "LATIN1")
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, '\u00e4')"
    )
    sync = make_sync(source_db, PostgresTarget(target_db), ["t"])
    sync.finish()
    assert target_db.rows("SELECT id, v FROM t") == [(1, "\u00e4")]
    source_db.execute("INSERT INTO t VALUES (2, '\u65e5')")
    assert sync.start("--until-current").wait() == 1
    assert "a character that the encoding of the target's database has none for" in sync.log_tail()
    assert "Try: use a target database with ENCODING 'UTF8'" in sync.log_tail()
    assert target_db.rows("SELECT id FROM t") == [(1,)]


def encode(database: Database, encoding: str) -> None:
    """Makes an unused database again, in another encoding."""
    with psycopg.connect(database.server.url(), autocommit=True) as admin:
        name = sql.Identifier(database.name)
        admin.execute(sql.SQL("DROP DATABASE {}").format(name))
        admin.execute(
            sql.SQL(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE_PROVIDER libc LOCALE 'C'"
            ).format(name, encoding)
        )
