"""What `appliers.applier.Applier` promises of rows, asked of every applier in the registry.

Here: tables, and the rules outside of a redo. The rest of the contract: test_applier_redo.py (redo,
copy, sweep), test_applier_state.py (state, transactions, locks, kills), test_applier_histories.py
(random histories). The target's own rows are the oracle.
"""

from __future__ import annotations

import pytest

from appliers.checkpoint import Copy
from appliers.delta import UNCHANGED
from appliers.errors import PermanentError, TableGoneError
from appliers.images import Format
from appliers.relation import Column
from tests.applier_bed import COLUMNS, TABLE, A, B, Bed, C, Item, by_id, mark_done, position

pytest_plugins = ["tests.applier_fixtures"]


# The fixture fails for an applier that the registry knows and tests/applier_fixtures.py does not.
def test_every_registered_applier_is_under_this_suite(bed: Bed) -> None:
    """An applier opens, names its server, says how sqlglot calls its dialect and how many may copy."""
    applier = bed.open()
    assert applier.server()
    assert applier.dialect
    assert applier.parallel >= 1


# prepare, is_empty, accepts_binary


def test_prepare_makes_a_missing_table(bed: Bed) -> None:
    """The table is there, empty, with the relation's columns and key, and is made once."""
    applier = bed.open(begun=True)
    assert bed.items() == {}
    assert applier.is_empty(bed.log)
    bed.apply(applier, [bed.insert(A)], 1)
    bed.open(None).prepare(bed.log)
    assert bed.items() == by_id(A)
    assert not applier.is_empty(bed.log)


def test_a_table_that_is_not_there_is_empty(bed: Bed) -> None:
    """`is_empty` may be asked before `prepare`."""
    assert bed.open().is_empty(bed.log)


def test_a_table_is_only_made_when_that_is_asked_for(bed: Bed) -> None:
    """A table that was copied once is not made again as an empty one, whatever meets its absence first."""
    applier = bed.open()
    assert not applier.has_table(bed.log)
    with pytest.raises(TableGoneError, match="item"):
        applier.prepare(bed.log, create=False)
    assert not applier.has_table(bed.log)
    applier.prepare(bed.log)
    assert applier.has_table(bed.log)


@pytest.mark.parametrize("rows", [1, 300])
def test_a_table_that_is_dropped_is_told(any_bed: Bed, rows: int) -> None:
    """The batch is not written, and the table stays away: only a new copy makes it whole."""
    applier = any_bed.open(begun=True)
    any_bed.apply(applier, [any_bed.insert(A)], 1)
    any_bed.target.execute("DROP TABLE item")
    with pytest.raises(TableGoneError, match="item"):
        any_bed.apply(
            applier, [any_bed.insert(B._replace(id=i, code=str(i))) for i in range(rows)], 2
        )
    applier.close()
    again = any_bed.open()
    assert not again.has_table(any_bed.log)
    assert again.state.position == position(1)


def test_binary_is_taken_where_this_suite_gives_it(any_bed: Bed) -> None:
    """An applier that is tried with binary images has asked for them, before and after `prepare`."""
    applier = any_bed.open()
    assert applier.accepts_binary(any_bed.log) >= any_bed.binary
    applier.prepare(any_bed.log)
    assert applier.accepts_binary(any_bed.log) >= any_bed.binary


def test_columns_are_matched_by_name(any_bed: Bed) -> None:
    """The target's columns may stand in another order, and it may have more of them."""
    any_bed.target.execute(
        "CREATE TABLE item (own TEXT DEFAULT 'kept', big TEXT, n INTEGER, id BIGINT PRIMARY KEY, code TEXT)"
    )
    applier = any_bed.open(begun=True)
    any_bed.apply(applier, [any_bed.insert(A)], 1)
    any_bed.target.execute("UPDATE item SET own = 'theirs'")
    any_bed.apply(applier, [any_bed.insert(A._replace(n=11)), any_bed.insert(B)], 2)
    assert any_bed.items() == by_id(A._replace(n=11), B)
    assert any_bed.target.rows("SELECT own FROM item ORDER BY id") == [("theirs",), ("kept",)]


