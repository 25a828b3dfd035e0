"""Reading tables of a PostgreSQL source: exactly the state at the round's position, every row once."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest

from appliers.delta import Commit, Delta
from appliers.errors import PermanentError, TransientError
from appliers.images import copy_binary_row, copy_text_line, pgoutput_image
from appliers.relation import Relation
from cdc.demo.server import LocalPostgres
from cdc.sources.postgres import copying as copying_module
from cdc.sources.postgres import reading as reading_module
from cdc.sources.postgres.copying import PostgresChunkReader, PostgresRound
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.postgres.stream import PostgresStream
from cdc.sources.source import Piece, Plan, StalePlanError
from tests.capture import (
    Capture,
    MakeCapture,
    Row,
    events_until,
    pieces_of,
    read_rows,
    replayed,
    row_of,
)
from tests.databases import Database, wait_until
from tests.pieces import changes_in
from tests.servers import on_every_source

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {}"


@contextmanager
def reading(capture: Capture) -> Iterator[PostgresChunkReader]:
    """A reader of a round of its own."""
    copying = capture.source.copy_round()
    try:
        reader = copying.reader()
        try:
            yield reader
        finally:
            reader.close()
    finally:
        copying.close()


def everything(reader: PostgresChunkReader, relation: Relation) -> list[Row]:
    plan = reader.plan(relation)
    return [
        row
        for bounds in plan.bounds
        for row in read_rows(relation, reader.read(relation, bounds, plan.fingerprint))
    ]


def sizes_of(reader: PostgresChunkReader, relation: Relation, plan: Plan) -> list[int]:
    """How many rows each chunk has."""
    chunks = (reader.read(relation, bounds, plan.fingerprint) for bounds in plan.bounds)
    return [len(read_rows(relation, chunk)) for chunk in chunks]


def filled(database: Database, rows: int = 1000) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, x text);"
        f"INSERT INTO t SELECT i, 0, repeat('x', 100) FROM generate_series(1, {rows}) AS i"
    )


@on_every_source
def test_a_round_is_exactly_its_position(
    source_db: Database,
    make_capture: MakeCapture,
    binary: bool,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a round reads under concurrent writers, with the stream's later changes on top, is what the
    table has in the end; nothing from before the position is missing, nothing from behind it is there."""
    monkeypatch.setattr(copying_module, "CHUNK_BLOCKS", 3)
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, n int, x text)")
    source_db.execute(
        "INSERT INTO t SELECT i, 0, repeat('x', 100) FROM generate_series(1, 2000) AS i"
    )
    capture = make_capture(source_db)
    capture.start("t")
    stopped = threading.Event()
    writers = [
        threading.Thread(target=write, args=(source_db.connect(), seed + n, stopped))
        for n in range(3)
    ]
    for writer in writers:
        writer.start()
    copied = capture.copied("t")
    try:
        rounds: list[tuple[Lsn, list[Row]]] = []
        for _ in range(4):
            with reading(capture) as reader:
                rounds.append((reader.position, everything(reader, copied)))
    finally:
        stopped.set()
        for writer in writers:
            writer.join()
    stream = capture.stream()
    pieces = pieces_of(events_until(stream, capture.source.committed_head()))
    with reading(capture) as reader:
        final = Counter(everything(reader, copied))
    for position, rows in rounds:
        by_key = {tuple(copied.key(image_of(copied, row))): row for row in rows}
        assert len(by_key) == len(rows), "a row was read twice"
        for piece in pieces:
            replayed(by_key, since(position, piece))
        assert Counter(by_key.values()) == final


def since(position: Lsn, piece: Piece) -> list[Delta]:
    """The changes of transactions that were committed at `position` or later."""
    return [c for c in changes_in(piece) if Lsn.parse(c[4].position) >= position]


def write(db: psycopg.Connection[Row], seed: int, stopped: threading.Event) -> None:
    """Changes that keep the number of rows about the same."""
    draw = random.Random(seed)
    while not stopped.is_set():
        db.execute("BEGIN")
        # In the keys' order, so that the writers never lock each other out for good.
        for key in sorted(draw.sample(range(1, 2500), draw.randrange(1, 8))):
            if draw.random() < 0.6:
                db.execute("UPDATE t SET n = n + 1 WHERE id = %s", [key])
            elif draw.random() < 0.5:
                db.execute("DELETE FROM t WHERE id = %s", [key])
            else:
                db.execute(
                    "INSERT INTO t VALUES (%s, -1, repeat('y', 100)) ON CONFLICT (id) DO NOTHING",
                    [key],
                )
        db.execute("ROLLBACK" if draw.random() < 0.1 else "COMMIT")


