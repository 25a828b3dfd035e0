"""Relations for the shapes that pgoutput announces, which may be older than the catalogue's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from appliers.errors import PermanentError, TransientError
from appliers.images import Format
from appliers.relation import Relation
from cdc.logs import event
from cdc.sources.postgres.catalog import ADD_KEY, relation_now
from cdc.sources.postgres.connection import Connection, translating
from cdc.sources.postgres.pgoutput import Shape
from cdc.sources.postgres.types import TypeCatalog

log = logging.getLogger(__name__)


class RelationMaker:
    """Makes the relation of each Relation message. The backlog is decoded with the shape that it was
    written with: columns, types and key come from the message; the catalogue only says what a type's
    number is called, and it is asked only for what is not known yet. Changes of a table that the session
    knows go to it, whatever it was called when they were made."""

    def __init__(
        self, known: Sequence[Relation], format: Format, connect: Callable[[], Connection]
    ) -> None:
        self._known = {r.ident: r for r in known}
        self._format = format
        self._connect = connect
        self._types = TypeCatalog()

    def relation(self, shape: Shape) -> Relation:
        """Without a key for a table that was dropped, where the log does not say what it was."""
        session = known = self._known.get(shape.oid)
        schema, name = shape.schema, shape.name
        if session is not None and (schema, name) != (session.schema, session.name):
            self._require_name(session)
            schema, name = session.schema, session.name
        if self._types.lacks(shape.fields) or shape.identity == "f":
            with self._connect() as db:
                self._types.load(db, shape.fields)
                if shape.identity == "f":
                    # The log does not say what the key is, and the session's may be gone.
                    known = relation_now(db, self._types, shape.oid) or known
        columns = self._types.columns(shape.fields, [True] * len(shape.fields))
        made = Relation(
            schema=schema,
            name=name,
            columns=columns,
            key_columns=self._key(shape, known),
            format=self._format,
            whole_before=shape.identity == "f",
            ident=shape.oid,
        )
        if known is not None and [c.name for c in known.columns] == [c.name for c in columns]:
            nullable = {c.name: c.nullable for c in known.columns}
            made = replace(
                made, columns=tuple(replace(c, nullable=nullable[c.name]) for c in columns)
            )
        return made

    def _require_name(self, known: Relation) -> None:
        """Raises TransientError if the table has another name now than when the session began. Not if it
        only had one in between, as in a transaction that renames it and back, or is gone."""
        now = self._name_now(known.ident)
        if now is not None and now != (known.schema, known.name):
            raise TransientError(
                f"source: table {known.table} is called {'.'.join(now)} now",
                "the sync begins again with the tables that are there",
            )

    def _name_now(self, oid: int) -> tuple[str, str] | None:
        """What a table is called; None: it was dropped."""
        with self._connect() as db, translating():
            row = db.execute(
                "SELECT n.nspname, c.relname FROM pg_class AS c"
                " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = %s",
                (oid,),
            ).fetchone()
        return None if row is None else (row[0], row[1])

    def _key(self, shape: Shape, known: Relation | None) -> tuple[int, ...]:
        """With FULL every column is marked: the catalogue's key counts. Else the marked ones, in the
        catalogue's order where it names the same. Where none is marked, the table had no identity
        then, so that it had inserts only: the key that it has now tells their rows apart too. Empty for a
        table that was dropped, and its key with it: nobody can tell its rows apart any more."""
        marked = [f.name for f in shape.fields if f.identity]
        names = list(known.key_names) if known is not None else []
        if marked and shape.identity != "f" and set(names) != set(marked):
            names = marked
        at = {f.name: i for i, f in enumerate(shape.fields)}
        if not names or not set(names) <= set(at):
            if self._name_now(shape.oid) is None:
                name = f"{shape.schema}.{shape.name}"
                event(log, "dropped-table-left-out", logging.WARNING, table=name)
                return ()
            table = f'"{shape.schema}"."{shape.name}"'
            raise PermanentError(
                f"table {shape.schema}.{shape.name} has lost its key: no row can be told from another",
                ADD_KEY.format(table),
            )
        return tuple(at[n] for n in names)
