"""The commands, as processes against real servers: their words, their data and their exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Final

import pytest

from cdc.config import load
from cdc.config_keys import LOG_WARNING, SyncKeys
from tests.command import CDC, CUSTOMER, Ask, Command, cdc, copy, crm
from tests.databases import Database
from tests.servers import MakeServer

__all__ = ["cdc", "copy", "crm"]

COMMANDS: Final = (
    *("demo", "init", "check", "snapshot", "run", "status", "tail", "pause", "resume", "drop"),
)
ON_A_CONFIGURATION: Final = (
    *(["check"], ["run"], ["status"], ["snapshot"], ["tail", "copy"], ["pause", "copy"]),
    *(["resume", "copy"], ["drop", "copy", "--yes"]),
)


class TestWords:
    def test_help_names_every_command(self, cdc: Command) -> None:
        """Exactly those that work."""
        text = cdc.ok("--help").stdout
        listed = text.partition("Commands:")[2].splitlines()
        assert tuple(line.split()[0] for line in listed if line.startswith("  "))[:10] == COMMANDS
        assert "verify" not in text
        assert "dead-letters" not in text

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_examples(self, cdc: Command, command: str) -> None:
        text = cdc.ok(command, "--help").stdout
        assert f"  cdc {command}" in text.partition("Examples:")[2]

    @pytest.mark.parametrize(
        ("command", "usage", "argument"),
        [
            ("init", "SOURCE_URL TARGET_URL...", "  SOURCE_URL     The database to read from."),
            ("init", "SOURCE_URL TARGET_URL...", "  TARGET_URL...  The databases to write to."),
            ("check", "[SYNC]...", "  SYNC...  Only these; else all."),
            ("tail", "SYNC", "  SYNC  The sync's name."),
        ],
    )
    def test_arguments_are_named_as_they_are_typed(
        self, cdc: Command, command: str, usage: str, argument: str
    ) -> None:
        lines = cdc.ok(command, "--help").stdout.splitlines()
        assert lines[0] == f"Usage: cdc {command} [OPTIONS] {usage}"
        assert argument in lines

    @pytest.mark.parametrize("command", COMMANDS)
    def test_help_names_no_type_of_python(self, cdc: Command, command: str) -> None:
        text = cdc.ok(command, "--help").stdout.partition("Examples:")[0]
        assert not re.search(r"[<{]|\b(str|Path|TEXT|FLOAT|INTEGER)\b", text)

    @pytest.mark.parametrize("columns", ["80", "40"])
    def test_the_list_of_commands_has_whole_sentences(self, cdc: Command, columns: str) -> None:
        """On a terminal of 80 columns each on one line."""
        cdc.environment["COLUMNS"] = columns
        listed = cdc.ok("--help").stdout.partition("Commands:\n")[2].partition("\n\n")[0]
        assert "..." not in listed
        assert listed.count(".") == len(COMMANDS)
        if columns == "80":
            assert len(listed.splitlines()) == len(COMMANDS)

    def test_help_is_quick(self, cdc: Command) -> None:
        """It loads nothing that only the work needs."""
        loaded = cdc.fresh("--help", PYTHONPROFILEIMPORTTIME="1").stderr
        assert " typer\n" in loaded
        for name in ("pydantic", "psycopg", "rich", "sqlglot"):
            assert f" {name}\n" not in loaded

    @pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["status"]])
    def test_output_that_cannot_be_written(self, cdc: Command, arguments: list[str]) -> None:
        """A full disk is told in one line; a closed output is nothing to tell."""
        cdc.configure("postgresql://h/crm", "sqlite:///copy.db", more=CUSTOMER)
        cdc.environment["CDC"] = CDC
        for redirection, said in (
            (">/dev/full", "Error: No space left on device\n"),
            (">&-", ""),
            ("| true", ""),
        ):
            done = subprocess.run(
                ["/bin/sh", "-c", f'"$CDC" {" ".join(arguments)} {redirection}'],
                cwd=cdc.directory,
                env=cdc.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert "Traceback" not in done.stderr
            assert (done.stdout, done.stderr.partition("Error: copy ")[0]) == ("", said)

    def test_version(self, cdc: Command) -> None:
        assert cdc.ok("--version").stdout.startswith("cdc 0.")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["rnu"], "no command rnu; nearest: run\nTry: cdc --help"),
            (["verify"], "no command verify\nTry: cdc --help"),
            (["run", "--fast"], "no option --fast\nTry: cdc run --help"),
            (
                ["run", "--until-curent"],
                "no option --until-curent; nearest: --until-current\nTry: cdc run --help",
            ),
            (["tail"], "expected SYNC, found nothing\nTry: cdc tail --help"),
            (["tail", "a", "b"], "expected no more arguments, found b\nTry: cdc tail --help"),
            (
                ["status", "--max-lag"],
                "--max-lag: expected a value, found nothing\nTry: cdc status --help",
            ),
            (["status", "--max-lag", "x"], "--max-lag: expected a number\nTry: cdc status --help"),
            (
                ["status", "--max-lag", "-1"],
                "--max-lag: expected 0 or more\nTry: cdc status --help",
            ),
            (
                ["demo", "--seconds", "1.5"],
                "--seconds: expected a whole number\nTry: cdc demo --help",
            ),
            (["demo", "--seconds", "0"], "--seconds: expected 1 or more\nTry: cdc demo --help"),
            (
                ["status", "--json=1"],
                "--json: expected no value, found one\nTry: cdc status --help",
            ),
        ],
    )
    def test_wrong_usage(self, cdc: Command, arguments: list[str], said: str) -> None:
        """One line in our words, and whose help would tell."""
        done = cdc.run(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"Error: {said}\n")

    def test_without_a_configuration(self, cdc: Command) -> None:
        done = cdc.run("status")
        assert done.returncode == 2
        assert done.stderr.startswith(
            "Error: no configuration: expected --config PATH, $CDC_CONFIG"
        )
        assert done.stderr.endswith("Try: cdc init SOURCE_URL TARGET_URL > cdc.toml\n")

    @pytest.mark.parametrize("command", ON_A_CONFIGURATION)
    def test_a_wrong_configuration(self, cdc: Command, command: list[str]) -> None:
        cdc.config.write_text("[syncs.a]\n")
        done = cdc.run(*command)
        assert done.returncode == 2
        assert "Error: cdc.toml: syncs: unknown key; nearest known key: sync\n" in done.stderr

    def test_an_unknown_sync(self, cdc: Command) -> None:
        cdc.configure("postgresql://h/crm", "sqlite:////tmp/x", more=CUSTOMER)
        done = cdc.run("run", "cpoy")
        assert done.returncode == 2
        assert "Error: no sync cpoy in" in done.stderr
        assert "Try: copy, the nearest name\n" in done.stderr

    def test_the_configuration_may_stand_on_either_side(self, cdc: Command) -> None:
        for arguments in (["--config", "a.toml", "status"], ["status", "--config", "a.toml"]):
            assert "Error: a.toml: expected a configuration" in cdc.run(*arguments).stderr

    def test_the_shell_completes_syncs(self, cdc: Command) -> None:
        cdc.configure("postgresql://h/crm", "sqlite:////tmp/x", more=CUSTOMER)
        cdc.environment |= {
            "_CDC_COMPLETE": "complete_bash",
            "COMP_WORDS": "cdc tail c",
            "COMP_CWORD": "2",
        }
        assert cdc.run().stdout.split() == ["copy"]
        cdc.environment |= {"COMP_WORDS": "cdc sn", "COMP_CWORD": "1"}
        assert cdc.run().stdout.split() == ["snapshot"]


class TestCheck:
    def test_a_sync_that_will_work(self, cdc: Command, copy: Ask) -> None:
        done = cdc.ok("check")
        assert "ok     copy, source crm: wal_level: logical\n" in done.stdout
        assert (
            "ok     copy, source crm: customer of public.contacts: column customer_id\n"
            in done.stdout
        )
        assert "FAILED" not in done.stdout
        assert done.stderr.endswith(" 0 FAILED\n")
        assert not (cdc.directory / "copy.db").exists()

    def test_a_delete_that_will_not_name_its_customer(
        self, cdc: Command, copy: Ask, crm: Database
    ) -> None:
        crm.execute("ALTER TABLE contacts REPLICA IDENTITY DEFAULT")
        out = cdc.ok("check").stdout
        assert (
            "warn   copy, source crm: customer of public.contacts: the log of a delete holds the key only,"
            " without customer_id: deletes will not name their customer"
            ' - try: ALTER TABLE "public"."contacts" REPLICA IDENTITY FULL;\n'
        ) in out

    def test_names_that_are_not_there(self, cdc: Command, crm: Database) -> None:
        """Every wrong table and column is named in one run."""
        cdc.configure(
            crm.url,
            "sqlite:///copy.db",
            more=CUSTOMER.replace('"customer_id"', '"custmer_id", orders = "x"'),
            sync={"tables": ["customers", "contacts", "contcts", "missing"]},
        )
        done = cdc.run("check")
        assert done.returncode == 1
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        assert [line.partition("crm: ")[2].partition(" - try")[0] for line in failed] == [
            "table contcts: table contcts does not exist on the source, or its role may not see it",
            "table missing: table missing does not exist on the source, or its role may not see it",
            "customer of public.contacts: column custmer_id does not exist",
            "table orders: table orders does not exist on the source, or its role may not see it",
        ]
        assert "correct customer.related; nearest: customer_id" in done.stdout
        assert "Error: 4 of " in done.stderr

    def test_a_log_that_has_a_gap(self, cdc: Command, copy: Ask, crm: Database) -> None:
        """Whether the source still has what comes behind the checkpoint is told before a start finds out."""
        cdc.ok("run", "--until-current")
        whole = ", from which on the source's log is whole\n"
        assert whole in cdc.ok("check").stdout
        crm.execute("SELECT pg_drop_replication_slot('cdc_copy')")
        done = cdc.run("check")
        assert done.returncode == 1
        [failed] = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        assert failed.startswith(
            "FAILED copy, source crm: checkpoint: replication slot cdc_copy is gone: changes since "
        )
        assert " - try: `cdc snapshot copy` accepts the gap" in failed

    def test_unreachable(self, cdc: Command) -> None:
        """A server that is not there is a line with a remedy; the other end is still looked at."""
        cdc.configure("postgresql://cdc@127.0.0.1:9/crm", "sqlite:///copy.db", more=CUSTOMER)
        done = cdc.run("check")
        assert done.returncode == 1
        assert "FAILED copy, source crm: connection: source: " in done.stdout
        assert "copy, target copy: " in done.stdout
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            (
                "postgresql://cdc:hunter3@h/crm?sslmod=require",
                "the URL has the parameter sslmod, expected one of libpq's",
            ),
            (
                "postgresql://cdc:hunter3@h:port/crm",
                "got one that libpq does not read: its port is no number",
            ),
            (
                "postgresql://cdc:hunter3@h/crm?sslpassword=hunter%4",
                "got one that libpq does not read: invalid percent-encoded token",
            ),
            (
                "mysql://cdc:hunter3@h/crm?sslmode=require",
                "the URL has the parameter sslmode, expected one of ssl-mode, ",
            ),
        ],
    )
    def test_a_url_that_cannot_be_read(self, cdc: Command, url: str, said: str) -> None:
        """It is a mistake in the configuration, or in an argument: exit 2 at either end, by every command,
        and nothing is started. None shows a secret."""
        other = url.replace("/crm", "/copy")
        cdc.configure(url, other, more=CUSTOMER)
        for command in ON_A_CONFIGURATION:
            done = cdc.run(*command, timeout=30)
            assert (done.returncode, done.stdout) == (2, "")
            for line, end in zip(done.stderr.splitlines(), ("crm", "copy"), strict=True):
                assert line.startswith(f"Error: {cdc.config}: databases.{end}.url: ")
                assert said in line
            assert "hunter" not in done.stderr
        for arguments in (["init", url, "sqlite:///x.db"], ["init", "postgresql://h/c", url]):
            asked = cdc.run(*arguments)
            assert asked.returncode == 2
            assert asked.stderr.startswith("Error: " + ("SOURCE", "TARGET")[arguments[2] == url])
            assert said in asked.stderr
            assert "hunter" not in asked.stderr

    def test_a_url_that_a_running_daemon_cannot_read(self, cdc: Command) -> None:
        """It reads the configuration again without the libraries that would know: the sync ends by it
        instead of starting again for ever."""
        cdc.configure("postgresql://cdc:hunter3@h:port/crm", "sqlite:///copy.db", more=CUSTOMER)
        daemon = subprocess.run(
            [sys.executable, "-P", "-m", "cdc.daemon", "cdc.toml"],
            cwd=cdc.directory,
            env=cdc.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert daemon.returncode == 1
        assert "got one that libpq does not read: its port is no number" in daemon.stderr
        assert "hunter" not in daemon.stderr

    def test_a_wrong_password(self, cdc: Command, make_server: MakeServer) -> None:
        server = make_server(password="right")
        url = server.url("postgres").replace("right", "hunter3")
        cdc.configure(url, "sqlite:///copy.db", more=CUSTOMER)
        done = cdc.run("check")
        assert "password authentication failed" in done.stdout
        assert "correct the password" in done.stdout
        assert "hunter3" not in done.stdout + done.stderr

    def test_a_password_file_for_all_to_read(self, cdc: Command, crm: Database) -> None:
        cdc.configure(crm.url + '"\npassword_file = "pw', "sqlite:///copy.db", more=CUSTOMER)
        file = cdc.directory / "pw"
        file.write_text("x")
        file.chmod(0o644)
        assert (
            f"warn   copy, source crm: password_file: {file} is open to every user"
            in cdc.ok("check").stdout
        )


class TestInit:
    def test_what_it_prints_works(self, cdc: Command, crm: Database) -> None:
        """The configuration loads, passes `check` and runs, for a database that asks no password."""
        crm.execute("CREATE TABLE keyless (a int)")
        crm.execute("CREATE TABLE settings (k text PRIMARY KEY)")
        done = cdc.ok("init", crm.url, "sqlite:///copy.db")
        cdc.config.write_text(done.stdout)
        config = load(cdc.config)
        assert config.customer is not None
        assert config.customer.table == "customers"
        assert config.customer.related == {"contacts": "customer_id"}
        assert config.syncs["copy"].tables == ("customers", "contacts")
        assert '    # "settings",\n' in done.stdout
        assert '    # "public.keyless" has no usable key' in done.stdout
        assert "FAILED" not in cdc.ok("check").stdout
        cdc.ok("run", "--until-current")
        assert cdc.status()["snapshot"]["rows"] == 5

    def test_names_that_a_terminal_cannot_show(self, cdc: Command, crm: Database) -> None:
        """Are shown as codes; what init writes is UTF-8 all the same, as TOML has to be."""
        crm.execute('CREATE TABLE "größe" (id int PRIMARY KEY)')
        printed = cdc.fresh("init", crm.url, "sqlite:///copy.db", PYTHONIOENCODING="ascii").stdout
        text = printed.replace('# "größe"', '"größe"')
        cdc.config.write_text(text, encoding="utf-8")
        assert load(cdc.config).syncs["copy"].tables[-1] == "größe"
        checked = cdc.fresh("check", PYTHONIOENCODING="ascii")
        assert r"table public.gr\xf6\xdfe: key id" in checked.stdout
        assert checked.returncode == 0

    def test_every_key_of_a_sync_is_there(self, cdc: Command, crm: Database) -> None:
        """Those that are not needed as comments, which hold when the `#` is taken away."""
        printed = cdc.ok("init", crm.url, "sqlite:///copy.db").stdout
        keys = re.findall(r"^(?:# )?(\w+) = ", printed.partition("[sync.copy]")[2], re.MULTILINE)
        assert set(keys) == set(SyncKeys.model_fields)
        cdc.config.write_text(printed)
        assert load(cdc.config).syncs["copy"].log_limit is None
        cdc.config.write_text(re.sub(r"^# (log_\w+ = )", r"\1", printed, flags=re.MULTILINE))
        sync = load(cdc.config).syncs["copy"]
        assert (sync.log_warning, sync.log_limit) == (LOG_WARNING, 100 * 10**9)

    def test_passwords_are_used_and_not_printed(
        self, cdc: Command, make_server: MakeServer
    ) -> None:
        server = make_server(password="hunter2")
        database = Database(server)
        try:
            database.execute("CREATE TABLE customers (id int PRIMARY KEY)")
            done = cdc.ok("init", database.url, "postgresql://me:swordfish@fin/finance")
        finally:
            database.drop()
        assert "hunter2" not in done.stdout + done.stderr
        assert "swordfish" not in done.stdout + done.stderr
        assert f'password_file = "{database.name}-password"' in done.stdout
        assert 'CREATE ROLE "me" LOGIN' in done.stdout
        cdc.config.write_text(done.stdout)
        refused = cdc.run("check")
        assert refused.returncode == 2
        assert (
            f"expected a file, found none at {cdc.directory}/{database.name}-password"
            in refused.stderr
        )

    def test_the_grants_are_enough(self, cdc: Command, make_server: MakeServer) -> None:
        """The SQL that it prints, run as it stands, lets its roles pass `check`, run and drop."""
        server = make_server(password="admin")
        source, target = Database(server), Database(server)
        try:
            source.execute("CREATE SCHEMA app")
            source.execute("CREATE TABLE app.customers (id int PRIMARY KEY)")
            target.execute("CREATE SCHEMA app")
            printed = cdc.ok("init", source.url, target.url_as("writer")).stdout
            of_source, of_target = printed.split(" needs, once, as a superuser:\n")[1:]
            for database, text in ((source, of_source), (target, of_target)):
                for line in text.splitlines():
                    if line.startswith("#   ") and not line.startswith("#   --"):
                        sql = line[4:].partition("   --")[0].replace("'...'", "'pw'")
                        database.execute(sql)
            text = printed.replace("postgres@", "cdc:pw@").replace("writer@", "writer:pw@")
            cdc.config.write_text(text.replace("password_file", "# password_file"))
            checked = cdc.ok("check").stdout
            assert {line[:6] for line in checked.splitlines() if "max_slot" not in line} == {
                "ok    "
            }
            cdc.ok("run", "--until-current")
            assert cdc.status(target.name)["state"] == "stopped"
            cdc.ok("drop", target.name, "--yes")
        finally:
            source.drop()
            target.drop()

    def test_several_targets_and_no_customer(self, cdc: Command, source_db: Database) -> None:
        """Without a table that is called like one of customers, all tables are chosen and the user
        is asked to say which it is."""
        source_db.execute("CREATE TABLE things (id int PRIMARY KEY)")
        done = cdc.ok("init", source_db.url, "sqlite:///a/out.db", "sqlite:///b/out.db")
        cdc.config.write_text(done.stdout)
        config = load(cdc.config)
        assert list(config.syncs) == ["out", "out-2"]
        assert config.customer is None
        assert config.syncs["out"].tables == ("things",)
        assert "# [customer]" in done.stdout

    @pytest.mark.parametrize(
        ("urls", "said"),
        [
            (["nonsense", "sqlite:///x.db"], "SOURCE_URL: expected a URL such as postgresql://"),
            (["sqlite:///x.db", "sqlite:///y.db"], "SOURCE_URL: expected one of postgresql://"),
            (["postgresql://h/crm", "orcl://h/x"], "TARGET_URL: expected one of postgresql://"),
            (
                ["postgresql://h/crm", "sqlite:///x.db", "postgresql://me@h:5432/crm"],
                "TARGET_URL: expected another database than the source",
            ),
        ],
    )
    def test_wrong_urls(self, cdc: Command, urls: list[str], said: str) -> None:
        done = cdc.run("init", *urls)
        assert done.returncode == 2
        assert said in done.stderr

    def test_an_empty_source(self, cdc: Command, source_db: Database) -> None:
        done = cdc.run("init", source_db.url, "sqlite:///x.db")
        assert done.returncode == 1
        assert "has no table that can be synced" in done.stderr
