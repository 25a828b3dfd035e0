"""What MariaDB and MySQL as targets add to the contract suite: their constraints, collations, columns
that write themselves; in each of the ways rows are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

import pytest
from hypothesis import given

from appliers.batch import Chunk, Reread
from appliers.checkpoint import TableState
from appliers.delta import UNCHANGED
from appliers.errors import OrderError, PermanentError
from appliers.images import Format, copy_text_line
from appliers.mysql import stream
from appliers.relation import Column, Relation
from tests.applier_bed import Bed, MysqlTarget
from tests.mysql_applier_bed import ID, NUMBER, TEXT, Target, without_load
from tests.mysql_databases import MysqlDatabase
from tests.test_applier_histories import KEYS, LENGTHS, SEEDS, SETTINGS, syncing

every_way = pytest.mark.usefixtures("mysql_way")

AWKWARD: Final = "".join(map(chr, range(1, 128))) + "'\\' \\N é \U0001f600 \0 end "
"""Every control character, quotes, what a line and a literal escape, four bytes of UTF-8, a blank last."""


@pytest.fixture
def target(mariadb_bed: Target) -> Target:
    return mariadb_bed


@pytest.fixture
def any_target(any_mysql_bed: Target) -> Target:
    return any_mysql_bed


@pytest.fixture(params=["sets", "inserts"])
def sets_bed(
    request: pytest.FixtureRequest, mariadb_target: MysqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bed]:
    monkeypatch.setattr(stream, "FEW", -1)
    if request.param == "inserts":
        without_load(monkeypatch)
    bed = Bed(MysqlTarget(mariadb_target), "line")
    yield bed
    bed.close()


@SETTINGS
@given(seed=SEEDS, transactions=LENGTHS, keys=KEYS)
def test_random_histories_in_sets(sets_bed: Bed, seed: int, transactions: int, keys: int) -> None:
    """Batches of any size may be written in sets: every state of the source is reached."""
    with syncing(sets_bed, seed, transactions, keys) as sync:
        sync.start_exact()
        while not sync.over:
            sync.step()
            if sync.exact:
                assert sets_bed.items() == sync.history.states[sync.at]
        assert sync.healed == 0


@SETTINGS
@given(seed=SEEDS, transactions=LENGTHS, keys=KEYS)
def test_random_copies_in_sets(sets_bed: Bed, seed: int, transactions: int, keys: int) -> None:
    """The redo rules hold in sets as well."""
    with syncing(sets_bed, seed, transactions, keys) as sync:
        sync.start_copy(keys)
        while not (sync.over and sync.exact):
            sync.step()
            if sync.exact:
                assert sets_bed.items() == sync.history.states[sync.at]
        assert sync.healed == 0


# -- values ------------------------------------------------------------------------------------------


@every_way
def test_every_character_arrives(any_target: Target) -> None:
    """Text with all that lines, literals and LOAD DATA give a meaning to; bytes of every value; an
    empty text beside NULL."""
    blob = Column("b", "longblob", "longblob")
    text = Column("v", "longtext", "longtext")
    relation = any_target.relation("t", ID, text, blob)
    every = bytes(range(256))
    rows = [
        (1, AWKWARD, every),
        (2, "", b""),
        (3, None, None),
        (4, "\\N", b"\\N"),
        (5, "\\=", b"x"),
    ]
    any_target.apply(*[any_target.insert(relation, i, v, _hex(b)) for i, v, b in rows])
    assert any_target.rows("SELECT id, v, b FROM t ORDER BY id") == rows
    any_target.apply(
        *[any_target.update(relation, i, _twice(v), _hex(_twice(b))) for i, v, b in rows]
    )
    doubled = [(i, _twice(v), _twice(b)) for i, v, b in rows]
    assert any_target.rows("SELECT id, v, b FROM t ORDER BY id") == doubled


def test_text_from_copy(target: Target) -> None:
    """PostgreSQL's COPY escapes the form feed and the vertical tab, which MySQL reads otherwise."""
    columns = (Column("id", "bigint", "int8"), Column("v", "text", "text"))
    relation = Relation("public", "t", columns, (0,), Format.COPY_TEXT)
    target.applier.prepare(relation)
    with target.applier.state.transaction():
        target.applier.state.plan(TableState("public.t"), ["all"])
    told = AWKWARD.replace("\0", "")
    image = copy_text_line([b"1", told.encode()])
    for plain, escaped in ((b"\b", b"\\b"), (b"\f", b"\\f"), (b"\v", b"\\v")):
        image = image.replace(plain, escaped)
    target.applier.copy(Chunk(relation, 0, iter([[image]])), "1")
    assert target.rows("SELECT v FROM t") == [(told,)]


