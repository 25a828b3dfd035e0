"""The thread that reads the source's log and keeps its connection alive."""

from __future__ import annotations

import threading

from appliers import faults
from cdc.mailbox import Mailbox
from cdc.sources.source import Position, Stream

WAIT = 0.25
"""Seconds that the reader waits for the log before it looks at what it has to confirm."""


class Reader(threading.Thread):
    """Reads a stream into a mailbox until it is stopped or the stream fails.

    Invariant: what is confirmed to the source is only what `durable` was given, which the applier
    has called durable on the target. So the source never forgets what a crash of the target could
    still take back.
    """

    def __init__(self, stream: Stream, mailbox: Mailbox) -> None:
        super().__init__(name="reader", daemon=True)
        self._stream = stream
        self._mailbox = mailbox
        self._durable: Position | None = None
        self._told: Position | None = None
        self._stopped = False

    def durable(self, position: Position) -> None:
        """To be confirmed to the source with the next turn."""
        self._durable = position

    def stop(self) -> None:
        """Ends the stream, confirming what is durable first."""
        self._stopped = True
        self._mailbox.close()
        if self.is_alive():
            self.join(5)

    def run(self) -> None:
        try:
            while not self._stopped:
                events = self._stream.read(WAIT)
                self._keepalive()
                if events and not self._mailbox.put(
                    events, behind=self._stream.behind, waiting=self._keepalive
                ):
                    break
            self._keepalive()
        except BaseException as e:  # noqa: BLE001 - raised again by the thread that waits
            self._mailbox.fail(e)
        finally:
            self._stream.close()

    def _keepalive(self) -> None:
        durable = self._durable
        confirms = durable is not None and durable is not self._told
        if confirms and durable is not None:
            self._stream.confirm(durable)
            self._told = durable
        self._stream.keepalive()
        if confirms:
            faults.point("position-confirmed")
