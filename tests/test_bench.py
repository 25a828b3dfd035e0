"""`make bench`: ratios against PostgreSQL's own subscription and psql, in one run, on the same servers.

Nothing is asserted about speed: two cores are shared by two servers and the reader, and absolute times
of two runs differ by half. Rounds of both alternate, and medians are compared.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from cdc.demo.server import LocalPostgres, embedded_bin_dir

pytestmark = pytest.mark.bench

ROUNDS = int(os.environ.get("CDC_BENCH_ROUNDS", "3"))
INSERTED = 300_000
UPDATED = 100_000
SERVER: dict[str, str | int | bool] = {"max_wal_size": "4GB", "shared_buffers": "512MB"}

TABLE = """
    CREATE TABLE bench (
        id bigint PRIMARY KEY, customer integer NOT NULL, amount numeric(12,2), at timestamptz NOT NULL,
        active boolean NOT NULL, name text, email text, street text, city text, note text)"""

ROW = """
    g, g %% 1000, g * 1.01, now(), g %% 2 = 0, 'Customer number ' || g, 'customer' || g || '@example.com',
    'Street of the longest name ' || g, 'City ' || g %% 100, repeat('n', 60)"""

INSERTS = f"""
    CREATE PROCEDURE backlog_inserts(first bigint, total bigint, size bigint) LANGUAGE plpgsql AS $$
    BEGIN
      FOR start IN 0 .. total / size - 1 LOOP
        INSERT INTO bench SELECT {ROW.replace("%%", "%")}
          FROM generate_series(first + start * size, first + (start + 1) * size - 1) AS g;
        COMMIT;
      END LOOP;
    END $$"""

UPDATES = """
    CREATE PROCEDURE backlog_updates(first bigint, total bigint) LANGUAGE plpgsql AS $$
    BEGIN
      FOR n IN first .. first + total - 1 LOOP
        UPDATE bench SET amount = amount + 1, note = 'changed' WHERE id = n;
        COMMIT;
      END LOOP;
    END $$"""


class Pair:
    """A source and a target server, and what runs between them."""

    def __init__(self, source: LocalPostgres, target: LocalPostgres, folder: Path) -> None:
        self.source, self.target, self.folder = source, target, folder
        self.source_url = source.url("postgres")
        self.on_source = psycopg.connect(source.url("postgres"), autocommit=True)
        self.on_target = psycopg.connect(target.url("postgres"), autocommit=True)
        for db in (self.on_source, self.on_target):
            db.execute("SET synchronous_commit = on")
        self.on_source.execute(TABLE)
        self.on_source.execute(INSERTS)
        self.on_source.execute(UPDATES)

    def cdc(self, *more: str) -> subprocess.Popen[bytes]:
        config = self.folder / "cdc.toml"
        config.write_text(
            f'[databases.a]\nurl = "{self.source_url}"\n'
            f'[databases.b]\nurl = "{self.target.url("postgres")}"\n'
            '[sync.bench]\nsource = "a"\ntarget = "b"\ntables = ["bench"]\n'
        )
        runtime = self.folder / "run"
        runtime.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "cdc", "--config", str(config), "run", *more],
                env={**os.environ, "RUNTIME_DIRECTORY": str(runtime)},
                stderr=log,
            )

    def value(self, query: str) -> object:
        row = self.on_target.execute(query).fetchone()
        return row[0] if row else None

    def slot_active(self, name: str) -> bool:
        row = self.on_source.execute(
            "SELECT active FROM pg_replication_slots WHERE slot_name = %s", (name,)
        ).fetchone()
        return bool(row and row[0])

    def move_restart(self, slot: str) -> None:
        """Waits, while the slot is in use, until it would start to read behind everything there is.

        A slot's restart_lsn moves at a snapshot of running transactions that is confirmed, of which the
        server writes one every 15 seconds. Left to that, the next start goes through the log of the last
        backlog again, or does not, by chance: 0.3 s of 1.
        """
        end = self.on_source.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        has_function = self.source.major >= 16
        while True:
            self.on_source.execute(
                "SELECT pg_log_standby_snapshot()" if has_function else "CHECKPOINT"
            )
            row = self.on_source.execute(
                "SELECT restart_lsn >= %s FROM pg_replication_slots WHERE slot_name = %s",
                ((end or (None,))[0], slot),
            ).fetchone()
            if row and row[0]:
                return
            time.sleep(0.1)

    def timed(self, slot: str, done: Callable[[], bool]) -> float:
        """Seconds from the moment the slot is in use until `done`."""
        while not self.slot_active(slot):
            time.sleep(0.001)
        begun = time.perf_counter()
        while not done():
            time.sleep(0.01)
        return time.perf_counter() - begun

    def clean(self) -> None:
        self.on_source.execute("TRUNCATE bench")
        self.on_target.execute("DROP TABLE IF EXISTS bench")
        for db in (self.on_source, self.on_target):
            db.execute("CHECKPOINT")


class Subscription:
    """PostgreSQL's own: the peer."""

    slot = "peer"

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def prepare(self) -> None:
        self.pair.on_target.execute(TABLE)
        self.pair.on_source.execute("CREATE PUBLICATION peer FOR TABLE bench")
        self.pair.on_source.execute("SELECT pg_create_logical_replication_slot('peer', 'pgoutput')")
        self.pair.on_target.execute(
            f"CREATE SUBSCRIPTION peer CONNECTION '{self.pair.source_url}' PUBLICATION peer"
            " WITH (create_slot = false, enabled = false, copy_data = false, slot_name = 'peer', binary = true)"
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        self.pair.on_target.execute("ALTER SUBSCRIPTION peer ENABLE")
        try:
            yield
        finally:
            self.pair.on_target.execute("ALTER SUBSCRIPTION peer DISABLE")
            while self.pair.slot_active(self.slot):
                time.sleep(0.01)

    def drop(self) -> None:
        self.pair.on_target.execute("ALTER SUBSCRIPTION peer SET (slot_name = NONE)")
        self.pair.on_target.execute("DROP SUBSCRIPTION peer")
        self.pair.on_source.execute("SELECT pg_drop_replication_slot('peer')")
        self.pair.on_source.execute("DROP PUBLICATION peer")


class Daemon:
    """Ours, as a user runs it."""

    slot = "cdc_bench"

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def prepare(self) -> None:
        assert self.pair.cdc("--until-current").wait() == 0

    @contextmanager
    def running(self) -> Iterator[None]:
        process = self.pair.cdc()
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()

    def drop(self) -> None:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "cdc",
                "--config",
                str(self.pair.folder / "cdc.toml"),
                "drop",
                "bench",
                "--yes",
            ],
            check=True,
            env={**os.environ, "RUNTIME_DIRECTORY": str(self.pair.folder / "run")},
        )


