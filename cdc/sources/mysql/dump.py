"""Asking a server for its binary log.

Sources: MySQL internals, "COM_BINLOG_DUMP", "COM_BINLOG_DUMP_GTID"; MariaDB manual, "Replication
Protocol", "5-Slave Registration"; what a replica sets before is in mysql-server, sql/rpl_replica.cc, and
MariaDB, sql/slave.cc. Registration is python-mysql-replication's.
"""

from __future__ import annotations

import re
import secrets
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final, NamedTuple

import pymysql
from pymysql.constants import COMMAND
from pymysqlreplication.binlogstream import ReportSlave

from appliers.errors import PermanentError, SyncError, TransientError
from cdc.sources.mysql.connection import (
    Connection,
    code_of,
    cut,
    one,
    rows,
    server_of,
)
from cdc.sources.mysql.failures import translated
from cdc.sources.mysql.grants import account
from cdc.sources.mysql.gtid import MysqlGtids
from cdc.sources.mysql.packets import LogEndedError, Packets
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.source import GapError

HEARTBEAT: Final = 1.0
"""Seconds of silence after which the server says where its log ends."""

NON_BLOCK: Final = 1
THROUGH_GTID: Final = 4
_FATAL_READING: Final = 1236
_LARGEST_OFFSET: Final = 0xFFFFFFFF

_COPY: Final = "`cdc snapshot` copies everything again"
_KEEP: Final = "; keep the log for longer: binlog_expire_logs_seconds on the source"
_GAPS: Final = (
    ("could not find first log file", "its file was purged", _COPY + _KEEP),
    ("purged required binary logs", "its part of the log was purged", _COPY + _KEEP),
    ("purged required gtids", "its part of the log was purged", _COPY + _KEEP),
    (
        "binary log files have been purged",
        "its part of the log was purged",
        _COPY + _KEEP,
    ),
    ("binlog files have been purged", "its part of the log was purged", _COPY + _KEEP),
    ("could not find gtid state", "its part of the log was purged", _COPY + _KEEP),
    (
        "which is not in the master's binlog",
        "the source's log does not have it: it was restored, or reset",
        _COPY,
    ),
    ("missing the gtid", "the source's log does not have it: it was restored, or reset", _COPY),
    ("has more gtids than the", "the source has gone back: it was restored, or reset", _COPY),
    ("impossible position", "the source's log is shorter: it was restored, or reset", _COPY),
    ("position > file size", "the source's log is shorter: it was restored, or reset", _COPY),
    ("unknown target log", "its file was purged", _COPY + _KEEP),
)
"""What the servers say in error 1236 (ER_MASTER_FATAL_ERROR_READING_BINLOG; sql/rpl_binlog_sender.cc,
MariaDB sql/sql_repl.cc), what it means for a checkpoint, and the way out."""


class Dump(NamedTuple):
    """A running dump."""

    packets: Packets
    mariadb: bool
    checksums: bool
    """Whether the log had checksums when it was asked for: FORMAT_DESCRIPTION tells of later."""
    clock: float
    """Microseconds by which the server's clock is ahead of ours."""


def open_dump(
    connect: Callable[[], Connection],
    position: BinlogPosition,
    reader: str,
    *,
    by_gtid: bool,
    block: bool = True,
) -> Dump:
    """A connection on which the server sends its log from `position` on, by GTID or by file and
    offset. With `block` it waits for more at the end of the log, else it ends there.

    `reader` is how the server lists us among its replicas. Raises TransientError and PermanentError;
    that the log does not reach back so far is told by the first packet: see `stream_error`."""
    if not by_gtid and position.offset > _LARGEST_OFFSET:
        raise PermanentError(
            f"expected an offset below 4 GB in {position.file}, got {position.offset}: a dump by file"
            " cannot begin behind it",
            _COPY,
        )
    db = connect()
    try:
        mariadb = server_of(db).flavour == "mariadb"
        checksums = _prepare(db, position, mariadb=mariadb, by_gtid=by_gtid)
        before = time.time()
        (theirs,) = one(db, "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) AS DOUBLE)")
        clock = (float(theirs) - (before + time.time()) / 2) * 1e6
        # Of two readers with one number the server ends the first, without a word to whom they belong.
        # So ours is of this connection alone, and out of the range that people give to servers.
        number = secrets.randbelow(1 << 31) + (1 << 31) - 1
        with _asking(connect):
            _register(db, number, reader)
            if by_gtid and not mariadb:
                _send(db, COMMAND.COM_BINLOG_DUMP_GTID, _by_gtid(position, number, block=block))
            else:
                file = "" if by_gtid else position.file
                offset = 4 if by_gtid else position.offset
                flags = 0 if block else NON_BLOCK
                request = struct.pack("<IHI", offset, flags, number) + file.encode()
                _send(db, COMMAND.COM_BINLOG_DUMP, request)
    except BaseException:
        cut(db)
        raise
    return Dump(Packets(db), mariadb, checksums, clock)


