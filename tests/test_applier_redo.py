"""What `appliers.applier.Applier` promises while a table is copied: redo, copy, sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from appliers.applier import Applier
from appliers.batch import Chunk
from appliers.delta import UNCHANGED
from appliers.errors import PermanentError
from tests.applier_bed import MADE, TABLE, A, B, Bed, C, Item, by_id, position

pytest_plugins = ["tests.applier_fixtures"]


# apply: the rules of a redo


def test_in_a_redo_rows_are_written_whatever_is_there(any_bed: Bed) -> None:
    """Inserts and whole updates overwrite, updates of missing rows insert, and nothing is healed."""
    applier = any_bed.open(begun=True)
    any_bed.fill([A])
    deltas = [
        any_bed.insert(A._replace(n=11)),
        any_bed.update(B),
        any_bed.update(Item(5, "five"), old_id=4),
        any_bed.delete(9),
    ]
    applied = any_bed.apply(applier, deltas, 1, redo=[TABLE])
    assert any_bed.items() == by_id(A._replace(n=11), B, Item(5, "five"))
    assert applied.healed == 0


def test_in_a_redo_a_row_in_the_way_is_deleted(any_bed: Bed) -> None:
    """A row of another key that has the unique value is stale: its own change is still to come."""
    bed, applier = any_bed, any_bed.open_unique()
    cases = [
        (bed.insert(Item(4, "a", 1, "x")), [Item(4, "a", 1, "x"), B]),
        (bed.update(Item(2, "a", 1, "x")), [Item(2, "a", 1, "x")]),
        (bed.update(Item(5, "a", 1, "x")), [Item(5, "a", 1, "x"), B]),
        (bed.update(Item(2, "a", 1, UNCHANGED)), [Item(2, "a", 1, "big b")]),
        (bed.update(Item(6, "a", 1, "x"), old_id=2), [Item(6, "a", 1, "x")]),
    ]
    other = Item(7, "other", 7, "y")
    for number, (delta, expected) in enumerate(cases, 1):
        bed.target.execute("DELETE FROM item")
        bed.fill([A, B, C])
        after = [bed.insert(other), bed.update(C._replace(n=31))]
        bed.apply(applier, [delta, *after], number, redo=[TABLE])
        assert bed.items() == by_id(*expected, other, C._replace(n=31))


def test_in_a_redo_unchanged_values_of_a_missing_row_are_read_again(any_bed: Bed) -> None:
    """With the same key as with a changed one; rows in the way of what is read are stale, too."""
    applier = any_bed.open_unique(A, B)
    read = [Item(3, "b", 33, "three"), Item(5, "e", 55, "five")]
    source = any_bed.source_with(*read)
    deltas = [
        any_bed.update(Item(3, "c", 3, UNCHANGED)),
        any_bed.update(Item(5, "e", 5, UNCHANGED), old_id=1),
    ]
    applied = any_bed.apply(applier, deltas, 1, redo=[TABLE], reread=source)
    assert any_bed.items() == by_id(*read)
    assert sorted(k for keys in source.asked for k in keys) == [3, 5]
    assert (applied.healed, applied.reread) == (0, {TABLE: position(7)})


@pytest.mark.parametrize("more", [0, 100])
def test_a_row_without_a_key_is_in_the_way(any_bed: Bed, more: int) -> None:
    """A column that has become the key on the source may hold NULLs on the target: no key is equal to
    them, and yet such a row is another one."""
    any_bed.target.execute(MADE.replace("PRIMARY KEY", "UNIQUE"))
    any_bed.target.execute("INSERT INTO item (id, code, n, big) VALUES (NULL, 'a', 1, 'of before')")
    applier = any_bed.open(begun=True)
    rows = [A, *(Item(100 + i, f"c{i}", i, "more") for i in range(more))]
    any_bed.apply(applier, [any_bed.insert(row) for row in rows], 1, redo=[TABLE])
    assert any_bed.items() == by_id(*rows)


def test_after_a_reread_the_rest_of_the_transaction_is_under_redo(bed: Bed) -> None:
    """What was read may have the value that another row still takes, and lose it again, before."""
    applier = bed.open_unique(B)
    source = bed.source_with(Item(1, "later", 99, "read"), B)
    first = bed.update(Item(1, "a", 11, UNCHANGED))
    applied = bed.apply(applier, [first], None, reread=source)
    assert (applied.healed, applied.reread) == (1, {TABLE: position(7)})
    rest = [bed.insert(Item(5, "later", 5, "x")), bed.update(Item(6, "six", 6, "y"))]
    applied = bed.apply(applier, rest, 1)
    assert bed.items() == by_id(B, Item(5, "later", 5, "x"), Item(6, "six", 6, "y"))
    assert applied.healed == 0
    checkpoint = bed.open(None).state.load()
    assert checkpoint is not None
    assert checkpoint.healed == 1


def test_another_table_is_not_under_this_redo(bed: Bed) -> None:
    """Redo is a table's: the rows of other tables keep the exact rules."""
    applier = bed.open_unique(A)
    with pytest.raises(PermanentError):
        bed.apply(applier, [bed.insert(Item(2, "a"))], 1, redo=["public.other"])


# copy and sweep


def test_a_chunk_is_written_once(any_bed: Bed) -> None:
    """Its rows, its number off the plan, `rows` and `exact_at`, together; the second time nothing."""
    applier = any_bed.open(begun=True)
    any_bed.plan(applier, 2)
    assert applier.copy(any_bed.chunk(0, [A, B, C]), position(4)) == 3
    any_bed.target.execute("DELETE FROM item WHERE id = 2")
    assert applier.copy(any_bed.chunk(0, [A, B, C]), position(5)) == 0
    assert any_bed.items() == by_id(A, C)
    assert applier.copy(any_bed.chunk(1, []), position(6)) == 0
    state = any_bed.open(None).state
    assert state.chunks() == []
    table = state.tables()[TABLE]
    assert (table.rows, table.exact_at, table.chunks) == (3, position(6), 2)


