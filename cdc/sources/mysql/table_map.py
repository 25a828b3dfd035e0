"""TABLE_MAP events: the columns of the rows that follow.

Sources: MySQL libs/mysql/binlog/event/rows_event.h (`Table_map_event`), its sql/log_event.cc
(`Table_map_log_event::init_metadata_fields`); MariaDB sql/log_event_server.cc. Which columns count
for which optional field was measured on MySQL 9.7.4 and MariaDB 10.11.19.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cdc.sources.mysql import codes
from cdc.sources.mysql.charsets import BINARY
from cdc.sources.mysql.errors import ProtocolError


class LoggedColumn(NamedTuple):
    """One column of a table map. None stands for what the log does not say: with
    `binlog_row_metadata = MINIMAL` there are no names, no labels, no key."""

    type: int
    """The type's number in `codes`; a STRING that is an ENUM or a SET is told apart already."""
    meta: tuple[int, int]
    """What the type needs to be read: (precision, scale), (fraction digits, 0), (greatest length in
    bytes, 0), (bytes of a length or a number, 0), (bits, 0)."""
    nullable: bool
    name: str | None = None
    unsigned: bool | None = None
    """Of a number."""
    collation: int | None = None
    labels: tuple[bytes, ...] | None = None
    """Of an ENUM or a SET, in the column's character set."""
    visible: bool = True


