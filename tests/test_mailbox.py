"""What stands between the thread that reads and the thread that applies: order, batches, bounds."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from appliers.delta import Commit, Delta, Op, Run
from appliers.errors import TransientError
from appliers.images import Format
from appliers.relation import Relation
from cdc import mailbox
from cdc.mailbox import (
    BATCH_ROWS,
    FIRST_SHARE,
    HELD_BYTES,
    WORTH_BYTES,
    WORTH_ROWS,
    Mailbox,
    Parcel,
)
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.source import Piece, Progress

TABLE = Relation("public", "t", (), (), Format.PGOUTPUT_TEXT)


def piece(
    end: int,
    *,
    rows: int = 1,
    size: int = 100,
    first: int = 1,
    over: bool = True,
    image: bytes = b"",
) -> Piece:
    """A transaction that ends at `end`, or a part of one that is not over."""
    commit = Commit(str(Lsn(end)), end, end * 1_000)
    deltas: list[Delta | Run] = [
        Delta(Op.INSERT, TABLE, None, image, commit, first + n) for n in range(rows)
    ]
    return Piece(deltas, commit, commit.committed_at, Lsn(end) if over else None, size)


def put(box: Mailbox, *events: Piece | Progress, behind: bool = False) -> None:
    assert box.put(list(events), behind=behind, waiting=lambda: None)


def transactions(parcel: Parcel) -> int:
    assert parcel.piece is not None
    return len({delta.commit for delta in parcel.piece.deltas})


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is held back is held back for longer than any test waits."""
    monkeypatch.setattr(mailbox, "FILL", 600.0)
    monkeypatch.setattr(mailbox, "PAUSE", 600.0)


def test_what_keeps_up_is_handed_over_at_once(patient: None) -> None:
    """A transaction is not held back for others to join it: latency is that of one commit."""
    box = Mailbox()
    put(box, piece(10))
    parcel = box.take(60.0)
    assert parcel is not None
    assert (transactions(parcel), parcel.position) == (1, Lsn(10))


