"""What is wrong with the arguments of a command, in our words."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Final

from cdc.cli.words import fail, say

_WORDS: Final = {
    r"No such command '(.*?)'(?:\. Did you mean '(.*?)'\?)?": "no command {0}; nearest: {1}",
    r"No such option: (\S+)(?: \(Possible options: (.*)\)| Did you mean (.*)\?)?": (
        "no option {0}; nearest: {1}"
    ),
    r"Missing argument '(.*?)'": "expected {0}, found nothing",
    r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)": "expected no more arguments, found {0}",
    r"Option '(.*?)' requires an argument": "{0}: expected a value, found nothing",
    r"Option '(.*?)' does not take a value": "{0}: expected no value, found one",
    r"Invalid value for '(.*?)': Input should be a valid integer.*": "{0}: expected a whole number",
    r"Invalid value for '(.*?)': Input should be a valid number.*": "{0}: expected a number",
    r"Invalid value for '(.*?)': Input should be greater than or equal to (.*)": (
        "{0}: expected {1} or more"
    ),
}
"""What typer 0.29 says, and what we do. What is not among it is passed on as it is."""


def explain(error: Any, arguments: Sequence[str], commands: Collection[str]) -> None:
    """Says what is wrong, and whose help would tell; `cdc` alone gets the help."""
    message = str(error.format_message())
    if type(error).__name__ == "NoArgsIsHelpError":
        say(message)
        return
    if (context := getattr(error, "ctx", None)) is not None:
        path = context.command_path
    else:  # typer does not say whose option it could not read
        path = next((f"cdc {a}" for a in arguments if a in commands), "cdc")
    fail(_ours(message.rstrip(".")), f"{path} --help")


def _ours(message: str) -> str:
    for pattern, words in _WORDS.items():
        if found := re.fullmatch(pattern, message):
            given = [part for part in found.groups() if part is not None]
            return (words if len(given) > 1 else words.partition("; nearest")[0]).format(*given)
    return message
