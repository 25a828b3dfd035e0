"""What table patterns stand for on a PostgreSQL source, and which tables are refused, with what to do."""

from __future__ import annotations

import psycopg
import pytest

from appliers.errors import PermanentError
from appliers.relation import Column
from cdc.sources.postgres.source import PostgresSource
from tests.capture import MakeCapture, told
from tests.databases import Database
from tests.servers import on_every_source


@pytest.fixture
def source(source_db: Database, make_capture: MakeCapture) -> PostgresSource:
    return make_capture(source_db).source


def names(source: PostgresSource, *patterns: str) -> list[str]:
    return [r.table for r in source.catalog(patterns).relations]


def refusal(source: PostgresSource, pattern: str) -> tuple[str, str]:
    with pytest.raises(PermanentError) as error:
        source.catalog([pattern])
    return str(error.value), error.value.hint


@on_every_source
def test_patterns(source_db: Database, source: PostgresSource) -> None:
    """`name`, `schema.name`, `schema.*` and `*`; a bare name in several schemas means public's, or has to
    be written in full; a table is never given twice."""
    source_db.execute(
        "CREATE SCHEMA crm; CREATE SCHEMA oa; CREATE SCHEMA cdc;"
        "CREATE TABLE public.both (id int PRIMARY KEY); CREATE TABLE crm.both (id int PRIMARY KEY);"
        "CREATE TABLE crm.twice (id int PRIMARY KEY); CREATE TABLE oa.twice (id int PRIMARY KEY);"
        "CREATE TABLE oa.once (id int PRIMARY KEY); CREATE TABLE cdc.ours (id int PRIMARY KEY)"
    )
    assert names(source, "both") == ["public.both"]
    assert names(source, "once") == ["oa.once"]
    assert names(source, "crm.both", "oa.once") == ["crm.both", "oa.once"]
    assert names(source, "crm.*") == ["crm.both", "crm.twice"]
    assert names(source, "*") == ["crm.both", "crm.twice", "oa.once", "oa.twice", "public.both"]
    assert names(source, "both", "*", "public.both").count("public.both") == 1
    assert refusal(source, "twice") == (
        "table twice exists in several schemas: crm.twice, oa.twice",
        "write it as schema.table",
    )
    assert refusal(source, "nothing")[0] == (
        "table nothing does not exist on the source, or its role may not see it"
    )
    assert names(source, "empty.*") == []


@on_every_source
def test_a_key_that_has_a_column_twice(source_db: Database, source: PostgresSource) -> None:
    """As an index may, and a table's key may not."""
    source_db.execute(
        "CREATE TABLE t (a text NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX i ON t (b, a, b);"
        "ALTER TABLE t REPLICA IDENTITY USING INDEX i"
    )
    assert source.catalog(["t"]).relations[0].key_names == ("b", "a")


def test_two_tables_of_one_name(source_db: Database, source: PostgresSource) -> None:
    """`schema.name` is what a table goes by everywhere. Two that it does not tell apart would be one table
    of the sync, of which only one is copied: they are refused together."""
    source_db.execute(
        'CREATE SCHEMA s; CREATE TABLE s."a.b" (id int PRIMARY KEY);'
        'CREATE SCHEMA "s.a"; CREATE TABLE "s.a".b (id int PRIMARY KEY)'
    )
    with pytest.raises(PermanentError) as caught:
        source.catalog(["*"])
    assert str(caught.value) == '"s"."a.b" and "s.a"."b" would both be table s.a.b of the sync'
    assert [r.name for r in source.catalog(["s.*"]).relations] == ["a.b"]


