"""What the demo shows while it runs: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from cdc.demo.crm import Work
from cdc.runtime import Live

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY: Final = 2.0
"""Seconds between two plain lines."""


@dataclass(slots=True)
class Scene:
    """What is to be seen at one moment."""

    phase: str
    left: float | None
    """Seconds until it ends; None: when it is over."""
    live: Live
    work: Work
    counts: dict[str, tuple[int | None, int | None]]
    """By table: its rows on the source and on the target, None where nobody knows."""


class View(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, scene: Scene) -> None:
        """Called a few times a second."""


def view() -> View:
    """The view for what standard output is."""
    dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")
    return Table() if sys.stdout.isatty() and not dumb else Lines()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def state_text(live: Live) -> str:
    """Where the sync is, in words."""
    copy = live.snapshot
    if live.state == "snapshot" and copy.rows_estimated:
        return f"snapshot, {copy.rows:,} of about {max(copy.rows, copy.rows_estimated):,} rows"
    return live.state if live.error is None else f"{live.state}: {live.error}"


def lag_text(live: Live) -> str:
    return "-" if live.lag_seconds is None else f"{live.lag_seconds:.1f} s"


class Lines:
    """For pipes and logs."""

    def __init__(self) -> None:
        self._due = 0.0
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, scene: Scene) -> None:
        now = time.monotonic()
        if now < self._due and scene.phase == self._phase:
            return
        self._due, self._phase = now + EVERY, scene.phase
        live = scene.live
        say(
            f"{scene.phase}: {state_text(live)}, lag {lag_text(live)}, {live.changes_per_second:,.0f} changes/s,"
            f" {live.changes_applied:,} changes applied"
        )


class Table:
    """For a terminal."""

    def __init__(self) -> None:
        # Rich is for terminals: nothing else should wait for it.
        from rich.console import Console  # noqa: PLC0415
        from rich.live import Live as Display  # noqa: PLC0415

        self._display = Display(console=Console(), auto_refresh=False)

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def show(self, scene: Scene) -> None:
        self._display.update(_rendered(scene), refresh=True)


_COLORS: Final = {"streaming": "green", "retrying": "yellow", "failed": "red"}


def _rendered(scene: Scene) -> RenderableType:
    from rich import box  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415
    from rich.table import Table as Grid  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    live, work = scene.live, scene.work
    facts = Grid.grid(padding=(0, 2))
    facts.add_row("state", Text(state_text(live), style=_COLORS.get(live.state, "cyan")))
    facts.add_row("lag", lag_text(live))
    facts.add_row("rate", f"{live.changes_per_second:,.0f} changes/s")
    facts.add_row("applied", f"{live.changes_applied:,} changes, up to {live.position or '-'}")
    written = f"{work.committed:,} transactions, and {work.rolled_back:,} taken back"
    facts.add_row("written", written)
    rows = Grid(box=box.SIMPLE)
    rows.add_column("table")
    rows.add_column("rows in the CRM", justify="right")
    rows.add_column("rows in the copy", justify="right")
    for table, (ours, theirs) in scene.counts.items():
        rows.add_row(table, _number(ours), _number(theirs))
    title = scene.phase if scene.left is None else f"{scene.phase}, {scene.left:.0f} s left"
    whole = Grid.grid()
    whole.add_row(facts)
    whole.add_row(rows)
    return Panel(whole, title=f"cdc demo: {title}", title_align="left", expand=False)


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"
