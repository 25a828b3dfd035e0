"""How a walsender's socket is read, which decides how fast a backlog is.

`get_copy_data(1)` until there is nothing, then a wait for the socket, then `consume_input` gave 140,000
messages a second where a blocking `get_copy_data(0)` gave 98,000 to 108,000: a reader that wakes for
every message makes the walsender send every message alone.
"""

from __future__ import annotations

import select
import time
from typing import Final

from psycopg import pq

REST: Final = 0.024
"""Seconds that a reader which is behind lets the socket fill before it looks again. One that is in
`poll` is woken, by the walsender, for every message, and while the socket's window is open each goes
through the whole of TCP alone; once it is full, they are only put behind each other. Measured on
100,000 one-row transactions, medians of 8 and 9 in turns: 87,600 rows a second with 5 ms, 123,800 with 8,
132,000 to 137,000 with 16, 137,500 with 24, 136,700 with 32; the walsender takes 10.6 µs of CPU a row with
5 ms, 7.7 with 8, 6.8 to 7.0 with 16, 6.6 with 24."""

LOOK: Final = 0.002
"""Seconds after which a rest ends if nothing has come: the end of a backlog is not to be waited for."""

MUCH: Final = 1 << 13
"""Bytes read at once, of the 16 kB that libpq has room for (fe-connect.c, `inBufSize`), behind which
there is more. Where there is less the socket is empty, and a reader that looks again at once finds a
message or two, again and again, as fast as the walsender sends them. Measured on 100,000 one-row
transactions: the reader takes 0.9 µs of CPU a row where it took 1.5 to 2.1, the whole way 134,500 rows
a second where it was 124,900 (medians of 9, in turns)."""

RECORDS: Final = 128
FEW_RECORDS: Final = 16
MUCH_TLS: Final = 1 << 12
"""OpenSSL reads one record at a time, and the walsender makes one of each message: in a backlog libpq reads
so many before any is taken, as long as the socket holds something, of which it is asked after some. At
the least so many come to MUCH_TLS; at the most, of 16 kB each, to 2 MB. Measured on 100,000 one-row
transactions over TLS: the reader takes 8 µs of CPU a row where it took 22, the whole way 67,000 rows a
second where it was 40,000; PostgreSQL's subscription made 43,000."""

DOUBLINGS: Final = 3
"""How often libpq's 16 kB are doubled, once, in a backlog: libpq makes room where it is asked to read on
before anything was taken (fe-misc.c, pqReadData), and keeps it. Each turn of ours is for 128 kB then.
Measured on 100,000 one-row transactions: the reader takes 0.75 µs of CPU a row where it took 1.15, the
whole way 133,800 rows a second where it was 121,800 (medians of 6, in turns)."""


class Intake:
    """Has libpq read what the socket holds. Whoever takes the messages tells how many bytes they were."""

    def __init__(self, conn: pq.abc.PGconn) -> None:
        self._conn = conn
        self._poll = select.poll()
        self._poll.register(conn.socket, select.POLLIN)
        self._tls = conn.ssl_in_use
        self._much = MUCH_TLS if self._tls else MUCH
        self._doublings = DOUBLINGS

    def read(self, *, backlog: bool) -> None:
        """Reads what is there, or some of it. Raises psycopg.OperationalError."""
        self._conn.consume_input()
        if self._tls and backlog:
            records = 1
            while records < RECORDS and self._poll.poll(0):
                for _ in range(FEW_RECORDS):
                    self._conn.consume_input()
                records += FEW_RECORDS

    def had_more(self, took: int) -> bool:
        """Whether there was more to read behind what has come to so many bytes."""
        return took >= self._much

    def wait(self, seconds: float) -> bool:
        """Whether the socket holds something, after at most so many seconds."""
        return bool(self._poll.poll(int(seconds * 1000 + 0.999)))

    def rest(self, *, long: bool) -> None:
        """Lets the socket fill. Raises psycopg.OperationalError."""
        time.sleep(LOOK)
        if long and self._poll.poll(0):
            time.sleep(REST - LOOK)
            for _ in range(self._doublings):
                self._conn.consume_input()
            self._doublings = 0
