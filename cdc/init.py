"""What `cdc init` prints: a configuration made from what the source says of itself.

It loads as it is. Passwords that came with the URLs are used to look at the source and are never
printed: a file that the user has to make is named instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliers.errors import PermanentError
from appliers.relation import Relation
from cdc.config import ConfigError, dotted, slot_name
from cdc.init_facts import Facts, read_facts, target_grants
from cdc.readable import given
from cdc.sources.registry import SOURCES, source_for
from cdc.sources.source import Catalog, Refused
from cdc.urls import place, user

CUSTOMER_NAMES = (
    *("customers", "customer", "clients", "client", "accounts", "account", "companies", "company"),
    *("organizations", "organisations", "persons", "people", "contacts", "contact", "users"),
)
"""What a table with one row per customer is called, the likeliest first."""

_SECRET = re.compile(r"(?<=[?&]sslpassword=)[^&]*")


@dataclass(frozen=True, slots=True)
class End:
    """One database that the user has named."""

    name: str
    url: str
    password: str | None


@dataclass(frozen=True, slots=True)
class Guess:
    """What a customer seems to be: the table, and which columns of other tables refer to it."""

    table: Relation
    related: dict[str, str]
    left_out: tuple[str, ...] = ()
    """Lines about references that `related` cannot hold."""


def configuration(source_url: str, target_urls: Sequence[str]) -> str:
    """The configuration for a source and its targets, as TOML. Raises ConfigError for a URL that is
    none, and what the source raises."""
    source, *targets = _ends([source_url, *target_urls])
    if source.url.partition(":")[0] not in SOURCES:
        known = ", ".join(f"{s}://" for s in SOURCES)
        raise ConfigError(
            f"SOURCE_URL: expected one of {known}, found {source.url.partition(':')[0]}://"
        )
    if any(place(target.url) == place(source.url) for target in targets):
        raise ConfigError("TARGET_URL: expected another database than the source")
    catalog, server, facts = _look(source)
    if not catalog.relations:
        raise PermanentError(
            f"{source.name} has no table that can be synced",
            "; ".join(f"{r.table} {r.reason}: {r.remedy}" for r in catalog.refused)
            or "give the URL of the database with the customers",
        )
    guess = guess_customer(catalog.relations, facts)
    names = short_names(catalog.relations)
    chosen = _chosen(catalog.relations, guess, names)
    lines = [
        f"# Made by `cdc init` for {server}, database {source.name}. Look it through, then: cdc check",
        "",
        *_database(source),
        *(line for target in targets for line in _database(target)),
        *_customer(guess, names),
        *(line for t in targets for line in _sync(source, t, chosen, catalog, names)),
        *_grants(source, targets, chosen, facts),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def guess_customer(relations: Sequence[Relation], facts: Facts) -> Guess | None:
    """The table that is called like one of customers, with what refers to its key; None if no name fits."""
    by_name: dict[str, Relation] = {}
    for relation in relations:
        by_name.setdefault(relation.name.lower(), relation)
    table = next((by_name[n] for n in CUSTOMER_NAMES if n in by_name), None)
    if table is None:
        return None
    names = short_names(relations)
    related: dict[str, str] = {}
    left_out: list[str] = []
    by_table = {r.table: r for r in relations}
    for reference in facts.references:
        child = by_table.get(reference.child)
        if child is None or child is table or reference.parent != table.table:
            continue
        if reference.parent_columns != table.key_names or len(reference.child_columns) != 1:
            columns = ", ".join(reference.child_columns)
            left_out.append(f"{names[child]} ({columns}) refers to it, but not by its key alone")
        elif names[child] in related:
            left_out.append(f"{names[child]}.{reference.child_columns[0]} refers to it too")
        else:
            related[names[child]] = reference.child_columns[0]
    return Guess(table, related, tuple(left_out))


def short_names(relations: Sequence[Relation]) -> dict[Relation, str]:
    """How the configuration calls each table: by its bare name where that means no other."""
    bare = [r.name for r in relations]
    return {
        r: r.name if r.schema == r.home or bare.count(r.name) == 1 else r.table for r in relations
    }


def _ends(urls: Sequence[str]) -> list[End]:
    taken: set[str] = set()
    ends = []
    for i, text in enumerate(urls):
        url, password = given("SOURCE_URL" if i == 0 else "TARGET_URL", text)
        path = place(url)[1]
        stem = Path(path).stem if url.startswith("sqlite") else path
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:36] or (
            "source" if i == 0 else "target"
        )
        name = next(
            n
            for n in (plain, *(f"{plain}-{k}" for k in range(2, 1000)))
            if slot_name(n) not in taken
        )
        taken.add(slot_name(name))
        ends.append(End(name, url, password))
    return ends


def _look(source: End) -> tuple[Catalog, str, Facts]:
    reader = source_for(source.url, source.password, "init")
    try:
        reader.open()
        catalog = reader.catalog(["*"])
        return catalog, reader.server(), read_facts(source.url, source.password)
    finally:
        reader.close()


def _database(end: End) -> Iterator[str]:
    variable = re.sub(r"\W", "_", end.name).upper() + "_SSLPASSWORD"
    shown = _SECRET.sub(f"${{{variable}}}", end.url)
    yield f"[databases.{dotted((end.name,))}]"
    yield f"url = {_quoted(shown)}"
    if not end.url.startswith("sqlite"):
        line = f"password_file = {_quoted(f'{end.name}-password')}"
        if end.password is not None:
            yield f"{line}   # make this file beside this one, with the password alone, mode 600"
        else:
            yield f"# {line}   # beside this file, mode 600; or ${{VARIABLE}} in the URL"
    yield ""


def _customer(guess: Guess | None, names: dict[Relation, str]) -> Iterator[str]:
    yield "# What a customer is, on the source. Every delta then names its customer."
    if guess is None:
        yield "# No table is called like one of customers: say which one it is."
        yield "# [customer]"
        yield '# table = "customers"                        # one row per customer'
        yield '# related = { contacts = "customer_id" }     # table = the column with the customer\'s key'
    else:
        yield "[customer]"
        yield f"table = {_quoted(names[guess.table])}   # guessed by its name: one row per customer"
        yield from (f"# {line}" for line in guess.left_out)
        if guess.related:
            yield ""
            yield "[customer.related]   # found by foreign keys: table = the column with the customer's key"
            yield from (f"{dotted((t,))} = {_quoted(c)}" for t, c in guess.related.items())
    yield ""


def _chosen(
    relations: Sequence[Relation], guess: Guess | None, names: dict[Relation, str]
) -> list[Relation]:
    """What a sync begins with: the customer's tables, or all where nobody knows which these are."""
    if guess is None:
        return list(relations)
    return [guess.table, *(r for r in relations if names[r] in guess.related)]


