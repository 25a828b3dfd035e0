"""Which checkpoints a crash of the target could no longer take back."""

from __future__ import annotations

import time
from collections import deque
from typing import Final, NamedTuple

from appliers.mysql.session import Session

SETTLED_SECONDS: Final = 5.0
"""For servers that do not tell how far their log is on the disk: both products write and flush it once
in innodb_flush_log_at_timeout (1 second) whatever the commits do; this many times as long counts."""

LSN: Final = {
    "mariadb": ("Innodb_lsn_current", "Innodb_lsn_flushed"),
    "mysql": ("Innodb_redo_log_current_lsn", "Innodb_redo_log_flushed_to_disk_lsn"),
}
"""Status variables (MySQL from 8.0.30). They can be read without any right."""


_ASKED: Final = "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.sync_binlog"


class _Written(NamedTuple):
    position: str
    end: int | None
    """The end of the server's log after the commit; None where it is not told."""
    at: float


class Durability:
    """Follows one session's commits.

    A commit returns flushed only if innodb_flush_log_at_trx_commit is 1 and the binlog, where there
    is one, has sync_binlog = 1: after a crash a transaction that InnoDB had only prepared is rolled
    back unless the binlog has it (MySQL manual, "InnoDB Startup Options", innodb_flush_log_at_trx_commit;
    "Binary Logging Options", sync_binlog). MariaDB's default is 0. Otherwise a commit is durable when
    InnoDB's log is flushed beyond it, its own record of the commit included.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        variables = session.variables
        self._binlog = variables.get("log_bin") == "ON"
        self.at_once = self._is_safe(
            variables.get("innodb_flush_log_at_trx_commit"), variables.get("sync_binlog")
        )
        self._patience = SETTLED_SECONDS * float(variables.get("innodb_flush_log_at_timeout", "1"))
        self._flushed: str | None = None
        self._waiting: deque[_Written] = deque()
        self._committed: str | None = None

    def committed(self, position: str) -> None:
        """A transaction with this checkpoint was committed."""
        self._committed = position

    def flushed(self) -> str | None:
        """The last position that is flushed."""
        if self._committed is None and not self._waiting:
            return self._flushed
        # Anybody may set them at any time. What was committed counts if it was safe before and is now.
        was, [found] = self.at_once, self._session.rows(_ASKED)
        self.at_once = self._is_safe(*map(str, found))
        if was and self.at_once and not self._waiting:
            self._flushed, self._committed = self._committed, None
            return self._flushed
        end, flushed = self._ends()
        now = time.monotonic()
        if self._committed is not None:
            self._waiting.append(_Written(self._committed, end, now))
            self._committed = None
        while self._waiting and self._is_flushed(self._waiting[0], flushed, now):
            self._flushed = self._waiting.popleft().position
        return self._flushed

    def _is_safe(self, flush: str | None, binlog: str | None) -> bool:
        """Whether a commit that returns is on the disk."""
        return flush == "1" and (not self._binlog or binlog == "1")

    def _is_flushed(self, written: _Written, flushed: int | None, now: float) -> bool:
        if written.end is None or flushed is None:
            return now - written.at > self._patience
        return written.end <= flushed

    def _ends(self) -> tuple[int | None, int | None]:
        """The end of the server's log, and of what of it is on the disk."""
        names = LSN[self._session.flavour]
        rows = self._session.rows("SHOW GLOBAL STATUS WHERE Variable_name IN (?, ?)", names)
        found = {name.lower(): int(value) for name, value in rows}
        current, flushed = (found.get(name.lower()) for name in names)
        return current, flushed
