"""Messages of pgoutput: what the manual says is read, everything else is a ProtocolError."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliers.delta import Commit
from cdc.sources.postgres import pgoutput
from cdc.sources.postgres.lsn import Lsn
from cdc.sources.postgres.pgoutput import Field, ProtocolError, Shape

names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=63
)
fields = st.builds(
    Field, names, st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1), st.booleans()
)
shapes = st.builds(
    Shape,
    st.integers(0, 2**32 - 1),
    names,
    names,
    st.sampled_from("dfin"),
    st.lists(fields, max_size=20).map(tuple),
)
READERS: tuple[Callable[[bytes], object], ...] = (
    pgoutput.read_begin,
    pgoutput.read_commit,
    pgoutput.read_relation,
    pgoutput.read_truncate,
)


def relation_message(shape: Shape) -> bytes:
    """As the manual lays it out."""
    parts = [
        struct.pack(">I", shape.oid),
        shape.schema.encode() + b"\0",
        shape.name.encode() + b"\0",
        shape.identity.encode(),
        struct.pack(">H", len(shape.fields)),
    ]
    parts += [
        struct.pack(">B", f.identity)
        + f.name.encode()
        + b"\0"
        + struct.pack(">Ii", f.type_oid, f.modifier)
        for f in shape.fields
    ]
    return b"".join(parts)


@given(shapes)
def test_a_relation_reads_back(shape: Shape) -> None:
    """Any names, multi-byte ones too, any number of columns."""
    assert pgoutput.read_relation(relation_message(shape)) == shape


@given(shapes, st.data())
def test_a_relation_cut_short_is_an_error(shape: Shape, data: st.DataObject) -> None:
    """No part of a message passes for the whole."""
    message = relation_message(shape)
    cut = data.draw(st.integers(0, len(message) - 1))
    with pytest.raises(ProtocolError):
        pgoutput.read_relation(message[:cut])
    with pytest.raises(ProtocolError, match="1 bytes too many"):
        pgoutput.read_relation(message + b"\0")


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_protocol_error(body: bytes) -> None:
    """Never another exception, never a guess."""
    for read in READERS:
        with suppress(ProtocolError):
            read(body)


@given(shapes, st.data())
def test_a_damaged_relation_gives_a_shape_or_a_protocol_error(
    shape: Shape, data: st.DataObject
) -> None:
    """One wrong byte anywhere."""
    message = bytearray(relation_message(shape))
    message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ProtocolError):
        pgoutput.read_relation(bytes(message))


def test_begin_and_commit() -> None:
    """Positions, the transaction's number, and PostgreSQL's clock turned into Unix microseconds."""
    begin = pgoutput.read_begin(struct.pack(">QqI", 0x1_0000_0002, 1_000_000, 4_294_967_295))
    assert isinstance(begin, Commit)
    assert (begin.position, begin.transaction, begin.committed_at) == (
        "1/2",
        4_294_967_295,
        946_684_801_000_000,
    )
    assert pgoutput.read_commit(struct.pack(">BQQq", 0, 5, 9, 0)) == Lsn(9)
    with pytest.raises(ProtocolError, match="expected a message of 20 bytes, got 19"):
        pgoutput.read_begin(bytes(19))
    with pytest.raises(ProtocolError, match="expected a message of 25 bytes, got 26"):
        pgoutput.read_commit(bytes(26))


def test_truncate() -> None:
    """The relations, whatever the options."""
    assert pgoutput.read_truncate(struct.pack(">IBII", 2, 3, 7, 8)) == [
        b"\0\0\0\x07",
        b"\0\0\0\x08",
    ]
    with pytest.raises(ProtocolError, match="a Truncate message of 3 relations has 9 bytes"):
        pgoutput.read_truncate(struct.pack(">IBI", 3, 0, 7))


def test_a_relation_of_the_catalogue() -> None:
    """An empty schema name stands for pg_catalog."""
    message = relation_message(Shape(1, "", "pg_class", "n", ()))
    assert pgoutput.read_relation(message).schema == "pg_catalog"


@given(st.integers(0, 2**64 - 1))
def test_positions_print_and_read_back(number: int) -> None:
    """As PostgreSQL writes them."""
    position = Lsn(number)
    assert Lsn.parse(str(position)) == position
    assert position.covers(position)
    assert not position.covers(Lsn(number + 1))
