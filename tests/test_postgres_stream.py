"""What the log of a PostgreSQL source gives: every committed change, once, in order, as it was written."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from appliers.delta import UNCHANGED
from appliers.errors import PermanentError, TransientError
from cdc.demo.server import LocalPostgres
from cdc.sources.postgres import connection
from cdc.sources.postgres import stream as stream_module
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.source import GapError, Piece, Progress
from tests.capture import (
    MakeCapture,
    events_until,
    pieces_of,
    plain,
    read_rows,
    told,
)
from tests.databases import Database, wait_until
from tests.pieces import changes_in
from tests.servers import MakeServer, on_every_source
from tests.tls import over_tls, use_tls

BIG = "(SELECT string_agg(md5(i::text || {seed}), '') FROM generate_series(1, 300) AS i)"
"""About 10 kB that do not compress, so that they are stored out of line."""


@on_every_source
def test_rows_come_as_they_were_written(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """Inserts, updates, deletes and changes of the key come in order; the old key only where it changed."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("INSERT INTO t VALUES (1, 'a'), (2, NULL)")
    source_db.execute("UPDATE t SET name = '' WHERE id = 1")
    source_db.execute("UPDATE t SET id = 3 WHERE id = 2")
    source_db.execute("DELETE FROM t WHERE id = 1")
    assert told(capture) == [
        ("insert", "t", None, (1, "a")),
        ("insert", "t", None, (2, None)),
        ("update", "t", None, (1, "")),
        ("update", "t", (2, None), (3, None)),
        ("delete", "t", (1, None), None),
    ]