@every_way
def test_a_value_that_does_not_fit_is_named_without_being_told(target: Target) -> None:
    """Nothing is cut, rounded or replaced: the error has table, key and column, and no value."""
    target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(5), l varchar(50) CHARACTER SET latin1, n tinyint)"
    )
    latin = Column("l", "varchar(50)", "varchar")
    relation = target.relation("t", ID, TEXT, latin, NUMBER)
    cases = [
        ((1, "too long", "", 1), "v"),
        ((1, "", "\u20acuro \u0416", 1), "l"),
        ((1, "", "", 4711), "n"),
    ]
    for row, column in cases:
        with pytest.raises(PermanentError) as refused:
            target.apply(target.insert(relation, *row))
        message = str(refused.value)
        assert "table crm.t" in message
        assert f"column {column}" in message
        assert refused.value.hint
        assert "\u0416" not in message
        assert "4711" not in message
        target.applier.close()
        target.number -= 1
        target.applier = target.opened()
    assert target.rows("SELECT * FROM t") == []


@every_way
def test_a_nul_of_the_source_is_never_made_up(target: Target) -> None:
    """NULL for a column that would count by itself, or take the time, is an error."""
    target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL AUTO_INCREMENT UNIQUE)"
    )
    relation = target.relation("t", ID, NUMBER)
    target.apply(target.insert(relation, 1, 0))
    assert target.rows("SELECT id, n FROM t") == [(1, 0)]
    with pytest.raises(PermanentError, match="column n"):
        target.apply(target.insert(relation, 2, None))


@every_way
def test_columns_that_change_by_themselves(any_target: Target) -> None:
    """ON UPDATE CURRENT_TIMESTAMP does not touch a value that the log left alone; a column that is the
    target's own keeps its value; a generated one is computed."""
    any_target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(190),"
        " at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,"
        " own varchar(20) DEFAULT 'own', twice varchar(400) AS (concat(v, v)) STORED)"
    )
    at = Column("at", "timestamp", "timestamp")
    twice = Column("twice", "varchar(400)", "varchar")
    relation = any_target.relation("t", ID, TEXT, at, twice)
    day = "2020-02-03 04:05:06"
    any_target.apply(any_target.insert(relation, 1, "a", day, "ignored"))
    any_target.db.execute("SET time_zone = '+00:00'")
    any_target.apply(any_target.update(relation, 1, "b", UNCHANGED, UNCHANGED))
    any_target.db.execute("UPDATE t SET own = 'theirs', at = at")
    any_target.apply(any_target.update(relation, 1, "c", UNCHANGED, "ignored"))
    found = any_target.rows("SELECT v, CAST(at AS CHAR), own, twice FROM t")
    assert found == [("c", day, "theirs", "cc")]


@every_way
def test_odd_names(any_target: Target) -> None:
    """Quotes, backticks, question marks, percent signs, reserved words and other alphabets."""
    columns = (
        Column("the `id`", "bigint(20)", "bigint"),
        Column("select", "varchar(190)", "varchar"),
        Column("what? 100% 'é' \"\\", "varchar(190)", "varchar"),
    )
    relation = any_target.relation("t `x` ? % ж", *columns)
    any_target.apply(
        any_target.insert(relation, 1, "a", "b"), any_target.insert(relation, 2, "c", "d")
    )
    any_target.apply(
        any_target.update(relation, 1, "a2", UNCHANGED),
        any_target.update(relation, 3, "c", "d", old=2),
    )
    assert any_target.rows(
        "SELECT * FROM `t ``x`` ? % ж`",
    ) == [(1, "a2", "b"), (3, "c", "d")]


def test_other_schemas_go_into_the_same_database(target: Target) -> None:
    """A sync writes into the database of its URL alone: another schema stands before the name; two
    tables that would be one are refused."""
    relation = target.relation("orders", ID, TEXT, schema="sales")
    target.apply(target.insert(relation, 1, "a"))
    assert target.rows("SELECT * FROM sales_orders") == [(1, "a")]
    with pytest.raises(PermanentError, match=r"crm\.sales_orders and sales\.orders would both be"):
        target.relation("sales_orders", ID)
    with pytest.raises(PermanentError, match="names that begin with cdc_"):
        target.relation("cdc_checkpoint", ID)
    with pytest.raises(PermanentError, match="expected a name of 1 to 64 characters"):
        target.relation("x" * 65, ID)


