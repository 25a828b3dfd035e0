"""A MariaDB or MySQL source that is not set up for a sync: what `cdc check` prints mends it, and `cdc run`
without it says the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import pytest

from tests.command import Command, cdc
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql
from tests.mysql_servers import LocalMysql, Setting

__all__ = ["cdc"]

Fresh = Callable[[LocalMysql], MysqlDatabase]

CLIENTS: Final = {"mariadb": "BINLOG MONITOR", "mysql": "REPLICATION CLIENT"}
EVERY: Final = {
    "slave": "REPLICATION SLAVE",
    "client": "",
    "select": "SELECT",
    "trigger": "TRIGGER",
}

FAILS: Final = {
    "mariadb": [
        ("binlog_format", "STATEMENT", "is STATEMENT, expected ROW"),
        ("binlog_format", "MIXED", "is MIXED, expected ROW"),
        ("binlog_row_metadata", "MINIMAL", "is MINIMAL, expected FULL"),
        ("binlog_row_metadata", "NO_LOG", "is NO_LOG, expected FULL"),
    ],
    "mysql": [
        ("binlog_format", "STATEMENT", "is STATEMENT, expected ROW"),
        ("binlog_format", "MIXED", "is MIXED, expected ROW"),
        ("binlog_row_metadata", "MINIMAL", "is MINIMAL, expected FULL"),
        ("server_id", "0", "is 0"),
    ],
}
WARNS: Final = {
    "mariadb": [
        ("binlog_row_image", "MINIMAL"),
        ("binlog_row_image", "NOBLOB"),
        ("binlog_expire_logs_seconds", "3600"),
    ],
    "mysql": [
        ("binlog_row_image", "MINIMAL"),
        ("binlog_row_image", "NOBLOB"),
        ("binlog_row_value_options", "PARTIAL_JSON"),
        ("binlog_expire_logs_seconds", "3600"),
    ],
}
NO_GTIDS: Final[dict[str, Setting]] = {"gtid_mode": False, "enforce_gtid_consistency": False}
NO_LOG: Final[dict[str, dict[str, Setting]]] = {
    "mariadb": {"skip_log_bin": None},
    "mysql": {"skip_log_bin": None} | NO_GTIDS,
}


def crm(database: MysqlDatabase) -> MysqlDatabase:
    database.execute("CREATE TABLE customers (id int PRIMARY KEY, name varchar(20))")
    database.execute("INSERT INTO customers VALUES (1, 'Ada')")
    return database


def findings(cdc: Command, level: str) -> list[tuple[str, str]]:
    """What `cdc check` says of the source at this level, and the remedy of each."""
    done = cdc.run("check")
    assert done.returncode == (1 if "FAILED" in done.stdout else 0)
    start = f"{level:<6} copy, source crm: "
    lines = [n.removeprefix(start) for n in done.stdout.splitlines() if n.startswith(start)]
    return [(said, remedy) for said, _, remedy in (n.partition(" - try: ") for n in lines)]


def refused(cdc: Command, *command: str) -> tuple[str, str]:
    """Why `cdc run`, or another command, ends, and what to try."""
    done = cdc.run(*(command or ("run", "--until-current")), timeout=30)
    assert done.returncode == 1, done.stderr
    found = re.search(r"^Error: (.*)\nTry: (.*)$", done.stderr, re.MULTILINE)
    assert found is not None, done.stderr
    return found[1], found[2]


def copies(cdc: Command) -> None:
    """All is well: checked, copied and followed."""
    assert findings(cdc, "FAILED") == []
    cdc.ok("run", "--until-current")
    assert cdc.status()["snapshot"]["rows"] == 1


@pytest.fixture(params=["mariadb", "mysql"])
def own_server(request: pytest.FixtureRequest, fresh_mysql_database: Fresh) -> MysqlDatabase:
    make: MakeMysql = request.getfixturevalue(f"make_{request.param}")
    return crm(fresh_mysql_database(make()))


def test_settings_that_no_sync_can_do_without(cdc: Command, own_server: MysqlDatabase) -> None:
    """Both commands name each, with one remedy; run as it is printed, it mends it."""
    cdc.configure(own_server.url, "sqlite:///copy.db", sync={"tables": ["customers"]})
    for setting, value, said in FAILS[own_server.server.flavour]:
        own_server.execute(f"SET GLOBAL {setting} = {value}")
        [(found, remedy)] = findings(cdc, "FAILED")
        assert found == f"{setting}: {said}"
        assert refused(cdc) == (f"source: {setting} {said}", remedy)
        own_server.execute(remedy)
        copies(cdc)


def test_settings_that_are_not_the_best(cdc: Command, own_server: MysqlDatabase) -> None:
    """They are warned of, syncs are made, and what is printed ends the warning."""
    cdc.configure(own_server.url, "sqlite:///copy.db", sync={"tables": ["customers"]})
    for setting, value in WARNS[own_server.server.flavour]:
        own_server.execute(f"SET GLOBAL {setting} = {value}")
        [(found, remedy)] = findings(cdc, "warn")
        assert found.startswith(f"{setting}: is {value}: ")
        own_server.execute("UPDATE customers SET name = 'Ada L' WHERE id = 1")
        copies(cdc)
        own_server.execute(remedy)
        assert findings(cdc, "warn") == []


def test_mysql_without_gtids(
    cdc: Command, make_mysql: MakeMysql, fresh_mysql_database: Fresh
) -> None:
    """The same of the four statements that switch them on."""
    database = crm(fresh_mysql_database(make_mysql(NO_GTIDS)))
    cdc.configure(database.url, "sqlite:///copy.db", sync={"tables": ["customers"]})
    [(found, remedy)] = findings(cdc, "FAILED")
    assert found == "gtid_mode: is OFF, expected ON"
    assert refused(cdc) == (
        "source: gtid_mode is OFF, expected ON: without it no copy could be exact",
        remedy,
    )
    database.execute(remedy)
    copies(cdc)


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_no_binary_log(
    request: pytest.FixtureRequest, cdc: Command, fresh_mysql_database: Fresh, *, flavour: str
) -> None:
    """It can be made in the configuration alone: then, all is well."""
    make: MakeMysql = request.getfixturevalue(f"make_{flavour}")
    server = make(NO_LOG[flavour])
    database = crm(fresh_mysql_database(server))
    cdc.configure(database.url, "sqlite:///copy.db", sync={"tables": ["customers"]})
    remedies = dict(findings(cdc, "FAILED"))
    remedy = "log_bin = binlog in the source's configuration, and restart it"
    assert remedies["log_bin: is OFF, expected ON"] == remedy
    assert refused(cdc) == ("source: its binary log is off", remedy)
    server.unset("skip_log_bin")
    server.restart()
    for other in remedies.values():
        if other.startswith("SET "):
            database.execute(other)
    copies(cdc)


@pytest.fixture(params=["mariadb", "mysql"])
def database(request: pytest.FixtureRequest) -> MysqlDatabase:
    found: MysqlDatabase = request.getfixturevalue(f"{request.param}_source")
    return crm(found)


def user_without(cdc: Command, database: MysqlDatabase, *lacking: str) -> str:
    """The sync comes as a user who has all grants but these; its account, as SQL has it."""
    everything = EVERY | {"client": CLIENTS[database.server.flavour]}
    of_server = [f"{everything[n]} ON *.*" for n in ("slave", "client") if n not in lacking]
    of_database = [everything[n] for n in ("select", "trigger") if n not in lacking]
    user = database.create_user(*of_server, *of_database)
    cdc.configure(database.url_as(*user), "sqlite:///copy.db", sync={"tables": ["customers"]})
    return f"'{user.name}'@'%'"


def test_every_grant_that_is_asked_for(cdc: Command, database: MysqlDatabase) -> None:
    """With them nothing is FAILED, and nothing is warned of."""
    user_without(cdc, database)
    assert findings(cdc, "warn") == []
    copies(cdc)


@pytest.mark.parametrize("lacking", ["slave", "client"])
def test_a_grant_to_read_the_log(cdc: Command, database: MysqlDatabase, lacking: str) -> None:
    """Each is named by both commands. The statement that is printed mends it, and so it is not taken for a
    wrong password, which servers call it."""
    account = user_without(cdc, database, lacking)
    privilege = (EVERY | {"client": CLIENTS[database.server.flavour]})[lacking]
    [(found, remedy)] = findings(cdc, "FAILED")
    assert found == f"grant {privilege}: {account.replace(chr(39), '')} does not have it"
    assert remedy == f"GRANT {privilege} ON *.* TO {account};"
    error, hint = refused(cdc)
    assert privilege in error
    assert hint in (remedy, "run `cdc check`: it prints the grants that are missing")
    assert (hint == remedy) is (lacking == "slave")
    database.execute(remedy)
    copies(cdc)


def test_the_grant_to_see_triggers(cdc: Command, database: MysqlDatabase) -> None:
    """A sync does without it, until somebody writes in statement format."""
    account = user_without(cdc, database, "trigger")
    [(found, remedy)] = findings(cdc, "warn")
    who = account.replace("'", "")
    assert found == (
        f"grant TRIGGER: {who} does not have it on {database.name}: a statement that a session writes"
        " there in statement format stops the sync, because its table may have triggers that write others"
    )
    database.execute("CREATE TABLE others (id int PRIMARY KEY)")
    copies(cdc)
    database.execute("SET SESSION binlog_format = STATEMENT; INSERT INTO others VALUES (1)")
    error, hint = refused(cdc)
    assert f"whether {database.name}.others has triggers cannot be seen" in error
    assert remedy == f"GRANT TRIGGER ON `{database.name}`.* TO {account};"
    assert hint.startswith(f"{remedy}, then `cdc run` goes on if there is none")
    database.execute(remedy)
    assert findings(cdc, "warn") == []
    copies(cdc)


def test_no_grant_on_the_database(cdc: Command, database: MysqlDatabase) -> None:
    """Its user is not let in: the statement that is printed lets it in."""
    account = user_without(cdc, database, "select", "trigger")
    [(found, remedy)] = findings(cdc, "FAILED")
    assert found == (
        f"connection: source: Access denied for user {account} to database '{database.name}'"
    )
    assert refused(cdc) == (found.removeprefix("connection: "), remedy)
    database.execute(remedy)
    copies(cdc)


def test_no_grant_on_the_table(cdc: Command, database: MysqlDatabase) -> None:
    """The server does not show it the table, nor that there is one."""
    account = user_without(cdc, database, "select")
    database.execute(f"REVOKE TRIGGER ON {database.name}.* FROM {account}")
    database.execute("CREATE TABLE others (id int PRIMARY KEY)")
    database.execute(f"GRANT SELECT ON {database.name}.others TO {account}")
    [(found, remedy)] = findings(cdc, "FAILED")
    error = "table customers does not exist on the source, or its user may not see it"
    assert found == f"table customers: {error}"
    assert refused(cdc) == (error, remedy)
    statement = f"GRANT SELECT ON `{database.name}`.`customers` TO {account};"
    assert remedy.endswith(f"; if it is there: {statement}")
    database.execute(statement)
    copies(cdc)


def test_a_grant_on_some_columns(cdc: Command, database: MysqlDatabase) -> None:
    """The server shows it only these, but its log has all: a copy would silently be without the others."""
    account = user_without(cdc, database, "select")
    database.execute(f"GRANT SELECT (id) ON {database.name}.customers TO {account}")
    [(found, remedy)] = findings(cdc, "FAILED")
    table = f"{database.name}.customers"
    who = account.replace("'", "")
    assert found == f"table {table}: {who} may not read it, or not all of its columns"
    error = f"source: {who} may not read all columns of table {table}"
    assert refused(cdc) == (error, remedy)
    assert refused(cdc, "tail", "copy") == (error, remedy)
    database.execute(remedy)
    copies(cdc)
