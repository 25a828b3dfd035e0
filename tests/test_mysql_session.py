"""What a sync that streams from MariaDB or MySQL makes of each kind of transaction, in every pair."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from tests.databases import wait_until
from tests.mysql_crm import Connection, numbers, run
from tests.mysql_stage import MysqlStage
from tests.targets import state_of, written_twice


@pytest.fixture(autouse=True)
def runs(mysql_stage: MysqlStage) -> Iterator[None]:
    """Each test finds a worker that streams, and leaves one that has not failed."""
    if not mysql_stage.sync.running.running:
        mysql_stage.sync.start()
    yield
    if mysql_stage.sync.running.running:
        live = mysql_stage.sync.live()
        assert live is None or live.state != "failed"


def in_one(db: Connection, *statements: str) -> None:
    """As one transaction."""
    run(db, "BEGIN", *statements, "COMMIT")


def test_killed_inside_a_statement_of_many_rows(mysql_stage: MysqlStage) -> None:
    """Scenarios 1 and 2: rows of one INSERT share log positions, and a transaction may have 10,000; a
    death in the middle of them loses none and doubles none."""
    stage = mysql_stage
    stage.restart(fault="rows-written:1")
    stage.source.execute(f"INSERT INTO events SELECT n, 'set' FROM {numbers(40)}")
    stage.sync.running.dies_at_fault()
    stage.sync.start(fault="rows-written:1")
    stage.sync.running.dies_at_fault()
    stage.sync.start(fault="batch-taken:1")
    stage.source.execute(f"INSERT INTO events SELECT 10000 + n, 'many' FROM {numbers(10_000)}")
    stage.sync.running.dies_at_fault()
    stage.sync.start()
    stage.settle("events")
    assert not written_twice(stage.source, stage.target, "events", -1)


def test_a_long_transaction_and_a_short_one_across_a_restart(mysql_stage: MysqlStage) -> None:
    """Scenario 3: A is open while B commits and the worker dies; then A commits. Both arrive."""
    stage = mysql_stage
    long = stage.source.connect(autocommit=False)
    run(long, "INSERT INTO events VALUES (100, 'long')")
    stage.source.execute("INSERT INTO events VALUES (101, 'short')")
    stage.sync.catch_up()
    assert stage.target.rows("SELECT id FROM events WHERE id IN (100, 101)") == [(101,)]
    stage.restart()
    stage.sync.catch_up()
    run(long, "INSERT INTO events VALUES (102, 'long')", "COMMIT")
    stage.settle("events")
    assert not written_twice(stage.source, stage.target, "events", -1)


def test_changes_made_while_down(mysql_stage: MysqlStage) -> None:
    """Scenarios 6 and 13: what was committed while no worker ran, in several binlogs, arrives when one
    returns."""
    stage = mysql_stage
    stage.sync.running.kill()
    stage.source.execute("INSERT INTO events VALUES (200, 'down')")
    stage.source.execute("FLUSH BINARY LOGS")
    stage.source.execute("UPDATE pairs SET place = NULL WHERE id = 20")
    stage.source.execute("FLUSH BINARY LOGS")
    stage.source.execute("DELETE FROM pairs WHERE id = 19")
    stage.sync.start()
    stage.settle("events", "pairs")


def test_what_was_rolled_back_delivers_nothing(mysql_stage: MysqlStage) -> None:
    """Scenario 11: rolled-back transactions, savepoints and parts of both are not there."""
    stage = mysql_stage
    db = stage.source.connect(autocommit=False)
    run(db, "INSERT INTO events VALUES (300, 'never')", "ROLLBACK")
    run(
        db,
        "INSERT INTO events VALUES (301, 'kept')",
        "SAVEPOINT a",
        "INSERT INTO events VALUES (302, 'never')",
        "SAVEPOINT b",
        "UPDATE pairs SET code = 1000 WHERE id = 1",
        "ROLLBACK TO a",
        "INSERT INTO events VALUES (303, 'kept')",
        "COMMIT",
    )
    stage.settle("events", "pairs")
    found = stage.target.rows("SELECT id FROM events WHERE id BETWEEN 300 AND 303 ORDER BY id")
    assert [key for (key,) in found] == [301, 303]


def test_a_changed_key_is_never_seen_half_done(mysql_stage: MysqlStage) -> None:
    """Scenario 24: a changed key is a delete and an insert in one transaction of the target: who looks
    sees the row once, at all times."""
    stage = mysql_stage
    stage.source.execute("INSERT INTO wide (id, n, t) VALUES (1000, 0, 'short')")
    stage.sync.catch_up()
    done = threading.Event()
    seen = set()

    def look() -> None:
        while not done.is_set():
            seen.add(tuple(stage.target.rows("SELECT count(*) FROM wide WHERE id >= 1000")))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for n in range(30):
            stage.source.execute(f"UPDATE wide SET id = id + 1, n = {n} WHERE id >= 1000")
        stage.sync.catch_up()
    finally:
        done.set()
        reader.join()
    assert seen == {((1,),)}
    stage.settle("wide")


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB", "FULL"])
@pytest.mark.parametrize("together", [True, False], ids=["one-batch", "one-by-one"])
def test_values_that_the_log_does_not_carry(
    mysql_stage: MysqlStage, image: str, together: bool
) -> None:
    """Scenario 25: a session that writes partial row images leaves out what did not change; that stays
    what it is, when the row's key changes too."""
    stage = mysql_stage
    first = 10 if together else 20
    db = stage.source.connect(init_command=f"SET SESSION binlog_row_image = '{image}'")
    text = "t\\\\té" * 1000

    def change() -> None:
        run(
            db,
            f"DELETE FROM wide WHERE id BETWEEN {first} AND {first + 4} OR id BETWEEN -100 AND -1",
            "INSERT INTO wide VALUES"
            + ", ".join(
                f"""({n}, 'k', 0, '{text}', '{{"a": "{n}"}}', REPEAT(UNHEX('00FF01'), 3000))"""
                for n in range(first, first + 5)
            ),
            f"UPDATE wide SET n = 1 WHERE id = {first}",
            f"UPDATE wide SET n = 2, t = NULL WHERE id = {first + 1}",
            f"UPDATE wide SET id = -id, n = 3 WHERE id = {first + 2}",
            f"UPDATE wide SET n = 4, j = '1', b = '' WHERE id = {first + 3}",
            f"UPDATE wide SET code = NULL WHERE id = {first + 4}",
            f"DELETE FROM wide WHERE id = {first + 4}",
        )

    if together:
        stage.held(change)
    else:
        change()
    stage.settle("wide")