def test_chunks_that_are_copied_together(any_bed: Bed) -> None:
    """As each by itself: written once, struck off, counted; here without references among them."""
    applier = any_bed.open(begun=True)
    any_bed.plan(applier, 3)

    def chunks() -> list[Chunk]:
        return [any_bed.chunk(0, [A, B]), any_bed.chunk(1, [C])]

    assert applier.copy_together(chunks(), position(4)) == {TABLE: 3}
    any_bed.target.execute("DELETE FROM item WHERE id = 2")
    assert applier.copy_together(chunks(), position(5)) == {TABLE: 0}
    assert any_bed.items() == by_id(A, C)
    state = any_bed.open(None).state
    assert [chunk.number for chunk in state.chunks()] == [2]
    assert (state.tables()[TABLE].rows, state.tables()[TABLE].exact_at) == (3, position(4))


def test_a_chunk_overwrites_and_clears_its_way(any_bed: Bed) -> None:
    """Rows that are there are overwritten, a row of another key with its unique value is deleted."""
    applier = any_bed.open_unique(A._replace(n=0), Item(9, "b"), Item(8, "c"))
    any_bed.plan(applier, 1)
    rows = [A, B, Item(4, None), Item(5, None)]
    assert applier.copy(any_bed.chunk(0, rows), position(4)) == 4
    assert any_bed.items() == by_id(*rows, Item(8, "c"))


LOOSER = {
    "PostgresApplier": "citext",
    "SqliteApplier": "TEXT COLLATE NOCASE",
    "MysqlApplier": "VARCHAR(190) COLLATE utf8mb4_general_ci",
}


def test_a_value_that_only_the_target_takes_for_one_deletes_no_row(bed: Bed) -> None:
    """Where the source keeps two rows apart and the target's unique index does not, the second stops the
    copy, and the stream under redo: the first is not stale."""
    kind = LOOSER[type(bed.open(None)).__name__]
    if kind == "citext":
        bed.target.execute("CREATE EXTENSION citext")
    bed.target.execute(
        f"CREATE TABLE item (id BIGINT PRIMARY KEY, code {kind}, n INTEGER, big TEXT, UNIQUE (code))"
    )
    applier = bed.open(begun=True)
    bed.plan(applier, 2)
    applier.copy(bed.chunk(0, [Item(1, "Bob"), Item(5, "Eve")]), position(4))
    attempts: list[Callable[[Applier], object]] = [
        lambda a: a.copy(bed.chunk(1, [Item(2, "bob")]), position(4)),
        lambda a: bed.apply(a, [bed.insert(Item(2, "bob"))], 1, redo=[TABLE]),
        lambda a: bed.apply(a, [bed.update(Item(2, "bob", 1, UNCHANGED))], 1, redo=[TABLE]),
    ]
    for attempt in attempts:
        bed.fill([Item(2, "x")])
        with pytest.raises(PermanentError):
            attempt(applier)
        applier.close()
        assert bed.items() == by_id(Item(1, "Bob"), Item(2, "x"), Item(5, "Eve"))
        bed.target.execute("DELETE FROM item WHERE id = 2")
        applier = bed.open()
    bed.apply(applier, [bed.insert(Item(3, "Bob"))], 1, redo=[TABLE])
    assert applier.copy(bed.chunk(1, [Item(4, "Eve")]), position(4)) == 1
    assert bed.items() == by_id(Item(3, "Bob"), Item(4, "Eve"))


def test_a_fork_copies(bed: Bed) -> None:
    """Beside its applier, in its own transactions, whether or not that one is prepared."""
    applier = bed.open(begun=True)
    bed.plan(applier, 2)
    fork = applier.fork()
    try:
        fork.prepare(bed.copied)
        assert fork.copy(bed.chunk(1, [B]), position(3)) == 1
    finally:
        fork.close()
    assert applier.copy(bed.chunk(0, [A]), position(3)) == 1
    assert bed.items() == by_id(A, B)


def sweep(bed: Bed, applier: Applier, ids: Sequence[int], only: dict[str, str] | None) -> int:
    return applier.sweep(bed.copied, iter(bed.key_blocks(ids)), only, position(8))


def test_sweep_deletes_what_the_source_does_not_have(any_bed: Bed) -> None:
    """Keys that are listed stay, listed keys without a row are nothing, `exact_at` moves."""
    applier = any_bed.open(begun=True)
    any_bed.fill([A, B, C])
    assert sweep(any_bed, applier, [1, 3, 77], None) == 1
    assert any_bed.items() == by_id(A, C)
    assert any_bed.open(None).state.tables()[TABLE].exact_at == position(8)
    assert sweep(any_bed, applier, [1, 3], None) == 0
    assert sweep(any_bed, applier, [], None) == 2


def test_sweep_keeps_to_rows_with_given_values(any_bed: Bed) -> None:
    """`only` compares a column with a text, of whatever type the column is."""
    applier = any_bed.open(begun=True)
    any_bed.fill([A, A._replace(id=11), B, B._replace(id=12, code="a")])
    assert sweep(any_bed, applier, [1], {"code": "a", "n": "10"}) == 1
    assert any_bed.items() == by_id(A, B, B._replace(id=12, code="a"))
