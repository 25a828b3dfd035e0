"""What users ask of a sync, whether or not it runs: the wishes lie on the target, where the worker looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from appliers.applier import Applier
from appliers.registry import applier_for
from cdc.config import Config, Sync
from cdc.runtime import Runtime, holder
from cdc.sources.registry import source_for


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

    Raises LockedError while it runs, here or on another machine, and TransientError when one of
    the two databases cannot be reached: then nothing is removed. May be repeated after any error.
    """
    ours = holder("cdc drop")
    daemon, worker = Runtime(config.path, sync.name), Runtime(config.path, sync.name)
    applier = applier_for(sync.target.url, sync.target.password, sync.name)
    source = source_for(sync.source.url, sync.source.password, sync.name)
    try:
        daemon.lock(ours, "daemon")
        worker.lock(ours, "worker")
        applier.open(ours)
        source.open()
        # The source first: a slot that nobody knows of any more would fill its disk.
        source.drop()
        applier.drop()
    finally:
        source.close()
        applier.close()
        worker.unlock()
        daemon.unlock()


def kept(sync: Sync) -> str:
    """What `drop` removes, for people: what the sync keeps on its source and on its target."""
    source = source_for(sync.source.url, sync.source.password, sync.name)
    there = f"{source.kept} on {sync.source.name} and " if source.kept else ""
    return f"{there}the checkpoint on {sync.target.name}"


@contextmanager
def _target(sync: Sync) -> Iterator[Applier]:
    applier = applier_for(sync.target.url, sync.target.password, sync.name)
    try:
        applier.open(None)
        yield applier
    finally:
        applier.close()
