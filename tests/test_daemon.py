"""The supervisor: what it does with workers, signals and the service manager."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from cdc.runtime import Runtime
from tests.daemons import Manager, StartDaemon, Syncs, gone, manager, start_daemon, syncs
from tests.databases import wait_until

__all__ = ["manager", "start_daemon", "syncs"]


def test_a_worker_that_dies_is_started_again(start_daemon: StartDaemon, syncs: Syncs) -> None:
    """A crash is told as `retrying` while nobody runs the sync, and mended without anybody's help."""
    syncs.write(finance="customers")
    syncs.do("finance", "streaming")
    daemon = start_daemon(config=syncs.path, first_delay=1.0)
    syncs.wait_for("finance", "streaming")
    killed = syncs.pid("finance")
    os.kill(killed, signal.SIGKILL)
    live = syncs.wait_for("finance", "retrying")
    assert live.error == "the worker died of SIGKILL"
    assert live.pid is None
    assert live.daemon_pid == daemon.pid
    assert syncs.wait_for("finance", "streaming").pid != killed
    assert daemon.stop() == 0


def test_crashes_come_ever_slower(start_daemon: StartDaemon, syncs: Syncs) -> None:
    """A worker that dies at once is tried again with growing pauses, and not given up."""
    syncs.write(finance="customers")
    syncs.do("finance", "crash")
    daemon = start_daemon(config=syncs.path, first_delay=0.2, longest_delay=60.0)
    wait_until(lambda: len(syncs.starts("finance")) >= 4)
    pauses = [
        float(word.removeprefix("restart_in="))
        for word in daemon.said().split()
        if word.startswith("restart_in=")
    ]
    assert 0.1 <= pauses[0] <= 0.2
    assert 0.4 <= pauses[2] <= 0.8
    syncs.do("finance", "streaming")
    syncs.wait_for("finance", "streaming")
    assert daemon.stop() == 0


def test_a_worker_that_stalls_is_killed_and_started_again(
    start_daemon: StartDaemon, syncs: Syncs
) -> None:
    """A beat that stands for the stall limit ends the worker, with its stacks in the log."""
    syncs.write(finance="customers", oa="customers")
    syncs.do("finance", "streaming")
    syncs.do("oa", "streaming")
    daemon = start_daemon(config=syncs.path, stall=4.0)
    stalled = syncs.wait_for("finance", "streaming").pid
    other = syncs.wait_for("oa", "streaming").pid
    syncs.do("finance", "stall")
    syncs.wait_for("finance", "retrying")
    syncs.do("finance", "streaming")
    assert syncs.wait_for("finance", "streaming").pid != stalled
    assert "worker-stalled" in daemon.said()
    assert "Fatal Python error: Aborted" in daemon.said()
    live = syncs.live("oa")
    assert live is not None
    assert live.pid == other
    assert daemon.stop() == 0


def test_one_failed_sync_does_not_stop_the_others(start_daemon: StartDaemon, syncs: Syncs) -> None:
    """The daemon stays while others run; the failed one keeps its reason in sight."""
    syncs.write(finance="customers", oa="customers")
    syncs.do("finance", "fail")
    syncs.do("oa", "streaming")
    daemon = start_daemon(config=syncs.path)
    live = syncs.wait_for("finance", "failed")
    assert live.error == "the target has no table public.customers"
    syncs.wait_for("oa", "streaming")
    wait_until(lambda: "sync-failed" in daemon.said())
    time.sleep(0.5)
    assert daemon.process.poll() is None
    assert len(syncs.starts("finance")) == 1
    syncs.do("oa", "fail")
    assert daemon.wait() == 1


@pytest.mark.parametrize(
    ("finance", "oa", "code"), [("done", "done", 0), ("done", "fail", 1), ("fail", "fail", 1)]
)
def test_the_exit_code_says_whether_all_are_done(
    start_daemon: StartDaemon, syncs: Syncs, finance: str, oa: str, code: int
) -> None:
    """`--until-current`: 0 only if every sync got there."""
    syncs.write(finance="customers", oa="customers")
    syncs.do("finance", finance)
    syncs.do("oa", oa)
    daemon = start_daemon(config=syncs.path, flags=["--until-current"])
    assert daemon.wait() == code
    assert syncs.starts("finance")[0].endswith(" --until-current")