def test_rows_inserted_one_behind_the_other_are_one_run(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """Inserts of one transaction into one table come together, across statements, until something
    else comes between them; each row keeps its number."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t", "u")
    with source_db.connect(autocommit=False) as db:
        db.execute("INSERT INTO t VALUES (1), (2)")
        db.execute("INSERT INTO t VALUES (3)")
        db.execute("INSERT INTO u VALUES (1)")
        db.execute("INSERT INTO t VALUES (4)")
        db.execute("DELETE FROM u")
        db.execute("INSERT INTO t VALUES (5), (6)")
    source_db.execute("INSERT INTO t VALUES (7)")
    pieces = pieces_of(events_until(capture.stream(), capture.source.committed_head()))
    runs = [r for p in pieces for r in p.deltas]
    changes = [c for p in pieces for c in changes_in(p)]
    found = [(r[1].name, r[5], len(r[3])) for r in runs if isinstance(r[3], list)]
    assert found == [("t", 1, 3), ("u", 4, 1), ("t", 5, 1), ("t", 7, 2), ("t", 1, 1)]
    assert sum(p.rows for p in pieces) == len(changes) == 9
    assert [c[5] for c in changes] == [1, 2, 3, 4, 5, 6, 7, 8, 1]
    inserted = [plain(c)[3] for c in changes if plain(c)[:2] == ("insert", "t")]
    assert inserted == [(n,) for n in range(1, 8)]


def test_a_commit_says_where_who_and_when(source_db: Database, make_capture: MakeCapture) -> None:
    """A piece carries the transaction's number, its time by the source's clock, and ordinals from 1."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    with source_db.connect(autocommit=False) as db:
        number = db.execute("SELECT txid_current()").fetchone()
        db.execute("INSERT INTO t VALUES (1), (2)")
    at = time.time()
    [piece] = pieces_of(events_until(capture.stream(), capture.source.committed_head()))
    assert piece.commit.transaction == (number or (0,))[0] % 2**32
    assert abs(piece.commit.committed_at / 1e6 - at) < 5
    assert [change[5] for change in changes_in(piece)] == [1, 2]
    assert {change[4] for change in changes_in(piece)} == {piece.commit}
    assert piece.oldest == piece.commit.committed_at
    assert isinstance(piece.position, Lsn)
    assert Lsn.parse(piece.commit.position) < piece.position
    assert piece.size > 0


@on_every_source
def test_truncate_names_every_table(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """TRUNCATE of several tables comes as one change for each, in the transaction's order (26)."""
    source_db.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("a", "b")
    source_db.execute("INSERT INTO a VALUES (1)")
    source_db.execute("TRUNCATE a, b")
    source_db.execute("INSERT INTO b VALUES (2)")
    changes = told(capture)
    assert changes[0] == ("insert", "a", None, (1,))
    assert sorted(changes[1:3]) == [("truncate", "a", None, None), ("truncate", "b", None, None)]
    assert changes[3] == ("insert", "b", None, (2,))


@on_every_source
@pytest.mark.parametrize("identity", ["DEFAULT", "FULL", "USING INDEX t_code"])
def test_unchanged_values_are_absent_or_filled(
    source_db: Database, make_capture: MakeCapture, binary: bool, identity: str
) -> None:
    """An out-of-line value that an update left alone is UNCHANGED, never NULL (25); with FULL the old
    row has it, so that the new image is whole."""
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, code int NOT NULL, n int,"
        " x text, j jsonb, b bytea, l text[], empty text);"
        "CREATE UNIQUE INDEX t_code ON t (code);"
        f"ALTER TABLE t REPLICA IDENTITY {identity}"
    )
    for column in "xjbl":
        source_db.execute(f"ALTER TABLE t ALTER {column} SET STORAGE EXTERNAL")
    big = BIG.format(seed=1)
    source_db.execute(
        f"INSERT INTO t SELECT 1, 10, 0, v, to_jsonb(v), v::bytea, ARRAY[v], NULL FROM (SELECT {big}) AS s(v)"
    )
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("UPDATE t SET n = 1")
    source_db.execute("UPDATE t SET id = 2, code = 20")
    source_db.execute("UPDATE t SET x = 'short'")
    first, second, third = told(capture)
    for _, _, _, after in (first, second, third):
        assert after is not None
        absent = [v is UNCHANGED for v in after]
        if identity == "FULL":
            assert not any(absent)
        else:
            assert absent[4:7] == [True] * 3
        assert after[7] is None
    assert third[3] is not None
    assert third[3][3] == "short"
    if identity == "FULL":
        assert first[3] is not None
        assert first[3][3] == source_db.value(f"SELECT {big}")
        assert len(first[3][5]) == 300 * 32
    else:
        assert first[2] is None
        key = (1, None) if identity == "DEFAULT" else (None, 10)
        assert second[2] == (*key, None, None, None, None, None, None)


def test_an_out_of_line_key_is_never_unchanged(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """A key that is stored out of line is logged with the old row, and the new image gets it from there."""
    source_db.execute(
        "CREATE TABLE t (k text PRIMARY KEY, n int); ALTER TABLE t ALTER k SET STORAGE EXTERNAL"
    )
    key = source_db.value(f"SELECT left({BIG.format(seed=2)}, 2500)")
    source_db.execute("INSERT INTO t VALUES (%s, 0)", [key])
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("UPDATE t SET n = 1")
    assert told(capture) == [("update", "t", (key, None), (key, 1))]


@on_every_source
def test_what_was_rolled_back_never_comes(source_db: Database, make_capture: MakeCapture) -> None:
    """Rolled-back transactions and savepoints deliver nothing, what surrounds them comes whole (11)."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    with source_db.connect() as db:
        db.execute("BEGIN; INSERT INTO t VALUES (1); ROLLBACK")
        db.execute(
            "BEGIN; INSERT INTO t VALUES (2); SAVEPOINT a; INSERT INTO t VALUES (3);"
            "SAVEPOINT b; INSERT INTO t VALUES (4); ROLLBACK TO a; INSERT INTO t VALUES (5);"
            "SAVEPOINT c; INSERT INTO t VALUES (6); RELEASE c; COMMIT"
        )
    assert [after for _, _, _, after in told(capture)] == [(2,), (5,), (6,)]


def test_a_large_transaction_comes_in_pieces(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """A transaction larger than a piece comes in several, in order, with ordinals that go on; only the
    last has a position (12)."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, filler text)")
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 45000) AS i")
    source_db.execute("INSERT INTO t VALUES (0, 'y')")
    pieces = pieces_of(events_until(capture.stream(), capture.source.committed_head()))
    changes = [change for piece in pieces for change in changes_in(piece)]
    *open_pieces, last = [p for p in pieces if len({c[4] for c in changes_in(p)} & {changes[0][4]})]
    assert len(open_pieces) >= 2
    assert all(len(changes_in(p)) <= stream_module.PIECE_ROWS * 1.1 for p in pieces)
    assert all(p.position is None for p in open_pieces)
    assert last.position is not None
    assert [c[5] for c in changes] == [*range(1, 45001), 1]
    assert [plain(c)[3] for c in changes] == [*((i, "x") for i in range(1, 45001)), (0, "y")]
    assert len({c[4] for c in changes}) == 2


