"""Single rows of a MySQL or MariaDB source read again."""

from __future__ import annotations

from collections.abc import Sequence

from appliers.batch import Reread
from appliers.errors import PermanentError
from appliers.relation import Key, Relation
from cdc.sources.mysql import keys, printing, results
from cdc.sources.mysql.catalog import Field, Table
from cdc.sources.mysql.connection import Connection, one, translating
from cdc.sources.mysql.position import BinlogPosition

MOST_KEYS = 500
"""Keys of one statement."""


def reread(
    db: Connection,
    relation: Relation,
    wanted: Relation,
    table: Table,
    images: Sequence[bytes],
    position: BinlogPosition,
) -> Reread:
    """The rows with the keys in `images` (of `relation`) as images of `wanted`, the table as it is
    now, under the snapshot that is open, which `position` covers. A row that is gone is left out."""
    fields = [table.field_of(n) for n in relation.key_names]
    (most,) = one(db, "SELECT @@SESSION.max_allowed_packet")
    lines = printing.lines_of(table.fields, None, min(int(most), printing.MOST_JOINED))
    found: list[bytes] = []
    wanted_keys = list(dict.fromkeys(relation.key(i) for i in images))
    for start in range(0, len(wanted_keys), MOST_KEYS):
        try:
            condition = keys.rows_with(fields, wanted_keys[start : start + MOST_KEYS])
        except keys.BadKeyError as e:
            raise PermanentError(
                f"table {relation.table} has another type of column {e} than its older changes: rows that"
                " these leave incomplete cannot be read again",
                "`cdc drop` the sync and start it anew",
            ) from e
        statement = f"SELECT {lines.selected} FROM {table.quoted} WHERE {condition}"
        with translating():
            for block in results.packets(db, statement):
                found += lines.read(block, table.table)
    if wanted.key_names == relation.key_names:
        found = _spelled_alike(fields, wanted, found, wanted_keys)
    return Reread(wanted, found, str(position))


def _spelled_alike(
    fields: Sequence[Field], wanted: Relation, found: list[bytes], asked: Sequence[Key]
) -> list[bytes]:
    """Without the rows whose keys are equal to the asked ones for the source, but are written
    otherwise (`Ab`, `ab`): the row was written anew since, its own change is still to come, and to
    every target these are two keys."""
    known = set(asked)
    rest = [i for i, field in enumerate(fields) if field.base not in printing.TEXTS]
    others = {tuple(key[i] for i in rest) for key in asked}

    def alike(image: bytes) -> bool:
        key = wanted.key(image)
        # A number whose type was changed since may be printed otherwise.
        return key in known or tuple(key[i] for i in rest) not in others

    return [image for image in found if alike(image)]
