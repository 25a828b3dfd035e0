"""What a worker tells of itself: kept by its loops, published twice a second by a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Final

from appliers.batch import Applied
from appliers.checkpoint import Checkpoint, Copy, TableState
from cdc.logs import event
from cdc.runtime import Live, Runtime, SnapshotProgress, State
from cdc.sources.source import Position

log = logging.getLogger(__name__)

PUBLISH_EVERY: Final = 0.5
CATCHING_UP: Final = 5.0
"""Seconds of lag that make a sync one that is catching up."""

RATE_OVER: Final = 3.0
"""Seconds that the rate is averaged over, about."""

QUIET_TURNS: Final = 4
"""Turns of a session's loop without work, about a second, by which it has shown that it works."""


class Tracker:
    """The worker's state for people and for the daemon. Its loops call in; nothing here blocks them.

    An idle source has no lag: lag is told only while a committed change waits, and is the time since
    the oldest such change was committed."""

    def __init__(self, runtime: Runtime, sync: str) -> None:
        self._runtime = runtime
        self._live = Live(sync, pid=os.getpid(), daemon_pid=os.getppid())
        self._tables: Mapping[str, TableState] = {}
        self._pending_since: int | None = None
        self._lost_at: float | None = None
        self._beat = 0
        self._waits = 0
        self._changes = 0
        self._committed = 0
        self._rested_at = 0.0
        self._failing = False
        self._found = (0, 0)
        self._quiet = 0
        self._base = 0
        self._rate = 0.0
        self._rated = (time.monotonic(), 0)
        self._streams = False
        self._state: State = "new"
        self._copy_error: tuple[str | None, str | None] = (None, None)
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._publish_on, name="progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join(2)

    @property
    def beats(self) -> int:
        """Turns of the worker's loops so far."""
        return self._beat

    @property
    def done(self) -> tuple[int, int]:
        """Changes that this process has committed on the target, and the rows of copies there. What is
        applied in a transaction that is still open may yet be lost, each time anew."""
        return self._committed, sum(t.rows for t in list(self._tables.values()))

    @property
    def rested_at(self) -> float:
        """When a session last had nothing left to commit (`time.monotonic`)."""
        return self._rested_at

    def begin(self, tables: Mapping[str, TableState], checkpoint: Checkpoint | None) -> None:
        """A session has found its checkpoint."""
        self._tables = tables
        self._changes = self._committed
        self._base = (checkpoint.changes if checkpoint else 0) - self._changes
        self._pending_since = None
        self._lost_at = None
        self._found, self._quiet = self.done, 0
        self._live.position = checkpoint.position if checkpoint else None
        self._streams = True

    def beat(self) -> None:
        """A loop has turned: progress, or a wait that is as it should be."""
        self._beat += 1

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A wait that may be long and is nobody's fault: it counts as healthy while it lasts."""
        begun = time.monotonic()
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            if (took := time.monotonic() - begun) > 5:
                event(log, "waited", what=what, seconds=took)

    def applying(self, oldest: int) -> None:
        """A batch begins whose first transaction was committed at `oldest` (microseconds)."""
        self._pending_since = oldest

    def applied(self, applied: Applied, *, waiting: int | None) -> None:
        """A batch is written; `waiting` is when the oldest change that waits now was committed."""
        self._changes += applied.rows
        self._pending_since = waiting

    def through(self, position: Position) -> None:
        """Everything before `position` is on the target."""
        self._live.position = self._live.source_position = str(position)
        self._committed = self._changes
        self._rested_at = time.monotonic()

    def copy_failed(self, error: str | None, hint: str) -> None:
        """Why a copy waits while the stream goes on; None: it does not any more."""
        self._copy_error = (error, hint or None) if error else (None, None)

    def idle(self) -> None:
        """Nothing waits to be applied."""
        self._pending_since = None
        if self._committed == self._changes:
            self._rested_at = time.monotonic()
            self._quiet += 1

    def retrying(self, error: str, hint: str) -> None:
        """The session has ended, and another one will try the same. It may come as far as this one, and
        no further: until it has shown that it works, this error is what is told."""
        # Before the state, which may be published at any moment: it is never told without its reason.
        self._live.error, self._live.hint = error, hint or None
        self._failing = True
        self._end_session("retrying")

    def paused(self) -> None:
        self._end_session("paused")
        self._failing = False
        self._live.error = self._live.hint = None

    def ended(
        self,
        state: State,
        error: str | None = None,
        hint: str | None = None,
        *,
        untold: bool = False,
    ) -> None:
        """The last thing that is told; `untold`: an error that the target does not keep."""
        self._end_session(state)
        self._live.untold = untold
        self._live.error, self._live.hint = error, hint or None
        self.publish()

    def _end_session(self, state: State) -> None:
        if self._streams:
            self._lost_at = time.time()
        self._streams = False
        self._state = state

    def publish(self) -> None:
        """Writes what is known now. A full disk must not stop a sync."""
        with self._lock:
            live = self._live
            if self._waits or not self._streams:
                self._beat += 1
            if self._streams:
                self._failing = self._failing and not self._works()
                if not self._failing:
                    live.error, live.hint = self._copy_error
            live.beat = self._beat
            live.lag_seconds = self._lag()
            live.state = self._current_state(live.lag_seconds)
            live.changes_applied = self._base + self._changes
            live.changes_per_second = round(self._measure_rate(), 1)
            live.snapshot = SnapshotProgress.of(list(self._tables.values()))
            try:
                self._runtime.publish(live)
            except OSError as e:
                event(log, "not-published", logging.WARNING, error=e.strerror)

    def _works(self) -> bool:
        """Whether the session has got something done, or has nothing to do, or waits as it should."""
        return self.done != self._found or self._quiet >= QUIET_TURNS or self._waits > 0

    def _current_state(self, lag: float | None) -> State:
        if not self._streams:
            return self._state
        if self._failing:
            return "retrying"
        copies = {t.copy for t in list(self._tables.values())}
        if copies & {Copy.PENDING, Copy.COPYING}:
            return "snapshot"
        if Copy.REDO in copies or (lag or 0.0) > CATCHING_UP:
            return "catching-up"
        return "streaming"

    def _lag(self) -> float | None:
        if not self._streams:
            return None if self._lost_at is None else round(time.time() - self._lost_at, 3)
        since = self._pending_since
        return 0.0 if since is None else round(max(0.0, time.time() - since / 1e6), 3)

    def _measure_rate(self) -> float:
        now, changes = time.monotonic(), self._changes
        then, before = self._rated
        if now > then:
            weight = min(1.0, (now - then) / RATE_OVER)
            self._rate += weight * ((changes - before) / (now - then) - self._rate)
            self._rated = (now, changes)
        return self._rate if self._rate >= 0.05 else 0.0

    def _publish_on(self) -> None:
        while not self._end.wait(PUBLISH_EVERY):
            self.publish()
