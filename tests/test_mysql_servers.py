"""The MariaDB and MySQL servers that the tests stand on keep their own promises."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pymysql
import pytest

from cdc.demo.server import _free_port
from tests import mysql_servers
from tests.databases import wait_until
from tests.fetch_mysql import mirrors
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql, demand
from tests.mysql_programs import FLAVOURS, Flavour
from tests.mysql_servers import LocalMysql


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    found: Flavour = request.param
    demand(found)
    return found


@pytest.fixture
def make(request: pytest.FixtureRequest, flavour: Flavour) -> MakeMysql:
    maker: MakeMysql = request.getfixturevalue(f"make_{flavour}")
    return maker


@pytest.fixture
def database(make: MakeMysql) -> Iterator[MysqlDatabase]:
    """A database on a server of the test's own."""
    database = MysqlDatabase(make())
    yield database
    database.drop()


def test_a_server_is_ready_to_be_read(any_mysql_source: MysqlDatabase) -> None:
    """It logs rows with their columns' names, knows GTIDs, and takes files from its clients."""
    database = any_mysql_source
    [row] = database.rows(
        "SELECT @@log_bin, @@binlog_format, @@binlog_row_metadata, @@binlog_row_image, "
        "@@character_set_server, @@local_infile, @@server_id >= 1000"
    )
    assert row == (1, "ROW", "FULL", "FULL", "utf8mb4", 1, 1)
    database.execute("CREATE TABLE t (n int PRIMARY KEY)")
    gtids = "@@gtid_executed" if database.server.flavour == "mysql" else "@@gtid_binlog_pos"
    assert database.value(f"SELECT {gtids}")
    assert database.value("SELECT version()").startswith(database.server.version)


def test_source_and_target_are_two_servers(
    any_mysql_source: MysqlDatabase, any_mysql_target: MysqlDatabase
) -> None:
    """A change that reaches the target went over the wire, and their ids can be told apart."""
    query = "SELECT @@server_id, @@port"
    source, target = any_mysql_source.rows(query)[0], any_mysql_target.rows(query)[0]
    assert source[0] != target[0]
    assert source[1] != target[1]


def test_two_servers_of_one_copy_have_names_of_their_own(
    mysql_source: MysqlDatabase, mysql_target: MysqlDatabase
) -> None:
    """Both data directories come from one template, and the UUID does not."""
    query = "SELECT @@server_uuid"
    assert mysql_source.value(query) != mysql_target.value(query)


def test_restart_keeps_port_and_data(make: MakeMysql) -> None:
    """After a clean stop and after a crash the same address serves what was committed."""
    server = make()
    url = server.url()
    database = MysqlDatabase(server)
    database.execute("CREATE TABLE kept (n int PRIMARY KEY); INSERT INTO kept VALUES (1)")
    for mode, rows in (("fast", 2), ("immediate", 3)):
        before = server.pid
        server.restart("fast" if mode == "fast" else "immediate")
        assert (server.pid != before, server.url()) == (True, url)
        database.execute("INSERT INTO kept VALUES (%s)", [rows])
        assert database.value("SELECT count(*) FROM kept") == rows, mode


def test_a_crash_keeps_the_binlog_and_the_rows_together(database: MysqlDatabase) -> None:
    """What was committed right before SIGKILL is in the tables and in the log."""
    database.execute("CREATE TABLE kept (n int PRIMARY KEY)")
    [before] = database.rows(
        "SHOW BINARY LOG STATUS" if database.server.flavour == "mysql" else "SHOW MASTER STATUS"
    )
    for n in range(20):
        database.execute("INSERT INTO kept VALUES (%s)", [n])
    database.server.restart("immediate")
    assert database.value("SELECT count(*) FROM kept") == 20
    events = database.rows("SHOW BINLOG EVENTS IN %s FROM %s", [before[0], before[1]])
    assert len([event for event in events if event[2].startswith("Write_rows")]) == 20


def test_a_killed_server_starts_again(database: MysqlDatabase) -> None:
    """The end of a server that nobody asked for costs neither its folder nor its data."""
    server = database.server
    database.execute("CREATE TABLE kept (n int PRIMARY KEY); INSERT INTO kept VALUES (1)")
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.running, message="the server has ended")
    server.start()
    assert database.rows("SELECT n FROM kept") == [(1,)]


def test_a_closed_server_leaves_nothing(flavour: Flavour) -> None:
    """Its process and its folder are gone; closing again does nothing."""
    with LocalMysql(flavour) as server:
        process, folder = psutil.Process(server.pid), server.folder
        assert folder.is_dir()
    server.close()
    assert not process.is_running()
    assert not folder.exists()


