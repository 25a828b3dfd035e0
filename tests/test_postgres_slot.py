"""The slot and the publication of a sync, and every way in which the log behind them can be wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from appliers.errors import PermanentError, SyncError, TransientError
from appliers.registry import applier_for
from cdc.demo.server import LocalPostgres
from cdc.sources.postgres import reading
from cdc.sources.postgres import source as source_module
from cdc.sources.postgres.errors import translated
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.postgres.source import PostgresSource
from cdc.sources.source import GapError
from tests.capture import Capture, MakeCapture, events_until, told
from tests.databases import Database, wait_until
from tests.mysql_databases import MysqlDatabase
from tests.servers import MakeServer, on_every_source

FreshDatabase = Callable[[LocalPostgres], Database]


def slots(database: Database) -> list[str]:
    return [
        name
        for (name,) in database.rows(
            "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        )
    ]


def publications(database: Database) -> list[str]:
    return [name for (name,) in database.rows("SELECT pubname FROM pg_publication")]


def table(database: Database) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")


def moved_on(capture: Capture) -> Lsn:
    """Streams what there is, confirms it and returns where that ends."""
    stream = capture.stream()
    reached = events_until(stream, capture.source.committed_head())[-1].position
    assert isinstance(reached, Lsn)
    stream.confirm(reached)
    stream.keepalive()
    stream.close()
    wait_until(
        lambda: (
            not capture.database.value(
                "SELECT bool_or(active) FROM pg_replication_slots"
                " WHERE database = current_database()"
            )
        )
    )
    return reached


@on_every_source
def test_start_resume_drop(source_db: Database, make_capture: MakeCapture) -> None:
    """A start leaves one publication and one slot, both of the sync's name, a resume neither more nor
    less, and drop() removes both; what is not there is no error."""
    table(source_db)
    capture = make_capture(source_db)
    capture.start("t")
    name = capture.source.name
    assert (slots(source_db), publications(source_db)) == ([name], [name])
    assert name == f"cdc_demo_{source_db.name}"
    assert capture.resume("t") == frozenset()
    assert (slots(source_db), publications(source_db)) == ([name], [name])
    assert json.loads(capture.identity) == {
        "system": source_db.value("SELECT system_identifier::text FROM pg_control_system()"),
        "timeline": 1,
        "database": source_db.name,
        "slot": name,
    }
    capture.source.drop()
    capture.source.drop()
    assert (slots(source_db), publications(source_db)) == ([], [])


def test_the_slot_survives_a_failover_where_the_server_knows_how(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """From 17 on the slot is one that standbys keep in step."""
    table(source_db)
    make_capture(source_db).start("t")
    assert source_db.value(
        "SELECT failover FROM pg_replication_slots WHERE database = current_database()"
    )


@on_every_source
def test_a_start_that_died_is_replaced(source_db: Database, make_capture: MakeCapture) -> None:
    """A slot without a checkpoint is of no use: the next start makes it anew, further on."""
    table(source_db)
    capture = make_capture(source_db)
    first = capture.start("t")
    source_db.execute("INSERT INTO t VALUES (1)")
    second = capture.start("t")
    assert second > first
    assert slots(source_db) == [capture.source.name]


def test_a_slot_of_another_database_is_left_alone(
    source_server: LocalPostgres, fresh_database: FreshDatabase, make_capture: MakeCapture
) -> None:
    """Slots belong to the whole server: a sync of the same name on another database is never robbed of
    its slot."""
    one, two = fresh_database(source_server), fresh_database(source_server)
    table(one)
    table(two)
    capture = make_capture(one)
    capture.start("t")
    other = PostgresSource(two.url, None, f"demo_{one.name}")
    other.open()
    relations = other.catalog(["t"]).relations
    name = capture.source.name
    said = f"replication slot {name} is not this sync's: it is for database {one.name}, plugin pgoutput"
    try:
        for meet in (
            lambda: other.start(relations),
            lambda: other.resume(capture.identity.replace(one.name, two.name), Lsn(1), relations),
        ):
            with pytest.raises(PermanentError) as error:
                meet()
            assert str(error.value) == said
            assert "rename the sync" in error.value.hint
        [found] = [f for f in other.check(relations) if f.subject == f"slot {name}"]
        assert (found.level, found.message) == ("FAILED", said)
        assert (other.log().state, capture.source.log().state) == (None, "reserved")
        other.drop()
    finally:
        other.close()
    assert slots(one) == [name]


@on_every_source
def test_a_slot_in_use_is_transient_and_names_its_user(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """A second reader of the slot is told which process holds it, and may try again."""
    table(source_db)
    capture = make_capture(source_db)
    capture.start("t")
    stream = capture.stream()
    stream.read(0.1)
    pid = source_db.value(
        "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()"
    )
    position = capture.position

    def second() -> object:
        return capture.source.stream(position, binary=False, shape=lambda r: r)

    for use in (second, lambda: capture.start("t"), capture.source.drop):
        with pytest.raises(TransientError, match=f"(process|PID) {pid}"):
            use()
    capture.resume("t")


@on_every_source
def test_a_slot_that_is_gone_is_a_gap(source_db: Database, make_capture: MakeCapture) -> None:
    """Dropped, recreated, or advanced past the checkpoint: refused, the gap is named (4)."""
    table(source_db)
    capture = make_capture(source_db)
    start = capture.start("t")
    name = capture.source.name
    source_db.execute("INSERT INTO t VALUES (1)")
    source_db.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [name])
    [(standing,)] = source_db.rows("SELECT confirmed_flush_lsn::text FROM pg_replication_slots")
    way_out = (
        f"`cdc snapshot {capture.source.sync}` accepts the gap:"
        " it copies every table again and goes on from there"
    )

    def gap() -> str:
        with pytest.raises(GapError) as error:
            capture.resume("t")
        assert error.value.hint == way_out
        return str(error.value)

    assert gap() == (
        f"replication slot {name} stands at {standing}, past the checkpoint {start}: it was recreated or advanced by"
        " somebody else, and the changes between are lost"
    )
    source_db.execute("SELECT pg_drop_replication_slot(%s)", [name])
    assert gap() == f"replication slot {name} is gone: changes since {start} are lost"
    source_db.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    assert "past the checkpoint" in gap()
    source_db.execute("SELECT pg_drop_replication_slot(%s)", [name])
    source_db.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [name])
    with pytest.raises(PermanentError, match="plugin test_decoding"):
        capture.resume("t")


@pytest.mark.parametrize("version", [18, 15])
def test_a_lost_log_is_a_gap(
    make_server: MakeServer, fresh_database: FreshDatabase, make_capture: MakeCapture, version: int
) -> None:
    """A slot whose log the source has removed (max_slot_wal_keep_size) is refused, with the setting (4)."""
    server = make_server(
        {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"},
        version=version,
    )
    database = fresh_database(server)
    table(database)
    capture = make_capture(database)
    start = capture.start("t")
    for _ in range(3):
        database.execute("SELECT pg_switch_wal(); CREATE TABLE noise AS SELECT 1; DROP TABLE noise")
    database.execute("SELECT pg_switch_wal(); CHECKPOINT")
    wait_until(lambda: capture.source.log().state == "lost")
    with pytest.raises(GapError) as error:
        capture.resume("t")
    assert str(error.value) == (
        f"replication slot {capture.source.name} is lost (wal_removed): changes since {start} are gone from the"
        " source's log"
    )
    assert "raise max_slot_wal_keep_size" in error.value.hint
    with pytest.raises(PermanentError) as refused:
        capture.stream()
    assert refused.value.hint.startswith("run `cdc check`")
    findings = {f.subject: f for f in capture.source.check(())}
    assert findings[f"slot {capture.source.name}"].level == "FAILED"
    capture.source.drop()
    assert slots(database) == []


def test_another_cluster_is_refused(
    source_db: Database,
    target_server: LocalPostgres,
    fresh_database: FreshDatabase,
    make_capture: MakeCapture,
) -> None:
    """Another server, or another database, behind the same address is told apart by identity (15)."""
    table(source_db)
    capture = make_capture(source_db)
    capture.start("t")
    elsewhere = fresh_database(target_server)
    table(elsewhere)
    other = make_capture(elsewhere)
    other.identity, other.position = capture.identity, capture.position
    then = json.loads(capture.identity)
    with pytest.raises(PermanentError) as error:
        other.resume("t")
    now = elsewhere.value("SELECT system_identifier::text FROM pg_control_system()")
    assert str(error.value) == (
        f"the source is not the one this sync was started on: expected system {then['system']} database"
        f" {source_db.name}, got system {now} database {elsewhere.name}"
    )
    assert error.value.hint == "correct the source's URL, or `cdc drop` the sync and start it anew"


def test_a_restored_backup_is_refused(
    make_server: MakeServer, fresh_database: FreshDatabase, make_capture: MakeCapture
) -> None:
    """A copy of the data from before the checkpoint, back in place, has lost what the target has; found
    out by the end of its log (15)."""
    server = make_server()
    database = fresh_database(server)
    table(database)
    capture = make_capture(database)
    capture.start("t")
    capture.source.close()
    server.stop()
    backup = server.folder / "backup"
    _as_owner(server, "cp", "-a", str(server.data), str(backup))
    server.start()
    database.execute("INSERT INTO t SELECT generate_series(1, 10000)")
    capture.source.open()
    capture.position = moved_on(capture)
    capture.source.close()
    server.stop()
    shutil.rmtree(server.data)
    backup.rename(server.data)
    server.start()
    capture.source.open()
    with pytest.raises(GapError) as error:
        capture.resume("t")
    assert str(error.value).startswith("the source's log ends at ")
    assert f"before the checkpoint {capture.position}: it was restored from a backup" in str(
        error.value
    )
    assert error.value.hint.startswith(f"`cdc snapshot {capture.source.sync}` accepts the gap")


def test_a_timeline_that_left_before_the_checkpoint_is_refused(
    make_server: MakeServer, fresh_database: FreshDatabase, make_capture: MakeCapture
) -> None:
    """A backup that was recovered and promoted has another timeline: fine if it left the old one behind
    the checkpoint, a gap if before (15)."""
    server = make_server()
    database = fresh_database(server)
    table(database)
    capture = make_capture(database)
    before = capture.start("t")
    capture.source.close()
    server.stop()
    # Recovery without an archive ends where the log does, and begins a new timeline.
    (server.data / "recovery.signal").touch()
    server.configure({"restore_command": "false"})
    server.start()
    wait_until(lambda: not database.value("SELECT pg_is_in_recovery()"))
    capture.source.open()
    assert capture.resume("t", position=before) == frozenset()
    switch = Lsn.parse(_history(server).split()[1])
    with pytest.raises(GapError) as error:
        capture.resume("t", position=Lsn(switch + 8))
    assert str(error.value) == (
        f"the source was restored: its timeline 2 left timeline 1 at {switch}, before the checkpoint"
        f" {Lsn(switch + 8)}: the target may have changes that the source has lost"
    )
    capture.identity = capture.identity.replace('"timeline": 1', '"timeline": 3')
    with pytest.raises(GapError, match="its timeline 2 never was on timeline 3"):
        capture.resume("t", position=before)


def _history(server: LocalPostgres) -> str:
    return (server.data / "pg_wal" / "00000002.history").read_text()


def _as_owner(server: LocalPostgres, *command: str) -> None:
    owner = server.data.stat()
    subprocess.run(command, check=True, user=owner.st_uid, group=owner.st_gid, cwd=server.folder)


@on_every_source
def test_new_tables_are_added_and_named(source_db: Database, make_capture: MakeCapture) -> None:
    """A resume publishes tables that came into the configuration, takes out those that left it, and
    returns those that have to be copied."""
    source_db.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("a")
    source_db.execute("INSERT INTO b VALUES (1)")
    assert capture.resume("a", "b") == {"public.b"}
    assert capture.resume("a", "b") == frozenset()
    source_db.execute("INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)")
    assert told(capture) == [("insert", "a", None, (1,)), ("insert", "b", None, (2,))]
    assert capture.resume("b") == frozenset()
    source_db.execute("INSERT INTO a VALUES (2)")
    assert ("insert", "a", None, (2,)) not in told(capture)


@on_every_source
def test_a_publication_that_was_changed_is_refused_or_mended(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """A publication that leaves changes out is refused by name; a table that it filtered has to be copied
    again; one of FOR ALL TABLES is never used (46)."""
    table(source_db)
    capture = make_capture(source_db)
    capture.start("t")
    name = capture.source.name
    wrong = (
        f"publication {name} is not as cdc makes it: expected insert, update, delete, truncate, via the partition"
        " root, for named tables, without generated columns"
    )
    for option in ("publish = 'insert'", "publish_via_partition_root = false"):
        source_db.execute(f"ALTER PUBLICATION {name} SET ({option})")
        with pytest.raises(PermanentError) as error:
            capture.resume("t")
        assert str(error.value) == wrong
        assert error.value.hint.startswith(f"DROP PUBLICATION {name};")
        source_db.execute(
            f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate',"
            " publish_via_partition_root = true)"
        )
    source_db.execute(f"ALTER PUBLICATION {name} SET TABLE t WHERE (id > 5)")
    assert capture.resume("t") == {"public.t"}
    assert capture.resume("t") == frozenset()
    source_db.execute(f"DROP PUBLICATION {name}; CREATE PUBLICATION {name} FOR ALL TABLES")
    with pytest.raises(PermanentError, match="for named tables"):
        capture.resume("t")
    source_db.execute(f"DROP PUBLICATION {name}")
    assert capture.resume("t") == {"public.t"}


def test_two_syncs_side_by_side(source_db: Database, make_capture: MakeCapture) -> None:
    """Each sync has its own slot: one that stands still holds back itself alone."""
    table(source_db)
    one, two = make_capture(source_db, sync="one"), make_capture(source_db, sync="two")
    one.start("t")
    two.start("t")
    source_db.execute("INSERT INTO t VALUES (1)")
    expected = [("insert", "t", None, (1,))]
    assert told(one) == expected
    assert told(two) == expected


@on_every_source
def test_the_wait_for_open_transactions_can_be_ended(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """Making a slot waits for the transactions that run: that is PostgreSQL's rule. interrupt() ends the
    wait at once and leaves nothing behind."""
    table(source_db)
    capture = make_capture(source_db)
    capture.source.catalog(["t"])
    with source_db.connect(autocommit=False) as db:
        db.execute("INSERT INTO t VALUES (1)")
        threading.Timer(0.5, capture.source.interrupt).start()
        begun = time.monotonic()
        with pytest.raises(
            TransientError, match="the wait for the source's transactions was ended"
        ):
            capture.start("t")
        assert time.monotonic() - begun < 5
        wait_until(lambda: slots(source_db) == [])
        with pytest.raises(TransientError):
            capture.source.copy_round()
        assert slots(source_db) == []


@on_every_source
def test_a_start_waits_for_open_transactions_and_loses_none(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """A transaction that is open while the slot is made is over before its position, so that the copy
    has it; what comes later comes in the stream (18)."""
    table(source_db)
    capture = make_capture(source_db)
    with source_db.connect(autocommit=False) as db:
        db.execute("INSERT INTO t VALUES (1)")
        threading.Timer(0.5, db.commit).start()
        capture.start("t")
        assert source_db.rows("SELECT * FROM t") == [(1,)]
    source_db.execute("INSERT INTO t VALUES (2)")
    assert told(capture) == [("insert", "t", None, (2,))]


def test_a_death_while_waiting_leaves_no_slot(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """When our process dies during that wait, the server notices and takes the slot back."""
    table(source_db)
    capture = make_capture(source_db)
    capture.source.catalog(["t"])
    with source_db.connect(autocommit=False) as db, capture.source._walsender() as walsender:
        db.execute("INSERT INTO t VALUES (1)")
        walsender.send_query(
            f"CREATE_REPLICATION_SLOT {capture.source.name} LOGICAL pgoutput".encode()
        )
        walsender.flush()
        wait_until(lambda: slots(source_db) != [])
        walsender.finish()
        wait_until(lambda: slots(source_db) == [], timeout=10)


def failure(
    database: Database,
    act: Callable[[PostgresSource], object],
    url: str | None = None,
    password: str | None = None,
) -> tuple[type[SyncError], str, str]:
    """What goes wrong, and what to try."""
    source = PostgresSource(url or database.url, password, f"demo_{database.name}")
    try:
        source.open()
        act(source)
    except SyncError as error:
        return type(error), str(error), error.hint
    finally:
        source.close()
    raise AssertionError("nothing went wrong")


def start(source: PostgresSource) -> object:
    return source.start(source.catalog(["t"]).relations)


@pytest.mark.parametrize("version", [18, 15])
def test_no_slot_and_no_walsender_left(
    make_server: MakeServer, fresh_database: FreshDatabase, make_capture: MakeCapture, version: int
) -> None:
    """Both are transient: somebody may give one back. The setting to raise is named."""
    database = fresh_database(
        make_server({"max_replication_slots": 1, "max_wal_senders": 1}, version=version)
    )
    table(database)
    capture = make_capture(database, sync="first")
    capture.start("t")
    # The server counts one for a moment longer than its client.
    walsenders = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender'"
    wait_until(lambda: not database.rows(walsenders), message="the first one has ended")
    kind, text, hint = failure(database, start)
    assert (kind, text) == (TransientError, "source: all replication slots are in use")
    assert (
        hint
        == "raise max_replication_slots on the source and restart it, or drop slots that nobody uses"
    )
    wait_until(lambda: not database.rows(walsenders), message="the second one has ended")
    stream = capture.stream()
    stream.read(0.1)
    kind, text, hint = failure(database, start)
    assert kind is TransientError
    assert text.endswith(
        'FATAL:  number of requested standby connections exceeds "max_wal_senders" (currently 1)'
        if version == 18
        else "exceeds max_wal_senders (currently 1)"
    )
    assert hint == "raise max_wal_senders on the source and restart it"
    stream.close()


@pytest.mark.parametrize(
    ("option", "said", "hint"),
    [
        ("sslmode=nope", "invalid sslmode value", "correct the options in the source's URL"),
        ("connect_timeout=x", "bad value for connect", "correct the options in the source's URL"),
        ("keepalives=x", "invalid integer value", "correct the options in the source's URL"),
        (
            "sslmode=require",
            "does not support SSL",
            "correct sslmode or sslrootcert in the source's",
        ),
    ],
)
def test_options_that_cannot_work(source_db: Database, option: str, said: str, hint: str) -> None:
    """Are for the user to correct: no waiting makes them right."""
    kind, text, tried = failure(source_db, start, f"{source_db.url}?{option}")
    assert kind is PermanentError
    assert said in text
    assert tried.startswith(hint)


@on_every_source
def test_roles_that_may_not(source_db: Database) -> None:
    """A role without REPLICATION, or without grants, is told so, with what is missing."""
    table(source_db)
    role = source_db.create_role("LOGIN")
    kind, text, hint = failure(source_db, start, source_db.url_as(role))
    assert (kind, hint) == (
        PermanentError,
        "run `cdc check`: it prints the grants that are missing",
    )
    assert text == f"source: permission denied for database {source_db.name}"
    source_db.execute(
        f"GRANT CREATE ON DATABASE {source_db.name} TO {role}; ALTER TABLE t OWNER TO {role}"
    )
    kind, text, hint = failure(source_db, start, source_db.url_as(role))
    assert kind is PermanentError
    assert "FATAL" in text
    assert hint == "ALTER ROLE … REPLICATION: `cdc check` prints it in full"
    source_db.execute(f"ALTER ROLE {role} NOLOGIN; REASSIGN OWNED BY {role} TO postgres")
    kind, text, hint = failure(source_db, start, source_db.url_as(role))
    assert (kind, text.endswith(f'role "{role}" is not permitted to log in')) == (
        PermanentError,
        True,
    )
    source_db.execute(f"DROP OWNED BY {role}")


def test_passwords_and_addresses(make_server: MakeServer, fresh_database: FreshDatabase) -> None:
    """Wrong password, unknown database, unknown role, no server, a server that starts: each its own
    message, without the password; only what can pass is transient."""
    server = make_server(password="right")
    database = fresh_database(server)
    good = database.url
    bad = good.replace("right", "wrong-secret")
    for url, password in ((bad, None), (good, "wrong-secret")):
        kind, text, hint = failure(database, start, url, password)
        assert kind is PermanentError
        assert text.endswith('FATAL:  password authentication failed for user "postgres"')
        assert hint == "correct the password, or the source's pg_hba.conf"
        assert "wrong-secret" not in text + hint
    kind, text, hint = failure(database, start, server.url("absent"))
    assert (kind, text.endswith('database "absent" does not exist')) == (PermanentError, True)
    assert hint == "correct the database's name in the URL"
    kind, text, _ = failure(database, start, "postgresql://postgres@name.invalid/x")
    assert kind is TransientError
    server.stop()
    kind, text, hint = failure(database, start)
    assert kind is TransientError
    assert "Connection refused" in text
    assert hint == "check that the source is up and can be reached"


def test_a_standby_is_named(
    make_server: MakeServer, fresh_database: FreshDatabase, make_capture: MakeCapture
) -> None:
    """A sync of a standby says so and waits for it to be promoted; so does the preflight."""
    server = make_server()
    database = fresh_database(server)
    table(database)
    capture = make_capture(database)
    capture.start("t")
    capture.source.close()
    server.stop()
    (server.data / "standby.signal").touch()
    server.start()
    capture.source.open()
    with pytest.raises(TransientError) as error:
        capture.resume("t")
    assert str(error.value) == "source: the server is a standby, expected a primary"
    assert error.value.hint.startswith("name the primary in the source's URL")
    [found] = [f for f in capture.source.check(()) if f.subject == "server"]
    assert (found.level, found.message.endswith("is a standby")) == ("FAILED", True)
    database.execute("SELECT pg_promote()")
    assert capture.resume("t") == frozenset()


def test_a_server_of_another_kind_is_named(
    source_db: Database, mariadb_source: MysqlDatabase
) -> None:
    """What answers at the port is not PostgreSQL: waiting does not mend that."""
    port = mariadb_source.server.port
    kind, _, hint = failure(source_db, start, f"postgresql://postgres@127.0.0.1:{port}/crm")
    assert kind is PermanentError
    assert hint == "correct host and port of the source's URL: what answers there is not PostgreSQL"
    applier = applier_for(f"postgresql://postgres@127.0.0.1:{port}/crm", None, "s")
    with pytest.raises(PermanentError) as error:
        applier.open("test")
    assert error.value.hint.endswith("what answers there is not PostgreSQL")


@pytest.mark.parametrize(
    "text",
    [
        "the database system is starting up",
        "the database system is shutting down",
        "the database system is in recovery mode",
        "the database system is not yet accepting connections",
        "sorry, too many clients already",
        'too many connections for role "cdc"',
        'too many connections for database "crm"',
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
    ],
)
def test_what_a_server_says_for_a_while_is_transient(text: str) -> None:
    """What a server tells a new connection while it starts, stops or is full passes by itself."""
    said = (
        f'connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  {text}'
    )
    error = translated(psycopg.OperationalError(said))
    assert isinstance(error, TransientError)
    assert error.hint


@on_every_source
def test_the_log_that_a_sync_holds_back_is_told(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """Retained bytes and state of the slot; nothing before there is one."""
    table(source_db)
    capture = make_capture(source_db)
    assert capture.source.log().state is None
    capture.start("t")
    before = capture.source.log()
    assert before.state == "reserved"
    source_db.execute("INSERT INTO t SELECT generate_series(1, 10000)")
    after = capture.source.log()
    assert after.retained_bytes is not None
    assert before.retained_bytes is not None
    assert after.retained_bytes > before.retained_bytes + 500_000


@pytest.mark.parametrize(
    ("transaction", "near", "full"),
    [
        (1003, 998, 1003),
        (998, 1003, 998),
        (5, 2**32 + 3, 2**32 + 5),
        (2**32 - 1, 2**32 + 3, 2**32 - 1),
        (3, 2**32 - 2, 2**32 + 3),
        (2**32 - 3, 2**32 + 5, 2**32 - 3),
    ],
)
def test_transaction_numbers_across_their_wrap(transaction: int, near: int, full: int) -> None:
    """The 32 bits of the log become the transaction that is nearest to the newest one known, ahead of
    it too."""
    assert reading.full_transaction(transaction, near) == full


def test_a_source_that_is_too_old_is_refused(
    source_db: Database, make_capture: MakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers before 14 are named as such."""
    monkeypatch.setattr(source_module, "OLDEST", 990000)
    kind, text, hint = failure(source_db, start)
    assert (kind, hint) == (PermanentError, "upgrade the source")
    assert text == f"source: PostgreSQL {source_db.server.major} is too old: 14 or newer is needed"