# -- keys and unique values --------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize(("one", "other"), [("a", "A"), ("e", "\u00e9"), ("a", "a ")])
def test_keys_that_the_target_takes_for_one(target: Target, one: str, other: str) -> None:
    """Under a collation that knows no case, accents or blanks at the end, one row of the source is never
    written over another: the sync stops at the second. Deletes and updates hit their own row alone."""
    target.db.execute(
        "CREATE TABLE t (id varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v varchar(190))"
    )
    relation = target.relation("t", Column("id", "varchar(20)", "varchar"), TEXT)
    target.apply(target.insert(relation, one, "first"))
    target.apply(target.delete(relation, other))
    assert target.rows("SELECT id, v FROM t") == [(one, "first")]
    target.apply(target.update(relation, other, "renamed", old=one))
    assert target.rows("SELECT id, v FROM t") == [(other, "renamed")]
    with pytest.raises(PermanentError, match=r"table crm\.t \(key id\): unique index .*PRIMARY"):
        target.apply(target.insert(relation, one, "second"))
    assert target.rows("SELECT id, v FROM t") == [(other, "renamed")]


@every_way
def test_keys_that_the_target_prints_otherwise(target: Target) -> None:
    """Numbers, dates and bytes are found by what they are, large ones exactly; what is missing is told
    by its place in the batch, not by what the target prints."""
    target.db.execute(
        "CREATE TABLE t (d decimal(30, 4), at datetime(6), b varbinary(8), u bigint unsigned,"
        " v varchar(190), PRIMARY KEY (d, at, b, u))"
    )
    columns = (
        Column("d", "decimal(30,2)", "decimal"),
        Column("at", "datetime(3)", "datetime"),
        Column("b", "varbinary(8)", "varbinary"),
        Column("u", "bigint(20) unsigned", "bigint"),
        TEXT,
    )
    relation = target.relation("t", *columns, key=(0, 1, 2, 3))
    first = ("12345678901234567890.25", "2024-02-03 04:05:06.500", "\\x00ff", 2**64 - 1)
    second = ("12345678901234567890.26", "2024-02-03 04:05:06.500", "\\x00ff", 2**64 - 1)
    target.apply(target.insert(relation, *first, "a"), target.insert(relation, *second, "b"))
    healed = target.apply(
        target.update(relation, *first, "a2"),
        target.update(relation, "1.50", *first[1:], "missing"),
    )
    assert healed == 1
    target.apply(
        target.delete(relation, second[0])._replace(before=target.image(relation, *second, None))
    )
    assert target.rows("SELECT v FROM t ORDER BY d") == [("missing",), ("a2",)]


@every_way
def test_a_swap_keeps_the_target_s_own_columns_and_children(any_target: Target) -> None:
    """Two parents swap a unique value in one batch: rows that refer to them stay, although the foreign
    key would delete them with their parent, and so do values that only the target has."""
    any_target.db.execute(
        "CREATE TABLE parent (id bigint PRIMARY KEY, v varchar(190) UNIQUE, own varchar(9) DEFAULT 'own');"
        "CREATE TABLE child (id bigint PRIMARY KEY, p bigint,"
        " FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)"
    )
    parent = any_target.relation("parent", ID, TEXT)
    child = any_target.relation("child", ID, Column("p", "bigint(20)", "bigint"))
    any_target.apply(
        any_target.insert(parent, 1, "a"),
        any_target.insert(parent, 2, "b"),
        any_target.insert(child, 7, 1),
    )
    any_target.db.execute("UPDATE parent SET own = 'theirs' WHERE id = 1")
    assert (
        any_target.apply(any_target.update(parent, 1, "b"), any_target.update(parent, 2, "a")) == 0
    )
    assert any_target.rows("SELECT id, v, own FROM parent ORDER BY id") == [
        (1, "b", "theirs"),
        (2, "a", "own"),
    ]
    assert any_target.rows("SELECT id, p FROM child") == [(7, 1)]


