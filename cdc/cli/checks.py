"""`cdc check` on a terminal or in a pipe: one line for each finding."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from cdc.check import check
from cdc.cli.words import fail, painted, say
from cdc.config import Config

_COLORS = {"ok": "green", "warn": "yellow", "FAILED": "red"}


def run(config: Config, syncs: Sequence[str]) -> int:
    """Prints findings as they are made; exit code 1 if one FAILED."""
    count: Counter[str] = Counter()
    for name in syncs:
        for where, finding in check(config, config.syncs[name]):
            count[finding.level] += 1
            level = painted(f"{finding.level:<6}", _COLORS[finding.level])
            line = f"{level} {name}, {where}: {finding.subject}: {finding.message}"
            if finding.remedy:
                line += f" - try: {finding.remedy}"
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    say(", ".join(f"{count[level]} {level}" for level in _COLORS))
    if not count["FAILED"]:
        return 0
    fail(
        f"{count['FAILED']} of {count.total()} checks FAILED",
        "do what stands behind each FAILED line",
    )
    return 1
