"""What `appliers.applier.Applier` and its `state` promise of transactions, locks, kills and errors."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from appliers.applier import Applier
from appliers.checkpoint import Checkpoint, Copy, PlannedChunk, TableState
from appliers.delta import Commit, Delta, Op
from appliers.errors import FencedError, LockedError, SyncError
from appliers.images import Format
from appliers.state import now
from tests.applier_bed import COLUMNS, SYNC, TABLE, A, B, Bed, C, Item, by_id, commit, position
from tests.databases import wait_until
from tests.nursery import Child, nursery

pytest_plugins = ["tests.applier_fixtures"]


def run(what: str, bed: Bed, fault: str = "") -> Child:
    with os.fdopen(os.dup(2), "wb") as error:
        return nursery().fork(
            "tests.applier_process",
            [what, bed.target.url],
            environment=os.environ | {"CDC_FAULT": fault},
            folder=Path.cwd(),
            error=error,
        )


def checkpoint_of(bed: Bed, sync: str = SYNC) -> Checkpoint:
    found = bed.open(None, sync).state.load()
    assert found is not None
    return found


# The checkpoint


def test_the_checkpoint_is_read_back(bed: Bed) -> None:
    """None before the first; then what `begin` wrote, then what `apply` made of it."""
    applier = bed.open()
    assert applier.state.load() is None
    applier.prepare(bed.log)
    before = now()
    with applier.state.transaction():
        applier.state.begin('{"system": "1"}', position(5), [TABLE])
    first = checkpoint_of(bed)
    assert (first.source, first.position, first.changes) == ('{"system": "1"}', position(5), 0)
    bed.apply(applier, [bed.insert(A, at=6), bed.insert(B, at=7)], 7)
    bed.apply(applier, [bed.delete(1, at=8)], 8)
    last = checkpoint_of(bed)
    assert (last.source, last.position, last.changes) == ('{"system": "1"}', position(8), 3)
    assert last.committed_at == commit(8).committed_at
    assert before <= last.applied_at <= now()


def test_a_batch_without_deltas_moves_the_checkpoint(bed: Bed) -> None:
    """An idle source's position goes on, and is durable."""
    applier = bed.open(begun=True)
    applied = bed.apply(applier, [], 9)
    assert (applied.rows, applied.healed) == (0, 0)
    assert checkpoint_of(bed).position == position(9)
    assert applier.state.position == position(9)


def test_a_batch_given_twice_is_applied_once(bed: Bed) -> None:
    """By two appliers that saw the same checkpoint, and by one: FencedError, nothing is written."""
    first = bed.open(begun=True)
    second = bed.open(None)
    second.prepare(bed.log)
    bed.apply(first, [bed.insert(A)], 1)
    with pytest.raises(FencedError, match=SYNC) as caught:
        bed.apply(second, [bed.insert(A._replace(n=0)), bed.insert(B)], 1)
    assert caught.value.hint
    assert bed.items() == by_id(A)
    assert checkpoint_of(bed).position == position(1)
    bed.apply(first, [bed.insert(C)], 2)
    assert bed.items() == by_id(A, C)


def test_a_batch_before_the_first_checkpoint_is_refused(bed: Bed) -> None:
    """There is nothing to move the checkpoint from."""
    applier = bed.open()
    applier.prepare(bed.log)
    with pytest.raises(FencedError):
        bed.apply(applier, [bed.insert(A)], 1)
    assert bed.items() == {}


def test_flushed_is_what_survives(bed: Bed) -> None:
    """None before the first batch; in the end the last position; never one that is not committed."""
    applier = bed.open(begun=True)
    assert applier.flushed() is None
    bed.apply(applier, [bed.insert(A)], 1)
    bed.apply(applier, [bed.insert(B)], 2)
    wait_until(lambda: applier.flushed() == position(2), message="position 2 is flushed")
    bed.apply(applier, [bed.insert(C)], None)
    assert applier.flushed() == position(2)


