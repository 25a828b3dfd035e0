"""The sync's lock and its replication origins on the target."""

from __future__ import annotations

import time
from typing import Final
from zlib import crc32

import psycopg

from appliers.errors import LockedError
from appliers.postgres.connection import Session

CLASS: Final = 0x63646331
"""The first of the two numbers of our advisory locks: "cdc1"."""

LOCK_SECONDS: Final = 5.0
"""How long the lock of a daemon that was killed may stay: its server process looks after its client
once a second (client_connection_check_interval) and then rolls back."""

APPLICATION_BYTES: Final = 63
"""What PostgreSQL keeps of an application_name."""

FUNCTIONS: Final = {
    "pg_replication_origin_create": "text",
    "pg_replication_origin_drop": "text",
    "pg_replication_origin_session_setup": "text",
    "pg_replication_origin_session_reset": "",
}


def application_name(sync: str, holder: str | None) -> str:
    """`cdc SYNC HOLDER`, with the sync's name cut rather than the holder's: others read the holder."""
    said = f" {holder}" if holder else ""
    room = max(APPLICATION_BYTES - len(f"cdc {said}".encode()), 8)
    return f"cdc {sync.encode()[:room].decode(errors='ignore')}{said}"


def take_lock(session: Session, sync: str) -> None:
    """Takes the sync's lock for the session. Raises LockedError with the name of its holder."""
    number = _number(sync)
    deadline = time.monotonic() + LOCK_SECONDS
    while not session.value("SELECT pg_catalog.pg_try_advisory_lock($1, $2)", (CLASS, number)):
        if time.monotonic() > deadline:
            holder = _holder(session, sync, number)
            raise LockedError(
                f"sync {sync} is already run by {holder}",
                "stop that daemon first; a sync is run by one daemon at a time",
                holder,
            )
        time.sleep(0.2)


def lock_creation(session: Session) -> None:
    """Keeps others from making the cdc_ tables until the transaction ends."""
    session.execute("SELECT pg_catalog.pg_advisory_xact_lock($1, $2)", (CLASS, 0))


def _holder(session: Session, sync: str, number: int) -> str:
    rows = session.rows(
        "SELECT a.application_name, a.pid FROM pg_catalog.pg_locks AS l"
        " JOIN pg_catalog.pg_stat_activity AS a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = $1::int8::oid"
        " AND l.objid = $2::int8::oid AND a.datname = pg_catalog.current_database()",
        (CLASS, number & 0xFFFFFFFF),
    )
    if not rows:
        return "a daemon that has just ended"
    name, pid = rows[0]
    mine = application_name(sync, None) + " "
    return str(name).removeprefix(mine) or f"server process {pid}"


def _number(sync: str) -> int:
    number = crc32(sync.encode())
    return number - 2**32 if number >= 2**31 else number


def origin_name(sync: str, fork: int = 0) -> str:
    """Forks have their own, because one session alone can use an origin. With a character that a
    sync's name cannot have: `cdc_a_1` would be the sync a_1's."""
    return f"cdc_{sync}/{fork}" if fork else f"cdc_{sync}"


def may_use_origins(session: Session) -> bool:
    return (
        session.value(
            "SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))"
            " FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = 'pg_catalog'::regnamespace"
            " AND p.proname::text = ANY ($1::text[])",
            (list(FUNCTIONS),),
        )
        is True
    )


def use_origin(session: Session, name: str) -> bool:
    """Marks the session's transactions with a replication origin; False where that is not possible."""
    if not may_use_origins(session):
        return False
    try:
        session.execute(
            "SELECT pg_catalog.pg_replication_origin_create($1) WHERE NOT EXISTS"
            " (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = $1)",
            (name,),
        )
        _set_up(session, name)
    except (psycopg.errors.ConfigurationLimitExceeded, psycopg.errors.ObjectNotInPrerequisiteState):
        # No room (max_replication_slots, max_active_replication_origins), or a standby.
        return False
    return True


def drop_origins(session: Session, sync: str) -> None:
    """Removes the origins of the sync and its forks, where the role may."""
    if not may_use_origins(session):
        return
    own = session.rows(
        "SELECT roname FROM pg_catalog.pg_replication_origin"
        " WHERE roname = $1 OR pg_catalog.starts_with(roname, $2)",
        (origin_name(sync), origin_name(sync) + "/"),
    )
    for (name,) in own:
        session.execute("SELECT pg_catalog.pg_replication_origin_drop($1)", (name,))


def _set_up(session: Session, name: str) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            session.execute("SELECT pg_catalog.pg_replication_origin_session_setup($1)", (name,))
        except psycopg.errors.ObjectInUse:
            # The session of a daemon that was killed still has it.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
