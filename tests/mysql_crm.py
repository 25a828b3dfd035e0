"""The tables of a CRM on MariaDB or MySQL that the workload writes, and the same for every target."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import pymysql
from pymysql.cursors import Cursor

from tests.mysql_programs import Flavour

Connection: TypeAlias = "pymysql.Connection[Cursor]"

IDS: Final = 300
"""Writers share so few customers that they often meet."""

_TABLES: Final = """
CREATE TABLE customers (
    id {uint} NOT NULL PRIMARY KEY, email {exact} NOT NULL UNIQUE, place {int} UNIQUE, name {latin},
    notes {notes}, balance {money}, active {flag}, mood {mood}, labels {labels}, score {double},
    changed_at {datetime}, seen_at {timestamp});
CREATE TABLE contacts (
    id {ubig} NOT NULL PRIMARY KEY, customer_id {uint} NOT NULL, kind {exact}, value {text}, vcard {blob},
    FOREIGN KEY (customer_id) REFERENCES customers (id){acting});
CREATE TABLE addresses (
    customer_id {uint} NOT NULL, kind {folded} NOT NULL, street {text}, since {date}, plan {blob},
    PRIMARY KEY (customer_id, kind));
CREATE TABLE tags (code {folded} NOT NULL PRIMARY KEY, uses {int}, note {notes});
CREATE TABLE activities (id {big} NOT NULL PRIMARY KEY, customer_id {uint}, what {text}, detail {json});
CREATE TABLE events (id {big} NOT NULL{counted} PRIMARY KEY, writer {int} NOT NULL, body {text});
CREATE TABLE counters (id {int} NOT NULL PRIMARY KEY, n {big} NOT NULL);
CREATE TABLE drafts (id {big} NOT NULL PRIMARY KEY, body {text});
CREATE TABLE draft_parts (id {big} NOT NULL PRIMARY KEY, draft_id {big}, body {text});
CREATE TABLE markers (id {big} NOT NULL PRIMARY KEY);
"""

_MYSQL: Final = {
    "uint": "int unsigned",
    "ubig": "bigint unsigned",
    "int": "int",
    "big": "bigint",
    "exact": "varchar(120) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "folded": "varchar(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
    "latin": "varchar(60) CHARACTER SET latin1",
    "text": "varchar(200)",
    "notes": "mediumtext",
    "money": "decimal(12, 2)",
    "flag": "tinyint(1)",
    "mood": "enum('new', 'warm', 'o''cold')",
    "labels": "set('a', 'b', 'c d')",
    "double": "double",
    "datetime": "datetime(6)",
    "timestamp": "timestamp(6) NULL",
    "date": "date",
    "blob": "mediumblob",
    "json": "json",
    "counted": " AUTO_INCREMENT",
    "acting": "",
}
_POSTGRES: Final = _MYSQL | {
    "uint": "bigint",
    "ubig": "numeric(20)",
    "exact": "varchar(120)",
    "folded": "text",
    "latin": "text",
    "notes": "text",
    "flag": "smallint",
    "mood": "text",
    "labels": "text",
    "double": "double precision",
    "datetime": "timestamp(6)",
    "timestamp": "timestamptz(6)",
    "blob": "bytea",
    "counted": "",
    # Rows that take each other's unique values can only be replaced, be it for a moment.
    "acting": " DEFERRABLE",
}
_SQLITE: Final = dict.fromkeys(_MYSQL, "TEXT") | {
    "uint": "INTEGER",
    "int": "INTEGER",
    "big": "INTEGER",
    "flag": "INTEGER",
    "double": "REAL",
    "blob": "BLOB",
    "counted": "",
    "acting": "",
}

TABLES: Final = tuple(re.findall(r"CREATE TABLE (\w+)", _TABLES))


def schema(flavour: Flavour) -> str:
    """What a sync finds: keys of one and of two columns, one that does not tell upper from lower case,
    secondary unique columns, a foreign key, text of two character sets, values of every usual type,
    an append-only table (`events`) and one hot row (`counters`). Only MySQL logs what a foreign key
    does by itself, so only there it does anything."""
    acting = " ON DELETE CASCADE ON UPDATE CASCADE" if flavour == "mysql" else ""
    tables = _TABLES.format(**_MYSQL | {"acting": acting})
    return tables + "INSERT INTO counters VALUES (1, 0);"


def target_schema(kind: str) -> str:
    """The same tables for a target, with the unique and the foreign keys, which do nothing there."""
    return spelled(_TABLES, kind)


def spelled(template: str, kind: str) -> str:
    """A schema whose types stand in braces, in the words of a kind of target or of the source."""
    return template.format(**{"postgres": _POSTGRES, "sqlite": _SQLITE}.get(kind, _MYSQL))


def numbers(count: int) -> str:
    """A subquery with a column `n` from 1 to `count`, for servers that have no generate_series. A
    recursive one would ask for another limit, which each product calls by another name."""
    digits = " UNION ALL ".join(["SELECT 0 AS d", *(f"SELECT {d}" for d in range(1, 10))])
    places = max(1, len(str(count - 1)))
    sum_of = " + ".join(f"p{i}.d * {10**i}" for i in range(places))
    joined = " CROSS JOIN ".join(f"({digits}) p{i}" for i in range(places))
    return f"(SELECT 1 + {sum_of} AS n FROM {joined} HAVING n <= {count}) g"


def run(connection: Connection, *statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def fill(connection: Connection, customers: int = IDS) -> None:
    """The rows that a sync finds at its start."""
    some = numbers(customers)
    run(
        connection,
        "INSERT INTO customers SELECT n, CONCAT('c', n, '@example.com'), n, CONCAT('línea ', n),"
        " REPEAT(CONCAT('n', n), 90), n * 1.5, n % 2, 'warm', 'a,c d', n / 3,"
        f" '2026-01-31 12:00:00.123456', '2026-01-31 12:00:00.5' FROM {some}",
        "INSERT INTO contacts SELECT 18446744073709551615 - n, n, 'mail', CONCAT('v', n),"
        f" REPEAT(UNHEX('00FF0A09'), 90) FROM {some}",
        "INSERT INTO addresses SELECT n, 'home', CONCAT('s', n), '2026-01-31', UNHEX('5C4E')"
        f" FROM {some}",
        f"INSERT INTO tags SELECT CONCAT('tag', n), 0, NULL FROM {some}",
        f"""INSERT INTO activities SELECT n, n, 'call', '{{"n": [1, null]}}' FROM {some}""",
        f"INSERT INTO events (writer, body) SELECT 0, CONCAT('e', n) FROM {some}",
    )


def large_transaction(connection: Connection, rows: int) -> None:
    """One transaction of `rows` rows: inserts into the append-only table, updates and deletes elsewhere."""
    third = rows // 3
    run(
        connection,
        "BEGIN",
        "INSERT INTO events (writer, body) SELECT 0, CONCAT('large ', n)"
        f" FROM {numbers(rows - 2 * third)}",
        f"INSERT INTO activities SELECT 1000000 + n, n, 'large', NULL FROM {numbers(third)}"
        " ON DUPLICATE KEY UPDATE what = CONCAT(activities.what, '+')",
        "UPDATE activities SET detail = '[true]'"
        f" WHERE id > 1000000 AND id <= 1000000 + {third - third // 4}",
        "DELETE FROM activities"
        f" WHERE id > 1000000 + {third - third // 4} AND id <= 1000000 + {third}",
        "COMMIT",
    )
