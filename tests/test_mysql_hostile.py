"""MariaDB and MySQL targets that have hostile settings, and zeros in their counters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import pytest

from tests.command import Command, cdc
from tests.databases import Database
from tests.mysql_crm import numbers
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
    "lc_messages": "'de_DE'",
    "autocommit": "0",
    "foreign_key_checks": "0",
    "unique_checks": "0",
    "character_set_server": "latin1",
    "collation_connection": "latin1_swedish_ci",
    "init_connect": "'SET SESSION foreign_key_checks = 0, SESSION sql_notes = 0'",
}


NONE: Final = {"sql_mode": "''"}
"""Without a mode, servers cut and round what does not fit, and say so in a warning at most."""

TEXT: Final = "€ \\ ' \" || %%"
AT: Final = "2024-07-01 12:00:00"
ROUTES: Final = ("postgres-mariadb", "postgres-mysql", "mysql-mariadb", "mariadb-mysql")


class Ends(NamedTuple):
    """A source, and a target on a server of its own."""

    source: Any
    target: MysqlDatabase

    def fill(self, first: int, last: int) -> None:
        """Adds customers with these numbers."""
        if isinstance(self.source, Database):
            text = TEXT.replace("'", "''")
            numbered = f"generate_series({first}, {last}) AS g(n)"
            name, at = f"'{text}' || n", f"'{AT}+00'"
        else:
            text = TEXT.replace("\\", "\\\\").replace("'", "''")
            numbered = f"(SELECT n + {first - 1} AS n FROM {numbers(last - first + 1)}) AS g"
            name, at = f"CONCAT('{text}', n)", f"'{AT}'"
            self.source.execute("SET time_zone = '+00:00'")
        self.source.execute(f"INSERT INTO customers SELECT n, {name}, {at} FROM {numbered}")

    def rows(self) -> list[tuple[Any, ...]]:
        """The target's, read with plain settings."""
        plain = self.target.connect(init_command="SET time_zone = '+00:00', sql_mode = ''")
        with plain.cursor() as cursor:
            cursor.execute("SELECT id, name, LEFT(CAST(at AS CHAR), 19) FROM customers ORDER BY id")
            return list(cursor.fetchall())


@pytest.fixture(params=[*ROUTES[:3], pytest.param(ROUTES[3], marks=pytest.mark.faults)])
def ends(request: pytest.FixtureRequest, fresh_mysql_database: Fresh, cdc: Command) -> Ends:
    kind, _, target_kind = request.param.partition("-")
    source = request.getfixturevalue("source_db" if kind == "postgres" else f"{kind}_source")
    make: MakeMysql = request.getfixturevalue(f"make_{target_kind}")
    target = fresh_mysql_database(make())
    at = "timestamptz" if kind == "postgres" else "timestamp NULL"
    source.execute(f"CREATE TABLE customers (id int PRIMARY KEY, name varchar(60), at {at})")
    source.execute("CREATE TABLE contacts (id int PRIMARY KEY, customer_id int)")
    user = target.create_user("ALL")
    cdc.configure(source.url, target.url_as(*user), sync={"tables": ["customers", "contacts"]})
    return Ends(source, target)


def set_globals(target: MysqlDatabase, settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        target.execute(f"SET GLOBAL {name} = {value}")


def arrive_as_they_are(cdc: Command, ends: Ends) -> None:
    """Rows of a copy, of a small batch and of a large one, and updates."""
    source = ends.source
    ends.fill(0, 500)
    cdc.ok("run", "--until-current")
    ends.fill(501, 510)
    cdc.ok("run", "--until-current")
    ends.fill(511, 2000)
    source.execute("UPDATE customers SET name = 'é\t' WHERE id % 7 = 0")
    cdc.ok("run", "--until-current")
    assert ends.rows() == [(n, f"{TEXT}{n}" if n % 7 else "é\t", AT) for n in range(2001)]


def test_hostile_settings(cdc: Command, ends: Ends) -> None:
    """Whatever the target has as defaults, a copy and a stream bring rows as they are, small
    batches and large; and its foreign keys are looked at."""
    ends.target.execute("CREATE TABLE people (id int PRIMARY KEY)")
    ends.target.execute(
        "CREATE TABLE contacts (id int PRIMARY KEY, customer_id int,"
        " CONSTRAINT known FOREIGN KEY (customer_id) REFERENCES people (id))"
    )
    set_globals(ends.target, BOTH | HOSTILE[ends.target.server.flavour])
    arrive_as_they_are(cdc, ends)
    ends.source.execute("INSERT INTO contacts VALUES (1, 1)")
    refused = cdc.run("run", "--until-current")
    assert refused.returncode == 1
    assert "foreign key known is violated at the end of the transaction" in refused.stderr
    assert ends.target.rows("SELECT * FROM contacts") == []


def test_no_sql_mode(cdc: Command, ends: Ends) -> None:
    """The same where the target takes whatever fits or not: what does not stops the sync by name, and
    arrives whole once the column is wide enough."""
    set_globals(ends.target, NONE)
    arrive_as_they_are(cdc, ends)
    ends.target.execute("ALTER TABLE customers MODIFY name varchar(44)")
    longest = "x" * 45
    for where in ("id = 1", "id < 1000"):
        ends.source.execute(f"UPDATE customers SET name = '{longest}' WHERE {where}")
        refused = cdc.run("run", "--until-current")
        assert refused.returncode == 1
        # One row by UPDATE, many by LOAD DATA, which only warns.
        assert re.search(r"too long for column name|cut or rounded in column name", refused.stderr)
        assert longest not in refused.stderr
        assert ends.target.rows("SELECT count(*) FROM customers WHERE name LIKE 'x%'") == [(0,)]
    ends.target.execute("ALTER TABLE customers MODIFY name varchar(60)")
    cdc.ok("run", "--until-current")
    arrived = f"SELECT count(*) FROM customers WHERE name = '{longest}'"
    assert ends.target.rows(arrived) == [(1000,)]


ZERO: Final = (
    "CREATE TABLE customers (id int NOT NULL AUTO_INCREMENT PRIMARY KEY, name varchar(20))"
)


@pytest.mark.parametrize(
    ("route", "load"),
    [
        ("postgres-mariadb", True),
        ("mariadb-mariadb", False),
        ("mysql-mysql", True),
        pytest.param("mysql-mariadb", True, marks=pytest.mark.faults),
        pytest.param("mariadb-mysql", False, marks=pytest.mark.faults),
    ],
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


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_errors_of_a_server_that_speaks_german(
    request: pytest.FixtureRequest,
    source_db: Database,
    fresh_mysql_database: Fresh,
    cdc: Command,
    flavour: str,
) -> None:
    """A value that does not fit is told by its column, as by a server that speaks English."""
    make: MakeMysql = request.getfixturevalue(f"make_{flavour}")
    target = fresh_mysql_database(make())
    target.execute("SET GLOBAL lc_messages = 'de_DE'")
    target.execute("CREATE TABLE customers (id int PRIMARY KEY, name varchar(3))")
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
    source_db.execute("INSERT INTO customers VALUES (1, 'longer')")
    cdc.configure(source_db.url, target.url, sync={"tables": ["customers"]})
    assert "too long for column name" in cdc.run("run", "--until-current").stderr
