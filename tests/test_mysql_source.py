"""What a MySQL or MariaDB source refuses: the wrong server, a log with gaps, what cannot be read. And
what `cdc check` says before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliers.errors import PermanentError, SyncError, TransientError
from appliers.finding import Finding
from cdc.sources.mysql import connection
from cdc.sources.mysql.connection import Server, server_of
from cdc.sources.mysql.failures import TRANSIENT
from cdc.sources.mysql.position import BinlogPosition
from cdc.sources.mysql.scanning import read_gtids_at
from cdc.sources.mysql.source import MysqlSource
from cdc.sources.source import GapError, Opening, Position, Stream
from tests.databases import wait_until
from tests.mysql_databases import MysqlDatabase, quoted
from tests.mysql_fixtures import MakeMysql
from tests.mysql_reading import as_it_is, changes_to, opened, streaming
from tests.mysql_servers import Setting

WAY_OUT = "`cdc snapshot test` accepts the gap: it copies every table again and goes on from there"
REPLICATION = "REPLICATION SLAVE, REPLICATION CLIENT ON *.*"


def table_in(database: MysqlDatabase) -> MysqlDatabase:
    database.execute("CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, body text)")
    return database


def begun(database: MysqlDatabase) -> Opening:
    """A sync's beginning, and a change behind it."""
    with opened(table_in(database), "t") as source:
        database.execute("INSERT INTO t VALUES (1, 'before')")
        opening = source.start(())
        database.execute("INSERT INTO t VALUES (2, 'behind')")
        return Opening(opening.identity, source.position(str(opening.position)))


def resumed(database: MysqlDatabase, opening: Opening) -> list[bytes | None]:
    """Goes on from a checkpoint; what the stream then gives."""
    with opened(database, "t") as source:
        assert source.resume(opening.identity, opening.position, ()) == frozenset()
        with streaming(source, opening.position) as stream:
            return [change[3] for change in changes_to(stream, source.head())]


def changes_end(stream: Stream, end: BinlogPosition) -> Position:
    """Where a stream has come that has given everything up to `end`."""
    found: list[Position] = []

    def arrived() -> bool:
        found.extend(e.position for e in stream.read(0.1) if e.position is not None)
        return bool(found) and found[-1].covers(end)

    wait_until(arrived)
    return found[-1]


def refusal(database: MysqlDatabase, opening: Opening) -> PermanentError:
    with opened(database) as source, pytest.raises(PermanentError) as caught:
        source.resume(opening.identity, opening.position, ())
    return caught.value


