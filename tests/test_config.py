"""The configuration: what it gives, and that every mistake names itself in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from cdc.config import Config, ConfigError, find, load, slot_name
from cdc.urls import place, split

GOOD: Final = """
[databases.crm]
url = "postgresql://cdc@crm-db:5432/crm?sslmode=verify-full"

[databases.oa]
url = "sqlite:////var/lib/cdc/oa.db"

[customer]
table = "customers"
related = { contacts = "customer_id", addresses = "customer_id" }

[sync.oa]
source = "crm"
target = "oa"
"""
EXAMPLES: Final = sorted((Path(__file__).parent.parent / "config").glob("*.toml"))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test's configuration stands; nothing of the real environment reaches it."""
    for name in ("CDC_CONFIG", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cdc.toml"


def loaded(path: Path, text: str) -> Config:
    path.write_text(text)
    return load(path)


def wrong(path: Path, text: str) -> list[str]:
    """The lines of the error, without the file's name that each begins with."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(str(path)) for line in lines), lines
    return [line.removeprefix(str(path)).removeprefix(": ") for line in lines]


def with_sync(**keys: str) -> str:
    """GOOD with keys of its sync set to TOML text."""
    return GOOD + "".join(f"{key} = {text}\n" for key, text in keys.items())


def test_everything_leads_somewhere(write: Path) -> None:
    """A good file gives databases, customer and syncs that refer to each other."""
    config = loaded(write, with_sync(tables='["customers", "sales.*"]', strategy='"realtime"'))
    assert config.path == write.absolute()
    assert config.customer is not None
    assert config.customer.table == "customers"
    assert config.customer.related == {"contacts": "customer_id", "addresses": "customer_id"}
    sync = config.syncs["oa"]
    assert sync.source is config.databases["crm"]
    assert sync.target.url == "sqlite:////var/lib/cdc/oa.db"
    assert sync.tables == ("customers", "sales.*")


def test_tables_default_to_the_customers(write: Path) -> None:
    """Without `tables`, a sync has the customer's table and its related ones."""
    assert loaded(write, GOOD).syncs["oa"].tables == ("customers", "contacts", "addresses")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_load(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file under config/ is a configuration, once its passwords are there."""
    (tmp_path / "crm-password").write_text("secret\n")
    (tmp_path / "finance-password").write_text("secret\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("CRM_PASSWORD", "secret")
    monkeypatch.setenv("FINANCE_PASSWORD", "secret")
    monkeypatch.setenv("SUPPORT_PASSWORD", "secret")
    config = load(example)
    assert config.syncs
    assert "secret" not in repr(config)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (with_sync(tabels='["a"]'), "sync.oa.tabels: unknown key; nearest known key: tables"),
        (with_sync(strategy='"batch"'), 'sync.oa.strategy: expected "realtime", found "batch"'),
        (with_sync(direction='"two-way"'), 'sync.oa.direction: expected "one-way", found "two-way"'),
        (with_sync(mode='"full"'), 'sync.oa.mode: expected "incremental", found "full"'),
        (with_sync(on_error='"set-aside"'), 'sync.oa.on_error: expected "stop", found "set-aside"'),
        (with_sync(on_error="5"), 'sync.oa.on_error: expected "stop", found the number 5'),
        (with_sync(tables='"customers"'), 'sync.oa.tables: expected an array of strings, found "customers"'),
        (with_sync(tables="[1]"), "sync.oa.tables[0]: expected a string, found the number 1"),
        (with_sync(tables="[]"), "sync.oa.tables: expected at least one table, found none"),
        (
            with_sync(tables='["a", "b*"]'),
            'sync.oa.tables[1]: expected `name`, `schema.name`, `schema.*` or `*`, found "b*"',
        ),
        (with_sync(map="[]"), "sync.oa.map: unknown key; known: source, target, tables, "),
        (GOOD + "[http]\nlisten = '127.0.0.1:1'", "http: unknown key; known: databases, customer, sync"),
        (GOOD + "[syncs.x]", "syncs: unknown key; nearest known key: sync"),
        (
            GOOD.replace('target = "oa"', 'target = "oaa"'),
            'sync.oa.target: expected one of [databases.*] (crm, oa), found "oaa"; nearest: oa',
        ),
        (
            GOOD.replace('source = "crm"', ""),
            "sync.oa.source: expected the name of one of [databases.*], found nothing",
        ),
        (
            GOOD.replace('source = "crm"', 'source = "oa"').replace('target = "oa"', 'target = "crm"'),
            (
                "sync.oa.source: expected a source of postgresql://, postgres://, mysql://, mariadb://, found"
                ' "oa", which is sqlite://'
            ),
        ),
        (
            GOOD.replace('target = "oa"', 'target = "crm"'),
            'sync.oa.target: expected another database than the source, found "crm"',
        ),
        (
            GOOD.partition("[customer]")[0] + "[sync.oa]\nsource = 'crm'\ntarget = 'oa'",
            "sync.oa.tables: expected tables, here or in [customer], found neither",
        ),
        (
            GOOD.replace("[sync.oa]", '[sync."o a"]'),
            'sync."o a": expected a name of 1 to 40 letters, digits, - and _, found "o a"',
        ),
        (GOOD.partition("[sync.oa]")[0], "sync: expected at least one table [sync.NAME], found nothing"),
        (GOOD + "[sync.a.b]", "sync.a.b: unknown key; known: "),
        ("sync = 3", "databases: expected at least one table [databases.NAME], found nothing"),
        (GOOD.replace("table = ", "tabel = "), "customer.table: expected the name of the table"),
        (GOOD.replace('"customer_id" }', "5 }"), "customer.related.addresses: expected a string, found the number 5"),
        (GOOD + 'tables = ["a"', ":15: expected TOML, found: "),
        ("a = 1\nb = = 2", ":2: expected TOML, found: invalid value"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(write: Path, text: str, line: str) -> None:
    """It names file, key, what was expected and what was found."""
    found = wrong(write, text)
    assert any(f.startswith(line) for f in found), found


def test_all_mistakes_are_told_at_once(write: Path) -> None:
    """Two mistakes are two lines, not two runs."""
    lines = wrong(write, with_sync(strategy='"batch"', tabels="[]"))
    assert len(lines) == 2


def test_slots_of_two_syncs_differ(write: Path) -> None:
    """A slot's name has neither case nor hyphens: two syncs that would share one are refused."""
    again = "[sync.{}]\nsource = 'crm'\ntarget = 'oa'\n"
    text = GOOD + again.format("o-a") + again.format("o_a")
    [line] = wrong(write, text)
    assert (
        line == 'sync.o_a: expected a name whose slot is its own, found the same as "o-a" (cdc_o_a)'
    )
    assert slot_name("Big-Sync") == "cdc_big_sync"


class TestEnvironment:
    def test_anywhere_in_a_string(self, write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`${NAME}` is replaced in any string, several times too."""
        monkeypatch.setenv("HOST", "db1")
        monkeypatch.setenv("TABLE", "clients")
        text = GOOD.replace("crm-db", "${HOST}").replace('"customers"', '"${TABLE}"')
        config = loaded(write, text)
        assert config.databases["crm"].url == "postgresql://cdc@db1:5432/crm?sslmode=verify-full"
        assert config.syncs["oa"].tables[0] == "clients"

    def test_a_whole_url(self, write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://me:s%40fe@db/crm")
        config = loaded(write, GOOD.replace("postgresql://cdc@crm-db:5432/crm", "${DATABASE_URL}"))
        assert config.databases["crm"].url == "postgresql://me@db/crm?sslmode=verify-full"
        assert config.databases["crm"].password == "s@fe"

    def test_a_password_is_taken_as_it_is(
        self, write: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a variable holds needs no percent-encoding."""
        monkeypatch.setenv("PW", "p@ss/w%6Frd:#?")
        config = loaded(write, GOOD.replace("cdc@", "cdc:${PW}@"))
        assert config.databases["crm"].password == "p@ss/w%6Frd:#?"
        assert config.databases["crm"].url == "postgresql://cdc@crm-db:5432/crm?sslmode=verify-full"

    def test_missing(self, write: Path) -> None:
        """A variable that is not set names key and variable."""
        [line] = wrong(write, GOOD.replace("cdc@", "cdc:${NO_SUCH_VARIABLE}@"))
        expected = "databases.crm.url: expected the environment variable NO_SUCH_VARIABLE, found it is not set"
        assert line == expected


class TestPasswords:
    FILE = GOOD.replace("[databases.oa]", 'password_file = "crm-password"\n[databases.oa]')

    def test_beside_the_file(self, write: Path) -> None:
        """The last newline of a password file is the editor's, all else is the password's."""
        (write.parent / "crm-password").write_text(" a b \n")
        database = loaded(write, self.FILE).databases["crm"]
        assert database.password == " a b "
        assert database.password_file == write.parent / "crm-password"
        assert " a b " not in repr(database)

    def test_credentials_first(self, write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        credentials = write.parent / "credentials"
        credentials.mkdir()
        (credentials / "crm-password").write_text("from systemd")
        (write.parent / "crm-password").write_text("from beside")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
        assert loaded(write, self.FILE).databases["crm"].password == "from systemd"

    def test_missing_or_empty(self, write: Path) -> None:
        file = write.parent / "crm-password"
        assert wrong(write, self.FILE) == [
            f"databases.crm.password_file: expected a file, found none at {file}"
        ]
        file.write_text("\n")
        assert wrong(write, self.FILE) == [
            f"databases.crm.password_file: expected a password in {file}, found nothing"
        ]
        file.unlink()
        file.mkdir()
        assert wrong(write, self.FILE) == [
            f"databases.crm.password_file: expected a file that can be read at {file}, found is a directory"
        ]

    def test_in_the_url(self, write: Path) -> None:
        """It moves out of the URL, from the userinfo and from the query."""
        config = loaded(write, GOOD.replace("cdc@", "cdc:hunter%2F2@"))
        assert config.databases["crm"].password == "hunter/2"
        assert "hunter" not in repr(config)
        config = loaded(write, GOOD.replace("?ssl", "?password=hunter2&ssl"))
        assert config.databases["crm"].password == "hunter2"
        assert config.databases["crm"].url == "postgresql://cdc@crm-db:5432/crm?sslmode=verify-full"

    def test_in_both(self, write: Path) -> None:
        (write.parent / "crm-password").write_text("one")
        [line] = wrong(write, self.FILE.replace("cdc@", "cdc:two@"))
        assert (
            line
            == "databases.crm.password_file: expected one password, found another one in the url"
        )

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://cdc:hunter2/x@crm-db/crm",
            "postgres:cdc:hunter2@crm-db/crm",
            "postgrsql://cdc:hunter2@crm-db/crm",
            "oracle://cdc:hunter2@crm-db/crm",
        ],
    )
    def test_never_in_an_error(self, write: Path, url: str) -> None:
        """A URL that is wrong is not shown."""
        lines = wrong(write, GOOD.replace("postgresql://cdc@crm-db:5432/crm", url))
        assert lines[0].startswith("databases.crm.url: expected ")
        assert "hunter" not in "".join(lines)

    def test_never_in_an_unknown_key(self, write: Path) -> None:
        [line] = wrong(
            write, GOOD.replace("[databases.oa]", 'password = "hunter2"\n[databases.oa]')
        )
        assert line == "databases.crm.password: unknown key; nearest known key: password_file"


class TestUrls:
    def test_a_misspelt_scheme(self, write: Path) -> None:
        [line] = wrong(write, GOOD.replace("postgresql:", "postgresq:"))
        assert line == (
            "databases.crm.url: expected one of postgresql://, postgres://, mysql://, mariadb://, sqlite://,"
            " found postgresq://; nearest: postgresql://"
        )

    def test_sqlite_paths(self, write: Path) -> None:
        """A relative file lies beside the configuration, wherever a command is started."""
        config = loaded(write, GOOD.replace("sqlite:////var/lib/cdc/oa.db", "sqlite:///oa.db"))
        assert config.databases["oa"].url == f"sqlite:///{write.parent}/oa.db"
        for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://var/oa.db"):
            [line] = wrong(write, GOOD.replace("sqlite:////var/lib/cdc/oa.db", url))
            assert "expected a file, such as sqlite:////var/lib/cdc/crm.db" in line

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("postgresql://a@H/crm", "postgres://b@h:5432/crm?sslmode=require", True),
            ("postgresql://a@h/crm", "postgresql://a@h/crm2", False),
            ("postgresql://a@h:5433/crm", "postgresql://a@h/crm", False),
            ("postgresql:///crm?host=/tmp/a", "postgresql:///crm?host=/tmp/b", False),
        ],
    )
    def test_places(self, one: str, other: str, *, same: bool) -> None:
        """The same database is known as such through other users and options."""
        assert (place(one) == place(other)) is same

    def test_ipv6_and_several_hosts_pass_as_they_are(self) -> None:
        url = "postgresql://me:pw@[::1]:5433,db2:5432/crm?target_session_attrs=read-write"
        assert split(url) == (url.replace(":pw", ""), "pw")