def test_a_worker_that_ends_unasked_is_started_again(
    start_daemon: StartDaemon, syncs: Syncs
) -> None:
    """Somebody's SIGTERM to one worker does not end a sync."""
    syncs.write(finance="customers")
    syncs.do("finance", "streaming")
    daemon = start_daemon(config=syncs.path)
    first = syncs.wait_for("finance", "streaming").pid
    assert first is not None
    os.kill(first, signal.SIGTERM)
    wait_until(lambda: len(syncs.starts("finance")) == 2)
    syncs.wait_for("finance", "streaming")
    assert daemon.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stops_cleanly(start_daemon: StartDaemon, syncs: Syncs, signum: signal.Signals) -> None:
    """SIGTERM and SIGINT end workers and daemon, exit 0; nobody runs the sync any more."""
    syncs.write(finance="customers", oa="customers")
    syncs.do("finance", "streaming")
    syncs.do("oa", "crash")
    daemon = start_daemon(config=syncs.path, longest_delay=60.0, first_delay=60.0)
    worker = syncs.wait_for("finance", "streaming").pid
    syncs.wait_for("oa", "retrying")
    assert worker is not None
    daemon.signal(signum)
    assert daemon.wait(timeout=5) == 0
    assert gone(worker)()
    assert syncs.live("finance") is None


def test_stops_within_ten_seconds_even_if_a_worker_does_not(
    start_daemon: StartDaemon, syncs: Syncs
) -> None:
    """A worker that does not hear SIGTERM is killed after 8 seconds."""
    syncs.write(finance="customers")
    syncs.do("finance", "deaf")
    daemon = start_daemon(config=syncs.path)
    worker = syncs.wait_for("finance", "streaming").pid
    assert worker is not None
    time.sleep(0.3)
    begun = time.monotonic()
    assert daemon.stop() == 0
    assert 7.5 < time.monotonic() - begun < 10
    assert gone(worker)()


def test_a_second_signal_does_not_wait(start_daemon: StartDaemon, syncs: Syncs) -> None:
    """Whoever presses Ctrl-C twice means it."""
    syncs.write(finance="customers")
    syncs.do("finance", "deaf")
    daemon = start_daemon(config=syncs.path)
    syncs.wait_for("finance", "streaming")
    time.sleep(0.3)
    daemon.signal(signal.SIGINT)
    wait_until(lambda: "daemon-stopping" in daemon.said())
    daemon.signal(signal.SIGINT)
    assert daemon.wait(timeout=3) == 0


def test_cut_short_is_not_done(start_daemon: StartDaemon, syncs: Syncs) -> None:
    """`--until-current` that is stopped before it is current does not exit 0."""
    syncs.write(finance="customers")
    syncs.do("finance", "snapshot")
    daemon = start_daemon(config=syncs.path, flags=["--until-current"])
    syncs.wait_for("finance", "snapshot")
    assert daemon.stop() == 1


def test_no_worker_outlives_a_killed_daemon(start_daemon: StartDaemon, syncs: Syncs) -> None:
    """SIGKILL on the daemon: its workers end, and the next daemon takes over at once."""
    syncs.write(finance="customers")
    syncs.do("finance", "streaming")
    daemon = start_daemon(config=syncs.path)
    worker = syncs.wait_for("finance", "streaming").pid
    assert worker is not None
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    wait_until(gone(worker), timeout=5, message="the worker is gone")
    following = start_daemon(config=syncs.path)
    wait_until(lambda: syncs.wait_for("finance", "streaming").daemon_pid == following.pid)
    assert following.stop() == 0


