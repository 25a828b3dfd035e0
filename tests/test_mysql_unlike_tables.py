"""MariaDB and MySQL as targets whose tables are not like the source's: columns that fill themselves, other
collations, foreign keys of their own, settings that change while a sync runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import pytest

from appliers.checkpoint import TableState
from appliers.errors import OrderError, PermanentError
from appliers.relation import Column, Relation
from tests.databases import wait_until
from tests.mysql_applier_bed import ID, NUMBER, TEXT, Target

AT: Final = Column("at", "timestamp", "timestamp")
UP: Final = Column("up", "bigint(20)", "bigint")


@pytest.fixture
def any_target(any_mysql_bed: Target) -> Target:
    return any_mysql_bed


def keys(target: Target, relation: Relation, *values: object) -> list[bytes]:
    rest = [None] * (len(relation.columns) - 1)
    return [target.image(relation, value, *rest) for value in values]


def test_rows_are_found_by_their_keys_beside_columns_that_fill_themselves(
    any_target: Target, mysql_way: str
) -> None:
    """A TIMESTAMP that is NOT NULL takes no NULL of a row that is written; the image of a key alone, which
    has NULL there, deletes, moves and sweeps."""
    any_target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    )
    t = any_target.relation("t", ID, AT)
    then = "2026-01-31 12:00:00"
    any_target.apply(*[any_target.insert(t, n, then) for n in range(1, 5)])
    any_target.apply(any_target.delete(t, 1), any_target.update(t, 20, then, old=2))
    assert any_target.rows("SELECT id FROM t ORDER BY id") == [(3,), (4,), (20,)]
    assert any_target.applier.sweep(t, iter([keys(any_target, t, 3)]), None, "9") == 2
    with pytest.raises(PermanentError, match="NULL in column at"):
        any_target.apply(any_target.insert(t, 5, None))


def test_bits_are_compared_as_numbers(any_target: Target, mysql_way: str) -> None:
    """MariaDB takes X'01' beside a BIT for a text: another row's key, or none's. 49 is the digit 1."""
    any_target.db.execute("CREATE TABLE t (id bit(8) PRIMARY KEY, v varchar(190))")
    t = any_target.relation("t", Column("id", "bit(8)", "bit", nullable=False), TEXT)
    zero, one, digit = "00000000", "00000001", "00110001"
    any_target.apply(*[any_target.insert(t, bits, "old") for bits in (zero, one, digit)])
    any_target.apply(any_target.update(t, one, "new"), any_target.delete(t, digit))
    assert any_target.rows("SELECT id + 0, v FROM t ORDER BY id") == [(0, "old"), (1, "new")]


@pytest.mark.parametrize("rows", [10, 100])
def test_an_insert_overwrites_however_many_there_are(any_target: Target, rows: int) -> None:
    """A row with its key that is there already is overwritten, in a small batch and in a large one."""
    t = any_target.relation("t", ID, TEXT)
    any_target.db.execute("INSERT INTO t VALUES (7, 'mine')")
    any_target.apply(*[any_target.insert(t, n, "theirs") for n in range(rows)])
    assert any_target.rows("SELECT count(*), min(v) FROM t") == [(rows, "theirs")]


def test_a_key_that_is_a_zero_date_is_there(any_target: Target, mysql_way: str) -> None:
    """`0000-00-00 IS NULL` is true of a NOT NULL column, and yet the row is there."""
    any_target.db.execute("CREATE TABLE t (id date PRIMARY KEY, v varchar(190) UNIQUE)")
    t = any_target.relation("t", Column("id", "date", "date", nullable=False), TEXT)
    any_target.apply(any_target.insert(t, "0000-00-00", "a"))
    assert any_target.apply(any_target.update(t, "0000-00-00", "b")) == 0
    any_target.copy(t, ("0000-00-00", "c"))
    assert any_target.rows("SELECT v FROM t") == [("c",)]


def test_texts_that_are_one_number_stay_two_keys(any_target: Target, mysql_way: str) -> None:
    """`01` would become 1, and its row that of `1`: it is refused."""
    any_target.db.execute("CREATE TABLE t (id int PRIMARY KEY, v varchar(190))")
    t = any_target.relation("t", replace(TEXT, name="id", nullable=False), TEXT)
    any_target.apply(any_target.insert(t, "1", "a"), any_target.insert(t, "-7", "b"))
    with pytest.raises(PermanentError, match="a text that a number would not print"):
        any_target.apply(any_target.insert(t, "01", "c"))


def test_infinity_is_refused_by_an_integer(any_target: Target, mysql_way: str) -> None:
    """As everything that it cannot hold."""
    any_target.db.execute("CREATE TABLE t (id bigint PRIMARY KEY, n int)")
    number = Column("n", "numeric", "numeric")
    t = replace(any_target.relation("u", ID, number), name="t", dialect="postgres", home="crm")
    with pytest.raises(PermanentError, match="an infinite number cannot be kept in int"):
        any_target.apply(any_target.insert(t, 1, "Infinity"))


@pytest.mark.parametrize("many", [1, 6000])
def test_a_value_that_is_refused_under_redo_is_told(any_target: Target, many: int) -> None:
    """Not as a lost connection, which would be tried again for ever."""
    any_target.db.execute("CREATE TABLE p (id bigint PRIMARY KEY)")
    any_target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, n int, FOREIGN KEY (id) REFERENCES p (id))"
    )
    any_target.relation("p", ID)
    t = any_target.relation("t", ID, Column("n", "varchar(190)", "varchar"))
    rows = [any_target.insert(t, n, "1") for n in range(many)]
    with pytest.raises(PermanentError, match="column n"):
        any_target.apply(*rows, any_target.insert(t, many, "no number"), redo=["crm.t", "crm.p"])


def test_a_foreign_key_that_was_added_meanwhile_holds(any_target: Target, mysql_way: str) -> None:
    """No attempt writes what the target would refuse."""
    parent, child = any_target.relation("p", ID), any_target.relation("t", ID, UP)
    any_target.apply(any_target.insert(parent, 1), any_target.insert(child, 1, 1))
    any_target.db.execute("ALTER TABLE t ADD FOREIGN KEY (up) REFERENCES p (id)")
    with pytest.raises(OrderError):
        any_target.apply(any_target.insert(child, 2, 77))
    any_target.applier.close()
    any_target.applier = any_target.opened()
    assert any_target.rows("SELECT id FROM t") == [(1,)]


@pytest.fixture
def elsewhere(any_target: Target) -> Iterator[str]:
    """Another database of the target's server."""
    name = f"{any_target.db.name}_other"
    any_target.db.execute(f"CREATE DATABASE {name}")
    yield name
    any_target.applier.close()
    any_target.db.execute(f"SET foreign_key_checks = 0; DROP DATABASE {name}")


