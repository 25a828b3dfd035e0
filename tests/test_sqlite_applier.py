"""What the SQLite applier promises beyond the contract: constraints, errors, the file, the lock.

Its values and its tables are in test_sqlite_types.py."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliers.batch import Batch
from appliers.delta import UNCHANGED, Commit, Delta, Op
from appliers.errors import FencedError, LockedError, PermanentError, TransientError
from appliers.images import Format, pgoutput_image
from appliers.relation import Column, Relation
from appliers.sqlite import SqliteApplier
from appliers.sqlite.connection import path_of
from appliers.sqlite.lock import WriterLock
from tests.applier_bed import A, B, Bed, C, Item, SqliteTarget, by_id, no_reread, position

NOBODY = 65534


@pytest.fixture
def bed(sqlite_path: Path) -> Iterator[Bed]:
    bed = Bed(SqliteTarget(sqlite_path))
    yield bed
    bed.close()


def applier_on(path: Path) -> SqliteApplier:
    applier = SqliteApplier(f"sqlite:///{path}", None, "contract")
    applier.busy_seconds = 0.05
    return applier


def table(
    name: str, *columns: Column, key: tuple[int, ...] = (0,), schema: str = "public"
) -> Relation:
    return Relation(schema, name, columns, key, Format.PGOUTPUT_TEXT)


ID = Column("id", "bigint", "int8", nullable=False)
TEXT = Column("name", "text", "text")


# Constraints and triggers


def test_rows_in_the_way_fire_delete_triggers(bed: Bed) -> None:
    """A user's triggers fire for every row that goes, as for every row that comes."""
    bed.target.execute("CREATE TABLE gone (id)")
    applier = bed.open_unique(A, B)
    bed.target.execute(
        "CREATE TRIGGER bye AFTER DELETE ON item BEGIN INSERT INTO gone VALUES (old.id); END"
    )
    bed.apply(applier, [bed.insert(Item(9, "a"))], 1, redo=["public.item"])
    assert bed.items() == by_id(B, Item(9, "a"))
    assert bed.target.rows("SELECT id FROM gone") == [(1,)]


@pytest.mark.parametrize("index", ["(lower(code))", "(code) WHERE n > 0", "(code, own)"])
def test_unique_indexes_that_name_no_row(bed: Bed, index: str) -> None:
    """Over expressions, with a WHERE, over columns of the target alone: rows in the way go too."""
    bed.target.execute(
        "CREATE TABLE item (id BIGINT PRIMARY KEY, code TEXT, n INTEGER, big TEXT, own TEXT DEFAULT '')"
    )
    bed.target.execute(f"CREATE UNIQUE INDEX awkward ON item {index}")
    bed.fill([A, B, C])
    applier = bed.open(begun=True)
    deltas = [
        bed.insert(Item(9, "a", 1)),
        bed.update(Item(2, "c", 1, UNCHANGED)),
        bed.insert(Item(8)),
    ]
    bed.apply(applier, deltas, 1, redo=["public.item"])
    assert bed.items() == by_id(Item(9, "a", 1), Item(2, "c", 1, "big b"), Item(8))


def test_on_conflict_clauses_of_a_table_do_not_swallow_rows(bed: Bed) -> None:
    """ON CONFLICT IGNORE in the user's table would drop a row without a word."""
    bed.target.execute(
        "CREATE TABLE item (id BIGINT PRIMARY KEY, code TEXT UNIQUE ON CONFLICT IGNORE, n INTEGER,"
        " big TEXT)"
    )
    applier = bed.open(begun=True)
    bed.fill([A])
    with pytest.raises(PermanentError, match=r"UNIQUE constraint failed: item\.code"):
        bed.apply(applier, [bed.insert(Item(2, "a"))], 1)


