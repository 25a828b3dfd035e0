"""What PostgreSQL as a target adds to the contract suite: its constraints, triggers, types, origins,
privileges and errors; and both ways of writing, row by row and in sets."""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliers.batch import Batch, Chunk, Reread
from appliers.checkpoint import Copy, TableState
from appliers.delta import UNCHANGED, Commit, Delta, Op, Value
from appliers.errors import (
    FencedError,
    FormatError,
    LockedError,
    OrderError,
    PermanentError,
    SyncError,
    TransientError,
)
from appliers.finding import Finding
from appliers.images import Format, copy_text_line, pgoutput_image
from appliers.postgres import PostgresApplier
from appliers.postgres import applier as applier_module
from appliers.postgres.lock import application_name
from appliers.relation import Column, Relation
from tests import targets
from tests.applier_bed import Bed, PostgresTarget, no_reread
from tests.databases import Database
from tests.implementations import compiled
from tests.servers import MakeServer, on_every_target, wait_until
from tests.test_applier_histories import KEYS, LENGTHS, SEEDS, SETTINGS, syncing

ID = Column("id", "bigint", "int8", nullable=False)
TEXT = Column("v", "text", "text")


class Target:
    """A sync into `db`, in one format; every apply is one transaction of the source."""

    def __init__(self, db: Database, *, binary: bool = False) -> None:
        self.db = db
        self.format = Format.PGOUTPUT_BINARY if binary else Format.PGOUTPUT_TEXT
        self.binary = binary
        self.number = 0
        self.applier = self.opened()
        with self.applier.state.transaction():
            self.applier.state.begin("{}", "0/0", [])

    def opened(self, holder: str | None = "tester 1", sync: str = "pg") -> PostgresApplier:
        applier = PostgresApplier(self.db.url, None, sync)
        applier.open(holder)
        return applier

    def relation(
        self, name: str, *columns: Column, key: Sequence[int] = (0,), schema: str = "public"
    ) -> Relation:
        relation = Relation(schema, name, columns, tuple(key), self.format)
        self.applier.prepare(relation)
        return relation

    def image(self, relation: Relation, *values: object) -> bytes:
        encode = _binary if self.binary else _text
        given: list[Value] = [
            v if v is None or v is UNCHANGED else encode(c, v)
            for c, v in zip(relation.columns, values, strict=True)
        ]
        return pgoutput_image(given, b"b" if self.binary else b"t")

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

    def next(self) -> str:
        self.number += 1
        return f"0/{self.number:X}"

    def _delta(
        self, op: Op, relation: Relation, before: bytes | None, after: bytes | None
    ) -> Delta:
        return Delta(op, relation, before, after, Commit(f"0/{self.number + 1:X}", 1, 0), 1)


def _text(column: Column, value: object) -> bytes:
    return str(value).encode()


def _binary(column: Column, value: object) -> bytes:
    if isinstance(value, int):
        return value.to_bytes({"int2": 2, "int4": 4, "int8": 8}[column.base], "big", signed=True)
    assert isinstance(value, str)
    return value.encode("latin-1" if column.kind == "array" else "utf-8")


