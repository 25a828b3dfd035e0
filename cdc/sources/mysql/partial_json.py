"""Partial updates of MySQL's JSON columns: what changed in a document, applied to the old one.

Sources: MySQL sql-common/json_diff.cc (`Json_diff_vector::read_binary`, `apply_json_diffs`) and
sql-common/json_path.cc (the paths' text). The server logs them with
`binlog_row_value_options = 'PARTIAL_JSON'`, which every session may set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from json import loads
from typing import Final

from cdc.sources.mysql.errors import ProtocolError
from cdc.sources.mysql.json import Node, json_tree, print_tree

HINT: Final = (
    "SET GLOBAL binlog_row_value_options = '' (and in the sessions that set it); then"
    " `cdc snapshot` copies everything again"
)
_REPLACE, _INSERT, _REMOVE = range(3)
_STEP: Final = re.compile(
    rb"""\s*(?:\.\s*(?:(?P<name>[^\s."\[\]*]+)|(?P<quoted>"(?:[^"\\]|\\.)*"))"""
    rb"""|\[\s*(?:(?P<cell>\d+)|(?P<last>last)(?:\s*-\s*(?P<back>\d+))?)\s*\])""",
    re.DOTALL,
)
_MOST_STEPS: Final = 200
"""A document is 100 deep at most."""

Step = bytes | int
"""A member's key, or an element's number; negative from the end."""


def apply_diffs(before: bytes, diffs: bytes) -> bytes:
    """The new document as the server prints it, from the old one and the differences, both binary.

    Raises ProtocolError where they do not fit.
    """
    tree = json_tree(before)
    try:
        for operation, path, value in _read(diffs):
            tree = _applied(tree, operation, path, value)
        return print_tree(tree)
    except (ValueError, OverflowError, RecursionError):  # numbers and depths of no document
        raise _unfit() from None


def _applied(tree: Node, operation: int, path: list[Step], value: Node) -> Node:
    if not path:
        return _root(operation, value)
    parent = _seek(tree, path[:-1])
    if isinstance(path[-1], int) and not isinstance(parent, list):
        # A scalar or an object is its own first element (json_dom.cc, `seek`, auto-wrap).
        return _wrapped(tree, path, operation, value)
    _change(parent, path[-1], operation, value)
    return tree


def _read(data: bytes) -> Iterator[tuple[int, list[Step], Node]]:
    """Operation, path, new value (`null` for a removal)."""
    position = 0
    while position < len(data):
        operation = data[position]
        if operation > _REMOVE:
            raise ProtocolError(f"expected a JSON difference, got operation {operation}", HINT)
        path, position = _string(data, position + 1)
        value: Node = b"null"
        if operation != _REMOVE:
            document, position = _string(data, position)
            value = json_tree(document)
        steps = list(islice(_steps(path), _MOST_STEPS + 1))
        if len(steps) > _MOST_STEPS:
            raise _unfit()
        yield operation, steps, value


def _string(data: bytes, position: int) -> tuple[bytes, int]:
    """A string behind its packed length (mysys/pack.cc), and where it ends."""
    size = {252: 2, 253: 3, 254: 8}.get(data[position], 0) if position < len(data) else 0
    start = position + 1 + size
    length = int.from_bytes(data[position + 1 : start], "little") if size else None
    if length is None and position < len(data) and data[position] < 251:
        length = data[position]
    if length is None or start + length > len(data):
        raise ProtocolError("expected a JSON difference, got one that is cut short", HINT)
    return data[start : start + length], start + length


def _steps(path: bytes) -> Iterator[Step]:
    path = path.strip()
    position = 1
    while position < len(path) and path[:1] == b"$":
        found = _STEP.match(path, position)
        if found is None:
            break
        position = found.end()
        if found["name"] is not None:
            yield found["name"]
        elif found["quoted"] is not None:
            yield _unquoted(found["quoted"])
        elif found["last"] is not None:
            yield -1 - int(found["back"] or 0)
        else:
            yield int(found["cell"])
    if path[:1] != b"$" or position != len(path):
        raise ProtocolError("expected the path of a JSON difference, got something else", HINT)


def _unquoted(name: bytes) -> bytes:
    try:
        return str(loads(name)).encode()
    except ValueError:
        raise ProtocolError("expected a key in a JSON path, got something else", HINT) from None


def _root(operation: int, value: Node) -> Node:
    if operation != _REPLACE:
        raise _unfit()
    return value


def _seek(node: Node, path: list[Step]) -> Node:
    for step in path:
        if isinstance(step, int) and not isinstance(node, list):
            if step not in {0, -1}:
                raise _unfit()
            continue
        try:
            node = node[step]  # type: ignore[index, assignment]
        except (KeyError, IndexError, TypeError):
            raise _unfit() from None
    return node


def _wrapped(tree: Node, path: list[Step], operation: int, value: Node) -> Node:
    """Replaces what a path names whose last steps stand on something that is no array."""
    if operation != _REPLACE or path[-1] not in {0, -1}:
        raise _unfit()
    path = path[:-1]
    if not path:
        return value
    parent = _seek(tree, path[:-1])
    if isinstance(path[-1], int) and not isinstance(parent, list):
        return _wrapped(tree, path, operation, value)
    _change(parent, path[-1], operation, value)
    return tree


def _change(parent: Node, step: Step, operation: int, value: Node) -> None:
    if isinstance(parent, dict) and isinstance(step, bytes):
        if (step in parent) is (operation == _INSERT):
            raise _unfit()
        if operation == _REMOVE:
            del parent[step]
        else:
            parent[step] = value
    elif isinstance(parent, list) and isinstance(step, int):
        if operation == _INSERT:
            parent.insert(step if step >= 0 else max(len(parent) + step + 1, 0), value)
        elif not -len(parent) <= step < len(parent):
            raise _unfit()
        elif operation == _REMOVE:
            del parent[step]
        else:
            parent[step] = value
    else:
        raise _unfit()


def _unfit() -> ProtocolError:
    return ProtocolError("expected the old JSON document to have what was changed in it", HINT)