# Transactions


def test_a_piece_is_seen_with_its_transaction_alone(any_bed: Bed) -> None:
    """A batch without a position leaves the transaction open; the next ones go on in it, and the one
    with a position commits all. `changes` counts all of them."""
    applier = any_bed.open(begun=True)
    any_bed.apply(applier, [any_bed.insert(A), any_bed.insert(B)], None)
    assert any_bed.items() == {}
    any_bed.apply(applier, [any_bed.update(A._replace(n=11)), any_bed.delete(2)], None)
    assert any_bed.items() == {}
    any_bed.apply(applier, [any_bed.insert(C)], 1)
    assert any_bed.items() == by_id(A._replace(n=11), C)
    assert checkpoint_of(any_bed).changes == 5


def test_closing_undoes_what_is_open(bed: Bed) -> None:
    """A transaction that is not over leaves nothing; closing twice is no error."""
    applier = bed.open(begun=True)
    bed.apply(applier, [bed.insert(A)], None)
    applier.close()
    applier.close()
    assert bed.items() == {}
    assert checkpoint_of(bed).position == position(0)


def test_a_table_may_be_prepared_inside_of_a_transaction(bed: Bed) -> None:
    """The first row of a table may come in a later piece."""
    applier = bed.open(begun=True)
    bed.apply(applier, [bed.insert(A)], None)
    other = bed.relation(Format.PGOUTPUT_TEXT, "other", COLUMNS)
    applier.prepare(other)
    delta = Delta(Op.INSERT, other, None, bed.image(B), Commit(position(1), 1, 1), 2)
    bed.apply(applier, [delta], 1)
    assert bed.items() == by_id(A)
    assert bed.target.rows("SELECT id FROM other") == [(2,)]


def test_after_a_failure_a_new_applier_goes_on(bed: Bed) -> None:
    """Nothing of the failed batch is there; the one that failed is only good for `close`."""
    applier = bed.open_unique(A)
    with pytest.raises(SyncError):
        bed.apply(applier, [bed.insert(B), bed.insert(C._replace(code="a"))], 1)
    applier.close()
    again = bed.open("another")
    again.prepare(bed.log)
    bed.apply(again, [bed.insert(B), bed.insert(C)], 1)
    assert bed.items() == by_id(A, B, C)


@pytest.mark.parametrize(
    ("point", "rows"),
    [("batch-taken", 0), ("rows-written", 0), ("commit-sent", None), ("commit-acknowledged", 3)],
)
def test_killed_in_a_batch(bed: Bed, point: str, rows: int | None) -> None:
    """kill -9 leaves all rows with the new checkpoint, or none with the old one; the batch that is
    given again from there is written once. `commit-sent` may be either."""
    bed.open(begun=True).close()
    with run("apply", bed, fault=point) as process:
        assert process.wait(30) == -signal.SIGKILL
    # The server may still be at the COMMIT that it was sent.
    applier = wait_until(lambda: reopened(bed), message="the lock of the killed process is free")
    assert applier is not None
    at, items = applier.state.position, bed.items()
    assert (at, len(items)) in [(position(0), 0), (position(1), 3)]
    assert rows in (None, len(items))
    applier.close()
    if not items:
        with run("apply", bed) as process:
            assert process.wait(30) == 0
    assert bed.items() == by_id(A, B, C)
    assert checkpoint_of(bed).changes == 3


@pytest.mark.parametrize(("point", "rows"), [("chunk-written", 0), ("chunk-committed", 3)])
def test_killed_in_a_chunk(bed: Bed, point: str, rows: int) -> None:
    """Rows and progress of a chunk are there together, or neither is."""
    bed.open(begun=True).close()
    with run("copy", bed, fault=point) as process:
        assert process.wait(30) == -signal.SIGKILL
    applier = wait_until(lambda: reopened(bed), message="the lock is free")
    assert applier is not None
    state = applier.state
    assert len(bed.items()) == state.tables()[TABLE].rows == rows
    assert len(state.chunks()) == (0 if rows else 1)


