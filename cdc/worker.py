"""One sync's process: `python -m cdc.worker CONFIG SYNC [--until-current | --copy-only]`.

Started and watched by `cdc.daemon`. Exit 0: stopped, or done; 1: failed for good (the reason is in
`cdc status` and in the target's checkpoint); 2: configuration. Anything else is a crash.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import logging
import os
import random
import re
import signal
import socket
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Final

from appliers.applier import Applier
from appliers.errors import FormatError, LockedError, PermanentError, SyncError, TransientError
from appliers.registry import applier_for
from cdc.config import Config, ConfigError, Sync, load
from cdc.goal import Ending, Goal
from cdc.log_watch import LogWatch, let_go
from cdc.logs import configure, event
from cdc.progress import Tracker
from cdc.runtime import Runtime
from cdc.session import Session
from cdc.setbacks import CopyFailedError, UnsettledError
from cdc.snapshot import Holdoff
from cdc.sources.registry import source_for
from cdc.sources.source import Source

log = logging.getLogger(__name__)

FIRST_DELAY: Final = 0.2
LONGEST_DELAY: Final = 30.0
"""Seconds between tries after transient errors; doubled each time, less a random part."""

UNSETTLED_TRIES: Final = 8
"""How often rows may refer to rows that are not there, one time after the other, until it counts as a
fault of the target's foreign keys and not of rows that were read again too late."""

LOCK_PATIENCE: Final = 10.0
"""Seconds that another's lock on the target is waited for: the connection of a worker that was killed
may outlive it by a moment."""

LET_GO_WITHIN: Final = 10.0
"""Seconds that the source may take to notice that a session has left its slot."""

PAUSE_LOOK: Final = 1.0
STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
STOP_WITHIN: Final = 6.0
"""Seconds that a clean stop may take. The daemon kills after 8."""

_PR_SET_PDEATHSIG: Final = 1
_HOLDER: Final = re.compile(r"pid (\d+) on (.*)")


