"""A PostgreSQL source in a test's hand: a sync's slot, its stream, and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from appliers.delta import Delta, Op
from appliers.errors import TransientError
from appliers.images import Format
from appliers.relation import Relation
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.postgres.source import PostgresSource
from cdc.sources.postgres.stream import PostgresStream
from cdc.sources.source import Piece, Progress
from tests.databases import Database, wait_until
from tests.pieces import changes_in

Row = tuple[Any, ...]
Told = tuple[str, str, Row | None, Row | None]
"""Operation, table without its schema, old row, new row."""

TEXTUAL = ("text", "varchar", "bpchar", "name", "enum")


class Capture:
    """One sync on a source database. Everything it opens ends with the test."""

    def __init__(
        self, database: Database, after: ExitStack, sync: str, url: str | None, *, binary: bool
    ) -> None:
        self.database = database
        self.binary = binary
        self.source = PostgresSource(url or database.url, None, sync)
        self.source.open()
        after.callback(self.source.close)
        self._after = after
        self._stream: PostgresStream | None = None
        self.relations: dict[str, Relation] = {}
        self.position = Lsn(0)
        self.identity = ""

    def start(self, *patterns: str) -> Lsn:
        """Makes publication and slot for these tables."""
        relations = self.source.catalog(patterns or ("*",)).relations
        self.relations = {r.name: r for r in relations}
        opening = self.source.start(relations)
        assert isinstance(opening.position, Lsn)
        self.position, self.identity = opening.position, opening.identity
        return self.position

    def resume(self, *patterns: str, position: Lsn | None = None) -> frozenset[str]:
        """What has to be copied; then it is published."""
        relations = self.source.catalog(patterns or ("*",)).relations
        found = self.source.resume(self.identity, position or self.position, relations)
        self.source.publish(relations)
        return found

    def stream(self, position: Lsn | None = None) -> PostgresStream:
        """A stream in place of the one before: the server lets go of a slot a moment after its reader
        has gone."""
        if self._stream is not None:
            self._stream.close()
        wanted = self.position if position is None else position
        wait_until(lambda: self._taken(wanted), message="the slot is free")
        assert self._stream is not None
        self._after.callback(self._stream.close)
        return self._stream

    def _taken(self, position: Lsn) -> bool:
        try:
            self._stream = self.source.stream(position, binary=self.binary, shape=lambda r: r)
        except TransientError as error:
            if "is active for PID" not in str(error):
                raise
            return False
        return True

    def copied(self, name: str) -> Relation:
        """The relation that copies of a table have."""
        return self.source.copy_relation(self.relations[name], binary=self.binary)


def events_until(
    stream: PostgresStream, position: Lsn, timeout: float = 20.0
) -> list[Piece | Progress]:
    """Everything up to `position`, which the stream must reach."""
    events: list[Piece | Progress] = []
    deadline = time.monotonic() + timeout
    while not (events and covers(events[-1].position, position)):
        assert time.monotonic() < deadline, f"the stream did not reach {position}: {events[-3:]}"
        events += stream.read(0.2)
        stream.keepalive()
    return events


def covers(reached: object, position: Lsn) -> bool:
    return isinstance(reached, Lsn) and reached >= position


def pieces_of(events: Iterable[Piece | Progress]) -> list[Piece]:
    return [e for e in events if isinstance(e, Piece)]


def told(capture: Capture, stream: PostgresStream | None = None) -> list[Told]:
    """Every change that was committed by now, in plain values."""
    position = capture.source.committed_head()
    events = events_until(stream or capture.stream(), position)
    return [plain(change) for piece in pieces_of(events) for change in changes_in(piece)]


def plain(change: Delta) -> Told:
    op, relation, before, after, _, _ = change
    return op.label, relation.name, row_of(relation, before), row_of(relation, after)


def row_of(relation: Relation, image: bytes | None) -> Row | None:
    """Integers as such, text as text, other binary forms as bytes; None and UNCHANGED as they are."""
    if image is None:
        return None
    return tuple(
        _value(column.base if column.kind == "base" else column.kind, value, relation.format)
        for column, value in zip(relation.columns, relation.values(image), strict=True)
    )


def _value(base: str, value: object, format: Format) -> Any:
    if not isinstance(value, bytes):
        return value
    if base in ("int2", "int4", "int8"):
        return int.from_bytes(value, "big", signed=True) if format.binary else int(value)
    if base == "bytea" and not format.binary:
        return bytes.fromhex(value.decode().removeprefix("\\x"))
    return value.decode() if not format.binary or base in TEXTUAL else value


def replayed(rows: dict[Row, Row], changes: Iterable[Delta]) -> None:
    """Redoes changes on a table's rows, by key: inserts overwrite, absent rows are no error."""
    for op, relation, before, after, _, _ in changes:
        if op is Op.TRUNCATE:
            rows.clear()
            continue
        if before is not None:
            rows.pop(tuple(relation.key(before)), None)
        if after is not None:
            rows[tuple(relation.key(after))] = tuple(relation.values(after))


def read_rows(relation: Relation, blocks: Iterator[list[bytes]]) -> list[Row]:
    return [tuple(relation.values(image)) for block in blocks for image in block]


MakeCapture = Callable[..., Capture]


@pytest.fixture(params=[False, True], ids=["text", "binary"])
def binary(request: pytest.FixtureRequest) -> bool:
    """For tests that hold for images in both forms."""
    return bool(request.param)


@pytest.fixture
def make_capture(request: pytest.FixtureRequest) -> Iterator[MakeCapture]:
    """Makes a sync on a source database, in text unless the test takes `binary`."""
    with ExitStack() as after:

        def make(
            database: Database, *, sync: str = "demo", url: str | None = None, binary: bool = False
        ) -> Capture:
            if not binary and "binary" in request.fixturenames:
                binary = request.getfixturevalue("binary")
            # Slots belong to the server: the database's name keeps tests apart.
            return Capture(database, after, f"{sync}_{database.name}", url, binary=binary)

        yield make
