"""The rules of who may import whom, checked on the parsed source."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator

import pytest
from tests.support.source_tree import ROOT, Import, Tree, imports_of, room_of, sources, within

ROOMS = (
    "_version",
    "pyryrelay",
    "guard",
    "text",
    "close_codes",
    "refusal_words",
    "logger",
    "metric_families",
    "protocol_options",
    "broadcast",
    "protocol",
    "runtime",
    "config",
    "websocket",
    "http",
    "listen",
    "acme",
    "jail",
    "cluster",
    "observe",
    "admin",
    "reload",
    "preflight",
    "mounts",
    "cli",
    "handover",
    "workers",
    "service",
    "start",
    "__main__",
)
"""Every room but the protocols, in order: a module imports only its own room and those before it."""
KNOW_PROTOCOLS = ("mounts",)
"""The rooms that may import a protocol."""
PROTOCOLS = frozenset(
    {room_of(target) for module, target in sources().arrows() if room_of(module) in KNOW_PROTOCOLS} - {*ROOMS}
) | {"nostr"}
"""The rooms that the mount list imports, and one that it does not import yet."""
PROTOCOLS_IMPORT = ("pyryrelay", "protocol", "broadcast", "close_codes", "guard", "text", "logger", "metric_families")
"""The rooms that a protocol may import, besides pure modules; the first one has the version."""
TRANSPORT = ("pyryrelay.http", "pyryrelay.listen", "pyryrelay.websocket")
"""Rooms that touch connections."""

EXCEPTIONS: set[tuple[str, str]] = set()
"""Imports against the order of the rooms that are still there, as importer and imported. It may only shrink."""

PURE = frozenset(
    {
        "pyryrelay.config.types",
        "pyryrelay.nostr.events",
        "pyryrelay.nostr.filters",
        "pyryrelay.nostr.hll",
        "pyryrelay.nostr.keys",
        "pyryrelay.nostr.kinds",
        "pyryrelay.nostr.messages",
        "pyryrelay.nostr.storage.visibility",
        "pyryrelay.nostr.subscriptions",
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
"""Modules that must be pure even if they stop saying so, besides all of ``guard``."""
SIDE_EFFECTS = frozenset({"logging", "random", "socket", "time"})
THIRD_PARTY = {
    "pyryrelay.nostr.events": {"msgspec"},
    "pyryrelay.nostr.filters": {"msgspec"},
    "pyryrelay.nostr.messages": {"msgspec"},
    "pyryrelay.nostr.policies.protected": {"msgspec"},
    "pyryrelay.nostr.subscriptions": {"msgspec"},
    "pyryrelay.nostr.workers.wire": {"msgspec"},
    "pyryrelay.pyry.envelope": {"msgspec"},
    "pyryrelay.websocket.frames.reader": {"autobahn"},
    "pyryrelay.websocket.frames.scanners": {"websockets"},
    "pyryrelay.workers.mesh.messages": {"msgspec"},
}
AUTOBAHN_PROTOCOL = "autobahn.twisted.websocket.WebSocketServerProtocol"
AUTOBAHN_BASES = ("pyryrelay.websocket.autobahn_base",)
"""The module that subclasses Autobahn's protocol."""


def is_pure(module: str, tree: ast.Module) -> bool:
    """Tell whether rule 1 holds for a module."""
    says_so = re.search(r"\bPURE\b", ast.get_docstring(tree) or "") is not None
    return says_so or module in PURE or within(module, "pyryrelay.guard")


def pure_modules(tree: Tree) -> set[str]:
    """Return the modules that rule 1 holds for."""
    return {module for module, parsed in tree.modules.items() if is_pure(module, parsed)}


def violations(tree: Tree) -> list[str]:
    """Return every import that a rule about single imports forbids, as ``module:line: rule: target``."""
    pure = pure_modules(tree)
    return [
        f"{module}:{imported.line}: {rule}: {imported.target}"
        for module in tree.modules
        for imported in tree.imports(module)
        for rule in broken_rules(module, imported, pure)
    ]


