"""Whom a server of ours runs as, and what that account can reach.

PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

# The socket's path must fit sockaddr_un: 104 bytes on macOS, 108 on Linux.
LONGEST_SOCKET_PATH: Final = 100


@dataclass(frozen=True)
class Account:
    """The account of a server's programs: our own, or for root one without privileges."""

    other: pwd.struct_passwd | None

    @classmethod
    def for_server(cls) -> Self:
        if os.geteuid() != 0:
            return cls(None)
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                return cls(pwd.getpwnam(name))
        raise RuntimeError(
            "PostgreSQL refuses to run as root, and there is no account postgres or nobody here\n"
            "Try: run this as an ordinary user"
        )

    def popen(self, folder: Path) -> dict[str, Any]:
        """How its programs run: as whom, where, in English, without the caller's PG* variables.

        In a session of their own: Ctrl-C in the terminal would stop a server before whatever still
        writes to it.
        """
        env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        how: dict[str, Any] = {
            "cwd": folder,
            "env": {**env, "LC_ALL": "C"},
            "start_new_session": True,
        }
        if self.other is not None:
            how |= {"user": self.other.pw_uid, "group": self.other.pw_gid, "extra_groups": []}
        return how

    def give(self, path: Path) -> None:
        if self.other is not None:
            os.chown(path, self.other.pw_uid, self.other.pw_gid)

    def make_folder(self) -> Path:
        """A new private folder that the account owns, its path short enough for a socket."""
        parent = Path(tempfile.gettempdir()).resolve()
        socket_path = parent / "cdc-postgres-12345678" / ".s.PGSQL.12345"
        too_long = len(os.fsencode(socket_path)) > LONGEST_SOCKET_PATH
        if too_long or not self.reaches(parent):
            parent = Path("/tmp")  # noqa: S108 - mkdtemp makes a folder of our own in it
        folder = Path(tempfile.mkdtemp(prefix="cdc-postgres-", dir=parent))
        self.give(folder)
        return folder

    def reaches(self, path: Path) -> bool:
        """Whether it may pass all folders down to `path`, and run what is there."""
        return self.other is None or all(
            step.stat().st_mode & 0o001 for step in (path, *path.parents)
        )

    def reachable(self, bin_dir: Path, copy: Path) -> Path:
        """The programs where the account can run them: there, or in a copy made at `copy`."""
        bin_dir = bin_dir.resolve()
        if self.reaches(bin_dir / "postgres"):
            return bin_dir
        # A .venv below /root, say. The programs of a wheel find their libraries by a path relative
        # to themselves, package/pginstall/bin -> package.libs: that much of the tree keeps its shape.
        tree, package = bin_dir.parent, bin_dir.parent.parent
        copies = {tree: copy / package.name / tree.name}
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            copies[libraries] = copy / libraries.name
        for source, place in copies.items():
            shutil.copytree(source, place, symlinks=True)
        # The account owns the copy, so that a process that runs as it can remove it.
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                self.give(path)
        return copies[tree] / bin_dir.name
