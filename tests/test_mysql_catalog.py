"""Which tables of a MySQL or MariaDB source a sync takes, and which it refuses by name."""

from __future__ import annotations

from contextlib import closing

import pytest

from appliers.errors import PermanentError
from appliers.relation import Column, Relation
from cdc.sources.source import Refused
from tests.mysql_databases import MysqlDatabase, quoted
from tests.mysql_reading import as_it_is, changes_to, opened, streaming


def refused(database: MysqlDatabase, pattern: str) -> PermanentError:
    with opened(database) as source, pytest.raises(PermanentError) as caught:
        source.catalog([pattern])
    return caught.value


def test_patterns(any_mysql_source: MysqlDatabase) -> None:
    """A bare name and `*` mean the URL's database; another one is named. A table named twice comes once."""
    here = any_mysql_source
    other = MysqlDatabase(here.server)
    try:
        for database in (here, other):
            database.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b LIKE a", None)
        here.execute("CREATE TABLE `x.y z` (id int PRIMARY KEY)")
        with opened(here) as source:

            def found(*patterns: str) -> list[str]:
                return [r.table for r in source.catalog(patterns).relations]

            assert found("a") == [f"{here.name}.a"]
            assert found("*") == [f"{here.name}.{t}" for t in ("a", "b", "x.y z")]
            assert found(f"{other.name}.*", f"{other.name}.b") == [
                f"{other.name}.a",
                f"{other.name}.b",
            ]
            assert found("x.y z", "a", f"{here.name}.a") == [f"{here.name}.x.y z", f"{here.name}.a"]
            assert {r.home for r in source.catalog([f"{other.name}.a"]).relations} == {here.name}
    finally:
        other.drop()


def test_a_table_that_is_not_there(any_mysql_source: MysqlDatabase) -> None:
    error = refused(any_mysql_source, "nowhere")
    assert str(error) == "table nowhere does not exist on the source, or its user may not see it"
    assert error.hint == "compare `tables` in the configuration with the source's tables"


@pytest.mark.parametrize(
    ("ddl", "key"),
    [
        ("id int, b int NOT NULL UNIQUE, PRIMARY KEY (id)", ("id",)),
        ("b int, id int, PRIMARY KEY (id, b)", ("id", "b")),
        ("a int NOT NULL, b int NOT NULL, c int NOT NULL, UNIQUE u (a, b), UNIQUE v (c)", ("c",)),
        ("a int UNIQUE, b int NOT NULL UNIQUE", ("b",)),
        ("a varchar(100) NOT NULL, b int NOT NULL, UNIQUE (a(10)), UNIQUE (b)", ("b",)),
        ("a text, b int, PRIMARY KEY (b, a(20)), UNIQUE u (b)", ("b",)),
        ("a int NOT NULL, b int NOT NULL, UNIQUE v (a, b), UNIQUE u (b) HIDDEN", ("a", "b")),
    ],
)
def test_the_key(any_mysql_source: MysqlDatabase, ddl: str, key: tuple[str, ...]) -> None:
    """The primary key, else the smallest unique index of NOT NULL columns, never one on prefixes, nor
    one that queries may not use."""
    hidden = "IGNORED" if any_mysql_source.server.flavour == "mariadb" else "INVISIBLE"
    any_mysql_source.execute(f"CREATE TABLE t ({ddl.replace('HIDDEN', hidden)})")
    with opened(any_mysql_source) as source:
        [relation] = source.catalog(["t"]).relations
    assert relation.key_names == key


def test_no_key_of_expressions(mysql_source: MysqlDatabase) -> None:
    """What MySQL's functional indexes leave apart are no columns' values."""
    mysql_source.execute(
        "CREATE TABLE t (a varchar(9) NOT NULL, b int NOT NULL, UNIQUE u ((lower(a))), UNIQUE v (b, (b + 1)))"
    )
    assert "has no usable key" in str(refused(mysql_source, "t"))


