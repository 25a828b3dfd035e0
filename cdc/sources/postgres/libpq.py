"""libpq's own functions, for the C that takes messages without an object of psycopg's for each."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Final

from psycopg import pq

from appliers.extension import extension
from cdc.sources.postgres.messages import Addresses, Get

_NAMES: Final = ("PQgetCopyData", "PQfreemem")


def messages_of(conn: pq.abc.PGconn) -> Get | Addresses:
    """What `take` gets a walsender's messages from: of a connection that is open, libpq itself, where
    that can be; else psycopg, which refuses a closed one. To be asked for at each `take`: what is given
    does not outlive the connection.

    Measured for transactions of one row, three messages each: 1.0 µs of CPU where psycopg's tuple and
    memoryview for each message make it 1.4.
    """
    functions, address = _functions(), getattr(conn, "pgconn_ptr", None)
    if functions is None or address is None:
        return conn.get_copy_data
    return (*functions, address)


@cache
def _functions() -> tuple[int, int] | None:
    """Addresses in the libpq that psycopg's C is linked to, wherever that is: a look-up by way of a
    library goes on in those that it needs (dlsym(3)). None with psycopg's Python, or without our C."""
    if extension("cdc.sources.postgres._messages", "take") is None or pq.__impl__ == "python":
        return None
    try:
        library = ctypes.CDLL(sys.modules[pq.PGconn.__module__].__file__)
        first, second = (ctypes.cast(library[n], ctypes.c_void_p).value for n in _NAMES)
    except (OSError, AttributeError):
        return None
    return (first, second) if first and second else None
