"""How far each sync is: what its worker tells, its checkpoint on the target, the head of its source's log.

Any of the three may be missing: the daemon may be down, and so may either database. What is not
known is None, and `error` says why.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from appliers.checkpoint import Checkpoint, Control, TableState
from appliers.errors import PermanentError, SyncError
from appliers.registry import applier_for
from cdc.config import Config, Database, Sync
from cdc.log_watch import growth
from cdc.logs import describe
from cdc.runtime import Live, Runtime, SnapshotProgress, State
from cdc.sources.registry import opened
from cdc.sources.source import Position, Source, SourceLog

PATIENCE = 5.0
"""Seconds that a database has to answer."""
SILENCE = 20.0
"""Seconds after which a worker that runs but does not move is called stalled."""
NEARLY = 1 << 20
"""Bytes: a streaming sync that is less behind gets a second look. Its position is told twice a
second, and meanwhile an idle server writes on its own account: making a slot alone logs up to 80 kB
of running transactions and catalogue pages (seen on PostgreSQL 18)."""


_ENDED: tuple[State, ...] = ("failed", "stopped")


@dataclass(slots=True)
class SyncStatus:
    """One sync, as `cdc status --json` shows it: the fields in their order."""

    name: str
    source: str
    target: str
    state: State
    lag_bytes: int | None
    lag_seconds: float | None
    source_position: str | None
    checkpoint: str | None
    applied_at: str | None
    changes_applied: int
    changes_per_second: float
    snapshot: SnapshotProgress
    dead_letters: int
    source_log: SourceLog
    error: str | None
    hint: str | None
    pid: int | None

    def as_json(self) -> dict[str, Any]:
        at, log = self.snapshot, self.source_log
        return {
            "name": self.name,
            "source": self.source,
            "target": self.target,
            "state": self.state,
            "lag_bytes": self.lag_bytes,
            "lag_seconds": self.lag_seconds,
            "source_position": self.source_position,
            "checkpoint": self.checkpoint,
            "applied_at": self.applied_at,
            "changes_applied": self.changes_applied,
            "changes_per_second": self.changes_per_second,
            "snapshot": {
                "state": at.state,
                "tables_done": at.tables_done,
                "tables": at.tables,
                "rows": at.rows,
                "rows_estimated": at.rows_estimated,
            },
            "dead_letters": self.dead_letters,
            "source_log": {"retained_bytes": log.retained_bytes, "state": log.state},
            "error": self.error,
            "hint": self.hint,
            "pid": self.pid,
        }


@dataclass(frozen=True, slots=True)
class _OnTarget:
    checkpoint: Checkpoint | None
    control: Control
    tables: tuple[TableState, ...]


@dataclass(frozen=True, slots=True)
class _OnSource:
    source: Source
    head: Position
    log: SourceLog


Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Asked(Generic[Answer]):
    """What a database has answered about one sync, if it has."""

    answer: Answer | None = None
    error: str | None = None
    hint: str | None = None


def collect(config: Config) -> list[SyncStatus]:
    """The status of every sync, in the configuration's order. Takes about `PATIENCE` seconds at
    most, however many databases are out of reach. Never raises SyncError."""
    syncs = list(config.syncs.values())
    targets, wait_targets = _ask_all(syncs, lambda s: s.target, _ask_target)
    sources, wait_sources = _ask_all(syncs, lambda s: s.source, _ask_source)
    until = time.monotonic() + PATIENCE
    wait_targets(until)
    wait_sources(until)
    lives = _lives(config, targets, sources)
    # A source that was asked before its sync went on has a head of before: nothing is known of more.
    old = [s for s in syncs if _is_ahead(lives[s.name], targets[s.name], sources[s.name])]
    newer, wait = _ask_all(old, lambda s: s.source, _ask_source)
    wait(time.monotonic() + PATIENCE)
    sources |= newer
    left = {n: Runtime(config.path, n).left() for n, live in lives.items() if live is None}
    return [
        _status(s, lives[s.name], left.get(s.name), targets[s.name], sources[s.name]) for s in syncs
    ]


def _ask_all(
    syncs: Sequence[Sync], database: Callable[[Sync], Database], ask: Callable[[Sync], Answer]
) -> tuple[dict[str, _Asked[Answer]], Callable[[float], None]]:
    """Starts asking, all databases side by side; the answers, and how to wait for them."""
    asked: dict[str, _Asked[Answer]] = {s.name: _Asked() for s in syncs}
    groups: dict[Database, list[Sync]] = {}
    for sync in syncs:
        groups.setdefault(database(sync), []).append(sync)

    def ask_one(place: Database, group: Iterable[Sync]) -> None:
        for sync in group:
            # Replaced as a whole: the reader may be looking.
            try:
                asked[sync.name] = _Asked(ask(sync))
            except SyncError as e:
                asked[sync.name] = _Asked(None, f"{place.name}: {e}", e.hint or None)
            except Exception as e:  # noqa: BLE001 - one sync's bug must not hide the others' state
                asked[sync.name] = _Asked(None, f"{place.name}: {describe(e)}")

    # Daemon threads: one that hangs in a connection must not keep the command from ending.
    threads = [
        (threading.Thread(target=ask_one, args=(place, group), daemon=True), place, group)
        for place, group in groups.items()
    ]
    for thread, _, _ in threads:
        thread.start()

    def wait(until: float) -> None:
        for thread, place, group in threads:
            thread.join(max(0.0, until - time.monotonic()))
            for sync in group:
                if asked[sync.name] == _Asked():
                    asked[sync.name] = _Asked(
                        None,
                        f"{place.name}: no answer within {PATIENCE:g} seconds",
                        "is it up, and is the network?",
                    )

    return asked, wait


def _ask_target(sync: Sync) -> _OnTarget:
    applier = applier_for(sync.target.url, sync.target.password, sync.name)
    try:
        applier.open(None)
        state = applier.state
        return _OnTarget(state.load(), state.control(), tuple(state.tables().values()))
    finally:
        applier.close()


def _ask_source(sync: Sync) -> _OnSource:
    with opened(sync.source.url, sync.source.password, sync.name) as source:
        return _OnSource(source, source.head(), source.log())


def _lives(
    config: Config, targets: dict[str, _Asked[_OnTarget]], sources: dict[str, _Asked[_OnSource]]
) -> dict[str, Live | None]:
    """What the workers tell. Read after the sources' heads; those that seem to be a little behind
    get the time to tell once more."""
    runtimes = {name: Runtime(config.path, name) for name in config.syncs}
    lives = {name: runtime.read() for name, runtime in runtimes.items()}

    def nearly(name: str, live: Live | None) -> bool:
        if live is None or live.state != "streaming":
            return False
        lag = _lag_bytes(sources[name].answer, _position(live, targets[name].answer))
        return lag is not None and 0 < lag < NEARLY

    again = {name: live.updated_at for name, live in lives.items() if live and nearly(name, live)}
    until = time.monotonic() + 1.0
    while again and time.monotonic() < until:
        time.sleep(0.05)
        for name, seen in list(again.items()):
            lives[name] = live = runtimes[name].read()
            if live is None or live.updated_at != seen:
                del again[name]
    return lives


def _is_ahead(live: Live | None, target: _Asked[_OnTarget], source: _Asked[_OnSource]) -> bool:
    """Whether the source's head does not know where the sync stands, or where its checkpoint is."""
    log, kept = source.answer, target.answer
    return any(
        log is not None and position is not None and _lag_bytes(log, position) is None
        for position in (_position(live, kept), _position(None, kept))
    )


