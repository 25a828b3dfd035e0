"""What a sync that streams makes of each kind of transaction, on every target, from one running worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.databases import wait_until
from tests.stage import WIDE, Stage
from tests.targets import state_of, written_twice


@pytest.fixture(autouse=True)
def runs(stage: Stage) -> Iterator[None]:
    """Each test finds a worker that streams, and leaves one that has not failed."""
    if not stage.sync.running.running:
        stage.sync.start()
    yield
    if stage.sync.running.running:
        live = stage.sync.live()
        assert live is None or live.state != "failed"


def test_killed_inside_a_statement_of_many_rows(stage: Stage) -> None:
    """Scenarios 1 and 2: rows of one COPY and of one INSERT share log positions, and a transaction may
    have 10,000; a death in the middle of them loses none and doubles none."""
    stage.restart(fault="rows-written:1")
    with stage.source.connect().cursor().copy("COPY events FROM STDIN") as copy:
        for n in range(20):
            copy.write_row((n, "copied"))
    stage.source.execute("INSERT INTO events SELECT g, 'set' FROM generate_series(20, 39) g")
    stage.sync.running.dies_at_fault()
    stage.sync.start(fault="rows-written:1")
    stage.sync.running.dies_at_fault()
    stage.sync.start(fault="batch-taken:2")
    stage.source.execute("INSERT INTO events SELECT g, 'many' FROM generate_series(10001, 20000) g")
    stage.sync.running.dies_at_fault()
    stage.sync.start()
    stage.settle("events")
    assert not written_twice(stage.source, stage.target, "events", -1)


def test_a_long_transaction_and_a_short_one_across_a_restart(stage: Stage) -> None:
    """Scenario 3: A is open while B commits and the worker dies; then A commits. Both arrive."""
    long = stage.source.connect(autocommit=False)
    long.execute("INSERT INTO events VALUES (100, 'long')")
    stage.source.execute("INSERT INTO events VALUES (101, 'short')")
    stage.sync.catch_up()
    assert stage.target.rows("SELECT id FROM events WHERE id IN (100, 101)") == [(101,)]
    stage.restart()
    stage.sync.catch_up()
    long.execute("INSERT INTO events VALUES (102, 'long')")
    long.commit()
    stage.settle("events")
    assert not written_twice(stage.source, stage.target, "events", -1)


def test_changes_made_while_down(stage: Stage) -> None:
    """Scenario 6: what was committed while no worker ran arrives when one returns."""
    stage.sync.running.kill()
    stage.source.execute("INSERT INTO events VALUES (200, 'down')")
    stage.source.execute("UPDATE pairs SET place = NULL WHERE id = 20")
    stage.source.execute("DELETE FROM pairs WHERE id = 19")
    stage.sync.start()
    stage.settle("events", "pairs")


def test_what_was_rolled_back_delivers_nothing(stage: Stage) -> None:
    """Scenario 11: rolled-back transactions, savepoints and parts of both are not there."""
    db = stage.source.connect(autocommit=False)
    db.execute("INSERT INTO events VALUES (300, 'never')")
    db.rollback()
    db.execute("INSERT INTO events VALUES (301, 'kept')")
    db.execute("SAVEPOINT a")
    db.execute("INSERT INTO events VALUES (302, 'never')")
    db.execute("SAVEPOINT b")
    db.execute("UPDATE pairs SET code = 1000 WHERE id = 1")
    db.execute("ROLLBACK TO a")
    db.execute("INSERT INTO events VALUES (303, 'kept')")
    db.commit()
    stage.settle("events", "pairs")
    found = stage.target.rows("SELECT id FROM events WHERE id BETWEEN 300 AND 303 ORDER BY id")
    assert found == [(301,), (303,)]


def test_a_changed_key_is_never_seen_half_done(stage: Stage) -> None:
    """Scenario 24: a changed key is a delete and an insert in one transaction of the target: who looks
    sees the row once, at all times."""
    stage.source.execute("INSERT INTO by_key VALUES (1000, 'k', 0, 'short')")
    stage.sync.catch_up()
    done = threading.Event()
    seen = set()

    def look() -> None:
        while not done.is_set():
            seen.add(tuple(stage.target.rows("SELECT count(*) FROM by_key WHERE id >= 1000")))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for n in range(30):
            stage.source.execute(f"UPDATE by_key SET id = id + 1, n = {n} WHERE id >= 1000")
        stage.sync.catch_up()
    finally:
        done.set()
        reader.join()
    assert seen == {((1,),)}
    stage.settle("by_key")


@pytest.mark.parametrize("table", WIDE)
@pytest.mark.parametrize("together", [True, False], ids=["one-batch", "one-by-one"])
def test_values_that_the_log_does_not_carry(stage: Stage, table: str, together: bool) -> None:
    """Scenario 25: an unchanged value out of line stays what it is, be it text, jsonb, bytea or an
    array, whatever identifies the row, when its key changes too."""
    first = 10 if together else 20
    text, array = "t" * 5000, "{" + ",".join(["é"] * 4000) + "}"

    def change() -> None:
        for key in range(first, first + 5):
            stage.source.execute(
                f"INSERT INTO {table} VALUES (%s, %s, 0, %s, jsonb_build_object('a', %s::text), %s, %s)",
                [key, f"code {key}", text, text, b"\x00\xff\x01" * 3000, array],
            )
        stage.source.execute(f"UPDATE {table} SET n = 1 WHERE id = {first}")
        stage.source.execute(f"UPDATE {table} SET n = 2, t = NULL WHERE id = {first + 1}")
        new = "code = 'new ' || id" if table == "by_code" else "id = -id"
        stage.source.execute(f"UPDATE {table} SET {new}, n = 3 WHERE id = {first + 2}")
        stage.source.execute(f"UPDATE {table} SET n = 4, j = '1', b = '' WHERE id = {first + 3}")
        stage.source.execute(f"UPDATE {table} SET n = 5 WHERE id = {first + 4}")
        stage.source.execute(f"DELETE FROM {table} WHERE id = {first + 4}")

    if together:
        stage.held(change)
    else:
        change()
    [sizes] = stage.source.rows(
        "SELECT pg_column_size(t), pg_column_size(j), pg_column_size(b), pg_column_size(a)"
        f" FROM {table} WHERE id = {first}"
    )
    assert min(sizes) > 2048, "what is compressed to less is in every image"
    stage.settle(table)


def test_truncate_of_several_tables(stage: Stage) -> None:
    """Scenario 26: one TRUNCATE of several tables empties them all, between the rows of before and
    those of after, in one batch and in several."""

    def fill_and_empty() -> None:
        for n in range(3):
            for table in ("left_box", "right_box"):
                stage.source.execute(f"INSERT INTO {table} VALUES ({n}, 'before')")
            stage.source.execute("TRUNCATE left_box, right_box")
            stage.source.execute(f"INSERT INTO right_box VALUES ({n}, 'after')")

    fill_and_empty()
    stage.settle("left_box", "right_box")
    stage.held(fill_and_empty)
    stage.settle("left_box", "right_box")
    assert stage.target.rows("SELECT count(*) FROM right_box") == [(1,)]


def test_swapped_unique_values(stage: Stage) -> None:
    """Scenario 27: rows exchange the values of a secondary unique column, within a transaction, within
    a batch of transactions, and in a circle of three."""

    def swap(a: int, b: int) -> None:
        db = stage.source.connect(autocommit=False)
        codes: dict[int, int] = dict(
            db.execute("SELECT id, code FROM pairs WHERE id IN (%s, %s)", [a, b]).fetchall()
        )
        for key, code in ((a, -1), (b, codes[a]), (a, codes[b])):
            db.execute("UPDATE pairs SET code = %s WHERE id = %s", [code, key])
        db.commit()
        db.close()

    swap(1, 2)
    stage.settle("pairs")

    def several() -> None:
        swap(1, 2)
        swap(2, 3)
        swap(3, 1)
        stage.source.execute("UPDATE pairs SET place = NULL WHERE id IN (5, 6)")
        stage.source.execute("UPDATE pairs SET place = 5 WHERE id = 6")
        stage.source.execute("UPDATE pairs SET place = 6 WHERE id = 5")
        # A value goes from a row that is deleted to one that is new.
        stage.source.execute("DELETE FROM pairs WHERE id = 7")
        stage.source.execute("INSERT INTO pairs VALUES (70, 7, 7)")

    stage.held(several)
    stage.settle("pairs")


def test_the_life_of_one_key_in_one_batch(stage: Stage) -> None:
    """Scenario 28: insert, update, delete, insert of one key, in one transaction, and as one batch of
    several, ends as the source's row."""
    life = (
        "INSERT INTO by_key (id, code, t) VALUES (500, 'a', repeat('a', 5000))",
        "UPDATE by_key SET n = 1 WHERE id = 500",
        "DELETE FROM by_key WHERE id = 500",
        "INSERT INTO by_key (id, code, t) VALUES (500, 'b', repeat('b', 5000))",
        "UPDATE by_key SET n = 2 WHERE id = 500",
    )
    stage.source.execute(";".join(life))
    stage.settle("by_key")

    def again() -> None:
        for statement in ("DELETE FROM by_key WHERE id = 500", *life):
            stage.source.execute(statement)

    stage.held(again)
    stage.settle("by_key")


