"""A first copy into tables of the target's own that refer to each other."""

from __future__ import annotations

import re

import pytest

from tests.databases import Database
from tests.mysql_databases import MysqlDatabase
from tests.syncs import MakeSync, Sync, told
from tests.targets import MysqlTarget, PostgresTarget, Target, state_of, tables_of

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


CIRCLE = """
CREATE TABLE customers (
    id int PRIMARY KEY, main_contact int, code int UNIQUE DEFERRABLE, body text);
CREATE TABLE contacts (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers{late}, body text);
ALTER TABLE customers ADD FOREIGN KEY (main_contact) REFERENCES contacts{late};
CREATE TABLE notes (id int PRIMARY KEY, contact int NOT NULL REFERENCES contacts);
"""


def circle(source: Database, rows: int) -> None:
    source.execute(CIRCLE.format(late=" DEFERRABLE INITIALLY DEFERRED"))
    each = f"repeat('c', 900) FROM generate_series(1, {rows}) g"
    source.execute(
        f"BEGIN; INSERT INTO customers SELECT g, g, g, {each};"
        f" INSERT INTO contacts SELECT g, g, {each}; COMMIT"
    )
    source.execute("INSERT INTO notes SELECT id, id FROM contacts")


@pytest.mark.parametrize("late", [" DEFERRABLE", " DEFERRABLE INITIALLY DEFERRED"])
def test_a_copy_of_rows_that_refer_to_each_other(
    source_db: Database, target_db: Database, make_sync: MakeSync, late: str
) -> None:
    """Scenario 48: customers name their main contact and contacts their customer, so that no chunk can be
    the first: they come in one transaction, all or none when it is killed, with what refers to them; also
    where a row is in the way."""
    circle(source_db, 20_000)
    target_db.execute(CIRCLE.format(late=late))
    target_db.execute("INSERT INTO customers VALUES (-1, NULL, 7, 'stale')")
    sync = make_sync(source_db, PostgresTarget(target_db), ["public.*"])
    for point, there in (("chunk-written", 0), ("chunk-committed", 20_000)):
        sync.start(fault=f"{point}:1").dies_at_fault()
        for table in ("customers", "contacts", "notes"):
            query = f"SELECT count(*) FROM {table} WHERE id > 0"
            assert target_db.rows(query) == [(there,)], table
    sync.finish()
    sync.assert_equal("customers", "contacts", "notes")
    assert {t.rows for t in tables_of(sync.target, sync.name).values()} == {20_000}


def test_a_circle_that_the_target_cannot_wait_for_fails_by_name(
    source_db: Database, target_db: Database, make_sync: MakeSync
) -> None:
    """Its foreign keys are looked at with every statement: the error says what to do, and that does."""
    circle(source_db, 10)
    target_db.execute(CIRCLE.format(late=""))
    sync = make_sync(source_db, PostgresTarget(target_db), ["public.*"])
    sync.start("--until-current")
    assert sync.running.wait() == 1
    assert re.search(
        r"foreign key (customers_main_contact|contacts_customer)_fkey is", sync.log_tail()
    )
    assert "Try: make the foreign key DEFERRABLE on the target" in sync.log_tail()
    for table, key in (("customers", "customers_main_contact"), ("contacts", "contacts_customer")):
        target_db.execute(f"ALTER TABLE {table} ALTER CONSTRAINT {key}_fkey DEFERRABLE")
    sync.finish()
    sync.assert_equal("customers", "contacts", "notes")


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_copy_without_its_parents_fails_by_name(
    request: pytest.FixtureRequest, source_db: Database, kind: str, make_sync: MakeSync
) -> None:
    """Rows whose parents are no part of the sync are not waited for: neither in its first copy, nor when
    their table joins others that are exact."""
    database = request.getfixturevalue("target_db" if kind == "postgres" else "mariadb_target")
    target = PostgresTarget(database) if kind == "postgres" else MysqlTarget(database)
    source_db.execute(REFERRING)
    source_db.execute("INSERT INTO parents VALUES (1); INSERT INTO children VALUES (1, 1)")
    target.make_tables(REFERRING)

    def fails_at_once(sync: Sync) -> None:
        sync.start("--until-current")
        assert sync.running.wait() == 1
        assert re.search(r"foreign key children_(parent_fkey|ibfk_1) is violated", sync.log_tail())
        assert sync.log_count("copy-failed") == 0

    fails_at_once(make_sync(source_db, target, ["children"], name="alone"))
    make_sync(source_db, target, ["markers"]).finish()
    fails_at_once(make_sync(source_db, target, ["children", "markers"]))


