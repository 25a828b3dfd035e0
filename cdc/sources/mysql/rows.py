"""Rows events: from the bytes of an event to images of rows, as `Format.LINE`.

Sources: MySQL libs/mysql/binlog/event/rows_event.h (`Rows_event`), sql/rpl_record.cc (`unpack_row`);
MariaDB sql/log_event_server.cc, where rows events are always of version 1.

Where it was built and knows all types of a table, `_rows.c` reads its events. Else a function is
generated for each set of columns that rows carry and for each pattern of NULLs among them (`images`).
Nothing is escaped in it: five searches over all lines of an event tell whether anything had to be, and
only those rows are then read again with care.

In Python, on MariaDB, 10 columns, 100 rows to an event, all on two busy cores: 280,000 to 420,000 rows
a second where python-mysql-replication made 23,000 (of the same binlog, to dicts, with its reading);
updates 200,000, with their old keys alone 300,000; events of one row 125,000 and 160,000. On MySQL, with
a JSON document of five values in each row, 100,000: the documents take two thirds of it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from appliers.lines import GAP
from cdc.sources.mysql import codes
from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.images import Images
from cdc.sources.mysql.json import json_text
from cdc.sources.mysql.partial_json import HINT, apply_diffs
from cdc.sources.mysql.pieces import Code
from cdc.sources.mysql.table_map import TableMap
from cdc.sources.mysql.temporal import OLD_TEMPORAL, REBUILD
from cdc.sources.mysql.texts import with_function
from cdc.sources.mysql.utf8 import whole_utf8
from cdc.sources.mysql.values import code_of

__all__ = ["RowsReader", "Update", "compile_rows"]

Update = tuple[bytes | None, bytes]
"""A row before and after its change."""

ALL_COLUMNS: Final = (
    "SET GLOBAL binlog_row_image = 'FULL', and have sessions that set it do the same; then"
    " `cdc snapshot` copies everything again"
)
NOT_ALL: Final = "expected an INSERT with all columns, got one without those of default value"
_MOST_IMAGES: Final = 32
"""Sets of columns that are remembered: one where row images are FULL."""
_DAMAGE: Final = (
    ProtocolError,
    IndexError,
    KeyError,
    ValueError,
    OverflowError,
    TypeError,
    struct.error,
)


class _Begin(NamedTuple):
    """The bytes from an event's ninth to its first row, where that is, and the images of its rows."""

    head: bytes
    at: int
    images: tuple[Images, ...]


def compile_rows(
    table_map: TableMap, types: Sequence[str | None], old: Sequence[int] | None = None
) -> RowsReader:
    """A reader for rows of this shape.

    `types[i]` is information_schema's DATA_TYPE or COLUMN_TYPE of column i, None where that is not
    known: MariaDB's uuid, inet4 and inet6 look like BINARY in the log. `old` are the columns that are
    wanted of old rows (deletes, and updates before the change): the key's and the customer's, for
    instance; the others are NULL in those lines, which saves near half of an update. None: all that
    the log has. Raises ProtocolError, with the table's name, for a shape that cannot be read.
    """
    if table_map.problem is not None:
        raise table_map.problem
    if len(types) != len(table_map.columns):
        raise ValueError(f"expected {len(table_map.columns)} types, got {len(types)}")
    found = []
    for column, declared in zip(table_map.columns, types, strict=True):
        try:
            found.append(code_of(column, declared))
        except ProtocolError as e:
            raise ProtocolError(
                f"table {table_map.table}, column {column.name}: {e}", e.hint
            ) from None
    return RowsReader(table_map, found, None if old is None else frozenset(old))


