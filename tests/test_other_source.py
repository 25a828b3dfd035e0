"""Scenario 15: the address of a PostgreSQL source leads to another cluster, while the sync runs and while it
does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import pytest

from cdc.demo.server import LocalPostgres
from tests.databases import Connection, Database
from tests.proxy import Proxy
from tests.syncs import MakeSync
from tests.targets import Target, state_of

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
