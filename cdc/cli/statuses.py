"""`cdc status` on a terminal, in a pipe, and for scripts."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

from cdc.cli.words import fail, painted
from cdc.config import Config
from cdc.status import collect

_COLORS = {"streaming": "green", "failed": "red", "retrying": "yellow", "paused": "yellow"}
_HEAD = ("SYNC", "STATE", "LAG", "CHANGES/S", "CHECKPOINT", "SNAPSHOT")
_TOP_AND_CLEAR = "\x1b[H\x1b[J"
_PAINT: Final = re.compile(r"\x1b\[\d*m")

Status = dict[str, Any]
"""One sync, as `cdc status --json` shows it."""


def run(config: Config, *, as_json: bool, watch: bool, max_lag: float | None) -> int:
    """Prints the state of all syncs, once or every second; exit code 1 if one is not healthy."""
    while True:
        began = time.monotonic()
        syncs = [s.as_json() for s in collect(config)]
        if as_json:
            text = json.dumps({"syncs": syncs}, indent=None if watch else 2) + "\n"
        else:
            on_screen = watch and sys.stdout.isatty()
            lines = _fitted(syncs, max_lag) if on_screen else table(syncs)
            text = _TOP_AND_CLEAR * on_screen + "".join(f"{line}\n" for line in lines)
        sys.stdout.write(text)
        sys.stdout.flush()
        if not watch:
            break
        time.sleep(max(0.1, 1 - (time.monotonic() - began)))
    wrong = [reason for s in syncs if (reason := unhealthy(s, max_lag))]
    for reason in wrong:
        fail(reason)
    return 1 if wrong else 0


def unhealthy(sync: Status, max_lag: float | None) -> str | None:
    """Why a sync is not healthy, None if it is."""
    state, error = sync["state"], sync["error"]
    if state == "failed":
        return f"{sync['name']} has failed"
    if state == "retrying":
        return f"{sync['name']} is stalled"
    if error and state in ("stopped", "new", "paused"):
        # Nobody runs it and not both ends answer: it may have failed, for all we know.
        return f"{sync['name']} cannot be seen in full"
    if max_lag is None:
        return None
    lag = sync["lag_seconds"]
    if lag is None:
        return f"{sync['name']}: nobody knows how far it is behind"
    return (
        f"{sync['name']} is {lag:.1f} s behind, more than {max_lag:g} s" if lag > max_lag else None
    )


def table(syncs: Sequence[Status]) -> Iterator[str]:
    """A line per sync in columns; what is wrong stands under it."""
    return chain.from_iterable(_blocks(syncs))


def _blocks(syncs: Sequence[Status]) -> Iterator[list[str]]:
    """The lines of the head, then of each sync."""
    rows = [_HEAD, *map(_cells, syncs)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    for row, sync in zip(rows, (None, *syncs), strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if sync is None:
            cells = [painted(c, "bold") for c in cells]
        else:
            cells[1] = painted(cells[1], _COLORS.get(sync["state"]))
        lines = ["  ".join(cells).rstrip()]
        if sync is not None and sync["error"]:
            lines += f"  Error: {sync['error']}".splitlines()
        if sync is not None and sync["hint"]:
            lines.append(f"  {'Try' if sync['error'] else 'Note'}: {sync['hint']}")
        yield lines


def _fitted(syncs: Sequence[Status], max_lag: float | None) -> Iterator[str]:
    """As much of the table as the screen has room for. Where that is not all, those come first that are
    not healthy, and the last line says how many are left out."""
    columns, height = shutil.get_terminal_size()
    room = height - 1  # behind the last line stands the cursor

    def rows(lines: Sequence[str]) -> int:
        return sum(max(1, -(-len(_PAINT.sub("", line)) // columns)) for line in lines)

    if rows(list(table(syncs))) <= room:
        yield from table(syncs)
        return
    head, *blocks = _blocks(sorted(syncs, key=lambda s: unhealthy(s, max_lag) is None))
    yield from head
    room -= rows(head) + 1
    for shown, lines in enumerate(blocks):
        room -= rows(lines)
        if room < 0:
            yield f"... and {len(blocks) - shown} more, for which there is no room: cdc status"
            return
        yield from lines


def _cells(sync: Status) -> tuple[str, ...]:
    return (
        sync["name"],
        sync["state"],
        _lag(sync["lag_seconds"], sync["lag_bytes"]),
        f"{sync['changes_per_second']:,.0f}",
        sync["checkpoint"] or "-",
        _snapshot(sync["snapshot"]),
    )


def _lag(seconds: float | None, size: int | None) -> str:
    parts = [f"{seconds:,.1f} s"] if seconds is not None else []
    if size is not None:
        parts.append(bytes_text(size))
    return ", ".join(parts) or "?"


def _snapshot(snapshot: Status) -> str:
    rows, estimated = snapshot["rows"], snapshot["rows_estimated"]
    if snapshot["state"] == "done":
        return f"done, {rows:,} rows"
    if not snapshot["tables"]:
        return "-"
    tables = f"{snapshot['tables_done']} of {snapshot['tables']} tables"
    return f"{snapshot['state']}, {tables}, {rows:,} of about {max(rows, estimated):,} rows"


def bytes_text(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