Peer = Subscription | Daemon


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    bin_dir = embedded_bin_dir()
    assert bin_dir is not None, "the bench needs the embedded PostgreSQL: make install"
    with (
        LocalPostgres(bin_dir, settings=SERVER) as source,
        LocalPostgres(bin_dir, settings=SERVER) as target,
    ):
        pair = Pair(source, target, tmp_path)
        yield pair
        pair.on_source.close()
        pair.on_target.close()


def backlog_of_inserts(pair: Pair, peer: Peer, *, drop: bool = True) -> float:
    """Rows a second of a backlog of 100-row insert transactions."""
    pair.clean()
    peer.prepare()
    pair.on_source.execute(f"CALL backlog_inserts(1, {INSERTED}, 100)")
    with peer.running():
        seconds = pair.timed(peer.slot, lambda: pair.value("SELECT max(id) FROM bench") == INSERTED)
        pair.move_restart(peer.slot)
    if drop:
        peer.drop()
    return INSERTED / seconds


def backlog(pair: Pair, peer: Peer) -> tuple[float, float]:
    """Rows a second of the two backlogs: 100-row insert transactions, one-row updates."""
    inserts = backlog_of_inserts(pair, peer, drop=False)
    pair.on_source.execute(f"CALL backlog_updates(1, {UPDATED})")
    with peer.running():
        updates = UPDATED / pair.timed(
            peer.slot,
            lambda: pair.value(f"SELECT note FROM bench WHERE id = {UPDATED}") == "changed",
        )
    peer.drop()
    return inserts, updates