def test_truncate(mysql_stage: MysqlStage) -> None:
    """Scenario 26: TRUNCATE is only a statement in the log. It empties the table between the rows of
    before and those of after, in one batch and in several."""
    stage = mysql_stage

    def fill_and_empty() -> None:
        for n in range(3):
            stage.source.execute(f"INSERT INTO left_box VALUES ({n}, 'before')")
            stage.source.execute("TRUNCATE TABLE left_box" if n else "truncate `left_box`")
            stage.source.execute(f"INSERT INTO left_box VALUES ({n}, 'after')")

    fill_and_empty()
    stage.settle("left_box")
    stage.held(fill_and_empty)
    stage.settle("left_box")
    assert stage.target.rows("SELECT count(*) FROM left_box") == [(1,)]


def test_swapped_unique_values(mysql_stage: MysqlStage) -> None:
    """Scenario 27: rows exchange the values of a secondary unique column, within a transaction, within
    a batch of transactions, and in a circle of three."""
    stage = mysql_stage

    def swap(a: int, b: int) -> None:
        db = stage.source.connect()
        codes: dict[int, int] = dict(
            stage.source.rows("SELECT id, code FROM pairs WHERE id IN (%s, %s)", [a, b])
        )
        in_one(
            db,
            *(
                f"UPDATE pairs SET code = {code} WHERE id = {key}"
                for key, code in ((a, -1), (b, codes[a]), (a, codes[b]))
            ),
        )

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


def test_the_life_of_one_key_in_one_batch(mysql_stage: MysqlStage) -> None:
    """Scenario 28: insert, update, delete, insert of one key, in one transaction, and as one batch of
    several, ends as the source's row."""
    stage = mysql_stage
    db = stage.source.connect()
    life = (
        "INSERT INTO wide (id, code, t) VALUES (500, 'a', REPEAT('a', 5000))",
        "UPDATE wide SET n = 1 WHERE id = 500",
        "DELETE FROM wide WHERE id = 500",
        "INSERT INTO wide (id, code, t) VALUES (500, 'b', REPEAT('b', 5000))",
        "UPDATE wide SET n = 2 WHERE id = 500",
    )
    in_one(db, *life)
    stage.settle("wide")
    stage.held(lambda: run(db, "DELETE FROM wide WHERE id = 500", *life))
    stage.settle("wide")


