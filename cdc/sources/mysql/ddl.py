"""What becomes of statements in the log that concern synced tables."""

from __future__ import annotations

from typing import Final, NamedTuple

from appliers.delta import Op
from appliers.errors import PermanentError
from cdc.sources.mysql.connection import quoted
from cdc.sources.mysql.events import Statement
from cdc.sources.mysql.gathering import RowChange
from cdc.sources.mysql.statements import Deed, Effect, Statements
from cdc.sources.mysql.surroundings import moves
from cdc.sources.mysql.tables import Tables

_COPY: Final = "`cdc snapshot` copies everything again"
_ROW_FORMAT: Final = (
    f"SET GLOBAL binlog_format = ROW; on the source (sessions that exist keep theirs), then {_COPY}"
)


class Outcome(NamedTuple):
    changes: list[RowChange]
    shapes: bool
    """Whether table maps may mean something else now."""
    replaced: dict[str, str]
    """Tables that have other rows now, which the log does not tell, and by what statement."""


class Ddl:
    """Turns statements into changes, or stops at them.

    The outcomes are those of a PostgreSQL source where there is one (tests/test_schema_changes.py):
    a table that was dropped, or renamed away, leaves its rows on the target. One that is created is
    empty, so it is emptied there. One that took another's name (online schema tools do so), lost rows
    with a partition, or whose rows were converted, has rows that the log does not tell of: it has to be
    copied anew.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._names: frozenset[tuple[str, str]] = frozenset()
        self._statements = Statements((), folds_names=tables.folds_names)

    def outcome(self, statement: Statement, at: tuple[str, int], *, begun: bool) -> Outcome:
        """What a statement does. `at` is where its transaction begins in the log. `begun`: inside of a
        transaction, as CREATE TABLE … SELECT is, which then has made its table. Raises PermanentError
        for one that changed rows which are not in the log."""
        names = self._tables.names()
        if names is not self._names:
            self._names = names
            self._statements = Statements(names, folds_names=self._tables.folds_names)
        place = f"{at[0]}:{at[1]}"
        if self._writes_elsewhere(statement):
            return Outcome([], shapes=False, replaced={})
        effects = self._statements.effects(statement.text, statement.database, statement.mode)
        if not effects:
            self._require_harmless(statement, at, place)
        if moves(statement.text, statement.mode) is not None:
            self._tables.moved()
        if statement.passing:
            # The flag is of the session's whole command, which may be the CALL of a procedure: the
            # table is a temporary one of the synced one's name, or it is the synced one.
            effects = [
                e._replace(deed=Deed.REPLACED) if e.deed is Deed.TRUNCATED else e for e in effects
            ]
        made: list[RowChange] = []
        for effect in effects:
            if (
                effect.deed is Deed.CREATED
                and effect.verb.endswith("EXISTS")
                and not (statement.done or begun)
            ):
                continue
            made += self._changes(effect, place)
        return Outcome(
            made,
            any(effect.deed is not Deed.TRUNCATED for effect in effects),
            {".".join(e.table): e.verb for e in effects if e.deed is Deed.REPLACED},
        )

    def anywhere(self, verb: str) -> dict[str, str]:
        """Every table, for a statement that has committed rows that no stream of this sync has read."""
        return {".".join(name): verb for name in self._tables.names()}

    def _writes_elsewhere(self, statement: Statement) -> bool:
        """Whether the log itself says that rows of other databases alone were written."""
        return (
            statement.databases is not None
            and self._statements.writes_rows(statement.text, statement.mode)
            and self._statements.keeps_out_of(statement.databases)
        )

    def _require_harmless(self, statement: Statement, at: tuple[str, int], place: str) -> None:
        """Raises PermanentError for a statement that names no synced table, and may write one: through
        a view, a trigger, a function."""
        try:
            reach = self._statements.reach(statement.text, statement.database, statement.mode)
        except ValueError as e:
            raise PermanentError(
                f"a statement in statement format ({place}) cannot be understood: the rows that it"
                " changed are not in the log",
                f"{_ROW_FORMAT}; report this",
            ) from e
        if reach is None:
            return
        doubt = self._tables.doubt(reach, at, passing=statement.passing)
        if doubt is None:
            return
        hint = _ROW_FORMAT
        if doubt.grant:
            hint = f"{doubt.grant}, then `cdc run` goes on if there is none; else {_ROW_FORMAT}"
        raise PermanentError(
            f"{reach.verb} in statement format ({place}): the rows are not in the log, and may be of"
            f" synced tables: {doubt.why}",
            hint,
        )

    def _changes(self, effect: Effect, place: str) -> list[RowChange]:
        database, name = effect.table
        table, verb = f"{database}.{name}", effect.verb
        match effect.deed:
            case Deed.WRITTEN:
                raise PermanentError(
                    f"table {table} was changed by {verb} in statement format ({place}): the rows are"
                    " not in the log",
                    _ROW_FORMAT,
                )
            case Deed.VERSIONED:
                raise PermanentError(
                    f"table {table} keeps the history of its rows from {place} on ({verb}): the log does"
                    " not tell them from those that are there",
                    f"ALTER TABLE {quoted(database, name)} DROP SYSTEM VERSIONING, then {_COPY}",
                )
            case Deed.UNKNOWN if not name:
                raise PermanentError(
                    f"a routine called by {verb} wrote in statement format ({place}): the log does not"
                    " say which tables",
                    _ROW_FORMAT,
                )
            case Deed.UNKNOWN:
                raise PermanentError(
                    f"a statement that begins with {verb} and may concern table {table} cannot be"
                    f" understood ({place})",
                    f"report this; {_COPY}",
                )
            case Deed.TRUNCATED | Deed.CREATED:
                if effect.deed is Deed.CREATED:
                    self._tables.changed(database, name)
                return [(Op.TRUNCATE, self._tables.of_name(database, name), None, None)]
            case Deed.RENAMED | Deed.ALTERED | Deed.REPLACED:
                self._tables.changed(database, name)
                return []
