"""Row images: what goes in comes out, and damaged bytes are an ImageError, never another row."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliers import images as images_module
from appliers.delta import UNCHANGED, Commit, Delta, Op, Value
from appliers.images import (
    COPY_BINARY_HEADER,
    COPY_BINARY_TRAILER,
    Format,
    ImageError,
    binary_key_text,
    compile_array_rows,
    compile_copy_rows,
    compile_has_unchanged,
    compile_key,
    compile_updates,
    compile_values,
    compose,
    copy_binary_row,
    copy_text_line,
    pgoutput_end,
    pgoutput_image,
)
from appliers.lines import split
from tests.databases import Database
from tests.implementations import compiled, in_both

# What text escapes, what binary lengths look like, and the kinds that pgoutput puts before values.
PIECES = st.sampled_from(
    [
        b"",
        b"\\",
        b"\\N",
        b"\\=",
        b"\\.",
        b"\n",
        b"\r",
        b"\t",
        b"n",
        b"u",
        b"t",
        b"b",
        b"\xff\xff\xff\xff",
        b"u" * 5,
    ]
)
BYTES = st.one_of(PIECES, st.binary(max_size=12), st.lists(PIECES, max_size=4).map(b"".join))
VALUES = st.one_of(st.none(), BYTES)
ROWS = st.lists(VALUES, min_size=1, max_size=7)
LOGGED_ROWS = st.lists(st.one_of(VALUES, st.just(UNCHANGED)), min_size=1, max_size=7)
FORMATS = st.sampled_from(Format)
MAY_HAVE_GAPS = (Format.PGOUTPUT_TEXT, Format.PGOUTPUT_BINARY, Format.LINE)


implementation = in_both(images_module, "_Columns", "appliers._images")


def copy_row(
    format: Format, columns: int, wanted: Sequence[int] | None = None
) -> Callable[[bytes], bytes]:
    rows = compile_copy_rows(format, columns, wanted)
    return lambda image: rows([image])


def image_of(format: Format, row: Sequence[Value]) -> bytes:
    """A row as a source would send it."""
    if format in MAY_HAVE_GAPS:
        return compose(format, row)
    return copy_binary_row(row) if format.binary else copy_text_line(row)


def copy_of(format: Format, row: Sequence[Value]) -> bytes:
    return copy_binary_row(row) if format.binary else copy_text_line(row)


@given(FORMATS, ROWS)
@example(Format.PGOUTPUT_TEXT, [b"\\N", None])
@example(Format.COPY_TEXT, [b""])
@example(Format.LINE, [b"\\=", b"="])
def test_values_come_out_as_they_went_in(format: Format, row: list[Value]) -> None:
    """Every value in every format; NULL, empty and `\\N` stay apart."""
    image = image_of(format, row)
    assert compile_values(format, len(row))(image) == tuple(row)
    assert not compile_has_unchanged(format, len(row))(image)


@given(st.sampled_from(MAY_HAVE_GAPS), LOGGED_ROWS)
def test_unchanged_values_are_told_from_all_others(form: Format, row: list[Value]) -> None:
    """UNCHANGED comes out as UNCHANGED, and COPY refuses it."""
    image = image_of(form, row)
    read = compile_values(form, len(row))(image)
    assert all(a is b or a == b for a, b in zip(read, row, strict=True))
    unchanged = any(v is UNCHANGED for v in row)
    assert compile_has_unchanged(form, len(row))(image) is unchanged
    if unchanged:
        with pytest.raises(ImageError):
            compile_copy_rows(form, len(row))([image])


@given(FORMATS, ROWS, st.data())
def test_a_row_for_copy_holds_the_wanted_columns(
    format: Format, row: list[Value], data: st.DataObject
) -> None:
    """All of them, or some, in any order; the same bytes as from the values one by one."""
    columns = len(row)
    image = image_of(format, row)
    assert compile_copy_rows(format, columns)([image]) == copy_of(format, row)
    some = st.lists(st.integers(0, columns - 1), min_size=1, unique=True)
    wanted = data.draw(some)
    expected = copy_of(format, [row[i] for i in wanted])
    assert compile_copy_rows(format, columns, wanted)([image]) == expected
    assert compile_key(format, columns, wanted)(image) == tuple(row[i] for i in wanted)


@given(st.sampled_from(MAY_HAVE_GAPS), LOGGED_ROWS, st.data())
def test_columns_that_are_not_wanted_are_not_looked_at(
    form: Format, row: list[Value], data: st.DataObject
) -> None:
    """The key of an image whose other values are UNCHANGED can be copied."""
    known = [i for i, v in enumerate(row) if v is not UNCHANGED]
    if known:
        wanted = data.draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
        made = compile_copy_rows(form, len(row), wanted)([image_of(form, row)])
        assert made == copy_of(form, [row[i] for i in wanted])


@given(FORMATS, st.lists(st.tuples(VALUES, BYTES), max_size=5))
def test_rows_for_copy_are_joined(format: Format, rows: list[tuple[Value, Value]]) -> None:
    """In the order of their images."""
    made = compile_copy_rows(format, 2)([image_of(format, row) for row in rows])
    assert made == b"".join(copy_of(format, row) for row in rows)


@given(st.lists(st.tuples(VALUES, BYTES), max_size=5), st.permutations([0, 1]))
def test_rows_as_elements_of_an_array(rows: list[tuple[Value, Value]], wanted: list[int]) -> None:
    """Size, number of columns, and each column's type and value; in Python COPY does instead."""
    made = compile_array_rows(Format.PGOUTPUT_BINARY, 2, wanted)
    assert (made is None) is (images_module._Columns is None)
    assert compile_array_rows(Format.PGOUTPUT_TEXT, 2, wanted) is None
    if made is None:
        return
    types = [b"\0\0\0\x17", b"\0\0\1\0"]
    expected = b""
    for row in rows:
        fields = [copy_binary_row([row[i]])[2:] for i in wanted]
        record = b"\0\0\0\2" + b"".join(t + f for t, f in zip(types, fields, strict=True))
        expected += len(record).to_bytes(4, "big") + record
    images = [image_of(Format.PGOUTPUT_BINARY, row) for row in rows]
    assert made(images, b"".join(types)) == expected
    with pytest.raises(ImageError):
        made([image_of(Format.PGOUTPUT_BINARY, (UNCHANGED, b""))], b"".join(types))


