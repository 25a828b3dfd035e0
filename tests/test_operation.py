"""What an operator sees of a real sync: the service manager, status, and databases that are not as they should be."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from cdc.demo.server import LocalPostgres
from tests.command import Command, cdc
from tests.daemons import Manager, manager
from tests.databases import Database, wait_until
from tests.implementations import compiled
from tests.servers import MakeServer
from tests.targets import PostgresTarget, differences

__all__ = ["cdc", "manager"]

FreshDatabase = Callable[[LocalPostgres], Database]

SCHEMA = """
CREATE TABLE customers (id int PRIMARY KEY, name text);
INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 100) g"""


def is_equal(source: Database, target: Database) -> None:
    wait_until(
        lambda: not differences(source, PostgresTarget(target), ["customers"]),
        60,
        "source and target are equal",
    )


def test_a_service_from_ready_to_stopping(
    cdc: Command, source_db: Database, target_db: Database, manager: Manager
) -> None:
    """The notify protocol over a real socket, with a real sync: ready, a status of the sync, the watchdog
    fed while it streams, a reload, and a clean stop within ten seconds with everything applied."""
    source_db.execute(SCHEMA)
    cdc.configure(source_db.url, target_db.url, sync={"tables": ["customers"]})
    cdc.environment |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "8000000"}
    daemon = cdc.start("run")
    manager.wait_for("READY=1")
    cdc.wait_for(state="streaming")
    manager.wait_for("WATCHDOG=1", times=2)
    assert any(a.startswith("STATUS=") for a in manager.heard())
    daemon.send_signal(signal.SIGHUP)
    manager.wait_for("RELOADING=1")
    manager.wait_for("READY=1", times=2)
    cdc.wait_for(state="streaming")
    source_db.execute("UPDATE customers SET name = 'before the stop'")
    is_equal(source_db, target_db)
    begun = time.monotonic()
    daemon.terminate()
    assert daemon.wait(15) == 0
    assert time.monotonic() - begun < 10
    assert manager.heard()[-1] != "READY=1"
    assert "STOPPING=1" in manager.heard()
    is_equal(source_db, target_db)


def test_a_lag_that_is_too_long_is_an_exit_code(
    cdc: Command, source_db: Database, target_db: Database
) -> None:
    """A monitor calls `cdc status --max-lag`: 0 while changes arrive in time, 1 while they do not."""
    source_db.execute(SCHEMA)
    cdc.configure(source_db.url, target_db.url, sync={"tables": ["customers"]})
    cdc.start("run")
    cdc.wait_for(state="streaming")
    assert cdc.run("status", "--max-lag", "5").returncode == 0
    with closing(target_db.connect(autocommit=False)) as holder:
        holder.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        source_db.execute("UPDATE customers SET name = 'late'")
        wait_until(lambda: (cdc.status()["lag_seconds"] or 0) > 1.5, message="the lag grows")
        late = cdc.run("status", "--max-lag", "1")
        assert late.returncode == 1
        assert "copy" in late.stdout
        holder.rollback()
    is_equal(source_db, target_db)
    wait_until(
        lambda: cdc.run("status", "--max-lag", "1").returncode == 0, message="it is in time again"
    )


def test_until_current_while_others_write(
    cdc: Command, source_db: Database, target_db: Database
) -> None:
    """It ends although the source never rests, with everything that was committed before it began."""
    source_db.execute(SCHEMA)
    cdc.configure(source_db.url, target_db.url, sync={"tables": ["customers"]})
    cdc.ok("run", "--until-current")
    with writing(source_db, "INSERT INTO customers VALUES ({n}, 'traffic')") as written:
        wait_until(lambda: written[-1:] > [1100], message="there is traffic")
        before = written[-1]
        cdc.ok("run", "--until-current")
        assert written[-1] > before, "the source did not rest"
    [(there,)] = target_db.rows(
        f"SELECT count(*) FROM customers WHERE id BETWEEN 1001 AND {before}"
    )
    assert there == before - 1000


@contextmanager
def writing(database: Database, statement: str) -> Iterator[list[int]]:
    """Commits the statement with n from 1001 on, one after the other, meanwhile; what is committed."""
    written: list[int] = []
    ends = threading.Event()

    def write() -> None:
        with closing(database.connect()) as db:
            n = 1000
            while not ends.is_set():
                n += 1
                db.execute(statement.format(n=n))
                written.append(n)
                time.sleep(0.001)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        ends.set()
        thread.join(30)


def test_a_read_only_target_is_waited_for(
    cdc: Command, source_db: Database, target_db: Database
) -> None:
    """Scenario 41: named in the status with what to do, tried again, and nothing is lost."""
    source_db.execute(SCHEMA)
    cdc.configure(source_db.url, target_db.url, sync={"tables": ["customers"]})
    cdc.start("run")
    cdc.wait_for(state="streaming")
    target_db.execute(f"ALTER DATABASE {target_db.name} SET default_transaction_read_only = on")
    end_sessions(target_db)
    source_db.execute("UPDATE customers SET name = 'while it is read-only'")
    found = cdc.wait_for_error("read-only")
    assert "the target is read-only" in str(found["hint"])
    target_db.execute("SET default_transaction_read_only = off")
    target_db.execute(f"ALTER DATABASE {target_db.name} RESET default_transaction_read_only")
    is_equal(source_db, target_db)
    cdc.wait_for(state="streaming", error=None)


@pytest.mark.parametrize("in_c", ["yes", "no"])
def test_a_sync_with_and_without_the_parts_in_c(
    cdc: Command, source_db: Database, target_db: Database, in_c: str
) -> None:
    """The same rows arrive, from a copy and from the log, and the log says which it is."""
    if in_c == "yes":
        compiled("appliers._images", "Columns")
    else:
        cdc.environment["CDC_PURE_PYTHON"] = "1"
    source_db.execute(SCHEMA)
    cdc.configure(source_db.url, target_db.url, sync={"tables": ["customers"]})
    cdc.start("run", fresh=True)
    cdc.wait_for(state="streaming")
    source_db.execute("INSERT INTO customers SELECT g, NULL FROM generate_series(101, 500) g")
    source_db.execute("UPDATE customers SET name = 'é\\' || id WHERE id > 50")
    source_db.execute("DELETE FROM customers WHERE id % 7 = 0; UPDATE customers SET id = -id")
    is_equal(source_db, target_db)
    [started] = [line for line in cdc.said("run").splitlines() if "daemon-started" in line]
    assert started.endswith(f" in_c={in_c}")


def end_sessions(database: Database) -> None:
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'cdc%'"
    )


def test_a_source_without_a_free_slot_is_waited_for(
    cdc: Command, make_server: MakeServer, fresh_database: FreshDatabase, target_db: Database
) -> None:
    """Named in the status with the setting to raise, tried again until somebody gives a slot back."""
    server = make_server()
    server.configure({"max_replication_slots": 2})
    server.restart()
    source = fresh_database(server)
    source.execute(SCHEMA)
    for name in ("taken", "taken_too"):
        source.execute(f"SELECT pg_create_physical_replication_slot('{name}')")
    cdc.configure(source.url, target_db.url, sync={"tables": ["customers"]})
    cdc.start("run")
    found = cdc.wait_for_error("replication slots are in use")
    assert str(found["hint"]).startswith("raise max_replication_slots on the source")
    for name in ("taken", "taken_too"):
        source.execute(f"SELECT pg_drop_replication_slot('{name}')")
    cdc.wait_for(state="streaming", error=None)
    is_equal(source, target_db)


def test_a_password_that_changes_meanwhile(
    cdc: Command, make_server: MakeServer, fresh_database: FreshDatabase, source_db: Database
) -> None:
    """Scenario 41: the sync stops and names the password; with the new one it goes on, nothing lost."""
    server = make_server(password="first")
    target = fresh_database(server)
    source_db.execute(SCHEMA)
    secret = cdc.directory / "secret"
    secret.write_text("first")
    secret.chmod(0o600)
    url = target.url.replace(":first@", "@")
    cdc.configure(source_db.url, url, sync={"tables": ["customers"]})
    text = cdc.config.read_text()
    # The daemon stays while another sync goes on.
    cdc.config.write_text(
        text.replace(f'url = "{url}"', f'url = "{url}"\npassword_file = "{secret}"')
        + '[databases.other]\nurl = "sqlite:///other.db"\n'
        + '[sync.other]\nsource = "crm"\ntarget = "other"\ntables = ["customers"]\n'
    )
    daemon = cdc.start("run")
    cdc.wait_for(state="streaming")
    target.execute("ALTER ROLE postgres PASSWORD 'second'")
    end_sessions(target)
    source_db.execute("UPDATE customers SET name = 'while the password was another'")
    try:
        # What fails only after the signal is not started again by it.
        wait_until(lambda: "sync-failed" in cdc.said("run"), message="the daemon gives it up")
        assert "password authentication failed" in cdc.said("run")
        secret.write_text("second")
        daemon.send_signal(signal.SIGHUP)
        is_equal(source_db, target)
    finally:
        # The fixture removes its database with the password that it knows.
        target.execute("ALTER ROLE postgres PASSWORD 'first'")


@pytest.mark.parametrize("kind", ["RANGE (at)", "LIST (at)", "HASH (at)"])
def test_partitions_are_one_table(
    cdc: Command, source_db: Database, target_db: Database, kind: str
) -> None:
    """A partitioned table is copied and followed as one, by the names of its root: rows that move from
    partition to partition, partitions that come and are emptied."""
    source_db.execute(
        f"CREATE TABLE customers (id int, at int, name text, PRIMARY KEY (id, at)) PARTITION BY {kind}"
    )
    for part in range(2):
        bounds = {
            "R": f"FROM ({part * 50}) TO ({part * 50 + 50})",
            "L": f"IN ({', '.join(str(n) for n in range(part * 50, part * 50 + 50))})",
            "H": f"WITH (MODULUS 3, REMAINDER {part})",
        }[kind[0]]
        values = "" if kind[0] == "H" else "VALUES "
        source_db.execute(
            f"CREATE TABLE part_{part} PARTITION OF customers FOR {values or 'VALUES '}{bounds}"
        )
    last = "FOR VALUES WITH (MODULUS 3, REMAINDER 2)" if kind[0] == "H" else "DEFAULT"
    source_db.execute(f"CREATE TABLE part_2 PARTITION OF customers {last}")
    source_db.execute("INSERT INTO customers SELECT g, g, 'x' FROM generate_series(1, 120) g")
    cdc.configure(source_db.url, target_db.url, sync={"tables": ["customers"]})
    cdc.start("run")
    cdc.wait_for(state="streaming")
    is_equal(source_db, target_db)
    source_db.execute("UPDATE customers SET at = 120 - at WHERE id < 60")
    source_db.execute("DELETE FROM customers WHERE id > 100; UPDATE customers SET name = 'y'")
    source_db.execute("ALTER TABLE customers DETACH PARTITION part_2; DROP TABLE part_2")
    source_db.execute(f"CREATE TABLE part_3 PARTITION OF customers {last}")
    source_db.execute("INSERT INTO customers VALUES (1000, 1000, 'z')")
    is_new = "SELECT name FROM customers WHERE id = 1000"
    wait_until(lambda: target_db.rows(is_new) == [("z",)], message="it goes on")
    source_db.execute("TRUNCATE customers")
    is_equal(source_db, target_db)


def test_hundreds_of_foreign_keys(cdc: Command, source_db: Database, target_db: Database) -> None:
    """Scenario 48: 100 tables that refer to one another and to themselves on both sides, children that
    are written before their parents in one transaction."""
    names = [f"t{n}" for n in range(100)]
    for database in (source_db, target_db):
        statements = [f"CREATE TABLE {n} (id int PRIMARY KEY, up int, aside int)" for n in names]
        for n, name in enumerate(names):
            other = names[(n * 7 + 1) % 100]
            statements.append(
                f"ALTER TABLE {name} ADD FOREIGN KEY (up) REFERENCES {name} DEFERRABLE INITIALLY DEFERRED,"
                f" ADD FOREIGN KEY (aside) REFERENCES {other} DEFERRABLE INITIALLY DEFERRED"
            )
        database.execute(";".join(statements))
    source_db.execute(";".join(f"INSERT INTO {n} VALUES (1, 1, NULL)" for n in names))
    cdc.configure(source_db.url, target_db.url, sync={"tables": ["public.*"]})
    cdc.ok("run", "--until-current", timeout=110)
    with closing(source_db.connect(autocommit=False)) as db:
        for name in names:
            db.execute(f"INSERT INTO {name} VALUES (2, 3, 3)")
        for name in reversed(names):
            db.execute(f"INSERT INTO {name} VALUES (3, 2, 1)")
        db.commit()
        for name in names:
            db.execute(f"UPDATE {name} SET aside = NULL; DELETE FROM {name} WHERE id > 1")
        for name in names[::3]:
            db.execute(f"INSERT INTO {name} VALUES (4, 4, 4)")
        for name in names:
            db.execute(f"INSERT INTO {name} VALUES (4, 4, 1) ON CONFLICT DO NOTHING")
        db.commit()
    cdc.ok("run", "--until-current", timeout=110)
    assert not differences(source_db, PostgresTarget(target_db), names)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        target_db.execute("DELETE FROM t1 WHERE id = 4")
