"""What the source keeps of its log for a sync is told, and bounded where the configuration says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.demo.server import LocalPostgres
from tests.command import Command, cdc
from tests.databases import Database, wait_until
from tests.mysql_databases import MysqlDatabase
from tests.servers import MakeServer
from tests.targets import PostgresTarget, differences

__all__ = ["cdc"]

FreshDatabase = Callable[[LocalPostgres], Database]

SLOT = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc_copy'"


def grow_log(source: Database) -> None:
    """8 MB of log that no sync wants."""
    source.execute("CREATE TABLE IF NOT EXISTS others (n int, filler text)")
    source.execute(
        "INSERT INTO others SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 8000) AS g"
    )


@pytest.fixture
def source(source_db: Database) -> Database:
    source_db.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    return source_db


def test_a_log_that_grows_is_told(cdc: Command, source: Database, target_db: Database) -> None:
    """More than log_warning: `cdc status` says so under a sync that is all right, and so does the log."""
    cdc.configure(source.url, target_db.url, sync={"tables": ["t"], "log_warning": "1MB"})
    cdc.ok("run", "--until-current")
    assert cdc.status()["hint"] is None
    grow_log(source)
    status = cdc.status()
    assert (status["state"], status["error"]) == ("stopped", None)
    assert "MB of its log for this sync, more than log_warning (1.0 MB)" in str(status["hint"])
    assert "Note: " in cdc.ok("status").stdout
    cdc.start("run")
    wait_until(lambda: "log-grows" in cdc.said("run"), 30, "the daemon's log tells it")


def test_a_source_is_let_go_before_its_disk_is_full(
    cdc: Command,
    source: Database,
    make_server: MakeServer,
    fresh_database: FreshDatabase,
) -> None:
    """More than log_limit while the target is down: the slot goes, the sync fails by name, and a new copy
    is the way back."""
    server = make_server()
    target = fresh_database(server)
    limits = {"log_warning": "1MB", "log_limit": "4MB"}
    cdc.configure(source.url, target.url, sync={"tables": ["t"], **limits})
    cdc.ok("run", "--until-current")
    assert source.value(SLOT) == 1
    source.execute("INSERT INTO t VALUES (2)")
    grow_log(source)
    server.stop()
    failed = cdc.run("run")
    assert failed.returncode == 1
    assert "more than log_limit (4.0 MB): its replication slot was dropped" in failed.stderr
    assert "`cdc snapshot copy` copies everything again" in failed.stderr
    assert source.value(SLOT) == 0
    server.start()
    failed = cdc.run("run", "--until-current")
    assert failed.returncode == 1
    assert "cdc snapshot" in failed.stderr
    cdc.ok("snapshot", "copy")
    cdc.ok("run", "--until-current")
    assert not differences(source, PostgresTarget(target), ["t"])
    assert source.value(SLOT) == 1


def test_mysql_has_nothing_to_let_go_of(
    cdc: Command, mariadb_source: MysqlDatabase, target_db: Database
) -> None:
    """A limit where it would do nothing is a mistake in the configuration, and so is a size that is none."""
    cdc.configure(mariadb_source.url, target_db.url, sync={"tables": ["*"], "log_limit": "4GB"})
    refused = cdc.run("check")
    assert refused.returncode == 2
    assert (
        "sync.copy.log_limit: expected a PostgreSQL source (others keep their log for a time"
        in refused.stderr
    )
    cdc.configure(mariadb_source.url, target_db.url, sync={"tables": ["*"], "log_warning": "many"})
    refused = cdc.run("check")
    assert refused.returncode == 2
    assert 'sync.copy.log_warning: expected a size such as "10GB", found "many"' in refused.stderr
