"""`cdc tail` and `cdc status` of a MariaDB and a MySQL source, as users run them."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import pytest

from tests.command import CUSTOMER, Command, Started, cdc, lines_of
from tests.databases import wait_until
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql
from tests.mysql_servers import LocalMysql
from tests.proxy import Proxy
from tests.test_cli_syncs import STATUS_KEYS
from tests.test_tail import lines

__all__ = ["cdc"]

Fresh = Callable[[LocalMysql], MysqlDatabase]

PLACE: Final = re.compile(r"binlog\.\d{6}:\d+ gtids=\S*")


@pytest.fixture
def crm(cdc: Command, any_mysql_source: MysqlDatabase) -> MysqlDatabase:
    """A source whose sync has had its snapshot and is stopped."""
    database = any_mysql_source
    database.execute("CREATE TABLE customers (id int PRIMARY KEY, name varchar(50), notes text)")
    database.execute(
        "CREATE TABLE contacts (id int PRIMARY KEY, customer_id int, phone varchar(20))"
    )
    database.execute("INSERT INTO customers VALUES (100, 'copied', NULL)")
    cdc.configure(database.url, "sqlite:///copy.db", more=CUSTOMER)
    cdc.ok("run", "--until-current")
    return database


def shown(cdc: Command, code: int = 0, *arguments: str) -> dict[str, Any]:
    """The sync in `cdc status --json`."""
    done = cdc.run("status", "--json", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    [status] = json.loads(done.stdout)["syncs"]
    assert tuple(status) == STATUS_KEYS
    found: dict[str, Any] = status
    return found


def started(cdc: Command, source: MysqlDatabase) -> Started:
    """A tail from now on, once it reads the log. A server notices late that another reader has gone."""
    dumps = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
    already = source.rows(dumps)
    tail = cdc.start("tail", "copy")
    wait_until(lambda: set(source.rows(dumps)) - set(already), message="the tail reads the log")
    return tail


class TestTail:
    def test_from_start(self, cdc: Command, crm: MysqlDatabase) -> None:
        """Everything behind the sync's position, with the same ids each time, and nothing is moved."""
        crm.execute("INSERT INTO customers VALUES (1, 'Ada', 'long')")
        crm.execute("UPDATE customers SET name = 'Ada L' WHERE id = 1")
        crm.execute("INSERT INTO contacts VALUES (10, 1, '555'), (11, 1, NULL)")
        crm.execute("UPDATE contacts SET phone = '556' WHERE id = 10")
        crm.execute("UPDATE customers SET id = 2 WHERE id = 1")
        crm.execute("DELETE FROM contacts WHERE id = 10")
        crm.execute("TRUNCATE contacts")
        before = cdc.status()["checkpoint"]
        found = lines(cdc, 8, "--from-start")
        assert [(d["op"], d["customer"], d["key"]) for d in found] == [
            ("insert", "1", {"id": 1}),
            ("update", "1", {"id": 1}),
            ("insert", "1", {"id": 10}),
            ("insert", "1", {"id": 11}),
            ("update", "1", {"id": 10}),
            ("update", "2", {"id": 2}),
            ("delete", "1", {"id": 10}),
            ("truncate", None, None),
        ]
        assert found[0]["after"] == {"id": 1, "name": "Ada", "notes": "long"}
        assert (found[1]["before"], found[1]["after"]) == ({"name": "Ada"}, {"name": "Ada L"})
        assert found[3]["after"] == {"id": 11, "customer_id": 1, "phone": None}
        assert (found[5]["before"], found[5]["after"]) == ({"id": 1}, {"id": 2})
        assert found[6]["before"] == {"id": 10, "customer_id": 1, "phone": "556"}
        assert [d["table"] for d in found][-2:] == [f"{crm.name}.contacts"] * 2
        for delta in found:
            assert delta["id"] == f"crm/{delta['position']}/{delta['ordinal']}"
            assert delta["unchanged"] == []
            datetime.fromisoformat(delta["committed_at"])
        assert len({d["id"] for d in found}) == 8
        assert len({d["transaction"] for d in found}) == 7
        assert lines(cdc, 8, "--from-start") == found
        assert cdc.status()["checkpoint"] == before

    def test_ids_of_whoever_begins_later(self, cdc: Command, crm: MysqlDatabase) -> None:
        """The same change has the same id, wherever reading began: long before, or just before it."""
        long = started(cdc, crm)
        crm.execute("INSERT INTO customers VALUES (1, 'one', NULL)")
        crm.execute("FLUSH BINARY LOGS")
        crm.execute("UPDATE customers SET name = 'uno' WHERE id = 1")
        cdc.ok("run", "--until-current")
        crm.execute("INSERT INTO customers VALUES (2, 'two', NULL), (3, 'three', NULL)")
        found = [json.loads(line) for line in lines_of(long, 4)]
        long.send_signal(signal.SIGINT)
        assert long.wait(10) == 130
        assert lines(cdc, 2, "--from-start") == found[2:]

    def test_from_now(self, cdc: Command, crm: MysqlDatabase) -> None:
        """Without --from-start, only what is committed from now on; beside a running daemon, which
        neither notices nor waits."""
        crm.execute("INSERT INTO customers VALUES (1, 'before', NULL)")
        cdc.start("run")
        cdc.wait_for(state="streaming")
        tail = started(cdc, crm)
        crm.execute("INSERT INTO customers VALUES (2, 'now', 'é')")
        found = json.loads(lines_of(tail, 1)[0])
        assert found["after"] == {"id": 2, "name": "now", "notes": "é"}
        wait_until(lambda: cdc.status()["changes_applied"] == 2, message="the sync goes on")
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 130
        assert cdc.said("tail") == ""

    def test_values_that_the_log_leaves_out(self, cdc: Command, crm: MysqlDatabase) -> None:
        """A session with minimal row images: what is not in the log is named, never NULL."""
        crm.execute("INSERT INTO customers VALUES (1, 'Ada', 'long')")
        crm.execute(
            "SET SESSION binlog_row_image = MINIMAL; UPDATE customers SET name = 'B' WHERE id = 1"
        )
        found = lines(cdc, 2, "--from-start")[1]
        assert (found["key"], found["after"]) == ({"id": 1}, {"name": "B"})
        assert found["unchanged"] == ["notes"]

    @pytest.mark.parametrize("arguments", [[], ["--from-start"]])
    def test_a_sync_that_was_never_started(
        self, cdc: Command, any_mysql_source: MysqlDatabase, arguments: list[str]
    ) -> None:
        """From its start there is nothing to read from, which is said; from now on there is."""
        database = any_mysql_source
        database.execute("CREATE TABLE customers (id int PRIMARY KEY)")
        cdc.configure(database.url, "sqlite:///copy.db", sync={"tables": ["customers"]})
        if arguments:
            done = cdc.run("tail", "copy", *arguments)
            assert done.returncode == 1
            assert "never started" in done.stderr
            assert "Try: cdc run copy\n" in done.stderr
            return
        tail = started(cdc, database)
        database.execute("INSERT INTO customers VALUES (1)")
        assert json.loads(lines_of(tail, 1)[0])["key"] == {"id": 1}


