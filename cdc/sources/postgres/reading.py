"""Single rows of a PostgreSQL source read again, and the ends of its log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import pq, sql

from appliers.batch import Reread
from appliers.delta import Commit
from appliers.errors import PermanentError, TransientError
from appliers.images import Format, copy_binary_row, copy_text_line
from appliers.relation import Relation
from cdc.sources.postgres.connection import Connection, translating
from cdc.sources.postgres.lsn import Lsn

VISIBLE_WITHIN: Final = 60.0
PAGE_HEADER: Final = 24
LONG_PAGE_HEADER: Final = 40
"""Bytes of a log page's header; the first page of a segment has the long one (xlog_internal.h)."""

_EQUALITY = """
    SELECT DISTINCT ON (a.attname) a.attname, n.nspname, o.oprname, format_type(a.atttypid, -1)
    FROM pg_index AS i
    CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) AS k(attnum, class)
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    JOIN pg_opclass AS c ON c.oid = k.class
    JOIN pg_amop AS s ON s.amopfamily = c.opcfamily AND s.amopstrategy = 3
     AND s.amoplefttype = c.opcintype AND s.amoprighttype = c.opcintype
    JOIN pg_operator AS o ON o.oid = s.amopopr
    JOIN pg_namespace AS n ON n.oid = o.oprnamespace
    JOIN pg_am AS m ON m.oid = c.opcmethod AND m.amname = 'btree'
    WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid ORDER BY a.attname, i.indexrelid"""
"""The `=` of the unique indexes' operator classes: types of extensions have theirs in a schema that
is not on our search path. And the columns' types as they are now, without modifiers, which would cut
a value to their length."""


def reread(
    db: Connection, relation: Relation, wanted: Relation, keys: Sequence[bytes], commit: Commit
) -> Reread:
    """The rows with the keys in `keys` (images of `relation`) as they are once `commit` is visible,
    as images of `wanted`: the table as it is now. A row that is gone is left out."""
    _wait_visible(db, commit.transaction)
    binary = int(relation.format.binary)
    with translating():
        statement = _select(db, relation, wanted)
    to_image = copy_binary_row if wanted.format is Format.COPY_BINARY else copy_text_line
    images = []
    for key in dict.fromkeys(relation.key(k) for k in keys):
        result = db.pgconn.exec_params(
            statement,
            key,
            param_formats=[binary] * len(key),
            result_format=int(wanted.format.binary),
        )
        if result.status != pq.ExecStatus.TUPLES_OK:
            with translating():
                raise psycopg.errors.error_from_result(result)
        images += [
            to_image([result.get_value(row, i) for i in range(result.nfields)])
            for row in range(result.ntuples)
        ]
    return Reread(wanted, images, str(head(db, "insert")))


def _select(db: Connection, relation: Relation, wanted: Relation) -> bytes:
    """Keys in binary are cast to the types that they were written with, which the table's may not be
    any more; in text, to what the columns are now: by itself the server would read what is compared
    with a row type as a record, with a regclass as an oid."""
    found = db.execute(_EQUALITY, (relation.ident,)).fetchall()
    operators = {
        name: sql.SQL("OPERATOR({}.").format(sql.Identifier(schema)) + sql.SQL(operator + ")")
        for name, schema, operator, _ in found
    }
    types = {name: declared for name, _, _, declared in found}
    conditions = []
    for number, index in enumerate(relation.key_columns, 1):
        column = relation.columns[index]
        declared = column.type if relation.format.binary else types.get(column.name)
        value = f"${number}" + (f"::{declared}" if declared else "")
        conditions.append(
            sql.SQL("{} {} {}").format(
                sql.Identifier(column.name),
                operators.get(column.name, sql.SQL("=")),
                sql.SQL(value),
            )
        )
    kind = db.execute(
        "SELECT relkind::text FROM pg_class WHERE oid = %s", (relation.ident,)
    ).fetchone()
    table = sql.Identifier(wanted.schema, wanted.name)
    return (
        sql.SQL("SELECT {} FROM {}{} WHERE {}")
        .format(
            sql.SQL(", ").join(sql.Identifier(c.name) for c in wanted.columns),
            sql.SQL("" if kind == ("p",) else "ONLY "),
            table,
            sql.SQL(" AND ").join(conditions),
        )
        .as_bytes(db)
    )


def head(db: Connection, kind: str) -> Lsn:
    """The end of the log: `flush` is what the walsender may send, `insert` what was written.

    Between two pages, `insert` stands behind the header of the next one and `flush` before it, where
    the stream will be: we say the latter of both."""
    with translating():
        row = db.execute(
            "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
            f" ELSE pg_current_wal_{kind}_lsn() END)::text, current_setting('wal_block_size')::bigint,"
            " (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size')"
        ).fetchone()
    if row is None or row[0] is None:
        raise PermanentError(
            "source: the server tells no log position", "check that it is a primary"
        )
    position, page, segment = Lsn.parse(row[0]), row[1], row[2]
    header = LONG_PAGE_HEADER if position % segment < page else PAGE_HEADER
    return Lsn(position - header) if position % page == header else position


def _wait_visible(db: Connection, transaction: int) -> None:
    """A commit is in the log before other sessions see it; it is seen within moments."""
    until = time.monotonic() + VISIBLE_WITHIN
    while True:
        with translating():
            row = db.execute(
                "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::numeric"
            ).fetchone()
            next_one = int(row[0]) if row else 0
            row = db.execute(
                "SELECT pg_visible_in_snapshot(%s::text::xid8, pg_current_snapshot())",
                (str(full_transaction(transaction, next_one)),),
            ).fetchone()
        if row and row[0]:
            return
        if time.monotonic() > until:
            raise TransientError(
                f"source: transaction {transaction} is not visible after {VISIBLE_WITHIN:.0f} s"
            )
        time.sleep(0.001)


def full_transaction(transaction: int, near: int) -> int:
    """The 64-bit number of a transaction of which the log has 32 bits: the one nearest to `near`,
    which may be a little behind, because the last ones to begin are not in it."""
    full = near - near % 2**32 + transaction
    if full - near > 2**31:
        full -= 2**32
    elif near - full > 2**31:
        full += 2**32
    return max(full, 0)


__all__: list[Any] = ["full_transaction", "head", "reread"]
