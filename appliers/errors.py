"""What can go wrong, by what is to be done about it.

Every error carries `hint`: one sentence of what to try, or "" where there is nothing to try. Neither
text ever holds a row's values or a password.
"""

from __future__ import annotations


class SyncError(Exception):
    """The base of all errors that a user is meant to read."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TransientError(SyncError):
    """May pass by itself: the sync starts again from its checkpoint, for as long as it takes."""


class PermanentError(SyncError):
    """Passes only when somebody changes something: the sync stops in state `failed`."""


class OrderError(PermanentError):
    """Rows refer to rows that are not there, or not yet: while a table is copied, those may come with
    another chunk. `constraint` is the foreign key's name."""

    may_come = True
    """False where the rows that are missed are of a table that is no part of the sync."""

    def __init__(self, message: str, hint: str = "", constraint: str = "") -> None:
        super().__init__(message, hint)
        self.constraint = constraint


class LockedError(PermanentError):
    """Another daemon runs this sync; the message names it. `holder` is the name alone, as far as the
    target keeps it: a process may meet its own, while the target has not noticed a connection's end."""

    def __init__(self, message: str, hint: str = "", holder: str = "") -> None:
        super().__init__(message, hint)
        self.holder = holder


class FencedError(PermanentError):
    """The checkpoint was moved by somebody else: nothing was written."""


class TableGoneError(TransientError):
    """A table that the sync has copied is not on the target any more. Made again it would be empty, and
    look as if it were whole: the next session plans a new copy of it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "it is made again and copied; `cdc status` shows how far it is")


class FormatError(TransientError):
    """A table's shape has changed so that its images cannot be taken in this encoding any more: the
    session begins again and asks the applier which encoding it wants."""
