"""How far copies are: bars on a terminal, a line every few seconds elsewhere. On standard error."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from cdc.cli.words import say
from cdc.runtime import Live, SnapshotProgress

if TYPE_CHECKING:
    from rich.progress import TaskID

EVERY: Final = 5.0
"""Seconds between two plain lines of one sync."""
WINDOW: Final = 10.0
"""Seconds over which a rate is taken."""


class Shown(Protocol):
    """Takes what the syncs tell, about twice a second."""

    def __call__(self, lives: Sequence[Live]) -> None: ...


@contextmanager
def progress() -> Iterator[Shown]:
    """For the time of a copy."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield Lines()
        return
    with Bars() as bars:
        yield bars


NOT_YET: Final = (
    "waits for the source's transactions, and until the stream is past its log of before"
)
"""A table that nothing is planned for yet: see `cdc.snapshot`."""


class Doing(NamedTuple):
    """What a copy is at: how much of about how much is done."""

    done: int
    total: int
    what: str

    @classmethod
    def at(cls, at: SnapshotProgress) -> Doing:
        if at.to_sweep:
            what = "keys, to delete what the source does not have"
            return cls(at.swept, max(at.swept, at.to_sweep), what)
        return cls(at.rows, max(at.rows, at.rows_estimated), "rows")


class Rate:
    """Rows a second, once the copies that there are are known."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []
        self._what = ""

    def see(self, at: SnapshotProgress, now: float) -> float | None:
        """The rate of late; None until there is one. What was copied before is no part of it."""
        if not at.tables:  # nobody knows yet what was copied before
            return None
        rows, _, what = Doing.at(at)
        if self._seen and (rows < self._seen[-1][1] or what != self._what):
            self._seen.clear()
        self._what = what
        self._seen.append((now, rows))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:
            self._seen.pop(0)
        then, had = self._seen[0]
        return (rows - had) / (now - then) if rows > had and now > then else None


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self) -> None:
        self._rates: dict[str, Rate] = {}
        self._said: dict[str, float] = {}

    def __call__(self, lives: Sequence[Live]) -> None:
        now = time.monotonic()
        for live in lives:
            rate = self._rates.setdefault(live.name, Rate()).see(live.snapshot, now)
            if now >= self._said.setdefault(live.name, now - EVERY + 1) + EVERY:
                self._said[live.name] = now
                say(line(live, rate))


def line(live: Live, rate: float | None) -> str:
    """One sync's progress in words."""
    at = live.snapshot
    if live.error:
        return f"{live.name}: {live.state}: {live.error}"
    if at.state == "pending":
        return f"{live.name}: {NOT_YET}"
    if at.state == "redo":
        return f"{live.name}: {at.rows:,} rows copied, waiting for the log to pass them"
    done, total, what = Doing.at(at)
    words = (
        f"{live.name}: {done:,} of about {total:,} {what}, {at.tables_done} of {at.tables} tables"
    )
    if rate:
        words += f", {rate:,.0f} a second, {(total - done) / rate:,.0f} s left"
    return words


class Bars:
    """A bar per sync. Meanwhile standard error, ours and our children's, goes through us: what is
    written there comes above the bars instead of tearing them apart."""

    def __init__(self) -> None:
        # Rich is for terminals: nothing else should wait for it or hold it.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        self._terminal = os.fdopen(os.dup(2), "w")
        self._console = Console(file=self._terminal)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(min(40, self._console.width // 4)),
            # Takes several lines where the terminal is narrow, before names are cut.
            TextColumn("{task.fields[words]}", table_column=Column(no_wrap=False)),
            TimeRemainingColumn(),
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._rates: dict[str, Rate] = {}
        self._bars: dict[str, TaskID] = {}
        read_end, write_end = os.pipe()
        os.dup2(write_end, 2)
        os.close(write_end)
        self._others = threading.Thread(target=self._pass_on, args=(read_end,), daemon=True)

    def __enter__(self) -> Self:
        self._progress.start()
        self._others.start()
        return self

    def __exit__(self, *_: object) -> None:
        sys.stderr.flush()
        # The pipe ends with its last writer: the thread reads out what is in it.
        os.dup2(self._terminal.fileno(), 2)
        self._others.join(1)
        self._progress.stop()
        self._terminal.close()

    def __call__(self, lives: Sequence[Live]) -> None:
        for live in lives:
            if live.name not in self._bars:
                self._bars[live.name] = self._progress.add_task(live.name, words="", total=None)
            at = live.snapshot
            rate = self._rates.setdefault(live.name, Rate()).see(at, time.monotonic())
            done, total, what = Doing.at(at)
            words = f"{done:,} {what}" + (f", {rate:,.0f} a second" if rate else "")
            words += f", {at.tables_done}/{at.tables} tables" if at.tables else ""
            if at.state == "pending":
                words = NOT_YET
            bar = self._bars[live.name]
            self._progress.update(
                bar, completed=done, total=total or None, words=live.error or words
            )

    def _pass_on(self, read_end: int) -> None:
        with os.fdopen(read_end, errors="replace") as lines:
            for text in lines:
                self._console.print(
                    text.rstrip("\n"), markup=False, highlight=False, soft_wrap=True
                )
