"""MariaDB and MySQL as targets: sessions and their settings, grants, durability, faults, `check`."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import pymysql
import pytest

from appliers.batch import Batch, Chunk
from appliers.checkpoint import TableState
from appliers.delta import UNCHANGED, Delta
from appliers.errors import FencedError, PermanentError, SyncError, TransientError
from appliers.finding import Finding
from appliers.images import Format
from appliers.mysql import MysqlApplier, session, stream
from appliers.mysql.failures import said
from appliers.mysql.lock import lock_name
from appliers.mysql.preflight import Grants
from appliers.relation import Column, Relation
from tests.applier_bed import no_reread
from tests.databases import wait_until
from tests.mysql_applier_bed import ID, NUMBER, TEXT, Target, without_load
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql
from tests.mysql_servers import LocalMysql

Fresh = Callable[[LocalMysql], MysqlDatabase]

NEEDED: Final = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, CREATE TEMPORARY TABLES"


@pytest.fixture
def target(mariadb_bed: Target) -> Target:
    return mariadb_bed


@pytest.fixture
def any_target(any_mysql_bed: Target) -> Target:
    return any_mysql_bed


def unprepared(name: str = "t") -> Relation:
    return Relation("crm", name, (ID, TEXT), (0,), Format.LINE, dialect="mysql", home="crm")


def level_of(found: list[Finding], subject: str) -> str:
    [level] = [f.level for f in found if f.subject == subject]
    return level


# -- sessions ----------------------------------------------------------------------------------------


HOSTILE: Final = {
    "sql_mode": "'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,NO_ZERO_DATE,NO_ZERO_IN_DATE'",
    "time_zone": "'+05:00'",
    "completion_type": "1",
    "autocommit": "0",
    "foreign_key_checks": "0",
    "sql_notes": "0",
    "auto_increment_increment": "7",
    "tx_isolation": "'SERIALIZABLE'",
    "max_statement_time": "1",
    "wait_timeout": "2",
    "explicit_defaults_for_timestamp": "0",
    "binlog_format": "'MIXED'",
    "sql_select_limit": "1",
}


def test_settings_of_the_server_do_not_reach_the_session(
    make_mariadb: MakeMysql, fresh_mysql_database: Fresh
) -> None:
    """Whatever the server's defaults are for quotes, escapes, dates, time zone, character set, commits
    and checks: rows arrive as they are."""
    db = fresh_mysql_database(make_mariadb({"character_set_server": "latin1"}))
    for name, value in HOSTILE.items():
        db.execute(f"SET GLOBAL {name} = {value}")
    there = Target(db)
    at = Column("at", "timestamp(3)", "timestamp")
    day = Column("day", "date", "date")
    relation = there.relation("t", ID, TEXT, at, day)
    rows = [(n, f"\u20ac \\ ' \" {n}", "2024-07-01 12:00:00.250", "0000-00-00") for n in range(100)]
    there.apply(*[there.insert(relation, *r) for r in rows])
    there.apply(*[there.update(relation, n, UNCHANGED, *r[1:]) for n, *r in rows])
    printed = "SELECT id, v, CAST(at AS CHAR), CAST(day AS CHAR) FROM t ORDER BY id"
    assert there.applier._session.rows(printed) == rows
    there.applier.close()


@pytest.mark.parametrize("load", [True, False], ids=["load", "inserts"])
def test_a_large_batch_with_everything(
    any_target: Target, load: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 deltas of all kinds come to the rows that they describe, by LOAD DATA and without."""
    if not load:
        without_load(monkeypatch)
        any_target.applier.close()
        any_target.applier = any_target.opened()
    draw = random.Random(seed)
    relation = any_target.relation("big", ID, TEXT, NUMBER)
    rows: dict[int, tuple[str, int]] = {}
    deltas: list[Delta] = []
    for number in range(10_000):
        key = draw.randrange(2000)
        new = (f"{number}\t\\\n'\u00e9", number)
        if key not in rows:
            rows[key] = new
            deltas.append(any_target.insert(relation, key, *new))
        elif draw.random() < 0.3:
            del rows[key]
            deltas.append(any_target.delete(relation, key))
        elif draw.random() < 0.5:
            rows[key] = (rows[key][0], number)
            deltas.append(any_target.update(relation, key, UNCHANGED, number))
        else:
            rows[key] = new
            deltas.append(any_target.update(relation, key, *new))
    assert any_target.apply(*deltas[:5_000]) == 0
    assert any_target.apply(*deltas[5_000:]) == 0
    assert {k: (v, n) for k, v, n in any_target.rows("SELECT id, v, n FROM big")} == rows


