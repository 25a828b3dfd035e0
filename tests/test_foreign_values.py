"""Rows of a MySQL or MariaDB source in PostgreSQL and SQLite: as lines, by every way of writing; what
becomes of every type's hard values; and of those that PostgreSQL cannot hold, under each policy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given

from appliers.applier import Applier
from appliers.batch import Applied, Batch, Chunk
from appliers.checkpoint import TableState
from appliers.delta import UNCHANGED, Delta, Op, Value
from appliers.errors import PermanentError
from appliers.images import Format
from appliers.lines import line
from appliers.postgres import applier as postgres_applier
from appliers.registry import applier_for
from appliers.relation import Column, Relation
from appliers.unrepresentable import Unrepresentable
from cdc.sources.mysql.floats import double_text, float_text
from tests.applier_bed import (
    Bed,
    Item,
    PostgresTarget,
    SqliteTarget,
    Target,
    commit,
    no_reread,
    position,
)
from tests.databases import Database
from tests.foreign_types import HARD, SESSION, Hard, cases_of
from tests.mysql_databases import MysqlDatabase
from tests.servers import on_every_target
from tests.test_applier_histories import KEYS, LENGTHS, SEEDS, SETTINGS, syncing

ID: Final = Column("id", "bigint(20)", "bigint", nullable=False)
DAY: Final = Column("day", "date", "date")
TEXT: Final = Column("v", "varchar(40)", "varchar")

ERROR, NULL, AS_TEXT = Unrepresentable.ERROR, Unrepresentable.NULL, Unrepresentable.TEXT


def column(name: str, type_name: str) -> Column:
    base = type_name.partition("(")[0].split()[0]
    return Column(name, type_name, base, "enum" if base == "enum" else "base")


def table(name: str, *columns: Column, key: Sequence[int] = (0,), schema: str = "crm") -> Relation:
    return Relation(
        schema,
        name,
        columns,
        tuple(key),
        Format.LINE,
        dialect="mysql",
        whole_before=True,
        home="crm",
    )


class Sync:
    """A sync of such tables into a target; every `apply` is one transaction of the source."""

    def __init__(self, target: Target, policy: Unrepresentable = ERROR) -> None:
        self.target = target
        self.applier: Applier = applier_for(target.url, None, "foreign", policy)
        self.applier.open("tester")
        self.number = 0
        with self.applier.state.transaction():
            self.applier.state.begin("{}", position(0), [])

    def prepared(self, *relations: Relation) -> Relation:
        for relation in relations:
            self.applier.prepare(relation)
        return relations[0]

    def apply(self, *deltas: Delta, redo: Sequence[str] = ()) -> Applied:
        self.number += 1
        batch = Batch(list(deltas), position(self.number), 0, frozenset(redo))
        return self.applier.apply(batch, no_reread)

    def copy(self, relation: Relation, *rows: Sequence[Value]) -> int:
        with self.applier.state.transaction():
            self.applier.state.plan(TableState(relation.table), ["all"])
        blocks = iter([[line(row) for row in rows]])
        return self.applier.copy(Chunk(relation, 0, blocks), position(1))


def insert(relation: Relation, *values: Value) -> Delta:
    return Delta(Op.INSERT, relation, None, line(values), commit(1), 1)


def update(relation: Relation, old: Sequence[Value] | None, *values: Value) -> Delta:
    before = None if old is None else line(old)
    return Delta(Op.UPDATE, relation, before, line(values), commit(1), 1)


def delete(relation: Relation, *values: Value) -> Delta:
    return Delta(Op.DELETE, relation, line(values), None, commit(1), 1)


MakeSync = Callable[..., Sync]


@pytest.fixture
def sync_into() -> Iterator[MakeSync]:
    """Makes a sync; the one before it is over, as after an error."""
    made: list[Sync] = []

    def make(target: Target, policy: Unrepresentable = ERROR) -> Sync:
        for sync in made:
            sync.applier.close()
        made.append(Sync(target, policy))
        return made[-1]

    yield make
    for sync in made:
        sync.applier.close()


@pytest.fixture(params=["rows", "sets"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small batches row by row, as they are, or in sets, as large ones are."""
    if request.param == "sets":
        monkeypatch.setattr(postgres_applier, "FEW", -1)
    return str(request.param)


