"""URLs of MySQL and MariaDB: what PyMySQL is to be told, and its connection. For the source and for the
target alike."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import unquote

import pymysql
import pymysql.connections
from pymysql.constants import CR

from appliers.errors import PermanentError

_URL = re.compile(
    r"(?P<scheme>mysql|mariadb)://(?:(?P<user>[^@/?#]*)@)?(?P<host>\[[^\]]*\]|[^:/?#]*)(?::(?P<port>\d+))?"
    r"(?:/(?P<database>[^?#]*))?(?:\?(?P<query>.*))?"
)
SSL_MODES: Final = ("disabled", "preferred", "required", "verify-ca", "verify-identity")
"""As the servers' own clients call them (MySQL manual, "Command Options for Encrypted Connections").
Unless one is given: verify-ca where a certificate authority is named, else preferred."""

PARAMETERS: Final = ("ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "connect-timeout", "socket")
"""What may stand behind the `?`."""

DEFAULT_PORT: Final = 3306
CONNECT_TIMEOUT: Final = 10
"""Seconds."""


class Connection(pymysql.connections.Connection):
    """PyMySQL's, which reads all of the system's certificates for each connection that verifies none:
    26 ms, of 35 that a connection takes (measured on Debian 12)."""

    def _create_ssl_ctx(self, options: Any) -> ssl.SSLContext:
        made = super()._create_ssl_ctx(options) if options else unverified()  # type: ignore[misc]
        assert isinstance(made, ssl.SSLContext)
        return made

    def _get_server_information(self) -> None:
        """The greeting, waited for as long as the connection: a server of another protocol waits for
        us to speak first, and PyMySQL's patience here is that for answers, minutes or none."""
        patience: float | None = self._read_timeout  # type: ignore[has-type]
        self._read_timeout = self.connect_timeout
        try:
            super()._get_server_information()  # type: ignore[misc]
        except pymysql.MySQLError as e:
            # The server's own refusals (too many connections) come in place of a greeting, and stay.
            silent = isinstance(e.__context__, TimeoutError)
            if not silent and not isinstance(e, pymysql.InternalError):
                raise
            found = f"nothing within {self.connect_timeout} seconds" if silent else "something else"
            raise pymysql.OperationalError(
                CR.CR_CONN_HOST_ERROR,
                f"expected the greeting of a MySQL or MariaDB server, got {found}",
            ) from e
        finally:
            self._read_timeout = patience


def refuses_tls(error: Exception) -> bool:
    """Whether the handshake has failed for a reason that will not pass, a certificate mostly: PyMySQL
    says of it that it cannot connect (2003). One that was cut off may pass."""
    cause = getattr(error, "original_exception", None)
    cut_off = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, cut_off)


@cache
def unverified() -> ssl.SSLContext:
    """For encrypted connections to a server whose certificate is not looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def parameters(url: str) -> tuple[re.Match[str], dict[str, str]]:
    """The parts of a URL, and what stands behind its `?`. Raises PermanentError, without showing it, for
    one that is none of ours."""
    match = _URL.fullmatch(url)
    if match is None or not match["database"]:
        raise PermanentError(
            "expected a URL such as mysql://user@host:3306/database, got one without"
            f" {'a database' if match else 'its form'}",
            "correct the URL",
        )
    given = _parameters(match["query"] or "")
    _seconds(given.get("connect-timeout"))
    _mode(given)
    return match, given


def arguments(url: str, password: str | None) -> dict[str, Any]:
    """PyMySQL's keyword arguments for a URL: user, password, host or unix_socket, port, database,
    TLS, connect_timeout. Raises PermanentError, for files that it names too."""
    match, given = parameters(url)
    user, _, secret = (match["user"] or "").partition(":")
    secret = password if password is not None else unquote(secret)
    found: dict[str, Any] = {
        # Bytes: PyMySQL would encode text as latin1.
        "password": secret.encode(),
        "database": unquote(match["database"]),
        "connect_timeout": _seconds(given.get("connect-timeout")),
    }
    if user:
        found["user"] = unquote(user)
    if socket := given.get("socket"):
        found["unix_socket"] = socket
    else:
        found["host"] = unquote(match["host"]).strip("[]") or "127.0.0.1"
        found["port"] = int(match["port"] or DEFAULT_PORT)
    return found | _tls(given)


def database(url: str) -> str:
    """The database that a URL names."""
    return unquote(parameters(url)[0]["database"])


def _parameters(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        name = name.replace("_", "-")
        if name not in PARAMETERS:
            raise PermanentError(
                f"the URL has the parameter {name}, expected one of {', '.join(PARAMETERS)}",
                "correct the URL",
            )
        found[name] = unquote(value)
    return found


def _seconds(text: str | None) -> int:
    if text is None:
        return CONNECT_TIMEOUT
    if not text.isdecimal() or not 0 < int(text) <= 3600:
        raise PermanentError(
            "the URL's connect-timeout is not a number of seconds from 1 to 3600",
            "correct the URL",
        )
    return int(text)


def _mode(given: Mapping[str, str]) -> str:
    mode = given.get("ssl-mode", "verify-ca" if "ssl-ca" in given else "preferred").lower()
    mode = mode.replace("_", "-")
    if mode not in SSL_MODES:
        raise PermanentError(
            f"the URL's ssl-mode is none of {', '.join(SSL_MODES)}",
            "correct the URL",
        )
    return mode


def _tls(given: Mapping[str, str]) -> dict[str, Any]:
    files = {n: given[n] for n in ("ssl-ca", "ssl-cert", "ssl-key") if n in given}
    mode = _mode(given)
    if mode == "disabled":
        return {"ssl_disabled": True}
    if mode == "preferred" and not files:
        return {}
    if mode == "required" and not files:
        return {"ssl": unverified()}
    try:
        context = ssl.create_default_context(cafile=files.get("ssl-ca"))
        # The certificates that servers make for themselves do not pass it.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = mode == "verify-identity"
        if mode in ("preferred", "required"):
            context.verify_mode = ssl.CERT_NONE
        if "ssl-cert" in files:
            context.load_cert_chain(files["ssl-cert"], files.get("ssl-key"))
    except (OSError, ssl.SSLError) as e:
        names = ", ".join(files) or "the system's certificates"
        reason = getattr(e, "strerror", None) or "no certificate in it"
        raise PermanentError(
            f"{names} of the URL cannot be used: {reason}", "check the files that the URL names"
        ) from e
    return {"ssl": context}