def test_parents_and_children(mysql_stage: MysqlStage) -> None:
    """Scenarios 29 and 48: rows that refer to one another, and to themselves, within a transaction and
    within a batch; and written children first by a session that does not look, as dumps are loaded."""
    stage = mysql_stage

    def live_and_die(first: int) -> None:
        db = stage.source.connect()
        parents = [f"INSERT INTO parents VALUES ({first + n}, {first}, 'p')" for n in range(4)]
        children = [
            f"INSERT INTO children VALUES ({first + n}, {first + n}, 'c')" for n in range(3)
        ]
        run(db, "SET foreign_key_checks = 1")
        in_one(db, *parents, *children)
        in_one(
            db,
            f"DELETE FROM children WHERE parent = {first + 1}",
            f"DELETE FROM parents WHERE id = {first + 1}",
            f"INSERT INTO parents VALUES ({first + 1}, {first + 2}, 'again')",
        )
        run(db, "SET foreign_key_checks = 0")
        later = first + 4
        in_one(
            db,
            f"INSERT INTO children VALUES ({later}, {later}, 'c')",
            f"INSERT INTO parents VALUES ({later}, {later + 1}, 'p'), ({later + 1}, {first}, 'p')",
        )
        in_one(
            db,
            f"DELETE FROM parents WHERE id = {later}",
            f"DELETE FROM children WHERE parent = {later}",
        )
        db.close()

    live_and_die(10)
    stage.settle("parents", "children")
    stage.held(lambda: live_and_die(20))
    stage.settle("parents", "children")


def test_keys_that_do_not_tell_upper_from_lower_case(mysql_stage: MysqlStage) -> None:
    """The same key to the source, written otherwise: the row is there once, as it was written last."""
    stage = mysql_stage
    db = stage.source.connect()

    def respell() -> None:
        run(
            db,
            "DELETE FROM folded",
            "INSERT INTO folded VALUES ('straße', 1, 0, 'x'), ('straße', 2, 0, 'x'), ('b', 1, 0, '')",
            "UPDATE folded SET code = 'STRASSE', n = 1 WHERE code = 'straße' AND part = 1",
            "UPDATE folded SET n = 2 WHERE code = 'Strasse'",
            "INSERT INTO folded VALUES ('B', 1, 5, 'y') ON DUPLICATE KEY UPDATE n = 5",
            "REPLACE INTO folded VALUES ('B', 1, 6, 'z')",
            "SET SESSION binlog_row_image = 'MINIMAL'",
            "UPDATE folded SET code = 'É' WHERE code = 'b'",
            "UPDATE folded SET code = 'e' WHERE code = 'é'",
            "SET SESSION binlog_row_image = 'FULL'",
        )

    respell()
    stage.settle("folded")
    stage.held(respell)
    stage.settle("folded")


def test_rows_that_the_target_has_lost(mysql_stage: MysqlStage) -> None:
    """Scenario 38: a delete of an absent row is nothing; an update of one writes the row, whole or read
    again from the source, and is counted as healed."""
    stage = mysql_stage
    whole = stage.source.connect()
    partial = stage.source.connect(init_command="SET SESSION binlog_row_image = 'MINIMAL'")
    run(whole, f"INSERT INTO wide (id, t) SELECT 599 + n, REPEAT('t', 5000) FROM {numbers(3)}")
    stage.sync.catch_up()
    with state_of(stage.target, stage.sync.name) as state:
        before = state.load()
    stage.target.execute("DELETE FROM wide WHERE id BETWEEN 600 AND 602")
    run(whole, "DELETE FROM wide WHERE id = 600", "UPDATE wide SET n = 1 WHERE id = 602")
    # Last: a table of which a row was read again is under redo for a moment, which heals and counts not.
    run(partial, "UPDATE wide SET n = 1 WHERE id = 601")
    stage.settle("wide")
    with state_of(stage.target, stage.sync.name) as state:
        after = state.load()
    assert before is not None
    assert after is not None
    assert after.healed - before.healed == 2


