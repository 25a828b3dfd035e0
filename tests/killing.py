"""Kills workers, at the points that the code names and at any other moment."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from tests.syncs import Sync
from tests.targets import state_of

COPYING: Final = ("chunk-written", "chunk-committed")
STREAMING: Final = (
    "batch-taken",
    "rows-written",
    "commit-sent",
    "commit-acknowledged",
    "position-confirmed",
)


class Killing:
    """Kills a sync's workers, and counts. Between two kills each may get some work done."""

    def __init__(self, sync: Sync, draw: random.Random) -> None:
        self.kills = 0
        self._sync = sync
        self._random = draw

    def at_points(self, points: Sequence[str], most: int) -> None:
        """At each of the named points once, the first to the `most`th time that it is passed."""
        for point in points:
            self._sync.start(fault=f"{point}:{self._random.randint(1, most)}").dies_at_fault()
            self.kills += 1

    def in_copies(self, rounds: int) -> None:
        """At each point of a copy and at a random moment, some rounds of it. Every round but the very first
        asks for a new copy of everything, because the last one may be through."""
        for _ in range(rounds):
            if self.kills:
                with state_of(self._sync.target, self._sync.name) as state:
                    state.request(None, None)
            self.at_points(COPYING, most=1)
            self.at_random(1, longest=0.5)

    def at_random(self, times: int, longest: float) -> None:
        """After a random time, from the start of the process on."""
        for _ in range(times):
            process = self._sync.start()
            process.lives(self._random.random() * longest)
            process.kill()
            self.kills += 1


def chunks_left(sync: Sync) -> list[int]:
    """Kills a copy in the middle of chunks and between them, and counts after each what is left."""
    left = []
    for fault in ("chunk-committed:1", "chunk-written:1", "chunk-committed:2", "chunk-written:1"):
        sync.start(fault=fault).dies_at_fault()
        with state_of(sync.target, sync.name) as state:
            left.append(len(state.chunks()))
    return left
