"""Signals as something to wait for, so that nothing is done inside of a signal handler."""

from __future__ import annotations

import select
import signal
import socket
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Signals:
    """Collects SIGTERM, SIGINT, SIGHUP and SIGCHLD while entered. For the main thread."""

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # Only a signal with a handler of Python's is written to the wake-up descriptor.
        self._before = {s: signal.signal(s, _noted) for s in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reader.close()
        self._writer.close()

    def wait(self, timeout: float) -> list[int]:
        """The signals that came, in order; waits at most so long for one."""
        select.select([self._reader], [], [], timeout)
        try:
            return list(self._reader.recv(4096))
        except BlockingIOError:
            return []


def _noted(signum: int, frame: FrameType | None) -> None:
    """Does nothing: `Signals.wait` has it."""