REFERRING = """
CREATE TABLE markers (id int PRIMARY KEY);
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents DEFERRABLE INITIALLY IMMEDIATE);
"""


@pytest.mark.parametrize("flags", [(), ("--until-current",)], ids=["run", "until-current"])
def test_a_copy_may_be_newer_than_its_parents(
    source_db: Database, target: Target, make_sync: MakeSync, flags: tuple[str, ...]
) -> None:
    """A table that is copied refers to rows that the stream of its parents has still to bring, as after a
    kill between two chunks: it waits for them, and does not fail."""
    source_db.execute(REFERRING)
    source_db.execute("INSERT INTO parents SELECT generate_series(1, 10)")
    target.make_tables(REFERRING)
    make_sync(source_db, target, ["parents", "markers"]).finish()
    source_db.execute("INSERT INTO parents SELECT generate_series(11, 20)")
    source_db.execute("INSERT INTO children SELECT g, g FROM generate_series(1, 20) g")
    sync = make_sync(source_db, target, ["parents", "children", "markers"])
    sync.start(*flags)
    if flags:
        assert sync.running.wait() == 0, sync.log_tail()
    else:
        known = "public.children"
        sync.waits_for(lambda: known in tables_of(target, sync.name), "the table has joined")
        sync.wait_copied()
        sync.catch_up()
    sync.assert_equal("parents", "children")


def test_a_copy_is_exact_when_its_references_hold(
    source_db: Database, mariadb_target: MysqlDatabase, make_sync: MakeSync
) -> None:
    """A foreign key that only the target has: rows that are copied go unchecked as long as their parents may
    still come. One whose parent never came fails a command that waits; a daemon tells it, streams on, and
    the copy is exact when the parent is there."""
    source_db.execute(
        "CREATE TABLE markers (id int PRIMARY KEY); CREATE TABLE parents (id int PRIMARY KEY);"
        "CREATE TABLE children (id int PRIMARY KEY, parent int); INSERT INTO parents VALUES (1);"
        "INSERT INTO children VALUES (1, 1), (2, 99)"
    )
    target = MysqlTarget(mariadb_target)
    target.make_tables(REFERRING)
    sync = make_sync(source_db, target, ["parents", "children", "markers"])
    sync.start("--until-current")
    assert sync.running.wait() == 1
    violated = (
        "table children: foreign key children_ibfk_1 is violated: rows refer to rows of parents"
    )
    assert violated in sync.log_tail()
    sync.start()
    sync.catch_up()
    sync.waits_for(lambda: violated in (told(sync).error or ""), "the daemon tells it")
    source_db.execute("INSERT INTO parents VALUES (99)")
    sync.wait_copied()
    sync.waits_for(lambda: told(sync).error is None, "it is over")
    sync.assert_equal()


def test_a_copy_mends_what_has_stopped_the_stream(
    source_db: Database, target_db: Database, make_sync: MakeSync
) -> None:
    """A row that the target has lost holds up the rows that refer to it: the copy of its table, which
    otherwise waits until the stream is past the log of before, does not wait then."""
    source_db.execute(SCHEMA)
    source_db.execute("INSERT INTO zones VALUES (1, 'one'), (2, 'two')")
    target_db.execute(SCHEMA)
    sync = make_sync(source_db, PostgresTarget(target_db), ["customers", "zones"])
    sync.finish()
    target_db.execute("DELETE FROM zones WHERE id = 2")
    source_db.execute("INSERT INTO customers VALUES (7, 2, NULL, 'of zone two')")
    assert sync.start().wait() == 1, sync.log_tail()
    assert "customers_zone_fkey" in sync.log_tail()
    with state_of(sync.target, sync.name) as state:
        state.request("public.zones", None)
    sync.finish()
    sync.assert_equal("customers", "zones")
