"""Telling systemd how the service is: the protocol of sd_notify(3), which is one datagram.

Our own lines instead of a package: the one on PyPI has had no release since 2017.
"""

from __future__ import annotations

import os
import socket
import time


class Notify:
    """The service manager's socket. Without one (`cdc run` in a terminal) nothing is sent."""

    def __init__(self) -> None:
        # Taken out of the environment: workers must not speak for the service.
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog = _watchdog_seconds()
        """The service manager gives us up when it has heard WATCHDOG=1 for so long; None: never."""

    def send(self, *assignments: str) -> None:
        """Sends `READY=1`, `STATUS=…` and the like. Never raises: a service must not fall because
        its manager does not listen."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                # A manager that is being restarted leaves its queue full; that must not hold us up.
                sock.settimeout(1.0)
                sock.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            pass

    def reloading(self) -> None:
        """READY=1 must follow. The time lets the manager tell this reload's READY from older ones."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def _watchdog_seconds() -> float | None:
    usec = os.environ.pop("WATCHDOG_USEC", "")
    pid = os.environ.pop("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000