def test_keyless_tables_are_refused_by_name(source_db: Database, source: PostgresSource) -> None:
    """A named table without a key stops everything, with the remedy; a wildcard leaves it out and says
    so (46)."""
    source_db.execute(
        "CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE none (id int);"
        "CREATE TABLE loose (id int UNIQUE); CREATE TABLE nothing (id int PRIMARY KEY);"
        "ALTER TABLE nothing REPLICA IDENTITY NOTHING; CREATE TABLE columnless ();"
        "CREATE TABLE late (id int PRIMARY KEY DEFERRABLE);"
        "CREATE TABLE partial (id int NOT NULL); CREATE UNIQUE INDEX ON partial (id) WHERE id > 0;"
        "CREATE TABLE expression (x text NOT NULL); CREATE UNIQUE INDEX ON expression (lower(x));"
        "CREATE TABLE bare (id int NOT NULL UNIQUE); ALTER TABLE bare REPLICA IDENTITY FULL;"
        "CREATE TABLE full_none (id int); ALTER TABLE full_none REPLICA IDENTITY FULL;"
        "CREATE TABLE full_late (id int PRIMARY KEY DEFERRABLE); ALTER TABLE full_late REPLICA IDENTITY FULL;"
        "CREATE TABLE indexed (a int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX i ON indexed (b, a);"
        "ALTER TABLE indexed REPLICA IDENTITY USING INDEX i;"
        "CREATE TABLE unused (a int NOT NULL); CREATE UNIQUE INDEX ON unused (a)"
    )
    keyless = "has no usable key: no row can be told from another"
    remedy = (
        'add a primary key, or a unique index on NOT NULL columns and ALTER TABLE "public"."none"'
        " REPLICA IDENTITY USING INDEX …"
    )
    assert refusal(source, "none") == (f"table public.none {keyless}", remedy)
    assert refusal(source, "nothing") == (
        "table public.nothing has REPLICA IDENTITY NOTHING: the log does not say which row changed",
        'ALTER TABLE "public"."nothing" REPLICA IDENTITY DEFAULT;',
    )
    catalog = source.catalog(["*"])
    assert {r.table: r.key_names for r in catalog.relations} == {
        "public.good": ("id",),
        "public.bare": ("id",),
        "public.indexed": ("b", "a"),
    }
    assert {r.table: r.reason for r in catalog.refused if r.reason == keyless}.keys() == {
        f"public.{t}"
        for t in "none loose columnless late partial expression full_none full_late unused".split()
    }
    assert [r.table for r in catalog.refused if r.reason != keyless] == ["public.nothing"]
    assert {r.table for r in catalog.relations if r.whole_before} == {"public.bare"}


@on_every_source
def test_the_remedy_mends(source_db: Database, source: PostgresSource) -> None:
    """A table that was refused is taken after what the remedy says."""
    source_db.execute(
        "CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);"
        "CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING"
    )
    for table in ("fast", "nothing"):
        _, remedy = refusal(source, table)
        source_db.execute(remedy)
        assert names(source, table) == [f"public.{table}"]


@on_every_source
def test_what_is_no_table_is_refused(source_db: Database, source: PostgresSource) -> None:
    """Views, materialized views, foreign and unlogged tables have no changes in the log; temporary ones
    are nobody else's business."""
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT * FROM t;"
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM t;"
        "CREATE UNLOGGED TABLE u (id int PRIMARY KEY); CREATE TEMP TABLE s (id int PRIMARY KEY)"
    )
    assert refusal(source, "v")[0] == "table public.v is a view: its changes are not in the log"
    assert (
        refusal(source, "m")[0]
        == "table public.m is a materialized view: its changes are not in the log"
    )
    assert refusal(source, "u") == (
        "table public.u is unlogged: its changes are not in the log",
        'ALTER TABLE "public"."u" SET LOGGED;',
    )
    assert "does not exist" in refusal(source, "s")[0]
    catalog = source.catalog(["*"])
    assert [r.table for r in catalog.relations] == ["public.t"]
    assert [r.table for r in catalog.refused] == ["public.u"]


@on_every_source
def test_partitions_come_through_their_root(source_db: Database, source: PostgresSource) -> None:
    """A wildcard gives the root alone; a partition can be named instead of its root, not beside it."""
    source_db.execute(
        "CREATE TABLE p (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1) PARTITION BY RANGE (id);"
        "CREATE TABLE p11 PARTITION OF p1 FOR VALUES FROM (1) TO (10)"
    )
    assert names(source, "*") == ["public.p"]
    assert names(source, "p11") == ["public.p11"]
    with pytest.raises(PermanentError) as error:
        source.catalog(["p", "p11"])
    assert str(error.value).startswith(
        "table public.p11 is a partition of public.p, which is synced too"
    )


