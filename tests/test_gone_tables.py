"""A table that somebody drops or renames on the target is copied again, never made again as an empty one."""

from __future__ import annotations

from typing import Final

import pytest

from appliers.checkpoint import Copy
from cdc.check import check
from cdc.config import load
from tests.databases import Database
from tests.syncs import MakeSync, Sync
from tests.targets import Target, tables_of

SCHEMA: Final = """
    CREATE TABLE markers (id int PRIMARY KEY);
    CREATE TABLE t (id int PRIMARY KEY, a varchar(5), b text);
    INSERT INTO t SELECT g, 'old', 'x' FROM generate_series(1, 50) g"""


@pytest.fixture
def sync(source_db: Database, target: Target, make_sync: MakeSync) -> Sync:
    """A sync that was copied once; nothing runs."""
    source_db.execute(SCHEMA)
    made = make_sync(source_db, target, ["public.*"])
    made.finish()
    return made


def test_dropped_while_down(sync: Sync) -> None:
    """The next start copies it, with what has changed meanwhile; `cdc check` says so before."""
    comes_back(sync, "DROP TABLE t")


@pytest.mark.parametrize("target", ["mariadb"], indirect=True)
def test_renamed_while_down(sync: Sync) -> None:
    """The same; its rows stay under the other name."""
    comes_back(sync, "ALTER TABLE t RENAME TO t_before")
    assert sync.target.rows("SELECT count(*) FROM t_before") == [(50,)]


def comes_back(sync: Sync, lost: str) -> None:
    sync.target.execute(lost)
    sync.source.execute("INSERT INTO t VALUES (100, 'new', 'z')")
    config = load(sync.config)
    found = [c.finding for c in check(config, config.syncs[sync.name])]
    [gone] = [f for f in found if "not on the target any more" in f.message]
    assert (gone.level, gone.subject) == ("warn", "table public.t")
    sync.finish()
    sync.assert_equal("t")


def test_dropped_while_it_streams(sync: Sync) -> None:
    """The next change to it meets that it is gone; the worker goes on by itself, with a copy."""
    sync.start()
    sync.catch_up()
    sync.target.execute("DROP TABLE t")
    sync.source.execute("UPDATE t SET b = 'later' WHERE id = 7")
    sync.catch_up()
    sync.wait_copied()
    sync.assert_equal("t")


@pytest.mark.parametrize("target", ["postgres"], indirect=True)
def test_dropped_and_altered_while_it_streams(sync: Sync) -> None:
    """A new shape of a table, which is prepared anew, does not bring it back empty either."""
    sync.start()
    sync.catch_up()
    sync.target.execute("DROP TABLE t")
    sync.source.execute("ALTER TABLE t ADD COLUMN c int")
    sync.source.execute("UPDATE t SET c = 7 WHERE id = 7")
    sync.catch_up()
    sync.wait_copied()
    sync.assert_equal("t")


def test_dropped_in_the_middle_of_its_copy(
    source_db: Database, target: Target, make_sync: MakeSync
) -> None:
    """A death between two chunks, then a dropped table: what the first chunk had brought comes again."""
    source_db.execute(SCHEMA)
    source_db.execute(
        "INSERT INTO t SELECT g, 'more', repeat('y', 500) FROM generate_series(100, 60000) g"
    )
    sync = make_sync(source_db, target, ["public.*"])
    sync.start("--until-current", fault="chunk-committed:3").dies_at_fault()
    assert tables_of(target, sync.name)["public.t"].copy is Copy.COPYING
    sync.target.execute("DROP TABLE t")
    sync.finish()
    sync.assert_equal("t")
