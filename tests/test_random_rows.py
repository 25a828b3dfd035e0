"""Random rows over a wide table arrive as they were, through a sync that streams."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from cdc.demo.server import LocalPostgres
from tests.databases import Database
from tests.servers import SEED
from tests.syncs import MakeSync
from tests.targets import PostgresTarget, SqliteTarget
from tests.type_tables import MARKERS, bases_of, differences, kept_rows, printed_rows, printing

Row = Sequence[Any]

DAY: Final = 86_400_000_000


def nullable(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def arrays(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Of one dimension, or of two with rows of one length."""
    item = nullable(values)
    rows = st.integers(1, 3).flatmap(
        lambda n: st.lists(st.lists(item, min_size=n, max_size=n), min_size=1, max_size=3)
    )
    return st.lists(item, max_size=4) | rows


TEXT: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40
)
DIGITS: Final = st.text("0123456789", min_size=1, max_size=30)
NUMERIC: Final = st.sampled_from(["NaN", "Infinity", "-Infinity"]) | st.builds(
    "{}{}.{}e{}".format, st.sampled_from(["", "-"]), DIGITS, DIGITS, st.integers(-300, 300)
)
INT8: Final = st.integers(-(2**63), 2**63 - 1)
MOMENT: Final = st.builds(
    "{} days {} microseconds".format, st.integers(-2_451_544, 106_751_000), st.integers(0, DAY - 1)
)
"""What is added to the year 2000, as far as timestamps reach on either side."""

JSON: Final = st.recursive(
    st.none() | st.booleans() | INT8 | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
).map(lambda value: json.dumps(value, ensure_ascii=False))

SINCE: Final = "timestamp '2000-01-01' + CAST(%s AS interval)"

# Column, its type, how a parameter becomes its value, and the parameters.
COLUMNS: Final[Sequence[tuple[str, str, str, st.SearchStrategy[Any]]]] = (
    ("t", "text", "%s", nullable(TEXT)),
    ("long", "text", "repeat(%s, 500)", nullable(TEXT)),
    ("v", "varchar(40)", "%s", nullable(TEXT)),
    ("c", "char(12)", "%s", nullable(TEXT.map(lambda t: t[:12]))),
    ("b", "bytea", "%s", nullable(st.binary(max_size=300))),
    ("n", "numeric", "%s", nullable(NUMERIC)),
    ("d", "double precision", "%s", nullable(st.floats().map(repr))),
    ("f", "real", "%s", nullable(st.floats(width=32).map(repr))),
    ("i", "bigint", "%s", nullable(INT8)),
    ("z", "timestamptz", f"({SINCE}) AT TIME ZONE 'UTC'", nullable(MOMENT)),
    ("s", "timestamp(3)", SINCE, nullable(MOMENT)),
    ("j", "jsonb", "%s", nullable(JSON)),
    ("k", "json", "%s", nullable(JSON)),
    ("ta", "text[]", "CAST(%s AS text[])", nullable(arrays(TEXT))),
    ("ia", "bigint[]", "CAST(%s AS bigint[])", nullable(arrays(INT8))),
    ("na", "numeric[]", "CAST(CAST(%s AS text[]) AS numeric[])", nullable(arrays(NUMERIC))),
)

ROWS: Final = st.lists(st.tuples(*(values for *_, values in COLUMNS)), min_size=1, max_size=6)


class Stream:
    """A source and a target with a worker between them, made again after a failure: an example must
    not fail because of the one before."""

    def __init__(
        self,
        make: Callable[[], tuple[Database, PostgresTarget | SqliteTarget]],
        make_sync: MakeSync,
        more: str,
    ) -> None:
        self._make = make
        self._make_sync = make_sync
        self._more = more
        self._number = 0
        self._ready = False

    def carries(self, rows: Sequence[Row]) -> None:
        """Inserts the rows, turns them round by updates, and compares each time."""
        if not self._ready:
            self._begin()
        self._ready = False
        self._source.execute("TRUNCATE t")
        values = ", ".join(how for _, _, how, _ in COLUMNS)
        for number, row in enumerate(rows):
            self._source.execute(f"INSERT INTO t VALUES ({number}, {values})", row)
        self._compare()
        sets = ", ".join(f"{name} = o.{name}" for name, *_ in COLUMNS)
        self._source.execute(
            f"UPDATE t SET {sets} FROM t AS o WHERE o.id = (t.id + 1) %% %s", [len(rows)]
        )
        self._source.execute("UPDATE t SET t = 'touched' WHERE id = 0")
        self._compare()
        self._ready = True

    def _begin(self) -> None:
        self._number += 1
        self._source, self._target = self._make()
        ddl = ", ".join(f"{name} {kind}" for name, kind, *_ in COLUMNS)
        self._source.execute(f"CREATE TABLE t (id int PRIMARY KEY, {ddl}{self._more})")
        self._source.execute("ALTER TABLE t ALTER long SET STORAGE EXTERNAL")
        self._source.execute(MARKERS)
        self._columns = bases_of(self._source, "t")
        self._sync = self._make_sync(
            self._source, self._target, ["t", "markers"], name=f"s{self._number}"
        )
        self._sync.start()
        self._sync.wait_copied()
        self._ours = printing(self._source)
        if isinstance(self._target, PostgresTarget):
            self._theirs = printing(self._target.database)

    def _compare(self) -> None:
        self._sync.catch_up()
        ours = printed_rows(self._ours, "t", self._columns)
        if isinstance(self._target, SqliteTarget):
            theirs = kept_rows(self._ours, self._target, "t", self._columns)
        else:
            theirs = printed_rows(self._theirs, "t", self._columns)
        found = differences("t", self._columns, ours, theirs)
        assert not found, "\n".join(found)


@pytest.mark.parametrize("way", ["binary", "text", "sqlite"])
def test_random_rows(
    way: str,
    fresh_database: Callable[[LocalPostgres], Database],
    source_server: LocalPostgres,
    target_server: LocalPostgres,
    make_sync: MakeSync,
    tmp_path: Path,
) -> None:
    """Whatever the values are: both sides print the same, after inserts and after updates."""
    paths = (tmp_path / f"{n}.sqlite" for n in range(1000))

    def make() -> tuple[Database, PostgresTarget | SqliteTarget]:
        if way == "sqlite":
            return fresh_database(source_server), SqliteTarget(next(paths))
        return fresh_database(source_server), PostgresTarget(fresh_database(target_server))

    stream = Stream(make, make_sync, ", r regtype" if way == "text" else "")

    @seed(SEED)
    @settings(
        max_examples=25,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(ROWS)
    def carries(rows: Sequence[Row]) -> None:
        stream.carries(rows)

    carries()
