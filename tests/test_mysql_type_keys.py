"""Rows of MariaDB and MySQL are found on every target by keys of every type: written, changed, moved,
deleted, read again and swept. A key that finds nothing is a delete that is lost without a word, and one
that finds two rows is worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.mysql_crm import Connection, run
from tests.mysql_databases import MysqlDatabase
from tests.mysql_pairs import Pair
from tests.syncs import MakeSync, Source, Sync
from tests.targets import Row, Target

ALONE: Final[Mapping[str, Sequence[str]]] = {
    "varchar(40) COLLATE utf8mb4_bin": ("'a'", "'A'", "''", "' b'", "'\\\\N'", "'t\\tn\\n'", "'é'"),
    "varchar(40) COLLATE utf8mb4_unicode_ci": ("'a'", "'Á'", "'ß'", "'\\\\'", "''", "'z z'"),
    "varchar(40) CHARACTER SET latin1": ("'é'", "'É'", "x'80'", "'a'", "'\\''"),
    "char(8) COLLATE utf8mb4_general_ci": ("'a'", "'A'", "''", "' a'", "'\\t'", "'日本'"),
    "varbinary(20)": ("x''", "x'00'", "x'20'", "x'5C4E'", "x'FF00'", "x'0A0D09'"),
    "binary(4)": ("x'00'", "x'61'", "x'6100FF'", "x'5C5C7800'", "x'20202020'"),
    "tinyint(1)": ("0", "1", "-128", "127"),
    "smallint unsigned": ("0", "1", "65535", "32768"),
    "int": ("0", "-2147483648", "2147483647", "-1"),
    "int(6) unsigned zerofill": ("0", "42", "4294967295", "7"),
    "bigint": ("0", "-9223372036854775808", "9007199254740992", "9007199254740993", "1"),
    "bigint unsigned": ("18446744073709551614", "18446744073709551615", "9223372036854775808", "0"),
    "decimal(10,2)": ("0", "-0.01", "99999999.99", "1.50", "-99999999.99"),
    "decimal(65,30)": (
        "1",
        f"1.{'0' * 29}1",
        f"-{'9' * 35}.{'9' * 30}",
        f"-{'9' * 35}.{'9' * 29}8",
    ),
    "float": ("0.1", "0", "3.4028234663852886e38", "1e-45", "16777216", "-1.17549435e-38"),
    "double": ("0.1", "0", "1.7976931348623157e308", "5e-324", "9007199254740993", "1e22"),
    "bit(9)": ("b'0'", "b'101010101'", "b'110001'", "b'111111111'"),
    "bit(64)": ("0", "18446744073709551615", "49", "9223372036854775808"),
    "date": ("'2024-02-29'", "'0001-01-01'", "'9999-12-31'", "'1970-01-01'"),
    "datetime": ("'2024-02-29 12:00:00'", "'0001-01-01'", "'9999-12-31 23:59:59'", "'1970-01-01'"),
    "datetime(6)": (
        "'2024-02-29 12:00:00.000001'",
        "'2024-02-29 12:00:00.1'",
        "'2024-02-29 12:00'",
    ),
    "timestamp(3)": (
        "'2024-10-27 00:30:00.5'",
        "'1970-01-01 00:00:01'",
        "'2038-01-19 03:14:07.999'",
    ),
    "time(6)": (
        "'-00:00:00.000001'",
        "'-838:59:59'",
        "'838:59:58.999999'",
        "'24:00:00'",
        "'00:00'",
    ),
    "year": ("1901", "2155", "2024", "'0000'"),
    "enum('b','a','it''s','é')": ("'a'", "'b'", "'it''s'", "'é'"),
    "set('x','y','é z')": ("''", "'x'", "'x,y'", "'x,é z'"),
}
"""Types of keys of one column. The first two values may be one to the server: then the one becomes the
other by a change of the key that only the target sees."""

OF_MARIADB: Final[Mapping[str, Sequence[str]]] = {
    "uuid": (
        *("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'"),
        *("'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'61616161-6161-6161-6161-616161616161'"),
    ),
    "inet4": ("'0.0.0.0'", "'255.255.255.255'", "'10.0.0.1'", "'97.97.97.97'"),
    "inet6": ("'::'", "'::ffff:1.2.3.4'", "'2001:db8::ff00:42:8329'", "'ffff::'"),
}

TOGETHER: Final[Sequence[Mapping[str, Sequence[str]]]] = (
    {
        "varchar(20) COLLATE utf8mb4_unicode_ci": ("'a'", "'A'", "'b'", "'b'", "'é'"),
        "datetime(3)": (
            "'2024-01-01'",
            "'2024-01-01'",
            "'2024-01-01'",
            "'0001-01-01'",
            "'9999-12-31'",
        ),
        "decimal(6,2)": ("1", "1", "1.01", "1.01", "-1"),
        "enum('m','n')": ("'m'", "'m'", "'m'", "'n'", "'n'"),
    },
    {
        "varbinary(9)": ("x''", "x'00'", "x'00'", "x'5C'", "x'5C'"),
        "time(3)": ("'-1:00:00.5'", "'-1:00:00.5'", "'1:00:00.5'", "'0:00'", "'0:00'"),
        "double": ("0.1", "0.1", "0.1", "0.1", "0.2"),
        "bigint unsigned": ("1", "1", "1", "18446744073709551615", "0"),
    },
)
"""Keys of four columns, in the reverse of the table's order."""

