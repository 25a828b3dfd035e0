"""The documents say what is so: commands, configurations, errors, links, and the first sync as it is written."""

from __future__ import annotations

import ast
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import typer

from appliers.relation import Column
from appliers.sqlite.types import DECLARED, storage_of
from cdc.cli.app import Usage, app
from cdc.config import load
from cdc.config_keys import known_keys
from tests.command import CDC, Command, cdc
from tests.databases import wait_until
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql
from tests.servers import MakeServer

__all__ = ["cdc"]

ROOT: Final = Path(__file__).parent.parent
README: Final = (ROOT / "README.md").read_text()
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS: Final[dict[str, Any]] = typer.main.get_command(app).commands  # type: ignore[attr-defined]

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def section(title: str) -> str:
    """What stands under a heading of the README."""
    found = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL
    )
    assert found, title
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\) *\| *", line.strip("| ")) for line in lines]
    return [row for row in cells[1:] if not set(row[0]) <= set("-")]


def said_commands() -> Iterator[str]:
    """Every command line of `cdc` in the README, be it in a block or in a sentence."""
    for block in blocks(README, "sh"):
        yield from (line.strip("() ") for line in block.splitlines() if line.startswith("cdc "))
    for text in re.findall(
        r"`(cdc [^`]+)`", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    ):
        if text != "cdc COMMAND --help":
            yield text


@pytest.mark.parametrize("line", sorted(set(said_commands())))
def test_commands_exist_with_these_options(line: str) -> None:
    """What is written is what the command line takes."""
    words = shlex.split(re.sub(r"[\[\]]|>.*", "", line))
    arguments = [re.sub(r"^(N|SECONDS)$", "1", word) for word in words[1:]]
    if arguments[0].startswith("-"):
        done = subprocess.run(
            [sys.executable, "-m", "cdc", "--help"], capture_output=True, text=True, check=True
        )
        assert arguments[0] in done.stdout
        return
    command = COMMANDS[arguments[0]]
    options = {name for p in command.params for name in p.opts}
    assert {w for w in arguments if w.startswith("--")} <= options | {"--help"}, line
    if len(arguments) > 1:  # a command alone is only mentioned
        try:
            command.make_context(arguments[0], arguments[1:])
        except Usage as e:
            pytest.fail(f"{line}: {e}")


def test_every_command_and_option_is_documented() -> None:
    """The table is whole; what all of them have is said once."""
    told = {}
    for row in rows(section("Commands")):
        words = shlex.split(re.sub(r"[\[\]`]", "", row[0]))
        told[words[1]] = {word for word in words if word.startswith("--")}
    having = {
        name: {o for p in command.params for o in p.opts if o.startswith("--")}
        for name, command in COMMANDS.items()
    }
    with_config = {name for name, options in having.items() if "--config" in options}
    assert {n: o - {"--config", "--help"} for n, o in having.items()} == told
    assert with_config == set(told) - {"demo", "init"}


@each_document
def test_make_targets_exist(path: Path) -> None:
    """`make X` is a target."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = path.read_text()
    said = set(re.findall(r"(?:^|`)(?:[A-Z_]+=\S+ )?make ([a-z]+)\b", text, re.MULTILINE))
    assert said <= targets


@pytest.mark.parametrize("text", blocks(README, "toml"))
def test_configurations_load(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the files and variables that they name."""
    for name in re.findall(r'password_file = "([^"]+)"', text):
        (tmp_path / name).write_text("secret")
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, "secret")
    (tmp_path / "cdc.toml").write_text(text)
    assert load(tmp_path / "cdc.toml").syncs


def test_every_key_is_documented() -> None:
    """No key that does not exist, and none that is not told."""
    said = set()
    for row in rows(section("Configuration")):
        said.update(re.findall(r"`([a-z]+\.[A-Za-z_.]+)`", row[0]))
    having = {
        *(f"databases.NAME.{key}" for key in known_keys(("databases", ""))),
        *(f"customer.{key}" for key in known_keys(("customer",))),
        *(f"sync.NAME.{key}" for key in known_keys(("sync", ""))),
    }
    assert said == having


def test_types_in_sqlite_are_those_that_are_made() -> None:
    """Every type that the table names is kept in the column that it names."""
    base = {"time": "time", "bit": "bit", "text": "text"}
    known = set()
    for types, declared, _ in rows(section("Types")):
        names = types.removeprefix("everything else: ").split(", ")
        for name in names:
            kind = {"enums": "enum", "arrays": "array", "ranges": "range"}.get(name, "base")
            kind = "composite" if name == "composite types" else kind
            column = Column(name, name, base.get(name, name), kind, nullable=True, portable=True)
            made = DECLARED[storage_of(column, "postgres")].strip()
            assert made == declared.removeprefix("without a type"), name
            known.add(name)
    assert len(known) > 20


