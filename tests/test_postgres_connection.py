"""How statements reach a PostgreSQL target."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from appliers.postgres.connection import Session, Step, has_touched_none, touching
from tests.databases import Database


@pytest.fixture
def session(target_db: Database) -> Iterator[Session]:
    target_db.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    session = Session(target_db.url, None, "test")
    yield session
    session.close()


@pytest.mark.parametrize("way", ["execute", "raw_rows", "copy_in", "send", "touched"])
def test_what_begins_goes_ahead(session: Session, target_db: Database, way: str) -> None:
    """Of whatever is sent next, in the order in which it was given, and counts as begun before that."""
    session.begin(["BEGIN"])
    session.begin(["SAVEPOINT a"])
    assert session.in_transaction
    if way == "execute":
        assert session.execute("DELETE FROM t") == ([], 2)
    elif way == "raw_rows":
        rows = session.raw_rows("DELETE FROM t RETURNING id", binary=False)
        assert rows == [(b"1",), (b"2",)]
    elif way == "copy_in":
        assert session.copy_in("COPY t FROM STDIN", [b"3\n", b"4\n"]) == 2
    elif way == "send":
        session.send([Step(session.prepare("DELETE FROM t", ()), (), None)])
        [result] = session.receive()
        assert result.command_tuples == 2
    else:
        row = b"\0\0\0\2"
        assert session.touched("DELETE FROM t WHERE id = $1::int", [row, row]) == 1
    session.execute("ROLLBACK TO SAVEPOINT a")
    session.execute("COMMIT")
    assert target_db.rows("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


def test_an_error_of_what_begins_is_raised(session: Session, target_db: Database) -> None:
    """By what was sent behind it, which is not run."""
    session.begin(["SAVEPOINT a"])
    with pytest.raises(psycopg.errors.NoActiveSqlTransaction):
        session.execute("DELETE FROM t")
    assert target_db.rows("SELECT count(*) FROM t") == [(2,)]
    session.begin(["BEGIN"])
    session.roll_back()
    assert not session.in_transaction
    session.execute("DELETE FROM t")
    assert target_db.rows("SELECT count(*) FROM t") == [(0,)]


def test_nothing_is_run_behind_a_statement_that_touches_no_row(
    session: Session, target_db: Database
) -> None:
    """The commit of a checkpoint that somebody else has moved."""
    update = session.prepare(touching("UPDATE t SET id = 3 WHERE id = 2"), ())
    steps = [Step(update, (), None), Step(session.prepare("COMMIT", ()), (), None)]
    session.execute("BEGIN")
    session.send(steps)
    moved, committed = session.receive()
    assert not has_touched_none(moved)
    assert committed.command_status == b"COMMIT"
    session.execute("BEGIN")
    session.execute("DELETE FROM t")
    session.send(steps)
    [refused] = session.receive()
    assert has_touched_none(refused)
    session.roll_back()
    assert target_db.rows("SELECT id FROM t ORDER BY id") == [(1,), (3,)]