def test_a_missing_column_is_refused_by_name(bed: Bed) -> None:
    """The error names the table and the column, the hint is the statement that adds it."""
    bed.target.execute("CREATE TABLE item (id BIGINT PRIMARY KEY, code TEXT, n INTEGER)")
    with pytest.raises(PermanentError, match=r"item.*big") as caught:
        bed.open().prepare(bed.log)
    assert "ALTER TABLE" in caught.value.hint
    assert "ADD COLUMN" in caught.value.hint
    assert "big" in caught.value.hint


def test_a_table_without_a_unique_index_on_the_key_is_refused(bed: Bed) -> None:
    """Without it a row could be there twice. The hint makes the index."""
    bed.target.execute("CREATE TABLE item (id BIGINT, code TEXT UNIQUE, n INTEGER, big TEXT)")
    with pytest.raises(PermanentError, match="item") as caught:
        bed.open().prepare(bed.log)
    assert "UNIQUE" in caught.value.hint or "PRIMARY KEY" in caught.value.hint


def test_a_relation_without_a_key_is_refused(bed: Bed) -> None:
    """By name, with what to do."""
    keyless = bed.relation(Format.PGOUTPUT_TEXT, key=())
    with pytest.raises(PermanentError, match=r"public\.item") as caught:
        bed.open().prepare(keyless)
    assert caught.value.hint


def test_a_new_shape_is_prepared_anew(bed: Bed) -> None:
    """A column that came with a new shape of the table is written once the target has it."""
    applier = bed.open(begun=True)
    bed.apply(applier, [bed.insert(A)], 1)
    columns = (*COLUMNS, Column("more", "text", "text"))
    bed.log = bed.relation(Format.PGOUTPUT_TEXT, columns=columns)
    with pytest.raises(PermanentError, match="more"):
        applier.prepare(bed.log)


# apply: the rules per row outside of a redo


def test_an_insert_writes_the_row(any_bed: Bed) -> None:
    """NULLs, empty strings and text with every awkward character come out as they went in."""
    rows = [A, Item(2, "", None, "tab\t newline\n quote' \\ back \u00e9\U0001f600"), Item(-(2**63))]
    applier = any_bed.open(begun=True)
    applied = any_bed.apply(applier, [any_bed.insert(r) for r in rows], 1)
    assert any_bed.items() == by_id(*rows)
    assert (applied.rows, applied.healed, applied.reread) == (3, 0, {})


def test_an_insert_overwrites_a_row_with_its_key(bed: Bed) -> None:
    """Someone else's row with the same key gives way, and nothing else does."""
    applier = bed.open(begun=True)
    bed.fill([A, B])
    bed.apply(applier, [bed.insert(Item(1, "new", 0, None))], 1)
    assert bed.items() == by_id(Item(1, "new", 0, None), B)


def test_an_update_writes_the_row(any_bed: Bed) -> None:
    """Also to NULL, also twice in one batch, also where the old image is the whole row's."""
    applier = any_bed.open(begun=True)
    any_bed.fill([A, B])
    new = Item(1, None, 12, "again")
    deltas = [any_bed.update(A._replace(n=11)), any_bed.update(new, old_id=1)]
    applied = any_bed.apply(applier, deltas, 1)
    assert any_bed.items() == by_id(new, B)
    assert applied.healed == 0


def test_an_unchanged_value_stays(any_bed: Bed) -> None:
    """UNCHANGED keeps what the target has: several updates of one row, several sets of columns."""
    applier = any_bed.open(begun=True)
    any_bed.fill([A, B, C])
    deltas = [
        any_bed.update(Item(1, "a2", 11, UNCHANGED)),
        any_bed.update(Item(2, "b2", UNCHANGED, UNCHANGED)),
        any_bed.update(Item(1, UNCHANGED, 12, UNCHANGED)),
        any_bed.update(Item(3, UNCHANGED, UNCHANGED, UNCHANGED)),
        any_bed.update(Item(2, UNCHANGED, None, "B")),
    ]
    applied = any_bed.apply(applier, deltas, 1)
    assert any_bed.items() == by_id(Item(1, "a2", 12, "big a"), Item(2, "b2", None, "B"), C)
    assert applied.healed == 0


