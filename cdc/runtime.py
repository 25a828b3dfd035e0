"""What a running sync tells on this machine, without any database: `Live`, and who holds the sync.

In one directory (see `directories`) each sync of each configuration file has a few small files:
`KEY.json`, what the sync told last, and two lock files. `KEY.worker.lock` is held by the process that
runs the sync, `KEY.daemon.lock` by the daemon that supervises it: while a worker is being started
again, the sync still is somebody's. The locks are flock(2): they end with their process, however
it dies. Lock files stay where they are; removing one would let two holders lock two files of one name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from appliers.checkpoint import Copy, TableState
from appliers.errors import LockedError, PermanentError

State = Literal[
    "new", "snapshot", "catching-up", "streaming", "paused", "retrying", "failed", "stopped"
]
Role = Literal["worker", "daemon"]

_PATIENCE = 3.0
"""Seconds that `lock` waits for a holder that may be just dying."""


@dataclass(slots=True)
class SnapshotProgress:
    """How far the copies of a sync's tables are."""

    state: str = Copy.PENDING.value
    """The least advanced state of any table: pending, copying, redo, done."""
    tables_done: int = 0
    tables: int = 0
    rows: int = 0
    rows_estimated: int = 0
    swept: int = 0
    """Keys of the source that were read to find what it does not have."""
    to_sweep: int = 0
    """Of about so many; 0 while none are read."""

    @classmethod
    def of(cls, tables: Iterable[TableState]) -> SnapshotProgress:
        all_tables = list(tables)
        order = [Copy.PENDING, Copy.COPYING, Copy.REDO, Copy.DONE]
        least = min((t.copy for t in all_tables), key=order.index, default=Copy.PENDING)
        if least is Copy.PENDING and any(t.copy is not Copy.PENDING for t in all_tables):
            least = Copy.COPYING
        return cls(
            state=least.value,
            tables_done=sum(t.copy is Copy.DONE for t in all_tables),
            tables=len(all_tables),
            rows=sum(t.rows for t in all_tables),
            rows_estimated=sum(
                t.rows if t.copy in (Copy.REDO, Copy.DONE) else t.rows_estimated for t in all_tables
            ),
            swept=sum(t.swept or 0 for t in all_tables),
            to_sweep=sum(t.rows for t in all_tables if t.swept is not None),
        )


@dataclass(slots=True)
class Live:
    """What a running sync tells, twice a second."""

    name: str
    state: State = "new"
    pid: int | None = None
    """The worker's; None while the daemon waits to start it again, and after it has failed."""
    daemon_pid: int | None = None
    position: str | None = None
    """Everything before it is applied; moves with an idle source too."""
    source_position: str | None = None
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    changes_applied: int = 0
    changes_per_second: float = 0.0
    snapshot: SnapshotProgress = field(default_factory=SnapshotProgress)
    error: str | None = None
    hint: str | None = None
    untold: bool = False
    """It has failed, and the target could not be told: it is kept nowhere but here."""
    beat: int = 0
    """Grows with every turn of the worker's loops: progress, or a healthy wait. When it stands for
    long, the daemon kills the worker."""
    beat_at: float = 0.0
    """When `beat` last grew. Set by `Runtime.publish`."""
    updated_at: float = 0.0
    """When this was published. Set by `Runtime.publish`."""

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Live:
        """Leaves out what a newer version may have added."""
        found = json.loads(text)
        if not isinstance(found, dict) or "name" not in found:
            raise ValueError("not what a sync tells")
        known = {f.name for f in fields(cls)}
        live = cls(**{k: v for k, v in found.items() if k in known and k != "snapshot"})
        parts = {f.name for f in fields(SnapshotProgress)}
        live.snapshot = SnapshotProgress(
            **{k: v for k, v in found.get("snapshot", {}).items() if k in parts}
        )
        return live


