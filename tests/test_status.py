"""`collect` and the commands on a sync, against real databases and a real daemon."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliers.errors import LockedError
from appliers.registry import applier_for
from cdc import status as status_module
from cdc.config import Config, load
from cdc.control import drop, pause, request_copy
from cdc.daemon import WORKER
from cdc.runtime import Live, Runtime
from cdc.status import SyncStatus, collect
from tests.daemons import Daemon, StartDaemon, start_daemon
from tests.databases import Database, wait_until

__all__ = ["start_daemon"]

Start = Callable[[], Daemon]


@pytest.fixture
def config(tmp_path: Path, source_db: Database) -> Config:
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
    source_db.execute("INSERT INTO customers SELECT g, 'n' || g FROM generate_series(1, 100) g")
    return configured(tmp_path, source_db.url, "sqlite:///lite.sqlite")


def configured(folder: Path, source: str, target: str, table: str = "customers") -> Config:
    path = folder / "cdc.toml"
    path.write_text(
        f'[databases.crm]\nurl = "{source}"\n[databases.lite]\nurl = "{target}"\n'
        f'[sync.lite]\nsource = "crm"\ntarget = "lite"\ntables = ["{table}"]\n'
    )
    return load(path)


@pytest.fixture
def start(start_daemon: StartDaemon, config: Config) -> Start:
    return lambda: start_daemon(config=config.path, worker=WORKER)


def one(config: Config) -> SyncStatus:
    [status] = collect(config)
    return status


def wait_for(config: Config, state: str) -> SyncStatus:
    return seen(config, lambda status: status.state == state, f"the sync is {state}")


def seen(config: Config, wanted: Callable[[SyncStatus], bool], message: str) -> SyncStatus:
    """The status at which it was as wanted: the next look may have another."""

    def look() -> SyncStatus | None:
        status = one(config)
        return status if wanted(status) else None

    found = wait_until(look, message=message)
    assert found is not None
    return found


def test_a_sync_that_never_ran_is_new(config: Config) -> None:
    """Nothing is known but the source's position; the JSON has the contract's keys in their order."""
    status = one(config).as_json()
    assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", status.pop("source_position"))
    expected = {
        "name": "lite",
        "source": "crm",
        "target": "lite",
        "state": "new",
        "lag_bytes": None,
        "lag_seconds": None,
        "checkpoint": None,
        "applied_at": None,
        "changes_applied": 0,
        "changes_per_second": 0.0,
        "snapshot": {
            "state": "pending",
            "tables_done": 0,
            "tables": 0,
            "rows": 0,
            "rows_estimated": 0,
        },
        "dead_letters": 0,
        "source_log": {"retained_bytes": None, "state": None},
        "error": None,
        "hint": None,
        "pid": None,
    }
    assert list(status.items()) == list(expected.items())
    assert not list(config.path.parent.glob("*.sqlite"))


def test_a_sync_tells_its_way(config: Config, source_db: Database, start: Start) -> None:
    """Streaming with no lag while it runs and is idle; stopped, then behind, when it does not."""
    daemon = start()
    wait_for(config, "streaming")
    status = seen(
        config,
        lambda status: (status.lag_bytes, status.lag_seconds) == (0, 0.0),
        "an idle source has no lag",
    )
    assert (status.snapshot.state, status.snapshot.tables_done, status.snapshot.rows) == (
        "done",
        1,
        100,
    )
    assert status.source_log.state == "reserved"
    assert [w.pid for w in daemon.workers()] == [status.pid]
    source_db.execute("UPDATE customers SET name = upper(name) WHERE id <= 7")
    wait_until(lambda: one(config).changes_applied == 7)
    assert daemon.stop() == 0

    status = one(config)
    assert (status.state, status.pid, status.changes_applied) == ("stopped", None, 7)
    assert status.applied_at is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", status.applied_at)
    source_db.execute("UPDATE customers SET name = lower(name)")
    behind = one(config)
    assert behind.checkpoint == status.checkpoint
    assert behind.lag_bytes is not None
    assert behind.lag_bytes > 1000
    assert behind.lag_seconds is not None
    assert 0 < behind.lag_seconds < 60


def test_a_pause_outlives_the_daemon(config: Config, start: Start) -> None:
    """Paused while running, paused while down, paused again after a start, until resumed."""
    sync = config.syncs["lite"]
    daemon = start()
    wait_for(config, "streaming")
    pause(config, sync, paused=True)
    assert wait_for(config, "paused").pid is not None
    assert daemon.stop() == 0
    assert one(config).state == "paused"
    daemon = start()
    wait_until(lambda: one(config).pid, message="the worker runs")
    assert wait_for(config, "paused").error is None
    pause(config, sync, paused=False)
    wait_for(config, "streaming")
    assert daemon.stop() == 0


def test_a_failed_sync_keeps_its_reason(
    tmp_path: Path, source_db: Database, start_daemon: StartDaemon
) -> None:
    """While the daemon goes on and after it has ended, until the sync runs again."""
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    config = configured(tmp_path, source_db.url, "sqlite:///lite.sqlite", "nobody")
    daemon = start_daemon(config=config.path, worker=WORKER)
    assert daemon.wait() == 1
    status = one(config)
    assert status.state == "failed"
    assert "nobody" in (status.error or "")
    assert status.pid is None
    config = configured(tmp_path, source_db.url, "sqlite:///lite.sqlite")
    daemon = start_daemon(config=config.path, worker=WORKER)
    assert wait_for(config, "streaming").error is None
    assert daemon.stop() == 0
    assert one(config).error is None


def test_a_killed_worker_comes_back(config: Config, source_db: Database, start: Start) -> None:
    """With the real worker: SIGKILL, and the changes made meanwhile arrive."""
    daemon = start()
    killed = wait_for(config, "streaming").pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    source_db.execute("DELETE FROM customers WHERE id <= 5")
    wait_until(lambda: one(config).changes_applied == 5)
    wait_until(lambda: one(config).pid not in (None, killed))
    assert daemon.stop() == 0


def test_no_real_worker_outlives_a_killed_daemon(config: Config, start: Start) -> None:
    """SIGKILL on the daemon."""
    daemon = start()
    wait_for(config, "streaming")
    [worker] = daemon.workers()
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    worker.wait(timeout=30)
    assert one(config).state == "stopped"


def test_an_unreachable_source_is_named(tmp_path: Path) -> None:
    """The error says which database it is, and what is known is shown all the same."""
    config = configured(tmp_path, "postgresql://x@127.0.0.1:1/x", "sqlite:///lite.sqlite")
    status = one(config)
    assert (status.state, status.lag_bytes, status.source_position) == ("new", None, None)
    assert status.error is not None
    assert status.error.startswith("crm: ")


def test_an_unreachable_target_is_named(tmp_path: Path, source_db: Database) -> None:
    """Without its checkpoint nobody knows more than that it does not run."""
    config = configured(tmp_path, source_db.url, "sqlite:////nowhere/lite.sqlite")
    status = one(config)
    assert (status.state, status.checkpoint, status.lag_seconds) == ("stopped", None, None)
    assert status.source_position is not None
    assert status.error is not None
    assert status.error.startswith("lite: ")
    assert status.hint


def test_a_database_that_does_not_answer_does_not_hold_up_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A black hole costs the patience once, however many syncs lead into it."""
    monkeypatch.setattr(status_module, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        url = f"postgresql://x@127.0.0.1:{hole.getsockname()[1]}/x"
        config = configured(tmp_path, url, "sqlite:///lite.sqlite")
        text = config.path.read_text()
        config.path.write_text(text + text[text.index("[sync.lite]") :].replace(".lite]", ".two]"))
        begun = time.monotonic()
        statuses = collect(load(config.path))
        assert time.monotonic() - begun < 5
    assert [s.name for s in statuses] == ["lite", "two"]
    assert {s.error for s in statuses} == {"crm: no answer within 1 seconds"}


def test_a_worker_that_does_not_move_is_retrying(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive is not well: health is progress."""
    runtime = Runtime(config.path, "lite")
    runtime.lock("the test")
    live = Live("lite", "streaming", pid=os.getpid(), beat=1)
    runtime.publish(live)
    assert one(config).state == "streaming"
    monkeypatch.setattr(status_module, "SILENCE", 0.2)
    time.sleep(0.3)
    runtime.publish(live)
    status = one(config)
    assert status.state == "retrying"
    assert "has not moved" in (status.error or "")
    runtime.unlock()


def test_a_wish_for_a_copy_waits_on_the_target(config: Config, start: Start) -> None:
    """Whether or not the daemon runs now."""
    daemon = start()
    wait_for(config, "streaming")
    assert daemon.stop() == 0
    sync = config.syncs["lite"]
    number = request_copy(config, sync, "public.customers", None)
    applier = applier_for(sync.target.url, None, "lite")
    applier.open(None)
    [request] = applier.state.control().requests
    applier.close()
    assert (request.id, request.table, request.customer) == (number, "public.customers", None)


def test_drop_removes_what_the_sync_left(config: Config, source_db: Database, start: Start) -> None:
    """Not while it runs; then slot, publication and checkpoint, never rows; twice is no error."""
    sync = config.syncs["lite"]
    daemon = start()
    wait_for(config, "streaming")
    with pytest.raises(LockedError, match=f"already run by cdc run, process {daemon.pid} on"):
        drop(config, sync)
    assert one(config).state == "streaming"
    assert daemon.stop() == 0
    drop(config, sync)
    assert one(config).state == "new"
    assert source_db.value("SELECT count(*) FROM pg_publication") == 0
    slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
    assert source_db.value(slots) == 0
    assert source_db.value("SELECT count(*) FROM customers") == 100
    drop(config, sync)
