"""A place in a binary log."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Self
from urllib.parse import quote, unquote

from appliers.errors import PermanentError
from cdc.sources.mysql.gtid import MariadbGtids, MysqlGtids, parse_gtids

_FILE = re.compile(r"(.*)\.([0-9]+)")
_PREPARED = re.compile(r"([0-9a-f]*)\.([0-9a-f]*)\.([0-9]+)@(.*):([0-9]+)")
LOG_BEGIN: Final = 4
"""Where the first event of a file begins: behind its magic number."""


class Xid(NamedTuple):
    """Names an XA transaction (X/Open XID). Prints as the two parts in hex and the format's number."""

    branch_of: bytes
    """gtrid, at most 64 bytes."""
    branch: bytes
    """bqual, at most 64 bytes."""
    format: int

    def __str__(self) -> str:
        return f"{self.branch_of.hex()}.{self.branch.hex()}.{self.format}"


class Prepared(NamedTuple):
    """Where the rows of a prepared XA transaction stand that is not over yet."""

    xid: Xid
    file: str
    offset: int
    """Of its first event, the GTID."""


@dataclass(frozen=True, slots=True)
class BinlogPosition:
    """Behind a transaction in the log, in as many terms as the server has.

    Invariant: every transaction before it has been given whole, but for the rows of `prepared` ones,
    which are given with their XA COMMIT and read again at their place if need be. So a checkpoint
    here, with what it holds, is enough to go on from: nothing else has to be remembered.

    `file` and `offset` are the one order that a server's own log has, so they decide between two
    positions of one server; whether it is the same server is checked apart (identity).
    """

    file: str
    offset: int
    gtids: MysqlGtids | MariadbGtids | None = None
    """What is in the log up to here; None: the server numbers no transactions (gtid_mode is not ON).
    It may lack what `file` and `offset` have (a start position of MySQL), never the reverse."""
    prepared: tuple[Prepared, ...] = ()
    replaced: tuple[str, ...] = ()
    """Tables (`database.table`) whose rows are others from here on, and the log does not say which:
    a stream that begins here needs them to be copied anew. Its own positions have it no more."""
    files: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    """Names and sizes of the log's files in their order, known to a head only; not in the text."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads back what `str` gave. Raises PermanentError."""
        try:
            place, *rest = text.split(" ")
            file, offset = _place(place)
            made = cls(file, offset)
            for part in rest:
                name, _, value = part.partition("=")
                if name == "gtids":
                    made = replace(made, gtids=parse_gtids(value))
                elif name == "xa":
                    made = replace(made, prepared=tuple(map(_prepared, value.split(","))))
                elif name == "copy":
                    made = replace(made, replaced=tuple(map(unquote, value.split(","))))
                else:
                    raise ValueError(name)
        except ValueError as e:
            raise PermanentError(
                f"expected a binary log position (file:offset gtids=…), got {text!r}",
                "the sync was started on another source: `cdc drop` it and start it anew",
            ) from e
        return made

    def __str__(self) -> str:
        text = f"{self.file}:{self.offset}"
        if self.gtids is not None:
            text += f" gtids={self.gtids}"
        if self.prepared:
            text += " xa=" + ",".join(f"{p.xid}@{p.file}:{p.offset}" for p in self.prepared)
        if self.replaced:
            text += " copy=" + ",".join(quote(table, safe="") for table in self.replaced)
        return text

    @property
    def whole(self) -> bool:
        return not self.replaced

    def covers(self, other: object) -> bool:
        """Whether everything up to `other` is also up to here."""
        if not isinstance(other, BinlogPosition):
            raise TypeError(f"expected a BinlogPosition, got {type(other).__name__}")
        mine, theirs = _order(self.file), _order(other.file)
        if mine[0] == theirs[0]:
            return (mine[1], self.offset) >= (theirs[1], other.offset)
        # The log was given another name: only the transactions' own names can tell.
        if self.gtids is None or other.gtids is None:
            return False
        return self.gtids.contains(other.gtids)

    def holds(self, transaction: str) -> bool:
        """Whether the transaction with this `Commit.position` (a GTID, or the place where it begins)
        lies before here. Raises ValueError for what is neither."""
        if self.gtids is not None and not _FILE.fullmatch(transaction.rpartition(":")[0]):
            return self.gtids.holds(transaction)
        file, offset = _place(transaction)
        return not BinlogPosition(file, offset).covers(self)

    def since(self, other: object) -> int | None:
        """Bytes of log from `other` up to here, 0 if `other` covers this. None if the file of `other`
        is another one and this position does not know the sizes of those in between, or it is gone. A
        head (it knows the files) does not know what lies behind it either: no log has that, unless it has
        grown since; after a RESET, and on another server, it is of another log."""
        if not isinstance(other, BinlogPosition):
            raise TypeError(f"expected a BinlogPosition, got {type(other).__name__}")
        if other.covers(self):
            return None if self.files and not self.covers(other) else 0
        if other.file == self.file:
            return self.offset - other.offset
        names = [name for name, _ in self.files]
        if other.file not in names or self.file not in names:
            return None
        first, last = names.index(other.file), names.index(self.file)
        between = sum(size for _, size in self.files[first:last])
        return max(0, between - other.offset + self.offset)

    def place(self) -> tuple[str, int]:
        return self.file, self.offset

    def same_log(self, other: BinlogPosition) -> bool:
        """Whether the files of both are of one name, so that file and offset order them."""
        return _order(self.file)[0] == _order(other.file)[0]


def _order(file: str) -> tuple[str, int]:
    """A log file's base name, and its number, which grows beyond six digits."""
    found = _FILE.fullmatch(file)
    return (found[1], int(found[2])) if found else (file, 0)


def _place(text: str) -> tuple[str, int]:
    file, _, offset = text.rpartition(":")
    if not _FILE.fullmatch(file) or not offset.isdigit():
        raise ValueError(f"expected file:offset, got {text!r}")
    return file, int(offset)


def _prepared(text: str) -> Prepared:
    found = _PREPARED.fullmatch(text)
    if not found:
        raise ValueError(text)
    xid = Xid(bytes.fromhex(found[1]), bytes.fromhex(found[2]), int(found[3]))
    return Prepared(xid, found[4], int(found[5]))
