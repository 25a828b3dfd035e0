"""`cdc demo`: what it promises to show, that its judgement is to be trusted, and that nothing is left."""

from __future__ import annotations

import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import pytest

from appliers.errors import PermanentError
from cdc.demo import crm, play
from cdc.demo.compare import Compared, compare
from cdc.demo.copies import PostgresCopy, SqliteCopy
from cdc.runtime import Live
from tests.databases import Database, wait_until
from tests.mysql_databases import MysqlDatabase

CDC: Final = str(Path(sys.executable).with_name("cdc"))
FOLDER: Final = re.compile(r"/\S*?/cdc-(?:demo|postgres)-[^/\s]+")


@dataclass
class Demo:
    """A demo that runs, with every process and folder of its own that was ever seen."""

    process: subprocess.Popen[bytes]
    processes: set[psutil.Process] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)

    def look(self) -> set[str]:
        """Notes what is there; the names of the modules and programs that run."""
        seen: set[str] = set()
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    command = " ".join(child.cmdline())
                    self.processes.add(child)
                    self.folders.update(Path(f) for f in FOLDER.findall(command))
                    seen.update(w for w in ("cdc.daemon", "cdc.worker", "postgres") if w in command)
        return seen

    def wait_for_all(self) -> None:
        wait_until(
            lambda: {"cdc.daemon", "cdc.worker", "postgres"} <= self.look(),
            message="the demo runs a server, a daemon and a worker",
        )

    def left(self) -> list[object]:
        return [
            *(p for p in self.processes if lives(p)),
            *(f for f in self.folders if f.exists()),
        ]

    def leaves_nothing(self) -> None:
        assert len(self.folders) == 2, self.folders
        wait_until(lambda: not self.left(), message="nothing is left of the demo")


