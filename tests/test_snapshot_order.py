"""A first copy into tables of the target's own that refer to each other."""

from __future__ import annotations

from tests.databases import Database
from tests.syncs import MakeSync
from tests.targets import PostgresTarget

SCHEMA = """
CREATE TABLE zones (id int PRIMARY KEY, body text);
CREATE TABLE customers (id int PRIMARY KEY, zone int NOT NULL REFERENCES zones, parent int, body text);
CREATE TABLE addresses (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers);
ALTER TABLE customers ADD FOREIGN KEY (parent) REFERENCES customers;
"""


def test_a_copy_follows_the_targets_foreign_keys(
    source_db: Database, target_db: Database, make_sync: MakeSync
) -> None:
    """Scenario 48: chunks of a child wait for those of its parents, whatever the tables are called, also
    where rows refer to rows of their own table that another chunk brings."""
    source_db.execute(SCHEMA)
    source_db.execute(
        "INSERT INTO zones SELECT g, repeat('z', 900) FROM generate_series(1, 20000) g"
    )
    source_db.execute(
        "INSERT INTO customers SELECT g, g, NULLIF(g - 1, 0), repeat('c', 900)"
        " FROM generate_series(1, 20000) g"
    )
    source_db.execute("INSERT INTO addresses SELECT g, g FROM generate_series(1, 20000) g")
    target_db.execute(SCHEMA)
    sync = make_sync(source_db, PostgresTarget(target_db), ["addresses", "customers", "zones"])
    sync.start("--until-current")
    assert sync.running.wait() == 0, sync.log_tail()
    sync.assert_equal("addresses", "customers", "zones")


def test_a_copy_without_its_parents_fails_by_name(
    source_db: Database, target_db: Database, make_sync: MakeSync
) -> None:
    """Rows whose parents nobody copies do not keep a copy trying for ever."""
    source_db.execute(SCHEMA)
    source_db.execute("INSERT INTO zones VALUES (1)")
    source_db.execute("INSERT INTO customers VALUES (1, 1)")
    target_db.execute(SCHEMA)
    sync = make_sync(source_db, PostgresTarget(target_db), ["customers"])
    sync.start("--until-current")
    assert sync.running.wait() == 1
    assert "foreign key customers_zone_fkey is violated" in sync.log_tail()
