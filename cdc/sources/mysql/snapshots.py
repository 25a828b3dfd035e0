"""Snapshots of a MySQL or MariaDB source that contain everything the stream has given out.

A commit is in the log before other sessions see it, and the stream reads the log: a plain SELECT may
lack what was streamed already, and bring back an old row.

- MariaDB tells of a consistent snapshot the exact place in the log that it stands at
  (`binlog_snapshot_file`, `binlog_snapshot_position`): no lock, no privilege. We open snapshots until
  one stands at or behind the log's end as it was before, which no stream can be beyond.
- MySQL calls a transaction executed after it is visible (`gtid_executed`; sql/binlog.cc,
  process_commit_stage_queue: the engine commits, then update_commit_group). We wait until everything
  that was given out is executed, then open the snapshot. A position read after that covers all that
  the snapshot shows: what is visible was in the log before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from appliers.errors import PermanentError, TransientError
from cdc.sources.mysql.connection import Connection, Server, log_end, one, rows
from cdc.sources.mysql.gtid import MariadbGtids, MysqlGtids
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.scanning import Connect, read_gtids_at

BEGIN: Final = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
VISIBLE_WITHIN: Final = 60.0
"""Seconds until a commit that is in the log has to be visible: semi-synchronous replication may hold
it back for as long as a replica is gone (10 s by default)."""

GAP_WITHIN: Final = 1.0
"""Seconds in which a gap between MySQL's commits is looked for."""

LOOK: Final = 0.001
ALIKE_TRIES: Final = 50

SWITCH_GTIDS_ON: Final = (
    "SET PERSIST enforce_gtid_consistency = ON; SET PERSIST gtid_mode = OFF_PERMISSIVE;"
    " SET PERSIST gtid_mode = ON_PERMISSIVE; /* wait until SHOW STATUS LIKE"
    " 'Ongoing_anonymous_transaction_count' is 0 */ SET PERSIST gtid_mode = ON; -- no restart is needed"
)
"""To be run as it stands. MySQL manual, "Enabling GTID Transactions Online"."""

Interrupted = Callable[[], bool]
"""Asked many times a second; ends a wait."""


def end_of_log(db: Connection, server: Server) -> BinlogPosition:
    """The log's end now, be it visible or not. Its GTIDs are those of what is visible (MySQL), or of
    at least what lies before it (MariaDB)."""
    found = log_end(db, server)
    file, offset = str(found["File"]), int(found["Position"])
    if server.flavour == "mysql":
        return BinlogPosition(file, offset, MysqlGtids.parse(found["Executed_Gtid_Set"] or ""))
    text = str(one(db, "SELECT @@GLOBAL.gtid_binlog_pos")[0] or "")
    return BinlogPosition(file, offset, MariadbGtids.parse(text))


def _visible_end(db: Connection, server: Server) -> BinlogPosition | None:
    """MySQL: the log's end, if all commits before it are visible, and so in its GTIDs."""
    before = end_of_log(db, server)
    # A commit that is in the log and not visible yet is owned until after it is.
    owned = one(db, "SELECT @@GLOBAL.gtid_owned")[0]
    return None if owned or end_of_log(db, server) != before else before


def start_of_stream(
    db: Connection, server: Server, connect: Connect, interrupted: Interrupted
) -> BinlogPosition:
    """A position for a stream to begin at: a transaction is behind it, or visible to every snapshot
    that `open_snapshot` opens later.

    MySQL: on a server whose commits leave no gap, one that is under way may be before it by file and
    offset, but not by the GTIDs, by which the stream asks for its transactions (16 of 200 ends of the
    log under 1,700 commits a second; none when waiting for a gap)."""
    if server.flavour == "mysql":
        require_gtids(db)
        until = time.monotonic() + GAP_WITHIN
        while (end := _visible_end(db, server)) is None and time.monotonic() < until:
            time.sleep(LOOK)
        return end or end_of_log(db, server)
    place = open_snapshot(db, server, None, interrupted)
    rows(db, "ROLLBACK")
    return BinlogPosition(place.file, place.offset, gtids_at(db, place, connect))


def gtids_at(db: Connection, place: BinlogPosition, connect: Connect) -> MariadbGtids | None:
    """MariaDB: the GTID position that a place in the log stands for; None if it is no place between
    two events there. The server reads the file up to there, or its index (11.4). It answers NULL for
    every place behind an event that is larger than max_allowed_packet, such as the update of a row of
    9 MB (measured on 10.11; sql/sql_repl.cc, gtid_state_from_pos): then the file is read here."""
    row = one(db, "SELECT BINLOG_GTID_POS(%s, %s)", (place.file, place.offset))
    if row[0] is None:
        return read_gtids_at(connect, place)
    return MariadbGtids.parse(str(row[0]))


