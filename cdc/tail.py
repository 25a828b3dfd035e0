"""`cdc tail`: the customer deltas of a sync as JSON Lines, read beside it."""

from __future__ import annotations

import os
import select
import stat
from typing import BinaryIO, Final

from appliers.delta import each
from appliers.errors import PermanentError
from appliers.registry import applier_for
from cdc.config import Config, Sync
from cdc.customers import shape_for
from cdc.delta_json import DeltaJson
from cdc.sources.registry import source_for
from cdc.sources.source import Piece, Position, Source

WAIT: Final = 0.5
"""Seconds between two looks at whether anybody still reads our output."""


def tail(config: Config, sync: Sync, *, from_start: bool, write: BinaryIO) -> None:
    """Writes a line for every delta from now on, or from where the sync itself stands. Ends only
    with an exception: what the source raises, KeyboardInterrupt, BrokenPipeError."""
    to_line = DeltaJson(sync.source.name).line
    source = source_for(sync.source.url, sync.source.password, sync.name)
    reader = _Reader(write)
    try:
        source.open()
        log = source.log()
        if log.state is None and not log.by_age:
            raise PermanentError(
                f"sync {sync.name} was never started: {sync.source.name} has no slot for it",
                f"cdc run {sync.name}",
            )
        relations = source.catalog(sync.tables).relations
        stream = source.tail(
            from_start=from_start,
            checkpoint=lambda: _checkpoint(sync, source),
            relations=relations,
            shape=shape_for(config.customer),
        )
        try:
            while not reader.has_gone():
                for event in stream.read(WAIT):
                    if isinstance(event, Piece):
                        lines = "\n".join(map(to_line, each(event.deltas)))
                        write.write(f"{lines}\n".encode())
                write.flush()
        finally:
            stream.close()
    finally:
        source.close()
    raise BrokenPipeError


def _checkpoint(sync: Sync, source: Source) -> Position | None:
    """Where the sync stands, as its target says."""
    applier = applier_for(sync.target.url, sync.target.password, sync.name)
    try:
        applier.open(None)
        checkpoint = applier.state.load()
    finally:
        applier.close()
    return source.position(checkpoint.position) if checkpoint else None


class _Reader:
    """Whoever reads our output through a pipe. While the source is idle nothing is written, so that a
    write would tell only much later that nobody reads any more."""

    def __init__(self, out: BinaryIO) -> None:
        self._poll = select.poll()
        if stat.S_ISFIFO(os.fstat(out.fileno()).st_mode):
            self._poll.register(out.fileno(), 0)

    def has_gone(self) -> bool:
        return any(event & select.POLLERR for _, event in self._poll.poll(0))