def test_large_rows_bound_a_piece_by_bytes(source_db: Database, make_capture: MakeCapture) -> None:
    """Pieces are closed by their bytes too, so that memory stays bounded whatever a row weighs."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, filler text)")
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute(
        "INSERT INTO t SELECT i, repeat('x', 1000000) FROM generate_series(1, 12) AS i"
    )
    pieces = pieces_of(events_until(capture.stream(), capture.source.committed_head()))
    assert len(pieces) >= 2
    assert all(p.size < stream_module.PIECE_BYTES + 3_000_000 for p in pieces)
    assert sum(len(changes_in(p)) for p in pieces) == 12


@on_every_source
def test_start_anywhere_and_get_exactly_the_later_transactions(
    source_db: Database, make_capture: MakeCapture, seed: int
) -> None:
    """Every position that the stream gives, of a piece or of progress, is one to resume from: what was
    given before it never comes again, everything else does (2, 3, 6)."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    draw = random.Random(seed)
    stream = capture.stream()
    events: list[Piece | Progress] = []
    sessions = [source_db.connect(autocommit=False) for _ in range(3)]
    number = 0
    for turn in range(60):
        session = draw.choice(sessions)
        for _ in range(draw.randrange(1, 4)):
            number += 1
            session.execute("INSERT INTO t VALUES (%s)", [number])
        if draw.random() < 0.6:
            session.rollback() if draw.random() < 0.2 else session.commit()
        if turn % 5 == 0:
            events += stream.read(0.05)
    for session in sessions:
        session.commit()
    events += events_until(stream, capture.source.committed_head())
    stream.close()
    given = [[plain(c) for c in changes_in(e)] if isinstance(e, Piece) else [] for e in events]
    positions = [(i, e.position) for i, e in enumerate(events) if isinstance(e.position, Lsn)]
    assert [p for _, p in positions] == sorted(p for _, p in positions)
    end = positions[-1][1]
    # The slot was never told anything, so that it can go back.
    for index, position in draw.sample(positions[:-1], min(12, len(positions) - 1)):
        again = capture.stream(position)
        later = [plain(c) for p in pieces_of(events_until(again, end)) for c in changes_in(p)]
        again.close()
        assert later == [change for changes in given[index + 1 :] for change in changes]