@given(st.sampled_from(MAY_HAVE_GAPS), st.lists(st.tuples(BYTES, VALUES), max_size=5), st.data())
def test_updates_of_different_rows_are_reduced_at_once(
    form: Format, rows: list[tuple[Value, Value]], data: st.DataObject
) -> None:
    """The new images by key, in order; None as soon as one is not an update that leaves its key as it
    is, or a key comes twice."""
    relation, commit = object(), Commit("", 0, 0)
    images = [image_of(form, row) for row in rows]
    deltas = [Delta(Op.UPDATE, relation, None, i, commit, 1) for i in images]  # type: ignore[arg-type]
    keys = [(key,) for key, _ in rows]
    expected = dict(zip(keys, images, strict=True)) if len(set(keys)) == len(keys) else None
    updates = compile_updates(form, 2, [0])
    assert updates(deltas, Op.UPDATE) == expected
    if deltas:
        other = data.draw(st.sampled_from(deltas))
        at = deltas.index(other)
        for change in (
            {"op": Op.INSERT},
            {"before": images[at]},
            {"op": Op.INSERTS, "after": [b""]},
        ):
            changed = [*deltas[:at], other._replace(**change), *deltas[at + 1 :]]
            assert updates(changed, Op.UPDATE) is None


@given(FORMATS, st.integers(1, 5), st.binary(max_size=60))
def test_any_bytes_give_a_row_or_an_image_error(format: Format, columns: int, image: bytes) -> None:
    """No reader fails in another way; and the readers agree on what is a row."""
    values = _read(compile_values(format, columns), image)
    row = _read(copy_row(format, columns), image)
    _read(compile_key(format, columns, [0]), image)
    _read(copy_row(format, columns, [columns - 1]), image)
    _read(compile_has_unchanged(format, columns), image)
    if format.pgoutput and row is not None:
        assert values is not None