def test_a_null_that_the_target_refuses(bed: Bed) -> None:
    """An error that names the column, in a redo too: a default is never put in its place."""
    bed.target.execute(
        "CREATE TABLE item (id BIGINT PRIMARY KEY, code TEXT, n INTEGER NOT NULL DEFAULT 0, big TEXT)"
    )
    bed.target.execute("CREATE UNIQUE INDEX awkward ON item (lower(code))")
    bed.fill([A])
    applier = bed.open(begun=True)
    with pytest.raises(PermanentError, match=r"item\.n|item"):
        bed.apply(applier, [bed.insert(Item(2, "a", None))], 1, redo=["public.item"])
    assert bed.items() == by_id(A)


def test_a_raising_trigger_keeps_its_words(bed: Bed) -> None:
    """Its text may have a row's values: it is not repeated."""
    applier = bed.open_unique()
    bed.target.execute(
        "CREATE TRIGGER no BEFORE INSERT ON item BEGIN SELECT RAISE(ABORT, 'secret'); END"
    )
    with pytest.raises(PermanentError, match="a trigger raised an error") as caught:
        bed.apply(applier, [bed.insert(A)], 1)
    assert "secret" not in str(caught.value)


def test_unique_values_move_across_pieces(bed: Bed) -> None:
    """A statement that shifts a deferrable unique value over more rows than a piece holds."""
    rows = [Item(n, f"{n}", n, "x") for n in range(6)]
    applier = bed.open_unique(*rows)
    shifted = [r._replace(code=f"{r.id + 1}") for r in rows]
    for n, item in enumerate(shifted):
        bed.apply(applier, [bed.update(item)], None if n < 5 else 1)
    assert bed.items() == by_id(*shifted)


def test_a_batch_that_was_applied_is_fenced_before_its_rows(bed: Bed) -> None:
    """Not refused for a unique value that its own first time took."""
    first, second = bed.open_unique(A), bed.open(None)
    second.prepare(bed.log)
    deltas = [bed.update(A._replace(code="moved")), bed.insert(Item(5, "a"))]
    bed.apply(first, deltas, 1)
    with pytest.raises(FencedError):
        bed.apply(second, [bed.insert(Item(6, "a"))], 1)


class Looked(list[Any]):
    """Deltas that count how often somebody goes through them."""

    times = 0

    def __iter__(self) -> Iterator[Any]:
        self.times += 1
        return super().__iter__()


def test_a_batch_is_not_gone_through_for_each_of_its_updates(bed: Bed) -> None:
    """INSERTs that left columns out of a MySQL log come as DELETE and UPDATE of a row that is not there:
    what a batch deletes is looked for once, and no such row counts as lost."""
    applier = bed.open(begun=True)
    pairs = [(bed.delete(i), bed.update(Item(i, f"a{i}", i, UNCHANGED))) for i in range(1, 41)]
    deltas = Looked(delta for pair in pairs for delta in pair)
    source = bed.source_with(*(Item(i, f"a{i}", i, "big") for i in range(1, 41)))
    applied = applier.apply(Batch(deltas, position(1), 1), source)
    assert bed.items() == {i: Item(i, f"a{i}", i, "big") for i in range(1, 41)}
    assert applied.healed == 0
    assert deltas.times < 10


def test_invalid_utf8_is_named(bed: Bed) -> None:
    """From a source in SQL_ASCII. The error does not repeat the value."""
    relation = table("t", ID, TEXT)
    applier = bed.open(begun=True)
    applier.prepare(relation)
    image = pgoutput_image([b"1", b"caf\xe9"], b"t")
    with pytest.raises(PermanentError, match="not valid UTF-8") as caught:
        applier.apply(
            Batch([Delta(Op.INSERT, relation, None, image, Commit("1", 1, 1), 1)], "1"), no_reread
        )
    assert caught.value.__cause__ is None


# The file


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/x.db",
        "sqlite:////x.db?mode=ro",
    ],
)
def test_a_url_that_is_no_file_is_refused(url: str) -> None:
    """With what was expected."""
    with pytest.raises(PermanentError, match="expected") as caught:
        SqliteApplier(url, None, "s")
    assert caught.value.hint


