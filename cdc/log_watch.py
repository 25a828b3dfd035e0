"""What the source keeps of its log for a sync: looked at now and then, told, and bounded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from pydantic import ByteSize

from appliers.errors import PermanentError, SyncError
from cdc.config import Sync
from cdc.logs import event
from cdc.sources.registry import opened
from cdc.sources.source import SourceLog

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 10.0
"""Seconds. A busy source writes some hundred megabytes of log meanwhile; a look costs a connection."""


class LogWatch(threading.Thread):
    """Asks the source, over connections of its own, for as long as its worker lives: also while the
    target is down, which is when a log grows.

    `too_much` is called once, with the reason, if more than the sync's `log_limit` is kept. A source
    that keeps its log by age, for nobody in particular, is not watched.
    """

    def __init__(self, sync: Sync, too_much: Callable[[PermanentError], None]) -> None:
        super().__init__(name="log-watch", daemon=True)
        self._sync = sync
        self._too_much = too_much
        self._end = threading.Event()
        self._warned = False

    def end(self) -> None:
        self._end.set()

    def run(self) -> None:
        while self._goes_on() and not self._end.wait(LOOK_EVERY):
            pass

    def _goes_on(self) -> bool:
        try:
            kept = _ask(self._sync)
        except SyncError:
            return True  # the session meets it too, and tells it
        if kept.by_age:
            return False
        grown = growth(self._sync, kept)
        if grown is not None and not self._warned:
            event(log, "log-grows", logging.WARNING, of=grown)
        self._warned = grown is not None
        limit, size = self._sync.log_limit, kept.retained_bytes or 0
        if limit is None or size <= limit:
            return True
        self._too_much(
            PermanentError(
                f"source: {_size(size)} of its log were kept for this sync, more than"
                f" log_limit ({_size(limit)}): its replication slot was dropped, before the source's disk"
                " is full",
                f"`cdc snapshot {self._sync.name}` copies everything again; raise log_limit if the disk"
                " can spare more",
            )
        )
        return False


def growth(sync: Sync, kept: SourceLog) -> str | None:
    """That the source keeps more than the sync's `log_warning`, for people; None: it does not."""
    if kept.by_age or kept.retained_bytes is None or kept.retained_bytes <= sync.log_warning:
        return None
    return (
        f"{sync.source.name} keeps {_size(kept.retained_bytes)} of its log for this sync, more than"
        f" log_warning ({_size(sync.log_warning)}): until the target has caught up, its disk fills"
    )


def let_go(sync: Sync) -> None:
    """Drops the sync's slot, so that the source may forget. Raises SyncError."""
    with opened(sync.source.url, sync.source.password, sync.name) as source:
        source.drop()


def _ask(sync: Sync) -> SourceLog:
    with opened(sync.source.url, sync.source.password, sync.name) as source:
        return source.log()


def _size(size: int) -> str:
    return ByteSize(size).human_readable(decimal=True, separator=" ")
