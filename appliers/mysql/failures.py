"""What an error of MySQL or MariaDB means for a sync: one table from error number to verdict and hint.

Numbers: MySQL manual, "Server Error Message Reference"; MariaDB's own from 1900 (MariaDB Knowledge
Base, "MariaDB Error Code Reference"). The server's own text is passed on only where it cannot hold a
row's values: errors about data and constraints are put into words of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import pymysql

from appliers.errors import OrderError, PermanentError, SyncError, TransientError
from appliers.mysql_url import refuses_tls

Error = pymysql.err.MySQLError


class Verdict(NamedTuple):
    """What to do about an error: raise `kind` with `hint`."""

    kind: type[SyncError]
    hint: str


def _transient(hint: str) -> Verdict:
    return Verdict(TransientError, hint)


def _permanent(hint: str) -> Verdict:
    return Verdict(PermanentError, hint)


DUPLICATE: Final = frozenset([1022, 1062, 1169, 1586, 1761, 1762])
"""A row stands in the way of a unique value."""
NO_PARENT: Final = frozenset([1216, 1452])
HAS_CHILDREN: Final = frozenset([1217, 1451])
ORDERLY: Final = DUPLICATE | NO_PARENT | HAS_CHILDREN
"""Errors that another order of the same rows may not meet."""
ALTERING: Final = frozenset([1054, 1072, 1136, 1146, 1176, 1364])
"""The table is not what it was when it was looked at."""
NOT_LOCAL: Final = frozenset([1047, 1148, 1235, 1295, 3948, 4166])
"""LOAD DATA LOCAL is not allowed, or a proxy does not know it."""
CANNOT_LOCK: Final = 1015
TOO_LARGE: Final = frozenset([1153, 1301])
"""A statement, or the result of a function (UNHEX), is larger than max_allowed_packet."""
TOO_WIDE: Final = frozenset([1005, 1117, 1118])
"""A table with these columns cannot be made (MariaDB: 1005 for more than 1017 of them)."""
LOST: Final = _transient("see that the target is up and reachable; it is tried again until it is")
STOPPING: Final = _transient("the target is stopping or starting; it is tried again until it is up")
WIDEN: Final = _permanent(
    "widen the target's column to the source's type, or correct the row on the source"
)
CONSTRAINT: Final = _permanent("compare the constraints of the target's table with the source's")
GRANT: Final = _permanent(
    "grant the right to the user in the target's URL; `cdc check` lists the grants"
)
ALTERED: Final = _permanent(
    "the target's table was altered: run `cdc check`, then start the sync again"
)
READ_ONLY: Final = _transient(
    "the target is read-only: a replica, or read_only is on; it is tried again until it takes writes"
)
ROOM: Final = _transient(
    "make room on the target's disk, or in its tablespaces where they have a limit; it is tried again"
    " until there is"
)
FILES: Final = _transient("the target has trouble with its files: look into its server log")
ORDER: Final = Verdict(
    OrderError,
    "sync the table that the foreign key refers to in the same sync, or drop the foreign key on the target",
)

VERDICTS: Final[dict[int, Verdict]] = {
    **dict.fromkeys((0, 2002, 2003, 2005, 2006, 2013, 2014, 2027, 2055), LOST),
    **dict.fromkeys((1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184), LOST),
    **dict.fromkeys((1927, 3169, 4031), LOST),
    **dict.fromkeys((1078, 1080, 1182, 1194), STOPPING),
    3032: _transient("SET GLOBAL offline_mode = OFF; on the target; it is tried again until it is"),
    **dict.fromkeys((1044, 1142, 1143, 1227, 1370, 1410), GRANT),
    **dict.fromkeys(
        (1045, 1698, 1130, 1251, 1862, 1820, 3118, 2058, 2059, 2061, 4151),
        _permanent("correct user and password of the target's database in the configuration"),
    ),
    2026: _permanent(
        "correct ssl-mode, ssl-ca, ssl-cert or ssl-key in the URL, or the target's certificate"
    ),
    1049: _permanent("correct the database's name in the target's URL, or create the database"),
    **dict.fromkeys(
        (1040, 1203, 1226, 1135),
        _transient(
            "raise max_connections on the target, or its user's own limit, or end sessions there; it is"
            " tried again until there is room"
        ),
    ),
    **dict.fromkeys((1036, 1290, 1792, 1836, 1874, 1881, 3707, 4056), READ_ONLY),
    **dict.fromkeys((1021, 1114, 3675, 20), ROOM),
    **dict.fromkeys((1, 2, 3, 4, 5, 6, 9, 29, 1004, 1015, 1016, 1023, 1026, 1030), FILES),
    **dict.fromkeys(
        (1037, 1038, 1041),
        _transient("the target is short of a resource: look into its server log"),
    ),
    **dict.fromkeys(
        (1205, 1213, 1020, 1412, 1614, 3058, 3572),
        _transient("another transaction on the target was in the way; it is tried again"),
    ),
    **dict.fromkeys(
        (1206, 1637, 3019),
        _transient("the transaction is too large for the target now: look into its server log"),
    ),
    **dict.fromkeys(
        (1047, 1180, 3100, 3101),
        _transient("the target's cluster has refused the transaction; it is tried again"),
    ),
    1129: _transient("the target refuses this host after too many failed connections: FLUSH HOSTS"),
    **dict.fromkeys(
        (1317, 1969, 3024),
        _transient("somebody cancelled the statement on the target; it is tried again"),
    ),
    **dict.fromkeys(
        DUPLICATE,
        _permanent(
            "compare the unique indexes of the target's table with the source's, and find who else"
            " writes into the table"
        ),
    ),
    **dict.fromkeys(NO_PARENT | HAS_CHILDREN, ORDER),
    **dict.fromkeys((1048, 1263, 1364, 3819, 4025), CONSTRAINT),
    **dict.fromkeys((1526, 1748), _permanent("add a partition for the row to the target's table")),
    **dict.fromkeys((1264, 1265, 1292, 1300, 1366, 1406, 1411, 1416, 1441, 1690, 3140), WIDEN),
    **dict.fromkeys((1261, 1262), WIDEN),
    **dict.fromkeys((1867, 1977, 3854, 3988), WIDEN),
    **dict.fromkeys(
        (1054, 1072, 1091, 1136, 1146, 1176, 1347, 1356, 1471, 1906, 3105),
        ALTERED,
    ),
    **dict.fromkeys(
        TOO_LARGE,
        _permanent(
            "SET GLOBAL max_allowed_packet = 1073741824; on the target, and in its configuration file"
        ),
    ),
    **dict.fromkeys(
        (1118, 1074, 1070, 1071, 1117),
        _permanent("create the table on the target yourself, with shorter columns"),
    ),
    1665: _permanent("SET GLOBAL binlog_format = 'ROW'; on the target"),
    **dict.fromkeys(
        (1644, 1442, 1172, 1422),
        _permanent(
            "a trigger on the target refuses the row: compare it with what the source holds"
        ),
    ),
    **dict.fromkeys((1034, 1035, 1712), _permanent("the target's data is damaged: see its log")),
}

UNKNOWN: Final = _permanent(
    "look the number up in the server's manual, and into the triggers and the server log of the target"
)

WORDS: Final[dict[int, str]] = {
    **dict.fromkeys(DUPLICATE, "unique index {key} is violated"),
    **dict.fromkeys(NO_PARENT, "foreign key {constraint} is violated: there is no such parent row"),
    **dict.fromkeys(HAS_CHILDREN, "foreign key {constraint} is violated: rows refer to the row"),
    **dict.fromkeys((1048, 1263), "NULL in column {column}, which is NOT NULL on the target"),
    1364: "column {column} has no default on the target, and the source has no such column",
    **dict.fromkeys((1264, 1690), "a number is out of range for column {column}"),
    **dict.fromkeys((1265,), "a value would be cut or rounded in column {column}"),
    **dict.fromkeys((1292, 1366, 1411, 1441, 1525), "a value cannot be read by column {column}"),
    **dict.fromkeys((1867, 1977, 3140), "a value cannot be read by column {column}"),
    **dict.fromkeys((1300, 3854, 3988), "a value cannot be read in its character set"),
    **dict.fromkeys((1526, 1748), "the target's table has no partition for a row"),
    1406: "a value is too long for column {column}",
    1416: "a value is no geometry that column {column} can hold",
    **dict.fromkeys((3819, 4025), "check constraint {constraint} is violated"),
    **dict.fromkeys(TOO_LARGE, "a row is larger than the target's max_allowed_packet"),
    **dict.fromkeys((1644, 1172, 1422), "a trigger raised an error"),
    **dict.fromkeys((1261, 1262), "a row has not as many values as the target's table has columns"),
}
"""For errors whose own text may hold a row's values."""