@contextmanager
def _asking(connect: Callable[[], Connection]) -> Iterator[None]:
    """Who is let in by the server, and denied its log, lacks the one right that is for that. MariaDB and
    MySQL say of it what they say of a wrong password."""
    try:
        yield
    except pymysql.Error as e:
        if code_of(e) not in (1045, 1227):
            raise translated(e) from e
        with closing(connect()) as db:
            user = str(one(db, "SELECT CURRENT_USER()")[0])
        raise PermanentError(
            f"source: {user} does not have REPLICATION SLAVE",
            f"GRANT REPLICATION SLAVE ON *.* TO {account(user)};",
        ) from e


def whole_log(
    connect: Callable[[], Connection], start: BinlogPosition, reader: str
) -> Iterator[bytes]:
    """Every event from `start` up to the log's end, over a connection of its own. Raises what `open_dump`
    and `stream_error` give."""
    dump = open_dump(connect, start, reader, by_gtid=False, block=False)
    try:
        while True:
            if found := dump.packets.take():
                yield from found
            elif not dump.packets.fill():
                dump.packets.wait(1.0)
    except LogEndedError:
        return
    except pymysql.Error as e:
        raise stream_error(e, start) from e
    finally:
        dump.packets.close()


def stream_error(error: pymysql.Error, position: BinlogPosition) -> SyncError:
    """What a server says in place of an event."""
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    lowered = text.lower()
    if code_of(error) in (_FATAL_READING, 1373):
        for words, meaning, hint in _GAPS:
            if words in lowered:
                return GapError(
                    f"source: changes since {position.file}:{position.offset} are lost: {meaning}",
                    hint,
                )
        if re.search("same server_(uu)?id", lowered):
            return TransientError("source: another reader has taken this reader's number", "")
        if "max_allowed_packet" in lowered:
            return PermanentError(
                "source: an event in its log is larger than max_allowed_packet",
                "SET GLOBAL max_allowed_packet = 1073741824; on the source",
            )
        if "checksum" in lowered and "can not handle" in lowered:
            return TransientError("source: its binlog_checksum was changed", "")
        # The server's own words about its log; there are no rows in them.
        return PermanentError(f"source: it cannot read its log: {text}", _COPY)
    return translated(error)


def _prepare(db: Connection, position: BinlogPosition, *, mariadb: bool, by_gtid: bool) -> bool:
    """Says what this reader can do. Returns whether the log has checksums."""
    own = str(uuid.uuid4())
    beat = int(HEARTBEAT * 1e9)
    rows(
        db,
        "SET @master_binlog_checksum = @@global.binlog_checksum,"
        " @source_binlog_checksum = @@global.binlog_checksum,"
        f" @master_heartbeat_period = {beat}, @source_heartbeat_period = {beat},"
        f" @slave_uuid = '{own}', @replica_uuid = '{own}'",
    )
    if mariadb:
        # 4: this reader knows GTIDs, and events that were compressed.
        rows(db, "SET @mariadb_slave_capability = 4")
        if by_gtid:
            # Strict: a transaction that the log does not have is an error, not a gap.
            rows(db, "SET @slave_connect_state = %s", [str(position.gtids)])
            rows(db, "SET @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0")
    (checksum,) = one(db, "SELECT @@global.binlog_checksum")
    return str(checksum).upper() != "NONE"


def _register(db: Connection, number: int, reader: str) -> None:
    packet = ReportSlave({"hostname": reader[:60]}).encoded(number)
    db._write_bytes(packet)  # type: ignore[attr-defined]  # noqa: SLF001
    db._next_seq_id = 1  # type: ignore[attr-defined]  # noqa: SLF001
    db._read_packet()  # type: ignore[no-untyped-call]  # noqa: SLF001


def _send(db: Connection, command: int, request: bytes) -> None:
    db._execute_command(command, request)  # type: ignore[attr-defined]  # noqa: SLF001


def _by_gtid(position: BinlogPosition, number: int, *, block: bool) -> bytes:
    flags = THROUGH_GTID | (0 if block else NON_BLOCK)
    gtids = position.gtids if isinstance(position.gtids, MysqlGtids) else MysqlGtids()
    encoded = gtids.encoded()
    # No file, the beginning of the log: the set alone decides.
    return struct.pack("<HIIQI", flags, number, 0, 4, len(encoded)) + encoded
