"""The command `cdc`: arguments, words and exit codes around what the rest of the package does.

Data goes to standard output, talk to standard error. Exit codes: 0 done and healthy, 1 failed or not
healthy, 2 usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from appliers.errors import SyncError
from cdc.cli.app import Usage, app
from cdc.cli.usage import explain
from cdc.cli.words import fail


def main() -> None:
    """The entry point of the command."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # A shell's `>&-` closes one: Python has None in its place, and the daemon would have a file of its own.
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode)  # noqa: SIM115 - for as long as we run
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command; gives its exit code. What a user is meant to read never comes as a traceback."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A name that a terminal cannot show is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(args=list(arguments), prog_name="cdc", standalone_mode=False)
        sys.stdout.flush()
    except Usage as e:
        explain(e, arguments, {c.callback.__name__ for c in app.registered_commands if c.callback})
        return 2
    except SyncError as e:
        fail(str(e), e.hint)
        return getattr(e, "exit_code", 1)
    except KeyboardInterrupt:
        return 130
    except OSError as e:
        # Whoever read our output has seen enough, or a disk is full.
        if not isinstance(e, BrokenPipeError):
            fail(f"{e.filename}: {e.strerror}" if e.filename else str(e.strerror or e))
        # Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return int(code or 0)
