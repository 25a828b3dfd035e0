"""What many deltas of one relation come to: the net effect per key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from appliers.delta import UNCHANGED, Commit, Content, Delta, Op, Run
from appliers.images import compose
from appliers.relation import Key, Relation

Images = dict[Key, bytes]

_Change = tuple[Op, Relation, Any, Any, Commit, int]
"""A delta whose images are as its `op` says: no assertion for every row."""


@dataclass(slots=True)
class Net:
    """The state of a relation's rows after some deltas, as what has to be done, in this order."""

    deletes: Images = field(default_factory=dict)
    """Keys, with an image that holds them. Those of `inserts` may be among them."""
    updates: Images = field(default_factory=dict)
    """Rows that are there; may have UNCHANGED values."""
    inserts: Images = field(default_factory=dict)
    """Whole rows that are not there, or not any more."""
    rereads: Images = field(default_factory=dict)
    """Keys of rows that only the source has whole."""
    moved: set[Key] = field(default_factory=set)
    """Keys among the deletes of which a row must be there: an update has changed its key."""


@dataclass(slots=True)
class Segment:
    """Deltas between two truncates, by relation; no table has two relations in it."""

    groups: dict[Relation, list[Delta | Run]] = field(default_factory=dict)
    truncates: list[Relation] = field(default_factory=list)
    """Tables that are emptied together, before the rows are written."""


def segments(deltas: Sequence[Delta | Run], content: Content) -> Iterator[Segment]:
    """Splits deltas at truncates, and where a table's shape changes."""
    if len(content.relations) == 1 and not content.truncates:
        # Many batches are of one table: half the time.
        [relation] = content.relations
        yield Segment({relation: deltas if isinstance(deltas, list) else list(deltas)})
        return
    segment = Segment()
    tables: dict[str, Relation] = {}
    truncate: Delta | Run | None = None
    last: Relation | None = None
    groups = segment.groups
    append = list[Delta | Run]().append
    for delta in deltas:
        relation = delta[1]
        if delta[0] is Op.TRUNCATE:
            if truncate is None or truncate.commit != delta.commit or groups:
                if groups or segment.truncates:
                    yield segment
                segment = Segment()
                groups, tables, last = segment.groups, {}, None
            segment.truncates.append(relation)
            truncate = delta
            continue
        if relation is not last:
            if tables.setdefault(relation.table, relation) is not relation:
                yield segment
                segment = Segment()
                groups, tables = segment.groups, {relation.table: relation}
            last = relation
            append = groups.setdefault(relation, []).append
        append(delta)
    if groups or segment.truncates:
        yield segment


def inserts_of(deltas: Sequence[Delta | Run]) -> list[bytes] | None:
    """The rows, if nothing but inserts is among `deltas`: they need no reduction."""
    insert, inserts = Op.INSERT, Op.INSERTS
    rows: list[bytes] = []
    for op, _, _, after, _, _ in cast("Sequence[_Change]", deltas):
        if op is inserts:
            rows += after
        elif op is insert:
            rows.append(after)
        else:
            return None
    return rows


def reduced(relation: Relation, deltas: list[Delta | Run]) -> Net:
    """The net effect of one relation's deltas.

    A key that is deleted and inserted again is deleted and inserted, as on the source. A delete of a
    row that these deltas have inserted stays a delete: should the row be there all the same, it goes.
    """
    if (updated := relation.updates(deltas, Op.UPDATE)) is not None:
        return Net(updates=updated)
    net = Net()
    key, has_unchanged = relation.key, relation.has_unchanged
    deletes, updates, inserts, rereads = net.deletes, net.updates, net.inserts, net.rereads
    update, delete, run = Op.UPDATE, Op.DELETE, Op.INSERTS
    for op, _, before, after, _, _ in cast("Sequence[_Change]", deltas):
        if op is delete:
            _remove(net, key(before), before)
            continue
        if op is run:
            for image in after:
                _insert(net, key(image), image)
            continue
        k = key(after)
        if op is update:
            if before is not None and (old := key(before)) != k:
                _move(net, relation, old, before, k, after)
            elif k in updates:
                updates[k] = merged(relation, updates[k], after)
            elif k in inserts:
                inserts[k] = merged(relation, inserts[k], after)
            elif k in rereads or k in deletes:
                # Without a row of ours to merge with, the source has to be asked.
                if has_unchanged(after):
                    rereads[k] = after
                else:
                    rereads.pop(k, None)
                    inserts[k] = after
            else:
                updates[k] = after
        else:
            _insert(net, k, after)
    return net


def merged(relation: Relation, old: bytes, new: bytes) -> bytes:
    """The newer image, with the older one's values where it has UNCHANGED."""
    if not relation.has_unchanged(new):
        return new
    values = relation.values
    pairs = zip(values(old), values(new), strict=True)
    return compose(relation.format, [o if n is UNCHANGED else n for o, n in pairs])


def _insert(net: Net, key: Key, image: bytes) -> None:
    if key in net.updates:
        net.updates[key] = image
    else:
        if net.rereads:
            net.rereads.pop(key, None)
        net.inserts[key] = image


def _remove(net: Net, key: Key, image: bytes) -> None:
    for images in (net.updates, net.inserts, net.rereads):
        images.pop(key, None)
    net.deletes[key] = image


def _move(net: Net, relation: Relation, old: Key, before: bytes, new: Key, after: bytes) -> None:
    """A changed key. UNCHANGED values come from what these deltas have brought of the old row; where
    they have not brought all, the row is read again."""
    known = net.inserts.get(old) or net.updates.get(old)
    if old not in net.inserts and old not in net.rereads and old not in net.deletes:
        net.moved.add(old)
    if known is not None:
        after = merged(relation, known, after)
    _remove(net, old, before)
    net.updates.pop(new, None)
    if relation.has_unchanged(after):
        net.inserts.pop(new, None)
        net.rereads[new] = after
    else:
        net.rereads.pop(new, None)
        net.inserts[new] = after
