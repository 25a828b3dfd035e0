"""The real daemon, run by the demo as anybody would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final

from appliers.errors import PermanentError
from cdc.demo.keeper import Keeper
from cdc.runtime import Live, Runtime

SYNC: Final = "cdc-demo"

STOP_SECONDS: Final = 15.0
"""A daemon is gone 10 seconds after SIGTERM."""

NOT_INHERITED: Final = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"),
    *("CREDENTIALS_DIRECTORY", "CDC_CONFIG", "CDC_FAULT"),
)
"""What is meant for another daemon than this one."""

_CONFIG: Final = """\
[databases.crm]
url = {source}

[databases.copy]
url = {target}
{password}
[customer]
table = "customers"
related = {{ contacts = "customer_id", addresses = "customer_id", activities = "customer_id" }}

[sync.{sync}]
source = "crm"
target = "copy"
"""


class Subject:
    """`cdc run` as a process of its own, with a configuration and runtime files of its own."""

    def __init__(self, keeper: Keeper, source: str, target: str, password: str | None) -> None:
        self.live = Live(SYNC)
        self._keeper = keeper
        self._run = keeper.folder / "run"
        self._run.mkdir()
        self._log = keeper.folder / "log"
        self._config = keeper.folder / "cdc.toml"
        if password is not None:
            secret = keeper.folder / "copy-password"
            secret.touch(0o600)
            secret.write_text(password)
        self._config.write_text(
            _CONFIG.format(
                source=json.dumps(source),
                target=json.dumps(target, ensure_ascii=False),
                password="" if password is None else 'password_file = "copy-password"\n',
                sync=SYNC,
            )
        )
        self._runtime = Runtime(self._config, SYNC)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                # -P: what lies in the working directory is not to be imported.
                [sys.executable, "-P", "-m", "cdc", "--config", self._config, "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**env, "RUNTIME_DIRECTORY": str(self._run)},
                # Ctrl-C in the terminal is for the demo, which stops it in its turn.
                start_new_session=True,
            )
        self._keeper.kills(self._process.pid)

    def look(self) -> Live:
        """What the daemon tells now. Raises PermanentError if it has failed or is gone."""
        self.live = self._runtime.peek(self._run) or self.live
        if self.live.state == "failed":
            raise PermanentError(f"the sync failed: {self.live.error}", self.live.hint or "")
        if self._process is not None and self._process.poll() is not None:
            raise PermanentError(
                f"the daemon ended by itself with exit code {self._process.returncode}"
            )
        return self.live

    def stop(self) -> None:
        """Stops it as a service manager would. Raises PermanentError if it does not end well."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise PermanentError(
                f"the daemon did not stop within {STOP_SECONDS:.0f} s of SIGTERM"
            ) from None
        self._keeper.kills(None)
        self._process = None
        if code != 0:
            raise PermanentError(f"the daemon stopped with exit code {code}")

    def close(self) -> None:
        """Ends it, well or not. Never raises; safe to call after `stop`."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._keeper.kills(None)

    def last_words(self, lines: int = 12) -> list[str]:
        """The end of its log."""
        said = self._log.read_text(errors="replace") if self._log.exists() else ""
        return said.splitlines()[-lines:]
