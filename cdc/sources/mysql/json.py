"""MySQL's binary JSON as the text that the server prints, and as a tree.

Sources: MySQL sql-common/json_binary.h (the layout), json_dom.cc (`Json_wrapper::to_string`, its
`double_quote`), strings/dtoa.cc (`my_gcvt`, for doubles). MariaDB's JSON is text in a text column.
"""

from __future__ import annotations

import re
import struct
from base64 import b64encode
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Final

from cdc.sources.mysql import codes
from cdc.sources.mysql.decimals import decimal_text
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.temporal import packed_text

Node = bytes | dict[bytes, "Node"] | list["Node"]
"""A scalar as the server prints it, an object (keys in UTF-8, unquoted), an array."""

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY = range(4)
_LITERAL, _INT16, _UINT16, _INT32, _UINT32, _INT64, _UINT64, _DOUBLE, _STRING = range(4, 13)
_OPAQUE: Final = 15
_LITERALS: Final = (b"null", b"true", b"false")
_NUMBERS: Final = {
    _INT16: struct.Struct("<h").unpack_from,
    _UINT16: struct.Struct("<H").unpack_from,
    _INT32: struct.Struct("<i").unpack_from,
    _UINT32: struct.Struct("<I").unpack_from,
    _INT64: struct.Struct("<q").unpack_from,
    _UINT64: struct.Struct("<Q").unpack_from,
}
_LARGE: Final = {_LARGE_OBJECT, _LARGE_ARRAY}
_ARRAYS: Final = {_SMALL_ARRAY, _LARGE_ARRAY}
_SMALL_HEAD: Final = struct.Struct("<HH").unpack_from
_LARGE_HEAD: Final = struct.Struct("<II").unpack_from


def _signed(bits: int) -> Callable[[int], bytes]:
    half, mask = 1 << bits - 1, (1 << bits) - 1
    return lambda value: b"%d" % ((value & mask ^ half) - half)


_SHORT: Final[dict[int, Callable[[int], bytes]]] = {
    _LITERAL: lambda value: _LITERALS[value & 0xFF],
    _INT16: _signed(16),
    _UINT16: lambda value: b"%d" % (value & 0xFFFF),
}
_INLINE: Final = (_SHORT, {**_SHORT, _INT32: _signed(32), _UINT32: lambda value: b"%d" % value})
"""Values that stand in the entry itself, by whether entries are large."""

_DOUBLES: Final = struct.Struct("<d").unpack_from
_DEEPEST: Final = 100
"""The server takes no deeper document (json_dom.h, JSON_DOCUMENT_MAX_DEPTH)."""

_ESCAPABLE: Final = re.compile(rb'["\\\x00-\x1f]')
_TO_ESCAPE: Final = _ESCAPABLE.search
_ESCAPES: Final = {
    **{bytes([c]): b"\\u%04x" % c for c in range(0x20)},
    b'"': b'\\"',
    b"\\": b"\\\\",
    b"\b": b"\\b",
    b"\f": b"\\f",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\t": b"\\t",
}


def quoted(text: bytes) -> bytes:
    """A string or a key as it is printed."""
    if _TO_ESCAPE(text):
        text = _ESCAPABLE.sub(lambda m: _ESCAPES[m[0]], text)
    return b'"%b"' % text


def json_text(data: bytes) -> bytes:
    """The document as the server prints it. Raises ProtocolError for what is no document."""
    if not data:
        return b"null"  # what INSERT IGNORE leaves (json_binary.cc, `parse_binary`)
    try:
        return _Document(data).text(data[0], 1, 0)
    except (LookupError, struct.error, ValueError, OverflowError):
        raise ProtocolError("expected a JSON document, got a damaged one") from None


def json_tree(data: bytes) -> Node:
    """The document as a tree. Raises ProtocolError for what is no document."""
    if not data:
        return b"null"
    try:
        return _Document(data).tree(data[0], 1, 0)
    except (LookupError, struct.error, ValueError, OverflowError):
        raise ProtocolError("expected a JSON document, got a damaged one") from None


def print_tree(node: Node) -> bytes:
    """A tree as the server prints it: keys by length, then by bytes (json_dom.h, `Json_key_comparator`)."""
    if isinstance(node, bytes):
        return node
    if isinstance(node, list):
        return b"[%b]" % b", ".join(map(print_tree, node))
    keys = sorted(node, key=lambda key: (len(key), key))
    return b"{%b}" % b", ".join([b"%b: %b" % (quoted(key), print_tree(node[key])) for key in keys])


def double_text(value: float) -> bytes:
    """A double as JSON: its shortest digits, always with a point or an exponent; the exponent form
    below 1e-15, and from 1e15 on for what has no digits behind the point (`my_gcvt`,
    MAX_DECPT_FOR_F_FORMAT; measured on MySQL 9.7.4)."""
    size = abs(value)
    if 1e-4 <= size < 1e15 or value == 0 or (1e15 <= size < 1e16 and size % 1):
        return b"%a" % value
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    if not isinstance(exponent, int):
        raise ValueError("no JSON number")  # noqa: TRY004 - it is infinite
    power = exponent + len(digits) - 1
    text = "".join(map(str, digits))
    if -15 <= power < 0:
        text = f"0.{'0' * (-power - 1)}{text}"
    else:
        text = f"{text[0]}{'.' * (len(text) > 1)}{text[1:]}e{power}"
    return b"-" * sign + text.encode()