class TestResuming:
    def test_from_the_checkpoint(self, any_mysql_source: MysqlDatabase) -> None:
        """The same server, its log whole: what is behind the checkpoint comes, nothing else."""
        opening = begun(any_mysql_source)
        assert resumed(any_mysql_source, opening) == [b"2\tbehind\n"]

    def test_over_rotations_and_a_restart(
        self, make_mariadb: MakeMysql, make_mysql: MakeMysql
    ) -> None:
        """Scenario 13: the log goes on in another file; a crash of the server changes nothing."""
        for make in (make_mariadb, make_mysql):
            server = make()
            database = MysqlDatabase(server)
            opening = begun(database)
            database.execute("FLUSH BINARY LOGS")
            database.execute("INSERT INTO t VALUES (3, 'rotated')")
            server.restart("immediate")
            with_server = MysqlDatabase(server)
            with_server.execute(f"INSERT INTO {quoted(database.name)}.t VALUES (4, 'restarted')")
            with opened(database, "t") as source:
                source.resume(opening.identity, opening.position, ())
                with streaming(source, opening.position) as stream:
                    found = [change[3] for change in changes_to(stream, source.head())]
            assert found == [b"2\tbehind\n", b"3\trotated\n", b"4\trestarted\n"]

    def test_behind_an_event_larger_than_a_packet(self, make_mariadb: MakeMysql) -> None:
        """An update's event holds both images of its row, and may be larger than max_allowed_packet: then
        MariaDB does not tell what a place behind it stands for. It is found all the same, and another
        place is still refused."""
        database = MysqlDatabase(make_mariadb({"max_allowed_packet": "1M"}))
        database.execute("CREATE TABLE large (id int PRIMARY KEY, body longblob)")
        database.execute("INSERT INTO large VALUES (1, REPEAT('x', 900000))")
        database.execute("UPDATE large SET body = REPEAT('y', 900000)")
        opening = begun(database)
        place = BinlogPosition.parse(str(opening.position))
        asked = f"SELECT BINLOG_GTID_POS('{place.file}', {place.offset})"
        assert database.value(asked) is None
        assert resumed(database, opening) == [b"2\tbehind\n"]
        with opened(database, "t") as source:
            assert "gtids=" in str(source.start(()).position)
            elsewhere = replace(place, offset=place.offset - 1)
            with pytest.raises(GapError, match="no transaction ends there"):
                source.resume(opening.identity, elsewhere, ())
            beyond = replace(place, offset=place.offset + 10_000)
            assert read_gtids_at(source._connect, beyond) is None

    def test_another_server(
        self, any_mysql_source: MysqlDatabase, request: pytest.FixtureRequest
    ) -> None:
        """Scenario 15: refused, naming both."""
        flavour = any_mysql_source.server.flavour
        other: MysqlDatabase = request.getfixturevalue(f"{flavour}_target")
        error = refusal(other, begun(any_mysql_source))
        assert not isinstance(error, GapError)
        number = "server_id" if flavour == "mariadb" else "server_uuid"
        asked = f"SELECT @@{number}"
        assert str(error) == (
            "the source is not the one this sync was started on: expected"
            f" flavour {flavour} database {any_mysql_source.name}"
            f" {number} {any_mysql_source.value(asked)}, got flavour {flavour}"
            f" database {other.name} {number} {other.value(asked)}"
        )
        assert error.hint == "correct the source's URL, or `cdc drop` the sync and start it anew"

    def test_another_mariadb_of_the_same_number(self, make_mariadb: MakeMysql) -> None:
        """MariaDB has no identity but the number in its configuration, which copies share: the log
        itself tells that it is another one."""
        one, other = (make_mariadb({"server_id": 7}) for _ in range(2))
        database = MysqlDatabase(one)
        opening = begun(database)
        twin = MysqlDatabase(other)
        twin.execute(f"CREATE DATABASE IF NOT EXISTS {quoted(database.name)}")
        twin.execute(f"CREATE TABLE {quoted(database.name)}.t (id int PRIMARY KEY)")
        for n in range(40):
            twin.execute(f"INSERT INTO {quoted(database.name)}.t VALUES ({n})")
        with (
            opened(twin, url=other.url(database.name)) as source,
            pytest.raises(GapError, match="the source's log is another one than the checkpoint's"),
        ):
            source.resume(opening.identity, opening.position, ())

    def test_a_mariadb_of_another_number(self, make_mariadb: MakeMysql) -> None:
        """A server that was given another number is the same if its log says so."""
        server = make_mariadb({"server_id": 7})
        database = MysqlDatabase(server)
        opening = begun(database)
        database.execute("SET GLOBAL server_id = 8")
        assert resumed(database, opening) == [b"2\tbehind\n"]

    def test_a_domain_that_was_deleted(self, make_mariadb: MakeMysql) -> None:
        """The server forgets a domain of GTIDs whose transactions are purged; checkpoints that have them
        all are good, be they from before that or from after."""
        database = MysqlDatabase(make_mariadb())
        with database.connect() as db, db.cursor() as cursor:
            cursor.execute("SET SESSION gtid_domain_id = 7")
            cursor.execute("CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, body text)")
        opening = begun(database)
        assert ",7-" in str(opening.position)
        database.execute("FLUSH BINARY LOGS")
        database.execute("INSERT INTO t VALUES (3, 'rotated')")
        with opened(database, "t") as source, streaming(source, opening.position) as stream:
            before = source.head()
            changes_to(stream, before)
            wait_until(lambda: _purged(database, before.file))
            database.execute("FLUSH BINARY LOGS DELETE_DOMAIN_ID = (7)")
            database.execute("INSERT INTO t VALUES (4, 'deleted')")
            after = changes_end(stream, source.head())
        database.execute("INSERT INTO t VALUES (5, 'at last')")
        later = [b"4\tdeleted\n", b"5\tat last\n"]
        assert resumed(database, replace(opening, position=before)) == later
        assert resumed(database, replace(opening, position=after)) == later[1:]

    def test_a_log_that_was_purged(self, make_mariadb: MakeMysql, make_mysql: MakeMysql) -> None:
        """Scenario 13: purged while down: named, with the way out."""
        for make in (make_mariadb, make_mysql):
            database = MysqlDatabase(make())
            opening = begun(database)
            database.execute("FLUSH BINARY LOGS")
            database.execute("FLUSH BINARY LOGS")
            last = database.rows("SHOW BINARY LOGS")[-1][0]
            wait_until(lambda: _purged(database, last))  # noqa: B023
            error = refusal(database, opening)
            assert isinstance(error, GapError)
            place = str(opening.position).partition(" ")[0]
            assert str(error).endswith(f"changes since {place} are lost")
            assert "purged from the source's log" in str(error)
            assert error.hint == (
                f"{WAY_OUT}; keep the log longer: raise binlog_expire_logs_seconds on the source"
            )

    def test_a_log_that_was_reset(self, make_mariadb: MakeMysql, make_mysql: MakeMysql) -> None:
        """RESET, or a backup: the source does not have what the target has."""
        for make in (make_mariadb, make_mysql):
            server = make()
            database = MysqlDatabase(server)
            opening = begun(database)
            mariadb = server.flavour == "mariadb"
            database.execute("RESET MASTER" if mariadb else "RESET BINARY LOGS AND GTIDS")
            error = refusal(database, opening)
            assert isinstance(error, GapError)
            said = "before the checkpoint" if mariadb else "the source does not have transactions"
            assert said in str(error)
            assert "it was restored from a backup, or its log was reset" in str(error)
            assert error.hint == f"{WAY_OUT}, if this source is the right one"

    def test_a_log_that_was_reset_and_has_grown(self, make_mariadb: MakeMysql) -> None:
        """MariaDB's places begin anew: what stands at the checkpoint's is another transaction."""
        database = MysqlDatabase(make_mariadb())
        opening = begun(database)
        database.execute("RESET MASTER")
        for n in range(10, 60):
            database.execute("INSERT INTO t VALUES (%s, repeat('x', 1000))", (n,))
        error = refusal(database, opening)
        assert isinstance(error, GapError)
        assert "the source's log is another one than the checkpoint's" in str(error)


