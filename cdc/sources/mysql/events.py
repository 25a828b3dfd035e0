"""Binary log events that are no rows: their numbers, and what is read of each.

Sources: mysql-server, libs/mysql/binlog/event/{binlog_event.h,control_events.h,statement_events.h};
MariaDB, sql/log_event.h, and its manual, "Replication Protocol". An event is 19 bytes of header
(time, type, server, length, end, flags), its body, and with checksums 4 bytes of CRC-32.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from typing import Final, NamedTuple

from pymysqlreplication.constants import BINLOG

from cdc.sources.mysql.charsets import charset_of, converter
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.position import Xid

Head = tuple[int, int, int, int, int, int]
"""An event's header: seconds, type, server, length, end in its file, flags."""

HEADER: Final = 19
read_header = struct.Struct("<IBIIIH").unpack_from
"""Seconds since 1970, type, server, length, end in its file (its low 32 bits), flags."""

IGNORABLE: Final = 0x80
"""LOG_EVENT_IGNORABLE_F: a reader that does not know the type may leave it out."""

THREAD_SPECIFIC: Final = 0x4
"""LOG_EVENT_THREAD_SPECIFIC_F: the session's command has used a temporary table, here or before."""

CRC32: Final = 1
RESIDUE: Final = 0x2144DF1C
"""The CRC-32 of anything with its own CRC-32 behind it, whatever it is."""

QUERY: Final[int] = BINLOG.QUERY_EVENT
STOP: Final[int] = BINLOG.STOP_EVENT
ROTATE: Final[int] = BINLOG.ROTATE_EVENT
EXECUTE_LOAD_QUERY: Final[int] = BINLOG.EXECUTE_LOAD_QUERY_EVENT
FORMAT_DESCRIPTION: Final[int] = BINLOG.FORMAT_DESCRIPTION_EVENT
XID: Final[int] = BINLOG.XID_EVENT
TABLE_MAP: Final[int] = BINLOG.TABLE_MAP_EVENT
INCIDENT: Final[int] = BINLOG.INCIDENT_EVENT
HEARTBEAT: Final[int] = BINLOG.HEARTBEAT_LOG_EVENT
GTID: Final[int] = BINLOG.GTID_LOG_EVENT
ANONYMOUS_GTID: Final[int] = BINLOG.ANONYMOUS_GTID_LOG_EVENT
XA_PREPARE: Final[int] = BINLOG.XA_PREPARE_EVENT
PARTIAL_UPDATE: Final[int] = BINLOG.PARTIAL_UPDATE_ROWS_EVENT
TRANSACTION_PAYLOAD: Final = 40
HEARTBEAT_V2: Final = 41
GTID_TAGGED: Final = 42
HEARTBEATS: Final = (HEARTBEAT, HEARTBEAT_V2)
MYSQL_GTIDS: Final = (GTID, ANONYMOUS_GTID, GTID_TAGGED)
MARIADB_GTID: Final[int] = BINLOG.MARIADB_GTID_EVENT
GTID_LIST: Final[int] = BINLOG.MARIADB_GTID_GTID_LIST_EVENT
QUERY_COMPRESSED: Final = 165

INSERTS: Final = (BINLOG.WRITE_ROWS_EVENT_V1, BINLOG.WRITE_ROWS_EVENT_V2)
UPDATES: Final = (BINLOG.UPDATE_ROWS_EVENT_V1, BINLOG.UPDATE_ROWS_EVENT_V2)
DELETES: Final = (BINLOG.DELETE_ROWS_EVENT_V1, BINLOG.DELETE_ROWS_EVENT_V2)
COMPRESSED: Final[dict[int, int]] = dict(
    zip(
        range(166, 172),
        (INSERTS[0], UPDATES[0], DELETES[0], INSERTS[1], UPDATES[1], DELETES[1]),
        strict=True,
    )
)
"""MariaDB's compressed rows events, and what each is when it is not compressed."""

VERSIONS: Final = {
    **{kinds[0]: 1 for kinds in (INSERTS, UPDATES, DELETES)},
    **{kinds[1]: 2 for kinds in (INSERTS, UPDATES, DELETES)},
}
"""Of rows events, by their type."""