class _Document:
    """One document; offsets in it are from the begin of their object or array."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        # No valid document refers to a byte twice: what does is endless.
        self._left = len(data)

    def text(self, kind: int, at: int, depth: int) -> bytes:
        if kind > _LARGE_ARRAY:
            return self._scalar(kind, at)
        keys, kinds, values = self._entries(kind, at, depth)
        found = []
        large = kind in _LARGE
        for inner, value in zip(kinds, values, strict=True):
            if inner == _STRING:
                found.append(self._string(at + value))
            elif inner in _INLINE[large]:
                found.append(_INLINE[large][inner](value))
            else:
                found.append(self.text(inner, at + value, depth + 1))
        if keys is None:
            return b"[%b]" % b", ".join(found)
        return b"{%b}" % b", ".join(
            [_KEYS[key] + value for key, value in zip(keys, found, strict=True)]
        )

    def tree(self, kind: int, at: int, depth: int) -> Node:
        if kind > _LARGE_ARRAY:
            return self._scalar(kind, at)
        keys, kinds, values = self._entries(kind, at, depth)
        inline = _INLINE[kind in _LARGE]
        found = [
            inline[inner](value) if inner in inline else self.tree(inner, at + value, depth + 1)
            for inner, value in zip(kinds, values, strict=True)
        ]
        return found if keys is None else dict(zip(keys, found, strict=True))

    def _entries(
        self, kind: int, at: int, depth: int
    ) -> tuple[list[bytes] | None, tuple[int, ...], tuple[int, ...]]:
        """Keys (None for an array), types, and values or their offsets."""
        if depth > _DEEPEST:
            raise ValueError("too deep")
        data = self._data
        large = kind in _LARGE
        count, size = (_LARGE_HEAD if large else _SMALL_HEAD)(data, at)
        self._left -= count
        if self._left < 0 or at + size > len(data):
            raise ValueError("longer than the document")
        at_entries = at + (8 if large else 4)
        if kind in _ARRAYS:
            keys = None
        else:
            places = _struct("IH" if large else "HH", count)(data, at_entries)
            at_entries += (6 if large else 4) * count
            keys = [
                data[at + o : at + o + n] for o, n in zip(places[::2], places[1::2], strict=True)
            ]
            self._left -= sum(places[1::2])
        entries = _struct("BI" if large else "BH", count)(data, at_entries)
        return keys, entries[::2], entries[1::2]

    def _scalar(self, kind: int, at: int) -> bytes:
        if kind == _STRING:
            return self._string(at)
        if kind == _DOUBLE:
            return double_text(_DOUBLES(self._data, at)[0])
        if kind in _NUMBERS:
            number: int = _NUMBERS[kind](self._data, at)[0]
            return b"%d" % number
        if kind == _LITERAL:
            return _LITERALS[self._data[at]]
        if kind == _OPAQUE:
            return _opaque(self._data[at], self._bytes(at + 1))
        raise ValueError("no JSON type")

    def _string(self, at: int) -> bytes:
        length = self._data[at]
        if length > 127:
            text = self._bytes(at)
        else:
            text = self._data[at + 1 : at + 1 + length]
            self._left -= length
            if len(text) != length or self._left < 0:
                raise ValueError("longer than the document")
        if _TO_ESCAPE(text):
            return quoted(text)
        return b'"%b"' % text

    def _bytes(self, at: int) -> bytes:
        """Bytes behind their length: seven bits to a byte, the lowest first."""
        length = shift = 0
        while True:
            byte = self._data[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 28:
                raise ValueError("no length")
        self._left -= length
        if self._left < 0 or at + length > len(self._data):
            raise ValueError("longer than the document")
        return self._data[at : at + length]


def _opaque(kind: int, data: bytes) -> bytes:
    """A value of an SQL type: a number, a time, or anything else in base 64."""
    if kind == codes.NEWDECIMAL:
        return decimal_text(data[2:], data[0], data[1])
    if kind in _TIMES:
        return b'"%b"' % packed_text(_TIMES[kind], int.from_bytes(data, "little", signed=True))
    # base64.cc breaks lines after 76 characters, and a line break is escaped.
    encoded = b64encode(data)
    lines = b"\\n".join([encoded[i : i + 76] for i in range(0, len(encoded), 76)])
    return b'"base64:type%d:%b"' % (kind, lines)


@lru_cache(256)
def _struct(form: str, count: int) -> Callable[[bytes, int], tuple[int, ...]]:
    return struct.Struct("<" + form * count).unpack_from


class _Keys(dict[bytes, bytes]):
    """Keys as they are printed, with the colon: a table's documents have the same ones."""

    def __missing__(self, key: bytes) -> bytes:
        if len(self) >= 10_000:
            self.clear()
        text = self[key] = quoted(key) + b": "
        return text


_KEYS: Final = _Keys()
_TIMES: Final = {
    codes.DATE: "date",
    codes.NEWDATE: "date",
    codes.TIME: "time",
    codes.DATETIME: "datetime",
    codes.TIMESTAMP: "datetime",
}