class TestSearch:
    def test_order(self, write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """--config, then $CDC_CONFIG, then ./cdc.toml, then /etc/cdc/cdc.toml."""
        write.write_text(GOOD)
        assert find() == Path("cdc.toml")
        monkeypatch.setenv("CDC_CONFIG", "/somewhere.toml")
        assert find() == Path("/somewhere.toml")
        assert find(Path("given.toml")) == Path("given.toml")

    def test_none(self, write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cdc.config.SEARCHED", (Path("cdc.toml"),))
        with pytest.raises(ConfigError, match="no configuration: expected --config PATH") as caught:
            find()
        assert caught.value.hint == "cdc init SOURCE_URL TARGET_URL > cdc.toml"

    def test_missing_and_unreadable(self, write: Path) -> None:
        with pytest.raises(ConfigError, match="can be read, found: no such file or directory"):
            load(write)
        write.mkdir()
        with pytest.raises(ConfigError, match="can be read, found: is a directory"):
            load(write)

    def test_permission(self, write: Path) -> None:
        write.write_text(GOOD)
        write.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may read everything
        try:
            with pytest.raises(ConfigError, match="can be read, found: permission denied"):
                load(write)
        finally:
            os.seteuid(user)

    def test_not_text(self, write: Path) -> None:
        write.write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="can be read, found: no UTF-8 text"):
            load(write)


def test_imports_are_light() -> None:
    """Every sync's process imports it."""
    code = "import cdc.config, sys; print([m for m in ('typer', 'rich', 'sqlglot', 'psycopg') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
