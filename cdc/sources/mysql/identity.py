"""Whether a source is the one that a checkpoint was made on, and still has the log behind it."""

from __future__ import annotations

import json
import re
import time
from typing import Final

from appliers.errors import PermanentError, SyncError
from cdc.sources.mysql.connection import Connection, Server, one, rows, server_of, variables
from cdc.sources.mysql.failures import NoEventError
from cdc.sources.mysql.gtid import MariadbGtids, MysqlGtids
from cdc.sources.mysql.position import LOG_BEGIN, BinlogPosition
from cdc.sources.mysql.scanning import Connect
from cdc.sources.mysql.snapshots import end_of_log, gtids_at
from cdc.sources.source import GapError

NEW_SNAPSHOT: Final = (
    "`cdc snapshot {}` accepts the gap: it copies every table again and goes on from there"
)
KEEP_LONGER: Final = "keep the log longer: raise binlog_expire_logs_seconds on the source"

REQUIRED: Final = {
    "binlog_format": (
        "ROW",
        "SET GLOBAL binlog_format = ROW; -- and in its configuration; sessions that are open keep theirs",
    ),
    "binlog_row_metadata": (
        "FULL",
        "SET GLOBAL binlog_row_metadata = FULL; -- and in its configuration",
    ),
}
"""Settings without which the log has no rows, or no names of columns, and what sets them: to be run as
it stands, which is why words are comments."""

NUMBER: Final = "SET GLOBAL server_id = 1; -- or another number, and in its configuration"
"""A server without one refuses whoever wants its log (sql/rpl_binlog_sender.cc)."""

UNLOGGED: Final = "it is a replica with {} = OFF: what it replicates is not in its log"
LOG_UPDATES: Final = (
    "use the primary's address, or set {} = ON in its configuration, and restart it"
)

_GTID: Final = re.compile(r"GTID_NEXT= ?'([^']+)'", re.IGNORECASE)
_INSIDE: Final = frozenset(
    "Query Table_map Write_rows Update_rows Update_rows_partial Delete_rows Rows_query Xid XA_prepare"
    " Transaction_payload Intvar RAND User_var".split()
)
"""Kinds of events that only stand behind a GTID event (sql/log_event.cc, get_type_str)."""

COMMITTED_WITHIN: Final = 5.0
"""Seconds in which MySQL calls executed what its log already has."""


def require_log(db: Connection) -> None:
    """Raises PermanentError for a source whose log has not what a sync needs."""
    found = variables(db, "log_bin", "server_id", *REQUIRED)
    if found.get("log_bin") != "ON":
        raise PermanentError(
            "source: its binary log is off",
            "log_bin = binlog in the source's configuration, and restart it",
        )
    if found.get("server_id") == "0":
        raise PermanentError("source: server_id is 0", NUMBER)
    for name, (wanted, remedy) in REQUIRED.items():
        if name in found and found[name].upper() != wanted:
            raise PermanentError(f"source: {name} is {found[name]}, expected {wanted}", remedy)
    if (setting := unlogged_replica(db)) is not None:
        raise PermanentError(f"source: {UNLOGGED.format(setting)}", LOG_UPDATES.format(setting))


def unlogged_replica(db: Connection) -> str | None:
    """The setting by which a replica leaves what it replicates out of its own log, if this server is
    such a one: its log would be all but empty. None too where the user may not ask (MariaDB: SLAVE
    MONITOR)."""
    found = variables(db, "log_slave_updates", "log_replica_updates")
    off = [name for name, value in found.items() if value == "OFF"]
    if not off:
        return None
    mariadb = server_of(db).flavour == "mariadb"
    try:
        sources = rows(db, "SHOW ALL SLAVES STATUS" if mariadb else "SHOW REPLICA STATUS")
    except SyncError:
        return None
    return off[0] if sources else None


def identify(db: Connection, server: Server, database: str) -> str:
    """The identity that the checkpoint carries, as JSON. MySQL has a UUID per data directory; MariaDB
    has only the number that its configuration gives it, so that there the log itself has to tell."""
    found = variables(db, "server_uuid", "server_id")
    known = {"flavour": server.flavour, "database": database}
    if server.flavour == "mysql":
        return json.dumps(known | {"server_uuid": found.get("server_uuid", "")})
    return json.dumps(known | {"server_id": int(found.get("server_id", 0))})


def verify_identity(
    db: Connection,
    server: Server,
    connect: Connect,
    database: str,
    known: str,
    position: BinlogPosition,
) -> None:
    """Refuses a source that is not the one the checkpoint was made on. Raises PermanentError.

    A MariaDB server whose number was changed is the same if its log says of the checkpoint's place
    what the checkpoint does."""
    then, now = json.loads(known), json.loads(identify(db, server, database))
    if then == now:
        return
    renumbered = {**then, "server_id": None} == {**now, "server_id": None}
    if server.flavour == "mariadb" and renumbered and position.gtids and str(position.gtids):
        found = gtids_at(db, position, connect) if _size(db, position.file) is not None else None
        if _alike(found, position):
            return
    raise PermanentError(
        f"the source is not the one this sync was started on: expected {_shown(then)}, got {_shown(now)}",
        "correct the source's URL, or `cdc drop` the sync and start it anew",
    )


def verify_log(
    db: Connection, server: Server, connect: Connect, position: BinlogPosition, sync: str
) -> None:
    """Refuses to go on if the log cannot give everything behind the checkpoint, or the server has
    lost what the checkpoint has. Raises GapError."""
    if server.flavour == "mysql":
        _verify_gtids(db, position, sync)
        _verify_border(db, server, position, sync)
    else:
        _verify_place(db, server, connect, position, sync)


