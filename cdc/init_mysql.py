"""What `cdc init` asks a MySQL or MariaDB source, and the grants that it and such a target need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from appliers.relation import Relation
from cdc.init_facts import Reference
from cdc.sources.mysql.connection import Server, connect, one, quoted, rows, server_of, variables
from cdc.sources.mysql.grants import Grants, account

_REFERENCES = """
    SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME, k.CONSTRAINT_NAME,
           k.COLUMN_NAME, k.REFERENCED_COLUMN_NAME, c.IS_NULLABLE, c.ORDINAL_POSITION
    FROM information_schema.KEY_COLUMN_USAGE AS k
    JOIN information_schema.COLUMNS AS c
      ON c.TABLE_SCHEMA = k.TABLE_SCHEMA AND c.TABLE_NAME = k.TABLE_NAME AND c.COLUMN_NAME = k.COLUMN_NAME
    WHERE k.TABLE_SCHEMA = DATABASE() AND k.REFERENCED_TABLE_NAME IS NOT NULL
    ORDER BY k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION"""

NEW_USER = "cdc"
ROWS = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, CREATE TEMPORARY TABLES"


@dataclass(frozen=True, slots=True)
class MysqlFacts:
    """What the source says of itself. Keeps the protocol `Facts`."""

    server: Server
    settings: dict[str, str]
    superuser: str | None
    references: tuple[Reference, ...]

    def grants(
        self, relations: Sequence[Relation], role: str | None, syncs: Sequence[str]
    ) -> Iterator[str]:
        to = _account(None if self.superuser else role)
        yield from self._settings()
        if self.superuser:
            yield f"-- {self.superuser} may do everything and needs no grant; a user of its own is safer:"
        yield f"CREATE USER {to} IDENTIFIED BY '...';   -- or ALTER USER, if it is there"
        if self.server.flavour == "mariadb":
            yield f"GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO {to};   -- to read the log"
        else:
            yield f"GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {to};   -- to read the log"
        for relation in relations:
            yield f"GRANT SELECT ON {quoted(relation.schema, relation.name)} TO {to};"
        yield "-- only where sessions write in statement format: shows that other tables have no triggers"
        yield from (
            f"-- GRANT TRIGGER ON {quoted(schema)}.* TO {to};"
            for schema in sorted({r.schema for r in relations})
        )
        if self.server.flavour == "mariadb":
            yield "-- with this too, a copy reads all tables as they are at one moment:"
            yield f"-- GRANT BINLOG ADMIN ON *.* TO {to};"

    def _settings(self) -> Iterator[str]:
        """What is not as a sync needs it. MySQL keeps it over a restart by itself."""
        persists = self.server.flavour == "mysql"
        keep = "" if persists else "   -- and in its configuration file, for the next restart"
        word = "PERSIST" if persists else "GLOBAL"
        if self.settings.get("log_bin") != "ON":
            yield "-- log_bin = binlog in its configuration file, and a restart: it has no binary log"
        for name, wanted in (("binlog_format", "ROW"), ("binlog_row_metadata", "FULL")):
            if self.settings.get(name, wanted).upper() != wanted:
                yield f"SET {word} {name} = {wanted};{keep}"
        if persists and self.settings.get("gtid_mode") != "ON":
            yield "SET PERSIST enforce_gtid_consistency = ON;   -- no restart is needed for any of these"
            for mode in ("OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"):
                yield f"SET PERSIST gtid_mode = {mode};"


def read_facts(url: str, password: str | None) -> MysqlFacts:
    with closing(connect(url, password, "cdc init")) as db:
        settings = variables(db, "log_bin", "binlog_format", "binlog_row_metadata", "gtid_mode")
        held = Grants(db, server_of(db)).everywhere()
        user = str(one(db, "SELECT CURRENT_USER()")[0]).rpartition("@")[0]
        almighty = user if held & {"ALL PRIVILEGES", "SUPER"} else None
        found = rows(db, _REFERENCES)
        return MysqlFacts(server_of(db), settings, almighty, _references(found))


def target_grants(
    relations: Sequence[Relation], role: str | None, database: str, superuser: str | None
) -> Iterator[str]:
    """The statements that a user for a MySQL or MariaDB target needs: in its database, whatever the
    tables are."""
    del relations
    to = _account(None if role in ("root", superuser) else role)
    yield f"CREATE USER {to} IDENTIFIED BY '...';   -- or ALTER USER, if it is there"
    yield f"GRANT {ROWS} ON {quoted(database)}.* TO {to};"


def _account(user: str | None) -> str:
    return account(f"{user or NEW_USER}@%")


def _references(found: Sequence[tuple[object, ...]]) -> tuple[Reference, ...]:
    """The foreign keys out of a row for each of their columns."""
    parts: dict[tuple[str, str], list[tuple[object, ...]]] = {}
    for row in found:
        parts.setdefault((f"{row[0]}.{row[1]}", str(row[4])), []).append(row)
    ordered = sorted(parts.items(), key=lambda p: (p[0][0], p[1][0][7] == "YES", p[1][0][8]))
    return tuple(
        Reference(
            child,
            f"{columns[0][2]}.{columns[0][3]}",
            tuple(str(c[5]) for c in columns),
            tuple(str(c[6]) for c in columns),
        )
        for (child, _), columns in ordered
    )
