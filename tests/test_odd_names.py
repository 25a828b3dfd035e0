"""Scenarios 22 and 42: tables and columns of any name go the whole way, copied and streamed, a few at a time
and many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.databases import Database
from tests.mysql_databases import MysqlDatabase
from tests.mysql_pairs import Pair, some_pairs
from tests.syncs import MakeSync, Source, Sync
from tests.targets import MysqlTarget, Row, Target

TABLES: Final = (
    "order",
    "UPPER Case",
    "Straße 名前",
    'it\'s "quoted"',
    "`ticked`",
    "50% of %s, {0} and $1?",
    "back\\slash",
    "a.b",
    "-- ; /*",
)
COLUMNS: Final = (
    "select",
    "Id",
    "Ärger 名",
    'it\'s "x"',
    "`t`",
    "%s %(x)s {0}",
    "? $1 :x",
    "back\\slash",
    "a.b",
)


class Names:
    """SQL of one side: PostgreSQL and SQLite quote alike, MySQL otherwise."""

    def __init__(self, side: Source | Target) -> None:
        self._side = side
        self._mark = "`" if isinstance(side, MysqlDatabase | MysqlTarget) else '"'

    def quoted(self, name: str) -> str:
        return self._mark + name.replace(self._mark, self._mark * 2) + self._mark

    def create(self, text: str, key: str) -> list[str]:
        """The key is of the first two columns."""
        q = self.quoted
        columns = ", ".join(f"{q(c)} {key if n < 2 else text}" for n, c in enumerate(COLUMNS))
        keys = f"{q(COLUMNS[1])}, {q(COLUMNS[0])}"
        return [f"CREATE TABLE {q(t)} ({columns}, PRIMARY KEY ({keys}))" for t in TABLES]

    def insert(self, first: int, last: int) -> list[str]:
        texts = ", 'row {0}'" * (len(COLUMNS) - 2)
        rows = ", ".join(f"({n}, {n % 7}{texts.format(n)})" for n in range(first, last))
        return [f"INSERT INTO {self.quoted(t)} VALUES {rows}" for t in TABLES]

    def change(self, first: int, last: int) -> list[str]:
        """Values, keys, and rows that go."""
        q = self.quoted
        one, other = q(COLUMNS[0]), q(COLUMNS[1])
        rows = f"WHERE {one} BETWEEN {first} AND {last}"
        made = []
        for table in TABLES:
            sets = ", ".join(f"{q(c)} = 'again {n}'" for n, c in enumerate(COLUMNS[3:]))
            made += [
                f"UPDATE {q(table)} SET {sets} {rows} AND {other} < 3",
                f"UPDATE {q(table)} SET {other} = {other} + 10 {rows} AND {other} = 4",
                f"DELETE FROM {q(table)} {rows} AND {other} = 5",
            ]
        return made

    def rows(self, table: str) -> Sequence[Row]:
        listed = ", ".join(self.quoted(c) for c in COLUMNS)
        return sorted(self._side.rows(f"SELECT {listed} FROM {self.quoted(table)}"))


def go_the_whole_way(sync: Sync, ours: Names) -> None:
    theirs = Names(sync.target)

    def same(when: str) -> None:
        unlike = [t for t in TABLES if ours.rows(t) != theirs.rows(t)]
        assert not unlike, f"{when}: {unlike}\n{sync.log_tail()}"

    def run(statements: list[str]) -> None:
        for statement in statements:
            sync.source.execute(statement)

    run(ours.insert(0, 20))
    sync.start()
    sync.wait_copied()
    same("copied")
    run(ours.insert(20, 30))
    run(ours.change(10, 30))
    sync.catch_up()
    same("streamed")
    with sync.running.held():
        run(ours.insert(100, 300))
        run(ours.change(20, 250))
    sync.catch_up()
    same("many at once")
    sync.assert_nothing_healed()
    assert len(theirs.rows(TABLES[0])) > 100


def test_from_postgres(source_db: Database, target: Target, make_sync: MakeSync) -> None:
    """Into every target."""
    ours = Names(source_db)
    source_db.execute("CREATE TABLE markers (id int PRIMARY KEY)")
    for statement in ours.create("text", "int"):
        source_db.execute(statement)
    go_the_whole_way(make_sync(source_db, target, ["public.*"]), ours)


@some_pairs("mariadb-mariadb", "mariadb-sqlite")
def test_from_mysql(pair: Pair, make_sync: MakeSync) -> None:
    """In every pair."""
    ours = Names(pair.source)
    pair.source.execute("CREATE TABLE markers (id int PRIMARY KEY)")
    for statement in ours.create("varchar(50)", "int"):
        pair.source.execute(statement)
    go_the_whole_way(make_sync(pair.source, pair.target, ["*"]), ours)
