"""Whether SQLite moves inside of a statement, seen from another thread."""

from __future__ import annotations

import sqlite3
from typing import Final

STEPS: Final = 1_000_000
"""Steps of SQLite's virtual machine between two counts: some tens of milliseconds."""


class Turns:
    """Counted by SQLite's progress handler (https://www.sqlite.org/c3ref/progress_handler.html)."""

    def __init__(self) -> None:
        self._turns = self._seen = 0

    def count(self, db: sqlite3.Connection) -> None:
        db.set_progress_handler(self._turn, STEPS)

    def moved(self) -> bool:
        """Whether there was a turn since this was last asked."""
        before, self._seen = self._seen, self._turns
        return self._seen != before

    def _turn(self) -> int:
        self._turns += 1
        return 0  # anything else would end the statement
