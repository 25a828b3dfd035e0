"""What a stream gives, row by row."""

from __future__ import annotations

from appliers.delta import each
from cdc.deltas import Deriver
from cdc.sources.source import Change, Piece


def changes_in(piece: Piece) -> list[Change]:
    """One for every row, of runs too."""
    return list(each(Deriver(None).deltas(piece)))
