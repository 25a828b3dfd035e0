"""Scenario 15: the address of a PostgreSQL source leads to another cluster, while the sync runs and while it
does not; or a sync has got another source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import pytest

from cdc.demo.server import LocalPostgres
from tests.command import Command, cdc
from tests.databases import Connection, Database
from tests.mysql_databases import MysqlDatabase
from tests.proxy import Proxy
from tests.syncs import MakeSync
from tests.targets import Target, state_of

__all__ = ["cdc"]

TABLES: Final = """
CREATE TABLE events (id int PRIMARY KEY, body text);
CREATE TABLE markers (id int PRIMARY KEY)"""


@contextmanager
def twin(server: LocalPostgres, name: str) -> Iterator[Connection]:
    """A database of the same name, with all that a sync leaves on a source."""
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        try:
            with psycopg.connect(server.url(name), autocommit=True) as db:
                db.execute(TABLES)
                db.execute(
                    "CREATE PUBLICATION cdc_s1 FOR TABLE ONLY events, ONLY markers"
                    " WITH (publish_via_partition_root = true)"
                )
                db.execute("SELECT pg_create_logical_replication_slot('cdc_s1', 'pgoutput')")
                yield db
        finally:
            admin.execute("SELECT pg_drop_replication_slot('cdc_s1')")
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.parametrize("target", ["sqlite"], indirect=True)
def test_another_cluster_is_refused(
    source_db: Database, target_server: LocalPostgres, target: Target, make_sync: MakeSync
) -> None:
    """Although it has the same tables, publication and slot: nothing of it is applied, the sync fails by
    name, and goes on when the address leads to its source again."""
    source_db.execute(TABLES)
    with Proxy(source_db.server.port) as near, twin(target_server, source_db.name) as other:
        sync = make_sync(
            source_db, target, ("events", "markers"), source_url=near.url(source_db.url)
        )
        sync.start()
        sync.wait_copied()
        near.lead_to(target_server.port)
        other.execute("INSERT INTO events VALUES (1, 'of another cluster')")
        for _ in range(2):
            assert sync.running.wait() == 1
            assert "the source is not the one this sync was started on" in sync.log_tail(3)
            with state_of(target, sync.name) as state:
                assert "the source is not the one" in (state.control().error or "")
            sync.start()
        assert sync.running.wait() == 1
        assert target.rows("SELECT * FROM events") == []
        near.lead_to(source_db.server.port)
        source_db.execute("INSERT INTO events VALUES (2, 'of the right one')")
        sync.start()
        sync.catch_up()
        sync.assert_equal()


@pytest.mark.parametrize("to", ["postgres", "mariadb"])
def test_another_kind_of_source_is_refused(
    cdc: Command, source_db: Database, mariadb_source: MysqlDatabase, to: str
) -> None:
    """A configuration whose source was exchanged for another product's: the sync fails by what its
    checkpoint is, and status says so before it is run, of that sync alone."""
    urls = [mariadb_source.url, source_db.url]
    said = "Error: expected a log position such as 0/1A2B3C8, got 'binlog.0"
    if to == "mariadb":
        urls.reverse()
        said = "Error: expected a binary log position (file:offset gtids=…), got '0/"
    for database in (source_db, mariadb_source):
        database.execute("CREATE TABLE events (id int PRIMARY KEY)")
    for url in urls:
        cdc.configure(url, "sqlite:///copy.db", sync={"tables": ["events"]})
        with cdc.config.open("a") as more:
            more.write('[databases.new]\nurl = "sqlite:///new.db"\n')
            more.write('[sync.new]\nsource = "crm"\ntarget = "new"\ntables = ["events"]\n')
        if url == urls[0]:
            cdc.ok("run", "copy", "--until-current")
    status = cdc.run("status")
    assert status.returncode == 1
    assert f"  {said}" in status.stdout
    assert "\nnew   new " in status.stdout
    done = cdc.run("run", "copy", "--until-current", timeout=30)
    assert done.returncode == 1
    assert said in done.stderr
    assert (
        "Try: the sync was started on another source: `cdc drop` it and start it anew"
        in done.stderr
    )