def test_a_unique_index_that_came_later(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upsert in sets means the row of the key, also when somebody has given the table another unique
    index since it was looked at: the row that holds the value is not written over."""
    monkeypatch.setattr(stream, "FEW", -1)
    relation = target.relation("t", ID, TEXT)
    target.apply(target.insert(relation, 1, "a"), target.insert(relation, 2, "b"))
    target.db.execute("ALTER TABLE t ADD UNIQUE INDEX later (v)")
    with pytest.raises(PermanentError, match="later"):
        target.apply(target.update(relation, 2, "a"))
    assert target.rows("SELECT id, v FROM t") == [(1, "a"), (2, "b")]


INDEXES: Final = {
    "prefix": "ALTER TABLE t ADD UNIQUE INDEX u (v(3))",
    "generated": "ALTER TABLE t ADD g varchar(190) AS (lower(v)) VIRTUAL, ADD UNIQUE INDEX u (g)",
    "two columns": "ALTER TABLE t ADD UNIQUE INDEX u (v, n)",
}


@every_way
@pytest.mark.parametrize("index", [*INDEXES, "hash", "expression"])
def test_stale_rows_by_every_kind_of_unique_index(any_target: Target, index: str) -> None:
    """In a redo and in a copy, a row of another key that stands in the way is deleted, whatever the
    index is over: prefixes, generated columns, expressions, MariaDB's hashes of long texts."""
    flavour = any_target.db.server.flavour
    if (index, flavour) in (("hash", "mysql"), ("expression", "mariadb")):
        return
    long = index == "hash"
    any_target.db.execute(
        f"CREATE TABLE t (id bigint PRIMARY KEY, v {'text' if long else 'varchar(190)'}, n int)"
    )
    odd = {
        "hash": "ALTER TABLE t ADD UNIQUE INDEX u (v)",
        "expression": "CREATE UNIQUE INDEX u ON t ((lower(v)))",
    }
    any_target.db.execute({**INDEXES, **odd}[index])
    relation = any_target.relation("t", ID, TEXT, NUMBER)
    any_target.db.execute("INSERT INTO t (id, v, n) VALUES (1, 'abc', 5), (2, 'xyz', 5)")
    any_target.apply(any_target.insert(relation, 3, "abc", 5), redo=["crm.t"])
    assert any_target.rows("SELECT id, v FROM t ORDER BY id") == [(2, "xyz"), (3, "abc")]
    assert any_target.copy(relation, (4, "xyz", 5)) == 1
    assert any_target.rows("SELECT id, v FROM t ORDER BY id") == [(3, "abc"), (4, "xyz")]


@every_way
def test_half_of_a_unique_index_in_a_redo(target: Target) -> None:
    """The log carries one column of an index over two: whose value it is, only the source knows."""
    target.db.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(190), n int, UNIQUE (v, n))"
    )
    relation = target.relation("t", ID, TEXT, NUMBER)
    target.db.execute("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 1)")

    def reread(asked: Relation, images: object, at: object) -> Reread:
        return Reread(asked, [target.image(relation, 2, "a", 1)], "5")

    target.apply(target.update(relation, 2, "a", UNCHANGED), redo=["crm.t"], reread=reread)
    assert target.rows("SELECT id, v, n FROM t") == [(2, "a", 1)]


# -- foreign keys ------------------------------------------------------------------------------------


def family(target: Target) -> tuple[Relation, Relation]:
    target.db.execute(
        "CREATE TABLE parent (id bigint PRIMARY KEY, v varchar(190));"
        "CREATE TABLE child (id bigint PRIMARY KEY, p bigint, v varchar(190),"
        " CONSTRAINT child_parent FOREIGN KEY (p) REFERENCES parent (id))"
    )
    child = target.relation("child", ID, Column("p", "bigint(20)", "bigint"), TEXT)
    return target.relation("parent", ID, TEXT), child


@every_way
def test_foreign_keys_are_respected_and_enforced(any_target: Target) -> None:
    """Parents and children in one batch, in either order, inserted and deleted; what the source would
    not allow either is refused with the constraint's name and without values."""
    parent, child = family(any_target)
    any_target.apply(any_target.insert(child, 1, 1, "c"), any_target.insert(parent, 1, "p"))
    any_target.apply(
        any_target.insert(parent, 2, "q"),
        any_target.update(child, 1, 2, "moved"),
        any_target.delete(parent, 1),
    )
    assert any_target.rows("SELECT id, p FROM child") == [(1, 2)]
    any_target.apply(any_target.delete(parent, 2), any_target.delete(child, 1))
    assert any_target.rows("SELECT * FROM parent") == []
    with pytest.raises(OrderError) as refused:
        any_target.apply(any_target.insert(child, 4711, 4712, "secret"))
    message = str(refused.value)
    assert "table crm.child (key id)" in message
    assert "child_parent" in message
    assert refused.value.hint
    assert not any(value in message for value in ("4711", "4712", "secret"))
    assert any_target.rows("SELECT * FROM child") == []