def test_a_key_that_its_followers_keep(any_target: Target, mysql_way: str) -> None:
    """A parent that is deleted with its children on the target, and referred to without ON UPDATE CASCADE,
    has another key when its children have it, and not before."""
    any_target.db.execute(
        "CREATE TABLE p (id bigint PRIMARY KEY, v varchar(190));"
        "CREATE TABLE t (id bigint PRIMARY KEY, up bigint, own int DEFAULT 7,"
        " FOREIGN KEY (up) REFERENCES p (id) ON DELETE CASCADE)"
    )
    p, t = any_target.relation("p", ID, TEXT), any_target.relation("t", ID, UP)
    any_target.db.execute("INSERT INTO p VALUES (1, 'a'), (2, 'b')")
    any_target.db.execute("INSERT INTO t VALUES (1, 1, 8), (2, 2, 8)")
    any_target.apply(any_target.update(p, 5, "a", old=1), any_target.update(t, 1, 5))
    with pytest.raises(OrderError):
        any_target.apply(any_target.update(p, 6, "b", old=2))
    any_target.applier.close()
    any_target.applier = any_target.opened()
    assert any_target.rows("SELECT id, up, own FROM t ORDER BY id") == [(1, 5, 8), (2, 2, 8)]
    assert any_target.rows("SELECT id FROM p ORDER BY id") == [(2,), (5,)]


def test_a_foreign_key_of_another_database_holds(
    any_target: Target, mysql_way: str, elsewhere: str
) -> None:
    """We see no rows there, so what the server refuses is refused."""
    parent = any_target.relation("p", ID)
    any_target.apply(any_target.insert(parent, 1))
    any_target.db.execute(
        f"CREATE TABLE {elsewhere}.c (id bigint, FOREIGN KEY (id) REFERENCES {any_target.db.name}.p (id))"
    )
    any_target.db.execute(f"INSERT INTO {elsewhere}.c VALUES (1)")
    with pytest.raises(OrderError):
        any_target.apply(any_target.delete(parent, 1))
    assert any_target.rows("SELECT id FROM p") == [(1,)]


