"""`on_unrepresentable`: what becomes of a value that a target cannot hold. Here the policy itself and its
way to the target, and every case of MySQL and MariaDB as targets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from appliers.errors import PermanentError
from appliers.registry import applier_for
from appliers.relation import Column, Relation
from appliers.unrepresentable import Nulled, Unrepresentable, refusal
from cdc.config import ConfigError, load
from tests.mysql_databases import MysqlDatabase
from tests.mysql_values_bed import Bed, columns_relation

CONFIGURATION: Final = """
[databases.crm]
url = "postgresql://cdc@localhost/crm"
[databases.fin]
url = "sqlite:///fin.db"
[sync.fin]
source = "crm"
target = "fin"
tables = ["*"]
"""


def test_a_sync_has_its_policy(tmp_path: Path) -> None:
    """The key stands in a sync; without it, what cannot be kept is an error."""
    file = tmp_path / "cdc.toml"
    file.write_text(CONFIGURATION)
    assert load(file).syncs["fin"].on_unrepresentable is Unrepresentable.ERROR
    for policy in Unrepresentable:
        file.write_text(CONFIGURATION + f'on_unrepresentable = "{policy}"\n')
        assert load(file).syncs["fin"].on_unrepresentable is policy


def test_another_policy_is_refused(tmp_path: Path) -> None:
    """A wrong word is told with what may stand there."""
    file = tmp_path / "cdc.toml"
    file.write_text(CONFIGURATION + 'on_unrepresentable = "skip"\n')
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert str(refused.value) == (
        f'{file}: sync.fin.on_unrepresentable: expected "error", "null" or "text", found "skip"'
    )


@pytest.mark.parametrize("policy", Unrepresentable)
@pytest.mark.parametrize(
    "url", ["postgresql://h/d", "sqlite:///f.db", "mysql://h/d", "mariadb://h/d"]
)
def test_every_target_is_told_the_policy(url: str, policy: Unrepresentable) -> None:
    """What the configuration says reaches the applier of every kind of target."""
    applier = applier_for(url, None, "s", policy)
    assert policy in [v for v in vars(applier).values() if isinstance(v, Unrepresentable)]


def test_refusals_name_table_and_column_and_what_to_do() -> None:
    """The error and its hint, under each policy; never the value."""
    told = {p: refusal("public.t", "price", "NaN", "decimal(10,2)", p) for p in Unrepresentable}
    text = "table public.t: column price: NaN cannot be kept in decimal(10,2)"
    assert {str(e) for e in told.values()} == {text}
    assert told[Unrepresentable.ERROR].hint == (
        "change the value on the source, make column price a text type on the target, or set"
        ' on_unrepresentable = "null", or "text" before the table is created'
    )
    assert told[Unrepresentable.NULL].hint == (
        "NULL cannot stand for it in column price, which is NOT NULL on the target or part of the key:"
        " change the value on the source, or the column's type on the target"
    )
    assert told[Unrepresentable.TEXT].hint == (
        "make column price a text type on the target: text holds what the source prints; or change the"
        " value on the source"
    )


def test_what_becomes_null_is_told_once_per_column(caplog: pytest.LogCaptureFixture) -> None:
    """A log line names table, column and kind of value, the first time only."""
    with caplog.at_level(logging.WARNING, "appliers"):
        nulled = Nulled()
        for column in ("a", "a", "b", "a"):
            nulled.tell("public.t", column, "NaN", "double")
    assert [r.getMessage() for r in caplog.records] == ["value-becomes-null"] * 2
    assert [getattr(r, "fields", {}).get("column") for r in caplog.records] == ["a", "b"]
    assert getattr(caplog.records[0], "fields", {}) == {
        "table": "public.t",
        "column": "a",
        "value": "NaN",
        "type": "double",
    }


class Lost(NamedTuple):
    """A value that a created column of MySQL cannot hold, and what the error says of it."""

    type: str
    base: str
    value: str
    what: str
    held_in: str


INFINITE, BEFORE, AFTER = "an infinite date", "a date before year 1", "a date after year 9999"
PLAIN, ZONED = "timestamp without time zone", "timestamp with time zone"

OF_POSTGRES: Final = (
    Lost("real", "float4", "NaN", "NaN", "float"),
    Lost("real", "float4", "-Infinity", "an infinite number", "float"),
    Lost("double precision", "float8", "NaN", "NaN", "double"),
    Lost("double precision", "float8", "Infinity", "an infinite number", "double"),
    Lost("numeric(10,2)", "numeric", "NaN", "NaN", "decimal(10,2)"),
    Lost("date", "date", "infinity", INFINITE, "date"),
    Lost("date", "date", "0044-03-15 BC", BEFORE, "date"),
    Lost("date", "date", "10000-01-01", AFTER, "date"),
    Lost(PLAIN, "timestamp", "-infinity", INFINITE, "datetime(6)"),
    Lost(
        "timestamp(3) without time zone",
        "timestamp",
        "0044-03-15 12:00:00.001 BC",
        BEFORE,
        "datetime(3)",
    ),
    Lost(ZONED, "timestamptz", "294276-12-31 23:59:59.999999+00", AFTER, "datetime(6)"),
    Lost(ZONED, "timestamptz", "0044-03-15 20:00:00+00 BC", BEFORE, "datetime(6)"),
    Lost(ZONED, "timestamptz", "infinity", INFINITE, "datetime(6)"),
)
"""Into either product."""

OF_MYSQL: Final = {
    "mariadb": Lost("enum('a','b')", "enum", "", "the empty value of an enum", "enum('a','b')"),
    "mysql": Lost(
        "json",
        "json",
        "[0.12345678901234567]",
        "a number with more digits than DOUBLE holds",
        "json",
    ),
}
"""From MySQL or MariaDB, by the target."""


def lost_in(target: MysqlDatabase) -> list[tuple[Relation, Sequence[Lost]]]:
    """The relations whose columns are of these types, each with its values."""
    other = OF_MYSQL[target.server.flavour]
    return [
        (columns_relation(*((c.type, c.base) for c in OF_POSTGRES)), OF_POSTGRES),
        (columns_relation((other.type, other.base), dialect="mysql"), [other]),
    ]


def test_error_is_the_default(any_mysql_target: MysqlDatabase) -> None:
    """The sync stops with table, column, kind of value and type named."""
    for relation, cases in lost_in(any_mysql_target):
        bed = Bed(any_mysql_target, relation)
        for i, case in enumerate(cases):
            with pytest.raises(PermanentError) as refused:
                bed.put_one(i, case.value)
            assert str(refused.value) == (
                f"table public.t: column c{i}: {case.what} cannot be kept in {case.held_in}"
            )
            assert 'on_unrepresentable = "null"' in refused.value.hint


def test_null_stands_for_the_value(
    any_mysql_target: MysqlDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """NULL is written, and told once per column."""
    for relation, cases in lost_in(any_mysql_target):
        caplog.clear()
        bed = Bed(any_mysql_target, relation, Unrepresentable.NULL)
        with caplog.at_level(logging.WARNING, "appliers"):
            printed = bed.put(*([c.value, None, c.value] for c in cases))
        assert printed == [[None] * 3 for _ in cases]
        told = [getattr(r, "fields", {}) for r in caplog.records]
        assert [(t["column"], t["value"]) for t in told] == [
            (f"c{i}", c.what) for i, c in enumerate(cases)
        ]


def test_text_holds_what_the_source_prints(any_mysql_target: MysqlDatabase) -> None:
    """Created columns of types that have such values are text."""
    for relation, cases in lost_in(any_mysql_target):
        bed = Bed(any_mysql_target, relation, Unrepresentable.TEXT)
        printed = bed.put(*([c.value, None] for c in cases))
        assert printed == [[c.value.encode(), None] for c in cases], bed.types


def test_text_does_not_help_a_column_that_is_there(any_mysql_target: MysqlDatabase) -> None:
    """A table of the user's keeps its types: then it is an error as ever."""
    relation = columns_relation(("real", "float4"))
    bed = Bed(any_mysql_target, relation, Unrepresentable.TEXT, ["int", "float"])
    with pytest.raises(PermanentError, match="column c0: NaN cannot be kept in float") as refused:
        bed.put_one(0, "NaN")
    assert "make column c0 a text type on the target" in refused.value.hint


def test_null_does_not_stand_where_it_cannot(any_mysql_target: MysqlDatabase) -> None:
    """A column that is NOT NULL there, or of the key, stays an error."""
    relation = columns_relation(("real", "float4"))
    bed = Bed(any_mysql_target, relation, Unrepresentable.NULL, ["int", "float NOT NULL"])
    with pytest.raises(PermanentError, match="column c0: NaN cannot be kept in float") as refused:
        bed.put_one(0, "NaN")
    assert "NOT NULL on the target or part of the key" in refused.value.hint
    key = Relation("public", "t", (Column("c", "date", "date"),), (0,), relation.format)
    bed = Bed(any_mysql_target, key, Unrepresentable.NULL)
    with pytest.raises(PermanentError, match="column c: an infinite date cannot be kept in date"):
        bed.write_rows([(b"infinity",)])