def image_of(relation: Relation, row: Row) -> bytes:
    return (copy_binary_row if relation.format.binary else copy_text_line)(row)


@on_every_source
def test_chunks_cover_every_row_once(
    source_db: Database, make_capture: MakeCapture, binary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All chunks of a plan together are the table, none twice, with values as COPY gives them; and the
    plan's estimate is near."""
    monkeypatch.setattr(copying_module, "CHUNK_BLOCKS", 2)
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x text, b bytea);"
        "INSERT INTO t SELECT i, E'tab\\t line\\n back\\\\ ' || i, decode(lpad(to_hex(i), 8, '0'), 'hex')"
        " FROM generate_series(1, 3000) AS i;"
        "INSERT INTO t VALUES (0, NULL, NULL), (-1, '', ''), (-2, E'\\\\N', NULL); ANALYZE t;"
        "DELETE FROM t WHERE id BETWEEN 500 AND 900"
    )
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    with reading(capture) as reader:
        plan = reader.plan(copied)
        assert len(plan.bounds) > 5
        assert plan.rows_estimated == pytest.approx(3003, rel=0.1)
        rows = everything(reader, copied)
    expected = source_db.rows("SELECT id, x, b FROM t")
    assert sorted(row_of(copied, image_of(copied, r)) or () for r in rows) == sorted(expected)


@on_every_source
def test_a_table_that_was_never_analyzed(source_db: Database, make_capture: MakeCapture) -> None:
    """Its rows are estimated from a sample of it, and many small ones are several chunks."""
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int) WITH (autovacuum_enabled = off);"
        "INSERT INTO t SELECT i, 0 FROM generate_series(1, 300000) AS i;"
        "DELETE FROM t WHERE id <= 20000"
    )
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    with reading(capture) as reader:
        plan = reader.plan(copied)
        sizes = sizes_of(reader, copied, plan)
    assert plan.rows_estimated == pytest.approx(300_000, rel=0.01)
    assert len(sizes) > 2
    assert max(sizes) <= 100_000
    assert sum(sizes) == 280_000


@on_every_source
def test_what_stands_out_of_line_counts(source_db: Database, make_capture: MakeCapture) -> None:
    """A chunk of few blocks with large values is no longer than others."""
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x text); ALTER TABLE t ALTER x SET STORAGE EXTERNAL;"
        "INSERT INTO t SELECT i, repeat('x', 20000) FROM generate_series(1, 2000) AS i"
    )
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    with reading(capture) as reader:
        plan = reader.plan(copied)
        sizes = sizes_of(reader, copied, plan)
    assert sum(sizes) == plan.rows_estimated == 2000
    assert max(sizes) * 20_000 < 20 << 20


@on_every_source
def test_empty_tables_have_no_chunks(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """A table without rows is planned, in no time (22); and the chunk of an empty range has no rows."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    with reading(capture) as reader:
        plan = reader.plan(copied)
        assert (plan.bounds, plan.rows_estimated) == ([], 0)
    source_db.execute("INSERT INTO t VALUES (1); DELETE FROM t")
    with reading(capture) as reader:
        assert everything(reader, copied) == []
        assert read_rows(copied, reader.keys(copied, None)) == []


@on_every_source
def test_partitions_are_read_through_their_root(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """Each partition is a heap of its own in the plan; rows come in the root's column order (22)."""
    source_db.execute(
        "CREATE TABLE p (id int, part int, x text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);"
        "CREATE TABLE p2 (x text, part int NOT NULL, gone int, id int NOT NULL); ALTER TABLE p2 DROP gone;"
        "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);"
        "CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3) PARTITION BY RANGE (id);"
        "CREATE TABLE p31 PARTITION OF p3 FOR VALUES FROM (0) TO (1000);"
        "INSERT INTO p SELECT i, 1 + i % 3, 'x' || i FROM generate_series(1, 300) AS i"
    )
    capture = make_capture(source_db)
    capture.start("p")
    copied = capture.copied("p")
    with reading(capture) as reader:
        plan = reader.plan(copied)
        assert len(plan.bounds) == 3
        rows = [row_of(copied, image_of(copied, r)) or () for r in everything(reader, copied)]
        keys = read_rows(copied, reader.keys(copied, None))
    assert sorted(rows) == source_db.rows("SELECT * FROM p ORDER BY id")
    assert len(set(keys)) == 300
    source_db.execute("CREATE TABLE p4 PARTITION OF p FOR VALUES IN (4)")
    with reading(capture) as reader, pytest.raises(StalePlanError, match=r"^public\.p$"):
        list(reader.read(copied, plan.bounds[0], plan.fingerprint))


def test_heirs_are_not_copied(source_db: Database, make_capture: MakeCapture) -> None:
    """Tables that inherit from a table are not part of it, in no kind of read."""
    source_db.execute(
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);"
        "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1), (2)"
    )
    capture = make_capture(source_db)
    capture.start("parent")
    copied = capture.copied("parent")
    with reading(capture) as reader:
        assert everything(reader, copied) == [(b"1",)]
        assert read_rows(copied, reader.keys(copied, None)) == [(b"1",)]
        assert read_rows(copied, reader.read(copied, '{"customer": {"id": "2"}}', "")) == []
    found = capture.source.reread(
        capture.relations["parent"], [key_image(["2"])], commit_now(source_db), lambda r: r
    )
    assert found.images == []