def test_xa_transactions(mysql_stage: MysqlStage) -> None:
    """What is only prepared is not there, be it for long and across a restart of the worker; committed
    it arrives, in its turn; rolled back it never does."""
    stage = mysql_stage

    def prepared(name: str, *rows: int) -> None:
        db = stage.source.connect()
        run(db, f"XA START '{name}'")
        for row in rows:
            run(db, f"INSERT INTO events VALUES ({row}, 'xa')")
        run(db, f"XA END '{name}'", f"XA PREPARE '{name}'")
        db.close()

    def ends(statement: str) -> None:
        """The server gives up the session that has prepared a transaction a moment after it has gone."""
        other = stage.source.connect()

        def ended() -> bool:
            try:
                run(other, statement)
            except Exception as e:  # noqa: BLE001 - asked again
                assert "XAER_NOTA" in str(e), e  # noqa: PT017
                return False
            return True

        wait_until(ended, message=statement)

    present = "SELECT id FROM events WHERE id BETWEEN 900 AND 910 ORDER BY id"
    prepared("one", 900, 901)
    prepared("two", 902)
    prepared("three", 903)
    stage.source.execute("INSERT INTO events VALUES (904, 'between')")
    stage.sync.catch_up()
    assert [key for (key,) in stage.target.rows(present)] == [904]
    ends("XA COMMIT 'one'")
    ends("XA ROLLBACK 'two'")
    stage.settle("events")
    stage.restart()
    stage.sync.catch_up()
    ends("XA COMMIT 'three'")
    stage.settle("events")
    db = stage.source.connect()
    run(
        db,
        "XA START 'four'",
        "INSERT INTO events VALUES (905, 'one phase')",
        "XA END 'four'",
        "XA COMMIT 'four' ONE PHASE",
    )
    stage.settle("events")
    assert not written_twice(stage.source, stage.target, "events", -1)


def test_statements_that_concern_nobody(mysql_stage: MysqlStage) -> None:
    """Scenario 31: DDL for tables that are not synced, DDL that no parser understands, statements in
    the log for tables that are not synced: none of it stops anything."""
    stage = mysql_stage
    run(
        stage.source.connect(),
        "CREATE TABLE other AS SELECT id, body FROM not_synced",
        "ALTER TABLE other ADD COLUMN x GEOMETRY, ADD PRIMARY KEY (id)",
        "CREATE OR REPLACE VIEW looks AS SELECT id FROM other",
        "CREATE PROCEDURE p() BEGIN DECLARE x INT DEFAULT 1; WHILE x < 2 DO SET x = x + 1; END WHILE; END",
        "CREATE TRIGGER t BEFORE INSERT ON other FOR EACH ROW SET NEW.x = NULL",
        "GRANT SELECT ON *.* TO CURRENT_USER()",
        "SET SESSION binlog_format = 'STATEMENT'",
        "INSERT INTO not_synced VALUES (1, 'statement')",
        "UPDATE not_synced SET body = 'x'",
        "SET SESSION binlog_format = 'ROW'",
        "CREATE TABLE isam (id int PRIMARY KEY) ENGINE = MyISAM",
        "INSERT INTO isam VALUES (1), (2)",
        "CREATE TEMPORARY TABLE events_now LIKE events",
        "INSERT INTO events_now VALUES (1, 'temporary')",
        "DROP TABLE isam, other",
        "DROP PROCEDURE p",
        "ANALYZE TABLE events",
        "OPTIMIZE TABLE not_synced",
    )
    if stage.source.server.flavour == "mariadb":
        run(
            stage.source.connect(),
            "CREATE SEQUENCE s",
            "SELECT NEXTVAL(s)",
            "ALTER TABLE not_synced ADD SYSTEM VERSIONING",
            "INSERT INTO not_synced VALUES (2, 'versioned')",
            "UPDATE not_synced SET body = 'x'",
            "ALTER TABLE not_synced DROP SYSTEM VERSIONING",
            "DROP SEQUENCE s",
        )
    stage.settle()


