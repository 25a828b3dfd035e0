"""An applier in a process of its own, to be killed: `python -m tests.applier_process WHAT URL`.

`hold` takes the sync's lock, says so and waits; `apply` and `copy` write one row each, from the
checkpoint on, and die where CDC_FAULT says.
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import cast

from appliers.checkpoint import TableState
from tests.applier_bed import TABLE, A, B, Bed, C, Target, position


def main(what: str, url: str) -> None:
    bed = Bed(cast("Target", SimpleNamespace(url=url)))
    applier = bed.open("the other process, pid 4711")
    if what == "hold":
        print("held", flush=True)
        time.sleep(60)
        return
    applier.prepare(bed.log)
    applier.prepare(bed.copied)
    if what == "apply":
        bed.apply(applier, [bed.insert(A), bed.insert(B)], None)
        bed.apply(applier, [bed.insert(C)], 1)
    else:
        with applier.state.transaction():
            applier.state.plan(TableState(TABLE), ["all"])
        applier.copy(bed.chunk(0, [A, B, C]), position(1))
    print("returned", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
