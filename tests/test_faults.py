"""Databases that restart, crash, hang and lose connections, while the workload goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from cdc.demo.server import LocalPostgres
from tests.crm import SCHEMA, TABLES, fill, large_transaction
from tests.databases import Database, wait_until
from tests.proxy import Proxy
from tests.servers import MakeServer
from tests.syncs import MakeSync, Sync, checkpoint_of, told
from tests.targets import MysqlTarget, PostgresTarget, Target, state_of, written_twice
from tests.workload import Workload

FreshDatabase = Callable[[LocalPostgres], Database]

SMALL: Final = """
CREATE TABLE events (id bigint PRIMARY KEY, body text);
CREATE TABLE markers (id bigint PRIMARY KEY);
"""


class Slot:
    """Watches, with a connection of its own, that what is confirmed to the source never moves back and
    never passes what the target has."""

    def __init__(self, source: Database, sync: Sync) -> None:
        self.samples = 0
        self.wrong: list[str] = []
        self._source = source
        self._sync = sync
        self._last = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join(20)
        assert not self.wrong, self.wrong
        assert self.samples > 20

    def _watch(self) -> None:
        # One connection for all the looks: to open one takes more of the processor than to ask.
        with self._source.connect() as db, state_of(self._sync.target, self._sync.name) as state:
            while not self._end.wait(0.02):
                [(told,)] = db.execute(
                    "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s",
                    [f"cdc_{self._sync.name}"],
                ).fetchall()
                # In this order: the checkpoint may be ahead, the slot may not.
                found = state.load()
                assert found is not None
                checkpoint = found.position
                self.samples += 1
                if lsn(told) < self._last:
                    self.wrong.append(f"moved back to {told}")
                if lsn(told) > lsn(checkpoint):
                    self.wrong.append(f"confirmed {told}, the target is at {checkpoint}")
                self._last = lsn(told)


def lsn(text: str) -> int:
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def confirmed(source: Database) -> str:
    """What the source was told to be durable."""
    found: str = source.value(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'cdc_s1'"
    )
    return found


def started(
    make_sync: MakeSync, source: Database, target: Target, *, source_url: str = ""
) -> tuple[Sync, int]:
    """A sync of the whole workload that streams, and the event from which on all are counted."""
    source.execute(SCHEMA)
    fill(source.connect())
    target.make_tables(SCHEMA)
    sync = make_sync(source, target, TABLES, source_url=source_url)
    sync.start()
    sync.wait_copied()
    target.count_writes("events")
    return sync, source.value("SELECT max(id) FROM events")


def ends_equal(source: Database, target: Target, sync: Sync, since: int) -> None:
    sync.catch_up()
    sync.finish()
    sync.assert_equal()
    sync.assert_nothing_healed()
    assert not written_twice(source, target, "events", since)


def test_the_slot_never_passes_the_checkpoint(
    source_db: Database, target: Target, make_sync: MakeSync, seed: int
) -> None:
    """Scenario 5: sampled while the workload runs, the worker is killed, and large transactions pass."""
    sync, since = started(make_sync, source_db, target)
    slot = Slot(source_db, sync)
    with slot.watched(), Workload(source_db.url, seed, pace=0.01) as workload:
        workload.truncate_too()
        for fault in ("commit-acknowledged:3", "position-confirmed:2"):
            sync.catch_up()
            sync.running.kill()
            large_transaction(source_db.connect(), 5_000)
            sync.start(fault=fault).dies_at_fault()
            sync.start()
        sync.catch_up()
    ends_equal(source_db, target, sync, since)


def test_the_source_is_restarted(
    fresh_database: FreshDatabase,
    make_server: MakeServer,
    one_target: Target,
    make_sync: MakeSync,
    seed: int,
) -> None:
    """Scenario 7: stopped fast, crashed, and its walsender ended, while it is written: the sync comes
    back by itself, and a fast stop does not wait for it."""
    server = make_server()
    source = fresh_database(server)
    sync, since = started(make_sync, source, one_target)
    with Workload(source.url, seed, pace=0.01) as workload:
        workload.truncate_too()
        for _ in range(2):
            sync.catch_up()
            source.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active"
            )
        sync.catch_up()
        # Longer than the stop of a subscription of PostgreSQL's own would take, shorter than a user
        # would be patient.
        server.stop("fast", timeout=6.0)
        server.start()
        sync.catch_up()
        server.restart("immediate")
        sync.catch_up()
    ends_equal(source, one_target, sync, since)


def test_an_idle_sync_lets_its_source_stop(
    fresh_database: FreshDatabase,
    make_server: MakeServer,
    one_target: Target,
    make_sync: MakeSync,
) -> None:
    """Scenario 14: an idle sync has no lag, its slot follows the log of tables that are not synced, and
    a fast stop of the source, which waits for its walsenders to be confirmed, does not wait for long."""
    server = make_server()
    source = fresh_database(server)
    source.execute(SMALL)
    source.execute("CREATE TABLE others AS SELECT repeat('x', 1000) AS body")
    sync = make_sync(source, one_target, ("events", "markers"))
    sync.start()
    sync.wait_copied()
    source.execute("INSERT INTO others SELECT body FROM others, generate_series(1, 3000)")
    head = source.value("SELECT pg_current_wal_flush_lsn()")
    follows = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots"
    wait_until(lambda: source.value(follows, [head]), message="the slot follows the log")

    def has_no_lag() -> bool:
        live = told(sync)
        return live.state == "streaming" and live.lag_seconds == 0.0

    sync.waits_for(has_no_lag, "it streams, and has no lag")
    source.execute("INSERT INTO others VALUES ('y')")
    begun = time.monotonic()
    server.stop("fast")
    # A client that is not asked confirms every 10 seconds (wal_receiver_status_interval).
    assert time.monotonic() - begun < 8


def test_the_target_is_restarted(
    fresh_database: FreshDatabase,
    make_server: MakeServer,
    source_db: Database,
    make_sync: MakeSync,
    seed: int,
) -> None:
    """Scenarios 5 and 8: the target is stopped, crashed right after a position was confirmed, and its
    connections ended between and inside batches: retried, nothing lost, nothing twice, and the
    confirmed position never passes what a crash leaves."""
    server = make_server()
    database = fresh_database(server)
    target = PostgresTarget(database)
    sync, since = started(make_sync, source_db, target)

    ours = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name LIKE 'cdc%' AND datname = current_database()"
    )
    with Workload(source_db.url, seed, pace=0.01) as workload:
        workload.truncate_too()
        for _ in range(2):
            sync.catch_up()
            wait_until(lambda: database.value(ours))
        large = threading.Thread(target=large_transaction, args=(source_db.connect(), 30_000))
        large.start()
        inside = ours + " AND state IN ('active', 'idle in transaction') AND xact_start < now()"
        wait_until(lambda: database.value(inside), message="ended inside a batch")
        large.join()
        sync.catch_up()
        server.restart("fast")
        sync.catch_up()
        for _ in range(2):
            before = confirmed(source_db)
            wait_until(lambda last=before: confirmed(source_db) != last, message="confirmed")  # type: ignore[misc]
            server.restart("immediate")
            assert lsn(confirmed(source_db)) <= lsn(checkpoint_of(sync))
            sync.catch_up()
    ends_equal(source_db, target, sync, since)


def test_a_target_forgets_what_it_had_committed(
    fresh_database: FreshDatabase,
    make_server: MakeServer,
    source_db: Database,
    make_sync: MakeSync,
) -> None:
    """Scenario 5: a target with synchronous_commit = off crashes and loses commits that the worker of
    before, killed, and the one of after have both seen: neither has told the source of them."""
    server = make_server({"wal_writer_delay": "10s", "bgwriter_lru_maxpages": 0})
    target = PostgresTarget(fresh_database(server))
    source_db.execute(SMALL)
    sync = make_sync(source_db, target, ("events", "markers"))
    sync.start()
    sync.wait_copied()

    def loses(number: int) -> bool:
        """Whether the crash took something back: the log may have been flushed by somebody's chance."""
        sync.catch_up()
        target.execute("CHECKPOINT")
        source_db.execute(f"INSERT INTO events VALUES ({number}, 'forgotten')")
        wait_until(lambda: target.rows(f"SELECT 1 FROM events WHERE id = {number}"))
        sync.running.kill()
        before = checkpoint_of(sync)
        sync.start()
        # The new worker has begun where the target is, and has spoken.
        spoke = "SELECT 1 FROM pg_stat_replication WHERE application_name = 'cdc s1' AND write_lsn > %s::pg_lsn"
        wait_until(lambda: source_db.rows(spoke, ["0/0"]), message="the new worker streams")
        server.restart("immediate")
        after = checkpoint_of(sync)
        assert lsn(confirmed(source_db)) <= lsn(after)
        sync.catch_up()
        sync.assert_equal()
        return lsn(after) < lsn(before)

    assert any(loses(number) for number in range(5)), "no crash has taken anything back"