def _verify_gtids(db: Connection, position: BinlogPosition, sync: str) -> None:
    way_out = NEW_SNAPSHOT.format(sync)
    known = position.gtids
    if not isinstance(known, MysqlGtids):
        raise GapError("the checkpoint has no GTIDs, by which this source's log is read", way_out)
    until = time.monotonic() + COMMITTED_WITHIN
    while True:
        purged_text, executed_text = one(db, "SELECT @@GLOBAL.gtid_purged, @@GLOBAL.gtid_executed")
        if MysqlGtids.parse(executed_text).contains(known):
            break
        if time.monotonic() > until:
            (lost,) = one(db, "SELECT GTID_SUBTRACT(%s, @@GLOBAL.gtid_executed)", (str(known),))
            raise GapError(
                f"the source does not have transactions {_short(lost)} of the checkpoint: it was restored from"
                " a backup, or its log was reset; the target may have changes that the source has lost",
                way_out + ", if this source is the right one",
            )
        time.sleep(0.05)
    if not known.contains(MysqlGtids.parse(purged_text)):
        (gone,) = one(db, "SELECT GTID_SUBTRACT(@@GLOBAL.gtid_purged, %s)", (str(known),))
        raise GapError(
            f"transactions {_short(gone)} are purged from the source's log: changes since {position.file}:"
            f"{position.offset} are lost",
            f"{way_out}; {KEEP_LONGER}",
        )


def _verify_border(db: Connection, server: Server, position: BinlogPosition, sync: str) -> None:
    """MySQL: GTIDs begin at 1 again when a log is reset, and a backup of the same server goes on with
    numbers that the checkpoint has seen; sooner or later there are as many as before. But in another
    history no transaction ends just where the checkpoint is, or the next is one that the checkpoint has."""
    size = _size(db, position.file)
    if size is None or size <= position.offset:
        if not end_of_log(db, server).covers(position):
            raise _another_log(position, f"the log ends before {position.file} does", sync)
        return  # its file is purged, and what follows it is not, or it ends with its file
    try:
        event = one(
            db,
            f"SHOW BINLOG EVENTS IN %s FROM {position.offset} LIMIT 1",
            (position.file,),
        )
    except NoEventError as e:
        raise _another_log(position, "no transaction ends there", sync) from e
    kind, info = str(event[2]), str(event[5])
    gtid = _GTID.search(info)
    known = position.gtids
    if gtid is not None and known is not None and known.holds(gtid[1]):
        raise _another_log(position, f"{gtid[1]} stands behind it", sync)
    if gtid is None and kind in _INSIDE:
        raise _another_log(position, "it stands in the middle of a transaction", sync)


def _another_log(position: BinlogPosition, found: str, sync: str) -> GapError:
    return GapError(
        f"the source's log is another one than the checkpoint's at {position.file}:{position.offset}: {found};"
        " it was restored from a backup, or its log was reset",
        NEW_SNAPSHOT.format(sync) + ", if this source is the right one",
    )


def _verify_place(
    db: Connection, server: Server, connect: Connect, position: BinlogPosition, sync: str
) -> None:
    """MariaDB: the log has to be there at the checkpoint's place, and to be the same one."""
    way_out = NEW_SNAPSHOT.format(sync)
    head = end_of_log(db, server)
    place = f"{position.file}:{position.offset}"
    if not head.covers(BinlogPosition(position.file, position.offset)):
        raise GapError(
            f"the source's log ends at {head.file}:{head.offset}, before the checkpoint {place}: it was restored"
            " from a backup, or its log was reset",
            way_out + ", if this source is the right one",
        )
    size = _size(db, position.file)
    if size is None:
        oldest = BinlogPosition(files(db)[0][0], LOG_BEGIN)
        if _alike(gtids_at(db, oldest, connect), position):
            return  # what is gone is nothing that the checkpoint has not
        raise GapError(
            f"{position.file} is purged from the source's log: changes since {place} are lost",
            f"{way_out}; {KEEP_LONGER}",
        )
    found = gtids_at(db, position, connect) if position.offset <= size else None
    if not _alike(found, position):
        has = "no transaction ends there" if found is None else f"GTID position {found}"
        raise GapError(
            f"the source's log is another one than the checkpoint's: expected GTID position"
            f" {position.gtids} at {place}, got {has}; it was restored from a backup, or its log was reset",
            way_out + ", if this source is the right one",
        )


def _alike(found: MariadbGtids | None, position: BinlogPosition) -> bool:
    """Whether the log says of a place what the checkpoint does. It may have forgotten domains whose
    transactions are purged (FLUSH BINARY LOGS DELETE_DOMAIN_ID), but not all: the others' numbers at
    just this place are those of no other log."""
    known = position.gtids.last if isinstance(position.gtids, MariadbGtids) else {}
    if found is None or bool(found.last) is not bool(known):
        return False
    return found.last == {d: last for d, last in known.items() if d in found.last}


def files(db: Connection) -> tuple[tuple[str, int], ...]:
    """The log's files and their sizes, oldest first."""
    return tuple((str(r[0]), int(r[1])) for r in rows(db, "SHOW BINARY LOGS"))


def _size(db: Connection, file: str) -> int | None:
    return dict(files(db)).get(file)


def _short(gtids: str) -> str:
    text = "".join(str(gtids).split())
    return text if len(text) <= 200 else f"{text[:200]}…"


def _shown(identity: dict[str, object]) -> str:
    return " ".join(f"{name} {value}" for name, value in identity.items())
