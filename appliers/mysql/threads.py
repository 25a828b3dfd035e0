"""The server's threads that work for an applier and its forks."""

from __future__ import annotations

from contextlib import closing
from typing import Final

from appliers.mysql.session import Session

WAITING: Final = frozenset(["reading from net", "receiving from client", "writing to net"])
"""States of a thread that waits for us, in lower case: for more of a LOAD DATA, or for somebody to read
the result (MySQL manual, "General Thread States"; MariaDB's say the same)."""


class Threads:
    """Their numbers (CONNECTION_ID). Any thread of ours may add, remove and ask."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()

    def add(self, number: int) -> None:
        self._numbers.add(number)

    def remove(self, number: int) -> None:
        self._numbers.discard(number)

    def any_works(self, session: Session) -> bool:
        """Asks over `session`, and closes it. A user sees threads of its own without any grant."""
        with closing(session):
            return any(
                number in self._numbers and command == "Query" and _works(state)
                for number, _, _, _, command, _, state, *_ in session.rows("SHOW PROCESSLIST")
            )


def _works(state: str | None) -> bool:
    return (state or "").lower() not in WAITING