class Worker:
    """Runs sessions of one sync, one after the other, until one ends for good."""

    def __init__(self, config: Config, sync: Sync, goal: Goal) -> None:
        self._config = config
        self._sync = sync
        self._goal = goal
        self._stop = threading.Event()
        self._holder = f"pid {os.getpid()} on {socket.gethostname()}"
        self._runtime = Runtime(config.path, sync.name)
        self._tracker = Tracker(self._runtime, sync.name)
        self._binary_allowed = True
        self._holdoff = Holdoff()
        self._running: Session | None = None
        self._delay = FIRST_DELAY
        self._joins = False
        self._unsettled = 0
        self._locked_at: float | None = None
        self._watch = LogWatch(sync, self._give_up)
        self._too_much: PermanentError | None = None

    def stop(self) -> None:
        """Asks for a clean end. May be called by any thread."""
        self._stop.set()
        if (session := self._running) is not None:
            session.interrupt()

    def stop_on_signal(self) -> None:
        """Waits for SIGTERM or SIGINT, which all threads must have blocked, then ends the process
        within STOP_WITHIN seconds. A thread of its own, because the others may stand in a call of
        libpq that a lost server never answers, and Python runs no handler meanwhile; and it may,
        because what counts is committed or will be rolled back."""
        signal.sigwait(STOPPING)
        self.stop()
        time.sleep(STOP_WITHIN)
        event(log, "stopped-hard", logging.WARNING, seconds=STOP_WITHIN)
        self._tracker.ended("stopped")
        logging.shutdown()
        os._exit(0)

    def run(self) -> int:
        """Returns the exit code."""
        try:
            self._runtime.lock(self._holder)
        except LockedError as e:
            _tell(e)
            return 1
        self._tracker.start()
        self._watch.start()
        try:
            code = self._sessions()
            return code if self._too_much is None else self._let_go(self._too_much)
        finally:
            self._watch.end()
            self._tracker.close()
            self._runtime.unlock()

    def _give_up(self, error: PermanentError) -> None:
        """The source keeps too much of its log for us."""
        self._too_much = error
        self.stop()

    def _let_go(self, error: PermanentError) -> int:
        """The session has ended; its connection, and with it the slot's use, may take a moment more."""
        until = time.monotonic() + LET_GO_WITHIN
        while True:
            try:
                let_go(self._sync)
            except SyncError as e:
                if time.monotonic() > until:
                    # Started again, the worker sees again how much is kept.
                    event(log, "slot-not-dropped", logging.ERROR, error=str(e), hint=e.hint)
                    return 1
                time.sleep(0.2)
            else:
                return self._failed(error)

    def _sessions(self) -> int:
        while not self._stop.is_set():
            before = self._tracker.done
            begun = time.monotonic()
            try:
                ending = self._session()
            except FormatError as e:
                event(log, "format-changed", why=str(e))
                self._binary_allowed = False
            except CopyFailedError:
                # It has been told, and the next copy waits: the stream goes on at once.
                pass
            except LockedError as e:
                if self._is_refused(e):
                    return self._failed(e)
                self._tracker.retrying(str(e), e.hint)
                self._stop.wait(0.5)
                continue
            except TransientError as e:
                if self._stop.is_set():
                    break
                rested = self._tracker.rested_at - begun
                if self._tracker.done != before or rested > LONGEST_DELAY:
                    self._delay = FIRST_DELAY
                self._retry(e)
            except PermanentError as e:
                return self._failed(e)
            else:
                if ending is not Ending.PAUSED:
                    self._tracker.ended("stopped")
                    return 0
                self._pause()
            self._locked_at = None
        self._tracker.ended("stopped")
        return 0

    def _is_refused(self, locked: LockedError) -> bool:
        """Whether somebody else has the sync. The session of a process that is gone, or a former one of
        ours, has its lock until the target has noticed and rolled back: minutes for a large transaction."""
        if _is_gone(locked.holder):
            return False
        now = time.monotonic()
        self._locked_at = self._locked_at or now
        return now - self._locked_at > LOCK_PATIENCE

    def _ends(self) -> tuple[Source, Applier]:
        """Source and target, not connected yet."""
        name, source, target = self._sync.name, self._sync.source, self._sync.target
        return (
            source_for(source.url, source.password, name),
            applier_for(target.url, target.password, name, self._sync.on_unrepresentable),
        )

    def _session(self) -> Ending:
        source, applier = self._ends()
        sys.setswitchinterval(applier.turn)
        session = Session(
            self._sync,
            self._config.customer,
            source,
            applier,
            self._tracker,
            self._stop,
            self._goal,
        )
        self._running = session
        if self._stop.is_set():
            session.interrupt()
        before = self._tracker.done
        try:
            return session.run(
                self._holder,
                binary_allowed=self._binary_allowed,
                joins=self._joins,
                holdoff=self._holdoff,
            )
        except UnsettledError as e:
            self._joins = True
            stuck = self._tracker.done == before and not e.copying
            self._unsettled = self._unsettled + 1 if stuck else 0
            if self._unsettled > UNSETTLED_TRIES:
                raise PermanentError(str(e), e.hint) from e
            raise

    def _retry(self, error: TransientError) -> None:
        wait = self._delay * random.uniform(0.5, 1.0)  # noqa: S311
        event(log, "retrying", logging.WARNING, error=str(error), hint=error.hint, seconds=wait)
        self._tracker.retrying(str(error), error.hint)
        self._stop.wait(wait)
        self._delay = min(LONGEST_DELAY, self._delay * 2)

    def _failed(self, error: PermanentError) -> int:
        event(log, "failed", logging.ERROR, error=str(error), hint=error.hint)
        untold = not isinstance(error, LockedError) and not self._told(error)
        self._tracker.ended("failed", str(error), error.hint, untold=untold)
        _tell(error)
        return 1

    def _told(self, error: PermanentError) -> bool:
        """Notes on the target why the sync has failed; False where the target itself is what fails."""
        applier = applier_for(self._sync.target.url, self._sync.target.password, self._sync.name)
        try:
            applier.open(None)
            applier.state.fail(str(error), error.hint or None)
        except SyncError:
            return False
        finally:
            applier.close()
        return True

    def _pause(self) -> None:
        """Waits on the target for the pause to end."""
        self._tracker.paused()
        event(log, "paused")
        applier = applier_for(self._sync.target.url, self._sync.target.password, self._sync.name)
        try:
            applier.open(None)
            while not self._stop.is_set() and applier.state.control().paused:
                self._stop.wait(PAUSE_LOOK)
        except SyncError as e:
            # The next session meets it too, and tells transient from permanent.
            event(log, "retrying", logging.WARNING, error=str(e), hint=e.hint)
            self._stop.wait(PAUSE_LOOK)
        finally:
            applier.close()
        event(log, "resumed")


def _is_gone(holder: str) -> bool:
    """Whether a holder's name, which a target may have cut at its end, is ours or that of a process
    that this machine has no more."""
    match = _HOLDER.fullmatch(holder)
    if match is None or not match[2] or not socket.gethostname().startswith(match[2]):
        return False
    pid = int(match[1])
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _tell(error: SyncError) -> None:
    """What a person reads who started us by hand."""
    lines = [f"Error: {error}", *([f"Try: {error.hint}"] if error.hint else [])]
    sys.stderr.write("\n".join(lines) + "\n")


def _collect_rarely() -> None:
    """Deltas are tuples without cycles, but the cycle collector looks at each of them again and
    again: 0.65 of 1.12 µs a delta, measured. What is imported by now stays and needs no look."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)


def _die_with_parent() -> None:
    """A worker without its daemon would hold the sync against the next daemon. The kernel's signal
    is at once; the pipe's end works where the kernel has none, and if the daemon died before."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main() -> int:
    parser = argparse.ArgumentParser(prog="cdc.worker")
    parser.add_argument("config", type=Path)
    parser.add_argument("sync")
    parser.add_argument("--until-current", action="store_true")
    parser.add_argument("--copy-only", action="store_true")
    args = parser.parse_args()
    # Before the first thread: each inherits it.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    faulthandler.enable()
    _collect_rarely()
    configure(args.sync)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        _die_with_parent()
    try:
        config = load(args.config)
        sync = config.syncs[args.sync]
    except ConfigError as e:
        _tell(e)
        return 2
    worker = Worker(config, sync, Goal(args.until_current, args.copy_only))
    threading.Thread(target=worker.stop_on_signal, name="signals", daemon=True).start()
    return worker.run()


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Threads that wait for a lost database must not hold up the end; all that counts is committed.
    sys.stderr.flush()
    os._exit(code)
