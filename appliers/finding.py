"""What a preflight check finds: one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "FAILED"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked thing. `remedy` is what to do about it: a statement or a setting, "" for ok."""

    level: Level
    subject: str
    message: str
    remedy: str = ""
