"""A MySQL or MariaDB source in a test's hand: its stream, and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from appliers.delta import UNCHANGED, Delta
from appliers.relation import Relation
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.source import MysqlSource
from cdc.sources.source import Piece, Progress, Stream
from tests.databases import wait_until
from tests.mysql_databases import MysqlDatabase
from tests.pieces import changes_in

Row = tuple[Any, ...]
Told = tuple[str, str, Row | None, Row | None]
"""Operation, table without its database, old row, new row."""


class BinlogCapture:
    """One sync on a source database. Everything it opens ends with the test."""

    def __init__(self, database: MysqlDatabase, after: ExitStack, url: str | None) -> None:
        self.database = database
        self.source = MysqlSource(url or database.url, None, "demo")
        self.source.open()
        after.callback(self.source.close)
        self._after = after
        self.position = BinlogPosition("none.1", 4)

    def start(self, *patterns: str) -> BinlogPosition:
        """From now on; streams are of these tables."""
        relations = self.source.catalog(patterns or ("*",)).relations
        position = self.source.start(relations).position
        assert isinstance(position, BinlogPosition)
        self.position = position
        return position

    def stream(self, position: BinlogPosition | None = None) -> Stream:
        made = self.source.stream(position or self.position, binary=False, shape=lambda r: r)
        self._after.callback(made.close)
        return made

    def head(self) -> BinlogPosition:
        return self.source.committed_head()


def run(source: MysqlDatabase, *statements: str) -> None:
    """Statements in one session of their own, which is over then."""
    db = source.connect(local_infile=True)
    with db.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    number = db.thread_id()  # type: ignore[no-untyped-call]
    db.close()
    ours = f"SELECT 1 FROM information_schema.processlist WHERE id = {number}"
    if any(s.startswith("XA PREPARE") for s in statements):
        # Until the server has noticed, nobody else may end what this session has prepared (XAER_NOTA).
        wait_until(lambda: not source.rows(ours), message="the session is over")


def events_until(
    stream: Stream, position: BinlogPosition, timeout: float = 30.0
) -> list[Piece | Progress]:
    """Everything up to `position`, which the stream must reach."""
    events: list[Piece | Progress] = []
    deadline = time.monotonic() + timeout
    while not (events and _covers(events[-1].position, position)):
        assert time.monotonic() < deadline, f"the stream did not reach {position}: {events[-3:]}"
        events += stream.read(0.2)
        stream.keepalive()
    return events


def pieces_of(events: Iterable[Piece | Progress]) -> list[Piece]:
    return [e for e in events if isinstance(e, Piece)]


def changes_of(events: Iterable[Piece | Progress]) -> list[Delta]:
    return [change for piece in pieces_of(events) for change in changes_in(piece)]


def told(capture: BinlogCapture, stream: Stream | None = None) -> list[Told]:
    """Every change that was committed by now, in plain values."""
    events = events_until(stream or capture.stream(), capture.head())
    return [plain(change) for change in changes_of(events)]


def plain(change: Delta) -> Told:
    op, relation, before, after, _, _ = change
    return op.label, relation.name, row_of(relation, before), row_of(relation, after)


def row_of(relation: Relation, image: bytes | None) -> Row | None:
    """Integers as such, other values as text; None and UNCHANGED as they are."""
    if image is None:
        return None
    return tuple(
        value
        if not isinstance(value, bytes)
        else int(value)
        if column.base.endswith("int")
        else value.decode()
        for column, value in zip(relation.columns, relation.values(image), strict=True)
    )


def key_of(change: Delta) -> tuple[object, ...]:
    """A change with everything that must be the same however often it is read."""
    op, relation, before, after, commit, ordinal = change
    return op, relation.table, before, after, commit, ordinal


def _covers(reached: object, position: BinlogPosition) -> bool:
    return isinstance(reached, BinlogPosition) and reached.covers(position)


MakeBinlogCapture = Callable[..., BinlogCapture]


@pytest.fixture
def make_binlog_capture() -> Iterator[MakeBinlogCapture]:
    """Makes a sync on a source database."""
    with ExitStack() as after:

        def make(database: MysqlDatabase, *, url: str | None = None) -> BinlogCapture:
            return BinlogCapture(database, after, url)

        yield make


__all__ = ["UNCHANGED", "BinlogCapture", "MakeBinlogCapture", "changes_of", "events_until", "told"]
