"""What the service manager is told: ready, one line of status, and that things still move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cdc.notify import Notify
from cdc.runtime import State
from cdc.supervised import Supervised

STATUS_EVERY = 5.0
"""Seconds between two lines of status when only numbers have changed."""

_AT_REST = frozenset({"streaming", "paused", "failed"})


class Health:
    """Turns the workers' states into sd_notify messages. Told twice a second; sends on change.

    READY=1 comes when every sync follows the head of its source's log, or will not until somebody
    does something (paused, failed); not when all have failed. WATCHDOG=1 comes only while every
    worker moves or is on its way to being started again.
    """

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._ready = False
        self._reloading = False
        self._states: Mapping[str, State] = {}
        self._told = 0.0
        self._status = ""
        self._fed = float("-inf")

    @property
    def patience(self) -> float | None:
        """Seconds without WATCHDOG=1 after which the service manager kills us all."""
        return self._notify.watchdog

    def reloading(self) -> None:
        """A reload begins; before the service was ready, that is part of starting."""
        if self._ready:
            self._reloading = True
            self._notify.reloading()

    def stopping(self) -> None:
        self._notify.send("STOPPING=1", "STATUS=stopping")

    def tell(self, workers: Sequence[Supervised], now: float, *, settled: bool) -> None:
        """`settled`: what the last reload asked for is in force."""
        if self._reloading and settled:
            self._reloading = False
            self._notify.send("READY=1")
        states = {w.sync: w.state for w in workers}
        all_failed = all(s == "failed" for s in states.values())
        if not self._ready and not all_failed and _AT_REST.issuperset(states.values()):
            self._ready = True
            self._notify.send("READY=1")
        if states != self._states or now - self._told >= STATUS_EVERY:
            self._states, self._told = states, now
            line = status_line(workers)
            if line != self._status:
                self._status = line
                self._notify.send(f"STATUS={line}")
        watchdog = self._notify.watchdog
        due = watchdog is not None and now - self._fed >= watchdog / 4
        if due and all(w.progressing(now) for w in workers):
            self._fed = now
            self._notify.send("WATCHDOG=1")


def status_line(workers: Sequence[Supervised]) -> str:
    """`2 streaming, 1 snapshot: finance 45 % (2 of 3 tables)`."""
    counts = Counter(w.state for w in workers)
    copying = []
    for worker in workers:
        done = worker.live.snapshot
        if worker.state == "snapshot":
            share = (
                f"{min(100 * done.rows // done.rows_estimated, 100)} % "
                if done.rows_estimated
                else ""
            )
            copying.append(f"{worker.sync} {share}({done.tables_done} of {done.tables} tables)")
    line = ", ".join(f"{n} {state}" for state, n in counts.items())
    return f"{line}: {', '.join(copying)}" if copying else line
