"""A CRM that never rests: seeded random transactions on a source, from several connections at once.

Each writer draws from a generator of its own, so a seed replays what every writer asks for; how the
writers interleave is the server's business, as it is in life.
"""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from typing import Final, Self

import psycopg

from tests.crm import IDS, Connection

WORDS: Final = ("north", "o'hara", "tab\there", "back\\slash", "línea", "日本", "", "NULL", "\\N")

# What an application has to expect of its database. Everything else is a fault of the workload.
EXPECTED: Final = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.ForeignKeyViolation,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)


class Workload:
    """Runs writers until `stop`, or the end of the `with`, which raises what a writer has met."""

    def __init__(
        self, url: str, seed: int, *, writers: int = 2, slow: int = 1, pace: float = 0.012
    ) -> None:
        self._stop = threading.Event()
        self._writers = [
            Writer(url, seed, number, self._stop, pace=pace, patience=0.0)
            for number in range(1, writers + 1)
        ] + [
            Writer(url, seed, number, self._stop, pace=0.05, patience=0.3)
            for number in range(writers + 1, writers + slow + 1)
        ]

    def __enter__(self) -> Self:
        for writer in self._writers:
            writer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop(failing=kind is not None)

    def truncate_too(self) -> None:
        """From now on. Not while the sync's slot is being made: PostgreSQL (15.18 and 18.6) can make one
        that will never decode a TRUNCATE that was under way ("could not map filenumber … to relation
        OID", in 4 of 30 tries with no client but psql's)."""
        for writer in self._writers:
            writer.truncates = True

    @property
    def commits(self) -> int:
        return sum(w.commits for w in self._writers)

    def stop(self, *, failing: bool = False) -> None:
        """Every writer ends its transaction; raises the first error that none of them expected."""
        self._stop.set()
        for writer in self._writers:
            writer.join(30)
        for writer in self._writers:
            if writer.error is not None and not failing:
                raise writer.error


