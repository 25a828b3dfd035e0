"""MariaDB and MySQL targets without room for what is to be written: scenario 41."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pymysql
import pytest

from appliers.errors import TransientError
from appliers.mysql.failures import ROOM, translate
from cdc.sources.mysql.failures import translated
from tests.command import Command, cdc
from tests.databases import Database, wait_until
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql
from tests.mysql_servers import LocalMysql, Setting
from tests.small_disk import SmallDisk, small_disk

__all__ = ["cdc", "small_disk"]

Fresh = Callable[[LocalMysql], MysqlDatabase]

FLAVOURS: Final = ("mariadb", "mysql")
NO_LOG: Final[dict[str, dict[str, Setting]]] = {
    "mariadb": {"skip_log_bin": None},
    "mysql": {"skip_log_bin": None, "gtid_mode": False, "enforce_gtid_consistency": False},
}
SMALL_REDO: Final[dict[str, dict[str, Setting]]] = {
    "mariadb": {"innodb_log_file_size": "8M"},
    "mysql": {"innodb_redo_log_capacity": "8M"},
}
LARGE: Final = (
    "INSERT INTO customers SELECT g, repeat(md5(g::text), 60) FROM generate_series(2, 30000) g"
)
"""57 MB in one transaction, which goes through in pieces."""
SUMS: Final = "SELECT count(*), sum(id), sum(length(name)) FROM customers"
ROOM_AGAIN: Final = 120
"""Seconds. A server that waits for room by itself looks once a minute (mysys/my_write.c)."""


@pytest.fixture
def crm(source_db: Database) -> Database:
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
    source_db.execute("INSERT INTO customers VALUES (1, 'first')")
    return source_db


def waits_longer(cdc: Command) -> bool:
    """Whether it was more than a second from one try to the next: the first waits are a fifth of one."""
    waits = re.findall(r"retrying .*seconds=([\d.]+)", cdc.said("run"))
    return any(float(wait) > 1 for wait in waits)


def arrives(cdc: Command, source: Database, target: MysqlDatabase) -> None:
    """Nothing was lost, and all is well again."""

    def has_arrived() -> bool:
        with suppress(pymysql.err.ProgrammingError):  # there may be no table yet
            return target.rows(SUMS) == source.rows(SUMS)
        return False

    wait_until(has_arrived, ROOM_AGAIN, "everything is there")
    cdc.wait_for(state="streaming", error=None)


@pytest.mark.parametrize(
    ("what", "flavour"),
    [
        ("data", "mariadb"),
        pytest.param("data", "mysql", marks=pytest.mark.faults),
        pytest.param("tmpdir", "mariadb", marks=pytest.mark.faults),
        pytest.param("tmpdir", "mysql", marks=pytest.mark.faults),
    ],
)
def test_a_full_disk_is_waited_for(
    request: pytest.FixtureRequest,
    cdc: Command,
    crm: Database,
    small_disk: SmallDisk,
    fresh_mysql_database: Fresh,
    *,
    flavour: str,
    what: str,
) -> None:
    """Of a transaction that the target's disk has no room for nothing is there: no room for its table, or
    for the file that its binary log is gathered in. It is named in the status with what to do, tried ever
    less often, and arrives when there is room."""
    make: MakeMysql = request.getfixturevalue(f"make_{flavour}")
    if what == "data":
        server = make(SMALL_REDO[flavour] | NO_LOG[flavour], place=small_disk.path)
        said = r"The table 'customers' is full \(error 1114\)"
    else:
        server = make({"tmpdir": str(small_disk.path)})
        said = r"No space left on device.*\(error 3\)"
    target = fresh_mysql_database(server)
    cdc.configure(crm.url, target.url, sync={"tables": ["customers"]})
    cdc.start("run")
    cdc.wait_for(state="streaming")
    small_disk.fill(leave=20 << 20)  # for the first pieces of the transaction
    crm.execute(LARGE)
    found = cdc.wait_for_error(said)
    assert found["hint"] == ROOM.hint
    wait_until(lambda: waits_longer(cdc), message="it is tried ever less often")
    cdc.wait_for_error(said)
    shown = cdc.run("status")
    assert shown.returncode == 1
    assert "  Try: make room on the target's disk" in shown.stdout
    crm.execute("UPDATE customers SET name = 'later' WHERE id = 1")
    assert target.rows("SELECT id, name FROM customers") == [(1, "first")]
    small_disk.make_room()
    arrives(cdc, crm, target)


@pytest.mark.parametrize(
    ("flavour", "leave", "said"),
    [
        ("mariadb", 40_000, r"\(error 1005\)"),
        ("mariadb", 0, r"\(error 3\)"),
        ("mysql", 40_000, r"\(error 3675\)"),
    ],
)
def test_no_room_for_a_table(
    request: pytest.FixtureRequest,
    cdc: Command,
    crm: Database,
    small_disk: SmallDisk,
    fresh_mysql_database: Fresh,
    *,
    flavour: str,
    leave: int,
    said: str,
) -> None:
    """A sync that is started while not even a table can be made waits, and begins when there is room."""
    make: MakeMysql = request.getfixturevalue(f"make_{flavour}")
    server = make(SMALL_REDO[flavour], place=small_disk.path)
    target = fresh_mysql_database(server)
    small_disk.fill(leave)
    cdc.configure(crm.url, target.url, sync={"tables": ["customers"]})
    cdc.start("run")
    assert cdc.wait_for_error(said)["hint"] == ROOM.hint
    small_disk.make_room()
    arrives(cdc, crm, target)


@pytest.mark.parametrize("flavour", ["mariadb", pytest.param("mysql", marks=pytest.mark.faults)])
def test_a_full_tablespace_is_waited_for(
    request: pytest.FixtureRequest,
    cdc: Command,
    crm: Database,
    fresh_mysql_database: Fresh,
    *,
    flavour: str,
) -> None:
    """The same where the server's own settings leave no room, and it is restarted with others."""
    room = "ibdata1:12M:autoextend:max:{}M"
    make: MakeMysql = request.getfixturevalue(f"make_{flavour}")
    server = make({"innodb_file_per_table": False, "innodb_data_file_path": room.format(40)})
    target = fresh_mysql_database(server)
    cdc.configure(crm.url, target.url, sync={"tables": ["customers"]})
    cdc.start("run")
    cdc.wait_for(state="streaming")
    crm.execute(LARGE)
    assert cdc.wait_for_error(r"The table 'customers' is full \(error 1114\)")["hint"] == ROOM.hint
    server.configure({"innodb_data_file_path": room.format(400)})
    server.restart()
    arrives(cdc, crm, target)


