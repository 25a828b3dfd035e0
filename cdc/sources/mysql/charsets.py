"""Character sets: from a collation's number to a function that makes UTF-8 of a value.

The numbers and the characters are those of MySQL 9.7.4 and MariaDB 10.11.19, asked of the servers:
`information_schema.COLLATIONS`, and CONVERT of every single byte and of every pair (and triple, for
the Japanese ones). Python's codecs say the same but for what stands here. What a set does not
define the servers print as `?`; so is it here.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final, NamedTuple

from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.utf8 import CORRECT

Converter = Callable[[bytes], bytes]
"""Makes UTF-8 of a value. Raises ProtocolError, or UnicodeDecodeError, where it cannot be text."""

BINARY: Final = 63
"""The collation of columns that hold bytes, not text."""

# First number, last number. MariaDB's own collations begin at 576; those of UCA 14 are 2048 and up,
# 256 to a character set (strings/ctype-uca1400.h). NO PAD variants are the plain ones plus 1024.
_RANGES: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "utf8mb3": ((33, 33), (76, 76), (83, 83), (192, 223), (576, 607), (2048, 2303)),
    "utf8mb4": ((45, 46), (224, 247), (255, 323), (608, 639), (2304, 2559)),
    "ucs2": ((35, 35), (90, 90), (128, 159), (640, 671), (2560, 2815)),
    "utf16": ((54, 55), (101, 124), (672, 703), (2816, 3071)),
    "utf16le": ((56, 56), (62, 62)),
    "utf32": ((60, 61), (160, 183), (736, 767), (3072, 3327)),
    "gb18030": ((248, 250),),
    "latin1": ((5, 5), (8, 8), (15, 15), (31, 31), (47, 49), (94, 94)),
    "latin2": ((2, 2), (9, 9), (21, 21), (27, 27), (77, 77)),
    "latin5": ((30, 30), (78, 78)),
    "latin7": ((20, 20), (41, 42), (79, 79)),
    "ascii": ((11, 11), (65, 65)),
    "cp1250": ((26, 26), (34, 34), (44, 44), (66, 66), (99, 99)),
    "cp1251": ((14, 14), (23, 23), (50, 52)),
    "cp1256": ((57, 57), (67, 67)),
    "cp1257": ((29, 29), (58, 59)),
    "cp850": ((4, 4), (80, 80)),
    "cp852": ((40, 40), (81, 81)),
    "cp866": ((36, 36), (68, 68)),
    "cp932": ((95, 96),),
    "koi8r": ((7, 7), (74, 74)),
    "koi8u": ((22, 22), (75, 75)),
    "greek": ((25, 25), (70, 70)),
    "hebrew": ((16, 16), (71, 71)),
    "macce": ((38, 38), (43, 43)),
    "macroman": ((39, 39), (53, 53)),
    "tis620": ((18, 18), (89, 89)),
    "dec8": ((3, 3), (69, 69)),
    "hp8": ((6, 6), (72, 72)),
    "swe7": ((10, 10), (82, 82)),
    "armscii8": ((32, 32), (64, 64)),
    "geostd8": ((92, 93),),
    "keybcs2": ((37, 37), (73, 73)),
    "big5": ((1, 1), (84, 84)),
    "gb2312": ((24, 24), (86, 86)),
    "gbk": ((28, 28), (87, 87)),
    "sjis": ((13, 13), (88, 88)),
    "ujis": ((12, 12), (91, 91)),
    "eucjpms": ((97, 98),),
    "euckr": ((19, 19), (85, 85)),
    "binary": ((BINARY, BINARY),),
}
_NO_PAD: Final = 1024
_CHARSETS: Final = {
    number: name
    for name, ranges in _RANGES.items()
    for first, last in ranges
    for number in range(first, last + 1)
}


def charset_of(collation: int) -> str:
    """The character set's name, as MySQL calls it. Raises ProtocolError for an unknown collation."""
    found = _CHARSETS.get(collation)
    if found is None and _NO_PAD < collation < 2 * _NO_PAD:
        found = _CHARSETS.get(collation - _NO_PAD)
    if found is None:
        raise ProtocolError(
            f"expected a known collation, got number {collation}",
            "convert the column to utf8mb4, or report this with the server's version",
        )
    return found