def test_connections_fail_in_every_way(
    source_db: Database, target_db: Database, make_sync: MakeSync, seed: int
) -> None:
    """Scenario 9, and the network: COMMIT is sent and its reply lost, connections are cut, stalled,
    delayed and refused on both sides; the checkpoint is read back before anything is applied again."""
    with Proxy(source_db.server.port) as near, Proxy(target_db.server.port) as far:
        target = PostgresTarget(target_db, far.url(target_db.url))
        sync, since = started(make_sync, source_db, target, source_url=near.url(source_db.url))
        with Workload(source_db.url, seed, pace=0.01) as workload:
            workload.truncate_too()
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
                    large_transaction(source_db.connect(), 1_000)
                proxy.delay(0.003)
                sync.catch_up()
                proxy.delay(0.0)
        assert far.lost == 2
        ends_equal(source_db, target, sync, since)


def test_a_hung_target_does_not_keep_the_worker(
    source_db: Database, target_db: Database, make_sync: MakeSync
) -> None:
    """A worker that is stopped while its target answers nothing ends within 8 seconds all the same, and
    what was under way arrives later, once."""
    source_db.execute(SMALL)
    with Proxy(target_db.server.port) as proxy:
        target = PostgresTarget(target_db, proxy.url(target_db.url))
        sync = make_sync(source_db, target, ("events", "markers"))
        sync.start()
        sync.wait_copied()
        target_db.execute("ALTER TABLE events ADD written timestamptz DEFAULT clock_timestamp()")
        with proxy.stalled():
            source_db.execute("INSERT INTO events SELECT g, 'x' FROM generate_series(1, 100) g")
            assert sync.running.stop() < 8
    sync.target = PostgresTarget(target_db)
    sync.config.write_text(sync.config.read_text().replace(target.url, target_db.url))
    sync.start()
    sync.catch_up()
    assert target_db.rows("SELECT count(*), count(DISTINCT id) FROM events") == [(100, 100)]


