"""Which checkpoints a crash of the target could no longer take back."""

from __future__ import annotations

import time
from collections import deque
from typing import Final, NamedTuple

from appliers.postgres.connection import Session

NUDGE_SECONDS: Final = 2.0
"""After so long the log is flushed by us. The server's WAL writer flushes up to the last commit; behind
it can stand records of other sessions that nobody flushes while the server is idle."""


class _Written(NamedTuple):
    position: str
    end: int
    """The end of the target's log when `position` was seen in the checkpoint: its commit lies before."""
    seen_at: float


class Durability:
    """Follows one session's checkpoint. What was committed before the session counts as written when
    it is first seen: the commit of a daemon that crashed can still be in the server's memory alone."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._flushed: str | None = None
        self._waiting: deque[_Written] = deque()

    def flushed(self, position: str | None) -> str | None:
        """The last position that is flushed; `position` is the one of the checkpoint now."""
        last = self._waiting[-1].position if self._waiting else self._flushed
        if position == last:
            position = None
        if position is None and not self._waiting:
            return self._flushed
        now = time.monotonic()
        if self._waiting and now - self._waiting[0].seen_at > NUDGE_SECONDS:
            self.flush()
        end, flushed = self._session.rows(
            "SELECT (pg_catalog.pg_current_wal_insert_lsn() OPERATOR(pg_catalog.-) '0/0')::int8,"
            " (pg_catalog.pg_current_wal_flush_lsn() OPERATOR(pg_catalog.-) '0/0')::int8"
        )[0]
        if position is not None:
            self._waiting.append(_Written(position, end, now))
        while self._waiting and self._waiting[0].end <= flushed:
            self._flushed = self._waiting.popleft().position
        return self._flushed

    def flush(self) -> None:
        """Has everything that is committed written to the disk. Not inside of a transaction."""
        session = self._session
        if session.in_transaction:
            return
        session.execute("BEGIN")
        session.execute("SET LOCAL synchronous_commit = local")
        session.execute("SELECT pg_catalog.pg_logical_emit_message(true, 'cdc-flush', '')")
        session.execute("COMMIT")