def _purged(database: MysqlDatabase, last: str) -> bool:
    """A file that a connection still reads is not purged yet."""
    database.execute(f"PURGE BINARY LOGS TO '{last}'")
    return len(database.rows("SHOW BINARY LOGS")) == 1


SETTINGS: list[tuple[str, str, str, str]] = [
    (
        "binlog_row_metadata",
        "MINIMAL",
        "is MINIMAL, expected FULL",
        "SET GLOBAL binlog_row_metadata = FULL; -- and",
    ),
    (
        "binlog_format",
        "STATEMENT",
        "is STATEMENT, expected ROW",
        "SET GLOBAL binlog_format = ROW; -- ",
    ),
]


class TestChecking:
    def test_a_source_as_it_should_be(self, any_mysql_source: MysqlDatabase) -> None:
        """Nothing is FAILED for a user with the grants that are asked for, and no more."""
        database = table_in(any_mysql_source)
        user = database.create_user("SELECT", REPLICATION)
        found = findings(database, database.url_as(*user))
        assert [f for f in found if f.level == "FAILED"] == []
        assert Finding("ok", f"table {database.name}.t", "key id") in found

    @pytest.mark.parametrize(("setting", "value", "said", "remedy"), SETTINGS)
    def test_settings(
        self,
        any_mysql_source: MysqlDatabase,
        setting: str,
        value: str,
        said: str,
        remedy: str,
    ) -> None:
        """Each with the statement that mends it; a sync does not start without them."""
        database = table_in(any_mysql_source)
        before = database.value(f"SELECT @@GLOBAL.{setting}")
        database.execute(f"SET GLOBAL {setting} = {value}")
        try:
            [found] = [f for f in findings(database) if f.subject == setting]
            with (
                opened(database) as source,
                pytest.raises(PermanentError, match=f"source: {setting} {said}"),
            ):
                source.start(())
        finally:
            database.execute(f"SET GLOBAL {setting} = {before}")
        assert (found.level, found.message) == ("FAILED", said)
        assert found.remedy.startswith(remedy)

    def test_partial_rows(self, any_mysql_source: MysqlDatabase) -> None:
        database = table_in(any_mysql_source)
        database.execute("SET GLOBAL binlog_row_image = MINIMAL")
        try:
            [found] = [f for f in findings(database) if f.subject == "binlog_row_image"]
        finally:
            database.execute("SET GLOBAL binlog_row_image = FULL")
        assert (found.level, found.remedy) == ("warn", "SET GLOBAL binlog_row_image = FULL;")

    def test_no_log(self, make_mariadb: MakeMysql, make_mysql: MakeMysql) -> None:
        no_gtids: dict[str, Setting] = {"gtid_mode": False, "enforce_gtid_consistency": False}
        for make, more in ((make_mariadb, {}), (make_mysql, no_gtids)):
            database = table_in(MysqlDatabase(make({"skip_log_bin": None, **more})))
            [found] = [f for f in findings(database) if f.subject == "log_bin"]
            assert found.level == "FAILED"
            with (
                opened(database) as source,
                pytest.raises(PermanentError, match="source: its binary log is off") as caught,
            ):
                source.start(())
            assert caught.value.hint.startswith("log_bin = binlog")

    def test_a_replica_that_logs_nothing(
        self, make_mariadb: MakeMysql, make_mysql: MakeMysql
    ) -> None:
        """Its log has none of the rows that it replicates: a sync would copy once and see nothing more."""
        for make, follow in (
            (make_mariadb, "CHANGE MASTER TO master_host = '127.0.0.1'"),
            (make_mysql, "CHANGE REPLICATION SOURCE TO source_host = '127.0.0.1'"),
        ):
            database = table_in(MysqlDatabase(make({"log_slave_updates": False})))
            with opened(database) as source:
                source.start(())
            database.execute(follow)
            assert "FAILED" in {f.level for f in findings(database) if "updates" in f.subject}
            with (
                opened(database) as source,
                pytest.raises(
                    PermanentError, match="what it replicates is not in its log"
                ) as caught,
            ):
                source.start(())
            assert caught.value.hint.startswith("use the primary's address")

    def test_mysql_without_gtids(self, make_mysql: MakeMysql) -> None:
        """Refused with the steps that switch them on, which work as they stand."""
        database = table_in(
            MysqlDatabase(make_mysql({"gtid_mode": False, "enforce_gtid_consistency": False}))
        )
        [found] = [f for f in findings(database) if f.subject == "gtid_mode"]
        assert (found.level, found.message) == ("FAILED", "is OFF, expected ON")
        with (
            opened(database) as source,
            pytest.raises(PermanentError, match="source: gtid_mode is OFF, expected ON"),
        ):
            source.start(())
        for step in found.remedy.partition(" --")[0].split(";")[:-1]:
            database.execute(step)
        assert [f.level for f in findings(database) if f.subject == "gtid_mode"] == ["ok"]

    def test_grants(self, any_mysql_source: MysqlDatabase) -> None:
        """Each that is missing is named with the statement that gives it; they are enough."""
        database = table_in(any_mysql_source)
        user = database.create_user("SELECT", "CREATE TEMPORARY TABLES")
        url = database.url_as(*user)
        failed = [f for f in findings(database, url) if f.level == "FAILED"]
        monitor = "BINLOG MONITOR" if database.server.flavour == "mariadb" else "REPLICATION CLIENT"
        assert [f.remedy for f in failed] == [
            f"GRANT REPLICATION SLAVE ON *.* TO '{user.name}'@'%';",
            f"GRANT {monitor} ON *.* TO '{user.name}'@'%';",
        ]
        for finding in failed:
            database.execute(finding.remedy)
        assert [f for f in findings(database, url) if f.level == "FAILED"] == []
        with opened(database, "t", url=url) as source:
            opening = source.start(())
            database.execute("INSERT INTO t VALUES (1, 'a')")
            source.resume(opening.identity, opening.position, ())
            with streaming(source, opening.position) as stream:
                assert len(changes_to(stream, source.head())) == 1

    def test_a_table_that_may_not_be_read(self, any_mysql_source: MysqlDatabase) -> None:
        database = table_in(any_mysql_source)
        with opened(database) as source:
            relations = source.catalog(["t"]).relations
        user = database.create_user("INSERT", REPLICATION)
        with opened(database, url=database.url_as(*user)) as source:
            failed = [f for f in source.check(relations) if f.level == "FAILED"]
        table = f"{quoted(database.name)}.`t`"
        assert [f.remedy for f in failed] == [f"GRANT SELECT ON {table} TO '{user.name}'@'%';"]

    def test_cascades(self, mariadb_source: MysqlDatabase) -> None:
        """Rows that a foreign key deletes or changes never reach MariaDB's log: told to a user that has the
        grants that are asked for, and no more."""
        database = mariadb_source
        database.execute("CREATE TABLE p (id int PRIMARY KEY)")
        database.execute(
            "CREATE TABLE c (id int PRIMARY KEY, p int COMMENT 'CONSTRAINT `x` FOREIGN KEY ON DELETE CASCADE',"
            " FOREIGN KEY f (p) REFERENCES p (id) ON DELETE CASCADE ON UPDATE SET NULL,"
            " CONSTRAINT ` ON DELETE CASCADE ``` FOREIGN KEY (p) REFERENCES p (id) ON DELETE RESTRICT)"
        )
        database.execute("SET GLOBAL sql_quote_show_create = OFF")
        url = database.url_as(*database.create_user("SELECT", REPLICATION))
        try:
            warned = [f for f in findings(database, url) if f.level == "warn"]
        finally:
            database.execute("SET GLOBAL sql_quote_show_create = ON")
        assert [(f.subject, f.message) for f in warned if "TRIGGER" not in f.subject] == [
            (
                f"table {database.name}.c",
                (
                    "foreign key f is ON DELETE CASCADE ON UPDATE SET NULL: rows that it deletes or"
                    " changes are not in MariaDB's log"
                ),
            )
        ]
        for found in warned:
            database.execute(found.remedy)
        assert [f for f in findings(database, url) if f.level == "warn"] == []

    def test_cascades_of_mysql(self, make_mysql: MakeMysql) -> None:
        """Its log has them from 9.6 on, unless the engine is told to do them as before."""
        for native in (False, True):
            database = MysqlDatabase(make_mysql({"innodb_native_foreign_keys": native}))
            database.execute("CREATE TABLE p (id int PRIMARY KEY)")
            database.execute(
                "CREATE TABLE c (id int PRIMARY KEY, p int, FOREIGN KEY f (p) REFERENCES p (id)"
                " ON DELETE CASCADE)"
            )
            said = [f for f in findings(database) if "is ON DELETE CASCADE" in f.message]
            assert len(said) == native

    def test_filters(self, make_mariadb: MakeMysql, make_mysql: MakeMysql) -> None:
        """What keeps changes out of the log is said."""
        for make in (make_mariadb, make_mysql):
            database = table_in(MysqlDatabase(make({"binlog_ignore_db": "secret"})))
            [found] = [f for f in findings(database) if f.subject == "binlog_ignore_db"]
            assert found.level == "warn"
            assert found.message.startswith("is secret: changes of these databases")

    def test_a_filter_that_hides_a_table_is_refused(
        self, make_mariadb: MakeMysql, make_mysql: MakeMysql
    ) -> None:
        """The log would be whole and have nothing of it: told before, and no sync begins."""
        for make in (make_mariadb, make_mysql):
            database = table_in(MysqlDatabase(make({"binlog_do_db": "other"})))
            [found] = [f for f in findings(database) if f.subject == "binlog_do_db"]
            assert found.level == "FAILED"
            assert found.message.endswith(f"those of {database.name}.t among them")
            with opened(database) as source:
                relations = source.catalog(["*"]).relations
                with pytest.raises(PermanentError, match=r"keeps table .* out of the log") as error:
                    source.start(relations)
            assert error.value.hint.startswith(
                "take binlog_do_db out of the source's configuration"
            )


