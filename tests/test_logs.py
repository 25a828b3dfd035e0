"""Log lines: one per event, and nothing in them that is nobody's business."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_LOG = """
import logging, sys, threading
from appliers.errors import TransientError
from cdc.logs import configure, event
configure("finance")
log = logging.getLogger("cdc.session")
"""


def logged(code: str, tmp_path: Path, *, journal: bool = False) -> list[str]:
    path = tmp_path / "log"
    with path.open("wb") as out:
        at = os.fstat(out.fileno())
        stream = f"{at.st_dev}:{at.st_ino}" if journal else "1:2"
        subprocess.run(
            [sys.executable, "-P", "-c", _LOG + code],
            stderr=out,
            env=os.environ | {"JOURNAL_STREAM": stream},
            check=False,
        )
    return path.read_text().splitlines()


def test_a_line_is_time_level_sync_event_and_fields(tmp_path: Path) -> None:
    """Values that are more than a word are quoted, so that a line stays a line."""
    [line] = logged(
        'event(log, "snapshot-done", tables=3, rate=1.5, why="a b\\nc", none=None)', tmp_path
    )
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO finance snapshot-done"
        r' tables=3 rate=1\.500 why="a b\\nc" none=None',
        line,
    )


def test_the_journal_gets_priorities_and_no_time(tmp_path: Path) -> None:
    """It has the time itself. Only where standard error really is the journal."""
    code = 'event(log, "lost", logging.WARNING, sync="oa"); event(log, "back")'
    assert logged(code, tmp_path, journal=True) == ["<4>oa lost", "<6>finance back"]
    assert "<" not in "".join(logged(code, tmp_path))


@pytest.mark.parametrize(
    "code",
    [
        'int("hunter2")',
        'threading.Thread(target=lambda: int("hunter2")).start()',
        'logging.getLogger("psycopg").warning("error ignored: %s", "hunter2")',
        """
try:
    try:
        {}["hunter2"]
    except KeyError as e:
        raise TransientError("the source went away") from e
except TransientError:
    event(log, "retrying", logging.WARNING, exc_info=True)
""",
    ],
    ids=["uncaught", "thread", "library", "cause"],
)
def test_no_values_in_any_line(code: str, tmp_path: Path) -> None:
    """An exception of a database or of Python may quote a row: its text is never told."""
    [line] = logged(code, tmp_path)
    assert "hunter2" not in line
    assert re.search(r"Error at |error ignored: %s", line)