@pytest.fixture(params=["rows", "sets"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small batches row by row, as they are, or in sets, as large ones are."""
    if request.param == "sets":
        monkeypatch.setattr(applier_module, "FEW", -1)
    return str(request.param)


@pytest.fixture(params=["text", "binary"])
def target(request: pytest.FixtureRequest, target_db: Database) -> Iterator[Target]:
    target = Target(target_db, binary=request.param == "binary")
    yield target
    target.applier.close()


@pytest.fixture
def text_target(target_db: Database) -> Iterator[Target]:
    target = Target(target_db)
    yield target
    target.applier.close()


# -- both ways of writing --------------------------------------------------------------------------


@pytest.fixture(params=["text", "binary"])
def sets_bed(
    request: pytest.FixtureRequest, target_db: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bed]:
    monkeypatch.setattr(applier_module, "FEW", -1)
    bed = Bed(PostgresTarget(target_db), request.param)
    yield bed
    bed.close()


@SETTINGS
@given(seed=SEEDS, transactions=LENGTHS, keys=KEYS)
def test_random_histories_in_sets(sets_bed: Bed, seed: int, transactions: int, keys: int) -> None:
    """Batches of any size may be written in sets: every state of the source is reached."""
    with syncing(sets_bed, seed, transactions, keys) as sync:
        sync.start_exact()
        while not sync.over:
            sync.step()
            if sync.exact:
                assert sets_bed.items() == sync.history.states[sync.at]
        assert sync.healed == 0


@SETTINGS
@given(seed=SEEDS, transactions=LENGTHS, keys=KEYS)
def test_random_copies_in_sets(sets_bed: Bed, seed: int, transactions: int, keys: int) -> None:
    """The redo rules hold in sets as well."""
    with syncing(sets_bed, seed, transactions, keys) as sync:
        sync.start_copy(keys)
        while not (sync.over and sync.exact):
            sync.step()
            if sync.exact:
                assert sets_bed.items() == sync.history.states[sync.at]
        assert sync.healed == 0


@on_every_target
def test_a_large_batch_with_everything(target: Target, seed: int) -> None:
    """20,000 deltas of all kinds come to the rows that they describe, on old servers too."""
    draw = random.Random(seed)
    relation = target.relation("big", ID, TEXT, Column("n", "integer", "int4"))
    rows: dict[int, tuple[str, int]] = {}
    deltas: list[Delta] = []
    for number in range(20_000):
        key = draw.randrange(3000)
        new = (f"{number}\t\\\n'é", number)
        if key not in rows:
            rows[key] = new
            deltas.append(target.insert(relation, key, *new))
        elif draw.random() < 0.3:
            del rows[key]
            deltas.append(target.delete(relation, key))
        elif draw.random() < 0.5:
            rows[key] = (rows[key][0], number)
            deltas.append(target.update(relation, key, UNCHANGED, number))
        else:
            rows[key] = new
            deltas.append(target.update(relation, key, *new))
    assert target.apply(*deltas[:10_000]) == 0
    assert target.apply(*deltas[10_000:]) == 0
    found = {k: (v, n) for k, v, n in target.db.rows("SELECT id, v, n FROM big")}
    assert found == rows


@pytest.mark.usefixtures("way")
def test_healing_is_counted_once_a_row(target: Target) -> None:
    """Missing rows that are updated several times, moved, deleted: one divergence each."""
    relation = target.relation("t", ID, TEXT)
    healed = target.apply(
        target.update(relation, 1, "a"),
        target.update(relation, 1, "b"),
        target.update(relation, 2, "gone"),
        target.delete(relation, 2),
        target.update(relation, 4, "moved", old=3),
        target.delete(relation, 5),
    )
    assert target.db.rows("SELECT id, v FROM t ORDER BY id") == [(1, "b"), (4, "moved")]
    assert healed in (2, 3), "a row that is deleted again may go unnoticed in sets"
    assert target.applier.state.load().healed == healed  # type: ignore[union-attr]


# -- constraints of the target ---------------------------------------------------------------------


@pytest.mark.usefixtures("way")
def test_foreign_keys_are_respected_and_enforced(target: Target) -> None:
    """Parents and children in one batch, in either order, inserted and deleted; what the source would
    not allow either is refused with the constraint's name and without values."""
    target.db.execute(
        "CREATE TABLE parent (id bigint PRIMARY KEY, v text);"
        "CREATE TABLE child (id bigint PRIMARY KEY, p bigint REFERENCES parent, v text)"
    )
    parent = target.relation("parent", ID, TEXT)
    child = target.relation("child", ID, Column("p", "bigint", "int8"), TEXT)
    target.apply(target.insert(child, 1, 1, "c"), target.insert(parent, 1, "p"))
    target.apply(
        target.insert(parent, 2, "q"),
        target.update(child, 1, 2, "moved"),
        target.delete(parent, 1),
    )
    assert target.db.rows("SELECT id, p FROM child") == [(1, 2)]
    target.apply(target.delete(parent, 2), target.delete(child, 1))
    assert target.db.value("SELECT count(*) FROM parent") == 0
    with pytest.raises(PermanentError) as refused:
        target.apply(target.insert(child, 4711, 4712, "secret"))
    message = str(refused.value)
    assert "public.child (key id)" in message
    assert "child_p_fkey" in message
    assert refused.value.hint
    assert not any(value in message for value in ("4711", "4712", "secret"))


@pytest.mark.usefixtures("way")
def test_deferrable_constraints_wait_for_the_commit(target: Target) -> None:
    """A child may be written long before its parent, and unique values may meet, where the target's
    constraints are deferrable: even over the pieces of a transaction."""
    target.db.execute(
        "CREATE TABLE parent (id bigint PRIMARY KEY, v text UNIQUE DEFERRABLE);"
        "CREATE TABLE child (id bigint PRIMARY KEY, p bigint REFERENCES parent DEFERRABLE)"
    )
    parent = target.relation("parent", ID, TEXT)
    child = target.relation("child", ID, Column("p", "bigint", "int8"))
    target.apply(target.insert(child, 1, 1), done=False)
    target.apply(target.insert(parent, 1, "a"), target.insert(parent, 2, "b"))
    target.apply(target.update(parent, 1, "b"), done=False)
    target.apply(target.update(parent, 2, "a"))
    assert target.db.rows("SELECT id, v FROM parent ORDER BY id") == [(1, "b"), (2, "a")]
    target.apply(target.insert(child, 2, 99), done=False)
    with pytest.raises(PermanentError, match="child_p_fkey"):
        target.apply(target.insert(child, 3, 1))
    assert target.db.value("SELECT count(*) FROM child") == 1


@pytest.mark.usefixtures("way")
def test_self_references(target: Target) -> None:
    """Rows that refer to rows of their own table come and go in one batch."""
    target.db.execute("CREATE TABLE tree (id bigint PRIMARY KEY, up bigint REFERENCES tree)")
    tree = target.relation("tree", ID, Column("up", "bigint", "int8"))
    target.apply(*[target.insert(tree, i, i - 1 or None) for i in range(1, 200)])
    target.apply(*[target.delete(tree, i) for i in range(199, 0, -1)])
    assert target.db.value("SELECT count(*) FROM tree") == 0


@pytest.mark.usefixtures("way")
def test_a_deferrable_key(target: Target) -> None:
    """A key whose constraint may be deferred cannot be named in ON CONFLICT: rows are still written
    over what is there."""
    target.db.execute("CREATE TABLE t (id bigint PRIMARY KEY DEFERRABLE, v text)")
    relation = target.relation("t", ID, TEXT)
    target.apply(target.insert(relation, 1, "a"), target.insert(relation, 2, "b"))
    target.apply(target.insert(relation, 1, "c"), redo=["public.t"])
    target.apply(
        target.insert(relation, 3, "d"), target.update(relation, 2, "e"), redo=["public.t"]
    )
    rows = target.db.rows("SELECT id, v FROM t ORDER BY id")
    assert rows == [(1, "c"), (2, "e"), (3, "d")]


@pytest.mark.usefixtures("way")
def test_unique_expressions_partial_indexes_and_equal_nulls(target: Target) -> None:
    """In a redo, rows that hold a unique value of any kind of index give way, and no others."""
    target.db.execute(
        'CREATE TABLE t (id bigint PRIMARY KEY, "V" text, n int, m int);'
        'CREATE UNIQUE INDEX ON t (lower("V") COLLATE "C");'
        "CREATE UNIQUE INDEX ON t (n) WHERE m > 0;"
        "CREATE UNIQUE INDEX ON t (m) NULLS NOT DISTINCT;"
        "INSERT INTO t VALUES (1, 'ABC', 1, 1), (2, 'x', 2, 2), (3, 'y', 3, NULL), (4, 'z', 9, -1)"
    )
    columns = (
        Column("V", "text", "text"),
        Column("n", "integer", "int4"),
        Column("m", "integer", "int4"),
    )
    relation = target.relation("t", ID, *columns)
    target.apply(target.insert(relation, 11, "abc", 11, 11), redo=["public.t"])
    target.apply(target.insert(relation, 12, "w", 2, 12), redo=["public.t"])
    target.apply(target.insert(relation, 13, "v", 9, None), redo=["public.t"])
    rows = target.db.rows("SELECT id FROM t ORDER BY id")
    assert rows == [(4,), (11,), (12,), (13,)]


@pytest.mark.usefixtures("way")
def test_triggers_fire_for_what_happened(target: Target) -> None:
    """An insert fires INSERT triggers, an update UPDATE triggers alone, for each row and for each
    statement; names in them are found as the role would find them."""
    target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text);"
        "CREATE TABLE fired (what text);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO fired VALUES (TG_OP); RETURN NULL; END $$;"
        "CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();"
    )
    relation = target.relation("t", ID, TEXT)
    target.apply(target.insert(relation, 1, "a"), target.insert(relation, 2, "b"))
    target.apply(target.update(relation, 1, "c"))
    target.apply(target.delete(relation, 2))
    fired = target.db.rows("SELECT what, count(*) FROM fired GROUP BY 1 ORDER BY 1")
    assert fired == [("DELETE", 1), ("INSERT", 2), ("UPDATE", 1)]


@pytest.mark.usefixtures("way")
def test_an_update_that_a_trigger_suppresses_is_no_divergence(target: Target) -> None:
    """The row is there: nothing is inserted in its place."""
    target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'kept');"
        "CREATE TRIGGER z BEFORE UPDATE ON t FOR EACH ROW WHEN (OLD.v = NEW.v)"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    relation = target.relation("t", ID, TEXT)
    target.apply(target.update(relation, 1, "kept"))
    assert target.db.rows("SELECT id, v FROM t") == [(1, "kept")]


