"""`make bench` over TLS: the backlogs of tests/test_bench.py from a PostgreSQL 15 of the machine's, as the
wheel's PostgreSQL is built without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import MakeServer
from tests.test_bench import SERVER, Pair, print_backlogs
from tests.tls import over_tls, use_tls

pytestmark = pytest.mark.bench


@pytest.fixture
def pair(make_server: MakeServer, tmp_path: Path) -> Iterator[Pair]:
    source, target = (make_server(SERVER, version=15) for _ in range(2))
    use_tls(source)
    pair = Pair(source, target, tmp_path)
    pair.source_url = over_tls(source.url("postgres"))
    yield pair
    pair.on_source.close()
    pair.on_target.close()


def test_backlog_over_tls(pair: Pair) -> None:
    """Backlogs beside a subscription, both over TLS; prints the ratio of rates (more is better)."""
    print_backlogs(pair, ", TLS")
