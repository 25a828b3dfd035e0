"""`cdc check`: everything that the syncs depend on, looked at before or while they run."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from appliers.applier import Applier
from appliers.errors import PermanentError, SyncError
from appliers.finding import Finding
from appliers.registry import applier_for
from appliers.relation import Relation
from cdc.config import Config, Customer, Database, Sync
from cdc.gone import gone
from cdc.sources.registry import source_for
from cdc.sources.source import Source


class Checked(NamedTuple):
    """One finding, and the end of the sync that it is about: `source crm`, `target finance`."""

    where: str
    finding: Finding


def check(config: Config, sync: Sync) -> Iterator[Checked]:
    """The findings of one sync: its source, what a customer is, its target. Raises no SyncError: what
    cannot be looked at is a finding too. Changes nothing."""
    try:
        source = source_for(sync.source.url, sync.source.password, sync.name)
    except SyncError as e:
        yield Checked(f"source {sync.source.name}", _failed("connection", e))
        yield from _target(sync, None, ())
        return
    try:
        is_well, relations = yield from _source(source, sync, config.customer)
        yield from _target(sync, source if is_well else None, relations)
    finally:
        source.close()


def _source(
    source: Source, sync: Sync, customer: Customer | None
) -> Generator[Checked, None, tuple[bool, tuple[Relation, ...]]]:
    """The source's findings; returns whether all is well with the server, and the relations of the tables
    that can be synced."""
    found = partial(Checked, f"source {sync.source.name}")
    yield from map(found, _password_file(sync.source))
    try:
        source.open()
    except SyncError as e:
        yield found(_failed("connection", e))
        return False, ()
    relations, findings = _tables(source, sync.tables)
    yield from map(found, findings)
    preflight = list(_told("preflight", lambda: source.check(relations)))
    yield from map(found, preflight)
    if customer is not None:
        look = partial(_customer, source, customer, relations)
        yield from map(found, _told("customer", look))
    return all(f.level != "FAILED" for f in preflight), relations


def _tables(source: Source, patterns: Iterable[str]) -> tuple[tuple[Relation, ...], list[Finding]]:
    """The relations of all patterns that stand for any, and what is wrong with the others: pattern by
    pattern, because the first wrong one hides the rest."""
    relations: dict[str, Relation] = {}
    findings: dict[str, Finding] = {}
    for pattern in patterns:
        try:
            catalog = source.catalog([pattern])
        except SyncError as e:
            findings[pattern] = _failed(f"table {pattern}", e)
            continue
        relations |= {r.table: r for r in catalog.relations}
        for refused in catalog.refused:
            text = f"left out: {refused.reason}"
            findings[refused.table] = Finding(
                "warn", f"table {refused.table}", text, refused.remedy
            )
        if not catalog.relations:
            hint = "correct `tables` in the configuration"
            findings[pattern] = Finding("FAILED", f"tables {pattern}", "stand for no table", hint)
    return tuple(relations.values()), list(findings.values())


def _customer(
    source: Source, customer: Customer, relations: Iterable[Relation]
) -> Iterator[Finding]:
    """What the configuration says of customers: the tables and columns exist, and the log names the
    customer of a deleted row."""
    synced = {name: r for r in relations for name in (r.table, r.name)}
    for table in (customer.table, *customer.related):
        relation = synced.get(table)
        if relation is None:
            found, findings = _tables(source, [table])
            yield from findings
            if not found:
                continue
            relation = found[0]
        column = customer.related.get(table)
        if column is not None:
            yield _related(relation, column, synced=table in synced)


def _related(relation: Relation, column: str, *, synced: bool) -> Finding:
    subject = f"customer of {relation.table}"
    names = [c.name for c in relation.columns]
    if column not in names:
        near = next(iter(difflib.get_close_matches(column, names, n=1)), None)
        hint = f"nearest: {near}" if near else f"its columns: {', '.join(names)}"
        message = f"column {column} does not exist"
        return Finding("FAILED", subject, message, f"correct customer.related; {hint}")
    if synced and not relation.whole_before and column not in relation.key_names:
        return Finding(
            "warn",
            subject,
            f"the log of a delete holds the key only, without {column}: deletes will not name their customer",
            f'ALTER TABLE "{relation.schema}"."{relation.name}" REPLICA IDENTITY FULL;',
        )
    return Finding("ok", subject, f"column {column}")


def _target(
    sync: Sync, source: Source | None, relations: tuple[Relation, ...]
) -> Iterator[Checked]:
    """The target's findings, and whether `source` can go on where the target stands. Without it nobody asks:
    a start would refuse it for what was told already."""
    found = partial(Checked, f"target {sync.target.name}")
    yield from map(found, _password_file(sync.target))
    applier = applier_for(sync.target.url, sync.target.password, sync.name, sync.on_unrepresentable)
    try:
        applier.open(None)
        yield from map(found, _told("preflight", lambda: applier.check(relations)))
        yield from map(found, _told("preflight", lambda: _gone(applier, relations)))
        if source is not None:
            goes_on = _told("checkpoint", lambda: _goes_on(source, applier, relations))
            yield from map(partial(Checked, f"source {sync.source.name}"), goes_on)
    except SyncError as e:
        yield found(_failed("connection", e))
    finally:
        applier.close()


def _goes_on(
    source: Source, applier: Applier, relations: tuple[Relation, ...]
) -> Iterator[Finding]:
    """Whether the log is whole from the checkpoint on, as a start would ask."""
    while (checkpoint := applier.state.load()) is not None:
        position = source.position(checkpoint.position)
        try:
            source.resume(checkpoint.source, position, relations)
        except PermanentError:
            now = applier.state.load()
            if now is not None and now.position != checkpoint.position:
                # The sync runs, and has let go of what was behind the checkpoint that we had read.
                continue
            raise
        text = f"{checkpoint.position}, from which on the source's log is whole"
        yield Finding("ok", "checkpoint", text)
        return


def _gone(applier: Applier, relations: Iterable[Relation]) -> Iterator[Finding]:
    for table in gone(applier, applier.state.tables(), relations):
        yield Finding(
            "warn",
            f"table {table}",
            "was copied and is not on the target any more: it will be made and copied again",
            "rename it back before the sync starts, if it was renamed",
        )


def _told(subject: str, look: Callable[[], Iterator[Finding]]) -> Generator[Finding, None, None]:
    """What `look` finds; an error that ends it is a finding."""
    try:
        yield from look()
    except SyncError as e:
        yield _failed(subject, e)


def _password_file(database: Database) -> Iterator[Finding]:
    file = database.password_file
    if file is not None and stat.S_IMODE(file.stat().st_mode) & stat.S_IRWXO:
        yield Finding("warn", "password_file", f"{file} is open to every user", f"chmod 600 {file}")


def _failed(subject: str, error: SyncError) -> Finding:
    return Finding("FAILED", subject, str(error), error.hint)
