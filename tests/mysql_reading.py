"""A MySQL or MariaDB source as the tests drive it, without a target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from appliers.delta import Delta, Op
from appliers.relation import Relation
from cdc.sources.mysql.copying import MysqlChunkReader
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.source import MysqlSource
from cdc.sources.source import Piece, Position, Stream
from tests.databases import wait_until
from tests.mysql_databases import MysqlDatabase
from tests.pieces import changes_in


def as_it_is(relation: Relation) -> Relation:
    return relation


@contextmanager
def opened(
    database: MysqlDatabase, *tables: str, url: str | None = None, sync: str = "test"
) -> Iterator[MysqlSource]:
    """A source, open, its catalog read where tables are named."""
    source = MysqlSource(url or database.url, None, sync)
    try:
        source.open()
        if tables:
            source.catalog(tables)
        yield source
    finally:
        source.close()


@contextmanager
def streaming(source: MysqlSource, position: Position) -> Iterator[Stream]:
    stream = source.stream(position, binary=False, shape=as_it_is)
    try:
        yield stream
    finally:
        stream.close()


def changes_to(stream: Stream, end: Position) -> list[Delta]:
    """Every change up to a position."""
    found: list[Delta] = []

    def arrived() -> bool:
        for event in stream.read(0.1):
            if isinstance(event, Piece):
                found.extend(changes_in(event))
            if event.position is not None and event.position.covers(end):
                return True
        return False

    wait_until(arrived)
    return found


def state_of(
    changes: list[Delta], state: dict[tuple[str, object], bytes] | None = None
) -> dict[tuple[str, object], bytes]:
    """What changes with whole images make of tables: row by table and key."""
    found = {} if state is None else state
    for op, relation, before, after, _, _ in changes:
        if op is Op.TRUNCATE:
            for known in [k for k in found if k[0] == relation.table]:
                del found[known]
            continue
        if before is not None:
            found.pop((relation.table, relation.key(before)), None)
        elif op is Op.DELETE:
            raise AssertionError("a delete without its old row")
        if after is not None:
            found[relation.table, relation.key(after)] = after
    return found


def rows_of(reader: MysqlChunkReader, relation: Relation) -> list[bytes]:
    """A whole table, by its plan."""
    plan = reader.plan(relation)
    return [
        row
        for bounds in plan.bounds
        for block in reader.read(relation, bounds, plan.fingerprint)
        for row in block
    ]


def place(position: Position) -> tuple[str, int]:
    assert isinstance(position, BinlogPosition)
    return position.place()
