"""What a PostgreSQL source sees of its tables from one look to the next: rows that have changed behind the
log's back, and what leaves rows alone."""

from __future__ import annotations

from typing import Final

import pytest

from appliers.errors import TransientError
from cdc.sources.postgres import source as source_module
from tests.capture import Capture, MakeCapture
from tests.databases import Database
from tests.servers import on_every_source
from tests.test_postgres_copying import reading

SCHEMA: Final = """
    CREATE TYPE mood AS ENUM ('fine', 'bad');
    CREATE TYPE size AS ENUM ('small', 'big');
    CREATE DOMAIN moods AS mood[];
    CREATE TYPE being AS (name text, moods moods);
    CREATE TYPE sizes AS RANGE (SUBTYPE = size);
    CREATE TABLE u (id int PRIMARY KEY, being being, sizes sizes);
    CREATE TABLE t (id int DEFAULT 1, part int DEFAULT 1, body text DEFAULT '', PRIMARY KEY (id, part))
        PARTITION BY LIST (part);
    CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
    CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2) PARTITION BY RANGE (id);
    CREATE TABLE t21 PARTITION OF t2 FOR VALUES FROM (0) TO (100);
    CREATE TABLE t22 PARTITION OF t2 FOR VALUES FROM (100) TO (200);
    CREATE TABLE t23 PARTITION OF t2 FOR VALUES FROM (200) TO (300);
    INSERT INTO t SELECT g, 1 + g % 2 FROM generate_series(1, 150) g"""

FILLED: Final = "INSERT INTO t SELECT g, 3 FROM generate_series(1, 50) g"
BESIDE: Final = "CREATE TABLE t3 (LIKE t INCLUDING ALL);"
ATTACHED: Final = ";ALTER TABLE t ATTACH PARTITION t3 FOR VALUES IN (3);"
ROWS_OF_ITS_OWN: Final = "INSERT INTO t3 VALUES (1, 3);"

