"""The commands on syncs, as processes against real servers: run, status, pause, drop, snapshot."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from contextlib import suppress
from typing import Final

import pytest

from tests.command import CUSTOMER, Ask, Command, cdc, copy, crm, lines_of, on_terminal
from tests.databases import Database
from tests.servers import wait_until

__all__ = ["cdc", "copy", "crm"]

STATUS_KEYS: Final = (
    *("name", "source", "target", "state", "lag_bytes", "lag_seconds", "source_position"),
    *("checkpoint", "applied_at", "changes_applied", "changes_per_second", "snapshot"),
    *("dead_letters", "source_log", "error", "hint", "pid"),
)


class TestSyncs:
    def test_until_current(self, cdc: Command, copy: Ask, crm: Database) -> None:
        """The first run copies, the next bring what has changed since."""
        cdc.ok("run", "--until-current")
        assert copy("SELECT name FROM customers ORDER BY id") == [("Ada",), ("Bo",), ("Cy",)]
        crm.execute("UPDATE customers SET name = 'Ada L' WHERE id = 1")
        cdc.ok("run", "copy", "--until-current")
        assert copy("SELECT name FROM customers WHERE id = 1") == [("Ada L",)]

    def test_status_without_a_daemon(self, cdc: Command, copy: Ask) -> None:
        """It tells what is known, before the first run and after the last."""
        [status] = json.loads(cdc.ok("status", "--json").stdout)["syncs"]
        assert tuple(status) == STATUS_KEYS
        assert (status["state"], status["checkpoint"], status["error"]) == ("new", None, None)
        done = cdc.run("status", "--max-lag", "5")
        assert done.returncode == 1
        assert "Error: copy: nobody knows how far it is behind" in done.stderr
        cdc.ok("run", "--until-current")
        assert cdc.status()["state"] == "stopped"
        out = cdc.ok("status", "--max-lag", "60").stdout.splitlines()
        assert out[0].split() == ["SYNC", "STATE", "LAG", "CHANGES/S", "CHECKPOINT", "SNAPSHOT"]
        assert out[1].split()[:2] == ["copy", "stopped"]
        assert out[1].endswith("done, 5 rows")

    def test_status_of_what_cannot_be_reached(self, cdc: Command) -> None:
        cdc.configure("postgresql://cdc@127.0.0.1:9/crm", "sqlite:///copy.db", more=CUSTOMER)
        done = cdc.run("status")
        assert done.returncode == 1
        assert "  Error: crm: " in done.stdout
        assert "  Try: " in done.stdout

    def test_a_failed_sync(self, cdc: Command, copy: Ask, crm: Database) -> None:
        """Why it failed stands under its line, and status exits 1."""
        cdc.ok("run", "--until-current")
        crm.execute("SELECT pg_drop_replication_slot('cdc_copy')")
        done = cdc.run("run", "--until-current")
        assert done.returncode == 1
        done = cdc.run("status")
        assert done.returncode == 1
        assert "  Error: replication slot cdc_copy is gone" in done.stdout
        assert "  Try: `cdc snapshot copy` accepts the gap" in done.stdout
        assert "Error: copy has failed\n" in done.stderr

    def test_a_gap_is_mended_by_a_snapshot(self, cdc: Command, copy: Ask, crm: Database) -> None:
        cdc.ok("run", "--until-current")
        crm.execute("SELECT pg_drop_replication_slot('cdc_copy')")
        crm.execute("DELETE FROM contacts WHERE id = 20")
        cdc.run("run", "--until-current")
        cdc.ok("snapshot")
        assert copy("SELECT id FROM contacts") == [(10,)]
        assert cdc.status()["error"] is None

    def test_the_daemon(self, cdc: Command, copy: Ask, crm: Database) -> None:
        """It runs until it is told to stop; status, pause, resume and snapshot reach it."""
        daemon = cdc.start("run")
        wait_until(lambda: cdc.status()["state"] == "streaming", message=cdc.said("run"))
        assert (
            cdc.ok("status", "--max-lag", "30").stdout.splitlines()[1].startswith("copy  streaming")
        )
        cdc.ok("pause", "copy")
        wait_until(lambda: cdc.status()["state"] == "paused")
        refused = cdc.run("snapshot")
        assert refused.returncode == 1
        assert refused.stderr.endswith("Error: sync copy is paused\nTry: cdc resume copy\n")
        cdc.ok("resume", "copy")
        wait_until(lambda: cdc.status()["state"] == "streaming")
        refused = cdc.run("drop", "copy", "--yes")
        assert refused.returncode == 1
        assert "Error: sync copy is already run by cdc run, process " in refused.stderr
        second = cdc.run("run")
        assert second.returncode == 1
        assert f"process {daemon.pid}" in second.stderr
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
        assert cdc.status()["state"] == "stopped"

    def test_watch(self, cdc: Command, copy: Ask) -> None:
        """With --json one line every second, until Ctrl-C."""
        watching = cdc.start("status", "--watch", "--json")
        for line in lines_of(watching, 2):
            assert json.loads(line)["syncs"][0]["state"] == "new"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
        assert cdc.said("status") == ""

    def test_drop(self, cdc: Command, copy: Ask, crm: Database) -> None:
        """It asks first; slot, publication and checkpoint go, the rows stay."""
        cdc.ok("run", "--until-current")
        done = cdc.run("drop", "copy")
        assert done.returncode == 2
        assert done.stderr == (
            "Error: drop asks before it removes anything, and here is nobody to ask: add --yes\n"
            "Try: cdc drop --help\n"
        )
        cdc.ok("drop", "copy", "--yes")
        assert (
            crm.value(
                "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
            )
            == 0
        )
        assert crm.value("SELECT count(*) FROM pg_publication") == 0
        assert copy("SELECT name FROM sqlite_master WHERE name LIKE 'cdc%'") == []
        assert copy("SELECT count(*) FROM customers") == [(3,)]

    def test_drop_asks(self, cdc: Command, copy: Ask) -> None:
        """On a terminal, anything but yes leaves all as it is."""
        cdc.ok("run", "--until-current")
        code, seen = _on_a_terminal(cdc, "drop", "copy", answer=b"n\n")
        assert (code, "Drop it? [y/N]" in seen) == (1, True)
        assert cdc.status()["checkpoint"] is not None
        assert _on_a_terminal(cdc, "drop", "copy", answer=b"y\n")[0] == 0
        assert cdc.status()["checkpoint"] is None


def _on_a_terminal(
    cdc: Command, *arguments: str, answer: bytes = b"", term: str = "xterm", columns: int = 120
) -> tuple[int, str]:
    """The exit code, and what a person sees."""
    seen = b""
    with on_terminal(cdc, *arguments, size=(40, columns), term=term) as (process, terminal):
        os.write(terminal, answer)
        with suppress(OSError):  # Linux ends a terminal that nobody holds any more with EIO
            while block := os.read(terminal, 4096):
                seen += block
        code = process.wait(30)
    return code, seen.decode()


class TestSnapshot:
    def test_first(self, cdc: Command, copy: Ask) -> None:
        """It copies, says how much, and ends."""
        done = cdc.ok("snapshot")
        assert done.stderr.endswith("copy: 5 rows in 2 tables, exact\n")
        assert done.stdout == ""
        assert copy("SELECT count(*) FROM customers") == [(3,)]

    def test_on_a_terminal(self, cdc: Command, copy: Ask) -> None:
        """A bar with rows and tables; what the worker logs comes above it, whole."""
        code, seen = _on_a_terminal(cdc, "snapshot")
        assert code == 0, seen
        assert "5 rows" in seen
        assert "2/2 tables" in seen
        assert re.search(r"INFO copy worker-done pid=\d+ *\r\n", seen)
        assert seen.endswith("copy: 5 rows in 2 tables, exact\r\n")

    def test_on_a_narrow_terminal(self, cdc: Command, copy: Ask) -> None:
        """The sync's name is whole, and so is what is said of it."""
        code, seen = _on_a_terminal(cdc, "snapshot", columns=30)
        assert code == 0, seen
        assert "…" not in seen
        assert re.search(r"\rcopy +━", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", seen))
        assert "tables" in seen

    def test_on_a_terminal_without_a_cursor(self, cdc: Command, copy: Ask) -> None:
        """Plain lines."""
        code, seen = _on_a_terminal(cdc, "snapshot", term="dumb")
        assert code == 0, seen
        assert "\x1b" not in seen
        assert "━" not in seen
        assert seen.endswith("copy: 5 rows in 2 tables, exact\r\n")

    def test_again(self, cdc: Command, copy: Ask) -> None:
        """A sync that has its snapshot gets a new one: what was spoiled on the target is mended."""
        cdc.ok("snapshot")
        for spoil in (
            "DELETE FROM customers",
            "INSERT INTO contacts (id, customer_id) VALUES (99, 1)",
        ):
            _spoil(cdc, spoil)
        cdc.ok("snapshot")
        assert copy("SELECT id FROM customers ORDER BY id") == [(1,), (2,), (3,)]
        assert copy("SELECT id FROM contacts ORDER BY id") == [(10,), (20,)]

    def test_the_sweep_is_told(self, cdc: Command, crm: Database, target_db: Database) -> None:
        """A copy of what was there before ends by deleting what the source does not have: how far that is
        is told as the copy is, and the log says when it begins."""
        cdc.configure(crm.url, target_db.url, more=CUSTOMER)
        cdc.ok("snapshot")
        target_db.execute("INSERT INTO customers VALUES (99, 'stale')")
        with target_db.connect() as other:
            other.execute("BEGIN; SELECT FROM customers WHERE id = 99 FOR UPDATE")
            copying = cdc.start("snapshot", "copy", "--table", "customers")
            told = (
                "copy: 3 of about 3 keys, to delete what the source does not have, 1 of 2 tables\n"
            )
            wait_until(lambda: told in cdc.said("snapshot"), message="it is told")
        assert copying.wait(30) == 0
        assert "INFO copy table-sweeping table=public.customers\n" in cdc.said("snapshot")
        assert "INFO copy table-swept table=public.customers rows=1\n" in cdc.said("snapshot")
        assert target_db.rows("SELECT id FROM customers WHERE id = 99") == []

    def test_one_table(self, cdc: Command, copy: Ask) -> None:
        cdc.ok("snapshot")
        for spoil in ("DELETE FROM customers", "DELETE FROM contacts"):
            _spoil(cdc, spoil)
        done = cdc.ok("snapshot", "copy", "--table", "contacts")
        assert done.stderr.endswith("copy: 2 rows in 1 table, exact\n")
        assert copy("SELECT count(*) FROM contacts") == [(2,)]
        assert copy("SELECT count(*) FROM customers") == [(0,)]

    @pytest.mark.parametrize(
        "wish", [("--table", "contacts"), ("--table", "x"), ("--customer", "2")]
    )
    def test_a_part_of_what_was_never_copied(
        self, cdc: Command, copy: Ask, wish: tuple[str, str]
    ) -> None:
        """It is refused rather than taken for a copy of everything."""
        done = cdc.run("snapshot", "copy", *wish)
        assert done.returncode == 1
        assert done.stderr.endswith(
            "Error: sync copy was never copied: its first snapshot copies every table\nTry: cdc snapshot copy\n"
        )
        assert not (cdc.directory / "copy.db").exists()

    def test_one_customer(self, cdc: Command, copy: Ask) -> None:
        cdc.ok("snapshot")
        for spoil in ("DELETE FROM customers", "DELETE FROM contacts"):
            _spoil(cdc, spoil)
        done = cdc.ok("snapshot", "copy", "--customer", "2")
        assert done.stderr.endswith("copy: all rows of customer 2, exact\n")
        assert copy("SELECT id FROM customers") == [(2,)]
        assert copy("SELECT id FROM contacts") == [(20,)]
        assert cdc.status()["snapshot"]["rows"] == 5, "they are not counted twice"

    def test_by_the_running_daemon(self, cdc: Command, copy: Ask) -> None:
        cdc.start("run")
        wait_until(lambda: cdc.status()["state"] == "streaming", message=cdc.said("run"))
        _spoil(cdc, "DELETE FROM contacts")
        done = cdc.ok("snapshot", "--table", "public.contacts")
        assert "copy: the running daemon copies\n" in done.stderr
        assert copy("SELECT count(*) FROM contacts") == [(2,)]
        _spoil(cdc, "DELETE FROM contacts")
        cdc.ok("snapshot", "--customer", "1")
        assert copy("SELECT id FROM contacts") == [(10,)]

    def test_leaving_the_running_daemon_alone(self, cdc: Command, copy: Ask, crm: Database) -> None:
        """Ctrl-C ends the watching, which is said, and not the copy."""
        cdc.start("run")
        wait_until(lambda: cdc.status()["state"] == "streaming", message=cdc.said("run"))
        _spoil(cdc, "DELETE FROM contacts")
        with crm.connect() as application:
            application.execute("BEGIN; LOCK TABLE contacts IN ACCESS EXCLUSIVE MODE")
            watching = cdc.start("snapshot", "--table", "contacts")
            wait_until(lambda: "daemon copies" in cdc.said("snapshot"), message="it watches")
            watching.send_signal(signal.SIGINT)
            assert watching.wait(10) == 130
        assert cdc.said("snapshot").endswith("copy: the running daemon goes on with the copy\n")
        wait_until(lambda: copy("SELECT count(*) FROM contacts") == [(2,)], message="it is copied")

    def test_a_failed_sync_of_a_running_daemon(
        self, cdc: Command, copy: Ask, crm: Database
    ) -> None:
        """The daemon starts it again for the copy that its error asks for."""
        with cdc.config.open("a") as config:
            config.write('[databases.other]\nurl = "sqlite:///other.db"\n')
            config.write('[sync.other]\nsource = "crm"\ntarget = "other"\n')
        cdc.ok("run", "--until-current")
        crm.execute("SELECT pg_drop_replication_slot('cdc_copy')")
        cdc.start("run")
        wait_until(lambda: cdc.status()["state"] == "failed", message=cdc.said("run"))
        cdc.ok("snapshot", "copy")
        wait_until(lambda: cdc.status()["state"] == "streaming", message=cdc.said("run"))
        assert cdc.status("other")["state"] == "streaming"

    def test_wrong_names(self, cdc: Command, copy: Ask, crm: Database) -> None:
        cdc.ok("snapshot")
        done = cdc.run("snapshot", "--table", "contcts")
        assert done.returncode == 1
        assert done.stderr == "Error: sync copy has no table contcts\nTry: --table contacts\n"
        cdc.configure(crm.url, "sqlite:///copy.db", sync={"tables": ["customers"]})
        done = cdc.run("snapshot", "--customer", "1")
        assert done.returncode == 1
        assert (
            "Error: --customer needs to know what a customer is\nTry: add [customer] to "
            in done.stderr
        )


def _spoil(cdc: Command, statement: str) -> None:
    """Changes the target behind the sync's back."""
    connection = sqlite3.connect(cdc.directory / "copy.db", timeout=30)
    try:
        connection.execute(statement)
        connection.commit()
    finally:
        connection.close()
