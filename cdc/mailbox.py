"""Between the thread that reads and the thread that applies: bounded, and it decides how much is a batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from cdc.sources.source import Piece, Position, Progress

BATCH_ROWS: Final = 20_000
BATCH_BYTES: Final = 8 << 20
HELD_BYTES: Final = 24 << 20
"""What may wait here: with a batch in the applier's hands it keeps a sync far below 200 MB."""

WORTH_ROWS: Final = 2_000
WORTH_BYTES: Final = 1 << 19
"""What is held back for in a backlog. A batch costs about 2 ms whatever is in it; to wait for a full
one would leave the applier idle while the first is read: 20,000 rows take the reader 0.2 s. As many
bytes as one read of a PostgreSQL source gives: it would be idle for two of them else."""

FIRST_SHARE: Final = 0.25
"""How much of that is worth it as the first batch of a backlog; twice as much as the second, and so on: an
idle applier is not to wait."""

FILL: Final = 0.5
PAUSE: Final = 0.03
"""Seconds that a batch may be filled for while the source is behind: at most, and without anything
new. Bulk beats haste then, but the end of a backlog is not to be waited for."""


class Parcel:
    """What is handed over at once, and where the stream is behind it."""

    __slots__ = ("asked", "piece", "position")

    def __init__(self, piece: Piece | None, position: Position | None, *, asked: bool) -> None:
        self.asked = asked
        """The source waits to hear that `position` is durable."""
        self.piece = piece
        """None: the source has only said where it is."""
        self.position = position
        """None: the last transaction of the piece is not over."""


class Mailbox:
    """Pieces go in at one end, parcels come out at the other.

    A parcel is what has gathered: while the applier keeps up it is one transaction, handed over at
    once; while it does not, batches grow by themselves. Only in a backlog (`behind`) is it held
    back for at most FILL seconds, until it is a full batch.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._pieces: deque[Piece] = deque()
        self._rows = 0
        self._bytes = 0
        self._progress: Position | None = None
        self._asked = False
        self._since = self._latest = 0.0
        self._behind = False
        self._share = FIRST_SHARE
        self._error: BaseException | None = None
        self._closed = False
        self._handed: Piece | None = None
        self._spent: Piece | None = None
        """What was handed over before that, to be freed by the thread that reads: the target waits for the
        other, and a row takes 0.15 µs."""

    def put(
        self, events: list[Piece | Progress], *, behind: bool, waiting: Callable[[], None]
    ) -> bool:
        """Adds events; while there is no room calls `waiting` every half second. False once closed."""
        self._spent = None
        with self._lock:
            while self._bytes >= HELD_BYTES and not self._closed:
                self._lock.wait(0.5)
                waiting()
            if self._closed:
                return False
            self._latest = time.monotonic()
            if not self._pieces:
                self._since = self._latest
            for event in events:
                if isinstance(event, Piece):
                    self._pieces.append(event)
                    self._rows += event.rows
                    self._bytes += event.size
                    self._progress = event.position
                else:
                    self._progress = event.position
                    self._asked = self._asked or event.asked
            # Behind, a source says where it is only when it has sent everything.
            self._behind = behind and not isinstance(events[-1], Progress)
            if not behind:
                self._share = FIRST_SHARE
            self._lock.notify_all()
        return True

    def fail(self, error: BaseException) -> None:
        """Ends the mailbox: `take` raises `error` once what is in it has been taken."""
        with self._lock:
            self._error = error
            self._lock.notify_all()

    def close(self) -> None:
        """The applier takes no more."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def take(self, timeout: float) -> Parcel | None:
        """The next parcel, or None after `timeout` seconds."""
        until = time.monotonic() + timeout
        with self._lock:
            while not self._ready():
                if self._error is not None and not self._pieces:
                    raise self._error
                now = time.monotonic()
                wait = until - now
                if self._pieces:
                    wait = min(wait, self._held_until() - now)
                if now >= until:
                    self._handed = self._spent = None
                    return None
                self._lock.wait(max(wait, 0.001))
            return self._parcel()

    @property
    def waiting(self) -> int | None:
        """When the oldest piece that waits here was committed (microseconds since 1970); None: none does."""
        with self._lock:
            return self._pieces[0].oldest if self._pieces else None

    def _ready(self) -> bool:
        if self._pieces:
            return (
                not self._behind
                or self._rows >= self._share * WORTH_ROWS
                or self._bytes >= self._share * WORTH_BYTES
                or time.monotonic() >= self._held_until()
                or self._error is not None
            )
        return self._progress is not None

    def _held_until(self) -> float:
        return min(self._since + FILL, self._latest + PAUSE)

    def _parcel(self) -> Parcel:
        piece = self._gathered() if self._pieces else None
        if self._behind:
            self._share = min(2 * self._share, 1.0)
        if piece and self._pieces:
            position = piece.position
            self._since = time.monotonic()
            asked = False
        else:
            position, self._progress = self._progress, None
            asked, self._asked = self._asked, False
        self._lock.notify_all()
        self._spent, self._handed = self._handed, piece
        return Parcel(piece, position, asked=asked)

    def _gathered(self) -> Piece:
        """A batch of what is here, as one piece."""
        piece = self._pieces.popleft()
        while self._pieces and piece.rows < BATCH_ROWS and piece.size < BATCH_BYTES:
            piece.extend(self._pieces.popleft())
        self._rows -= piece.rows
        self._bytes -= piece.size
        return piece
