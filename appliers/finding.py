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


def of_acting_key(subject: str, name: str, child: str, dialect: str, instead: str) -> Finding:
    """Of a foreign key on the target that deletes or changes rows of `child` by itself; `dialect` is the
    source's, `instead` what the key should be. Some MySQL sources do not log what theirs do: the source's
    own check says so, and leaves it to the target's."""
    does = f"foreign key {name} deletes or changes rows of {child} by itself"
    if dialect == "mysql":
        return Finding(
            "warn",
            subject,
            f"{does}: right only where the source's does the same and its log does not have it",
            f"leave it if the source's foreign key is warned of above; else make it {instead} on the target",
        )
    return Finding(
        "warn",
        subject,
        f"{does}, beside the source's own changes",
        f"make it {instead} on the target: the source's changes of {child} come by themselves",
    )