class RowsReader:
    """Reads the rows of one shape of one table. Not for two threads at once.

    Every method takes an event's body: what stands behind the header, without the checksum. `version`
    is the event's: 1 for types 23 to 25 and MariaDB's 166 to 168, 2 for types 30 to 32 and 169 to
    171; None has it found out (see `_version`). All raise ProtocolError for bytes that are no rows of
    this table; an event is read whole or not at all. A column that the log did not carry is
    `UNCHANGED` in the line.
    """

    def __init__(
        self, table_map: TableMap, columns: Sequence[Code], old: frozenset[int] | None
    ) -> None:
        self._map = table_map
        self._columns = columns
        self._names = [column.name or "" for column in table_map.columns]
        self._old = old
        self.gapped = False
        self._images: dict[tuple[bytes, bool], Images] = {}
        self._partial: PartialUpdates | None = None
        # What the last event of each kind began with, behind the table's number: the same, nearly
        # always, so that an event of one row costs 2 µs less.
        self._insert: _Begin | None = None
        self._delete: _Begin | None = None
        self._update: _Begin | None = None

    def inserts(
        self, body: bytes, version: int | None = None, *, gaps: bool = False
    ) -> list[bytes]:
        """The new rows.

        With `binlog_row_image` MINIMAL or NOBLOB both servers leave out columns that the statement
        did not name (measured): they have their defaults, of which the log says nothing. That is a
        ProtocolError unless `gaps` asks for UNCHANGED there, for whoever reads those rows again:
        `gapped` says whether there are.
        """
        try:
            begin = self._insert
            if begin is None or not body.startswith(begin.head, 8):
                begin = self._insert = self._begin(body, version, (False,))
            images = begin.images[0]
            self.gapped = not images.whole
            if self.gapped and not gaps:
                raise ProtocolError(NOT_ALL, ALL_COLUMNS)
            return self._rows(images, body, begin.at)
        except _DAMAGE as e:
            raise self._damaged(e) from None

    def deletes(self, body: bytes, version: int | None = None) -> list[bytes]:
        """The old rows: what the row image has of them, at least the key."""
        try:
            begin = self._delete
            if begin is None or not body.startswith(begin.head, 8):
                begin = self._delete = self._begin(body, version, (True,))
            return self._rows(begin.images[0], body, begin.at)
        except _DAMAGE as e:
            raise self._damaged(e) from None

    def updates(self, body: bytes, version: int | None = None) -> list[Update]:
        """Old and new rows. What a new row lacks is taken from the old one where that has it."""
        try:
            begin = self._update
            if begin is None or not body.startswith(begin.head, 8):
                begin = self._update = self._begin(body, version, (True, False))
            old, new = begin.images
            befores, afters = self._pairs(old, new, body, begin.at)
            if not new.whole:
                afters = list(map(filled, befores, afters))
            return list(zip(befores, afters, strict=True))
        except _DAMAGE as e:
            raise self._damaged(e) from None

    def partial_updates(self, body: bytes) -> list[Update]:
        """Old and new rows of a PARTIAL_UPDATE_ROWS event (39): JSON columns of the new row may be
        differences to the old one's. The old rows are as whole as the log has them."""
        try:
            at, [old, new] = self._open(body, 2, 2)
            if self._partial is None:
                self._partial = PartialUpdates(self._map, self._columns)
            pairs = self._partial.read(body, at, self._bits(old), self._bits(new))
            whole_utf8([line for pair in pairs for line in pair], self._names)
            return [(before, filled(before, after)) for before, after in pairs]
        except _DAMAGE as e:
            raise self._damaged(e) from None

    def _damaged(self, error: Exception) -> ProtocolError:
        """Names the table, and keeps the row's bytes out of the text."""
        table = self._map.table
        if isinstance(error, ProtocolError):
            return ProtocolError(f"table {table}: {error}", error.hint)
        old = any(c.type in OLD_TEMPORAL for c in self._map.columns)
        return ProtocolError(
            f"table {table}: expected rows, got damaged ones", REBUILD if old else ""
        )

    def _begin(self, body: bytes, version: int | None, old: Sequence[bool]) -> _Begin:
        """How an event begins whose images are `old` rows or new ones."""
        at, bitmaps = self._open(body, version, len(old))
        # A new row that is not whole takes what it lacks from the old one, which is read whole then.
        whole = [self._of(bitmap, key=False).whole for bitmap in bitmaps]
        return _Begin(
            body[8:at],
            at,
            tuple(
                self._of(bitmap, key=is_old and all(whole[1:]))
                for bitmap, is_old in zip(bitmaps, old, strict=True)
            ),
        )

    def _open(self, body: bytes, version: int | None, images: int) -> tuple[int, list[bytes]]:
        """Where the rows begin, and the bitmaps of the columns that they carry."""
        if version is None:
            version = self._version(body)
        at = 8 if version == 1 else 8 + int.from_bytes(body[8:10], "little")
        width = body[at]
        at += 1
        if width > 250:
            octets = {252: 2, 253: 3, 254: 8}[width]
            width = int.from_bytes(body[at : at + octets], "little")
            at += octets
        if width != len(self._columns):
            raise ProtocolError(f"expected rows of {len(self._columns)} columns, got {width}")
        octets = (width + 7) // 8
        bitmaps = [body[at + i * octets : at + (i + 1) * octets] for i in range(images)]
        return at + images * octets, bitmaps

    def _version(self, body: bytes) -> int:
        """Version 1 has the number of columns where 2 has the length of what MySQL adds: 2, and 5 or 7
        for a partitioned table. So many columns have a bitmap of one byte, which cannot be nought in
        version 1, and which is the length's upper byte, nought, in version 2."""
        width = len(self._columns)
        if width > 250:
            return 1 if body[8] == 252 and int.from_bytes(body[9:11], "little") == width else 2
        return 1 if body[8] == width and (width > 8 or body[9]) else 2

    def _bits(self, present: bytes) -> list[bool]:
        return [bool(present[i // 8] >> i % 8 & 1) for i in range(len(self._columns))]

    def _of(self, present: bytes, *, key: bool) -> Images:
        """The images of rows that carry these columns; `key`: with those alone that are wanted of
        old rows."""
        known = present, key and self._old is not None
        found = self._images.get(known)
        if found is None:
            if len(self._images) >= _MOST_IMAGES:
                self._images.clear()
            wanted = self._old if known[1] else None
            found = self._images[known] = Images(self._columns, self._bits(present), wanted=wanted)
        return found

    def _rows(self, images: Images, body: bytes, at: int) -> list[bytes]:
        """The rows from `at` to the end."""
        if not images.count:
            raise ProtocolError("expected rows with columns, got rows of none", ALL_COLUMNS)
        if images.compiled is not None:
            found = images.compiled.rows(body, at)
            if found is not None:
                return self._whole(images, found)
        end, octets, known = len(body), images.octets, images.known
        lines: list[bytes] = []
        starts: list[int] = []
        backslashes = 0
        while at < end:
            starts.append(at)
            nulls = body[at : at + octets]
            line, at, more = (known.get(nulls) or images.row(nulls))(body, at)
            lines.append(line)
            backslashes += more
        if at != end:
            raise IndexError
        return self._escaped(images, body, lines, starts, backslashes)

    def _pairs(
        self, old: Images, new: Images, body: bytes, at: int
    ) -> tuple[list[bytes], list[bytes]]:
        """The lines before and after from `at` to the end."""
        if not old.count:
            raise ProtocolError("expected old rows with columns, got rows of none", ALL_COLUMNS)
        if old.compiled is not None and new.compiled is not None:
            found = old.compiled.pairs(new.compiled, body, at)
            if found is not None:
                return self._whole(old, found[0]), self._whole(new, found[1])
        end = len(body)
        old_octets, old_known, new_octets, new_known = old.octets, old.known, new.octets, new.known
        befores: list[bytes] = []
        afters: list[bytes] = []
        old_starts: list[int] = []
        new_starts: list[int] = []
        old_backslashes = new_backslashes = 0
        while at < end:
            old_starts.append(at)
            nulls = body[at : at + old_octets]
            line, at, more = (old_known.get(nulls) or old.row(nulls))(body, at)
            befores.append(line)
            old_backslashes += more
            new_starts.append(at)
            nulls = body[at : at + new_octets]
            line, at, more = (new_known.get(nulls) or new.row(nulls))(body, at)
            afters.append(line)
            new_backslashes += more
        if at != end:
            raise IndexError
        return (
            self._escaped(old, body, befores, old_starts, old_backslashes),
            self._escaped(new, body, afters, new_starts, new_backslashes),
        )

    def _whole(self, images: Images, lines: list[bytes]) -> list[bytes]:
        if images.text and lines:
            whole_utf8(lines, self._names)
        return lines

    def _escaped(
        self, images: Images, body: bytes, lines: list[bytes], starts: list[int], backslashes: int
    ) -> list[bytes]:
        """The lines, with those read again in which something has to be escaped."""
        if not images.text:
            return lines
        block = whole_utf8(lines, self._names)
        tabs = len(self._columns) - 1
        if (
            block.count(b"\\") == backslashes
            and block.count(b"\t") == len(lines) * tabs
            and block.count(b"\n") == len(lines)
            and b"\r" not in block
        ):
            return lines
        careful = images.careful()
        octets = images.octets
        return [
            careful.row(body[at : at + octets])(body, at)[0]
            if b"\\" in line or line.count(b"\t") != tabs or line.count(b"\n") != 1 or b"\r" in line
            else line
            for line, at in zip(lines, starts, strict=True)
        ]


def filled(before: bytes, after: bytes) -> bytes:
    """The new row's line with the old one's fields where it has gaps. Fields stay escaped."""
    if GAP not in after:
        return after
    old, new = before[:-1].split(b"\t"), after[:-1].split(b"\t")
    return b"\t".join([o if n == GAP else n for o, n in zip(old, new, strict=True)]) + b"\n"


class PartialUpdates:
    """Reads rows whose new JSON documents are differences (sql/rpl_record.cc, `unpack_row`)."""

    def __init__(self, table_map: TableMap, columns: Sequence[Code]) -> None:
        self._json = [i for i, c in enumerate(table_map.columns) if c.type == codes.JSON]
        self._documents: dict[int, bytes] = {}
        self._changed: set[int] = set()
        self._old, self._new = list(columns), list(columns)
        for index in self._json:
            self._old[index] = with_function(columns[index], partial(self._keep, index))
            self._new[index] = with_function(columns[index], partial(self._merge, index))

    def read(
        self, body: bytes, at: int, old: list[bool], new: list[bool]
    ) -> list[tuple[bytes, bytes]]:
        befores = Images(self._old, old, escaped=True)
        afters = Images(self._new, new, escaped=True)
        if not befores.count:
            raise ProtocolError("expected old rows with columns, got rows of none", ALL_COLUMNS)
        pairs = []
        end = len(body)
        while at < end:
            self._documents.clear()
            before, at, _ = befores.row(body[at : at + befores.octets])(body, at)
            at = self._options(body, at)
            after, at, _ = afters.row(body[at : at + afters.octets])(body, at)
            pairs.append((before, after))
        if at != end:
            raise IndexError
        return pairs

    def _options(self, body: bytes, at: int) -> int:
        """Which JSON columns of the new row are differences; returns where the row goes on."""
        options = body[at]
        if options > 1:
            raise ProtocolError(f"expected an update of JSON parts, got options {options}", HINT)
        self._changed.clear()
        if not options:
            return at + 1
        for number, index in enumerate(self._json):
            if body[at + 1 + number // 8] >> number % 8 & 1:
                self._changed.add(index)
        return at + 1 + (len(self._json) + 7) // 8

    def _keep(self, index: int, document: bytes) -> bytes:
        self._documents[index] = document
        return json_text(document)

    def _merge(self, index: int, document: bytes) -> bytes:
        if index not in self._changed:
            return json_text(document)
        if index not in self._documents:
            raise ProtocolError(
                "expected the old JSON document with its differences, got the differences alone",
                HINT,
            )
        return apply_diffs(self._documents[index], document)
