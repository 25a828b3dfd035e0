"""MariaDB and MySQL servers that have no connection left for a sync, as its source and as its target."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, Final

import pymysql
import pytest

from tests.command import Command, cdc
from tests.databases import Database, wait_until
from tests.mysql_databases import MysqlDatabase, User
from tests.mysql_fixtures import MakeMysql
from tests.mysql_servers import LocalMysql

__all__ = ["cdc"]

Fresh = Callable[[LocalMysql], MysqlDatabase]

ROOMY: Final = 40
LIMITS: Final = {
    # Its number, what sets it and lifts it, and what the server then says.
    1040: ("SET GLOBAL max_connections = {}", 10, ROOMY, "Too many connections"),
    1203: ("SET GLOBAL max_user_connections = {}", 3, ROOMY, "'max_user_connections' active"),
    1226: (
        "ALTER USER {user} WITH MAX_USER_CONNECTIONS {}",
        3,
        0,
        "'max_user_connections' resource",
    ),
}


class Crowd:
    """Somebody else who uses the sync's account."""

    def __init__(self, server: MysqlDatabase, user: User) -> None:
        self._server = server
        self._user = user
        self._ours: list[pymysql.Connection[Any]] = []

    def push(self) -> None:
        """Ends the account's other connections, and makes as many as the server allows."""
        ours = {db.thread_id() for db in self._ours}  # type: ignore[no-untyped-call]
        sessions = "SELECT id FROM information_schema.processlist WHERE user = %s"
        for (session,) in self._server.rows(sessions, [self._user.name]):
            if session not in ours:
                with suppress(pymysql.MySQLError):  # it may have ended by itself
                    self._server.execute(f"KILL {session}")
        with suppress(pymysql.MySQLError):
            while len(self._ours) < ROOMY:
                user, password = self._user
                self._ours.append(self._server.connect(user=user, password=password))

    def go(self) -> None:
        while self._ours:
            self._ours.pop().close()


@pytest.fixture(params=["mariadb", pytest.param("mysql", marks=pytest.mark.faults)])
def server(request: pytest.FixtureRequest, fresh_mysql_database: Fresh) -> MysqlDatabase:
    make: MakeMysql = request.getfixturevalue(f"make_{request.param}")
    # Users can be limited later only where they are when the server starts.
    limits = {"max_connections": ROOMY, "max_user_connections": ROOMY}
    return fresh_mysql_database(make(limits))


@pytest.mark.parametrize("end", ["source", "target"])
def test_no_connection_left_is_waited_for(
    cdc: Command, server: MysqlDatabase, source_db: Database, end: str
) -> None:
    """By each of the three limits that servers know: told in the status with what to do and by `check`,
    tried again, and nothing is lost."""
    user = server.create_user("ALL", "REPLICATION SLAVE, REPLICATION CLIENT ON *.*")
    copy = cdc.directory / "copy.db"
    source = server if end == "source" else source_db
    source.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    urls = [server.url_as(*user), f"sqlite:///{copy}" if end == "source" else source_db.url]
    cdc.configure(*(urls if end == "source" else reversed(urls)), sync={"tables": ["customers"]})
    cdc.start("run")
    cdc.wait_for(state="streaming")

    def ids() -> list[tuple[int]]:
        query = "SELECT id FROM customers ORDER BY id"
        if end == "target":
            return server.rows(query)
        with closing(sqlite3.connect(copy, timeout=30)) as db:
            return db.execute(query).fetchall()

    crowd = Crowd(server, user)
    for number, (limit, few, many, said) in LIMITS.items():
        account = f"'{user.name}'@'%'"
        server.execute(limit.format(few, user=account))

        def told(said: str = said) -> dict[str, Any] | None:
            crowd.push()
            found = cdc.status()
            return found if found["state"] == "retrying" and said in str(found["error"]) else None

        found = wait_until(told, message=f"{said} is told")
        assert found is not None
        assert "max_connections" in found["hint"]
        if end == "target":
            assert f"(error {number})" in found["error"]
        checked = cdc.run("check")
        assert checked.returncode == 1
        line = next(n for n in checked.stdout.splitlines() if n.startswith("FAILED"))
        assert said in line
        assert line.endswith(f" - try: {found['hint']}")
        assert cdc.run("status").returncode == 1
        source.execute(f"INSERT INTO customers VALUES ({number})")
        crowd.go()
        server.execute(limit.format(many, user=account))
        wait_until(lambda number=number: ids()[-1:] == [(number,)], message="it arrives")  # type: ignore[misc]
        cdc.wait_for(state="streaming", error=None)
    assert ids() == [(1040,), (1203,), (1226,)]
