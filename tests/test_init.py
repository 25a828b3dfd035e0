"""`cdc init` for sources and targets of every kind: what it prints loads, and its grants are enough."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc.config import load
from cdc.init_mysql import ROWS
from tests.command import Command, cdc
from tests.databases import Database
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql

__all__ = ["cdc"]

CRM = (
    "CREATE TABLE customers (id int PRIMARY KEY, name varchar(40))",
    "CREATE TABLE contacts (id int PRIMARY KEY, customer_id int NOT NULL, referred_by int)",
    (
        "ALTER TABLE contacts ADD FOREIGN KEY (referred_by) REFERENCES customers (id),"
        " ADD FOREIGN KEY (customer_id) REFERENCES customers (id)"
    ),
    "CREATE TABLE settings (name varchar(40) PRIMARY KEY)",
    "CREATE TABLE keyless (a int)",
    "INSERT INTO customers VALUES (1, 'a'), (2, 'b')",
    "INSERT INTO contacts VALUES (1, 1, NULL), (2, 2, 1), (3, 2, 2)",
)


def fill(database: MysqlDatabase) -> None:
    for statement in CRM:
        database.execute(statement)


def statements(printed: str, database: str) -> Iterator[str]:
    """What a database needs, as it stands, with a password put in."""
    [_, text] = printed.split(f"# {database} needs, once, as a superuser:\n")
    for line in text.splitlines():
        if not line.startswith("#   "):
            return
        if not line.startswith("#   --"):
            yield line[4:].partition("   --")[0].replace("'...'", "'pw'")


def test_from_mysql_to_every_target(
    cdc: Command, any_mysql_source: MysqlDatabase, target_db: Database
) -> None:
    """The configuration loads, knows the customers by foreign keys, passes `check` and runs."""
    fill(any_mysql_source)
    source = any_mysql_source
    printed = cdc.ok("init", source.url, target_db.url, "sqlite:///copy.db").stdout
    cdc.config.write_text(printed)
    config = load(cdc.config)
    assert config.customer is not None
    assert config.customer.table == "customers"
    assert config.customer.related == {"contacts": "customer_id"}
    assert config.syncs["copy"].tables == ("customers", "contacts")
    assert "# contacts.referred_by refers to it too\n" in printed
    assert '    # "settings",\n' in printed
    assert f'    # "{source.name}.keyless" has no usable key' in printed
    assert "log_limit" not in printed
    assert "-- root may do everything and needs no grant" in printed
    assert 'GRANT USAGE, CREATE ON SCHEMA "public"' in printed
    assert "FAILED" not in cdc.ok("check").stdout
    cdc.ok("run", "--until-current")
    assert cdc.status("copy")["snapshot"]["rows"] == 5
    assert target_db.rows("SELECT count(*) FROM public.contacts") == [(3,)]


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_the_grants_are_enough(
    cdc: Command, flavour: str, make_mariadb: MakeMysql, make_mysql: MakeMysql
) -> None:
    """The statements that it prints, run as they stand on a server with its defaults, let its users pass
    `check`, run and drop; both ends."""
    if flavour == "mariadb":
        server = make_mariadb({"binlog_format": "MIXED", "binlog_row_metadata": "NO_LOG"})
    else:
        off = {"gtid_mode": False, "enforce_gtid_consistency": False}
        server = make_mysql({"binlog_row_metadata": "MINIMAL", **off})
    source, target = MysqlDatabase(server), MysqlDatabase(server)
    fill(source)
    printed = cdc.ok("init", source.url, target.url_as("writer")).stdout
    for database in (source, target):
        for statement in statements(printed, database.name):
            source.execute(statement)
    text = printed.replace("root@", "cdc:pw@").replace("writer@", "writer:pw@")
    cdc.config.write_text(text.replace("password_file", "# password_file"))
    checked = cdc.ok("check").stdout
    assert "FAILED" not in checked, checked
    cdc.ok("run", "--until-current")
    assert target.value("SELECT count(*) FROM contacts") == 3
    cdc.ok("drop", target.name, "--yes")


def test_into_mysql_from_postgresql(
    cdc: Command, source_db: Database, mariadb_target: MysqlDatabase
) -> None:
    """The target's statements are its own kind's, whatever the source is."""
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    source_db.execute("INSERT INTO customers VALUES (1)")
    printed = cdc.ok("init", source_db.url, mariadb_target.url).stdout
    assert list(statements(printed, mariadb_target.name)) == [
        "CREATE USER 'cdc'@'%' IDENTIFIED BY 'pw';",
        f"GRANT {ROWS} ON `{mariadb_target.name}`.* TO 'cdc'@'%';",
    ]
    assert any("CREATE ROLE" in s for s in statements(printed, source_db.name))
    cdc.config.write_text(printed)
    cdc.ok("run", "--until-current")
    assert mariadb_target.rows("SELECT id FROM customers") == [(1,)]
