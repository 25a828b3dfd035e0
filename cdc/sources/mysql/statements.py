"""What a statement in the log does to tables that are synced.

Rows come as row events. A statement matters where it does what no row event says: it empties a table,
puts another in its place, gives it another shape, or was logged instead of its rows. Statements are cut
by sqlglot's tokenizer for MySQL; its parser takes many of them for unknown commands (RENAME TABLE,
ALTER TABLE … TRUNCATE PARTITION, REPLACE), so the few grammars that matter are read here.
Sources: the SQL statement syntax of the MySQL and MariaDB manuals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from cdc.sources.mysql.alters import Word, parted, rewritten, versioned
from cdc.sources.mysql.events import ANSI_QUOTES, NO_BACKSLASH_ESCAPES
from cdc.sources.mysql.reach import DOUBLE, ROW_WRITERS, STRING, Reach, Table, reach_of


class Deed(Enum):
    TRUNCATED = "truncated"
    """It is empty now."""
    CREATED = "created"
    """It is new, and empty."""
    RENAMED = "renamed"
    """It has another name now, or is gone: nothing is there under this name."""
    REPLACED = "replaced"
    """Its rows are others now, or may be, and no row event says which."""
    ALTERED = "altered"
    """Its shape may be another."""
    VERSIONED = "versioned"
    """It keeps the history of its rows from now on."""
    WRITTEN = "written"
    """Its rows were changed by a statement that was logged in their place."""
    UNKNOWN = "unknown"
    """Named in a statement that cannot be understood."""


class Effect(NamedTuple):
    deed: Deed
    table: Table
    verb: str
    """The statement's first words, for people."""


HARMLESS: Final = frozenset(
    """ANALYZE CHECK CHECKSUM FLUSH GRANT REVOKE SET OPTIMIZE REPAIR PURGE RESET KILL INSTALL UNINSTALL
    CHANGE START STOP LOCK UNLOCK USE SHOW DESCRIBE DESC EXPLAIN HELP CACHE SHUTDOWN RESTART CLONE
    IMPORT SIGNAL BINLOG DEALLOCATE PREPARE BACKUP""".split()
)
"""First words of statements that leave rows and shapes alone. (IMPORT TABLE makes a table that was
not there; OPTIMIZE and ANALYZE are logged like DDL.)"""

WRITERS: Final = frozenset(["SELECT", "DO", "CALL", "VALUES", "TABLE", "(", "EXECUTE"])
"""First words of statements that are in the log only because a routine in them writes."""

_OBJECTS: Final = frozenset(
    """TABLE TABLES INDEX DATABASE SCHEMA VIEW TRIGGER PROCEDURE FUNCTION EVENT USER ROLE SERVER SEQUENCE
    TABLESPACE LOGFILE PACKAGE RESOURCE SPATIAL_REFERENCE INSTANCE LIBRARY JSON_DUALITY CATALOG""".split()
)
_PARTED: Final = frozenset(["DROP", "TRUNCATE", "EXCHANGE", "DISCARD", "IMPORT", "CONVERT"])
"""What ALTER TABLE does to a PARTITION or TABLESPACE that takes rows away or brings others."""

_PARTS: Final = frozenset(["PARTITION", "TABLESPACE", "TABLE"])
_RENAMED_PARTS: Final = frozenset(["COLUMN", "INDEX", "KEY"])

_REST: Final = r"""
    | `(?:[^`]|``)*`
    | (?P<comment> /\*(?!M?!).*?\*/ | \#[^\n]* | --(?=\s|$)[^\n]*)
    | (?P<mark> /\*M?!\d* | \*/ )"""


def _scanner(string: str, double: str) -> re.Pattern[str]:
    return re.compile(f"(?P<string>{string}) | (?P<double>{double}){_REST}", re.VERBOSE | re.DOTALL)


