"""Fixtures: real MariaDB and MySQL servers, and a fresh database for each test.

The servers are shared by the whole run, each started by the first test that needs it. A test that
stops, crashes or configures a server makes one of its own with `make_mariadb` or `make_mysql`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

from tests.mysql_databases import MysqlDatabase
from tests.mysql_programs import FLAVOURS, TITLES, Flavour, NotHere, find
from tests.mysql_servers import LocalMysql, Setting

MYSQL_DATABASES: Final = pytest.StashKey[list[MysqlDatabase]]()


class MakeMysql(Protocol):
    def __call__(
        self,
        settings: Mapping[str, Setting] | None = None,
        *,
        durable: bool = False,
        place: Path | None = None,
    ) -> LocalMysql:
        """A started server for this test alone, gone after it; its folder is made in `place`."""
        ...


def demand(flavour: Flavour) -> None:
    """Skips the test where the server is missing; in CI, where MariaDB is, fails it."""
    try:
        find(flavour)
    except NotHere as missing:
        if flavour == "mariadb" and os.environ.get("CI"):
            pytest.fail(f"Error: {missing}", pytrace=False)
        pytest.skip(_not_tested(flavour, missing))


def pytest_report_header() -> list[str]:
    return [_header(flavour) for flavour in FLAVOURS]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was not tested is said last, where it is read."""
    for flavour in FLAVOURS:
        try:
            find(flavour)
        except NotHere as missing:
            terminalreporter.section(_not_tested(flavour, missing), sep="!", red=True, bold=True)
            terminalreporter.line(f"Try: {missing.hint}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the servers said during the test."""
    report = yield
    if report.failed:
        # The first database of a server has the longest view of its log.
        made = item.stash.get(MYSQL_DATABASES, [])
        for server, first in {database.server: database for database in reversed(made)}.items():
            if said := server.log_tail(start=first.log_start):
                title = f"log of {server.programs.title} on port {server.port}"
                report.sections.append((title, said))
    return report


@contextmanager
def _server(flavour: Flavour) -> Iterator[LocalMysql]:
    demand(flavour)
    with LocalMysql(flavour) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[LocalMysql]:
    with _server("mariadb") as server:
        yield server


@pytest.fixture(scope="session")
def second_mariadb() -> Iterator[LocalMysql]:
    with _server("mariadb") as server:
        yield server


@pytest.fixture(scope="session")
def mysql() -> Iterator[LocalMysql]:
    with _server("mysql") as server:
        yield server


@pytest.fixture(scope="session")
def second_mysql() -> Iterator[LocalMysql]:
    with _server("mysql") as server:
        yield server


@pytest.fixture
def fresh_mysql_database(
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[LocalMysql], MysqlDatabase]]:
    """Makes a database on a server, as often as called; dropped after the test, with its users."""
    made: list[MysqlDatabase] = request.node.stash.setdefault(MYSQL_DATABASES, [])

    with ExitStack() as after:

        def make(server: LocalMysql) -> MysqlDatabase:
            database = MysqlDatabase(server)
            made.append(database)
            after.callback(database.drop)
            return database

        yield make


FreshDatabase = Callable[[LocalMysql], MysqlDatabase]


@pytest.fixture
def mariadb_source(fresh_mysql_database: FreshDatabase, mariadb: LocalMysql) -> MysqlDatabase:
    return fresh_mysql_database(mariadb)


@pytest.fixture
def mariadb_target(
    fresh_mysql_database: FreshDatabase, second_mariadb: LocalMysql
) -> MysqlDatabase:
    return fresh_mysql_database(second_mariadb)


@pytest.fixture
def mysql_source(fresh_mysql_database: FreshDatabase, mysql: LocalMysql) -> MysqlDatabase:
    return fresh_mysql_database(mysql)


@pytest.fixture
def mysql_target(fresh_mysql_database: FreshDatabase, second_mysql: LocalMysql) -> MysqlDatabase:
    return fresh_mysql_database(second_mysql)


@pytest.fixture(params=FLAVOURS)
def any_mysql_source(request: pytest.FixtureRequest) -> MysqlDatabase:
    """A source on MariaDB, and once more on MySQL where it can be had."""
    database: MysqlDatabase = request.getfixturevalue(f"{request.param}_source")
    return database


@pytest.fixture(params=FLAVOURS)
def any_mysql_target(request: pytest.FixtureRequest) -> MysqlDatabase:
    """A target on MariaDB, and once more on MySQL where it can be had."""
    database: MysqlDatabase = request.getfixturevalue(f"{request.param}_target")
    return database


@pytest.fixture
def make_mariadb() -> Iterator[MakeMysql]:
    with _maker("mariadb") as make:
        yield make


@pytest.fixture
def make_mysql() -> Iterator[MakeMysql]:
    with _maker("mysql") as make:
        yield make


@contextmanager
def _maker(flavour: Flavour) -> Iterator[MakeMysql]:
    with ExitStack() as after:

        def make(
            settings: Mapping[str, Setting] | None = None,
            *,
            durable: bool = False,
            place: Path | None = None,
        ) -> LocalMysql:
            demand(flavour)
            server = LocalMysql(flavour, settings=settings, durable=durable, place=place)
            return after.enter_context(server)

        yield make


def _header(flavour: Flavour) -> str:
    try:
        found = find(flavour)
    except NotHere as missing:
        return _not_tested(flavour, missing)
    return f"{found.title} in {found.folder}"


def _not_tested(flavour: Flavour, missing: NotHere) -> str:
    return f"{TITLES[flavour]}: NOT TESTED because {missing.reason}"