def test_a_second_daemon_names_the_first(start_daemon: StartDaemon, syncs: Syncs) -> None:
    """It starts nothing, not even the syncs that are free, and disturbs nothing."""
    syncs.write(finance="customers", oa="customers")
    syncs.do("finance", "streaming")
    syncs.do("oa", "streaming")
    first = start_daemon("finance", config=syncs.path)
    worker = syncs.wait_for("finance", "streaming").pid
    second = start_daemon(config=syncs.path)
    assert second.wait() == 1
    assert (
        f"Error: sync finance is already run by cdc run, process {first.pid} on " in second.said()
    )
    assert syncs.starts("oa") == []
    assert syncs.wait_for("finance", "streaming").pid == worker
    third = start_daemon("oa", config=syncs.path)
    syncs.wait_for("oa", "streaming")
    assert (third.stop(), first.stop()) == (0, 0)


def test_a_reload_starts_what_changed(
    start_daemon: StartDaemon, syncs: Syncs, manager: Manager
) -> None:
    """SIGHUP: changed syncs again, new ones too, removed ones no more, the others untouched."""
    syncs.write(same="customers", changed="customers", removed="customers")
    for name in ("same", "changed", "removed", "new"):
        syncs.do(name, "streaming")
    daemon = start_daemon(config=syncs.path, manager=manager)
    before = {n: syncs.wait_for(n, "streaming").pid for n in ("same", "changed", "removed")}
    manager.wait_for("READY=1")
    syncs.write(same="customers", changed="contacts", new="customers")
    daemon.signal(signal.SIGHUP)
    heard = manager.wait_for("READY=1", times=2)
    since = heard[heard.index("READY=1") + 1 :]
    reloading = since.index("RELOADING=1")
    assert since[reloading + 1].startswith("MONOTONIC_USEC=")
    assert since.index("READY=1") > reloading
    syncs.wait_for("new", "streaming")
    wait_until(lambda: len(syncs.starts("changed")) == 2)
    assert syncs.wait_for("same", "streaming").pid == before["same"]
    wait_until(lambda: syncs.wait_for("changed", "streaming").pid != before["changed"])
    assert syncs.live("removed") is None
    assert len(daemon.workers()) == 3
    assert daemon.stop() == 0


def test_a_wrong_configuration_changes_nothing(
    start_daemon: StartDaemon, syncs: Syncs, manager: Manager
) -> None:
    """SIGHUP with a mistake in the file: it is logged by its key, and all goes on."""
    syncs.write(finance="customers")
    syncs.do("finance", "streaming")
    daemon = start_daemon(config=syncs.path, manager=manager)
    worker = syncs.wait_for("finance", "streaming").pid
    manager.wait_for("READY=1")
    good = syncs.path.read_text()
    syncs.path.write_text(good + 'colour = "blue"\n')
    daemon.signal(signal.SIGHUP)
    manager.wait_for("READY=1", times=2)
    assert "reload-refused" in daemon.said()
    assert "sync.finance.colour" in daemon.said()
    assert syncs.wait_for("finance", "streaming").pid == worker
    syncs.path.write_text(good)
    daemon.signal(signal.SIGHUP)
    manager.wait_for("READY=1", times=3)
    assert len(syncs.starts("finance")) == 1
    assert daemon.stop() == 0


def test_a_reload_tries_failed_syncs_again(start_daemon: StartDaemon, syncs: Syncs) -> None:
    """Whoever has mended what a sync failed of only has to reload."""
    syncs.write(finance="customers", oa="customers")
    syncs.do("finance", "fail")
    syncs.do("oa", "streaming")
    daemon = start_daemon(config=syncs.path)
    syncs.wait_for("finance", "failed")
    syncs.wait_for("oa", "streaming")
    wait_until(lambda: "sync-failed" in daemon.said())
    syncs.do("finance", "streaming")
    daemon.signal(signal.SIGHUP)
    syncs.wait_for("finance", "streaming")
    assert daemon.stop() == 0


