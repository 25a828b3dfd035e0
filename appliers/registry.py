"""Which applier writes to which URL. A new target is one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from appliers.applier import Applier
from appliers.errors import PermanentError
from appliers.imports import imported
from appliers.unrepresentable import DEFAULT, Unrepresentable

APPLIERS = {
    "postgresql": "appliers.postgres:PostgresApplier",
    "postgres": "appliers.postgres:PostgresApplier",
    "mysql": "appliers.mysql:MysqlApplier",
    "mariadb": "appliers.mysql:MysqlApplier",
    "sqlite": "appliers.sqlite:SqliteApplier",
}


def applier_for(
    url: str, password: str | None, sync: str, policy: Unrepresentable = DEFAULT
) -> Applier:
    """The applier of `sync` for a target's URL; not connected yet. Imports only its own target.

    `policy` matters to who writes rows or asks how tables would be created.
    """
    scheme = url.partition(":")[0]
    if scheme not in APPLIERS:
        raise PermanentError(
            f"no applier for {scheme}:// targets", f"known targets: {', '.join(sorted(APPLIERS))}"
        )
    make = cast(
        "Callable[[str, str | None, str, Unrepresentable], Any]", imported(APPLIERS[scheme])
    )
    return cast("Applier", make(url, password, sync, policy))
