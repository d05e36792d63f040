"""The objects that connections of one listener share: configuration, live state and callbacks."""

from __future__ import annotations

import ast
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.harness import World
from tests.support.source_tree import ROOT

from pyryrelay.guard import Reason, TrustPolicy
from pyryrelay.http.hosts import HostPolicy
from pyryrelay.http.listener_context import AcceptCallbacks, ListenerContext, LivePolicy, WaitingConnections
from pyryrelay.websocket.connection import Connection


class FakeWebSocket:
    """An upgraded connection that counts how often its answer was flushed."""

    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> None:
        """Record it."""
        self.flushed += 1


def upgraded(callbacks: AcceptCallbacks) -> Any:
    """Upgrade a connection."""
    websocket = FakeWebSocket()
    callbacks.upgraded(cast(Connection, websocket))
    return websocket


def test_the_configuration_is_frozen() -> None:
    """No field of a listener's context can be set."""
    context: Any = World().context
    for field in fields(ListenerContext):
        with pytest.raises(FrozenInstanceError):
            setattr(context, field.name, None)


def test_the_policy_is_changed_as_a_whole() -> None:
    """`configure` replaces trust, dropped reasons (by default those of jailed clients) and hosts (by default any)."""
    live = LivePolicy(TrustPolicy())
    assert (live.trust, live.dropped, live.draining) == (TrustPolicy(), frozenset({Reason.JAILED}), False)
    live.drain()
    trust = TrustPolicy(trust_forwarded=True)
    live.configure(trust, frozenset({"slow_head"}), HostPolicy(["relay.example.org"]))
    assert (live.trust, live.dropped, live.draining) == (trust, frozenset({"slow_head"}), True)
    assert live.hosts.names == ("relay.example.org",)
    live.configure(trust, frozenset())
    assert not live.hosts


def test_an_upgrade_outside_of_a_batch_is_answered_at_once() -> None:
    """Outside of a batch an upgraded connection is flushed once."""
    callbacks = AcceptCallbacks()
    assert upgraded(callbacks).flushed == 1
    callbacks.begin_batch()
    assert callbacks.end_batch() == []


def test_a_batch_leaves_flushing_to_its_end() -> None:
    """Connections that are upgraded in a batch are returned in order without a flush, and the next batch is empty."""
    callbacks = AcceptCallbacks()
    callbacks.begin_batch()
    websockets = [upgraded(callbacks) for _ in range(3)]
    assert callbacks.end_batch() == websockets
    assert [websocket.flushed for websocket in websockets] == [0, 0, 0]
    assert upgraded(callbacks).flushed == 1
    assert callbacks.end_batch() == []


def test_waiting_connections_are_shut_down_together() -> None:
    """Each waiting connection is shut down once, though it leaves the set meanwhile."""
    waiting = WaitingConnections()
    told: list[object] = []

    class Leaving:
        def shut_down(self) -> None:
            told.append(self)
            waiting.discard(self)

    leaving = [Leaving() for _ in range(3)]
    waiting.update(leaving)
    waiting.shut_down()
    assert set(told) == set(leaving)
    assert len(told) == 3
    assert not waiting


OWNED = {"accepted", "draining", "dropped", "live", "trust", "waiting"}
"""Attributes of the shared objects."""
OWNERS = {"_context", "_live", "callbacks", "context", "live"}
"""Names of the shared objects."""


def assignments(path: Path) -> list[str]:
    """The assignments to owned attributes of anything but ``self``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and node.attr in OWNED
        and ast.unparse(node.value).rpartition(".")[2] in OWNERS
    ]


def test_shared_objects_are_changed_by_their_methods_only() -> None:
    """Only the shared objects' own methods change them, in the tests, too."""
    found = [
        line
        for folder in ("src", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for line in assignments(path)
    ]
    assert found == []
