"""The Nostr relay of two processes, one of which takes over from the other."""

from __future__ import annotations

import json
from typing import Any

from tests.nostr.test_running import Mounted
from tests.support.nostr_relay import CLIENT, FakePeer
from twisted.internet.defer import Deferred

from pyryrelay.nostr.running import SPREAD_S
from pyryrelay.nostr.workers.wire import Ready
from pyryrelay.protocol import Request

AWAY = (1001, "shutting down")
REQ = [(json.dumps(["REQ", "a", {}]).encode(), False)]


class Before:
    """The same protocol in the process before."""

    def __init__(self) -> None:
        self.released: Deferred[None] = Deferred()

    def ask(self, question: bytes) -> Deferred[bytes | None]:
        raise AssertionError

    def when_released(self) -> Deferred[None]:
        return self.released


def opened(mounted: Mounted) -> tuple[FakePeer, Any]:
    """Return a peer and its session."""
    peer = FakePeer()
    (application,) = mounted.nostr.routes.values()
    return peer, application.opened(peer, Request("/", {}, CLIENT))


def test_messages_wait_for_the_store() -> None:
    """Until the process before has closed the store, nothing is started, peers are held, and the relay is healthy."""
    mounted, before = Mounted(), Before()
    mounted.nostr.start(before)
    _, session = opened(mounted)
    waiting = session.messages(REQ)
    done: list[object] = []
    waiting.addCallback(done.append)
    assert mounted.children.started == []
    assert mounted.nostr.is_healthy()
    before.released.callback(None)
    assert mounted.children.started
    assert done == [None]
    assert not mounted.nostr.is_healthy()
    mounted.children.started[0].answer(Ready(0, 0))
    assert mounted.nostr.is_healthy()


def test_a_process_that_ends_while_it_waits() -> None:
    """It never opens the store."""
    mounted, before = Mounted(), Before()
    mounted.nostr.start(before)
    assert mounted.nostr.stop() is None
    before.released.callback(None)
    assert mounted.children.started == []


def test_handing_over() -> None:
    """All peers are closed, spread over a short time, and late ones at once; the store is closed then."""
    mounted = Mounted()
    mounted.nostr.start()
    peers = [opened(mounted)[0] for _ in range(10_000)]
    released: list[object] = []
    mounted.nostr.hand_over(30.0).addCallback(released.append)
    assert opened(mounted)[0].closed_with == AWAY
    gone = sum(peer.closed_with == AWAY for peer in peers)
    assert 0 < gone < 200
    mounted.clock.advance(SPREAD_S / 2)
    assert not any(child.is_closed for child in mounted.children.started)
    for _ in range(100):
        mounted.clock.advance(SPREAD_S / 50)
    assert all(peer.closed_with == AWAY for peer in peers)
    assert all(child.is_closed for child in mounted.children.started)
    assert released == []
    for child in mounted.children.started:
        child.end("")
    assert released == [None]
    assert mounted.nostr.answer(b"anything") == b""


def test_few_peers_are_closed_at_once() -> None:
    """A handful of peers is not worth waiting."""
    mounted = Mounted()
    mounted.nostr.start()
    peers = [opened(mounted)[0] for _ in range(3)]
    mounted.nostr.hand_over(30.0)
    assert [peer.closed_with for peer in peers] == [AWAY] * 3


def test_taking_back() -> None:
    """If the other process has died, the store is opened again once it is closed, and peers are welcome."""
    mounted = Mounted()
    mounted.nostr.start()
    children = list(mounted.children.started)
    mounted.nostr.hand_over(30.0)
    mounted.nostr.take_back()
    assert mounted.children.started == children
    for child in children:
        child.end("")
    assert len(mounted.children.started) == 2 * len(children)
    peer, session = opened(mounted)
    assert peer.close_code is None
    assert session.messages(REQ) is None


def test_taking_back_while_peers_move() -> None:
    """The store has not been closed, so it serves those that are still there."""
    mounted = Mounted()
    mounted.nostr.start()
    children = list(mounted.children.started)
    peers = [opened(mounted) for _ in range(1000)]
    moved: list[object] = []
    mounted.nostr.hand_over(30.0).addCallback(moved.append)
    mounted.nostr.take_back()
    for _ in range(10):
        mounted.clock.advance(1.0)
    assert moved == [None]
    assert mounted.children.started == children
    assert not any(child.is_closed for child in children)
    left = [session for peer, session in peers if peer.close_code is None]
    assert len(left) > 900
    assert all(session.messages(REQ) is None for session in left[:3])
    assert opened(mounted)[0].close_code is None
    done: list[object] = []
    mounted.nostr.hand_over(30.0).addCallback(done.append)
    for _ in range(100):
        mounted.clock.advance(1.0)
    assert all(peer.closed_with == AWAY for peer, _ in peers)
    for child in children:
        child.end("")
    assert done == [None]