def open_snapshot(
    db: Connection,
    server: Server,
    given: BinlogPosition | None,
    interrupted: Interrupted,
    commit: str | None = None,
) -> BinlogPosition:
    """Opens a transaction whose one snapshot has everything up to `given`, the last position that a
    stream of this source has given out, and `commit` (`Commit.position`), which may be behind it: a
    transaction that is given in pieces. Returns a position that covers everything it shows; MariaDB:
    exactly that. Raises TransientError when commits do not become visible, or when interrupted."""
    if server.flavour == "mysql":
        require_gtids(db)
        if given is not None and isinstance(given.gtids, MysqlGtids):
            wait_executed(db, given.gtids, interrupted)
        if commit is not None:
            wait_executed(db, MysqlGtids.parse(commit), interrupted)
        rows(db, BEGIN)
        return end_of_log(db, server)
    end = end_of_log(db, server)
    patience = _Patience(interrupted)
    while not (place := begin_at(db)).covers(end):
        rows(db, "ROLLBACK")
        patience.turn()
    return place


def open_alike(
    dbs: Sequence[Connection],
    server: Server,
    given: BinlogPosition | None,
    interrupted: Interrupted,
) -> list[BinlogPosition]:
    """`open_snapshot` on several connections, one snapshot for all of them where commits leave the
    time for it: so that a copy of parents and one of their children agree. Returns each one's
    position; equal ones are the same snapshot. No lock is taken to make them so."""
    least = open_snapshot(dbs[0], server, given, interrupted)
    for _ in range(ALIKE_TRIES):
        if server.flavour == "mysql":
            before = _visible_end(dbs[0], server)
            for db in dbs:
                rows(db, BEGIN)
            if before is not None and end_of_log(dbs[0], server) == before:
                return [before] * len(dbs)
        else:
            places = [begin_at(db) for db in dbs]
            if len(set(map(BinlogPosition.place, places))) == 1 and places[0].covers(least):
                return places
    # The first one's snapshot of before is gone with the tries.
    return [open_snapshot(db, server, given, interrupted) for db in dbs]


def begin_at(db: Connection) -> BinlogPosition:
    """MariaDB: opens a snapshot, and says where in the log it stands. The GTIDs are those of the log's
    end: at least what lies before that place."""
    rows(db, BEGIN)
    found = rows(db, "SHOW STATUS LIKE 'binlog_snapshot_%'")
    status = {str(name).lower(): str(value) for name, value in found}
    text = str(one(db, "SELECT @@GLOBAL.gtid_binlog_pos")[0] or "")
    return BinlogPosition(
        status["binlog_snapshot_file"],
        int(status["binlog_snapshot_position"]),
        MariadbGtids.parse(text),
    )


def wait_executed(db: Connection, gtids: MysqlGtids, interrupted: Interrupted) -> None:
    """MySQL: waits until these transactions are visible: moments."""
    patience = _Patience(interrupted)
    while True:
        executed = MysqlGtids.parse(str(one(db, "SELECT @@GLOBAL.gtid_executed")[0] or ""))
        if executed.contains(gtids):
            return
        patience.turn()


def require_gtids(db: Connection) -> None:
    """MySQL without GTIDs does not tell when a commit that is in the log has become visible. Raises
    PermanentError."""
    mode = str(one(db, "SELECT @@GLOBAL.gtid_mode")[0])
    if mode != "ON":
        raise PermanentError(
            f"source: gtid_mode is {mode}, expected ON: without it no copy could be exact",
            SWITCH_GTIDS_ON,
        )


class _Patience:
    """The turns of a wait for the source's commits."""

    def __init__(self, interrupted: Interrupted) -> None:
        self._interrupted = interrupted
        self._until = time.monotonic() + VISIBLE_WITHIN

    def turn(self) -> None:
        if self._interrupted():
            raise TransientError("source: the wait for the source's transactions was ended")
        if time.monotonic() > self._until:
            raise TransientError(
                f"source: commits that are in its log are not visible after {VISIBLE_WITHIN:.0f} s",
                "see in SHOW PROCESSLIST what they wait for; semi-synchronous replication whose"
                " replica is gone is one reason",
            )
        time.sleep(LOOK)
