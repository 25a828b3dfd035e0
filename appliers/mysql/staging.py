"""Temporary tables through which sets of rows reach the target's tables, and the bulk way into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count, islice

import pymysql

from appliers.mysql import staged
from appliers.mysql.failures import TOO_WIDE, code_of, has_no_room
from appliers.mysql.literals import row_literal, rows_literal, written
from appliers.mysql.names import quoted
from appliers.mysql.session import MESSAGE, Outcome, Session, WarnedError
from appliers.mysql.table import Rows, Table

SMALL = 1 << 15
"""Up to so many bytes go into a stage in the message that makes it, and by INSERT everywhere: a message
less than LOAD DATA needs."""
FIRST = 64
"""How many rows are joined before they are sent, at first; from then on about MESSAGE bytes of them."""


class InOrderError(Exception):
    """Rows have to be written one by one: sets know deletes and inserts, but no change of a key."""


class TooWideError(InOrderError):
    """No stage can be made: its rows have a number that the target's have not."""


class Staging:
    """The temporary tables of one session, one for each kind of use.

    Each is dropped and made anew when it is filled: TRUNCATE would commit, and DELETE keeps what it
    deleted for the rollback (measured on MariaDB 10.11: drop and create 0.2 ms, DELETE of 20,000
    rows 20 ms). Making and dropping temporary tables commits nothing (MySQL manual, "Statements That
    Cause an Implicit Commit"), and a rollback does not bring them back.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._numbers = count(1)
        self._names: dict[tuple[str, str], str] = {}

    def fill(
        self, table: Table, columns: Sequence[int], rows: Iterable[bytes], purpose: str = ""
    ) -> tuple[str, int]:
        """Stages lines that hold `columns`, one or several in each piece of `rows`; the table's name,
        and the number of lines. They are numbered from 0, and stay until the next `fill` of the same
        table and purpose."""
        at = (table.name, purpose)
        old = self._names.pop(at, None)
        name = self._names[at] = self.more()
        few = _Few(_numbered(rows, 0))
        sql = [f"DROP TEMPORARY TABLE IF EXISTS {old}".encode()] if old is not None else []
        sql.append(staged.create(table, name, columns).encode())
        if few.all and few.lines:
            sql.append(_head(table, name, columns, 0) + _values(table, columns, few.data, 0))
        done: list[Outcome] = []
        try:
            self._session.run_all(sql, done)
        except WarnedError:
            del done[:]
            sql[: len(sql) - (2 if few.lines and few.all else 1)] = [
                f"DROP TEMPORARY TABLE {name}".encode()
            ]
            with self._session.carefully():
                self._session.run_all(sql, done)
        except pymysql.err.MySQLError as e:
            raise _too_wide(e) or e from None
        if few.all:
            _demand_all(done[-1].touched if few.lines else 0, few.lines)
            return name, few.lines
        return name, _load(self._session, table, name, columns, few, 0)

    def make(self, sql: str) -> None:
        """Runs a CREATE TEMPORARY TABLE. Raises TooWideError where the columns are too many or too wide."""
        try:
            self._session.execute(sql)
        except pymysql.err.MySQLError as e:
            raise _too_wide(e) or e from None

    def fresh(self, table: Table, purpose: str) -> str:
        """A name that no temporary table has; the one that had it for this use before is dropped."""
        at = (table.name, purpose)
        old = self._names.pop(at, None)
        if old is not None:
            self._session.execute(f"DROP TEMPORARY TABLE IF EXISTS {old}")
        name = self._names[at] = quoted(f"cdc_stage_{next(self._numbers)}")
        return name

    def more(self) -> str:
        """A name for a temporary table that stays until `drop`."""
        return quoted(f"cdc_stage_{next(self._numbers)}")

    def drop(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(pymysql.err.MySQLError):
                self._session.execute(f"DROP TEMPORARY TABLE IF EXISTS {name}")


def _too_wide(error: pymysql.err.MySQLError) -> TooWideError | None:
    return TooWideError() if code_of(error) in TOO_WIDE and not has_no_room(error) else None


def insert(
    session: Session,
    table: Table,
    name: str,
    columns: Sequence[int],
    rows: Iterable[bytes],
    *,
    number_from: int | None = None,
) -> int:
    """Writes lines that hold `columns` into the table or stage `name`; returns their number.

    By LOAD DATA LOCAL where the server allows it, else by INSERTs of many rows. Measured on MariaDB
    10.11 with 10 columns and 20,000 rows: 190,000 to 240,000 rows/s by LOAD DATA, 116,000 to 144,000
    by INSERTs (PyMySQL's executemany: 82,000). Every line is written as it is, or an error is
    raised: LOAD DATA's count of rows must be that of the lines, and none of its warnings passes.
    """
    few = _Few(rows if number_from is None else _numbered(rows, number_from))
    if not few.all:
        return _load(session, table, name, columns, few, number_from)
    if few.lines:
        sql = _head(table, name, columns, number_from)
        sql += _values(table, columns, few.data, number_from)
        _demand_all(session.run(sql), few.lines)
    return few.lines


def _load(
    session: Session,
    table: Table,
    name: str,
    columns: Sequence[int],
    pieces: _Few,
    number_from: int | None,
) -> int:
    if session.may_load:
        try:
            loaded = session.load(_load_sql(table, name, columns, number_from), pieces)
        except pymysql.err.MySQLError as e:
            if pieces.begun or not session.may_not_load(e):
                raise
        else:
            _demand_all(loaded, pieces.lines)
            return loaded
    head = _head(table, name, columns, number_from)
    inserted = 0
    for piece in pieces:
        for part in _parts(piece, MESSAGE):
            inserted += session.run(head + _values(table, columns, part, number_from))
    _demand_all(inserted, pieces.lines)
    return inserted


class _Few:
    """Pieces, of which the first are taken to see whether there are more than SMALL bytes of them."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._rest = iter(pieces)
        first: list[bytes] = []
        size = 0
        while size < SMALL and (piece := next(self._rest, None)) is not None:
            first.append(piece)
            size += len(piece)
        self.data = b"".join(first)
        self.all = size < SMALL
        """Whether `data` is all there is."""
        self.lines = self.data.count(b"\n")
        """Of those that were taken so far."""
        self.begun = False
        """Whether somebody has taken them."""

    def __iter__(self) -> Iterator[bytes]:
        self.begun = True
        yield self.data
        for piece in self._rest:
            self.lines += piece.count(b"\n")
            yield piece


def joined(rows: Rows, images: Iterator[bytes]) -> Iterator[bytes]:
    """Lines, some at a time. `rows` makes them of images."""
    number = FIRST
    while some := list(islice(images, number)):
        data = rows(some)
        yield data
        number = about(number, data)


def about(number: int, data: bytes) -> int:
    """How many rows to join next, when `number` of them were `data`."""
    return max(1, min(8192, MESSAGE * number // len(data)))


def _numbered(pieces: Iterable[bytes], first: int) -> Iterator[bytes]:
    """Lines with their numbers before them: 0.2 µs a line."""
    put = b"%d\t%b\n".__mod__
    for piece in pieces:
        lines = piece.split(b"\n")
        lines.pop()
        yield b"".join(map(put, enumerate(lines, first)))
        first += len(lines)


def _parts(piece: bytes, size: int) -> Iterator[bytes]:
    """A piece in parts of whole lines of about `size` bytes."""
    start = 0
    while len(piece) - start > size:
        end = piece.find(b"\n", start + size) + 1 or len(piece)
        yield piece[start:end]
        start = end
    if start < len(piece):
        yield piece[start:]


def _load_sql(table: Table, name: str, columns: Sequence[int], number_from: int | None) -> str:
    into = [staged.NUMBER] if number_from is not None else []
    sets = []
    for n, i in enumerate(columns):
        column = quoted(table.own[i].name)
        if i in table.hex:
            sets.append(f"{column} = UNHEX(@cdc_{n})")
            into.append(f"@cdc_{n}")
        else:
            into.append(column)
    # The file's name means nothing: `Session.load` sends what it has.
    return (
        f"LOAD DATA LOCAL INFILE 'cdc' INTO TABLE {name} CHARACTER SET utf8mb4"
        r" FIELDS TERMINATED BY '\t' ENCLOSED BY '' ESCAPED BY '\\' LINES TERMINATED BY '\n'"
        f" ({', '.join(into)}){' SET ' + ', '.join(sets) if sets else ''}"
    )


def _head(table: Table, name: str, columns: Sequence[int], number_from: int | None) -> bytes:
    names = [quoted(n) for n in table.names(columns)]
    into = ", ".join(names if number_from is None else [staged.NUMBER, *names])
    return f"INSERT INTO {name} ({into}) VALUES ".encode()


def _values(table: Table, columns: Sequence[int], lines: bytes, number_from: int | None) -> bytes:
    if table.hex.isdisjoint(columns):
        return rows_literal(lines)
    made = [written(hexadecimal=i in table.hex) for i in columns]
    if number_from is not None:
        made.insert(0, bytes)
    return b",".join([row_literal(line, made) for line in lines.split(b"\n")[:-1]])


def _demand_all(written_rows: int, lines: int) -> None:
    if written_rows != lines:
        raise pymysql.err.DataError(1265, f"{lines} rows were sent, {written_rows} written")