def test_a_server_dies_with_the_process_that_started_it(flavour: Flavour) -> None:
    """SIGKILL, which runs no clean-up, leaves neither processes nor files."""
    code = (
        "import sys, time\n"
        "from tests.mysql_servers import LocalMysql\n"
        "with LocalMysql(sys.argv[1]) as server:\n"
        "    print(server.pid, server.folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", code, flavour], cwd=root, stdout=subprocess.PIPE, text=True
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


def test_settings_reach_the_server(make: MakeMysql) -> None:
    """Values arrive unharmed, and configure() takes effect with the next start."""
    server = make({"binlog_row_image": "MINIMAL", "init_connect": r"SET @a = 'b\c # d'"})
    server.configure({"binlog_row_image": "NOBLOB", "log_bin_trust_function_creators": True})
    query = "SELECT @@binlog_row_image, @@init_connect, @@log_bin_trust_function_creators"
    found = [MysqlDatabase(server).rows(query)]
    server.restart()
    found += [MysqlDatabase(server).rows(query)]
    said = r"SET @a = 'b\c # d'"
    assert found == [[("MINIMAL", said, 0)], [("NOBLOB", said, 1)]]


def test_a_server_without_a_binlog(make: MakeMysql) -> None:
    """An option without a value is one, and takes away what the servers of tests have."""
    server = make({"skip_log_bin": None})
    assert MysqlDatabase(server).value("SELECT @@log_bin") == 0


def test_a_server_that_cannot_start_says_why(flavour: Flavour) -> None:
    """The error carries the end of the server's own log."""
    server = LocalMysql(flavour, settings={"binlog_row_image": "sideways"})
    with pytest.raises(RuntimeError) as refused, server:
        pass
    text = str(refused.value)
    assert text.startswith(f"{server.programs.title} did not start on port ")
    assert "sideways" in text
    assert not server.folder.exists()


