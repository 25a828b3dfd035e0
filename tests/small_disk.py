"""A disk of some hundred megabytes, whose room is a test's to take and to give."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

SIZE: Final = 400 << 20
BLOCK: Final = bytes(1 << 16)


class SmallDisk:
    """A file system in memory, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int) -> None:
        """Takes all but so many bytes, less a page."""
        with self._ballast.open("ab") as ballast:
            while (rest := self.free - leave) > 0:
                ballast.write(BLOCK[:rest])
                ballast.flush()

    def make_room(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """Skips the test where this user may not mount one."""
    # A server's socket is in it, whose path must be short.
    path = Path(tempfile.mkdtemp(prefix="cdc-disk-", dir="/tmp"))
    try:
        mount, unmount = shutil.which("mount"), shutil.which("umount")
        made = mount is not None and subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)],
            check=False,
            capture_output=True,
        )
        if unmount is None or not made or made.returncode:
            pytest.skip("a full disk: NOT TESTED because it takes root to mount a small one")
        try:
            yield SmallDisk(path)
        finally:
            subprocess.run([unmount, str(path)], check=True)
    finally:
        path.rmdir()
