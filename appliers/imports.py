"""Imports when they are needed: a sync's process has its own two databases' modules, and no others'."""

from __future__ import annotations

from importlib import import_module
from threading import Lock
from typing import Final

_IMPORTING: Final = Lock()


def imported(what: str) -> object:
    """`module:name`. One thread after the other: of two that import the same package at once, in which
    modules import each other, one may get a half of it (seen with PyMySQL: importlib breaks the lock's
    deadlock so)."""
    module, _, name = what.partition(":")
    with _IMPORTING:
        return getattr(import_module(module), name)
