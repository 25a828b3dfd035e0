"""Scenario 48: sixty tables that refer to one another, in a ring, and to themselves, from and into MariaDB
and MySQL, whose foreign keys are looked at with every row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pymysql
import pytest

from tests.databases import Database
from tests.mysql_crm import run
from tests.mysql_databases import MysqlDatabase
from tests.mysql_pairs import Pair, some_pairs
from tests.syncs import MakeSync, Sync
from tests.targets import MysqlTarget, Target

NAMES: Final = [f"t{n}" for n in range(60)]


def tables(late: str = "") -> Iterator[str]:
    for name in NAMES:
        yield f"CREATE TABLE {name} (id int NOT NULL PRIMARY KEY, up int, aside int)"
    for n, name in enumerate(NAMES):
        other = NAMES[(n * 7 + 1) % len(NAMES)]
        yield (
            f"ALTER TABLE {name} ADD FOREIGN KEY (up) REFERENCES {name} (id){late},"
            f" ADD FOREIGN KEY (aside) REFERENCES {other} (id){late}"
        )


def fill() -> Iterator[str]:
    for name in NAMES:
        yield f"INSERT INTO {name} VALUES (1, 1, NULL), (2, 1, NULL)"
    for name in NAMES:
        yield f"UPDATE {name} SET aside = 2 WHERE id = 1"


def grow() -> Iterator[str]:
    """Rows that refer to rows that come later, in their own table and in others; keys that go."""
    for name in NAMES:
        yield f"INSERT INTO {name} VALUES (3, 4, 4)"
    for name in reversed(NAMES):
        yield f"INSERT INTO {name} VALUES (4, 3, 1)"
        yield f"UPDATE {name} SET aside = 3 WHERE id = 1"
        yield f"DELETE FROM {name} WHERE id = 2"


def shrink() -> Iterator[str]:
    """What is referred to goes before what refers to it."""
    for name in NAMES:
        yield f"DELETE FROM {name} WHERE id = 4"
    for name in reversed(NAMES):
        yield f"DELETE FROM {name} WHERE id = 3"
        yield f"UPDATE {name} SET aside = 1 WHERE id = 1"


def assert_same(sync: Sync) -> None:
    query = " UNION ALL ".join(f"SELECT {n}, id, up, aside FROM {t}" for n, t in enumerate(NAMES))
    ours, theirs = sorted(sync.source.rows(query)), sorted(sync.target.rows(query))
    assert ours == theirs, sync.log_tail()


def follow(sync: Sync) -> None:
    for transaction in (grow, shrink):
        if isinstance(sync.source, MysqlDatabase):
            # As dumps are loaded: it has no other way to write these.
            session = sync.source.connect(init_command="SET SESSION foreign_key_checks = 0")
            run(session, "BEGIN", *transaction(), "COMMIT")
        else:
            sync.source.execute("; ".join(["BEGIN", *transaction(), "COMMIT"]))
        sync.finish()
        assert_same(sync)
    sync.assert_nothing_healed()


@some_pairs("mariadb-mariadb", "mariadb-sqlite")
def test_from_mysql(pair: Pair, make_sync: MakeSync) -> None:
    """Copied and streamed, in every pair."""
    run(pair.source.connect(), *tables(), *fill())
    late = " DEFERRABLE" if pair.target.kind == "postgres" else ""
    if pair.target.kind != "sqlite":
        for statement in tables(late):
            pair.target.execute(statement)
    sync = make_sync(pair.source, pair.target, ["*"])
    sync.finish()
    assert_same(sync)
    follow(sync)
    if isinstance(pair.target, MysqlTarget):
        still_holds(pair.target)


def still_holds(target: Target) -> None:
    with pytest.raises(pymysql.err.IntegrityError, match="foreign key constraint"):
        target.execute("DELETE FROM t1 WHERE id = 1")


def test_from_postgres(
    source_db: Database, mariadb_target: MysqlDatabase, make_sync: MakeSync
) -> None:
    """Where the source looks when the transaction ends, and the target with every row."""
    source_db.execute("; ".join([*tables(" DEFERRABLE INITIALLY DEFERRED"), *fill()]))
    target = MysqlTarget(mariadb_target)
    run(mariadb_target.connect(), *tables())
    sync = make_sync(source_db, target, ["public.*"])
    sync.finish()
    assert_same(sync)
    follow(sync)
    still_holds(target)
