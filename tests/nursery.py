"""Workers without the quarter of a second of CPU that Python and our imports take: forked, not started.

A test run starts some thousand workers, on two cores that do nothing else. A process that has imported
what every worker does forks one for each that is asked for. It is a process of its own, with its own
environment and streams, that runs `python -m MODULE …` from there on and can be killed like any other.

A command that comes from here goes on as the daemon where `cdc run` executes it, and its daemon forks its
workers, too. With `python` for each of them they are tested by test_daemon, test_status, test_readme and
test_demo.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Final, NoReturn, Self

from appliers import faults
from cdc import supervised

WARM: Final = (
    "appliers.registry appliers.mysql appliers.postgres appliers.sqlite cdc.cli.app cdc.config"
    " cdc.daemon cdc.session cdc.sources.mysql.source cdc.sources.postgres.source cdc.tail"
    " sqlglot.dialects.mysql sqlglot.dialects.postgres sqlglot.dialects.sqlite"
).split()
"""What a worker or a command imports, sooner or later."""

AT_START: Final = ("CDC_PURE_PYTHON", "PYTHONIOENCODING", "PYTHONPROFILEIMPORTTIME")
"""Variables that are read when a Python starts, or imports: too late for one that is forked."""


class Forked:
    """A process, as `subprocess.Popen` would have it. `stdin` is a pipe."""

    pid: int
    stdin: IO[bytes]

    def poll(self) -> int | None:
        raise NotImplementedError

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Child(Forked):
    """A process of the nursery's."""

    stdout: IO[str] | None = None

    def __init__(self, nursery: Nursery, number: int, pid: int, stdin: IO[bytes]) -> None:
        self.pid = pid
        self.stdin = stdin
        self._nursery = nursery
        self._number = number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """As Popen does it."""
        self.stdin.close()
        if self.stdout is not None:
            self.stdout.close()
        self.wait()

    def poll(self) -> int | None:
        return self._nursery.code(self._number, 0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._nursery.code(self._number, timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return code


class Worker(Forked):
    """One that a daemon from the nursery has forked from itself, where it would start a Python."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        env: Mapping[str, str],
        process_group: int,
    ) -> None:
        assert (stdin, process_group) == (subprocess.PIPE, 0)
        read, write = os.pipe()
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            os.dup2(read, 0)
            os.dup2(stdout, 1)
            # What an exec would close: the daemon's locks, among others, must not outlive it in us.
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.environ.clear()
            os.environ.update(env)
            _execute(command[0], command)
        os.close(read)
        self.stdin = os.fdopen(write, "wb", buffering=0)

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


class Nursery:
    """The process that forks, seen from the tests."""

    def __init__(self) -> None:
        self._environment = {**os.environ}
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "tests.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=self._environment | {"PYTHONWARNINGS": "error"},
                cwd=Path(__file__).parent.parent,
            )
        # By numbers of our own: the system gives a process's number again after some 30,000 others.
        self._numbers = count()
        self._living: dict[int, int] = {}
        self._codes: dict[int, int] = {}
        self._born: list[int] = []
        self._lock = threading.Lock()

    def fork(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        out: IO[bytes] | None = None,
        error: IO[bytes],
    ) -> Child:
        """`python -m module arguments`, there. Without `out`, what it prints comes by the child's `stdout`."""
        if out is None:
            ours, its = os.pipe()
            with os.fdopen(its, "wb") as end:
                child = self.fork(
                    module, arguments, environment=environment, folder=folder, out=end, error=error
                )
            child.stdout = os.fdopen(ours)
            return child
        for name in AT_START:
            known = self._environment.get(name)
            assert environment.get(name, known) == known, f"{name} asks for a Python of its own"
        read, write = os.pipe()
        asked = {
            "module": module,
            "arguments": [*arguments],
            "environment": {**environment},
            "folder": str(folder),
        }
        with self._lock:
            fds = [read, out.fileno(), error.fileno()]
            socket.send_fds(self._ours, [json.dumps(asked).encode()], fds)
            os.close(read)
            while not self._born:
                self._hear(None)
            pid = self._born.pop()
            number = self._living[pid]
        return Child(self, number, pid, os.fdopen(write, "wb", buffering=0))

    def code(self, number: int, timeout: float | None) -> int | None:
        """How a process has ended, as Popen says it; None if it has not within `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                # Shorter than a wait may be: other threads want to know of other processes.
                left = 0.05 if until is None else min(0.05, max(0.0, until - time.monotonic()))
                if number not in self._codes:
                    self._hear(left)
                if number in self._codes:
                    return self._codes[number]
            if until is not None and time.monotonic() >= until:
                return None

    def _hear(self, timeout: float | None) -> None:
        while select.select([self._ours], [], [], timeout)[0]:
            data = self._ours.recv(1 << 16)
            if not data:
                raise AssertionError("the nursery is gone: its standard error says why")
            said: dict[str, Any] = json.loads(data)
            if "born" in said:
                self._born.append(said["born"])
                self._living[said["born"]] = next(self._numbers)
                return
            self._codes[self._living.pop(said["ended"])] = os.waitstatus_to_exitcode(said["status"])
            timeout = 0.0


@cache
def nursery() -> Nursery:
    """The one of this test process; it ends when this process does."""
    return Nursery()


def _serve(sock: socket.socket) -> None:
    """Forks for every request, and tells of every end, until the tests are gone."""
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([sock, wake], [], [])
        if wake in ready:
            wake.recv(4096)
            _tell_ends(sock)
        if sock in ready:
            data, fds, _, _ = socket.recv_fds(sock, 1 << 20, 3)
            if not data:
                return
            pid = os.fork()
            if pid == 0:
                for one in (sock, wake, woken):
                    one.close()
                _become(json.loads(data), *fds)
            for fd in fds:
                os.close(fd)
            sock.send(json.dumps({"born": pid}).encode())


def _tell_ends(sock: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        sock.send(json.dumps({"ended": pid, "status": status}).encode())


def _become(asked: dict[str, Any], *streams: int) -> NoReturn:
    """`streams` are what is to be 0, 1 and 2."""
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.execv = _execute  # type: ignore[assignment]
    vars(supervised)["subprocess"] = SimpleNamespace(Popen=Worker, PIPE=subprocess.PIPE)
    _run(asked["module"], asked["arguments"])


def _execute(path: str, command: Sequence[str]) -> NoReturn:
    """`os.execv` of `python -P -m MODULE …`: this process is that from now on."""
    python, safely, as_module, module, *arguments = command
    assert (path, python, safely, as_module) == (sys.executable, sys.executable, "-P", "-m")
    _run(module, arguments)


def _run(module: str, arguments: Sequence[str]) -> NoReturn:
    """What stands on the stack meanwhile is never returned to."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            default = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if default else signal.SIG_DFL)
    # Those of the nursery take what they write to for what it was there: a file has places, a pipe none.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor, for the whole life
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.excepthook = sys.__excepthook__
    threading.excepthook = threading.__excepthook__
    importlib.reload(faults)  # it reads the environment
    random.seed()
    sys.argv = [module, *arguments]
    code = 1
    try:
        if not hasattr(sys.modules.get(module), "__path__"):
            # It would be a second one of the same name, beside `__main__`.
            sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as Python itself would end
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            code = 120
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for name in WARM:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        _serve(sock)


if __name__ == "__main__":
    main()