BIG: Final = "REPEAT(UUID(), 40)"
"""A value that a partial image leaves out."""


class Keys:
    """A table whose key is of `types`, and the changes of its rows, which are told by a number `n`."""

    def __init__(self, table: str, types: Mapping[str, Sequence[str]]) -> None:
        self.table = table
        self._columns = [f"k{i}" for i in range(len(types))]
        self._keys = list(zip(*types.values(), strict=True))
        columns = ", ".join(f"{c} {t} NOT NULL" for c, t in zip(self._columns, types, strict=True))
        self.ddl = (
            f"CREATE TABLE {table} (n int, v varchar(200), {columns}, big mediumtext,"
            f" PRIMARY KEY ({', '.join(reversed(self._columns))})) CHARACTER SET utf8mb4"
        )

    @property
    def last(self) -> int:
        return len(self._keys) - 1

    def insert(self, n: int, key: int) -> str:
        """Left out where the key is there."""
        names = ", ".join(self._columns)
        values = ", ".join(self._keys[key])
        return f"INSERT IGNORE INTO {self.table} (n, v, {names}, big) VALUES ({n}, 'row {n}', {values}, {BIG})"

    def write(self) -> str:
        return f"UPDATE {self.table} SET v = CONCAT(v, ', again')"

    def move(self, n: int, to: int) -> str:
        sets = ", ".join(f"{c} = {v}" for c, v in zip(self._columns, self._keys[to], strict=True))
        return f"UPDATE {self.table} SET {sets} WHERE n = {n}"

    def delete(self, n: int) -> str:
        return f"DELETE FROM {self.table} WHERE n = {n}"

    def fill(self) -> list[str]:
        """A row for each key but the last."""
        return [self.insert(n, n) for n in range(self.last)]

    def forth(self) -> list[str]:
        """Every row has the next one's key at the end, and all have been deleted and made there once."""
        moves = [self.move(n, n + 1) for n in reversed(range(self.last))]
        return [
            self.write(),
            *moves,
            self.insert(50, 0),
            self.write(),
            self.delete(self.last - 1),
            self.insert(51, self.last),
            self.delete(51),
            self.insert(self.last - 1, self.last),
        ]

    def back(self) -> list[str]:
        return [
            self.write(),
            self.delete(50),
            *(self.move(n, n) for n in range(self.last)),
            self.write(),
        ]


def rows_in(side: Source | Target, table: str) -> list[Row]:
    return sorted(side.rows(f"SELECT n, v, big FROM {table}"))


def assert_same(sync: Sync, tables: Sequence[Keys], when: str) -> None:
    unlike = [
        (t.ddl, ours, theirs)
        for t in tables
        if (ours := rows_in(sync.source, t.table)) != (theirs := rows_in(sync.target, t.table))
    ]
    assert not unlike, f"{when}: {unlike}\n{sync.log_tail(15)}"


def session(source: MysqlDatabase, image: str) -> Connection:
    settings = f"time_zone = '+00:00', sql_mode = '', binlog_row_image = '{image}'"
    return source.connect(init_command=f"SET SESSION {settings}")


def test_keys_of_every_type(pair: Pair, make_sync: MakeSync) -> None:
    """After a copy, all changes in one batch, each in one of its own, partial images, a copy over what is
    there, and a sweep: the rows of both sides are the same, and no change has missed its row."""
    source, target = pair
    types = [*ALONE.items(), *(OF_MARIADB.items() if source.server.flavour == "mariadb" else ())]
    groups = [*({kind: values} for kind, values in types), *TOGETHER]
    tables = [Keys(f"key_{n}", group) for n, group in enumerate(groups)]
    whole, partial = session(source, "FULL"), session(source, "MINIMAL")
    run(whole, "CREATE TABLE markers (id int PRIMARY KEY)")
    for table in tables:
        run(whole, table.ddl, *table.fill())
    sync = make_sync(source, target, ["*"])
    sync.start()
    sync.wait_copied()
    assert_same(sync, tables, "copied")
    for step in (Keys.forth, Keys.back):
        with sync.running.held():
            run(whole, *(s for t in tables for s in step(t)))
        sync.catch_up()
        assert_same(sync, tables, f"{step.__name__} in one batch")
    for step, db in ((Keys.forth, whole), (Keys.back, partial)):
        for table in tables:
            run(db, *step(table))
            sync.catch_up()
        assert_same(sync, tables, f"{step.__name__} in small batches")
    sync.assert_nothing_healed()
    run(whole, "SET SESSION sql_log_bin = 0", *(t.delete(1) for t in tables))
    for table in tables:
        target.execute(f"UPDATE {table.table} SET v = 'forged', big = NULL")
    sync.request()
    assert_same(sync, tables, "copied again and swept")
