"""What the log of a MariaDB or MySQL source gives: every committed change, once, in order, as it was written."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from dataclasses import replace

import pymysql
import pytest

from appliers.delta import UNCHANGED
from appliers.errors import PermanentError, TransientError
from cdc.sources.mysql.gathering import PIECE_ROWS
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.stream import READ_BYTES, MysqlStream
from cdc.sources.source import GapError, Piece, Progress
from tests.binlog_capture import (
    BinlogCapture,
    MakeBinlogCapture,
    changes_of,
    events_until,
    key_of,
    pieces_of,
    plain,
    run,
    told,
)
from tests.databases import wait_until
from tests.mysql_databases import MysqlDatabase
from tests.pieces import changes_in


@pytest.fixture
def capture(
    any_mysql_source: MysqlDatabase, make_binlog_capture: MakeBinlogCapture
) -> BinlogCapture:
    """A sync of table t (id, v), which is empty."""
    any_mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(200))")
    any_mysql_source.execute("CREATE TABLE other (id int PRIMARY KEY, v longtext)")
    made = make_binlog_capture(any_mysql_source)
    made.start("t")
    return made


def is_mariadb(capture: BinlogCapture) -> bool:
    return capture.database.server.flavour == "mariadb"


def test_rows_come_as_they_were_written(capture: BinlogCapture) -> None:
    """Inserts, updates, deletes and changes of the key come in order, with old and new row."""
    run(
        capture.database,
        "INSERT INTO t VALUES (1, 'a'), (2, NULL)",
        "UPDATE t SET v = '' WHERE id = 1",
        "UPDATE t SET id = 3 WHERE id = 2",
        "DELETE FROM t WHERE id = 1",
    )
    changes = told(capture)
    assert changes[:2] == [("insert", "t", None, (1, "a")), ("insert", "t", None, (2, None))]
    assert (changes[2][0], changes[2][3]) == ("update", (1, ""))
    assert changes[3] == ("update", "t", (2, None), (3, None))
    assert changes[4][:2] == ("delete", "t")
    assert (changes[4][2] or ())[0] == 1
    assert len(changes) == 5


def test_a_commit_says_where_who_and_when(capture: BinlogCapture) -> None:
    """A piece carries the transaction's GTID and number, its time by the source's clock, and ordinals
    from 1; its position holds that transaction and no later one."""
    stream = capture.stream()
    run(capture.database, "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    [piece] = pieces_of(events_until(stream, capture.head()))
    run(capture.database, "INSERT INTO t VALUES (3, 'c')")
    [later] = pieces_of(events_until(stream, capture.head()))
    now = float(capture.database.value("SELECT UNIX_TIMESTAMP(NOW(6))"))
    assert abs(piece.commit.committed_at / 1e6 - now) < 20
    assert [change[5] for change in changes_in(piece)] == [1, 2]
    assert {change[4] for change in changes_in(piece)} == {piece.commit}
    assert piece.oldest == piece.commit.committed_at
    assert isinstance(piece.position, BinlogPosition)
    assert piece.position.holds(piece.commit.position)
    assert not piece.position.holds(later.commit.position)
    assert str(piece.commit.transaction) == piece.commit.position.replace(":", "-").split("-")[-1]
    assert later.commit.transaction > piece.commit.transaction
    assert piece.size > 0
    assert not stream.behind


def workload(capture: BinlogCapture, seed: str) -> list[tuple[str, ...]]:
    """Transactions of every kind, each a session's statements."""
    chance = random.Random(seed)
    steps: list[tuple[str, ...]] = []
    for n in range(0, 30, 10):
        rows = ",".join(f"({n + i}, '{chance.random()}')" for i in range(chance.randint(1, 4)))
        insert, update = f"INSERT INTO t VALUES {rows}", f"UPDATE t SET v = 'u{n}' WHERE id >= {n}"
        steps += [
            (insert,),
            (f"INSERT INTO other VALUES ({n}, 'x')",),
            ("BEGIN", update, "SAVEPOINT a", f"DELETE FROM t WHERE id = {n}", "COMMIT"),
            (
                f"XA START 'x{n}'",
                f"INSERT INTO t VALUES ({n + 8}, 'xa')",
                f"XA END 'x{n}'",
                f"XA PREPARE 'x{n}'",
            ),
            (f"INSERT INTO t VALUES ({n + 9}, 'between')",),
            (f"XA {chance.choice(['COMMIT', 'ROLLBACK'])} 'x{n}'",),
            (("FLUSH BINARY LOGS", "TRUNCATE t", "ALTER TABLE t COMMENT = 'c'")[n // 10],),
        ]
    return steps


def test_start_anywhere_and_get_exactly_the_later_transactions(capture: BinlogCapture) -> None:
    """From the position behind each transaction, in text and back, by GTID and by file, across rotated
    files and between XA PREPARE and XA COMMIT: the rest, the same in everything."""
    seed = os.environ.get("CDC_TEST_SEED", str(random.randrange(10**9)))
    print(f"CDC_TEST_SEED={seed}")
    stream = capture.stream()
    passed: list[tuple[BinlogPosition, int]] = [(capture.position, 0)]
    whole: list[tuple[object, ...]] = []
    for step in workload(capture, seed):
        run(capture.database, *step)
        events = events_until(stream, capture.head())
        whole += map(key_of, changes_of(events))
        last = events[-1].position
        assert isinstance(last, BinlogPosition)
        passed.append((last, len(whole)))
    stream.close()
    head = capture.head()
    assert len(whole) > 10
    for position, count in passed:
        assert BinlogPosition.parse(str(position)) == position
        if position.covers(head):
            continue
        rest = events_until(capture.stream(BinlogPosition.parse(str(position))), head)
        assert list(map(key_of, changes_of(rest))) == whole[count:], position
    for position, count in passed[: -1 : len(passed) // 8]:
        by_file = replace(position, gtids=None)
        rest = events_until(capture.stream(by_file), head)
        assert [k[:4] for k in map(key_of, changes_of(rest))] == [k[:4] for k in whole[count:]]


def test_an_idle_source_has_no_lag(capture: BinlogCapture) -> None:
    """The stream reaches the end of the log when it is of other tables, when files are rotated, and
    when nothing happens; and says nothing then."""
    stream = capture.stream()
    run(capture.database, "INSERT INTO other VALUES (1, 'x')", "FLUSH BINARY LOGS")
    events = events_until(stream, capture.head())

    def is_at_the_end() -> bool:
        # MariaDB writes a checkpoint event a moment after it has begun a file.
        events.extend(stream.read(0.2))
        last = events[-1].position
        assert last is not None
        return capture.source.head().since(last) == 0

    wait_until(is_at_the_end, message="it reaches the end of the log")
    assert all(isinstance(event, Progress) for event in events)
    wait_until(lambda: stream.read(1.5) == [], message="it says nothing more")


def test_lag_is_told_across_files(capture: BinlogCapture) -> None:
    """Only the source's head knows how long the files between are. One of before knows nothing of later."""
    before = capture.head()
    run(capture.database, "INSERT INTO t VALUES (1, 'a')", "FLUSH BINARY LOGS")
    run(capture.database, "INSERT INTO t VALUES (2, 'b')", "FLUSH BINARY LOGS")
    head = capture.source.head()
    assert replace(head, files=()).since(before) is None
    assert (head.since(before) or 0) > 300
    assert before.since(head) is None
    assert replace(before, files=()).since(head) == 0


def test_a_large_transaction_comes_in_pieces(capture: BinlogCapture) -> None:
    """Bounded parts without a position, then the end with one; what follows comes behind it. In one
    compressed event too (MySQL)."""
    db = capture.database
    db.execute("CREATE TABLE seq (i int PRIMARY KEY)")
    db.execute("INSERT INTO seq VALUES (0)")
    for n in range(10):
        db.execute(f"INSERT INTO seq SELECT i + {2**n} FROM seq")
    compress = [] if is_mariadb(capture) else ["SET SESSION binlog_transaction_compression = ON"]
    start = capture.head()
    run(
        db,
        *compress,
        "BEGIN",
        *(f"INSERT INTO t SELECT i + {n * 1024}, REPEAT('x', 100) FROM seq" for n in range(60)),
        "COMMIT",
        "INSERT INTO t VALUES (-1, 'after')",
    )
    stream = capture.stream(start)
    sizes, rows, ends = [], 0, []
    while rows < 60 * 1024 + 1:
        read = pieces_of(stream.read(1.0))
        sizes.append(sum(piece.size for piece in read))
        for piece in read:
            rows += len(changes_in(piece))
            ends.append(piece.position)
            assert len(changes_in(piece)) < PIECE_ROWS + 20_000
    assert max(sizes) < READ_BYTES + (8 << 20)
    assert len(ends) >= 3
    assert ends[0] is None
    assert ends[-1] is not None
    changes = changes_of(events_until(capture.stream(start), capture.head()))
    assert [change[5] for change in changes[:-1]] == list(range(1, 60 * 1024 + 1))
    assert len({change[4] for change in changes}) == 2


def test_an_event_larger_than_a_packet(capture: BinlogCapture) -> None:
    """A row of 20 MB goes over two packets, and what comes behind it is read."""
    db = capture.database
    before = db.value("SELECT @@global.max_allowed_packet")
    capture.start("other")
    try:
        db.execute("SET GLOBAL max_allowed_packet = 100000000")
        run(
            db,
            "INSERT INTO other VALUES (1, REPEAT('x', 20000000))",
            "INSERT INTO other VALUES (2, 'y')",
        )
    finally:
        db.execute(f"SET GLOBAL max_allowed_packet = {before}")
    first, second = told(capture)
    assert first[3] == (1, "x" * 20_000_000)
    assert second[3] == (2, "y")


def test_columns_that_the_log_leaves_out(capture: BinlogCapture) -> None:
    """binlog_row_image = MINIMAL: what an update left alone is UNCHANGED, never NULL."""
    run(capture.database, "INSERT INTO t VALUES (1, 'a')")
    start = capture.head()
    run(
        capture.database,
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "UPDATE t SET id = 2",
        "UPDATE t SET v = 'b'",
        "DELETE FROM t",
    )
    moved, changed, gone = told(capture, capture.stream(start))
    assert (moved[0], (moved[2] or ())[0], moved[3]) == ("update", 1, (2, UNCHANGED))
    assert changed[0] == "update"
    assert (changed[3] or ()) == (2, "b")
    assert (gone[0], (gone[2] or ())[0]) == ("delete", 2)


def test_compressed_events(capture: BinlogCapture) -> None:
    """MariaDB's compressed rows and statements, MySQL's compressed transactions."""
    db, value = capture.database, "z" * 190
    if is_mariadb(capture):
        db.execute("SET GLOBAL log_bin_compress = ON")
        db.execute("SET GLOBAL log_bin_compress_min_len = 10")
    try:
        run(
            db,
            *([] if is_mariadb(capture) else ["SET binlog_transaction_compression = ON"]),
            f"INSERT INTO t VALUES (1, '{value}'), (2, '{value}')",
            "INSERT INTO other VALUES (1, REPEAT('a', 1000))",
            f"UPDATE t SET v = '{value}!' WHERE id = 1",
            "DELETE FROM t WHERE id = 2",
            f"TRUNCATE /* {value} */ TABLE t",
        )
    finally:
        if is_mariadb(capture):
            db.execute("SET GLOBAL log_bin_compress = OFF")
            db.execute("SET GLOBAL log_bin_compress_min_len = 256")
    changes = told(capture)
    assert [change[0] for change in changes] == ["insert", "insert", "update", "delete", "truncate"]
    assert changes[2][3] == (1, f"{value}!")


def test_checksums_come_and_go(capture: BinlogCapture) -> None:
    """SET GLOBAL binlog_checksum while the stream reads."""
    db, stream = capture.database, capture.stream()
    before = db.value("SELECT @@global.binlog_checksum")
    found = []
    try:
        for n, checksum in enumerate(("NONE", "CRC32", "NONE")):
            db.execute(f"SET GLOBAL binlog_checksum = {checksum}")
            run(db, f"INSERT INTO t VALUES ({n}, '{checksum}')")
            try:
                found += told(capture, stream)
            except TransientError:
                # The dump thread of some versions ends when the reader's checksum is not the log's.
                stream = capture.stream(capture.position)
                found = told(capture, stream)
    finally:
        db.execute(f"SET GLOBAL binlog_checksum = {before}")
    assert [change[3] for change in found] == [(0, "NONE"), (1, "CRC32"), (2, "NONE")]


def test_every_domain_and_tag_is_kept(capture: BinlogCapture) -> None:
    """MariaDB's replication domains and server numbers, MySQL's tags: the position has each, and a
    stream from there repeats none."""
    if is_mariadb(capture):
        first, second = "SET gtid_domain_id = 7, server_id = 99", "SET gtid_domain_id = 3"
    else:
        first, second = "SET gtid_next = 'AUTOMATIC:one'", "SET gtid_next = 'AUTOMATIC:two'"
    run(capture.database, first, "INSERT INTO t VALUES (1, 'a')")
    run(capture.database, second, "INSERT INTO t VALUES (2, 'b')", "INSERT INTO t VALUES (3, 'c')")
    run(capture.database, first, "INSERT INTO t VALUES (4, 'd')")
    events = events_until(capture.stream(), capture.head())
    assert [plain(c)[3] for c in changes_of(events)] == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    last = events[-1].position
    assert isinstance(last, BinlogPosition)
    for change in changes_of(events):
        assert last.holds(change[4].position)
    names = [change[4].position for change in changes_of(events)]
    parts = ("7-99-", "3-", "3-", "7-99-") if is_mariadb(capture) else (":one:", ":two:") * 2
    if is_mariadb(capture):
        assert all(name.startswith(part) for name, part in zip(names, parts, strict=True))
    else:
        assert ":one:" in names[0]
        assert ":two:" in names[1]
    run(capture.database, "INSERT INTO t VALUES (5, 'e')")
    assert [change[3] for change in told(capture, capture.stream(last))] == [(5, "e")]


def test_transactions_that_end_without_a_number(capture: BinlogCapture) -> None:
    """Of tables that know no transactions (MyISAM) the log ends each statement with COMMIT."""
    db = capture.database
    db.execute("CREATE TABLE plain (id int PRIMARY KEY) ENGINE = MyISAM")
    run(
        db,
        # MySQL refuses both in one transaction where there are GTIDs.
        *(["BEGIN", "INSERT INTO t VALUES (1, 'a')"] if is_mariadb(capture) else []),
        "INSERT INTO plain VALUES (1)",
        "ROLLBACK",
        "INSERT INTO t VALUES (2, 'b')",
    )
    assert [change[3] for change in told(capture)] == [(2, "b")]


def test_what_a_savepoint_took_back(capture: BinlogCapture) -> None:
    """MariaDB logs rows that were rolled back to a savepoint if a temporary table was made: they are
    not given."""
    run(
        capture.database,
        "BEGIN",
        "INSERT INTO t VALUES (1, 'kept')",
        "SAVEPOINT `a b`",
        "CREATE TEMPORARY TABLE passing (i int)",
        "INSERT INTO t VALUES (2, 'gone')",
        "SAVEPOINT c",
        "INSERT INTO t VALUES (3, 'gone')",
        "ROLLBACK TO `A b`",
        "INSERT INTO t VALUES (4, 'kept')",
        "SAVEPOINT again",
        "INSERT INTO t VALUES (5, 'kept')",
        "SAVEPOINT AGAIN",
        "INSERT INTO t VALUES (6, 'gone')",
        "ROLLBACK TO again",
        "COMMIT",
    )
    changes = changes_of(events_until(capture.stream(), capture.head()))
    assert [plain(c)[3] for c in changes] == [(1, "kept"), (4, "kept"), (5, "kept")]
    assert [c[5] for c in changes] == [1, 2, 3]


def test_two_readers_do_not_disturb_each_other(capture: BinlogCapture) -> None:
    """A sync and `cdc tail` read the same server at once: each has a number of its own."""
    first, second = capture.stream(), capture.stream()
    for n in range(3):
        run(capture.database, f"INSERT INTO t VALUES ({n}, 'a')")
        assert len(told(capture, first)) == len(told(capture, second)) == 1


def test_a_connection_that_is_killed_is_transient(capture: BinlogCapture) -> None:
    """And a new stream goes on behind what was given."""
    stream = capture.stream()
    run(capture.database, "INSERT INTO t VALUES (1, 'a')")
    events = events_until(stream, capture.head())
    dumps = capture.database.rows(
        "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
    )
    for (thread,) in dumps:
        # One of another test may have ended by itself.
        with suppress(pymysql.Error):
            capture.database.execute(f"KILL {thread}")
    with pytest.raises(TransientError):
        wait_until(lambda: bool(stream.read(0.2)) and False, message="the stream ends")
    run(capture.database, "INSERT INTO t VALUES (2, 'b')")
    last = events[-1].position
    assert isinstance(last, BinlogPosition)
    assert [change[3] for change in told(capture, capture.stream(last))] == [(2, "b")]


def test_an_encrypted_connection(
    mysql_source: MysqlDatabase, make_binlog_capture: MakeBinlogCapture
) -> None:
    """More than a record of TLS holds is read whole, and nothing waits in its buffer."""
    mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY, v mediumtext)")
    capture = make_binlog_capture(mysql_source, url=mysql_source.url + "?ssl-mode=required")
    capture.start("t")
    stream = capture.stream()
    for n, size in enumerate((10, 16_300, 16_400, 100_000, 3_000_000, 5)):
        run(mysql_source, f"INSERT INTO t VALUES ({n}, REPEAT('x', {size}))")
        assert [change[3] for change in told(capture, stream)] == [(n, "x" * size)]


@pytest.mark.parametrize("by_gtid", [True, False], ids=["by GTID", "by file"])
def test_a_log_that_was_purged_is_a_gap(capture: BinlogCapture, *, by_gtid: bool) -> None:
    """The stream says so, names the place and the way out."""
    run(capture.database, "INSERT INTO t VALUES (1, 'a')", "FLUSH BINARY LOGS")
    run(capture.database, "INSERT INTO t VALUES (2, 'b')", "FLUSH BINARY LOGS")
    head = capture.head().file

    def purged() -> bool:
        # MariaDB leaves what a reader of another test, which has not ended yet, is in.
        run(capture.database, f"PURGE BINARY LOGS TO '{head}'")
        return [file for file, *_ in capture.database.rows("SHOW BINARY LOGS")] == [head]

    wait_until(purged, message="the log is purged")
    start = capture.position if by_gtid else replace(capture.position, gtids=None)
    stream = capture.stream(start)
    with pytest.raises(GapError, match=r"changes since .* are lost.*purged") as caught:
        wait_until(lambda: bool(stream.read(0.2)) and False, message="the server says so")
    assert capture.position.file in str(caught.value)
    assert "cdc snapshot" in caught.value.hint


def test_a_position_of_another_log_is_a_gap(capture: BinlogCapture) -> None:
    """One that the server never had: it was restored, or its log was reset."""
    far = replace(capture.position, offset=2_000_000_000, gtids=None)
    stream = capture.stream(far)
    with pytest.raises(GapError, match="restored, or reset"):
        wait_until(lambda: bool(stream.read(0.2)) and False, message="the server says so")


def test_a_user_without_the_right_is_told(capture: BinlogCapture) -> None:
    """REPLICATION SLAVE is missing: a permanent error with a hint, and no password in it."""
    user = capture.database.create_user("SELECT")
    url = capture.database.url_as(*user)
    source = capture.source
    source._url = url
    with pytest.raises(PermanentError) as caught:
        events_until(capture.stream(), replace(capture.position, offset=1 << 31))
    assert user.password not in str(caught.value) + caught.value.hint
    assert caught.value.hint


def test_a_late_stream_is_behind(capture: BinlogCapture) -> None:
    """`behind` tells a backlog from live changes, by the server's clock and not by ours."""
    run(capture.database, "SET timestamp = 1700000000", "INSERT INTO t VALUES (1, 'a')")
    stream = capture.stream()
    assert isinstance(stream._stream, MysqlStream)  # type: ignore[attr-defined]
    stream._stream._dump = stream._stream._dump._replace(clock=3600e6)  # type: ignore[attr-defined]
    events_until(stream, capture.head())
    assert stream.behind
    stream = capture.stream()
    run(capture.database, "INSERT INTO t VALUES (2, 'a')")
    events = events_until(stream, capture.head())
    assert isinstance(events[-1], Piece | Progress)
