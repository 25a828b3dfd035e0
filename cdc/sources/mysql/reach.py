"""What a statement that writes rows names: the tables that it writes, those that it reads, and functions.

A statement that was logged in place of its rows (statement format) may write more than it names: through
a view, a trigger, a stored function. Whether it can is told by what it names, so that nothing may be
left out here: what is not understood is an error, and a name too many does no harm.
Sources: INSERT, UPDATE, DELETE, LOAD DATA, WITH, JOIN in the manuals of MySQL and MariaDB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from cdc.sources.mysql.functions import NEVER_STORED, NEVER_STORED_CLOSE

Table = tuple[str, str]
"""Database and name."""

ROW_WRITERS: Final = frozenset(["INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD", "WITH", "CREATE"])
"""First words of what is read here. CREATE: a table that is filled by a query."""

STRING: Final = r"'(?:[^'\\]|\\.|'')*'"
DOUBLE: Final = r'"(?:[^"\\]|\\.|"")*"'
"""Texts as a session with no sql_mode writes them."""

_TOKEN = re.compile(
    rf"""(?P<string> {STRING} | {DOUBLE} )
    | @@?(?: `(?:[^`]|``)*` | '[^']*' | "[^"]*" | [\w.$]* )
    | (?P<quoted> `(?:[^`]|``)*` )
    | (?P<word> [\w$\u0080-\U0010ffff]+ )
    | (?P<mark> \S )""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"[0-9]+(?:[eE][0-9]*)?|0[xXbB][0-9a-fA-F]+")

_BEFORE: Final = frozenset(
    "LOW_PRIORITY DELAYED HIGH_PRIORITY QUICK IGNORE INTO LATERAL OJ {".split()
)
"""What may stand between a word that a table follows and the table."""
_QUERIES: Final = frozenset(["SELECT", "VALUES", "WITH", "TABLE"])
_ENDS: Final = frozenset(
    "SET WHERE GROUP HAVING ORDER LIMIT UNION EXCEPT INTERSECT PROCEDURE VALUES SELECT RETURNING".split()
)
"""What ends a list of tables, so that the next comma brings no other one."""
_SELECTING: Final = frozenset(
    """SELECT ALL DISTINCT DISTINCTROW HIGH_PRIORITY SQL_SMALL_RESULT SQL_BIG_RESULT SQL_BUFFER_RESULT
    SQL_CACHE SQL_NO_CACHE SQL_CALC_FOUND_ROWS""".split()
)
_NO_TABLE_BEHIND: Final = frozenset(["OF", "SYSTEM_TIME", "DISTINCT"])
"""Words before a FROM that no table follows: FOR PORTION OF period FROM, FOR SYSTEM_TIME FROM."""


class Reach(NamedTuple):
    verb: str
    written: tuple[Table, ...]
    read: tuple[Table, ...]
    """Views among them may call functions."""
    inserted: frozenset[Table]
    """What of `written` an INSERT or LOAD writes: no name of WITH's."""
    common: frozenset[str]
    """Names that WITH gives to queries, in lower case: read, they may be no tables."""
    called: str
    """A function that may be a stored one; empty: there is none."""


class Token(NamedTuple):
    text: str
    upper: str
    """Empty for what is quoted: no keyword."""
    name: bool
    close: bool
    """It stands right behind the one before."""


@dataclass(slots=True)
class _Group:
    """What one pair of brackets holds, or the whole statement."""

    expects: bool = False
    """A table comes next."""
    listing: bool = False
    """A comma brings another table."""
    writes: bool = False
    query: bool = False
    """FROM brings tables here; elsewhere it is part of TRIM(… FROM …)."""


