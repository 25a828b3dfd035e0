"""Whether the server's processes work for an applier and its forks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from appliers.postgres.connection import Session

_WORKS = """
    SELECT count(*) FROM pg_catalog.pg_stat_activity
    WHERE pid = ANY ($1::pg_catalog.int4[]) AND state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'
"""
"""`Client` is the wait for more of a COPY, or for somebody to read the result (manual, "The Cumulative
Statistics System", Wait Event Types)."""


def any_works(session: Session, pids: Iterable[int]) -> bool:
    """Asks over `session`, and closes it."""
    with closing(session):
        return bool(session.value(_WORKS, ("{" + ",".join(map(str, pids)) + "}",)))
