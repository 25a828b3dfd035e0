"""A sync under test: its configuration, its worker as a process of its own, and what it has come to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import pytest

from cdc.runtime import Live, Runtime
from tests import mysql_oracle
from tests.databases import Database, wait_until
from tests.mysql_databases import MysqlDatabase
from tests.nursery import Child, nursery
from tests.targets import (
    MysqlTarget,
    PostgresTarget,
    SqliteTarget,
    Target,
    differences,
    state_of,
    tables_of,
)

PATIENCE: Final = 120.0

Source: TypeAlias = Database | MysqlDatabase


class Process:
    """One run of a worker or daemon. It ends with us: its standard input is a pipe that we hold."""

    def __init__(
        self, sync: Sync, flags: Sequence[str], fault: str, *, daemon: bool, fresh: bool = False
    ) -> None:
        environment = os.environ | {"CDC_FAULT": fault, "PYTHONWARNINGS": "error"}
        module, arguments = "cdc.worker", [str(sync.config), sync.name, *flags]
        if daemon:
            module, arguments = "cdc", ["run", "--config", str(sync.config), *flags]
        self._popen: Child | subprocess.Popen[bytes]
        with sync.log.open("ab") as log:
            if daemon or fresh:
                self._popen = subprocess.Popen(
                    [sys.executable, "-X", "faulthandler", "-m", module, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=environment,
                )
            else:
                self._popen = nursery().fork(
                    module,
                    arguments,
                    environment=environment,
                    folder=Path.cwd(),
                    out=log,
                    error=log,
                )
        self._sync = sync

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, negative for a signal."""
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.tell_where()
            raise AssertionError(
                f"the worker did not end within {timeout:g} seconds\n{self._sync.log_tail()}"
            ) from None
        self._close()
        return code

    def tell_where(self) -> None:
        """Ends it in a way that makes its faulthandler write into the log where each thread stands."""
        self._popen.send_signal(signal.SIGABRT)
        self._popen.wait()

    def kill(self) -> None:
        """SIGKILL. The worker must not have ended by itself before."""
        assert self.running, f"the worker has ended with {self.wait()}\n{self._sync.log_tail()}"
        self._popen.kill()
        assert self.wait() == -signal.SIGKILL

    def stop(self) -> float:
        """A clean stop, asked for with SIGTERM; the seconds it took."""
        begun = time.monotonic()
        self._popen.terminate()
        assert self.wait() == 0, self._sync.log_tail()
        return time.monotonic() - begun

    def dies_at_fault(self, timeout: float = PATIENCE) -> None:
        """Nobody but the named point kills it here."""
        code = self.wait(timeout)
        assert code == -signal.SIGKILL, f"ended with {code}\n{self._sync.log_tail()}"

    def lives(self, seconds: float) -> None:
        """Returns after so long; the process must not end before."""
        with suppress(subprocess.TimeoutExpired):
            code = self._popen.wait(seconds)
            raise AssertionError(f"the worker ended with {code}\n{self._sync.log_tail()}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """The process stands still meanwhile: what the source commits comes to it as one backlog."""
        self._popen.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._popen.send_signal(signal.SIGCONT)

    def discard(self) -> None:
        if self.running:
            self._popen.kill()
            self._popen.wait()
        self._close()

    def memory(self, what: str = "VmHWM") -> float:
        """Megabytes: the most ever (VmHWM) or now (VmRSS)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {what} of process {self.pid}")

    def _close(self) -> None:
        if self._popen.stdin is not None:
            self._popen.stdin.close()


class Sync:
    """One sync of one configuration file, and its workers one after the other."""

    def __init__(self, folder: Path, source: Source, target: Target, options: Options) -> None:
        self.name = options.name
        self.source = source
        self.target = target
        self.tables = options.tables
        self.config = folder / f"{options.name}.toml"
        self.log = folder / f"{options.name}.log"
        self.process: Process | None = None
        self._markers = 0
        self.config.write_text(options.toml(options.source_url or source.url, target.url))

    def start(
        self, *flags: str, fault: str = "", daemon: bool = False, fresh: bool = False
    ) -> Process:
        """A worker alone, or a daemon that starts one. `fresh`: a Python that was started for it and
        has imported what a worker does, for tests that measure its memory."""
        assert self.process is None or not self.process.running, "a worker runs already"
        self.process = Process(self, flags, fault, daemon=daemon, fresh=fresh)
        return self.process

    def second(self) -> Process:
        """Another worker of the same sync, beside the one that runs."""
        return Process(self, (), "", daemon=False)

    @property
    def running(self) -> Process:
        assert self.process is not None, "no worker was started"
        return self.process

    def live(self) -> Live | None:
        return Runtime(self.config, self.name).read()

    def log_tail(self, lines: int = 60) -> str:
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def log_count(self, event: str) -> int:
        """How often an event was logged by any worker so far."""
        return self.log.read_text(errors="replace").count(f" {event}") if self.log.exists() else 0

    def waits_for(
        self, condition: Callable[[], object], message: str, timeout: float = PATIENCE
    ) -> None:
        """`wait_until`, which fails at once when the worker is no more."""

        def asked() -> object:
            if not self.running.running:
                code = self.running.wait()
                # The last thing it did may have been what is waited for.
                assert condition(), f"{message}: the worker ended with {code}\n{self.log_tail()}"
                return True
            return condition()

        try:
            wait_until(asked, timeout, message)
        except AssertionError as e:
            if self.running.running:
                self.running.tell_where()
            raise AssertionError(f"{e}\n{self.log_tail()}") from None

    def is_copied(self) -> bool:
        """Whether every table's copy is exact."""
        tables = tables_of(self.target, self.name)
        return len(tables) > 0 and all(t.copy == "done" for t in tables.values())

    def wait_copied(self, timeout: float = PATIENCE) -> None:
        self.waits_for(self.is_copied, "every table is copied", timeout)

    def catch_up(self, timeout: float = PATIENCE) -> None:
        """Returns when everything committed so far is on the target: commits arrive in order, so one
        row more tells. The sync must have a table `markers`."""
        self._markers += 1
        self.source.execute(f"INSERT INTO markers VALUES ({self._markers})")
        query = f"SELECT 1 FROM markers WHERE id = {self._markers}"
        self.waits_for(lambda: self.target.rows(query), "the target has caught up", timeout)

    def finish(self, timeout: float = PATIENCE) -> None:
        """Stops what runs, and brings the target to where the source is."""
        if self.process is not None and self.process.running:
            self.process.stop()
        code = self.start("--until-current").wait(timeout)
        assert code == 0, f"--until-current ended with {code}\n{self.log_tail()}"

    def assert_equal(self, *tables: str) -> None:
        """Every row of every table is the same on both sides, column by column."""
        both = self.target, tables or self.tables
        if isinstance(self.source, MysqlDatabase):
            found = mysql_oracle.differences(self.source, *both)
        else:
            found = differences(self.source, *both)
        assert not found, "\n".join([*found, self.log_tail(15)])

    def assert_nothing_healed(self) -> None:
        """No change has met a row that was not there: nobody but the sync has written on the target."""
        with state_of(self.target, self.name) as state:
            checkpoint = state.load()
        assert checkpoint is not None
        assert checkpoint.healed == 0

    def request(self, table: str | None = None, customer: str | None = None) -> None:
        """Asks for a copy, and returns when the worker has taken the wish up and every table is exact."""
        with state_of(self.target, self.name) as state:
            state.request(table, customer)
        self.waits_for(self._is_fulfilled, "the copy is made")

    def _is_fulfilled(self) -> bool:
        with state_of(self.target, self.name) as state:
            return not state.control().requests and all(
                t.copy == "done" for t in state.tables().values()
            )


def checkpoint_of(sync: Sync) -> str:
    """The position that the target holds."""
    with state_of(sync.target, sync.name) as state:
        found = state.load()
    assert found is not None
    return found.position


def told(sync: Sync) -> Live:
    """What the worker tells of itself."""
    live = wait_until(sync.live, message="the worker tells something")
    assert live is not None
    return live


class Options:
    """What the configuration of a sync says. `source_url` is where it connects, if not straight to the
    source."""

    def __init__(self, name: str, tables: Sequence[str], customer: str, source_url: str) -> None:
        self.name = name
        self.tables = tuple(tables)
        self.customer = customer
        self.source_url = source_url

    def toml(self, source: str, target: str) -> str:
        tables = json.dumps(self.tables)
        return (
            f'[databases.source]\nurl = "{source}"\n[databases.target]\nurl = "{target}"\n'
            f'{self.customer}\n[sync.{self.name}]\nsource = "source"\ntarget = "target"\ntables = {tables}\n'
        )


class MakeSync(Protocol):
    def __call__(
        self,
        source: Source,
        target: Target,
        tables: Sequence[str],
        *,
        name: str = "s1",
        customer: str = "",
        source_url: str = "",
    ) -> Sync:
        """A sync whose worker is gone after the test, and whose log is shown if the test fails."""
        ...


@contextmanager
def sync_maker(folder: Path) -> Iterator[MakeSync]:
    runtime = folder / "run"
    runtime.mkdir(exist_ok=True)
    made: list[Sync] = []

    def make(
        source: Source,
        target: Target,
        tables: Sequence[str],
        *,
        name: str = "s1",
        customer: str = "",
        source_url: str = "",
    ) -> Sync:
        sync = Sync(folder, source, target, Options(name, tables, customer, source_url))
        made.append(sync)
        return sync

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RUNTIME_DIRECTORY", str(runtime))
            yield make
    finally:
        for sync in made:
            if sync.process is not None:
                sync.process.discard()
    for sync in made:
        print(f"--- log of sync {sync.name}\n{sync.log_tail(60)}")


@pytest.fixture
def make_sync(tmp_path: Path) -> Iterator[MakeSync]:
    with sync_maker(tmp_path) as make:
        yield make


TARGETS: Final = ("postgres", "sqlite", "mariadb")
"""MySQL has the contract suite, and the syncs from a MySQL source."""


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    """A target of each kind, empty, for this test alone."""
    if request.param == "sqlite":
        return SqliteTarget(request.getfixturevalue("sqlite_path"))
    if request.param == "mariadb":
        return MysqlTarget(request.getfixturevalue("mariadb_target"))
    return PostgresTarget(request.getfixturevalue("target_db"))


@pytest.fixture
def one_target(sqlite_path: Path) -> Target:
    """For promises that the session keeps whatever the target is."""
    return SqliteTarget(sqlite_path)