@cache
def converter(charset: str) -> Converter | None:
    """The function that makes UTF-8 of the set's values; None where they are UTF-8 already.

    Raises ProtocolError for a set that is not known, and for `binary`, which is no text.
    """
    if charset in {"utf8mb3", "utf8mb4"}:
        return None
    if charset in _WIDE:
        return _plain(charset)
    if charset in _MULTIBYTE:
        codec, shape, changed, added = _MULTIBYTE[charset]
        return _multibyte(codec, shape, changed, added())
    table = _table(charset)

    def single(value: bytes) -> bytes:
        return codecs.charmap_decode(value, "strict", table)[0].encode()

    if charset == "swe7":
        return single
    return lambda value: value if value.isascii() else single(value)


def _plain(charset: str) -> Converter:
    codec = _WIDE[charset]

    def convert(value: bytes) -> bytes:
        try:
            return value.decode(codec).encode()
        except UnicodeDecodeError:
            raise ProtocolError(
                f"expected text in {charset}, got bytes that are none", CORRECT
            ) from None

    return convert


_WIDE: Final = {
    "ucs2": "utf-16-be",
    "utf16": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32-be",
}


# ---- one byte to a character

_CODECS: Final = {
    "latin1": "cp1252",
    "latin2": "iso8859-2",
    "latin5": "iso8859-9",
    "latin7": "iso8859-13",
    "cp1250": "cp1250",
    "cp1251": "cp1251",
    "cp1256": "cp1256",
    "cp1257": "cp1257",
    "cp850": "cp850",
    "cp852": "cp852",
    "cp866": "cp866",
    "koi8r": "koi8-r",
    "koi8u": "koi8-u",
    "greek": "iso8859-7",
    "hebrew": "iso8859-8",
    "macce": "mac-latin2",
    "macroman": "mac-roman",
    "tis620": "tis-620",
    "ascii": "ascii",
    "swe7": "ascii",
}
_OTHERWISE: Final[dict[str, dict[int, str]]] = {
    "latin1": {byte: chr(byte) for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)},
    "hebrew": {0xAF: "\u203e"},
    "tis620": dict.fromkeys((0xA0, *range(0xDB, 0xDF), *range(0xFC, 0x100)), "\ufffd"),
    "koi8u": {0x95: "\u2022"},
    "greek": {0xA1: "\u02bd", 0xA2: "\u02bc", 0xA4: "?", 0xA5: "?", 0xAA: "?"},
    "cp866": {0xFC: "\u207f", 0xFD: "\xb2"},
    "cp1256": dict.fromkeys((0x8A, 0x8F, 0x98, 0x9A, 0x9F, 0xAA, 0xC0, 0xFF), "?"),
    "swe7": dict(zip(b"@[\\]^`{|}~\x7f", "\xc9\xc4\xd6\xc5\xdc\xe9\xe4\xf6\xe5\xfc?", strict=True)),
}
_C1: Final = "".join(map(chr, range(0x80, 0xA0)))
_ARMENIAN: Final = "".join(chr(0x531 + i) + chr(0x561 + i) for i in range(38))
_UPPER_HALVES: Final = {
    "dec8": _C1
    + "\xa0\xa1\xa2\xa3?\xa5?\xa7\xa4\xa9\xaa\xab????\xb0\xb1\xb2\xb3?\xb5\xb6\xb7?\xb9\xba\xbb\xbc"
    "\xbd?\xbf\xc0\xc1\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xcb\xcc\xcd\xce\xcf?\xd1\xd2\xd3\xd4\xd5"
    "\xd6\u0152\xd8\xd9\xda\xdb\xdc\u0178?\xdf\xe0\xe1\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xeb\xec"
    "\xed\xee\xef?\xf1\xf2\xf3\xf4\xf5\xf6\u0153\xf8\xf9\xfa\xfb\xfc\xff??",
    "hp8": _C1
    + "\xa0\xc0\xc2\xc8\xca\xcb\xce\xcf\xb4\u02cb\u02c6\xa8\u02dc\xd9\xdb\u20a4\xaf\xdd\xfd\xb0\xc7"
    "\xe7\xd1\xf1\xa1\xbf\xa4\xa3\xa5\xa7\u0192\xa2\xe2\xea\xf4\xfb\xe1\xe9\xf3\xfa\xe0\xe8\xf2\xf9"
    "\xe4\xeb\xf6\xfc\xc5\xee\xd8\xc6\xe5\xed\xf8\xe6\xc4\xec\xd6\xdc\xc9\xef\xdf\xd4\xc1\xc3\xe3"
    "\xd0\xf0\xcd\xcc\xd3\xd2\xd5\xf5\u0160\u0161\xda\u0178\xff\xde\xfe\xb7\xb5\xb6\xbe\u2014\xbc"
    "\xbd\xaa\xba\xab\u25a0\xbb\xb1?",
    "armscii8": _C1
    + "\xa0\u2741\xa7\u0589)(\xbb\xab\u2014.\u055d,-\u055f\u2026\u055c\u055b\u055e"
    + _ARMENIAN
    + "\u2019'",
    "geostd8": "\u20ac?\u201a?\u201e\u2026\u2020\u2021?\u2030?\u2039?????\u2018\u2019\u201c\u201d"
    "\u2022\u2013\u2014???\u203a????"
    + "".join(map(chr, range(0xA0, 0xC0)))
    + "\u10d0\u10d1\u10d2\u10d3\u10d4\u10d5\u10d6\u10f1\u10d7\u10d8\u10d9\u10da\u10db\u10dc\u10f2"
    "\u10dd\u10de\u10df\u10e0\u10e1\u10e2\u10f3\u10e3\u10e4\u10e5\u10e6\u10e7\u10e8\u10e9\u10ea"
    "\u10eb\u10ec\u10ed\u10ee\u10f4\u10ef\u10f0\u10f5" + "?" * 23 + "\u2116??",
    # The letters stand before the frames, which are those of cp437.
    "keybcs2": "\u010c\xfc\xe9\u010f\xe4\u010e\u0164\u010d\u011b\u011a\u0139\xcd\u013e\u013a\xc4"
    "\xc1\xc9\u017e\u017d\xf4\xf6\xd3\u016f\xda\xfd\xd6\xdc\u0160\u013d\xdd\u0158\u0165\xe1\xed"
    "\xf3\xfa\u0148\u0147\u016e\xd4\u0161\u0159\u0155\u0154\xbc\xa1\xab\xbb"
    + bytes(range(0xB0, 0x100)).decode("cp437"),
}