def test_a_port_that_is_taken_is_not_the_end(
    database: MysqlDatabase, flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may take a free port before the server does; a known port is never left."""
    taken = database.server.port
    ports = [taken, taken]
    monkeypatch.setattr(mysql_servers, "_free_port", lambda: ports.pop() if ports else _free_port())
    with LocalMysql(flavour) as server:
        assert (server.port == taken, ports) == (False, [])
        server.stop()
        server._port = taken
        with pytest.raises(RuntimeError, match="Address already in use"):
            server.start()


def read_binlog(session: Any, file: str, position: int, server_id: int) -> None:
    """Makes the session one that is sent the log from there. Manual: COM_BINLOG_DUMP."""
    # Without it the server ends the session at the first event with a checksum.
    session.query("SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32'")
    session._execute_command(0x12, struct.pack("<IHI", position, 0, server_id) + file.encode())
    session._read_packet()


def test_a_database_takes_its_traces_along(any_mysql_source: MysqlDatabase) -> None:
    """Its users, their sessions and readers of the log, and all sessions in it do not outlive it.

    Other sessions do: a reader of another test may be one of them.
    """
    server = any_mysql_source.server
    database = MysqlDatabase(server)
    database.execute("CREATE TABLE t (n int PRIMARY KEY)")
    # From its end: an event of another test's that is larger than max_allowed_packet would end the session.
    [*_, (file, end, *_)] = database.rows("SHOW BINARY LOGS")
    user = database.create_user("SELECT, INSERT", "REPLICATION SLAVE ON *.*")
    with ExitStack() as after:

        def session(**options: Any) -> Any:
            opened: Any = pymysql.connect(host="127.0.0.1", port=server.port, **options)
            after.callback(opened._force_close)
            return opened

        theirs = {"user": user.name, "password": user.password}
        read_binlog(session(**theirs), file, end, 901)
        stays = session(user="root")
        read_binlog(stays, file, end, 902)
        for options in (theirs, {"user": "root", "database": database.name}):
            with session(**options).cursor() as cursor:
                # Not autocommit: the table stays in use.
                cursor.execute(f"SELECT * FROM {database.name}.t")
        database.drop()
        left = any_mysql_source.rows(
            "SELECT (SELECT count(*) FROM information_schema.schemata WHERE schema_name = %s), "
            "(SELECT count(*) FROM mysql.user WHERE user = %s), "
            "(SELECT count(*) FROM information_schema.processlist WHERE user = %s OR db = %s), "
            "(SELECT count(*) FROM information_schema.processlist WHERE id = %s)",
            [database.name, user.name, user.name, database.name, stays.thread_id()],
        )
    assert left == [(0, 0, 0, 1)]


def test_a_user_has_what_was_granted(any_mysql_source: MysqlDatabase) -> None:
    """It comes in with its password alone, and may do what the grants say, here unless said."""
    database = any_mysql_source
    database.execute("CREATE TABLE t (n int PRIMARY KEY)")
    user = database.create_user("SELECT", "REPLICATION CLIENT ON *.*")
    session = database.connect(user=user.name, password=user.password)
    with session.cursor() as cursor:
        assert cursor.execute("SELECT * FROM t") == 0
        with pytest.raises(pymysql.OperationalError, match="INSERT command denied"):
            cursor.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(pymysql.OperationalError, match="Access denied"):
        database.connect(user=user.name, password="another")


def test_a_test_has_its_own_databases(
    any_mysql_source: MysqlDatabase, any_mysql_target: MysqlDatabase
) -> None:
    """Both are empty, and statements on them commit at once."""
    any_mysql_source.execute("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    assert any_mysql_source.execute("UPDATE t SET n = n + %s ORDER BY n DESC", [1]) == 2
    assert any_mysql_source.execute("UPDATE t SET n = n") == 2
    assert any_mysql_source.rows("SELECT n FROM t ORDER BY n") == [(2,), (3,)]
    assert any_mysql_target.rows("SHOW TABLES") == []


def test_an_error_in_a_later_statement_is_seen(mariadb_source: MysqlDatabase) -> None:
    """Several statements in one text fail as the first of them that does."""
    with pytest.raises(pymysql.ProgrammingError, match="nothing"):
        mariadb_source.execute("SELECT 1; SELECT * FROM nothing; SELECT 2")
    assert mariadb_source.value("SELECT 1") == 1


def test_the_mirror_is_the_machines_own() -> None:
    """Debian's main archive is found among what apt reads, fresh or not; others are not."""
    targets = [
        "Repo-URI: http://security.test/debian-security/\nRelease: bookworm-security\nComponent: main",
        "Repo-URI: http://mirror.test/debian/\nRelease: bookworm-updates\nComponent: main",
        "Repo-URI: http://other.test/tools/\nRelease: stable\nComponent: main\nOrigin: Others",
        "Repo-URI: http://mirror.test/debian/\nRelease: bookworm\nComponent: contrib",
        "Repo-URI: http://mirror.test/debian/\nRelease: bookworm\nComponent: main\nOrigin: Debian",
    ]
    assert mirrors("\n\n".join(targets)) == ["http://mirror.test/debian/"]
    assert mirrors(targets[-1].removesuffix("\nOrigin: Debian")) == ["http://mirror.test/debian/"]
    assert mirrors("\n\n".join(targets[:-1])) == []


@pytest.mark.parametrize("ci", [False, True], ids=["at home", "in CI"])
def test_what_is_not_tested_is_said_loudly(tmp_path: Path, ci: bool) -> None:
    """Before all tests and after them; and no run in CI is green without MariaDB."""
    missing = tmp_path / "missing"
    missing.write_text("the mirror is asleep\n")
    code = (
        "import pathlib, sys, pytest\n"
        "from tests import mysql_programs as programs\n"
        "programs.PATH = '/nowhere'\n"
        "programs.TREE = pathlib.Path('/nowhere')\n"
        "programs.MISSING = pathlib.Path(sys.argv[1])\n"
        "sys.exit(pytest.main(sys.argv[2:]))\n"
    )
    test = f"{__file__}::test_a_server_is_ready_to_be_read"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-c", code, missing, "-p", "no:cacheprovider", test],
        cwd=Path(__file__).parent.parent,
        env=env | {"CI": "true" if ci else ""},
        capture_output=True,
        text=True,
        check=False,
    )
    mariadb = "MariaDB: NOT TESTED because MariaDB is not on this machine"
    mysql = "MySQL: NOT TESTED because the mirror is asleep"
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in {mariadb, mysql}] == [mariadb, mysql]
    assert [line.strip("! ") for line in lines if line.startswith("!!!")] == [mariadb, mysql]
    hint = "Try: apt-get install --no-install-recommends mariadb-server-core mariadb-client-core"
    assert hint in lines
    assert done.returncode == (1 if ci else 0)
    assert ("1 error" if ci else "2 skipped") in lines[-1]