_PLAIN_STRING, _PLAIN_DOUBLE = "'(?:[^']|'')*'", '"(?:[^"]|"")*"'
_SCAN = _scanner(STRING, DOUBLE)
_SCAN_ANSI = _scanner(STRING, _PLAIN_DOUBLE)
_SCAN_UNESCAPED = _scanner(_PLAIN_STRING, _PLAIN_DOUBLE)
_WRAPPED = re.compile(
    rf"""\s*SET\s+STATEMENT\s(?:[^'"]|{STRING}|{DOUBLE})*?\sFOR\s+(?=[A-Z]+\s)"""
    r"|\s*ANALYZE\s+(FORMAT\s*=\s*\w+\s+)?(?!\s|TABLE|LOCAL|NO_WRITE)",
    re.IGNORECASE | re.DOTALL,
)
"""MariaDB: settings for one statement, and a plan with the statement's true figures: it is run."""
_STILL_WRAPPED = re.compile(r"\s*SET\s+STATEMENT\s", re.IGNORECASE)
_FIRST = re.compile(r"\s*([A-Za-z]+|\()")


def executable(text: str, mode: int = 0) -> str:
    """The statement as a session with no sql_mode would write it, without comments, and with what
    stands in the comments that the server executes."""
    bare = bool(mode & NO_BACKSLASH_ESCAPES) and "\\" in text
    ansi = bool(mode & ANSI_QUOTES) and '"' in text
    if not (bare or ansi or "/*" in text or "--" in text or "#" in text):
        return text

    def plain(m: re.Match[str]) -> str:
        if m["comment"] or m["mark"]:
            return " "
        if ansi and m["double"]:
            name = m[0][1:-1].replace('""', '"').replace("`", "``")
            return f"`{name}`"
        return m[0].replace("\\", "\\\\") if bare and (m["string"] or m["double"]) else m[0]

    return (_SCAN_UNESCAPED if bare else _SCAN_ANSI if ansi else _SCAN).sub(plain, text)


class Statements:
    """Reads statements for one set of synced tables."""

    def __init__(self, synced: Iterable[Table], *, folds_names: bool) -> None:
        self._fold = str.lower if folds_names else str
        self._synced = {self._folded(t): t for t in synced}
        # Quotes in a name are doubled where it stands in quotes; compared loosely here, exactly later.
        self._names = {
            name.lower().replace(quote, quote * 2) for _, name in self._synced for quote in '`"'
        }

    def effects(self, text: str, database: str, mode: int = 0) -> list[Effect]:
        """What the statement does to synced tables, run with this default database and sql_mode."""
        text, head = opened(text, mode)
        if head in HARMLESS:
            return []
        lowered = text.lower()
        drops_database = head == "DROP" and ("database" in lowered or "schema" in lowered)
        if head in WRITERS:
            return [Effect(Deed.UNKNOWN, ("", ""), head)]
        if not drops_database and not any(name in lowered for name in self._names):
            return []
        try:
            reach = reach_of(text, database) if head in ROW_WRITERS else None
            if reach is not None and head != "CREATE":
                found = [Effect(Deed.WRITTEN, t, reach.verb) for t in reach.written]
            else:
                found = _Reader(_words(text), database).effects()
            if reach is not None:
                found = [e._replace(deed=Deed.WRITTEN) for e in found]
        except (ValueError, IndexError):
            return [Effect(Deed.UNKNOWN, table, head) for table in self._named(lowered)]
        return [
            Effect(deed, self._synced[key], verb)
            for deed, table, verb in self._each(found)
            if (key := self._folded(table)) in self._synced
        ]

    def reach(self, text: str, database: str, mode: int = 0) -> Reach | None:
        """What a statement that writes rows names; None: it is another one. Raises ValueError for one
        that is not understood."""
        text, head = opened(text, mode)
        return reach_of(text, database) if head in ROW_WRITERS else None

    def writes_rows(self, text: str, mode: int = 0) -> bool:
        """Whether it writes rows and nothing else."""
        return opened(text, mode)[1] in (ROW_WRITERS | WRITERS) - {"CREATE"}

    def keeps_out_of(self, databases: frozenset[str]) -> bool:
        """Whether no synced table is in these databases."""
        return not {self._fold(d) for d in databases} & {key[0] for key in self._synced}

    def _each(self, found: list[Effect]) -> Iterable[Effect]:
        """With an effect on each of a database's tables for what is said of the database."""
        for effect in found:
            database, name = effect.table
            if name:
                yield effect
            else:
                wanted = self._fold(database)
                yield from (
                    Effect(effect.deed, t, effect.verb)
                    for key, t in self._synced.items()
                    if key[0] == wanted
                )

    def _folded(self, table: Table) -> Table:
        return self._fold(table[0]), self._fold(table[1])

    def _named(self, lowered: str) -> list[Table]:
        """Synced tables whose names occur as words."""
        return [
            table
            for key, table in self._synced.items()
            if re.search(rf"(?<![\w$]){re.escape(key[1].lower())}(?![\w$])", lowered)
        ]


