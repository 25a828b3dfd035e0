"""A certificate for a PostgreSQL server, and a URL that reaches it over TLS."""

from __future__ import annotations

import os
import subprocess
from typing import Final

from cdc.demo.server import LocalPostgres

SELF_SIGNED: Final = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2".split()


def use_tls(server: LocalPostgres) -> None:
    """Restarts a server, with a certificate of its own. Not the wheel's, which is built without OpenSSL."""
    server.stop()
    owner = server.data.stat()
    key, certificate = server.data / "server.key", server.data / "server.crt"
    subprocess.run(
        [*SELF_SIGNED, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    for part in (key, certificate):
        os.chown(part, owner.st_uid, owner.st_gid)
        part.chmod(0o600)
    server.configure({"ssl": True})
    server.start()


def over_tls(url: str) -> str:
    """A server's URL, with TLS and without a certificate of the user's."""
    return f"{url}?sslmode=require&sslcert=none"