UNTOLD: Final = {
    "attached": BESIDE + ROWS_OF_ITS_OWN + ATTACHED,
    "attached, made in the same transaction": f"BEGIN; {BESIDE + ROWS_OF_ITS_OWN + ATTACHED} COMMIT",
    "attached, as made by a query": """BEGIN; CREATE TABLE t3 AS SELECT * FROM t WHERE false;
        INSERT INTO t3 VALUES (1, 3, ''); ALTER TABLE t3 ALTER id SET NOT NULL, ALTER part SET NOT NULL;
        ALTER TABLE t ATTACH PARTITION t3 FOR VALUES IN (3); COMMIT""",
    "made, and truncated": f"CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3); {FILLED}; TRUNCATE t3",
    "made, detached and attached": f"""BEGIN; CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3);
        ALTER TABLE t DETACH PARTITION t3; {ROWS_OF_ITS_OWN} {ATTACHED} COMMIT""",
    "attached with what is below": """
        CREATE TABLE t3 (LIKE t INCLUDING ALL) PARTITION BY RANGE (id);
        CREATE TABLE t31 PARTITION OF t3 FOR VALUES FROM (0) TO (100);"""
    + ROWS_OF_ITS_OWN
    + ATTACHED,
    "attached below": """CREATE TABLE t24 (LIKE t INCLUDING ALL); INSERT INTO t24 VALUES (300, 2);
        ALTER TABLE t2 ATTACH PARTITION t24 FOR VALUES FROM (300) TO (400)""",
    "detached": "ALTER TABLE t DETACH PARTITION t1",
    "detached concurrently": "ALTER TABLE t DETACH PARTITION t1 CONCURRENTLY",
    "detached and attached": """ALTER TABLE t2 DETACH PARTITION t21; DELETE FROM t21 WHERE id = 1;
        ALTER TABLE t2 ATTACH PARTITION t21 FOR VALUES FROM (0) TO (100)""",
    "dropped": "DROP TABLE t2",
    "dropped below": "DROP TABLE t22",
    "truncated": "TRUNCATE t1",
    "truncated with what is below": "TRUNCATE t2",
    "truncated below": "TRUNCATE t22",
    "truncated, filled and analyzed": "TRUNCATE t1; INSERT INTO t VALUES (2, 1); VACUUM ANALYZE t1",
    "truncated, filled and frozen": """BEGIN; TRUNCATE t1; INSERT INTO t1 VALUES (2, 1); COMMIT;
        VACUUM (FREEZE, FULL) t1""",
    "truncated while empty, but not before": """
        INSERT INTO t VALUES (200, 2), (250, 2); TRUNCATE t23; VACUUM ANALYZE t23""",
    # Nobody can tell these from the ones before: a copy too many.
    "written anew while empty": "VACUUM FULL t23",
    "truncated by the root": "TRUNCATE t",
    "another column's type": "ALTER TABLE t ALTER body TYPE varchar(1) USING 'x'",
}
UNTOLD_OF_ANOTHER: Final = {
    "a value of an array": "ALTER TYPE mood RENAME VALUE 'fine' TO 'well'",
    "a value of a range": "ALTER TYPE size RENAME VALUE 'big' TO 'large'",
    "a value, and back": """ALTER TYPE mood RENAME VALUE 'fine' TO 'well';
        ALTER TYPE mood RENAME VALUE 'well' TO 'fine'""",
    "out for a while": "ALTER PUBLICATION {name} DROP TABLE u; ALTER PUBLICATION {name} ADD TABLE u",
}
UNTOLD_OF_ALL: Final = {
    "not all published": """ALTER PUBLICATION {name} SET (publish = 'insert, delete');
        ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')""",
    "not by the root": """ALTER PUBLICATION {name} SET (publish_via_partition_root = false);
        ALTER PUBLICATION {name} SET (publish_via_partition_root = true)""",
}
HARMLESS: Final = {
    "made": f"CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3); {FILLED}",
    "made, with defaults of its own": f"""BEGIN; SELECT pg_current_xact_id(); INSERT INTO u VALUES (9);
        CREATE TABLE t3 PARTITION OF t (body DEFAULT 'x' NOT NULL, CONSTRAINT c CHECK (id < 1000))
        FOR VALUES IN (3) WITH (fillfactor = 50); {FILLED}; COMMIT; VACUUM FREEZE pg_attribute, pg_inherits;
        VACUUM FULL pg_attribute; VACUUM FULL pg_inherits; ANALYZE; GRANT SELECT ON t3 TO public""",
    "made, with parts below": f"""CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3) PARTITION BY RANGE (id);
        CREATE TABLE t31 PARTITION OF t3 FOR VALUES FROM (0) TO (100); {FILLED}""",
    "made below": """CREATE TABLE t24 PARTITION OF t2 FOR VALUES FROM (300) TO (400);
        INSERT INTO t VALUES (300, 2)""",
    "made as the default": f"CREATE TABLE t3 PARTITION OF t DEFAULT; {FILLED}",
    "attached empty": BESIDE + ATTACHED,
    "attached empty, with parts below": """
        CREATE TABLE t3 (LIKE t INCLUDING ALL) PARTITION BY RANGE (id);
        CREATE TABLE t31 PARTITION OF t3 FOR VALUES FROM (0) TO (100);"""
    + ATTACHED,
    "VACUUM FULL": "VACUUM FULL t1; INSERT INTO t VALUES (800, 1); VACUUM FULL t1; VACUUM FREEZE t1",
    "CLUSTER": "CLUSTER t1 USING t1_pkey",
    "REINDEX": "REINDEX TABLE t1; REINDEX INDEX t_pkey",
    "rows that come and go": "DELETE FROM t; VACUUM t1; INSERT INTO t VALUES (1, 1)",
    "an index, a column, a name": """CREATE INDEX ON t (body); ALTER TABLE t ADD c int;
        ALTER TABLE t1 RENAME TO renamed; ALTER TABLE u RENAME COLUMN sizes TO s""",
    "a new value": "ALTER TYPE mood ADD VALUE 'great'; ALTER TYPE size ADD VALUE 'tiny' BEFORE 'small'",
    "a value of no column": "CREATE TYPE x AS ENUM ('a'); ALTER TYPE x RENAME VALUE 'a' TO 'b'",
    "a type's name": "ALTER TYPE mood RENAME TO moody; VACUUM FULL pg_enum; VACUUM FREEZE pg_enum",
    "other tables in the publication": """CREATE TABLE v (id int PRIMARY KEY);
        ALTER PUBLICATION {name} ADD TABLE v; ALTER PUBLICATION {name} DROP TABLE v;
        ALTER PUBLICATION {name} SET TABLE u, t; COMMENT ON PUBLICATION {name} IS 'of cdc';
        VACUUM FREEZE pg_publication; VACUUM FULL pg_publication""",
}

CHANGES: Final = [
    *((what, ddl, {"public.t"}) for what, ddl in UNTOLD.items()),
    *((what, ddl, {"public.u"}) for what, ddl in UNTOLD_OF_ANOTHER.items()),
    *((what, ddl, {"public.t", "public.u"}) for what, ddl in UNTOLD_OF_ALL.items()),
    *((what, ddl, set[str]()) for what, ddl in HARMLESS.items()),
]


