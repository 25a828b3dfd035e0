"""Which eyes the demo looks at its target with."""

from __future__ import annotations

from cdc.demo.copies import Copy, PostgresCopy, SqliteCopy
from cdc.demo.mysql_copy import MysqlCopy


def copy_at(url: str, password: str | None) -> Copy:
    """The target at a URL that the appliers know."""
    if url.startswith("sqlite:"):
        return SqliteCopy(url)
    if url.startswith(("mysql:", "mariadb:")):
        return MysqlCopy(url, password)
    return PostgresCopy(url, password)