def _status(
    sync: Sync,
    live: Live | None,
    left: Live | None,
    target: _Asked[_OnTarget],
    source: _Asked[_OnSource],
) -> SyncStatus:
    kept, log = target.answer, source.answer
    lag = _lag_bytes(log, _position(live, kept))
    checkpoint = kept.checkpoint if kept else None
    state, error, hint = _state(live, left, kept)
    if error is None:
        failed = target if target.error else source
        error, hint = failed.error, failed.hint
    if error is None and (other := _of_another(log, checkpoint)):
        error, hint = str(other), other.hint
    if error is None and hint is None and log is not None:
        hint = growth(sync, log.log)
    return SyncStatus(
        name=sync.name,
        source=sync.source.name,
        target=sync.target.name,
        state=state,
        lag_bytes=lag,
        lag_seconds=_lag_seconds(lag, live, checkpoint),
        source_position=str(log.head) if log else live.source_position if live else None,
        checkpoint=checkpoint.position if checkpoint else None,
        applied_at=_time(checkpoint.applied_at) if checkpoint else None,
        changes_applied=max(
            live.changes_applied if live else 0, checkpoint.changes if checkpoint else 0
        ),
        changes_per_second=live.changes_per_second if live else 0.0,
        snapshot=live.snapshot
        if live and live.snapshot.tables
        else SnapshotProgress.of(kept.tables if kept else ()),
        dead_letters=0,
        source_log=_source_log(log, checkpoint),
        error=error,
        hint=hint,
        pid=live.pid if live and live.state not in _ENDED else None,
    )


