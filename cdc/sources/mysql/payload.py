"""The events inside of MySQL's compressed transactions.

Source: mysql-server, libs/mysql/binlog/event/compression; the manual, "Binary Log Transaction Compression".
"""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.events import HEADER, length_encoded


def payload_events(body: bytes) -> Iterator[bytes]:
    """The events in a TRANSACTION_PAYLOAD, without checksums. Decompressed as they are taken: a
    transaction of a gigabyte never stands in memory whole."""
    try:
        kind, at = _payload_kind(body)
    except IndexError:
        raise ProtocolError("a transaction's payload was cut short") from None
    if kind not in (0, 255):
        raise ProtocolError(f"expected a payload in ZSTD or none, got compression {kind}")
    data = memoryview(body)[at:]
    if kind == 255:
        yield from _plain_events(bytes(data))
        return
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            while header := _exactly(reader, HEADER, end=True):
                length = int.from_bytes(header[9:13], "little")
                yield header + _exactly(reader, length - HEADER)
    except zstandard.ZstdError as e:
        raise ProtocolError("a transaction's payload cannot be decompressed") from e


def _payload_kind(body: bytes) -> tuple[int | None, int]:
    """How a payload is compressed, and where it begins. Raises IndexError."""
    at, kind = 0, None
    while True:
        field, at = length_encoded(body, at)
        if field == 0:
            return kind, at
        length, at = length_encoded(body, at)
        if field == 2:
            kind, _ = length_encoded(body, at)
        at += length


def _plain_events(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 9 : at + 13], "little")
        if length < HEADER or at + length > len(data):
            raise ProtocolError("an event in a payload was cut short")
        yield data[at : at + length]
        at += length


def _exactly(reader: zstandard.ZstdDecompressionReader, length: int, *, end: bool = False) -> bytes:
    if length < 0:
        raise ProtocolError("an event in a payload is shorter than its header")
    found = reader.read(length) if length else b""
    while len(found) < length:
        more = reader.read(length - len(found))
        if not more:
            if end and not found:
                return b""
            raise ProtocolError("an event in a payload was cut short")
        found += more
    return found
