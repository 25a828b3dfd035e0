"""Brings a real MySQL server onto this machine, below `build/mysql`, and touches nothing else.

Debian has MySQL in its unstable suite only, whose packages must not mix with the system's. So apt
works with a state of its own, in which nothing is installed: it fetches the server's packages with
all they need, the C library included, and they are unpacked into one folder. The server runs there
through the C library's own loader. The mirror is the one that this machine's apt is configured for.

The suite moves, and can be broken for days. What went wrong then stands in `build/mysql/missing`,
the tests that need MySQL are skipped, and the run says so in its header and at its end.

Run by `make test`; by hand: `python -m tests.fetch_mysql`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

BUILD: Final = Path(__file__).resolve().parent.parent / "build"
TREE: Final = BUILD / "mysql" / "tree"
MISSING: Final = BUILD / "mysql" / "missing"
LOCK: Final = BUILD / "mysql" / "lock"

SUITE: Final = "sid"
PACKAGES: Final = ("mysql-server-core", "mysql-client-core", "mysql-client")
# Not needed to run; half of the files.
NOT_KEPT: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/i18n")
# It takes 15 seconds on two cores; a mirror that hangs must not hold up the tests for long.
TIME_LIMIT: Final = 240.0

# Read after the system's own configuration, so that its proxies and credentials hold. The hooks
# that are cleared would run for the system's caches and its dpkg.
APT_CONFIGURATION: Final = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Default-Release "";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Dir::State "{work}/state";
Dir::State::Lists "{work}/state/lists";
Dir::State::status "{work}/status";
Dir::State::extended_states "{work}/state/extended_states";
Dir::Cache "{work}/cache";
Dir::Cache::archives "{work}/cache/archives";
Dir::Etc::SourceList "{work}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
"""


class CannotFetch(Exception):
    """MySQL cannot be had; the text says why, in one line."""


def loader_in(tree: Path) -> Path | None:
    """The dynamic loader of the unpacked C library; None if there is none."""
    found = [path for path in tree.glob("usr/lib/*/ld-linux*.so.*") if path.is_file()]
    return found[0] if found else None


def fetch(time_limit: float = TIME_LIMIT) -> None:
    """Returns when the tree is there, made now or before; CannotFetch if it cannot be made.

    The tree appears by one rename, complete or not at all. Several processes may call this.
    """
    if TREE.is_dir():
        return
    BUILD.joinpath("mysql").mkdir(parents=True, exist_ok=True)
    with locked(LOCK):
        if TREE.is_dir():
            return
        work = TREE.with_name("work")
        shutil.rmtree(work, ignore_errors=True)
        try:
            _make_tree(work, time.monotonic() + time_limit)
        except (CannotFetch, OSError) as error:
            MISSING.write_text(f"{error}\n", encoding="utf-8")
            raise CannotFetch(str(error)) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
        MISSING.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of that name among the processes of this machine; it ends with its holder."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def mirrors(targets: str) -> list[str]:
    """Debian's mirrors in what `apt-get indextargets` says, the main archive's only."""
    found = []
    for target in targets.split("\n\n"):
        says = dict(re.findall(r"^([\w-]+): (.*)$", target, flags=re.MULTILINE))
        # Security updates and backports are archives of their own, without unstable.
        whole = re.fullmatch(r"[a-z]+", says.get("Release", ""))
        # Without lists, as on a fresh machine, apt does not know the origin yet.
        debian = says.get("Origin", "Debian") == "Debian"
        if whole and debian and says.get("Component") == "main" and "Repo-URI" in says:
            found.append(says["Repo-URI"])
    return list(dict.fromkeys(found))


def _make_tree(work: Path, deadline: float) -> None:
    for needed in ("apt-get", "dpkg"):
        if shutil.which(needed) is None:
            raise CannotFetch(f"there is no {needed} on this machine")
    said = _run(["apt-get", "indextargets", "Created-By: Packages"], deadline)
    [mirror, *_] = mirrors(said) or [""]
    if not mirror:
        raise CannotFetch("apt's sources on this machine name no mirror of Debian")

    work.mkdir(mode=0o700)
    for folder in ("state/lists/partial", "cache/archives/partial", "tree"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    signed = f"[signed-by={keyring}] " if keyring.exists() else ""
    (work / "sources.list").write_text(f"deb {signed}{mirror} {SUITE} main\n")
    architecture = _run(["dpkg", "--print-architecture"], deadline).strip()
    configuration = work / "apt.conf"
    configuration.write_text(APT_CONFIGURATION.format(architecture=architecture, work=work))
    apt = ["apt-get", "--quiet", "--yes", f"--config-file={configuration}"]
    _run([*apt, "--error-on=any", "update"], deadline)
    _run([*apt, "--download-only", "install", *PACKAGES], deadline)

    tree = work / "tree"
    for package in sorted((work / "cache/archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(tree)], deadline)
    for folder in NOT_KEPT:
        shutil.rmtree(tree / folder, ignore_errors=True)
    _try_server(tree, deadline)
    tree.rename(TREE)


def _try_server(tree: Path, deadline: float) -> None:
    """Whether what came runs here: a half-moved suite unpacks as well as any."""
    loader = loader_in(tree)
    if loader is None:
        raise CannotFetch("the packages that came hold no C library")
    libraries = ":".join(map(str, library_folders(tree)))
    server = tree / "usr/sbin/mysqld"
    said = _run([str(loader), "--library-path", libraries, str(server), "--version"], deadline)
    if " Ver " not in said:
        raise CannotFetch(f"expected a version of MySQL, got: {said.strip()}")


def library_folders(tree: Path) -> list[Path]:
    """Where its shared libraries are, those of MySQL itself included."""
    below = sorted(path for path in tree.glob("usr/lib/*-linux-gnu*") if path.is_dir())
    private = tree / "usr/lib/mysql/private"
    return [*below, *([private] if private.is_dir() else [])]


def _run(command: Sequence[str], deadline: float) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=max(1.0, deadline - time.monotonic()),
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired:
        raise CannotFetch(f"{command[0]} was not done within the time limit") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
        what = (lines or done.stderr.splitlines() or ["it did not say why"])[0]
        # A mirror's address may hold a password.
        what = re.sub(r"//[^/@\s]*@", "//", what.strip())
        raise CannotFetch(f"{Path(command[0]).name} ended with {done.returncode}: {what}")
    return done.stdout


def main() -> int:
    """Always 0: tests without MySQL are better than no tests, and they say so themselves."""
    if not TREE.is_dir():
        print("Fetching MySQL for the tests (once for this checkout) …", flush=True)
    try:
        fetch()
    except (CannotFetch, OSError) as error:
        print(f"MySQL cannot be tested here: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