# The lock


def reopened(bed: Bed) -> Applier | None:
    with suppress(LockedError):
        return bed.open("after the kill")
    return None


def test_a_second_daemon_is_refused(bed: Bed) -> None:
    """It is told who holds the sync; another sync of the same target is free, and so is this one
    after `close`."""
    first = bed.open("host-a, pid 1")
    with pytest.raises(LockedError, match=r"contract.*host-a, pid 1") as caught:
        bed.open("host-b, pid 2")
    assert caught.value.hint
    bed.open("host-b, pid 2", "another").close()
    first.close()
    bed.open("host-c, pid 3")


def test_a_lock_ends_with_its_process(bed: Bed) -> None:
    """kill -9 frees it; nobody has to clean up."""
    with run("hold", bed) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match="the other process, pid 4711"):
            bed.open("host-b, pid 2")
        process.kill()
    wait_until(lambda: reopened(bed), message="the lock of the killed process is free")


def test_without_a_holder_nothing_is_locked_or_written(bed: Bed) -> None:
    """Status of a sync that never ran leaves no trace, and works beside a running one."""
    looking = bed.open(None)
    assert looking.state.load() is None
    assert looking.state.tables() == {}
    assert looking.state.chunks() == []
    assert looking.state.control().requests == ()
    assert looking.server()
    assert bed.target.tables() == set()
    running = bed.open("host-a, pid 1", begun=True)
    assert checkpoint_of(bed).position == position(0)
    bed.open(None).state.pause(True)
    assert running.state.control().paused


def test_a_wish_may_come_before_the_first_start(bed: Bed) -> None:
    """Pausing a sync that never ran is kept; it has no checkpoint yet."""
    bed.open(None).state.pause(True)
    state = bed.open("first").state
    assert state.load() is None
    assert state.control().paused


# What the sync keeps


def test_tables_and_plans_are_kept(bed: Bed) -> None:
    """`begin` marks every table; a plan has numbered chunks that are struck off one by one."""
    state = bed.open().state
    with state.transaction():
        state.begin("{}", position(0), ["public.a", "public.b"])
    assert state.tables() == {t: TableState(t) for t in ("public.a", "public.b")}
    planned = TableState("public.a", rows_estimated=70, fingerprint="16384", exact_at=position(1))
    with state.transaction():
        state.plan(planned, ["x", "y", "z"])
    other = bed.open(None).state
    assert other.chunks() == [PlannedChunk("public.a", n, b) for n, b in enumerate("xyz")]
    kept = other.tables()["public.a"]
    assert (kept.copy, kept.chunks, kept.rows_estimated) == (Copy.COPYING, 3, 70)
    assert (kept.fingerprint, kept.exact_at, kept.sweep) == ("16384", position(1), False)
    assert state.strike("public.a", 1)
    assert not state.strike("public.a", 1)
    state.copied("public.a", 25, position(2))
    state.copied("public.a", 5, position(3))
    state.add_chunk("public.a", "w")
    assert [c.number for c in other.chunks()] == [0, 2, 3]
    kept = other.tables()["public.a"]
    assert (kept.rows, kept.exact_at) == (30, position(3))
    kept.copy, kept.sweep = Copy.DONE, True
    state.put_table(kept)
    assert other.tables()["public.a"] == kept
    assert other.chunks() == []
    state.forget_table("public.a")
    assert list(other.tables()) == ["public.b"]


def test_redo_takes_a_table_back(bed: Bed) -> None:
    """From DONE to REDO; one that is being copied stays so."""
    state = bed.open().state
    for table, copy in (("public.a", Copy.DONE), ("public.b", Copy.COPYING)):
        state.put_table(TableState(table, copy))
        state.redo(table, position(9))
    kept = state.tables()
    assert (kept["public.a"].copy, kept["public.b"].copy) == (Copy.REDO, Copy.COPYING)
    assert {t.exact_at for t in kept.values()} == {position(9)}