def test_compressed_events(mysql_stage: MysqlStage) -> None:
    """Scenario 37: a session may compress what it logs."""
    stage = mysql_stage
    mariadb = stage.source.server.flavour == "mariadb"
    db = stage.source.connect()
    before = "SET GLOBAL log_bin_compress = {}" if mariadb else None
    try:
        if before:
            run(db, before.format("ON"))
        else:
            run(db, "SET SESSION binlog_transaction_compression = ON")
        run(
            db,
            f"INSERT INTO events SELECT 1000 + n, REPEAT('x', 200) FROM {numbers(2000)}",
            "INSERT INTO wide (id, t) VALUES (800, REPEAT('long ', 5000))",
            "UPDATE wide SET t = CONCAT(t, t), n = 1 WHERE id = 800",
            "DELETE FROM events WHERE id = 1001",
            "TRUNCATE TABLE left_box",
            "DELETE FROM wide WHERE id = 800",
            "INSERT INTO wide (id, t) VALUES (801, REPEAT('long ', 5000))",
        )
        stage.settle("events", "wide")
    finally:
        if before:
            run(db, before.format("OFF"))


def json_in_parts() -> Sequence[str]:
    return (
        "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
        "DELETE FROM wide WHERE id = 850",
        """INSERT INTO wide (id, t, j) VALUES (850, 't', '{"a": 1, "b": [1, 2, 3], "c": "long long"}')""",
        "UPDATE wide SET j = JSON_SET(j, '$.a', 2, '$.b[1]', 'x') WHERE id = 850",
        "UPDATE wide SET j = JSON_REMOVE(j, '$.c'), n = 5 WHERE id = 850",
        "UPDATE wide SET j = JSON_REPLACE(j, '$.b', JSON_ARRAY()) WHERE id = 850",
    )


def test_partial_json(mysql_stage: MysqlStage) -> None:
    """MySQL may log only what has changed inside of a document, twice in one column too."""
    stage = mysql_stage
    if stage.source.server.flavour == "mariadb":
        return  # it has no such thing
    run(stage.source.connect(), *json_in_parts())
    stage.settle("wide")


def test_nothing_is_held_on_the_source(mysql_stage: MysqlStage) -> None:
    """Scenario 23: a sync that streams holds no transaction and no lock on the source."""
    stage = mysql_stage
    stage.sync.catch_up()
    held = (
        "SELECT t.trx_id FROM information_schema.innodb_trx t JOIN information_schema.processlist p"
        " ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE() AND p.id <> CONNECTION_ID()"
    )

    def free() -> bool:
        # What innodb_trx says is kept for 0.1 s after each time that it was asked.
        stage.source.execute("DO SLEEP(0.15)")
        return not stage.source.rows(held)

    wait_until(free, 10, "the source is free of us")


def test_an_idle_source_has_no_lag(mysql_stage: MysqlStage) -> None:
    """Scenario 14: what others write in the log is passed, and the lag is none."""
    stage = mysql_stage
    stage.sync.catch_up()
    stage.source.execute("INSERT INTO not_synced VALUES (77, 'x') ON DUPLICATE KEY UPDATE id = 77")

    def told() -> bool:
        live = stage.sync.live()
        return live is not None and live.state == "streaming" and live.lag_seconds == 0.0

    stage.sync.waits_for(told, "no lag")


def test_a_pause_holds_and_ends(mysql_stage: MysqlStage) -> None:
    """A paused sync stands still, says so, keeps that across a restart, and loses nothing."""
    stage = mysql_stage

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
    assert list(stage.target.rows("SELECT 1 FROM events WHERE id = 700")) == []
    pause(False)
    stage.settle("events")


def test_a_clean_stop(mysql_stage: MysqlStage) -> None:
    """SIGTERM ends the worker within 8 seconds with exit code 0, and nothing of it stays on the source."""
    stage = mysql_stage
    stage.source.execute("INSERT INTO events VALUES (800, 'last')")
    stage.sync.catch_up()
    assert stage.sync.running.stop() < 8


def test_a_second_worker_is_refused(mysql_stage: MysqlStage) -> None:
    """Scenario 16: a second worker of the same sync ends at once and names the first by its pid; the
    first does not notice."""
    stage = mysql_stage
    first = stage.sync.running.pid
    stage.sync.catch_up()
    assert stage.sync.second().wait() == 1
    assert f"sync s1 is already run by pid {first} on " in stage.sync.log_tail(5)
    stage.settle("events")


def test_a_copy_on_a_live_sync(mysql_stage: MysqlStage) -> None:
    """A table that is copied again while it is written ends right, also where the target had other rows."""
    stage = mysql_stage
    stage.sync.catch_up()
    stage.target.execute("DELETE FROM pairs WHERE id < 10")
    stage.target.execute("UPDATE wide SET n = -5")
    for table in ("pairs", "wide"):
        stage.sync.request(f"{stage.source.name}.{table}")
    stage.settle()