@given(st.sampled_from([f for f in Format if not f.lines]), ROWS, st.data())
def test_a_row_that_is_cut_or_longer_is_refused(
    format: Format, row: list[Value], data: st.DataObject
) -> None:
    """At every byte."""
    image = image_of(format, row)
    cut = data.draw(st.integers(0, len(image) - 1))
    values = compile_values(format, len(row))
    for damaged in (image[:cut], image + b"n"):
        with pytest.raises(ImageError):
            values(damaged)
    if format.pgoutput:
        with pytest.raises(ImageError):
            compile_copy_rows(format, len(row))([image[:cut]])


@given(FORMATS, ROWS, st.integers(1, 9))
def test_another_number_of_columns_is_refused(
    format: Format, row: list[Value], columns: int
) -> None:
    """An image of another shape is not read as one of this shape."""
    if columns != len(row):
        with pytest.raises(ImageError):
            compile_values(format, columns)(image_of(format, row))


@given(st.lists(LOGGED_ROWS, min_size=1, max_size=4), st.binary(max_size=9))
def test_the_end_of_an_image_in_a_stream(rows: list[list[Value]], rest: bytes) -> None:
    """Images that follow each other are told apart without knowing their relations."""
    images = [pgoutput_image(row, random.choice([b"t", b"b"])) for row in rows]
    stream, at = b"head" + b"".join(images) + rest, 4
    for image in images:
        end = pgoutput_end(stream, at)
        assert stream[at:end] == image
        at = end
    with pytest.raises(ImageError):
        pgoutput_end(images[0][:-1] if len(images[0]) > 2 else b"\x00", 0)


@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=5))
def test_copy_text_has_one_line_a_row(rows: list[list[Value]]) -> None:
    """However values look, lines and tabs are only ours."""
    lines = b"".join(copy_text_line(row) for row in rows).split(b"\n")
    assert lines.pop() == b""
    assert [split(line, 3) for line in lines] == [tuple(row) for row in rows]


def test_postgres_reads_what_we_write(target_db: Database) -> None:
    """The server itself is the oracle: COPY in both formats, from pgoutput's images."""
    texts = ["", "\\", "\\N", "\\.", "a\tb\nc\rd\\e", "\b\f\v", "é表", "u", None, "\\x41"]
    rows: list[list[Value]] = [
        [None if a is None else a.encode(), None if b is None else b.encode()]
        for a in texts
        for b in texts
    ]
    expected = [(a, b) for a in texts for b in texts]
    target_db.execute("CREATE TABLE t (n serial, a text, b text)")
    for form in Format:
        target_db.execute("TRUNCATE t")
        make = compile_copy_rows(form, 2)
        data = make([image_of(form, row) for row in rows])
        options = " (FORMAT binary)" if form.binary else ""
        if form.binary:
            data = COPY_BINARY_HEADER + data + COPY_BINARY_TRAILER
        with (
            target_db.connect() as db,
            db.cursor().copy(f"COPY t (a, b) FROM STDIN{options}".encode()) as copy,
        ):
            copy.write(data)
        assert target_db.rows("SELECT a, b FROM t ORDER BY n") == expected


def test_keys_as_text() -> None:
    """A customer's key reads as PostgreSQL prints it."""
    assert binary_key_text("int4", (-5).to_bytes(4, "big", signed=True)) == "-5"
    assert binary_key_text("text", "é".encode()) == "é"
    assert binary_key_text("uuid", bytes(range(16))) == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    with pytest.raises(KeyError):
        binary_key_text("numeric", b"")


def _read(reader: object, image: bytes) -> object:
    try:
        return reader(image)  # type: ignore[operator]
    except ImageError:
        return None


@pytest.mark.parametrize("wanted", [(0, 0), (2, 1, 2), (3,), (-1,)])
def test_columns_are_wanted_once(wanted: tuple[int, ...]) -> None:
    """What is made of them has room for what an image holds, once."""
    columns = compiled("appliers._images", "Columns")
    with pytest.raises(ValueError, match="is not there, or wanted twice"):
        columns(3, wanted, UNCHANGED, ImageError)
