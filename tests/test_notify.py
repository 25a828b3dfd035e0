"""The sd_notify protocol, against a real datagram socket."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from cdc.notify import Notify
from tests.daemons import Manager


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_one_datagram_for_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    """Assignments arrive as they are, whatever kind of address the manager has."""
    address = f"@cdc-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    manager = Manager(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    Notify().send("READY=1", "STATUS=2 streaming")
    assert manager.heard() == ["READY=1", "STATUS=2 streaming"]
    manager.close()


def test_a_reload_tells_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MONOTONIC_USEC is on the clock that systemd compares with."""
    manager = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    Notify().reloading()
    [reloading, at] = manager.heard()
    assert reloading == "RELOADING=1"
    assert re.fullmatch(r"MONOTONIC_USEC=\d+", at)
    assert abs(int(at.partition("=")[2]) / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 10
    manager.close()


def test_nothing_is_sent_without_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cdc run` in a terminal."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notify().send("READY=1")


def test_a_manager_that_is_gone_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The syncs matter more."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    Notify().send("READY=1")


def test_children_do_not_inherit_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the daemon speaks for the service."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert Notify().watchdog == 60.0
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()


def test_another_process_watchdog_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """WATCHDOG_PID names whom it is for."""
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert Notify().watchdog is None
