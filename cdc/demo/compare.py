"""Source and target, row by row and column by column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cdc.demo.copies import Copy, Key, Missing, PostgresCopy, Row, Table

SHOWN: Final = 10
"""Differences of a table that are named; the others are counted."""


@dataclass(slots=True)
class Compared:
    """One table. Equal only if every row of either side has its equal on the other."""

    table: str
    rows: int = 0
    """On the source."""
    differences: int = 0
    named: list[str] = field(default_factory=list)
    """The first of them, in words."""

    def differ(self, what: str) -> None:
        self.differences += 1
        if len(self.named) < SHOWN:
            self.named.append(what)


def compare(source: PostgresCopy, target: Copy, tables: Sequence[str]) -> list[Compared]:
    """Reads both sides while nobody writes."""
    return [_compare(source, target, source.table(name)) for name in tables]


def _compare(source: PostgresCopy, target: Copy, table: Table) -> Compared:
    ours = source.select(table, target.expected(table))
    compared = Compared(table.name, len(ours))
    try:
        theirs = target.rows(table)
    except Missing as e:
        compared.differ(f"{table.name}: cannot be read on the target: {e}")
        return compared
    left: dict[Key, Row] = {}
    for row in theirs:
        if left.setdefault(table.key_of(row), row) is not row:
            compared.differ(f"{_named(table, row)}: more than once on the target")
    for row in ours:
        copy = left.pop(table.key_of(row), None)
        if copy is None:
            compared.differ(f"{_named(table, row)}: missing on the target")
        elif wrong := list(_unequal(table, row, copy)):
            compared.differ(f"{_named(table, row)}: other values of {', '.join(wrong)}")
    for row in left.values():
        compared.differ(f"{_named(table, row)}: only on the target")
    return compared


def _unequal(table: Table, ours: Row, theirs: Row) -> Iterator[str]:
    """The columns in which two rows differ."""
    for name, our, their in zip(table.columns, ours, theirs, strict=True):
        if not _is_same(our, their):
            yield name


def _is_same(our: Any, their: Any) -> bool:
    """Value and type: 1 is not 1.0 and not '1', 0.0 is not -0.0. SQLite has no booleans, and NaN is a
    text there."""
    if isinstance(our, bool):
        our = int(our)
    elif isinstance(our, float):
        return (repr(our) if our == our else "'NaN'") == repr(their)  # noqa: PLR0124 - asks for NaN
    return type(our) is type(their) and our == their


def _named(table: Table, row: Row) -> str:
    key = ", ".join(f"{table.columns[i]} = {row[i]}" for i in table.key)
    return f"{table.name} ({key})"
