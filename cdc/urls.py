"""Database URLs: taking the password out, and telling whether two lead to the same place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

from appliers.registry import APPLIERS
from cdc.sources.registry import SOURCES

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL
)
_PORTS = {"postgresql": ":5432", "postgres": ":5432", "mysql": ":3306", "mariadb": ":3306"}
_PASSWORD = re.compile(r"(?<=[?&])password=([^&]*)&?")


class BadUrl(Exception):
    """A URL that cannot be used: what was expected and found. Shows nothing of the URL but its scheme."""

    def __init__(self, expected: str, found: str, nearest: str | None = None) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected, self.found, self.nearest = expected, found, nearest


def split(
    template: str, expand: Callable[[str], str] = str, directory: Path | None = None
) -> tuple[str, str | None]:
    """A URL without its password, and the password.

    `expand` replaces variables. A password that comes out of a variable is taken as it is; one that
    is written in the URL is percent-decoded. A SQLite file's relative path begins at `directory`
    (the configuration's), so that every command means the same file.
    """
    if "://" not in template:
        # The whole URL, or its scheme, comes out of a variable.
        template, expand = expand(template), str
    match = _URL.fullmatch(template)
    if match is None:
        raise BadUrl("a URL such as postgresql://user@host:5432/database", "no scheme with ://")
    scheme, authority, rest = expand(match["scheme"]), match["authority"], match["rest"]
    known = {**SOURCES, **APPLIERS}
    if scheme not in known:
        near = next(iter(difflib.get_close_matches(scheme, known, n=1)), None)
        raise BadUrl(
            f"one of {', '.join(f'{s}://' for s in known)}", f"{scheme}://", near and f"{near}://"
        )
    if scheme == "sqlite":
        return _sqlite(expand(authority), expand(rest), directory), None
    if "@" not in authority and "@" in rest.partition("?")[0]:
        raise BadUrl("a password with / ? # written as %2F %3F %23", "one of them before the @")
    userinfo, at, host = authority.rpartition("@")
    user, _, secret = userinfo.partition(":")
    secret = expand(unquote(secret))
    if found := _PASSWORD.search(rest):
        secret = secret or expand(unquote(found[1]))
        rest = _PASSWORD.sub("", rest).rstrip("?&")
    return (
        f"{scheme}://{expand(user)}{at if user else ''}{expand(host)}{expand(rest)}",
        secret or None,
    )


def user(url: str) -> str | None:
    """The role that a URL names, if it does."""
    match = _URL.fullmatch(url)
    found = match["authority"].rpartition("@")[0].partition(":")[0] if match else ""
    return unquote(found) or None


def place(url: str) -> tuple[str, str]:
    """Which database a URL leads to, whoever asks: host and the database's name, or the file."""
    match = _URL.fullmatch(url)
    if match is None:
        return ("", url)
    path, _, query = match["rest"].partition("?")
    host = match["authority"].rpartition("@")[2].lower()
    if not host:
        # libpq takes host and port out of the query too, a socket's folder for one.
        host = "&".join(p for p in query.split("&") if p.startswith(("host=", "port=")))
    return (host.removesuffix(_PORTS.get(match["scheme"], ":")), unquote(path[1:]))


def home(url: str) -> str:
    """The schema that a table's bare name means: MySQL's schemas are databases."""
    return place(url)[1] if url.startswith(("mysql:", "mariadb:")) else "public"


def _sqlite(authority: str, rest: str, directory: Path | None) -> str:
    path, question, query = rest.partition("?")
    if authority or len(path) < 2 or path == "/:memory:":
        raise BadUrl("a file, such as sqlite:////var/lib/cdc/crm.db", "no path after sqlite:///")
    if not path.startswith("//") and directory is not None:
        path = "/" + quote(str(directory / unquote(path[1:])))
    return f"sqlite://{path}{question}{query}"