def test_rows_larger_than_a_packet(
    make_mariadb: MakeMysql, fresh_mysql_database: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that no statement can hold goes by LOAD DATA; where that is not allowed, the error says which
    setting to raise."""
    there = Target(fresh_mysql_database(make_mariadb({"max_allowed_packet": 1 << 20})))
    relation = there.relation("t", ID, Column("v", "longtext", "longtext"))
    large = "x" * (3 << 20)
    there.apply(there.insert(relation, 1, large))
    there.apply(there.update(relation, 1, large + "y"))
    assert there.rows("SELECT length(v) FROM t") == [(len(large) + 1,)]
    there.applier.close()
    without_load(monkeypatch)
    there.applier = there.opened()
    with pytest.raises(PermanentError, match="max_allowed_packet") as refused:
        there.apply(there.insert(relation, 2, large))
    assert "SET GLOBAL max_allowed_packet" in refused.value.hint
    assert "table crm.t" in str(refused.value)
    there.applier.close()


def test_the_lock_is_each_syncs_and_each_databases(any_target: Target) -> None:
    """Names of any length and case; a sync into another database of the server is another one."""
    names = {
        lock_name(database, sync)
        for database in ("a", "A", "x" * 64)
        for sync in ("s", "S", "y" * 190)
    }
    assert len(names) == 9
    assert all(len(name) <= 64 for name in names)
    held = [any_target.opened(sync=sync) for sync in ("other", "Other")]
    for applier in held:
        applier.close()


def test_the_lock_of_a_connection_that_broke_is_taken_back(any_target: Target) -> None:
    """The server does not know yet that it is gone, and may not for hours: it is told."""
    former = any_target.applier._session
    # As the network leaves it: nothing more comes from here, and nobody has said so.
    kept = os.dup(former._db._sock.fileno())
    former._db._force_close()  # type: ignore[attr-defined]
    try:
        any_target.applier = any_target.opened()
        left = f"SELECT count(*) FROM information_schema.processlist WHERE id = {former.number}"
        wait_until(lambda: any_target.db.value(left) == 0, message="the former session is ended")
    finally:
        os.close(kept)


def test_the_same_batch_from_two_sessions_at_once(any_target: Target) -> None:
    """One of them applies it, the other one finds the checkpoint moved."""
    relation = any_target.relation("t", ID, TEXT)
    others = [any_target.opened(None) for _ in range(3)]
    for other in others:
        other.prepare(relation)
    batch = Batch([any_target.insert(relation, n, "a") for n in range(200)], "1")
    outcomes: list[str] = []
    start = threading.Barrier(3)

    def apply(applier: MysqlApplier) -> None:
        start.wait()
        try:
            applier.apply(batch, no_reread)
            outcomes.append("applied")
        except (FencedError, TransientError) as e:
            outcomes.append(type(e).__name__)

    threads = [threading.Thread(target=apply, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        other.close()
    assert outcomes.count("applied") == 1
    assert any_target.rows("SELECT COUNT(*) FROM t") == [(200,)]


def test_no_file_of_ours_is_sent(target: Target) -> None:
    """A server may ask for any file in answer to any statement; it gets none."""
    with pytest.raises(RuntimeError, match="local_infile"):
        target.applier._session.execute(
            "LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE cdc_holder"
        )


def test_a_copy_that_its_source_breaks_off(target: Target) -> None:
    """Nothing of the chunk is there, and its number stays in the plan."""
    relation = target.relation("t", ID, TEXT)
    with target.applier.state.transaction():
        target.applier.state.plan(TableState("crm.t"), ["all"])

    def blocks() -> Iterator[list[bytes]]:
        yield [target.image(relation, 1, "a")]
        raise TransientError("the source is gone")

    with pytest.raises(TransientError, match="the source is gone"):
        target.applier.copy(Chunk(relation, 0, blocks()), "1")
    target.applier.close()
    target.applier = target.opened()
    assert target.rows("SELECT * FROM t") == []
    assert len(target.applier.state.chunks()) == 1


def test_sweep_of_a_large_table(any_target: Target) -> None:
    """All keys are compared at once, of whatever kind they are."""
    relation = any_target.relation("t", Column("id", "varchar(40)", "varchar"), TEXT)
    blocks = [[any_target.image(relation, f"k{n}", "v") for n in range(5000)]]
    with any_target.applier.state.transaction():
        any_target.applier.state.plan(TableState("crm.t"), ["all"])
    any_target.applier.copy(Chunk(relation, 0, iter(blocks)), "1")
    keep = [
        [any_target.image(relation, f"k{n}", None) for n in range(0, 5000, 2)] for _ in range(1)
    ]
    assert any_target.applier.sweep(relation, iter(keep), None, "2") == 2500
    assert any_target.rows("SELECT COUNT(*) FROM t") == [(2500,)]


# -- grants and checks -------------------------------------------------------------------------------


def test_the_grants_that_are_asked_for_are_enough(any_target: Target) -> None:
    """A user with what `check` asks for passes it and syncs; each missing right is named with the
    statement that grants it, and that statement mends it."""
    db = any_target.db
    user = db.create_user("SELECT")
    looking = MysqlApplier(db.url_as(*user), None, "granted")
    looking.open(None)
    found = list(looking.check([unprepared()]))
    looking.close()
    assert level_of(found, "cdc_ tables") == "FAILED"
    assert level_of(found, "temporary tables") == "warn"
    assert level_of(found, "table crm.t") == "FAILED"
    for finding in found:
        if finding.remedy.startswith("GRANT"):
            db.execute(finding.remedy)
    granted = Target(db, db.url_as(*user), "granted")
    found = list(granted.applier.check([unprepared()]))
    assert {f.level for f in found if f.subject != "durability"} == {"ok"}
    relation = granted.relation("t", ID, TEXT)
    granted.apply(*[granted.insert(relation, n, "a") for n in range(100)])
    granted.apply(*[granted.update(relation, n, "b") for n in range(100)])
    granted.applier.close()
    assert granted.rows("SELECT COUNT(*), MIN(v) FROM t") == [(100, "b")]


def test_a_user_without_temporary_tables(any_target: Target) -> None:
    """Changes are written row by row; only what cannot be done without is refused, with the grant."""
    db = any_target.db
    user = db.create_user(NEEDED.removesuffix(", CREATE TEMPORARY TABLES"))
    poor = Target(db, db.url_as(*user), "poor")
    relation = poor.relation("t", ID, TEXT)
    poor.apply(*[poor.insert(relation, n, "a") for n in range(100)])
    poor.apply(*[poor.update(relation, n, "b") for n in range(50)], poor.delete(relation, 99))
    assert poor.copy(relation, (1, "c"), (100, "d")) == 2
    assert poor.rows("SELECT COUNT(*), SUM(v = 'b') FROM t") == [(100, 49)]
    with pytest.raises(PermanentError, match="without temporary tables") as refused:
        poor.applier.sweep(relation, iter([]), None, "1")
    assert "CREATE TEMPORARY TABLES" in refused.value.hint
    poor.applier.close()


@pytest.mark.parametrize(
    ("grant", "lacks"),
    [
        ("GRANT SELECT, INSERT, UPDATE, DELETE ON `my_db`.* TO `u`@`%`", []),
        ("GRANT ALL PRIVILEGES ON *.* TO `u`@`%` WITH GRANT OPTION", []),
        (r"GRANT SELECT, INSERT, UPDATE, DELETE ON `my\_db`.* TO `u`@`%`", []),
        ("GRANT SELECT, INSERT, UPDATE, DELETE ON `m%`.* TO `u`@`%`", []),
        ("GRANT SELECT, INSERT, UPDATE, DELETE ON `my_db`.`t` TO `u`@`%`", []),
        ("GRANT SELECT, INSERT, UPDATE, DELETE ON `my_db`.`s` TO `u`@`%`", ["SELECT", "DELETE"]),
        (r"GRANT SELECT, INSERT, UPDATE, DELETE ON `other\_db`.* TO `u`@`%`", ["SELECT", "DELETE"]),
        ("GRANT SELECT (a, b), DELETE ON `my_db`.`t` TO `u`@`%`", ["SELECT"]),
        ("GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*'", ["SELECT", "DELETE"]),
    ],
)
def test_grants_are_read(grant: str, lacks: list[str]) -> None:
    """Databases with and without wildcards, tables, columns, everything."""

    class Told:
        database = "my_db"

        def rows(self, sql: str) -> list[tuple[str]]:
            return [(grant,)]

    told: Any = Told()
    assert Grants(told).lacking(["SELECT", "DELETE"], "t") == lacks


def test_check_tells_what_the_target_does_by_itself(target: Target) -> None:
    """Cascades, triggers, and keys under a collation that takes unlike texts for equal."""
    target.db.execute(
        "CREATE TABLE parent (id varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v text);"
        "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(20) COLLATE utf8mb4_general_ci,"
        " CONSTRAINT acts FOREIGN KEY (v) REFERENCES parent (id) ON DELETE CASCADE);"
        "CREATE TRIGGER rings BEFORE INSERT ON t FOR EACH ROW SET NEW.v = NEW.v"
    )
    found = list(target.applier.check([unprepared("parent"), unprepared("t")]))
    told = [(f.level, f.message) for f in found if f.subject.startswith("table crm.")]
    does = "foreign key acts deletes or changes rows of t by itself: right only where the source's does"
    assert any(level == "warn" and does in m for level, m in told)
    assert any(level == "warn" and "takes unlike texts for equal" in m for level, m in told)
    assert any(level == "ok" and "rings" in m for level, m in told)
    assert any(level == "ok" and "copied after those of parent" in m for level, m in told)


# -- faults ------------------------------------------------------------------------------------------


def test_what_is_flushed_survives_a_crash(
    make_mariadb: MakeMysql, fresh_mysql_database: Fresh
) -> None:
    """A server that flushes its log once in a while: a position is told as durable only when the log has
    reached the disk, and a crash takes back nothing before it."""
    server = make_mariadb({"innodb_flush_log_at_trx_commit": 0, "innodb_flush_log_at_timeout": 2})
    there = Target(fresh_mysql_database(server))
    relation = there.relation("t", ID, TEXT)
    assert there.applier.flushed() is None
    there.apply(there.insert(relation, 1, "a"))
    wait_until(lambda: there.applier.flushed() == "1", message="position 1 is flushed")
    there.apply(there.insert(relation, 2, "b"))
    told = there.applier.flushed()
    server.stop("immediate")
    with pytest.raises(TransientError) as lost:
        there.apply(there.insert(relation, 3, "c"))
    assert lost.value.hint
    there.applier.close()
    with pytest.raises(TransientError, match="cannot connect to the target"):
        there.opened()
    server.start()
    there.applier = there.opened()
    checkpoint = there.applier.state.load()
    there.applier.close()
    assert checkpoint is not None
    assert told is not None
    assert int(told) <= int(checkpoint.position)


def test_a_durable_server_says_so_at_once(
    make_mariadb: MakeMysql, fresh_mysql_database: Fresh
) -> None:
    """Nothing is asked of it; `check` warns only of others. A read-only target and one that has no room
    for a session are waited for."""
    db = fresh_mysql_database(make_mariadb({"max_connections": 10}, durable=True))
    there = Target(db, db.url_as(*db.create_user(NEEDED)))
    relation = there.relation("t", ID, TEXT)
    there.apply(there.insert(relation, 1, "a"))
    assert there.applier.flushed() == "1"
    assert level_of(list(there.applier.check([])), "durability") == "ok"
    db.execute("SET GLOBAL read_only = 1")
    with pytest.raises(TransientError, match=r"read.only"):
        there.apply(there.insert(relation, 4, "d"))
    there.applier.close()
    looking = there.opened(None)
    assert level_of(list(looking.check([])), "target") == "FAILED"
    looking.close()
    db.execute("SET GLOBAL read_only = 0")
    for _ in range(20):
        with suppress(pymysql.MySQLError):
            db.connect()
    with pytest.raises(TransientError, match="cannot connect to the target") as full:
        there.opened(None)
    assert "max_connections" in full.value.hint


def test_a_killed_connection_is_transient(any_target: Target) -> None:
    """Inside of a transaction, too; the next applier goes on from the checkpoint."""
    relation = any_target.relation("t", ID, TEXT)
    any_target.apply(any_target.insert(relation, 1, "a"), done=False)
    number = any_target.applier._session.value("SELECT CONNECTION_ID()")
    any_target.db.execute(f"KILL {number}")
    with pytest.raises(TransientError):
        any_target.apply(any_target.insert(relation, 2, "b"))
    any_target.applier.close()
    any_target.applier = any_target.opened()
    assert any_target.rows("SELECT * FROM t") == []
    any_target.number = 0
    any_target.apply(any_target.insert(relation, 1, "a"))


@pytest.mark.parametrize("sets", [False, True])
def test_a_locked_row_is_waited_for(
    any_target: Target, sets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction of somebody else that stays is a transient error in the end."""
    monkeypatch.setattr(stream, "FEW", -1 if sets else 64)
    monkeypatch.setitem(session.SETTINGS, "innodb_lock_wait_timeout", "1")
    any_target.applier.close()
    any_target.applier = any_target.opened()
    relation = any_target.relation("t", ID, TEXT)
    any_target.apply(any_target.insert(relation, 1, "a"))
    other = any_target.db.connect()
    other.begin()
    other.cursor().execute("UPDATE t SET v = 'held' WHERE id = 1")
    with pytest.raises(
        TransientError, match=r"table crm\.t \(key id\): Lock wait timeout"
    ) as waited:
        any_target.apply(any_target.update(relation, 1, "b"))
    assert waited.value.hint
    other.rollback()


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("mysql://root@127.0.0.1:1/d", TransientError, "cannot connect to the target"),
        ("mysql://root@127.0.0.1:1", PermanentError, "without a database"),
        ("mysql://root@nowhere.invalid/d", TransientError, "cannot connect to the target"),
    ],
)
def test_unreachable_targets(url: str, kind: type[SyncError], message: str) -> None:
    """Each with what to look at."""
    with pytest.raises(kind, match=message) as caught:
        MysqlApplier(url, "secret", "s").open(None)
    assert caught.value.hint
    assert "secret" not in str(caught.value) + caught.value.hint


