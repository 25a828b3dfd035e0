"""Text and bytes of the log: how they are read, and what some types have inside.

Layouts: the `pack` functions of sql/field.cc (MySQL, MariaDB).
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, Final
from uuid import UUID

from cdc.sources.mysql import codes
from cdc.sources.mysql.charsets import BINARY, charset_of, converter
from cdc.sources.mysql.compression import inflate
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.json import json_text
from cdc.sources.mysql.pieces import FULL_METADATA, Code, Native
from cdc.sources.mysql.table_map import LoggedColumn

HEX: Final = b"\\\\x%b"
"""A backslash, escaped, and an x: bytes stand in the line as hexadecimal digits."""

_PLAIN_HEX: Final = "{hex}(m[q:p])"

LENGTHS: Final = {
    codes.BLOB,
    codes.TINY_BLOB,
    codes.MEDIUM_BLOB,
    codes.LONG_BLOB,
    codes.BLOB_COMPRESSED,
    codes.GEOMETRY,
    codes.JSON,
    codes.VECTOR,
}
_COMPRESSED: Final = {codes.BLOB_COMPRESSED, codes.VARCHAR_COMPRESSED}

# A value behind its length, in one to four bytes: it is m[q:p] then.
_SIZED: Final = {
    1: ("q = p + 1", "p = q + m[p]"),
    2: ("q = p + 2", "p = q + (m[p] | m[p + 1] << 8)"),
    3: ("q = p + 3", "p = q + (m[p] | m[p + 1] << 8 | m[p + 2] << 16)"),
    4: ("q = p + 4", "p = q + (m[p] | m[p + 1] << 8 | m[p + 2] << 16 | m[p + 3] << 24)"),
}


def _behind_length(size: int) -> Code:
    if size not in _SIZED:
        raise ProtocolError(f"expected a length of 1 to 4 bytes, got {size}")
    read = (*_SIZED[size], "{v} = m[q:p]")
    return Code(("{v}",), b"%b", read=read, skip=_SIZED[size], native=Native("text", size))


def sized_code(column: LoggedColumn) -> Code:
    kind = column.type
    length = column.meta[0]
    code = _behind_length(length if kind in LENGTHS else 1 if length < 256 else 2)
    if kind == codes.JSON:
        return with_function(code, json_text)
    if kind in {codes.GEOMETRY, codes.VECTOR}:
        return _hex(code)
    return _characters(code, column, inflate if kind in _COMPRESSED else None)


def char_code(column: LoggedColumn, base: str) -> Code:
    """CHAR and BINARY, which the log has without what pads them; and MariaDB's types that are kept so."""
    length = column.meta[0]
    code = _behind_length(1 if length < 256 else 2)
    if base in _FIXED and column.collation in {BINARY, None}:
        return with_function(code, _FIXED[base], text=False)
    if column.collation == BINARY:
        return _hex(code, f"{{hex}}(m[q:p].ljust({length}, b'\\0'))")
    return _characters(code, column, None)


def _characters(code: Code, column: LoggedColumn, unpack: Callable[[bytes], bytes] | None) -> Code:
    if column.collation is None:
        return _unreadable(
            code, "expected the column's character set in the log, got none", FULL_METADATA
        )
    if column.collation == BINARY:
        return _hex(code, "{hex}({unpack}(m[q:p]))", unpack=unpack) if unpack else _hex(code)
    try:
        convert = converter(charset_of(column.collation))
    except ProtocolError as e:
        return _unreadable(code, str(e), e.hint)
    if unpack is not None:
        inflated = unpack
        convert = (lambda v, c=convert: c(inflated(v))) if convert else inflated
    return with_function(code, convert) if convert else replace(code, text=True)


def with_function(code: Code, function: Callable[[bytes], bytes], *, text: bool = True) -> Code:
    """The same value, through a function."""
    read = (*code.skip, "{v} = {function}(m[q:p])")
    native = code.native and Native("call", code.native.size, object=function)
    return replace(code, read=read, names={"function": function}, text=text, native=native)


def _hex(code: Code, value: str = _PLAIN_HEX, **names: Any) -> Code:
    read = (*code.skip, f"{{v}} = {value}")
    native = code.native and Native("hex", code.native.size) if value == _PLAIN_HEX else None
    return replace(code, form=HEX, read=read, names={"hex": hexlify, **names}, native=native)


def _unreadable(code: Code, message: str, hint: str) -> Code:
    def fail(_: bytes) -> bytes:
        raise ProtocolError(message, hint)

    return with_function(code, fail)


def _uuid(value: bytes) -> bytes:
    return str(UUID(bytes=value.ljust(16, b"\0"))).encode()


def _inet4(value: bytes) -> bytes:
    return str(IPv4Address(value.ljust(4, b"\0"))).encode()


def _inet6(value: bytes) -> bytes:
    """As MariaDB prints it (plugin/type_inet, after inet_ntop4): see `inet6_text`."""
    return inet6_text(value.ljust(16, b"\0"))


def inet6_text(value: bytes) -> bytes:
    """An IPv6 address: the longest run of noughts left out, even of one, the first of equals;
    addresses of the IPv4 space with its dots."""
    words = [int.from_bytes(value[i : i + 2], "big") for i in range(0, 16, 2)]
    start = length = 0
    at = 0
    while at < 8:
        end = at
        while end < 8 and words[end] == 0:
            end += 1
        if end - at > length:
            start, length = at, end - at
        at = max(end, at) + 1
    if length and start == 0 and (length == 6 or (length == 5 and words[5] == 0xFFFF)):
        dotted = str(IPv4Address(value[12:]))
        return f"::{'ffff:' if length == 5 else ''}{dotted}".encode()
    texts = [f"{word:x}" for word in words]
    if not length:
        return ":".join(texts).encode()
    return f"{':'.join(texts[:start])}::{':'.join(texts[start + length :])}".encode()


_FIXED: Final[dict[str, Callable[[bytes], bytes]]] = {
    "uuid": _uuid,
    "inet4": _inet4,
    "inet6": _inet6,
}
