"""What a stream gives, row by row."""

from __future__ import annotations

from appliers.delta import Delta, each
from cdc.sources.source import Piece


def changes_in(piece: Piece) -> list[Delta]:
    """One for every row, of runs too."""
    return list(each(piece.deltas))
