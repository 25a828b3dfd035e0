"""Statements of MariaDB and MySQL that write several tables at once: by joins and by triggers."""

from __future__ import annotations

from typing import Final

from tests.mysql_crm import numbers, run
from tests.mysql_pairs import Pair, from_each_source
from tests.syncs import MakeSync

TABLES: Final = (
    "CREATE TABLE markers (id int PRIMARY KEY)",
    "CREATE TABLE a (id int PRIMARY KEY, n int, body varchar(50))",
    "CREATE TABLE b (id int PRIMARY KEY, a int, body varchar(50))",
    "CREATE TABLE seen (id int AUTO_INCREMENT PRIMARY KEY, what varchar(50))",
    "CREATE TABLE not_synced (id int AUTO_INCREMENT PRIMARY KEY, what varchar(50))",
    """CREATE TRIGGER a_changed AFTER UPDATE ON a FOR EACH ROW
        INSERT INTO seen (what) VALUES (CONCAT(OLD.body, ' to ', NEW.body))""",
    "CREATE TRIGGER a_gone BEFORE DELETE ON a FOR EACH ROW INSERT INTO seen (what) VALUES ('gone')",
    """CREATE TRIGGER b_changed BEFORE UPDATE ON b FOR EACH ROW
        INSERT INTO not_synced (what) VALUES (OLD.body)""",
)


@from_each_source
def test_statements_that_write_several_tables(pair: Pair, make_sync: MakeSync) -> None:
    """Each row goes to its own table, in the order in which they were written, whatever the image."""
    db = pair.source.connect()
    run(db, *TABLES)
    run(
        db,
        f"INSERT INTO a SELECT n, n, CONCAT('a', n) FROM {numbers(50)}",
        f"INSERT INTO b SELECT n, n % 50 + 1, CONCAT('b', n) FROM {numbers(200)}",
    )
    sync = make_sync(pair.source, pair.target, ["a", "b", "seen", "markers"])
    sync.start()
    sync.wait_copied()
    for image in ("FULL", "MINIMAL"):
        with sync.running.held():
            run(
                db,
                f"SET SESSION binlog_row_image = '{image}'",
                f"UPDATE a JOIN b ON b.a = a.id SET a.body = '{image}', b.body = CONCAT(b.body, '!')"
                " WHERE a.id < 40",
                "UPDATE b, seen SET b.body = 'both', seen.what = CONCAT(seen.what, '.') WHERE b.id = 41",
                "DELETE a, b FROM a JOIN b ON b.a = a.id WHERE a.id BETWEEN 5 AND 10",
                "DELETE FROM a WHERE id = 12",
                "INSERT INTO a SELECT id + 100, n, body FROM a WHERE id BETWEEN 11 AND 30",
                "DELETE FROM a WHERE id > 100",
            )
        sync.catch_up()
        sync.assert_equal("a", "b", "seen")
    sync.assert_nothing_healed()
    assert pair.target.rows("SELECT count(*) FROM seen")[0][0] > 100
