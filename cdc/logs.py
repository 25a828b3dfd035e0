"""Logs: one line per event on standard error, made for the journal and for people alike.

    2026-01-31T12:00:00.123Z INFO finance snapshot-done tables=3 rows=500000
    <6>finance snapshot-done tables=3 rows=500000                  (the same in the journal)

A module says `log = logging.getLogger(__name__)` and then

    event(log, "snapshot-done", tables=3, rows=500000)             # INFO
    event(log, "source-lost", logging.WARNING, error=text, hint=hint)

`configure(sync)` is called once per process. A field named `sync` overrides the third column.

No line ever holds a row's values or a password: the text of an exception is told only where it is
known to be clean (`SyncError`, the operating system's own message, names in programs); of any other
exception only its type and the frames, because databases put keys and values into theirs. For the
same reason the lines of other libraries' loggers come without their arguments.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from appliers.errors import SyncError

if TYPE_CHECKING:
    from types import TracebackType

_OURS = ("cdc", "appliers", "__main__")
_ABOUT_CODE = (ImportError, NameError, AttributeError)
"""What Python says in these are names in programs, never values."""
_PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


def configure(sync: str | None = None, level: int = logging.INFO) -> None:
    """Sends every event of this process to standard error, uncaught exceptions included."""
    out = logging.StreamHandler(sys.stderr)
    out.setFormatter(Lines(sync or "-", journal=_to_journal()))
    root = logging.getLogger()
    root.handlers[:] = [out]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def event(
    log: logging.Logger,
    name: str,
    /,
    level: int = logging.INFO,
    exc_info: bool = False,
    **fields: object,
) -> None:
    """Logs one event. `name` is a few words joined by hyphens; the values may be anything with a
    `str` that fits one line (others are quoted as JSON). `exc_info` adds the exception at hand."""
    if log.isEnabledFor(level):
        log.log(level, name, extra={"fields": fields}, exc_info=exc_info)


def describe(error: BaseException) -> str:
    """What may be told of an exception in a log line or in status."""
    if isinstance(error, SyncError):
        return str(error)
    if isinstance(error, _ABOUT_CODE):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__


class Lines(logging.Formatter):
    """Formats a record as one line."""

    def __init__(self, sync: str, *, journal: bool) -> None:
        super().__init__()
        self._sync = sync
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = dict(getattr(record, "fields", {}))
        if record.name.partition(".")[0] in _OURS:
            name = record.getMessage()
        else:
            name, fields = "library", {"logger": record.name, "message": record.msg}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = _frames(record.exc_info[1])
        sync = fields.pop("sync", self._sync)
        words = [str(sync), _quoted(name), *(f"{k}={_quoted(v)}" for k, v in fields.items())]
        if self._journal:
            return f"<{_PRIORITY.get(record.levelname, 6)}>" + " ".join(words)
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{at}.{int(record.msecs):03d}Z {record.levelname} " + " ".join(words)


def _quoted(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if text and text.isprintable() and not any(c in ' "=' for c in text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _frames(error: BaseException) -> str:
    """The exception and what caused it, innermost first: `Type: text at file:line function < …`."""
    told: list[str] = []
    at: BaseException | None = error
    while at is not None and len(told) < 5:
        trace = traceback.extract_tb(at.__traceback__)
        frames = [f for f in trace if not f.filename.startswith("<frozen")][-8:]
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
        told.append(f"{describe(at)} at {where}" if where else describe(at))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "; because of ".join(told)


def _to_journal() -> bool:
    """Whether standard error is the journal itself: $JOURNAL_STREAM is inherited, also by processes
    whose standard error somebody has sent elsewhere, so it names device and inode to compare."""
    try:
        at = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{at.st_dev}:{at.st_ino}"


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("cdc").critical(
        "crashed", exc_info=(kind, error, trace), extra={"fields": {}}
    )


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
