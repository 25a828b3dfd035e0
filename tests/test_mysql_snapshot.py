"""Copies of MariaDB's and MySQL's tables: through kills, and beside transactions that are open."""

from __future__ import annotations

from typing import Final

from cdc.sources.mysql.copying import FEWEST_ROWS
from tests.killing import chunks_left
from tests.mysql_crm import numbers
from tests.mysql_pairs import Pair, from_each_source, some_pairs
from tests.syncs import MakeSync
from tests.targets import tables_of

CHUNKS: Final = 7
ROWS: Final = CHUNKS * FEWEST_ROWS
WIDE: Final = (
    "CREATE TABLE markers (id bigint NOT NULL PRIMARY KEY)",
    "CREATE TABLE wide (id bigint NOT NULL PRIMARY KEY, body {text}, n int)",
)


def make_wide(pair: Pair) -> None:
    """A table whose rows are so wide that each chunk has as few as there may be."""
    for statement in WIDE:
        pair.source.execute(statement.format(text="text"))
        pair.target.execute(statement.format(text="text"))
    pair.source.execute(f"INSERT INTO wide SELECT n, REPEAT('w', 4000), n FROM {numbers(ROWS)}")
    pair.source.execute("ANALYZE TABLE wide")


@some_pairs("mariadb-mariadb", "mysql-mysql")
def test_a_killed_copy_goes_on_where_it_was(pair: Pair, make_sync: MakeSync) -> None:
    """Scenario 19: the chunks that are left never grow, and each row is written once, however often the
    copy is killed."""
    make_wide(pair)
    pair.target.count_writes("wide")
    sync = make_sync(pair.source, pair.target, ("wide", "markers"))
    left = chunks_left(sync)
    assert left == sorted(left, reverse=True)
    assert left[0] > left[-1] > 0
    sync.start()
    sync.wait_copied()
    sync.assert_equal("wide")
    assert pair.target.rows("SELECT count(*), count(DISTINCT id) FROM wide_writes") == [
        (ROWS, ROWS)
    ]
    table = next(
        t for name, t in tables_of(pair.target, sync.name).items() if name.endswith("wide")
    )
    assert table.rows == ROWS


@from_each_source
def test_transactions_across_the_beginning(pair: Pair, make_sync: MakeSync) -> None:
    """Scenarios 17 and 18: what is inserted, updated and deleted while the copy is made ends in its
    latest state, by transactions too that were open as it began, committed and rolled back."""
    make_wide(pair)
    sync = make_sync(pair.source, pair.target, ("wide", "markers"))
    before, undone, across = (pair.source.connect(autocommit=False) for _ in range(3))
    with before.cursor() as cursor:
        cursor.execute("UPDATE wide SET n = -1 WHERE id BETWEEN 1 AND 500")
        cursor.execute("INSERT INTO wide VALUES (0, 'open as the copy begins', 0)")
    with undone.cursor() as cursor:
        cursor.execute("DELETE FROM wide WHERE id BETWEEN 2001 AND 2500")
    sync.start(fault="chunk-committed:1").dies_at_fault()
    with across.cursor() as cursor:
        cursor.execute("DELETE FROM wide WHERE id BETWEEN 3001 AND 3500")
        cursor.execute("UPDATE wide SET id = id + 1000000 WHERE id BETWEEN 4001 AND 4500")
    before.commit()
    pair.source.execute("INSERT INTO wide VALUES (-1, 'while it is made', 1)")
    sync.start(fault="chunk-written:2").dies_at_fault()
    across.commit()
    undone.rollback()
    sync.start()
    sync.wait_copied()
    sync.finish()
    sync.assert_equal("wide")
    sync.assert_nothing_healed()
    counts = "SELECT count(*), sum(CASE WHEN n = -1 THEN 1 ELSE 0 END) FROM wide"
    assert pair.source.rows(counts) == [(ROWS + 2 - 500, 500)]
