"""A daemon as a process of its own, with stand-in workers or real ones, and a service manager's ear."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from cdc.runtime import Live, Runtime
from tests.databases import wait_until

STAND_IN = (sys.executable, "-P", str(Path(__file__).with_name("stand_in_worker.py")))

_START = """
import json, sys
from pathlib import Path
from cdc.daemon import Daemon, WORKER
from cdc.logs import configure
from cdc.supervised import Pace
from appliers.errors import SyncError
configure()
config, syncs, flags, worker, pace = json.loads(sys.argv[1])
try:
    daemon = Daemon(Path(config), syncs, flags=flags, worker=worker or WORKER, pace=Pace(**pace))
    code = daemon.run()
except SyncError as e:
    sys.exit(f"Error: {e}")
sys.exit(code)
"""

QUICK: Mapping[str, float] = {
    "look": 0.1,
    # Not less: on a busy machine a worker may need seconds for its first beat.
    "stall": 30.0,
    "first_delay": 0.1,
    "longest_delay": 1.0,
    "settled": 60.0,
}


class Manager:
    """The service manager's end of the notify socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)
        self._heard: list[str] = []
        self._last: dict[str, float] = {}

    def heard(self) -> list[str]:
        """Every assignment until now, in order."""
        while True:
            try:
                assignments = self._socket.recv(65536).decode().split("\n")
            except BlockingIOError:
                return self._heard
            self._heard += assignments
            self._last |= dict.fromkeys(assignments, time.monotonic())

    def wait_for(self, assignment: str, times: int = 1) -> list[str]:
        wait_until(
            lambda: self.heard().count(assignment) >= times, message=f"{times}x {assignment}"
        )
        return self._heard

    def silence(self, assignment: str) -> float:
        """Seconds since it was heard, if asked often."""
        self.heard()
        return time.monotonic() - self._last[assignment]

    def close(self) -> None:
        self._socket.close()


class Syncs:
    """A configuration of a few syncs whose databases nobody asks for, and what their workers do."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "cdc.toml"

    def write(self, **tables: str) -> None:
        """Configures one sync for each argument: its name, and the table that it syncs."""
        lines = ['[databases.crm]\nurl = "postgresql://nobody@127.0.0.1:1/crm"\n']
        for name, table in tables.items():
            lines.append(
                f'[databases.{name}]\nurl = "sqlite:///{name}.sqlite"\n'
                f'[sync.{name}]\nsource = "crm"\ntarget = "{name}"\ntables = ["{table}"]\n'
            )
        self.path.write_text("".join(lines))

    def do(self, sync: str, what: str) -> None:
        draft = self.path.with_name(f"{sync}.draft")
        draft.write_text(what)
        draft.replace(self.path.with_name(f"{sync}.does"))

    def starts(self, sync: str) -> list[str]:
        path = self.path.with_name(f"{sync}.starts")
        return path.read_text().splitlines() if path.exists() else []

    def pid(self, sync: str) -> int:
        """The process that was started last."""
        return int(wait_until(lambda: self.starts(sync))[-1].split()[0])

    def live(self, sync: str) -> Live | None:
        return Runtime(self.path, sync).read()

    def wait_for(self, sync: str, state: str) -> Live:
        found: list[Live] = []

        def told() -> bool:
            live = self.live(sync)
            if live is not None and live.state == state:
                found.append(live)
            return bool(found)

        wait_until(told, message=f"{sync} is {state}")
        return found[0]


class Daemon:
    """The supervisor under test, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def wait(self, timeout: float = 30) -> int:
        return self.process.wait(timeout)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def said(self) -> str:
        return self.log.read_text()

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()


class StartDaemon(Protocol):
    def __call__(
        self,
        *syncs: str,
        config: Path,
        flags: Sequence[str] = (),
        worker: Sequence[str] = STAND_IN,
        manager: Manager | None = None,
        env: Mapping[str, str] | None = None,
        **pace: float,
    ) -> Daemon:
        """Starts a daemon that is gone after the test."""
        ...


@pytest.fixture
def syncs(tmp_path: Path) -> Syncs:
    return Syncs(tmp_path)


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    with ExitStack() as after:
        count = iter(range(100))

        def start(
            *syncs: str,
            config: Path,
            flags: Sequence[str] = (),
            worker: Sequence[str] = STAND_IN,
            manager: Manager | None = None,
            env: Mapping[str, str] | None = None,
            **pace: float,
        ) -> Daemon:
            log = tmp_path / f"daemon-{next(count)}.log"
            given = [str(config), syncs, flags, worker, {**QUICK, **pace}]
            notify = {"NOTIFY_SOCKET": manager.address} if manager else {}
            with log.open("wb") as out:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, json.dumps(given)],
                    stderr=out,
                    stdout=out,
                    env=os.environ | notify | dict(env or {}),
                )
            daemon = Daemon(process, log)
            after.callback(_end, daemon)
            return daemon

        yield start


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(str(tmp_path / "notify"))
    yield found
    found.close()


def _end(daemon: Daemon) -> None:
    if daemon.process.poll() is None:
        daemon.process.kill()
        daemon.process.wait()


def gone(pid: int) -> Callable[[], bool]:
    """Asks whether a process has ended; one that only waits to be reaped has."""

    def ask() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return ask
