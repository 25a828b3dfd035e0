"""`make bench` for MySQL's side: MariaDB beside its own replica, python-mysql-replication and PostgreSQL.

As in tests/test_bench.py nothing is asserted about speed: rounds alternate, medians are compared, and
only the ratios of one run mean anything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
import pytest
from pymysqlreplication import BinLogStreamReader

from cdc.demo.server import LocalPostgres, embedded_bin_dir
from cdc.sources.registry import source_for
from cdc.sources.source import Piece
from tests.mysql_servers import LocalMysql, Setting
from tests.pieces import changes_in
from tests.test_bench import INSERTED, ROUNDS, Pair, backlog_of_inserts, percentiles, print_ratio
from tests.test_bench import Daemon as PostgresDaemon

pytestmark = pytest.mark.bench

TABLE = """
    CREATE TABLE bench (
        id bigint PRIMARY KEY, customer int NOT NULL, amount decimal(12,2), at timestamp(6) NOT NULL,
        active tinyint NOT NULL, name text, email text, street text, city text, note text)"""

ROW = """
    {0}, {0} % 1000, {0} * 1.01, now(6), {0} % 2, concat('Customer number ', {0}),
    concat('customer', {0}, '@example.com'), concat('Street of the longest name ', {0}),
    concat('City ', {0} % 100), repeat('n', 60)"""

INSERTS = f"""
    CREATE PROCEDURE backlog_inserts(first bigint, total bigint, size int)
    BEGIN
      DECLARE at bigint DEFAULT first;
      WHILE at < first + total DO
        INSERT INTO bench SELECT {ROW.format("(at + i)")} FROM numbers WHERE i < size;
        SET at = at + size;
      END WHILE;
    END"""

SETTINGS: dict[str, Setting] = {
    "innodb_buffer_pool_size": "512M",
    "max_binlog_size": "1G",
    "log_slave_updates": True,
}
SCHEMA = "bench"


class Server:
    """A MariaDB with the bench's schema, and one connection to it."""

    def __init__(self, server: LocalMysql) -> None:
        self.server = server
        self.url = server.url(SCHEMA)
        self.db = pymysql.connect(host="127.0.0.1", port=server.port, user="root", autocommit=True)
        self.execute(f"CREATE DATABASE {SCHEMA}")
        self.execute(f"USE {SCHEMA}")

    def execute(self, statement: str) -> None:
        with self.db.cursor() as cursor:
            cursor.execute(statement)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self.db.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def value(self, query: str) -> object:
        rows = self.rows(query)
        return rows[0][0] if rows else None

    def is_read(self) -> bool:
        """Whether somebody reads the binlog now."""
        return bool(
            self.rows("SELECT 1 FROM information_schema.processlist WHERE command LIKE 'Binlog%'")
        )


@pytest.fixture
def maria() -> Iterator[Server]:
    """A source with 100-row transactions at hand."""
    with LocalMysql("mariadb", settings=SETTINGS) as server:
        source = Server(server)
        source.execute("CREATE TABLE numbers (i int PRIMARY KEY)")
        source.execute("INSERT INTO numbers SELECT seq FROM seq_0_to_9999")
        source.execute(TABLE)
        source.execute(INSERTS)
        yield source
        source.db.close()


@pytest.fixture
def replica() -> Iterator[Server]:
    with LocalMysql("mariadb", settings=SETTINGS) as server:
        target = Server(server)
        yield target
        target.db.close()


