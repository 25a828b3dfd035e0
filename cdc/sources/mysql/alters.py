"""What the actions of an ALTER TABLE do to rows that are there already.

The log has the statement and no row: where a column's values may be others now, or a new column has
values at once, only the source can tell them. Sources: "ALTER TABLE" in the MySQL and MariaDB manuals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_NO_COLUMN: Final = frozenset(
    "INDEX KEY UNIQUE PRIMARY FULLTEXT SPATIAL FOREIGN CONSTRAINT CHECK PARTITION".split()
)
"""What ADD adds that is no column: reserved words."""
_NO_COLUMN_BEFORE: Final = {
    "PERIOD": ("FOR",),
    "SYSTEM": ("VERSIONING",),
    "VECTOR": ("INDEX", "KEY"),
}
"""Words that are such only before these, else names."""
_FILLED: Final = frozenset(["AUTO_INCREMENT", "SERIAL", "TIMESTAMP", "AS", "GENERATED", "PRIMARY"])
"""A column with one of these has values in old rows. (TIMESTAMP: the time of the statement, without
explicit_defaults_for_timestamp.)"""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    upper: str
    """Empty for what is quoted: no keyword."""
    name: bool
    """Whether it can name something."""


def parted(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """The actions: what commas outside of brackets part."""
    depth = start = 0
    for i, word in enumerate(words):
        if word.upper in ("(", ")"):
            depth += 1 if word.upper == "(" else -1
        elif word.upper == "," and depth == 0:
            yield words[start:i]
            start = i + 1
    yield words[start:]


def rewritten(actions: Sequence[Sequence[Word]]) -> str | None:
    """The first words of an action after which rows may have other values than the log has told, or
    may be gone; None: there is none."""
    renames = [names for action in actions if (names := _renamed(action))]
    freed = {_column(action)[0].text.lower() for action in actions if _drops(action)}
    freed.update(old for old, _ in renames)
    if any(new in freed for _, new in renames):
        # Columns have exchanged names: what rows have under one is another column's now.
        return "RENAME COLUMN"
    for action in actions:
        verb = _at(action, 0)
        if verb in ("MODIFY", "CHANGE", "CONVERT"):
            return verb
        if verb == "ADD" and _adds_primary_key(action):
            return "ADD PRIMARY KEY"
        if verb == "ADD" and _adds_values(action, freed):
            return "ADD COLUMN"
        if verb == "DROP" and (_at(action, 1), _at(action, 2)) == ("SYSTEM", "VERSIONING"):
            return "DROP SYSTEM VERSIONING"
        if verb not in ("ADD", "DROP", "ALTER", "RENAME") and _leaves(action):
            return "ENGINE"
    return None


def versioned(actions: Sequence[Sequence[Word]]) -> bool:
    """Whether the table keeps the history of its rows from now on (MariaDB)."""
    return any(
        _at(a, 0) == "ADD" and (_at(a, 1), _at(a, 2)) == ("SYSTEM", "VERSIONING") for a in actions
    )


def _at(action: Sequence[Word], index: int) -> str:
    return action[index].upper if index < len(action) else ""


def _column(action: Sequence[Word]) -> Sequence[Word]:
    """From the column's name on, or from the bracket around several."""
    at = 1
    while _at(action, at) in ("COLUMN", "IF", "NOT", "EXISTS"):
        at += 1
    return action[at:]


def _drops(action: Sequence[Word]) -> bool:
    return _at(action, 0) == "DROP" and bool(_column(action)) and _column(action)[0].name


def _renamed(action: Sequence[Word]) -> tuple[str, str] | None:
    """The old and the new name of RENAME COLUMN, which are compared without regard to case."""
    if (_at(action, 0), _at(action, 1)) != ("RENAME", "COLUMN"):
        return None
    old, _, new = _column(action)[:3]
    return old.text.lower(), new.text.lower()


def _adds_primary_key(action: Sequence[Word]) -> bool:
    """Its columns become NOT NULL: without a strict sql_mode, NULLs become zeros or empty texts."""
    at = 1
    if _at(action, at) == "CONSTRAINT":
        at += 1 if _at(action, at + 1) == "PRIMARY" else 2
    return (_at(action, at), _at(action, at + 1)) == ("PRIMARY", "KEY")


def _adds_values(action: Sequence[Word], freed: set[str]) -> bool:
    kind, then = _at(action, 1), _at(action, 2)
    if kind in _NO_COLUMN or then in _NO_COLUMN_BEFORE.get(kind, ()):
        return False
    rest = _column(action)
    uppers = [word.upper for word in rest]
    if _FILLED.intersection(uppers[1:]) or any(w.text.lower() in freed for w in rest if w.name):
        return True
    pairs = list(zip(uppers, [*uppers[1:], ""], strict=True))[1:]
    return any(
        (one == "NOT" and two == "NULL") or (one == "DEFAULT" and two != "NULL")
        for one, two in pairs
    )


def _leaves(action: Sequence[Word]) -> bool:
    """Whether table options name another engine than InnoDB."""
    for i, word in enumerate(action):
        if word.upper == "ENGINE":
            named = [w.text.upper() for w in action[i + 1 : i + 3] if w.text != "="]
            return named[:1] != ["INNODB"]
    return False