def findings(database: MysqlDatabase, url: str | None = None) -> list[Finding]:
    with opened(database, url=url) as source:
        return list(source.check(source.catalog(["*"]).relations))


class TestConnecting:
    def test_it_names_itself(self, any_mysql_source: MysqlDatabase) -> None:
        server = any_mysql_source.server
        product = "MariaDB" if server.flavour == "mariadb" else "MySQL"
        with opened(any_mysql_source) as source:
            assert source.server() == f"{product} {server.version}"

    def test_nothing_is_inherited(self, make_mariadb: MakeMysql, make_mysql: MakeMysql) -> None:
        """However the server is set up, values are printed one way, and nothing is written."""
        for make in (make_mariadb, make_mysql):
            server = make(
                {
                    "sql_mode": "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH",
                    "default_time_zone": "+05:00",
                    "character_set_server": "latin1",
                    "transaction_isolation": "READ-UNCOMMITTED",
                }
            )
            database = MysqlDatabase(server)
            database.execute("CREATE TABLE t (id int PRIMARY KEY, c char(5), ts timestamp NULL)")
            database.execute("SET time_zone = '+00:00'")
            database.execute("INSERT INTO t VALUES (1, 'ü', '2024-01-01 00:00:00')")
            with opened(database, "t") as source:
                [relation] = source.catalog(["t"]).relations
                copying = source.copy_round()
                reader = copying.reader()
                plan = reader.plan(relation)
                rows = list(reader.read(relation, plan.bounds[0], plan.fingerprint))
                copying.close()
                assert rows == [["1\tü\t2024-01-01 00:00:00\n".encode()]]
                with pytest.raises(SyncError):
                    connection.rows(source._db, "INSERT INTO t VALUES (2, 'x', NULL)")
            assert database.value("SELECT count(*) FROM t") == 1

    def test_wrong_password(self, any_mysql_source: MysqlDatabase) -> None:
        user = any_mysql_source.create_user("SELECT")
        error = unopened(any_mysql_source.url_as(user.name, "wrong"))
        assert isinstance(error, PermanentError)
        assert str(error).startswith("source: Access denied for user")
        assert error.hint.startswith("correct the password")
        assert "wrong" not in str(error)

    def test_unknown_database(self, any_mysql_source: MysqlDatabase) -> None:
        error = unopened(any_mysql_source.server.url("nowhere"))
        assert isinstance(error, PermanentError)
        assert str(error) == "source: Unknown database 'nowhere'"

    def test_unreachable(self) -> None:
        error = unopened("mysql://u@127.0.0.1:9/x")
        assert isinstance(error, TransientError)
        assert str(error).startswith("source: Can't connect to MySQL server on '127.0.0.1'")
        assert error.hint == "check that the source is up and can be reached"

    def test_a_server_that_is_not_asked_for_tls(self, any_mysql_source: MysqlDatabase) -> None:
        """`ssl-mode` decides; certificates that are not to be trusted are refused by name."""
        url = any_mysql_source.url
        with opened(any_mysql_source, url=f"{url}?ssl-mode=disabled") as source:
            assert connection.one(source._db, "SHOW STATUS LIKE 'Ssl_cipher'")[1] == ""
        if any_mysql_source.server.flavour == "mysql":
            with opened(any_mysql_source, url=f"{url}?ssl-mode=required") as source:
                assert connection.one(source._db, "SHOW STATUS LIKE 'Ssl_cipher'")[1] != ""
            error = unopened(f"{url}?ssl-mode=verify-identity")
            assert isinstance(error, PermanentError)
            assert "certificate" in str(error).lower()
            assert error.hint.startswith("correct ssl-mode")
        else:
            error = unopened(f"{url}?ssl-mode=required")
            assert isinstance(error, PermanentError)

    def test_too_many_connections(self, make_mariadb: MakeMysql) -> None:
        database = MysqlDatabase(make_mariadb({"max_connections": 10}))
        user = database.create_user("SELECT")
        taken: list[connection.Connection] = []

        def take() -> None:
            taken.extend(connection.connect(database.url_as(*user), None, "t") for _ in range(20))

        try:
            with pytest.raises(SyncError) as caught:
                take()
        finally:
            for db in taken:
                connection.close(db)
        assert isinstance(caught.value, TransientError)
        assert caught.value.hint.startswith("close connections to the source")

    def test_a_server_that_goes_away(self, make_mariadb: MakeMysql, make_mysql: MakeMysql) -> None:
        for make in (make_mariadb, make_mysql):
            server = make()
            database = table_in(MysqlDatabase(server))
            with opened(database, "t") as source:
                server.stop("immediate")
                with pytest.raises(TransientError) as caught:
                    source.head()
                assert caught.value.hint in TRANSIENT.values()
            assert isinstance(unopened(database.url), TransientError)

    @pytest.mark.parametrize(
        ("text", "flavour", "version"),
        [
            ("5.5.5-10.11.19-MariaDB-log", "mariadb", (10, 11, 19)),
            ("11.4.2-MariaDB", "mariadb", (11, 4, 2)),
            ("8.0.36-28", "mysql", (8, 0, 36)),
        ],
    )
    def test_versions(self, text: str, flavour: str, version: tuple[int, int, int]) -> None:
        found = server_of(_Greeting(text))  # type: ignore[arg-type]
        assert found == Server(flavour, version, text)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("5.5.5-10.5.2-MariaDB", "source: MariaDB 10.5.2 is too old: 10.6 or newer is needed"),
            ("5.7.44-log", "source: MySQL 5.7.44 is too old: 8.0 or newer is needed"),
        ],
    )
    def test_old_servers(self, text: str, said: str) -> None:
        with pytest.raises(PermanentError) as caught:
            server_of(_Greeting(text))  # type: ignore[arg-type]
        assert (str(caught.value), caught.value.hint) == (said, "upgrade the source")

    @pytest.mark.parametrize(
        "url",
        [
            "mysql://u@h",
            "mysql://u@h/db?ssl-mode=maybe",
            "mysql://u@h/db?sslmode=require",
            "mariadb://u@h/db?connect-timeout=soon",
            "mysql://u@h/db?ssl-ca=/nowhere.pem",
        ],
    )
    def test_bad_urls(self, url: str) -> None:
        """What is wrong is named; the URL is not shown."""
        error = unopened(url)
        assert isinstance(error, PermanentError)
        assert "u@h" not in str(error)


