"""`cdc tail`: the customer deltas of a real source, line by line, beside the sync."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from tests.command import CDC, Command, cdc, lines_of
from tests.databases import Database
from tests.servers import on_every_source, wait_until

__all__ = ["cdc"]

CUSTOMER = '[customer]\ntable = "customers"\nrelated = { contacts = "customer_id" }'


@pytest.fixture
def started(cdc: Command, source_db: Database) -> Command:
    """A sync that has had its snapshot and is stopped."""
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY, name text, notes text)")
    source_db.execute("CREATE TABLE contacts (id int PRIMARY KEY, customer_id int, phone text)")
    source_db.execute("ALTER TABLE contacts REPLICA IDENTITY FULL")
    cdc.configure(source_db.url, "sqlite:///copy.db", more=CUSTOMER)
    cdc.ok("run", "--until-current")
    return cdc


def lines(cdc: Command, count: int, *arguments: str) -> list[Any]:
    """The first lines of a tail."""
    tail = cdc.start("tail", "copy", *arguments)
    found = [json.loads(line) for line in lines_of(tail, count)]
    tail.send_signal(signal.SIGINT)
    assert tail.wait(10) == 130
    assert cdc.said("tail") == ""
    return found


@on_every_source
def test_from_start(started: Command, source_db: Database) -> None:
    """Everything behind the sync's position, with the same ids each time, and nothing is moved."""
    large = os.urandom(6000).hex()
    source_db.execute("INSERT INTO customers VALUES (1, 'Ada', %s)", [large])
    source_db.execute("UPDATE customers SET name = 'Ada L'")
    source_db.execute("INSERT INTO contacts VALUES (10, 1, '555')")
    source_db.execute("UPDATE contacts SET phone = '556'")
    source_db.execute("UPDATE customers SET id = 2")
    source_db.execute("DELETE FROM contacts")
    source_db.execute("TRUNCATE customers, contacts")
    where = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'cdc_copy'"
    before = source_db.value(where)
    found = lines(started, 8, "--from-start")
    assert [d["op"] for d in found] == ["insert", "update"] * 2 + [
        "update",
        "delete",
        "truncate",
        "truncate",
    ]
    assert [d["customer"] for d in found] == ["1"] * 4 + ["2", "1", None, None]
    assert [d["key"] for d in found][:6] == [
        {"id": 1},
        {"id": 1},
        {"id": 10},
        {"id": 10},
        {"id": 2},
        {"id": 10},
    ]
    assert found[0]["after"] == {"id": 1, "name": "Ada", "notes": large}
    assert found[1]["after"] == {"id": 1, "name": "Ada L"}
    assert found[1]["unchanged"] == ["notes"]
    assert (found[3]["before"], found[3]["after"]) == ({"phone": "555"}, {"phone": "556"})
    assert found[4]["before"] == {"id": 1}
    assert found[5]["before"] == {"id": 10, "customer_id": 1, "phone": "556"}
    assert {d["table"] for d in found[6:]} == {"public.customers", "public.contacts"}
    assert all(d["id"] == f"crm/{d['position']}/{d['ordinal']}" for d in found)
    assert len({d["id"] for d in found}) == 8
    assert lines(started, 8, "--from-start") == found
    assert source_db.value(where) == before


def test_from_now(started: Command, source_db: Database) -> None:
    """Without --from-start, only what is committed from now on; beside a running daemon too."""
    source_db.execute("INSERT INTO customers VALUES (1, 'before', NULL)")
    started.start("run")
    wait_until(lambda: started.status()["state"] == "streaming", message=started.said("run"))
    tail = started.start("tail", "copy")
    wait_until(
        lambda: (
            source_db.value("SELECT count(*) FROM pg_replication_slots WHERE active AND temporary")
            == 1
        )
    )
    # A slot that is being made waits for the transactions that run; what is committed later is in it.
    wait_until(
        lambda: (
            source_db.value(
                "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid"
                " WHERE s.temporary AND r.state = 'streaming'"
            )
            == 1
        )
    )
    source_db.execute("INSERT INTO customers VALUES (2, 'now', NULL)")
    assert json.loads(lines_of(tail, 1)[0])["after"]["name"] == "now"


def test_a_reader_that_has_seen_enough(started: Command, source_db: Database) -> None:
    """`cdc tail | head` ends, quietly and at once, although nothing more happens."""
    source_db.execute("INSERT INTO customers VALUES (1, 'Ada', NULL)")
    done = subprocess.run(
        ["bash", "-c", f"{CDC} tail copy --from-start | head -n 1"],  # noqa: S607
        cwd=started.directory,
        env=started.environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert json.loads(done.stdout)["customer"] == "1"
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["--from-start"]])
def test_a_sync_that_was_never_started(
    cdc: Command, source_db: Database, arguments: list[str]
) -> None:
    """It has no publication to read: said, with what to do."""
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    cdc.configure(source_db.url, "sqlite:///copy.db", sync={"tables": ["customers"]})
    done = cdc.run("tail", "copy", *arguments)
    assert done.returncode == 1
    assert "Error: " in done.stderr
    assert "never started" in done.stderr
    assert "Try: cdc run copy\n" in done.stderr
    assert (
        source_db.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE '%%tail%%'")
        == 0
    )


def test_large_values_and_odd_names(cdc: Command, source_db: Database) -> None:
    """Names of every kind and values larger than a socket's buffer come through whole."""
    source_db.execute('CREATE TABLE "Ünï cödé" ("The Key" int PRIMARY KEY, "a""b" text)')
    cdc.configure(source_db.url, "sqlite:///copy.db", sync={"tables": ["Ünï cödé"]})
    cdc.ok("run", "--until-current")
    source_db.execute("INSERT INTO \"Ünï cödé\" VALUES (1, repeat('é', 3000000))")
    [found] = lines(cdc, 1, "--from-start")
    assert found["table"] == "public.Ünï cödé"
    assert found["key"] == {"The Key": 1}
    assert found["after"]['a"b'] == "é" * 3000000
