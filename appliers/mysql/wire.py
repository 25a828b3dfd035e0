"""PyMySQL's connection with what its public side lacks: warnings, LOAD DATA out of memory, a statement
that is sent now and answered later."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import pymysql
from pymysql.connections import MySQLResult
from pymysql.constants import COMMAND, SERVER_STATUS

from appliers.mysql_url import Connection

KEEPALIVE: Final = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}
"""A server whose machine is gone is noticed within about a minute, however long statements may take."""


class Wire(Connection):
    """Connects when it is made. Raises PyMySQL's errors."""

    server_version: str
    server_status: int
    server_thread_id: tuple[int]
    _local_infile: bool
    _sock: Any
    _result: Any
    _execute_command: Any

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, local_infile=True, defer_connect=True)
        # A server may ask for any file of ours in answer to any statement: PyMySQL would send it, we
        # send nothing but what `send_piece` is given.
        self._local_infile = False
        self.connect()
        sock = self._sock
        if sock.family != socket.AF_UNIX:
            for name, value in KEEPALIVE.items():
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    @property
    def greeting(self) -> str:
        """What the server calls its version."""
        return str(self.server_version)

    @property
    def number(self) -> int:
        """CONNECTION_ID(), as the greeting has it."""
        return int(self.server_thread_id[0])

    @property
    def in_transaction(self) -> bool:
        return bool(self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    @property
    def warnings(self) -> int:
        """Of the last statement."""
        result = self._result
        return int(result.warning_count) if result is not None else 0

    @property
    def found(self) -> tuple[int, Sequence[tuple[Any, ...]]]:
        """Of the last statement: rows touched (of a query: its rows), and the rows of a query."""
        result = self._result
        return int(result.affected_rows or 0), result.rows or ()

    def start(self, sql: bytes) -> None:
        """Sends a statement; `finish` must follow."""
        self._execute_command(COMMAND.COM_QUERY, sql)

    def finish(self) -> None:
        self.next_result()

    def start_load(self, sql: bytes) -> None:
        """Sends LOAD DATA LOCAL; `send_piece` and then `finish_load` must follow."""
        self.start(sql)
        packet = self._read_packet()  # type: ignore[no-untyped-call]
        if not packet.is_load_local_packet():
            raise pymysql.err.OperationalError(1148, "expected a request for the data")

    def send_piece(self, data: bytes) -> None:
        """At most 16 MB."""
        self.write_packet(data)

    def finish_load(self) -> None:
        self.write_packet(b"")
        result: Any = MySQLResult(self)
        result.read()
        self._result = result
        self.server_status = result.server_status

    def discard(self) -> None:
        """Closes it, whatever it is in the middle of. Never raises."""
        with suppress(Exception):
            self.close()
