"""Places in a binary log: what they cover, how far they are apart, how they are written down."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysqlreplication.gtid import GtidSet

from appliers.errors import PermanentError
from cdc.sources.mysql.gtid import MariadbGtids, MysqlGtids, parse_gtids
from cdc.sources.mysql.place import Place
from cdc.sources.mysql.position import BinlogPosition, Prepared, Xid
from tests.mysql_databases import MysqlDatabase

GB = 1 << 30
A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
B = "4e11fa47-71ca-11e1-9e33-c80aa9429562"


def position(text: str) -> BinlogPosition:
    return BinlogPosition.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "binlog.000001:4",
        "my log-bin.1000000:99999999999 gtids=".replace(" log", "-log"),
        f"binlog.000002:157 gtids={A}:1-5:7:tag_a:1-3,{B}:1",
        "binlog.000002:157 gtids=0-1-57,1-2-9",
        "binlog.000002:157 gtids= copy=crm.t,crm.odd%20name%2C",
        "binlog.000002:157 gtids=0-1-57 xa=7831.62.7@binlog.000001:88,..1@binlog.000001:99",
    ],
)
def test_a_position_is_read_back_as_it_was(text: str) -> None:
    """It goes into the checkpoint as one line, and comes back equal."""
    assert str(position(text)) == text
    assert position(str(position(text))) == position(text)


@pytest.mark.parametrize("text", ["", "0/1A2B3C8", "binlog.000001", "binlog.000001:4 x=1", "a:4"])
def test_what_is_no_position_is_refused(text: str) -> None:
    """A checkpoint of another source says so, with the way out."""
    with pytest.raises(PermanentError, match="expected a binary log position"):
        position(text)


def test_file_and_offset_decide() -> None:
    """Later files cover earlier ones, whatever their offsets; numbers grow beyond six digits."""
    assert position("b.000002:4").covers(position("b.000001:900"))
    assert position("b.1000000:4").covers(position("b.999999:900"))
    assert position("b.000001:900").covers(position("b.000001:900"))
    assert not position("b.000001:899").covers(position("b.000001:900"))
    # A start position of MySQL: its set may lack what its offset has.
    assert position(f"b.000001:9 gtids={A}:1").covers(position(f"b.000001:8 gtids={A}:1-2"))


def test_gtids_decide_where_files_cannot() -> None:
    """A log that was given another name: neither of two sets covers the other if each has its own."""
    one, two = f"a.000001:9 gtids={A}:1-5", f"b.000001:4 gtids={A}:1-3"
    assert position(one).covers(position(two))
    assert not position(two).covers(position(one))
    assert not position(f"a.000001:9 gtids={A}:1-5").covers(position(f"b.000001:4 gtids={B}:1"))
    assert not position("a.000001:9").covers(position("b.000001:4"))


def test_bytes_between_positions() -> None:
    """In one file by offsets; across files only for a head that knows their sizes."""
    here = position("b.000003:100")
    assert here.since(position("b.000003:40")) == 60
    assert here.since(position("b.000003:400")) == 0
    assert here.since(position("b.000001:900")) is None
    sizes = (("b.000001", 1000), ("b.000002", 500), ("b.000003", 100))
    head = BinlogPosition("b.000003", 100, files=sizes)
    assert head.since(position("b.000001:900")) == 100 + 500 + 100
    assert head.since(position("b.000000:4")) is None
    assert head == here


def test_what_lies_behind_a_head_is_no_part_of_its_log() -> None:
    """Its log was reset, or is another server's: that is no lag of zero."""
    head = BinlogPosition("b.000002", 500, files=(("b.000001", 1000), ("b.000002", 500)))
    assert head.since(position("b.000002:500")) == 0
    assert head.since(position("b.000002:501")) is None
    assert head.since(position("b.000007:4")) is None


def test_a_position_holds_transactions() -> None:
    """By their GTID, or by the place where one begins that has none."""
    held = position(f"b.000002:100 gtids={A}:1-5:tag:1")
    assert held.holds(f"{A}:5")
    assert held.holds(f"{A}:tag:1")
    assert not held.holds(f"{A}:6")
    assert not held.holds(f"{A}:tag:2")
    assert held.holds("b.000001:900")
    assert held.holds("b.000002:99")
    assert not held.holds("b.000002:100")
    maria = position("b.000002:100 gtids=0-1-57,3-9-2")
    assert maria.holds("0-7-57")
    assert not maria.holds("0-1-58")
    assert not maria.holds("1-1-1")


def test_prepared_transactions_have_their_place() -> None:
    """Names may hold any byte."""
    places = (Prepared(Xid(b"a,b@:\0 ", b"", 4294967295), "b.000001", 88),)
    made = BinlogPosition("b.000002", 4, None, places)
    assert position(str(made)) == made


intervals = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=6)
sets = st.dictionaries(st.sampled_from([A, B, f"{A}:x", f"{B}:y"]), intervals, max_size=4)


