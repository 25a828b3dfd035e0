"""The GTID position of a place in MariaDB's log, found by reading the file up to there."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from cdc.sources.mysql import events
from cdc.sources.mysql.connection import Connection
from cdc.sources.mysql.dump import whole_log
from cdc.sources.mysql.gtid import MariadbGtids
from cdc.sources.mysql.position import BinlogPosition

Connect = Callable[[], Connection]

_FIRST: Final = 4
"""Where a file's first event begins."""
_WRAP: Final = 1 << 32
_COUNT: Final = (1 << 28) - 1
_gtid = struct.Struct("<IIQ").iter_unpack


def read_gtids_at(connect: Connect, place: BinlogPosition) -> MariadbGtids | None:
    """The last GTID of each domain before `place`; None if no event ends there, or the file does before.
    Takes as long as the server takes to send the file. Raises what a dump raises.

    A file begins with the GTIDs before it (GTID_LIST: MariaDB, sql/log_event_server.cc,
    `Gtid_list_log_event`: a count of 28 bits, then domain, server and number of each).
    """
    known = MariadbGtids()
    high = low = 0
    for data in whole_log(connect, BinlogPosition(place.file, _FIRST), "cdc"):
        _, kind, server, _, end, _ = events.read_header(data)
        if not end:
            continue  # it stands in no file
        if kind == events.GTID_LIST:
            count = int.from_bytes(data[events.HEADER : events.HEADER + 4], "little") & _COUNT
            at = events.HEADER + 4
            for domain, of, number in _gtid(data[at : at + 16 * count]):
                known.add(domain, of, number)
        elif kind == events.MARIADB_GTID:
            number, domain, _ = events.read_mariadb_gtid(data[events.HEADER :])
            known.add(domain, server, number)
        # The header has the low 32 bits.
        high += _WRAP if end + _WRAP // 2 < low else 0
        low = end
        if high + low >= place.offset:
            return known if high + low == place.offset else None
    return None