def test_parents_and_children(stage: Stage) -> None:
    """Scenarios 29 and 48: rows that refer to one another, and to themselves, written children first
    and deleted parents first, within a transaction and within a batch."""

    def live_and_die(first: int) -> None:
        db = stage.source.connect(autocommit=False)
        for n in range(first, first + 3):
            db.execute("INSERT INTO children VALUES (%s, %s, 'c')", [n, n])
            db.execute("INSERT INTO parents VALUES (%s, %s, 'p')", [n, n + 1])
        db.execute("INSERT INTO parents VALUES (%s, %s, 'p')", [first + 3, first])
        db.commit()
        db.execute("DELETE FROM parents WHERE id = %s", [first])
        db.execute("UPDATE parents SET boss = NULL WHERE boss = %s", [first])
        db.execute("DELETE FROM children WHERE parent = %s", [first])
        db.commit()
        db.close()

    live_and_die(10)
    stage.settle("parents", "children")
    stage.held(lambda: live_and_die(20))
    stage.settle("parents", "children")


def test_rows_that_the_target_has_lost(stage: Stage) -> None:
    """Scenario 38: a delete of an absent row is nothing; an update of one writes the row, whole or read
    again from the source, and is counted as healed."""
    stage.source.execute(
        "INSERT INTO by_key (id, code, n, t) SELECT g, 'lost', 0, repeat('t', 5000)"
        " FROM generate_series(600, 602) g"
    )
    stage.sync.catch_up()
    with state_of(stage.target, stage.sync.name) as state:
        before = state.load()
    stage.target.execute("DELETE FROM by_key WHERE id BETWEEN 600 AND 602")
    stage.source.execute("DELETE FROM by_key WHERE id = 600")
    stage.source.execute(
        "UPDATE by_key SET n = 1, t = 'x', j = '1', b = '', a = '{y}' WHERE id = 602"
    )
    # Last: a table of which a row was read again is under redo for a moment, which heals and counts not.
    stage.source.execute("UPDATE by_key SET n = 1 WHERE id = 601")
    stage.settle("by_key")
    with state_of(stage.target, stage.sync.name) as state:
        after = state.load()
    assert before is not None
    assert after is not None
    assert after.healed - before.healed == 2


