"""Why a sync has failed, where its target cannot keep it: told by `cdc status` all the same."""

from __future__ import annotations

import pytest

from tests.command import Command, cdc
from tests.databases import Database

__all__ = ["cdc"]


@pytest.fixture
def role(target_db: Database) -> str:
    """Whom the sync is on its target."""
    made = target_db.create_role()
    target_db.execute(f"GRANT CREATE ON DATABASE {target_db.name} TO {made}")
    target_db.execute(f"GRANT CREATE ON SCHEMA public TO {made}")
    return made


@pytest.fixture
def failed(cdc: Command, source_db: Database, target_db: Database, role: str) -> Command:
    """A sync that has copied one row, then failed because it may no more write its checkpoint."""
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    source_db.execute("INSERT INTO customers VALUES (1)")
    cdc.configure(source_db.url, target_db.url_as(role), sync={"tables": ["customers"]})
    cdc.ok("run", "--until-current")
    target_db.execute("ALTER TABLE cdc.cdc_checkpoint OWNER TO CURRENT_USER")
    target_db.execute(f"GRANT SELECT ON cdc.cdc_checkpoint TO {role}")
    source_db.execute("INSERT INTO customers VALUES (2)")
    done = cdc.run("run", "--until-current")
    assert done.returncode == 1
    assert "permission denied for table cdc_checkpoint" in done.stderr
    return cdc


def allow(target: Database, role: str) -> None:
    target.execute(f"ALTER TABLE cdc.cdc_checkpoint OWNER TO {role}")


def test_a_failure_that_the_target_cannot_keep_is_told(
    failed: Command, target_db: Database, role: str
) -> None:
    """After the daemon's end too, with what to try; until the sync is started again."""
    status = failed.status()
    assert (status["state"], status["pid"]) == ("failed", None)
    assert "permission denied for table cdc_checkpoint" in status["error"]
    assert "grant the right to the role in the target's URL" in status["hint"]
    shown = failed.run("status")
    assert shown.returncode == 1
    assert "Error: copy has failed\n" in shown.stderr
    allow(target_db, role)
    assert failed.status()["state"] == "failed", "nobody has tried again"
    failed.ok("run", "--until-current")
    status = failed.status()
    assert (status["state"], status["error"]) == ("stopped", None)


def test_a_dropped_sync_has_not_failed(failed: Command, target_db: Database, role: str) -> None:
    """Nothing is left of a failure behind a drop."""
    allow(target_db, role)
    failed.ok("drop", "copy", "--yes")
    status = failed.status()
    assert (status["state"], status["error"]) == ("new", None)


def test_a_sync_that_has_got_on_elsewhere_has_not_failed(
    failed: Command, target_db: Database, role: str
) -> None:
    """What another machine has written since is newer than what this one was told."""
    allow(target_db, role)
    here = failed.environment["RUNTIME_DIRECTORY"]
    failed.environment["RUNTIME_DIRECTORY"] = str(failed.directory / "another machine")
    failed.ok("run", "--until-current")
    failed.environment["RUNTIME_DIRECTORY"] = here
    status = failed.status()
    assert (status["state"], status["error"]) == ("stopped", None)


def test_a_sync_that_another_has_is_not_failed(
    cdc: Command, source_db: Database, target_db: Database
) -> None:
    """To be refused is the end of a daemon, and says nothing of the sync."""
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    cdc.configure(source_db.url, target_db.url, sync={"tables": ["customers"]})
    here = cdc.environment["RUNTIME_DIRECTORY"]
    cdc.environment["RUNTIME_DIRECTORY"] = str(cdc.directory / "another machine")
    daemon = cdc.start("run")
    cdc.wait_for(lag_bytes=0)
    cdc.environment["RUNTIME_DIRECTORY"] = here
    assert cdc.run("run").returncode == 1
    daemon.terminate()
    assert daemon.wait(15) == 0
    status = cdc.status()
    assert (status["state"], status["error"]) == ("stopped", None)
