"""What a source's user may do, as the server shows its grants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from appliers.errors import PermanentError
from appliers.relation import Relation
from cdc.sources.mysql.connection import Connection, Server, one, quoted, rows

ALL: Final = "ALL PRIVILEGES"

_NAME: Final = r"`(?:[^`]|``)*`|\*"
_GRANT = re.compile(
    rf"(?P<verb>GRANT|REVOKE) (?P<what>.*) ON (?P<where>(?P<schema>{_NAME})\.(?P<table>{_NAME})) (?:TO|FROM) "
)


class Grants:
    """What the user may do, by itself or by a role that is active."""

    def __init__(self, db: Connection, server: Server) -> None:
        statement = "SHOW GRANTS"
        if server.flavour == "mysql":
            # MariaDB shows them by itself.
            roles = str(one(db, "SELECT CURRENT_ROLE()")[0])
            statement += "" if roles == "NONE" else f" FOR CURRENT_USER() USING {roles}"
        found = [_GRANT.match(str(text)) for (text,) in rows(db, statement)]
        self._grants = [
            (m["verb"], _bare(m["schema"]), _bare(m["table"]), _listed(m["what"]))
            for m in found
            if m
        ]

    def everywhere(self) -> set[str]:
        """On the whole server."""
        granted = [
            what
            for verb, schema, table, what in self._grants
            if (verb, schema, table) == ("GRANT", "*", "*")
        ]
        return set().union(*granted)

    def of_columns(self, schema: str, table: str) -> bool:
        """Whether it has SELECT on single columns of the table, whatever else it has."""
        return any(
            (verb, _plain(at), name) == ("GRANT", schema, table)
            and any(p.startswith("SELECT (") for p in what)
            for verb, at, name, what in self._grants
        )

    def may(self, privileges: set[str], schema: str, table: str) -> bool:
        """Whether it has one of these privileges on the table; `*` for the table: on each of the
        database. No patterns of names are read but those of all: rather too little is seen here."""
        wanted = privileges | {ALL}
        if any(verb == "REVOKE" and at == schema for verb, at, _, _ in self._grants):
            return False  # MySQL's partial_revokes
        return any(
            verb == "GRANT"
            and (at == "*" or _plain(at) == schema)
            and name in ("*", table)
            and bool(what & wanted)
            for verb, at, name, what in self._grants
        )


def require_columns(db: Connection, server: Server, relations: Sequence[Relation]) -> None:
    """Raises PermanentError for a table of which the user may read only some columns: the catalog does
    not show it the others, so that no copy would have them, while the log has all."""
    grants = Grants(db, server)
    for relation in relations:
        if not grants.of_columns(relation.schema, relation.name):
            continue
        table = quoted(relation.schema, relation.name)
        try:
            rows(db, f"SELECT * FROM {table} LIMIT 0")
        except PermanentError as e:
            user = str(one(db, "SELECT CURRENT_USER()")[0])
            raise PermanentError(
                f"source: {user} may not read all columns of table {relation.table}",
                f"GRANT SELECT ON {table} TO {account(user)};",
            ) from e


def account(user: str) -> str:
    """`name@host`, as CURRENT_USER() gives it, for GRANT."""
    name, _, host = user.rpartition("@")
    return "@".join("'" + part.replace("'", "''") + "'" for part in (name, host))


def _bare(name: str) -> str:
    return name if name == "*" else name[1:-1].replace("``", "`")


def _plain(pattern: str) -> str:
    """A database's name in a grant: its underscores may be escaped."""
    return pattern.replace("\\_", "_").replace("\\%", "%")


def _listed(what: str) -> set[str]:
    return {p.strip().upper() for p in what.split(",")}
