"""The daemon: one worker process per sync, kept running, and the service manager kept informed.

    python -m cdc.daemon CONFIG [--until-current | --copy-only] [SYNC]...

is what `cdc run` becomes. It imports no database and no terminal library: it stays while all else
comes and goes, and it should cost nothing. It sleeps in select until a signal comes, and looks at
what the workers tell twice a second.

SIGTERM and SIGINT stop: SIGTERM to the workers, 8 s, SIGKILL. A second one does not wait. SIGHUP
reads the configuration again: changed and failed syncs are started again, new ones started, removed
ones stopped; a configuration that is wrong changes nothing.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM
from signal import Signals as Signal

from appliers.errors import SyncError
from appliers.extension import extension
from cdc.config import Config, ConfigError, load
from cdc.health import Health
from cdc.logs import configure, event
from cdc.notify import Notify
from cdc.runtime import Live, Runtime, holder
from cdc.signals import Signals
from cdc.supervised import Outcome, Pace, Supervised

log = logging.getLogger("cdc.daemon")

WORKER = (sys.executable, "-P", "-m", "cdc.worker")
"""-P: what lies in the working directory is not to be imported."""

Shown = Callable[[Sequence[Live]], None]


def run(
    config_path: Path,
    syncs: Sequence[str],
    *,
    until_current: bool = False,
    copy_only: bool = False,
    shown: Shown | None = None,
) -> int:
    """Runs these syncs (none named: all) until they are done or a signal comes; the exit code.

    Called in the main thread. `shown` gets twice a second what the syncs tell. Raises ConfigError
    for a configuration that is wrong at the start, LockedError when somebody else runs one of the
    syncs: then none is started.

    0: all done, or stopped by a signal. 1: a sync failed for good and the others have ended, or a
    signal came before `until_current` or `copy_only` was done.
    """
    configure()
    flags = ["--until-current"] * until_current + ["--copy-only"] * copy_only
    return Daemon(config_path, syncs, flags=flags, shown=shown).run()


class Daemon:
    """The supervisor of all syncs. `worker` is the command that config, sync and flags are put to;
    tests give another one, and less patience. With flags, workers are expected to end."""

    def __init__(
        self,
        config_path: Path,
        syncs: Sequence[str],
        *,
        flags: Sequence[str] = (),
        worker: Sequence[str] = WORKER,
        pace: Pace | None = None,
        shown: Shown | None = None,
    ) -> None:
        self._config = load(config_path)
        self._named = tuple(dict.fromkeys(syncs))
        self._flags = tuple(flags)
        self._worker = tuple(worker)
        self._shown = shown
        self._health = Health(Notify())
        self._pace = pace or Pace()
        if (patience := self._health.patience) is not None:
            # We have to have dealt with a stalled worker before the service manager deals with us.
            self._pace = replace(self._pace, stall=min(self._pace.stall, patience))
        self._runtimes: dict[str, Runtime] = {}
        self._workers: dict[str, Supervised] = {}
        self._changed: set[str] = set()
        self._stopping = False

    def run(self) -> int:
        for name in self._named:
            if name not in self._config.syncs:
                known = ", ".join(self._config.syncs)
                raise ConfigError(f'{self._config.path}: expected a sync ({known}), found "{name}"')
        try:
            for name in self._wanted(self._config):
                self._hold(name)
            with Signals() as signals:
                for name in self._runtimes:
                    self._begin(name)
                in_c = "yes" if extension("appliers._images", "Columns") else "no"
                syncs = len(self._workers)
                event(log, "daemon-started", config=self._config.path, syncs=syncs, in_c=in_c)
                return self._loop(signals)
        finally:
            for runtime in self._runtimes.values():
                runtime.unlock()

    def _loop(self, signals: Signals) -> int:
        while True:
            now = time.monotonic()
            for worker in self._workers.values():
                worker.look(now)
            if not self._stopping:
                self._replace_stopped()
            workers = list(self._workers.values())
            if self._shown is not None:
                self._shown([w.live for w in workers])
            if not self._stopping:
                self._health.tell(workers, now, settled=self._settled())
            if all(w.outcome is not None for w in workers):
                return self._exit_code()
            for signum in signals.wait(self._pace.look):
                self._obey(signum)

    def _obey(self, signum: int) -> None:
        now = time.monotonic()
        if signum in (SIGTERM, SIGINT):
            if self._stopping:
                for worker in self._workers.values():
                    worker.kill()
                return
            event(log, "daemon-stopping", signal=Signal(signum).name)
            self._stopping = True
            self._health.stopping()
            for worker in self._workers.values():
                worker.stop(now)
        elif signum == SIGHUP and not self._stopping:
            self._health.reloading()
            self._reload(now)

    def _reload(self, now: float) -> None:
        try:
            config = load(self._config.path)
        except ConfigError as e:
            event(log, "reload-refused", logging.ERROR, error=e, now="the old one stays in force")
            return
        old, self._config = self._config, config
        wanted = self._wanted(config)
        for name, worker in self._workers.items():
            if name not in wanted:
                worker.stop(now)
            elif worker.outcome is Outcome.FAILED or _differs(old, config, name):
                self._changed.add(name)
                worker.stop(now)
        for name in wanted:
            if name not in self._workers:
                try:
                    self._hold(name)
                except SyncError as e:
                    event(log, "sync-not-started", logging.ERROR, sync=name, error=e, hint=e.hint)
                    continue
                self._begin(name)
        event(log, "reloaded", syncs=len(wanted), restarted=len(self._changed))

    def _replace_stopped(self) -> None:
        """Starts anew what a reload has stopped, and forgets what it has removed."""
        wanted = self._wanted(self._config)
        for name, worker in list(self._workers.items()):
            if worker.outcome is None:
                continue
            if name not in wanted:
                del self._workers[name]
                self._runtimes.pop(name).unlock()
            elif name in self._changed or worker.outcome is Outcome.STOPPED:
                self._changed.discard(name)
                self._begin(name)

    def _settled(self) -> bool:
        """Whether what the last reload asked for is in force."""
        return not self._changed and set(self._workers) <= set(self._wanted(self._config))

    def _exit_code(self) -> int:
        outcomes = [w.outcome for w in self._workers.values()]
        cut_short = bool(self._flags) and Outcome.STOPPED in outcomes
        failed = Outcome.FAILED in outcomes and not (self._stopping and not self._flags)
        code = int(cut_short or failed)
        event(log, "daemon-stopped", code=code)
        return code

    def _wanted(self, config: Config) -> list[str]:
        return [name for name in config.syncs if not self._named or name in self._named]

    def _hold(self, name: str) -> None:
        runtime = Runtime(self._config.path, name)
        runtime.lock(holder("cdc run"), "daemon")
        self._runtimes[name] = runtime

    def _begin(self, name: str) -> None:
        command = [*self._worker, str(self._config.path), name, *self._flags]
        self._workers[name] = Supervised(
            self._runtimes[name], command, self._pace, ends=bool(self._flags)
        )
        self._workers[name].look(time.monotonic())


def _differs(old: Config, new: Config, sync: str) -> bool:
    """Whether a running sync would run otherwise with the new configuration, passwords included."""
    return old.syncs.get(sync) != new.syncs[sync] or old.customer != new.customer


def main(arguments: Sequence[str]) -> int:
    """`python -m cdc.daemon`: for `cdc run` to become, so that nothing of the command line's
    libraries stays in memory for weeks."""
    flags = {a for a in arguments if a.startswith("--")}
    config, *syncs = [a for a in arguments if not a.startswith("--")] or [""]
    try:
        return run(
            Path(config),
            syncs,
            until_current="--until-current" in flags,
            copy_only="--copy-only" in flags,
        )
    except SyncError as e:
        print(f"Error: {e}", file=sys.stderr)  # noqa: T201 - a command's last words
        if e.hint:
            print(f"Try: {e.hint}", file=sys.stderr)  # noqa: T201
        return 2 if isinstance(e, ConfigError) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
