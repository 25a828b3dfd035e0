"""What a PostgreSQL source's errors mean for a sync: one table, one hint each."""

from __future__ import annotations

import re
from typing import Final

import psycopg

from appliers.errors import PermanentError, SyncError, TransientError

_REPLICATION, _WALSENDERS, _OTHER, _TLS, _URL = "28REP", "53WAL", "08OTH", "08TLS", "08URL"
"""SQLSTATEs of our own, for what the server has none of that says enough."""

TRANSIENT: Final[dict[str, str]] = {
    "08": "check that the source can be reached",
    "57P": "the source is being stopped or started: nothing to do",
    "53300": "close connections to the source, or raise max_connections or the role's connection limit",
    "53400": "raise max_replication_slots on the source and restart it, or drop slots that nobody uses",
    _WALSENDERS: "raise max_wal_senders on the source and restart it",
    "53": "free disk or memory on the source",
    "55006": "another session uses the replication slot: end it, or wait until its connection times out",
    "40": "",
    "42703": "a table was altered just now: the sync begins again with its new shape",
    "42P01": "a table was dropped or renamed just now: the sync begins again with what is there",
    "55P03": "",
    "57014": "",
    "58030": "look into the source's log: it cannot read or write its files",
}
"""SQLSTATE, or its beginning, to hint. The longest match counts."""

PERMANENT: Final[dict[str, str]] = {
    "28P01": "correct the password, or the source's pg_hba.conf",
    "28": "let the role in: the source's pg_hba.conf, LOGIN and REPLICATION of the role",
    _REPLICATION: "ALTER ROLE … REPLICATION: `cdc check` prints it in full",
    "3D000": "correct the database's name in the URL",
    _OTHER: "correct host and port of the source's URL: what answers there is not PostgreSQL",
    _TLS: "correct sslmode or sslrootcert in the source's URL, or the server's certificate",
    _URL: "correct the options in the source's URL",
    "42501": "run `cdc check`: it prints the grants that are missing",
    "55000": "run `cdc check`: it says whether wal_level or the slot's lost log is the reason",
    "42704": "run `cdc check`; if the slot or publication was dropped, `cdc snapshot` copies everything again",
    "XX000": "the server cannot read its own log: update it; `cdc snapshot` copies everything again over a new slot",
    "22021": "the source holds text that is not in its encoding, or has none (SQL_ASCII): correct the row; if"
    " its log has it by now, `cdc snapshot` then copies everything again, over a new slot",
    "22P05": "the source holds a character that UTF-8 has none for: correct the row; if its log has it by now,"
    " `cdc snapshot` then copies everything again, over a new slot",
    "58P01": "the log is gone: `cdc snapshot` copies everything again; raise max_slot_wal_keep_size",
}

_CONNECT: Final = tuple(
    (re.compile(pattern), state)
    for pattern, state in (
        ("password authentication failed|no password supplied", "28P01"),
        ("no pg_hba.conf entry|authentication failed for user", "28000"),
        ('role ".*" (does not exist|is not permitted to log in)', "28000"),
        ('database ".*" does not exist', "3D000"),
        ('permission denied for database|role ".*" does not have CONNECT', "42501"),
        (
            "must be superuser or replication role|permission denied to start WAL sender",
            _REPLICATION,
        ),
        ("server does not support SSL|certificate", _TLS),
        (r"invalid \w+ value|^bad value for", _URL),
        ("the database system is", "57P03"),
        ("number of requested standby connections exceeds", _WALSENDERS),
        ("invalid response to SSL negotiation|expected authentication request", _OTHER),
        ("too many (clients|connections)|remaining connection slots", "53300"),
    )
)
"""libpq gives no SQLSTATE for a failed connection: what the server's text says (English, or the
server is asked again for ever, which is right for what may pass)."""


def translated(error: psycopg.Error) -> SyncError:
    """The error to raise for one of psycopg's; keeps the server's first line, which has no row values."""
    state = error.sqlstate
    text = _first_line(error)
    if state is None:
        state = next((s for pattern, s in _CONNECT if pattern.search(text)), None)
    if state is None:
        return TransientError(f"source: {text}", "check that the source is up and can be reached")
    for length in (5, 3, 2):
        if state[:length] in PERMANENT:
            return PermanentError(f"source: {text}", PERMANENT[state[:length]])
        if state[:length] in TRANSIENT:
            return TransientError(f"source: {text}", TRANSIENT[state[:length]])
    return PermanentError(f"source: {text} (SQLSTATE {state})", "look into the source's log")


def _first_line(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # A host with several addresses gives a line for each: that of a server that answered says more.
    return next((line for line in lines if "FATAL" in line), (lines or [type(error).__name__])[0])