def opened(text: str, mode: int) -> tuple[str, str]:
    """The statement as `executable` gives it, without what MariaDB wraps it in, and its first word."""
    text = executable(text, mode)
    while wrapped := _WRAPPED.match(text):
        text = text[wrapped.end() :]
    first = _FIRST.match(text)
    head = first[1].upper() if first else ""
    return text, "EXECUTE" if _STILL_WRAPPED.match(text) else head


def _words(text: str) -> list[Word]:
    """Raises ValueError for what the tokenizer does not take."""
    import sqlglot  # noqa: PLC0415 - a tenth of a second, and most logs have no DDL
    from sqlglot.errors import SqlglotError  # noqa: PLC0415

    # Of a statement that it calls a command, the tokenizer gives the rest as one text; not so behind
    # another word.
    text = f"- {text}"
    try:
        tokens = sqlglot.tokenize(text, read="mysql")[1:]
    except SqlglotError as e:
        raise ValueError(str(e)) from e
    made = []
    for token in tokens:
        quoted = token.token_type.name == "IDENTIFIER"
        literal = token.token_type.name in ("STRING", "NUMBER")
        # PRIMARY KEY and some more are one token, if nothing but spaces is between the words.
        for part in [token.text] if quoted or literal else token.text.split():
            bare = bool(re.fullmatch(r"[\w$]+", part)) and not literal
            plain = "" if quoted or literal else part.upper()
            made.append(Word(part, plain, quoted or bare))
    return made