@pytest.mark.parametrize(
    "ddl",
    [
        "a int",
        "a int UNIQUE",
        "a varchar(100) NOT NULL, UNIQUE (a(10))",
        "a text, PRIMARY KEY (a(20))",
        "a int, g int AS (a + 1) VIRTUAL NOT NULL, UNIQUE (g)",
    ],
)
def test_no_key(any_mysql_source: MysqlDatabase, ddl: str) -> None:
    """Scenario 20: refused by name with what to do; a wildcard leaves it out and says so."""
    database = any_mysql_source
    if "VIRTUAL" in ddl and database.server.flavour == "mariadb":
        ddl = ddl.replace(" NOT NULL", "")
    database.execute(f"CREATE TABLE t ({ddl})")
    error = refused(database, "t")
    assert str(error) == (
        f"table {database.name}.t has no usable key: no row can be told from another"
    )
    assert error.hint == (
        f"ALTER TABLE `{database.name}`.`t` ADD PRIMARY KEY (…), or a UNIQUE index on NOT NULL columns"
    )
    with opened(database) as source:
        assert source.catalog(["*"]).refused == (
            Refused(
                f"{database.name}.t",
                "has no usable key: no row can be told from another",
                error.hint,
            ),
        )


def test_what_is_no_table(any_mysql_source: MysqlDatabase) -> None:
    """Views are refused where they are named, and are no tables to a wildcard; a table without
    transactions is refused, because no copy of it is exact."""
    database = any_mysql_source
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    database.execute("CREATE VIEW v AS SELECT * FROM t")
    database.execute("CREATE TABLE m (id int PRIMARY KEY) ENGINE = MyISAM")
    database.execute("CREATE TABLE cdc_checkpoint (id int PRIMARY KEY)")
    assert "v is a view: its changes are not in the log" in str(refused(database, "v"))
    error = refused(database, "m")
    assert f"table {database.name}.m is of engine MyISAM, expected InnoDB" in str(error)
    assert error.hint == f"ALTER TABLE `{database.name}`.`m` ENGINE = InnoDB;"
    with opened(database) as source:
        found = source.catalog(["*"])
        assert [r.name for r in found.relations] == ["t"]
        assert [r.table.partition(".")[2] for r in found.refused] == ["cdc_checkpoint", "m"]
        assert [r.name for r in source.catalog(["cdc_checkpoint"]).relations] == ["cdc_checkpoint"]


def test_sequences_and_histories(mariadb_source: MysqlDatabase) -> None:
    """MariaDB's own: a sequence is no table; one that keeps its rows' history is refused."""
    database = mariadb_source
    database.execute("CREATE SEQUENCE s")
    database.execute("CREATE TABLE h (id int PRIMARY KEY) WITH SYSTEM VERSIONING")
    assert "s is a sequence, no table" in str(refused(database, "s"))
    error = refused(database, "h")
    assert "h keeps the history of its rows" in str(error)
    assert error.hint == f"ALTER TABLE `{database.name}`.`h` DROP SYSTEM VERSIONING;"
    with opened(database) as source:
        assert [r.table for r in source.catalog(["*"]).refused] == [f"{database.name}.h"]


def test_columns(any_mysql_source: MysqlDatabase) -> None:
    """Names of any kind, declared types, nullability; generated and invisible columns are columns."""
    database = any_mysql_source
    database.execute(
        "CREATE TABLE `Tä ble` (`Id` bigint unsigned NOT NULL PRIMARY KEY, `se``lect` enum('a','b'),"
        " g int AS (1 + 1), i varchar(20) INVISIBLE, t timestamp(3) NULL, d decimal(10,2) NOT NULL)"
    )
    with opened(database) as source:
        [relation] = source.catalog(["Tä ble"]).relations
    unsigned = "bigint(20) unsigned" if database.server.flavour == "mariadb" else "bigint unsigned"
    rule = database.value("SELECT @@collation_database")
    assert relation.columns[:2] == (
        Column("Id", unsigned, "bigint", nullable=False),
        Column("se`lect", "enum('a','b')", "enum", "enum", folds=True, collation=rule),
    )
    assert [(c.name, c.base, c.nullable) for c in relation.columns[2:]] == [
        ("g", "int", True),
        ("i", "varchar", True),
        ("t", "timestamp", True),
        ("d", "decimal", False),
    ]
    assert relation.columns[5].type == "decimal(10,2)"
    assert (relation.dialect, relation.schema, relation.home) == (
        "mysql",
        database.name,
        database.name,
    )


ALTERED = (
    ("ADD more int", ["id", "name", "more"]),
    ("DROP name", ["id"]),
    ("CHANGE name title varchar(20)", ["id", "title"]),
    ("MODIFY name varchar(20) FIRST", ["name", "id"]),
    ("MODIFY name int", ["id", "name"]),
)