@every_way
def test_a_parent_that_is_missed_is_refused(target: Target) -> None:
    """A deleted parent whose children stay is no matter of order."""
    parent, child = family(target)
    target.apply(target.insert(parent, 1, "p"), target.insert(child, 1, 1, "c"))
    with pytest.raises(OrderError, match="child_parent"):
        target.apply(target.delete(parent, 1))
    assert target.rows("SELECT id FROM parent") == [(1,)]


@every_way
def test_a_circle_of_references(any_target: Target) -> None:
    """Rows that refer to each other pass no order; they arrive, and one that refers to nothing does not."""
    any_target.db.execute(
        "CREATE TABLE tree (id bigint PRIMARY KEY, up bigint, FOREIGN KEY (up) REFERENCES tree (id))"
    )
    up = Column("up", "bigint(20)", "bigint")
    tree = any_target.relation("tree", ID, up)
    any_target.apply(any_target.insert(tree, 1, 2), any_target.insert(tree, 2, 1))
    assert any_target.rows("SELECT id, up FROM tree ORDER BY id") == [(1, 2), (2, 1)]
    any_target.apply(any_target.delete(tree, 1), any_target.delete(tree, 2))
    assert any_target.rows("SELECT * FROM tree") == []
    with pytest.raises(OrderError):
        any_target.apply(any_target.insert(tree, 1, 2), any_target.insert(tree, 2, 9))


@every_way
def test_a_reference_that_a_later_piece_makes_good(target: Target) -> None:
    """A transaction of the source may violate a deferred key in between: what counts is its end."""
    parent, child = family(target)
    target.apply(target.insert(child, 1, 1, "c"), done=False)
    target.apply(target.insert(parent, 1, "p"))
    assert target.rows("SELECT id, p FROM child") == [(1, 1)]
    target.apply(target.insert(child, 2, 9, "c"), done=False)
    with pytest.raises(OrderError, match="child_parent is violated at the end of the transaction"):
        target.apply(target.insert(child, 3, 1, "c"))
    assert target.rows("SELECT id FROM child") == [(1,)]


@every_way
def test_truncate_of_parent_and_child(target: Target) -> None:
    """Together they are emptied; it is part of the transaction, and undone with it."""
    parent, child = family(target)
    target.apply(target.insert(parent, 1, "p"), target.insert(child, 1, 1, "c"))
    target.apply(target.truncate(parent), target.truncate(child), done=False)
    target.applier.close()
    assert target.rows("SELECT id FROM child") == [(1,)]
    target.applier = target.opened()
    target.apply(target.truncate(parent), target.truncate(child), target.insert(parent, 2, "q"))
    assert target.rows("SELECT id FROM parent") == [(2,)]
    assert target.rows("SELECT id FROM child") == []


def test_a_chunk_of_rows_that_refer_to_each_other(target: Target) -> None:
    """In whatever order they come, in this chunk or in another one of the table."""
    target.db.execute(
        "CREATE TABLE tree (id bigint PRIMARY KEY, up bigint, FOREIGN KEY (up) REFERENCES tree (id))"
    )
    tree = target.relation("tree", ID, Column("up", "bigint(20)", "bigint"))
    assert target.copy(tree, (1, 5), (2, 1), (3, None), (4, 3), (5, 2)) == 5
    assert len(target.rows("SELECT * FROM tree")) == 5
    assert target.copy(tree, (6, 1), (7, 99)) == 2
    assert target.copy(tree, (99, 7)) == 1
    assert len(target.rows("SELECT * FROM tree")) == 8


def test_a_chunk_whose_parents_nobody_copies(target: Target) -> None:
    """A reference to a table that is exact, or not of the sync, has to hold: nothing is still to come."""
    _, child = family(target)
    with pytest.raises(OrderError, match="child_parent is violated"):
        target.copy(child, (1, 9, "c"))
    assert target.rows("SELECT * FROM child") == []


@every_way
def test_references_while_a_table_is_copied(target: Target) -> None:
    """Under redo a child may be newer than the stream and its parent's delete be passed: the stream
    goes on, and what refers to nothing now is made good by what is still to come."""
    parent, child = family(target)
    target.apply(target.insert(parent, 1, "p"), target.insert(child, 1, 1, "newer"))
    redo = ["crm.child", "crm.parent"]
    target.apply(target.delete(parent, 1), redo=redo)
    target.apply(target.insert(child, 2, 7, "c"), redo=redo)
    target.apply(target.insert(parent, 1, "p"), target.insert(parent, 7, "q"), redo=redo)
    assert target.rows("SELECT id, p FROM child ORDER BY id") == [(1, 1), (2, 7)]
    with pytest.raises(OrderError):
        target.apply(target.insert(child, 3, 8, "c"))