class Writer(threading.Thread):
    """One connection's transactions. A patient one holds each of them open for about `patience`
    seconds, on customers of its own, while the others commit."""

    def __init__(
        self,
        url: str,
        seed: int,
        number: int,
        stop: threading.Event,
        *,
        pace: float,
        patience: float,
    ) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self.commits = 0
        self.error: BaseException | None = None
        self._url = url
        self._number = number
        self._random = random.Random(f"{seed}/{number}")
        self._end = stop
        self._pace = pace
        self._patience = patience
        self._first = number * 1_000 if patience else 1
        # Some of them are free, for new customers and new keys.
        self._ids = 20 if patience else IDS * 3 // 2
        self.truncates = False
        self._connection: Connection | None = None

    def run(self) -> None:
        try:
            while not self._end.wait(self._pace * self._random.random() * 2):
                try:
                    self._transaction(self._connected())
                except EXPECTED:
                    pass
                except (psycopg.OperationalError, psycopg.Rollback):
                    # The source is being restarted, or somebody has ended the connection. Rollback
                    # comes out of a block whose own ROLLBACK met that.
                    self._disconnect()
                    self._end.wait(0.05)
        except BaseException as e:  # noqa: BLE001 - raised again by `Workload.stop`
            self.error = e
        finally:
            self._disconnect()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=5)
            self._connection.execute("SET lock_timeout = '2s'")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None

    def _transaction(self, db: Connection) -> None:
        draw = self._random
        with db.transaction():
            if not self._patience and draw.random() < 0.15:
                self._renew_drafts(db)
            for _ in range(draw.randint(1, 4)):
                if draw.random() < 0.2:
                    self._savepoint(db)
                else:
                    self._act(db)
                if self._patience:
                    self._end.wait(draw.random() * self._patience)
            # Last, so that a long transaction does not keep the others from their turn.
            db.execute("UPDATE counters SET n = n + 1 WHERE id = 1")
            if draw.random() < 0.1:
                raise psycopg.Rollback
        self.commits += 1

    def _savepoint(self, db: Connection) -> None:
        with db.transaction():
            self._act(db)
            with db.transaction():
                self._act(db)
            if self._random.random() < 0.5:
                raise psycopg.Rollback

    def _act(self, db: Connection) -> None:
        action = self._random.choice(ACTIONS)
        # A refused action costs only itself: else few long transactions would come to their end.
        with suppress(psycopg.errors.UniqueViolation), db.transaction():
            action(self, db)

    # --- what a transaction may do

    def add_customer(self, db: Connection) -> None:
        new, word = self._customer(), self._word()
        db.execute(
            "INSERT INTO customers SELECT %(id)s, %(email)s, %(rank)s, %(word)s, repeat(%(word)s || 'x', 1500),"
            " 0.10, true, now() WHERE NOT EXISTS (SELECT FROM customers WHERE id = %(id)s)",
            {"id": new, "email": self._email(), "rank": self._rank(), "word": word},
        )

    def edit_customers(self, db: Connection) -> None:
        """Several rows in one statement; `notes` stays as it is."""
        at = self._customer()
        db.execute(
            "UPDATE customers SET name = %s, balance = balance + 1.25, changed_at = now()"
            " WHERE id BETWEEN %s AND %s",
            [self._word(), at, at + self._random.randint(0, 3)],
        )

    def edit_notes(self, db: Connection) -> None:
        db.execute(
            "UPDATE customers SET notes = repeat(%s || 'y', %s) WHERE id = %s",
            [self._word(), self._random.choice([0, 1, 1800]), self._customer()],
        )

    def remove_customer(self, db: Connection) -> None:
        db.execute("DELETE FROM customers WHERE id = %s", [self._customer()])

    def move_customer(self, db: Connection) -> None:
        """A changed key, with a value out of line left unchanged, and children that follow."""
        db.execute(
            "UPDATE customers SET id = %s WHERE id = %s", [self._customer(), self._customer()]
        )

    def swap_customers(self, db: Connection) -> None:
        """Two rows exchange their keys."""
        a, b, free = self._customer(), self._customer(), -self._number
        for old, new in ((a, free), (b, a), (free, b)):
            db.execute("UPDATE customers SET id = %s WHERE id = %s", [new, old])

    def swap_ranks(self, db: Connection) -> None:
        """In one statement, as a deferrable constraint allows."""
        a, b = self._customer(), self._customer()
        db.execute(
            "UPDATE customers c SET rank = o.rank FROM customers o"
            " WHERE (c.id = %(a)s AND o.id = %(b)s) OR (c.id = %(b)s AND o.id = %(a)s)",
            {"a": a, "b": b},
        )

    def swap_emails(self, db: Connection) -> None:
        """By way of a third value, as an immediate constraint demands."""
        a, b = self._customer(), self._customer()
        rows: dict[int, str] = dict(
            db.execute(
                "SELECT id, email FROM customers WHERE id IN (%s, %s) FOR UPDATE", [a, b]
            ).fetchall()
        )
        if a != b and len(rows) == 2:
            for who, email in ((a, f"free {self._number}"), (b, rows[a]), (a, rows[b])):
                db.execute("UPDATE customers SET email = %s WHERE id = %s", [email, who])

    def add_contacts(self, db: Connection) -> None:
        at = self._customer()
        db.execute(
            "INSERT INTO contacts SELECT %(at)s * 10 + g, %(at)s, 'mail', %(word)s, repeat(%(word)s || 'z', 1500)"
            " FROM generate_series(1, %(n)s) g WHERE EXISTS (SELECT FROM customers WHERE id = %(at)s)"
            " ON CONFLICT (id) DO UPDATE SET value = excluded.value",
            {"at": at, "word": self._word(), "n": self._random.randint(1, 5)},
        )

    def edit_contacts(self, db: Connection) -> None:
        at = self._customer()
        db.execute(
            "UPDATE contacts SET value = %s WHERE customer_id BETWEEN %s AND %s",
            [self._word(), at, at + 2],
        )

    def remove_contacts(self, db: Connection) -> None:
        db.execute("DELETE FROM contacts WHERE customer_id = %s", [self._customer()])

    def put_address(self, db: Connection) -> None:
        at = self._customer()
        db.execute(
            "INSERT INTO addresses VALUES (%s, %s, %s, %s, decode(repeat('00ff', 2100), 'hex'))"
            " ON CONFLICT (customer_id, kind) DO UPDATE SET street = excluded.street",
            [self._random.getrandbits(40), at, self._kind(), self._word()],
        )

    def move_address(self, db: Connection) -> None:
        db.execute(
            "UPDATE addresses SET kind = %s WHERE customer_id = %s AND kind = %s",
            [self._kind(), self._customer(), self._kind()],
        )

    def remove_address(self, db: Connection) -> None:
        db.execute("DELETE FROM addresses WHERE customer_id = %s", [self._customer()])

    def churn_activity(self, db: Connection) -> None:
        """Insert, update, delete and insert of one key in one transaction."""
        key, word = self._customer(), self._word()
        insert = 'INSERT INTO activities VALUES (%s, %s, %s, \'{"a": "\\u00e9"}\')'
        db.execute("DELETE FROM activities WHERE id = %s", [key])
        db.execute(insert, [key, key, word])
        db.execute("UPDATE activities SET what = 'changed' WHERE id = %s", [key])
        db.execute("DELETE FROM activities WHERE id = %s", [key])
        if self._random.random() < 0.7:
            db.execute(insert, [key, key, word + "!"])

    def add_events(self, db: Connection) -> None:
        """Rows of one statement share their position in the log with one another."""
        db.execute(
            "INSERT INTO events (writer, body) SELECT %s, %s FROM generate_series(1, %s)",
            [self._number, self._word(), self._random.choice([1, 3, 20])],
        )

    def _renew_drafts(self, db: Connection) -> None:
        key = self._random.getrandbits(40)
        if self._random.random() < 0.1 and self.truncates:
            db.execute("TRUNCATE drafts, draft_parts")
        db.execute("INSERT INTO drafts VALUES (%s, %s)", [key, self._word()])
        db.execute("INSERT INTO draft_parts VALUES (%s, %s, %s)", [key, key, self._word()])

    # --- what it draws

    def _customer(self) -> int:
        return self._first + self._random.randrange(self._ids)

    def _rank(self) -> int | None:
        rank = self._random.randrange(self._first, self._first + 3 * self._ids)
        return rank if rank % 7 else None

    def _email(self) -> str:
        return f"c{self._random.randrange(self._first, self._first + 3 * self._ids)}@example.com"

    def _kind(self) -> str:
        return self._random.choice(("home", "work", "ship"))

    def _word(self) -> str:
        return self._random.choice(WORDS)


_OFTEN: Final = (
    Writer.add_customer,
    Writer.edit_customers,
    Writer.edit_customers,
    Writer.move_customer,
    Writer.swap_ranks,
    Writer.swap_emails,
    Writer.add_contacts,
    Writer.edit_contacts,
    Writer.put_address,
    Writer.move_address,
    Writer.churn_activity,
    Writer.add_events,
    Writer.add_events,
)
_SELDOM: Final = (
    Writer.edit_notes,
    Writer.remove_customer,
    Writer.swap_customers,
    Writer.remove_contacts,
    Writer.remove_address,
)
ACTIONS: Final = _OFTEN * 2 + _SELDOM
"""Each as often as it stands here."""
