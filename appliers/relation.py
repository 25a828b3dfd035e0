"""The shape of a table as a source describes it, and how to read the images of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NewType

from appliers import images
from appliers.delta import UNCHANGED, Value
from appliers.images import Format

Key = NewType("Key", tuple[bytes, ...])
"""A row's key values as the source sent them. Equal keys are the same row; the same row may have
unequal keys where the database's equality is wider than that of bytes (numeric 1.0 and 1.00,
citext): then a change of one into the other reaches us as a change of the key."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a source table.

    `type` is what the source's own DDL calls it, with its modifiers, in the relation's dialect:
    `numeric(10,2)`, `character varying(40)`, `public.mood`. `base` is the same after domains are
    resolved, without schema and modifiers: `numeric`, `varchar`, `mood`. `kind` is one of `base`,
    `enum`, `composite`, `range`, `multirange`, `array` (of the base type). `portable` says that
    the binary form means the same on every server of the dialect (no object identifiers inside).
    `folds` says that the source takes texts for one value that differ by case, and maybe by more.
    `collation` is the rule by which a MySQL source compares the column's texts; "" elsewhere.
    """

    name: str
    type: str
    base: str
    kind: str = "base"
    nullable: bool = True
    portable: bool = True
    folds: bool = False
    collation: str = ""


@dataclass(frozen=True, eq=False)
class Relation:
    """One shape of one source table, with the format of its images.

    Equal only to itself: a source makes a new one when the table's shape changes, and what is
    compiled for one (codecs, statements) is kept under it.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key_columns: tuple[int, ...]
    """Indices of the columns that identify a row, in the key's order."""
    format: Format
    dialect: str = "postgres"
    """sqlglot's name of the source's SQL dialect: says how `Column.type` is to be read."""
    customer_columns: tuple[int, ...] = ()
    """Indices of the columns that hold the customer's key; empty for a table of no customer."""
    whole_before: bool = False
    """Whether `before` images are whole old rows (replica identity FULL); else only their key columns
    are set and the others read as None. Sources fill UNCHANGED values from whole old rows."""
    ident: int = field(default=0, compare=False)
    """The source's own number for the table (PostgreSQL: its oid); 0 where it has none that lasts."""
    home: str = "public"
    """The source's schema that a name without one means (MySQL: the database of the URL). Its tables
    go where a name without a schema goes on the target."""

    @property
    def table(self) -> str:
        """`schema.name`: how configuration, checkpoint, status and deltas call the table."""
        return f"{self.schema}.{self.name}"

    @cached_property
    def key_names(self) -> tuple[str, ...]:
        return tuple(self.columns[i].name for i in self.key_columns)

    @cached_property
    def values(self) -> Callable[[bytes], tuple[Value, ...]]:
        """Reads an image: one value per column, in order. Raises `ImageError` on a damaged one."""
        return images.compile_values(self.format, len(self.columns))

    @cached_property
    def key(self) -> Callable[[bytes], Key]:
        """Reads the key out of an image, be it a whole row or only its key."""
        return images.compile_key(self.format, len(self.columns), self.key_columns)

    @cached_property
    def updates(self) -> images.Updates:
        """Reduces deltas at once that are nothing but updates of different rows."""
        return images.compile_updates(self.format, len(self.columns), self.key_columns)

    @cached_property
    def has_unchanged(self) -> Callable[[bytes], bool]:
        """Whether an image has `UNCHANGED` values; one C-level search for most images."""
        return images.compile_has_unchanged(self.format, len(self.columns))

    def customer(self, before: bytes | None, after: bytes | None) -> str | None:
        """The customer that a change belongs to, from the new image or else the old one."""
        for image in (after, before):
            if image is None or not self.customer_columns:
                continue
            row = self.values(image)
            found = [row[i] for i in self.customer_columns]
            if all(v is not None and v is not UNCHANGED for v in found):
                return ",".join(
                    self._text(i, v) for i, v in zip(self.customer_columns, found, strict=True)
                )
        return None

    def _text(self, index: int, value: Value) -> str:
        if not isinstance(value, bytes):
            return str(value)
        if self.format.binary:
            return images.binary_key_text(self.columns[index].base, value)
        return value.decode()


def index_of(columns: Sequence[Column], names: Sequence[str]) -> tuple[int, ...]:
    """The indices of `names` in `columns`. Raises KeyError with the first name that is not there."""
    at = {c.name: i for i, c in enumerate(columns)}
    return tuple(at[n] for n in names)
