"""What a sync into a MySQL or MariaDB target depends on, before it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import pymysql

from appliers.errors import PermanentError
from appliers.finding import Finding, of_acting_key
from appliers.mysql.catalog import read_foreign_keys, read_table
from appliers.mysql.durability import Durability
from appliers.mysql.failures import code_of
from appliers.mysql.names import folded, quoted, target_name
from appliers.mysql.own import OwnTables
from appliers.mysql.session import Session
from appliers.mysql.table import Table
from appliers.mysql.tables import Tables
from appliers.relation import Relation

OLDEST: Final = {"mariadb": (10, 6), "mysql": (8, 0, 19)}
"""MySQL 8.0.19: INSERT … VALUES … AS alias ON DUPLICATE KEY UPDATE."""

ROWS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
OURS: Final = (*ROWS, "CREATE", "DROP")
TEMPORARY: Final = "CREATE TEMPORARY TABLES"

CLOSED: Final = {
    # The one ends the other.
    **dict.fromkeys(("super_read_only", "read_only"), "SET GLOBAL read_only = OFF;"),
    "innodb_read_only": "innodb_read_only = OFF in its configuration, and restart it",
    "transaction_read_only": "SET GLOBAL transaction_read_only = OFF;",
    "tx_read_only": "SET GLOBAL tx_read_only = OFF;",
}
"""Settings with which nothing can be written, and what ends each. MariaDB says `tx_read_only`."""

REFUSED: Final = 1290
"""What a server says that a setting (its "--read-only option") keeps from doing something."""

_GRANT: Final = re.compile(
    r"GRANT (.+?) ON (?:TABLE )?(\*|`.+?`|'.+?')\.(\*|`.+?`) TO ", re.IGNORECASE
)


class Grants:
    """What the user may do in the URL's database: what SHOW GRANTS says, roles that are active
    included. Rights of single columns are not counted."""

    def __init__(self, session: Session) -> None:
        self._database = session.database
        self._found: list[tuple[set[str], str]] = []
        for (line,) in session.rows("SHOW GRANTS"):
            match = _GRANT.match(str(line))
            if match is not None and self._is_here(match[2]):
                # `SELECT (a, b)` is a right on columns.
                rights = {r.strip().upper() for r in re.split(r",(?![^(]*\))", match[1])}
                self._found.append((rights, match[3]))

    def lacking(self, rights: Sequence[str], table: str | None = None) -> list[str]:
        """Those of `rights` that the user does not have on all tables, or on `table`."""
        held: set[str] = set()
        for found, where in self._found:
            if where == "*" or (table is not None and where == quoted(table)):
                held |= found
        return [] if "ALL PRIVILEGES" in held else [r for r in rights if r not in held]

    def _is_here(self, where: str) -> bool:
        """Whether a grant's database, which may be a pattern, is ours."""
        if where == "*":
            return True
        pattern = re.sub(
            r"\\([_%])|([_%])|(.)",
            lambda m: (
                re.escape(m[1] or "")
                or {"_": ".", "%": ".*"}.get(m[2] or "", "")
                or re.escape(m[3])
            ),
            where[1:-1].replace("``", "`"),
            flags=re.DOTALL,
        )
        return re.fullmatch(pattern, self._database, re.DOTALL) is not None


def may_stage(session: Session) -> bool:
    """Whether the user may make temporary tables."""
    return not Grants(session).lacking([TEMPORARY])


def findings(session: Session, tables: Tables, relations: Sequence[Relation]) -> Iterator[Finding]:
    """One line for each thing; changes nothing."""
    grants = Grants(session)
    user = _user(session)
    yield _version(session)
    yield _writable(session)
    yield _own_tables(session, grants, user)
    yield _temporary(session, grants, user)
    yield _durable(session)
    yield from _settings(session)
    for relation in relations:
        yield from _table(session, tables, relation, grants, user)


def _user(session: Session) -> str:
    name, _, host = str(session.value("SELECT CURRENT_USER()")).rpartition("@")
    return f"'{name}'@'{host}'"


def _version(session: Session) -> Finding:
    oldest = OLDEST[session.flavour]
    if session.version < oldest:
        wanted = ".".join(map(str, oldest))
        return Finding(
            "FAILED",
            "target version",
            f"expected {session.flavour} {wanted} or newer, got {session.version_text}",
            "upgrade it",
        )
    return Finding("ok", "target version", session.version_text)


def _writable(session: Session) -> Finding:
    on = ("ON", "1", "READ_ONLY", "NO_LOCK", "NO_LOCK_NO_ADMIN")
    for name, opens in CLOSED.items():
        if str(session.variables.get(name, "OFF")).upper().replace(" ", "_") in on:
            remedy = f"use the primary's address, or {opens}"
            if name == "read_only" and _may_write(session):
                text = "read_only is on, and this user may write all the same: is it a replica?"
                return Finding("warn", "target", text, remedy)
            text = f"{name} is on: a replica, or closed for writes"
            return Finding("FAILED", "target", text, remedy)
    return Finding("ok", "target", "takes writes")


def _may_write(session: Session) -> bool:
    """Whether read_only does not hold for the user. Which rights do that depends on the version (MariaDB's
    SUPER before 10.11, not since); every server asks for them here, before anything is written
    (trans_begin in sql/transaction.cc of both)."""
    try:
        session.execute("START TRANSACTION READ WRITE")
    except pymysql.err.MySQLError as e:
        if code_of(e) != REFUSED:
            raise
        return False
    session.roll_back()
    return True


