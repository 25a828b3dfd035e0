"""The lock that lets one daemon at a time run a sync into a SQLite file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import tempfile
import threading
from pathlib import Path
from typing import Final

_HELD: Final[set[tuple[int, int, int]]] = set()
"""What this process holds: (device, inode, offset). Locks of one open file do not exclude each other."""
_FILES: Final[dict[tuple[int, int], int]] = {}
"""Descriptors of databases, by device and inode. Never closed while the file exists: closing any
descriptor of a file drops all POSIX locks that the process has on it, SQLite's own among them
(https://www.sqlite.org/howtocorrupt.html#posix_close_bug)."""
_GUARD: Final = threading.Lock()

# SQLite locks bytes from 0x40000000; a file cannot grow to here.
_FIRST_BYTE: Final = 1 << 61
_FLOCK: Final = struct.Struct("@hhqqi4x")


class WriterLock:
    """An exclusive lock on one byte of the database file, far behind its end; which byte is the sync's.

    It is an open file description lock (F_OFD_SETLK): the kernel lets go of it when the process ends,
    however it ends; nothing is left on the disk; and it holds between all that see the same file, be
    it a service with a private /tmp, another user, or another container, where a lock file in a
    temporary directory would not. Where there are no such locks (macOS) it is a file in the system's
    temporary directory.
    """

    ofd = hasattr(fcntl, "F_OFD_SETLK")

    def __init__(self, file: Path, sync: str) -> None:
        self._file = file
        self._sync = sync
        self._held: tuple[int, int, int] | None = None
        self._descriptor = -1

    def acquire(self) -> bool:
        """Takes the lock; False if it is held elsewhere. The file must exist."""
        status = self._file.stat()
        digest = hashlib.sha256(self._sync.encode()).digest()
        held = (status.st_dev, status.st_ino, _FIRST_BYTE + int.from_bytes(digest[:7], "big"))
        with _GUARD:
            if held in _HELD:
                return False
            self._descriptor = self._open(held[:2], digest.hex()[:16])
            try:
                self._lock(held[2])
            except (BlockingIOError, PermissionError):
                if not self.ofd:
                    os.close(self._descriptor)
                return False
            _HELD.add(held)
            self._held = held
        return True

    def release(self) -> None:
        with _GUARD:
            if self._held is None:
                return
            _HELD.discard(self._held)
            if self.ofd:
                self._set(fcntl.F_UNLCK, self._held[2])
            else:
                os.close(self._descriptor)
            self._held = None

    def _open(self, identity: tuple[int, int], name: str) -> int:
        if not self.ofd:
            device, inode = identity
            lock_file = Path(tempfile.gettempdir(), f"cdc-{device:x}-{inode:x}-{name}.lock")
            # Readable for all, so that another user's daemon meets the lock and not a refusal.
            return os.open(lock_file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        for known, descriptor in list(_FILES.items()):
            if os.fstat(descriptor).st_nlink == 0:
                os.close(descriptor)
                del _FILES[known]
        if identity not in _FILES:
            _FILES[identity] = os.open(self._file, os.O_RDWR | os.O_CLOEXEC)
        return _FILES[identity]

    def _lock(self, offset: int) -> None:
        if self.ofd:
            self._set(fcntl.F_WRLCK, offset)
        else:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _set(self, kind: int, offset: int) -> None:
        fcntl.fcntl(
            self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, offset, 1, 0)
        )