def test_a_backlog_is_gathered_until_a_batch_is_worth_it(patient: None) -> None:
    """While the source is far behind, small transactions wait for one another; a batch that has grown
    meanwhile is cut where it is full."""
    box = Mailbox()
    put(box, piece(10, rows=10), behind=True)
    assert box.take(0.01) is None
    put(box, piece(11, rows=WORTH_ROWS - 10), behind=True)
    parcel = box.take(60.0)
    assert parcel is not None
    assert (transactions(parcel), parcel.position) == (2, Lsn(11))
    put(box, *[piece(20 + n, rows=BATCH_ROWS // 4) for n in range(5)], behind=True)
    full = box.take(60.0)
    assert full is not None
    assert (transactions(full), full.position) == (4, Lsn(23))
    rest = box.take(60.0)
    assert rest is not None
    assert rest.position == Lsn(24)


@pytest.mark.parametrize("measure", [(WORTH_ROWS, 0), (0, WORTH_BYTES)])
def test_an_idle_applier_does_not_wait_for_a_large_batch(
    patient: None, measure: tuple[int, int]
) -> None:
    """A backlog's first batch is small, the next twice as large; what is not behind begins again."""
    rows, size = measure
    rows, size = max(1, int(FIRST_SHARE * rows)), int(FIRST_SHARE * size)
    box = Mailbox()
    put(box, piece(10, rows=rows, size=size), behind=True)
    assert box.take(60.0) is not None
    put(box, piece(11, rows=rows, size=size), behind=True)
    assert box.take(0.01) is None
    put(box, piece(12, rows=rows, size=size), behind=True)
    assert box.take(60.0) is not None
    put(box, piece(13))
    assert box.take(60.0) is not None
    put(box, piece(14, rows=rows, size=size), behind=True)
    assert box.take(60.0) is not None


@pytest.mark.parametrize("limit", ["FILL", "PAUSE"])
def test_a_backlog_is_not_gathered_for_ever(
    patient: None, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """It ends some time after its first transaction, and sooner when nothing new comes."""
    box = Mailbox()
    put(box, piece(10), behind=True)
    assert box.take(0.01) is None
    monkeypatch.setattr(mailbox, limit, 0.02)
    assert box.take(60.0) is not None


def test_a_batch_never_ends_inside_a_transaction_that_is_whole() -> None:
    """The position of a parcel is one behind its last piece, or none while that piece's transaction
    goes on: then no checkpoint can be written."""
    box = Mailbox()
    put(box, piece(10), piece(20, over=False))
    parcel = box.take(1.0)
    assert parcel is not None
    assert parcel.position is None
    assert box.take(0.0) is None, "what follows is not there yet"
    put(box, piece(20))
    last = box.take(1.0)
    assert last is not None
    assert last.position == Lsn(20)


def test_progress_moves_the_position_alone() -> None:
    """Where an idle source is comes as a parcel without pieces, or with the pieces before it; only the
    last one counts."""
    box = Mailbox()
    put(box, Progress(Lsn(5)))
    put(box, Progress(Lsn(6)))
    alone = box.take(1.0)
    assert alone is not None
    assert (alone.piece, alone.position) == (None, Lsn(6))
    assert box.take(0.0) is None
    put(box, piece(10), Progress(Lsn(12)))
    both = box.take(1.0)
    assert both is not None
    assert (transactions(both), both.position) == (1, Lsn(12))


def test_what_the_source_asks_for_is_passed_on() -> None:
    """A source that waits to be confirmed is heard, once, with the position that it waits for."""
    box = Mailbox()
    put(box, piece(10), Progress(Lsn(12), asked=True), Progress(Lsn(14)))
    parcel = box.take(1.0)
    assert parcel is not None
    assert (parcel.position, parcel.asked) == (Lsn(14), True)
    put(box, Progress(Lsn(16)))
    later = box.take(1.0)
    assert later is not None
    assert not later.asked


def test_what_waits_is_bounded() -> None:
    """A reader is held up while the mailbox is full, keeps its connection alive meanwhile, and goes on
    when something has been taken."""
    box = Mailbox()
    put(box, piece(10, size=HELD_BYTES))
    waits: list[float] = []
    done = threading.Event()

    def read() -> None:
        box.put([piece(20)], behind=False, waiting=lambda: waits.append(time.monotonic()))
        done.set()

    threading.Thread(target=read, daemon=True).start()
    assert not done.wait(1.2)
    assert len(waits) >= 2, "asked to keep the connection alive every half second"
    assert box.take(1.0) is not None
    assert done.wait(5.0)
    assert box.waiting == 20_000


def test_what_was_read_is_applied_before_the_error_is_told() -> None:
    """A lost source ends the session only after what it had sent."""
    box = Mailbox()
    put(box, piece(10), behind=True)
    box.fail(TransientError("lost"))
    parcel = box.take(5.0)
    assert parcel is not None
    assert parcel.position == Lsn(10)
    with pytest.raises(TransientError, match="lost"):
        box.take(5.0)


def test_a_closed_mailbox_lets_its_reader_go() -> None:
    """Also one that waits for room."""
    box = Mailbox()
    put(box, piece(10, size=HELD_BYTES))
    answers: list[bool] = []
    reader = threading.Thread(
        target=lambda: answers.append(box.put([piece(20)], behind=False, waiting=lambda: None))
    )
    reader.start()
    box.close()
    reader.join(5.0)
    assert answers == [False]


def test_what_was_applied_is_freed_by_who_reads() -> None:
    """Not while the target waits, but no later than with what is read next; an idle mailbox keeps nothing."""
    box = Mailbox()
    image = bytes(1000)
    unused = sys.getrefcount(image)
    put(box, piece(10, image=image))
    assert box.take(60.0) is not None
    put(box, piece(11))
    assert box.take(60.0) is not None
    assert sys.getrefcount(image) == unused + 1
    put(box, piece(12, image=image))
    assert sys.getrefcount(image) == unused + 1
    assert box.take(60.0) is not None
    assert box.take(0.01) is None
    assert sys.getrefcount(image) == unused
