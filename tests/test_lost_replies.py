"""Scenario 9 in the pairs that tests/test_faults.py and tests/test_mysql_faults.py do not have: COMMIT is sent,
and its reply is lost. The checkpoint is read back before anything is applied again."""

from __future__ import annotations

import pytest

from tests.databases import Database, wait_until
from tests.mysql_databases import MysqlDatabase
from tests.mysql_pairs import Pair
from tests.proxy import Proxy
from tests.syncs import MakeSync, Source
from tests.targets import MysqlTarget, PostgresTarget, written_twice

TABLES = """
CREATE TABLE events (id bigint NOT NULL PRIMARY KEY, body varchar(20));
CREATE TABLE markers (id bigint NOT NULL PRIMARY KEY)
"""


def survives(source: Source, target: PostgresTarget | MysqlTarget, make_sync: MakeSync) -> None:
    for statement in TABLES.split(";"):
        source.execute(statement)
    with Proxy(target.database.server.port) as far:
        url = far.url(target.url)
        if isinstance(target, MysqlTarget):
            # The proxy has to see what is said.
            url += ("&" if "?" in url else "?") + "ssl-mode=disabled"
        there = type(target)(target.database, url)  # type: ignore[arg-type]
        sync = make_sync(source, there, ("events", "markers"))
        sync.start()
        sync.wait_copied()
        target.count_writes("events")
        for n in range(1, 4):
            far.lose_replies(1)
            source.execute(f"INSERT INTO events VALUES ({n}, 'new'), (1{n}, 'new')")
            wait_until(lambda n=n: far.lost == n, message="a reply is lost")  # type: ignore[misc]
            source.execute(f"DELETE FROM events WHERE id = 1{n}")
            sync.catch_up()
        assert far.lost == 3
        sync.assert_equal("events")
        sync.assert_nothing_healed()
    assert not written_twice(source, target, "events", 0)


@pytest.mark.parametrize("pair", ["mariadb-postgres", "mysql-mysql"], indirect=True)
def test_from_mysql(pair: Pair, make_sync: MakeSync) -> None:
    """Each row is written once."""
    assert isinstance(pair.target, PostgresTarget | MysqlTarget)
    survives(pair.source, pair.target, make_sync)


def test_from_postgres(
    source_db: Database, mariadb_target: MysqlDatabase, make_sync: MakeSync
) -> None:
    """Each row is written once."""
    survives(source_db, MysqlTarget(mariadb_target), make_sync)
