"""MariaDB and MySQL that restart, crash, hang, lose connections and logs, while the workload goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing, suppress

import pymysql
import pytest

from tests.command import Command, cdc
from tests.databases import wait_until
from tests.mysql_crm import TABLES, fill, large_transaction, numbers, run
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql
from tests.mysql_pairs import PAIRS, Pair, from_each_source, some_pairs
from tests.mysql_servers import LocalMysql
from tests.mysql_workload import Workload
from tests.proxy import Proxy
from tests.syncs import MakeSync, Sync, checkpoint_of, told
from tests.targets import MysqlTarget, SqliteTarget, Target, state_of, written_twice

__all__ = ["cdc"]

FreshDatabase = Callable[[LocalMysql], MysqlDatabase]

SMALL = """
CREATE TABLE events (id bigint PRIMARY KEY, body text);
CREATE TABLE markers (id bigint PRIMARY KEY);
"""
SYNCED = ("events", "markers")


def started(
    make_sync: MakeSync, source: MysqlDatabase, target: Target, *, source_url: str = ""
) -> tuple[Sync, int]:
    """A sync of the whole workload that streams, and the event from which on all are counted."""
    Pair(source, target).make_tables()
    fill(source.connect())
    sync = make_sync(source, target, TABLES, source_url=source_url)
    sync.start()
    sync.wait_copied()
    target.count_writes("events")
    return sync, source.value("SELECT MAX(id) FROM events")


def ends_equal(source: MysqlDatabase, target: Target, sync: Sync, since: int) -> None:
    sync.catch_up()
    sync.finish()
    sync.assert_equal()
    sync.assert_nothing_healed()
    assert not written_twice(source, target, "events", since)


def small(
    make_sync: MakeSync,
    source: MysqlDatabase,
    target: Target,
    *,
    name: str = "s1",
    fresh: bool = False,
) -> Sync:
    """A sync of two tables that streams."""
    source.execute(SMALL)
    sync = make_sync(source, target, SYNCED, name=name)
    sync.start(fresh=fresh)
    sync.wait_copied()
    return sync


def end_sessions(database: MysqlDatabase, which: str) -> int:
    """Kills connections of the server; how many there were."""
    found = database.rows(
        f"SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND {which}"
    )
    for (session,) in found:
        # It may have ended by itself meanwhile.
        with suppress(pymysql.err.OperationalError):
            database.execute(f"KILL {session}")
    return len(found)


DUMPS = "command LIKE 'Binlog Dump%'"

WAITING = "db = DATABASE() AND command = 'Query' AND time_ms > 200"
"""Sessions that wait for a lock. Not by `innodb_trx`: whoever asks more often than ten times a second
gets the same answer for ever (MariaDB, storage/innobase/trx/trx0i_s.cc, CACHE_MIN_IDLE_TIME_NS)."""


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_the_source_is_restarted(
    request: pytest.FixtureRequest,
    fresh_mysql_database: FreshDatabase,
    one_target: Target,
    make_sync: MakeSync,
    seed: int,
    flavour: str,
) -> None:
    """Scenarios 7 and 13: the source is stopped fast, crashed, its dump connection ended and its binlog
    rotated, while it is written: the sync comes back by itself."""
    make: MakeMysql = request.getfixturevalue(f"make_{flavour}")
    server = make()
    source = fresh_mysql_database(server)
    sync, since = started(make_sync, source, one_target)
    with Workload(source, seed, pace=0.01):
        for _ in range(2):
            sync.catch_up()
            wait_until(lambda: end_sessions(source, DUMPS), message="a dump was ended")
            source.execute("FLUSH BINARY LOGS")
        sync.catch_up()
        server.restart("fast")
        sync.catch_up()
        server.restart("immediate")
        sync.catch_up()
    ends_equal(source, one_target, sync, since)


def test_the_target_is_restarted(
    fresh_mysql_database: FreshDatabase,
    make_mariadb: MakeMysql,
    mariadb_source: MysqlDatabase,
    make_sync: MakeSync,
    seed: int,
) -> None:
    """Scenario 8: the target is stopped, crashed, and its connections ended between and inside batches:
    retried, nothing lost, nothing twice."""
    server = make_mariadb(durable=True)
    database = fresh_mysql_database(server)
    target = MysqlTarget(database)
    sync, since = started(make_sync, mariadb_source, target)
    ours = "db = DATABASE()"
    with Workload(mariadb_source, seed, pace=0.01):
        for _ in range(2):
            sync.catch_up()
            wait_until(lambda: end_sessions(database, ours), message="ended")
        large = threading.Thread(target=large_transaction, args=(mariadb_source.connect(), 30_000))
        large.start()
        # Every transaction of the workload changes this row: the batch waits for it, inside its own.
        lock = database.connect()
        run(lock, "BEGIN", "SELECT * FROM counters WHERE id = 1 FOR UPDATE")
        wait_until(lambda: end_sessions(database, WAITING), message="ended inside a batch")
        run(lock, "ROLLBACK")
        large.join()
        sync.catch_up()
        server.restart("fast")
        sync.catch_up()
        server.restart("immediate")
        sync.catch_up()
    ends_equal(mariadb_source, target, sync, since)


def test_connections_fail_in_every_way(
    mariadb_source: MysqlDatabase, mariadb_target: MysqlDatabase, make_sync: MakeSync, seed: int
) -> None:
    """Scenario 9, and the network: COMMIT is sent and its reply lost, connections are cut, stalled,
    delayed and refused on both sides; the checkpoint is read back before anything is applied again."""
    with Proxy(mariadb_source.server.port) as near, Proxy(mariadb_target.server.port) as far:
        target = MysqlTarget(mariadb_target, far.url(mariadb_target.url))
        sync, since = started(
            make_sync, mariadb_source, target, source_url=near.url(mariadb_source.url)
        )
        with Workload(mariadb_source, seed, pace=0.01):
            for n in range(1, 3):
                far.lose_replies(1)
                wait_until(lambda n=n: far.lost == n, message="a reply is lost")  # type: ignore[misc]
                sync.catch_up()
            for proxy in (near, far):
                proxy.cut()
                sync.catch_up()
                with proxy.down():
                    wait_until(lambda: told(sync).state == "retrying", message="told in status")
                sync.catch_up()
                with proxy.stalled():
                    large_transaction(mariadb_source.connect(), 1_000)
                proxy.delay(0.003)
                sync.catch_up()
                proxy.delay(0.0)
        assert far.lost == 2
        ends_equal(mariadb_source, target, sync, since)


def purge(source: MysqlDatabase) -> None:
    """Begins a new file and removes all others."""
    source.execute("FLUSH BINARY LOGS")
    last = source.rows("SHOW BINARY LOGS")[-1][0]

    def purged() -> bool:
        # A file is kept as long as the server has not seen that its reader is gone.
        source.execute(f"PURGE BINARY LOGS TO '{last}'")
        return len(source.rows("SHOW BINARY LOGS")) == 1

    wait_until(purged, message="the log is purged")


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_a_purged_binlog_is_a_gap(
    request: pytest.FixtureRequest,
    fresh_mysql_database: FreshDatabase,
    cdc: Command,
    flavour: str,
) -> None:
    """Scenario 13: binlogs purged while the sync was down. What it had read may go; where something is
    missing it refuses to go on, says what and what to do; `cdc snapshot` is the way out."""
    source = fresh_mysql_database(request.getfixturevalue(f"make_{flavour}")())
    source.execute(SMALL)
    source.execute("INSERT INTO events VALUES (1, 'first')")
    target = SqliteTarget(cdc.directory / "copy.db")
    cdc.configure(source.url, target.url, sync={"tables": ["*"]})
    cdc.ok("run", "--until-current")
    purge(source)
    cdc.ok("run", "--until-current")
    source.execute("INSERT INTO events VALUES (2, 'lost')")
    source.execute("DELETE FROM events WHERE id = 1")
    purge(source)
    failed = cdc.run("run", "--until-current")
    assert failed.returncode == 1
    assert "Error: " in failed.stderr
    assert "cdc snapshot" in failed.stderr
    assert cdc.status()["state"] == "failed"
    assert target.rows("SELECT id FROM events") == [(1,)]
    again = cdc.run("run", "--until-current")
    assert again.returncode == 1
    cdc.ok("snapshot", "copy")
    cdc.ok("run", "--until-current")
    assert target.rows("SELECT id FROM events") == [(2,)]
    assert cdc.status()["error"] is None


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_a_reset_log_is_a_gap(
    request: pytest.FixtureRequest,
    fresh_mysql_database: FreshDatabase,
    cdc: Command,
    flavour: str,
) -> None:
    """RESET MASTER while the sync was down: another history under the same names of files and, on MySQL,
    the same GTIDs. Refused, also when the new log has grown longer than the old one was."""
    source = fresh_mysql_database(request.getfixturevalue(f"make_{flavour}")())
    source.execute(SMALL)
    source.execute("INSERT INTO events VALUES (1, 'first')")
    target = SqliteTarget(cdc.directory / "copy.db")
    cdc.configure(source.url, target.url, sync={"tables": ["*"]})
    cdc.ok("run", "--until-current")
    source.execute("RESET BINARY LOGS AND GTIDS" if flavour == "mysql" else "RESET MASTER")
    failed = cdc.run("run", "--until-current")
    assert failed.returncode == 1, failed.stderr
    assert "Try: " in failed.stderr
    source.execute(f"INSERT INTO events SELECT 10 + n, REPEAT('x', 1000) FROM {numbers(3000)}")
    for n in range(20):
        source.execute(f"UPDATE events SET body = 'later' WHERE id = {n}")
        source.execute(f"DELETE FROM events WHERE id = {10 + n}")
        source.execute("FLUSH BINARY LOGS")
    failed = cdc.run("run", "--until-current")
    assert failed.returncode == 1
    assert "it was restored from a backup, or its log was reset" in failed.stderr
    assert target.rows("SELECT count(*) FROM events") == [(1,)]
    cdc.ok("snapshot", "copy")
    cdc.ok("run", "--until-current")
    assert target.rows("SELECT count(*) FROM events") == [(2982,)]


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_another_server_behind_the_same_address(
    request: pytest.FixtureRequest,
    fresh_mysql_database: FreshDatabase,
    cdc: Command,
    flavour: str,
) -> None:
    """Scenario 15: refused, before anything is applied."""
    one = fresh_mysql_database(request.getfixturevalue(flavour))
    other = fresh_mysql_database(request.getfixturevalue(f"second_{flavour}"))
    for database in (one, other):
        database.execute(SMALL)
    other.execute(f"INSERT INTO events SELECT n, 'x' FROM {numbers(1000)}")
    with Proxy(one.server.port) as proxy:
        target = SqliteTarget(cdc.directory / "copy.db")
        cdc.configure(proxy.url(one.url), target.url, sync={"tables": ["*"]})
        cdc.ok("run", "--until-current")
        # The same names on both, as a restored backup has them.
        other.execute(f"CREATE DATABASE {one.name}")
        other.execute(SMALL.replace("TABLE ", f"TABLE {one.name}."))
        try:
            proxy.lead_to(other.server.port)
            failed = cdc.run("run", "--until-current")
        finally:
            other.execute(f"DROP DATABASE {one.name}")
    assert failed.returncode == 1, failed.stderr
    assert "the source is not the one" in failed.stderr, failed.stderr
    assert target.rows("SELECT count(*) FROM events") == [(0,)]


@some_pairs("mariadb-sqlite", "mysql-mysql")
def test_one_target_down_does_not_slow_the_other(
    request: pytest.FixtureRequest,
    fresh_mysql_database: FreshDatabase,
    pair: Pair,
    make_sync: MakeSync,
) -> None:
    """Scenario 40: two syncs of one source; one target is down for the whole run, and the other's lag
    does not grow. When it is back, it catches up."""
    source = pair.source
    server: LocalMysql = request.getfixturevalue(f"make_{source.server.flavour}")()
    down = small(make_sync, source, MysqlTarget(fresh_mysql_database(server)), name="down")
    up = make_sync(source, pair.target, SYNCED, name="up")
    up.start()
    up.wait_copied()
    server.stop("fast")
    for n in range(10):
        source.execute(
            f"INSERT INTO events SELECT {n} * 1000 + n, REPEAT('x', 200) FROM {numbers(1000)}"
        )
        up.catch_up(timeout=10)
    wait_until(
        lambda: told(down).state == "retrying" and told(down).error, message="told in status"
    )
    server.start()
    source.execute("INSERT INTO markers VALUES (1000)")
    down.waits_for(
        lambda: down.target.rows("SELECT 1 FROM markers WHERE id = 1000"), "it has caught up"
    )
    down.assert_equal()
    up.assert_equal()


def test_an_idle_sync_follows_the_log(
    mariadb_source: MysqlDatabase, one_target: Target, make_sync: MakeSync
) -> None:
    """Scenario 14: the checkpoint follows the log of tables that are not synced, and the lag is none:
    the source may purge what an idle sync does not need."""
    sync = small(make_sync, mariadb_source, one_target)
    mariadb_source.execute("CREATE TABLE others (id int PRIMARY KEY, body text)")
    mariadb_source.execute(f"INSERT INTO others SELECT n, REPEAT('x', 1000) FROM {numbers(3000)}")
    mariadb_source.execute("FLUSH BINARY LOGS")
    last = mariadb_source.rows("SHOW BINARY LOGS")[-1][0]
    wait_until(lambda: last in checkpoint_of(sync), message="the checkpoint follows the log")

    def has_no_lag() -> bool:
        live = told(sync)
        return live.state == "streaming" and live.lag_seconds == 0.0

    sync.waits_for(has_no_lag, "it streams, and has no lag")


@from_each_source
def test_a_transaction_that_was_prepared_before_the_first_start(
    pair: Pair, make_sync: MakeSync
) -> None:
    """Its rows are in no snapshot and in no log that the sync reads; when it is committed, they come."""
    source, target = pair
    source.execute(SMALL)
    with closing(source.connect()) as early:
        run(early, "XA START 'early'", "INSERT INTO events VALUES (7, 'early')")
        run(early, "XA END 'early'", "XA PREPARE 'early'")
        sync = make_sync(source, target, SYNCED)
        sync.start()
        sync.wait_copied()
        sync.catch_up()
        assert target.rows("SELECT id FROM events") == []
        run(early, "XA COMMIT 'early'")
    sync.catch_up()
    sync.waits_for(lambda: target.rows("SELECT id FROM events") == [(7,)], "the rows have come")
    sync.wait_copied()
    sync.assert_equal()


@pytest.mark.parametrize(
    ("pair", "rows"),
    [
        *((pair, 200_000) for pair in ("mariadb-sqlite", "mysql-mysql")),
        *(pytest.param(pair, 1_000_000, marks=pytest.mark.faults) for pair in PAIRS),
    ],
    indirect=["pair"],
)
def test_a_large_transaction_in_little_memory(pair: Pair, make_sync: MakeSync, rows: int) -> None:
    """Scenario 12: one transaction of so many rows arrives as one, with the worker below 200 MB; idle,
    it is below 80 MB."""
    source, target = pair
    sync = small(make_sync, source, target, fresh=True)
    idle = sync.running.memory("VmRSS")
    assert idle < 80, f"{idle:.0f} MB"
    seen: set[tuple[object, ...]] = set()
    source.execute(f"INSERT INTO events SELECT n, REPEAT('x', 100) FROM {numbers(rows)}")

    def arrived() -> bool:
        seen.update(target.rows("SELECT min(id), max(id) FROM events"))
        return bool(target.rows("SELECT 1 FROM markers WHERE id = 1"))

    source.execute("INSERT INTO markers VALUES (1)")
    sync.waits_for(arrived, "the transaction has arrived", timeout=300)
    most = sync.running.memory("VmHWM")
    assert most < 200, f"{most:.0f} MB"
    assert seen <= {(None, None), (1, rows)}, "seen half-done"
    sync.assert_equal()


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_a_copy_does_not_stand_in_the_way(
    request: pytest.FixtureRequest, make_sync: MakeSync, flavour: str
) -> None:
    """Scenarios 23 and 49: while a copy stands still half-way, because its target does, the application
    writes every row, and alters the tables that are not being read."""
    source: MysqlDatabase = request.getfixturevalue(f"{flavour}_source")
    behind: MysqlDatabase = request.getfixturevalue("mariadb_target")
    source.execute(SMALL)
    source.execute("CREATE TABLE big (id bigint PRIMARY KEY, body text)")
    source.execute(f"INSERT INTO big SELECT n, REPEAT('x', 500) FROM {numbers(100_000)}")
    application = source.connect(
        init_command="SET SESSION lock_wait_timeout = 2, innodb_lock_wait_timeout = 2"
    )
    with Proxy(behind.server.port) as proxy:
        sync = make_sync(source, MysqlTarget(behind, proxy.url(behind.url)), (*SYNCED, "big"))
        sync.start()
        there = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'big'"
        sync.waits_for(lambda: behind.rows(there), "the copy begins")
        with proxy.stalled():
            run(
                application,
                "UPDATE big SET body = 'y'",
                "DELETE FROM big WHERE id % 2 = 0",
                "INSERT INTO big VALUES (0, 'new')",
                "ALTER TABLE events ADD INDEX by_body (body(10))",
            )
        sync.target = MysqlTarget(behind)
        sync.wait_copied()
        sync.catch_up()
    sync.assert_equal("big", "markers")


@from_each_source
def test_a_hot_row(pair: Pair, make_sync: MakeSync) -> None:
    """Scenario 49: a row that every transaction updates, from several sessions that expect no failure,
    while it is copied and streamed."""
    source, target = pair
    source.execute(SMALL)
    source.execute("CREATE TABLE hot (id int PRIMARY KEY, n bigint)")
    source.execute("INSERT INTO hot VALUES (1, 0)")
    sync = make_sync(source, target, (*SYNCED, "hot"))
    done, failed = threading.Event(), []

    def update() -> None:
        db = source.connect(init_command="SET SESSION innodb_lock_wait_timeout = 3")
        try:
            while not done.is_set():
                run(db, "UPDATE hot SET n = n + 1")
        except pymysql.err.MySQLError as e:
            failed.append(e)

    threads = [threading.Thread(target=update) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        sync.start()
        sync.wait_copied()
        for _ in range(3):
            sync.catch_up()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    sync.catch_up()
    sync.assert_equal()


def test_state_survives_the_target_being_looked_at(
    mariadb_source: MysqlDatabase, mariadb_target: MysqlDatabase, make_sync: MakeSync
) -> None:
    """Somebody who holds a lock on a target's row makes the sync wait or try again, never fail."""
    target = MysqlTarget(mariadb_target)
    sync = small(make_sync, mariadb_source, target)
    mariadb_source.execute("INSERT INTO events VALUES (1, 'a')")
    sync.catch_up()
    looker = mariadb_target.connect()
    run(looker, "BEGIN", "SELECT * FROM events WHERE id = 1 FOR UPDATE")
    mariadb_source.execute("UPDATE events SET body = 'b' WHERE id = 1")
    waiting = (
        f"SELECT 1 FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND {WAITING}"
    )
    sync.waits_for(lambda: mariadb_target.rows(waiting), "the sync waits")
    run(looker, "COMMIT")
    sync.catch_up()
    sync.assert_equal()
    with state_of(target, sync.name) as state:
        assert state.control().error is None
