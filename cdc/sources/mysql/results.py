"""Rows of a query as they come from the socket, for copies: PyMySQL's own cursors make an object of
every value (10 µs a row of 10 columns).

Source: MySQL internals, "Text Resultset": a packet is a length of 3 bytes, a number, and for a row a
string with its length for each column, 0xfb for NULL. EOF ends the rows; ERR breaks them off.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import pymysql
from pymysql.constants import COMMAND
from pymysql.err import raise_mysql_exception

from cdc.sources.mysql.connection import Connection, code_of, cut

READ_SIZE: Final = 1 << 18
LONGEST: Final = 0xFFFFFF
"""A packet of this length goes on in the next."""

MOST_DROPPED: Final = 64 << 20

EOF, ERROR = 0xFE, 0xFF


def packets(db: Connection, statement: str) -> Generator[list[bytes], None, None]:
    """A query's rows, undecoded, in blocks of what one read of the socket brought.

    Raises PyMySQL's errors. If it is left half-way, the rest is read and dropped, so that the
    connection can be used again; it is cut where that is more than MOST_DROPPED. Measured over TCP on
    one machine: 2.6 million rows a second of one number.
    """
    done = False
    conn: Any = db
    rest = b""
    try:
        _ask(conn, statement)
        while not done:
            rest, found, done = _split(rest + _more(conn, _missing(rest)))
            if found:
                yield found
    except pymysql.Error as e:
        # Behind an error of the server no more rows come; behind one of ours (2000 to 2999) nothing.
        done = 1000 <= code_of(e) < 2000 or code_of(e) >= 3000
        raise
    except OSError as e:
        raise pymysql.OperationalError(2013, f"Lost connection to the server ({e})") from e
    finally:
        if not done and not (db.open and _dropped(conn, rest)):
            cut(db)


def _ask(conn: Any, statement: str) -> None:
    """Sends a query and reads what comes before its rows: PyMySQL's own means, which it keeps private."""
    conn._execute_command(COMMAND.COM_QUERY, statement)  # noqa: SLF001
    read = conn._read_packet  # noqa: SLF001
    for _ in range(read().read_length_encoded_integer()):
        read()
    read()


def _missing(buffer: bytes) -> int:
    """Bytes that the row at the end of a buffer lacks, as far as they are known."""
    start = 0
    while len(buffer) - start >= 4:
        length = int.from_bytes(buffer[start : start + 3], "little")
        start += 4 + length
        if start > len(buffer) or length < LONGEST:
            break
    return max(start - len(buffer), 0)


def _dropped(conn: Any, rest: bytes) -> bool:
    """Reads what is left of a query's rows; False if that is too much, or fails."""
    left = MOST_DROPPED
    done = False
    try:
        while not done and left > 0:
            data = _more(conn, _missing(rest))
            left -= len(data)
            rest, _, done = _split(rest + data)
    except (OSError, pymysql.Error):
        return False
    return done


def _more(conn: Any, missing: int) -> bytes:
    """What has arrived; of a long row, all that it lacks, so that it is put together once."""
    file = conn._rfile  # noqa: SLF001
    data: bytes = file.read(missing) if missing > READ_SIZE else file.read1(READ_SIZE)
    if (len(data) < missing and missing > READ_SIZE) or not data:
        raise pymysql.OperationalError(2013, "Lost connection to the server during a query")
    return data


def _split(buffer: bytes) -> tuple[bytes, list[bytes], bool]:
    """What is left of the buffer, the whole rows in it, and whether the last one was there."""
    found: list[bytes] = []
    add = found.append
    number = int.from_bytes
    start, end = 0, len(buffer)
    while end - start >= 4:
        length = number(buffer[start : start + 3], "little")
        stop = start + 4 + length
        if stop > end:
            break
        if length == LONGEST:
            whole = _joined(buffer, start)
            if whole is None:
                break
            row, start = whole
            add(row)
            continue
        first = buffer[start + 4]
        if first >= EOF:
            if first == ERROR:
                raise_mysql_exception(buffer[start + 4 : stop])
            if length < 9:
                return b"", found, True
        add(buffer[start + 4 : stop])
        start = stop
    return buffer[start:], found, False


def _joined(buffer: bytes, start: int) -> tuple[bytes, int] | None:
    """A row of several packets and where it ends; None if it is not all there."""
    parts = []
    while True:
        if len(buffer) - start < 4:
            return None
        length = int.from_bytes(buffer[start : start + 3], "little")
        stop = start + 4 + length
        if stop > len(buffer):
            return None
        parts.append(buffer[start + 4 : stop])
        start = stop
        if length < LONGEST:
            return b"".join(parts), start


def fields(row: bytes) -> list[bytes | None]:
    """The values of a row."""
    found: list[bytes | None] = []
    at, end = 0, len(row)
    while at < end:
        first = row[at]
        at += 1
        if first == 0xFB:
            found.append(None)
            continue
        length = first
        if first > 0xFB:
            size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
            length = int.from_bytes(row[at : at + size], "little")
            at += size
        found.append(row[at : at + length])
        at += length
    return found


def only(row: bytes) -> bytes | None:
    """The value of a row of one column."""
    first = row[0]
    if first < 0xFB:
        return row[1:]
    return None if first == 0xFB else row[{0xFC: 3, 0xFD: 4, 0xFE: 9}[first] :]