def test_nothing_is_held_on_the_source(stage: Stage) -> None:
    """Scenario 23: a sync that streams holds no lock, no transaction and no snapshot on the source."""
    stage.sync.catch_up()
    held = (
        "SELECT a.pid, a.state, a.backend_xmin::text FROM pg_stat_activity a"
        f" WHERE a.application_name = 'cdc {stage.sync.name}' AND a.datname = current_database()"
        " AND (a.state LIKE 'idle in transaction%' OR a.backend_xmin IS NOT NULL OR EXISTS ("
        " SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'relation'))"
    )
    wait_until(lambda: not stage.source.rows(held), 5, "the source is free of us")


def test_a_pause_holds_and_ends(stage: Stage) -> None:
    """A paused sync stands still, says so, keeps that across a restart, and loses nothing."""

    def pause(paused: bool) -> None:
        with state_of(stage.target, stage.sync.name) as state:
            state.pause(paused)

    def is_paused() -> bool:
        live = stage.sync.live()
        return live is not None and live.state == "paused"

    pause(True)
    stage.sync.waits_for(is_paused, "the sync is paused")
    stage.source.execute("INSERT INTO events VALUES (700, 'paused')")
    stage.restart()
    stage.sync.waits_for(is_paused, "the sync is still paused")
    assert stage.target.rows("SELECT 1 FROM events WHERE id = 700") == []
    pause(False)
    stage.settle("events")


def test_a_clean_stop(stage: Stage) -> None:
    """SIGTERM ends the worker within 8 seconds with exit code 0, and the slot stands where the target
    does; behind it for a MariaDB whose settings do not flush commits."""
    stage.source.execute("INSERT INTO events VALUES (800, 'last')")
    stage.sync.catch_up()
    assert stage.sync.running.stop() < 8
    with state_of(stage.target, stage.sync.name) as state:
        checkpoint = state.load()
    assert checkpoint is not None
    [(behind,)] = stage.source.rows(
        f"SELECT confirmed_flush_lsn {'<=' if stage.target.kind == 'mariadb' else '='} %s::pg_lsn"
        " FROM pg_replication_slots WHERE slot_name = %s",
        [checkpoint.position, f"cdc_{stage.sync.name}"],
    )
    assert behind


def test_a_second_worker_is_refused(stage: Stage) -> None:
    """Scenario 16: a second worker of the same sync ends at once and names the first by its pid; the
    first does not notice."""
    first = stage.sync.running.pid
    stage.sync.catch_up()
    assert stage.sync.second().wait() == 1
    assert f"sync s1 is already run by pid {first} on " in stage.sync.log_tail(5)
    stage.settle("events")