_NO_ROOM: Final = re.compile(r"(?:errno|Errcode|error):? (?:28|13[56]|122\W+Disk quota)\b")
"""Of errors about files, what the system or the engine says: ENOSPC, HA_ERR_RECORD_FILE_FULL and
HA_ERR_INDEX_FILE_FULL, EDQUOT. MariaDB says 1005 with 135 of a table that has no room to be made."""
_READ_ONLY: Final = re.compile(r"errno: 165\b")
"""HA_ERR_TABLE_READONLY: with it MySQL refuses to write under innodb_read_only."""
_MAY_BE_ROOM: Final = frozenset([1005, *(code for code, v in VERDICTS.items() if v is FILES)])

_COLUMN: Final = re.compile(
    r".*\b[Cc]olumn [`'](?:.*`\.`)?(.+?)[`'](?: at row \d+| cannot|$)", re.DOTALL
)
_FIELD: Final = re.compile(r"(?:Column|Field) '(.+?)' (?:cannot be null|doesn't have)", re.DOTALL)
_KEY: Final = re.compile(r".*for key '(.+)'$", re.DOTALL)
_CONSTRAINT: Final = re.compile(r".*CONSTRAINT `(.+?)`(?: FOREIGN KEY|\s|$)", re.DOTALL)
_CHECK: Final = re.compile(
    r"(?:Check constraint '(.+)' is violated|CONSTRAINT `(.+?)` failed)", re.DOTALL
)


