"""What a session is run for, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Ending(Enum):
    """Why a session ended without an error."""

    STOPPED = "stopped"
    PAUSED = "paused"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Goal:
    """When a session is done by itself."""

    until_current: bool = False
    """Once everything committed on the source at its start is on the target."""
    copy_only: bool = False
    """Once every table's copy is exact."""
