"""What a running sync tells on this machine, and who holds it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliers.checkpoint import Copy, TableState
from appliers.errors import LockedError, PermanentError
from cdc import runtime as runtime_module
from cdc.runtime import Live, Runtime, SnapshotProgress, directories, holder

_HOLD = """
import sys, time
from pathlib import Path
from cdc.runtime import Live, Runtime
runtime = Runtime(Path(sys.argv[1]), "finance")
runtime.lock("the other one", sys.argv[2])
runtime.publish(Live("finance", "streaming", beat=7))
print("held", flush=True)
time.sleep(60)
"""

_READ = """
import sys
from pathlib import Path
from cdc.runtime import Runtime
while True:
    Runtime(Path(sys.argv[1]), "finance").read()
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "cdc.toml"


@pytest.fixture
def runtime(config: Path) -> Iterator[Runtime]:
    made = Runtime(config, "finance")
    yield made
    made.unlock()


def other_process(config: Path, role: str = "worker") -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _HOLD, str(config), role], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.stdout.close()
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_what_is_published_is_read_as_it_was(runtime: Runtime, config: Path) -> None:
    """Every field comes through, and the times are set."""
    runtime.lock("us")
    live = Live("finance", "snapshot", pid=42, position="0/1A", lag_bytes=12, lag_seconds=0.5)
    live.snapshot = SnapshotProgress("copying", 1, 3, 100, 500)
    live.beat = 1
    runtime.publish(live)
    read = Runtime(config, "finance").read()
    assert read == live
    assert abs(live.updated_at - time.time()) < 5
    assert live.beat_at == live.updated_at


def test_the_beats_time_stands_with_the_beat(runtime: Runtime) -> None:
    """So that a reader sees for how long a worker has not moved."""
    runtime.lock("us")
    live = Live("finance", beat=1)
    runtime.publish(live)
    first = live.beat_at
    time.sleep(0.01)
    runtime.publish(live)
    assert live.beat_at == first < live.updated_at


def test_nothing_is_read_of_a_sync_that_nobody_runs(config: Path) -> None:
    """What a killed worker told last is not the present."""
    process = other_process(config)
    live = Runtime(config, "finance").read()
    assert live is not None
    assert live.beat == 7
    end(process)
    assert Runtime(config, "finance").read() is None


def test_a_held_sync_names_its_holder(runtime: Runtime, config: Path) -> None:
    """The second one waits a little, then says who has it."""
    process = other_process(config)
    with pytest.raises(LockedError) as raised:
        runtime.lock("us")
    assert str(raised.value) == "sync finance is already run by the other one"
    assert "cdc status" in raised.value.hint
    end(process)


def test_a_holder_that_is_just_dying_is_waited_for(runtime: Runtime, config: Path) -> None:
    """A restart right after a kill is not refused."""
    process = other_process(config)
    killer = threading.Timer(0.5, process.kill)
    killer.start()
    runtime.lock("us")
    killer.join()
    process.wait()


def test_readers_do_not_keep_a_sync_from_being_locked(runtime: Runtime, config: Path) -> None:
    """`cdc status --watch` asks all the time."""
    reader = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-c",
            _READ,
            str(config),
        ]
    )
    for _ in range(50):
        runtime.lock("us")
        runtime.unlock()
    end(reader)


def test_a_worker_and_its_daemon_hold_side_by_side(runtime: Runtime, config: Path) -> None:
    """The daemon's hold bridges the time between two workers; what was told stays readable."""
    worker = other_process(config, "worker")
    runtime.lock("us", "daemon")
    end(worker)
    runtime.publish(Live("finance", "retrying"))
    live = Runtime(config, "finance").read()
    assert live is not None
    assert live.state == "retrying"
    following = other_process(config, "worker")
    end(following)
    with pytest.raises(LockedError, match="already run by us"):
        Runtime(config, "finance").lock("another daemon", "daemon")


def test_what_an_earlier_daemon_told_is_forgotten(runtime: Runtime, config: Path) -> None:
    """A daemon that has just started shows nothing old."""
    end(other_process(config))
    runtime.lock("us", "daemon")
    assert Runtime(config, "finance").read() is None