@pytest.mark.parametrize(
    "altering",
    [
        "ALTER PUBLICATION {name} DROP TABLE t; ALTER PUBLICATION {name} ADD TABLE t",
        "ALTER PUBLICATION {name} DROP TABLE t",
        "ALTER TABLE t ALTER COLUMN n TYPE text USING 'n of ' || n",
    ],
)
def test_a_table_that_is_not_what_the_session_found_is_not_copied(
    source_db: Database, make_capture: MakeCapture, altering: str
) -> None:
    """Not by this session, whose stream would write what the log has from before over the copy."""
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE u (id int PRIMARY KEY)"
    )
    capture = make_capture(source_db)
    capture.start("t", "u")
    source_db.execute(altering.format(name=capture.source.name))
    copying = capture.source.copy_round()
    try:
        reader = copying.reader()
        assert reader.plan(capture.copied("u")).bounds == []
        with pytest.raises(TransientError, match="was altered, or was out of publication"):
            reader.plan(capture.copied("t"))
        reader.close()
    finally:
        copying.close()


@on_every_source
@pytest.mark.parametrize("rewrite", ["VACUUM FULL t", "TRUNCATE t", "CLUSTER t USING t_pkey"])
def test_a_stale_plan_is_told(source_db: Database, make_capture: MakeCapture, rewrite: str) -> None:
    """A table that was rewritten between the plan and a later round is planned anew."""
    filled(source_db)
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    with reading(capture) as reader:
        plan = reader.plan(copied)
        rows = read_rows(copied, reader.read(copied, plan.bounds[0], plan.fingerprint))
        assert len(rows) == 1000
    source_db.execute(rewrite)
    with reading(capture) as reader:
        with pytest.raises(StalePlanError, match=r"^public\.t$"):
            list(reader.read(copied, plan.bounds[0], plan.fingerprint))
        # The reader is still good.
        assert len(everything(reader, copied)) == source_db.value("SELECT count(*) FROM t")


@on_every_source
@pytest.mark.parametrize(
    "rewrite",
    [
        "ALTER TABLE t ALTER n TYPE bigint",
        "TRUNCATE t",
        "VACUUM FULL t",
        "DROP TABLE t",
        "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, n int, x text)",
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE t DROP n",
    ],
)
def test_a_rewrite_during_a_round_never_reads_as_an_empty_table(
    source_db: Database, make_capture: MakeCapture, rewrite: str
) -> None:
    """Under a snapshot from before a rewrite the new table looks empty, and the log has nothing of it:
    planning, reading and listing keys are then errors that a later round mends, never "no rows"."""
    filled(source_db)
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    with reading(capture) as reader:
        plan = reader.plan(copied)
        for statement in rewrite.split(";"):
            source_db.execute(statement)
        for blocks in (
            reader.keys(copied, None),
            reader.keys(copied, {"id": "1"}),
            reader.read(copied, '{"customer": {"id": "1"}}', ""),
            reader.read(copied, plan.bounds[0], plan.fingerprint),
        ):
            # A column that is gone is no rewrite, and keys do not need it.
            with suppress(TransientError, StalePlanError):
                assert read_rows(copied, blocks)
                assert rewrite == "ALTER TABLE t DROP n"
        if rewrite != "ALTER TABLE t DROP n":
            with pytest.raises((TransientError, StalePlanError)):
                reader.plan(copied)


