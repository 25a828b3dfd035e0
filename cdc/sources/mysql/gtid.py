"""Global transaction identifiers: MySQL's sets (with tags) and MariaDB's positions (one per domain).

Sources: MySQL manual, "GTID Sets" and "GTID Format and Storage"; the wire form is `Gtid_set::encode`
(mysql-server, sql/rpl_gtid_set.cc). MariaDB manual, "Global Transaction ID".
"""

from __future__ import annotations

import re
import struct
import uuid
from bisect import bisect_right
from typing import Final, Protocol, Self

from pymysqlreplication.gtid import GtidSet

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_INTERVAL = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_TAGGED: Final = 1
"""Gtid_format::tagged."""


class Gtids(Protocol):
    """Which transactions have been seen. What a position holds is never changed afterwards."""

    def __str__(self) -> str: ...

    def contains(self, other: Gtids) -> bool:
        """Whether every transaction of `other` is in here."""

    def holds(self, gtid: str) -> bool:
        """Whether one transaction is in here. Raises ValueError for what is no GTID."""

    def copy(self) -> Self: ...


class MysqlGtids:
    """A set of MySQL GTIDs: right-open intervals of numbers for each UUID, or UUID and tag."""

    __slots__ = ("intervals",)

    def __init__(self) -> None:
        self.intervals: dict[str, list[list[int]]] = {}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the server's form: `uuid:1-5:7:tag:1-3,uuid:…`. Raises ValueError."""
        made = cls()
        for part in "".join(text.split()).lower().split(","):
            if not part:
                continue
            source, *fields = part.split(":")
            if not _UUID.fullmatch(source) or not fields:
                raise ValueError(f"expected UUID:interval, got {part!r}")
            name = source
            for field in fields:
                if interval := _INTERVAL.fullmatch(field):
                    made.add_interval(name, int(interval[1]), int(interval[2] or interval[1]) + 1)
                elif _TAG.fullmatch(field):
                    name = f"{source}:{field}"
                else:
                    raise ValueError(f"expected an interval or a tag, got {field!r}")
        return made

    def __str__(self) -> str:
        """As the server prints it, without line breaks: sources sorted, tags behind their UUID."""
        parts: list[str] = []
        last = ""
        for name in sorted(self.intervals):
            source, _, tag = name.partition(":")
            ranges = ":".join(
                str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in self.intervals[name]
            )
            if source == last:
                parts[-1] += f":{tag}:{ranges}"
            else:
                parts.append(f"{name}:{ranges}")
                last = source
        return ",".join(parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MysqlGtids) and self.intervals == other.intervals

    __hash__ = None  # type: ignore[assignment]  # it can be added to

    def __bool__(self) -> bool:
        return bool(self.intervals)

    def add(self, name: str, number: int) -> None:
        """Adds one transaction of `uuid` or `uuid:tag`: nearly always the next of the last interval."""
        intervals = self.intervals.get(name)
        if intervals and intervals[-1][1] == number:
            intervals[-1][1] = number + 1
        else:
            self.add_interval(name, number, number + 1)

    def contains(self, other: Gtids) -> bool:
        if not isinstance(other, MysqlGtids):
            return str(other) == ""
        return all(
            self._covers(name, a, b)
            for name, intervals in other.intervals.items()
            for a, b in intervals
        )

    def holds(self, gtid: str) -> bool:
        name, _, number = gtid.lower().rpartition(":")
        if not number.isdigit() or not _UUID.fullmatch(name.partition(":")[0]):
            raise ValueError(f"expected a MySQL GTID, got {gtid!r}")
        return self._covers(name, int(number), int(number) + 1)

    def copy(self) -> Self:
        made = type(self)()
        made.intervals = {name: [*map(list, found)] for name, found in self.intervals.items()}
        return made

    def encoded(self) -> bytes:
        """For COM_BINLOG_DUMP_GTID. A set with tags has a form of its own (MySQL 8.3 and newer): the
        format's number in the first and the last byte of the count, and a tag behind each UUID."""
        if not any(":" in name for name in self.intervals):
            return bytes(GtidSet(str(self)).encoded())
        count = _TAGGED << 56 | len(self.intervals) << 8 | _TAGGED
        parts = [struct.pack("<Q", count)]
        for name in sorted(self.intervals):
            source, _, tag = name.partition(":")
            intervals = self.intervals[name]
            parts += [uuid.UUID(source).bytes, bytes([len(tag) << 1]), tag.encode()]
            parts.append(struct.pack("<Q", len(intervals)))
            parts += [struct.pack("<QQ", a, b) for a, b in intervals]
        return b"".join(parts)

    def _covers(self, name: str, first: int, end: int) -> bool:
        intervals = self.intervals.get(name, [])
        i = bisect_right(intervals, first, key=lambda interval: interval[0]) - 1
        return i >= 0 and end <= intervals[i][1]

    def add_interval(self, name: str, first: int, end: int) -> None:
        """Adds the transactions from `first` to before `end`. Raises ValueError."""
        if not 0 < first < end:
            raise ValueError(f"expected an interval of positive numbers, got {first}-{end - 1}")
        joined: list[list[int]] = []
        for interval in sorted([*self.intervals.get(name, []), [first, end]]):
            if joined and interval[0] <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], interval[1])
            else:
                joined.append(interval)
        self.intervals[name] = joined


class MariadbGtids:
    """A MariaDB GTID position: of each domain the last transaction, which stands for all before it."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: dict[int, tuple[int, int]] = {}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `domain-server-number,…`. Raises ValueError."""
        made = cls()
        for part in filter(None, "".join(text.split()).split(",")):
            made.add(*_triple(part))
        return made

    def __str__(self) -> str:
        return ",".join(f"{d}-{s}-{n}" for d, (s, n) in sorted(self.last.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MariadbGtids) and self.last == other.last

    __hash__ = None  # type: ignore[assignment]  # it can be added to

    def __bool__(self) -> bool:
        return bool(self.last)

    def add(self, domain: int, server: int, number: int) -> None:
        self.last[domain] = (server, number)

    def contains(self, other: Gtids) -> bool:
        if not isinstance(other, MariadbGtids):
            return str(other) == ""
        return all(self._number(d) >= n for d, (_, n) in other.last.items())

    def holds(self, gtid: str) -> bool:
        domain, _, number = _triple(gtid)
        return self._number(domain) >= number

    def copy(self) -> Self:
        made = type(self)()
        made.last = dict(self.last)
        return made

    def _number(self, domain: int) -> int:
        return self.last.get(domain, (0, 0))[1]


def parse_gtids(text: str) -> MysqlGtids | MariadbGtids:
    """Either kind, by its looks. An empty one is MySQL's; it compares with both. Raises ValueError."""
    return MysqlGtids.parse(text) if ":" in text or not text.strip() else MariadbGtids.parse(text)


def _triple(text: str) -> tuple[int, int, int]:
    parts = text.split("-")
    if len(parts) != 3 or not all(p.isdigit() for p in parts):
        raise ValueError(f"expected domain-server-number, got {text!r}")
    domain, server, number = map(int, parts)
    return domain, server, number
