"""MariaDB and MySQL targets that take no writes: scenario 41."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, Final

import pymysql
import pytest

from appliers import mysql_url
from appliers.mysql.failures import READ_ONLY
from appliers.mysql.preflight import REFUSED
from tests.command import Command, cdc
from tests.databases import Database, wait_until
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql
from tests.mysql_servers import LocalMysql

__all__ = ["cdc"]

Fresh = Callable[[LocalMysql], MysqlDatabase]

CLOSED: Final = {
    "mariadb": {"read_only": 1290, "tx_read_only": 1792},
    # What its root may not do either.
    "mysql": {"read_only": 1290, "transaction_read_only": 1792, "super_read_only": 1290},
}


class Sync:
    """One that streams into the server, from PostgreSQL."""

    def __init__(self, cdc: Command, source: Database, target: MysqlDatabase, url: str) -> None:
        self._cdc, self._source, self._target = cdc, source, target
        self._rows = 0
        source.execute("CREATE TABLE customers (id int PRIMARY KEY)")
        cdc.configure(source.url, url, sync={"tables": ["customers"]})
        cdc.start("run")
        cdc.wait_for(state="streaming")

    def writes(self) -> None:
        self._rows += 1
        self._source.execute(f"INSERT INTO customers VALUES ({self._rows})")

    def meets(self, error: str, hint: str) -> None:
        """The status says so, and goes on saying so."""

        assert self._cdc.wait_for_error(re.escape(error))["hint"] == hint
        wait_until(lambda: self._cdc.run("status").returncode == 1, message="it goes on saying so")

    def remedy(self, finding: str) -> str:
        """What `check` says of it."""
        done = self._cdc.run("check")
        assert done.returncode == 1
        [line] = [n for n in done.stdout.splitlines() if n.startswith("FAILED")]
        before, _, remedy = line.partition(" - try: ")
        assert before == f"FAILED copy, target copy: {finding}"
        return remedy

    def goes_on(self) -> None:
        def has_all() -> bool:
            with suppress(pymysql.err.OperationalError):  # the server may be starting
                return self._target.rows("SELECT count(*) FROM customers") == [(self._rows,)]
            return False

        wait_until(has_all, message="it goes on")
        self._cdc.wait_for(state="streaming", error=None)


@pytest.fixture(params=["mariadb", pytest.param("mysql", marks=pytest.mark.faults)])
def server(request: pytest.FixtureRequest) -> LocalMysql:
    make: MakeMysql = request.getfixturevalue(f"make_{request.param}")
    return make()


def end_sessions(target: MysqlDatabase, user: str) -> None:
    """What is a default of sessions is asked for by new ones."""
    asked = (
        "SELECT id FROM information_schema.processlist WHERE user = %s AND id <> CONNECTION_ID()"
    )
    for (session,) in target.rows(asked, [user]):
        with suppress(pymysql.err.OperationalError):
            target.execute(f"KILL {session}")


@pytest.mark.parametrize("almighty", [False, True])
def test_a_read_only_target_is_waited_for(
    cdc: Command,
    source_db: Database,
    server: LocalMysql,
    fresh_mysql_database: Fresh,
    *,
    almighty: bool,
) -> None:
    """Named in the status with what to do, tried again, and nothing is lost. What `check` prints ends it."""
    target = fresh_mysql_database(server)
    user = target.create_user("ALL")
    settings: dict[str, Any] = CLOSED[server.flavour]
    if almighty:
        settings = {k: v for k, v in settings.items() if k != "read_only"}
    sync = Sync(cdc, source_db, target, target.url if almighty else target.url_as(*user))
    for setting, number in settings.items():
        target.execute(f"SET GLOBAL {setting} = ON")
        end_sessions(target, "root" if almighty else user.name)
        sync.writes()
        sync.meets(f"(error {number})", READ_ONLY.hint)
        remedy = sync.remedy(f"target: {setting} is on: a replica, or closed for writes")
        first, _, statement = remedy.partition(", or ")
        assert first == "use the primary's address"
        target.execute(statement)
        sync.goes_on()


def test_a_target_whose_engine_is_read_only(
    cdc: Command, source_db: Database, server: LocalMysql, fresh_mysql_database: Fresh
) -> None:
    """The same by innodb_read_only, which only a restart ends."""
    target = fresh_mysql_database(server)
    sync = Sync(cdc, source_db, target, target.url)
    server.stop()
    server.configure({"innodb_read_only": True})
    server.start()
    sync.writes()
    sync.meets("(error 1036)" if server.flavour == "mariadb" else "(error 1015)", READ_ONLY.hint)
    assert sync.remedy("target: innodb_read_only is on: a replica, or closed for writes") == (
        "use the primary's address, or innodb_read_only = OFF in its configuration, and restart it"
    )
    server.stop()
    server.configure({"innodb_read_only": False})
    server.start()
    sync.goes_on()


def test_who_may_write_all_the_same(
    cdc: Command, source_db: Database, server: LocalMysql, fresh_mysql_database: Fresh
) -> None:
    """`check` fails for whom the server refuses, and warns for whom it lets write: which rights do that
    depends on its version, and the server itself is asked."""
    target = fresh_mysql_database(server)
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    target.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    rights = {"mariadb": ["READ_ONLY ADMIN"], "mysql": ["CONNECTION_ADMIN"]}[server.flavour]
    users = [
        target.create_user("ALL", f"{right} ON *.*") for right in ("PROCESS", "SUPER", *rights)
    ]
    verdicts = set()
    for setting in CLOSED[server.flavour].keys() & {"read_only", "super_read_only"}:
        target.execute(f"SET GLOBAL {setting} = ON")
        for user in users:
            url = target.url_as(*user)
            cdc.configure(source_db.url, url, sync={"tables": ["customers"]})
            done = cdc.run("check")
            [line] = [n for n in done.stdout.splitlines() if f" target: {setting} is on" in n]
            may = may_write(url)
            assert line.startswith("warn" if may else "FAILED")
            assert done.returncode == (0 if may else 1)
            verdicts.add((setting, may))
        target.execute(f"SET GLOBAL {setting} = OFF")
        target.execute("SET GLOBAL read_only = OFF")
    assert {("read_only", True), ("read_only", False)} <= verdicts
    assert ("super_read_only", True) not in verdicts


def may_write(url: str) -> bool:
    with closing(pymysql.connect(**mysql_url.arguments(url, None), autocommit=True)) as db:
        try:
            db.query("DELETE FROM customers")
        except pymysql.err.OperationalError as e:
            if e.args[0] != REFUSED:
                raise
            return False
    return True


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_server_that_is_offline(
    cdc: Command,
    source_db: Database,
    make_mysql: MakeMysql,
    fresh_mysql_database: Fresh,
    end: str,
) -> None:
    """MySQL's offline_mode lets only its administrators in: waited for, on either side."""
    server = fresh_mysql_database(make_mysql())
    user = server.create_user("ALL", "REPLICATION SLAVE, REPLICATION CLIENT ON *.*")
    source = server if end == "source" else source_db
    source.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    urls = [server.url_as(*user), "sqlite:///copy.db"]
    if end == "target":
        urls = [source_db.url, server.url_as(*user)]
    cdc.configure(*urls, sync={"tables": ["customers"]})
    cdc.start("run")
    cdc.wait_for(state="streaming")
    server.execute("SET GLOBAL offline_mode = ON")
    end_sessions(server, user.name)
    found = cdc.wait_for_error("offline mode")
    statement, _, rest = found["hint"].partition(f" on the {end};")
    assert rest == " it is tried again until it is"
    source.execute("INSERT INTO customers VALUES (1)")
    server.execute(statement)
    wait_until(lambda: cdc.status()["changes_applied"] == 1, message="it goes on")
    cdc.wait_for(state="streaming", error=None)