@on_every_source
def test_keys_alone(source_db: Database, make_capture: MakeCapture, binary: bool) -> None:
    """keys() gives every row's key and NULL for the rest; with column values, of those rows only."""
    source_db.execute(
        "CREATE TABLE t (x text NOT NULL, b int, a int, PRIMARY KEY (a, b));"
        "INSERT INTO t SELECT 'c' || i % 3, i, -i FROM generate_series(1, 1500) AS i"
    )
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    with reading(capture) as reader:
        rows = [
            row_of(copied, image_of(copied, r))
            for r in read_rows(copied, reader.keys(copied, None))
        ]
        assert sorted(rows, key=str) == sorted(((None, i, -i) for i in range(1, 1501)), key=str)
        some = [
            row_of(copied, image_of(copied, r))
            for r in read_rows(copied, reader.keys(copied, {"x": "c1"}))
        ]
        assert sorted(r[1] for r in some if r) == list(range(1, 1501, 3))


@on_every_source
def test_a_customers_rows(source_db: Database, make_capture: MakeCapture, binary: bool) -> None:
    """The bounds of a customer's chunk hold that customer's rows and no others, for keys of several
    columns too; a key that does not fit is refused."""
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, region text, customer uuid);"
        "INSERT INTO t SELECT i, 'r''' || i % 2, ('00000000-0000-0000-0000-00000000000' || i % 5)::uuid"
        " FROM generate_series(1, 100) AS i"
    )
    capture = make_capture(source_db)
    capture.start("t")
    copied = replace(capture.copied("t"), customer_columns=(1, 2))
    bounds = capture.source.customer_bounds(copied, "r'1,00000000-0000-0000-0000-000000000003")
    only = capture.source.bounded_to(bounds)
    assert only == {"region": "r'1", "customer": "00000000-0000-0000-0000-000000000003"}
    with reading(capture) as reader:
        rows = [
            row_of(copied, image_of(copied, r))
            for r in read_rows(copied, reader.read(copied, bounds, ""))
        ]
        keys = read_rows(copied, reader.keys(copied, only))
        plan = reader.plan(copied)
    assert sorted(r[0] for r in rows if r) == [
        i for i in range(1, 101) if i % 2 == 1 and i % 5 == 3
    ]
    assert len(keys) == len(rows)
    assert capture.source.bounded_to(plan.bounds[0]) is None
    with pytest.raises(PermanentError) as error:
        capture.source.customer_bounds(copied, "r1")
    assert str(error.value) == "customer key of 1 values for table public.t, expected 2"


@on_every_source
def test_locks_are_gone_after_each_chunk(source_db: Database, make_capture: MakeCapture) -> None:
    """Between chunks no lock on the table is left, so that a migration waits for one chunk at most; a
    chunk that is left half-way leaves nothing open (23, 49)."""
    filled(source_db, rows=3000)
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    locks = (
        "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND pid <> pg_backend_pid()"
    )
    with reading(capture) as reader:
        plan = reader.plan(copied)
        assert source_db.value(locks) == 0
        blocks = reader.read(copied, plan.bounds[0], plan.fingerprint)
        next(blocks)
        assert source_db.value(locks) == 1
        for _ in blocks:
            pass
        assert source_db.value(locks) == 0
        source_db.execute("SET lock_timeout = '5s'")
        source_db.execute("ALTER TABLE t ADD later int")
        left = reader.read(copied, plan.bounds[0], plan.fingerprint)
        next(left)
        del left
        wait_until(lambda: source_db.value(locks) == 0)
    capture.source.close()
    wait_until(lambda: source_db.value(SESSIONS.format("application_name LIKE 'cdc %'")) == 0)
    assert source_db.value("SELECT count(*) FROM pg_replication_slots WHERE temporary") == 0