def test_wrong_password_and_database(any_target: Target) -> None:
    """Permanent, told in one line, without the password."""
    user = any_target.db.create_user("SELECT")
    with pytest.raises(PermanentError, match="Access denied") as refused:
        MysqlApplier(any_target.db.url_as(user.name), "wrong-secret", "s").open(None)
    assert "wrong-secret" not in str(refused.value)
    gone = any_target.db.url.replace(any_target.db.name, "no_such_database")
    with pytest.raises(PermanentError, match="no_such_database"):
        MysqlApplier(gone, None, "s").open(None)


def test_deadlocks_are_transient(any_target: Target) -> None:
    """The server rolls one of the two back; nothing of the batch is there, and it can be given again."""
    relation = any_target.relation("t", ID, TEXT)
    any_target.apply(any_target.insert(relation, 1, "a"), any_target.insert(relation, 2, "a"))
    other = any_target.db.connect()
    cursor = other.cursor()
    cursor.execute("BEGIN")
    cursor.execute("UPDATE t SET v = 'theirs' WHERE id = 2")
    outcome: list[str] = []

    def apply() -> None:
        try:
            any_target.apply(
                any_target.update(relation, 1, "b"), any_target.update(relation, 2, "b")
            )
            outcome.append("applied")
        except TransientError as e:
            outcome.append(str(e))

    thread = threading.Thread(target=apply)
    thread.start()
    waits = "SELECT COUNT(*) FROM information_schema.processlist WHERE command = 'Query' AND db = DATABASE()"
    wait_until(lambda: any_target.rows(waits) >= [(2,)], message="the batch waits for the row")
    with suppress(pymysql.MySQLError):
        cursor.execute("UPDATE t SET v = 'theirs' WHERE id = 1")
        other.commit()
    other.close()
    thread.join()
    assert len(outcome) == 1
    assert outcome[0] == "applied" or "Deadlock" in outcome[0]


