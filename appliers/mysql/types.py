"""Which types the columns of created tables get. The whole table: docs/types.md.

Text is always utf8mb4 with the collation that compares bytes and does not ignore blanks at the end:
rows whose keys differ on the source differ on the target, whatever the source's own rule was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from appliers.mysql.kinds import Kind, Shape, shape_of
from appliers.relation import Column, Relation
from appliers.unrepresentable import DEFAULT, Unrepresentable

Flavour = Literal["mysql", "mariadb"]

CHARACTERS: Final[dict[Flavour, str]] = {
    "mariadb": "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
    "mysql": "CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin",
}

KEY_BYTES: Final = 3072
"""All columns of an index together (InnoDB, DYNAMIC rows, pages of 16 KB; MySQL manual, "InnoDB
Limits")."""
ROW_BYTES: Final = 48_000
"""What we let the VARCHAR and VARBINARY columns of a row add up to. The server's limit is 65,535 for
all columns together ("Limits on Table Column Count and Row Size")."""
PAGE_BYTES: Final = 7_000
"""The same for what InnoDB keeps in the row's own page, of at most 8,126 bytes: columns up to 255
bytes whole, of others 40 bytes (rec_potentially_too_big, dict0dict.cc)."""
CHARACTER_BYTES: Final = 4

_MOST_CHARACTERS: Final = 16_383
_INLINE: Final = 255
_POINTER: Final = 40
_MOST_DIGITS: Final = 65
_MOST_SCALE: Final[dict[Flavour, int]] = {"mysql": 30, "mariadb": 38}
_SINCE: Final[dict[str, dict[Flavour, tuple[int, ...]]]] = {
    "uuid": {"mariadb": (10, 7)},
    "inet4": {"mariadb": (10, 10)},
    "inet6": {"mariadb": (10, 5)},
    "vector": {"mariadb": (11, 7), "mysql": (9, 0)},
}
_ASSUMED: Final[dict[Flavour, tuple[int, ...]]] = {"mariadb": (10, 11), "mysql": (8, 0)}
"""Servers that nobody has told the version of."""

_COMMENT: Final = re.compile(r" */\*.*?\*/")
_WIDTH: Final = re.compile(r"^(?!tinyint\(1\))(\w*int|year)\(\d+\)")


@dataclass(frozen=True, slots=True)
class Declared:
    """A column to be created. `most` None: `ddl` is all there is to say; else it is text, or bytes,
    of up to so many characters or bytes, and `ddl` is the short type (VARCHAR, CHAR, VARBINARY)."""

    ddl: str
    size: int = 8
    """Bytes, at most."""
    most: int | None = None
    short: bool = True
    """Whether it may stay the short type, or becomes a TEXT or BLOB."""

    @property
    def of_bytes(self) -> bool:
        return self.ddl == "VARBINARY"


UNLIMITED: Final = 2**32 - 1


def created_columns(
    relation: Relation,
    flavour: Flavour,
    policy: Unrepresentable = DEFAULT,
    version: tuple[int, ...] = (),
) -> list[str]:
    """The type of each column of a table that is to be created for `relation`, as DDL has it, with
    character set and collation, without NOT NULL and key.

    `version` is the target's, for types that not every server has. Columns of the key that are text
    get what room an index has, evenly: a longer value is the server's error, which names the column.
    A TIMESTAMP says NULL, or a default, because without either MariaDB makes it change by itself
    (explicit_defaults_for_timestamp = OFF).
    """
    version = version or _ASSUMED[flavour]
    declared = [_declared(c, relation.dialect, flavour, policy, version) for c in relation.columns]
    declared = _keys_sized(declared, relation.key_columns)
    declared = _rows_sized(declared, relation.key_columns)
    written = [_written(d, flavour) for d in declared]
    for i, column in enumerate(relation.columns):
        if written[i].startswith("timestamp"):
            stays = column.nullable and i not in relation.key_columns
            written[i] += " NULL" if stays else " DEFAULT '1970-01-01 00:00:01'"
    return written


def may_be_refused(shape: Shape, flavour: Flavour) -> bool:
    """Whether a column of our own making can meet values that it cannot hold, if it is no text."""
    if shape.kind is Kind.ENUM:
        # The empty text of an invalid value: MySQL takes it by its number 0, MariaDB does not.
        return flavour == "mariadb" and "" not in shape.labels
    return shape.special or (shape.kind is Kind.JSON and flavour == "mysql")


def _declared(
    column: Column,
    dialect: str,
    flavour: Flavour,
    policy: Unrepresentable,
    version: tuple[int, ...],
) -> Declared:
    shape = shape_of(column, dialect)
    if policy is Unrepresentable.TEXT and may_be_refused(shape, flavour):
        return _text(max(map(len, shape.labels), default=0) or None)
    if dialect == "mysql":
        return _from_mysql(column, shape, flavour, policy, version)
    return _from_postgres(shape, flavour)


def _from_postgres(shape: Shape, flavour: Flavour) -> Declared:
    unsigned = " UNSIGNED" if shape.unsigned else ""
    match shape.kind:
        case Kind.BOOLEAN:
            return Declared("TINYINT(1)", 1)
        case Kind.INTEGER:
            named = {2: "SMALLINT", 4: "INT", 8: "BIGINT"}[shape.length or 8]
            return Declared(named + unsigned)
        case Kind.DECIMAL:
            return _decimal(shape, flavour)
        case Kind.FLOAT | Kind.DOUBLE | Kind.DATE:
            return Declared(shape.kind.name)
        case Kind.TIMESTAMP | Kind.INSTANT:
            # Not TIMESTAMP, which ends in 2038.
            return Declared(f"DATETIME({shape.scale})")
        case Kind.TIME:
            return Declared(f"TIME({shape.scale})")
        case Kind.BYTES:
            return _bytes(shape.length)
        case _:
            pass
    # JSON too: MySQL's would drop blanks and repeated keys and make every number a double, MariaDB's
    # is a LONGTEXT that refuses what it nests too deeply. JSON functions read either.
    return _text(shape.length)


def _decimal(shape: Shape, flavour: Flavour) -> Declared:
    precision, scale = shape.precision, shape.scale
    if precision is None or scale is None:
        return _text(None)
    if precision > _MOST_DIGITS or scale > _MOST_SCALE[flavour]:
        return _text(precision + 3)
    return Declared(f"DECIMAL({precision},{scale})", 32)


def _from_mysql(
    column: Column,
    shape: Shape,
    flavour: Flavour,
    policy: Unrepresentable,
    version: tuple[int, ...],
) -> Declared:
    """The source's own type, where the target has it."""
    named = _COMMENT.sub("", column.type).strip()
    if column.base in _SINCE:
        since = _SINCE[column.base].get(flavour)
        if since is None or version < since:
            return _text(shape.length) if shape.kind is Kind.TEXT else _bytes(None)
        return Declared(named, 16 if shape.kind is Kind.TEXT else 16_384 * 4)
    match shape.kind:
        case Kind.TEXT:
            found = replace(_text(shape.length), ddl="CHAR" if shape.fixed else "VARCHAR")
        case Kind.BYTES:
            plain = Declared(named, shape.length or 255)
            found = plain if shape.fixed else _bytes(shape.length)
        case Kind.ENUM | Kind.SET:
            found = Declared(f"{named} {CHARACTERS[flavour]}")
        case Kind.JSON:
            # MariaDB's JSON is a LONGTEXT that refuses what is nested more than 32 deep; MySQL's not.
            found = Declared("JSON", _POINTER) if flavour == "mysql" else _text(None)
        case Kind.GEOMETRY:
            # What information_schema says in MySQL, MariaDB does not read.
            found = Declared(named.replace("geomcollection", "geometrycollection"), _POINTER)
        case Kind.DECIMAL:
            fits = (shape.scale or 0) <= _MOST_SCALE[flavour]
            found = Declared(named, 32) if fits else _decimal(shape, flavour)
        case Kind.TIMESTAMP if policy is Unrepresentable.TEXT:
            # It prints the same, and holds what MariaDB's TIMESTAMP holds beyond 2038.
            found = Declared(f"datetime({shape.scale})")
        case _:
            # An integer's width is a matter of display alone, except where zeros fill it.
            found = Declared(named if "zerofill" in named else _WIDTH.sub(r"\1", named))
    return found


def _text(most: int | None) -> Declared:
    most = UNLIMITED if most is None else max(most, 1)
    return Declared("VARCHAR", most * CHARACTER_BYTES, most, most <= _MOST_CHARACTERS)


def _bytes(most: int | None) -> Declared:
    most = UNLIMITED if most is None else max(most, 1)
    return Declared("VARBINARY", most, most, most <= _MOST_CHARACTERS)


def _keys_sized(declared: Sequence[Declared], key: Sequence[int]) -> list[Declared]:
    """Texts and bytes of the key cut down to what an index can hold."""
    sized = list(declared)
    room = KEY_BYTES - sum(declared[i].size for i in key if declared[i].most is None)
    limited = sorted(
        (i for i in key if declared[i].most is not None), key=lambda i: declared[i].size
    )
    for count, i in enumerate(limited):
        share = min(declared[i].size, room // (len(limited) - count))
        room -= share
        most = share if declared[i].of_bytes else share // CHARACTER_BYTES
        ddl = "VARCHAR" if most < (declared[i].most or 0) and not declared[i].of_bytes else ""
        sized[i] = Declared(ddl or declared[i].ddl, share, max(1, most))
    return sized


def _rows_sized(declared: Sequence[Declared], key: Sequence[int]) -> list[Declared]:
    """Short texts and bytes that a row has no room for, made long ones; the longest first."""
    sized = list(declared)
    row = sum(d.size for d in sized if d.short)
    page = sum(_in_page(d) for d in sized)
    for i in sorted(range(len(sized)), key=lambda i: -sized[i].size):
        column = sized[i]
        if column.most is None or not column.short or i in key:
            continue
        gained = _in_page(column) - _POINTER
        if row > ROW_BYTES or (page > PAGE_BYTES and gained > 0):
            row -= column.size
            page -= gained
            sized[i] = replace(column, short=False)
    return sized


def _in_page(column: Declared) -> int:
    return column.size if column.short and column.size <= _INLINE else _POINTER


def _written(column: Declared, flavour: Flavour) -> str:
    if column.most is None:
        return column.ddl
    long = "BLOB" if column.of_bytes else "TEXT"
    if column.short:
        ddl = f"{column.ddl}({column.most})"
    elif column.size <= 65_535:
        ddl = long
    else:
        ddl = f"MEDIUM{long}" if column.size < 2**24 else f"LONG{long}"
    return ddl if column.of_bytes else f"{ddl} {CHARACTERS[flavour]}"
