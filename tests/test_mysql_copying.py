"""Reading tables of a MySQL or MariaDB source: what the stream has given out and nothing older, every
row once, byte for byte as the log has it."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Final

import pymysql
import pytest

from appliers.delta import Commit, Delta
from appliers.errors import PermanentError, TransientError
from appliers.lines import line
from appliers.relation import Relation
from cdc.sources.mysql import copying as copying_module
from cdc.sources.mysql import printing, results, snapshots
from cdc.sources.mysql.connection import Connection, rows, server_of
from cdc.sources.mysql.copying import MysqlChunkReader
from cdc.sources.mysql.gtid import MariadbGtids
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.source import MysqlSource
from cdc.sources.source import Piece, Plan, Progress, StalePlanError, Stream
from tests.databases import wait_until
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql
from tests.mysql_reading import (
    as_it_is,
    changes_to,
    opened,
    place,
    rows_of,
    streaming,
)
from tests.pieces import changes_in

ALL_TYPES = """
CREATE TABLE t (id int unsigned NOT NULL PRIMARY KEY,
  b bigint unsigned, ti tinyint, z int(5) ZEROFILL, de decimal(20,5), dz decimal(8,2) ZEROFILL,
  f float, db double, f2 float(7,2), bi bit(1), bi9 bit(9), bi64 bit(64),
  dt date, t time, t3 time(3), dtm datetime, dtm6 datetime(6), ts timestamp NULL, ts6 timestamp(6) NULL, y year,
  c char(10) CHARACTER SET latin1, vc varchar(300), tx text, tt tinytext, mt mediumtext,
  lt longtext CHARACTER SET utf16, gb varchar(20) CHARACTER SET gbk,
  e enum('a','b','ü'), st set('x','y','ä'),
  bin binary(5), vb varbinary(300), bl blob, lb longblob, js json, g geometry, pt point,
  gen int AS (id + 1) VIRTUAL, kept int AS (id + 2) STORED) CHARACTER SET utf8mb4"""

EXTRA = {
    "mariadb": "ALTER TABLE t ADD u uuid, ADD i6 inet6, ADD i4 inet4, ADD cc varchar(100) COMPRESSED,"
    " ADD nc text COMPRESSED, ADD hidden int INVISIBLE",
    "mysql": "ALTER TABLE t ADD v vector(3), ADD hidden int INVISIBLE",
}

VALUES: tuple[dict[str, str], ...] = (
    {},
    {
        "b": "18446744073709551615", "ti": "-128", "z": "42", "de": "-1.5", "dz": "12.5", "f": "0.1",
        "db": "1e20", "f2": "1.1", "bi": "b'1'", "bi9": "b'101'", "bi64": "x'ffffffffffffffff'",
        "dt": "'0000-00-00'", "t": "'-838:59:59'", "t3": "'-00:00:00.5'", "dtm": "'2024-00-10 00:00:00'",
        "dtm6": "'9999-12-31 23:59:59.999999'", "ts": "'2038-01-19 03:14:07'",
        "ts6": "'1970-01-01 00:00:01.5'", "y": "1901", "c": "'€ x  '",
        "vc": r"concat('a\tb\\c\nd\re', char(0), '😀  ')", "tx": "'tx'", "tt": "''",
        "mt": "repeat('m', 100000)", "lt": r"'lo\tng'", "gb": "'中文'", "e": "'ü'", "st": "'x,ä'",
        "bin": "x'00'", "vb": "x'00ff'", "bl": r"'bl\\'", "lb": "''", "js": r"""'{"a": [1, 2.5, "x\\ty"]}'""",
        "g": "st_geomfromtext('POINT(1 2)')", "pt": "point(3, 4)", "hidden": "7",
    },
    {
        "f": "16777217", "db": "0.1", "vc": r"'\\N'", "tx": r"'\\='", "e": "''", "st": "''", "de": "0",
        "t": "'100:00:00'", "ts": "'0000-00-00'", "y": "0", "dt": "'2024-02-29'", "js": "'null'", "bin": "''",
        "c": "''", "bi64": "0", "bi9": "511", "dtm": "'0000-00-00'", "t3": "'23:59:59.999'", "vb": "''",
    },
    {"f": "-1e-10", "db": "-1.7976931348623157e308", "vc": r"'\\'", "tx": "repeat('é', 30000)"},
    {"f": "3.4028234e38", "db": "5e-324", "vb": "repeat(x'0a', 300)", "db ": "1"},
    {"f": "-0.0", "db": "-0.0", "b": "0", "ti": "127", "y": "2155", "c": "repeat('ÿ', 10)"},
    {"db": "100000000000000000", "f": "123456789", "f2": "99999.99", "de": "123456789012345.12345"},
)  # fmt: skip

OF_FLAVOUR = {
    "mariadb": {
        "u": "'123e4567-e89b-12d3-a456-426655440000'", "i6": "'::1'", "i4": "'1.2.3.4'",
        "cc": r"repeat('z\t', 40)", "nc": "repeat('n', 1000)",
    },
    "mysql": {"v": "string_to_vector('[1,2,3.5]')"},
}  # fmt: skip


@contextmanager
def reading(source: MysqlSource) -> Iterator[MysqlChunkReader]:
    """A reader of a round of its own."""
    copying = source.copy_round()
    try:
        reader = copying.reader()
        try:
            yield reader
        finally:
            reader.close()
    finally:
        copying.close()


def only_relation(source: MysqlSource) -> Relation:
    [relation] = source.catalog(["t"]).relations
    return relation


def insert_all_types(database: MysqlDatabase) -> None:
    database.execute(ALL_TYPES)
    flavour = database.server.flavour
    database.execute(EXTRA[flavour])
    database.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    for number, values in enumerate(VALUES, 1):
        given = {k: v for k, v in values.items() if k == k.strip()}
        given |= OF_FLAVOUR[flavour] if number == 2 else {}
        names = ", ".join(["id", *given])
        row = ", ".join([str(number), *given.values()])
        database.execute(f"INSERT IGNORE INTO t ({names}) VALUES ({row})")


@pytest.mark.parametrize("most_joined", [1 << 20, 2000, 0])
def test_a_copy_prints_as_the_log_does(
    any_mysql_source: MysqlDatabase, most_joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every type's values: a row that is copied is the bytes that the stream gives for it, however much
    of it the server joins."""
    monkeypatch.setattr(printing, "MOST_JOINED", most_joined)
    database = any_mysql_source
    with opened(database) as source:
        start = source.start(())
        insert_all_types(database)
        relation = only_relation(source)
        with streaming(source, start.position) as stream:
            streamed = changes_to(stream, source.head())
        with reading(source) as reader:
            copied = rows_of(reader, relation)
    logged = [after for _, _, _, after, _, _ in streamed if after is not None]
    assert len(copied) == len(logged) == len(VALUES)
    for row, image in zip(copied, logged, strict=True):
        for column, mine, theirs in zip(
            relation.columns, relation.values(row), relation.values(image), strict=True
        ):
            assert mine == theirs, column
    assert copied == logged