@pytest.mark.usefixtures("way")
def test_truncate(target: Target) -> None:
    """Tables that refer to each other are emptied together; one that others refer to is emptied row
    by row; tables that inherit are left alone; what comes after stays."""
    target.db.execute(
        "CREATE TABLE parent (id bigint PRIMARY KEY, v text);"
        "CREATE TABLE heir () INHERITS (parent); INSERT INTO heir VALUES (7, 'heir');"
        "CREATE TABLE child (id bigint PRIMARY KEY, p bigint REFERENCES parent)"
    )
    parent = target.relation("parent", ID, TEXT)
    child = target.relation("child", ID, Column("p", "bigint", "int8"))
    target.apply(target.insert(parent, 1, "a"), target.insert(child, 1, 1))
    target.apply(target.truncate(parent), target.truncate(child), target.insert(parent, 2, "b"))
    assert target.db.rows("SELECT id FROM ONLY parent") == [(2,)]
    target.apply(target.truncate(parent))
    assert target.db.rows("SELECT id FROM parent") == [(7,)]
    assert target.db.value("SELECT count(*) FROM child") == 0


# -- columns, names and types ----------------------------------------------------------------------


@pytest.mark.usefixtures("way")
def test_odd_names(target: Target) -> None:
    """Upper case, reserved words, quotes, per cent signs, dollars and other alphabets."""
    columns = [
        Column(n, "text", "text") for n in ("select", "Größe", 'a"b', "100%s", "$1", "表", "cdc t")
    ]
    relation = target.relation(
        'Or"der', Column("Key %", "bigint", "int8"), *columns, schema='My "S"'
    )
    row = ["x"] * len(columns)
    target.apply(target.insert(relation, 1, *row), target.insert(relation, 2, *row))
    target.apply(target.update(relation, 1, "y", *row[1:]), target.update(relation, 3, *row, old=2))
    target.apply(target.update(relation, 3, "z", *[UNCHANGED] * 6), redo=[relation.table])
    rows = target.db.rows(
        'SELECT "Key %", "select" FROM "My ""S"""."Or""der" ORDER BY 1'.replace("%", "%%"), []
    )
    assert rows == [(1, "y"), (3, "z")]


@pytest.mark.usefixtures("way")
def test_identity_and_generated_columns(target: Target) -> None:
    """The source's numbers are written into GENERATED ALWAYS AS IDENTITY; what the target computes
    is left to it; columns that the source does not have keep their defaults and values."""
    target.db.execute(
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text,"
        " up text GENERATED ALWAYS AS (upper(v)) STORED, own int DEFAULT 5)"
    )
    relation = target.relation("t", ID, TEXT, Column("up", "text", "text"))
    target.apply(target.insert(relation, 41, "a", "from the source"))
    target.db.execute("UPDATE t SET own = 6")
    target.apply(target.update(relation, 41, "b", "x"), target.insert(relation, 42, "c", "x"))
    target.apply(target.update(relation, 42, "d", "x"), redo=["public.t"])
    rows = target.db.rows("SELECT id, v, up, own FROM t ORDER BY id")
    assert rows == [(41, "b", "B", 6), (42, "d", "D", 5)]


def test_created_tables(text_target: Target) -> None:
    """The source's types where the target has them; a domain's base type; else text. NOT NULL and the
    primary key on the key in the key's order, and nothing else."""
    text_target.db.execute("CREATE SCHEMA s; CREATE TYPE s.mood AS ENUM ('ok')")
    relation = text_target.relation(
        "made",
        Column("b", "numeric(10,2)", "numeric", nullable=False),
        Column("a", "character varying(40)", "varchar", nullable=False),
        Column("mood", "s.mood", "mood", "enum"),
        Column("other", "s.other", "other", "enum"),
        Column("email", "s.email", "varchar"),
        Column("tags", "s.tags[]", "int4", "array"),
        Column("point", "s.point3", "point3", "composite", portable=False),
        Column("many", "timestamp(3) with time zone[]", "timestamptz", "array"),
        Column("odd", '"char"', "char"),
        key=(1, 0),
        schema="new schema",
    )
    rows = text_target.db.rows(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        " WHERE attrelid = '\"new schema\".made'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert rows == [
        ("b", "numeric(10,2)", True),
        ("a", "character varying(40)", True),
        ("mood", "s.mood", False),
        ("other", "text", False),
        ("email", "character varying", False),
        ("tags", "integer[]", False),
        ("point", "text", False),
        ("many", "timestamp(3) with time zone[]", False),
        ("odd", '"char"', False),
    ]
    made = (
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'p' AND conrelid = '\"new schema\".made'::regclass"
    )
    assert text_target.db.value(made) == "PRIMARY KEY (a, b)"
    assert text_target.applier.is_empty(relation)


