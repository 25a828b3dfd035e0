"""The raw events of a server's binlog, as the server sends them: what decoders are given in tests."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pymysql

from tests.mysql_databases import MysqlDatabase

HEADER = 19
DUMP = 0x12
NON_BLOCK = 1

TABLE_MAP = 19
QUERY_COMPRESSED = 165
INSERTS = {23: 1, 30: 2, 166: 1, 169: 2}
UPDATES = {24: 1, 31: 2, 167: 1, 170: 2}
DELETES = {25: 1, 32: 2, 168: 1, 171: 2}
PARTIAL_UPDATE = 39
PAYLOAD = 40
COMPRESSED = {166, 167, 168, 169, 170, 171}
ROWS = {*INSERTS, *UPDATES, *DELETES, PARTIAL_UPDATE}


class Event(NamedTuple):
    """One event: its type code, its body without header and checksum, and where it ends."""

    kind: int
    body: bytes
    end: int


def recorded(db: MysqlDatabase, work: Callable[[], object], settings: str = "") -> list[Event]:
    """The events that `work` writes; it must commit what it does."""
    with closing(db.connect()) as connection:
        file, position = _end(connection)
        work()
        return list(read(connection, file, position))


def read(connection: Any, file: str, position: int) -> Iterator[Event]:
    """The events from a position to the end of the binlog, without those that only the dump makes."""
    with connection.cursor() as cursor:
        cursor.execute("SET @master_binlog_checksum = @@GLOBAL.binlog_checksum")
        cursor.execute("SET @mariadb_slave_capability = 4")
        cursor.execute("SELECT @@GLOBAL.binlog_checksum")
        [[checksum]] = cursor.fetchall()
    # The server's own id is refused to nobody here: 0 would end the dump at once on MariaDB.
    connection._execute_command(
        DUMP, struct.pack("<IHI", position, NON_BLOCK, 4_000_000_000) + file.encode()
    )
    while True:
        packet = connection._read_packet()
        data = packet.get_all_data()
        if data[0] == 0xFE and len(data) < 9:
            return
        kind, end, flags = data[5], *struct.unpack_from("<IH", data, 14)
        artificial = flags & 0x20 or end == 0
        if not artificial and kind != 15:
            yield Event(kind, data[1 + HEADER : -4 if checksum == "CRC32" else None], end)


def _end(connection: Any) -> tuple[str, int]:
    with connection.cursor() as cursor:
        try:
            cursor.execute("SHOW BINARY LOG STATUS")
        except pymysql.err.MySQLError:
            cursor.execute("SHOW MASTER STATUS")
        row = cursor.fetchone()
        assert row is not None
        return row[0], int(row[1])
