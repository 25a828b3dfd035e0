"""Our own tables on the target."""

from __future__ import annotations

from typing import Final

from appliers.mysql.demands import ENGINE
from appliers.mysql.session import Session
from appliers.mysql.types import CHARACTERS
from appliers.state import TABLES

HOLDER: Final = "(sync VARCHAR(190) NOT NULL PRIMARY KEY, holder TEXT NOT NULL)"
"""`cdc_holder`: who took a sync's lock last. Only read while the lock is held; a row that a crash left
says nothing."""

OWN: Final = {**TABLES, "cdc_holder": HOLDER}


class OwnTables:
    """The `cdc_` tables in the database of the URL."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._exist = False

    def exist(self) -> bool:
        """Whether all are there. Remembered once they are."""
        if not self._exist:
            self._exist = not self._missing()
        return self._exist

    def create(self) -> None:
        """Makes those that are missing. Not in a transaction: it would be committed."""
        for name in self._missing():
            # A position may be longer than TEXT's 64 kB: a set of GTIDs with many gaps.
            columns = OWN[name].replace(" TEXT", " MEDIUMTEXT")
            self._session.execute(
                f"CREATE TABLE IF NOT EXISTS {name} {columns} ENGINE = {ENGINE}"
                f" ROW_FORMAT = DYNAMIC {CHARACTERS[self._session.flavour]}"
            )
        self._exist = True

    def drop(self) -> None:
        self._session.execute(f"DROP TABLE IF EXISTS {', '.join(OWN)}")
        self._exist = False

    def holder(self, sync: str) -> str | None:
        """Who took the lock of `sync` last."""
        if "cdc_holder" in self._missing():
            return None
        rows = self._session.rows("SELECT holder FROM cdc_holder WHERE sync = ?", (sync,))
        return str(rows[0][0]) if rows else None

    def note_holder(self, sync: str, holder: str) -> None:
        self._session.execute("DELETE FROM cdc_holder WHERE sync = ?", (sync,))
        self._session.execute("INSERT INTO cdc_holder VALUES (?, ?)", (sync, holder))

    def forget_holder(self, sync: str) -> None:
        self._session.execute("DELETE FROM cdc_holder WHERE sync = ?", (sync,))

    def _missing(self) -> list[str]:
        there = self._session.rows(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
            f" AND table_name IN ({', '.join('?' for _ in OWN)})",
            tuple(OWN),
        )
        names = {str(name).lower() for (name,) in there}
        return [name for name in OWN if name not in names]
