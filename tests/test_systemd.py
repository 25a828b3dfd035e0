"""The unit file: systemd's own tools judge it. No service is started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

UNIT: Final = Path(__file__).parent.parent / "systemd" / "cdc.service"
ANALYZE: Final = shutil.which("systemd-analyze")
judged = pytest.mark.skipif(
    ANALYZE is None and "CI" not in os.environ,
    reason="systemd-analyze is not on this machine: THE UNIT IS NOT TESTED (apt-get install systemd)",
)
"""In CI its absence fails: `.ci/run` brings it."""

_REFUSES_WRITE_AND_EXECUTE: Final = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, from Linux 6.3
    sys.exit(77)
os.execv(sys.executable, [sys.executable, "-P", "-c", sys.argv[1]])
"""
_ALL_WE_LOAD: Final = """
import ctypes, mmap, signal, sqlite3, ssl
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)
except OSError:
    pass
else:
    raise SystemExit("not refused")
import cdc.daemon, cdc.worker, cdc.sources.postgres, appliers.sqlite, sqlglot
from psycopg import pq
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
assert pq.__impl__ == "binary"
"""


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run(
        [ANALYZE, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def settings() -> dict[str, str]:
    lines = UNIT.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@judged
def test_verify_is_clean(tmp_path: Path) -> None:
    """No unknown setting, no contradiction, with an executable where the command will be."""
    unit = tmp_path / "cdc.service"
    unit.write_text(UNIT.read_text().replace("/opt/cdc/bin/cdc ", f"{sys.executable} "))
    found = analyze("verify", "--man=no", str(unit))
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


@judged
def test_the_sandbox_is_tight() -> None:
    """An exposure of at most 1.5, by systemd's own count."""
    found = analyze("security", "--offline=yes", "--no-pager", str(UNIT))
    level = re.search(r"Overall exposure level for cdc.service: ([\d.]+)", found.stdout)
    assert level is not None, found.stdout + found.stderr
    assert float(level[1]) <= 1.5


def test_nothing_needs_memory_that_is_written_and_executed() -> None:
    """MemoryDenyWriteExecute: every library of ours loads under the kernel's own form of it."""
    if sys.platform != "linux":
        pytest.skip("PR_SET_MDWE is Linux's")
    command = [sys.executable, "-P", "-c", _REFUSES_WRITE_AND_EXECUTE, _ALL_WE_LOAD]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_says_what_the_daemon_does() -> None:
    """The numbers on both sides fit: 8 seconds for workers, exit code 2 for configuration."""
    found = settings()
    assert found["Type"] == "notify"
    assert found["NotifyAccess"] == "main"
    assert found["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(found["TimeoutStopSec"]) > 10
    assert found["TimeoutStartSec"] == "infinity"
    assert found["RestartPreventExitStatus"] == "2"
    assert found["RuntimeDirectory"] == found["StateDirectory"] == "cdc"
