"""What a source says has happened, put together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliers.delta import NOTHING, Commit, Content, Delta, Op, Run, each
from appliers.images import Format
from appliers.relation import Relation

RELATIONS = [Relation("public", name, (), (), Format.PGOUTPUT_TEXT) for name in "tu"]
COMMIT = Commit("0/1", 1, 1)

ONE = st.builds(
    lambda op, relation: Delta(op, relation, None, b"", COMMIT, 1),
    st.sampled_from([Op.INSERT, Op.UPDATE, Op.DELETE, Op.TRUNCATE]),
    st.sampled_from(RELATIONS),
)
MANY = st.builds(
    lambda relation, rows: Run(Op.INSERTS, relation, None, [b""] * rows, COMMIT, 1),
    st.sampled_from(RELATIONS),
    st.integers(1, 9),
)
DELTAS = st.lists(st.one_of(ONE, MANY), max_size=9)


@given(DELTAS, DELTAS)
def test_content_is_what_going_through_gives(
    first: list[Delta | Run], more: list[Delta | Run]
) -> None:
    """Of some deltas, and of some and more put together."""
    rows = list(each([*first, *more]))
    content = Content.of(first) | Content.of(more)
    assert content == Content.of([*first, *more])
    assert content.rows == len(rows)
    assert content.relations == {d.relation for d in rows}
    assert content.truncates == any(d.op is Op.TRUNCATE for d in rows)
    assert Content.of([]) == NOTHING
