"""The preflight of a PostgreSQL source: what is missing is found, and its remedy mends it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from appliers.errors import PermanentError
from appliers.finding import Finding
from cdc.demo.server import LocalPostgres
from cdc.sources.postgres.source import PostgresSource
from tests.capture import MakeCapture
from tests.databases import Database
from tests.servers import MakeServer, on_every_source


def findings(source: PostgresSource, *patterns: str) -> list[Finding]:
    relations = source.catalog(patterns or ("*",)).relations
    return list(source.check(relations))


def wrong(source: PostgresSource, *patterns: str) -> dict[str, Finding]:
    return {f.subject: f for f in findings(source, *patterns) if f.level == "FAILED"}


def mend(database: Database, finding: Finding) -> None:
    """Runs what the finding says, as the administrator would."""
    database.execute(finding.remedy.removeprefix("have a superuser run: "))


def paste(database: Database, remedy: str) -> None:
    """Gives the line to psql as it stands: ALTER SYSTEM, for one, must be a statement by itself."""
    psql = [str(database.server.bin_dir / "psql"), "-qv", "ON_ERROR_STOP=1", database.url]
    done = subprocess.run(psql, input=remedy, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), remedy


@on_every_source
def test_a_good_source_has_one_line_each(source_db: Database, make_capture: MakeCapture) -> None:
    """Every setting, grant and table is told, ok where it is; only unbounded log growth is warned of; and
    nothing is changed."""
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (a int, b int, PRIMARY KEY (b, a))"
    )
    capture = make_capture(source_db)
    found = findings(capture.source)
    name = capture.source.name
    assert [(f.level, f.subject) for f in found] == [
        ("ok", "server"),
        ("ok", "wal_level"),
        ("ok", "role"),
        ("ok", "max_replication_slots"),
        ("ok", "max_wal_senders"),
        ("warn", "max_slot_wal_keep_size"),
        ("ok", "table public.t"),
        ("ok", "table public.u"),
        ("ok", f"publication {name}"),
    ]
    assert found[0].message == f"PostgreSQL {source_db.value('SHOW server_version')}"
    assert found[7].message == "key b, a, replica identity DEFAULT"
    assert found[8].message == "will be made at the first start"
    assert "max_slot_wal_keep_size = '50GB'" in found[5].remedy
    assert source_db.rows("SELECT pubname FROM pg_publication") == []
    capture.start("t")
    running = {f.subject: f for f in findings(capture.source)}
    assert running[f"slot {name}"] == Finding("ok", f"slot {name}", "exists, its log is reserved")
    assert running[f"publication {name}"].message == "exists, tables will be added"


@on_every_source
def test_every_remedy_mends(source_db: Database, make_capture: MakeCapture) -> None:
    """A role with nothing at all: running each remedy in turn ends with a sync that starts."""
    role = source_db.create_role("LOGIN")
    quoted = f'"{role}"'
    source_db.execute(
        'CREATE SCHEMA "S x"; CREATE TABLE "S x"."T y" (id int PRIMARY KEY); CREATE TABLE secured (id int PRIMARY KEY);'
        "ALTER TABLE secured ENABLE ROW LEVEL SECURITY;"
        "CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10);"
        f"GRANT SELECT ON parts TO {quoted}"
    )
    capture = make_capture(source_db, url=source_db.url_as(role))
    name = capture.source.name
    found = findings(capture.source)
    failed = [(f.subject, f.message, f.remedy) for f in found if f.level == "FAILED"]
    via_root = "WITH (publish_via_partition_root = true)"
    tables = 'ONLY "S x"."T y", ONLY "public"."parts", ONLY "public"."secured"'
    assert failed == [
        ("role", f"{role} may not replicate", f"ALTER ROLE {quoted} REPLICATION;"),
        (
            "table S x.T y",
            f"{role} may not use its schema",
            f'GRANT USAGE ON SCHEMA "S x" TO {quoted};',
        ),
        ("table S x.T y", f"{role} may not read it", f'GRANT SELECT ON "S x"."T y" TO {quoted};'),
        (
            "table public.parts",
            f"{role} may not read all of its partitions",
            f'GRANT SELECT ON "public"."part1" TO {quoted};',
        ),
        (
            "table public.secured",
            f"{role} may not read it",
            f'GRANT SELECT ON "public"."secured" TO {quoted};',
        ),
        (
            "table public.secured",
            f"has row-level security that hides rows from {role}",
            f"ALTER ROLE {quoted} BYPASSRLS;",
        ),
        (
            f"publication {name}",
            f"only the owner of S x.T y can make it, and {role} is not",
            f'have a superuser run: CREATE PUBLICATION "{name}" FOR TABLE {tables} {via_root};',
        ),
    ]
    for finding in found:
        if finding.level == "FAILED":
            mend(source_db, finding)
    capture.source.close()
    capture.source.open()
    assert wrong(capture.source) == {}
    capture.start("*")
    copying = capture.source.copy_round()
    reader = copying.reader()
    try:
        for relation in capture.relations.values():
            copied = capture.source.copy_relation(relation, binary=False)
            plan = reader.plan(copied)
            assert list(reader.keys(copied, None)) == []
            for bounds in plan.bounds:
                list(reader.read(copied, bounds, plan.fingerprint))
    finally:
        reader.close()
        copying.close()
    source_db.execute("CREATE TABLE late (id int PRIMARY KEY)")
    found = findings(capture.source)
    late = wrong(capture.source)
    assert late.keys() == {"table public.late", f"publication {name}"}
    assert (
        late[f"publication {name}"].message == f"is without public.late, which {role} may not add"
    )
    for finding in late.values():
        mend(source_db, finding)
    assert wrong(capture.source) == {}
    source_db.execute(f"DROP PUBLICATION {name}; DROP OWNED BY {quoted}")


@on_every_source
def test_an_owner_needs_only_create(source_db: Database, make_capture: MakeCapture) -> None:
    """A role that owns its tables is asked for CREATE on the database, and RLS is no matter to it
    unless it is forced."""
    role = source_db.create_role("LOGIN REPLICATION;")
    source_db.execute(
        f'CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO "{role}", ENABLE ROW LEVEL SECURITY'
    )
    capture = make_capture(source_db, url=source_db.url_as(role))
    failed = wrong(capture.source)
    assert [f.remedy for f in failed.values()] == [
        f'GRANT CREATE ON DATABASE "{source_db.name}" TO "{role}";'
    ]
    mend(source_db, *failed.values())
    assert wrong(capture.source) == {}
    capture.start("t")
    source_db.execute("ALTER TABLE t FORCE ROW LEVEL SECURITY")
    assert list(wrong(capture.source)) == ["table public.t"]
    capture.source.drop()
    source_db.execute(f'REASSIGN OWNED BY "{role}" TO postgres; DROP OWNED BY "{role}"')


@on_every_source
def test_what_is_worth_knowing_is_warned_of(source_db: Database, make_capture: MakeCapture) -> None:
    """Partitioned tables and generated columns work, with a limit that is told."""
    source_db.execute(
        "CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);"
        "CREATE TABLE whole (id int PRIMARY KEY); ALTER TABLE whole REPLICA IDENTITY FULL"
    )
    found = findings(make_capture(source_db).source)
    warned = {f.subject: f for f in found if f.level == "warn" and f.subject.startswith("table")}
    assert warned["table public.parts"].message == (
        "is partitioned: TRUNCATE, ATTACH and DETACH of a single partition are not in the log"
    )
    assert (
        warned["table public.parts"].remedy
        == "after one of them: cdc snapshot --table public.parts"
    )
    assert warned["table public.g"].message == (
        "its generated columns are not in the log: the target computes or omits them"
    )
    assert Finding("ok", "table public.whole", "key id, replica identity FULL") in found


@on_every_source
def test_a_publication_that_was_changed_fails(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """A publication of ours that leaves something out is found before it costs changes."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    name = capture.source.name
    source_db.execute(f"ALTER PUBLICATION {name} SET (publish = 'insert')")
    [finding] = wrong(capture.source).values()
    assert (finding.subject, finding.message) == (
        f"publication {name}",
        "does not publish every change of its tables",
    )
    assert (
        finding.remedy == f"DROP PUBLICATION {name}; -- then cdc snapshot copies everything again"
    )