def test_urls_lead_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative ones from the working directory; percent signs are decoded."""
    monkeypatch.chdir(tmp_path)
    assert path_of("sqlite:///a/b.db") == tmp_path / "a/b.db"
    assert path_of("sqlite:////var/lib/cdc/oa.db") == Path("/var/lib/cdc/oa.db")
    odd = tmp_path / "50% #1?.db"
    applier = SqliteApplier("sqlite:///50%25%20%231%3F.db", None, "s")
    applier.open("test")
    applier.close()
    assert odd.exists()


def test_a_missing_directory(tmp_path: Path) -> None:
    """Is named, with the command that makes it; also for status."""
    for holder in ("test", None):
        with pytest.raises(PermanentError, match="there is no directory") as caught:
            applier_on(tmp_path / "no/x.db").open(holder)
        assert caught.value.hint == f"mkdir -p {tmp_path / 'no'}"
    [failed] = [f for f in applier_on(tmp_path / "no/x.db").check([]) if f.level == "FAILED"]
    assert "there is no directory" in failed.message


def test_not_a_database(tmp_path: Path) -> None:
    """Another file is left as it is."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear customer, " * 100)
    with pytest.raises(PermanentError, match="is not a SQLite database") as caught:
        applier_on(path).open("test")
    assert caught.value.hint
    assert path.read_text() == "Dear customer, " * 100
    with pytest.raises(PermanentError, match="is a directory"):
        applier_on(tmp_path).open("test")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write everything: files' rights bind other users only."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_read_only(bed: Bed, sqlite_path: Path) -> None:
    """A file or folder that this user may not write: named and permanent."""
    bed.open(begun=True).close()
    for parent in sqlite_path.parents[:4]:  # of the test, the process, the run, the user
        parent.chmod(parent.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
    sqlite_path.parent.chmod(0o777)
    sqlite_path.chmod(0o444)
    with as_nobody(), pytest.raises(PermanentError, match="is read-only for this user") as caught:
        applier_on(sqlite_path).open("test")
    assert "chmod" in caught.value.hint
    sqlite_path.chmod(0o666)
    sqlite_path.parent.chmod(0o555)
    with as_nobody(), pytest.raises(PermanentError, match="may not create files in"):
        applier_on(sqlite_path).open("test")
    # A write-ahead log cannot even be read without the files beside the database.
    with as_nobody(), pytest.raises(PermanentError, match="is read-only"):
        applier_on(sqlite_path).open(None)
    sqlite_path.parent.chmod(0o700)
    with as_nobody(), pytest.raises(PermanentError, match="may not enter a directory"):
        applier_on(sqlite_path).open("test")


def test_locked_by_another_program(bed: Bed, sqlite_path: Path) -> None:
    """Retried: transient, with how to find who it is. It waits first."""
    applier = applier_on(sqlite_path)
    applier.open("test")
    other = sqlite3.connect(sqlite_path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError, match="is locked by another program") as caught:
        applier.state.pause(True)
    assert "fuser" in caught.value.hint
    applier.close()
    patient = applier_on(sqlite_path)
    patient.busy_seconds = 20
    patient.open(None)
    timer = threading.Timer(0.2, other.close)
    timer.start()
    patient.state.pause(True)
    timer.join()
    assert patient.state.control().paused
    patient.close()


def test_a_full_disk(bed: Bed) -> None:
    """Retried: transient; the rows and the checkpoint stay as they were, and it goes on later."""
    applier = bed.open(begun=True)
    assert isinstance(applier, SqliteApplier)
    assert applier._db is not None
    [(pages,)] = applier._db.execute("PRAGMA page_count")
    applier._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    big = [bed.insert(Item(n, None, 0, "x" * 5000)) for n in range(10)]
    with pytest.raises(TransientError, match="the disk is full") as caught:
        bed.apply(applier, big, 1)
    assert "make room" in caught.value.hint
    applier.close()
    assert bed.items() == {}
    again = bed.open("again")
    again.prepare(bed.log)
    bed.apply(again, big, 1)
    assert len(bed.items()) == 10


def test_a_damaged_database(bed: Bed, sqlite_path: Path) -> None:
    """Is named, with the way to save what is left."""
    applier = bed.open(begun=True)
    bed.apply(applier, [bed.insert(Item(n, None, 0, "x" * 500)) for n in range(100)], 1)
    applier.close()
    with sqlite_path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (sqlite_path.stat().st_size - 4096))
    with pytest.raises(PermanentError, match="is damaged") as caught:
        bed.open("again")
    assert ".recover" in caught.value.hint


