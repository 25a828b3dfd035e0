"""A sync into one MariaDB or MySQL database, without a source: deltas are made by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from appliers.batch import Batch, Chunk, Reread
from appliers.checkpoint import TableState
from appliers.delta import UNCHANGED, Commit, Delta, Op, Value
from appliers.images import Format
from appliers.lines import line
from appliers.mysql import MysqlApplier, session, stream
from appliers.relation import Column, Relation
from tests.applier_bed import no_reread
from tests.mysql_databases import MysqlDatabase

ID = Column("id", "bigint(20)", "bigint", nullable=False)
TEXT = Column("v", "varchar(190)", "varchar")
NUMBER = Column("n", "int(11)", "int")


class Target:
    """Every `apply` is one transaction of the source, or a piece of one."""

    def __init__(self, db: MysqlDatabase, url: str | None = None, sync: str = "my") -> None:
        self.db = db
        self.sync = sync
        self.url = url or db.url
        self.number = 0
        self.applier = self.opened()
        with self.applier.state.transaction():
            self.applier.state.begin("{}", "0", [])

    def opened(self, holder: str | None = "tester 1", sync: str | None = None) -> MysqlApplier:
        applier = MysqlApplier(self.url, None, sync or self.sync)
        applier.open(holder)
        return applier

    def relation(
        self, name: str, *columns: Column, key: Sequence[int] = (0,), schema: str = "crm"
    ) -> Relation:
        relation = Relation(
            schema, name, columns, tuple(key), Format.LINE, dialect="mysql", home="crm"
        )
        self.applier.prepare(relation)
        return relation

    def image(self, relation: Relation, *values: object) -> bytes:
        assert len(values) == len(relation.columns)
        return line([_value(v) for v in values])

    def insert(self, relation: Relation, *values: object) -> Delta:
        return self._delta(Op.INSERT, relation, None, self.image(relation, *values))

    def update(self, relation: Relation, *values: object, old: object = None) -> Delta:
        before = None
        if old is not None:
            before = self.image(relation, old, *[None] * (len(values) - 1))
        return self._delta(Op.UPDATE, relation, before, self.image(relation, *values))

    def delete(self, relation: Relation, key: object) -> Delta:
        rest = [None] * (len(relation.columns) - 1)
        return self._delta(Op.DELETE, relation, self.image(relation, key, *rest), None)

    def truncate(self, relation: Relation) -> Delta:
        return self._delta(Op.TRUNCATE, relation, None, None)

    def apply(
        self,
        *deltas: Delta,
        done: bool = True,
        redo: Sequence[str] = (),
        reread: Callable[..., Reread] = no_reread,
    ) -> int:
        """Applies and returns what was healed."""
        position = self.next() if done else None
        applied = self.applier.apply(Batch(list(deltas), position, 0, frozenset(redo)), reread)
        return applied.healed

    def copy(self, relation: Relation, *rows: Sequence[object], block: int = 2) -> int:
        """Copies one chunk."""
        with self.applier.state.transaction():
            self.applier.state.plan(TableState(relation.table), ["all"])
        images = [self.image(relation, *row) for row in rows]
        blocks = [images[n : n + block] for n in range(0, len(images), block)]
        return self.applier.copy(Chunk(relation, 0, iter(blocks)), "9")

    def next(self) -> str:
        self.number += 1
        return str(self.number)

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return self.db.rows(sql)

    def _delta(
        self, op: Op, relation: Relation, before: bytes | None, after: bytes | None
    ) -> Delta:
        return Delta(op, relation, before, after, Commit(str(self.number + 1), 1, 0), 1)


def _value(value: object) -> Value:
    if value is None or value is UNCHANGED or isinstance(value, bytes):
        return value
    return str(value).encode()


def without_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that are opened from now on find local_infile off."""
    settle = session.Session._settle

    def settled(self: session.Session) -> None:
        settle(self)
        self.may_load = False

    monkeypatch.setattr(session.Session, "_settle", settled)


@pytest.fixture(params=["rows", "sets", "inserts"])
def mysql_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Row by row; in sets by LOAD DATA; in sets by INSERT."""
    monkeypatch.setattr(stream, "FEW", 1000 if request.param == "rows" else -1)
    if request.param == "inserts":
        without_load(monkeypatch)
    return str(request.param)


@pytest.fixture
def mariadb_bed(mariadb_target: MysqlDatabase) -> Iterator[Target]:
    made = Target(mariadb_target)
    yield made
    made.applier.close()


@pytest.fixture
def any_mysql_bed(any_mysql_target: MysqlDatabase) -> Iterator[Target]:
    """On MariaDB, and on MySQL where it can be had."""
    made = Target(any_mysql_target)
    yield made
    made.applier.close()
