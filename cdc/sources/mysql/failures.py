"""What a MySQL or MariaDB source's errors mean for a sync: one table, one hint each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pymysql

from appliers.errors import PermanentError, SyncError, TransientError
from appliers.mysql_url import refuses_tls

NO_BINLOG: Final = 1381
NO_SUCH_TABLE: Final = 1146
TABLE_CHANGED: Final = 1412
"""The table was altered after the snapshot that reads it (ER_TABLE_DEF_CHANGED)."""
UNKNOWN_INDEX: Final = 1176
DENIED: Final = frozenset({1044, 1142, 1143, 1227, 1370})

_BUSY = (
    "close connections to the source, or raise max_connections or the user's limit; it is tried again"
    " until there is room"
)
_STOPPING = "the source is being stopped or started: nothing to do"
_GRANTS = "run `cdc check`: it prints the grants that are missing"
_LET_IN = "correct the password or the user's host: CREATE USER and ALTER USER on the source"
_SPACE = "free disk or memory on the source; it is tried again until there is some"
_FILES = "the source has trouble with its files: look into its log"
_LOST = "check that the source is up and can be reached"

NO_EVENT: Final = 1220

TRANSIENT: Final[dict[int, str]] = {
    **dict.fromkeys((2002, 2003, 2005, 2006, 2012, 2013, 2055, 1158, 1159, 1160, 1161), _LOST),
    **dict.fromkeys((1040, 1203, 1226, 1135), _BUSY),
    **dict.fromkeys((1053, 1077, 1079, 1080, 3168), _STOPPING),
    3032: "SET GLOBAL offline_mode = OFF; on the source; it is tried again until it is",
    **dict.fromkeys((1021, 1037, 1038, 1041, 1114, 20), _SPACE),
    # Queries may need files of their own, to sort or to gather.
    **dict.fromkeys((1, 2, 3, 4, 5, 6, 9, 29, 1004, 1016, 1023, 1026, 1030), _FILES),
    1129: "the source refuses this host after too many failed connections: FLUSH HOSTS",
    1054: "a table was altered just now: the sync begins again with its new shape",
    NO_SUCH_TABLE: "a table was dropped or renamed just now: the sync begins again with what is there",
    TABLE_CHANGED: "a table was altered just now: the sync begins again with its new shape",
    UNKNOWN_INDEX: "a table was altered just now: the sync begins again with its new shape",
    1205: "end what locks the table on the source: SHOW PROCESSLIST shows it",
    1213: "",
    1317: "",
    1028: "",
    1927: "the connection was killed on the source",
    3169: "the connection was killed on the source",
    4031: "the source ended an idle connection",
    1969: "",
    3024: "",
}
"""Error numbers of the servers (MySQL Server Error Message Reference; MariaDB Error Codes) and of the
client (2000 to 2999) to hints."""

PERMANENT: Final[dict[int, str]] = {
    **dict.fromkeys((1045, 1130, 1698, 1862, 1820, 3118, 4151, 1251, 2059, 1449), _LET_IN),
    **dict.fromkeys(DENIED, _GRANTS),
    1049: "correct the database's name in the URL",
    NO_BINLOG: "switch the binary log on: log_bin in the source's configuration, and restart it",
    1236: "run `cdc check`; if the log is gone, `cdc snapshot` copies everything again",
    1373: "the log is gone: `cdc snapshot` copies everything again",
    2026: "correct ssl-mode, ssl-ca, ssl-cert or ssl-key in the URL, or the source's certificate",
    3159: "the source takes encrypted connections only: ssl-mode=required in the URL",
}


_NO_ROOM: Final = re.compile(r"(?:errno|Errcode|error):? 28\b")
"""ENOSPC, in the text of an error about a file."""


_NO_DATABASE: Final = re.compile(r"^Access denied for user ('.*'@'.*') to database '(.*)'$")
_SEE_DATABASE: Final = (
    "GRANT SELECT ON `{1}`.* TO {0}; -- or correct the database's name in the URL"
)
"""Somebody who may do nothing in a database is not told whether it is there."""


class NoEventError(PermanentError):
    """No event begins at a place of the log (ER_ERROR_WHEN_EXECUTING_COMMAND of SHOW BINLOG EVENTS)."""


class TableAlteredError(TransientError):
    """A table was altered after the snapshot that reads it: it can only be read under a later one."""


def code_of(error: pymysql.Error) -> int:
    """The error's number; 0 where it has none."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def translated(error: pymysql.Error) -> SyncError:
    """The error to raise for one of PyMySQL's. The server's text is kept for the errors of the table
    alone, which have no values of rows in it."""
    code = code_of(error)
    text = str(error.args[1]) if len(error.args) > 1 else ""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if found := _NO_DATABASE.search(first):
        return PermanentError(f"source: {first}", _SEE_DATABASE.format(*found.groups()))
    if refuses_tls(error):
        code = 2026
    if code == TABLE_CHANGED:
        return TableAlteredError(f"source: {first}", TRANSIENT[code])
    if code == NO_EVENT:
        return NoEventError(f"source: {first}", "look into the source's log")
    if code in PERMANENT:
        return PermanentError(f"source: {first}", PERMANENT[code])
    if code in TRANSIENT:
        hint = _SPACE if _NO_ROOM.search(first) else TRANSIENT[code]
        return TransientError(f"source: {first}", hint)
    if code == 0 or isinstance(error, pymysql.InterfaceError):
        return TransientError("source: the connection is lost", _LOST)
    if isinstance(error, pymysql.InternalError) and not first:
        return TransientError("source: the server's reply cannot be read", _LOST)
    return PermanentError(f"source: error {code} of the server", "look into the source's log")


@contextmanager
def translating() -> Iterator[None]:
    """Turns what PyMySQL raises into transient and permanent errors."""
    try:
        yield
    except pymysql.Error as e:
        raise translated(e) from e
