"""Random histories through every applier: in the end the target is the source, row for row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.applier_bed import MADE, Bed
from tests.applier_history import History, Sync

pytest_plugins = ["tests.applier_fixtures"]

# CDC_TEST_EXAMPLES=2000 looks harder (3,000 histories on SQLite take 90 seconds). Hypothesis's own time
# limits mean nothing beside real servers; a table is emptied for each example, a database made once.
SETTINGS: Final = settings(
    max_examples=int(os.environ.get("CDC_TEST_EXAMPLES", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SEEDS: Final = st.integers(0, 2**32 - 1)
LENGTHS: Final = st.integers(1, 25)
KEYS: Final = st.integers(2, 14)


@contextmanager
def syncing(bed: Bed, seed: int, transactions: int, keys: int) -> Iterator[Sync]:
    """A sync at the beginning of a history. Its applier serves the next example too, unless it failed."""
    if "item" not in bed.target.tables():
        bed.target.execute(MADE)
    try:
        yield Sync(bed, History(seed, transactions, keys), seed)
    except BaseException:
        bed.close()
        raise


@SETTINGS
@given(seed=SEEDS, transactions=LENGTHS, keys=KEYS)
def test_every_state_of_the_source_is_reached(
    any_bed: Bed, seed: int, transactions: int, keys: int
) -> None:
    """Inserts, updates with UNCHANGED values, deletes, changed keys and unique values, exactly: after
    every batch the target equals the source, and nothing had to be healed."""
    with syncing(any_bed, seed, transactions, keys) as sync:
        sync.start_exact()
        while not sync.over:
            sync.step()
            if sync.exact:
                assert any_bed.items() == sync.history.states[sync.at]
        assert sync.healed == 0


@SETTINGS
@given(seed=SEEDS, transactions=LENGTHS, keys=KEYS)
def test_a_copy_under_load_becomes_exact(
    any_bed: Bed, seed: int, transactions: int, keys: int
) -> None:
    """Chunks and rereads that are newer than the stream, redone: once the stream has passed the last
    of them the target equals the source, and stays so under the exact rules."""
    with syncing(any_bed, seed, transactions, keys) as sync:
        sync.start_copy(keys)
        while not (sync.over and sync.exact):
            sync.step()
            if sync.exact:
                assert any_bed.items() == sync.history.states[sync.at]
        assert sync.healed == 0