@pytest.mark.parametrize("hidden", [False, True])
def test_shapes_of_the_backlog(any_mysql_source: MysqlDatabase, *, hidden: bool) -> None:
    """Scenarios 10 and 32: rows are read in the shape that they were written with, whatever the table
    is now, and whether the log has the ALTER or not (sql_log_bin = 0)."""
    database = any_mysql_source
    tables = [f"t{n}" for n in range(len(ALTERED))]
    for table in tables:
        database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, name varchar(20))")
    with opened(database, "*") as source:
        start = source.start(())
        for table, (alteration, _) in zip(tables, ALTERED, strict=True):
            database.execute(f"INSERT INTO {table} (id, name) VALUES (1, '7')")
            database.execute(f"SET SESSION sql_log_bin = {int(not hidden)}")
            database.execute(f"ALTER TABLE {table} {alteration}")
            database.execute("SET SESSION sql_log_bin = 1")
            database.execute(f"INSERT INTO {table} (id) VALUES (2)")
        # A sync's own stream ends where rows were converted; one beside it goes on.
        beside = source.tail(
            from_start=True,
            checkpoint=lambda: source.position(str(start.position)),
            relations=source.catalog(["*"]).relations,
            shape=as_it_is,
        )
        with closing(beside) as stream:
            changes = changes_to(stream, source.head())
    for table, (alteration, names) in zip(tables, ALTERED, strict=True):
        of_table = [(r, after) for _, r, _, after, _, _ in changes if r.name == table]
        rows = [(_names(r), _values(r, after)) for r, after in of_table if after is not None]
        assert rows == [
            (["id", "name"], {"id": b"1", "name": b"7"}),
            (names, {n: b"2" if n == "id" else None for n in names}),
        ]
        assert of_table[0][0].columns[1].base == "varchar"
        if alteration == "MODIFY name int":
            assert of_table[-1][0].columns[1].base == "int"


def _names(relation: Relation) -> list[str]:
    return [c.name for c in relation.columns]


def _values(relation: Relation, image: bytes) -> dict[str, object]:
    return dict(zip(_names(relation), relation.values(image), strict=True))


def test_a_key_of_its_time(any_mysql_source: MysqlDatabase) -> None:
    """Rows are told apart by the key that their table had when they were written; without one, the
    sync stops by name."""
    database = any_mysql_source
    database.execute("CREATE TABLE t (id int PRIMARY KEY, other int NOT NULL)")
    with opened(database, "t") as source:
        start = source.start(())
        database.execute("INSERT INTO t VALUES (1, 2)")
        # Behind the log's back: as a statement in it, it would have the table copied again.
        database.execute("SET SESSION sql_log_bin = 0")
        database.execute("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (other)")
        database.execute("SET SESSION sql_log_bin = 1")
        database.execute("INSERT INTO t VALUES (3, 4)")
        source.catalog(["t"])
        with streaming(source, source.position(str(start.position))) as stream:
            changes = [c for c in changes_to(stream, source.head()) if c[3] is not None]
        assert [c[1].key_names for c in changes] == [("id",), ("other",)]
        database.execute("ALTER TABLE t DROP PRIMARY KEY")
        database.execute("INSERT INTO t VALUES (5, 6)")
        head = source.head()
        with (
            streaming(source, source.position(str(start.position))) as stream,
            pytest.raises(PermanentError) as caught,
        ):
            changes_to(stream, head)
    assert "has lost its key: no row can be told from another" in str(caught.value)
    assert caught.value.hint.startswith(f"ALTER TABLE {quoted(database.name)}.`t` ADD PRIMARY KEY")


def test_a_log_without_names(any_mysql_source: MysqlDatabase) -> None:
    """Rows that were logged with binlog_row_metadata = MINIMAL stop the sync, never misalign it."""
    database = any_mysql_source
    database.execute("CREATE TABLE t (id int PRIMARY KEY, other int NOT NULL)")
    with opened(database, "t") as source:
        start = source.start(())
        database.execute("SET GLOBAL binlog_row_metadata = MINIMAL")
        try:
            database.execute("INSERT INTO t VALUES (1, 2)")
        finally:
            database.execute("SET GLOBAL binlog_row_metadata = FULL")
        head = source.head()
        with (
            streaming(source, source.position(str(start.position))) as stream,
            pytest.raises(PermanentError) as caught,
        ):
            changes_to(stream, head)
    assert "without their names" in str(caught.value)
    assert "binlog_row_metadata = FULL" in caught.value.hint