def code_of(error: Error) -> int:
    """Its number; 0 for a connection that is closed."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def has_no_room(error: Error) -> bool:
    """Whether the target's disk is full."""
    code = code_of(error)
    if code in _MAY_BE_ROOM:
        return _NO_ROOM.search(str(error.args[-1])) is not None
    return VERDICTS.get(code) is ROOM


def verdict(error: Error) -> Verdict:
    code = 2026 if refuses_tls(error) else code_of(error)
    if code == CANNOT_LOCK and _READ_ONLY.search(str(error.args[-1])):
        return READ_ONLY
    return ROOM if has_no_room(error) else VERDICTS.get(code, UNKNOWN)


def translate(error: Error, subject: str = "", *, connecting: bool = False) -> SyncError:
    """The error that leaves the applier. `subject` names the table and its key columns, or is ""."""
    code = 2026 if refuses_tls(error) else code_of(error)
    kind, hint = found = verdict(error)
    before = f"{subject}: " if subject else ""
    text = said(error)
    if connecting:
        text = _line(str(error.args[-1])) if error.args else text
        return kind(f"cannot connect to the target: {text} (error {code})", hint)
    if found is LOST:
        return kind(f"{before}lost the connection to the target: {text}", hint)
    if kind is OrderError:
        constraint = _found(_CONSTRAINT, str(error.args[1]))
        return OrderError(f"{before}{text} (error {code})", hint, constraint)
    return kind(f"{before}{text} (error {code})", hint)


def said(error: Error) -> str:
    """What happened, without a row's values."""
    code = code_of(error)
    text = str(error.args[1]) if len(error.args) > 1 else ""
    words = WORDS.get(code)
    if words is None and code not in VERDICTS and not has_no_room(error):
        # Whatever it is, such as a trigger's own: its text may be of anything.
        return "the target refuses a statement"
    if words is None:
        return _line(text) or "the connection is closed"
    return words.format(
        column=_found(_FIELD if code in (1048, 1364) else _COLUMN, text),
        key=_found(_KEY, text),
        constraint=_found(_CHECK if code in (3819, 4025) else _CONSTRAINT, text),
    )


@contextmanager
def translated(subject: str = "", *, connecting: bool = False) -> Iterator[None]:
    """Lets PyMySQL's errors leave as ours, without the original as their cause: it may hold values."""
    try:
        yield
    except pymysql.err.MySQLError as e:
        raise translate(e, subject, connecting=connecting) from None


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.match(text)
    return next((g for g in found.groups() if g), "(unnamed)") if found else "(unnamed)"


def _line(text: str) -> str:
    return "; ".join(part.strip() for part in text.splitlines() if part.strip())