@pytest.mark.parametrize(
    ("code", "text", "told"),
    [
        (1062, "Duplicate entry 'x' for key 'a' for key 't.u'", "unique index t.u is violated"),
        (1406, "Data too long for column 'v' at row 1", "a value is too long for column v"),
        (1048, "Column 'n' cannot be null", "NULL in column n, which is NOT NULL on the target"),
        (
            1264,
            "Out of range value for column 'n' at row 3",
            "a number is out of range for column n",
        ),
        (
            1366,
            "Incorrect integer value: 'for column `x`' for column `d`.`t`.`n` at row 1",
            "a value cannot be read by column n",
        ),
        (
            1452,
            "a foreign key constraint fails (`d`.`c`, CONSTRAINT `fk` FOREIGN KEY (`p`) REFERENCES `p` (`i`))",
            "foreign key fk is violated: there is no such parent row",
        ),
        (4025, "CONSTRAINT `positive` failed for `d`.`t`", "check constraint positive is violated"),
        (3819, "Check constraint 'positive' is violated.", "check constraint positive is violated"),
        (1644, "secret 4711", "a trigger raised an error"),
        (
            1526,
            "Table has no partition for value 4711",
            "the target's table has no partition for a row",
        ),
        (
            3988,
            "Conversion from x into y impossible for z",
            "a value cannot be read in its character set",
        ),
        (1064, "You have an error in your SQL syntax near 'z'", "the target refuses a statement"),
        (30001, "secret 4711", "the target refuses a statement"),
    ],
)
def test_what_is_said_of_errors(code: int, text: str, told: str) -> None:
    """Names of columns and constraints, never a value."""
    assert said(pymysql.err.DataError(code, text)) == told