def _sync(
    source: End,
    target: End,
    chosen: Sequence[Relation],
    catalog: Catalog,
    names: dict[Relation, str],
) -> Iterator[str]:
    yield f"[sync.{dotted((target.name,))}]"
    yield f"source = {_quoted(source.name)}"
    yield f"target = {_quoted(target.name)}"
    yield "tables = ["
    yield from (f"    {_quoted(names[r])}," for r in chosen)
    others = [names[r] for r in catalog.relations if r not in chosen]
    if others:
        yield "    # also there, and of no customer by a foreign key:"
        yield from (f"    # {_quoted(n)}," for n in others)
    if catalog.refused:
        yield "    # cannot be synced as they are:"
        yield from (f"    # {_refused(r)}" for r in catalog.refused)
    yield "]"
    yield 'strategy = "realtime"'
    yield 'direction = "one-way"'
    yield 'mode = "incremental"'
    yield 'on_error = "stop"'
    yield 'on_unrepresentable = "error"  # or "null", or "text": docs/types.md'
    if source.url.startswith("postgres"):
        yield "# How much of its log the source may keep for this sync before `cdc status` says so, and before"
        yield "# the sync gives up and its slot is dropped, so that the source's disk does not fill:"
        yield '# log_warning = "10GB"         # the default'
        yield '# log_limit = "100GB"          # the default is no limit'
    yield ""


def _grants(
    source: End, targets: Sequence[End], chosen: Sequence[Relation], facts: Facts
) -> Iterator[str]:
    yield f"# {source.name} needs, once, as a superuser:"
    lines = facts.grants(chosen, user(source.url), [t.name for t in targets])
    yield from (f"#   {line}" for line in lines)
    for target in targets:
        yield "#"
        database = place(target.url)[1]
        needed = target_grants(target.url, chosen, user(target.url), database, facts.superuser)
        if needed is None:
            yield f"# {target.name} needs {Path(database).parent} to be writable for the daemon."
            continue
        yield f"# {target.name} needs, once, as a superuser:"
        yield from (f"#   {line}" for line in needed)


def _refused(refused: Refused) -> str:
    return f"{_quoted(refused.table)} {refused.reason}: {refused.remedy}"


def _quoted(text: str) -> str:
    """A TOML string; JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)
