"""MariaDB and MySQL targets that have hostile settings, and zeros in their counters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.command import Command, cdc
from tests.databases import Database
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql
from tests.mysql_servers import LocalMysql

__all__ = ["cdc"]

Fresh = Callable[[LocalMysql], MysqlDatabase]

HOSTILE: Final = {
    "mariadb": {"tx_isolation": "'SERIALIZABLE'", "check_constraint_checks": "0"},
    "mysql": {"transaction_isolation": "'SERIALIZABLE'", "sql_require_primary_key": "1"},
}
BOTH: Final = {
    "sql_mode": "'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH,NO_ZERO_DATE'",
    "time_zone": "'+05:00'",
    "autocommit": "0",
    "foreign_key_checks": "0",
    "unique_checks": "0",
    "character_set_server": "latin1",
    "collation_connection": "latin1_swedish_ci",
    "init_connect": "'SET SESSION foreign_key_checks = 0, SESSION sql_notes = 0'",
}


@pytest.fixture(params=["mariadb", "mysql"])
def server(request: pytest.FixtureRequest) -> LocalMysql:
    make: MakeMysql = request.getfixturevalue(f"make_{request.param}")
    return make()


def test_hostile_settings(
    cdc: Command, source_db: Database, server: LocalMysql, fresh_mysql_database: Fresh
) -> None:
    """Whatever the target has as defaults, a copy and a stream bring rows as they are, small
    batches and large; and its foreign keys are looked at."""
    target = fresh_mysql_database(server)
    user = target.create_user("ALL")
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY, name text, at timestamptz)")
    text = "'€ \\ '' \" || %%' || g, '2024-07-01 12:00:00+00'"
    source_db.execute(f"INSERT INTO customers SELECT g, {text} FROM generate_series(0, 500) g")
    for name, value in (BOTH | HOSTILE[server.flavour]).items():
        target.execute(f"SET GLOBAL {name} = {value}")
    cdc.configure(source_db.url, server.url(target.name, *user), sync={"tables": ["customers"]})
    cdc.ok("run", "--until-current")
    source_db.execute(f"INSERT INTO customers SELECT g, {text} FROM generate_series(501, 510) g")
    cdc.ok("run", "--until-current")
    source_db.execute(f"INSERT INTO customers SELECT g, {text} FROM generate_series(511, 2000) g")
    source_db.execute("UPDATE customers SET name = name || '\\' WHERE id % 7 = 0")
    cdc.ok("run", "--until-current")
    mine = source_db.rows("SELECT id, name, '2024-07-01 12:00:00' FROM customers ORDER BY id")
    reader = target.connect(init_command="SET time_zone = '+00:00', sql_mode = ''")
    with reader.cursor() as cursor:
        cursor.execute("SELECT id, name, LEFT(CAST(at AS CHAR), 19) FROM customers ORDER BY id")
        assert list(cursor.fetchall()) == mine


ZERO: Final = (
    "CREATE TABLE customers (id int NOT NULL AUTO_INCREMENT PRIMARY KEY, name varchar(20))"
)


@pytest.mark.parametrize(
    ("route", "load"),
    [("postgres-mariadb", True), ("mariadb-mariadb", False), ("mysql-mysql", True)],
)
def test_zero_in_a_counted_key(
    request: pytest.FixtureRequest,
    cdc: Command,
    server_of: Callable[[str, bool], MysqlDatabase],
    route: str,
    load: bool,
) -> None:
    """A 0 in an AUTO_INCREMENT key is 0 on the target, which would count it up: in a copy, in a small
    batch, in a large one, and after a changed key."""
    kind, _, target_kind = route.partition("-")
    source = request.getfixturevalue("source_db" if kind == "postgres" else f"{kind}_source")
    target = server_of(target_kind, load)
    target.execute(ZERO)
    if kind == "postgres":
        source.execute("CREATE TABLE customers (id int PRIMARY KEY, name varchar(20))")
        source.execute("INSERT INTO customers VALUES (0, 'copied')")
    else:
        source.execute(ZERO)
        source.execute("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")
        source.execute("INSERT INTO customers VALUES (0, 'copied')")
    cdc.configure(source.url, target.url, sync={"tables": ["customers"]})

    def same(expected: str) -> None:
        cdc.ok("run", "--until-current")
        rows = "SELECT id, name FROM customers ORDER BY id"
        assert target.rows(rows) == source.rows(rows)
        assert target.rows("SELECT name FROM customers WHERE id = 0") == [(expected,)]

    same("copied")
    source.execute("DELETE FROM customers")
    source.execute("INSERT INTO customers VALUES (0, 'small')")
    same("small")
    source.execute("DELETE FROM customers")
    many = ", ".join(f"({n}, 'large')" for n in range(400))
    source.execute(f"INSERT INTO customers VALUES {many}")
    same("large")
    source.execute("UPDATE customers SET id = 1000 WHERE id = 0")
    source.execute("UPDATE customers SET id = 0, name = 'moved' WHERE id = 7")
    same("moved")
    source.execute("UPDATE customers SET name = 'all'")
    same("all")


@pytest.fixture
def server_of(request: pytest.FixtureRequest, fresh_mysql_database: Fresh) -> Any:
    def make(kind: str, load: bool) -> MysqlDatabase:
        target: MysqlDatabase = request.getfixturevalue(f"{kind}_target")
        before = target.value("SELECT @@GLOBAL.local_infile")
        target.execute(f"SET GLOBAL local_infile = {int(load)}")
        request.addfinalizer(lambda: target.execute(f"SET GLOBAL local_infile = {before}"))
        return target

    return make