def test_a_foreign_key_of_another_database_holds_in_a_copy(
    any_target: Target, mysql_way: str, elsewhere: str
) -> None:
    """Also where rows are copied, changed and swept unchecked, because they refer to each other."""
    here = any_target.db.name
    any_target.db.execute(
        f"CREATE TABLE {elsewhere}.p (id bigint PRIMARY KEY); INSERT INTO {elsewhere}.p VALUES (1);"
        "CREATE TABLE t (id bigint PRIMARY KEY, up bigint, n int, o bigint,"
        f" FOREIGN KEY (up) REFERENCES t (id), FOREIGN KEY (o) REFERENCES {elsewhere}.p (id));"
        f"CREATE TABLE {elsewhere}.c (id bigint, FOREIGN KEY (id) REFERENCES {here}.t (id))"
    )
    t = any_target.relation("t", ID, UP, NUMBER, replace(UP, name="o"))
    tried: list[Callable[[], object]] = [
        lambda: any_target.copy(t, (2, None, 1, 9)),
        lambda: any_target.apply(any_target.insert(t, 3, None, 1, 9), redo=["crm.t"]),
        lambda: any_target.applier.sweep(t, iter([]), None, "9"),
    ]
    any_target.copy(t, (1, None, 1, 1))
    any_target.db.execute(f"INSERT INTO {elsewhere}.c VALUES (1)")
    for attempt in tried:
        with pytest.raises(OrderError):
            attempt()
        any_target.applier.close()
        any_target.applier = any_target.opened()
    assert any_target.rows("SELECT id, o FROM t") == [(1, 1)]


def test_a_copy_over_rows_that_refer_to_each_other(any_target: Target) -> None:
    """Rows that are there already, and rows that refer to later ones: both in one chunk."""
    any_target.db.execute(
        "CREATE TABLE tree (id bigint PRIMARY KEY, up bigint, FOREIGN KEY (up) REFERENCES tree (id))"
    )
    tree = any_target.relation("tree", ID, UP)
    any_target.db.execute("INSERT INTO tree VALUES (1, NULL), (9, 1)")
    any_target.copy(tree, (1, None), (2, 5), (5, None), block=1)
    assert any_target.rows("SELECT id, up FROM tree ORDER BY id") == [
        (1, None),
        (2, 5),
        (5, None),
        (9, 1),
    ]


def test_rows_that_refer_to_each_other_are_swept(any_target: Target) -> None:
    """InnoDB looks at each row. What another table that is no part of the copy refers to is kept."""
    any_target.db.execute(
        "CREATE TABLE tree (id bigint PRIMARY KEY, up bigint, FOREIGN KEY (up) REFERENCES tree (id))"
    )
    any_target.db.execute("CREATE TABLE own (id bigint, FOREIGN KEY (id) REFERENCES tree (id))")
    tree = any_target.relation("tree", ID, UP)
    with any_target.applier.state.transaction():
        any_target.applier.state.put_table(TableState(tree.table))
    any_target.db.execute("INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, NULL)")
    keep = [keys(any_target, tree, 4)]
    assert any_target.applier.sweep(tree, iter(keep), None, "9") == 3
    any_target.db.execute("INSERT INTO own VALUES (4)")
    with pytest.raises(OrderError):
        any_target.applier.sweep(tree, iter([]), None, "9")


def test_a_customers_sweep_leaves_others_alone(any_target: Target) -> None:
    """Also where the target's collation takes their keys for one."""
    any_target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(190)) COLLATE utf8mb4_general_ci"
    )
    t = any_target.relation("t", ID, TEXT)
    any_target.db.execute("INSERT INTO t VALUES (1, 'ab'), (2, 'AB')")
    assert any_target.applier.sweep(t, iter([]), {"v": "ab"}, "9") == 1
    assert any_target.rows("SELECT id FROM t") == [(2,)]


def test_a_stricter_unique_index_deletes_no_row(any_target: Target, mysql_way: str) -> None:
    """Two e-mail addresses that PostgreSQL keeps apart and the target does not: the copy stops and loses
    neither, where a row that merely stands in the way is deleted."""
    any_target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(190) UNIQUE) COLLATE utf8mb4_general_ci"
    )
    number = Column("id", "bigint", "bigint", nullable=False)
    text = Column("v", "text", "text")
    t = replace(any_target.relation("u", number, text), name="t", dialect="postgres", home="crm")
    any_target.copy(t, (1, "Bob"))
    any_target.copy(t, (2, "Bob"))
    with pytest.raises(PermanentError, match="unique"):
        any_target.copy(t, (3, "bob"))
    assert any_target.rows("SELECT id, v FROM t") == [(2, "Bob")]


