"""`cdc drop` while a database is out of reach: what is left where, and how it goes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from tests.command import Command, Done, cdc
from tests.databases import Database, wait_until
from tests.mysql_databases import MysqlDatabase
from tests.proxy import Proxy

__all__ = ["cdc"]

SLOTS: Final = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
PUBLICATIONS: Final = "SELECT pubname FROM pg_publication"
CHECKPOINTS: Final = "SELECT sync FROM cdc.cdc_checkpoint"
SCHEMAS: Final = "SELECT nspname FROM pg_namespace WHERE nspname = 'cdc'"
AGAIN: Final = "Try: `cdc drop copy` again once that is mended, or by hand on "


@pytest.fixture
def near(source_db: Database) -> Iterator[Proxy]:
    with Proxy(source_db.server.port) as proxy:
        yield proxy


@pytest.fixture
def far(target_db: Database) -> Iterator[Proxy]:
    with Proxy(target_db.server.port) as proxy:
        yield proxy


@pytest.fixture
def copied(
    cdc: Command, source_db: Database, target_db: Database, near: Proxy, far: Proxy
) -> Command:
    """A sync that has copied one row, and is stopped."""
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    source_db.execute("INSERT INTO customers VALUES (1)")
    cdc.configure(near.url(source_db.url), far.url(target_db.url), sync={"tables": ["customers"]})
    cdc.ok("run", "--until-current")
    return cdc


def dropped(cdc: Command, *down: Proxy) -> Done:
    """A drop while these do not answer. It has to fail."""
    with ExitStack() as after:
        for proxy in down:
            after.enter_context(proxy.down())
        done = cdc.run("drop", "copy", "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    return done


def is_clean(source: Database, target: Database) -> None:
    """Nothing of the sync is left, but its rows."""
    assert (source.rows(SLOTS), source.rows(PUBLICATIONS), target.rows(SCHEMAS)) == ([], [], [])
    assert target.rows("SELECT id FROM customers") == [(1,)]


def test_a_target_that_is_gone_holds_no_slot(
    copied: Command, source_db: Database, target_db: Database, far: Proxy
) -> None:
    """The slot goes, so that the source's disk does not fill; what is left is told, with what removes it.
    Called again when the target is back, it finishes."""
    done = dropped(copied, far)
    assert (source_db.rows(SLOTS), source_db.rows(PUBLICATIONS)) == ([], [])
    assert target_db.rows(CHECKPOINTS) == [("copy",)]
    said = done.stderr.splitlines()
    assert said[0].startswith(
        "Error: removed slot and publication cdc_copy on crm, but cannot remove the checkpoint on copy: "
    )
    assert said[-1] == (
        f"{AGAIN}copy, in each table whose name begins with cdc_: DELETE FROM ... WHERE sync = 'copy';"
    )
    copied.ok("drop", "copy", "--yes")
    is_clean(source_db, target_db)


def test_a_source_that_is_gone_keeps_no_checkpoint(
    copied: Command, source_db: Database, target_db: Database, near: Proxy
) -> None:
    """The other way round; the statements that are shown do the rest."""
    done = dropped(copied, near)
    assert target_db.rows(SCHEMAS) == []
    assert source_db.rows(SLOTS) == [("cdc_copy",)]
    said = done.stderr.splitlines()
    assert said[0].startswith(
        "Error: removed the checkpoint on copy, but cannot remove slot and publication cdc_copy on crm: "
    )
    source_db.execute(said[-1].removeprefix(f"{AGAIN}crm: "))
    is_clean(source_db, target_db)
    copied.ok("drop", "copy", "--yes")


def test_a_publication_that_is_a_superusers(
    cdc: Command, source_db: Database, target_db: Database
) -> None:
    """The role may use it, and not remove it: all else goes, and the statements that are shown do the rest."""
    role = source_db.create_role("LOGIN REPLICATION")
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    source_db.execute("INSERT INTO customers VALUES (1)")
    source_db.execute(f"GRANT SELECT ON customers TO {role}")
    source_db.execute(
        "CREATE PUBLICATION cdc_copy FOR TABLE ONLY customers WITH (publish_via_partition_root = true)"
    )
    cdc.configure(source_db.url_as(role), target_db.url, sync={"tables": ["customers"]})
    cdc.ok("run", "--until-current")
    said = dropped(cdc).stderr.splitlines()
    assert said[0] == (
        "Error: removed the checkpoint on copy, but cannot remove slot and publication cdc_copy on crm:"
        " source: must be owner of publication cdc_copy"
    )
    assert (source_db.rows(SLOTS), target_db.rows(SCHEMAS)) == ([], [])
    source_db.execute(said[-1].removeprefix(f"{AGAIN}crm: "))
    is_clean(source_db, target_db)
    cdc.ok("drop", "copy", "--yes")


def test_both_are_out_of_reach(
    copied: Command, source_db: Database, target_db: Database, near: Proxy, far: Proxy
) -> None:
    """Both are told; when both are back, all of it goes."""
    said = dropped(copied, near, far).stderr.splitlines()
    assert said[0].startswith("Error: cannot remove slot and publication cdc_copy on crm: ")
    assert any(line.startswith("Error: cannot remove the checkpoint on copy: ") for line in said)
    assert source_db.rows(SLOTS) == [("cdc_copy",)]
    copied.ok("drop", "copy", "--yes")
    is_clean(source_db, target_db)


def test_a_sync_that_runs_elsewhere_keeps_all(
    copied: Command, source_db: Database, target_db: Database, far: Proxy
) -> None:
    """The slot is in use: its sync runs, although its target cannot be asked who it is."""
    copied.start("run")
    copied.wait_for(state="streaming")
    copied.environment["RUNTIME_DIRECTORY"] = str(copied.directory / "another machine")
    done = dropped(copied)
    assert "Error: sync copy is already run by " in done.stderr
    copied.config.write_text(
        copied.config.read_text().replace(far.url(target_db.url), "sqlite:////nowhere/x")
    )
    done = dropped(copied)
    assert "Error: replication slot cdc_copy is in use by process " in done.stderr
    assert source_db.rows(SLOTS) == [("cdc_copy",)]
    assert target_db.rows(CHECKPOINTS) == [("copy",)]


def test_one_sync_is_dropped_while_others_go_on(
    copied: Command, source_db: Database, target_db: Database, far: Proxy
) -> None:
    """Its target is gone for ever: taken out of the configuration, its slot goes by a copy of that."""
    databases, head, sync = copied.config.read_text().partition("[sync.copy]")
    lite = '[databases.lite]\nurl = "sqlite:///lite.db"\n'
    other = lite + "[sync.other]" + sync.replace('"copy"', '"lite"')
    copied.config.write_text(databases + head + sync + other)
    with far.down():
        daemon = copied.start("run")
        copied.wait_for_error("target")
        (copied.directory / "both.toml").write_text(copied.config.read_text())
        copied.config.write_text(databases + other)
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: " reloaded " in copied.said("run"), message="it is reloaded")
        done = copied.run("drop", "copy", "--yes", "--config", "both.toml")
    assert done.returncode == 1
    assert "Error: removed slot and publication cdc_copy on crm, but cannot " in done.stderr
    assert source_db.rows(SLOTS) == [("cdc_other",)]
    source_db.execute("INSERT INTO customers VALUES (2)")
    wait_until(lambda: copied.status("other")["changes_applied"] == 1, message="others go on")


def test_a_source_that_keeps_nothing_is_not_asked(
    cdc: Command, any_mysql_source: MysqlDatabase, target_db: Database
) -> None:
    """MySQL and MariaDB hold nothing of a sync: one that is gone stands in nobody's way."""
    any_mysql_source.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    any_mysql_source.execute("INSERT INTO customers VALUES (1)")
    with Proxy(any_mysql_source.server.port) as near:
        cdc.configure(near.url(any_mysql_source.url), target_db.url, sync={"tables": ["customers"]})
        cdc.ok("run", "--until-current")
        with near.down():
            done = cdc.ok("drop", "copy", "--yes")
    assert done.stderr == "copy: removed the checkpoint on copy; the rows on the target are left\n"
    assert target_db.rows(SCHEMAS) == []
    assert target_db.rows("SELECT id FROM customers") == [(1,)]