def test_an_open_transaction_holds_nothing_back_and_is_not_lost(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """A transaction that is open while others commit is not passed over: it comes after a restart from
    behind the others (3)."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    with source_db.connect(autocommit=False) as open_one:
        open_one.execute("INSERT INTO t VALUES (1)")
        source_db.execute("INSERT INTO t VALUES (2)")
        stream = capture.stream()
        events = events_until(stream, capture.source.committed_head())
        assert [plain(c)[3] for p in pieces_of(events) for c in changes_in(p)] == [(2,)]
        reached = events[-1].position
        assert isinstance(reached, Lsn)
        stream.confirm(reached)
        stream.keepalive()
        stream.close()
    wait_until(lambda: not _active(source_db, capture.source.name))
    capture.position = reached
    assert told(capture) == [("insert", "t", None, (1,))]


def test_progress_stays_outside_of_transactions(
    source_db: Database, make_capture: MakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No progress is told between the pieces of one transaction, whatever keepalives come meanwhile."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, x text)")
    monkeypatch.setattr(stream_module, "PIECE_ROWS", 100)
    monkeypatch.setattr(stream_module, "STATUS_EVERY", 0.0)
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute(
        "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) AS i"
    )
    events = events_until(capture.stream(), capture.source.committed_head())
    inside = False
    for event in events:
        assert not (inside and isinstance(event, Progress))
        inside = event.position is None
    assert sum(len(changes_in(p)) for p in pieces_of(events)) == 5000


def test_an_idle_log_adds_up_to_no_piece(
    source_db: Database, make_capture: MakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server says while nothing is published, for hours on a busy one, is no part of a large
    transaction: that would be one which is begun on the target, and which nothing ends."""
    monkeypatch.setattr(stream_module, "PIECE_BYTES", 200)
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)")
    capture = make_capture(source_db)
    capture.start("t")
    stream = capture.stream()
    events: list[Piece | Progress] = []
    until = time.monotonic() + 20
    while len(events) < 30:
        assert time.monotonic() < until, events
        source_db.execute("INSERT INTO other VALUES (1)")
        events += stream.read(0.05)
    assert pieces_of(events) == []