def _own_tables(session: Session, grants: Grants, user: str) -> Finding:
    subject = "cdc_ tables"
    lacking = grants.lacking(OURS)
    there = OwnTables(session).exist()
    if lacking and not (there and not grants.lacking(ROWS, "cdc_checkpoint")):
        return Finding(
            "FAILED",
            subject,
            f"user {user} may not {', '.join(lacking)}",
            _grant(session, lacking, user),
        )
    return Finding("ok", subject, "are there" if there else "will be created")


def _temporary(session: Session, grants: Grants, user: str) -> Finding:
    subject = "temporary tables"
    if not grants.lacking([TEMPORARY]):
        how = "by LOAD DATA LOCAL" if session.may_load else "by INSERT (local_infile is off)"
        return Finding("ok", subject, f"can be made; rows go into them {how}")
    return Finding(
        "warn",
        subject,
        f"user {user} may not make them: changes are written row by row, and no sweep is possible",
        _grant(session, [TEMPORARY], user),
    )


def _durable(session: Session) -> Finding:
    subject = "durability"
    if Durability(session).at_once:
        return Finding("ok", subject, "a commit is on the disk when it returns")
    flush, binlog = (
        session.variables.get(n) for n in ("innodb_flush_log_at_trx_commit", "sync_binlog")
    )
    return Finding(
        "warn",
        subject,
        f"innodb_flush_log_at_trx_commit is {flush} and sync_binlog {binlog}: a crash can take back the"
        " last second; the source is told a position only when it is on the disk",
        "SET GLOBAL innodb_flush_log_at_trx_commit = 1, GLOBAL sync_binlog = 1;",
    )


def _settings(session: Session) -> Iterator[Finding]:
    variables = session.variables
    if (
        variables.get("log_bin") == "ON"
        and session.value("SELECT @@SESSION.binlog_format") != "ROW"
    ):
        remedy = "SET GLOBAL binlog_format = 'ROW';"
        if variables.get("binlog_format") == "STATEMENT":
            text = "is STATEMENT, which cannot log what a READ COMMITTED transaction writes"
            yield Finding("FAILED", "binlog_format", text, remedy)
        else:
            text = f"is {variables.get('binlog_format')}: staged rows go into the binlog too"
            yield Finding("warn", "binlog_format", text, remedy)
    packet = session.packet + 1024
    if packet < 1 << 24:
        yield Finding(
            "warn",
            "max_allowed_packet",
            f"is {packet} bytes: a larger row cannot be written",
            "SET GLOBAL max_allowed_packet = 67108864;",
        )


def _table(
    session: Session, tables: Tables, relation: Relation, grants: Grants, user: str
) -> Iterator[Finding]:
    subject = f"table {relation.table}"
    try:
        name = target_name(relation)
        target = read_table(session, name)
        if target is None:
            yield _creatable(session, subject, name, grants, user)
            return
        table = tables.fitted(relation, target)
    except PermanentError as e:
        yield Finding("FAILED", subject, str(e), e.hint)
        return
    lacking = grants.lacking(ROWS, target.name)
    if lacking:
        remedy = _grant(session, lacking, user, target.sql_name)
        yield Finding("FAILED", subject, f"user {user} may not {', '.join(lacking)}", remedy)
    else:
        yield Finding("ok", subject, "has all columns and a unique index on its key")
    yield from _side_effects(session, subject, table)


def _creatable(session: Session, subject: str, name: str, grants: Grants, user: str) -> Finding:
    lacking = grants.lacking((*ROWS, "CREATE"), name)
    if lacking:
        remedy = _grant(session, lacking, user)
        return Finding("FAILED", subject, f"user {user} may not {', '.join(lacking)}", remedy)
    return Finding("ok", subject, f"will be created as {quoted(name)}")


def _side_effects(session: Session, subject: str, table: Table) -> Iterator[Finding]:
    """What the target's own schema does to applied rows."""
    if not table.exact:
        inexact = ", ".join(table.own[i].name for i in table.key if not table.own[i].exact)
        yield Finding(
            "warn",
            subject,
            f"key column {inexact} takes unlike texts for equal (its collation): two such keys of the"
            " source stop the sync",
            "give the column a collation that compares bytes: utf8mb4_0900_bin, on MariaDB"
            " utf8mb4_nopad_bin",
        )
    triggers = session.rows(
        "SELECT trigger_name FROM information_schema.triggers"
        " WHERE event_object_schema = DATABASE() AND event_object_table = ? ORDER BY trigger_name",
        (table.name,),
    )
    if triggers:
        names = ", ".join(str(name) for (name,) in triggers)
        yield Finding("ok", subject, f"its triggers fire for what the sync writes: {names}")
    here = folded(table.name)
    for key in read_foreign_keys(session):
        if folded(key.child) == here != folded(key.parent):
            yield Finding(
                "ok",
                subject,
                f"foreign key {key.name}: its rows are copied after those of {key.parent}",
            )
        if folded(key.parent) == here and key.acting:
            instead = "ON DELETE RESTRICT ON UPDATE RESTRICT"
            dialect = table.relation.dialect
            yield of_acting_key(subject, key.name, key.child, dialect, instead)


def _grant(session: Session, rights: Sequence[str], user: str, table: str = "*") -> str:
    return f"GRANT {', '.join(rights)} ON {quoted(session.database)}.{table} TO {user};"
