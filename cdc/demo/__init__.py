"""The demo: everything on this machine, no configuration. Nothing here is part of the daemon."""

from __future__ import annotations


def run(seconds: int, target: str | None) -> int:
    """Plays the demo with `seconds` of changes, into a SQLite file or the database at `target`.

    Returns 0 if source and target are equal, row by row, else 1 after saying which rows are not.
    Raises SyncError for what keeps it from being played. Leaves nothing behind but, in a target that
    was named, the copied tables and what the sync keeps there; it never touches tables that an
    earlier demo has not made.
    """
    # The tests take only the server from this package.
    from cdc.demo.play import play  # noqa: PLC0415

    return play(seconds, target)