@pytest.fixture(params=["postgres", "mariadb"])
def own_target(request: pytest.FixtureRequest) -> PostgresTarget | MysqlTarget:
    """On a server of its own."""
    fixture = request.getfixturevalue
    if request.param == "postgres":
        return PostgresTarget(fixture("fresh_database")(fixture("make_server")()))
    return MysqlTarget(fixture("fresh_mysql_database")(fixture("make_mariadb")()))


@pytest.mark.parametrize(
    "target",
    ["sqlite", *(pytest.param(t, marks=pytest.mark.faults) for t in ("postgres", "mariadb"))],
    indirect=True,
)
def test_one_target_down_does_not_slow_the_other(
    source_db: Database,
    target: Target,
    own_target: PostgresTarget | MysqlTarget,
    make_sync: MakeSync,
) -> None:
    """Scenario 40: two syncs of one source; one target is down for the whole run, and the other's lag
    does not grow. When it is back, it catches up."""
    source_db.execute(SMALL)
    server = own_target.database.server
    down = make_sync(source_db, own_target, ("events", "markers"), name="down")
    up = make_sync(source_db, target, ("events", "markers"), name="up")
    for sync in (down, up):
        sync.start()
        sync.wait_copied()
    if isinstance(server, LocalPostgres):
        # The tables are looked at below: a crash may take back the last, asynchronous commits.
        down.target.execute("CHECKPOINT")
        server.stop("immediate")
    else:
        server.stop("fast")
    for n in range(10):
        source_db.execute(
            f"INSERT INTO events SELECT g, repeat('x', 200) FROM generate_series({n * 1000}, {n * 1000 + 999}) g"
        )
        up.catch_up(timeout=5)
    wait_until(
        lambda: told(down).state == "retrying" and told(down).error, message="told in status"
    )
    server.start()
    source_db.execute("INSERT INTO markers VALUES (1000)")
    down.waits_for(
        lambda: down.target.rows("SELECT 1 FROM markers WHERE id = 1000"), "it has caught up"
    )
    down.assert_equal()
    up.assert_equal()


@pytest.mark.parametrize("rows", [200_000, pytest.param(1_000_000, marks=pytest.mark.faults)])
def test_a_large_transaction_in_little_memory(
    source_db: Database, target: Target, make_sync: MakeSync, rows: int
) -> None:
    """Scenario 12: one transaction of so many rows arrives as one, with the worker below 200 MB; idle,
    it is below 80 MB."""
    source_db.execute(SMALL)
    sync = make_sync(source_db, target, ("events", "markers"))
    sync.start(fresh=True)
    sync.wait_copied()
    idle = sync.running.memory("VmRSS")
    assert idle < 80, f"{idle:.0f} MB"
    seen: set[tuple[object, ...]] = set()
    source_db.execute(
        f"INSERT INTO events SELECT g, repeat('x', 100) FROM generate_series(1, {rows}) g"
    )

    def arrived() -> bool:
        seen.update(target.rows("SELECT min(id), max(id) FROM events"))
        return target.rows("SELECT 1 FROM markers WHERE id = 1") != []

    source_db.execute("INSERT INTO markers VALUES (1)")
    sync.waits_for(arrived, "the transaction has arrived", timeout=300)
    most = sync.running.memory("VmHWM")
    assert most < 200, f"{most:.0f} MB"
    assert seen <= {(None, None), (1, rows)}, "seen half-done"
    sync.assert_equal()