WAYS: Final = ("rows", "sets", "copy")


def write(sync: Sync, relation: Relation, way: str, *rows: Sequence[Value]) -> None:
    """Writes new rows, one way or the other; `way` sets has the fixture's help."""
    if way == "copy":
        sync.copy(relation, *rows)
    else:
        sync.apply(*(insert(relation, *row) for row in rows))


# Every way of writing


class LineBed(Bed):
    """The contract suite's bed with lines of a MySQL table. With `padded`, its key is an integer with
    leading zeros: every target prints it otherwise than the source."""

    def __init__(self, target: Target, *, padded: bool) -> None:
        self.padded = padded
        super().__init__(target, "line")

    def relation(self, format: Format, *_: Any, **__: Any) -> Relation:
        columns = (
            column("id", "bigint(8) unsigned zerofill" if self.padded else "bigint(20)"),
            column("code", "varchar(40)"),
            column("n", "int(11)"),
            column("big", "longtext"),
        )
        return Relation(
            "public", "item", columns, (0,), Format.LINE, dialect="mysql", home="public"
        )

    def _values(self, item: Item) -> list[Value]:
        values = super()._values(item)
        if self.padded:
            values[0] = b"%08d" % item.id
        return values


@pytest.fixture(params=["postgres-rows", "postgres-sets", "sqlite"])
def target(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, sqlite_path: Path
) -> Target:
    if request.param == "sqlite":
        return SqliteTarget(sqlite_path)
    if request.param == "postgres-sets":
        monkeypatch.setattr(postgres_applier, "FEW", -1)
    return PostgresTarget(request.getfixturevalue("target_db"))


@pytest.fixture(params=["plain", "padded"])
def line_bed(request: pytest.FixtureRequest, target: Target) -> Iterator[LineBed]:
    bed = LineBed(target, padded=request.param == "padded")
    yield bed
    bed.close()


@SETTINGS
@given(seed=SEEDS, transactions=LENGTHS, keys=KEYS)
def test_every_state_of_the_source_is_reached(
    line_bed: LineBed, seed: int, transactions: int, keys: int
) -> None:
    """Lines with gaps, changed keys, swapped unique values, deletes: after every batch the target is
    the source, also where it prints keys in another way, and nothing had to be healed."""
    with syncing(line_bed, seed, transactions, keys) as sync:
        sync.start_exact()
        while not sync.over:
            sync.step()
            if sync.exact:
                assert line_bed.items() == sync.history.states[sync.at]
        assert sync.healed == 0


@SETTINGS
@given(seed=SEEDS, transactions=LENGTHS, keys=KEYS)
def test_a_copy_under_load_becomes_exact(
    line_bed: LineBed, seed: int, transactions: int, keys: int
) -> None:
    """The redo rules hold for lines."""
    with syncing(line_bed, seed, transactions, keys) as sync:
        sync.start_copy(keys)
        while not (sync.over and sync.exact):
            sync.step()
            if sync.exact:
                assert line_bed.items() == sync.history.states[sync.at]
        assert sync.healed == 0


@pytest.mark.parametrize("target", ["postgres-sets"], indirect=True)
def test_missing_rows_are_healed_whatever_keys_look_like(line_bed: LineBed) -> None:
    """Whole ones are written, those with gaps and changed keys are read again; each counted once."""
    applier = line_bed.open(begun=True)
    read = [Item(3, "c", 3, "read"), Item(6, "f", 6, "read")]
    deltas = [
        line_bed.update(Item(1, "a", 1, "whole")),
        line_bed.update(Item(3, "c", 3, UNCHANGED)),
        line_bed.update(Item(6, "f", 6, UNCHANGED), old_id=5),
    ]
    applied = line_bed.apply(applier, deltas, 1, reread=line_bed.source_with(*read))
    assert applied.healed == 3
    assert line_bed.items() == {i.id: i for i in (Item(1, "a", 1, "whole"), *read)}


# Every type


