"""Whoever cleans up after the demo when it cannot do so itself."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

# The end of the file without `done` says that the demo is gone, by SIGKILL too. Workers die with
# their daemon. A server that is just being set up has no keeper of its own yet: its folder is
# removed under it until it has given up.
SCRIPT: Final = """\
pids=
while read -r word rest; do
    case $word in
        done) exit 0 ;;
        kill) pids=$rest ;;
        remove) set -- "$@" "$rest" ;;
    esac
done
for pid in $pids; do kill -KILL "$pid"; done
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    rm -rf "$@"
    sleep 0.1
done
rm -rf "$@"
"""


class Keeper:
    """A temporary folder, and a process that removes it when ours is gone, however it went."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cdc-demo-"))
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "keeper", self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            # Ctrl-C in the terminal is for the demo alone.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._say("done")
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    def kills(self, pid: int | None) -> None:
        """Has this process killed too; None: none any more."""
        self._say("kill" if pid is None else f"kill {pid}")

    def removes(self, folder: Path) -> None:
        """Has this folder removed too."""
        self._say(f"remove {folder}")

    def _say(self, line: str) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()