def test_confirmed_positions_never_move_back(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """What is confirmed reaches the slot, and a lower position afterwards does not (5)."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("INSERT INTO t VALUES (1)")
    stream = capture.stream()
    reached = events_until(stream, capture.source.committed_head())[-1].position
    assert isinstance(reached, Lsn)
    assert _confirmed(source_db, capture.source.name) == capture.position
    stream.confirm(reached)
    stream.confirm(capture.position)
    stream.keepalive()
    wait_until(lambda: _confirmed(source_db, capture.source.name) == reached)
    stream.confirm(capture.position)
    stream.keepalive()
    stream.read(0.1)
    assert _confirmed(source_db, capture.source.name) == reached


def test_an_idle_source_keeps_no_old_log(
    source_db: Database, make_capture: MakeCapture, source_server: LocalPostgres
) -> None:
    """While only other databases write, progress moves, and what is confirmed of it lets the slot's
    restart_lsn follow (14)."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    start = capture.start("t")
    stream = capture.stream()
    with psycopg.connect(source_server.url(), autocommit=True) as other:
        other.execute("CREATE TEMP TABLE nothing ()")
        other.execute(
            "CREATE TABLE noise AS SELECT i FROM generate_series(1, 100000) AS i; DROP TABLE noise"
        )

        def follows() -> bool:
            other.execute(
                "SELECT pg_log_standby_snapshot()" if source_server.major >= 16 else "CHECKPOINT"
            )
            for event in stream.read(0.1):
                assert isinstance(event, Progress)
                stream.confirm(event.position)
            stream.keepalive()
            retained = capture.source.log().retained_bytes
            return retained is not None and retained < 1_000_000

        wait_until(follows, message="the slot lets go of the log")
    confirmed = _confirmed(source_db, capture.source.name)
    assert confirmed is not None
    assert confirmed - start > 5_000_000


def test_a_restart_of_the_source_is_transient(
    make_server: MakeServer,
    fresh_database: Callable[[LocalPostgres], Database],
    make_capture: MakeCapture,
) -> None:
    """A source that stops or crashes ends the stream with TransientError; from the last position on
    nothing is lost or doubled afterwards (7)."""
    server = make_server()
    database = fresh_database(server)
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(database)
    capture.start("t")
    for number, stop in enumerate((_stop_fast, _crash)):
        database.execute("INSERT INTO t VALUES (%s)", [2 * number])
        stream = capture.stream()
        reached = events_until(stream, capture.source.committed_head())[-1].position
        assert isinstance(reached, Lsn)
        stream.confirm(reached)
        stream.keepalive()
        stop(server, stream)
        with pytest.raises(TransientError) as refused:
            capture.source.stream(reached, binary=False, shape=lambda r: r)
        assert "Connection refused" in str(refused.value)
        assert refused.value.hint == "check that the source is up and can be reached"
        capture.source.close()
        server.start()
        capture.source.open()
        database.execute("INSERT INTO t VALUES (%s)", [2 * number + 1])
        capture.position = reached
        assert told(capture) == [("insert", "t", None, (2 * number + 1,))]
        capture.position = capture.source.head()


def _crash(server: LocalPostgres, stream: stream_module.PostgresStream) -> None:
    server.stop("immediate")
    with pytest.raises(TransientError):
        stream.read(5)


def _stop_fast(server: LocalPostgres, stream: stream_module.PostgresStream) -> None:
    """A fast stop waits until the stream has confirmed the rest of the log."""
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    deadline = time.monotonic() + 20

    def go_on() -> None:
        while time.monotonic() < deadline:
            for event in stream.read(0.1):
                assert isinstance(event, Progress)
                stream.confirm(event.position)
            stream.keepalive()

    with pytest.raises(TransientError):
        go_on()
    stopping.join()


def test_a_terminated_walsender_is_transient(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """An administrator who ends the connection delays the sync, no more."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    stream = capture.stream()
    stream.read(0.1)
    source_db.execute(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s",
        [capture.source.name],
    )
    with pytest.raises(TransientError, match=r"^source: .*(terminating|closed)"):
        idle(stream)


def test_keepalive_alone_keeps_the_connection(
    source_db: Database, make_capture: MakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader whose target is slow calls only keepalive(), and stays connected for longer than the
    server waits for a silent one."""
    monkeypatch.setattr(connection, "WAL_SENDER_TIMEOUT", 1.0)
    monkeypatch.setattr(stream_module, "STATUS_EVERY", 0.1)
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, x text)")
    capture = make_capture(source_db)
    capture.start("t")
    # More than the sockets hold, so that the server is kept waiting in the middle of it.
    source_db.execute(
        "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) AS i"
    )
    stream = capture.stream()
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        stream.keepalive()
        time.sleep(0.05)
    assert len(told(capture, stream)) == 20000


def test_a_silent_reader_is_let_go(
    source_db: Database, make_capture: MakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without keepalive() the server ends the connection: the test above tests something."""
    monkeypatch.setattr(connection, "WAL_SENDER_TIMEOUT", 0.5)
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    stream = capture.stream()
    time.sleep(1.2)
    with pytest.raises(TransientError):
        idle(stream)


@on_every_source
def test_a_backlog_keeps_the_shapes_it_was_written_with(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """Changes from before a migration are decoded as they were written, although the table looks
    different by the time they are read: columns added, dropped, renamed, retyped (10). Where the table was
    renamed, they are changes of what it is called now."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text)")
    capture = make_capture(source_db)
    capture.start("t")
    stages = (
        "INSERT INTO t VALUES (1, 'a', 'b')",
        "ALTER TABLE t ADD c text",
        "INSERT INTO t VALUES (2, 'a', 'b', 'c')",
        "ALTER TABLE t DROP a",
        "INSERT INTO t VALUES (3, 'b', 'c')",
        "ALTER TABLE t RENAME b TO bb",
        "INSERT INTO t VALUES (4, 'bb', 'c')",
        "ALTER TABLE t ALTER c TYPE int USING 7",
        "INSERT INTO t VALUES (5, 'bb', 55)",
        "ALTER TABLE t RENAME TO u",
        "INSERT INTO u VALUES (6, 'bb', 66)",
    )
    for statement in stages:
        source_db.execute(statement)
    capture.source.catalog(["u"])
    pieces = pieces_of(events_until(capture.stream(), capture.source.committed_head()))
    seen = [
        (change[1].name, [c.name for c in change[1].columns], plain(change)[3])
        for piece in pieces
        for change in changes_in(piece)
    ]
    assert seen == [
        ("u", ["id", "a", "b"], (1, "a", "b")),
        ("u", ["id", "a", "b", "c"], (2, "a", "b", "c")),
        ("u", ["id", "b", "c"], (3, "b", "c")),
        ("u", ["id", "bb", "c"], (4, "bb", "c")),
        ("u", ["id", "bb", "c"], (5, "bb", 55)),
        ("u", ["id", "bb", "c"], (6, "bb", 66)),
    ]


@on_every_source
def test_what_was_dropped_is_still_decoded(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """Changes of a table, or with a type, that is gone by the time they are read still come (10)."""
    source_db.execute(
        "CREATE TYPE mood AS ENUM ('fine'); CREATE TABLE gone (id int PRIMARY KEY, m mood);"
        "CREATE TABLE kept (id int PRIMARY KEY)"
    )
    capture = make_capture(source_db)
    capture.start("gone", "kept")
    source_db.execute("INSERT INTO gone VALUES (1, 'fine')")
    source_db.execute("DROP TABLE gone; DROP TYPE mood")
    source_db.execute("INSERT INTO kept VALUES (2)")
    capture.source.catalog(["kept"])
    assert told(capture) == [("insert", "gone", None, (1, "fine")), ("insert", "kept", None, (2,))]


@on_every_source
def test_what_was_dropped_with_its_key(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """With REPLICA IDENTITY FULL the key of a dropped table is not to be had: what it had changed last is
    left out, and holds up no other table. Its rows on the target stay in any case."""
    source_db.execute(
        "CREATE TABLE gone (id int PRIMARY KEY); ALTER TABLE gone REPLICA IDENTITY FULL;"
        "CREATE TABLE kept (id int PRIMARY KEY)"
    )
    capture = make_capture(source_db)
    capture.start("gone", "kept")
    source_db.execute("INSERT INTO gone VALUES (1), (2)")
    source_db.execute("BEGIN; INSERT INTO kept VALUES (1); DELETE FROM gone WHERE id = 1; COMMIT")
    source_db.execute("TRUNCATE gone; DROP TABLE gone")
    source_db.execute("INSERT INTO kept VALUES (2)")
    capture.source.catalog(["kept"])
    assert told(capture) == [("insert", "kept", None, (1,)), ("insert", "kept", None, (2,))]


@on_every_source
def test_a_table_made_again_is_published_again(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """A table that was dropped and made again is another one: its rows come only once it is published,
    and resume() says that it has to be copied."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("INSERT INTO t VALUES (1)")
    source_db.execute("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, more text)")
    source_db.execute("INSERT INTO t VALUES (2, 'unseen')")
    assert capture.resume("t") == {"public.t"}
    source_db.execute("INSERT INTO t VALUES (3, 'seen')")
    assert told(capture) == [("insert", "t", None, (1,)), ("insert", "t", None, (3, "seen"))]
    assert capture.resume("t") == frozenset()


def test_other_tables_and_their_ddl_do_not_matter(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """Tables that are not synced, and whatever is done to them or to the database, deliver nothing (31)."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (x int)")
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("INSERT INTO other VALUES (1); UPDATE other SET x = 2; TRUNCATE other")
    source_db.execute(
        "ALTER TABLE other ADD y text; ALTER TABLE other RENAME TO another; DROP TABLE another"
    )
    source_db.execute(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW v AS SELECT 1 AS x"
    )
    source_db.execute("VACUUM FULL t")
    source_db.execute("INSERT INTO t VALUES (1)")
    source_db.execute("SELECT pg_logical_emit_message(true, 'other', 'not ours')")
    assert told(capture) == [("insert", "t", None, (1,))]


@on_every_source
def test_partitions_come_as_their_root(
    source_db: Database, make_capture: MakeCapture, binary: bool
) -> None:
    """Rows of partitions, of whatever column order, come as rows of the root; a move between partitions
    is a change of one row's key or values, not lost and not doubled (22)."""
    source_db.execute(
        "CREATE TABLE p (id int, part int, x text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);"
        "CREATE TABLE p2 (x text, part int NOT NULL, id int NOT NULL);"
        "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2)"
    )
    capture = make_capture(source_db)
    capture.start("p")
    source_db.execute("INSERT INTO p VALUES (1, 1, 'a'), (2, 2, 'b')")
    source_db.execute("UPDATE p SET x = 'c' WHERE id = 2")
    source_db.execute("UPDATE p SET part = 2 WHERE id = 1")
    source_db.execute("DELETE FROM p WHERE id = 2")
    source_db.execute("TRUNCATE p")
    assert told(capture) == [
        ("insert", "p", None, (1, 1, "a")),
        ("insert", "p", None, (2, 2, "b")),
        ("update", "p", None, (2, 2, "c")),
        ("delete", "p", (1, 1, None), None),
        ("insert", "p", None, (1, 2, "a")),
        ("delete", "p", (2, 2, None), None),
        ("truncate", "p", None, None),
    ]


@on_every_source
def test_a_publication_that_vanishes_is_no_silent_gap(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """Changes that were made while the publication was dropped are missing: the stream says so instead of
    going on, on 18 too, where the server only warns."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute(f"DROP PUBLICATION {capture.source.name}")
    source_db.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(PermanentError, match="publication") as gap:
        told(capture)
    assert "cdc snapshot" in gap.value.hint
    if source_db.server.major >= 18:
        assert isinstance(gap.value, GapError)


def test_a_table_that_loses_its_key_for_a_while_still_comes(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """Rows inserted between the drop of a primary key and its return are told apart by the key that is
    there now."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, x int)")
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
    source_db.execute("INSERT INTO t VALUES (1, 1)")
    source_db.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
    pieces = pieces_of(events_until(capture.stream(), capture.source.committed_head()))
    assert [r.key_names for p in pieces for _, r, *_ in changes_in(p)] == [("id",)]


def test_a_table_without_any_key_stops_the_sync(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """A table whose key is gone for good is refused by name, with what to do."""
    source_db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, x int); CREATE TABLE u (id int PRIMARY KEY)"
    )
    capture = make_capture(source_db)
    capture.start("t", "u")
    source_db.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
    source_db.execute("INSERT INTO t VALUES (1, 1)")
    capture.source.catalog(["u"])
    with pytest.raises(PermanentError, match=r"^table public\.t has lost its key") as error:
        told(capture)
    assert 'ALTER TABLE "public"."t"' in error.value.hint


def test_a_backlog_is_seen_as_one(source_db: Database, make_capture: MakeCapture) -> None:
    """`behind` says that the last transaction was committed long ago and more is coming. It ends with
    the backlog, and not with the next transaction: what came last is not to be held back for more."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    capture = make_capture(source_db)
    capture.start("t")
    for first, last in ((1, 1000), (1001, 1100)):
        source_db.execute(
            f"INSERT INTO t SELECT g, repeat('v', 200) FROM generate_series({first}, {last}) g"
        )
    end = capture.source.committed_head()
    time.sleep(0.7)
    stream = capture.stream()
    seen, position = [], None
    while position is None or not position.covers(end):
        for event in stream.read(0.5):
            position = event.position
        seen.append(stream.behind)
    assert seen[0]
    assert not seen[-1]
    source_db.execute("INSERT INTO t VALUES (0)")
    events_until(stream, capture.source.committed_head())
    assert not stream.behind


def test_asynchronous_commits_come_without_help(
    source_db: Database, make_capture: MakeCapture
) -> None:
    """With synchronous_commit = off the last change arrives with the next flush, not with the next change."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    with source_db.connect() as db:
        db.execute("SET synchronous_commit = off")
        db.execute("INSERT INTO t VALUES (1)")
    assert told(capture) == [("insert", "t", None, (1,))]


def test_a_tail_reads_beside_the_sync(source_db: Database, make_capture: MakeCapture) -> None:
    """A tail gives what the sync's slot has still to give, or what comes from now on, and moves nothing."""
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    capture = make_capture(source_db)
    capture.start("t")
    source_db.execute("INSERT INTO t VALUES (1)")
    relations = tuple(capture.relations.values())
    for from_start, expected in ((True, [(1,), (2,)]), (False, [(3,)])):
        tail = capture.source.tail(
            from_start=from_start,
            checkpoint=lambda: None,
            relations=relations,
            shape=lambda r: r,
        )
        source_db.execute("INSERT INTO t SELECT max(id) + 1 FROM t")
        assert [after for _, _, _, after in told(capture, tail)] == expected
        tail.close()
    assert _confirmed(source_db, capture.source.name) == capture.position


@pytest.fixture
def tls_database(
    make_server: MakeServer, fresh_database: Callable[[LocalPostgres], Database]
) -> Database:
    """Of a server that can TLS."""
    server = make_server(version=15)
    use_tls(server)
    return fresh_database(server)


def test_rows_larger_than_a_record_come_at_once_over_tls(
    tls_database: Database, make_capture: MakeCapture
) -> None:
    """What OpenSSL holds back of a record does not wait for the next message of an idle source."""
    tls_database.execute("CREATE TABLE t (id int PRIMARY KEY, x text)")
    capture = make_capture(tls_database, url=over_tls(tls_database.url))
    capture.start("t")
    stream = capture.stream()
    assert stream._conn.ssl_in_use
    for number, size in enumerate([100, 8000, 9000, 16000, 17000, 40000, 300000]):
        tls_database.execute("INSERT INTO t VALUES (%s, repeat('x', %s))", [number, size])
        begun = time.monotonic()
        assert [after[0] for _, _, _, after in told(capture, stream) if after] == [number]
        assert time.monotonic() - begun < 3
    copied = capture.copied("t")
    copying = capture.source.copy_round()
    reader = copying.reader()
    plan = reader.plan(copied)
    assert len(read_rows(copied, reader.read(copied, plan.bounds[0], plan.fingerprint))) == 7
    reader.close()
    copying.close()


def test_a_backlog_comes_whole_over_tls(tls_database: Database, make_capture: MakeCapture) -> None:
    """Each row once and in order, of records from a few bytes to several of 16 kB; and the end of it,
    of which OpenSSL may hold a part, before anything else is sent."""
    tls_database.execute("CREATE TABLE t (id int PRIMARY KEY, x text)")
    capture = make_capture(tls_database, url=over_tls(tls_database.url))
    capture.start("t")
    tls_database.execute(
        "DO $$ BEGIN FOR n IN 1 .. 3000 LOOP"
        " INSERT INTO t VALUES (n, repeat('x', CASE WHEN n % 500 = 0 THEN 40000 ELSE n % 90 END));"
        " COMMIT; END LOOP; END $$"
    )
    end = capture.source.committed_head()
    time.sleep(0.7)
    stream = capture.stream()
    events = stream.read(5.0)
    assert stream.behind
    events += events_until(stream, end)
    rows = [plain(change)[3] for piece in pieces_of(events) for change in changes_in(piece)]
    assert [row[0] for row in rows if row] == list(range(1, 3001))


def idle(stream: stream_module.PostgresStream) -> None:
    for _ in range(50):
        stream.read(0.2)


def _confirmed(database: Database, slot: str) -> Lsn | None:
    text = database.value(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", [slot]
    )
    return None if text is None else Lsn.parse(text)


def _active(database: Database, slot: str) -> bool:
    return bool(
        database.value("SELECT active FROM pg_replication_slots WHERE slot_name = %s", [slot])
    )
