"""One sync's worker as the daemon sees it: started, watched, started again, stopped."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cdc.logs import describe, event
from cdc.runtime import Live, Runtime, State

log = logging.getLogger(__name__)

STOP_GRACE = 8.0
"""Seconds between SIGTERM and SIGKILL. The whole service has to be gone within 10."""
ABORT_GRACE = 2.0
"""Seconds between SIGABRT, at which a stalled worker writes its stacks to the log, and SIGKILL."""


class Outcome(StrEnum):
    """How a worker ended that is not started again."""

    DONE = "done"
    FAILED = "failed"
    """For good: the worker itself said so."""
    STOPPED = "stopped"
    """We asked for it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the daemon is. Tests are less so. All in seconds."""

    look: float = 0.5
    stall: float = 60.0
    """A worker whose beat stands for so long is killed and started again."""
    first_delay: float = 0.5
    longest_delay: float = 60.0
    settled: float = 60.0
    """A worker that lived so long is no longer taken for one in a crash loop."""


class Supervised:
    """One worker process after the other, for one sync.

    `look` is called twice a second and whenever a child has ended; nothing here waits. A worker
    that exits 1 with state `failed` told through `Live` has failed for good; everything else that
    was not asked for is a crash (Python itself exits 1 for an exception nobody caught): it is
    started again, each time later, unless it got something done in between.
    """

    def __init__(self, runtime: Runtime, command: Sequence[str], pace: Pace, *, ends: bool) -> None:
        self.sync = runtime.sync
        self.outcome: Outcome | None = None
        self.live = Live(self.sync)
        self._runtime = runtime
        self._command = command
        self._pace = pace
        self._ends = ends
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0
        self._started = 0.0
        self._reached: tuple[object, ...] | None = None
        self._beat: int | None = None
        self._moved = 0.0
        self._deadline: float | None = None
        self._stopping = False
        self._crashes = 0

    @property
    def state(self) -> State:
        if self.outcome is Outcome.FAILED:
            return "failed"
        if self.outcome is not None:
            return "stopped"
        return self.live.state

    def look(self, now: float) -> None:
        if self.outcome is not None:
            return
        if self._process is None:
            if now >= self._start_at:
                self._start(now)
            return
        code = self._process.poll()
        self._read(now)
        if code is not None:
            self._exited(code, now)
        elif self._deadline is not None:
            if now >= self._deadline:
                self.kill()
        elif now - self._moved > self._pace.stall:
            event(
                log,
                "worker-stalled",
                logging.ERROR,
                sync=self.sync,
                pid=self._process.pid,
                seconds=now - self._moved,
            )
            self._process.send_signal(signal.SIGABRT)
            self._deadline = now + ABORT_GRACE

    def progressing(self, now: float) -> bool:
        """Whether the worker moves, or is on its way to being started again. Half the stall limit:
        a worker that stands is killed by us before the service manager would kill everybody."""
        if self.outcome is not None:
            return True
        if self._process is None:
            return now <= self._start_at + self._pace.look * 4
        return now - self._moved <= self._pace.stall / 2

    def stop(self, now: float) -> None:
        """Asks the worker to end; `outcome` is STOPPED when it has."""
        if self.outcome is not None or self._stopping:
            return
        self._stopping = True
        if self._process is None:
            self.outcome = Outcome.STOPPED
            return
        self._process.terminate()
        self._deadline = now + STOP_GRACE

    def kill(self) -> None:
        if self._process is not None:
            event(log, "worker-killed", logging.WARNING, sync=self.sync, pid=self._process.pid)
            self._process.kill()

    def _start(self, now: float) -> None:
        try:
            self._process = subprocess.Popen(
                self._command,
                # The worker ends when this pipe does: it must not outlive us, however we die.
                stdin=subprocess.PIPE,
                # What a library prints must not get into a pipeline of `cdc`.
                stdout=2,
                # At SIGABRT and SIGSEGV Python then writes where each thread was: frames, no values.
                env=os.environ | {"PYTHONFAULTHANDLER": "1"},
                # The terminal's Ctrl-C is for us alone; we pass it on as SIGTERM.
                process_group=0,
            )
        except OSError as e:
            self._crashed(f"could not be started: {describe(e)}", now)
            return
        self._started = self._moved = now
        self._beat = None
        event(log, "worker-started", sync=self.sync, pid=self._process.pid)

    def _read(self, now: float) -> None:
        live = self._runtime.peek()
        if live is None or self._process is None or live.pid != self._process.pid:
            return
        self.live = live
        if live.beat != self._beat:
            self._beat, self._moved = live.beat, now

    def _exited(self, code: int, now: float) -> None:
        process, self._process = self._process, None
        assert process is not None
        if process.stdin is not None:
            process.stdin.close()
        told = self.live.pid == process.pid
        if self._stopping:
            self.outcome = Outcome.STOPPED
            event(log, "worker-stopped", sync=self.sync, pid=process.pid, code=code)
        elif code == 0 and self._ends:
            self.outcome = Outcome.DONE
            event(log, "worker-done", sync=self.sync, pid=process.pid)
        elif code == 1 and told and self.live.state == "failed":
            self.outcome = Outcome.FAILED
            event(
                log,
                "sync-failed",
                logging.ERROR,
                sync=self.sync,
                error=self.live.error,
                hint=self.live.hint,
            )
        else:
            how = f"died of {_signal(-code)}" if code < 0 else f"ended with exit code {code}"
            self._crashed(how, now)

    def _crashed(self, how: str, now: float) -> None:
        live = self.live
        reached = live.position, live.changes_applied, live.snapshot.rows, live.snapshot.tables_done
        # Compared with where the worker before it died: each begins by reading back what is done.
        got_on = live.position is not None and reached != self._reached
        if got_on:
            self._reached = reached
        if got_on or now - self._started >= self._pace.settled:
            self._crashes = 0
        self._crashes += 1
        # Jitter: many syncs that lost the same database should not come back in step.
        longest = min(
            self._pace.longest_delay, self._pace.first_delay * 2 ** min(self._crashes - 1, 30)
        )
        delay = longest * random.uniform(0.5, 1.0)  # noqa: S311
        self._start_at, self._deadline = now + delay, None
        event(log, "worker-died", logging.WARNING, sync=self.sync, how=how, restart_in=delay)
        live.state, live.pid, live.daemon_pid = "retrying", None, os.getpid()
        live.changes_per_second = 0.0
        live.error, live.hint = (
            f"the worker {how}",
            "it is started again; the daemon's log says more",
        )
        try:
            self._runtime.publish(live)
        except OSError as e:
            event(log, "status-not-written", logging.WARNING, sync=self.sync, error=describe(e))


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