@dataclass(frozen=True)
class TableMap:
    """The shape of one table at one moment of the log."""

    table_id: int
    """The server's number for this shape: rows name it. Means nothing after a restart."""
    schema: str
    name: str
    columns: tuple[LoggedColumn, ...]
    key: tuple[int, ...] | None = None
    """Indices of the primary key's columns in the key's order; None where the log does not say."""
    problem: ProtocolError | None = None
    """Why rows of this shape cannot be read; `columns` is then incomplete. It matters to whoever
    wants the rows: a table that nobody reads stops nothing."""

    @property
    def table(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def named(self) -> bool:
        """Whether the columns have names: `binlog_row_metadata = FULL`."""
        return all(column.name is not None for column in self.columns)


def parse(body: bytes, *, mariadb: bool | None = None) -> TableMap:
    """The table map in an event's body: what stands behind the header, without the checksum.

    `mariadb` says whose log it is; None has it guessed where it matters (only MariaDB counts a
    GEOMETRY among the columns that have a character set). Raises ProtocolError where not even the
    table's name can be read; whatever else is wrong stands in `problem`.
    """
    reader = _Reader(body, 8)
    try:
        schema = reader.take(reader.byte()).decode()
        reader.byte()
        name = reader.take(reader.byte()).decode()
        reader.byte()
    except (IndexError, UnicodeDecodeError):
        raise ProtocolError("expected a table map, got one that is damaged") from None
    table_id = int.from_bytes(body[:6], "little")
    try:
        columns, key = _shape(reader, mariadb)
    except IndexError:
        problem = ProtocolError(f"table {schema}.{name}: expected its table map, got one cut short")
    except UnicodeDecodeError:
        problem = ProtocolError(f"table {schema}.{name}: expected column names in UTF-8")
    except ProtocolError as e:
        problem = ProtocolError(f"table {schema}.{name}: {e}", e.hint)
    else:
        return TableMap(table_id, schema, name, tuple(columns), key)
    return TableMap(table_id, schema, name, (), None, problem)


def _shape(
    reader: _Reader, mariadb: bool | None
) -> tuple[list[LoggedColumn], tuple[int, ...] | None]:
    count = reader.number()
    types = reader.take(count)
    metadata = _Reader(reader.take(reader.number()))
    columns = [_column(kind, metadata) for kind in types]
    if metadata.left:
        raise ProtocolError(f"expected metadata of {count} columns, got {metadata.left} bytes more")
    nullable = reader.take((count + 7) // 8)
    columns = [
        column._replace(nullable=bool(nullable[i // 8] >> i % 8 & 1))
        for i, column in enumerate(columns)
    ]
    return _described(columns, _optional(reader), mariadb)


class _Reader:
    """Numbers and strings of a body, in their order; raises IndexError behind its end."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data, self._position = data, position

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def byte(self) -> int:
        found = self._data[self._position]
        self._position += 1
        return found

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise IndexError
        found = self._data[self._position : end]
        self._position = end
        return found

    def number(self) -> int:
        """A packed integer (mysys/pack.cc, `net_field_length`)."""
        first = self.byte()
        if first <= 250:
            return first
        if first in {251, 255}:
            raise ProtocolError(f"expected a packed integer, got one that begins with {first}")
        return int.from_bytes(self.take({252: 2, 253: 3, 254: 8}[first]), "little")

    def numbers(self) -> Iterator[int]:
        while self.left:
            yield self.number()


_TWO_BYTES: Final = {codes.VARCHAR, codes.VAR_STRING, codes.VARCHAR_COMPRESSED}
_ONE_BYTE: Final = {
    codes.FLOAT,
    codes.DOUBLE,
    codes.BLOB,
    codes.BLOB_COMPRESSED,
    codes.TINY_BLOB,
    codes.MEDIUM_BLOB,
    codes.LONG_BLOB,
    codes.GEOMETRY,
    codes.JSON,
    codes.VECTOR,
    codes.TIMESTAMP2,
    codes.DATETIME2,
    codes.TIME2,
}
_NONE: Final = {
    codes.TINY,
    codes.SHORT,
    codes.INT24,
    codes.LONG,
    codes.LONGLONG,
    codes.YEAR,
    codes.DATE,
    codes.NEWDATE,
    codes.TIME,
    codes.DATETIME,
    codes.TIMESTAMP,
    codes.NULL,
}


def _column(kind: int, metadata: _Reader) -> LoggedColumn:
    """The type with its own metadata (sql/rpl_utility.cc, `table_def`)."""
    meta = (0, 0)
    if kind in _ONE_BYTE:
        meta = (metadata.byte(), 0)
    elif kind in _TWO_BYTES:
        meta = (int.from_bytes(metadata.take(2), "little"), 0)
    elif kind == codes.BIT:
        bits, octets = metadata.take(2)
        meta = (8 * octets + bits, 0)
    elif kind == codes.NEWDECIMAL:
        precision, scale = metadata.take(2)
        meta = (precision, scale)
    elif kind in {codes.STRING, codes.ENUM, codes.SET}:
        kind, length = _string(*metadata.take(2))
        meta = (length, 0)
    elif kind == codes.TYPED_ARRAY:
        # The type of the elements, then its metadata: a multi-valued index's hidden column.
        element = metadata.byte()
        _column(element, metadata)
        meta = (element, 0)
    elif kind not in _NONE:
        raise ProtocolError(
            f"expected a known column type, got {codes.NAMES.get(kind, 'number')} {kind}",
            "ALTER TABLE … FORCE rewrites columns of types that servers stopped making",
        )
    return LoggedColumn(kind, meta, nullable=False)


def _string(first: int, second: int) -> tuple[int, int]:
    """Type and length of a STRING: two bits of a length over 255 stand, inverted, in the type
    (sql/field.cc, `Field_string::do_save_field_metadata`)."""
    if first & 0x30 != 0x30:
        return first | 0x30, second | (first & 0x30 ^ 0x30) << 4
    return first, second


# ---- optional metadata

_SIGNEDNESS: Final = 1
_DEFAULT_CHARSET: Final = 2
_COLUMN_CHARSET: Final = 3
_COLUMN_NAME: Final = 4
_SET_LABELS: Final = 5
_ENUM_LABELS: Final = 6
_PRIMARY_KEY: Final = 8
_PREFIX_KEY: Final = 9
_LABEL_DEFAULT_CHARSET: Final = 10
_LABEL_COLUMN_CHARSET: Final = 11
_VISIBILITY: Final = 12

_NUMERIC: Final = {
    codes.TINY,
    codes.SHORT,
    codes.INT24,
    codes.LONG,
    codes.LONGLONG,
    codes.NEWDECIMAL,
    codes.FLOAT,
    codes.DOUBLE,
    codes.YEAR,
}
_CHARACTER: Final = {
    codes.STRING,
    codes.VAR_STRING,
    codes.VARCHAR,
    codes.BLOB,
    codes.TINY_BLOB,
    codes.MEDIUM_BLOB,
    codes.LONG_BLOB,
    codes.VECTOR,
    codes.BLOB_COMPRESSED,
    codes.VARCHAR_COMPRESSED,
}
_LABELLED: Final = {codes.ENUM, codes.SET}


def _optional(reader: _Reader) -> dict[int, bytes]:
    """The optional fields by number. Those that are not known are for others."""
    fields = {}
    while reader.left:
        kind = reader.byte()
        fields[kind] = reader.take(reader.number())
    return fields


def _described(
    columns: list[LoggedColumn], fields: dict[int, bytes], mariadb: bool | None
) -> tuple[list[LoggedColumn], tuple[int, ...] | None]:
    """The columns with what the optional fields say of them, and the primary key."""
    columns = list(columns)

    def of(kinds: set[int]) -> list[int]:
        return [i for i, column in enumerate(columns) if column.type in kinds]

    def tell(what: str, at: Sequence[int], values: Sequence[Any] | None) -> None:
        for i, value in zip(at, values or (), strict=False):
            columns[i] = columns[i]._replace(**{what: value})

    every, numeric, labelled = range(len(columns)), of(_NUMERIC), of(_LABELLED)
    text = _with_character_set(columns, fields, mariadb)
    tell("unsigned", numeric, _bits(fields.get(_SIGNEDNESS), len(numeric)))
    tell("visible", every, _bits(fields.get(_VISIBILITY), len(columns)))
    if names := fields.get(_COLUMN_NAME):
        reader = _Reader(names)
        tell("name", every, [reader.take(reader.number()).decode() for _ in columns])
    tell("collation", text, _collations(fields, _DEFAULT_CHARSET, _COLUMN_CHARSET, len(text)))
    collations = _collations(fields, _LABEL_DEFAULT_CHARSET, _LABEL_COLUMN_CHARSET, len(labelled))
    tell("collation", labelled, collations)
    for kind, field in ((codes.SET, _SET_LABELS), (codes.ENUM, _ENUM_LABELS)):
        if field in fields:
            tell("labels", of({kind}), _labels(_Reader(fields[field]), len(of({kind}))))
    return columns, _key(fields, len(columns))


def _bits(bitmap: bytes | None, count: int) -> list[bool] | None:
    """A bit for each of `count` columns, the highest of a byte first; None if the log does not say."""
    if not bitmap:
        return None
    if len(bitmap) * 8 < count:
        raise ProtocolError(f"expected a bit for each of {count} columns, got {len(bitmap)} bytes")
    return [bool(bitmap[i // 8] & 0x80 >> i % 8) for i in range(count)]


def _with_character_set(
    columns: list[LoggedColumn], fields: dict[int, bytes], mariadb: bool | None
) -> list[int]:
    """Indices of the columns that the character set fields count.

    MariaDB counts a GEOMETRY (as binary), MySQL does not. Each has types and fields that the other
    lacks: MySQL, since 8.0.23, says with every table which columns are visible.
    """
    plain = [i for i, column in enumerate(columns) if column.type in _CHARACTER]
    shapes = [i for i, column in enumerate(columns) if column.type == codes.GEOMETRY]
    if not shapes or mariadb is False:
        return plain
    both = sorted(plain + shapes)
    if mariadb:
        return both
    if _VISIBILITY in fields or any(c.type in {codes.JSON, codes.VECTOR} for c in columns):
        return plain
    if each := fields.get(_COLUMN_CHARSET):
        return both if len(list(_Reader(each).numbers())) == len(both) else plain
    found = _collations(fields, _DEFAULT_CHARSET, _COLUMN_CHARSET, len(both), strict=False)
    by_column = dict(zip(both, found, strict=True)) if found else {}
    return both if all(by_column.get(i) == BINARY for i in shapes) else plain


def _collations(
    fields: dict[int, bytes], default: int, each: int, count: int, *, strict: bool = True
) -> list[int] | None:
    """A collation for each of `count` columns, None if the log does not say."""
    if each in fields:
        found = list(_Reader(fields[each]).numbers())
    elif default in fields:
        usual, *others = _Reader(fields[default]).numbers()
        found = [usual] * count
        for at, collation in zip(others[::2], others[1::2], strict=False):
            if at >= count and strict:
                raise ProtocolError(f"expected {count} columns with a character set, got one more")
            if at < count:
                found[at] = collation
    else:
        return None
    if len(found) != count:
        raise ProtocolError(f"expected {count} collations, got {len(found)}")
    return found


def _labels(reader: _Reader, count: int) -> list[tuple[bytes, ...]]:
    found = []
    for _ in range(count):
        labels = reader.number()
        if labels > reader.left:
            raise IndexError
        found.append(tuple([reader.take(reader.number()) for _ in range(labels)]))
    return found


def _key(fields: dict[int, bytes], count: int) -> tuple[int, ...] | None:
    """The primary key; one over prefixes of columns does not name a row by its columns' values, but
    it is unique over them all the same."""
    if _PRIMARY_KEY in fields:
        key = tuple(_Reader(fields[_PRIMARY_KEY]).numbers())
    elif _PREFIX_KEY in fields:
        key = tuple(_Reader(fields[_PREFIX_KEY]).numbers())[::2]
    else:
        return None
    if any(i >= count for i in key):
        raise ProtocolError(f"expected a key over {count} columns, got column {max(key)}")
    return key
