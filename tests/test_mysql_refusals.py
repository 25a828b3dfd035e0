"""What a MariaDB or MySQL server refuses, as the commands tell it: a wrong password, a database that is not
there, rights that are missing on the target."""

from __future__ import annotations

import re

import pytest

from tests.command import Command, cdc
from tests.databases import Database
from tests.mysql_databases import MysqlDatabase

__all__ = ["cdc"]

CUSTOMERS = "CREATE TABLE customers (id int PRIMARY KEY, name varchar(20))"


@pytest.fixture(params=["mariadb", "mysql"])
def database(request: pytest.FixtureRequest) -> MysqlDatabase:
    found: MysqlDatabase = request.getfixturevalue(f"{request.param}_source")
    return found


def failed(cdc: Command, end: str) -> list[tuple[str, str]]:
    """What `cdc check` finds FAILED at one end, and what it says to try."""
    done = cdc.run("check")
    assert done.returncode == (1 if "FAILED" in done.stdout else 0)
    found = re.findall(rf"^FAILED copy, {end} \w+: (.*?) - try: (.*)$", done.stdout, re.MULTILINE)
    assert len(found) == done.stdout.count("FAILED"), done.stdout
    return found


@pytest.mark.parametrize("end", ["source", "target"])
@pytest.mark.parametrize("wrong", ["password", "database"])
def test_not_let_in(
    cdc: Command, database: MysqlDatabase, source_db: Database, end: str, wrong: str
) -> None:
    """`check`, `run` and `status` say why, and what to try; each ends with 1, and none shows the password."""
    if wrong == "password":
        user = database.create_user("ALL", password="geheim")
        url = database.url_as(user.name, "falsch")
        said = f"Access denied for user '{user.name}'@"
    else:
        url = re.sub(r"/[^/]*$", "/nowhere", database.url)
        said = "Unknown database 'nowhere'"
    source_db.execute(CUSTOMERS)
    urls = (url, "sqlite:///copy.db") if end == "source" else (source_db.url, url)
    cdc.configure(*urls, sync={"tables": ["customers"]})
    [(found, remedy)] = failed(cdc, end)
    assert found.startswith("connection: ")
    assert said in found
    assert wrong in remedy
    run = cdc.run("run", "--until-current")
    assert run.returncode == 1
    assert f"Error: {found.removeprefix('connection: ')}\nTry: {remedy}\n" in run.stderr
    status = cdc.run("status")
    assert status.returncode == 1
    assert said in status.stdout
    assert f"  Try: {remedy}\n" in status.stdout
    assert "falsch" not in run.stderr + status.stdout + status.stderr


def test_rights_that_are_missing_on_the_target(
    cdc: Command, database: MysqlDatabase, source_db: Database
) -> None:
    """Each is named; the statements that are printed give them, and are enough for a sync."""
    user = database.create_user("SELECT")
    source_db.execute(CUSTOMERS)
    source_db.execute("INSERT INTO customers VALUES (1, 'Ada')")
    cdc.configure(source_db.url, database.url_as(*user), sync={"tables": ["customers"]})
    found = failed(cdc, "target")
    assert found
    refused = cdc.run("run", "--until-current")
    assert refused.returncode == 1
    assert "command denied" in refused.stderr
    for _, remedy in found:
        database.execute(remedy)
    assert failed(cdc, "target") == []
    cdc.ok("run", "--until-current")
    source_db.execute("UPDATE customers SET name = 'Grace'; INSERT INTO customers VALUES (2, 'x')")
    cdc.ok("run", "--until-current")
    assert database.rows("SELECT id, name FROM customers ORDER BY id") == [(1, "Grace"), (2, "x")]