def _state(
    live: Live | None, left: Live | None, kept: _OnTarget | None
) -> tuple[State, str | None, str | None]:
    """State, error and hint: as the running worker tells, else as it was left, here or on the target."""
    if live is not None:
        silent = time.time() - live.beat_at
        if live.state not in (*_ENDED, "retrying") and silent > SILENCE:
            return (
                "retrying",
                f"the worker has not moved for {silent:.0f} seconds",
                "the daemon starts it again by itself",
            )
        return live.state, live.error, live.hint
    if left is not None and not _is_newer(kept, left):
        return "failed", left.error, left.hint
    if kept is None:
        return "stopped", None, None
    if kept.control.error is not None:
        return "failed", kept.control.error, kept.control.hint
    if kept.control.paused:
        return "paused", None, None
    return ("stopped" if kept.checkpoint else "new"), None, None


def _is_newer(kept: _OnTarget | None, left: Live) -> bool:
    """Whether the sync has got on since that was left here: another machine runs it now."""
    checkpoint = kept.checkpoint if kept else None
    return checkpoint is not None and checkpoint.applied_at / 1e6 > left.updated_at


def _position(live: Live | None, kept: _OnTarget | None) -> str | None:
    if live is not None and live.position is not None:
        return live.position
    return kept.checkpoint.position if kept and kept.checkpoint else None


def _source_log(log: _OnSource | None, checkpoint: Checkpoint | None) -> SourceLog:
    """What the source keeps of its log for the sync."""
    if log is None:
        return SourceLog()
    if not log.log.by_age or checkpoint is None:
        return log.log
    kept = _lag_bytes(log, checkpoint.position)
    return SourceLog(kept, "lost" if kept is None else "reserved")


def _lag_bytes(log: _OnSource | None, position: str | None) -> int | None:
    """Bytes of log between a position and the head; None where nobody knows."""
    if log is None or position is None:
        return None
    try:
        return log.head.since(log.source.position(position))
    except PermanentError:
        return None


def _of_another(log: _OnSource | None, checkpoint: Checkpoint | None) -> PermanentError | None:
    """That the checkpoint is a position of another kind of source, if it is."""
    try:
        if log is not None and checkpoint is not None:
            log.source.position(checkpoint.position)
    except PermanentError as e:
        return e
    return None


def _lag_seconds(lag: int | None, live: Live | None, checkpoint: Checkpoint | None) -> float | None:
    if lag == 0:
        return 0.0
    if live is not None and live.lag_seconds is not None:
        return round(live.lag_seconds, 3)
    if lag is None or checkpoint is None:
        return None
    return round(max(0.0, time.time() - checkpoint.applied_at / 1e6), 3)


def _time(microseconds: int) -> str | None:
    if microseconds <= 0:
        return None
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