def tokens(text: str) -> list[Token]:
    """The statement cut into words; `text` is without comments, and quotes names by backquotes."""
    found: list[Token] = []
    end = 0
    for m in _TOKEN.finditer(text):
        close = m.start() == end
        end = m.end()
        if m["quoted"]:
            found.append(Token(m[0][1:-1].replace("``", "`"), "", name=True, close=close))
        elif word := m["word"]:
            upper, name = word.upper(), not _NUMBER.fullmatch(word)
            found.append(Token(word, upper, name, close))
        else:
            mark = m["mark"] or ""
            if mark in ("'", '"', "`"):
                raise ValueError("a quote that does not end")
            found.append(Token(m[0], mark, name=False, close=close))
    return found


def reach_of(text: str, database: str) -> Reach | None:
    """What the statement names, run with this default database; None: it writes no rows. Raises
    ValueError for one that is not understood."""
    words = tokens(text)
    head = words[0].upper if words else ""
    if head == "CREATE" and not _fills(words):
        return None
    return _Scan(words, database).reach() if head in ROW_WRITERS else None


def _fills(words: list[Token]) -> bool:
    """Whether CREATE TABLE … SELECT was logged as it was written: in row format it is logged without
    its query."""
    uppers = [w.upper for w in words]
    kinds = [u for u in uppers[:5] if u in ("TABLE", "VIEW", "PROCEDURE", "FUNCTION", "TRIGGER")]
    if kinds[:1] != ["TABLE"]:
        return False
    rest = uppers[uppers.index("TABLE") + 1 :]
    behind = [*rest[1:], ""]
    # VALUES LESS THAN and VALUES IN are of partitions.
    values = any(u == "VALUES" and v in ("(", "ROW") for u, v in zip(rest, behind, strict=True))
    return values or "SELECT" in rest or "TABLE" in rest


