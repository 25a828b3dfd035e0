"""The server that the demo and all the tests stand on keeps its own promises."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from cdc.demo.account import Account
from cdc.demo.server import LocalPostgres
from tests.servers import Database, MakeServer, demand, on_every_source, wait_until


def connect(server: LocalPostgres, **options: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(server.url(**options), autocommit=True)


@on_every_source
def test_a_server_is_ready_for_logical_replication(source_server: LocalPostgres) -> None:
    """It accepts connections, is UTF-8, logs logically and has slots to spare."""
    with connect(source_server) as connection:
        [row] = connection.execute(
            "SELECT current_setting('server_version_num')::int / 10000, "
            "current_setting('wal_level'), current_setting('server_encoding'), "
            "current_setting('max_wal_senders')::int, current_setting('max_replication_slots')::int"
        ).fetchall()
    assert row == (source_server.major, "logical", "UTF8", 40, 40)


def test_source_and_target_are_two_servers(
    source_server: LocalPostgres, target_server: LocalPostgres
) -> None:
    """A change that reaches the target went over the wire, not through one server's tables."""
    query = "SELECT system_identifier FROM pg_control_system()"
    with connect(source_server) as source, connect(target_server) as target:
        assert source.execute(query).fetchall() != target.execute(query).fetchall()


@pytest.mark.parametrize("version", [18, 15])
def test_restart_keeps_port_and_data(make_server: MakeServer, version: int) -> None:
    """After a clean stop and after a crash the same address serves the same rows."""
    server = make_server(version=version)
    url = server.url()
    with connect(server) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    for mode, rows in (("fast", 1), ("immediate", 2)):
        before = server.pid
        server.restart("fast" if mode == "fast" else "immediate")
        assert (server.pid != before, server.url()) == (True, url)
        with connect(server) as connection:
            found = connection.execute(
                "INSERT INTO kept SELECT 1 RETURNING (SELECT count(*) FROM kept)"
            )
            assert found.fetchall() == [(rows,)], mode


def test_a_killed_server_starts_again(make_server: MakeServer) -> None:
    """The end of a server that nobody asked for costs neither its folder nor its data."""
    server = make_server()
    with connect(server) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    os.kill(server.pid, signal.SIGQUIT)
    wait_until(lambda: not server.running, message="the server has ended")
    server.start()
    with connect(server) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]


def test_a_closed_server_leaves_nothing() -> None:
    """Its process and its folder are gone; closing again does nothing."""
    with LocalPostgres(demand(18)) as server:
        process, folder = psutil.Process(server.pid), server.folder
        assert folder.is_dir()
    server.close()
    assert not process.is_running()
    assert not folder.exists()


def test_a_server_dies_with_the_process_that_started_it() -> None:
    """SIGKILL, which runs no clean-up, leaves neither processes nor files."""
    code = (
        "import pathlib, sys, time\n"
        "from cdc.demo.server import LocalPostgres\n"
        "with LocalPostgres(pathlib.Path(sys.argv[1])) as server:\n"
        "    print(server.pid, server.folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(demand(18))], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        process = psutil.Process(int(pid))
        owner.kill()
    wait_until(
        lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
        message="the server has ended",
    )
    wait_until(lambda: not Path(folder).exists(), message="its folder is gone")


def test_settings_reach_the_server(make_server: MakeServer) -> None:
    """Values arrive unharmed, and configure() takes effect with the next start."""
    server = make_server(
        {"wal_level": "replica", "max_replication_slots": 1, "cluster_name": r"a 'b\c"}
    )
    server.configure({"max_replication_slots": 2})
    names = ("wal_level", "max_replication_slots", "cluster_name")
    found = []
    for _ in range(2):
        with connect(server) as connection:
            found.append([connection.execute(f"SHOW {name}").fetchall()[0][0] for name in names])
        server.restart()
    assert found == [["replica", "1", r"a 'b\c"], ["replica", "2", r"a 'b\c"]]


def test_a_password_is_asked_for(make_server: MakeServer) -> None:
    """With a password nobody gets in without it, over TCP and for replication alike."""
    server = make_server(password="p@ss:/wörd")
    with connect(server) as connection:
        assert connection.execute("SHOW password_encryption").fetchall() == [("scram-sha-256",)]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(server, password="another")


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    """A folder without a server's programs is refused before anything is written."""
    with pytest.raises(RuntimeError) as refused:
        LocalPostgres(tmp_path)
    assert str(refused.value) == (
        f"no PostgreSQL server in {tmp_path}: expected initdb and postgres, "
        "found no initdb and no postgres\n"
        "Try: the folder with a server's own programs, such as /usr/lib/postgresql/15/bin"
    )


def test_a_server_that_cannot_start_says_why() -> None:
    """The error carries the end of the server's own log."""
    server = LocalPostgres(demand(18), settings={"wal_level": "sideways"})
    with pytest.raises(RuntimeError) as refused, server:
        pass
    text = str(refused.value)
    assert text.startswith(f"PostgreSQL {server.version} did not start on port ")
    assert 'invalid value for parameter "wal_level": "sideways"' in text
    assert not server.folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands its servers to another account")
def test_root_runs_a_server_below_a_closed_folder(tmp_path: Path) -> None:
    """PostgreSQL refuses root, and its stand-in cannot look into root's folders: a copy serves."""
    package = demand(18).parent.parent
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, closed / part.name, symlinks=True)
    bin_dir = closed / package.name / "pginstall" / "bin"
    assert not Account.for_server().reaches(bin_dir / "postgres")
    with LocalPostgres(bin_dir) as server, connect(server) as connection:
        assert server.bin_dir.is_relative_to(server.folder)
        assert psutil.Process(server.pid).uids().real != 0
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    assert not server.folder.exists()


@on_every_source
def test_a_database_takes_its_traces_along(
    source_server: LocalPostgres, pytestconfig: pytest.Config
) -> None:
    """Slots (an active one too), origins, roles and open sessions do not outlive it."""
    database = Database(source_server)
    role = database.create_role("LOGIN REPLICATION")
    database.execute("SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")
    database.execute("SELECT pg_replication_origin_create('left_behind')")
    active = database.connect()
    active.execute("SELECT pg_create_logical_replication_slot('active', 'test_decoding', true)")
    with psycopg.connect(database.url_as(role)):
        database.drop()
    with connect(source_server) as connection:
        left = connection.execute(
            "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = %(name)s), "
            "(SELECT count(*) FROM pg_replication_origin WHERE roname = 'left_behind'), "
            "(SELECT count(*) FROM pg_database WHERE datname = %(name)s), "
            "(SELECT count(*) FROM pg_roles WHERE rolname = %(role)s)",
            {"name": database.name, "role": role},
        ).fetchall()
    assert left == [(0, 0, 0, 0)]


def test_a_test_has_its_own_databases(source_db: Database, target_db: Database) -> None:
    """Both are empty, and statements on them commit at once."""
    source_db.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)")
    assert source_db.execute("UPDATE t SET n = n + %s", [1]) == 2
    assert source_db.rows("SELECT n FROM t ORDER BY n") == [(2,), (3,)]
    assert target_db.value("SELECT to_regclass('t')") is None


def test_waiting_ends_with_what_was_last_seen() -> None:
    """A condition that never holds fails with its message and its last answer."""
    with pytest.raises(AssertionError) as late:
        wait_until(lambda: 0, timeout=0.05, message="the row is there")
    assert str(late.value) == "not within 0.05 seconds: the row is there; last: 0"