def test_an_unchanged_value_of_a_row_of_the_same_batch(any_bed: Bed) -> None:
    """The value comes from the insert, or the update, that stands before it in the batch."""
    applier = any_bed.open(begun=True)
    any_bed.fill([B])
    deltas = [
        any_bed.insert(A),
        any_bed.update(Item(1, "a2", 11, UNCHANGED)),
        any_bed.update(B._replace(big="newer")),
        any_bed.update(Item(2, "b2", 21, UNCHANGED)),
    ]
    any_bed.apply(applier, deltas, 1)
    assert any_bed.items() == by_id(Item(1, "a2", 11, "big a"), Item(2, "b2", 21, "newer"))


def test_a_changed_key_moves_the_row(any_bed: Bed) -> None:
    """The old key is gone, the new one is there; a row moved twice is at its last key."""
    applier = any_bed.open(begun=True)
    any_bed.fill([A, B])
    deltas = [
        any_bed.update(A._replace(id=5), old_id=1),
        any_bed.update(A._replace(id=6), old_id=5),
        any_bed.insert(Item(1, "another")),
    ]
    applied = any_bed.apply(applier, deltas, 1)
    assert any_bed.items() == by_id(A._replace(id=6), B, Item(1, "another"))
    assert applied.healed == 0


def test_a_changed_key_with_unchanged_values_is_read_again(any_bed: Bed) -> None:
    """The old key is deleted, the new one read; the table is under redo until what was read."""
    applier = any_bed.open(begun=True)
    mark_done(applier)
    any_bed.fill([A, B])
    later = Item(5, "a5", 55, "read")
    source = any_bed.source_with(later)
    deltas = [any_bed.update(Item(5, "a5", 50, UNCHANGED), old_id=1)]
    applied = any_bed.apply(applier, deltas, 1, reread=source)
    assert any_bed.items() == by_id(later, B)
    assert source.asked == [[5]]
    assert (applied.healed, applied.reread) == (0, {TABLE: position(7)})
    state = any_bed.open(None).state.tables()[TABLE]
    assert (state.copy, state.exact_at) == (Copy.REDO, position(7))


def test_a_whole_update_of_a_missing_row_is_healed(bed: Bed) -> None:
    """The row is written and counted once; one with a changed key is written, too."""
    applier = bed.open(begun=True)
    bed.fill([B])
    applied = bed.apply(applier, [bed.update(A._replace(n=0)), bed.update(A)], 1)
    assert bed.items() == by_id(A, B)
    assert applied.healed == 1
    bed.apply(applier, [bed.update(C._replace(n=31), old_id=9)], 2)
    assert bed.items() == by_id(A, B, C._replace(n=31))
    checkpoint = bed.open(None).state.load()
    assert checkpoint is not None
    assert checkpoint.changes == 3
    assert checkpoint.healed in (1, 2)  # whether a move of what is not there is one is left open


def test_an_update_with_unchanged_values_of_a_missing_row_is_read_again(any_bed: Bed) -> None:
    """Its other deltas in the batch do not get in the way of what was read, which is newer."""
    applier = any_bed.open(begun=True)
    mark_done(applier)
    any_bed.fill([B])
    source = any_bed.source_with(A._replace(n=99), B)
    deltas = [any_bed.update(Item(1, "a", 11, UNCHANGED)), any_bed.update(B._replace(n=21))]
    applied = any_bed.apply(applier, deltas, 1, reread=source)
    assert any_bed.items()[1] == A._replace(n=99)
    assert any_bed.items()[2].n in (20, 21)
    assert (applied.healed, applied.reread) == (1, {TABLE: position(7)})
    assert any_bed.open(None).state.tables()[TABLE].copy is Copy.REDO


def test_a_row_that_is_gone_from_the_source_stays_away(bed: Bed) -> None:
    """What is read again may be nothing: its delete is still to come."""
    applier = bed.open(begun=True)
    source = bed.source_with()
    bed.apply(applier, [bed.update(Item(1, "a", 11, UNCHANGED))], 1, reread=source)
    bed.apply(applier, [bed.delete(1)], 2, redo=[TABLE])
    assert bed.items() == {}