@pytest.mark.parametrize("folds", [True, False])
def test_keys_that_only_the_target_takes_for_one(
    any_target: Target, mysql_way: str, *, folds: bool
) -> None:
    """Where the source keeps `a` and `A` apart, a copy stops and loses neither. Where it does not, `a` is
    what the row was called before."""
    any_target.db.execute(
        "CREATE TABLE t (id varchar(20) PRIMARY KEY, v varchar(190)) COLLATE utf8mb4_general_ci"
    )
    t = any_target.relation("t", replace(TEXT, name="id", nullable=False, folds=folds), TEXT)
    any_target.copy(t, ("a", "old"))
    if folds:
        any_target.copy(t, ("A", "new"))
        assert any_target.rows("SELECT id, v FROM t") == [("A", "new")]
        return
    with pytest.raises(PermanentError, match="unique"):
        any_target.copy(t, ("A", "new"))
    assert any_target.rows("SELECT id, v FROM t") == [("a", "old")]


def test_keys_that_both_take_for_one(any_target: Target, mysql_way: str) -> None:
    """Where the source compares by the target's own rule, whatever that takes for one is what the row was
    called before: accents, blanks at the end."""
    rule = "utf8mb4_general_ci"
    any_target.db.execute(
        f"CREATE TABLE t (id varchar(20) PRIMARY KEY, v varchar(190) UNIQUE) COLLATE {rule}"
    )
    text = replace(TEXT, folds=True, collation=rule)
    t = any_target.relation("t", replace(text, name="id", nullable=False), text)
    any_target.copy(t, ("e", "a"), ("z", "s"))
    any_target.copy(t, ("\u00e9 ", "a "), ("y", "\u00df"))
    any_target.apply(any_target.insert(t, "E", "b"), redo=["crm.t"])
    assert any_target.rows("SELECT id, v FROM t ORDER BY id") == [("E", "b"), ("y", "\u00df")]


@pytest.mark.parametrize(("one", "other"), [("e", "\u00e9"), ("s", "\u00df"), ("i", "\u0130")])
def test_keys_that_the_source_folds_less_than_the_target(
    any_target: Target, mysql_way: str, one: str, other: str
) -> None:
    """citext and utf8mb4_0900_as_ci know no case but tell accents apart, utf8mb4_general_ci does neither: a
    copy and a redo stop at the second of two rows, and lose none to it."""
    any_target.db.execute(
        "CREATE TABLE t (id varchar(20) PRIMARY KEY, v varchar(190) UNIQUE) COLLATE utf8mb4_general_ci"
    )
    folding = replace(TEXT, folds=True)
    t = any_target.relation("t", replace(folding, name="id", nullable=False), folding)
    any_target.copy(t, (one, f"{one}1"), ("z", f"{one}2"))
    tried: list[Callable[[], object]] = [
        lambda: any_target.copy(t, (other, "x")),
        lambda: any_target.apply(any_target.insert(t, other, "x"), redo=["crm.t"]),
        lambda: any_target.copy(t, ("y", f"{other}2")),
        lambda: any_target.apply(any_target.insert(t, "y", f"{other}2"), redo=["crm.t"]),
    ]
    for attempt in tried:
        with pytest.raises(PermanentError, match="unique"):
            attempt()
        any_target.applier.close()
        any_target.applier = any_target.opened()
        assert any_target.rows("SELECT id, v FROM t ORDER BY id") == [
            (one, f"{one}1"),
            ("z", f"{one}2"),
        ]


def test_durability_that_is_given_up_meanwhile_is_noticed(any_target: Target) -> None:
    """What the server no longer writes at once is confirmed only when it is on the disk."""
    setting = "GLOBAL innodb_flush_log_at_trx_commit"
    before = any_target.db.value("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit")
    binlog = any_target.db.value("SELECT @@GLOBAL.sync_binlog")
    any_target.db.execute(f"SET {setting} = 1, GLOBAL sync_binlog = 1")
    try:
        any_target.applier.close()
        any_target.applier = any_target.opened()
        t = any_target.relation("t", ID, NUMBER)
        any_target.apply(any_target.insert(t, 1, 1))
        assert any_target.applier.flushed() == str(any_target.number)
        any_target.db.execute(f"SET {setting} = 0")
        any_target.apply(any_target.insert(t, 2, 2))
        assert any_target.applier._durability.flushed() in (
            str(any_target.number - 1),
            str(any_target.number),
        )
        assert not any_target.applier._durability.at_once
        wait_until(lambda: any_target.applier.flushed() == str(any_target.number))
    finally:
        any_target.db.execute(f"SET {setting} = {before}, GLOBAL sync_binlog = {binlog}")


