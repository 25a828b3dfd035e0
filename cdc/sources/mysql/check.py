"""Preflight of a MySQL or MariaDB source: every setting, grant and table that a sync depends on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from appliers.errors import PermanentError, SyncError
from appliers.finding import Finding
from appliers.relation import Relation
from cdc.sources.mysql.connection import (
    Connection,
    Server,
    one,
    quoted,
    rows,
    variables,
)
from cdc.sources.mysql.filters import filters
from cdc.sources.mysql.grants import ALL, Grants, account
from cdc.sources.mysql.identity import (
    LOG_UPDATES,
    NUMBER,
    REQUIRED,
    UNLOGGED,
    unlogged_replica,
)
from cdc.sources.mysql.snapshots import SWITCH_GTIDS_ON

SHORTEST_LOG: Final = 86400
"""Seconds that the log should be kept at least: a sync that stands longer has to begin anew."""

SETTINGS: Final = (
    *("log_bin", "server_id", "binlog_row_image", "gtid_mode", "binlog_row_value_options"),
    *("binlog_expire_logs_seconds", "expire_logs_days", "sync_binlog", "max_connections"),
    *("innodb_flush_log_at_trx_commit", *REQUIRED),
)

_FOREIGN_KEY: Final = re.compile(r"^ *CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY (.*)$", re.MULTILINE)
_NAME: Final = re.compile(r"`(?:[^`]|``)*`")
_ACTS: Final = re.compile(r" ON (?:DELETE|UPDATE) (?:CASCADE|SET NULL|SET DEFAULT)\b")

DUMPS: Final = frozenset({"REPLICATION SLAVE", "REPLICATION REPLICA"})
MONITORS: Final = frozenset({"REPLICATION CLIENT", "BINLOG MONITOR", "SUPER"})


def check(db: Connection, server: Server, relations: Sequence[Relation]) -> Iterator[Finding]:
    """The findings, each FAILED with the statement that mends it."""
    found = variables(db, *SETTINGS)
    yield Finding("ok", "server", f"{server.product} {server.text.removeprefix('5.5.5-')}")
    yield _log(found)
    for name, (wanted, remedy) in REQUIRED.items():
        yield _required(name, wanted, remedy, found)
    if (setting := unlogged_replica(db)) is not None:
        yield Finding("FAILED", setting, UNLOGGED.format(setting), LOG_UPDATES.format(setting))
    yield from _images(found)
    yield _numbered(server, found)
    yield from _expiry(found)
    yield from _filters(db, server, relations)
    yield from _grants(db, server, relations)
    if not _logs_cascades(db, server):
        yield from _cascades(db, server, relations)
    for relation in relations:
        yield _readable(db, relation)


def _log(found: Mapping[str, str]) -> Finding:
    if found.get("log_bin") != "ON":
        remedy = "log_bin = binlog in the source's configuration, and restart it"
        return Finding("FAILED", "log_bin", "is OFF, expected ON", remedy)
    if found.get("server_id", "0") == "0":
        return Finding("FAILED", "server_id", "is 0", NUMBER)
    return Finding("ok", "log_bin", "ON")


def _required(name: str, wanted: str, remedy: str, found: Mapping[str, str]) -> Finding:
    value = found.get(name)
    if value is None or value.upper() == wanted:
        return Finding("ok", name, wanted)
    return Finding("FAILED", name, f"is {value}, expected {wanted}", remedy)


def _images(found: Mapping[str, str]) -> Iterator[Finding]:
    image = found.get("binlog_row_image", "FULL").upper()
    if image.startswith("FULL"):
        yield Finding("ok", "binlog_row_image", image)
    else:
        yield Finding(
            "warn",
            "binlog_row_image",
            f"is {image}: rows whose INSERT leaves columns out are read again from the source, because the log"
            " does not say what they became; and deletes name their customer only by the key",
            "SET GLOBAL binlog_row_image = FULL;",
        )
    if found.get("binlog_row_value_options"):
        yield Finding(
            "warn",
            "binlog_row_value_options",
            f"is {found['binlog_row_value_options']}: parts of JSON values are read more slowly than whole ones",
            "SET GLOBAL binlog_row_value_options = '';",
        )


def _numbered(server: Server, found: Mapping[str, str]) -> Finding:
    if server.flavour == "mariadb":
        return Finding("ok", "GTIDs", "on")
    mode = found.get("gtid_mode", "OFF")
    if mode == "ON":
        return Finding("ok", "gtid_mode", "ON")
    return Finding("FAILED", "gtid_mode", f"is {mode}, expected ON", SWITCH_GTIDS_ON)


def _expiry(found: Mapping[str, str]) -> Iterator[Finding]:
    """How long the server keeps its log: 0 is for ever."""
    seconds = int(float(found.get("binlog_expire_logs_seconds", "0")))
    if not seconds:
        seconds = int(float(found.get("expire_logs_days", "0")) * 86400)
    if not seconds:
        yield Finding("ok", "binlog_expire_logs_seconds", "0: the source keeps its log for ever")
    elif seconds < SHORTEST_LOG:
        yield Finding(
            "warn",
            "binlog_expire_logs_seconds",
            f"is {seconds}: a sync that stands longer than that has to copy everything again",
            "SET GLOBAL binlog_expire_logs_seconds = 604800; -- or what the disk can spare",
        )
    else:
        yield Finding("ok", "binlog_expire_logs_seconds", f"{seconds} ({seconds / 86400:.1f} days)")


def _filters(db: Connection, server: Server, relations: Sequence[Relation]) -> Iterator[Finding]:
    for found in filters(db, server):
        hidden = [r.table for r in relations if found.hides(r.schema)]
        which = (
            "other than these databases" if found.option == "binlog_do_db" else "these databases"
        )
        message = f"is {found.databases}: changes of {which} are not in the log"
        if hidden:
            message += f", those of {', '.join(hidden)} among them"
        yield Finding("FAILED" if hidden else "warn", found.option, message, found.remedy)


def _grants(db: Connection, server: Server, relations: Sequence[Relation]) -> Iterator[Finding]:
    """The privileges of the whole server and of databases. Those on tables are tried out."""
    user = str(one(db, "SELECT CURRENT_USER()")[0])
    grants = Grants(db, server)
    everywhere = grants.everywhere()
    monitor = "BINLOG MONITOR" if server.flavour == "mariadb" else "REPLICATION CLIENT"
    for subject, accepted in (("REPLICATION SLAVE", DUMPS), (monitor, MONITORS)):
        if everywhere & (accepted | {ALL}):
            yield Finding("ok", f"grant {subject}", f"{user} has it")
        else:
            yield Finding(
                "FAILED",
                f"grant {subject}",
                f"{user} does not have it",
                f"GRANT {subject} ON *.* TO {account(user)};",
            )
    blind = {r.schema for r in relations if not grants.may({"TRIGGER"}, r.schema, "*")}
    if relations and not blind:
        yield Finding("ok", "grant TRIGGER", f"{user} has it")
    for schema in sorted(blind):
        yield Finding(
            "warn",
            "grant TRIGGER",
            f"{user} does not have it on {schema}: a statement that a session writes there in statement"
            " format stops the sync, because its table may have triggers that write others",
            f"GRANT TRIGGER ON {quoted(schema)}.* TO {account(user)};",
        )


def _readable(db: Connection, relation: Relation) -> Finding:
    subject = f"table {relation.table}"
    # The columns that may not be read are not among those that are known; invisible ones are not in *.
    columns = ", ".join(quoted(c.name) for c in relation.columns)
    try:
        rows(db, f"SELECT *, {columns} FROM {quoted(relation.schema, relation.name)} LIMIT 0")
    except SyncError:
        user = str(one(db, "SELECT CURRENT_USER()")[0])
        table = quoted(relation.schema, relation.name)
        return Finding(
            "FAILED",
            subject,
            f"{user} may not read it, or not all of its columns",
            f"GRANT SELECT ON {table} TO {account(user)};",
        )
    return Finding("ok", subject, f"key {', '.join(relation.key_names)}")


def _logs_cascades(db: Connection, server: Server) -> bool:
    """Whether the server's log has what foreign keys do to the rows of their table. Where the engine
    does it, it has not: MariaDB (manual, "Foreign Keys", MDEV-12453), MySQL before 9.6, and later if
    it is told so (manual, "Replication and Foreign Keys": innodb_native_foreign_keys)."""
    if server.flavour == "mariadb" or server.version < (9, 6, 0):
        return False
    native = variables(db, "innodb_native_foreign_keys").get("innodb_native_foreign_keys", "OFF")
    return native == "OFF"


def _cascades(db: Connection, server: Server, relations: Sequence[Relation]) -> Iterator[Finding]:
    """Read from the tables' definitions: MariaDB's information_schema hides foreign keys from a user that
    may only SELECT, as a sync's user does (measured on 10.11)."""
    for relation in relations:
        table = quoted(relation.schema, relation.name)
        try:
            _, definition = one(db, f"SHOW CREATE TABLE {table}")
        except PermanentError:
            continue  # it may not be read at all, which is said
        for name, what in _FOREIGN_KEY.findall(str(definition)):
            rules = "".join(_ACTS.findall(_NAME.sub("``", what)))
            if not rules:
                continue
            yield Finding(
                "warn",
                f"table {relation.table}",
                f"foreign key {name.replace('``', '`')} is{rules}: rows that it deletes or changes are not in"
                f" {server.product}'s log",
                f"ALTER TABLE {table} DROP FOREIGN KEY `{name}`; -- and add it without; or let the"
                " target's own foreign key do the same (SQLite's do not)",
            )