def constants() -> str:
    """Every text in the product's code; what is put into one at run time is a hole."""
    parts = []
    for package in ("appliers", "cdc"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts.append(
                        "".join(
                            str(v.value) if isinstance(v, ast.Constant) else "…"
                            for v in node.values
                        )
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    parts.append(re.sub(r"\{\w*\}", "…", node.value))
    return "\n".join(parts)


def test_errors_are_those_that_are_raised() -> None:
    """Every error of the table is in the code, in these words."""
    code = constants()
    for row in rows(section("Troubleshooting")):
        for text in re.findall(r"`([^`]+)`", row[0]):
            words = [w.strip(" :,") for w in text.split("…") if len(w.strip(" :,")) > 3]
            if row[0].startswith("state"):
                words = [f"{text}"]
            for word in words:
                assert word in code, text


@each_document
def test_links_lead_somewhere(path: Path) -> None:
    """Within the repository."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


@each_document
def test_named_files_and_tests_exist(path: Path) -> None:
    """A path in a document is there, and so is a test that it names."""
    text = path.read_text()
    last = ""
    for name, test in re.findall(
        r"`((?:tests|cdc|appliers|systemd|docs|config)/[\w./]*)?(?:::(\w+))?`", text
    ):
        if not name and not test:
            continue
        last = name or last
        assert (ROOT / last).exists(), last
        assert not test or f"def {test}(" in (ROOT / last).read_text(), f"{last}::{test}"


def test_the_first_sync_works_as_it_is_written(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walkthrough, word for word, with this server's address in place of the one that is written."""
    server = make_server(password="of-the-superuser")
    with psycopg.connect(server.url(), autocommit=True) as db:
        db.execute("CREATE ROLE crm_owner")
        db.execute("CREATE DATABASE crm OWNER crm_owner")
    with psycopg.connect(server.url("crm"), autocommit=True) as db:
        db.execute("SET ROLE crm_owner")
        db.execute("CREATE TABLE customers (id integer PRIMARY KEY, name text)")
        db.execute("INSERT INTO customers VALUES (1, 'Jürgen'), (2, 'Zoë')")
        db.execute("RESET ROLE")
        [grants] = blocks(section("A first sync in five minutes"), "sql")
        for statement in grants.split("\n"):
            db.execute(statement.encode())
        install, first, stays = blocks(section("A first sync in five minutes"), "sh")
        assert "make install" in install
        (tmp_path / "run").mkdir()
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        copies(first.replace("crm-db:5432", f"127.0.0.1:{server.port}"), tmp_path)
        follows(stays, db, tmp_path)


def test_a_first_sync_from_mariadb_works_as_it_is_written(
    make_mariadb: MakeMysql, cdc: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for a MariaDB with its own defaults, but for the binary log, which takes a restart."""
    server = make_mariadb({"binlog_format": "MIXED", "binlog_row_metadata": "NO_LOG"})
    with closing(MysqlDatabase(server).connect()) as db, db.cursor() as cursor:
        said = section("From MySQL or MariaDB")
        [grants] = blocks(said, "sql")
        for statement in (
            "CREATE DATABASE crm",
            "CREATE TABLE crm.customers (id integer PRIMARY KEY, name text)",
            "INSERT INTO crm.customers VALUES (1, 'Jürgen'), (2, 'Zoë')",
            *(line for line in grants.splitlines() if line),
        ):
            cursor.execute(statement)
    [script] = blocks(said, "sh")
    monkeypatch.setenv("PATH", f"{Path(CDC).parent}:{os.environ['PATH']}")
    copies(script.replace("crm-db:3306", f"127.0.0.1:{server.port}"), cdc.directory)
    with closing(sqlite3.connect(cdc.directory / "copy.db")) as copy:
        assert copy.execute("SELECT id, name FROM customers").fetchall() == [
            (1, "Jürgen"),
            (2, "Zoë"),
        ]


def copies(script: str, folder: Path) -> None:
    """The lines of a walkthrough up to `cdc status`, which tells of two rows."""
    done = subprocess.run(
        ["/bin/bash", "-euxc", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 FAILED" in done.stderr
    # The source's own housekeeping may be in its log since; nobody who is stopped can tell it from changes.
    assert re.search(r"^copy +stopped +\d+\.\d s, .* done, 2 rows$", done.stdout, re.MULTILINE)


def follows(stays: str, db: psycopg.Connection[Any], folder: Path) -> None:
    """The command that stays takes what comes, and `cdc drop` ends it all."""
    daemon = subprocess.Popen(["/bin/bash", "-c", f"exec {stays.strip()}"], cwd=folder)
    try:
        db.execute("INSERT INTO customers VALUES (3, 'Đặng')")

        def names() -> list[str]:
            with closing(sqlite3.connect(folder / "copy.db")) as copy:
                return [n for (n,) in copy.execute("SELECT name FROM customers ORDER BY id")]

        wait_until(lambda: names() == ["Jürgen", "Zoë", "Đặng"])
    finally:
        daemon.terminate()
        assert daemon.wait(20) == 0
    drop = [sys.executable, "-m", "cdc", "drop", "copy", "--yes"]
    subprocess.run(drop, cwd=folder, check=True, timeout=60)
    assert db.execute("SELECT slot_name FROM pg_replication_slots").fetchall() == []
