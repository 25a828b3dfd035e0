"""The tables of a CRM that the workload writes: what a sync finds at its start."""

from __future__ import annotations

from typing import Any, Final

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

IDS: Final = 300
"""Writers share so few customers that they often meet."""

SCHEMA: Final = """
CREATE TABLE customers (
    id bigint PRIMARY KEY, email text NOT NULL UNIQUE, rank int UNIQUE DEFERRABLE INITIALLY IMMEDIATE,
    name text, notes text, balance numeric(12, 2), active boolean, changed_at timestamptz);
ALTER TABLE customers ALTER COLUMN notes SET STORAGE EXTERNAL;
CREATE TABLE contacts (
    id bigint PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE,
    kind text, value text, vcard text);
ALTER TABLE contacts ALTER COLUMN vcard SET STORAGE EXTERNAL;
ALTER TABLE contacts REPLICA IDENTITY FULL;
CREATE TABLE addresses (
    id bigint PRIMARY KEY, customer_id bigint NOT NULL, kind text NOT NULL, street text, plan bytea);
ALTER TABLE addresses ALTER COLUMN plan SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX addresses_of ON addresses (customer_id, kind);
ALTER TABLE addresses REPLICA IDENTITY USING INDEX addresses_of;
CREATE TABLE activities (id bigint PRIMARY KEY, customer_id bigint, what text, detail jsonb);
CREATE TABLE events (id bigserial PRIMARY KEY, writer int NOT NULL, body text);
CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE drafts (id bigint PRIMARY KEY, body text);
CREATE TABLE draft_parts (id bigint PRIMARY KEY, draft_id bigint, body text);
CREATE TABLE markers (id bigint PRIMARY KEY);
INSERT INTO counters VALUES (1, 0);
"""
"""Every kind of replica identity, values out of line, a deferrable and an immediate unique column,
foreign keys that cascade, an append-only table (`events`) and one hot row (`counters`)."""

TABLES: Final = (
    "customers",
    "contacts",
    "addresses",
    "activities",
    "events",
    "counters",
    "drafts",
    "draft_parts",
    "markers",
)


def fill(connection: Connection, customers: int = IDS) -> None:
    """The rows that a sync finds at its start."""
    connection.execute(
        "INSERT INTO customers SELECT g, 'c' || g || '@example.com', g, 'name ' || g, repeat('n' || g, 900),"
        " g * 1.5, g %% 2 = 0, '2026-01-31 12:00:00.123456+00' FROM generate_series(1, %s) g",
        [customers],
    )
    connection.execute(
        "INSERT INTO contacts SELECT g, g, 'mail', 'v' || g, repeat('c' || g, 900)"
        " FROM generate_series(1, %s, 2) g",
        [customers],
    )
    connection.execute(
        "INSERT INTO addresses SELECT g, g, 'home', 's' || g, decode(repeat('00ff', 2000), 'hex')"
        " FROM generate_series(1, %s, 2) g",
        [customers],
    )
    connection.execute(
        "INSERT INTO activities SELECT g, g, 'call', '{\"n\": [1, null]}' FROM generate_series(1, %s) g",
        [customers],
    )
    connection.execute(
        "INSERT INTO events (writer, body) SELECT 0, 'e' || g FROM generate_series(1, %s) g",
        [customers],
    )


def large_transaction(connection: Connection, rows: int) -> None:
    """One transaction of `rows` rows: inserts into the append-only table, updates and deletes elsewhere."""
    with connection.transaction():
        third = rows // 3
        connection.execute(
            "INSERT INTO events (writer, body) SELECT 0, 'large ' || g FROM generate_series(1, %s) g",
            [rows - 2 * third],
        )
        connection.execute(
            "INSERT INTO activities SELECT 1000000 + g, g, 'large', NULL FROM generate_series(1, %s) g"
            " ON CONFLICT (id) DO UPDATE SET what = activities.what || '+'",
            [third],
        )
        connection.execute(
            "UPDATE activities SET detail = '[true]' WHERE id > 1000000 AND id <= 1000000 + %s",
            [third],
        )