def test_each_sync_of_each_configuration_is_its_own(config: Path, tmp_path: Path) -> None:
    """The same name in another file is another sync; the same file by another path is the same."""
    first = Runtime(config, "finance")
    others = [Runtime(config, "oa"), Runtime(tmp_path / "other.toml", "finance")]
    for each in (first, *others):
        each.lock("us")
    first.publish(Live("finance", "streaming"))
    link = tmp_path / "link.toml"
    config.touch()
    link.symlink_to(config)
    assert Runtime(link, "finance").read() is not None
    assert others[1].read() is None
    for each in (first, *others):
        each.unlock()


def test_a_sync_that_runs_elsewhere_on_the_machine_is_found(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon under systemd and a command from a terminal have different first directories."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "user"))
    (tmp_path / "user").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "user" / "cdc"))
    process = other_process(config)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    live = Runtime(config, "finance").read()
    assert live is not None
    with pytest.raises(LockedError, match="the other one"):
        Runtime(config, "finance").lock("us")
    end(process)


def test_somebody_elses_temporary_directory_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may make a directory in /tmp."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"cdc-{os.getuid()}"
    assert own in list(directories())
    (tmp_path / "elsewhere").mkdir()
    own.symlink_to(tmp_path / "elsewhere")
    assert own not in list(directories())


def test_no_directory_at_all_is_named(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what to set."""
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr(runtime_module, "directories", lambda: iter([blocked / "cdc"]))
    with pytest.raises(PermanentError) as raised:
        Runtime(config, "finance").lock("us")
    assert str(blocked / "cdc") in str(raised.value)
    assert "RUNTIME_DIRECTORY" in raised.value.hint


def test_files_of_other_versions_are_read(runtime: Runtime, config: Path) -> None:
    """`cdc status` of another release, before the daemon was restarted: unknown keys are left out, a
    torn or foreign file reads as nothing."""
    runtime.lock("us")
    runtime.publish(Live("finance", "streaming", beat=3))
    [path] = (config.parent / "run").glob("*.json")
    path.write_text(path.read_text()[:-1] + ', "later": 1}')
    live = runtime.read()
    assert live is not None
    assert live.beat == 3
    for damaged in ("", "{", "[]", "{}"):
        path.write_text(damaged)
        assert runtime.read() is None


def test_snapshot_progress_is_that_of_the_slowest_table() -> None:
    """`done` only when every table is; copied rows beyond an estimate do not make more than all, and a table
    that is through is what was copied of it, whatever was estimated."""
    tables = [TableState("a", Copy.DONE, 120, 100), TableState("b", Copy.PENDING, 0, 50)]
    assert SnapshotProgress.of(tables) == SnapshotProgress("copying", 1, 2, 120, 170)
    tables[1] = TableState("b", Copy.REDO, 50, 50)
    assert SnapshotProgress.of(tables) == SnapshotProgress("redo", 1, 2, 170, 170)
    tables[1] = TableState("b", Copy.DONE, 60, 50)
    assert SnapshotProgress.of(tables) == SnapshotProgress("done", 2, 2, 180, 180)
    tables[1] = TableState("b", Copy.REDO, 40, 50)
    assert SnapshotProgress.of(tables) == SnapshotProgress("redo", 1, 2, 160, 160)
    assert SnapshotProgress.of([]) == SnapshotProgress("pending", 0, 0, 0, 0)


def test_every_user_may_read_what_is_told(runtime: Runtime, config: Path) -> None:
    """Also with the service's umask of 077; the directory decides who gets there."""
    before = os.umask(0o077)
    try:
        runtime.lock("us")
        runtime.publish(Live("finance"))
    finally:
        os.umask(before)
    directory = config.parent / "run"
    assert directory.stat().st_mode & 0o777 == 0o755
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert len(modes) == 2
    assert set(modes.values()) == {0o644}


def test_a_holder_is_named_by_process_and_machine() -> None:
    """Enough to find it."""
    assert holder("cdc run").startswith(f"cdc run, process {os.getpid()} on ")
