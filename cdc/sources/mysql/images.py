"""Functions generated for a table's rows: from the bytes of one row to its line.

All names in the code are ours and all literals are numbers: nothing of a table's names or values gets
into it. There is one function for each pattern of NULLs, so that fixed-size columns next to each other
are one call of struct; a table with more patterns than `MOST` gets one with a test for each column.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from appliers.extension import extension
from appliers.lines import GAP, NULL, escape
from cdc.sources.mysql.pieces import Code, Native

if TYPE_CHECKING:
    from cdc.sources.mysql._rows import Lines

Row = Callable[[bytes, int], tuple[bytes, int, int]]
"""From an event's body and a position in it: the row's line, where the row ends, and how many
backslashes the line has if no value needed escaping."""

_Lines: type[Lines] | None = extension("cdc.sources.mysql._rows", "Lines")

ABSENT: Final = Native("year", 1)
"""Of a column that the log does not carry: whatever it is, nothing is read."""

MOST: Final = 32
"""Patterns of NULLs for which a function of their own is made: 0.1 ms for each column."""


class Images:
    """The images of rows that carry the same columns of one table."""

    def __init__(
        self,
        columns: Sequence[Code],
        present: Sequence[bool],
        *,
        wanted: frozenset[int] | None = None,
        escaped: bool = False,
    ) -> None:
        """`columns` are all of the table's; those that are not `wanted` are stepped over and NULL in
        the line. `escaped` has every text looked at, one by one."""
        self._columns, self._present = columns, present
        self._wanted = frozenset(range(len(columns))) if wanted is None else wanted
        self._escaped = escaped
        self.known: dict[bytes, Row] = {}
        """The functions that were made, by the bitmap of NULLs."""
        self._careful: Images | None = None
        self._any: Row | None = None
        self.count = sum(present)
        self.whole = self.count == len(columns)
        self.octets = (self.count + 7) // 8
        """Of the bitmap of NULLs that stands before each row."""
        self.text = any(columns[i].text and present[i] for i in self._wanted)
        """Whether anything in a line could have to be escaped."""
        self.compiled = self._native()
        """What reads whole events in C; None where it cannot read a column or was not built."""

    def _native(self) -> Lines | None:
        columns = []
        for index, (code, here) in enumerate(zip(self._columns, self._present, strict=True)):
            native = code.native if here else ABSENT
            if native is None:
                return None
            columns.append((here, index in self._wanted, *native))
        return None if _Lines is None else _Lines(tuple(columns))

    def row(self, nulls: bytes) -> Row:
        """The function for rows with these NULLs."""
        found = self.known.get(nulls) or self._any
        if found is None:
            if len(self.known) < MOST:
                found = self.known[nulls] = _compiled(self._straight(nulls))
            else:
                found = self._any = _compiled(self._branching())
        return found

    def careful(self) -> Images:
        """The same images with every text looked at, one by one."""
        if self._careful is None:
            self._careful = Images(self._columns, self._present, wanted=self._wanted, escaped=True)
        return self._careful

    def _straight(self, nulls: bytes) -> _Source:
        source = _Source()
        source.line(f"p += {self.octets}")
        form, values = [], []
        number = 0
        for index, (column, here) in enumerate(zip(self._columns, self._present, strict=True)):
            if not here:
                form.append(GAP)
                continue
            null = number // 8 < len(nulls) and nulls[number // 8] >> number % 8 & 1
            number += 1
            if null or index not in self._wanted:
                form.append(NULL)
                if not null:
                    source.skip(column)
                continue
            form.append(column.form)
            values += source.column(index, column, self._escaped)
        source.flush()
        source.scope["FORM"] = b"\t".join(form) + b"\n"
        backslashes = sum(piece.count(b"\\") for piece in form)
        source.line(f"return FORM % ({''.join(f'{v}, ' for v in values)}), p, {backslashes}")
        return source

    def _branching(self) -> _Source:
        source = _Source()
        source.line("n = p")
        source.line(f"p += {self.octets}")
        source.line("k = 0")
        fields = []
        number = 0
        for index, (column, here) in enumerate(zip(self._columns, self._present, strict=True)):
            if not here:
                source.line("k += 1")
                fields.append("GAP")
                continue
            if index not in self._wanted:
                fields.append("NULL")
                source.line("k += 1")
                source.line(f"if not m[n + {number // 8}] & {1 << number % 8}:")
                number += 1
                with source.indented():
                    source.skip(column)
                    source.flush()
                continue
            fields.append(f"t{index}")
            source.line(f"if m[n + {number // 8}] & {1 << number % 8}:")
            source.line(f"    t{index} = NULL")
            source.line("    k += 1")
            source.line("else:")
            number += 1
            with source.indented():
                values = source.column(index, column, self._escaped)
                source.flush()
                source.scope[f"form{index}"] = column.form
                source.line(f"t{index} = form{index} % ({''.join(f'{v}, ' for v in values)})")
                source.line(f"k += {column.form.count(bytes((92,)))}")
        source.line(f"return tab(({''.join(f'{f}, ' for f in fields)})) + b'\\n', p, k")
        return source


class _Indented:
    def __init__(self, source: _Source) -> None:
        self._source = source

    def __enter__(self) -> None:
        self._source.indent += "    "

    def __exit__(self, *error: object) -> None:
        self._source.indent = self._source.indent[:-4]


class _Source:
    """Code in the making, and what it refers to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.indent = "    "
        self.scope: dict[str, Any] = {"NULL": NULL, "GAP": GAP, "escape": escape, "tab": b"\t".join}
        self._order = ""
        self._letters = ""
        self._slots: list[str] = []
        self._after: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(self.indent + text)

    def indented(self) -> _Indented:
        return _Indented(self)

    def column(self, index: int, code: Code, escaped: bool) -> list[str]:
        """Adds what reads a column; returns the expressions of its values."""
        names = {name: f"{name}{index}" for name in code.names}
        self.scope.update({names[name]: value for name, value in code.names.items()})
        slots: list[str] = []
        if code.slots:
            if self._order and code.order and self._order != code.order:
                self.flush()
            count = 1 if code.slots[-1] == "s" else len(code.slots)
            slots = [f"s{index}_{number}" for number in range(count)]
            self._order = self._order or code.order
            self._letters += code.slots
            self._slots += slots
        else:
            self.flush()
        words = {"v": f"v{index}", **names}
        read = [text.format(*slots, **words) for text in code.read]
        if code.slots:
            self._after += read
        else:
            for text in read:
                self.line(text)
        values = [text.format(*slots, **words) for text in code.values]
        return [f"escape({v})" for v in values] if escaped and code.text else values

    def skip(self, code: Code) -> None:
        """Adds what steps over a column."""
        if code.slots:
            self._letters += f"{struct.calcsize('<' + code.slots)}x"
            return
        self.flush()
        for text in code.skip:
            self.line(text)

    def flush(self) -> None:
        """Reads the fixed-size columns that have come one after the other."""
        if not self._letters:
            return
        run = struct.Struct((self._order or "<") + self._letters)
        name = f"run{len(self.lines)}"
        self.scope[name] = run.unpack_from
        if self._slots:
            self.line(f"{''.join(f'{s}, ' for s in self._slots)}= {name}(m, p)")
        self.line(f"p += {run.size}")
        for text in self._after:
            self.line(text)
        self._order = self._letters = ""
        self._slots, self._after = [], []


def _compiled(source: _Source) -> Row:
    text = "\n".join(["def row(m, p):", *source.lines])
    exec(text, source.scope)  # noqa: S102 - see the module's docstring
    return source.scope["row"]  # type: ignore[no-any-return]
