"""URLs of PostgreSQL, which libpq reads. For the source and for the target alike."""

from __future__ import annotations

import difflib
import re
from typing import Any

import psycopg
from psycopg import conninfo, pq

from appliers.errors import PermanentError

_PARAMETER = re.compile(r'invalid URI query parameter: "(.*)"')


def parameters(url: str) -> dict[str, Any]:
    """What a URL tells libpq. Raises PermanentError, which shows nothing of the URL but a parameter's name,
    where that cannot read it."""
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as e:
        said = str(e).strip()
    else:
        if re.fullmatch("[0-9,]*", str(given.get("port", ""))):
            return given
        said = "its port is no number"
    unknown = _PARAMETER.fullmatch(said)
    if unknown is None:
        # What it quotes may be a secret.
        why = said.partition('"')[0].rstrip(": ")
        raise PermanentError(
            f"expected a URL such as postgresql://user@host:5432/database, got one that libpq does not read: {why}",
            "correct the URL",
        )
    known = [d.keyword.decode() for d in pq.Conninfo.get_defaults()]
    near = next(iter(difflib.get_close_matches(unknown[1], known, n=1)), None)
    raise PermanentError(
        f"the URL has the parameter {unknown[1]}, expected one of libpq's",
        f"write it as {near}, the nearest" if near else "take it out of the URL",
    )
