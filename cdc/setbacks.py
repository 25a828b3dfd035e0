"""What ends a session although nothing is broken: the next one goes on."""

from __future__ import annotations

from appliers.errors import OrderError, TransientError


class CopyFailedError(TransientError):
    """A copy on a sync that streams has failed: the sync goes on streaming, the copy waits a while."""


class UnsettledError(TransientError):
    """Rows refer to rows that are not there, while some are as they were later: a parent that was
    read again has meanwhile moved on. It passes when what has happened since comes with it."""

    def __init__(self, error: OrderError, *, copying: bool) -> None:
        super().__init__(str(error), error.hint)
        self.copying = copying
        """The row that is missing may be in a chunk that is not copied yet."""
