"""Which source reads which URL. A new source is one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from appliers.errors import PermanentError
from appliers.imports import imported
from cdc.sources.source import Source

SOURCES = {
    "postgresql": "cdc.sources.postgres:PostgresSource",
    "postgres": "cdc.sources.postgres:PostgresSource",
    "mysql": "cdc.sources.mysql.source:MysqlSource",
    "mariadb": "cdc.sources.mysql.source:MysqlSource",
}


def source_for(url: str, password: str | None, sync: str) -> Source:
    """The source of `sync` for a database's URL; not connected yet. Imports only its own source."""
    scheme = url.partition(":")[0]
    if scheme not in SOURCES:
        raise PermanentError(
            f"{scheme}:// databases cannot be a source",
            f"known sources: {', '.join(sorted(SOURCES))}",
        )
    make = cast("Callable[[str, str | None, str], Any]", imported(SOURCES[scheme]))
    return cast("Source", make(url, password, sync))


@contextmanager
def opened(url: str, password: str | None, sync: str) -> Iterator[Source]:
    """The same, connected for a few questions. Raises SyncError."""
    source = source_for(url, password, sync)
    try:
        source.open()
        yield source
    finally:
        source.close()