def broken_rules(module: str, imported: Import, pure: set[str]) -> Iterator[str]:
    """Yield the rules that one import breaks."""
    target = imported.target
    if module in pure and not allowed_in_pure(module, target, pure):
        yield "rule 1, pure modules"
    if within(target, "autobahn", "txaio") and not within(module, "pyryrelay.websocket"):
        yield "rule 2, Autobahn outside of websocket"
    elif target == AUTOBAHN_PROTOCOL and module not in AUTOBAHN_BASES:
        yield "rule 2, a second subclass of Autobahn's protocol"
    if within(target, "twisted.internet.reactor") and imported.function is None:
        yield "reactor: it comes in by argument"


def allowed_in_pure(module: str, target: str, pure: set[str]) -> bool:
    """Tell whether rule 1 allows an import: the standard library without side effects, and other pure modules."""
    top = target.partition(".")[0]
    if top == "pyryrelay":
        return within(target, *(["pyryrelay.guard"] if within(module, "pyryrelay.guard") else pure))
    return top not in SIDE_EFFECTS and (top in sys.stdlib_module_names or top in THIRD_PARTY.get(module, ()))


def wrong_arrows(tree: Tree) -> set[tuple[str, str]]:
    """Return the imports between rooms that rules 3 and 4 forbid, as importer and imported."""
    pure = pure_modules(tree)
    return {(module, target) for module, target in tree.arrows() if not arrow_is_allowed(module, target, pure)}


def arrow_is_allowed(module: str, target: str, pure: set[str]) -> bool:
    """Tell whether rules 3 and 4 allow that ``module`` imports ``target``, both of this package."""
    room, imported = room_of(module), room_of(target)
    if room == imported:
        return True
    if imported in PROTOCOLS:
        return room in KNOW_PROTOCOLS
    if room in PROTOCOLS:
        return imported in PROTOCOLS_IMPORT or (target in pure and not within(target, *TRANSPORT))
    return ROOMS.index(imported) < ROOMS.index(room)


def planted(module: str, source: str) -> Tree:
    """Return the real modules' names without their content, and one module with a source."""
    tree = sources()
    return Tree({name: ast.parse("") for name in tree.modules} | {module: ast.parse(source)}, tree.packages)


def test_no_import_breaks_a_rule() -> None:
    """No module imports what it must do without: side effects in pure modules, Autobahn, a global reactor."""
    assert violations(sources()) == []


def test_rooms_import_only_earlier_rooms() -> None:
    """No module imports a later room, and nothing but the mount list and the service imports a protocol."""
    assert wrong_arrows(sources()) - EXCEPTIONS == set()


def test_each_exception_is_needed() -> None:
    """An import that is gone is no exception any more: take it out of `EXCEPTIONS`."""
    assert EXCEPTIONS - wrong_arrows(sources()) == set()


def test_every_room_has_a_place_in_the_order() -> None:
    """A new folder or top-level module is put into the order of the rooms or among the protocols."""
    assert {room_of(module) for module in sources().modules} <= {*ROOMS, *PROTOCOLS}


def test_the_pure_modules_exist() -> None:
    """The list of pure modules names existing ones, so that a renamed one does not slip out."""
    modules = sources().modules
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
        ("pyryrelay.websocket.factory", f"from {AUTOBAHN_PROTOCOL.replace('.Web', ' import Web')}", "rule 2"),
        ("pyryrelay.runtime.timer_wheel", "from twisted.internet import reactor", "reactor"),
        ("pyryrelay.runtime.timer_wheel", "import twisted.internet.reactor", "reactor"),
        ("pyryrelay.service", "from twisted.internet import reactor", "reactor"),
        ("pyryrelay.service", "class A:\n    from twisted.internet import reactor as r", "reactor"),
    ],
)
def test_planted_imports_break_their_rule(module: str, source: str, rule: str) -> None:
    """The checker finds each kind of import that a rule forbids."""
    (found,) = violations(planted(module, source))
    assert found.startswith(f"{module}:")
    assert rule in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyryrelay.guard.gate", "from .buckets import Buckets\nfrom math import ceil\nimport ipaddress"),
        ("pyryrelay.guard.gate", "from pyryrelay.guard.rate.quota import Quota\nfrom . import errors"),
        ("pyryrelay.config.settings", "from pyryrelay.config.types import QUOTA"),
        ("pyryrelay.pyry.envelope", "import msgspec"),
        ("pyryrelay.websocket.factory", "import txaio, time\nfrom autobahn.twisted import websocket"),
        ("pyryrelay.service", "def makeService():\n    from twisted.internet import reactor"),
        ("pyryrelay.service", "from pyryrelay.http import message"),
    ],
)
def test_allowed_imports_break_no_rule(module: str, source: str) -> None:
    """The checker accepts imports that no rule forbids."""
    tree = planted(module, source)
    assert violations(tree) == []
    assert wrong_arrows(tree) == set()