@pytest.mark.faults
def test_a_full_temporary_tablespace_is_waited_for(
    cdc: Command, crm: Database, make_mariadb: MakeMysql, fresh_mysql_database: Fresh
) -> None:
    """Rows are staged in temporary tables, which may have a limit of their own."""
    room = "ibtmp1:12M:autoextend:max:{}M"
    server = make_mariadb({"innodb_temp_data_file_path": room.format(12)})
    target = fresh_mysql_database(server)
    cdc.configure(crm.url, target.url, sync={"tables": ["customers"]})
    cdc.start("run")
    cdc.wait_for(state="streaming")
    crm.execute(LARGE.replace("30000", "100"))
    wait_until(lambda: target.rows(SUMS) == crm.rows(SUMS), message="the rows are there")
    crm.execute(LARGE.replace("2,", "101,"))
    crm.execute("UPDATE customers SET name = name || 'x'")
    assert cdc.wait_for_error(r"The table '.*' is full \(error 1114\)")["hint"] == ROOM.hint
    server.configure({"innodb_temp_data_file_path": room.format(400)})
    server.restart()
    arrives(cdc, crm, target)


@pytest.mark.parametrize(
    ("code", "text", "room"),
    [
        # MariaDB 10.11 and MySQL 9.7, as they say it.
        (3, "Error writing file '/t/#sql/fd=46' (Errcode: 28 \"No space left on device\")", True),
        (3, "Error writing file '/t/MLfd=25' (OS errno 28 - No space left on device)", True),
        (3, "Error writing file '/t/fd=28' (Errcode: 5 \"Input/output error\")", False),
        (3, "Error writing file '/t/fd=5' (Errcode: 122 \"Disk quota exceeded\")", True),
        (1005, 'Can\'t create table `d`.`t` (errno: 135 "No more room in record file")', True),
        (1021, "Disk got full writing '.(temporary)' (Errcode: 28)", True),
        (1026, "Error writing file './binlog' (errno: 28 \"No space left on device\")", True),
        (1030, 'Got error 28 "No space left on device" from storage engine InnoDB', True),
        (1030, "Got error 28 - 'No space left on device' from storage engine", True),
        (1030, 'Got error 122 "Internal error < 0" from storage engine InnoDB', False),
        (1114, "The table 't' is full", True),
        (3675, "Create table/tablespace 't' failed, as disk is full", True),
    ],
)
def test_every_way_to_say_it(code: int, text: str, room: bool) -> None:
    """An error about files is one of room where the system says so, on a target and on a source; else it
    is one of the files."""
    error = pymysql.err.OperationalError(code, text)
    at_target = translate(error, "table t")
    assert isinstance(at_target, TransientError)
    assert str(at_target) == f"table t: {text} (error {code})"
    assert (at_target.hint == ROOM.hint) is room
    if code not in (1005, 3675) and "quota" not in text:
        at_source = translated(error)
        assert isinstance(at_source, TransientError)
        assert at_source.hint.startswith("free disk or memory on the source") is room