# -- what a table must be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "message", "hint"),
    [
        (
            "TABLE t (id bigint PRIMARY KEY, v text) ENGINE = MyISAM",
            "engine MyISAM",
            "ENGINE = InnoDB",
        ),
        ("VIEW t AS SELECT 1 AS id, 'a' AS v", "is a view", "drop the view"),
        (
            "TABLE t (id bigint PRIMARY KEY, v text, own int NOT NULL)",
            "column own is NOT NULL, has no default",
            "MODIFY COLUMN `own`",
        ),
        ("TABLE t (id bigint, v text)", "no unique index on its key", "ADD UNIQUE INDEX (`id`)"),
        ("TABLE t (id bigint PRIMARY KEY)", "has no column v", "ADD COLUMN `v`"),
        (
            "TABLE t (id bigint AS (1) STORED UNIQUE, v text)",
            "key column id is generated",
            "MODIFY",
        ),
    ],
)
def test_tables_that_cannot_be_written(target: Target, made: str, message: str, hint: str) -> None:
    """Refused before the first row, with the statement that mends it; `check` says the same."""
    target.db.execute(f"CREATE {made}")
    with pytest.raises(PermanentError, match=message) as refused:
        target.relation("t", ID, TEXT)
    assert hint in refused.value.hint
    relation = Relation("crm", "t", (ID, TEXT), (0,), Format.LINE, dialect="mysql", home="crm")
    target.applier.close()
    target.applier = target.opened()
    found = [f for f in target.applier.check([relation]) if f.level == "FAILED"]
    assert [(f.subject, f.message, f.remedy) for f in found] == [
        ("table crm.t", str(refused.value), refused.value.hint)
    ]


def test_a_table_that_is_altered_under_way(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that is gone, a column that is new: the table is looked at again before that is an error."""
    monkeypatch.setattr(stream, "FEW", -1)
    target.db.execute("CREATE TABLE t (id bigint, v varchar(190), UNIQUE INDEX one (id))")
    relation = target.relation("t", ID, TEXT)
    target.apply(target.insert(relation, 1, "a"))
    target.db.execute("ALTER TABLE t DROP INDEX one, ADD UNIQUE INDEX two (id)")
    target.apply(target.update(relation, 1, "b"))
    assert target.rows("SELECT id, v FROM t") == [(1, "b")]
    target.db.execute("ALTER TABLE t DROP COLUMN v")
    with pytest.raises(PermanentError, match="has no column v"):
        target.apply(target.update(relation, 1, "c"))


def _hex(value: bytes | None) -> str | None:
    return None if value is None else "\\x" + value.hex()


Doubled = TypeVar("Doubled", str, bytes)


def _twice(value: Doubled | None) -> Doubled | None:
    return None if value is None else value + value


@every_way
def test_nulls_at_every_place(target: Target) -> None:
    """The first and the last field of a line, of the first and the last line, beside each other."""
    columns = [Column(f"c{n}", "varchar(190)", "varchar") for n in range(3)]
    relation = target.relation("t", columns[0], ID, columns[1], columns[2], key=(1,))
    rows = [(None, 1, None, None), ("a", 2, None, "b"), (None, 3, "N", None)]
    target.apply(*[target.insert(relation, *row) for row in rows])
    assert target.rows("SELECT * FROM t ORDER BY id") == rows
    target.apply(*[target.update(relation, *row) for row in rows])
    assert target.rows("SELECT * FROM t ORDER BY id") == rows


@every_way
def test_a_truncate_between_the_changes_of_other_tables(target: Target) -> None:
    """Each table's own changes stay in their order, whatever is emptied between them."""
    one, two = target.relation("one", ID, TEXT), target.relation("two", ID, TEXT)
    target.apply(
        target.insert(one, 1, "a"),
        target.insert(two, 1, "gone"),
        target.truncate(two),
        target.update(one, 1, "b"),
        target.insert(two, 2, "gone too"),
        target.insert(one, 2, "c"),
        target.truncate(two),
        target.delete(one, 2),
        target.insert(two, 3, "there"),
    )
    assert target.rows("SELECT id, v FROM one") == [(1, "b")]
    assert target.rows("SELECT id, v FROM two") == [(3, "there")]
