"""Values of MariaDB's COMPRESSED columns. Source: MariaDB sql/field_comp.cc (`compress_zlib`)."""

from __future__ import annotations

import zlib

from cdc.sources.mysql.errors import ProtocolError


def inflate(value: bytes) -> bytes:
    """A value of a COMPRESSED column (MariaDB sql/field_comp.cc): nought and the value as it is, or
    128 + the bytes of the length (+ 8 for deflate without zlib's frame), the length, the stream."""
    if not value:
        return value
    method = value[0]
    if method == 0:
        return value[1:]
    octets = method & 7
    if method & 0xF0 != 0x80 or not 1 <= octets <= 4 or len(value) < 1 + octets:
        raise ProtocolError(f"expected a compressed value, got method {method}")
    length = int.from_bytes(value[1 : 1 + octets], "big")
    return _inflated(value[1 + octets :], length, raw=bool(method & 8))


def _inflated(data: bytes, length: int, *, raw: bool = False) -> bytes:
    """What zlib packed, exactly `length` bytes. Raises ProtocolError; never makes more than it says."""
    stream = zlib.decompressobj(-15 if raw else 15)
    try:
        found = stream.decompress(data, length + 1)
    except zlib.error:
        raise ProtocolError("expected a compressed value, got a damaged one") from None
    if len(found) != length or not stream.eof:
        raise ProtocolError(f"expected {length} bytes unpacked, got others")
    return found
