"""Copies of tables: while the source is written, through kills, again on request, and after a gap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from tests.crm import SCHEMA, TABLES, fill
from tests.databases import Database, wait_until
from tests.killing import chunks_left
from tests.syncs import MakeSync, Sync
from tests.targets import Target, state_of, tables_of
from tests.workload import Workload

WIDE: Final = """
CREATE TABLE wide (id bigint PRIMARY KEY, body text, n int) WITH (fillfactor = 10);
CREATE TABLE markers (id bigint PRIMARY KEY);
CREATE TABLE beside (id bigint PRIMARY KEY, body text);
"""
"""`wide` has few rows in many blocks, and so in many chunks."""

ROWS: Final = 10_000
CUSTOMER: Final = '[customer]\ntable = "customers"\nrelated = { contacts = "customer_id", addresses = "customer_id" }'


def make_wide(source: Database, rows: int = ROWS) -> None:
    source.execute(WIDE)
    source.execute(
        "INSERT INTO wide SELECT g, repeat('w', 780), g FROM generate_series(1, %s) g", [rows]
    )


@contextmanager
def open_transaction(source: Database, statement: str) -> Iterator[None]:
    """A transaction that has written, and commits at the end."""
    db = source.connect(autocommit=False)
    db.execute(statement)
    yield
    db.commit()


@contextmanager
def nobody_waits_for_us(source: Database) -> Iterator[None]:
    """Looks every few milliseconds for sessions of the application that wait for a lock of the sync's.

    What takes a whole table (TRUNCATE, ALTER TABLE) may wait for a chunk. The workload cannot tell: it
    expects to wait for itself."""
    waiting = """
        SELECT l.mode, l.relation::regclass::text, d.query FROM pg_locks AS l
        CROSS JOIN LATERAL unnest(pg_blocking_pids(l.pid)) AS blocker
        JOIN pg_stat_activity AS d ON d.pid = blocker AND d.application_name LIKE 'cdc %'
        WHERE NOT l.granted AND l.mode <> 'AccessExclusiveLock'"""
    found: list[tuple[Any, ...]] = []
    looks, over = 0, threading.Event()

    def look() -> None:
        nonlocal looks
        with source.connect() as db:
            while not over.wait(0.005):
                found.extend(db.execute(waiting).fetchall())
                looks += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert looks > 20
    assert not found


def test_a_copy_of_tables_that_are_written(
    source_db: Database, target: Target, make_sync: MakeSync, seed: int
) -> None:
    """Scenarios 17, 18 and 49: rows inserted, updated and deleted during the copy end in their latest
    state; transactions that are open as it begins are neither lost nor doubled; none waits for us."""
    source_db.execute(SCHEMA)
    fill(source_db.connect())
    target.make_tables(SCHEMA)
    sync = make_sync(source_db, target, TABLES)
    with (
        nobody_waits_for_us(source_db),
        Workload(source_db.url, seed, slow=2) as workload,
    ):
        with open_transaction(source_db, "INSERT INTO events (writer, body) VALUES (0, 'before')"):
            sync.start(fault="chunk-written:1")
            slot = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'cdc_s1'"
            sync.waits_for(lambda: source_db.rows(slot), "the slot is being made")
            later = open_transaction(source_db, "DELETE FROM events WHERE id = 1")
            later.__enter__()
        later.__exit__(None, None, None)
        sync.running.dies_at_fault()
        # What is committed now is copied as it is in the end, and then redone from the beginning.
        workload.truncate_too()
        enough = workload.commits + 200
        wait_until(lambda: workload.commits > enough, message="the source has moved on")
        sync.start()
        sync.wait_copied()
    sync.finish()
    sync.assert_equal()
    sync.assert_nothing_healed()


def number_invoices(source: Database, over: threading.Event, failed: list[Exception]) -> None:
    """Gapless numbers, as an application of SERIALIZABLE transactions has them: what cannot be serialized is
    tried again, a lock is not waited for."""
    with source.connect() as db:
        db.execute("SET default_transaction_isolation = serializable; SET lock_timeout = '3s'")
        while not over.is_set():
            try:
                with db.transaction():
                    db.execute("UPDATE numbers SET n = n + 1")
                    db.execute(
                        "INSERT INTO invoices SELECT n, (SELECT sum(total) FROM sums) FROM numbers"
                    )
                    db.execute("UPDATE sums SET total = total + 1 WHERE id = 1 + total % 2")
            except psycopg.errors.SerializationFailure:
                pass
            except psycopg.Error as e:
                failed.append(e)


def test_serializable_transactions_with_gapless_numbers(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """Scenario 49: they wait for nobody of ours and fail for nothing of ours, in copy and stream; no number
    is missing on the target."""
    make_wide(source_db)
    source_db.execute("""
        CREATE TABLE numbers (id int PRIMARY KEY, n int);
        CREATE TABLE sums (id int PRIMARY KEY, total int);
        CREATE TABLE invoices (n int PRIMARY KEY, total bigint);
        INSERT INTO numbers VALUES (1, 0); INSERT INTO sums VALUES (1, 0), (2, 0)""")
    tables = ("numbers", "sums", "invoices", "wide", "markers")
    sync = make_sync(source_db, one_target, tables)
    over, failed = threading.Event(), list[Exception]()
    writers = [
        threading.Thread(target=number_invoices, args=(source_db, over, failed)) for _ in range(3)
    ]
    with nobody_waits_for_us(source_db):
        for writer in writers:
            writer.start()
        try:
            sync.start()
            sync.wait_copied()
            sync.request("public.wide")
            sync.catch_up()
        finally:
            over.set()
            for writer in writers:
                writer.join()
    assert not failed
    sync.catch_up()
    sync.assert_equal()
    [(last, count)] = one_target.rows("SELECT max(n), count(*) FROM invoices")
    assert last == count > 50


def test_a_killed_copy_goes_on_where_it_was(
    source_db: Database, target: Target, make_sync: MakeSync
) -> None:
    """Scenario 19: the chunks that are left never grow, and each row is written once, however often the
    copy is killed."""
    make_wide(source_db)
    source_db.execute("VACUUM ANALYZE wide")
    target.make_tables(WIDE.replace(" WITH (fillfactor = 10)", ""))
    target.count_writes("wide")
    sync = make_sync(source_db, target, ("wide", "markers"))
    left = chunks_left(sync)
    assert left == sorted(left, reverse=True)
    assert left[0] > left[-1] > 0
    sync.start()
    sync.wait_copied()
    sync.assert_equal("wide")
    assert target.rows("SELECT count(*), count(DISTINCT id) FROM wide_writes") == [(ROWS, ROWS)]
    assert tables_of(target, sync.name)["public.wide"].rows == ROWS
    source_db.execute("SELECT pg_stat_force_next_flush()")
    chunk = ROWS // 4
    read = source_db.value("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'wide'")
    # Four lanes were in the middle of a chunk at each of the four kills, at most.
    assert read <= 2 * ROWS + 4 * 4 * chunk


def test_copies_on_request(
    source_db: Database, target: Target, make_sync: MakeSync, seed: int
) -> None:
    """A table, everything, and one customer are copied again while the sync runs; what was changed,
    added or deleted on the target by hand is as on the source afterwards."""
    source_db.execute(SCHEMA)
    fill(source_db.connect())
    sync = make_sync(source_db, target, TABLES, customer=CUSTOMER)
    sync.start()
    sync.wait_copied()
    source_db.execute("INSERT INTO customers (id, email, name) VALUES (5000, 'five', 'thousand')")
    source_db.execute(
        "INSERT INTO contacts VALUES (900001, 5000, 'mail', 'v', 'c'), (900002, 5000, 'fax', 'v', 'c')"
    )
    with Workload(source_db.url, seed, slow=0, pace=0.02):
        sync.catch_up()
        target.execute("UPDATE customers SET name = 'forged' WHERE id = 5000")
        target.execute("DELETE FROM contacts WHERE id = 900001")
        target.execute("INSERT INTO contacts (id, customer_id) VALUES (900003, 5000)")
        sync.request(customer="5000")
        by_hand = "SELECT count(*) FROM contacts WHERE customer_id = 5000"
        assert target.rows(by_hand) == [(2,)]
        assert target.rows("SELECT name FROM customers WHERE id = 5000") == [("thousand",)]
        target.execute("DELETE FROM events WHERE id < 100")
        target.execute("INSERT INTO events (id, writer) VALUES (-1, 0)")
        sync.request(table="public.events")
        target.execute("UPDATE addresses SET street = 'forged'")
        target.execute("DELETE FROM customers WHERE id > 20")
        sync.request()
    sync.catch_up()
    sync.assert_equal()


def test_a_copy_that_fails_leaves_the_stream_alone(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """Scenario 21: while a table cannot be copied again, its changes and those of the others still
    arrive, status says what is wrong, and the copy is made when it has been mended."""
    role = source_db.create_role("LOGIN REPLICATION")
    make_wide(source_db, 100)
    source_db.execute(f"GRANT CREATE ON DATABASE {source_db.name} TO {role}")
    for table in ("wide", "markers", "beside"):
        source_db.execute(f"ALTER TABLE {table} OWNER TO {role}")
    sync = make_sync(
        source_db, one_target, ("wide", "markers", "beside"), source_url=source_db.url_as(role)
    )
    sync.start()
    sync.wait_copied()
    source_db.execute(f"REVOKE SELECT ON wide FROM {role}")
    one_target.execute("DELETE FROM wide WHERE id = 7")
    with state_of(one_target, sync.name) as state:
        state.request("wide", None)

    def complains() -> bool:
        live = sync.live()
        return live is not None and live.error is not None and "permission denied" in live.error

    sync.waits_for(complains, "status says that the copy has failed")
    for n in range(3):
        source_db.execute(f"INSERT INTO beside VALUES ({n}, 'b')")
        source_db.execute(f"UPDATE wide SET n = -1 WHERE id = {n + 1}")
        sync.catch_up(15)
    sync.assert_equal("beside")
    assert one_target.rows("SELECT count(*) FROM wide WHERE n = -1") == [(3,)]
    source_db.execute(f"GRANT SELECT ON wide TO {role}")
    sync.request("wide")
    sync.assert_equal()
    sync.waits_for(lambda: not complains(), "status has nothing to say any more")


def test_a_locked_table_does_not_hold_up_the_others(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """Scenarios 21 and 50: a table that is to be copied again is locked by a migration, or a long
    transaction runs on the source: the other tables' changes still arrive."""
    make_wide(source_db, 100)
    sync = make_sync(source_db, one_target, ("wide", "markers", "beside"))
    sync.start()
    sync.wait_copied()
    migration = source_db.connect(autocommit=False)
    migration.execute("ALTER TABLE wide ALTER COLUMN n SET STATISTICS 10")
    migration.execute("LOCK TABLE wide IN ACCESS EXCLUSIVE MODE")
    with state_of(one_target, sync.name) as state:
        state.request("wide", None)
    sync.waits_for(lambda: sync.log_count("copy-requested"), "the wish is taken up")
    for n in range(3):
        source_db.execute(f"INSERT INTO beside VALUES ({n}, 'b')")
        sync.catch_up(30)
    migration.commit()
    sync.waits_for(sync.is_copied, "the table is copied")
    sync.assert_equal()