def lives(process: psutil.Process) -> bool:
    """Whether it runs; it may end between two questions."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(*arguments: str, out: int = subprocess.PIPE) -> Demo:
        process = subprocess.Popen(
            [CDC, "demo", *arguments],
            cwd=tmp_path,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out if out != subprocess.PIPE else subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(Demo(process))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        if one.process.stdout is not None:
            one.process.stdout.close()


def test_ends_with_everything_equal_and_leaves_nothing(demo: Callable[..., Demo]) -> None:
    """The whole of it, with its output in a pipe; it ends by itself, well within its 30 seconds."""
    began = time.monotonic()
    one = demo("--seconds", "2")
    one.wait_for_all()
    said = one.process.communicate(timeout=100)[0].decode()
    assert one.process.returncode == 0, said
    assert re.search(r"PostgreSQL 18\S* with a small CRM: [\d,]+ rows in 4 tables\.", said)
    assert "the CRM changes: " in said
    assert "the CRM stands still: " in said
    for table in crm.TABLES:
        assert re.search(rf"^{table} +[\d,]+ rows  equal$", said, re.MULTILINE), said
    assert re.search(r"; [1-9][\d,]* changes came through the log\.", said)
    assert re.search(r"Source and target are equal: [\d,]+ rows in 4 tables, every column\.", said)
    one.leaves_nothing()
    print(f"took {time.monotonic() - began:.1f} s")


def test_ctrl_c_on_a_terminal_ends_it_cleanly(demo: Callable[..., Demo]) -> None:
    """A terminal gets a live table; Ctrl-C ends the demo and all that it has started."""
    ours, its = pty.openpty()
    one = demo("--seconds", "60", out=its)
    os.close(its)
    said = b""
    while b"rows in the copy" not in said:
        said += os.read(ours, 4096)
    one.wait_for_all()
    one.process.send_signal(signal.SIGINT)
    with suppress(OSError):  # Linux: EIO when the other side is closed
        while more := os.read(ours, 4096):
            said += more
    os.close(ours)
    assert one.process.wait(20) == 130
    assert b"Interrupted: the server, the daemon and their files are gone." in said
    one.leaves_nothing()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_no_process_outlives_it(demo: Callable[..., Demo], number: signal.Signals) -> None:
    """However it is ended: server, daemon, worker and all files go with it."""
    one = demo("--seconds", "60")
    one.wait_for_all()
    one.process.send_signal(number)
    expected = -signal.SIGKILL if number == signal.SIGKILL else 128 + number
    assert one.process.wait(20) == expected
    one.leaves_nothing()


def test_into_a_named_file_again_and_again(demo: Callable[..., Demo], tmp_path: Path) -> None:
    """The copy stays in a target that was named; the next demo replaces it."""
    for _ in range(2):
        one = demo("--seconds", "1", "--target", "sqlite:///named.db")
        said = one.process.communicate(timeout=100)[0].decode()
        assert one.process.returncode == 0, said
        assert f"The copy is left in sqlite:///{tmp_path}/named.db" in said
    with closing(sqlite3.connect(tmp_path / "named.db")) as db:
        assert db.execute("SELECT count(*) FROM customers").fetchone()[0] > 7_000


def test_into_postgres(demo: Callable[..., Demo], target_db: Database) -> None:
    """A PostgreSQL target is compared by the text of every column."""
    one = demo("--seconds", "1", "--target", target_db.url)
    said = one.process.communicate(timeout=100)[0].decode()
    assert one.process.returncode == 0, said
    assert "Source and target are equal" in said
    assert target_db.value("SELECT count(*) FROM customers") > 7_000


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_into_mysql(
    request: pytest.FixtureRequest, demo: Callable[..., Demo], flavour: str
) -> None:
    """So is one on MySQL or MariaDB."""
    target: MysqlDatabase = request.getfixturevalue(f"{flavour}_target")
    one = demo("--seconds", "1", "--target", target.url)
    said = one.process.communicate(timeout=100)[0].decode()
    assert one.process.returncode == 0, said
    assert "Source and target are equal" in said
    [(customers,)] = target.rows("SELECT count(*) FROM customers")
    assert customers > 7_000


def test_tables_of_others_are_not_touched(demo: Callable[..., Demo], tmp_path: Path) -> None:
    """A target with such a table that no demo has made is refused before anything begins."""
    with closing(sqlite3.connect(tmp_path / "mine.db")) as db:
        db.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY)")
    before = (tmp_path / "mine.db").read_bytes()
    one = demo("--target", "sqlite:///mine.db")
    said = one.process.communicate(timeout=30)[0].decode()
    assert one.process.returncode == 1
    assert said == (
        f"Error: sqlite:///{tmp_path}/mine.db has a table customers that no demo has made\n"
        "Try: --target with an empty database\n"
    )
    assert (tmp_path / "mine.db").read_bytes() == before


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("crm.db", "expected a URL such as postgresql://"),
        ("mysql://me@h/crm?sslmode=require", "the URL has the parameter sslmode, expected one of ssl-mode"),
    ],
)  # fmt: skip
def test_a_target_that_is_no_url_is_a_usage_error(
    demo: Callable[..., Demo], target: str, expected: str
) -> None:
    """Exit 2, and the word that was expected."""
    one = demo("--target", target)
    said = one.process.communicate(timeout=30)[0].decode()
    assert one.process.returncode == 2
    assert said.startswith(f"Error: --target: {expected}")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded PostgreSQL is not a dependency of the daemon."""
    monkeypatch.setattr(play, "embedded_bin_dir", lambda: None)
    with pytest.raises(PermanentError, match="the embedded PostgreSQL is not installed") as raised:
        play.play(1, None)
    assert raised.value.hint.startswith("make install")


SOURCE: Final = """
    CREATE TABLE things (id integer PRIMARY KEY, name text, amount numeric, ok boolean,
        ratio double precision, data bytea, doc jsonb, at timestamptz);
    INSERT INTO things VALUES
        (1, 'größer 🚀', 1.50, true, '-0', '\\x00ff', '{"a": 1}', '2026-01-31 12:00:00.000001+01'),
        (2, '', 'NaN', false, 'NaN', '', '[]', 'infinity'),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"""

FILE: Final = """
    CREATE TABLE things (id INTEGER, name TEXT, amount TEXT, ok INTEGER, ratio, data BLOB, doc TEXT, at TEXT);
    INSERT INTO things VALUES
        (1, 'größer 🚀', '1.50', 1, -0.0, x'00ff', '{"a": 1}', '2026-01-31 11:00:00.000001+00'),
        (2, '', 'NaN', 0, 'NaN', x'', '[]', 'infinity'),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"""

