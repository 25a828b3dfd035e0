"""Temporary tables through which sets of rows reach the target's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Final

from appliers.images import COPY_BINARY_HEADER, COPY_BINARY_TRAILER
from appliers.postgres.connection import Session
from appliers.postgres.names import listed
from appliers.postgres.table import Table

FIRST: Final = 64
PIECE: Final = 65536
"""How many rows are joined before they go to libpq, at first, and how many bytes they should come to
from then on: libpq tries to send at every call, so that small pieces cost a system call each."""

Slot = tuple[Table, tuple[int, ...], str]


class Staging:
    """The temporary tables of one session, one for each table, set of columns and purpose.

    They keep their rows until they are used again: then TRUNCATE goes ahead of the COPY in the same
    message. Measured with 200 of them on PostgreSQL 18: 2 ms a batch, where ON COMMIT DELETE ROWS
    costs 114 ms at every commit, because it empties all of them, used or not.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: dict[Slot, str] = {}
        self._numbers = count(1)

    def mark(self) -> dict[Slot, str]:
        """What `restore` takes when the transaction is rolled back to here."""
        return self._names.copy()

    def restore(self, mark: dict[Slot, str]) -> None:
        """Forgets the tables that a rollback has removed."""
        self._names = mark

    def forget(self, table: Table) -> None:
        """Drops the tables of a target table that has been altered."""
        for slot in [s for s in self._names if s[0] is table]:
            self._session.execute(f"DROP TABLE {self._names.pop(slot)}")

    def fill(
        self, table: Table, columns: Sequence[int], rows: Iterable[bytes], purpose: str = ""
    ) -> tuple[str, int]:
        """Stages rows for COPY that hold `columns`; the name to use in SQL, and their number.

        The staged rows are there until the next `fill` of the same kind.
        """
        slot = (table, tuple(columns), purpose)
        name = self._names.get(slot)
        before = f"TRUNCATE {name}; "
        if name is None:
            name = f"pg_temp.cdc_{next(self._numbers)}"
            names = listed(table.names(columns))
            self._session.execute(
                f"CREATE TEMPORARY TABLE {name} AS"
                f" SELECT {names} FROM {table.target.sql_name} WITH NO DATA"
            )
            self._names[slot] = name
            before = ""
        return name, self._session.copy_in(
            before + table.copy_sql(name, columns), framed(table, rows)
        )


def joined(rows: Callable[[list[bytes]], bytes], images: Iterator[bytes]) -> Iterator[bytes]:
    """Rows for COPY, some at a time. `rows` makes them of images."""
    number = FIRST
    while some := list(islice(images, number)):
        data = rows(some)
        yield data
        number = about(number, data)


def about(number: int, data: bytes) -> int:
    """How many rows to join next, when `number` of them were `data`."""
    return max(1, min(1024, PIECE * number // len(data)))


def framed(table: Table, rows: Iterable[bytes]) -> Iterable[bytes]:
    """Rows, or joined rows, as a stream for COPY."""
    if not table.binary:
        return rows
    return _framed(rows)


def _framed(rows: Iterable[bytes]) -> Iterable[bytes]:
    yield COPY_BINARY_HEADER
    yield from rows
    yield COPY_BINARY_TRAILER
