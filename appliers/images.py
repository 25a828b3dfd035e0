"""Row images: the bytes of a row as a source sent it, and readers made for a table's shape.

An image stays as it is on its way from the source to the target unless somebody has to look inside.
Those of pgoutput are looked into in C (`_images.c`) where that was built, else by functions that are
generated for the table (`generated.py`); lines by what stands in `lines.py`.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from appliers import generated
from appliers import lines as text_lines
from appliers.delta import UNCHANGED, Value
from appliers.extension import extension
from appliers.formats import (
    COPY_BINARY_HEADER,
    COPY_BINARY_NULL,
    COPY_BINARY_TRAILER,
    MOST_COLUMNS,
    Format,
)
from appliers.lines import ImageError, copy_text_line

if TYPE_CHECKING:
    from appliers._images import Columns

__all__ = [
    "BINARY_KEY_TEXT",
    "COPY_BINARY_HEADER",
    "COPY_BINARY_NULL",
    "COPY_BINARY_TRAILER",
    "FIXED_SIZES",
    "Format",
    "ImageError",
    "binary_key_text",
    "compile_array_rows",
    "compile_copy_rows",
    "compile_has_unchanged",
    "compile_key",
    "compile_updates",
    "compile_values",
    "compose",
    "copy_binary_row",
    "copy_text_line",
    "pgoutput_end",
    "pgoutput_image",
]


Updates = Callable[[list[Any], int], dict[Any, bytes] | None]
"""From deltas and the kind of update to the new images by key; None where they are not all updates that
leave keys as they are, or a key comes twice."""

_length = struct.Struct(">I").unpack_from
_Columns: type[Columns] | None = extension("appliers._images", "Columns")


def compile_values(format: Format, columns: int) -> Callable[[bytes], tuple[Value, ...]]:
    """A function from an image to its values (`bytes`, `None`, `UNCHANGED`), one per column."""
    if format.lines:
        return lambda image: text_lines.split(image, columns)
    if compiled := _compiled(format, columns, range(columns)):
        return compiled.read
    return generated.values(format, columns)


def compile_key(format: Format, columns: int, key: Sequence[int]) -> Callable[[bytes], Any]:
    """A function from an image to the values of `key`; columns behind the last of them are not read."""
    if format.lines:
        return text_lines.compile_key(columns, key)
    if compiled := _compiled(format, columns, key):
        return compiled.read
    return generated.key(format, columns, key)


def compile_updates(format: Format, columns: int, key: Sequence[int]) -> Updates:
    """A function that reduces deltas at once where nothing but updates of different rows is among
    them: 0.06 µs a row in C, where one by one they take 0.5."""
    if compiled := _compiled(format, columns, key):
        return compiled.updates
    read = compile_key(format, columns, key)

    def updates(deltas: list[Any], update: int) -> dict[Any, bytes] | None:
        images = [d[3] for d in deltas if d[0] is update and d[2] is None]
        if len(images) < len(deltas):
            return None
        found = dict(zip(map(read, images), images, strict=True))
        return found if len(found) == len(images) else None

    return updates


def compile_has_unchanged(format: Format, columns: int) -> Callable[[bytes], bool]:
    """A function that says whether an image has `UNCHANGED` values."""
    if format is Format.LINE:
        return text_lines.has_gap(columns)
    if not format.pgoutput:
        return lambda image: False
    if compiled := _compiled(format, columns, range(columns)):
        return compiled.has_unchanged
    values = compile_values(format, columns)

    def has_unchanged(image: bytes) -> bool:
        return b"u" in image and UNCHANGED in values(image)

    return has_unchanged


def compile_copy_rows(
    format: Format,
    columns: int,
    only: Sequence[int] | None = None,
    sizes: Sequence[int | None] = (),
) -> Callable[[list[bytes]], bytes]:
    """A function from images to joined rows for COPY that hold their columns `only`, None for all.

    Binary images become COPY BINARY rows, text images COPY TEXT lines; images that came from COPY
    pass as they are where all columns are wanted. `sizes` has the columns' fixed sizes in binary
    form, where they have one: their lengths need not be read. Raises ImageError on an `UNCHANGED`
    value among the wanted ones; the others are not looked at.
    """
    wanted = tuple(range(columns)) if only is None else tuple(only)
    whole = wanted == tuple(range(columns))
    if format is Format.LINE:
        return text_lines.compile_rows(columns, None if whole else wanted)
    if not format.pgoutput and whole:
        return b"".join
    if format is Format.COPY_TEXT:
        return text_lines.compile_rows(columns, wanted)
    if compiled := _compiled(format, columns, wanted):
        return compiled.binary_rows if format.binary else compiled.text_rows
    row = generated.copy_row(format, columns, wanted, sizes or (None,) * columns)
    return lambda images: b"".join(map(row, images))


def _compiled(format: Format, columns: int, wanted: Sequence[int]) -> Columns | None:
    """A reader in C, where there is one."""
    if _Columns is None or not format.pgoutput or columns > MOST_COLUMNS:
        return None
    return _Columns(columns, tuple(wanted), UNCHANGED, ImageError)


def compile_array_rows(
    format: Format, columns: int, only: Sequence[int]
) -> Callable[[list[bytes], bytes], bytes] | None:
    """A function from binary images to elements of an array of rows that have their columns `only`, the
    numbers of whose types stand in its second argument, four bytes each. Raises ImageError as rows for
    COPY do. None where there is no C: Python is quicker with COPY."""
    compiled = _compiled(format, columns, only) if format.binary else None
    return None if compiled is None else compiled.array_rows


def compose(format: Format, values: Sequence[Value]) -> bytes:
    """Values as an image that may have gaps. The inverse of `compile_values`; COPY's formats, which
    know no gaps, have others."""
    if format is Format.LINE:
        return text_lines.line(values)
    return pgoutput_image(values, b"b" if format.binary else b"t")


def copy_binary_row(values: Sequence[Value]) -> bytes:
    """Values in binary form as a row for COPY BINARY."""
    parts = [struct.pack(">h", len(values))]
    for v in values:
        if v is None:
            parts.append(COPY_BINARY_NULL)
        elif isinstance(v, bytes):
            parts += (struct.pack(">I", len(v)), v)
        else:
            raise ImageError(f"expected bytes or NULL for COPY, got {v!r}")
    return b"".join(parts)


def pgoutput_image(values: Sequence[Value], kind: bytes) -> bytes:
    """Values as a TupleData; `kind` is b"t" or b"b". The inverse of `compile_values`."""
    parts = [struct.pack(">h", len(values))]
    for v in values:
        if v is None:
            parts.append(b"n")
        elif isinstance(v, bytes):
            parts.append(kind + struct.pack(">I", len(v)) + v)
        else:
            parts.append(b"u")
    return b"".join(parts)


def pgoutput_end(image: bytes, start: int) -> int:
    """Where the TupleData that begins at `start` ends. Raises ImageError if it does not."""
    try:
        position = start + 2
        for _ in range(int.from_bytes(image[start:position], "big")):
            if image[position] in b"tb":
                position += 4 + _length(image, position + 1)[0]
            position += 1
    except (IndexError, struct.error) as e:
        raise ImageError(f"tuple cut short at byte {len(image)}") from e
    if position > len(image):
        raise ImageError(f"tuple cut short: expected {position} bytes, got {len(image)}")
    return position


FIXED_SIZES: Final[dict[str, int]] = {
    **dict.fromkeys(("bool", "char"), 1),
    "int2": 2,
    **dict.fromkeys(("int4", "float4", "oid", "date"), 4),
    **dict.fromkeys(("int8", "float8", "money", "time", "timestamp", "timestamptz"), 8),
    **dict.fromkeys(("uuid", "interval"), 16),
}
"""PostgreSQL's built-in types whose binary form has one size (pg_type.typlen and their send functions)."""


def _int_text(value: bytes) -> str:
    return str(int.from_bytes(value, "big", signed=True))


BINARY_KEY_TEXT: Final[dict[str, Callable[[bytes], str]]] = {
    **dict.fromkeys(("int2", "int4", "int8"), _int_text),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "citext"), bytes.decode),
    "uuid": lambda value: str(uuid.UUID(bytes=value)),
}
"""PostgreSQL types whose binary form is read for a customer's key; others are asked for as text."""


def binary_key_text(base: str, value: bytes) -> str:
    """A binary key value as PostgreSQL prints it. Raises KeyError for a type not in BINARY_KEY_TEXT."""
    return BINARY_KEY_TEXT[base](value)