PLANTED: Final = [
    ("UPDATE things SET name = 'grösser 🚀' WHERE id = 1", "things (id = 1): other values of name"),
    ("UPDATE things SET name = NULL WHERE id = 2", "things (id = 2): other values of name"),
    ("UPDATE things SET amount = '1.5' WHERE id = 1", "things (id = 1): other values of amount"),
    ("UPDATE things SET ok = NULL WHERE id = 2", "things (id = 2): other values of ok"),
    ("UPDATE things SET ratio = 0.0 WHERE id = 1", "things (id = 1): other values of ratio"),
    ("UPDATE things SET ratio = NULL WHERE id = 2", "things (id = 2): other values of ratio"),
    ("DELETE FROM things WHERE id = 3", "things (id = 3): missing on the target"),
    ("INSERT INTO things (id) VALUES (4)", "things (id = 4): only on the target"),
    (
        "UPDATE things SET doc = '{}', at = NULL WHERE id = 1",
        "things (id = 1): other values of doc, at",
    ),
]
"""A statement that makes source and target differ, and what the comparison must say."""

IN_SQLITE: Final = [
    ("UPDATE things SET ok = '1x' WHERE id = 1", "things (id = 1): other values of ok"),
    ("UPDATE things SET data = 'ÿ' WHERE id = 1", "things (id = 1): other values of data"),
    ("UPDATE things SET ratio = 'nan' WHERE id = 2", "things (id = 2): other values of ratio"),
    ("INSERT INTO things (id) VALUES (3)", "things (id = 3): more than once on the target"),
    (
        "ALTER TABLE things DROP COLUMN doc",
        "things: cannot be read on the target: no such column: things.doc",
    ),
    ("DROP TABLE things", "things: cannot be read on the target: no such table: things"),
]


def compared(source: Database, target: PostgresCopy | SqliteCopy) -> Compared:
    with closing(PostgresCopy(source.url)) as copy:
        [found] = compare(copy, target, ["things"])
    return found


def test_differences_in_sqlite_are_found(source_db: Database, sqlite_path: Path) -> None:
    """Equal rows are equal; each planted difference is named by table, key and column."""
    source_db.execute(SOURCE)
    target = SqliteCopy(f"sqlite:///{sqlite_path}")
    for statement, expected in [("", ""), *PLANTED, *IN_SQLITE]:
        sqlite_path.unlink(missing_ok=True)
        with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as db:
            db.executescript(FILE + statement)
        found = compared(source_db, target)
        assert found.named == ([expected] if expected else []), statement
        assert (found.rows, found.differences) == (3, int(bool(expected)))


def test_differences_in_postgres_are_found(source_db: Database, target_db: Database) -> None:
    """The same, by the text of every column."""
    source_db.execute(SOURCE)
    with closing(PostgresCopy(target_db.url)) as target:
        for statement, expected in [("SELECT 1", ""), *PLANTED]:
            target_db.execute(f"DROP TABLE IF EXISTS things; {SOURCE}; {statement}")
            assert compared(source_db, target).named == ([expected] if expected else []), statement
        target_db.execute("DROP TABLE things")
        [said] = compared(source_db, target).named
        assert (
            said == 'things: cannot be read on the target: relation "public.things" does not exist'
        )


def test_a_difference_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict names what differs, counts what it does not name, and ends as an error."""
    fine, wrong = Compared("contacts", rows=7), Compared("customers", rows=5)
    for number in range(12):
        wrong.differ(f"customers (id = {number}): missing on the target")
    aim = play.Aim("sqlite:///x.db", None, named=False)
    with pytest.raises(PermanentError, match="source and target differ in 12 rows"):
        play._judge([fine, wrong], crm.Work(3, 1), Live("demo"), aim)
    said = capsys.readouterr().out
    assert "contacts            7 rows  equal\n" in said
    assert "customers           5 rows  12 DIFFERENT\n" in said
    assert "customers (id = 9): missing on the target\ncustomers: and 2 more\n" in said


def test_the_crm_changes_in_every_way(source_db: Database) -> None:
    """Inserts, updates, deletes, new keys and transactions that are rolled back are all among them."""
    with source_db.connect() as db:
        crm.build(db, customers=200)
    keys = "SELECT array_agg(customer_id || kind) FROM addresses"
    before = set(source_db.value(keys))
    with closing(crm.Writer(source_db.url)) as writer:
        writer.start()
        wait_until(
            lambda: writer.error or (writer.work.committed > 250 and writer.work.rolled_back > 5)
        )
        writer.stop()
    changed = """SELECT sum(n_tup_ins) > 200, sum(n_tup_upd) > 50, sum(n_tup_del) > 20
        FROM (SELECT pg_stat_clear_snapshot()) AS _, pg_stat_user_tables"""
    wait_until(lambda: source_db.rows(changed) == [(True, True, True)])
    assert before - set(source_db.value(keys))
    assert source_db.value("SELECT count(*) FROM customers WHERE id > 1000000") > 0
