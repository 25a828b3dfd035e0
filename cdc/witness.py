"""Tells a target that works from one that hangs, while the session waits for it.

A statement on the target may take minutes: a trigger, an index that does not fit into memory, a TRUNCATE
behind a slow disk. The session's loop does not turn meanwhile, and the daemon kills a worker that stands
still. So whoever is sure that the target works on our statement says so in the loop's place.
Invariant: a beat is told here only for what the target itself has answered since the last one
(`Applier.works`); a target that does not answer gives none, and the worker is killed as before.
What fails without it: tests/test_witness.py.
"""

from __future__ import annotations

import threading
from typing import Final, Self

from appliers.applier import Applier
from appliers.errors import SyncError
from cdc.progress import Tracker

LOOK_EVERY: Final = 10.0
"""Seconds between looks. A sixth of the daemon's patience: one look may be lost, and a slow one is in
time."""


class Witness:
    """Looks after one session's applier, from a thread of its own, while a `with` lasts."""

    def __init__(self, applier: Applier, tracker: Tracker) -> None:
        self._applier = applier
        self._tracker = tracker
        self._end = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="witness", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Not waited for: it may be connecting to a target that does not answer.
        self._end.set()

    def _watch(self) -> None:
        seen = self._tracker.beats
        while not self._end.wait(LOOK_EVERY):
            if self._tracker.beats == seen and self._works() and not self._end.is_set():
                self._tracker.beat()
            seen = self._tracker.beats

    def _works(self) -> bool:
        try:
            return self._applier.works()
        except SyncError:
            return False