@pytest.mark.parametrize(
    ("module", "source", "target"),
    [
        ("pyryrelay.http.connection", "from pyryrelay.pyry import relay", "pyryrelay.pyry.relay"),
        ("pyryrelay.http.connection", "from pyryrelay import pyry", "pyryrelay.pyry"),
        ("pyryrelay.http.connection", "from ..pyry.relay import Relay", "pyryrelay.pyry.relay"),
        ("pyryrelay.preflight.files", "def f():\n    import pyryrelay.pyry", "pyryrelay.pyry"),
        ("pyryrelay.pyry.relay", "import pyryrelay.service", "pyryrelay.service"),
        ("pyryrelay.pyry.relay", "from pyryrelay.runtime.process import x", "pyryrelay.runtime.process"),
        ("pyryrelay.pyry.relay", "from pyryrelay.websocket.liveness import x", "pyryrelay.websocket.liveness"),
        ("pyryrelay.pyry.relay", "if TYPE_CHECKING:\n    import pyryrelay.http", "pyryrelay.http"),
        ("pyryrelay.nostr.relay", "from pyryrelay.pyry.registry import Registry", "pyryrelay.pyry.registry"),
        ("pyryrelay.websocket.factory", "import pyryrelay.http.routing", "pyryrelay.http.routing"),
        ("pyryrelay.protocol", "from pyryrelay.runtime import process", "pyryrelay.runtime.process"),
        ("pyryrelay.cli.command", "from pyryrelay.service import build", "pyryrelay.service"),
    ],
)
def test_planted_arrows_are_found(module: str, source: str, target: str) -> None:
    """The checker finds each kind of import that goes against the order of the rooms."""
    assert wrong_arrows(planted(module, source)) == {(module, target)}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyryrelay.pyry.options", "from pyryrelay.config.sources import option"),
        ("pyryrelay.pyry.relay", "from pyryrelay.protocol import Peer\nfrom pyryrelay.guard import Quota"),
        ("pyryrelay.mounts", "from pyryrelay.pyry.relay import Relay"),
        ("pyryrelay.listen.accept", "from pyryrelay.http import connection\nimport twisted.internet"),
        ("pyryrelay.cli.command", "from pyryrelay import __version__"),
    ],
)
def test_arrows_to_earlier_rooms_are_allowed(module: str, source: str) -> None:
    """Protocols import the seam and pure helpers; other rooms import what comes before them."""
    assert wrong_arrows(planted(module, source)) == set()


def test_relative_imports_of_a_package_are_its_own() -> None:
    """In `__init__` one dot is the package itself, elsewhere it is the package around the module."""
    tree = ast.parse("from .gate import Gate")
    assert [found.target for found in imports_of("pyryrelay.guard", tree, is_package=True)] == [
        "pyryrelay.guard.gate.Gate"
    ]
    assert [found.target for found in imports_of("pyryrelay.guard.x", tree)] == ["pyryrelay.guard.gate.Gate"]


def test_rooms_that_are_tested_on_one_reactor_only_know_none() -> None:
    """What tox.ini leaves out where the reactor is another one imports no Twisted, not even through other modules."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "tox.ini", encoding="utf-8")
    words = settings["tests"]["not_about_reactors"].split()
    rooms = [".".join(("pyryrelay", *word.split("/")[1:])) for word in words if word.startswith("tests/")]
    assert rooms
    tree = sources()
    reached = [module for module in tree.modules if within(module, *rooms)]
    assert {room for room in rooms if not any(within(module, room) for module in reached)} == set()
    arrows = tree.arrows()
    for module in reached:
        reached += {target for source, target in arrows if source == module}.difference(reached)
    assert [module for module in reached for one in tree.imports(module) if within(one.target, "twisted")] == []
