"""A MariaDB or MySQL server for a while, for the tests: private, small, gone with who started it."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import quote

import pymysql

from cdc.demo.server import PORT_ATTEMPTS, _free_port
from tests.mysql_programs import Flavour, Programs, as_user, find, make_data

# None is an option without a value, such as `skip-log-bin`.
Setting = str | int | bool | None
StopMode = Literal["fast", "immediate"]

SUPERUSER: Final = "root"
STOP_SIGNALS: Final = {"fast": signal.SIGTERM, "immediate": signal.SIGKILL}

SETTINGS: Final[Mapping[str, Setting]] = {
    "bind_address": "127.0.0.1",
    "skip_name_resolve": True,
    "log_bin": "binlog",
    "binlog_row_metadata": "FULL",
    "character_set_server": "utf8mb4",
    "local_infile": True,
    "max_connections": 100,
    # Small: every worker of a run has up to four of them.
    "innodb_buffer_pool_size": "64M",
    "innodb_log_buffer_size": "4M",
    "key_buffer_size": "1M",
    "table_open_cache": 400,
    "performance_schema": False,
    # Kernels count these requests for all servers together (fs.aio-max-nr).
    "innodb_use_native_aio": False,
    "innodb_read_io_threads": 2,
    "innodb_write_io_threads": 2,
}
OF_FLAVOUR: Final[Mapping[Flavour, Mapping[str, Setting]]] = {
    "mariadb": {
        # MySQL has no other by default, and warns of being told.
        "binlog_format": "ROW",
        "innodb_log_file_size": "96M",
        "aria_pagecache_buffer_size": "8M",
    },
    "mysql": {
        "gtid_mode": True,
        "enforce_gtid_consistency": True,
        "mysqlx": False,
        "innodb_redo_log_capacity": "96M",
        # Warnings too; alone it says errors.
        "log_error_verbosity": 2,
    },
}
# A transaction is handed to the kernel when it commits: it survives the server's crash, not the
# machine's. The doublewrite buffer stays on: SIGKILL can cut a page's write in two.
NOT_DURABLE: Final[Mapping[str, Setting]] = {
    "innodb_flush_log_at_trx_commit": 2,
    "innodb_flush_method": "nosync",
    "sync_binlog": 0,
}
DURABLE: Final[Mapping[str, Setting]] = {"innodb_flush_log_at_trx_commit": 1, "sync_binlog": 1}

# As the one of cdc.demo.server; but a server that is asked to stop here would write for seconds
# into a folder that is being removed.
KEEPER: Final = """\
read -r line && exit 0
kill -KILL "$1"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$1" || break
    sleep 0.1