def _table(charset: str) -> str:
    """256 characters."""
    if charset in _UPPER_HALVES:
        return "".join(map(chr, range(0x80))) + _UPPER_HALVES[charset]
    if charset not in _CODECS:
        raise ProtocolError(
            f"expected a known character set, got {charset}", "convert the column to utf8mb4"
        )
    codec, otherwise = _CODECS[charset], _OTHERWISE.get(charset, {})
    found = (bytes([byte]).decode(codec, "replace").replace("\ufffd", "?") for byte in range(256))
    return "".join(otherwise.get(byte, character) for byte, character in enumerate(found))


# ---- several bytes to a character


class _Multibyte(NamedTuple):
    codec: str
    shape: bytes = rb"[\x81-\xfe][\x40-\xfe]"
    """What a character of several bytes looks like."""
    changed: Mapping[bytes, str] = MappingProxyType({})
    """What Python's codec reads otherwise."""
    added: Callable[[], Mapping[bytes, str]] = dict
    """What Python's codec does not know."""


def _multibyte(
    codec: str, shape: bytes, changed: Mapping[bytes, str], added: Mapping[bytes, str]
) -> Converter:
    own = {**changed, **added}
    tokens = re.compile(rb"[\x00-\x7f]+|" + shape + rb"|.", re.DOTALL).findall

    def character(token: bytes) -> str:
        try:
            return own.get(token) or token.decode(codec)
        except UnicodeDecodeError:
            return "?"

    def convert(value: bytes) -> bytes:
        if value.isascii():
            return value
        if not any(sequence in value for sequence in changed):
            try:
                return value.decode(codec).encode()
            except UnicodeDecodeError:
                pass  # it has what the codec does not know
        return "".join(map(character, tokens(value))).encode()

    return convert


def _user_defined() -> dict[bytes, str]:
    """Rows 85 to 94 of JIS X 0208 and X 0212 are the user's: Unicode's private use area."""
    rows = [(p, r) for p in (b"", b"\x8f") for r in range(0xF5, 0xFF)]
    return {
        prefix + bytes((row, 0xA1 + cell)): chr(0xE000 + 94 * number + cell)
        for number, (prefix, row) in enumerate(rows)
        for cell in range(94)
    }


