"""A CRM on MariaDB or MySQL that never rests: seeded random transactions, from several connections.

Each writer draws from a generator of its own, so a seed replays what every writer asks for; how the
writers interleave is the server's business, as it is in life.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Self

import pymysql
from pymysql.constants import ER

from tests.mysql_crm import IDS, Connection, numbers
from tests.mysql_databases import MysqlDatabase

WORDS: Final = ("north", "o'hara", "tab\there", "back\\slash", "línea", "日本🗾", "", "NULL", "\\N")
LATIN: Final = ("north", "o'hara", "línea", "ÿ", "")
IMAGES: Final = ("FULL", "MINIMAL", "NOBLOB")
"""How much of a row a session puts into the log: each writer its own."""

REFUSED: Final = (ER.DUP_ENTRY, ER.NO_REFERENCED_ROW_2, ER.ROW_IS_REFERENCED_2)
"""What costs the statement alone. PyMySQL gives numbers: its classes do not tell these apart."""

CHANGED_SINCE_READ: Final = 1020
ABORTED: Final = (ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT, CHANGED_SINCE_READ)
"""What costs the transaction. Everything else is a fault of the workload, or the connection's end."""


class Workload:
    """Runs writers until `stop`, or the end of the `with`, which raises what a writer has met."""

    def __init__(
        self,
        source: MysqlDatabase,
        seed: int,
        *,
        writers: int = 3,
        slow: int = 1,
        pace: float = 0.03,
    ) -> None:
        self._stop = threading.Event()
        self._writers = [
            Writer(source, seed, number, self._stop, pace=pace, patience=0.0)
            for number in range(1, writers + 1)
        ] + [
            Writer(source, seed, number, self._stop, pace=0.05, patience=0.3)
            for number in range(writers + 1, writers + slow + 1)
        ]

    def __enter__(self) -> Self:
        for writer in self._writers:
            writer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop(failing=kind is not None)

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
        source: MysqlDatabase,
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
        self._source = source
        self._number = number
        self._random = random.Random(f"{seed}/{number}")
        self._end = stop
        self._pace = pace
        self._patience = patience
        self._first = number * 1_000 if patience else 1
        # Some of them are free, for new customers and new keys.
        self._ids = 20 if patience else IDS * 3 // 2
        self._image = IMAGES[number % len(IMAGES)]
        self._connection: Connection | None = None

    def run(self) -> None:
        try:
            while not self._end.wait(self._pace * self._random.random() * 2):
                try:
                    self._transaction(self._connected())
                except pymysql.err.MySQLError as e:
                    if e.args[0] in ABORTED:
                        with suppress(pymysql.err.MySQLError):
                            self._connected().rollback()
                        continue
                    if not isinstance(
                        e, (pymysql.err.OperationalError, pymysql.err.InterfaceError)
                    ):
                        raise
                    # The source is being restarted, or somebody has ended the connection.
                    self._disconnect()
                    self._end.wait(0.05)
        except BaseException as e:  # noqa: BLE001 - raised again by `Workload.stop`
            self.error = e
        finally:
            self._disconnect()

    def _connected(self) -> Connection:
        if self._connection is None or not self._connection.open:
            # Without gap locks: writers meet on rows, as they mean to, and not on what lies between.
            isolation = "transaction_isolation"
            if self._source.server.flavour == "mariadb":
                isolation = "tx_isolation"
            self._connection = self._source.connect(
                autocommit=False,
                init_command=f"SET SESSION binlog_row_image = '{self._image}', {isolation} ="
                " 'READ-COMMITTED', innodb_lock_wait_timeout = 2, time_zone = '+05:30'",
            )
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None and self._connection.open:
            with suppress(pymysql.err.MySQLError, OSError):
                self._connection.close()
        self._connection = None

    def _transaction(self, db: Connection) -> None:
        draw = self._random
        if not self._patience and draw.random() < 0.02:
            # Each ends what is open, and is a transaction by itself.
            self._execute(db, f"TRUNCATE TABLE {draw.choice(('drafts', 'draft_parts'))}")
        db.begin()
        if not self._patience and draw.random() < 0.15:
            self._add_draft(db)
        for _ in range(draw.randint(1, 4)):
            if draw.random() < 0.2:
                self._savepoints(db)
            else:
                self._act(db)
            if self._patience:
                self._end.wait(draw.random() * self._patience)
        # Last, so that a long transaction does not keep the others from their turn.
        self._execute(db, "UPDATE counters SET n = n + 1 WHERE id = 1")
        if draw.random() < 0.1:
            db.rollback()
            return
        db.commit()
        self.commits += 1

    def _savepoints(self, db: Connection) -> None:
        """One in the other, and half of the time the outer one is undone."""
        self._execute(db, "SAVEPOINT outer_one")
        self._act(db)
        with self._savepoint(db, "inner_one"):
            self._act(db)
        if self._random.random() < 0.5:
            self._execute(db, "ROLLBACK TO SAVEPOINT outer_one")

    def _act(self, db: Connection) -> None:
        """A refused action costs only itself: else few long transactions would come to their end."""
        action = self._random.choice(ACTIONS if self._image == "FULL" else ACTIONS_IN_PARTS)
        with self._savepoint(db, "action"):
            action(self, db)

    @contextmanager
    def _savepoint(self, db: Connection, name: str) -> Iterator[None]:
        self._execute(db, f"SAVEPOINT {name}")
        try:
            yield
        except pymysql.err.MySQLError as e:
            if e.args[0] not in REFUSED:
                raise
            self._execute(db, f"ROLLBACK TO SAVEPOINT {name}")

    def _execute(
        self, db: Connection, statement: str, params: Sequence[Any] | None = None
    ) -> tuple[tuple[Any, ...], ...]:
        with db.cursor() as cursor:
            cursor.execute(statement, params)
            return tuple(cursor.fetchall())

    # --- what a transaction may do

    def add_customer(self, db: Connection) -> None:
        word = self._word()
        self._execute(
            db,
            "INSERT INTO customers VALUES (%s, %s, %s, %s, REPEAT(CONCAT(%s, 'x'), 150), 0.10, 1,"
            " 'new', '', 0.1, NOW(6), NOW(6))",
            [self._customer(), self._email(), self._place(), self._latin(), word],
        )

    def edit_customers(self, db: Connection) -> None:
        """Several rows in one statement; `notes` stays as it is."""
        at = self._customer()
        self._execute(
            db,
            "UPDATE customers SET name = %s, balance = balance + 1.25, mood = %s, labels = %s,"
            " score = score / 3, changed_at = NOW(6), seen_at = NOW(6) WHERE id BETWEEN %s AND %s",
            [
                self._latin(),
                self._random.choice((None, "new", "warm", "o'cold")),
                self._random.choice((None, "", "a", "b,c d")),
                at,
                at + self._random.randint(0, 3),
            ],
        )

    def edit_notes(self, db: Connection) -> None:
        self._execute(
            db,
            "UPDATE customers SET notes = REPEAT(CONCAT(%s, 'y'), %s) WHERE id = %s",
            [self._word(), self._random.choice([0, 1, 3000]), self._customer()],
        )

    def remove_customer(self, db: Connection) -> None:
        at = self._customer()
        self._execute(db, "DELETE FROM contacts WHERE customer_id = %s", [at])
        self._execute(db, "DELETE FROM customers WHERE id = %s", [at])

    def move_customer(self, db: Connection) -> None:
        """A changed key. Children follow by themselves or are in the way, as the server does it."""
        self._execute(
            db,
            "UPDATE customers SET id = %s WHERE id = %s",
            [self._customer(), self._customer()],
        )

    def swap_customers(self, db: Connection) -> None:
        """Two rows exchange their keys."""
        a, b, free = self._customer(), self._customer(), 4_000_000_000 + self._number
        for old, new in ((a, free), (b, a), (free, b)):
            self._execute(db, "UPDATE customers SET id = %s WHERE id = %s", [new, old])

    def swap_places(self, db: Connection) -> None:
        """By way of NULL."""
        self._swap(db, "place", None)

    def swap_emails(self, db: Connection) -> None:
        """By way of a third value: unique keys are looked at row by row."""
        self._swap(db, "email", f"free {self._number}")

    def _swap(self, db: Connection, column: str, free: str | None) -> None:
        a, b = self._customer(), self._customer()
        rows = dict(
            self._execute(
                db, f"SELECT id, {column} FROM customers WHERE id IN (%s, %s) FOR UPDATE", [a, b]
            )
        )
        if a != b and len(rows) == 2:
            for who, value in ((a, free), (b, rows[a]), (a, rows[b])):
                self._execute(db, f"UPDATE customers SET {column} = %s WHERE id = %s", [value, who])

    def add_contacts(self, db: Connection) -> None:
        at, word = self._customer(), self._word()
        self._execute(
            db,
            "INSERT INTO contacts SELECT %s * 10 + n, %s, 'mail', %s, REPEAT(UNHEX('0027'), 150)"
            f" FROM {numbers(self._random.randint(1, 5))}"
            " ON DUPLICATE KEY UPDATE value = CONCAT(%s, '+'), kind = NULL",
            [at, at, word, word],
        )

    def edit_contacts(self, db: Connection) -> None:
        at = self._customer()
        self._execute(
            db,
            "UPDATE contacts SET value = %s WHERE customer_id BETWEEN %s AND %s",
            [self._word(), at, at + 2],
        )

    def remove_contacts(self, db: Connection) -> None:
        self._execute(db, "DELETE FROM contacts WHERE customer_id = %s", [self._customer()])

    def put_address(self, db: Connection) -> None:
        """REPLACE deletes what is there, and logs what it likes: an update, or both."""
        self._execute(
            db,
            "REPLACE INTO addresses VALUES (%s, %s, %s, CURDATE(), REPEAT(UNHEX('00FF'), 210))",
            [self._customer(), self._kind(), self._word()],
        )

    def move_address(self, db: Connection) -> None:
        self._execute(
            db,
            "UPDATE addresses SET kind = %s WHERE customer_id = %s AND kind = %s",
            [self._kind(), self._customer(), self._kind()],
        )

    def remove_address(self, db: Connection) -> None:
        self._execute(db, "DELETE FROM addresses WHERE customer_id = %s", [self._customer()])

    def put_tags(self, db: Connection) -> None:
        self._execute(
            db,
            "INSERT INTO tags VALUES (%s, 1, NULL), (%s, 1, %s)"
            " ON DUPLICATE KEY UPDATE uses = uses + 1",
            [self._tag(), self._tag(), self._word() * 30],
        )

    def respell_tag(self, db: Connection) -> None:
        """The same key to the source, whatever case it is written in; other bytes to everybody else."""
        tag = self._tag()
        self._execute(db, "UPDATE tags SET code = %s WHERE code = %s", [tag.swapcase(), tag])

    def remove_tag(self, db: Connection) -> None:
        self._execute(db, "DELETE FROM tags WHERE code = %s", [self._tag()])

    def churn_activity(self, db: Connection) -> None:
        """Insert, update, delete and insert of one key in one transaction."""
        key, word = self._customer(), self._word()
        insert = """INSERT INTO activities VALUES (%s, %s, %s, '{"a": "\\u00e9", "b": 1.50}')"""
        self._execute(db, "DELETE FROM activities WHERE id = %s", [key])
        self._execute(db, insert, [key, key, word])
        self._execute(db, "UPDATE activities SET what = 'changed' WHERE id = %s", [key])
        self._execute(db, "DELETE FROM activities WHERE id = %s", [key])
        if self._random.random() < 0.7:
            self._execute(db, insert, [key, key, word + "!"])

    def add_events(self, db: Connection) -> None:
        """Rows of one statement share their position in the log with one another."""
        self._execute(
            db,
            "INSERT INTO events (writer, body) SELECT %s, %s"
            f" FROM {numbers(self._random.choice([1, 3, 20]))}",
            [self._number, self._word()],
        )

    def _add_draft(self, db: Connection) -> None:
        key = self._random.getrandbits(40)
        self._execute(db, "INSERT INTO drafts VALUES (%s, %s)", [key, self._word()])
        self._execute(db, "INSERT INTO draft_parts VALUES (%s, %s, %s)", [key, key, self._word()])

    # --- what it draws

    def _customer(self) -> int:
        return self._first + self._random.randrange(self._ids)

    def _place(self) -> int | None:
        place = self._random.randrange(self._first, self._first + 3 * self._ids)
        return place if place % 7 else None

    def _email(self) -> str:
        return f"c{self._random.randrange(self._first, self._first + 3 * self._ids)}@example.com"

    def _kind(self) -> str:
        return self._random.choice(("home", "work", "Work", "ship"))

    def _tag(self) -> str:
        tag = f"tag{self._customer() % 40}"
        return self._random.choice((tag, tag, tag.upper(), tag + "é"))

    def _word(self) -> str:
        return self._random.choice(WORDS)

    def _latin(self) -> str:
        return self._random.choice(LATIN)


_OFTEN: Final = (
    Writer.add_customer,
    Writer.edit_customers,
    Writer.edit_customers,
    Writer.move_customer,
    Writer.swap_places,
    Writer.swap_emails,
    Writer.add_contacts,
    Writer.edit_contacts,
    Writer.put_address,
    Writer.move_address,
    Writer.put_tags,
    Writer.respell_tag,
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
    Writer.remove_tag,
)
_MOVING: Final = (
    Writer.move_customer,
    Writer.swap_customers,
    Writer.move_address,
    Writer.respell_tag,
)
ACTIONS: Final = _OFTEN * 2 + _SELDOM
"""Each as often as it stands here."""

ACTIONS_IN_PARTS: Final = tuple(a for a in ACTIONS if a not in _MOVING) * 2 + _MOVING
"""For sessions that log rows in part: a row whose key they change has to be read again, and nobody
changes keys all day."""
