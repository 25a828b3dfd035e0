"""What the commands say on standard error."""

from __future__ import annotations

import os
import sys


def fail(message: str, hint: str = "") -> None:
    """Says what is wrong, line by line, and what to try."""
    for line in message.splitlines():
        say(f"Error: {line}")
    if hint:
        say(f"Try: {hint}")


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def ask(question: str) -> bool:
    """Whether the answer on the terminal is yes."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


_ANSI = {"red": 31, "green": 32, "yellow": 33, "dim": 2, "bold": 1}


def painted(text: str, color: str | None) -> str:
    """Text for standard output, in a colour where that is a terminal that wants one."""
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return text if plain or color is None else f"\x1b[{_ANSI[color]}m{text}\x1b[0m"