IGNORED: Final = frozenset(
    {
        STOP,
        BINLOG.INTVAR_EVENT,
        BINLOG.RAND_EVENT,
        BINLOG.USER_VAR_EVENT,
        BINLOG.BEGIN_LOAD_QUERY_EVENT,
        BINLOG.APPEND_BLOCK_EVENT,
        BINLOG.DELETE_FILE_EVENT,
        BINLOG.IGNORABLE_LOG_EVENT,
        BINLOG.ROWS_QUERY_LOG_EVENT,
        BINLOG.PREVIOUS_GTIDS_LOG_EVENT,
        36,  # TRANSACTION_CONTEXT and
        37,  # VIEW_CHANGE, of group replication
        BINLOG.MARIADB_ANNOTATE_ROWS_EVENT,
        BINLOG.MARIADB_BINLOG_CHECKPOINT_EVENT,
        GTID_LIST,
        BINLOG.MARIADB_START_ENCRYPTION_EVENT,
    }
)
"""Events that carry no rows and end no transaction. INTVAR, RAND, USER_VAR and the blocks of LOAD DATA
go with a statement, which is looked at for itself."""

STANDALONE: Final = 1
"""Flag of MariaDB's GTID: one statement follows, and no COMMIT."""
PREPARED_XA: Final = 64
"""Flag of MariaDB's GTID: a transaction that XA PREPARE ends."""

ANSI_QUOTES: Final = 1 << 2
NO_BACKSLASH_ESCAPES: Final = 1 << 20
"""Bits of sql_mode, of both servers (sql/query_options.h; MariaDB: sql/sql_class.h)."""
_STATUS: Final[dict[int, int]] = {
    0: 4, 1: 8, 3: 4, 4: 6, 7: 2, 8: 2, 9: 8, 10: 4, 13: 3, 16: 1, 17: 8, 18: 2, 19: 1, 20: 1,
    128: 3, 129: 8,
}  # fmt: skip
"""Lengths of a QUERY event's status variables; those of other codes begin with their length, or are
not known, and then nothing behind them is read (MySQL: Query_event; MariaDB: 128 and up are its own)."""
_SQL_MODE, _CHARSET, _DDL_XID, _MARIADB_XID = 1, 4, 17, 129
_LENGTH_FIRST: Final = (5, 6)  # time zone, catalog
_INVOKER, _DATABASES = 11, 12
_TOO_MANY: Final = 254  # OVER_MAX_DBS_IN_EVENT_MTS

_query = struct.Struct("<IIBHH").unpack_from
_QUERY_HEAD: Final = 13
_LOAD_HEAD: Final = 13  # EXECUTE_LOAD_QUERY: file, start, end, what to do with duplicates
_mariadb_gtid = struct.Struct("<QIB").unpack_from
_xa = struct.Struct("<BIII").unpack_from


class Statement(NamedTuple):
    database: str
    """The session's default."""
    text: str
    mode: int
    """The session's sql_mode, as a number."""
    passing: bool
    """It may have used a temporary table."""
    done: bool
    """It really changed the dictionary: a server that logs CREATE TABLE IF NOT EXISTS of a table that
    exists gives it no transaction number. (MySQL 9.7 does so; MariaDB 10.11 does not log it.)"""
    databases: frozenset[str] | None = None
    """Those of every table that it has used, behind views, triggers and functions too; None: not known.
    (MySQL's Q_UPDATED_DB_NAMES: sql/binlog.cc, decide_logging_format. It names none for tables that
    foreign keys refer to, and for more than 16. MariaDB has no such thing.)"""


def unchecked(kind: int, data: bytes) -> bytes:
    """An event's body where it is not known whether a checksum is there. FORMAT_DESCRIPTION always has
    room for one; ROTATE may come before the server has said whether there are any."""
    checked = kind == ROTATE and zlib.crc32(data) == RESIDUE
    return data[HEADER:-4] if checked else data[HEADER:]


def query_text(body: bytes) -> bytes:
    """The statement of a QUERY event as it stands there."""
    _, _, schema, _, status = _query(body)
    return body[_QUERY_HEAD + status + schema + 1 :]