def latency(
    pair: Pair, peer: Peer, *, rate: int = 200, seconds: float = 10.0
) -> tuple[float, float]:
    """Milliseconds from a commit's return on the source until the row is seen on the target: p50, p99."""
    pair.clean()
    peer.prepare()
    total = int(rate * seconds)
    committed = [0.0] * (total + 1)
    seen = [0.0] * (total + 1)

    def write() -> None:
        with psycopg.connect(pair.source.url("postgres"), autocommit=True) as db:
            begun = time.perf_counter()
            for n in range(1, total + 1):
                time.sleep(max(0.0, begun + n / rate - time.perf_counter()))
                db.execute(
                    f"INSERT INTO bench SELECT {ROW} FROM generate_series(%s::int, %s::int) g",
                    (n, n),
                )
                committed[n] = time.perf_counter()

    with peer.running():
        while not pair.slot_active(peer.slot):
            time.sleep(0.01)
        pair.on_source.execute(
            f"INSERT INTO bench SELECT {ROW.replace('%%', '%')} FROM generate_series(0, 0) g"
        )
        while pair.value("SELECT max(id) FROM bench") is None:
            time.sleep(0.01)
        writer = threading.Thread(target=write)
        writer.start()
        last = 0
        while last < total:
            now_last = int(str(pair.value("SELECT max(id) FROM bench")))
            at = time.perf_counter()
            for n in range(last + 1, now_last + 1):
                seen[n] = at
            last = now_last
            time.sleep(0.0005)
        writer.join()
    peer.drop()
    return percentiles(seen[1:], committed[1:])


def percentiles(seen: list[float], committed: list[float]) -> tuple[float, float]:
    """Milliseconds between the two: p50, p99."""
    waits = sorted(max(0.0, s - c) * 1000 for s, c in zip(seen, committed, strict=True))
    return statistics.median(waits), waits[int(len(waits) * 0.99)]


def snapshot(pair: Pair) -> tuple[float, float]:
    """Rows a second of a first snapshot, and of psql's COPY into psql's COPY."""
    pair.clean()
    rows = 2 * INSERTED
    pair.on_source.execute(f"CALL backlog_inserts(1, {rows}, 10000)")
    pair.on_source.execute("VACUUM ANALYZE bench")
    (pair.folder / "log").write_bytes(b"")
    assert pair.cdc("--until-current").wait() == 0
    times = {}
    for line in (pair.folder / "log").read_text().splitlines():
        stamp, _, name = line.split()[0], line.split()[1], line.split()[3]
        times[name] = stamp
    begun, ended = (_seconds(times[n]) for n in ("session-begun", "table-copied"))
    assert pair.value("SELECT count(*) FROM bench") == rows
    Daemon(pair).drop()
    pair.on_target.execute("DROP TABLE bench")
    pair.on_target.execute(TABLE)
    psql = pair.source.bin_dir / "psql"
    at = time.perf_counter()
    subprocess.run(  # noqa: S602 - the peer is what a person types
        f"{psql} '{pair.source.url('postgres')}' -c 'COPY bench TO STDOUT' |"
        f" {psql} '{pair.target.url('postgres')}' -qc 'COPY bench FROM STDIN'",
        shell=True,
        check=True,
    )
    return rows / (ended - begun), rows / (time.perf_counter() - at)


def _seconds(stamp: str) -> float:
    hours, minutes, seconds = stamp.partition("T")[2].rstrip("Z").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def print_ratio(what: str, ours: list[float], theirs: list[float], unit: str, peer: str) -> None:
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"{what:44} {mine:12,.1f} {unit:7} {peer} {other:12,.1f}   ratio {mine / other:5.2f}",
        flush=True,
    )


def test_backlog(pair: Pair) -> None:
    """Backlogs beside a subscription; prints the ratio of rates (more is better)."""
    print_backlogs(pair, "")


def print_backlogs(pair: Pair, how: str) -> None:
    results: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        results["theirs"].append(backlog(pair, Subscription(pair)))
        results["ours"].append(backlog(pair, Daemon(pair)))
    print()
    for index, what in enumerate(
        ("inserts, 100 rows a transaction", "updates, one row a transaction")
    ):
        print_ratio(
            what + how,
            [r[index] for r in results["ours"]],
            [r[index] for r in results["theirs"]],
            "rows/s",
            "subscription",
        )


def test_latency(pair: Pair) -> None:
    """Commit on the source to visible on the target, 200 one-row transactions a second (less is better)."""
    ours = [latency(pair, Daemon(pair)) for _ in range(ROUNDS)]
    theirs = [latency(pair, Subscription(pair)) for _ in range(ROUNDS)]
    print()
    for index, what in enumerate(("commit to visible, p50", "commit to visible, p99")):
        print_ratio(
            what, [r[index] for r in ours], [r[index] for r in theirs], "ms", "subscription"
        )


def test_snapshot(pair: Pair) -> None:
    """A first snapshot beside psql's COPY to COPY; prints the ratio of rates (more is better)."""
    results = [snapshot(pair) for _ in range(ROUNDS)]
    print()
    print_ratio(
        "first snapshot, 600,000 rows",
        [r[0] for r in results],
        [r[1] for r in results],
        "rows/s",
        "psql | psql",
    )
