"""How a value of each type is read out of a row.

Layouts: MySQL and MariaDB sql/log_event.cc (`log_event_print_value`) and the `pack` functions of
sql/field.cc.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from cdc.sources.mysql import codes
from cdc.sources.mysql.charsets import BINARY, charset_of, converter
from cdc.sources.mysql.decimals import decimal_code
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.floats import float_text
from cdc.sources.mysql.pieces import FULL_METADATA, Code, Native
from cdc.sources.mysql.table_map import LoggedColumn
from cdc.sources.mysql.temporal import (
    DATE_CODE,
    OLD_TEMPORAL,
    YEAR_CODE,
    datetime_code,
    old_code,
    time_code,
    timestamp_code,
)
from cdc.sources.mysql.texts import LENGTHS, char_code, sized_code


def code_of(column: LoggedColumn, declared: str | None) -> Code:
    """The code for a column; `declared` is what information_schema calls the type (DATA_TYPE, better
    COLUMN_TYPE), None if not known.

    Raises ProtocolError for a column whose value could not even be stepped over. What can be
    stepped over but not read raises it when a value that is not NULL has to be read.
    """
    kind = column.type
    if kind in _INTEGERS:
        return _integer(column)
    if kind in OLD_TEMPORAL:
        return old_code(column, declared or "")
    if kind in _CODES:
        return _CODES[kind]
    if kind in _MAKERS:
        return _MAKERS[kind](column)
    if kind in {codes.ENUM, codes.SET}:
        return _labelled(column)
    if kind == codes.STRING:
        return char_code(column, (declared or "").partition("(")[0])
    if kind in LENGTHS or kind in {codes.VARCHAR, codes.VAR_STRING, codes.VARCHAR_COMPRESSED}:
        return sized_code(column)
    raise ProtocolError(f"expected a column type that can be read, got number {kind}")


_INTEGERS: Final = {
    codes.TINY: "Bb",
    codes.SHORT: "Hh",
    codes.LONG: "Ii",
    codes.LONGLONG: "Qq",
    codes.INT24: "",
}


def _integer(column: LoggedColumn) -> Code:
    if column.unsigned is None:
        raise ProtocolError("expected the signs of the columns in the log, got none", FULL_METADATA)
    if column.type == codes.INT24:
        high = "HB" if column.unsigned else "Hb"
        native = Native("integer", 3, 0 if column.unsigned else 1)
        return Code(("{1} << 16 | {0}",), b"%d", high, "<", native=native)
    letter = _INTEGERS[column.type][0 if column.unsigned else 1]
    native = Native("integer", struct.calcsize(f"<{letter}"), 0 if column.unsigned else 1)
    return Code(("{0}",), b"%d", letter, "" if letter in "Bb" else "<", native=native)


def _bit(column: LoggedColumn) -> Code:
    bits = column.meta[0]
    if not 0 < bits <= 64:
        raise ProtocolError(f"expected BIT of 1 to 64, got {bits}")
    if bits <= 8:
        table = tuple([f"{number:0{bits}b}".encode() for number in range(1 << bits)])
        native = Native("labels", 1, object=table)
        return Code(("{bits}[{0}]",), slots="B", names={"bits": table}, native=native)

    def text(stored: bytes) -> bytes:
        number = int.from_bytes(stored, "big")
        if number >> bits:
            raise ValueError
        return f"{number:0{bits}b}".encode()

    return Code(("{bits}({0})",), slots=f"{(bits + 7) // 8}s", names={"bits": text})


def _labelled(column: LoggedColumn) -> Code:
    size = column.meta[0]
    letters = {1: "B", 2: "H", 3: "HB", 4: "I", 8: "Q"}.get(size)
    if letters is None or (column.type == codes.ENUM and size > 2):
        raise ProtocolError(f"expected labels' numbers of 1 to 8 bytes, got {size}")
    if column.labels is None or column.collation is None:
        raise ProtocolError("expected the labels of the column in the log, got none", FULL_METADATA)
    labels = column.labels
    if column.collation != BINARY and (convert := converter(charset_of(column.collation))):
        try:
            labels = tuple(map(convert, labels))
        except UnicodeDecodeError:
            raise ProtocolError("expected labels in the column's character set") from None
    order = "" if letters == "B" else "<"
    if column.type == codes.ENUM:
        # 0 is what a value became that was no label: the empty text.
        labels = (b"", *labels)
        native = Native("labels", size, object=labels)
        return Code(
            ("{labels}[{0}]",),
            b"%b",
            letters,
            order,
            names={"labels": labels},
            text=True,
            native=native,
        )
    number = "{1} << 16 | {0}" if letters == "HB" else "{0}"
    names = {"sets": _Sets(labels)}
    return Code((f"{{sets}}[{number}]",), b"%b", letters, order, names=names, text=True)


class _Sets(dict[int, bytes]):
    """The labels of a SET by its number, made when first asked for."""

    def __init__(self, labels: Sequence[bytes]) -> None:
        super().__init__()
        self._labels = labels

    def __missing__(self, number: int) -> bytes:
        if number >> len(self._labels):
            raise ValueError
        if len(self) >= 10_000:
            self.clear()
        text = self[number] = b",".join(
            [label for at, label in enumerate(self._labels) if number >> at & 1]
        )
        return text


_MAKERS: Final[dict[int, Callable[[LoggedColumn], Code]]] = {
    codes.NEWDECIMAL: decimal_code,
    codes.BIT: _bit,
    codes.DATETIME2: datetime_code,
    codes.TIMESTAMP2: timestamp_code,
    codes.TIME2: time_code,
}
_CODES: Final = {
    codes.FLOAT: Code(("{float}({0})",), slots="f", order="<", names={"float": float_text}),
    codes.DOUBLE: Code(
        ("{0}",), b"%a", "d", "<", native=Native("double", 8)
    ),  # what floats.double_text does
    codes.DATE: DATE_CODE,
    codes.NEWDATE: DATE_CODE,
    codes.YEAR: YEAR_CODE,
}
