"""Whether the server's threads work for an applier and its forks."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from typing import Final

from appliers.mysql.session import Session

WAITING: Final = frozenset(["reading from net", "receiving from client", "writing to net"])
"""States of a thread that waits for us, in lower case: for more of a LOAD DATA, or for somebody to read
the result (MySQL manual, "General Thread States"; MariaDB's say the same)."""


def any_works(session: Session, numbers: Collection[int]) -> bool:
    """Asks over `session`, and closes it. `numbers` are those of CONNECTION_ID(); a user sees threads of
    its own without any grant."""
    with closing(session):
        return any(
            number in numbers and command == "Query" and (state or "").lower() not in WAITING
            for number, _, _, _, command, _, state, *_ in session.rows("SHOW PROCESSLIST")
        )
