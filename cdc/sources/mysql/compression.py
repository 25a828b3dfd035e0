"""What MariaDB compresses: rows events, and values of COMPRESSED columns. Both with zlib.

Sources: MariaDB sql/log_event.cc (`binlog_buf_uncompress`, `row_log_event_uncompress`),
sql/field_comp.cc (`compress_zlib`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from cdc.sources.mysql.errors import ProtocolError


def decompress_mariadb(body: bytes) -> bytes:
    """The body of a compressed rows event (types 166 to 171) as that of the event it stands for.

    The compressed rows follow the bitmaps of columns, of which an update has two; the body does not
    say which it is, but zlib's checksum does. Raises ProtocolError.
    """
    try:
        for start in _after_bitmaps(body):
            if body[start] & 0xF8 == 0x80:  # zlib, and the bytes of the length
                at = start + 1 + (body[start] & 7)
                length = int.from_bytes(body[start + 1 : at], "big")
                try:
                    return body[:start] + _inflated(body[at:], length)
                except ProtocolError:
                    continue  # it is one of the bitmap's bytes
    except (IndexError, KeyError):
        pass
    raise ProtocolError("expected compressed rows, got damaged ones")


def _after_bitmaps(body: bytes) -> Iterator[int]:
    """Where the rows can begin: behind one bitmap or two, in an event of version 1 or 2."""
    for at in (8, 8 + int.from_bytes(body[8:10], "little")):
        width, start = body[at], at + 1
        if width > 250:
            octets = {252: 2, 253: 3, 254: 8}[width]
            width = int.from_bytes(body[start : start + octets], "little")
            start += octets
        for bitmaps in (1, 2):
            found = start + bitmaps * ((width + 7) // 8)
            if found < len(body):
                yield found


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