@pytest.mark.parametrize("wide", ["columns", "bytes"])
def test_a_table_as_wide_as_may_be(any_target: Target, mysql_way: str, wide: str) -> None:
    """A staged row has a number besides. InnoDB has room for 1017 columns, and the server for 65,535 bytes:
    where there is none left, rows go one by one."""
    long = replace(TEXT, type="varchar(16381)")
    columns = [Column(f"c{n}", "tinyint(4)", "tinyint") for n in range(1016)]
    columns = columns if wide == "columns" else [long]
    made = ", ".join(f"{c.name} {c.type}" for c in columns)
    any_target.db.execute(f"CREATE TABLE t (id bigint PRIMARY KEY, {made}) CHARACTER SET utf8mb4")
    t = any_target.relation("t", ID, *columns)
    rest = [1] * (len(columns) - 1)
    any_target.apply(*[any_target.insert(t, n, 1, *rest) for n in range(3)])
    any_target.apply(any_target.update(t, 1, 7, *rest), any_target.update(t, 20, 8, *rest, old=2))
    assert any_target.copy(t, (0, 9, *rest), (5, 5, *rest)) == 2
    name = columns[0].name
    assert any_target.rows(f"SELECT id, {name} + 0 FROM t ORDER BY id") == [
        (0, 9),
        (1, 7),
        (5, 5),
        (20, 8),
    ]
    assert any_target.applier.sweep(t, iter([keys(any_target, t, 1, 5)]), None, "9") == 2
    assert any_target.rows("SELECT id FROM t ORDER BY id") == [(1,), (5,)]


REFUSALS: Final = {
    "CHECK (length(v) < 3)": "check constraint",
    "PARTITION BY RANGE (id) (PARTITION p VALUES LESS THAN (10))": "has no partition for a row",
    "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'secret 4711'": "a trigger raised an error",
    "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1234, MESSAGE_TEXT = 'secret 4711'": "error 1234",
    "SET NEW.v = NULL": "NULL in column v",
}


def test_what_the_targets_own_schema_refuses(any_target: Target, mysql_way: str) -> None:
    """Scenario 42: checks, partitions and triggers stop the sync by table, without a row's values."""
    for number, (own, message) in enumerate(REFUSALS.items()):
        inside, behind = (f", {own}", "") if own.startswith("CHECK") else ("", own)
        trigger = "" if own.startswith(("CHECK", "PARTITION")) else own
        any_target.db.execute(
            f"CREATE TABLE t{number} (id bigint PRIMARY KEY, v varchar(190) NOT NULL{inside})"
            + ("" if trigger else behind)
        )
        if trigger:
            any_target.db.execute(
                f"CREATE TRIGGER own{number} BEFORE INSERT ON t{number} FOR EACH ROW {trigger}"
            )
        t = any_target.relation(f"t{number}", ID, TEXT)
        with pytest.raises(PermanentError, match=message) as refused:
            any_target.apply(any_target.insert(t, 4711, "secret"))
        said = f"{refused.value} {refused.value.hint}"
        assert f"table crm.t{number}" in said
        assert "4711" not in said
        assert "secret" not in said
        any_target.applier.close()
        any_target.applier = any_target.opened()


def test_a_column_that_the_target_computes(any_target: Target, mysql_way: str) -> None:
    """Scenario 42: its value is the target's own, stored or not; the source's is not written."""
    any_target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(190) AS (concat('v', id)) STORED,"
        " n int AS (id * 2) VIRTUAL)"
    )
    t = any_target.relation("t", ID, TEXT, NUMBER)
    any_target.apply(any_target.insert(t, 1, "x", 9), any_target.insert(t, 2, "x", 9))
    any_target.apply(any_target.update(t, 1, "y", 8), any_target.update(t, 3, "y", 8, old=2))
    assert any_target.copy(t, (3, "z", 7), (4, "z", 7)) == 2
    rows = [(n, f"v{n}", 2 * n) for n in (1, 3, 4)]
    assert any_target.rows("SELECT id, v, n FROM t ORDER BY id") == rows


def test_a_column_that_is_called_as_ours_is_refused(any_target: Target) -> None:
    """Of a stage, which numbers its rows."""
    with pytest.raises(PermanentError, match="column cdc N cannot be kept here"):
        any_target.relation("t", ID, replace(TEXT, name="cdc N"))