def test_it_writes_durably_and_lets_others_read(bed: Bed, sqlite_path: Path) -> None:
    """Write-ahead log, synchronous = FULL, no foreign keys; and nothing is left beside the file."""
    applier = bed.open(begun=True)
    assert isinstance(applier, SqliteApplier)
    assert applier._db is not None
    values = {
        name: applier._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
    }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 0,
        "trusted_schema": 0,
    }
    bed.apply(applier, [bed.insert(A)], None)
    assert bed.items() == {}
    bed.apply(applier, [bed.insert(B)], 1)
    assert bed.items() == by_id(A, B)
    bed.close()
    assert [p.name for p in sqlite_path.parent.iterdir()] == [sqlite_path.name]


def test_looking_makes_no_file(sqlite_path: Path) -> None:
    """Status and check of a target that was never used."""
    applier = applier_on(sqlite_path)
    applier.open(None)
    assert applier.state.load() is None
    assert [f for f in applier.check([]) if f.level == "FAILED"] == []
    applier.drop()
    applier.close()
    assert not sqlite_path.exists()


# The lock


@pytest.mark.parametrize("ofd", [True, False], ids=["range", "file"])
def test_the_lock_outlives_other_connections(
    bed: Bed, sqlite_path: Path, monkeypatch: pytest.MonkeyPatch, ofd: bool
) -> None:
    """Nothing that this or another process does with the file lets go of it, and it lets go of none
    of SQLite's own locks. `file` is what macOS gets."""
    monkeypatch.setattr(WriterLock, "ofd", ofd)
    applier = bed.open("first", begun=True)
    bed.apply(applier, [bed.insert(A)], None)
    other = WriterLock(sqlite_path, "another")
    assert other.acquire()
    other.release()
    sqlite3.connect(sqlite_path).close()
    with pytest.raises(LockedError, match="first"):
        bed.open("second")
    script = (
        "import sys; from appliers.sqlite import SqliteApplier; from appliers.sqlite.lock import *;"
        "from appliers.errors import SyncError; WriterLock.ofd = sys.argv[2] == 'True'\n"
        "a = SqliteApplier(sys.argv[1], None, 'contract'); a.busy_seconds = 0.1\n"
        "for what in (lambda: a.open('elsewhere'), lambda: a.open(None) or a.state.pause(True)):\n"
        "    try: what()\n"
        "    except SyncError as e: print(type(e).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, bed.target.url, str(ofd)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["LockedError", "TransientError"]
    bed.apply(applier, [bed.insert(B)], 1)
    assert bed.items() == by_id(A, B)


def test_the_lock_is_the_files(tmp_path: Path) -> None:
    """Reached by another path, it is the same; a new file at the old path is another."""
    path, link = tmp_path / "a.db", tmp_path / "link.db"
    first = applier_on(path)
    first.open("first")
    link.symlink_to(path)
    with pytest.raises(LockedError, match="first"):
        applier_on(link).open("second")
    for name in ("a.db", "a.db-wal", "a.db-shm"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")
    third = applier_on(path)
    third.open("third")
    third.close()
    first.close()