class TestStatus:
    def test_before_and_between_runs(self, cdc: Command, crm: MysqlDatabase) -> None:
        """Without a daemon: new, then stopped at its checkpoint, then behind by what was committed."""
        stopped = shown(cdc)
        assert (stopped["state"], stopped["pid"], stopped["error"]) == ("stopped", None, None)
        assert PLACE.fullmatch(stopped["checkpoint"])
        assert PLACE.fullmatch(stopped["source_position"])
        assert stopped["snapshot"] == {
            "state": "done",
            "tables_done": 2,
            "tables": 2,
            "rows": 1,
            "rows_estimated": 1,
        }
        assert stopped["source_log"]["state"] == "reserved"
        crm.execute("INSERT INTO customers VALUES (1, repeat('x', 50), repeat('y', 20000))")
        behind = shown(cdc)
        assert behind["checkpoint"] == stopped["checkpoint"]
        assert behind["lag_bytes"] > stopped["lag_bytes"] + 20000
        assert behind["lag_bytes"] == behind["source_log"]["retained_bytes"]
        assert 0 < behind["lag_seconds"] < 60
        assert shown(cdc, 1, "--max-lag", "0")["lag_bytes"] == behind["lag_bytes"]
        crm.execute("FLUSH BINARY LOGS")
        assert shown(cdc)["lag_bytes"] > behind["lag_bytes"]
        cdc.config.write_text(cdc.config.read_text().replace("copy.db", "other.db"))
        new = shown(cdc)
        assert (new["state"], new["checkpoint"], new["lag_bytes"]) == ("new", None, None)
        assert PLACE.fullmatch(new["source_position"])

    def test_running_paused_and_stopped(self, cdc: Command, crm: MysqlDatabase) -> None:
        """While it runs: no lag once it is current; paused it falls behind, and says by how much, with
        the daemon and without."""
        daemon = cdc.start("run")
        cdc.wait_for(state="streaming")
        crm.execute("INSERT INTO customers VALUES (1, 'a', NULL), (2, 'b', NULL)")
        wait_until(lambda: cdc.status()["changes_applied"] == 2, message="the rows are applied")
        wait_until(lambda: cdc.status()["lag_bytes"] == 0, message="it is current")
        current = shown(cdc, 0, "--max-lag", "5")
        assert (current["state"], current["lag_seconds"]) == ("streaming", 0.0)
        assert current["pid"] is not None
        datetime.fromisoformat(current["applied_at"])
        plain = cdc.ok("status").stdout.splitlines()
        assert plain[1].split()[:5] == ["copy", "streaming", "0.0", "s,", "0"]
        cdc.ok("pause", "copy")
        wait_until(lambda: cdc.status()["state"] == "paused", message="it is paused")
        crm.execute("INSERT INTO customers VALUES (3, 'c', repeat('y', 20000))")
        wait_until(lambda: shown(cdc)["lag_bytes"] > 20000, message="the lag is told")
        assert shown(cdc)["lag_seconds"] > 0
        daemon.terminate()
        assert daemon.wait(15) == 0
        paused = shown(cdc)
        assert (paused["state"], paused["pid"], paused["changes_applied"]) == ("paused", None, 2)
        assert paused["lag_bytes"] > 20000
        cdc.start("run")
        wait_until(lambda: cdc.status()["pid"], message="the worker runs")
        cdc.ok("resume", "copy")
        wait_until(lambda: cdc.status()["changes_applied"] == 3, message="it goes on")
        wait_until(lambda: cdc.status()["lag_bytes"] == 0, message="it is current")

    @pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
    def test_a_log_that_was_reset(
        self,
        cdc: Command,
        request: pytest.FixtureRequest,
        fresh_mysql_database: Fresh,
        flavour: str,
    ) -> None:
        """It ends before the checkpoint. That is no lag of zero: nobody knows how far the sync is behind."""
        source = fresh_mysql_database(request.getfixturevalue(f"make_{flavour}")())
        source.execute("CREATE TABLE customers (id int PRIMARY KEY)")
        for _ in range(3):
            source.execute("FLUSH BINARY LOGS")
        cdc.configure(source.url, "sqlite:///copy.db", sync={"tables": ["customers"]})
        cdc.ok("run", "--until-current")
        assert shown(cdc, 0, "--max-lag", "60")["lag_bytes"] is not None
        source.execute("RESET BINARY LOGS AND GTIDS" if flavour == "mysql" else "RESET MASTER")
        reset = shown(cdc, 1, "--max-lag", "60")
        assert (reset["lag_bytes"], reset["lag_seconds"]) == (None, None)
        assert reset["source_log"] == {"retained_bytes": None, "state": "lost"}

    def test_another_server_behind_the_same_address(
        self, cdc: Command, make_mysql: MakeMysql, fresh_mysql_database: Fresh
    ) -> None:
        """Its log may be shorter, under the same names of files. What it has is not on the target: only the
        GTIDs tell."""
        one, other = fresh_mysql_database(make_mysql()), make_mysql()
        one.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
        one.execute("INSERT INTO customers VALUES (1, repeat('x', 60000))")
        with Proxy(one.server.port) as near:
            cdc.configure(near.url(one.url), "sqlite:///copy.db", sync={"tables": ["customers"]})
            cdc.ok("run", "--until-current")
            near.lead_to(other.port)
            fresh_mysql_database(other).execute(f"CREATE DATABASE {one.name}")
            found = shown(cdc, 1, "--max-lag", "60")
        here, there = (found[n].partition(":")[0] for n in ("source_position", "checkpoint"))
        assert here == there
        assert (found["lag_bytes"], found["source_log"]["state"]) == (None, "lost")
