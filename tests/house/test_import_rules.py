"""DESIGN's walls, read from the source: who may import whom. Nothing is imported here, everything is parsed."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

PURE = frozenset(
    {
        "pyryrelay.config.types",
        "pyryrelay.pyry.deadlines",
        "pyryrelay.pyry.envelope",
        "pyryrelay.pyry.registry",
        "pyryrelay.config.settings",
        "pyryrelay.config.sources",
        "pyryrelay.close_codes",
        "pyryrelay.websocket.frames.reader",
        "pyryrelay.http.message",
        "pyryrelay.websocket.liveness",
    }
)
"""Pure beside all of ``guard`` and whatever says PURE of itself."""
SIDE_EFFECTS = frozenset({"logging", "random", "socket", "time"})
THIRD_PARTY = {"pyryrelay.pyry.envelope": {"msgspec"}, "pyryrelay.websocket.frames.reader": {"autobahn", "websockets"}}
TRANSPORT = ("pyryrelay.http", "pyryrelay.listen", "pyryrelay.websocket")
"""Rooms that touch connections."""


@dataclass(frozen=True)
class Import:
    """One imported module (or name of a module), where it stands, and inside which function."""

    target: str
    line: int
    function: str | None


def imports_of(module: str, tree: ast.Module, *, is_package: bool = False) -> Iterator[Import]:
    """Everything that a module imports anywhere, names of ``from`` imports included, relative ones resolved."""
    package = module if is_package else module.rpartition(".")[0]

    def visit(node: ast.AST, function: str | None) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, function)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, node.module or ""]).strip(".") if node.level else node.module or ""
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, function)
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(tree, None)


def within(name: str, *prefixes: str) -> bool:
    """Whether a dotted name is one of ``prefixes`` or below it."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def is_pure(module: str, tree: ast.Module) -> bool:
    """Whether rule 1 holds for a module."""
    says_so = re.search(r"\bPURE\b", ast.get_docstring(tree) or "") is not None
    return says_so or module in PURE or within(module, "pyryrelay.guard")


def violations(modules: dict[str, ast.Module], packages: frozenset[str] = frozenset()) -> list[str]:
    """Every import that a rule forbids, as ``module:line: rule: target``."""
    pure = {module for module, tree in modules.items() if is_pure(module, tree)}
    found = []
    for module, tree in modules.items():
        for imported in imports_of(module, tree, is_package=module in packages):
            for rule in broken_rules(module, imported, pure):
                found.append(f"{module}:{imported.line}: {rule}: {imported.target}")
    return found


def broken_rules(module: str, imported: Import, pure: set[str]) -> Iterator[str]:
    """The rules that one import breaks."""
    target = imported.target
    if module in pure and not allowed_in_pure(module, target, pure):
        yield "rule 1, pure modules"
    if within(target, "autobahn", "txaio") and not within(module, "pyryrelay.websocket"):
        yield "rule 2, Autobahn outside of websocket"
    if within(module, *TRANSPORT) and within(target, "pyryrelay.pyry"):
        yield "rule 3, transport knows pyry"
    if within(module, "pyryrelay.pyry") and within(target, *TRANSPORT):
        yield "rule 3, pyry knows transport"
    if within(target, "twisted.internet.reactor") and imported.function is None:
        yield "rule 4, a reactor from nowhere"


def allowed_in_pure(module: str, target: str, pure: set[str]) -> bool:
    """Rule 1: the standard library without its side effects, other pure modules, and what is named for one module."""
    top = target.partition(".")[0]
    if top == "pyryrelay":
        return within(target, *(["pyryrelay.guard"] if within(module, "pyryrelay.guard") else pure))
    return top not in SIDE_EFFECTS and (top in sys.stdlib_module_names or top in THIRD_PARTY.get(module, ()))


