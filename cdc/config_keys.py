"""The keys of the configuration, and how a mistake in them is told.

A key exists when it works: what later versions will have is unknown until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from pydantic import BaseModel, ByteSize, ConfigDict

LOG_WARNING: Final = 10 * 10**9
"""Bytes."""


class Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DatabaseKeys(Keys):
    url: str
    password_file: str | None = None


class CustomerKeys(Keys):
    table: str
    related: dict[str, str] = {}


class SyncKeys(Keys):
    source: str
    target: str
    tables: list[str] | None = None
    strategy: Literal["realtime"] = "realtime"
    direction: Literal["one-way"] = "one-way"
    mode: Literal["incremental"] = "incremental"
    on_error: Literal["stop"] = "stop"
    on_unrepresentable: Literal["error", "null", "text"] = "error"
    log_warning: ByteSize = ByteSize(LOG_WARNING)
    log_limit: ByteSize | None = None


class FileKeys(Keys):
    databases: dict[str, DatabaseKeys]
    customer: CustomerKeys | None = None
    sync: dict[str, SyncKeys]


def known_keys(at: Sequence[str | int]) -> list[str]:
    """The keys that the table at `at` may have."""
    match at:
        case ("databases", _):
            model: type[BaseModel] = DatabaseKeys
        case ("sync", _):
            model = SyncKeys
        case ("customer",):
            model = CustomerKeys
        case _:
            model = FileKeys
    return list(model.model_fields)


_SIZE: Final = 'a size such as "10GB"'
TYPES: Final = {
    "byte_size": _SIZE,
    "byte_size_unit": _SIZE,
    "string_type": "a string",
    "list_type": "an array of strings",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
WANTED: Final = {
    "databases": "at least one table [databases.NAME]",
    "sync": "at least one table [sync.NAME]",
    "url": "a string such as postgresql://user@host:5432/database",
    "source": "the name of one of [databases.*]",
    "target": "the name of one of [databases.*]",
    "table": "the name of the table with one row per customer",
}
