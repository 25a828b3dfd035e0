"""`cdc snapshot`: here, or by the daemon that runs the sync already."""

from __future__ import annotations

import difflib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from appliers.checkpoint import Copy, TableState
from appliers.errors import PermanentError, TransientError
from appliers.registry import applier_for
from appliers.state import State
from cdc import daemon
from cdc.cli.progress import Shown, progress
from cdc.cli.words import fail, say
from cdc.config import Config, Sync
from cdc.customers import shape_for
from cdc.runtime import Live, Runtime
from cdc.sources.registry import opened
from cdc.urls import home

LOOK: Final = 0.5
"""Seconds between two looks at a copy that a daemon does for us."""
PATIENCE: Final = 10.0
"""Seconds without a daemon after which nobody is taken to copy any more: it may be starting again."""


@dataclass
class Wish:
    """What is to be copied of one sync, and the requests that say so on its target."""

    sync: Sync
    requests: set[int] = field(default_factory=set)
    wanted: tuple[str, ...] = ()
    """The tables; none: all."""


def run(
    config: Config, syncs: Sequence[str], tables: Sequence[str], customers: Sequence[str]
) -> int:
    """Copies, and ends when the copies are exact."""
    if customers and config.customer is None:
        raise PermanentError(
            "--customer needs to know what a customer is", f"add [customer] to {config.path}"
        )
    running: list[Wish] = []
    idle: list[Wish] = []
    for name in syncs:
        live = Runtime(config.path, name).starting()
        _check_customers(config, config.syncs[name], customers)
        wish = _ask(config.syncs[name], tables, customers)
        (idle if live is None else running).append(wish)
        if live is not None and live.state == "failed":
            _wake(live)
    with progress() as shown:
        code = 0
        if idle:
            names = [wish.sync.name for wish in idle]
            code = daemon.run(config.path, names, copy_only=True, shown=shown)
        for wish in running:
            try:
                _follow(config, wish, shown)
            except KeyboardInterrupt:
                say(f"{wish.sync.name}: the running daemon goes on with the copy")
                raise
    if code:
        fail(
            "not everything was copied",
            "look at `cdc status`; the same command goes on where this one ended",
        )
        return code
    for wish in (*idle, *running):
        say(_done(wish, customers))
    return 0


def _ask(sync: Sync, tables: Sequence[str], customers: Sequence[str]) -> Wish:
    """Notes on the target what is wanted. A sync without a snapshot, or in the middle of one, goes on
    with that: nothing has to be asked for unless single tables or customers are. What a first snapshot
    copies is every table: raises PermanentError for a wish of less."""
    wish = Wish(sync)
    with _state(sync) as state:
        control, states = state.control(), state.tables()
        if control.paused:
            raise PermanentError(f"sync {sync.name} is paused", f"cdc resume {sync.name}")
        if state.load() is None:
            if tables or customers:
                raise PermanentError(
                    f"sync {sync.name} was never copied: its first snapshot copies every table",
                    f"cdc snapshot {sync.name}",
                )
            return wish
        wish.wanted = tuple(_table(sync, states, name) for name in tables)
        unfinished = any(t.copy is not Copy.DONE for t in states.values())
        # After a gap in the log, the error's own remedy is this command: a copy of everything.
        is_remedy = "cdc snapshot" in (control.hint or "")
        if not tables and not customers and unfinished and not is_remedy:
            return wish
        asked = {(r.table, r.customer): r.id for r in control.requests}
        for table, customer in product(wish.wanted or (None,), customers or (None,)):
            number = asked.get((table, customer))
            wish.requests.add(state.request(table, customer) if number is None else number)
    return wish


def _check_customers(config: Config, sync: Sync, customers: Sequence[str]) -> None:
    """Refuses keys that no customer can have, before a daemon stumbles over them."""
    if not customers:
        return
    shape = shape_for(config.customer)
    with opened(sync.source.url, sync.source.password, sync.name) as source:
        relations = [shape(r) for r in source.catalog(sync.tables).relations]
        for relation, customer in product(relations, customers):
            if relation.customer_columns:
                source.customer_bounds(relation, customer)


def _table(sync: Sync, states: dict[str, TableState], name: str) -> str:
    """A table of the sync by the name that the user gives it: `schema.table` or `table`."""
    found = [t for t in states if name in (t, t.partition(".")[2])]
    at_home = [t for t in found if t.startswith(f"{home(sync.source.url)}.")]
    if len(found) == 1 or at_home:
        return (at_home or found)[0]
    if found:
        raise PermanentError(
            f"table {name} is in several schemas: {', '.join(found)}", f"--table {found[0]}"
        )
    names = [*states, *(t.partition(".")[2] for t in states)]
    near = next(iter(difflib.get_close_matches(name, names, n=1)), None)
    raise PermanentError(
        f"sync {sync.name} has no table {name}",
        f"--table {near}" if near else f"one of {', '.join(states)}",
    )


def _wake(live: Live) -> None:
    """A failed sync is started again when its daemon reads its configuration again."""
    try:
        os.kill(live.daemon_pid or 0, signal.SIGHUP) if live.daemon_pid else None
    except OSError as e:
        raise PermanentError(
            f"sync {live.name} has failed, and its daemon {live.daemon_pid} does not listen to us: {e.strerror}",
            "reload the daemon: systemctl reload cdc",
        ) from e


def _follow(config: Config, wish: Wish, shown: Shown) -> None:
    """Waits until the daemon has done what was asked."""
    runtime = Runtime(config.path, wish.sync.name)
    say(f"{wish.sync.name}: the running daemon copies")
    seen = time.monotonic()
    failed_at: float | None = None
    with _state(wish.sync) as state:
        while True:
            live = runtime.read()
            now = time.monotonic()
            if live is not None:
                seen = now
                shown([live])
            elif now - seen > PATIENCE:
                raise TransientError(
                    f"the daemon of {wish.sync.name} has stopped before the copy was done",
                    "start it again, or repeat this command: both go on where it stopped",
                )
            if live is not None and live.state == "failed":
                failed_at = failed_at or now
                if now - failed_at > PATIENCE:
                    raise PermanentError(
                        live.error or f"sync {wish.sync.name} has failed", live.hint or ""
                    )
            else:
                failed_at = None
                if _is_done(state, wish):
                    return
            time.sleep(LOOK)


def _is_done(state: State, wish: Wish) -> bool:
    if wish.requests & {r.id for r in state.control().requests}:
        return False
    tables = state.tables()
    return bool(tables) and all(
        t.copy is Copy.DONE for t in tables.values() if not wish.wanted or t.table in wish.wanted
    )


def _done(wish: Wish, customers: Sequence[str]) -> str:
    if customers:
        return f"{wish.sync.name}: all rows of customer {', '.join(customers)}, exact"
    with _state(wish.sync) as state:
        tables = [t for t in state.tables().values() if not wish.wanted or t.table in wish.wanted]
    where = f"{len(tables)} table{'s' if len(tables) != 1 else ''}"
    return f"{wish.sync.name}: {sum(t.rows for t in tables):,} rows in {where}, exact"


@contextmanager
def _state(sync: Sync) -> Iterator[State]:
    """What the sync keeps on its target."""
    applier = applier_for(sync.target.url, sync.target.password, sync.name)
    try:
        applier.open(None)
        yield applier.state
    finally:
        applier.close()
