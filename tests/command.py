"""The command `cdc` as users run it: a process of its own, with a configuration of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import sqlite3
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, TypeAlias

import pytest

from cdc.config import load
from cdc.status import collect
from tests.databases import Database, wait_until
from tests.nursery import Child, nursery

CUSTOMER: Final = """
[customer]
table = "customers"
related = { contacts = "customer_id" }
"""
CDC: Final = str(Path(sys.executable).with_name("cdc"))

Ask = Callable[[str], list[tuple[object, ...]]]
Done = subprocess.CompletedProcess[str]
Started: TypeAlias = Child | subprocess.Popen[str]


class Command:
    """Runs `cdc` in an empty directory, where cdc.toml is its configuration."""

    def __init__(self, directory: Path, after: ExitStack) -> None:
        self.directory = directory
        self.config = directory / "cdc.toml"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "RUNTIME_DIRECTORY": os.environ["RUNTIME_DIRECTORY"],
        }
        self._after = after

    def configure(
        self, source: str, target: str, *, more: str = "", sync: Mapping[str, Any] | None = None
    ) -> None:
        """One sync `copy` from crm to copy."""
        keys = {"source": "crm", "target": "copy", **(sync or {})}
        lines = "\n".join(f"{k} = {json.dumps(v)}" for k, v in keys.items())
        self.config.write_text(
            f'[databases.crm]\nurl = "{source}"\n[databases.copy]\nurl = "{target}"\n'
            f"{more}\n[sync.copy]\n{lines}\n"
        )

    def run(self, *arguments: str, timeout: float = 60, stdin: str = "") -> Done:
        with TemporaryFile() as out, TemporaryFile() as error:
            process = nursery().fork(
                "cdc",
                arguments,
                environment=self.environment,
                folder=self.directory,
                out=out,
                error=error,
            )
            process.stdin.write(stdin.encode())
            process.stdin.close()
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            texts = [(stream.seek(0), stream.read().decode())[1] for stream in (out, error)]
        return Done([CDC, *arguments], code, *texts)

    def ok(self, *arguments: str, timeout: float = 60) -> Done:
        """Runs what has to succeed."""
        done = self.run(*arguments, timeout=timeout)
        assert done.returncode == 0, (
            f"cdc {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def fresh(self, *arguments: str, **environment: str) -> Done:
        """Runs a Python of its own, for what is settled when one starts."""
        return subprocess.run(
            [CDC, *arguments],
            cwd=self.directory,
            env=self.environment | environment,
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=60,
        )

    def start(self, *arguments: str, fresh: bool = False) -> Started:
        """Starts what goes on; ended with the test. Its standard error is in `said`, and its standard
        output the process's `stdout`. `fresh` is as above."""
        process = self._fresh(*arguments) if fresh else self._forked(*arguments)
        self._after.callback(_end, process)
        return process

    def _fresh(self, *arguments: str) -> subprocess.Popen[str]:
        with self._said(arguments[0]).open("a") as error:
            return subprocess.Popen(
                [CDC, *arguments],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=error,
                text=True,
            )

    def _forked(self, *arguments: str) -> Child:
        with self._said(arguments[0]).open("ab") as error:
            process = nursery().fork(
                "cdc",
                arguments,
                environment=self.environment,
                folder=self.directory,
                error=error,
            )
        process.stdin.close()
        return process

    def said(self, command: str) -> str:
        """What a started command has said on standard error."""
        return self._said(command).read_text()

    def status(self, name: str = "copy") -> dict[str, Any]:
        """One sync as `cdc status --json` shows it; asked in this process, because tests ask often."""
        [found] = [s.as_json() for s in collect(load(self.config)) if s.name == name]
        return found

    def wait_for(self, **wanted: object) -> dict[str, Any]:
        """The status of the sync, once it is so."""
        return self._seen(
            lambda seen: all(seen[name] == value for name, value in wanted.items()), f"{wanted}"
        )

    def wait_for_error(self, pattern: str) -> dict[str, Any]:
        """The status of the sync, once it tries again because of an error like this. Both are of one look:
        at the next, another error may be the last that was met (a connection that was ended first)."""
        return self._seen(
            lambda seen: (
                seen["state"] == "retrying" and bool(re.search(pattern, str(seen["error"])))
            ),
            f"{pattern} is told",
        )

    def _seen(self, wanted: Callable[[dict[str, Any]], bool], message: str) -> dict[str, Any]:
        """The status at which it was as wanted."""
        seen: dict[str, Any] = {}

        def is_so() -> bool:
            seen.update(self.status())
            return wanted(seen)

        try:
            wait_until(is_so, message=message)
        except AssertionError as late:
            late.add_note(f"{seen}\n{self.said('run')[-2000:]}")
            raise
        return seen

    def _said(self, command: str) -> Path:
        return self.directory / f"{command}.stderr"


@contextmanager
def on_terminal(
    cdc: Command, *arguments: str, size: tuple[int, int] = (40, 120), term: str = "xterm"
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command that runs on a terminal of its own, of so many lines and columns, and where that is read
    and written. It ends after a minute at the latest."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    with subprocess.Popen(
        [CDC, *arguments],
        cwd=cdc.directory,
        env=cdc.environment | {"TERM": term},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        late = threading.Timer(60, process.kill)
        late.start()
        try:
            yield process, ours
        finally:
            process.kill()
            late.cancel()
            os.close(ours)


def lines_of(process: Started, count: int, timeout: float = 60) -> list[str]:
    """The next lines of a started command's standard output. One that is too late is killed, so that it
    fails the test rather than holding it up for ever."""
    assert process.stdout is not None
    late = threading.Timer(timeout, process.kill)
    late.start()
    try:
        found = [process.stdout.readline() for _ in range(count)]
    finally:
        late.cancel()
    came = len([line for line in found if line])
    assert came == count, f"expected {count} lines within {timeout:g} seconds, got {came}"
    return found


def _end(process: Started) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture
def cdc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "runtime"))
    with ExitStack() as after:
        yield Command(tmp_path, after)


@pytest.fixture
def crm(source_db: Database) -> Database:
    """A small CRM: three customers, and contacts that refer to them."""
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
    source_db.execute(
        "CREATE TABLE contacts (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers,"
        " phone text, since date)"
    )
    source_db.execute("ALTER TABLE contacts REPLICA IDENTITY FULL")
    source_db.execute("INSERT INTO customers VALUES (1, 'Ada'), (2, 'Bo'), (3, 'Cy')")
    source_db.execute(
        "INSERT INTO contacts VALUES (10, 1, '555', '2026-01-31'), (20, 2, '556', NULL)"
    )
    return source_db


@pytest.fixture
def copy(cdc: Command, crm: Database) -> Ask:
    """A configured sync into SQLite; asks its target."""
    target = cdc.directory / "copy.db"
    cdc.configure(crm.url, f"sqlite:///{target}", more=CUSTOMER)

    def ask(query: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(target)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    return ask