def read_statement(body: bytes, flags: int, *, load: bool = False) -> Statement:
    """A QUERY event with its header's flags, or an EXECUTE_LOAD_QUERY's, whose head is longer. Raises
    ProtocolError."""
    _, _, schema_length, _, status_length = _query(body)
    at = _QUERY_HEAD + (_LOAD_HEAD if load else 0)
    status = _status(body[at : at + status_length])
    at += status_length
    raw = body[at + schema_length + 1 :]
    collation = int.from_bytes(status.get(_CHARSET, b"\x2d\0")[:2], "little")
    mode = int.from_bytes(status.get(_SQL_MODE, b""), "little")
    done = any(any(status.get(code, b"")) for code in (_DDL_XID, _MARIADB_XID))
    # Names are kept in UTF-8 whatever the client spoke.
    database = body[at : at + schema_length].decode(errors="replace")
    passing = bool(flags & THREAD_SPECIFIC)
    return Statement(
        database, _text(raw, collation), mode, passing, done, _databases(status.get(_DATABASES))
    )


def decompressed_query(body: bytes) -> bytes:
    """A QUERY_COMPRESSED event as a QUERY event: only the statement is compressed (MariaDB,
    sql/log_event.cc, `query_event_uncompress`)."""
    _, _, schema, _, status = _query(body)
    return _decompressed(body, _QUERY_HEAD + status + schema + 1)