def test_state_in_a_transaction_is_one_change(bed: Bed) -> None:
    """What an error interrupts was never there."""
    applier = bed.open(begun=True)

    def interrupted() -> None:
        with applier.state.transaction():
            applier.state.pause(True)
            applier.state.put_table(TableState("public.b"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not applier.state.control().paused
    assert list(applier.state.tables()) == [TABLE]
    bed.apply(applier, [bed.insert(A)], 1)


def test_what_users_ask_for_is_kept(bed: Bed) -> None:
    """Pause, failure and wishes, seen from another connection, until they are taken back."""
    state, other = bed.open().state, bed.open(None).state
    other.pause(True)
    state.fail("it broke", "mend it")
    first = other.request(TABLE, None)
    second = other.request(None, "42")
    seen = bed.open(None).state.control()
    assert (seen.paused, seen.error, seen.hint) == (True, "it broke", "mend it")
    assert [(r.id, r.table, r.customer) for r in seen.requests] == [
        (first, TABLE, None),
        (second, None, "42"),
    ]
    other.pause(False)
    state.fail(None, None)
    state.fulfilled(first)
    seen = other.control()
    assert (seen.paused, seen.error, seen.hint) == (False, None, None)
    assert [r.id for r in seen.requests] == [second]


def test_two_syncs_on_one_target_know_nothing_of_each_other(bed: Bed) -> None:
    """Checkpoints, tables, chunks and wishes are each sync's own."""
    one = bed.open("one", begun=True)
    two = bed.open("two", "another")
    two.prepare(bed.log)
    assert two.state.load() is None
    with two.state.transaction():
        two.state.begin("{}", position(50), ["public.b"])
    bed.apply(two, [bed.insert(B)], 60)
    bed.apply(one, [bed.insert(A)], 1)
    assert checkpoint_of(bed).position == position(1)
    assert checkpoint_of(bed, "another").position == position(60)
    assert list(one.state.tables()) == [TABLE]
    assert bed.items() == by_id(A, B)


# check and drop


def test_check_changes_nothing_and_says_what_is_missing(bed: Bed) -> None:
    """Every line has a subject and a message, every line that is not ok a remedy."""
    applier = bed.open(None)
    found = list(applier.check([bed.log]))
    assert found
    assert [f for f in found if f.level == "FAILED"] == []
    assert bed.target.tables() == set()
    bed.target.execute("CREATE TABLE item (id BIGINT PRIMARY KEY, code TEXT, n INTEGER)")
    again = list(bed.open(None).check([bed.log]))
    [failed] = [f for f in again if f.level == "FAILED"]
    assert "big" in failed.message + failed.remedy
    assert all(f.subject and f.message for f in again)
    assert all(f.remedy for f in again if f.level != "ok")
    assert bed.target.tables() == {"item"}


def test_drop_takes_what_the_sync_left_and_no_more(bed: Bed) -> None:
    """The rows stay; the `cdc_` tables go with the last sync; dropping twice is no error."""
    one, two = bed.open("one", begun=True), bed.open("two", "another")
    with two.state.transaction():
        two.state.begin("{}", position(50), ["public.b"])
    bed.apply(one, [bed.insert(A)], 1)
    one.drop()
    one.close()
    assert bed.open(None).state.load() is None
    assert checkpoint_of(bed, "another").position == position(50)
    two.drop()
    two.close()
    assert bed.target.tables() == {"item"}
    assert bed.items() == by_id(A)
    bed.open(None).drop()
    assert bed.target.tables() == {"item"}


def test_a_dropped_sync_starts_again(bed: Bed) -> None:
    """As if it had never been."""
    bed.open(begun=True).drop()
    bed.close()
    applier = bed.open(begun=True)
    bed.apply(applier, [bed.insert(Item(7))], 1)
    assert bed.items() == by_id(Item(7))