@pytest.mark.parametrize(
    ("column", "declared", "binary"),
    [
        (Column("x", "integer", "int4"), "integer", True),
        (Column("x", "integer", "int4"), "bigint", False),
        (Column("x", "text", "text"), "varchar(9)", True),
        (Column("x", "text", "text"), "name", False),
        (Column("x", "mood", "mood", "enum"), "text", True),
        (Column("x", "mood", "mood", "enum"), "mood", True),
        (Column("x", "text", "text"), "mood", True),
        (Column("x", "integer", "int4"), "positive", True),
        (Column("x", "integer[]", "int4", "array"), "integer[]", True),
        (Column("x", "integer[]", "int4", "array"), "bigint[]", False),
        (Column("x", "text[]", "text", "array"), "varchar[]", False),
        (Column("x", "integer", "int4"), "integer[]", False),
        (Column("x", "jsonb", "jsonb"), "json", False),
        (Column("x", "regclass", "regclass", portable=False), "regclass", False),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_binary_only_between_equal_types(
    text_target: Target, column: Column, declared: str, binary: bool
) -> None:
    """Binary is accepted where both types read the same bytes alike."""
    text_target.db.execute(
        "CREATE TYPE mood AS ENUM ('ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);"
        f"CREATE TABLE t (id bigint PRIMARY KEY, x {declared})"
    )
    relation = Relation("public", "t", (ID, column), (0,), Format.PGOUTPUT_BINARY)
    assert text_target.applier.accepts_binary(relation) is binary
    if not binary:
        with pytest.raises(FormatError):
            text_target.applier.prepare(relation)


def test_a_column_that_changes_under_way_asks_for_text(
    target_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target's column that is widened while binary rows come: the session is to begin again."""
    monkeypatch.setattr(applier_module, "FEW", -1)
    target = Target(target_db, binary=True)
    relation = target.relation("t", ID, Column("n", "integer", "int4"))
    target.apply(target.insert(relation, 1, 1))
    target_db.execute("ALTER TABLE t ALTER n TYPE bigint")
    with pytest.raises(FormatError):
        target.apply(target.insert(relation, 2, 2))
    target.applier.close()
    applier = target.opened()
    assert not applier.accepts_binary(relation)
    applier.close()


@pytest.mark.usefixtures("way")
def test_keys_whose_equality_is_wider_than_bytes(text_target: Target) -> None:
    """citext and numeric keys: a change of case or scale is a change of the key, and the row is one."""
    text_target.db.execute("CREATE SCHEMA x; CREATE EXTENSION citext SCHEMA x")
    text_target.db.execute("CREATE TABLE c (k x.citext PRIMARY KEY, v text)")
    c = text_target.relation("c", Column("k", "citext", "citext", folds=True), TEXT)
    n = text_target.relation("n", Column("k", "numeric", "numeric"), TEXT)
    text_target.apply(text_target.insert(c, "Ada", "1"), text_target.insert(n, "1.0", "1"))
    text_target.apply(
        text_target.update(c, "ADA", "2", old="Ada"), text_target.update(n, "1.00", "2", old="1.0")
    )
    text_target.apply(text_target.insert(c, "ada", "3"), redo=["public.c"])
    text_target.apply(text_target.update(n, "1.000", "3"), redo=["public.n"])
    assert text_target.db.rows("SELECT k::text, v FROM c") == [("ada", "3")]
    assert text_target.db.rows("SELECT k::text, v FROM n") == [("1.000", "3")]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("redo", [[], ["public.p"]])
def test_a_key_of_another_scale_beside_a_parent_that_goes(
    text_target: Target, redo: list[str]
) -> None:
    """The deleted parent is referred to until its child is written, so deletes come last: but not that of
    1.0, which is the row 1.00 by now."""
    number = Column("k", "numeric", "numeric", nullable=False)
    text_target.db.execute(
        "CREATE TABLE p (k numeric PRIMARY KEY, v text);"
        "CREATE TABLE c (id bigint PRIMARY KEY, k numeric REFERENCES p);"
        "INSERT INTO p VALUES (5, 'a'), (1.0, 'b'), (6, 'c'); INSERT INTO c VALUES (1, 5)"
    )
    p, c = text_target.relation("p", number, TEXT), text_target.relation("c", ID, number)
    changes = [
        text_target.delete(p, "5"),
        text_target.update(c, 1, "6"),
        text_target.update(p, "1.00", "bb", old="1.0"),
    ]
    assert text_target.apply(*changes, redo=redo) == 0
    assert text_target.db.rows("SELECT k::text, v FROM p") == [("6", "c"), ("1.00", "bb")]


NARROWER: Final = [
    ("numeric", "numeric", "numeric(10,2)", "1.239", "rounds"),
    ("numeric(10,4)", "numeric", "numeric(20,2)", "1.239", "rounds"),
    ("numeric", "numeric", "double precision", "1.00000000000000000001", "rounds"),
    ("numeric", "numeric", "money", "1.239", "rounds"),
    ("double precision", "float8", "real", "0.1234567891", "rounds"),
    ("bigint", "int8", "double precision", "9007199254740993", "rounds"),
    ("integer", "int4", "real", "16777217", "rounds"),
    ("bigint", "int8", "numeric(10,-2)", "149", "rounds"),
    ("timestamp without time zone", "timestamp", "timestamp(0)", "2024-01-01 00:00:00.6", "rounds"),
    (
        "timestamp(3) without time zone",
        "timestamp",
        "timestamp(2)",
        "2024-01-01 00:00:00.666",
        "rounds",
    ),
    ("timestamp without time zone", "timestamp", "date", "2024-01-01 10:00:00", "drops the time"),
    (
        "timestamp with time zone",
        "timestamptz",
        "timestamp",
        "2024-01-01 00:00:00+02",
        "drops the zone",
    ),
    ("timestamp without time zone", "timestamp", "time", "2024-01-01 10:00:00", "drops the date"),
    ("time with time zone", "timetz", "time", "10:00:00+02", "drops the zone"),
    ("text", "text", "name", "x" * 70, "cuts what is too long"),
    ("text", "text", "bytea", r"\\134", "reads backslashes as escapes"),
]


@pytest.mark.parametrize(("type_name", "base", "declared", "value", "does"), NARROWER)
def test_a_column_that_would_change_values_is_refused(
    text_target: Target, type_name: str, base: str, declared: str, value: str, does: str
) -> None:
    """PostgreSQL rounds and cuts without an error what goes into a narrower type; with the column that is
    told to be made, it is the same on both sides."""
    text_target.db.execute(f"CREATE TABLE t (id bigint PRIMARY KEY, v {declared})")
    column = Column("v", type_name, base)
    with pytest.raises(
        PermanentError, match=f"on the target, which {does} without an error"
    ) as refused:
        text_target.relation("t", ID, column)
    text_target.db.execute("ALTER TABLE t DROP COLUMN v")
    text_target.db.execute(f"ALTER TABLE t ADD COLUMN v {refused.value.hint.split(' TYPE ')[1]}")
    t = text_target.relation("t", ID, column)
    text_target.apply(text_target.insert(t, 1, value))
    assert text_target.db.value(f"SELECT v = '{value}'::{type_name} FROM t") is True


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", ["ALWAYS", "BY DEFAULT"])
def test_a_key_that_its_followers_keep(target: Target, kind: str) -> None:
    """A key that is GENERATED ALWAYS takes no UPDATE, and one that is referred to without ON UPDATE CASCADE
    neither: the old row goes when its children are the new one's, and not before."""
    target.db.execute(
        f"CREATE TABLE p (id bigint GENERATED {kind} AS IDENTITY PRIMARY KEY, v text);"
        "CREATE TABLE c (id bigint PRIMARY KEY, p bigint REFERENCES p ON DELETE CASCADE, own int);"
        "INSERT INTO p VALUES (DEFAULT, 'a'), (DEFAULT, 'b'); INSERT INTO c VALUES (1, 1, 7), (2, 2, 7)"
    )
    p = target.relation("p", ID, TEXT)
    c = target.relation("c", ID, Column("p", "bigint", "int8"))
    target.apply(target.update(p, 5, "a", old=1), target.update(c, 1, 5))
    with pytest.raises(OrderError, match="c_p_fkey would delete or change rows"):
        target.apply(target.update(p, 6, "b", old=2))
    assert target.db.rows("SELECT id, p, own FROM c ORDER BY id") == [(1, 5, 7), (2, 2, 7)]
    assert target.db.rows("SELECT id FROM p ORDER BY id") == [(2,), (5,)]


def test_a_key_that_would_take_two_rows_for_one_is_refused(text_target: Target) -> None:
    """Texts that the source keeps apart, and the target's type or collation does not."""
    text_target.db.execute("CREATE EXTENSION citext; CREATE TABLE c (k citext PRIMARY KEY, v text)")
    key = Column("k", "text", "text")
    with pytest.raises(PermanentError, match="takes unlike texts for equal") as refused:
        text_target.relation("c", key, TEXT)
    text_target.db.execute(refused.value.hint)
    c = text_target.relation("c", key, TEXT)
    text_target.apply(text_target.insert(c, "a", "1"), text_target.insert(c, "A", "2"))
    assert text_target.db.value("SELECT count(*) FROM c") == 2


@pytest.mark.usefixtures("way")
def test_a_key_that_the_target_prints_otherwise_is_healed(text_target: Target) -> None:
    """The target's key column has more digits: a missing row is found all the same."""
    text_target.db.execute("CREATE TABLE t (k numeric(10,2) PRIMARY KEY, v text)")
    t = text_target.relation("t", Column("k", "numeric(10,1)", "numeric"), TEXT)
    assert text_target.apply(text_target.update(t, "1.5", "a")) == 1
    assert text_target.db.rows("SELECT k::text, v FROM t") == [("1.50", "a")]


@pytest.mark.usefixtures("way")
def test_partitioned_targets(target: Target) -> None:
    """Rows find their partitions, and move between them."""
    target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100);"
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (200)"
    )
    t = target.relation("t", ID, TEXT)
    target.apply(target.insert(t, 1, "a"), target.insert(t, 101, "b"))
    target.apply(
        target.update(t, 102, "c", old=1), target.update(t, 101, "d"), target.insert(t, 2, "e")
    )
    target.apply(target.delete(t, 2), target.insert(t, 101, "f"), redo=["public.t"])
    assert target.db.rows("SELECT id, v FROM t2 ORDER BY id") == [(101, "f"), (102, "c")]
    target.apply(target.truncate(t))
    assert target.applier.is_empty(t)


# -- transactions, pieces, pipelines ---------------------------------------------------------------


def test_a_transaction_in_pieces_survives_a_violation(target: Target) -> None:
    """A piece that meets a constraint is written again by itself: the pieces before it stay, and the
    staging tables made in it are made again."""
    target.db.execute("CREATE TABLE t (id bigint PRIMARY KEY, v text UNIQUE)")
    t = target.relation("t", ID, TEXT)
    target.apply(*[target.insert(t, i, f"v{i}") for i in range(300)], done=False)
    swap = [target.update(t, i, f"v{(i + 1) % 300}") for i in range(300)]
    target.apply(*swap, done=False)
    assert target.db.value("SELECT count(*) FROM t") == 0
    target.apply(*[target.update(t, i, f"w{i}") for i in range(100)])
    rows = dict(target.db.rows("SELECT id, v FROM t"))
    assert rows == {i: f"w{i}" if i < 100 else f"v{(i + 1) % 300}" for i in range(300)}
    assert target.applier.state.load().changes == 700  # type: ignore[union-attr]


def test_rows_larger_than_every_buffer(target: Target) -> None:
    """200 rows of 300 kB, row by row and in sets: neither side waits for the other for ever."""
    t = target.relation("t", ID, TEXT)
    big = "x" * 300_000
    deltas = [target.insert(t, i, f"{big}{i}") for i in range(60)]
    target.apply(*deltas)
    target.apply(*[target.update(t, i % 60, f"{big}!{i}") for i in range(140)])
    assert target.db.value("SELECT sum(length(v)) FROM t") > 60 * 300_000


def test_a_fenced_batch_leaves_nothing(target: Target) -> None:
    """Somebody else has moved the checkpoint: no row is written, in either way."""
    t = target.relation("t", ID, TEXT)
    target.apply(target.insert(t, 1, "a"))
    target.db.execute("UPDATE cdc.cdc_checkpoint SET position = '0/99'")
    with pytest.raises(FencedError):
        target.apply(target.insert(t, 2, "b"))
    assert target.db.rows("SELECT id FROM t") == [(1,)]


def test_the_same_batch_from_two_sessions_at_once(target: Target) -> None:
    """One of them applies it; the other waits for its locks, and is fenced."""
    t = target.relation("t", ID, TEXT)
    other = PostgresApplier(target.db.url, None, "pg")
    other.open(None)
    batch = Batch([target.insert(t, i, "a") for i in range(100)], "0/1")
    outcomes: list[object] = []

    def run(applier: PostgresApplier) -> None:
        try:
            outcomes.append(applier.apply(batch, no_reread).rows)
        except SyncError as e:
            outcomes.append(type(e))

    threads = [threading.Thread(target=run, args=(a,)) for a in (target.applier, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert sorted(outcomes, key=str) in ([100, FencedError], [100, TransientError])
    assert target.db.value("SELECT count(*) FROM t") == 100


def test_flushed_follows_an_idle_server(text_target: Target) -> None:
    """Without any other work on the server, what was committed counts as durable within seconds; after
    a restart of the daemon too."""
    t = text_target.relation("t", ID, TEXT)
    text_target.apply(text_target.insert(t, 1, "a"))
    wait_until(lambda: text_target.applier.flushed() == "0/1", timeout=10)
    text_target.applier.close()
    applier = text_target.opened()
    wait_until(lambda: applier.flushed() == "0/1", timeout=10)
    applier.close()


def test_what_is_flushed_survives_a_crash(make_server: MakeServer) -> None:
    """The server is killed: the checkpoint that was called durable is there, with its rows."""
    server = make_server({"wal_writer_delay": "10s"}, durable=True)
    with psycopg.connect(server.url(), autocommit=True) as db:
        db.execute("CREATE DATABASE crash")
    applier = PostgresApplier(server.url("crash"), None, "pg")
    applier.open("me")
    relation = Relation("public", "t", (ID, TEXT), (0,), Format.PGOUTPUT_TEXT)
    applier.prepare(relation)
    with applier.state.transaction():
        applier.state.begin("{}", "0/0", [])
    for number in range(1, 4):
        row = pgoutput_image([b"%d" % number, b"v"], b"t")
        delta = Delta(Op.INSERT, relation, None, row, Commit("0/1", 1, 0), 1)
        applier.apply(Batch([delta], f"0/{number}"), no_reread)
        if number == 2:
            wait_until(lambda: applier.flushed() == "0/2", timeout=15)
    server.stop("immediate")
    with pytest.raises(TransientError):
        applier.flushed()
    applier.close()
    server.start()
    applier = PostgresApplier(server.url("crash"), None, "pg")
    applier.open("me")
    assert applier.state.position in ("0/2", "0/3")
    with psycopg.connect(server.url("crash")) as db:
        rows = db.execute("SELECT count(*) FROM t").fetchone()
    assert rows == (int(str(applier.state.position)[-1]),)
    applier.close()


# -- copies ----------------------------------------------------------------------------------------


def test_a_copy_falls_back_to_overwriting(
    text_target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are there already, beyond what one straight COPY may hold: all chunks' rows win."""
    monkeypatch.setattr("appliers.postgres.copying.KEPT_BYTES", 10_000)
    text_target.relation("t", ID, TEXT)
    text_target.db.execute("INSERT INTO t SELECT g, 'old' FROM generate_series(5000, 5100) AS g")
    relation = Relation("public", "t", (ID, TEXT), (0,), Format.COPY_TEXT)
    applier = text_target.applier
    applier.prepare(relation)
    state = TableState("public.t")
    with applier.state.transaction():
        applier.state.plan(state, ["a", "b"])
    lines = [copy_text_line([b"%d" % i, b"new"]) for i in range(10_000)]
    blocks = [lines[n : n + 700] for n in range(0, len(lines), 700)]
    assert applier.copy(Chunk(relation, 0, iter(blocks)), "0/5") == 10_000
    assert applier.copy(Chunk(relation, 0, iter(blocks)), "0/5") == 0
    assert applier.copy(Chunk(relation, 1, iter([])), "0/6") == 0
    assert text_target.db.rows("SELECT v, count(*) FROM t GROUP BY v") == [("new", 10_000)]
    kept = applier.state.tables()["public.t"]
    assert (kept.rows, kept.exact_at, kept.copy) == (10_000, "0/6", Copy.COPYING)


def test_a_copy_that_its_source_breaks_off(text_target: Target) -> None:
    """The error of the source leaves as it is, and nothing of the chunk is there."""
    relation = Relation("public", "t", (ID, TEXT), (0,), Format.COPY_TEXT)
    text_target.applier.prepare(relation)
    with text_target.applier.state.transaction():
        text_target.applier.state.plan(TableState("public.t"), ["a"])

    def blocks() -> Iterator[list[bytes]]:
        yield [b"1\ta\n"]
        raise TransientError("the source is gone")

    with pytest.raises(TransientError, match="the source is gone"):
        text_target.applier.copy(Chunk(relation, 0, blocks()), "0/1")
    assert text_target.db.value("SELECT count(*) FROM t") == 0
    assert len(text_target.applier.state.chunks()) == 1


def test_sweep_of_a_large_table(target: Target) -> None:
    """Sweeping takes one pass over the table, not one for each row."""
    t = target.relation("t", ID, TEXT, Column("c", "bigint", "int8"))
    target.db.execute("INSERT INTO t SELECT g, 'x', g % 3 FROM generate_series(1, 100000) AS g")
    keys = [target.image(t, i, None, None) for i in range(1, 100_001) if i % 1000]
    begun = time.monotonic()
    assert target.applier.sweep(t, iter([keys[:50_000], keys[50_000:]]), {"c": "1"}, "0/1") == 34
    assert target.applier.sweep(t, iter([keys]), None, "0/1") == 66
    assert time.monotonic() - begun < 60
    assert target.db.value("SELECT count(*) FROM t") == len(keys)


# -- lock, origin, what is left --------------------------------------------------------------------


def test_the_lock_names_its_holder(text_target: Target) -> None:
    """The second daemon is refused and told who runs the sync, however long the sync's name."""
    with pytest.raises(LockedError) as refused:
        text_target.opened("other")
    assert "sync pg is already run by tester 1" in str(refused.value)
    long = "s" * 60
    first = text_target.opened("host-1.example.com 4242", long)
    with pytest.raises(LockedError, match=r"host-1\.example\.com 4242"):
        text_target.opened("other", long)
    first.close()
    assert len(application_name(long, "host-1.example.com 4242").encode()) == 63


def test_transactions_carry_the_syncs_origin(make_server: MakeServer) -> None:
    """What a sync writes can be told from what users write; forks have origins of their own; drop
    leaves none of them."""
    server = make_server({"track_commit_timestamp": "on"})
    applier = PostgresApplier(server.url(), None, "finance")
    applier.open("me")
    relation = Relation("public", "t", (ID, TEXT), (0,), Format.PGOUTPUT_TEXT)
    applier.prepare(relation)
    with applier.state.transaction():
        applier.state.begin("{}", "0/0", ["public.t"])
        applier.state.plan(TableState("public.t"), ["a"])
    row = pgoutput_image([b"1", b"v"], b"t")
    delta = Delta(Op.INSERT, relation, None, row, Commit("0/1", 1, 0), 1)
    applier.apply(Batch([delta], "0/1"), no_reread)
    fork = applier.fork()
    copied = Relation("public", "t", (ID, TEXT), (0,), Format.COPY_TEXT)
    fork.prepare(copied)
    fork.copy(Chunk(copied, 0, iter([[b"2\tw\n"]])), "0/1")
    fork.close()
    with psycopg.connect(server.url(), autocommit=True) as db:
        db.execute("INSERT INTO t VALUES (3, 'user')")
        origins = db.execute(
            "SELECT t.id, o.roname FROM t CROSS JOIN pg_xact_commit_timestamp_origin(t.xmin) AS c"
            " LEFT JOIN pg_replication_origin AS o ON o.roident = c.roident ORDER BY 1"
        ).fetchall()
        assert origins == [(1, "cdc_finance"), (2, "cdc_finance/1"), (3, None)]
        applier.drop()
        assert db.execute("SELECT count(*) FROM pg_replication_origin").fetchone() == (0,)
        assert db.execute("SELECT to_regnamespace('cdc')").fetchone() == (None,)
        assert db.execute("SELECT count(*) FROM t").fetchone() == (3,)
    applier.close()


def test_drop_leaves_other_syncs_alone(text_target: Target) -> None:
    """The tables go with the last sync; what users put into schema cdc stays."""
    other = text_target.opened(sync="other")
    with other.state.transaction():
        other.state.begin("{}", "0/7", [])
    text_target.applier.drop()
    assert text_target.db.rows("SELECT sync FROM cdc.cdc_checkpoint") == [("other",)]
    text_target.db.execute("CREATE TABLE cdc.users_own (id int)")
    other.drop()
    other.close()
    tables = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'cdc'::regnamespace AND relkind = 'r'"
    )
    assert text_target.db.rows(tables) == [("users_own",)]


# -- privileges ------------------------------------------------------------------------------------


def test_a_role_without_temporary_tables_and_origins(target_db: Database) -> None:
    """Without TEMP and without the origin's functions all is written, row by row; check says both."""
    role = target_db.create_role()
    target_db.execute(f"REVOKE TEMPORARY ON DATABASE {target_db.name} FROM PUBLIC")
    target_db.execute(f"GRANT CREATE ON DATABASE {target_db.name} TO {role}")
    target_db.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    applier = PostgresApplier(target_db.url_as(role), None, "pg")
    applier.open("me")
    relation = Relation("public", "t", (ID, TEXT), (0,), Format.PGOUTPUT_TEXT)
    found = {f.subject: f for f in applier.check([relation])}
    assert found["temporary tables"].level == "warn"
    assert "GRANT TEMPORARY ON DATABASE" in found["temporary tables"].remedy
    assert found["replication origin"].remedy.startswith("GRANT EXECUTE ON FUNCTION pg_replication")
    applier.prepare(relation)
    with applier.state.transaction():
        applier.state.begin("{}", "0/0", [])
        applier.state.plan(TableState("public.t"), ["a"])
    rows = [pgoutput_image([b"%d" % i, b"v"], b"t") for i in range(500)]
    deltas = [Delta(Op.INSERT, relation, None, r, Commit("0/1", 1, 0), 1) for r in rows]
    applier.apply(Batch(deltas, "0/1"), no_reread)
    copied = Relation("public", "t", (ID, TEXT), (0,), Format.COPY_TEXT)
    applier.prepare(copied)
    assert applier.copy(Chunk(copied, 0, iter([[b"1\tnew\n", b"900\tnew\n"]])), "0/1") == 2
    with pytest.raises(PermanentError) as refused:
        applier.sweep(copied, iter([[b"1\t\\N\n"]]), None, "0/1")
    assert "grant" in refused.value.hint
    applier.close()
    assert target_db.rows("SELECT v, count(*) FROM t GROUP BY v ORDER BY v") == [
        ("new", 2),
        ("v", 499),
    ]


def test_check_names_what_is_missing(target_db: Database) -> None:
    """Columns, index, grants, row-level security, triggers and foreign keys, each with a remedy."""
    role = target_db.create_role()
    target_db.execute(
        "CREATE TABLE no_column (id bigint PRIMARY KEY);"
        "CREATE TABLE no_index (id bigint, v text);"
        "CREATE TABLE hidden (id bigint PRIMARY KEY, v text);"
        "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;"
        "CREATE TABLE parent (id bigint PRIMARY KEY, v text);"
        "CREATE TABLE child (id bigint PRIMARY KEY, v text, p bigint REFERENCES parent ON DELETE CASCADE);"
        "CREATE TRIGGER noisy AFTER INSERT ON parent EXECUTE FUNCTION suppress_redundant_updates_trigger();"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON hidden, parent TO {role}"
    )
    names = ("no_column", "no_index", "hidden", "parent", "child", "absent")
    relations = [Relation("public", n, (ID, TEXT), (0,), Format.PGOUTPUT_TEXT) for n in names]
    applier = PostgresApplier(target_db.url_as(role), None, "pg")
    applier.open(None)
    found = list(applier.check(relations))
    applier.close()
    assert _told(found, "schema cdc", "FAILED").remedy.startswith("GRANT CREATE ON DATABASE")
    remedy = _told(found, "table public.no_column", "FAILED").remedy
    assert remedy == 'ALTER TABLE "public"."no_column" ADD COLUMN "v" text;'
    remedy = _told(found, "table public.no_index", "FAILED").remedy
    assert remedy == 'CREATE UNIQUE INDEX ON "public"."no_index" ("id");'
    assert "BYPASSRLS" in _told(found, "table public.hidden", "FAILED").remedy
    assert "SELECT, INSERT, UPDATE, DELETE" in _told(found, "table public.child", "FAILED").remedy
    assert "NO ACTION" in _told(found, "table public.parent", "warn").remedy
    assert "beside the source's own changes" in _told(found, "table public.parent", "warn").message
    assert "CREATE ON SCHEMA" in _told(found, "table public.absent", "FAILED").remedy
    assert any("noisy" in f.message for f in found)
    assert target_db.value("SELECT to_regnamespace('cdc')") is None


@pytest.mark.parametrize(
    ("whose", "remedy"),
    [
        ("DATABASE {db}", 'ALTER DATABASE "{db}" RESET'),
        ("ROLE {role}", 'ALTER ROLE "{role}" RESET'),
        ("ROLE {role} IN DATABASE {db}", 'ALTER ROLE "{role}" IN DATABASE "{db}" RESET'),
    ],
)
def test_check_mends_what_makes_a_target_read_only(
    target_db: Database, whose: str, remedy: str
) -> None:
    """The statement that is shown takes the setting back from where it was made."""
    setting = "default_transaction_read_only"
    role = target_db.create_role()
    names = {"db": target_db.name, "role": role}
    target_db.execute(f"ALTER {whose.format(**names)} SET {setting} = on")

    def found() -> Finding:
        applier = PostgresApplier(target_db.url_as(role), None, "pg")
        try:
            applier.open(None)
            return next(f for f in applier.check([]) if f.subject == "target")
        finally:
            applier.close()

    shown = Finding("FAILED", "target", f"{setting} is on", f"{remedy.format(**names)} {setting};")
    assert found() == shown
    with psycopg.connect(target_db.url, autocommit=True) as admin:
        admin.execute(f"SET {setting} = off")
        admin.execute(shown.remedy)
    assert found() == Finding("ok", "target", "takes writes")


def _told(found: Sequence[Finding], subject: str, level: str) -> Finding:
    [one, *_] = [f for f in found if f.subject == subject and f.level == level]
    return one


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("postgresql://u:geheim@127.0.0.1:1/x", TransientError, "cannot connect"),
        ("postgresql://u:geheim@no-such-host.invalid/x", TransientError, "cannot connect"),
        ("postgresql://u:geheim@[::1/x", PermanentError, "libpq does not read"),
        (
            "postgresql://u:geheim@127.0.0.1:1/x?sslmode=nope",
            PermanentError,
            "invalid sslmode value",
        ),
        ("postgresql://u:geheim@h/x?connect_timeout=x", PermanentError, "bad value for connect"),
        (
            "postgresql://u:geheim@127.0.0.1:1/x?keepalives=x",
            PermanentError,
            "invalid integer value",
        ),
        ("postgresql://u:geheim@127.0.0.1/x?sslmood=1", PermanentError, "the parameter sslmood"),
    ],
)
def test_unreachable_targets(url: str, kind: type[SyncError], message: str) -> None:
    """What cannot be reached may come; what cannot be read will not. The password is not told."""
    with pytest.raises(kind, match=message) as error:
        PostgresApplier(url, None, "pg").open("me")
    assert error.value.hint
    assert "geheim" not in str(error.value)


def test_wrong_password_role_and_database(make_server: MakeServer) -> None:
    """Each is named, and is not tried for ever."""
    server = make_server(password="right")
    for url, password, words in [
        (server.url(password=None), "wrong", "password authentication failed"),
        (server.url("nowhere"), "right", 'database "nowhere" does not exist'),
    ]:
        with pytest.raises(PermanentError, match=words) as error:
            PostgresApplier(url, password, "pg").open("me")
        assert error.value.hint


def test_a_killed_connection_and_a_stopping_server_are_transient(
    text_target: Target, make_server: MakeServer
) -> None:
    """The applier is closed then; the next one reads the checkpoint and goes on."""
    t = text_target.relation("t", ID, TEXT)
    text_target.apply(text_target.insert(t, 1, "a"), done=False)
    text_target.db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'cdc %'"
    )
    with pytest.raises(TransientError):
        text_target.apply(text_target.insert(t, 2, "b"))
    text_target.applier.close()
    text_target.applier = text_target.opened()
    assert text_target.applier.state.position == "0/0"
    assert text_target.db.value("SELECT count(*) FROM t") == 0