class _Reader:
    """One statement. Raises IndexError or ValueError where it is not as expected."""

    def __init__(self, words: Sequence[Word], database: str) -> None:
        self._words = words
        self._database = database
        self._at = 0

    def effects(self) -> list[Effect]:
        head = self._next()
        if head == "TRUNCATE":
            self._skip("TABLE")
            return [Effect(Deed.TRUNCATED, self._table(), head)]
        if head == "RENAME":
            return self._rename() if self._next() in ("TABLE", "TABLES") else []
        if head in ("CREATE", "ALTER", "DROP"):
            return self._definition(head)
        raise ValueError(head)

    def _definition(self, head: str) -> list[Effect]:
        seen = set()
        while (word := self._next()) not in _OBJECTS:
            seen.add(word)
        verb = f"{head} {word}"
        if "TEMPORARY" in seen:
            return []
        if word == "INDEX":
            while self._next() != "ON":
                pass
            return [Effect(Deed.ALTERED, self._table(), verb)]
        if word in ("DATABASE", "SCHEMA") and head == "DROP":
            self._skip("IF", "EXISTS")
            return [Effect(Deed.RENAMED, (self._name(), ""), verb)]
        if word not in ("TABLE", "TABLES"):
            return []
        if head == "CREATE" and self._peek() == "IF":
            verb += " IF NOT EXISTS"
        self._skip("IF", "NOT", "EXISTS")
        if head == "DROP":
            return [Effect(Deed.RENAMED, t, verb) for t in self._list()]
        table = self._table()
        if head == "CREATE":
            kept = Deed.VERSIONED if self._keeps_history() else Deed.CREATED
            return [Effect(kept, table, verb)]
        return self._alter(table, ignoring="IGNORE" in seen)

    def _keeps_history(self) -> bool:
        uppers = [word.upper for word in self._words]
        return ("WITH", "SYSTEM", "VERSIONING") in zip(uppers, uppers[1:], uppers[2:], strict=False)

    def _alter(self, table: Table, *, ignoring: bool) -> list[Effect]:
        """The actions behind ALTER TABLE t. `ignoring`: rows that do not fit are left out or made to
        fit (MariaDB)."""
        verb = "ALTER TABLE"
        self._skip("NOWAIT")
        if self._peek() == "WAIT":
            self._at += 2  # and its seconds
        actions = list(parted(self._words[self._at :]))
        for action in actions:
            if len(action) > 1 and action[0].upper in _PARTED and action[1].upper in _PARTS:
                verb = f"{verb} … {action[0].upper} {action[1].upper}"
                others = [Effect(Deed.REPLACED, t, verb) for t in self._mentioned()]
                return [Effect(Deed.REPLACED, table, verb), *others]
        if versioned(actions):
            return [Effect(Deed.VERSIONED, table, f"{verb} … ADD SYSTEM VERSIONING")]
        found = [Effect(Deed.ALTERED, table, verb)]
        if (what := "IGNORE" if ignoring else rewritten(actions)) is not None:
            found = [Effect(Deed.REPLACED, table, f"{verb} … {what}")]
        for action in actions:
            if action and action[0].upper == "RENAME" and action[1].upper not in _RENAMED_PARTS:
                return _moved(
                    [(table, _Reader(action[1:], self._database).renamed())], f"{verb} … RENAME"
                )
        return found

    def renamed(self) -> Table:
        """What stands behind ALTER TABLE … RENAME."""
        self._skip("TO", "AS", "=")
        return self._table()

    def _rename(self) -> list[Effect]:
        self._skip("IF", "EXISTS")
        pairs: list[tuple[Table, Table]] = []
        while True:
            old = self._table()
            while self._next() != "TO":
                pass
            pairs.append((old, self._table()))
            if self._peek() != ",":
                return _moved(pairs, "RENAME TABLE")
            self._at += 1

    def _list(self) -> list[Table]:
        tables = [self._table()]
        while self._peek() == ",":
            self._at += 1
            tables.append(self._table())
        return tables

    def _mentioned(self) -> list[Table]:
        """Every name, with and without what stands before its dot: more than are concerned, never fewer."""
        found: list[Table] = []
        words = self._words
        for i in range(self._at, len(words)):
            if words[i].name:
                found.append((self._database, words[i].text))
                if i >= 2 and words[i - 1].upper == ".":
                    found.append((words[i - 2].text, words[i].text))
        return found

    def _table(self) -> Table:
        first = self._name()
        if self._peek() == ".":
            self._at += 1
            return first, self._name()
        return self._database, first

    def _name(self) -> str:
        word = self._words[self._at]
        if not word.name:
            raise ValueError(word.text)
        self._at += 1
        return word.text

    def _next(self) -> str:
        self._at += 1
        return self._words[self._at - 1].upper

    def _peek(self) -> str:
        return self._words[self._at].upper if self._at < len(self._words) else ""

    def _skip(self, *keywords: str) -> None:
        while self._peek() in keywords and self._peek():
            self._at += 1


def _moved(pairs: Sequence[tuple[Table, Table]], verb: str) -> list[Effect]:
    """What renames in their order come to: a table that was given its own name back is the same."""
    origin: dict[Table, Table] = {}
    gone: list[Table] = []
    for old, new in pairs:
        origin[new] = origin.pop(old, old)
        gone.append(old)
    replaced = [Effect(Deed.REPLACED, t, verb) for t, was in origin.items() if was != t]
    away = [Effect(Deed.RENAMED, t, verb) for t in gone if t not in origin]
    return replaced + away


def savepoint_name(name: bytes) -> str:
    """A savepoint's name as the servers compare it: without regard to case, be it in quotes or not."""
    if name.startswith(b"`"):
        name = name[1:-1].replace(b"``", b"`")
    return name.decode(errors="replace").lower()