class _Greeting:
    """What a server says of itself when it greets: old ones cannot be had."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_server_info(self) -> str:
        return self._text


def unopened(url: str) -> SyncError:
    """What opening a source says."""
    with pytest.raises(SyncError) as caught:
        _open(url)
    return caught.value


def _open(url: str) -> None:
    source = MysqlSource(url, None, "test")
    try:
        source.open()
    finally:
        source.close()


class TestTailing:
    def test_from_now_and_from_the_checkpoint(self, any_mysql_source: MysqlDatabase) -> None:
        """Beside the sync: from now on, or from where its target says that it stands."""
        database = any_mysql_source
        opening = begun(database)
        with opened(database, "t") as source:
            kwargs = {"relations": (), "shape": as_it_is}
            now = source.tail(from_start=False, checkpoint=lambda: None, **kwargs)  # type: ignore[arg-type]
            then = source.tail(from_start=True, checkpoint=lambda: opening.position, **kwargs)  # type: ignore[arg-type]
            try:
                database.execute("INSERT INTO t VALUES (3, 'now')")
                head = source.head()
                assert [c[3] for c in changes_to(now, head)] == [b"3\tnow\n"]
                assert [c[3] for c in changes_to(then, head)] == [b"2\tbehind\n", b"3\tnow\n"]
            finally:
                now.close()
                then.close()
            with pytest.raises(GapError, match="never started"):
                source.tail(from_start=True, checkpoint=lambda: None, **kwargs)  # type: ignore[arg-type]

    def test_lag(self, any_mysql_source: MysqlDatabase) -> None:
        """Bytes of log behind a position, over files; none when it was purged."""
        database = any_mysql_source
        opening = begun(database)
        with opened(database) as source:
            size = source.head().since(opening.position)
            assert size is not None
            assert 200 < size < 2000
            database.execute("FLUSH BINARY LOGS")
            more = source.head().since(opening.position)
            assert more is not None
            assert more > size
            assert source.head().since(source.head()) == 0
            assert source.log().by_age