def numbers(found: dict[str, list[tuple[int, int]]]) -> set[tuple[str, int]]:
    return {
        (name, n)
        for name, parts in found.items()
        for a, more in parts
        for n in range(a, a + more + 1)
    }


def made_of(members: set[tuple[str, int]], order: int = 0) -> MysqlGtids:
    made, shuffled = MysqlGtids(), sorted(members)
    random.Random(order).shuffle(shuffled)
    for name, number in shuffled:
        made.add(name, number)
    return made


@given(sets, sets, st.integers())
def test_sets_are_sets(
    one: dict[str, list[tuple[int, int]]], two: dict[str, list[tuple[int, int]]], order: int
) -> None:
    """Containment, membership, text and growth of GTID sets are those of sets of numbers."""
    mine, theirs = numbers(one), numbers(two)
    left, right = made_of(mine, order), made_of(theirs)
    assert left.contains(right) == (mine >= theirs)
    assert MysqlGtids.parse(str(left)) == left == made_of(mine)
    for name, number in theirs:
        assert left.holds(f"{name}:{number}") == ((name, number) in mine)
    copied = left.copy()
    for name, number in theirs:
        copied.add(name, number)
    assert copied == made_of(mine | theirs)
    assert left == made_of(mine)


@given(st.dictionaries(st.sampled_from([A, B]), intervals, max_size=2))
def test_sets_are_sent_as_the_library_sends_them(found: dict[str, list[tuple[int, int]]]) -> None:
    """Without tags, our form and python-mysql-replication's are one."""
    made = made_of(numbers(found))
    assert made.encoded() == GtidSet(str(made)).encoded()


def test_the_server_reads_our_sets(mysql_source: MysqlDatabase) -> None:
    """What we print and contain is what MySQL's own functions say, with tags."""
    texts = [f"{A}:1-5:7:tag:1-3,{B}:1", f"{A}:1-4:tag:2", f"{B}:1-2", f"{A}:TAG:3:other:1"]
    for one in texts:
        said = mysql_source.value("SELECT GTID_SUBTRACT(%s, '')", [one])
        assert str(MysqlGtids.parse(said)) == "".join(said.split())
        for two in texts:
            contained = mysql_source.value("SELECT GTID_SUBSET(%s, %s)", [two, one])
            assert MysqlGtids.parse(one).contains(MysqlGtids.parse(two)) == bool(contained)


def test_domains_are_apart() -> None:
    """MariaDB: each domain's last transaction stands for those before it, in that domain alone."""
    one = MariadbGtids.parse("0-1-57,1-2-9")
    assert one.contains(MariadbGtids.parse("0-9-57"))
    assert one.contains(MariadbGtids.parse("1-2-1"))
    assert not one.contains(MariadbGtids.parse("2-1-1"))
    assert one.contains(MariadbGtids())
    assert one.contains(parse_gtids(""))
    copied = one.copy()
    copied.add(2, 1, 1)
    assert copied.contains(one)
    assert not one.contains(copied)
    assert str(copied) == "0-1-57,1-2-9,2-1-1"


@pytest.mark.parametrize("text", ["0-1", "a-b-c", f"{A}", f"{A}:5-3", f"{A}:0", f"{A}:%", "x:1"])
def test_what_are_no_gtids_is_refused(text: str) -> None:
    """ValueError, nothing else."""
    with pytest.raises(ValueError, match="expected"):
        parse_gtids(text)


def test_a_transaction_that_passes_4_gb() -> None:
    """An event's header has the low 32 bits of its end; a file ends behind the transactions that were
    committed together with the one that made it too large. Positions count on."""
    place = Place(BinlogPosition.parse(f"b.000001:{GB // 2} gtids=0-1-1"), mariadb=True)
    place.rotate("b.000001", GB // 2)
    place.owns(0, 1, 2)
    for end in (GB, 2 * GB, 3 * GB, 4 * GB - 1, 4 * GB + 50, 5 * GB, 6 * GB, 7 * GB, 8 * GB + 7):
        place.at(end % (4 * GB))
        assert place.start(end % (4 * GB), 100) == end - 100
    assert place.position((), ()).place() == ("b.000001", GB // 2)
    place.passed()
    assert str(place.position((), ())) == f"b.000001:{8 * GB + 7} gtids=0-1-2"
    place.rotate("b.000002", 4)
    place.at(300)
    place.passed()
    assert str(place.position((), ())) == "b.000002:300 gtids=0-1-2"


def test_a_beginning_behind_4_gb() -> None:
    """A dump by GTID tells of the file's head first, and leaves out what lies before the beginning:
    until then positions are the beginning's."""
    start = BinlogPosition.parse(f"b.000001:{5 * GB} gtids=0-1-1")
    place = Place(start, mariadb=True)
    place.rotate("b.000001", 4)
    place.at(256)
    place.passed()
    assert place.position((), ()) == start
    place.owns(0, 1, 2)
    place.at((5 * GB + 900) % (4 * GB))
    place.passed()
    assert str(place.position((), ())) == f"b.000001:{5 * GB + 900} gtids=0-1-2"