def test_a_delete_removes_the_row(bed: Bed) -> None:
    """A row that was not there is no error and counts as nothing."""
    applier = bed.open(begun=True)
    bed.fill([A, B])
    applied = bed.apply(applier, [bed.delete(1), bed.delete(9)], 1)
    assert bed.items() == by_id(B)
    assert applied.healed == 0


def test_one_key_through_one_batch(any_bed: Bed) -> None:
    """insert, update, delete, insert of one key: the last one counts; insert and delete: none."""
    applier = any_bed.open(begun=True)
    deltas = [
        any_bed.insert(A),
        any_bed.update(A._replace(n=11)),
        any_bed.delete(1),
        any_bed.insert(A._replace(n=12)),
        any_bed.insert(B),
        any_bed.delete(2),
    ]
    any_bed.apply(applier, deltas, 1)
    assert any_bed.items() == by_id(A._replace(n=12))


def test_truncate_empties_the_table(bed: Bed) -> None:
    """What the batch wrote before is gone too, what comes after stays."""
    applier = bed.open(begun=True)
    bed.fill([A])
    deltas = [bed.insert(B), bed.truncate(), bed.truncate(), bed.insert(C)]
    bed.apply(applier, deltas, 1)
    assert bed.items() == by_id(C)


# apply: secondary unique values


@pytest.mark.parametrize("big", ["whole", UNCHANGED], ids=["whole", "unchanged"])
def test_two_rows_swap_a_unique_value(any_bed: Bed, big: object) -> None:
    """Each update alone would meet the other's row, with whole and with UNCHANGED images. It is no
    divergence; rows may be read again for it."""
    applier = any_bed.open_unique(A._replace(big="whole"), B._replace(big="whole"), C)
    deltas = [any_bed.update(Item(1, "b", 10, big)), any_bed.update(Item(2, "a", 20, big))]
    swapped = [Item(1, "b", 10, "whole"), Item(2, "a", 20, "whole"), C]
    source = any_bed.source_with(*swapped, at=1)
    applied = any_bed.apply(applier, deltas, 1, reread=source)
    assert any_bed.items() == by_id(*swapped)
    assert applied.healed == 0


def test_a_swap_behind_a_truncate(bed: Bed) -> None:
    """A batch that has to be written in another way still empties the table, where it said so."""
    applier = bed.open_unique(A, C)
    deltas = [
        bed.insert(B),
        bed.truncate(),
        bed.insert(A),
        bed.insert(B),
        bed.update(Item(1, "b", 11, UNCHANGED)),
        bed.update(Item(2, "a", 21, UNCHANGED)),
    ]
    bed.apply(applier, deltas, 1)
    assert bed.items() == by_id(Item(1, "b", 11, "big a"), Item(2, "a", 21, "big b"))


def test_a_unique_value_passes_from_row_to_row(any_bed: Bed) -> None:
    """By a delete, by an update and by a changed key, in the source's order."""
    applier = any_bed.open_unique(A, B)
    deltas = [
        any_bed.delete(1),
        any_bed.insert(Item(3, "a", 1, "x")),
        any_bed.update(Item(2, None, 2, "y")),
        any_bed.insert(Item(4, "b", 3, "z")),
        any_bed.update(Item(5, "a", 4, "x"), old_id=3),
        any_bed.update(Item(4, "c", 3, "z")),
        any_bed.insert(Item(3, "b", 5, None)),
    ]
    any_bed.apply(applier, deltas, 1)
    expected = [Item(2, None, 2, "y"), Item(3, "b", 5), Item(4, "c", 3, "z"), Item(5, "a", 4, "x")]
    assert any_bed.items() == by_id(*expected)


def test_a_row_that_the_batch_does_not_know_is_never_deleted(bed: Bed) -> None:
    """Outside of a redo a row in the way is a divergence: the sync stops and says so, and neither the
    rows nor the checkpoint move. No values in the message."""
    applier = bed.open_unique(A)
    with pytest.raises(PermanentError) as caught:
        bed.apply(applier, [bed.insert(C), bed.insert(Item(2, "a", 20, "secret"))], 1)
    assert caught.value.hint
    assert "item" in str(caught.value)
    assert "secret" not in str(caught.value) + caught.value.hint
    assert bed.items() == by_id(A)
    checkpoint = bed.open(None).state.load()
    assert checkpoint is not None
    assert checkpoint.position == position(0)
