"""The server's processes that work for an applier and its forks."""

from __future__ import annotations

from contextlib import closing

from appliers.postgres.connection import Session

_WORKS = """
    SELECT count(*) FROM pg_catalog.pg_stat_activity
    WHERE pid = ANY ($1::pg_catalog.int4[]) AND state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'
"""
"""`Client` is the wait for more of a COPY, or for somebody to read the result (manual, "The Cumulative
Statistics System", Wait Event Types)."""


class Backends:
    """Their process ids. Any thread may add, remove and ask."""

    def __init__(self) -> None:
        self._pids: set[int] = set()

    def add(self, pid: int) -> None:
        self._pids.add(pid)

    def remove(self, pid: int) -> None:
        self._pids.discard(pid)

    def any_works(self, session: Session) -> bool:
        """Asks over `session`, and closes it."""
        with closing(session):
            pids = "{" + ",".join(map(str, self._pids.copy())) + "}"
            return bool(session.value(_WORKS, (pids,)))
