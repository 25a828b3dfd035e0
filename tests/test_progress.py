"""How far copies are, in words and numbers."""

from __future__ import annotations

from cdc.cli.progress import Rate
from cdc.runtime import SnapshotProgress


def at(rows: int) -> SnapshotProgress:
    return SnapshotProgress("copying", 0, 1, rows, 5000)


def test_a_rate_counts_what_is_copied_now() -> None:
    """Not what an earlier copy has left, which a worker finds when it has started; and not across a table
    that is copied anew."""
    rate = Rate()
    assert rate.see(SnapshotProgress(), 10.0) is None
    assert rate.see(at(4000), 10.5) is None
    assert rate.see(at(4100), 11.5) == 100
    assert rate.see(at(4500), 12.5) == 250
    assert rate.see(at(300), 13.5) is None
    assert rate.see(at(320), 14.5) == 20


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    seen = [rate.see(at(rows), float(now)) for now, rows in enumerate([0, *range(1000, 1040, 2)])]
    assert seen[1] == 1000
    assert seen[-1] == 2


def test_a_rate_of_keys_is_none_of_rows() -> None:
    """A sweep counts from nothing, and the copy of the next table goes on where copies were."""
    rate = Rate()
    sweeping = [SnapshotProgress("copying", 0, 2, 5000, 9000, n, 5000) for n in (0, 4000, 4900)]
    assert rate.see(at(4900), 0.0) is None
    assert rate.see(at(5000), 1.0) == 100
    assert rate.see(sweeping[0], 2.0) is None
    assert rate.see(sweeping[1], 3.0) == 4000
    assert rate.see(sweeping[2], 4.0) == 2450
    assert rate.see(at(5000), 5.0) is None
    assert rate.see(at(5010), 6.0) == 10
