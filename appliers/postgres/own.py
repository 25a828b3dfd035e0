"""Our own tables on the target."""

from __future__ import annotations

from typing import Final

from appliers.postgres.connection import Session
from appliers.postgres.lock import lock_creation
from appliers.postgres.names import quoted
from appliers.state import TABLES

SCHEMA: Final = "cdc"

FILLFACTOR: Final = {"cdc_checkpoint": 10, "cdc_table": 50}
"""Room on the page for new versions of rows that are written at every commit: such updates touch no
index and leave nothing for vacuum."""


class OwnTables:
    """The `cdc_` tables in schema `cdc`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._exist = False

    def exist(self) -> bool:
        """Whether all are there. Remembered only outside of transactions, which may be rolled back."""
        if not self._exist:
            missing = self._missing()
            if missing or self._session.in_transaction:
                return not missing
            self._exist = True
        return True

    def create(self) -> None:
        """Makes those that are missing; in the open transaction where there is one."""
        if not self._missing():
            return
        session = self._session
        alone = not session.in_transaction
        if alone:
            session.execute("BEGIN")
        lock_creation(session)
        if not session.rows("SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1", (SCHEMA,)):
            session.execute(f"CREATE SCHEMA {quoted(SCHEMA)}")
        for name in self._missing():
            fill = FILLFACTOR.get(name, 100)
            session.execute(
                f"CREATE TABLE {SCHEMA}.{name} {TABLES[name]} WITH (fillfactor = {fill})"
            )
        if alone:
            session.execute("COMMIT")

    def drop(self) -> None:
        """Removes them, and the schema if nothing else is in it."""
        session = self._session
        session.execute(f"DROP TABLE IF EXISTS {', '.join(f'{SCHEMA}.{name}' for name in TABLES)}")
        used = session.rows(
            "SELECT FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::regclass"
            " AND refobjid = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) LIMIT 1",
            (SCHEMA,),
        )
        if not used:
            session.execute(f"DROP SCHEMA {quoted(SCHEMA)}")
        self._exist = False

    def _missing(self) -> list[str]:
        there = self._session.rows(
            "SELECT c.relname::text FROM pg_catalog.pg_class AS c"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname = $1 AND c.relname = ANY ($2::text[])",
            (SCHEMA, list(TABLES)),
        )
        names = {name for (name,) in there}
        return [name for name in TABLES if name not in names]
