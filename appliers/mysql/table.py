"""One relation's table on the target: how images get into it, and the statements for single rows.

The statements for staged sets stand in `staged.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from appliers.errors import PermanentError
from appliers.images import ImageError
from appliers.lines import GAP, NULL
from appliers.mysql import literals, values
from appliers.mysql.catalog import TargetColumn, TargetTable, UniqueIndex
from appliers.mysql.demands import (
    demand_columns,
    demand_engine,
    demand_key,
    demand_key_columns,
)
from appliers.mysql.names import folded, listed, quoted
from appliers.mysql.types import Flavour, created_columns
from appliers.relation import Relation
from appliers.unrepresentable import DEFAULT, Nulled, Unrepresentable

T = "`cdc t`"
BINARY_RULE: dict[Flavour, str] = {"mariadb": "utf8mb4_nopad_bin", "mysql": "utf8mb4_0900_bin"}
"""The collation that compares bytes and blanks at the end too."""

Row = Callable[[bytes], bytes]
Rows = Callable[[list[bytes]], bytes]


class Table:
    """How images of `relation` get into `target`. Raises PermanentError if they do not fit.

    Rows are found by the key under the target's rule and byte for byte: where the target's collation
    takes two keys of the source for one, the row of one is never written over the other's. The
    second one then meets the unique index, which is an error by name.
    """

    def __init__(
        self,
        relation: Relation,
        target: TargetTable,
        server: tuple[Flavour, tuple[int, ...]],
        policy: Unrepresentable = DEFAULT,
        nulled: Nulled | None = None,
    ) -> None:
        """`server` is the target's flavour and version."""
        flavour, version = server
        demand_key_columns(relation)
        demand_engine(relation, target)
        own = demand_columns(relation, target, created_columns(relation, flavour, policy, version))
        self.relation = relation
        self.target = target
        self.flavour: Flavour = flavour
        self.own = own
        self.index = demand_key(relation, target)
        self.key = relation.key_columns
        self.written = tuple(i for i, c in enumerate(own) if not c.generated)
        """The columns that are written; those that the target computes are not."""
        self.uniques = [u for u in target.uniques if u is not self.index]
        self.exact = all(own[i].exact for i in self.key)
        # Where the source takes `ab` and `Ab` for one key as well, a row that was copied may stand in
        # the way of what it was called before. Elsewhere both are rows.
        inexact = [(relation.columns[i], own[i]) for i in self.key if not own[i].exact]
        folds = any(c.folds or c.collation == there.collation for c, there in inexact)
        self._folding = [self.index] if folds else []
        self.hex = frozenset(i for i, c in enumerate(own) if values.is_hex(c))
        """Columns whose values are given as hexadecimal digits."""
        self.line = values.compile_line(relation, own, policy, nulled, flavour, version)
        self._no_null = [
            i
            for i in self.written
            if i not in self.key and (own[i].auto_increment or _takes_now(own[i]))
        ]
        self._rows: dict[tuple[int, ...], Row] = {}
        self._written_as = [literals.written(hexadecimal=i in self.hex) for i in range(len(own))]
        self._compared_as = [
            literals.compared(c, hexadecimal=i in self.hex) for i, c in enumerate(own)
        ]

    @property
    def subject(self) -> str:
        """How errors name it."""
        return f"table {self.relation.table} (key {', '.join(self.relation.key_names)})"

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def simple(self) -> bool:
        """Whether ON DUPLICATE KEY UPDATE can only mean the row of the key: it acts on whatever unique
        index is met first (MySQL manual, "INSERT ... ON DUPLICATE KEY UPDATE"). To be asked of a table
        that nobody can alter any more (`Work.is_simple`)."""
        return not self.uniques and self.exact

    def names(self, columns: Iterable[int]) -> list[str]:
        """The target's names of the relation's columns."""
        return [self.own[i].name for i in columns]

    def settable(self, columns: Iterable[int]) -> list[int]:
        """Those of `columns` that an UPDATE sets."""
        given = set(columns)
        return [i for i in self.written if i in given and i not in self.key]

    def kept(self, columns: Iterable[int]) -> list[str]:
        """Columns that would change by themselves in an UPDATE that does not set them."""
        given = set(columns)
        return [
            c.name
            for i, c in enumerate(self.own)
            if c.changes_itself and i not in given and i not in self.key
        ]

    # -- images -----------------------------------------------------------------------------------

    def row_of(self, columns: Sequence[int]) -> Row:
        """A function from an image to a line that holds `columns`. Raises ImageError for a gap."""
        made = self._rows.get(columns := tuple(columns))
        if made is None:
            made = self._rows[columns] = self._made_row(columns)
        return made

    def rows_of(self, columns: Sequence[int]) -> Rows:
        """The same of many images, to lines behind each other."""
        row = self.row_of(columns)
        if not (columns and self.passes and tuple(columns) == tuple(self.written)):
            return lambda images: b"".join(map(row, images))

        def passing(images: list[bytes]) -> bytes:
            # One search for gaps in all of them: 0.2 µs a row less than in each.
            data = b"".join(images)
            return b"".join(map(row, images)) if GAP in data else data

        return passing

    @cached_property
    def passes(self) -> bool:
        """Whether whole images are lines for the written columns as they are."""
        whole = len(self.written) == len(self.own)
        return whole and self.line is None and not self._no_null

    def fields(self, image: bytes) -> list[bytes]:
        """An image's fields, as they stand in a line; GAP among them."""
        line = image if self.line is None else self.line(image)
        fields = line.removesuffix(b"\n").split(b"\t")
        if len(fields) != len(self.own):
            raise ImageError(f"expected {len(self.own)} columns, got {len(fields)}")
        return fields

    def row_fields(self, image: bytes) -> list[bytes]:
        """The same of a row that is to be written, not only found by its key."""
        fields = self.fields(image)
        for i in self._no_null:
            if fields[i] == NULL:
                raise self._null_refused(i)
        return fields

    def _made_row(self, columns: tuple[int, ...]) -> Row:
        convert, whole, number = self.line, columns == tuple(range(len(self.own))), len(self.own)
        fields = self.fields
        no_null = [i for i in self._no_null if i in columns]

        def every(image: bytes) -> bytes:
            line = image if convert is None else convert(image)
            if GAP in line and GAP in line[:-1].split(b"\t"):
                raise ImageError("a row with UNCHANGED values is not whole")
            return line

        def some(image: bytes) -> bytes:
            found = fields(image)
            for i in no_null:
                if found[i] == NULL:
                    raise self._null_refused(i)
            wanted = [found[i] for i in columns]
            if GAP in wanted:
                raise ImageError("a row with UNCHANGED values is not whole")
            return b"\t".join(wanted) + b"\n"

        return every if whole and number and not no_null else some

    def _null_refused(self, index: int) -> PermanentError:
        name = self.own[index].name
        return PermanentError(
            f"table {self.relation.table}: NULL in column {name}, for which the target would make up a"
            " value",
            f"make column {name} on the target an ordinary one that may be NULL",
        )

    # -- statements for one row; `fields` are the relation's columns --------------------------------

    def upsert_row(self, fields: Sequence[bytes]) -> list[bytes]:
        """Writes a whole row over what is there. Not by ON DUPLICATE KEY UPDATE, which would write
        over another row if somebody had given the table another unique index meanwhile."""
        names = listed(self.names(self.written)).encode()
        row = b", ".join([self._written_as[i](fields[i]) for i in self.written])
        there = b"SELECT 1 FROM %s AS %s WHERE %s" % (
            self._sql_name,
            T.encode(),
            self.match(fields),
        )
        insert = b"INSERT INTO %s (%s) SELECT %s FROM DUAL WHERE NOT EXISTS (%s)"
        sql = [insert % (self._sql_name, names, row, there)]
        sets = self.settable(self.written)
        return [self.update_row(self.written, fields), *sql] if sets else sql

    def update_row(self, columns: Sequence[int], fields: Sequence[bytes]) -> bytes:
        """Sets `columns` of the row. Where only the key is given, looks whether the row is there."""
        target = self._sql_name + b" AS " + T.encode()
        given = self.settable(columns)
        where = b" WHERE " + self.match(fields)
        if not given:
            return b"SELECT 1 FROM " + target + where
        sets = [
            b"%s = %s" % (quoted(self.own[i].name).encode(), self._written_as[i](fields[i]))
            for i in given
        ]
        sets += [f"{quoted(n)} = {T}.{quoted(n)}".encode() for n in self.kept(given)]
        return b"UPDATE " + target + b" SET " + b", ".join(sets) + where

    def move_row(self, old: Sequence[bytes], fields: Sequence[bytes]) -> bytes:
        """Gives the row of the key in `old` another key, and all that `fields` has."""
        given = [i for i in self.written if fields[i] != GAP]
        sets = [
            b"%s = %s" % (quoted(self.own[i].name).encode(), self._written_as[i](fields[i]))
            for i in given
        ]
        sets += [f"{quoted(n)} = {T}.{quoted(n)}".encode() for n in self.kept(given)]
        target = self._sql_name + b" AS " + T.encode()
        return b"UPDATE %s SET %s WHERE %s" % (target, b", ".join(sets), self.match(old))

    def delete_row(self, fields: Sequence[bytes]) -> bytes:
        t = T.encode()
        return (
            b"DELETE "
            + t
            + b" FROM "
            + self._sql_name
            + b" AS "
            + t
            + b" WHERE "
            + self.match(fields)
        )

    def match(self, fields: Sequence[bytes]) -> bytes:
        """The condition on the row of the key."""
        parts = []
        for i in self.key:
            value = self._compared_as[i](fields[i])
            column = f"{T}.{quoted(self.own[i].name)}".encode()
            parts.append(column + b" = " + value)
            if not self.own[i].exact:
                parts.append(self.exactly(column.decode()).encode() + b" = " + value)
        return b" AND ".join(parts)

    def equal(self, index: int, text: bytes) -> bytes:
        """The condition that a column has a value, given as a field."""
        column = f"{T}.{quoted(self.own[index].name)}".encode()
        return column + b" = " + self._compared_as[index](text)

    def same(self, index: int, text: bytes) -> bytes:
        """`equal`, byte for byte: what the target's collation takes for equal is another value."""
        value = self._compared_as[index](text)
        if self.own[index].exact:
            return self.equal(index, text)
        column = f"{T}.{quoted(self.own[index].name)}"
        return self.equal(index, text) + b" AND " + self.exactly(column).encode() + b" = " + value

    def alike(self, index: int | None, one: str, other: str) -> str:
        """The condition that two texts which the target takes for equal in a column (None: an expression)
        are so for the source too, so that two rows cannot both have them: ` AND …`, or nothing.

        Of a source that knows no case by a rule that the target's column has not, only what differs in
        case alone: what else it takes for equal is not known here."""
        if index is None or self.own[index].exact:
            return ""
        column = self.relation.columns[index]
        if column.collation == self.own[index].collation:
            return ""
        ways = ("LOWER({})", "UPPER({})") if column.folds else ("{}",)
        return "".join(
            f" AND {self.exactly(way.format(one))} = {self.exactly(way.format(other))}"
            for way in ways
        )

    def place(self, column: str | None) -> int | None:
        """Which of the relation's columns a name on the target is."""
        names = [folded(c.name) for c in self.own]
        name = folded(column or "")
        return names.index(name) if name in names else None

    def exactly(self, expression: str) -> str:
        """A text to be compared byte for byte, whatever its character set and collation."""
        return f"CONVERT({expression} USING utf8mb4) COLLATE {BINARY_RULE[self.flavour]}"

    def stale_row(self, columns: Sequence[int], fields: Sequence[bytes]) -> list[bytes]:
        """Deletes rows of other keys that hold a unique value of the row. Those that rows cannot be
        looked up by are left to `staged.stale`."""
        sql = []
        head = b"DELETE " + T.encode() + b" FROM " + self._sql_name + b" AS " + T.encode()
        at = {folded(c.name): i for i, c in enumerate(self.own)}
        for index in self.stale_indexes(columns, dear=False):
            held = [at[folded(n)] for n in index.plain or ()]
            if all(fields[i] != NULL for i in held):
                equal = b" AND ".join(self._held(i, fields[i]) for i in held)
                sql.append(
                    head + b" WHERE " + equal + b" AND (" + self.match(fields) + b") IS NOT TRUE"
                )
        return sql

    def _held(self, index: int, text: bytes) -> bytes:
        """The condition that a row has a value which for the source, too, is that of `text`."""
        value = self._compared_as[index](text).decode(errors="surrogateescape")
        own = self.alike(index, f"{T}.{quoted(self.own[index].name)}", value)
        return self.equal(index, text) + own.encode(errors="surrogateescape")

    def stale_indexes(self, columns: Iterable[int], *, dear: bool) -> list[UniqueIndex]:
        """The unique indexes, but for the key's own, whose columns are all given, so that a row in the
        way can be found. `dear` are those that rows cannot be looked up by: over expressions, prefixes,
        hashes."""
        given = {folded(n) for n in self.names({*columns, *self.key})}
        every = {folded(c.name) for c in self.own} <= given
        found = []
        for index in [*self.uniques, *self._folding]:
            is_dear = index.plain is None or not index.usable
            known = all(
                every if p.expression is not None else folded(p.column or "") in given
                for p in index.parts
            )
            if known and (dear or not is_dear):
                found.append(index)
        return found

    def is_half_given(self, columns: Iterable[int]) -> bool:
        """Whether some columns of a unique index are set and others are not: then whose value it is
        cannot be told from the change alone."""
        given = {folded(n) for n in self.names(columns)}
        for index in self.uniques:
            names = {folded(p.column) for p in index.parts if p.column is not None}
            ours = names & {folded(c.name) for c in self.own}
            if ours & given and not ours <= given | {folded(n) for n in self.names(self.key)}:
                return True
        return False

    # -- parts ------------------------------------------------------------------------------------

    @cached_property
    def _sql_name(self) -> bytes:
        return self.target.sql_name.encode()


def _takes_now(column: TargetColumn) -> bool:
    """Whether NULL means the current time (explicit_defaults_for_timestamp = OFF)."""
    return column.data_type == "timestamp" and not column.nullable
