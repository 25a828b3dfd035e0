"""The rules of the house, read off the syntax trees: who may import whom, and how long things get."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PRODUCT: Final = ("appliers", "cdc")

# Importers -> what they never import, and why. A name covers everything below it.
FORBIDDEN: Final = (
    ("appliers", ("cdc",), "appliers stand alone: they know no source and no daemon"),
    ("appliers.mysql", ("appliers.postgres", "appliers.sqlite"), "a target knows no other target"),
    ("appliers.postgres", ("appliers.mysql", "appliers.sqlite"), "a target knows no other target"),
    ("appliers.sqlite", ("appliers.mysql", "appliers.postgres"), "a target knows no other target"),
    (
        "cdc.sources",
        ("appliers.mysql", "appliers.postgres", "appliers.sqlite", "appliers.registry"),
        "a source knows the contract, no target",
    ),
    ("cdc.sources.mysql", ("cdc.sources.postgres",), "a source knows no other source"),
    ("cdc.sources.postgres", ("cdc.sources.mysql",), "a source knows no other source"),
    (
        "cdc.sources",
        (
            "cdc.cli",
            "cdc.control",
            "cdc.daemon",
            "cdc.demo",
            "cdc.status",
            "cdc.tail",
            "cdc.worker",
        ),
        "a source does not know what it is read for",
    ),
)

# Opening both ends of a sync is the daemon's business and its commands', nobody else's. The tables of
# known schemes may be read by whoever explains a URL.
OPENERS: Final = ("applier_for", "source_for")
OPENS_BOTH: Final = {
    "cdc.check",
    "cdc.cli",
    "cdc.control",
    "cdc.daemon",
    "cdc.demo",
    "cdc.status",
    "cdc.tail",
    "cdc.worker",
}

# The demo brings its own PostgreSQL, an extra: only the command that starts it may need it.
IMPORTS_DEMO: Final = {"cdc.cli", "cdc.demo"}

LONGEST_FILE: Final = 400
LONGEST_FUNCTION: Final = 50
SAYS_NOTHING: Final = {
    "common",
    "handler",
    "handlers",
    "helper",
    "helpers",
    "manager",
    "managers",
    "processor",
    "processors",
    "util",
    "utils",
}


@dataclass(frozen=True)
class Module:
    path: Path
    name: str
    text: str
    tree: ast.Module

    def imports(self) -> Iterator[str]:
        """Every module that is imported anywhere in it; `from a import b` may name the module a.b."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._base(node)
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)

    def names(self) -> set[str]:
        """Every name that its code uses, with or without a module before it."""
        return {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Name | ast.Attribute)
        }

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        if self.path.name == "__init__.py":
            parts.append("__init__")
        return ".".join([*parts[: -node.level], *([node.module] if node.module else [])])


def load(path: Path) -> Module:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    text = path.read_text(encoding="utf-8")
    return Module(path, ".".join(parts), text, ast.parse(text))


MODULES: Final = [
    load(path) for package in PRODUCT for path in sorted((ROOT / package).rglob("*.py"))
]
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@each_module
def test_imports_go_one_way(module: Module) -> None:
    """Nothing imports what the table forbids it, within a function and for types included."""
    wrong = [
        f"{module.name} imports {imported}: {why}"
        for importer, forbidden, why in FORBIDDEN
        if within(module.name, importer)
        for imported in module.imports()
        if within(imported, *forbidden)
    ]
    assert not wrong


@each_module
def test_only_the_daemon_opens_both_registries(module: Module) -> None:
    """Whoever opens sources and targets is in the table."""
    opened = module.names() & set(OPENERS)
    assert len(opened) < len(OPENERS) or within(module.name, *OPENS_BOTH), sorted(opened)


@each_module
def test_the_daemon_runs_without_the_demo(module: Module) -> None:
    """Nothing but its command imports the demo."""
    found = [imported for imported in module.imports() if within(imported, "cdc.demo")]
    assert not found or within(module.name, *IMPORTS_DEMO)


@each_module
def test_files_and_functions_stay_short(module: Module) -> None:
    """What outgrows the limits is split; a docstring, where contracts stand, costs nothing."""
    lines = module.text.count("\n")
    assert lines <= LONGEST_FILE, f"{module.path}: {lines} lines, at most {LONGEST_FILE}"
    wrong = [
        f"{module.path}:{node.lineno} {node.name}: {length(node)} lines, at most {LONGEST_FUNCTION}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and length(node) > LONGEST_FUNCTION
    ]
    assert not wrong


@each_module
def test_names_say_something(module: Module) -> None:
    """No module is called after nothing in particular."""
    words = set(module.name.replace(".", "_").split("_"))
    assert not words & SAYS_NOTHING


def test_the_rules_bite() -> None:
    """Imports are seen in every form: absolute, relative, of a name, inside a function."""
    text = (
        "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\n"
        "def h():\n    '''doc\n    string'''\n    import i\n    return m.n(o)\n"
    )
    module = Module(Path("j/k/l.py"), "j.k.l", text, ast.parse(text))
    seen = set(module.imports())
    assert seen == {"a.b", "c", "c.d", "j.k", "j.k.e", "j.f", "j.f.g", "i"}
    package = Module(Path("j/k/__init__.py"), "j.k", text, ast.parse(text))
    assert {"j.k.e", "j.f.g"} <= set(package.imports())
    [function] = [node for node in module.tree.body if isinstance(node, ast.FunctionDef)]
    assert length(function) == 3
    assert module.names() == {"m", "n", "o"}
    assert within("a.b", "a")
    assert not within("ab", "a")


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines
