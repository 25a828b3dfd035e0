"""Where this machine has MariaDB and MySQL, and how their programs are run.

MariaDB is the system's own. MySQL is the one that `tests.fetch_mysql` has brought, or else the
system's; Debian's `mysqld` is often MariaDB under its old name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final, Literal

from tests.fetch_mysql import BUILD, MISSING, TREE, library_folders, loader_in, locked

Flavour = Literal["mariadb", "mysql"]
FLAVOURS: Final[tuple[Flavour, ...]] = ("mariadb", "mysql")
TITLES: Final[Mapping[Flavour, str]] = {"mariadb": "MariaDB", "mysql": "MySQL"}

# Debian keeps servers where an ordinary user's PATH does not look.
PATH: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/libexec"])
INSTALL_MARIADB: Final = (
    "apt-get install --no-install-recommends mariadb-server-core mariadb-client-core"
)

# Anonymous accounts would win over accounts of any host on the socket. Names are not resolved, so
# 127.0.0.1 is an account of its own; it was made with the others. Rows and no DROP USER: accounts
# are not loaded in the mode that this runs in.
MARIADB_ACCOUNTS: Final = """\
DELETE FROM mysql.global_priv WHERE User = '';
DELETE FROM mysql.global_priv WHERE User = 'root' AND Host NOT IN ('localhost', '127.0.0.1');
DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost';
"""
# One statement a line; the root of `localhost` was made before.
MYSQL_ACCOUNTS: Final = """\
CREATE USER root@'127.0.0.1';
GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;
GRANT PROXY ON ``@`` TO root@'127.0.0.1' WITH GRANT OPTION;
"""


class NotHere(Exception):
    """This machine does not have the server: why in `reason`, and what to do about it in `hint`."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(f"{reason}\nTry: {hint}")
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class Programs:
    """A server's programs: `command("mysqld")` is what to run, `options` what it must be told."""

    flavour: Flavour
    version: str
    server: str
    folder: Path
    loader: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{TITLES[self.flavour]} {self.version}"

    def command(self, program: str) -> list[str]:
        """How to run one of its programs, `mysqlbinlog` too where it came along."""
        return [*self.loader, str(_program(program, self.folder))]

    def environment(self) -> dict[str, str]:
        """Ours in English, without variables that its programs would take for settings."""
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MYSQL", "MARIADB", "UMASK"))
        }
        return {**ours, "LC_ALL": "C", **self.env}


@cache
def find(flavour: Flavour) -> Programs:
    """The programs on this machine; NotHere if there are none that run."""
    return _mariadb() if flavour == "mariadb" else _mysql()


def make_data(programs: Programs, data: Path) -> None:
    """Makes an initialised data directory at `data`, a copy of one that is made once per machine.

    MySQL takes 4 seconds to make one; to copy its 100 MB takes a tenth of that.
    """
    parent = BUILD / "mysql"
    parent.mkdir(parents=True, exist_ok=True)
    # What is in it depends on the server and on this file; who may read it, on who made it.
    server = Path(programs.command(programs.server)[-1])
    recipe = zlib.crc32(Path(__file__).read_bytes())
    made_from = f"{programs.version}-{server.stat().st_mtime_ns}-{recipe:08x}-{os.geteuid()}"
    template = parent / f"{programs.flavour}-{made_from}"
    # Held while copying: a run of another recipe removes this one.
    with locked(parent / f"{programs.flavour}.lock"):
        if not template.is_dir():
            for old in parent.glob(f"{programs.flavour}-*-{os.geteuid()}"):
                shutil.rmtree(old, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="making-", dir=parent) as work:
                _initialise(programs, Path(work, "data"), Path(work))
                Path(work, "data").rename(template)
        shutil.copytree(template, data)


def _initialise(programs: Programs, data: Path, work: Path) -> None:
    accounts = work / "accounts.sql"
    if programs.flavour == "mysql":
        accounts.write_text(MYSQL_ACCOUNTS)
        _run(
            programs,
            [
                *_own_server(programs, data),
                "--initialize-insecure",
                f"--init-file={accounts}",
                "--innodb-redo-log-capacity=64M",
            ],
        )
        # It names the server: each copy gets one of its own.
        (data / "auto.cnf").unlink()
        return
    _run(
        programs,
        [
            *programs.command("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=16M",
            *as_user(),
        ],
    )
    accounts.write_text(MARIADB_ACCOUNTS)
    _run(
        programs,
        [*_own_server(programs, data), "--innodb-log-file-size=16M", "--bootstrap"],
        accounts,
    )


def _own_server(programs: Programs, data: Path) -> list[str]:
    return [
        *programs.command(programs.server),
        "--no-defaults",
        *programs.options,
        f"--datadir={data}",
        "--skip-log-bin",
        "--innodb-flush-method=nosync",
        *as_user(),
    ]


def as_user() -> list[str]:
    """Both servers refuse to run as root unless told so."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _run(programs: Programs, command: list[str], script: Path | None = None) -> None:
    with Path(script or os.devnull).open("rb") as given:
        done = subprocess.run(
            command,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            env=programs.environment(),
        )
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()
        raise RuntimeError(f"{programs.title} could not make a data directory:\n{said}")


def _mariadb() -> Programs:
    server = shutil.which("mariadbd", path=PATH)
    if server is None or shutil.which("mariadb-install-db", path=PATH) is None:
        raise NotHere("MariaDB is not on this machine", INSTALL_MARIADB)
    programs = Programs("mariadb", "", "mariadbd", Path(server).parent)
    return _versioned(programs, INSTALL_MARIADB)


def _mysql() -> Programs:
    loader = loader_in(TREE)
    if loader is not None:
        shared = TREE / "usr/share/mysql"
        programs = Programs(
            "mysql",
            "",
            "mysqld",
            TREE / "usr/sbin",
            loader=(str(loader), "--library-path", ":".join(map(str, library_folders(TREE)))),
            options=(
                f"--basedir={TREE / 'usr'}",
                f"--plugin-dir={TREE / 'usr/lib/mysql/plugin'}",
                f"--lc-messages-dir={shared}",
                f"--character-sets-dir={shared / 'charsets'}",
                # Debian's folder for it is not there.
                "--secure-file-priv=NULL",
            ),
            env={"OPENSSL_MODULES": str(loader.parent / "ossl-modules")},
        )
        return _versioned(programs, "make clean test")
    server = shutil.which("mysqld", path=PATH)
    if server is not None and Path(server).resolve().name == "mysqld":
        options = ("--secure-file-priv=NULL",)
        programs = Programs("mysql", "", "mysqld", Path(server).parent, options=options)
        return _versioned(programs, "make test")
    try:
        reason = MISSING.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        reason = "it was not fetched yet"
    raise NotHere(reason, "make test, which fetches it")


def _versioned(programs: Programs, hint: str) -> Programs:
    command = [*programs.command(programs.server), "--version"]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=programs.environment(),
    )
    said = re.search(r" Ver (\d+\.\d+\.\d+)(.*)", done.stdout)
    if said is None or ("MariaDB" in said[2]) != (programs.flavour == "mariadb"):
        raise NotHere(
            f"{' '.join(command)} does not run here: expected a version of "
            f"{TITLES[programs.flavour]}, got exit code {done.returncode} and: "
            f"{(done.stdout + done.stderr).strip()}",
            hint,
        )
    return replace(programs, version=said[1])


def _program(name: str, folder: Path) -> Path:
    """A program of the server's own installation, below its folder's neighbours too."""
    for place in (folder, folder.parent / "bin", folder.parent / "sbin"):
        if (place / name).is_file():
            return place / name
    found = shutil.which(name, path=PATH)
    if found is None:
        raise RuntimeError(f"no program {name} beside {folder}")
    return Path(found)