def test_settings(
    make_server: MakeServer,
    fresh_database: Callable[[LocalPostgres], Database],
    make_capture: MakeCapture,
) -> None:
    """wal_level, slots and walsenders that do not do, and a log without a bound, each with its setting; after
    the remedy, as it stands, and a restart they do. A start says the same of wal_level."""
    server = make_server(
        {
            "wal_level": "replica",
            "max_replication_slots": 1,
            "max_wal_senders": 1,
        }
    )
    database = fresh_database(server)
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(database)
    failed = wrong(capture.source)
    assert {s: (f.message, f.remedy) for s, f in failed.items()} == {
        "wal_level": (
            "is replica, expected logical",
            "ALTER SYSTEM SET wal_level = logical; -- then restart the source",
        ),
        "max_replication_slots": (
            "1 slots free, 2 needed",
            "raise max_replication_slots and restart the source",
        ),
        "max_wal_senders": (
            "1 walsenders free, 2 needed",
            "raise max_wal_senders and restart the source",
        ),
    }
    with pytest.raises(PermanentError) as error:
        capture.start("t")
    assert str(error.value) == "source: wal_level is replica, expected logical"
    assert error.value.hint == failed["wal_level"].remedy
    [unbounded] = [f for f in findings(capture.source) if f.subject == "max_slot_wal_keep_size"]
    for finding in (failed["wal_level"], unbounded):
        paste(database, finding.remedy)
    assert Finding("ok", "max_slot_wal_keep_size", "50GB") in findings(capture.source)
    capture.source.close()
    server.configure({"max_replication_slots": 2, "max_wal_senders": 2})
    server.restart()
    capture.source.open()
    assert wrong(capture.source) == {}
    capture.start("t")
    stream = capture.stream()
    stream.read(0.1)
    assert wrong(capture.source) == {}
    stream.close()