@on_every_source
def test_a_round_does_not_mind_a_long_transaction_that_begins_later(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """A transaction that is open across the round is not in it, and comes with the stream (18)."""
    filled(source_db, rows=10)
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    copying = capture.source.copy_round()
    with source_db.connect(autocommit=False) as db:
        db.execute("UPDATE t SET n = 1")
        reader = copying.reader()
        assert {row_of(copied, image_of(copied, r))[1] for r in everything(reader, copied)} == {0}  # type: ignore[index]
    assert {row_of(copied, image_of(copied, r))[1] for r in everything(reader, copied)} == {0}  # type: ignore[index]
    reader.close()
    copying.close()
    pieces = pieces_of(events_until(capture.stream(), capture.source.committed_head()))
    assert sum(len(since(copying.position, p)) for p in pieces) == 10


def test_a_lost_round_is_transient(source_db: Database, make_capture: MakeCapture) -> None:
    """When the connection that holds the snapshot is gone, its readers say so and may be made again."""
    filled(source_db, rows=10)
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    with reading(capture) as reader:
        source_db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'walsender' AND datname = current_database()"
        )
        walsenders = SESSIONS.format("backend_type = 'walsender'")
        wait_until(lambda: source_db.value(walsenders) == 0)
        with pytest.raises(TransientError) as error:
            reader.plan(copied)
        assert (
            str(error.value)
            == "source: the copy's snapshot is gone: the connection that held it was lost"
        )
        with pytest.raises(TransientError):
            list(reader.keys(copied, None))


