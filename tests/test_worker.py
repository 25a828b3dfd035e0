"""One sync's process from inside: its locks, and its connection to the source while the target is slow."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from appliers.postgres import lock
from appliers.registry import applier_for
from cdc import worker
from cdc.config import load
from cdc.goal import Goal
from cdc.sources.postgres import connection, stream
from tests.databases import Database, wait_until
from tests.proxy import Proxy
from tests.syncs import MakeSync, Sync, told
from tests.targets import PostgresTarget, Target

SCHEMA: Final = """
CREATE TABLE events (id bigint PRIMARY KEY, body text);
CREATE TABLE markers (id bigint PRIMARY KEY);
"""
TABLES: Final = ("events", "markers")


def made(sync: Sync) -> worker.Worker:
    config = load(sync.config)
    return worker.Worker(config, config.syncs[sync.name], Goal())


@contextmanager
def running(sync: Sync) -> Iterator[worker.Worker]:
    """A worker in this process, where its patience can be changed."""
    one = made(sync)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(one.run()))
    thread.start()
    try:
        yield one
    finally:
        one.stop()
        thread.join(20)
    assert codes == [0]


def test_a_worker_on_another_machine_is_refused(
    source_db: Database,
    target: Target,
    make_sync: MakeSync,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Scenario 16: the lock on the target holds where no directory is shared, and tells who has it."""
    source_db.execute(SCHEMA)
    sync = make_sync(source_db, target, TABLES)
    first = sync.start().pid
    sync.wait_copied()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(elsewhere))
        patch.setattr(worker, "LOCK_PATIENCE", 0.2)
        assert made(sync).run() == 1
    assert f"sync s1 is already run by pid {first} on " in capsys.readouterr().err
    sync.catch_up()


def test_the_lock_of_a_process_that_is_gone_is_waited_for(
    source_db: Database,
    target_db: Database,
    make_sync: MakeSync,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A target may need minutes to roll back what a killed worker, or a connection of ours that broke, has
    left, and holds its lock meanwhile: no reason to fail for good, however long it takes."""
    monkeypatch.setattr(worker, "LOCK_PATIENCE", 0.1)
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.1)
    source_db.execute(SCHEMA)
    target = PostgresTarget(target_db)
    sync = make_sync(source_db, target, TABLES)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getpid()):
        held = applier_for(target.url, None, sync.name)
        held.open(f"pid {pid} on {socket.gethostname()}")
        with running(sync):
            tries = sync_locked(sync)
            wait_until(lambda: next(tries) > 3, message="it was tried more than once")  # noqa: B023
            held.close()
            wait_until(lambda: told(sync).state == "streaming", message="it goes on")


def sync_locked(sync: Sync) -> Iterator[int]:
    """How often the worker has told a new time that the sync is locked."""
    seen = set[float]()
    while True:
        live = told(sync)
        if live.state == "retrying" and "is already run by pid" in (live.error or ""):
            seen.add(live.updated_at)
        yield len(seen)


def test_the_source_is_answered_while_the_target_hangs(
    source_db: Database,
    target_db: Database,
    make_sync: MakeSync,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server ends a walsender that it has not heard of for wal_sender_timeout. A target that takes
    longer than that for a batch does not cost the connection."""
    monkeypatch.setattr(connection, "WAL_SENDER_TIMEOUT", 2.5)
    monkeypatch.setattr(stream, "STATUS_EVERY", 0.2)
    source_db.execute(SCHEMA)
    with Proxy(target_db.server.port) as proxy:
        sync = make_sync(source_db, PostgresTarget(target_db, proxy.url(target_db.url)), TABLES)
        with running(sync):
            walsender = (
                "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'cdc_s1' AND active"
            )
            # The slot is active in the connection that makes it, too: only a sync that streams has the
            # one that is meant.
            wait_until(lambda: told(sync).state == "streaming", message="it streams")
            pid = wait_until(lambda: source_db.rows(walsender))
            with proxy.stalled():
                source_db.execute(
                    "INSERT INTO events SELECT g, repeat('x', 1000) FROM generate_series(1, 60000) g"
                )
                source_db.execute("SELECT pg_sleep(5)")
            wait_until(
                lambda: target_db.rows("SELECT 1 FROM events WHERE id = 60000"), 60, "it arrives"
            )
            assert source_db.rows(walsender) == pid
