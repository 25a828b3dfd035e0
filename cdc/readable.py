"""URLs as the libraries read them that will connect: what `cdc.urls` lets pass may be none for them.

Apart from the configuration, because it imports those libraries, for which a daemon, which stays, has no use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from appliers.errors import SyncError
from appliers.imports import imported
from cdc.config import Config, ConfigError, dotted
from cdc.urls import BadUrl, split

_READERS: Final = {
    "postgresql": "appliers.postgres_url:parameters",
    "postgres": "appliers.postgres_url:parameters",
    "mysql": "appliers.mysql_url:parameters",
    "mariadb": "appliers.mysql_url:parameters",
    "sqlite": "appliers.sqlite.connection:path_of",
}


def demand_readable(config: Config) -> None:
    """Raises ConfigError with a line for each URL that cannot be read."""
    wrong = []
    for name, database in config.databases.items():
        try:
            _read(database.url)
        except SyncError as e:
            wrong.append(f"{config.path}: {dotted(('databases', name, 'url'))}: {e}; {e.hint}")
    if wrong:
        raise ConfigError("\n".join(wrong))


def given(argument: str, text: str) -> tuple[str, str | None]:
    """The URL that an argument of a command is, without its password, and the password. Raises ConfigError."""
    try:
        url, password = split(text, directory=Path.cwd())
        _read(url)
    except BadUrl as e:
        raise ConfigError(f"{argument}: {e}") from None
    except SyncError as e:
        raise ConfigError(f"{argument}: {e}", e.hint) from None
    return url, password


def _read(url: str) -> None:
    read = cast("Callable[[str], object]", imported(_READERS[url.partition(":")[0]]))
    read(url)
