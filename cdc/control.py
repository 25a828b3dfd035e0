"""What users ask of a sync, whether or not it runs: the wishes lie on the target, where the worker looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from appliers.applier import Applier
from appliers.errors import LockedError, PermanentError, SyncError, TransientError
from appliers.registry import applier_for
from cdc.config import Config, Sync
from cdc.runtime import Runtime, holder
from cdc.sources.registry import source_for
from cdc.sources.source import Kept


def pause(config: Config, sync: Sync, paused: bool) -> None:  # noqa: ARG001 - the shape that all of these have
    """Lets the sync stand still, or go on. Kept on the target across restarts."""
    with _target(sync) as applier:
        applier.state.pause(paused)


def request_copy(config: Config, sync: Sync, table: str | None, customer: str | None) -> int:  # noqa: ARG001
    """Notes a wish for a copy of a table (None: of all) or of one customer; returns its number."""
    with _target(sync) as applier:
        return applier.state.request(table, customer)


def drop(config: Config, sync: Sync) -> None:
    """Removes what the sync left on source and target, never the rows.

    Raises LockedError or, from a slot in use, TransientError while it runs, here or on another machine:
    then nothing is removed. Where one of the two databases cannot be reached, or refuses, the other is
    cleared all the same, because a slot that nobody reads fills its source's disk; then PermanentError
    says what is left. May be repeated after any error.
    """
    ours = holder("cdc drop")
    daemon, worker = Runtime(config.path, sync.name), Runtime(config.path, sync.name)
    applier = applier_for(sync.target.url, sync.target.password, sync.name)
    source = source_for(sync.source.url, sync.source.password, sync.name)
    try:
        daemon.lock(ours, "daemon")
        worker.lock(ours, "worker")
        at_target = _error(lambda: applier.open(ours), LockedError)
        at_source = None
        if source.kept:
            # First: a slot that nobody knows of any more would fill its source's disk.
            at_source = _error(source.open, LockedError) or _error(source.drop, TransientError)
        at_target = at_target or _error(applier.drop, LockedError)
        if at_source or at_target:
            raise _left(sync, source.kept, at_source, at_target)
    finally:
        source.close()
        applier.close()
        worker.unlock()
        daemon.unlock()


def _error(step: Callable[[], None], stops: type[SyncError]) -> SyncError | None:
    """Why a step cannot be done. Raises an error of the kind that says that the sync runs."""
    try:
        step()
    except stops:
        raise
    except SyncError as e:
        return e
    return None


def _left(
    sync: Sync, kept: Kept | None, at_source: SyncError | None, at_target: SyncError | None
) -> PermanentError:
    """What a drop has not removed, and how that goes by hand."""
    lines, hints = [], [f"`cdc drop {sync.name}` again once that is mended"]
    there = f"the checkpoint on {sync.target.name}"
    if kept and at_source:
        lines.append(f"cannot remove {kept.what} on {sync.source.name}: {at_source}")
        hints.append(f"or by hand on {sync.source.name}: {kept.by_hand}")
    if at_target:
        lines.append(f"cannot remove {there}: {at_target}")
        hints.append(
            f"or by hand on {sync.target.name}, in each table whose name begins with cdc_:"
            f" DELETE FROM ... WHERE sync = '{sync.name}';"
        )
    if kept and not (at_source and at_target):
        gone = there if at_source else f"{kept.what} on {sync.source.name}"
        lines[0] = f"removed {gone}, but {lines[0]}"
    return PermanentError("\n".join(lines), ", ".join(hints))


def kept(sync: Sync) -> str:
    """What `drop` removes, for people: what the sync keeps on its source and on its target."""
    source = source_for(sync.source.url, sync.source.password, sync.name)
    there = f"{source.kept.what} on {sync.source.name} and " if source.kept else ""
    return f"{there}the checkpoint on {sync.target.name}"


@contextmanager
def _target(sync: Sync) -> Iterator[Applier]:
    applier = applier_for(sync.target.url, sync.target.password, sync.name)
    try:
        applier.open(None)
        yield applier
    finally:
        applier.close()
