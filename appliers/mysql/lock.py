"""The sync's lock on the target."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Final

import pymysql

from appliers.errors import LockedError
from appliers.mysql.own import OwnTables
from appliers.mysql.session import Session

LOCK_SECONDS: Final = 3
"""How long the lock of a daemon that was killed may stay: the server lets go of it when its session
has ended the statement that it is at."""


_TAKEN: Final[dict[str, Session]] = {}
"""The sessions of this process that took a lock last, by the lock's name. The server keeps one whose
connection broke until it has ended its statement, or for wait_timeout where nobody told it."""


def take_lock(session: Session, own: OwnTables, sync: str, holder: str) -> None:
    """Takes the sync's lock until the session ends, and notes the holder's name. Raises LockedError
    with the name of its holder.

    GET_LOCK's names are the whole server's, of at most 64 characters, without regard to case (MySQL
    manual, "Locking Functions"). In a cluster they are one node's: there, and wherever the lock went
    with a connection that broke, the checkpoint's compare-and-set alone keeps two daemons apart.
    """
    name = lock_name(session.database, sync)
    if not _is_taken(session, name):
        number = session.value("SELECT IS_USED_LOCK(?)", (name,))
        named = own.holder(sync)
        raise LockedError(
            f"sync {sync} is already run by {named or 'a daemon that has just ended'}",
            "stop that daemon first; a sync is run by one daemon at a time; if its machine is gone,"
            f" KILL {number}; on the target ends its session",
            named or "",
        )
    _TAKEN[name] = session
    own.create()
    own.note_holder(sync, holder)


def _is_taken(session: Session, name: str) -> bool:
    former = _TAKEN.get(name)
    if former is not None and not former.is_open:
        number = session.value("SELECT IS_USED_LOCK(?)", (name,))
        if number == former.number:
            # Everybody may end their own sessions. That it has ended already is no error.
            with suppress(pymysql.err.OperationalError):
                session.execute(f"KILL {number}")
    return bool(session.value("SELECT GET_LOCK(?, ?)", (name, LOCK_SECONDS)) == 1)


def lock_name(database: str, sync: str) -> str:
    """Unlike for every database and sync, whatever their names are."""
    return "cdc-" + hashlib.sha256(f"{database}\0{sync}".encode()).hexdigest()[:40]