done
rm -rf "$2"
"""


class LocalMysql:
    """A private server on 127.0.0.1 and on a socket in its folder; `flavour` says whose.

    `start` returns when it answers, and keeps its port and its data over `stop` and `start`;
    `close`, or leaving the `with`, ends it and removes its folder. It writes a binlog with rows and
    the names of their columns, MySQL with GTIDs. Nobody needs a password: `root` has none.

    `settings` are the server's variables, over those of SETTINGS; what stands in neither has the
    server's own default, `max_allowed_packet` for one. Its folder is made in `place`. NotHere if this
    machine has no such server.
    """

    def __init__(
        self,
        flavour: Flavour = "mariadb",
        *,
        settings: Mapping[str, Setting] | None = None,
        durable: bool = False,
        place: Path | None = None,
    ) -> None:
        self.programs: Programs = find(flavour)
        self.flavour: Flavour = flavour
        self.version = self.programs.version
        self.folder = _make_folder(place or Path(tempfile.gettempdir()).resolve())
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.socket = self.folder / "socket"
        self._settings: dict[str, Setting] = {
            **SETTINGS,
            **OF_FLAVOUR[flavour],
            **(DURABLE if durable else NOT_DURABLE),
            # Two servers of one id cannot replicate from each other, nor share a reader.
            "server_id": random.SystemRandom().randrange(1_000, 2**31),
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

    def url(self, db: str = "mysql", user: str = SUPERUSER, password: str | None = None) -> str:
        """A URL over TCP, its scheme the flavour."""
        who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        return f"{self.flavour}://{who}@127.0.0.1:{self.port}/{quote(db, safe='')}"

    def configure(self, settings: Mapping[str, Setting]) -> None:
        """Settings that the next start takes."""
        self._settings.update(settings)

    def unset(self, name: str) -> None:
        """The next start takes the server's own default."""
        del self._settings[name]

    def start(self, timeout: float = 60.0) -> None:
        """Returns when it answers; RuntimeError with its log's end if it cannot."""
        if self.running:
            raise RuntimeError(f"the server is running already, as process {self.pid}")
        # It may have ended by itself; its keeper would take the folder with it when let go of.
        self._forget_process()
        if not self.data.exists():
            make_data(self.programs, self.data)
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
                    f"{self.programs.title} did not start on port {port}. "
                    f"The end of its log:\n{said}"
                )

    def stop(self, mode: StopMode = "fast", timeout: float = 60.0) -> None:
        """Returns when the server's process has ended. `immediate` is a crash: recovery follows."""
        if self._process is None:
            return
        self._process.send_signal(STOP_SIGNALS[mode])
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"{self.programs.title} (process {self.pid}) did not stop within "
                f'{timeout:g} seconds\nTry: stop("immediate")'
            ) from None
        self._forget_process()

    def restart(self, mode: StopMode = "fast") -> None:
        """Stops and starts again: same port, same data, another process."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Ends the server without ceremony and removes all that it wrote. Safe to call twice."""
        if self._process is not None:
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
        """None when the server answers, else the end of what it said."""
        start = self.log.stat().st_size if self.log.exists() else 0
        defaults = self.folder / "my.cnf"
        defaults.write_text(self._option_file(port), encoding="utf-8")
        with self.log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [
                    *self.programs.command(self.programs.server),
                    f"--defaults-file={defaults}",
                    *self.programs.options,
                    *as_user(),
                ],
                cwd=self.folder,
                env=self.programs.environment(),
                # Ctrl-C in the terminal would stop it before whatever still writes to it.
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "keeper", str(process.pid), self.folder],
            cwd="/",
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            late = "" if process.poll() is not None else f"(no answer within {timeout:g} seconds)"
            process.kill()
            process.wait()
            self._forget_process()
            return self.log_tail(start=start) + late
        return None

    def _is_ready(self) -> bool:
        """Over the socket, which nobody else has; a port may be another server's by now."""
        # PyMySQL loses a Unix socket that cannot connect, and that is a ResourceWarning.
        with socket.socket(socket.AF_UNIX) as ours:
            ours.settimeout(10)
            with suppress(OSError, pymysql.OperationalError):
                ours.connect(str(self.socket))
                client = pymysql.connect(user=SUPERUSER, defer_connect=True)
                client.connect(ours)
                client.close()
                return True
        return False

    def _forget_process(self) -> None:
        if self._keeper is not None:
            with suppress(BrokenPipeError):
                self._keeper.communicate(b"done\n")
            self._keeper = None
        self._process = None

    def _option_file(self, port: int) -> str:
        ours: dict[str, Setting] = {
            "datadir": str(self.data),
            # MariaDB removes every #sql… file of its tmpdir when it starts (mysql_rm_tmp_tables), those
            # of other servers too: these then fail with errno 2, or die of signal 11.
            "tmpdir": str(self.folder),
            "socket": str(self.socket),
            "port": port,
        }
        settings = {**ours, **self._settings}
        return "[mysqld]\n" + "".join(_line(name, value) for name, value in settings.items())


def _make_folder(parent: Path) -> Path:
    # The socket's path must fit sockaddr_un: 104 bytes on macOS, 108 on Linux.
    if len(str(parent)) > 60:
        parent = Path("/tmp")  # noqa: S108 - mkdtemp makes a folder of our own in it
    return Path(tempfile.mkdtemp(prefix="cdc-mysql-", dir=parent))


def _line(name: str, value: Setting) -> str:
    """An option file's line. Manual: Using Option Files, on quotes and escapes."""
    if value is None:
        return f"{name}\n"
    text = ("OFF", "ON")[value] if isinstance(value, bool) else str(value)
    return f'{name} = "{text.replace(chr(92), chr(92) * 2)}"\n'
