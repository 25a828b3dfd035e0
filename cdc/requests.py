"""What users ask of a sync for the target's copies, turned into plans."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from appliers.checkpoint import Request, TableState
from appliers.errors import PermanentError
from appliers.relation import Relation
from appliers.state import State
from cdc.logs import event
from cdc.sources.source import Source

log = logging.getLogger(__name__)


def fulfil(
    request: Request, source: Source, state: State, relations: Mapping[str, Relation]
) -> None:
    """Plans what a request asks for, and strikes it off, in one transaction: a kill leaves either the
    request or its plan. One that cannot be done is struck off and told, and stops nothing."""
    tables = _tables(request, relations)
    bounds: dict[str, str] = {}
    try:
        if request.customer is not None:
            for table in tables:
                bounds[table] = source.customer_bounds(relations[table], request.customer)
    except PermanentError as e:
        event(log, "request-refused", logging.WARNING, error=str(e))
        tables = []
    with state.transaction():
        for table in tables:
            if request.customer is None:
                state.put_table(TableState(table, sweep=True))
            else:
                state.add_chunk(table, bounds[table])
        state.fulfilled(request.id)
    if tables:
        what = "customer" if request.customer else "table"
        event(log, "copy-requested", tables=",".join(tables), of=what)


def is_full(request: Request) -> bool:
    """Whether it asks for a copy of everything."""
    return request.table is None and request.customer is None


def _tables(request: Request, relations: Mapping[str, Relation]) -> list[str]:
    wanted = [
        table
        for table, relation in relations.items()
        if request.table in (None, table, relation.name)
        and (request.customer is None or relation.customer_columns)
    ]
    if not wanted:
        event(log, "request-ignored", logging.WARNING, table=request.table or "*")
    return wanted