@on_every_source
@pytest.mark.parametrize(
    ("ddl", "changed"), [change[1:] for change in CHANGES], ids=[change[0] for change in CHANGES]
)
def test_what_has_changed_behind_the_log(
    source_db: Database,
    make_capture: MakeCapture,
    monkeypatch: pytest.MonkeyPatch,
    ddl: str,
    changed: set[str],
) -> None:
    """The session that streams sees it, and so does the next one, by what the copies' plans say; both name
    the same tables, and of what is harmless none."""
    monkeypatch.setattr(source_module, "TEND_EVERY", 0.0)
    source_db.execute(SCHEMA)
    capture = make_capture(source_db)
    capture.start("t", "u")
    plans = planned(capture)
    altered(source_db, ddl.format(name=capture.source.name))
    assert seen(capture) == changed
    next_one = make_capture(source_db)
    next_one.identity = capture.identity
    assert next_one.resume("t", "u", position=capture.position) == set()
    assert next_one.source.outdated(plans) == changed


@on_every_source
def test_what_is_harmless_is_kept(
    source_db: Database, make_capture: MakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that has come since the plan may go, and a value that is new may get another name: the
    renewed fingerprints tell. What is not new costs no renewal."""
    monkeypatch.setattr(source_module, "TEND_EVERY", 0.0)
    source_db.execute(SCHEMA)
    capture = make_capture(source_db)
    capture.start("t", "u")
    plans = planned(capture)
    assert capture.source.renewed(plans) == {}
    altered(source_db, f"{HARMLESS['made']}; {HARMLESS['a new value']}")
    assert seen(capture) == set()
    plans |= capture.source.renewed(plans)
    assert seen(capture) == set()
    assert capture.source.renewed(plans) == {}
    altered(source_db, "DROP TABLE t3; ALTER TYPE mood RENAME VALUE 'great' TO 'glad'")
    assert seen(capture) == {"public.t", "public.u"}
    capture.resume("t", "u")
    assert capture.source.outdated(plans) == {"public.t", "public.u"}


@on_every_source
def test_a_partition_that_is_younger_than_the_plan(
    source_db: Database, make_capture: MakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of its rows is as old as the plan; they were there at the last look, and VACUUM FULL is told
    from TRUNCATE by that."""
    monkeypatch.setattr(source_module, "TEND_EVERY", 0.0)
    source_db.execute(SCHEMA)
    capture = make_capture(source_db)
    capture.start("t", "u")
    plans = planned(capture)
    altered(source_db, HARMLESS["made"])
    assert seen(capture) == set()
    altered(source_db, "VACUUM FULL t3")
    assert seen(capture) == set()
    plans |= capture.source.renewed(plans)
    altered(source_db, "VACUUM FULL t3")
    assert seen(capture) == set()
    assert capture.source.outdated(plans) == set()
    altered(source_db, "TRUNCATE t3")
    assert seen(capture) == {"public.t"}


def test_a_partition_that_somebody_holds_locked(
    source_db: Database, make_capture: MakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look waits for nobody: all tables of the sync would stand still for one VACUUM FULL."""
    monkeypatch.setattr(source_module, "TEND_EVERY", 0.0)
    source_db.execute(SCHEMA)
    source_db.execute(f"ALTER DATABASE {source_db.name} SET lock_timeout = '2s'")
    capture = make_capture(source_db)
    capture.start("t", "u")
    with source_db.connect(autocommit=False) as db:
        db.execute("LOCK TABLE t1 IN ACCESS EXCLUSIVE MODE")
        capture.source.tend()
        db.rollback()


def altered(source_db: Database, ddl: str) -> None:
    """Each statement alone, as VACUUM demands; what stands between BEGIN and COMMIT together."""
    with source_db.connect() as db:
        for statement in ddl.split(";"):
            if statement.strip():
                db.execute(statement)


def planned(capture: Capture) -> dict[str, str]:
    with reading(capture) as reader:
        return {
            f"public.{name}": reader.plan(capture.copied(name)).fingerprint for name in ("t", "u")
        }


def seen(capture: Capture) -> set[str]:
    """The tables for which the session would begin again."""
    try:
        capture.source.tend()
    except TransientError as error:
        named = str(error).removeprefix("source: ").split(", or a partition")[0]
        return set(named.split(", "))
    return set()