@on_every_source
def test_partitions_that_log_otherwise_are_refused(
    source_db: Database, source: PostgresSource
) -> None:
    """A partition's own replica identity decides what is logged: one that differs is named."""
    source_db.execute(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10); ALTER TABLE p1 REPLICA IDENTITY NOTHING;"
        "CREATE TABLE q (id int NOT NULL) PARTITION BY RANGE (id);"
        "CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (1) TO (10);"
        "CREATE TABLE f (id int PRIMARY KEY) PARTITION BY RANGE (id); ALTER TABLE f REPLICA IDENTITY FULL;"
        "CREATE TABLE f1 PARTITION OF f FOR VALUES FROM (1) TO (10);"
        "CREATE TABLE g (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE g1 PARTITION OF g FOR VALUES FROM (1) TO (10); ALTER TABLE g1 REPLICA IDENTITY FULL"
    )
    text, remedy = refusal(source, "p")
    assert text == (
        "table public.p has a partition, p1, with replica identity NOTHING, expected DEFAULT as the table itself has"
    )
    source_db.execute(remedy)
    assert names(source, "p", "g") == ["public.p", "public.g"]
    text, remedy = refusal(source, "f")
    assert "replica identity DEFAULT, expected FULL" in text
    source_db.execute(remedy)
    assert names(source, "f") == ["public.f"]
    assert "has no usable key" in refusal(source, "q")[0]


