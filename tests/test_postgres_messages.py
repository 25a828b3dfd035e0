"""A walsender's messages, taken in C and in Python: one promise, kept twice."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq

from appliers.delta import Op
from cdc.sources.postgres import pgoutput
from cdc.sources.postgres.libpq import messages_of
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.postgres.messages import Messages, RowChange
from tests.databases import Database, wait_until
from tests.implementations import compiled

OIDS = [b"\0\0\0\1", b"\0\0\0\2"]


def log(body: bytes) -> bytes:
    """XLogData."""
    return b"w" + bytes(24) + body


def keepalive(position: int) -> bytes:
    return b"k" + struct.pack(">QqB", position, 0, 0)


IMAGES = st.binary(max_size=9)
INSERTS = st.builds(lambda oid, i: log(b"I" + oid + b"N" + i), st.sampled_from(OIDS), IMAGES)
UPDATES = st.builds(lambda oid, i: log(b"U" + oid + b"N" + i), st.sampled_from(OIDS), IMAGES)
OTHERS = st.builds(lambda kind, i: log(kind + i), st.sampled_from([b"D", b"T", b"R", b"M"]), IMAGES)
BEGINS = st.integers(0, 99).map(lambda n: log(b"B" + struct.pack(">QqI", n, n, n)))
COMMITS = st.integers(0, 99).map(lambda n: log(b"C" + struct.pack(">BQQq", 0, n, n, n)))
KEEPALIVES = st.integers(0, 99).map(keepalive)
SOUND = st.one_of(INSERTS, INSERTS, UPDATES, OTHERS, BEGINS, COMMITS, KEEPALIVES)
DAMAGED = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.tuples(SOUND, st.integers(1, 60)).map(lambda cut: cut[0][: cut[1]]),
    st.tuples(SOUND, st.binary(min_size=1, max_size=3)).map(lambda pair: pair[0] + pair[1]),
)
BUFFERS = st.lists(st.lists(SOUND, max_size=12), max_size=4)


class Libpq:
    """What PQgetCopyData gives of some messages."""

    def __init__(self, messages: Sequence[bytes], end: int = 0) -> None:
        self.messages = list(messages)
        self.end = end

    def get_copy_data(self, wait: int) -> tuple[int, Any]:
        assert wait == 1
        if not self.messages:
            return self.end, b""
        message = self.messages.pop(0)
        return len(message), memoryview(message)


GET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int)
FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = ctypes.c_void_p
LIBC.free.argtypes = [ctypes.c_void_p]


class Direct(Libpq):
    """The same as functions in C, which give a copy of each message, to be freed."""

    def __init__(self, messages: Sequence[bytes], end: int = 0, free: Any = LIBC.free) -> None:
        super().__init__(messages, end)
        self._functions = GET(self._get), free

    @property
    def addresses(self) -> tuple[int | None, ...]:
        pointers = [ctypes.cast(f, ctypes.c_void_p).value for f in self._functions]
        return (*pointers, id(self))

    def _get(self, connection: int, to: Any, wait: int) -> int:
        assert connection == id(self)
        length, message = self.get_copy_data(wait)
        if length > 0:
            to[0] = LIBC.malloc(length)
            ctypes.memmove(to[0], bytes(message), length)
        return length


class Subject:
    """Messages of two tables, the second of which is made anew by every R."""

    def __init__(self, take: Callable[..., Any], *, directly: bool = False) -> None:
        self.take = take
        self.directly = directly
        self.relations: dict[bytes, Any] = {oid: f"relation {oid!r}" for oid in OIDS}
        self.told: list[object] = []
        self.messages = Messages(self.relations, self._other, self._keepalive)

    def _other(self, kind: int, data: bytes) -> Sequence[RowChange]:
        self.told.append((kind, data))
        if kind == ord("R"):
            self.relations[OIDS[1]] = f"relation {data!r}"
        elif kind == ord("T"):
            return [(Op.TRUNCATE, r, None, None) for r in self.relations.values()]
        elif kind == ord("D"):
            return ((Op.DELETE, self.relations[OIDS[0]], data[26:], None),)
        elif kind != ord("M"):
            raise pgoutput.ProtocolError(f"refused {chr(kind)!r}")
        return ()

    def _keepalive(self, data: bytes, inside: bool) -> Lsn | None:
        self.told.append((data, inside))
        return Lsn(data[8]) if len(data) > 8 and not inside else None

    def outcome(self, buffer: Sequence[bytes], end: int) -> object:
        """Everything that can be seen from outside."""
        m = self.messages
        libpq = Direct(buffer, end)
        try:
            taken = tuple(self.take(m, libpq.addresses if self.directly else libpq.get_copy_data))
        except (IndexError, KeyError, pgoutput.ProtocolError):
            return "refused"
        return (
            [*taken[:2], _plain(taken[2]), *taken[3:]],
            [(type(c), *c[:4], _plain(c[4]), c[5]) for c in m.deltas],
            (_plain(m.commit), m.ordinal, m.size, m.in_runs, m.inside),
            self.told,
        )


def _plain(commit: Any) -> object:
    return tuple(commit) if len(commit) == 3 else (commit.position, commit.transaction)


def subjects() -> list[Subject]:
    c = compiled("cdc.sources.postgres._messages", "take")
    return [Subject(Messages.take), Subject(c), Subject(c, directly=True)]


@given(BUFFERS, st.integers(-2, 0))
def test_all_take_the_same(buffers: list[list[bytes]], end: int) -> None:
    """Whatever comes, in whatever pieces: the same changes, in the same runs, of the same commits, and
    the same is passed on to others."""
    python, *others = subjects()
    for buffer in buffers:
        expected = python.outcome(buffer, end)
        assert [s.outcome(buffer, end) for s in others] == [expected] * 2


@given(st.lists(SOUND, max_size=5), DAMAGED)
def test_all_refuse_the_same(sound: list[bytes], damaged: bytes) -> None:
    """A damaged message is refused, or passed on to who refuses it; never read beyond its end."""
    python, *others = subjects()
    expected = python.outcome([*sound, damaged], 0)
    assert [s.outcome([*sound, damaged], 0) for s in others] == [expected] * 2


@pytest.mark.parametrize(
    "addresses", [(), (1, 2), (1, 2, 3, 4), (1, 2, None), (0, 1, 2), ("", 1, 2)]
)
def test_addresses_that_are_none(addresses: Any) -> None:
    """Are an error, and no crash."""
    take = compiled("cdc.sources.postgres._messages", "take")
    with pytest.raises(TypeError, match="three addresses"):
        take(Subject(take).messages, addresses)


@pytest.mark.parametrize("broken", [None, (1,), (1, 2), ("1", b""), (1, memoryview(b""))])
def test_an_answer_that_libpq_never_gives(broken: Any) -> None:
    """Is an error, and no crash."""
    take = compiled("cdc.sources.postgres._messages", "take")
    with pytest.raises((TypeError, IndexError)):
        take(Subject(take).messages, lambda _: broken)


def test_an_error_of_libpq_is_passed_on() -> None:
    """What is lost by then is read again: a stream ends with its first error."""
    for take in (compiled("cdc.sources.postgres._messages", "take"), Messages.take):
        subject = Subject(take)

        def fail(_: int) -> tuple[int, Any]:
            raise ConnectionError("gone")

        with pytest.raises(ConnectionError, match="gone"):
            take(subject.messages, fail)


def test_messages_come_from_libpq_itself(source_db: Database) -> None:
    """The addresses are those of the libpq that psycopg has connected with; none are given of a
    connection that is closed, which psycopg refuses by name."""
    compiled("cdc.sources.postgres._messages", "take")
    conn = pq.PGconn.connect(f"{source_db.url}?replication=database".encode())
    conn.exec_(b"CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')")
    conn.exec_(
        b"START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'none')"
    )
    given = messages_of(conn)
    assert isinstance(given, tuple)
    subject = subjects()[2]

    def is_told() -> bool:
        conn.consume_input()
        assert subject.take(subject.messages, given)[0] == 0
        return bool(subject.told)

    wait_until(is_told, message="a keepalive of the server")
    conn.finish()
    given = messages_of(conn)
    assert callable(given)
    with pytest.raises(psycopg.OperationalError, match="connection pointer is NULL"):
        given(1)
