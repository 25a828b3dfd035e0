"""The packets of a MySQL connection that only the server speaks on.

Source: MySQL internals, "Protocol Basics" (a packet is 3 bytes of length, 1 of sequence number, the
payload; one of 16 MB - 1 goes on in the next) and "COM_BINLOG_DUMP" (the payload of an event begins
with a zero; 0xff is an error, 0xfe the end).
"""

from __future__ import annotations

import select
import ssl
import struct
from typing import Final

import pymysql

from appliers.errors import TransientError
from cdc.sources.mysql.connection import Connection, cut
from cdc.sources.mysql.errors import ProtocolError

CHUNK: Final = 1 << 18
"""Bytes asked of the socket at once. 64 kB cost 5 % more time, 1 MB gained nothing."""

_LONGEST: Final = 0xFFFFFF
_HEAD: Final = 4
_head = struct.Struct("<I").unpack_from


class LogEndedError(TransientError):
    """The server has sent all that it has and waits for no more, or it is being stopped."""


class Packets:
    """Reads events off a connection, many at a time, without blocking.

    The socket is read in large pieces and cut here: a system call, and a wake-up, for each event
    would cost more than the event."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self._sock = db._sock  # type: ignore[attr-defined]  # noqa: SLF001
        self._sock.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        self._tls = isinstance(self._sock, ssl.SSLSocket)
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = _HEAD
        self._sequence = 1
        self._parts: list[bytes] = []
        self._failed: bytes | None = None

    def wait(self, seconds: float) -> bool:
        """Whether there is something to read, after at most so many seconds."""
        if self._tls and self._sock.pending():
            return True
        return bool(self._poll.poll(max(0, int(seconds * 1000 + 0.999))))

    def fill(self) -> bool:
        """Takes what the socket has, up to CHUNK; False: nothing. Raises TransientError if the
        connection is lost."""
        before = self._have
        try:
            # OpenSSL gives a record (16 kB) at a time.
            while self._have - before < (CHUNK if self._tls else 1):
                data = self._sock.recv(CHUNK)
                if not data:
                    raise ConnectionError("the server closed it")
                self._chunks.append(data)
                self._have += len(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (OSError, ValueError) as e:
            # What came before the end may say why; the end is met again after that.
            if self._have == before:
                raise lost(str(e)) from e
        return self._have > before

    def take(self) -> list[bytes]:
        """Every event that is whole, without the packet's own bytes. Raises what the server says."""
        if self._failed is not None:
            self._fail(self._failed)
        if self._have < self._need:
            return []
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        found: list[bytes] = []
        at, end, sequence = 0, len(data), self._sequence
        need = _HEAD
        while at + _HEAD <= end:
            (head,) = _head(data, at)
            length = head & _LONGEST
            stop = at + _HEAD + length
            if stop > end:
                need = stop - at
                break
            if head >> 24 != sequence:
                raise ProtocolError(f"expected packet {sequence}, got {head >> 24}")
            sequence = (sequence + 1) & 0xFF
            if length == _LONGEST or self._parts:
                self._part(data[at + _HEAD : stop], found, last=length < _LONGEST)
            elif length == 0 or data[at + _HEAD]:
                self._failed = data[at + _HEAD : stop]
            else:
                found.append(data[at + _HEAD + 1 : stop])
            at = stop
        self._sequence, self._need = sequence, need
        self._have = end - at
        self._chunks = [data[at:]] if at < end else []
        if self._failed is not None and not found:
            self._fail(self._failed)
        return found

    def close(self) -> None:
        """Ends the connection without a word: a server that sends events reads none."""
        cut(self._db)

    def _part(self, payload: bytes, found: list[bytes], *, last: bool) -> None:
        """A piece of an event that is larger than a packet: only its first has the leading zero."""
        self._parts.append(payload)
        if last:
            whole, self._parts = b"".join(self._parts), []
            if whole[:1] != b"\0":
                raise ProtocolError("expected a large event, got another packet")
            found.append(whole[1:])

    def _fail(self, payload: bytes) -> None:
        if payload[:1] == b"\xff":
            pymysql.err.raise_mysql_exception(payload)
        if payload[:1] == b"\xfe" and len(payload) < 9:
            raise LogEndedError(
                "source: the server ended the stream", "check that the source is up"
            )
        raise ProtocolError(f"expected an event, got a packet of kind {payload[:1].hex()!r}")


def lost(why: str) -> TransientError:
    return TransientError(
        f"source: the connection is lost: {why}", "check that the source is up and can be reached"
    )