def decompressed_rows(body: bytes, kind: int) -> bytes:
    """The body of a rows event of MariaDB that is compressed, as that of type `COMPRESSED[kind]`: what
    stands behind the bitmaps of columns is compressed (`row_log_event_uncompress`). Raises ProtocolError,
    and IndexError for what was cut short."""
    plain = COMPRESSED[kind]
    at = 8 if plain < INSERTS[1] else 8 + int.from_bytes(body[8:10], "little")
    width, at = length_encoded(body, at)
    return _decompressed(body, at + (width + 7) // 8 * (2 if plain in UPDATES else 1))


def _decompressed(body: bytes, at: int) -> bytes:
    """With what stands behind `at` decompressed: a byte with the width of the length that follows it,
    then zlib's data (`binlog_buf_uncompress`)."""
    first = body[at]
    if first & 0x70:
        raise ProtocolError(f"expected data that zlib compressed, got algorithm {first >> 4 & 7}")
    begin = at + 1 + (first & 7)
    length = int.from_bytes(body[at + 1 : begin], "big")
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(body[begin:], length + 1)
    except zlib.error as e:
        raise ProtocolError("a compressed event cannot be decompressed") from e
    if len(found) != length or not stream.eof:
        raise ProtocolError(f"expected {length} bytes in a compressed event, got {len(found)}")
    return body[:at] + found


def _status(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        code = data[at]
        at += 1
        if code in _LENGTH_FIRST:
            length = 1 + data[at]
        elif code == _INVOKER:
            length = 1 + data[at]
            length += 1 + data[at + length]
        elif code == _DATABASES:
            length = 1
            for _ in range(data[at] if data[at] < 254 else 0):
                length = data.index(0, at + length) + 1 - at
        elif code in _STATUS:
            length = _STATUS[code]
        else:
            break
        found[code] = data[at : at + length]
        at += length
    return found


def _databases(listed: bytes | None) -> frozenset[str] | None:
    if not listed or listed[0] >= _TOO_MANY or not listed[0]:
        return None
    found = listed[1:].split(b"\0")[:-1]
    if len(found) != listed[0] or b"" in found:
        return None
    return frozenset(name.decode(errors="replace") for name in found)


def _text(raw: bytes, collation: int) -> str:
    """A statement in the character set of the client that sent it."""
    try:
        make = converter(charset_of(collation))
        return (make(raw) if make is not None else raw).decode()
    except (ProtocolError, ValueError):
        return raw.decode(errors="replace")


class MariadbGtid(NamedTuple):
    number: int
    domain: int
    flags: int


def read_mariadb_gtid(body: bytes) -> MariadbGtid:
    return MariadbGtid._make(_mariadb_gtid(body))


class MysqlGtid(NamedTuple):
    source: str
    """UUID, or UUID:tag."""
    number: int
    committed_at: int
    """Microseconds since 1970 by the clock of the server that is read; 0 where it does not say."""


def read_mysql_gtid(body: bytes) -> MysqlGtid:
    """A GTID or ANONYMOUS_GTID event: flags, UUID, number, two logical times behind their type, and
    then the time of this server's commit in 55 bits (MySQL 8.0.1 and newer)."""
    number = int.from_bytes(body[17:25], "little")
    at = int.from_bytes(body[42:49], "little") & (1 << 55) - 1 if len(body) >= 49 else 0
    return MysqlGtid(str(uuid.UUID(bytes=body[1:17])), number, at)


def read_tagged_gtid(body: bytes) -> MysqlGtid:
    """A GTID_TAGGED event: fields with numbers, in the form of mysql::serialization (mysql-server,
    libs/mysql/serialization): 0 flags, 1 UUID as 16 numbers, 2 number, 3 tag, 4 and 5 logical times,
    6 the commit's time; more follow."""
    reader = _Serialized(body)
    version = reader.number()
    reader.number()  # the length of all
    reader.number()  # the last field that must be understood
    if version != 1:
        raise ProtocolError(f"expected a tagged GTID of version 1, got {version}")
    source, tag, number, committed_at = "", "", 0, 0
    while reader.at < len(body):
        match reader.number():
            case 0 | 4 | 5:
                reader.number()
            case 1:
                source = str(uuid.UUID(bytes=bytes(reader.number() & 0xFF for _ in range(16))))
            case 2:
                number = reader.signed()
            case 3:
                tag = reader.text()
            case 6:
                committed_at = reader.number()
                break
            case field:
                raise ProtocolError(f"expected a field of a tagged GTID, got {field}")
    if not source or number <= 0:
        raise ProtocolError("expected a UUID and a number in a tagged GTID, got none")
    return MysqlGtid(f"{source}:{tag}" if tag else source, number, committed_at)


class _Serialized:
    """Numbers of 1 to 9 bytes: the ones at the low end of the first byte count the bytes that follow."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.at = 0

    def number(self) -> int:
        if self.at >= len(self._body):
            raise ProtocolError("a tagged GTID was cut short")
        first = self._body[self.at]
        more = 0
        while first >> more & 1:
            more += 1
        end = self.at + 1 + more
        value = int.from_bytes(self._body[self.at : end], "little") >> min(more + 1, 8)
        self.at = end
        return value

    def signed(self) -> int:
        value = self.number()
        return -(value >> 1) - 1 if value & 1 else value >> 1

    def text(self) -> str:
        length = self.number()
        self.at += length
        return self._body[self.at - length : self.at].decode("ascii", "replace")


class XaPrepare(NamedTuple):
    one_phase: bool
    """It is XA COMMIT … ONE PHASE: nothing more will be said of it."""
    xid: Xid


def read_xa_prepare(body: bytes) -> XaPrepare:
    one_phase, number, length, branch = _xa(body)
    if len(body) < 13 + length + branch:
        raise ProtocolError("an XA_PREPARE event was cut short")
    name = body[13 : 13 + length + branch]
    return XaPrepare(bool(one_phase), Xid(name[:length], name[length:], number))


def read_xid(text: bytes) -> Xid:
    """The name in `XA COMMIT X'7831',X'62',7`: so both servers write it. Raises ProtocolError."""
    try:
        _, _, name = text.split(b" ")
        parts = name.split(b",")
        first, second = (bytes.fromhex(p[2:-1].decode("ascii")) for p in parts[:2])
        return Xid(first, second, int(parts[2]))
    except (ValueError, IndexError) as e:
        raise ProtocolError("expected X'…',X'…',number behind XA, got something else") from e


def read_rotate(body: bytes) -> tuple[str, int]:
    """The next file, and where it is read from."""
    return body[8:].decode(errors="replace"), int.from_bytes(body[:8], "little")


def length_encoded(body: bytes, at: int) -> tuple[int, int]:
    """A length-encoded integer, and where it ends (MySQL internals, "Integer Types")."""
    first = body[at]
    if first < 251:
        return first, at + 1
    size = {252: 2, 253: 3, 254: 8}.get(first)
    if size is None:
        raise ProtocolError(f"expected a length, got {first}")
    return int.from_bytes(body[at + 1 : at + 1 + size], "little"), at + 1 + size