def test_a_locked_table_is_transient(text_target: Target) -> None:
    """A lock that a user holds ends in an error that names the table and says where to look."""
    t = text_target.relation("t", ID, TEXT)
    text_target.applier._session.execute("SET lock_timeout = '300ms'")
    with text_target.db.connect(autocommit=False) as user:
        user.execute("LOCK TABLE t")
        with pytest.raises(TransientError, match="lock timeout") as error:
            text_target.apply(text_target.insert(t, 1, "a"))
        assert "public.t" in str(error.value)
        assert "pg_locks" in error.value.hint


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        ("int", "9999999999", "out of range for column v"),
        ("varchar(3)", "geheim", "too long for column"),
        ("date", "geheim", "cannot be read by column v"),
        ("text CHECK (v <> 'geheim')", "geheim", "check constraint t_v_check"),
    ],
)
def test_values_that_do_not_fit_are_named_without_being_told(
    text_target: Target, declared: str, value: str, words: str
) -> None:
    """Table, key, column or constraint; never the value."""
    text_target.db.execute(f"CREATE TABLE t (id bigint PRIMARY KEY, v {declared})")
    t = text_target.relation("t", ID, TEXT)
    with pytest.raises(PermanentError) as error:
        text_target.apply(text_target.insert(t, 1, value))
    message = str(error.value)
    assert "table public.t (key id)" in message
    assert value not in message
    assert words.partition(" for ")[0].partition(" by ")[0] in message
    assert text_target.db.value("SELECT count(*) FROM t") == 0