def test_ready_when_every_sync_streams(
    start_daemon: StartDaemon, syncs: Syncs, manager: Manager
) -> None:
    """Not before: a snapshot is shown in the status line; one failed sync does not hold it back."""
    syncs.write(finance="customers", oa="customers", hr="customers")
    syncs.do("finance", "snapshot")
    syncs.do("oa", "fail")
    syncs.do("hr", "paused")
    daemon = start_daemon(config=syncs.path, manager=manager)
    status = "STATUS=1 snapshot, 1 failed, 1 paused: finance (0 of 0 tables)"
    wait_until(lambda: status in manager.heard())
    assert "READY=1" not in manager.heard()
    syncs.do("finance", "streaming")
    heard = manager.wait_for("READY=1")
    assert "STATUS=1 streaming, 1 failed, 1 paused" in heard + manager.wait_for("READY=1")
    assert daemon.stop() == 0
    assert manager.heard().index("STOPPING=1") > manager.heard().index("READY=1")


def test_never_ready_when_all_have_failed(
    start_daemon: StartDaemon, syncs: Syncs, manager: Manager
) -> None:
    """The service fails then, with exit code 1."""
    syncs.write(finance="customers")
    syncs.do("finance", "fail")
    daemon = start_daemon(config=syncs.path, manager=manager)
    assert daemon.wait() == 1
    assert "READY=1" not in manager.heard()


def test_the_watchdog_is_fed_by_progress_alone(
    start_daemon: StartDaemon, syncs: Syncs, manager: Manager
) -> None:
    """WATCHDOG=1 stops while a worker's beat stands, and comes again when it has been replaced."""
    syncs.write(finance="customers")
    syncs.do("finance", "streaming")
    daemon = start_daemon(config=syncs.path, manager=manager, env={"WATCHDOG_USEC": "4000000"})
    manager.wait_for("WATCHDOG=1", times=3)
    syncs.wait_for("finance", "streaming")
    stalled_before = daemon.said().count("worker-stalled")
    syncs.do("finance", "stall")
    wait_until(lambda: manager.silence("WATCHDOG=1") > 1.7, timeout=10)
    assert daemon.said().count("worker-stalled") == stalled_before
    wait_until(lambda: daemon.said().count("worker-stalled") > stalled_before, timeout=10)
    assert manager.silence("WATCHDOG=1") < 4
    syncs.do("finance", "streaming")
    fed = manager.heard().count("WATCHDOG=1")
    manager.wait_for("WATCHDOG=1", times=fed + 3)
    assert daemon.stop() == 0


def test_no_watchdog_unless_asked_for(
    start_daemon: StartDaemon, syncs: Syncs, manager: Manager
) -> None:
    """Workers do not inherit the service manager's socket, and WATCHDOG_PID is obeyed."""
    syncs.write(finance="customers")
    syncs.do("finance", "streaming")
    daemon = start_daemon(
        config=syncs.path,
        manager=manager,
        env={"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"},
    )
    manager.wait_for("READY=1")
    time.sleep(0.5)
    assert "WATCHDOG=1" not in manager.heard()
    [worker] = daemon.workers()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & worker.environ().keys()
    assert daemon.stop() == 0


def test_the_supervisor_stays_small(start_daemon: StartDaemon, syncs: Syncs) -> None:
    """No database, no SQL parser, no terminal library in its memory; it hardly uses the processor."""
    syncs.write(finance="customers")
    syncs.do("finance", "streaming")
    daemon = start_daemon(config=syncs.path, look=0.5)
    syncs.wait_for("finance", "streaming")
    process = psutil.Process(daemon.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(2)
    assert sum(process.cpu_times()[:2]) - before <= 0.1
    assert process.memory_info().rss < 60 << 20
    mapped = {m.path for m in process.memory_maps()}
    assert not [m for m in mapped if "psycopg" in m or "libpq" in m]
    assert daemon.stop() == 0


def test_an_unknown_sync_is_named(start_daemon: StartDaemon, syncs: Syncs) -> None:
    """Nothing is started then."""
    syncs.write(finance="customers")
    daemon = start_daemon("finanse", config=syncs.path)
    assert daemon.wait() == 1
    assert 'expected a sync (finance), found "finanse"' in daemon.said()
    assert Runtime(syncs.path, "finance").read() is None
