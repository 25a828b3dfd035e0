"""A target database under the contract suite: its applier, its rows read directly, and deltas for it."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from appliers.applier import Applier
from appliers.batch import Applied, Batch, Chunk, Reread, Rereader
from appliers.checkpoint import Copy, TableState
from appliers.delta import UNCHANGED, Commit, Delta, Op, Run, Value
from appliers.images import Format, copy_binary_row, copy_text_line, pgoutput_image
from appliers.lines import line
from appliers.registry import applier_for
from appliers.relation import Column, Relation
from tests.databases import Database
from tests.mysql_databases import MysqlDatabase

SYNC: Final = "contract"
TABLE: Final = "public.item"
COLUMNS: Final = (
    Column("id", "bigint", "int8", nullable=False),
    Column("code", "text", "text"),
    Column("n", "integer", "int4"),
    Column("big", "text", "text"),
)
MYSQL_COLUMNS: Final = (
    Column("id", "bigint(20)", "bigint", nullable=False),
    Column("code", "text", "text"),
    Column("n", "int(11)", "int"),
    Column("big", "text", "text"),
)
"""The same, of a MySQL source."""
MADE: Final = "CREATE TABLE item (id BIGINT PRIMARY KEY, code TEXT UNIQUE, n INTEGER, big TEXT)"
"""The target's table where a test wants a secondary unique column; appliers make none."""


FORMATS: Final = {
    "text": (Format.PGOUTPUT_TEXT, Format.COPY_TEXT),
    "binary": (Format.PGOUTPUT_BINARY, Format.COPY_BINARY),
    "line": (Format.LINE, Format.LINE),
}
"""Of images that come from the log, and from a copy."""


class Item(NamedTuple):
    """A row of `item`; what an update leaves out is UNCHANGED."""

    id: int
    code: Any = None
    n: Any = None
    big: Any = None


A: Final = Item(1, "a", 10, "big a")
B: Final = Item(2, "b", 20, "big b")
C: Final = Item(3, "c", 30, "big c")


def in_runs(deltas: Iterable[Delta]) -> list[Delta | Run]:
    """Deltas as sources give them: inserts that follow each other together."""
    made: list[Delta | Run] = []
    for delta in deltas:
        op, relation, _, after, commit_, ordinal = delta
        last = made[-1] if made else None
        if op is not Op.INSERT or after is None:
            made.append(delta)
        elif isinstance(last, Run) and (last.relation, last.commit) == (relation, commit_):
            last.after.append(after)
        else:
            made.append(Run(Op.INSERTS, relation, None, [after], commit_, ordinal))
    return made


def by_id(*items: Item) -> dict[int, Item]:
    return {item.id: item for item in items}


def mark_done(applier: Applier) -> None:
    """The copy of the table is over and exact."""
    with applier.state.transaction():
        applier.state.put_table(TableState(TABLE, Copy.DONE))


class Target(Protocol):
    """A target database, seen without its applier."""

    url: str

    def execute(self, sql: str) -> None:
        """Runs one statement, committed."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""

    def tables(self) -> set[str]:
        """The names of all tables."""


class PostgresTarget:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.url = database.url

    def execute(self, sql: str) -> None:
        self._database.execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._database.rows(sql)

    def tables(self) -> set[str]:
        found = self._database.rows(
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r'"
            " AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
        )
        return {name for (name,) in found}


class SqliteTarget:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"sqlite:///{path}"

    def execute(self, sql: str) -> None:
        self._run(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._run(sql)

    def tables(self) -> set[str]:
        if not self._path.exists():
            return set()
        return {
            name for (name,) in self._run("SELECT name FROM sqlite_master WHERE type = 'table'")
        }

    def _run(self, sql: str) -> list[tuple[Any, ...]]:
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()


class MysqlTarget:
    def __init__(self, database: MysqlDatabase) -> None:
        self._database = database
        self.url = database.url

    def execute(self, sql: str) -> None:
        # A TEXT column can have neither an index nor a default.
        for words in ("UNIQUE", "DEFAULT"):
            sql = sql.replace(f"TEXT {words}", f"VARCHAR(190) {words}")
        self._database.execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._database.rows(sql)

    def tables(self) -> set[str]:
        return {name for (name,) in self._database.rows("SHOW TABLES")}


def position(number: int) -> str:
    """A position as PostgreSQL writes it: an applier may hand it to its target as one."""
    return f"0/{number:08X}"


def commit(number: int) -> Commit:
    return Commit(position(number), number, 1_700_000_000_000_000 + number)


def no_reread(relation: Relation, images: Sequence[bytes], at: Commit) -> Reread:
    raise AssertionError(f"{len(images)} rows of {relation.table} were read again")


class Rereads:
    """A source that rows are read from again: `state` says what it has at a commit's number or later."""

    def __init__(self, bed: Bed, state: Callable[[int], tuple[int, dict[int, Item]]]) -> None:
        self._bed = bed
        self._state = state
        self.asked: list[list[int]] = []

    def __call__(self, relation: Relation, images: Sequence[bytes], at: Commit) -> Reread:
        keys = [self._bed.number(relation.key(image)[0]) for image in images]
        self.asked.append(keys)
        number, items = self._state(at.transaction)
        found = [self._bed.copied_image(items[k]) for k in keys if k in items]
        return Reread(self._bed.copied, found, position(number))


