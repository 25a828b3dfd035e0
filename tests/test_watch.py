"""`cdc status --watch` on a terminal that is too small for it."""

from __future__ import annotations

import os
import re
from typing import Final

import pytest

from tests.command import Command, cdc, on_terminal
from tests.databases import Database

__all__ = ["cdc"]

SCREEN: Final = b"\x1b[H\x1b[J"
NAMES: Final = [f"s{n:02}" for n in range(12)]


def first_screen(cdc: Command, rows: int, columns: int) -> list[str]:
    """The lines of the first screen, and that they are not more than it has."""
    seen = b""
    with on_terminal(cdc, "status", "--watch", size=(rows, columns)) as (_, terminal):
        while seen.count(SCREEN) < 2:
            seen += os.read(terminal, 4096)
    screen = seen.split(SCREEN)[1].decode()
    lines = re.sub(r"\x1b\[\d*m", "", screen).split("\r\n")
    assert sum(max(1, -(-len(line) // columns)) for line in lines) <= rows, lines
    return lines[:-1]


@pytest.fixture
def many(cdc: Command, source_db: Database) -> Command:
    """Twelve syncs, the last of which has a target that cannot be reached."""
    source_db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    text = f'[databases.crm]\nurl = "{source_db.url}"\n'
    for name in NAMES:
        file = f"{name}.db" if name != NAMES[-1] else "/nowhere/x.db"
        text += (
            f'[databases.{name}]\nurl = "sqlite:///{file}"\n'
            f'[sync.{name}]\nsource = "crm"\ntarget = "{name}"\ntables = ["customers"]\n'
        )
    cdc.config.write_text(text)
    return cdc


def test_what_has_no_room_is_counted(many: Command) -> None:
    """What is not healthy stands first, and the last line says how many are not shown."""
    head, *lines, last = first_screen(many, rows=9, columns=100)
    assert head.startswith("SYNC")
    assert lines[0].startswith("s11   stopped")
    assert lines[1].startswith("  Error: s11: ")
    names = [line.split()[0] for line in lines if line.startswith("s")]
    assert names == ["s11", *NAMES[: len(names) - 1]]
    assert len(names) > 2
    assert last == f"... and {12 - len(names)} more, for which there is no room: cdc status"


def test_lines_that_are_broken_take_more_room(many: Command) -> None:
    """A narrow terminal breaks lines: what is above them would scroll out of sight."""
    assert first_screen(many, rows=24, columns=40)[-1].startswith("... and ")


def test_what_has_room_stands_in_its_order(many: Command) -> None:
    """All of it."""
    lines = first_screen(many, rows=30, columns=100)
    assert [line.split()[0] for line in lines if line.startswith("s")] == NAMES
    assert not lines[-1].startswith("...")