def test_these_are_the_servers_own_texts(any_mysql_source: MysqlDatabase) -> None:
    """The values below are what the servers hold and print."""
    wrong = []
    with any_mysql_source.connect(init_command=SESSION).cursor() as cursor:
        for number, hard in enumerate(cases_of(any_mysql_source.server.flavour)):
            table = f"t{number}"
            cursor.execute(
                f"CREATE TABLE {table} (id int PRIMARY KEY AUTO_INCREMENT, v {hard.type})"
            )
            for text in hard.texts:
                literal, given = hard.literal(text)
                cursor.execute(f"INSERT INTO {table} (v) VALUES ({literal})", [given])
            cursor.execute(f"SELECT {hard.printed} FROM {table} ORDER BY id")
            found = [text for (text,) in cursor.fetchall()]
            if hard.base in ("float", "double"):
                to_text = float_text if hard.base == "float" else double_text
                found = [to_text(value).decode() for value in found]
            if found != list(hard.texts):
                wrong.append((hard.type, found))
    assert not wrong


def relation_of(hard: Hard, number: int) -> Relation:
    return table(f"t{number}", ID, column("v", hard.type))


def rows_of(hard: Hard) -> list[list[Value]]:
    rows: list[list[Value]] = [[str(n).encode(), v.encode()] for n, v in enumerate(hard.texts)]
    return [*rows, [b"-1", None]]


