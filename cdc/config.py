"""The configuration: one TOML file, read once, wrong in ways that name themselves.

`load` either gives a `Config` in which everything fits together, or raises `ConfigError` with one
line for each mistake: file, the key's full path, what was expected, what was found. Values that may
be secret (URLs, what came out of the environment, values of unknown keys) are never in these lines.

Every sync's process imports this module, so it imports little.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from appliers.errors import SyncError
from appliers.registry import APPLIERS
from appliers.unrepresentable import DEFAULT, Unrepresentable
from cdc.config_keys import (
    LOG_WARNING,
    TYPES,
    WANTED,
    CustomerKeys,
    DatabaseKeys,
    FileKeys,
    SyncKeys,
    known_keys,
)
from cdc.sources.registry import SOURCES
from cdc.urls import BadUrl, place, split

SEARCHED: Final = (Path("cdc.toml"), Path("/etc/cdc/cdc.toml"))
VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SYNC_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_AT_LINE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|(end of document))\)$")


class ConfigError(SyncError):
    """The configuration is wrong: a line for each mistake."""

    exit_code: Final = 2


@dataclass(frozen=True, slots=True)
class Database:
    """One `[databases.NAME]`. The URL never holds the password."""

    name: str
    url: str
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    """Where the password was read, if in a file."""


@dataclass(frozen=True, slots=True)
class Customer:
    """What a customer is, on the source: the table with one row for each, and the columns of other
    tables that hold its key."""

    table: str
    related: dict[str, str]


@dataclass(frozen=True, slots=True)
class Sync:
    """One `[sync.NAME]`: one source, one target."""

    name: str
    source: Database
    target: Database
    tables: tuple[str, ...]
    """Patterns: `name`, `schema.name`, `schema.*`, `*`. Never empty."""
    on_unrepresentable: Unrepresentable = DEFAULT
    """What becomes of values that the target cannot hold."""
    log_warning: int = LOG_WARNING
    """Bytes of its log that the source may keep for this sync before it is told."""
    log_limit: int | None = None
    """Bytes above which the sync gives up, so that the source's disk does not fill. None: it never does."""


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration in which all names lead somewhere."""

    path: Path
    """Absolute."""
    databases: dict[str, Database]
    syncs: dict[str, Sync]
    customer: Customer | None


def load(path: Path | None = None) -> Config:
    """Reads the configuration at `path`, else where `find` finds one. Raises ConfigError."""
    file = find(path)
    raw = _parse(file)
    reading = _Reading(file, raw)
    shape = reading.shape()
    reading.stop_if_wrong()
    databases = {name: reading.database(name, d) for name, d in shape.databases.items()}
    customer = _customer(shape.customer)
    syncs = {name: reading.sync(name, s, databases, customer) for name, s in shape.sync.items()}
    reading.slots(syncs)
    reading.stop_if_wrong()
    return Config(file.absolute(), databases, {n: s for n, s in syncs.items() if s}, customer)


def find(path: Path | None = None) -> Path:
    """The configuration to read: `path`, $CDC_CONFIG, ./cdc.toml or /etc/cdc/cdc.toml."""
    named = path or (Path(v) if (v := os.environ.get("CDC_CONFIG")) else None)
    if named is not None:
        return named
    for candidate in SEARCHED:
        if candidate.exists():
            return candidate
    raise ConfigError(
        f"no configuration: expected --config PATH, $CDC_CONFIG, {' or '.join(map(str, SEARCHED))}",
        "cdc init SOURCE_URL TARGET_URL > cdc.toml",
    )


def unknown_sync(config: Config, name: str) -> ConfigError:
    """The error for a sync that the configuration does not have."""
    near = _near(name, config.syncs)
    return ConfigError(
        f"no sync {name} in {config.path}: expected one of {', '.join(config.syncs)}",
        f"{near}, the nearest name" if near else "",
    )


def slot_name(sync: str) -> str:
    """What a sync's slot and publication are called: PostgreSQL allows a slot only lower-case
    letters, digits and the underscore."""
    return "cdc_" + sync.lower().replace("-", "_")


Where = tuple[str | int, ...]
"""The keys (and array indices) that lead to a value."""


class _Reading:
    """One reading of one file: collects what is wrong, so that all of it is told at once."""

    def __init__(self, file: Path, raw: Mapping[str, Any]) -> None:
        self._file = file
        self._raw = raw
        self._wrong: dict[Where, str] = {}

    def stop_if_wrong(self) -> None:
        if self._wrong:
            raise ConfigError("\n".join(self._wrong.values()))

    def shape(self) -> FileKeys:
        """The file with its variables replaced, every key known and every value of its type.
        Unusable (but typed) where something is wrong."""
        expanded = self._expand_all(self._raw, ())
        try:
            return FileKeys.model_validate(expanded)
        except ValidationError as e:
            for error in e.errors(include_url=False, include_input=False, include_context=True):
                self._not_valid(error)
            return FileKeys(databases={}, sync={})

    def database(self, name: str, shape: DatabaseKeys) -> Database:
        at: Where = ("databases", name, "url")
        url, password = "", None
        try:
            template = self._raw["databases"][name]["url"]
            url, password = split(template, lambda text: self._expand(text, at), self._directory)
        except BadUrl as e:
            self._add(at, e.expected, e.found, e.nearest)
        if shape.password_file is None:
            return Database(name, url, password)
        at = ("databases", name, "password_file")
        if password is not None:
            self._add(at, "one password", "another one in the url")
        found = self._password(at, shape.password_file)
        return Database(name, url, *found) if found else Database(name, url)

    def sync(
        self,
        name: str,
        shape: SyncKeys,
        databases: Mapping[str, Database],
        customer: Customer | None,
    ) -> Sync | None:
        at: Where = ("sync", name)
        if not _SYNC_NAME.fullmatch(name):
            self._add(at, "a name of 1 to 40 letters, digits, - and _", json.dumps(name))
        source = self._end(databases, (*at, "source"), shape.source, SOURCES)
        target = self._end(databases, (*at, "target"), shape.target, APPLIERS)
        if source and target and source.url and place(source.url) == place(target.url):
            self._add((*at, "target"), "another database than the source", f'"{shape.target}"')
        tables = self._tables((*at, "tables"), shape.tables, customer)
        if source and shape.log_limit is not None and not source.url.startswith("postgres"):
            wanted = "a PostgreSQL source (others keep their log for a time, whoever has read it)"
            self._add((*at, "log_limit"), wanted, f'"{shape.source}"')
        policy = Unrepresentable(shape.on_unrepresentable)
        sizes = shape.log_warning, shape.log_limit
        return Sync(name, source, target, tables, policy, *sizes) if source and target else None

    def slots(self, syncs: Iterable[str]) -> None:
        """Two syncs may not share a slot's name."""
        taken: dict[str, str] = {}
        for name in syncs:
            slot = slot_name(name)
            if slot in taken:
                found = f'the same as "{taken[slot]}" ({slot})'
                self._add(("sync", name), "a name whose slot is its own", found)
            taken.setdefault(slot, name)

    @property
    def _directory(self) -> Path:
        return self._file.absolute().parent

    def _end(
        self,
        databases: Mapping[str, Database],
        at: Where,
        name: str,
        schemes: Mapping[str, object],
    ) -> Database | None:
        """The database at one end of a sync; it must be there and of a kind for this end."""
        found = databases.get(name)
        if found is None:
            known = ", ".join(databases) or "none"
            self._add(
                at, f"one of [databases.*] ({known})", self._shown(at), _near(name, databases)
            )
            return None
        scheme = found.url.partition(":")[0]
        if found.url and scheme not in schemes:
            known = ", ".join(f"{s}://" for s in schemes)
            self._add(at, f"a {at[-1]} of {known}", f'"{name}", which is {scheme}://')
        return found

    def _tables(
        self, at: Where, patterns: list[str] | None, customer: Customer | None
    ) -> tuple[str, ...]:
        if patterns is None:
            if customer is None:
                self._add(at, "tables, here or in [customer]", "neither")
                return ()
            return (customer.table, *customer.related)
        if not patterns:
            self._add(at, "at least one table", "none")
        for i, pattern in enumerate(patterns):
            name = pattern.removesuffix(".*") if pattern != "*" else "every"
            if not name or "*" in name or name != name.strip():
                expected = "`name`, `schema.name`, `schema.*` or `*`"
                self._add((*at, i), expected, self._shown((*at, i)))
        return tuple(dict.fromkeys(patterns))

    def _password(self, at: Where, name: str) -> tuple[str, Path] | None:
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        places = [self._directory / name]
        if credentials:
            places.insert(0, Path(credentials) / name)
        for file in places:
            try:
                password = file.read_text().removesuffix("\n").removesuffix("\r")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as e:
                self._add(at, f"a file that can be read at {file}", _reason(e))
                return None
            if not password:
                self._add(at, f"a password in {file}", "nothing")
                return None
            return password, file
        self._add(at, "a file", f"none at {' or '.join(map(str, dict.fromkeys(places)))}")
        return None

    def _expand_all(self, value: object, at: Where) -> object:
        if isinstance(value, str):
            return self._expand(value, at)
        if isinstance(value, dict):
            return {k: self._expand_all(v, (*at, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [self._expand_all(v, (*at, i)) for i, v in enumerate(value)]
        return value

    def _expand(self, text: str, at: Where) -> str:
        def value(match: re.Match[str]) -> str:
            found = os.environ.get(match[1])
            if found is None:
                self._add(at, f"the environment variable {match[1]}", "it is not set")
            return found or ""

        return VARIABLE.sub(value, text)

    def _not_valid(self, error: Any) -> None:
        at: Where = tuple(error["loc"])
        match error["type"]:
            case "extra_forbidden":
                known = known_keys(at[:-1])
                near = _near(str(at[-1]), known)
                hint = f"nearest known key: {near}" if near else f"known: {', '.join(known)}"
                self._line(at, f"unknown key; {hint}")
            case "missing":
                self._line(at, f"expected {WANTED.get(str(at[-1]), 'a value')}, found nothing")
            case kind:
                wanted = error.get("ctx", {}).get("expected", "").replace("'", '"')
                found = self._shown(at)
                self._add(at, wanted or TYPES.get(kind, kind), found, _near(found, [wanted]))

    def _shown(self, at: Where) -> str:
        """What the file says at `at`: before variables are replaced, because they may be secret."""
        value: Any = self._raw
        for key in at:
            value = value[key]
        match value:
            case bool():
                return f"the boolean {str(value).lower()}"
            case str():
                return json.dumps(value, ensure_ascii=False) if at[-1] != "url" else "a string"
            case int() | float():
                return f"the number {value}" if at[-1] != "url" else "a number"
            case dict():
                return "a table"
            case list():
                return "an array"
            case _:
                return f"a {type(value).__name__}"

    def _add(self, at: Where, expected: str, found: str, nearest: str | None = None) -> None:
        near = f"; nearest: {nearest}" if nearest else ""
        self._line(at, f"expected {expected}, found {found}{near}")

    def _line(self, at: Where, text: str) -> None:
        self._wrong.setdefault(at, f"{self._file}: {dotted(at)}: {text}")


def dotted(at: Where) -> str:
    """A key's path as TOML writes it: `sync.finance.tables[0]`."""
    parts = [
        f"[{key}]"
        if isinstance(key, int)
        else f".{key if _BARE_KEY.fullmatch(key) else json.dumps(key)}"
        for key in at
    ]
    return "".join(parts).removeprefix(".")


def _near(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def _customer(shape: CustomerKeys | None) -> Customer | None:
    return Customer(shape.table, dict(shape.related)) if shape else None


def _reason(error: Exception) -> str:
    return (error.strerror or "an error").lower() if isinstance(error, OSError) else "no UTF-8 text"


def _parse(file: Path) -> dict[str, Any]:
    """The file as TOML, or a ConfigError with the line."""
    text = ""
    try:
        text = file.read_bytes().decode()
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        place = _AT_LINE.search(str(e))
        line = (place and place[1]) or text.count("\n") + 1
        _refuse(f"{file}:{line}: expected TOML, found: {_AT_LINE.sub('', str(e)).lower()}")
    except (OSError, UnicodeDecodeError) as e:
        _refuse(f"{file}: expected a configuration that can be read, found: {_reason(e)}")


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message) from None
