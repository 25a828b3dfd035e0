"""Every value of every type arrives in MySQL and MariaDB as docs/types.md says, by stream and by copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest

from appliers.images import Format, pgoutput_image
from appliers.lines import NULL
from appliers.unrepresentable import Unrepresentable
from tests.databases import Database
from tests.mysql_databases import MysqlDatabase
from tests.mysql_type_values import (
    MAY_BE_TEXT,
    assert_same,
    in_mysql,
    in_other,
    make_mysql_table,
)
from tests.mysql_values_bed import (
    Bed,
    copied_lines,
    mysql_relation,
    postgres_relation,
    printed_by,
)
from tests.syncs import MakeSync, Sync
from tests.targets import MysqlTarget
from tests.type_tables import (
    MARKERS,
    change_table,
    create_table,
    fill_table,
    printed_rows,
    printing,
    streaming,
    turn_table,
)
from tests.type_values import PORTABLE, TEXT_ONLY, Case

GROUPS: Final = {**PORTABLE, "text_only": TEXT_ONLY}


@pytest.mark.parametrize(
    ("group", "policy"),
    [
        *((group, Unrepresentable.NULL) for group in GROUPS),
        *((group, Unrepresentable.TEXT) for group in ("numbers", "times")),
    ],
)
def test_every_type_of_postgres(
    source_db: Database, any_mysql_target: MysqlDatabase, group: str, policy: Unrepresentable
) -> None:
    """Every value of every built-in type, and of its array, is in the created table as documented,
    whether it came from the log or from a copy. What no MySQL type holds is NULL or, in columns that
    were created as text, what the source prints."""
    cases: Sequence[Case] = GROUPS[group]
    source_db.execute('CREATE TABLE "A Named Table" ()')
    source_db.execute("; ".join([create_table(group, cases), *fill_table(group, cases, 18)]))
    relation = postgres_relation(source_db, group)
    columns, text = relation.columns, policy is Unrepresentable.TEXT
    rows = printed_rows(printing(source_db), group, [c.name for c in columns])
    expected = [
        tuple(in_mysql(c, v, text=text) for c, v in zip(columns, row, strict=True)) for row in rows
    ]
    if text:
        columns = tuple(replace(c, kind="text") if c.base in MAY_BE_TEXT else c for c in columns)
    copied = replace(relation, format=Format.COPY_TEXT)
    for shape, images in (
        (relation, [pgoutput_image(row, b"t") for row in rows]),
        (copied, copied_lines(source_db, copied)),
    ):
        bed = Bed(any_mysql_target, shape, policy)
        bed.write(images)
        assert_same(columns, expected, bed.printed(), mariadb=bed.flavour == "mariadb")


def test_every_type_of_mysql_where_some_are_text(
    any_mysql_source: MysqlDatabase, any_mysql_target: MysqlDatabase
) -> None:
    """Every value of every type of MySQL and MariaDB is printed the same by source and target, though
    the one may have types that the other has not: what it cannot hold stands in columns of text."""
    make_mysql_table(any_mysql_source)
    relation, images = mysql_relation(any_mysql_source, "every")
    bed = Bed(any_mysql_target, relation, Unrepresentable.TEXT)
    if bed.flavour == "mysql":
        # TIME stays TIME: see docs/types.md.
        images = [image.replace(b"838:59:59.500000", NULL) for image in images]
    bed.write(images)
    ours = printed_by(any_mysql_source, "every", [(c.name, c.base) for c in relation.columns])
    expected = [
        tuple(
            in_other(c, v, mysql=bed.flavour == "mysql", text=True)
            for c, v in zip(relation.columns, row, strict=True)
        )
        for row in ours
    ]
    assert_same(relation.columns, expected, bed.printed(), mariadb=bed.flavour == "mariadb")


def set_policy(sync: Sync, policy: Unrepresentable) -> None:
    """The configuration ends with the sync."""
    with sync.config.open("a") as file:
        file.write(f'on_unrepresentable = "{policy}"\n')


def columns_there(target: MysqlDatabase, table: str) -> list[tuple[str, str]]:
    """Names and data types of a table's columns."""
    return target.rows(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name = %s ORDER BY ordinal_position",
        [table],
    )


def test_the_whole_way_from_postgres(
    source_db: Database, any_mysql_target: MysqlDatabase, make_sync: MakeSync
) -> None:
    """By a sync, copied and streamed, inserted, updated and left alone: the same as value by value."""
    groups = {g: GROUPS[g] for g in ("numbers", "times", "texts", "network")}
    source_db.execute(MARKERS)
    for group, cases in groups.items():
        source_db.execute("; ".join([create_table(group, cases), *fill_table(group, cases, 18)]))
    sync = make_sync(source_db, MysqlTarget(any_mysql_target), [*groups, "markers"])
    set_policy(sync, Unrepresentable.NULL)
    with streaming(sync, binary=False):
        for group, cases in groups.items():
            statements = [*change_table(group, cases), turn_table(group, cases)]
            source_db.execute("; ".join(statements))
    for group in groups:
        columns = postgres_relation(source_db, group).columns
        rows = printed_rows(printing(source_db), group, [c.name for c in columns])
        expected = [
            tuple(in_mysql(c, v, text=False) for c, v in zip(columns, row, strict=True))
            for row in rows
        ]
        there = printed_by(any_mysql_target, group, columns_there(any_mysql_target, group))
        mariadb = any_mysql_target.server.flavour == "mariadb"
        assert_same(columns, expected, there, mariadb=mariadb)


def test_the_whole_way_from_mysql(
    any_mysql_source: MysqlDatabase, any_mysql_target: MysqlDatabase, make_sync: MakeSync
) -> None:
    """The same from MySQL and MariaDB, where the log and the copy are read by different code. What the
    target cannot hold is NULL."""
    make_mysql_table(any_mysql_source)
    any_mysql_source.execute(MARKERS)
    sync = make_sync(any_mysql_source, MysqlTarget(any_mysql_target), ["every", "markers"])
    set_policy(sync, Unrepresentable.NULL)
    with streaming(sync, binary=False):
        db = any_mysql_source.connect(
            init_command="SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'"
        )
        columns = mysql_relation(any_mysql_source, "every")[0].columns
        names = ", ".join(c.name for c in columns[1:])
        with db.cursor() as cursor:
            cursor.execute(f"INSERT INTO every (id, {names}) SELECT id + 100, {names} FROM every")
            cursor.execute("INSERT INTO every (id) SELECT id + 200 FROM every WHERE id < 100")
            sets = ", ".join(f"t.{c.name} = o.{c.name}" for c in columns[1:])
            cursor.execute(f"UPDATE every t JOIN every o ON t.id = o.id + 200 SET {sets}")
    ours = printed_by(any_mysql_source, "every", [(c.name, c.base) for c in columns])
    flavour = any_mysql_target.server.flavour
    expected = [
        tuple(
            in_other(c, v, mysql=flavour == "mysql", text=False)
            for c, v in zip(columns, row, strict=True)
        )
        for row in ours
    ]
    there = printed_by(any_mysql_target, "every", columns_there(any_mysql_target, "every"))
    assert_same(columns, expected, there, mariadb=flavour == "mariadb")
