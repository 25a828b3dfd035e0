"""A worker without databases, for what the daemon does with workers. Run as a process, as they are.

Does what the file `SYNC.does` beside the configuration says, and looks again ten times a second:
a state's name (it is told, and the beat goes on), `stall` (the beat stands), `crash`, `fail`,
`done`, `deaf` (streams, and does not hear SIGTERM). Each start adds a line to `SYNC.starts`.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from cdc.logs import configure
from cdc.runtime import Live, Runtime

REASON = "the target has no table public.customers"


def main(config: Path, sync: str, flags: list[str]) -> int:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with config.with_name(f"{sync}.starts").open("a") as starts:
        starts.write(f"{os.getpid()} {' '.join(flags)}\n")
    runtime = Runtime(config, sync)
    runtime.lock(f"stand-in {os.getpid()}")
    live = Live(sync, pid=os.getpid(), daemon_pid=os.getppid())
    while not stop.is_set():
        does = config.with_name(f"{sync}.does").read_text().strip()
        match does:
            case "crash":
                runtime.publish(live)
                time.sleep(0.2)
                live.position = "0/1"
                runtime.publish(live)
                return 3
            case "fail":
                live.state, live.error, live.hint = "failed", REASON, "create it"
                runtime.publish(live)
                return 1
            case "done":
                return 0
            case "stall":
                pass
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                live.state = "streaming"
            case state:
                live.state = state  # type: ignore[assignment]
        live.beat += does != "stall"
        runtime.publish(live)
        time.sleep(0.1)
    return 0


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    configure(sys.argv[2])
    code = main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    sys.exit(code)
