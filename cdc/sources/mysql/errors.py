"""What the log can hold that is no row."""

from __future__ import annotations

from appliers.errors import PermanentError


class ProtocolError(PermanentError):
    """Bytes of the log that are not what the protocol says, or that this program does not read.

    Nothing of them is guessed and nothing is left out: the sync stops. The message says what was
    expected and what was found, never a row's value; `hint` says what to try where there is
    something to try.
    """
