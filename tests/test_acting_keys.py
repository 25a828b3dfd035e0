"""Foreign keys of the target's own that delete and change rows by themselves, as a schema has them that was
made like the source's: no row is lost to a delete that was none on the source."""

from __future__ import annotations

import pytest

from appliers.applier import Applier
from appliers.delta import UNCHANGED
from appliers.errors import OrderError
from tests.applier_bed import MADE, TABLE, A, B, Bed, Item, by_id
from tests.mysql_databases import MysqlDatabase
from tests.syncs import MakeSync
from tests.targets import MysqlTarget

pytest_plugins = ["tests.applier_fixtures"]

SERVERS = ["postgres", "mariadb", "mysql"]
"""On our connections to SQLite foreign keys are off."""
acting = pytest.mark.parametrize("bed", SERVERS, indirect=True)
few_and_many = pytest.mark.parametrize("many", [0, 100])

ACTS = "ON DELETE CASCADE ON UPDATE CASCADE"
CREATE = (
    "CREATE TABLE {0} (id BIGINT PRIMARY KEY, up BIGINT NOT NULL,"
    f" CONSTRAINT {{0}}_up FOREIGN KEY (up) REFERENCES {{1}} (id) {ACTS})"
)
FAMILY = (
    CREATE.format("child", "item"),
    CREATE.format("grandchild", "child"),
    "INSERT INTO child VALUES (11, 1)",
    "INSERT INTO grandchild VALUES (111, 11)",
)


def with_family(bed: Bed) -> Applier:
    """A with a child, which has one itself; B without any."""
    bed.target.execute(MADE)
    bed.fill([A, B])
    for statement in FAMILY:
        bed.target.execute(statement)
    return bed.open(begun=True)


def family(bed: Bed) -> list[tuple[object, ...]]:
    """Of each child: itself, its parent, its own child."""
    return bed.target.rows(
        "SELECT child.id, child.up, grandchild.id FROM child LEFT JOIN grandchild"
        " ON grandchild.up = child.id ORDER BY 1"
    )


@acting
@few_and_many
def test_a_changed_key_takes_its_children_along(bed: Bed, many: int) -> None:
    """It is one change for the target's foreign key as well: as a delete it would take the children's
    children with it, which nothing brings back."""
    applier = with_family(bed)
    others = [Item(1000 + n, f"code {n}") for n in range(many)]
    deltas = [bed.update(A._replace(id=5), old_id=1), *map(bed.insert, others)]
    applied = bed.apply(applier, deltas, 1)
    assert bed.items() == by_id(A._replace(id=5), B, *others)
    assert family(bed) == [(11, 5, 111)]
    assert applied.healed == 0
    moved = [bed.update(Item(6, "c", 6, UNCHANGED), old_id=5), bed.update(Item(7, "b"), old_id=2)]
    source = bed.source_with(Item(6, "c", 6, "read"))
    bed.apply(applier, [*moved, *(bed.delete(o.id) for o in others)], 2, reread=source)
    assert bed.items() == by_id(Item(6, "c", 6, "read"), Item(7, "b"))
    assert family(bed) == [(11, 6, 111)]


@acting
@few_and_many
def test_a_changed_key_in_a_redo_takes_no_children_away(bed: Bed, many: int) -> None:
    """The row of the new key may be there already, and so may be what the children have become."""
    applier = with_family(bed)
    bed.fill([Item(5, "newer")])
    bed.target.execute("UPDATE child SET up = 5")
    others = [Item(1000 + n, f"code {n}") for n in range(many)]
    deltas = [bed.update(A._replace(id=5), old_id=1), *map(bed.insert, others)]
    bed.apply(applier, deltas, 1, redo=[TABLE])
    assert bed.items() == by_id(A._replace(id=5), B, *others)
    assert family(bed) == [(11, 5, 111)]


@acting
@few_and_many
def test_a_row_in_the_way_takes_no_children_away(bed: Bed, many: int) -> None:
    """A row that is stale because another has its unique value comes back with its own change, its children
    do not. PostgreSQL cannot be told to leave them: there the sync stops by name, and a copy waits."""
    applier = with_family(bed)
    bed.plan(applier, 1)
    others = [Item(1000 + n, f"code {n}") for n in range(many)]
    taken, own = Item(4, "a"), A._replace(code="own")

    def both() -> None:
        applier.copy(bed.chunk(0, [taken]), "0/1")
        deltas = [bed.insert(taken), *map(bed.insert, others)]
        bed.apply(applier, deltas, 1, redo=[TABLE])

    if type(applier).__name__ == "PostgresApplier":
        with pytest.raises(OrderError, match="child_up would delete or change rows"):
            both()
        applier.close()
        applier = bed.open()
        with pytest.raises(OrderError, match="child_up would delete or change rows"):
            bed.apply(applier, [bed.insert(taken), *map(bed.insert, others)], 1, redo=[TABLE])
        assert bed.items() == by_id(A, B)
        applier.close()
        applier = bed.open()
        bed.apply(applier, [bed.update(own)], 1, redo=[TABLE])
        assert applier.copy(bed.chunk(0, [taken]), "0/1") == 1
        return
    both()
    assert family(bed) == [(11, 1, 111)]
    bed.apply(applier, [bed.update(own)], 2, redo=[TABLE])
    assert bed.items() == by_id(own, B, taken, *others)
    assert family(bed) == [(11, 1, 111)]


def test_what_a_source_does_not_log_the_targets_foreign_key_does(
    mariadb_source: MysqlDatabase, mariadb_target: MysqlDatabase, make_sync: MakeSync
) -> None:
    """What `cdc check` says of a MariaDB source, whose log does not have what its foreign keys do: the same
    ones on the target are a way out."""
    made = (
        "CREATE TABLE markers (id bigint PRIMARY KEY); CREATE TABLE parents (id bigint PRIMARY KEY);"
        "CREATE TABLE children (id bigint PRIMARY KEY, up bigint,"
        f" CONSTRAINT up FOREIGN KEY (up) REFERENCES parents (id) {ACTS})"
    )
    mariadb_source.execute(made)
    mariadb_target.execute(made)
    mariadb_source.execute(
        "INSERT INTO parents VALUES (1), (2), (3); INSERT INTO children VALUES (11, 1), (22, 2), (33, 3)"
    )
    sync = make_sync(
        mariadb_source, MysqlTarget(mariadb_target), ["parents", "children", "markers"]
    )
    sync.start()
    sync.wait_copied()
    mariadb_source.execute(
        "DELETE FROM parents WHERE id = 1; UPDATE parents SET id = 20 WHERE id = 2"
    )
    sync.catch_up()
    sync.assert_equal()
    assert mariadb_target.rows("SELECT id, up FROM children ORDER BY id") == [(22, 20), (33, 3)]
    mariadb_source.execute(
        "START TRANSACTION; DELETE FROM parents WHERE id = 3;"
        "INSERT INTO parents SELECT seq + 100 FROM seq_1_to_100;"
        "UPDATE parents SET id = 21 WHERE id = 20; COMMIT"
    )
    sync.catch_up()
    sync.assert_equal()