@on_every_source
def test_children_by_inheritance_are_left_alone(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """A table's heirs are not published with it: nobody looked at their keys, and the application's own
    UPDATE on a keyless one would fail (46)."""
    source_db.execute(
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (x int) INHERITS (parent);"
        "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 2)"
    )
    capture = make_capture(source_db)
    capture.start("parent")
    source_db.execute("UPDATE child SET x = 3; UPDATE parent SET id = id + 10")
    assert told(capture) == [("update", "parent", (1,), (11,))]
    assert capture.resume("parent") == frozenset()


@on_every_source
def test_the_application_can_write_to_everything_that_is_published(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """Whatever the catalog gives is published without PostgreSQL refusing one UPDATE or DELETE of the
    application: generated columns in keys, with FULL, stored and virtual (46)."""
    virtual = "VIRTUAL" if source_db.server.major >= 18 else "STORED"
    source_db.execute(
        "CREATE TABLE plain (id int PRIMARY KEY, x int, g int GENERATED ALWAYS AS (id + 1) STORED,"
        f" v int GENERATED ALWAYS AS (id + 2) {virtual});"
        "CREATE TABLE keyed (x int, g int GENERATED ALWAYS AS (x + 1) STORED PRIMARY KEY);"
        f"CREATE TABLE whole (id int PRIMARY KEY, x int, g int GENERATED ALWAYS AS (id + 1) {virtual});"
        "ALTER TABLE whole REPLICA IDENTITY FULL;"
        "CREATE TABLE keyed_whole (id int NOT NULL, x int, g int GENERATED ALWAYS AS (x + 1) STORED NOT NULL);"
        "CREATE UNIQUE INDEX ON keyed_whole (g); ALTER TABLE keyed_whole REPLICA IDENTITY FULL"
    )
    tables = "plain keyed whole keyed_whole".split()
    source_db.execute("INSERT INTO plain VALUES (1, 1); INSERT INTO whole VALUES (1, 1)")
    source_db.execute("INSERT INTO keyed VALUES (1); INSERT INTO keyed_whole VALUES (1, 1)")
    capture = make_capture(source_db)
    capture.start("*")
    for table in tables:
        source_db.execute(f"UPDATE {table} SET x = x + 1")
        source_db.execute(f"DELETE FROM {table}")
    expected = {"plain"} if source_db.server.major >= 18 else {"plain", "whole"}
    assert set(capture.relations) == expected
    assert [c.name for c in capture.relations["plain"].columns] == ["id", "x"]
    assert told(capture)[0] == ("update", "plain", None, (1, 2))


@on_every_source
def test_names_of_every_kind(source_db: Database, make_capture: MakeCapture) -> None:
    """Upper-case, quoted, multi-byte and reserved names come through unchanged (22)."""
    name, column = 'Größe "5"', "Straße.名前"
    schema = "Sales Dept"
    quoted = f'"{schema}"."Größe ""5"""'
    source_db.execute(
        f'CREATE SCHEMA "{schema}"; CREATE TABLE {quoted} ("Id" int PRIMARY KEY, "{column}" text, "select" int)'
    )
    capture = make_capture(source_db)
    capture.start(f"{schema}.{name}")
    source_db.execute(f"INSERT INTO {quoted} VALUES (1, 'x', 2)")
    assert told(capture) == [("insert", name, None, (1, "x", 2))]
    relation = capture.relations[name]
    assert (relation.schema, relation.key_names) == (schema, ("Id",))
    assert [c.name for c in relation.columns] == ["Id", column, "select"]
    assert names(capture.source, f"{schema}.*") == [f"{schema}.{name}"]


@on_every_source
def test_types(source_db: Database, source: PostgresSource) -> None:
    """Each column says its declared type, its base type without domains, its kind, and whether its
    binary form means the same on every server."""
    source_db.execute(
        "CREATE SCHEMA own; CREATE TYPE own.mood AS ENUM ('a'); CREATE DOMAIN own.d AS varchar(40);"
        "CREATE DOMAIN own.dd AS own.d; CREATE TYPE own.pair AS (a int, b int);"
        "CREATE TYPE own.span AS RANGE (subtype = float8); CREATE EXTENSION citext SCHEMA own;"
        "CREATE EXTENSION hstore SCHEMA own; CREATE EXTENSION ltree SCHEMA own;"
        "CREATE TABLE t (id bigint PRIMARY KEY, n numeric(10,2), v varchar(7), ts timestamptz(3), bits bit varying(5),"
        " m own.mood, d own.dd, p own.pair, r int4range, mr datemultirange, s own.span, a int[], ma own.mood[],"
        " da own.d[], c own.citext, h own.hstore, l own.ltree, iv int2vector, reg regclass, x xml, o oid, j jsonb)"
    )
    [relation] = source.catalog(["t"]).relations
    assert {c.name: c for c in relation.columns} == {
        c.name: c
        for c in (
            Column("id", "bigint", "int8", nullable=False),
            Column("n", "numeric(10,2)", "numeric"),
            Column("v", "character varying(7)", "varchar"),
            Column("ts", "timestamp(3) with time zone", "timestamptz"),
            Column("bits", "bit varying(5)", "varbit"),
            Column("m", "own.mood", "mood", "enum"),
            Column("d", "own.dd", "varchar"),
            Column("p", "own.pair", "pair", "composite", portable=False),
            Column("r", "int4range", "int4range", "range"),
            Column("mr", "datemultirange", "datemultirange", "multirange"),
            Column("s", "own.span", "span", "range", portable=False),
            Column("a", "integer[]", "int4", "array"),
            Column("ma", "own.mood[]", "mood", "array", portable=False),
            Column("da", "own.d[]", "varchar", "array", portable=False),
            Column("c", "own.citext", "citext", folds=True),
            Column("h", "own.hstore", "hstore"),
            Column("l", "own.ltree", "ltree", portable=False),
            Column("iv", "int2vector", "int2vector", portable=False),
            Column("reg", "regclass", "regclass", portable=False),
            Column("x", "xml", "xml", portable=False),
            Column("o", "oid", "oid"),
            Column("j", "jsonb", "jsonb"),
        )
    }


def test_row_level_security_is_an_error_not_a_short_table(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """A role that row-level security filters gets an error where it would read too little (47)."""
    role = source_db.create_role("LOGIN REPLICATION")
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
        f"ANALYZE t; GRANT SELECT ON t TO {role}"
    )
    capture = make_capture(source_db, url=source_db.url_as(role))
    [relation] = capture.source.catalog(["t"]).relations
    copied = capture.source.copy_relation(relation, binary=False)
    copying = capture.source.copy_round()
    reader = copying.reader()
    try:
        plan = reader.plan(copied)
        with pytest.raises(PermanentError, match="row-level security") as error:
            list(reader.read(copied, plan.bounds[0], plan.fingerprint))
        assert error.value.hint == "run `cdc check`: it prints the grants that are missing"
    finally:
        reader.close()
        copying.close()
    with psycopg.connect(source_db.url_as(role)) as db:
        assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)
