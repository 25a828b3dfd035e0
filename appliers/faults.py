"""Named points at which a test can have the process killed.

`CDC_FAULT=rows-written:3` kills the process with SIGKILL the third time it passes `rows-written`;
`rows-written:*` draws whether to at each pass. Passed once a batch, never once a row.
"""

from __future__ import annotations

import os
import random
import signal
from typing import Final

POINTS: Final = (
    "batch-taken",
    "rows-written",
    "commit-sent",
    "commit-acknowledged",
    "position-confirmed",
    "chunk-written",
    "chunk-committed",
)

_name, _, _count = os.environ.get("CDC_FAULT", "").partition(":")
_left = int(_count) if _count.isdigit() else 1


def point(name: str) -> None:
    """Dies here if CDC_FAULT says so."""
    global _left  # noqa: PLW0603 - one countdown per process is the point
    if name != _name:
        return
    _left -= 1
    if _left == 0 if _count != "*" else random.random() < 0.05:  # noqa: S311
        os.kill(os.getpid(), signal.SIGKILL)