class Bed:
    """Deltas, chunks and appliers for one target. `form` says how images come: `text` and `binary` as
    PostgreSQL sends them, `line` as MySQL's source does."""

    def __init__(self, target: Target, form: str = "text") -> None:
        self.target = target
        self.form = form
        self.binary = form == "binary"
        log, copied = FORMATS[form]
        self.log = self.relation(log)
        self.copied = self.relation(copied)
        self._opened: list[Applier] = []
        self._ordinal = 0

    def relation(
        self,
        format: Format,
        name: str = "item",
        columns: tuple[Column, ...] | None = None,
        key: tuple[int, ...] = (0,),
    ) -> Relation:
        own = MYSQL_COLUMNS if format is Format.LINE else COLUMNS
        dialect = "mysql" if format is Format.LINE else "postgres"
        return Relation("public", name, columns or own, key, format, dialect=dialect)

    def open(
        self, holder: str | None = "test", sync: str = SYNC, *, begun: bool = False
    ) -> Applier:
        """An applier; with `begun` ready for batches on `item`, its checkpoint at 0."""
        applier = applier_for(self.target.url, None, sync)
        self._opened.append(applier)
        applier.open(holder)
        if begun:
            applier.prepare(self.log)
            applier.prepare(self.copied)
            self._begin(applier)
        return applier

    def begun_again(self) -> Applier:
        """The applier that was opened first, its checkpoint back at 0."""
        if not self._opened:
            return self.open(begun=True)
        self._begin(self._opened[0])
        return self._opened[0]

    def open_unique(self, *items: Item) -> Applier:
        """One that is begun, on a table with a secondary unique column, which holds `items`."""
        self.target.execute(MADE)
        self.fill(items)
        return self.open(begun=True)

    def source_with(self, *items: Item, at: int = 7) -> Rereads:
        """A source that has `items` when it is read again, at position `at`."""
        return Rereads(self, lambda commit: (at, by_id(*items)))

    def close(self) -> None:
        for applier in self._opened:
            applier.close()
        self._opened.clear()

    def items(self) -> dict[int, Item]:
        """What the target has."""
        return {row[0]: Item(*row) for row in self.target.rows("SELECT id, code, n, big FROM item")}

    def fill(self, items: Iterable[Item]) -> None:
        """Writes rows behind the applier's back. Values without quotes only."""
        for item in items:
            values = ("NULL" if v is None else f"'{v}'" for v in item)
            self.target.execute(f"INSERT INTO item (id, code, n, big) VALUES ({', '.join(values)})")

    def insert(self, item: Item, at: int = 1) -> Delta:
        return self._delta(Op.INSERT, None, self.image(item), at)

    def update(self, item: Item, old_id: int | None = None, at: int = 1) -> Delta:
        before = None if old_id is None else self.image(Item(old_id))
        return self._delta(Op.UPDATE, before, self.image(item), at)

    def delete(self, id: int, at: int = 1) -> Delta:
        return self._delta(Op.DELETE, self.image(Item(id)), None, at)

    def truncate(self, at: int = 1) -> Delta:
        return self._delta(Op.TRUNCATE, None, None, at)

    def image(self, item: Item) -> bytes:
        if self.form == "line":
            return line(self._values(item))
        return pgoutput_image(self._values(item), b"b" if self.binary else b"t")

    def copied_image(self, item: Item) -> bytes:
        values = self._values(item)
        if self.form == "line":
            return line(values)
        return copy_binary_row(values) if self.binary else copy_text_line(values)

    def chunk(self, number: int, items: Iterable[Item], block: int = 2) -> Chunk:
        images = [self.copied_image(i) for i in items]
        blocks = (images[n : n + block] for n in range(0, len(images), block))
        return Chunk(self.copied, number, iter(list(blocks)))

    def key_blocks(self, ids: Iterable[int]) -> list[list[bytes]]:
        return [[self.copied_image(Item(i)) for i in ids]]

    def number(self, value: bytes) -> int:
        return int.from_bytes(value, "big", signed=True) if self.binary else int(value)

    def apply(
        self,
        applier: Applier,
        deltas: list[Delta],
        to: int | None,
        redo: Iterable[str] = (),
        reread: Rereader = no_reread,
    ) -> Applied:
        at = None if to is None else position(to)
        return applier.apply(
            Batch(in_runs(deltas), at, commit(to or 0).committed_at, frozenset(redo)), reread
        )

    def plan(self, applier: Applier, chunks: int) -> None:
        with applier.state.transaction():
            applier.state.plan(TableState(TABLE), [f"bounds {n}" for n in range(chunks)])

    def _begin(self, applier: Applier) -> None:
        with applier.state.transaction():
            applier.state.begin('{"system": "1"}', position(0), [TABLE])

    def _delta(self, op: Op, before: bytes | None, after: bytes | None, at: int) -> Delta:
        self._ordinal += 1
        return Delta(op, self.log, before, after, commit(at), self._ordinal)

    def _values(self, item: Item) -> list[Value]:
        return [self._value(v, width) for v, width in zip(item, (">q", "", ">i", ""), strict=True)]

    def _value(self, value: Any, width: str) -> Value:
        if value is None or value is UNCHANGED:
            return value
        if self.binary and width:
            return struct.pack(width, value)
        return str(value).encode()