def test_readers_side_by_side(source_db: Database, make_capture: MakeCapture) -> None:
    """Each thread has its own reader of one moment."""
    filled(source_db)
    capture = make_capture(source_db)
    capture.start("t")
    copied = capture.copied("t")
    copying: PostgresRound = capture.source.copy_round()
    source_db.execute("DELETE FROM t")
    found: list[int] = []

    def lane() -> None:
        reader = copying.reader()
        found.append(len(everything(reader, copied)))
        reader.close()

    threads = [threading.Thread(target=lane) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    copying.close()
    assert found == [1000] * 3


def key_image(key: list[str]) -> bytes:
    return pgoutput_image([k.encode() for k in key], b"t")


def commit_now(database: Database) -> Commit:
    """A commit of this moment."""
    number = database.value("SELECT txid_current() % 4294967296")
    return Commit("0/0", int(number), 0)


KEYS = {
    "int": "7",
    "text": "it's a\\key",
    "varchar(20)": "x",
    "char(5)": "ab",
    "uuid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    "numeric": "12345678901234567890.123456789",
    "timestamp": "2026-01-31 12:00:00.123456",
    "timestamptz": "2026-01-31 12:00:00.123456+00",
    "date": "0044-03-15 BC",
    "mood": "fi ne",
    "bytea": "\\x00ff",
    "boolean": "t",
    "float8": "0.1",
    "inet": "10.0.0.1/8",
    "interval": "1 year 2 mons",
    "int4range": "[1,5)",
    "int[]": "{1,2}",
    "d": "dom",
    "citext": "MiXed",
    "ltree": "a.b.c",
    "xid8": "7",
    "oid": "7",
    "name": "n",
    "money": "$1.50",
    "bit(3)": "101",
    "macaddr": "08:00:2b:01:02:03",
    "jsonb": '{"a": 1}',
    "pg_lsn": "0/7",
}


@on_every_source
def test_rows_are_read_again_by_keys_of_every_type(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """A row is found again by the key that the log gave, whatever its type, through the key's index and
    with the operator that the index uses, types of extensions included (20)."""
    source_db.execute(
        "CREATE TYPE mood AS ENUM ('fi ne'); CREATE DOMAIN d AS varchar(10);"
        "CREATE EXTENSION citext; CREATE EXTENSION ltree"
    )
    for n, kind in enumerate(KEYS):
        source_db.execute(f"CREATE TABLE t{n} (x text, k {kind} PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("*")
    for n, value in enumerate(KEYS.values()):
        source_db.execute(f"INSERT INTO t{n} VALUES ('found', %s)", [value])
    pieces = pieces_of(events_until(capture.stream(), capture.source.committed_head()))
    seen = set()
    for piece in pieces:
        for _, relation, _, after, *_ in changes_in(piece):
            assert after is not None
            if binary and not all(c.portable for c in relation.columns):
                # Types without a form that is the same everywhere are only ever sent as text.
                seen.add(relation.name)
                continue
            found = capture.source.reread(relation, [after, after], piece.commit, lambda r: r)
            rows = [found.relation.values(image) for image in found.images]
            assert rows == [relation.values(after)], relation
            seen.add(relation.name)
    assert len(seen) == len(KEYS)


@on_every_source
def test_rows_with_four_key_columns(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """Keys of several columns in another order than the table's; rows that are gone are left out (20)."""
    source_db.execute(
        "CREATE TABLE t (x text, d uuid, c text, b timestamp, a int, PRIMARY KEY (a, b, c, d));"
        "INSERT INTO t SELECT 'v' || i, ('00000000-0000-0000-0000-00000000000' || i)::uuid, 'c' || i,"
        " '2026-01-01'::timestamp + i * interval '1 second', i FROM generate_series(1, 5) AS i"
    )
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("UPDATE t SET x = x || '!'; DELETE FROM t WHERE a = 3")
    [piece] = pieces_of(events_until(capture.stream(), capture.source.committed_head()))
    relation = changes_in(piece)[0][1]
    assert relation.key_names == ("a", "b", "c", "d")
    images = [after for _, _, _, after, *_ in changes_in(piece) if after is not None]
    found = capture.source.reread(relation, images, piece.commit, lambda r: r)
    rows = [row_of(found.relation, image) for image in found.images]
    assert [r[0] for r in rows if r] == ["v1!", "v2!", "v4!", "v5!"]
    assert Lsn.parse(found.position) >= Lsn.parse(piece.commit.position)


@on_every_source
def test_a_row_is_read_again_only_once_its_change_is_visible(
    source_db: Database, make_capture: MakeCapture, source_server: LocalPostgres
) -> None:
    """A commit reaches the log before other sessions see it: the read waits for it, with
    synchronous_commit = off too, and its position is not before what it read."""
    filled(source_db, rows=1)
    capture = make_capture(source_db)
    capture.start("t")
    stream = capture.stream()
    with source_db.connect() as db:
        for turn in range(16):
            db.execute(f"SET synchronous_commit = {('on', 'off')[turn % 2]}")
            db.execute("UPDATE t SET n = n + 1")
            if turn % 2:
                db.execute("SET synchronous_commit = on; SELECT txid_current()")
            [piece] = _next_pieces(stream)
            _, relation, _, after, *_ = changes_in(piece)[0]
            assert after is not None
            found = capture.source.reread(relation, [after], piece.commit, lambda r: r)
            row = row_of(found.relation, found.images[0])
            assert row is not None
            assert row[1] >= turn + 1
            assert Lsn.parse(found.position) >= Lsn.parse(piece.commit.position)


def _next_pieces(stream: PostgresStream) -> list[Piece]:
    return wait_until(lambda: pieces_of(stream.read(1)))


def test_a_transaction_that_is_not_over_is_waited_for(
    source_db: Database, make_capture: MakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the commit is not visible nothing is read; after a minute that is an error."""
    filled(source_db, rows=1)
    capture = make_capture(source_db)
    capture.start("t")
    relation = capture.relations["t"]
    image = pgoutput_image([b"1", None, None], b"t")
    with source_db.connect(autocommit=False) as db:
        number = int((db.execute("SELECT txid_current() % 4294967296").fetchone() or (0,))[0])
        db.execute("UPDATE t SET n = 5")
        threading.Timer(0.3, db.commit).start()
        found = capture.source.reread(relation, [image], Commit("0/0", number, 0), lambda r: r)
        assert (row_of(found.relation, found.images[0]) or ())[1] == 5
    monkeypatch.setattr(reading_module, "VISIBLE_WITHIN", 0.2)
    with pytest.raises(TransientError, match="is not visible after"):
        capture.source.reread(relation, [image], Commit("0/0", number + 1000, 0), lambda r: r)


@on_every_source
def test_rows_are_read_as_the_table_is_now(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """A change from before a migration is read again with the table's present shape and name; a dropped
    table has no rows; a key that is gone is refused by name."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text)")
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("INSERT INTO t VALUES (1, 'a', 'b')")
    [piece] = pieces_of(events_until(capture.stream(), capture.source.committed_head()))
    _, relation, _, after, *_ = changes_in(piece)[0]
    assert after is not None
    source_db.execute(
        "ALTER TABLE t DROP a, ADD c text DEFAULT 'new', ALTER id TYPE bigint; ALTER TABLE t RENAME TO u"
    )
    found = capture.source.reread(relation, [after], piece.commit, lambda r: r)
    assert found.relation.table == "public.u"
    assert [row_of(found.relation, i) for i in found.images] == [(1, "b", "new")]
    source_db.execute("ALTER TABLE u RENAME id TO nr")
    with pytest.raises(PermanentError) as error:
        capture.source.reread(relation, [after], piece.commit, lambda r: r)
    assert str(error.value).startswith("table public.t has lost column id of its key")
    source_db.execute("DROP TABLE u")
    assert capture.source.reread(relation, [after], piece.commit, lambda r: r).images == []
