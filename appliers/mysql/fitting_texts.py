"""Texts, labels, documents and bytes, made into what MySQL takes without changing them: see fitting.py."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection
from decimal import Decimal
from typing import Any, Final

from appliers.lines import escape, unescape
from appliers.mysql.fitting import LARGEST_EXACT, Refuse, Step, held

_UUID: Final = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def padded(refuse: Refuse) -> Step:
    """Text for a CHAR, which has no blanks at its end."""
    return Step(lambda v: refuse("a text that ends with blanks"), 'v[-1:] != b" "')


def uuid(refuse: Refuse) -> Step:
    """Text for a UUID, which prints it in small letters with hyphens."""

    def other(value: bytes) -> bytes:
        return value if _UUID.fullmatch(value) else refuse("a text that it would print otherwise")

    return Step(other)


def address(version: int, refuse: Refuse) -> Step:
    """Text for INET4 or INET6."""

    def other(value: bytes) -> bytes:
        try:
            found = ipaddress.ip_address(value.decode())
        except ValueError:
            return refuse("a text that is no address, or one with a netmask")
        same = found.version == version and (version == 4 or _as_inet6(found) == value)
        return value if same else refuse("an address that it would print otherwise")

    return Step(other)


def _as_inet6(found: Any) -> bytes:
    mapped = found.ipv4_mapped
    return (f"::ffff:{mapped}" if mapped else str(found)).encode()


def label(
    labels: Collection[str], *, same: bool, invalid: bytes | None, raw: bool, refuse: Refuse
) -> Step:
    """Text for an ENUM. `same`: it comes from an ENUM of these labels. `invalid` is what the empty text
    of an invalid value becomes, where it comes from an ENUM and the server takes something for it."""
    known = frozenset(x.encode() if raw else escape(x.encode()) for x in labels)

    def other(value: bytes) -> bytes:
        if not value and invalid is not None:
            return invalid
        what = "a text that is none of its labels" if value else "the empty value of an enum"
        return refuse(what)

    if not same:
        return Step(other, "v in known", known=known)
    if "" in labels:
        return Step(other, "True", only_if="False")
    return Step(other, "v", only_if=r'b"\t\t" in m or m[:1] == b"\t" or m[-2:] == b"\t\n"')


def members(labels: Collection[str], *, raw: bool, refuse: Refuse) -> Step:
    """Text for a SET: its labels, in its order, each once."""
    known = [x.encode() if raw else escape(x.encode()) for x in labels]

    def other(value: bytes) -> bytes:
        parts = value.split(b",")
        if not value or b",".join(x for x in known if x in parts) == value:
            return value
        return refuse("a text that is no list of its labels in their order")

    return Step(other)


_LONG: Final = re.compile(rb"[0-9.]{16}|[eE][-+]?\d{2}")
"""What stands in every number that a DOUBLE might not hold: up to 15 digits it holds all."""


def document(*, raw: bool, keys: bool, refuse: Refuse) -> Step:
    """Text for MySQL's JSON, whose numbers are 64-bit integers and DOUBLEs. `keys`: the source may
    repeat a key in an object, of which MySQL keeps one. What is no JSON the server refuses."""

    def numeral(text: str) -> None:
        exponent = "e" in text or "E" in text
        if exponent or len(text) > LARGEST_EXACT:
            found = Decimal(text)
            integer = "." not in text and not exponent
            if not (integer and -(2**63) <= found < 2**64) and not held(found, single=False):
                raise _Refused("a number with more digits than DOUBLE holds")

    def pairs(found: list[tuple[str, Any]]) -> None:
        if len(dict(found)) != len(found):
            raise _Refused("an object that repeats a key")

    decoder = json.JSONDecoder(
        parse_float=numeral, parse_int=numeral, object_pairs_hook=pairs if keys else None
    )

    def other(value: bytes) -> bytes:
        try:
            decoder.decode((value if raw else unescape(value)).decode())
        except _Refused as e:
            return refuse(str(e))
        except (ValueError, RecursionError):
            pass
        return value

    if keys:
        return Step(other)
    return Step(other, "not known(v)", known=_LONG.search)


class _Refused(Exception):
    """A document that the target would change."""


# -- bytes --------------------------------------------------------------------------------------------


def hexadecimal(*, raw: bool, length: int | None, refuse: Refuse) -> Step:
    """Bytes, printed as `\\x…`, as hexadecimal digits. `length`: a BINARY would pad less with zeros."""
    prefix = rb"\x" if raw else rb"\\x"

    def other(value: bytes) -> bytes:
        if not value.startswith(prefix):
            return refuse("a text that is no hexadecimal bytes")
        if length is not None and len(value) - len(prefix) < 2 * length:
            return refuse(f"fewer than {length} bytes")
        return value[len(prefix) :]

    fits = f"v[:{len(prefix)}] == {prefix!r}"
    if length is not None:
        fits += f" and len(v) >= {len(prefix) + 2 * length}"
    return Step(other, fits, f"v[{len(prefix)}:]")


def encoded(*, raw: bool, length: int | None, refuse: Refuse) -> Step:
    """Text, in UTF-8, for a column of bytes."""

    def other(value: bytes) -> bytes:
        plain = value if raw else unescape(value)
        if length is not None and len(plain) < length:
            return refuse(f"fewer than {length} bytes")
        return plain.hex().encode()

    return Step(other)


def bits(length: int, refuse: Refuse, *, narrower: bool, integer: bool = False) -> Step:
    """Digits 0 and 1, or a number (`integer`), for a BIT of `length`. `narrower`: fewer digits mean the
    same number, as those of a narrower BIT do."""
    size = 2 * ((length + 7) // 8)

    def other(value: bytes) -> bytes:
        if integer:
            found = int(value) if value.isdigit() and len(value) <= 20 else -1
        else:
            digits = value and not value.strip(b"01")
            known = digits and (len(value) == length or (narrower and len(value) < length))
            found = int(value, 2) if known else -1
        if not 0 <= found < 2**length:
            return refuse(f"a value that is no {length} bits")
        return b"%0*x" % (size, found)

    if integer or length > 8:
        return Step(other)
    known = {f"{i:0{length}b}".encode(): b"%02x" % i for i in range(2**length)}
    return Step(other, "v in known", "known[v]", known)
