"""TLS and passwords to MariaDB and MySQL, through the command, as source and as target."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import Command, cdc
from tests.mysql_databases import MysqlDatabase
from tests.mysql_fixtures import MakeMysql
from tests.mysql_servers import LocalMysql

__all__ = ["cdc"]

FreshDatabase = Callable[[LocalMysql], MysqlDatabase]

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v varchar(20)); INSERT INTO t VALUES (1, 'é')"
OPENSSL = shutil.which("openssl") or "openssl"
ROWS = "SELECT id, v FROM t"


def certify(folder: Path) -> dict[str, Path]:
    """An authority, and a certificate of its for `localhost` alone."""

    def openssl(*arguments: str) -> None:
        subprocess.run([OPENSSL, *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        openssl(
            "req",
            "-x509",
            *new,
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
        )
    (folder / "names").write_text("subjectAltName = DNS:localhost")
    openssl("req", *new[:3], "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2"),
        *("-CAcreateserial", "-extfile", "names", "-out", "server.pem"),
    )
    folder.chmod(0o755)
    (folder / "server.key").chmod(0o644)
    return {
        "ssl_ca": folder / "ca.pem",
        "ssl_cert": folder / "server.pem",
        "ssl_key": folder / "server.key",
    }


@pytest.mark.parametrize("flavour", ["mariadb", "mysql"])
def test_certificates(
    request: pytest.FixtureRequest,
    fresh_mysql_database: FreshDatabase,
    cdc: Command,
    tmp_path: Path,
    flavour: str,
) -> None:
    """`verify-ca` takes a certificate of the named authority, `verify-identity` one for the URL's host
    too; all others are refused by name, on either side."""
    make: MakeMysql = request.getfixturevalue(f"make_{flavour}")
    server = make({name: str(file) for name, file in certify(tmp_path).items()})
    source, target = fresh_mysql_database(server), fresh_mysql_database(server)
    source.execute(TABLE)
    authority = f"?ssl-ca={tmp_path}/ca.pem"
    by_name = source.url.replace("127.0.0.1", "localhost") + f"{authority}&ssl-mode=verify-identity"
    cdc.configure(by_name, f"{target.url}{authority}&ssl-mode=verify-ca", sync={"tables": ["t"]})
    cdc.ok("run", "--until-current")
    source.execute("UPDATE t SET v = 'ü'")
    cdc.ok("run", "--until-current")
    assert source.rows(ROWS) == target.rows(ROWS) == [(1, "ü")]
    wrong = {
        f"{authority}&ssl-mode=verify-identity": "IP address mismatch",
        f"?ssl-ca={tmp_path}/other.pem": "certificate verify failed",
    }
    for options, why in wrong.items():
        for one, two in ((source.url + options, target.url), (by_name, target.url + options)):
            cdc.configure(one, two, sync={"tables": ["t"]})
            refused = cdc.run("run", "--until-current")
            assert refused.returncode == 1
            assert why in refused.stderr
            assert "Try: correct ssl-mode" in refused.stderr


def test_a_password_without_tls(
    mysql_source: MysqlDatabase, mysql_target: MysqlDatabase, cdc: Command
) -> None:
    """MySQL's `caching_sha2_password` over a connection in the clear: the password goes by the server's
    RSA key, on both ends, for the reader of the log too."""
    mysql_source.execute(TABLE)
    reader = mysql_source.create_user(
        "SELECT", "REPLICATION SLAVE ON *.*", "REPLICATION CLIENT ON *.*"
    )
    writer = mysql_target.create_user("ALL PRIVILEGES")
    for database, user in ((mysql_source, reader), (mysql_target, writer)):
        plugin = database.value("SELECT plugin FROM mysql.user WHERE user = %s", [user.name])
        assert plugin == "caching_sha2_password"
    clear = "?ssl-mode=disabled"
    cdc.configure(
        mysql_source.url_as(reader.name, reader.password) + clear,
        mysql_target.url_as(writer.name, writer.password) + clear,
        sync={"tables": ["t"]},
    )
    cdc.ok("run", "--until-current")
    # The first connections had the servers remember it: after this the whole exchange comes again.
    for database in (mysql_source, mysql_target):
        database.execute("FLUSH PRIVILEGES")
    mysql_source.execute("UPDATE t SET v = 'ü'")
    cdc.ok("run", "--until-current")
    assert mysql_source.rows(ROWS) == mysql_target.rows(ROWS) == [(1, "ü")]