def test_the_relation_is_the_same_in_log_and_catalog(any_mysql_source: MysqlDatabase) -> None:
    """The shape that a table map gives equals the catalog's: types, nullability, key."""
    database = any_mysql_source
    with opened(database) as source:
        start = source.start(())
        insert_all_types(database)
        relation = only_relation(source)
        with streaming(source, start.position) as stream:
            streamed = changes_to(stream, source.head())
    logged = streamed[-1][1]
    for mine, theirs in zip(relation.columns, logged.columns, strict=True):
        assert mine == theirs
    assert logged.key_names == relation.key_names == ("id",)
    assert len({id(change[1]) for change in streamed}) == 1


KEYS: Final[dict[str, tuple[str, Callable[[int], str]]]] = {
    "bigint": ("k bigint", lambda n: str(n * 7 - 900)),
    "unsigned": ("k bigint unsigned", lambda n: str(18446744073709551615 - n)),
    "decimal": ("k decimal(30,10)", lambda n: f"{n - 90}.{n:010d}"),
    "double": ("k double", lambda n: f"{n - 90}e{n % 40}"),
    "float": ("k float", lambda n: f"{n - 90}.1"),
    "varchar": ("k varchar(40)", lambda n: f"'{chr(97 + n % 26)}É{n} '"),
    "folded": ("k varchar(40) COLLATE utf8mb4_unicode_ci", lambda n: f"'{'aBcÄ'[n % 4]}{n}'"),
    "latin1": ("k varchar(40) CHARACTER SET latin1", lambda n: f"'ü€{n}'"),
    "utf16": ("k varchar(40) CHARACTER SET utf16", lambda n: f"'😀{n}'"),
    "char": ("k char(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", lambda n: f"'a\\t\\\\{n}'"),
    "varbinary": ("k varbinary(40)", lambda n: f"unhex('{n * 5 % 256:02x}00{n:04x}')"),
    "binary": ("k binary(8)", lambda n: f"unhex('{n:04x}')"),
    "date": ("k date", lambda n: f"'2024-{n % 13:02d}-{n // 13:02d}'"),
    "datetime": ("k datetime(6)", lambda n: f"'2024-01-01 00:00:{n % 60:02d}.{n:06d}'"),
    "timestamp": ("k timestamp(3)", lambda n: f"'2024-01-01 00:{n // 60:02d}:{n % 60:02d}.5'"),
    "time": ("k time(3)", lambda n: f"'{'-' * (n % 2)}{n}:00:00.125'"),
    "bit": ("k bit(40)", lambda n: f"{n} * 4000000000"),
    "composite": ("a varchar(10), k int, b time", lambda n: f"'x{n % 3}', {n % 7}, '{n // 60:02d}:{n % 60:02d}:00'"),
    "enum": ("a enum('z','y','x'), k int", lambda n: f"{n % 3 + 1}, {n}"),
    "set": ("a set('z','y','x'), k int", lambda n: f"{n % 8}, {n}"),
    "year": ("a year, k int", lambda n: f"{1950 + n % 40}, {n}"),
    "uuid": ("k uuid", lambda n: f"'{n * 123456789 % 2**32:08x}-{n:04x}-11ef-8{n % 4096:03x}-{n:012x}'"),
    "inet6": ("k inet6", lambda n: f"'{n:x}::{n * 7 % 9:x}'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_every_row_is_in_one_chunk(
    any_mysql_source: MysqlDatabase, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario 20: keys of every type, plans of many chunks; and rows that came after the plan, before
    its first key and behind its last, are in a chunk too. Each key finds its row again."""
    database = any_mysql_source
    if kind in ("uuid", "inet6") and database.server.flavour == "mysql":
        pytest.skip("MariaDB's own type")
    monkeypatch.setattr(copying_module, "FEWEST_ROWS", 7)
    monkeypatch.setattr(copying_module, "MOST_ROWS", 7)
    columns, value = KEYS[kind]
    names = [part.split()[0] for part in columns.replace("decimal(30,10)", "decimal").split(", ")]
    database.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    database.execute(
        f"CREATE TABLE t ({columns}, body text, PRIMARY KEY ({', '.join(names)})) CHARACTER SET utf8mb4"
    )
    numbers = list(range(1, 121))
    insert = "INSERT INTO t VALUES " + ", ".join(["({})"] * len(numbers[10:-10]))
    database.execute(insert.format(*(f"{value(n)}, 'row {n}'" for n in numbers[10:-10])))
    with opened(database) as source:
        relation = only_relation(source)
        with reading(source) as reader:
            plan = reader.plan(relation)
        assert len(plan.bounds) == 15
        assert plan.rows_estimated == 100
        for n in numbers[:10] + numbers[-10:]:
            database.execute(f"INSERT INTO t VALUES ({value(n)}, 'row {n}')")
        with reading(source) as reader:
            copied = [
                row
                for bounds in plan.bounds
                for block in reader.read(relation, bounds, plan.fingerprint)
                for row in block
            ]
            keys = [row for block in reader.keys(relation, None) for row in block]
        assert Counter(copied).most_common(1)[0][1] == 1
        assert len(copied) == 120
        assert sorted(map(relation.key, keys)) == sorted(map(relation.key, copied))
        commit = Commit(_last_commit(database), 0, 0)
        again = source.reread(relation, copied, commit, as_it_is)
        assert sorted(again.images) == sorted(copied)


def _last_commit(database: MysqlDatabase) -> str:
    """A GTID that is over."""
    if database.server.flavour == "mariadb":
        return str(database.value("SELECT @@gtid_binlog_pos"))
    uuid = database.value("SELECT @@server_uuid")
    return f"{uuid}:1"


@pytest.mark.parametrize("kind", ["bigint", "varchar", "latin1", "composite", "timestamp"])
def test_chunks_are_read_through_the_index(any_mysql_source: MysqlDatabase, kind: str) -> None:
    """A chunk costs what its rows cost: the server sees a range of the key in its bounds."""
    database = any_mysql_source
    columns, value = KEYS[kind]
    names = [part.split()[0] for part in columns.split(", ")]
    database.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    database.execute(
        f"CREATE TABLE t ({columns}, PRIMARY KEY ({', '.join(names)})) CHARACTER SET utf8mb4"
    )
    database.execute("INSERT INTO t VALUES " + ", ".join(f"({value(n)})" for n in range(200)))
    database.execute("ANALYZE TABLE t")
    statements: list[str] = []
    packets = results.packets

    def noted(db: Connection, statement: str) -> Generator[list[bytes], None, None]:
        statements.append(statement)
        return packets(db, statement)

    with opened(database) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying_module, "FEWEST_ROWS", 50)
        patch.setattr(copying_module, "MOST_ROWS", 50)
        patch.setattr(results, "packets", noted)
        with reading(source) as reader:
            assert len(rows_of(reader, only_relation(source))) == 200
    for statement in statements[1:]:
        [plan] = database.rows("EXPLAIN " + statement)
        assert "range" in str(plan)


def test_everything_that_was_streamed_is_in_the_copy(any_mysql_source: MysqlDatabase) -> None:
    """The visibility rule, under load: at each moment a snapshot has at least what the stream has given
    out, and nothing that its own position does not cover; on MariaDB it has exactly its position. The
    stream itself, replayed commit by commit, is the oracle.

    Each snapshot is opened right after a read of the stream, over a connection that is ready: a commit
    is visible within a millisecond of its way through the log."""
    database = any_mysql_source
    database.execute("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, body varchar(100))")
    with opened(database, "t") as source:
        relation = only_relation(source)
        begun = source.position(str(source.start([relation]).position))
        server = server_of(source._db)
        replay = Replay()
        with (
            closing(source._connect()) as db,
            _writers(database, 4),
            streaming(source, begun) as stream,
        ):
            between = 0
            for _ in range(100):
                given = replay.take(stream.read(0.05)) or begun
                position = snapshots.open_snapshot(db, server, given, lambda: False)
                found = {
                    relation.key(row): row
                    for n in rows(db, "SELECT id, n, body FROM t")
                    for row in [line([str(v).encode() for v in n])]
                }
                rows(db, "ROLLBACK")
                assert position.covers(given), (position, given)
                wait_until(lambda: replay.covers(stream, position))  # noqa: B023
                if database.server.flavour == "mariadb":
                    possible = [
                        replay.state_at(snapshots.gtids_at(source._db, position, source._connect))
                    ]
                else:
                    possible = replay.states_since(given)
                assert found in possible, f"not a state from {given} to {position}"
                between += place(position) != place(given)
            assert between, "nothing was written during any round"


def test_a_beginning_has_all_that_lies_before_it(mysql_source: MysqlDatabase) -> None:
    """On MySQL, under load: a position to begin at has the GTIDs of every commit that is before it by
    file and offset, so that no copy is called exact before the stream has given what it shows."""
    mysql_source.execute("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, body varchar(100))")
    found = []
    with opened(mysql_source, "t") as source, _writers(mysql_source, 4):
        for _ in range(60):
            found.append(source.start([only_relation(source)]).position)
            time.sleep(0.003)  # elsewhere among the commits
    assert place(found[0])[0] == place(found[-1])[0]
    logged = mysql_source.rows(f"SHOW BINLOG EVENTS IN '{place(found[0])[0]}'")
    whole = [
        (int(row[4]), str(before[5]).split("'")[1])
        for before, row in pairwise(row for row in logged if row[2] in ("Gtid", "Xid"))
        if row[2] == "Xid"
    ]
    for position in found:
        assert isinstance(position, BinlogPosition)
        assert position.gtids is not None
        before = [gtid for end, gtid in whole if end <= position.offset]
        assert all(map(position.gtids.holds, before))


class Replay:
    """What a stream has given, commit by commit."""

    def __init__(self) -> None:
        self.base: dict[object, bytes] = {}
        """The table before the first of `commits`."""
        self.commits: dict[str, list[Delta]] = {}
        self.given: BinlogPosition | None = None

    def take(self, events: list[Piece | Progress]) -> BinlogPosition | None:
        for event in events:
            for change in changes_in(event) if isinstance(event, Piece) else ():
                self.commits.setdefault(change[4].position, []).append(change)
            if isinstance(event.position, BinlogPosition):
                self.given = event.position
        return self.given

    def covers(self, stream: Stream, end: BinlogPosition) -> bool:
        given = self.take(stream.read(0.1))
        return given is not None and given.covers(end)

    def state_at(self, gtids: MariadbGtids | None) -> dict[object, bytes]:
        """The table after the commits that `gtids` holds, which are taken off the list."""
        assert gtids is not None
        for name in [c for c in self.commits if gtids.holds(c)]:
            self._redo(self.base, self.commits.pop(name))
        return self.base

    def states_since(self, given: BinlogPosition) -> list[dict[object, bytes]]:
        """The table after what was given at `given`, and after each later commit."""
        for name in [c for c in self.commits if given.holds(c)]:
            self._redo(self.base, self.commits.pop(name))
        states = [dict(self.base)]
        for changes in self.commits.values():
            states.append(dict(states[-1]))
            self._redo(states[-1], changes)
        return states

    def _redo(self, state: dict[object, bytes], changes: list[Delta]) -> None:
        for _, relation, before, after, _, _ in changes:
            if before is not None:
                state.pop(relation.key(before), None)
            if after is not None:
                state[relation.key(after)] = after


ER_LOCK_DEADLOCK: Final = 1213
WRITES: Final = (
    "REPLACE INTO t VALUES (%s, 0, 'new')",
    "UPDATE t SET n = n + 1 WHERE id = %s",
    "DELETE FROM t WHERE id = %s",
)


@contextmanager
def _writers(database: MysqlDatabase, count: int) -> Iterator[None]:
    """Sessions that keep writing small transactions."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def write(seed: int) -> None:
        r = random.Random(seed)
        connection = database.connect(autocommit=False)
        with connection.cursor() as cursor:
            # Gently: the test has to keep up with what it checks.
            while not stop.wait(0.001):
                try:
                    for _ in range(r.randint(1, 3)):
                        statement = r.choice(WRITES)
                        cursor.execute(statement, (r.randrange(200) * count + seed,))
                    connection.commit()
                except pymysql.Error as e:
                    if e.args[0] != ER_LOCK_DEADLOCK:
                        errors.append(e)
                        return

    threads = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert not errors, errors


def test_rows_larger_than_a_packet(make_mariadb: MakeMysql, make_mysql: MakeMysql) -> None:
    """A row of several packets of 16 MB is read whole, and one whose text the server could not join
    below max_allowed_packet, where its functions give NULL."""
    for make in (make_mariadb, make_mysql):
        server = make({"max_allowed_packet": "64M"})
        database = MysqlDatabase(server)
        try:
            database.execute("CREATE TABLE t (id int PRIMARY KEY, a longblob, b longtext, c text)")
            values = (b"\n\\" * 9_000_000, "é" * 9_000_000, "c" * 65_535)
            database.execute("INSERT INTO t VALUES (1, %s, %s, %s)", values)
            database.execute("INSERT INTO t VALUES (2, 'a', 'b', 'c')")
            with opened(database) as source, reading(source) as reader:
                relation = only_relation(source)
                first, second = map(relation.values, rows_of(reader, relation))
            assert first[1:] == (
                b"\\x" + values[0].hex().encode(),
                *(v.encode() for v in values[1:]),
            )
            assert second == (b"2", b"\\x61", b"b", b"c")
        finally:
            database.drop()


def test_text_that_no_character_encodes(any_mysql_source: MysqlDatabase) -> None:
    """Half of a surrogate pair, which the servers keep where they do: stream and copy stop at it, rather
    than to bring another text. The rest of UCS-2 comes as the log has it."""
    database = any_mysql_source
    kept = {"ucs2": ("D800", "expected text in ucs2")}
    if database.server.flavour == "mariadb":
        kept["utf8mb4"] = "EDA080", "column v: expected text in UTF-8"
        kept["utf32"] = "0000D800", "expected text in utf32"
    for charset, (value, said) in kept.items():
        database.execute(
            f"CREATE TABLE {charset} (id int PRIMARY KEY, v varchar(20) CHARACTER SET {charset})"
        )
        with opened(database, charset) as source:
            start = source.start([relation := source.catalog([charset]).relations[0]]).position
            database.execute(f"INSERT INTO {charset} VALUES (1, 'Größe\\\\')")
            with streaming(source, start) as stream, reading(source) as reader:
                told = [change[3] for change in changes_to(stream, source.head())]
                assert rows_of(reader, relation) == told == ["1\tGröße\\\\\n".encode()]
            database.execute(f"INSERT INTO {charset} VALUES (2, _{charset} x'{value}')")
            with streaming(source, start) as stream, pytest.raises(PermanentError) as caught:
                changes_to(stream, source.head())
            assert said in str(caught.value)
            with reading(source) as reader, pytest.raises(PermanentError) as caught:
                rows_of(reader, relation)
            assert f"table {relation.table}: " in str(caught.value)
            assert "got bytes that are none" in str(caught.value)
            assert "correct such rows on the source" in caught.value.hint


def test_many_columns(any_mysql_source: MysqlDatabase) -> None:
    """More columns than one byte counts, each printed here."""
    columns = ", ".join(f"c{n} double" for n in range(300))
    any_mysql_source.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    any_mysql_source.execute("INSERT INTO t (id, c299) VALUES (1, 2.5)")
    with opened(any_mysql_source) as source, reading(source) as reader:
        relation = only_relation(source)
        [row] = rows_of(reader, relation)
    assert relation.values(row) == (b"1", *[None] * 299, b"2.5")


def test_a_migration_does_not_wait_for_the_copy(any_mysql_source: MysqlDatabase) -> None:
    """Scenario 49: between two chunks of an open round a table can be altered; its copy is then planned
    anew, or begins again with the new shape, and nothing is read in the wrong shape."""
    database = any_mysql_source
    database.execute("CREATE TABLE t (id int PRIMARY KEY, body text)")
    database.execute("INSERT INTO t VALUES (1, 'a')")
    with opened(database) as source, reading(source) as reader:
        relation = only_relation(source)
        plan = reader.plan(relation)
        assert len(list(reader.read(relation, plan.bounds[0], plan.fingerprint))) == 1
        database.execute("SET SESSION lock_wait_timeout = 2")
        database.execute("ALTER TABLE t ADD more int NOT NULL DEFAULT 5")
        with pytest.raises((StalePlanError, TransientError)) as caught:
            list(reader.read(relation, plan.bounds[0], plan.fingerprint))
        assert database.name in str(caught.value)


def test_a_migration_does_not_wait_without_binlog_admin(mariadb_source: MysqlDatabase) -> None:
    """MariaDB gives a table's lock up within a snapshot only for who may switch the log off. A copy
    without that reads each chunk under a snapshot of its own, whose position is told before; once that
    is asked for, the lock of the chunk before is free."""
    database = mariadb_source
    database.execute("CREATE TABLE t (id int PRIMARY KEY, body text)")
    database.execute("INSERT INTO t VALUES (1, 'a')")
    user = database.create_user("SELECT", "REPLICATION SLAVE, BINLOG MONITOR ON *.*")
    with opened(database, url=database.url_as(*user)) as source, reading(source) as reader:
        relation = only_relation(source)
        plan = reader.plan(relation)
        first = reader.position
        assert reader.position == first
        database.execute("INSERT INTO t VALUES (2, 'b')")
        assert len(_read(reader, relation, plan)) == 1, "as it was at the position"
        second = reader.position
        assert second.covers(first)
        assert not first.covers(second)
        assert len(_read(reader, relation, plan)) == 2
        assert reader.position.covers(second)
        database.execute("SET SESSION lock_wait_timeout = 2")
        database.execute("ALTER TABLE t ADD more int NOT NULL DEFAULT 5")


def _read(reader: MysqlChunkReader, relation: Relation, plan: Plan) -> list[bytes]:
    return [
        row
        for bounds in plan.bounds
        for block in reader.read(relation, bounds, plan.fingerprint)
        for row in block
    ]


def test_readers_of_a_round_see_one_moment(any_mysql_source: MysqlDatabase) -> None:
    """Parents and children that are copied by two threads agree: on a source that is not busy all
    readers of a round have one snapshot, taken when the round began."""
    database = any_mysql_source
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with opened(database) as source:
        relation = only_relation(source)
        copying = source.copy_round()
        readers = [copying.reader() for _ in range(3)]
        database.execute("INSERT INTO t VALUES (1)")
        assert {str(r.position) for r in readers} == {str(copying.position)}
        assert [rows_of(r, relation) for r in readers] == [[], [], []]
        for reader in readers:
            reader.close()
        copying.close()


def test_a_read_that_is_left_half_way(
    any_mysql_source: MysqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that is not read to its end, because its rows could not be written, costs neither the
    snapshot nor the next chunk; one that is too long to read and drop costs its connection alone."""
    database = any_mysql_source
    database.execute("CREATE TABLE t (id int PRIMARY KEY, body text)")
    database.execute("INSERT INTO t VALUES (0, repeat('a', 60000))")
    for n in range(6):
        database.execute(f"INSERT INTO t SELECT id + {2**n}, body FROM t")
    with opened(database) as source:
        relation = only_relation(source)
        copying = source.copy_round()
        reader = copying.reader()
        plan = reader.plan(relation)
        left = reader.read(relation, plan.bounds[0], plan.fingerprint)
        assert next(left)
        database.execute("INSERT INTO t VALUES (100, 'later')")
        position = reader.position
        assert len(_read(reader, relation, plan)) == 64
        assert reader.position == position
        monkeypatch.setattr(results, "MOST_DROPPED", 1)
        left = reader.read(relation, plan.bounds[0], plan.fingerprint)
        assert next(left)
        reader.close()
        again = copying.reader()
        assert len(rows_of(again, relation)) == 64
        again.close()
        copying.close()


def test_one_customers_rows(any_mysql_source: MysqlDatabase) -> None:
    """A customer's chunk holds its rows alone; a key that no customer can have is refused, which the
    server would take for 0."""
    database = any_mysql_source
    database.execute("CREATE TABLE t (id int PRIMARY KEY, customer int, body text)")
    database.execute("INSERT INTO t VALUES (1, 0, 'a'), (2, 7, 'b'), (3, 7, 'c'), (4, NULL, 'd')")
    with opened(database) as source:
        relation = replace(only_relation(source), customer_columns=(1,))
        bounds = source.customer_bounds(relation, "7")
        assert source.bounded_to(bounds) == {"customer": "7"}
        with reading(source) as reader:
            assert source.bounded_to(reader.plan(relation).bounds[0]) is None
            copied = [row for block in reader.read(relation, bounds, "") for row in block]
            keys = [row for block in reader.keys(relation, {"customer": "7"}) for row in block]
        assert copied == [b"2\t7\tb\n", b"3\t7\tc\n"]
        assert keys == [b"2\t\\N\t\\N\n", b"3\t\\N\t\\N\n"]
        with pytest.raises(PermanentError, match="can have this key: it does not fit customer"):
            source.customer_bounds(relation, "x OR 1=1")
        with pytest.raises(PermanentError, match="customer key of 3 values for table"):
            source.customer_bounds(replace(relation, customer_columns=(0, 1)), "1,2,3")


def test_rows_that_are_read_again(any_mysql_source: MysqlDatabase) -> None:
    """Rows come as the table is now; those that are gone are left out; a table that is gone has none,
    and one whose key is gone is refused by name."""
    database = any_mysql_source
    database.execute("CREATE TABLE t (id int, k varchar(9), body text, PRIMARY KEY (id, k))")
    database.execute("INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'y')")
    with opened(database) as source:
        relation = only_relation(source)
        wanted = [b"1\ta\t\\=\n", b"2\tb\t\\=\n", b"3\tc\t\\=\n", b"2\tb\told\n"]
        commit = Commit(_last_commit(database), 0, 0)
        database.execute("ALTER TABLE t ADD more int DEFAULT 4")
        again = source.reread(relation, wanted, commit, as_it_is)
        assert [c.name for c in again.relation.columns] == ["id", "k", "body", "more"]
        assert again.images == [b"1\ta\tx\t4\n", b"2\tb\ty\t4\n"]
        assert source.head().covers(source.position(again.position))
        database.execute("ALTER TABLE t DROP PRIMARY KEY, DROP k, ADD PRIMARY KEY (id)")
        with pytest.raises(PermanentError, match=r"table \S+\.t has lost column k of its key"):
            source.reread(relation, wanted, commit, as_it_is)
        database.execute("DROP TABLE t")
        assert source.reread(relation, wanted, commit, as_it_is).images == []