def _microsofts() -> dict[bytes, str]:
    """NEC's row 13, which cp932 has at 0x8740, and IBM's characters from 0x8FF3F3 on."""
    row = [
        bytes((0x87, 0x40 + cell + (cell > 62))).decode("cp932", "replace") for cell in range(94)
    ]
    first = 0xF3 - 0xA1
    return {
        **_user_defined(),
        **{
            bytes((0xAD, 0xA1 + cell)): character
            for cell, character in enumerate(row)
            if character[0] != "\ufffd"
        },
        **{
            bytes((0x8F, 0xF3 + cell // 94, 0xA1 + cell % 94)): character
            for cell, character in enumerate(_IBM, first)
        },
    }


_IBM: Final = (
    "\u2170\u2171\u2172\u2173\u2174\u2175\u2176\u2177\u2178\u2179\u2160\u2161\u2162\u2163\u2164\u2165"
    "\u2166\u2167\u2168\u2169\uff07\uff02\u3231\u2116\u2121\u70bb\u4efc\u50f4\u51ec\u5307\u5324\ufa0e"
    "\u548a\u5759\ufa0f\ufa10\u589e\u5bec\u5cf5\u5d53\ufa11\u5fb7\u6085\u6120\u654e\u663b\u6665\ufa12"
    "\uf929\u6801\ufa13\ufa14\u6a6b\u6ae2\u6df8\u6df2\u7028\ufa15\ufa16\u7501\u7682\u769e\ufa17\u7930"
    "\ufa18\ufa19\ufa1a\ufa1b\u7ae7\ufa1c\ufa1d\u7da0\u7dd6\ufa1e\u8362\ufa1f\u85b0\ufa20\ufa21\u8807"
    "\ufa22\u8b7f\u8cf4\u8d76\ufa23\ufa24\ufa25\u90de\ufa26\u9115\ufa27\ufa28\u9592\uf9dc\ufa29\u973b"
    "\u974d\u9751\ufa2a\ufa2b\ufa2c\u999e\u9ad9\u9b72\ufa2d\u9ed1"
)
_EUC: Final = rb"\x8f[\xa1-\xfe]{2}|[\x8e\xa1-\xfe][\xa1-\xfe]"
_SJIS: Final = rb"[\x81-\x9f\xe0-\xfc][\x40-\xfc]"

_MULTIBYTE: Final[dict[str, _Multibyte]] = {
    "gb18030": _Multibyte(
        "gb18030",
        rb"[\x81-\xfe][\x30-\x39][\x81-\xfe][\x30-\x39]|[\x81-\xfe][\x40-\xfe]",
        {b"\xa8\xbc": "\u1e3f", b"\x81\x35\xf4\x37": "\ue7c7"},
    ),
    "gbk": _Multibyte("gbk"),
    "gb2312": _Multibyte("gb2312"),
    "cp932": _Multibyte("cp932", _SJIS),
    "sjis": _Multibyte("shift_jis", _SJIS, {b"\x81\x5f": "\\"}),
    "euckr": _Multibyte("cp949"),
    "big5": _Multibyte(
        "big5",
        # The servers print these as U+FFFD, so a snapshot does.
        changed=dict.fromkeys(
            (b"\xa1Z", b"\xa1\xc3", b"\xa1\xc5", b"\xa1\xfe", b"\xa2@", b"\xa2\xcc", b"\xa2\xce"),
            "\ufffd",
        ),
        added=lambda: {
            bytes((0xF9, 0xD6 + cell)): character
            for cell, character in enumerate("\u7881\u92b9\u88cf\u58bb\u6052\u7ca7\u5afa")
        },
    ),
    "ujis": _Multibyte("euc-jp", _EUC, {b"\xa1\xc0": "\\"}, _user_defined),
    "eucjpms": _Multibyte(
        "euc-jp",
        _EUC,
        {
            b"\xa1\xc1": "\uff5e",
            b"\xa1\xc2": "\u2225",
            b"\xa1\xdd": "\uff0d",
            b"\xa1\xf1": "\uffe0",
            b"\xa1\xf2": "\uffe1",
            b"\xa2\xcc": "\uffe2",
            b"\x8f\xa2\xb7": "\uff5e",
            b"\x8f\xa2\xc3": "\uffe4",
        },
        _microsofts,
    ),
}
