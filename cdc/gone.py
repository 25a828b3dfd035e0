"""Tables that the target has lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from appliers.applier import Applier
from appliers.checkpoint import Copy, TableState
from appliers.relation import Relation


def gone(
    applier: Applier, known: Mapping[str, TableState], relations: Iterable[Relation]
) -> list[str]:
    """Names of the tables that the sync has copied, or begun to, and that somebody has dropped or
    renamed on the target. What is made in their place is empty: only a new copy makes them whole. `known` is what
    the sync's state has."""
    return [
        r.table
        for r in relations
        if r.table in known and known[r.table].copy is not Copy.PENDING and not applier.has_table(r)
    ]