class Runtime:
    """One sync's files. `lock`, `publish` and `unlock` are for one thread of the holder; `read` is
    for anybody, also other users where the directory lets them in."""

    def __init__(self, config_path: Path, sync: str) -> None:
        self.sync = sync
        digest = hashlib.sha256(f"{config_path.resolve()}\0{sync}".encode()).hexdigest()[:16]
        self._key = f"{digest}-{''.join(c if c.isalnum() else '_' for c in sync)[:40]}"
        self._lock: io.FileIO | None = None
        self._directory: Path | None = None
        self._beat = (-1, 0.0)

    def lock(self, holder: str, role: Role = "worker") -> None:
        """Holds the sync until `unlock` or the process's end; `holder` names us to others.

        Raises LockedError with the other's name when the sync is held, after waiting 3 s for one
        that may be just dying. A worker does not mind its daemon's lock, nor a daemon a worker
        that has outlived its own daemon: that one dies within a moment, and ours waits for it.
        """
        until = time.monotonic() + _PATIENCE
        while not self._try_lock(holder, role):
            if time.monotonic() >= until:
                raise LockedError(
                    f"sync {self.sync} is already run by {self._holder(role)}",
                    "stop that one first, or look at it with `cdc status`: one sync has one daemon",
                )
            time.sleep(0.05)
        if role == "daemon" or not self._held("daemon"):
            self._live_file(self._made()).unlink(missing_ok=True)

    def publish(self, live: Live) -> None:
        """Replaces what was told before, atomically. Needs the lock. Raises OSError when the
        directory is full or gone."""
        live.updated_at = time.time()
        if live.beat != self._beat[0]:
            self._beat = (live.beat, live.updated_at)
        live.beat_at = self._beat[1]
        path = self._live_file(self._made())
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        with _open_for_all(draft) as out:
            out.truncate()
            out.write(live.as_json().encode())
        draft.replace(path)

    def read(self) -> Live | None:
        """What the sync told last; None when nobody runs it now, or it has told nothing yet."""
        for directory in directories():
            if any(_is_held(directory / self._lock_name(role)) for role in ("worker", "daemon")):
                return self.peek(directory)
        return None

    def left(self) -> Live | None:
        """What the sync told last, on this machine, if that is a failure that its target does not know;
        until it is started again or dropped (`lock`)."""
        told = [live for directory in directories() if (live := self.peek(directory))]
        last = max(told, key=lambda live: live.updated_at, default=None)
        return last if last is not None and last.untold else None

    def starting(self) -> Live | None:
        """The same, waiting a moment for somebody who has just begun to run it and has told nothing."""
        until = time.monotonic() + _PATIENCE
        while (live := self.read()) is None and time.monotonic() < until:
            if not (self._held("daemon") or self._held("worker")):
                return None
            time.sleep(0.05)
        return live

    def peek(self, directory: Path | None = None) -> Live | None:
        """The same without asking whether anybody runs it: for who holds the lock."""
        try:
            return Live.from_json(self._live_file(directory or self._made()).read_text())
        except (OSError, ValueError, TypeError):
            return None

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _try_lock(self, holder: str, role: Role) -> bool:
        mine = self._made()
        if any(_is_held(d / self._lock_name(role)) for d in directories() if d != mine):
            return False
        file = _open_for_all(mine / self._lock_name(role))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        file.truncate()
        file.write(holder.encode())
        self._lock = file
        return True

    def _held(self, role: Role) -> bool:
        return any(_is_held(d / self._lock_name(role)) for d in directories())

    def _holder(self, role: Role) -> str:
        for directory in directories():
            path = directory / self._lock_name(role)
            if _is_held(path):
                with contextlib.suppress(OSError):
                    return path.read_text() or "another process"
        return "another process"

    def _made(self) -> Path:
        """The directory that we write to."""
        if self._directory is None:
            self._directory = _writable(self._lock_name("daemon"), self._lock_name("worker"))
        return self._directory

    def _lock_name(self, role: str) -> str:
        return f"{self._key}.{role}.lock"

    def _live_file(self, directory: Path) -> Path:
        return directory / f"{self._key}.json"


def holder(what: str) -> str:
    """How this process is named to others: `cdc run, process 4242 on crm-host`."""
    return f"{what}, process {os.getpid()} on {socket.gethostname()}"


def directories() -> Iterator[Path]:
    """Where a sync's files may be, best first: systemd's RuntimeDirectory=, its place when we are
    not started by systemd, the user's own, and one that works everywhere."""
    seen: set[Path] = set()
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    user = os.environ.get("XDG_RUNTIME_DIR", "")
    candidates = [
        Path(given) if given else None,
        Path("/run/cdc"),
        Path(user, "cdc") if user else None,
        _own_temporary(),
    ]
    for path in candidates:
        if path is not None and path not in seen:
            seen.add(path)
            yield path


def _own_temporary() -> Path | None:
    """`cdc-UID` among the temporary files, unless somebody else has put one there for us."""
    path = Path(tempfile.gettempdir(), f"cdc-{os.getuid()}")
    try:
        at = path.lstat()
    except OSError:
        return path
    return path if stat.S_ISDIR(at.st_mode) and at.st_uid == os.getuid() else None


def _writable(*names: str) -> Path:
    """The first directory in which these files can be written, made if need be."""
    tried = []
    for path in directories():
        mode = 0o700 if path == _own_temporary() else 0o755
        try:
            if not path.is_dir():
                path.mkdir(exist_ok=True)
                path.chmod(mode)
        except OSError:
            tried.append(str(path))
            continue
        files = [path / n for n in names]
        if os.access(path, os.W_OK | os.X_OK) and all(
            os.access(f, os.W_OK) for f in files if f.exists()
        ):
            return path
        tried.append(str(path))
    raise PermanentError(
        f"no directory for the running sync's state: none of {', '.join(tried)} can be written",
        "set RUNTIME_DIRECTORY to a directory that this user may write",
    )


def _open_for_all(path: Path) -> io.FileIO:
    """Opens for writing, without buffer, a file that every user may read, whatever the umask is:
    `cdc status` may be another user's. Who gets into the directory is the directory's business."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with contextlib.suppress(PermissionError):
        os.fchmod(fd, 0o644)
    return io.FileIO(fd, "r+")


def _is_held(path: Path) -> bool:
    """Whether somebody holds this lock file. Tried with a shared lock, held for no longer than it
    takes to ask, so that several readers do not see each other."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False