@on_every_target
@pytest.mark.parametrize("way", WAYS)
def test_every_type_in_postgres(
    target_db: Database, sync_into: MakeSync, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The created column has the documented type, and prints each value as the source does, or as the
    table says."""
    if way == "sets":
        monkeypatch.setattr(postgres_applier, "FEW", -1)
    sync = sync_into(PostgresTarget(target_db))
    target_db.execute("SET timezone = 'UTC'")
    wrong = []
    for number, hard in enumerate(HARD):
        relation = sync.prepared(relation_of(hard, number))
        write(sync, relation, way, *rows_of(hard))
        [made] = target_db.rows(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            f" WHERE attrelid = 't{number}'::regclass AND attname = 'v'"
        )[0]
        # Not a cast, which prints an inet with its mask.
        [(_, null), *found] = target_db.rows(
            f"SELECT id, CASE WHEN v IS NOT NULL THEN format('%s', v) END FROM t{number} ORDER BY id"
        )
        assert null is None
        printed = [v for _, v in found]
        if (made, printed) != (hard.postgres, list(hard.in_postgres)):
            wrong.append((hard.type, made, printed))
    assert not wrong


def test_every_type_in_sqlite(sqlite_path: Path, sync_into: MakeSync) -> None:
    """The same for SQLite: numbers and bytes as they are, everything else as the source prints it."""
    target = SqliteTarget(sqlite_path)
    sync = sync_into(target)
    wrong = []
    for number, hard in enumerate(HARD):
        relation = sync.prepared(relation_of(hard, number))
        half = len(hard.texts) // 2
        rows = rows_of(hard)
        write(sync, relation, "copy", *rows[:half])
        write(sync, relation, "rows", *rows[half:])
        [(_, null), *found] = target.rows(f"SELECT id, v FROM t{number} ORDER BY id")
        assert null is None
        kept = [v for _, v in found]
        if [(type(v), v) for v in kept] != [(type(v), v) for v in hard.in_sqlite]:
            wrong.append((hard.type, kept))
    assert not wrong


@pytest.mark.usefixtures("way")
def test_rows_are_found_by_keys_of_every_type(target_db: Database, sync_into: MakeSync) -> None:
    """Written, updated, given gaps, deleted, moved by keys that PostgreSQL may print otherwise."""
    sync = sync_into(PostgresTarget(target_db))
    for number, hard in enumerate(h for h in HARD if h.key):
        texts = [t.encode() for t in hard.texts[:3]]
        a, b, c = [*texts, texts[0], texts[0]][:3] if len(texts) < 3 else texts
        if len({a, b, c}) < 3:
            continue
        relation = table(f"k{number}", column("k", hard.type), TEXT, column("big", "longtext"))
        sync.prepared(relation)
        sync.apply(insert(relation, a, b"1", b"big"), insert(relation, b, b"2", b"big"))
        applied = sync.apply(
            update(relation, [a, b"1", b"big"], a, b"11", UNCHANGED),
            update(relation, [b, b"2", b"big"], c, b"3", b"big"),
        )
        assert applied.healed == 0, hard.type
        sync.apply(insert(relation, b, b"4", None), delete(relation, c, b"3", b"big"))
        sync.apply(update(relation, [b, b"4", None], b, b"44", b"new"))
        rows = target_db.rows(f"SELECT v, big FROM k{number} ORDER BY v")
        assert rows == [("11", "big"), ("44", "new")], hard.type
        key = [a, None, None]
        deleted = sync.applier.sweep(relation, iter([[line(key)]]), None, position(9))
        assert deleted == 1, hard.type
        assert target_db.rows(f"SELECT v FROM k{number}") == [("11",)]


# Names


def test_the_sources_own_database_is_public(target_db: Database, sync_into: MakeSync) -> None:
    """A table of the URL's database goes to `public`, of another one into a schema of its name; what
    is there is found there."""
    sync = sync_into(PostgresTarget(target_db))
    target_db.execute("CREATE TABLE public.there (id bigint PRIMARY KEY, v text)")
    for relation in (
        table("there", ID, TEXT),
        table("made", ID, TEXT),
        table("x", ID, schema="Fin"),
    ):
        assert sync.applier.is_empty(sync.prepared(relation))
        sync.apply(insert(relation, *[b"1", b"v"][: len(relation.columns)]))
        assert not sync.applier.is_empty(relation)
    tables = target_db.rows(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information|cdc)'"
    )
    assert sorted(tables) == [("Fin", "x"), ("public", "made"), ("public", "there")]
    levels = {f.level for f in sync.applier.check([table("there", ID, TEXT), table("n", ID)])}
    assert levels == {"ok"}


def test_the_sources_own_database_in_sqlite(sqlite_path: Path, sync_into: MakeSync) -> None:
    """Its tables keep their names; others get their database before them; two that would be one are
    refused."""
    target = SqliteTarget(sqlite_path)
    sync = sync_into(target)
    sync.prepared(table("a", ID), table("b", ID, schema="public"), table("c", ID, schema="fin"))
    assert {"a", "public_b", "fin_c"} <= target.tables()
    with pytest.raises(PermanentError, match=r"crm\.fin_c and fin\.c would both be table fin_c"):
        sync.prepared(table("fin_c", ID))


# What PostgreSQL cannot hold

DATES: Final = (
    ("date", "", "a zero date", "0000-00-00"),
    ("date", "", "a date with a month or day of zero", "2024-00-10"),
    ("date", "", "a date with a month or day of zero", "2024-10-00"),
    ("date", "", "a date in the year 0", "0000-05-05"),
    ("datetime(3)", "", "a zero date", "0000-00-00 00:00:00.000"),
    ("datetime", "", "a day that the month does not have", "2024-02-31 10:00:00"),
    ("datetime", "", "a day that the month does not have", "2023-02-29 10:00:00"),
    ("datetime", "", "a day that the month does not have", "2023-11-31 10:00:00"),
    ("timestamp", "", "a zero date", "0000-00-00 00:00:00"),
    ("time(6)", "time", "a negative time", "-00:00:00.500000"),
    ("time(6)", "time", "a time of more than 24 hours", "24:00:00.000001"),
    ("time", "time", "a time of more than 24 hours", "838:59:59"),
)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("type_name", "there", "what", "value"), DATES)
def test_a_date_that_postgres_does_not_have(
    target_db: Database, sync_into: MakeSync, type_name: str, there: str, what: str, value: str
) -> None:
    """By default the sync stops, and names table, column and kind, never the value; nothing of the
    batch stays."""
    sync = sync_into(PostgresTarget(target_db))
    if there:
        target_db.execute(f"CREATE TABLE t (id bigint PRIMARY KEY, v text, d {there})")
    relation = sync.prepared(table("t", ID, TEXT, column("d", type_name)))
    good = b"2024-02-29 10:00:00"[: 10 if type_name == "date" else 19]
    good = b"24:00:00.000000" if there else good
    sync.apply(insert(relation, b"1", b"-00 0000- 2024-02-31", good))
    for bad in (
        insert(relation, b"2", b"v", value.encode()),
        update(relation, [b"1", b"v", good], b"1", b"v", value.encode()),
        update(relation, [b"1", b"v", good], b"1", UNCHANGED, value.encode()),
    ):
        with pytest.raises(PermanentError, match=rf"table crm\.t: column d: {what} cannot") as e:
            sync_into(PostgresTarget(target_db)).apply(insert(relation, b"3", b"v", good), bad)
        assert value not in str(e.value) + e.value.hint
        assert "on_unrepresentable" in e.value.hint
    with pytest.raises(PermanentError, match=f"column d: {what}"):
        sync_into(PostgresTarget(target_db)).copy(relation, [b"4", None, value.encode()])
    assert target_db.rows("SELECT id FROM t") == [(1,)]
    # An old row is only looked at for its key.
    sync_into(PostgresTarget(target_db)).apply(delete(relation, b"1", b"v", value.encode()))
    assert target_db.rows("SELECT id FROM t") == []


@pytest.mark.usefixtures("way")
def test_null_instead(
    target_db: Database, sync_into: MakeSync, caplog: pytest.LogCaptureFixture
) -> None:
    """Under `null` a value that cannot be kept is NULL, told once a column; keys and NOT NULL columns
    stay errors."""
    caplog.set_level(logging.WARNING)
    sync = sync_into(PostgresTarget(target_db), NULL)
    relation = sync.prepared(table("t", ID, DAY, TEXT, column("at", "timestamp(6)")))
    zero, at = b"0000-00-00", b"2024-02-28 01:02:03.000004"
    sync.apply(
        insert(relation, b"1", zero, b"a\0b", at),
        insert(relation, b"2", b"2024-02-29", b"-00", zero + b" 00:00:00.000000"),
        insert(relation, b"3", b"2023-02-29", b"0000-", at),
    )
    sync.copy(relation, [b"4", b"0000-01-01", b"v", at], [b"5", b"2024-01-31", b"a\0", at])
    sync.apply(
        update(relation, None, b"5", zero, b"\\N", at),
        update(relation, None, b"2", b"2024-12-00", UNCHANGED, UNCHANGED),
    )
    target_db.execute("SET timezone = 'UTC'")
    shown = "2024-02-28 01:02:03.000004+00"
    assert target_db.rows("SELECT id, day::text, v, at::text FROM t ORDER BY id") == [
        (1, None, None, shown),
        (2, None, "-00", None),
        (3, None, "0000-", shown),
        (4, None, "v", shown),
        (5, None, "\\N", shown),
    ]
    told = [r.fields["column"] for r in caplog.records if r.message == "value-becomes-null"]  # type: ignore[attr-defined]
    assert sorted(told) == ["at", "day", "v"]
    target_db.execute("CREATE TABLE n (id bigint PRIMARY KEY, day date NOT NULL)")
    for fixed in (table("n", ID, DAY), table("k", DAY, TEXT)):
        sync.prepared(fixed)
        values = (b"1", zero) if fixed.name == "n" else (zero, b"v")
        with pytest.raises(PermanentError, match="column day: a zero date") as refused:
            sync.apply(insert(fixed, *values))
        assert "NOT NULL on the target or part of the key" in refused.value.hint
        sync = sync_into(PostgresTarget(target_db), NULL)


@pytest.mark.usefixtures("way")
def test_text_instead(target_db: Database, sync_into: MakeSync) -> None:
    """Under `text` such columns are made text and hold what the source prints; what text cannot hold,
    and columns that are there already, stay errors."""
    sync = sync_into(PostgresTarget(target_db), AS_TEXT)
    relation = sync.prepared(
        table("t", DAY, column("at", "datetime(6)"), column("ts", "timestamp"), TEXT)
    )
    row = (b"0000-00-00", b"2024-02-31 00:00:00.000001", b"0000-00-00 00:00:00", b"v")
    sync.apply(insert(relation, *row))
    assert target_db.rows("SELECT * FROM t") == [tuple(v.decode() for v in row)]
    with pytest.raises(PermanentError, match="column v: text with a NUL character cannot"):
        sync.apply(insert(relation, b"2024-01-01", None, None, b"a\0"))
    target_db.execute("CREATE TABLE n (id bigint PRIMARY KEY, day date)")
    sync = sync_into(PostgresTarget(target_db), AS_TEXT)
    there = sync.prepared(table("n", ID, DAY))
    with pytest.raises(PermanentError, match="column day: a zero date cannot be kept in date"):
        sync.apply(insert(there, b"1", b"0000-00-00"))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "type_name", ["varchar(9)", "char(9)", "longtext", "enum('a\0')", "set('a\0')"]
)
def test_nothing_is_cut_at_a_nul(target_db: Database, sync_into: MakeSync, type_name: str) -> None:
    """Text with a NUL character is refused, in a value as in a key, never cut off there."""
    sync = sync_into(PostgresTarget(target_db))
    for relation, values in (
        (table("t", ID, column("c", type_name)), (b"1", b"a\0b")),
        (table("k", column("c", type_name), TEXT), (b"a\0b", b"v")),
    ):
        sync.prepared(relation)
        with pytest.raises(PermanentError, match="column c: text with a NUL character") as e:
            sync.apply(insert(relation, *values))
        assert "\0" not in str(e.value)
        sync = sync_into(PostgresTarget(target_db))
    with pytest.raises(PermanentError, match="column c: text with a NUL"):
        sync.apply(delete(relation, b"a\0b", b"v"))


# Tables that are there already


@pytest.mark.usefixtures("way")
def test_what_postgres_refuses_is_named(target_db: Database, sync_into: MakeSync) -> None:
    """A value that the column cannot read, or that is too large or too long for it: table and column,
    never the value, for a single row as for many."""
    target_db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, n smallint, day date, v varchar(3), ok boolean)"
    )
    relation = table(
        "t",
        ID,
        column("n", "int(11)"),
        column("day", "varchar(40)"),
        TEXT,
        column("ok", "tinyint(1)"),
    )
    good: list[Value] = [b"1", b"7", b"2024-02-29", b"abc", b"1"]
    for at, bad in enumerate((b"40000", b"sometime", b"abcd", b"2"), 1):
        sync = sync_into(PostgresTarget(target_db))
        sync.prepared(relation)
        values = [*good[:at], bad, *good[at + 1 :]]
        with pytest.raises(PermanentError, match=f"column {relation.columns[at].name} ") as e:
            sync.apply(insert(relation, *values))
        assert "public.t" not in str(e.value)
        assert "crm.t" in str(e.value)
        assert bad.decode() not in str(e.value).partition("(SQLSTATE")[0]
        sync.applier.close()
    sync = sync_into(PostgresTarget(target_db))
    sync.apply(insert(sync.prepared(relation), *good))
    assert target_db.rows("SELECT n, day::text, v, ok FROM t") == [(7, "2024-02-29", "abc", True)]


CHANGING: Final = (
    ("decimal(10,4)", "numeric(10,2)", "rounds"),
    ("double", "numeric(10,2)", "rounds"),
    ("double", "real", "rounds"),
    ("bigint(20)", "double precision", "rounds"),
    ("int(11)", "real", "rounds"),
    ("decimal(10,4)", "double precision", "rounds"),
    ("int(11)", "numeric(9,-2)", "rounds"),
    ("datetime(6)", "timestamp(3)", "rounds"),
    ("timestamp(6)", "timestamptz(0)", "rounds"),
    ("time(6)", "interval(0)", "rounds"),
    ("datetime", "date", "drops the time"),
    ("timestamp", "time", "drops the date"),
    ("bit(8)", "integer", "reads its digits as another number"),
    ("bit(8)", "bytea", "reads its digits as another number"),
    ("decimal(10,4)", "money", "rounds"),
    ("varchar(99)", "name", "cuts what is too long"),
    ("varchar(9)", "bytea", "reads backslashes as escapes"),
)
KEEPING: Final = (
    ("decimal(10,4)", "numeric"),
    ("decimal(10,4)", "numeric(12,4)"),
    ("int(10) unsigned", "double precision"),
    ("int(11)", "numeric(10,0)"),
    ("mediumint(8) unsigned", "real"),
    ("float", "double precision"),
    ("datetime(3)", "timestamptz"),
    ("date", "timestamp(0)"),
    ("time(3)", "interval(3)"),
    ("datetime(6)", "text"),
    ("varbinary(9)", "text"),
    ("json", "jsonb"),
    ("tinyint(1)", "boolean"),
    ("bit(1)", "boolean"),
    ("bit(8)", "bit varying"),
    ("decimal(10,2)", "money"),
    ("varchar(9)", "uuid"),
)


def test_columns_that_would_change_values_are_refused(
    target_db: Database, sync_into: MakeSync
) -> None:
    """Where PostgreSQL would round or cut without an error, the table is refused by name, with the
    statement that mends it; `check` says the same. Conversions that keep or refuse are allowed."""
    sync = sync_into(PostgresTarget(target_db))
    for number, (type_name, there, change) in enumerate(CHANGING):
        target_db.execute(f"CREATE TABLE c{number} (id bigint PRIMARY KEY, v {there})")
        relation = table(f"c{number}", ID, column("v", type_name))
        with pytest.raises(PermanentError) as refused:
            sync.prepared(relation)
        assert f"column v is {type_name} on the source" in str(refused.value)
        assert change in str(refused.value)
        assert "FAILED" in {f.level for f in sync.applier.check([relation])}
        target_db.execute(refused.value.hint.replace(";", " USING NULL;"))
        sync.prepared(relation)
    for number, (type_name, there) in enumerate(KEEPING):
        target_db.execute(f"CREATE TABLE k{number} (id bigint PRIMARY KEY, v {there})")
        sync.prepared(table(f"k{number}", ID, column("v", type_name)))


def test_a_missing_column_is_told_in_the_targets_words(
    target_db: Database, sync_into: MakeSync
) -> None:
    """The statement that mends it has PostgreSQL's type."""
    target_db.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
    relation = table("t", ID, column("n", "int(10) unsigned"))
    sync = sync_into(PostgresTarget(target_db))
    with pytest.raises(PermanentError, match="no column n") as refused:
        sync.prepared(relation)
    assert refused.value.hint == 'ALTER TABLE "public"."t" ADD COLUMN "n" bigint;'


BIG: Final = column("n", "bigint(20) unsigned")


def test_unsigned_numbers_in_a_column_of_numbers(sqlite_path: Path, sync_into: MakeSync) -> None:
    """In SQLite's tables that are there already an unsigned bigint is a number, as a key too; one that
    SQLite does not have falls under the policy."""
    target = SqliteTarget(sqlite_path)
    target.execute("CREATE TABLE t (n BIGINT PRIMARY KEY, m INTEGER, o INTEGER NOT NULL)")
    relation = table("t", BIG, column("m", BIG.type), column("o", BIG.type))
    sync = sync_into(target, NULL)
    assert {f.level for f in sync.applier.check([relation])} == {"ok"}
    sync.prepared(relation)
    most, more = b"9223372036854775807", b"9223372036854775808"
    sync.apply(insert(relation, b"1", b"2", b"3"), insert(relation, most, most, most))
    sync.apply(update(relation, None, b"1", more, b"4"), delete(relation, most, None, None))
    assert target.rows("SELECT n, m, o FROM t") == [(1, None, 4)]
    refused = "a number of 2\\^63 or more cannot be kept in an INTEGER of SQLite"
    for row in ((b"5", b"5", more), (more, b"5", b"5")):
        with pytest.raises(PermanentError, match=refused):
            sync.apply(insert(relation, *row))
    sync.applier.close()
    for policy in (ERROR, AS_TEXT):
        strict = sync_into(target, policy)
        strict.prepared(relation)
        with pytest.raises(PermanentError, match=rf"table crm\.t: column m: {refused}"):
            strict.apply(insert(relation, b"6", more, b"6"))
        strict.applier.close()
    assert target.rows("SELECT n, m, o FROM t") == [(1, None, 4)]


def test_text_with_a_nul_in_sqlite(sqlite_path: Path, sync_into: MakeSync) -> None:
    """SQLite holds it, as a value and in a key."""
    target = SqliteTarget(sqlite_path)
    sync = sync_into(target)
    relation = sync.prepared(table("t", TEXT, column("w", "text")))
    sync.apply(insert(relation, b"a\0b", b"\0"), insert(relation, b"a", b"v"))
    sync.apply(update(relation, None, b"a\0b", b"c\0"))
    assert target.rows("SELECT v, w FROM t ORDER BY w") == [("a\0b", "c\0"), ("a", "v")]
