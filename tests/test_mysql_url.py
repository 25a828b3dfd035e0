"""Connections to what a mysql:// URL names."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliers.mysql_url import unverified
from tests.command import Command, cdc
from tests.databases import Database

__all__ = ["cdc"]


def test_a_context_is_made_once() -> None:
    """Connections whose server's certificate is not looked at share one: to make it reads files."""
    assert unverified() is unverified()


@pytest.fixture(params=["silent", "ssh"])
def other_server(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server of another protocol: one that waits for us to speak (HTTP, PostgreSQL), or
    one that speaks first."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as taken:

        def greet() -> None:
            while True:
                try:
                    client = taken.enter_context(server.accept()[0])
                except OSError:
                    return
                if request.param == "ssh":
                    client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_port_of_another_server_is_named(
    cdc: Command, source_db: Database, other_server: int, end: str, tmp_path: Path
) -> None:
    """A wrong port is told within the URL's connect-timeout, by `check` and by `status`."""
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    wrong = f"mysql://cdc@127.0.0.1:{other_server}/crm?connect-timeout=1"
    right = source_db.url if end == "target" else f"sqlite:///{tmp_path / 'copy.db'}"
    ends = (wrong, right) if end == "source" else (right, wrong)
    cdc.configure(*ends, sync={"tables": ["customers"]})
    done = cdc.run("check", timeout=20)
    assert done.returncode == 1
    assert "expected the greeting of a MySQL or MariaDB server, got " in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    shown = cdc.run("status", timeout=20)
    assert "expected the greeting of a MySQL or MariaDB server" in shown.stdout + shown.stderr