@contextmanager
def daemon(folder: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Ours, as a user runs it."""
    runtime = folder / "run"
    runtime.mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cdc", "--config", str(folder / "cdc.toml"), *more],
            env={**os.environ, "RUNTIME_DIRECTORY": str(runtime)},
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()


def configure(folder: Path, source: str, target: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "cdc.toml").write_text(
        f'[databases.a]\nurl = "{source}"\n[databases.b]\nurl = "{target}"\n'
        '[sync.bench]\nsource = "a"\ntarget = "b"\ntables = ["bench"]\n'
    )


def until_current(folder: Path) -> None:
    with daemon(folder, "run", "--until-current") as process:
        assert process.wait() == 0, (folder / "log").read_text()


def timed(source: Server, done: Callable[[], bool]) -> float:
    """Seconds from the moment the binlog is read until `done`."""
    while not source.is_read():
        time.sleep(0.001)
    begun = time.perf_counter()
    while not done():
        time.sleep(0.01)
    return time.perf_counter() - begun


def ours(source: Server, target: str, last: Callable[[], object], folder: Path) -> float:
    """Rows a second of a backlog of 100-row transactions."""
    source.execute("TRUNCATE bench")
    configure(folder, source.url, target)
    until_current(folder)
    source.execute(f"CALL backlog_inserts(1, {INSERTED}, 100)")
    with daemon(folder, "run"):
        seconds = timed(source, lambda: last() == INSERTED)
    with daemon(folder, "drop", "bench", "--yes") as process:
        assert process.wait() == 0
    return INSERTED / seconds


def native(source: Server, replica: Server) -> float:
    """The same by a replica of MariaDB's own, which writes a binlog too."""
    source.execute("TRUNCATE bench")
    position = source.value("SELECT @@gtid_binlog_pos")
    replica.execute("DROP TABLE IF EXISTS bench")
    replica.execute(TABLE)
    source.execute(f"CALL backlog_inserts(1, {INSERTED}, 100)")
    replica.execute(f"SET GLOBAL gtid_slave_pos = '{position}'")
    replica.execute(
        f"CHANGE MASTER TO master_host = '127.0.0.1', master_port = {source.server.port},"
        " master_user = 'root', master_use_gtid = slave_pos"
    )
    replica.execute("START SLAVE")
    seconds = timed(source, lambda: replica.value("SELECT max(id) FROM bench") == INSERTED)
    replica.execute("STOP SLAVE")
    replica.execute("RESET SLAVE ALL")
    replica.execute("RESET MASTER")
    return INSERTED / seconds


# The library's own way to call PyMySQL.
@pytest.mark.filterwarnings("ignore:'db' is deprecated:DeprecationWarning")
def test_decoding(maria: Server) -> None:
    """The log of 100-row transactions as changes, beside python-mysql-replication's dicts."""
    mine, theirs = [], []
    for _ in range(ROUNDS):
        maria.execute("TRUNCATE bench")
        maria.execute("RESET MASTER")
        source = source_for(maria.url, None, "bench")
        source.open()
        begin = source.start(source.catalog(["bench"]).relations).position
        maria.execute(f"CALL backlog_inserts(1, {INSERTED}, 100)")
        stream = source.stream(begin, binary=False, shape=lambda relation: relation)
        at, rows = time.perf_counter(), 0
        while rows < INSERTED:
            rows += sum(len(changes_in(e)) for e in stream.read(0.25) if isinstance(e, Piece))
        mine.append(rows / (time.perf_counter() - at))
        stream.close()
        source.close()
        reader = BinLogStreamReader(
            connection_settings={"host": "127.0.0.1", "port": maria.server.port, "user": "root"},
            server_id=4711,
            is_mariadb=True,
            blocking=False,
        )
        at, rows = time.perf_counter(), 0
        for event in reader:
            rows += len(getattr(event, "rows", ()))
            if rows >= INSERTED // 10:
                break
        theirs.append(rows / (time.perf_counter() - at))
        reader.close()
    print()
    print_ratio("MariaDB's log, 100 rows a transaction", mine, theirs, "rows/s", "library")


def test_backlog_beside_a_replica(maria: Server, replica: Server, tmp_path: Path) -> None:
    """MariaDB to MariaDB, beside a replica of its own; prints the ratio of rates (more is better)."""
    mine, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(native(maria, replica))
        replica.execute("DROP TABLE bench")
        mine.append(
            ours(maria, replica.url, lambda: replica.value("SELECT max(id) FROM bench"), tmp_path)
        )
        replica.execute("DROP TABLE bench")
    print()
    print_ratio("MariaDB to MariaDB, inserts", mine, theirs, "rows/s", "replica")


def test_backlog_into_postgres(maria: Server, tmp_path: Path) -> None:
    """MariaDB to PostgreSQL, beside PostgreSQL to PostgreSQL; prints the ratio of our own rates."""
    bin_dir = embedded_bin_dir()
    assert bin_dir is not None, "the bench needs the embedded PostgreSQL: make install"
    mine, theirs = [], []
    settings: dict[str, str | int | bool] = {"max_wal_size": "4GB", "shared_buffers": "512MB"}
    with (
        LocalPostgres(bin_dir, settings=settings) as source,
        LocalPostgres(bin_dir, settings=settings) as target,
    ):
        (tmp_path / "pg").mkdir()
        pair = Pair(source, target, tmp_path / "pg")
        for _ in range(ROUNDS):
            theirs.append(backlog_of_inserts(pair, PostgresDaemon(pair)))
            pair.on_target.execute("DROP TABLE bench")
            mine.append(
                ours(
                    maria,
                    target.url("postgres"),
                    lambda: pair.value("SELECT max(id) FROM bench"),
                    tmp_path / "maria",
                )
            )
            pair.on_target.execute("DROP TABLE bench")
        pair.on_source.close()
        pair.on_target.close()
    print()
    print_ratio("to PostgreSQL, from MariaDB", mine, theirs, "rows/s", "from PostgreSQL")


def test_latency_from_mariadb(maria: Server, replica: Server, tmp_path: Path) -> None:
    """Commit on MariaDB to visible on MariaDB, 200 one-row transactions a second."""
    rate, total = 200, 2000
    maria.execute("TRUNCATE bench")
    configure(tmp_path, maria.url, replica.url)
    until_current(tmp_path)
    committed, seen = [0.0] * (total + 1), [0.0] * (total + 1)

    def write() -> None:
        db = pymysql.connect(
            host="127.0.0.1", port=maria.server.port, user="root", database=SCHEMA, autocommit=True
        )
        begun = time.perf_counter()
        with db, db.cursor() as cursor:
            for n in range(1, total + 1):
                time.sleep(max(0.0, begun + n / rate - time.perf_counter()))
                cursor.execute(f"INSERT INTO bench SELECT {ROW.format(n)}")
                committed[n] = time.perf_counter()

    with daemon(tmp_path, "run"):
        while not maria.is_read():
            time.sleep(0.01)
        maria.execute(f"INSERT INTO bench SELECT {ROW.format(0)}")
        while replica.value("SELECT max(id) FROM bench") is None:
            time.sleep(0.01)
        writer = threading.Thread(target=write)
        writer.start()
        last = 0
        while last < total:
            now_last = int(str(replica.value("SELECT max(id) FROM bench")))
            at = time.perf_counter()
            for n in range(last + 1, now_last + 1):
                seen[n] = at
            last = now_last
            time.sleep(0.0005)
        writer.join()
    p50, p99 = percentiles(seen[1:], committed[1:])
    print(
        f"\nMariaDB to MariaDB, commit to visible: p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True
    )
