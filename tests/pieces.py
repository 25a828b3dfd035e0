"""What a stream gives, row by row."""

from __future__ import annotations

from appliers.delta import Op
from cdc.sources.source import Change, Piece


def changes_in(piece: Piece) -> list[Change]:
    """One for every row, of runs too."""
    changes: list[Change] = []
    for op, relation, before, after, commit, ordinal in piece.runs:
        if isinstance(after, list):
            changes += [
                (Op.INSERT, relation, None, row, commit, number)
                for number, row in enumerate(after, ordinal)
            ]
        else:
            changes.append((op, relation, before, after, commit, ordinal))
    return changes