def sources() -> tuple[dict[str, ast.Module], frozenset[str]]:
    """All modules of the package by name, and which of them are packages."""
    modules, packages = {}, set()
    for path in sorted((SOURCE / "pyryrelay").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if parts[-1] == "__init__":
            packages.add(name)
        modules[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return modules, frozenset(packages)


def test_the_walls_stand() -> None:
    """No module of the package imports what the design forbids it to."""
    assert violations(*sources()) == []


def test_the_pure_modules_exist() -> None:
    """The list names modules that are there, so that a renamed one does not slip out."""
    modules, _ = sources()
    assert set(modules) >= PURE
    assert len([module for module in modules if within(module, "pyryrelay.guard")]) > 5


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("pyryrelay.guard.gate", "import time", "rule 1"),
        ("pyryrelay.guard.gate", "import os, time as clock", "rule 1"),
        ("pyryrelay.guard.gate", "from time import monotonic", "rule 1"),
        ("pyryrelay.guard.gate", "def f():\n    import random", "rule 1"),
        ("pyryrelay.guard.gate", "if TYPE_CHECKING:\n    from twisted.internet import interfaces", "rule 1"),
        ("pyryrelay.guard.gate", "import msgspec", "rule 1"),
        ("pyryrelay.guard.gate", "from pyryrelay.config.settings import Settings", "rule 1"),
        ("pyryrelay.guard.gate", "from ..http import message", "rule 1"),
        ("pyryrelay.guard.gate", "from .. import settings", "rule 1"),
        ("pyryrelay.guard.brandnew", "import socket", "rule 1"),
        ("pyryrelay.config.settings", "import logging.handlers", "rule 1"),
        ("pyryrelay.config.settings", "from pyryrelay.cli.twistd_options import Options", "rule 1"),
        ("pyryrelay.pyry.registry", "import msgspec", "rule 1"),
        ("pyryrelay.websocket.liveness", "from twisted.logger import Logger", "rule 1"),
        ("pyryrelay.newcomer", "'''Text. PURE.'''\nimport socket", "rule 1"),
        ("pyryrelay.observe.log", "from autobahn.twisted import websocket", "rule 2"),
        ("pyryrelay.service", "def f():\n    import txaio", "rule 2"),
        ("pyryrelay.http.connection", "from pyryrelay.pyry import relay", "rule 3"),
        ("pyryrelay.http.connection", "from pyryrelay import pyry", "rule 3"),
        ("pyryrelay.http.connection", "from ..pyry.relay import Relay", "rule 3"),
        ("pyryrelay.pyry.relay", "from pyryrelay.websocket.liveness import Liveness", "rule 3"),
        ("pyryrelay.pyry.relay", "if TYPE_CHECKING:\n    import pyryrelay.http", "rule 3"),
        ("pyryrelay.runtime.timer_wheel", "from twisted.internet import reactor", "rule 4"),
        ("pyryrelay.runtime.timer_wheel", "import twisted.internet.reactor", "rule 4"),
        ("pyryrelay.service", "from twisted.internet import reactor", "rule 4"),
        ("pyryrelay.service", "class A:\n    from twisted.internet import reactor as r", "rule 4"),
    ],
)
def test_planted_violations_are_found(module: str, source: str, rule: str) -> None:
    """The checker catches each kind of import that it is there for."""
    known = {name: ast.parse("") for name in PURE}
    (found,) = violations(known | {module: ast.parse(source)})
    assert found.startswith(f"{module}:")
    assert f": {rule}" in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyryrelay.guard.gate", "from .buckets import Buckets\nfrom math import ceil\nimport ipaddress"),
        ("pyryrelay.guard.gate", "from pyryrelay.guard.rate.quota import Quota\nfrom . import errors"),
        ("pyryrelay.config.settings", "from pyryrelay.config.types import QUOTA"),
        ("pyryrelay.pyry.envelope", "import msgspec"),
        ("pyryrelay.websocket.factory", "import txaio, time\nfrom autobahn.twisted import websocket"),
        ("pyryrelay.service", "def makeService():\n    from twisted.internet import reactor"),
        ("pyryrelay.service", "from pyryrelay.pyry import relay\nfrom pyryrelay.http import message"),
    ],
)
def test_what_is_allowed_is_not_complained_about(module: str, source: str) -> None:
    """The checker leaves honest imports alone."""
    known = {name: ast.parse("") for name in [*PURE, "pyryrelay.guard"]}
    assert violations(known | {module: ast.parse(source)}) == []


def test_relative_imports_of_a_package_are_its_own() -> None:
    """In `__init__` one dot is the package itself, elsewhere it is the package around the module."""
    tree = ast.parse("from .gate import Gate")
    assert [found.target for found in imports_of("pyryrelay.guard", tree, is_package=True)] == [
        "pyryrelay.guard.gate.Gate"
    ]
    assert [found.target for found in imports_of("pyryrelay.guard.x", tree)] == ["pyryrelay.guard.gate.Gate"]
