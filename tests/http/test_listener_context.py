"""The objects that connections of one listener share: configuration, live state and callbacks."""

from __future__ import annotations

import ast
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.harness import LogReader, World
from tests.support.source_tree import ROOT

from pyryrelay.guard import Reason, TrustPolicy
from pyryrelay.http.hosts import HostPolicy
from pyryrelay.http.listener_context import AcceptCallbacks, ListenerContext, LivePolicy, WaitingConnections
from pyryrelay.websocket.connection import Connection


class FakeWebSocket:
    """An upgraded connection that counts how often its answer was flushed, and whether it was aborted."""

    def __init__(self, error: Exception | None = None) -> None:
        self.flushed = 0
        self.is_aborted = False
        self.transport = self
        self._error = error

    def flush(self) -> None:
        """Record it."""
        self.flushed += 1
        if self._error is not None:
            raise self._error

    def abortConnection(self) -> None:
        """Record it."""
        self.is_aborted = True


def upgraded(callbacks: AcceptCallbacks, error: Exception | None = None) -> Any:
    """Upgrade a connection."""
    websocket = FakeWebSocket(error)
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
    """Outside of a batch an upgraded connection is flushed once, and a call is made."""
    callbacks = AcceptCallbacks()
    websocket, calls = upgraded(callbacks), list[int]()
    callbacks.at_end(lambda: calls.append(1))
    assert (websocket.flushed, calls) == (1, [1])
    callbacks.begin_batch()
    callbacks.end_batch()
    assert (websocket.flushed, calls) == (1, [1])


def test_a_batch_leaves_flushing_to_its_end() -> None:
    """Connections that are upgraded in a batch are flushed at its end, and not once more at that of the next one."""
    callbacks = AcceptCallbacks()
    callbacks.begin_batch()
    websockets, calls = [upgraded(callbacks) for _ in range(3)], list[int]()
    callbacks.at_end(lambda: calls.append(sum(websocket.flushed for websocket in websockets)))
    assert [websocket.flushed for websocket in websockets] == [0, 0, 0]
    callbacks.end_batch()
    assert [websocket.flushed for websocket in websockets] == [1, 1, 1]
    assert calls == [0]  # what others serve does not wait for what is served here
    callbacks.begin_batch()
    callbacks.end_batch()
    assert upgraded(callbacks).flushed == 1
    assert ([websocket.flushed for websocket in websockets], calls) == ([1, 1, 1], [0])


def test_a_fault_at_the_end_of_a_batch() -> None:
    """It is logged, and ends only the connection that it belongs to."""
    callbacks, calls = AcceptCallbacks(), list[int]()

    def fail() -> None:
        raise RuntimeError("planted")

    callbacks.begin_batch()
    callbacks.at_end(fail)
    callbacks.at_end(lambda: calls.append(1))
    websockets = [upgraded(callbacks, error) for error in (RuntimeError("planted"), None)]
    with LogReader() as log:
        callbacks.end_batch()
    assert log.failures == ["A connection could not be carried", "A connection could not be accepted"]
    assert [(websocket.flushed, websocket.is_aborted) for websocket in websockets] == [(1, True), (1, False)]
    assert calls == [1]


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