def binary_target(db: Database, monkeypatch: pytest.MonkeyPatch) -> Target:
    """One that writes in sets, and updates by value."""
    compiled("appliers._images", "Columns")
    monkeypatch.setattr(applier_module, "FEW", -1)
    return Target(db, binary=True)


def test_updates_leave_no_files_and_no_catalog_rows_behind(
    target_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of updates come as values, of whatever type a column is: the temporary table that
    describes them stays as it was made."""
    target_db.execute(
        "CREATE TYPE mood AS ENUM ('ok', 'bad'); CREATE DOMAIN short AS varchar(9) NOT NULL;"
        "CREATE TABLE t (id bigint PRIMARY KEY, m mood, s short, n int[], v text)"
    )
    target = binary_target(target_db, monkeypatch)
    numbers = Column("n", "integer[]", "int4", "array")
    mood, short = Column("m", "mood", "mood", "enum"), Column("s", "varchar(9)", "varchar")
    relation = target.relation("t", ID, mood, short, numbers, TEXT)
    target.apply(*[target.insert(relation, i, "ok", "a", None, "") for i in range(300)])
    nodes = set()
    for batch in range(3):
        wanted = [(i, "bad", f"s{batch}", f"{batch} {i}" * 50) for i in range(300)]
        array = struct.pack(">iiIiiii", 1, 0, 23, 1, 1, 4, batch).decode("latin-1")
        target.apply(*[target.update(relation, i, m, s, array, v) for i, m, s, v in wanted])
        assert target_db.rows("SELECT id, m::text, s::text, v FROM t ORDER BY id") == wanted
        assert target_db.rows("SELECT DISTINCT n FROM t") == [([batch],)]
        nodes.add(target.applier._session.value("SELECT pg_relation_filenode('pg_temp.cdc_1')"))
    assert len(nodes) == 1
    assert target.applier._session.value("SELECT count(*) FROM pg_temp.cdc_1") == 0
    target.applier.close()


def test_rows_that_are_not_there_do_not_have_the_others_written_twice(
    target_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of updates by value, those whose rows are missing are healed, and the target's own triggers see
    each row once."""
    target = binary_target(target_db, monkeypatch)
    relation = target.relation("t", ID, TEXT, Column("w", "text", "text"))
    target.apply(*[target.insert(relation, i, "a", "w") for i in range(0, 300, 2)])
    targets.PostgresTarget(target_db).count_writes("t")
    rows = [(i, "b", UNCHANGED if i % 4 == 0 else "x") for i in range(300)]
    assert target.apply(*[target.update(relation, *row) for row in rows]) == 150
    expected = [(i, "b", "w" if i % 4 == 0 else "x") for i in range(300)]
    assert target_db.rows("SELECT id, v, w FROM t ORDER BY id") == expected
    assert target_db.rows("SELECT id, count(*) FROM t_writes GROUP BY id ORDER BY id") == [
        (i, 1) for i in range(300)
    ]
    target.applier.close()


def test_a_value_in_an_update_that_does_not_fit_is_named(
    target_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table and column, though the rows came as one value; and nothing is written."""
    target_db.execute("CREATE TABLE t (id bigint PRIMARY KEY, v varchar(3))")
    target = binary_target(target_db, monkeypatch)
    relation = target.relation("t", ID, TEXT)
    target.apply(*[target.insert(relation, i, "a") for i in range(300)])
    with pytest.raises(PermanentError, match=r"table public\.t .* too long for column v"):
        target.apply(*[target.update(relation, i, "b" * (i // 99 + 1)) for i in range(300)])
    assert target_db.rows("SELECT DISTINCT v FROM t") == [("a",)]
    target.applier.close()


@pytest.mark.parametrize("code", ["P0001", "ZZ001", "55000", "23514"])
def test_what_a_trigger_says_is_not_told(text_target: Target, code: str) -> None:
    """Whatever code it raises: it may say a row's values."""
    relation = text_target.relation("t", ID, TEXT)
    text_target.db.execute(
        "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION 'row %', NEW USING ERRCODE = '{code}'; END $$;"
        "CREATE TRIGGER own BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION own()"
    )
    with pytest.raises(SyncError, match=code) as refused:
        text_target.apply(text_target.insert(relation, 4711, "secret"))
    assert "4711" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_read_only_target_is_transient(target_db: Database) -> None:
    """A database that is read-only for a while: named, tried again."""
    target = Target(target_db)
    t = target.relation("t", ID, TEXT)
    target.applier._session.execute("SET default_transaction_read_only = on")
    with pytest.raises(TransientError, match="read-only") as error:
        target.apply(target.insert(t, 1, "a"))
    assert "standby" in error.value.hint
    target.applier.close()


def test_settings_of_the_role_do_not_reach_the_session(target_db: Database) -> None:
    """Times, money and bytes are read alike whatever the database's defaults are."""
    for setting in ("DateStyle = 'SQL, DMY'", "TimeZone = 'Asia/Tokyo'", "statement_timeout = 30"):
        target_db.execute(f"ALTER DATABASE {target_db.name} SET {setting}")
    target = Target(target_db)
    t = target.relation("t", ID, Column("v", "timestamp with time zone", "timestamptz"))
    target.apply(target.insert(t, 1, "2026-02-03 04:05:06+00"))
    assert target_db.value("SELECT extract(epoch FROM v)::int FROM t") == 1770091506
    target.applier.close()


def test_struct_of_binary_numbers(target_db: Database) -> None:
    """Binary values of fixed width arrive bit by bit: -0, NaN, infinities, the ends of the ranges."""
    target = Target(target_db, binary=True)
    f = target.relation("f", ID, Column("v", "double precision", "float8"))
    values = [-0.0, float("inf"), float("-inf"), 5e-324, 0.1]
    for key, value in enumerate(values):
        image = pgoutput_image([key.to_bytes(8, "big"), struct.pack(">d", value)], b"b")
        target.apply(Delta(Op.INSERT, f, None, image, Commit("0/1", 1, 0), 1))
    found = [v for (v,) in target_db.rows("SELECT v FROM f ORDER BY id")]
    assert [struct.pack(">d", v) for v in found] == [struct.pack(">d", v) for v in values]
    target.applier.close()


@given(st.text(max_size=80), st.text(max_size=80))
def test_application_names_fit(sync: str, holder: str) -> None:
    """PostgreSQL cuts at 63 bytes: a holder of usual length is never cut by the sync's name."""
    name = application_name(sync, holder)
    if len(holder.encode()) <= 45:
        assert len(name.encode()) <= 63