def test_a_migration_waits_for_a_chunk_at_most(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """Scenario 49: a lock that excludes everybody is had during the copy of a large table."""
    make_wide(source_db, 2 * ROWS)
    sync = make_sync(source_db, one_target, ("wide", "markers"))
    sync.start()
    sync.waits_for(lambda: sync.log_count("table-planned"), "the copy has begun")
    locks = 0
    while not sync.is_copied():
        db = source_db.connect(autocommit=False)
        db.execute("SET lock_timeout = '5s'")
        db.execute("LOCK TABLE wide IN ACCESS EXCLUSIVE MODE")
        db.close()
        locks += 1
    assert locks > 0
    sync.assert_equal()


def lose_the_slot(source: Database) -> None:
    wait_until(
        lambda: source.rows("SELECT 1 FROM pg_replication_slots WHERE NOT active"), message="free"
    )
    source.execute("SELECT pg_drop_replication_slot('cdc_s1')")


def fails_with(sync: Sync, text: str) -> None:
    assert sync.start().wait() == 1
    said = sync.log_tail(3)
    assert text in said, said
    assert "Try: `cdc snapshot s1` accepts the gap" in said
    with state_of(sync.target, sync.name) as state:
        assert text in (state.control().error or "")


def test_a_gap_is_named_and_mended(
    source_db: Database, target: Target, make_sync: MakeSync
) -> None:
    """Scenario 4: a slot that is gone, new, or past the checkpoint is refused with what to do; a new
    snapshot mends it, rows that were deleted in the gap included."""
    source_db.execute(SCHEMA)
    fill(source_db.connect())
    sync = make_sync(source_db, target, TABLES)
    sync.start()
    sync.wait_copied()
    sync.running.kill()
    lose_the_slot(source_db)
    source_db.execute("DELETE FROM events WHERE id <= 50")
    source_db.execute("UPDATE activities SET what = 'in the gap' WHERE id <= 50")
    fails_with(sync, "replication slot cdc_s1 is gone")
    source_db.execute("SELECT pg_create_logical_replication_slot('cdc_s1', 'pgoutput')")
    fails_with(sync, "past the checkpoint")
    with state_of(target, sync.name) as state:
        state.request(None, None)
    sync.start()
    sync.waits_for(lambda: sync.log_count("sync-started") == 2, "the gap is accepted")
    assert sync.log_count("starting-anew") == 1
    sync.wait_copied()
    sync.catch_up()
    sync.assert_equal()
    with state_of(target, sync.name) as state:
        assert state.control().error is None
    sync.running.kill()
    source_db.execute("INSERT INTO events (writer) VALUES (1)")
    wait_until(
        lambda: source_db.rows("SELECT 1 FROM pg_replication_slots WHERE NOT active"),
        message="free",
    )
    source_db.execute("SELECT pg_replication_slot_advance('cdc_s1', pg_current_wal_lsn())")
    fails_with(sync, "past the checkpoint")


def test_a_table_that_joins_later_and_one_that_leaves(
    source_db: Database, one_target: Target, make_sync: MakeSync
) -> None:
    """A table that is added to the configuration is copied beside the running stream; one that is taken
    out is no longer written, and copied anew when it comes back."""
    make_wide(source_db, 50)
    sync = make_sync(source_db, one_target, ("beside", "markers"))
    sync.start()
    sync.wait_copied()
    sync.running.stop()
    both = sync.config.read_text().replace('["beside", "markers"]', '["beside", "markers", "wide"]')
    sync.config.write_text(both)
    sync.start()
    sync.waits_for(lambda: len(tables_of(one_target, sync.name)) == 3, "the table is known")
    sync.wait_copied()
    sync.assert_equal("wide")
    sync.running.stop()
    sync.config.write_text(both.replace(', "wide"', ""))
    source_db.execute("DELETE FROM wide WHERE id = 1")
    sync.start()
    sync.waits_for(lambda: len(tables_of(one_target, sync.name)) == 2, "the table is forgotten")
    source_db.execute("DELETE FROM wide WHERE id = 2")
    sync.catch_up()
    sync.running.stop()
    sync.config.write_text(both)
    sync.start()
    sync.waits_for(lambda: len(tables_of(one_target, sync.name)) == 3, "the table is back")
    sync.wait_copied()
    sync.assert_equal("wide", "beside")