class _Scan:
    """One statement, from left to right. Raises ValueError where it is not as expected."""

    def __init__(self, words: list[Token], database: str) -> None:
        self._words = words
        self._database = database
        self._head = words[0].upper
        self._verb = self._head
        self._groups = [_Group()]
        self._written: list[Table] = []
        self._read: list[Table] = []
        self._called = ""
        self._at = 0
        self._columns_at = -1
        """Where a bracket opens a list of columns, behind the table of an INSERT."""
        self._common = self._named_queries()

    def reach(self) -> Reach:
        self._begin()
        while self._at < len(self._words):
            self._step(self._words[self._at])
            self._at += 1
        if len(self._groups) != 1 or self._groups[0].expects:
            raise ValueError("the statement ends too early")
        if not self._written and self._head != "CREATE":
            raise ValueError("the statement writes nothing")
        written, read = dict.fromkeys(self._written), dict.fromkeys(self._read)
        inserted = frozenset(written if self._head in ("INSERT", "REPLACE", "LOAD") else ())
        return Reach(self._verb, tuple(written), tuple(read), inserted, self._common, self._called)

    def _begin(self) -> None:
        """Goes behind the statement's first words."""
        top = self._groups[0]
        if self._head in ("INSERT", "REPLACE", "UPDATE"):
            self._at = 1
            self._expect(top, writes=True)
        elif self._head == "DELETE":
            top.query = top.writes = True
        elif self._head == "CREATE":
            # Its own table is no matter here; what stands behind it is.
            self._at = 1 + next(i for i, w in enumerate(self._words) if w.upper == "TABLE")
            while self._upper(self._at) in ("IF", "NOT", "EXISTS"):
                self._at += 1
            self._table(())
            self._columns_at = self._at + 1
            self._at += 1
            self._verb = "CREATE TABLE … SELECT"

    def _step(self, word: Token) -> None:
        group = self._groups[-1]
        upper = word.upper
        if upper == "(":
            self._open(group)
        elif upper == ")":
            if len(self._groups) == 1 or group.expects:
                raise ValueError("a bracket that closes nothing")
            self._groups.pop()
        elif group.expects:
            self._expected(word, group)
        elif upper == ",":
            group.expects = group.listing
        elif upper:
            self._keyword(upper, group)

    def _open(self, group: _Group) -> None:
        if self._at != self._columns_at and not group.expects:
            self._call()
        inner = _Group(group.expects, group.expects, group.writes and group.expects)
        group.expects = False
        self._groups.append(inner)

    def _expected(self, word: Token, group: _Group) -> None:
        if word.upper in _QUERIES:
            if self._inserts:
                raise ValueError("a table was expected")
            group.expects = group.listing = group.writes = False
            self._keyword(word.upper, group)
        elif word.upper == "DUAL":
            group.expects = False
        elif word.upper == "JSON_TABLE" and self._upper(self._at + 1) == "(":
            self._columns_at = self._at + 1
            group.expects = False
        elif word.upper in _ENDS:
            raise ValueError("a table was expected")
        elif word.upper not in _BEFORE:
            group.expects = False
            written = group.writes or self._inserts
            if self._inserts:
                group.listing = group.writes = False
            self._table(self._written if written else self._read)
            if written:
                self._columns_at = self._at + 1

    @property
    def _inserts(self) -> bool:
        """Whether the one table that an INSERT or LOAD writes is still to come."""
        return self._head in ("INSERT", "REPLACE", "LOAD") and not self._written

    def _table(self, found: list[Table] | tuple[()]) -> None:
        """Reads `table`, `database.table`, and `table.*` as DELETE has it."""
        first = self._words[self._at]
        if not first.name:
            raise ValueError("a table was expected")
        table = self._database, first.text
        while self._upper(self._at + 1) == ".":
            self._at += 2
            if self._at >= len(self._words):
                raise ValueError("a name was expected")
            part = self._words[self._at]
            if part.upper == "*":
                break
            if not part.name:
                raise ValueError("a name was expected")
            table = table[1], part.text
        if isinstance(found, list):
            found.append(table)

    def _keyword(self, upper: str, group: _Group) -> None:
        before, behind = self._upper(self._at - 1), self._upper(self._at + 1)
        top = len(self._groups) == 1
        if before == ".":
            return
        if upper == "SELECT":
            group.query = True
            group.listing = group.writes = False
        elif upper == "FROM":
            if group.query and before not in _NO_TABLE_BEHIND:
                self._expect(group, writes=group.writes)
        elif upper == "JOIN" or (upper == "STRAIGHT_JOIN" and before not in _SELECTING):
            self._expect(group, writes=group.writes)
        elif upper == "TABLE":
            self._expect(group, writes=False)
        elif upper == "USING" and top and self._head == "DELETE" and behind != "(":
            # What stood behind FROM are names that these tables have.
            self._written.clear()
            self._expect(group, writes=True)
        elif top and self._head == "WITH" and upper in ("UPDATE", "DELETE"):
            self._head = self._verb = upper
            group.query = group.writes = True
            if upper == "UPDATE":
                self._expect(group, writes=True)
        elif upper in _ENDS and before != "FOR":
            group.listing = group.writes = False

    def _expect(self, group: _Group, *, writes: bool) -> None:
        group.expects = group.listing = True
        group.writes = writes

    def _call(self) -> None:
        """What stands before a bracket: a function?"""
        word = self._words[self._at - 1] if self._at else None
        if word is None or not word.name or self._called:
            return
        before = self._upper(self._at - 2)
        known = word.upper in NEVER_STORED or (
            word.upper in NEVER_STORED_CLOSE and self._words[self._at].close
        )
        if before == ".":
            self._called = f"{self._words[self._at - 3].text}.{word.text}"
        elif not (known or before == "AS" or self._names_query(self._at - 1)):
            self._called = word.text

    def _named_queries(self) -> frozenset[str]:
        """What stands as `name AS (` or `name (columns) AS (`."""
        return frozenset(
            w.text.lower() for i, w in enumerate(self._words) if w.name and self._names_query(i)
        )

    def _names_query(self, at: int) -> bool:
        if self._upper(at + 1) == "(":
            at += 2
            while self._upper(at) not in (")", "("):
                if at >= len(self._words):
                    return False
                at += 1
        return self._upper(at + 1) == "AS" and self._upper(at + 2) == "("

    def _upper(self, at: int) -> str:
        return self._words[at].upper if 0 <= at < len(self._words) else ""
