"""The same world behind two kinds of listening sockets: an `Acceptor`, and a plain port of Twisted's.

Both are real sockets on loopback, under a reactor of their own that only the test turns. Loopback delivers packets at
once, so what a peer sent is there in the next turn: nothing waits for time to pass.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.harness import World
from twisted.internet.selectreactor import SelectReactor

from pyryrelay.guard.address.clientip import Via
from pyryrelay.listen.accept import Acceptor
from pyryrelay.protocol import HttpRequest

LOCALHOST = "127.0.0.1"
TURNS = 6
"""Turns of the reactor after which everything that was caused has happened."""


class Peer:
    """A client's socket, which reads whatever arrives."""

    def __init__(self, place: Place, source: str, buffer_bytes: int | None = None) -> None:
        self._place = place
        self.sock = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
        if buffer_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.sock.bind((source, 0))
        self.sock.connect(place.address)
        self.sock.setblocking(False)
        self.received = b""
        self.end = "open"

    def send(self, data: bytes) -> None:
        """Send, and let the relay process it; do nothing where the connection is over."""
        with contextlib.suppress(ConnectionError):
            self.sock.send(data)
        self._place.turn()

    def finish(self) -> None:
        """Close the sending side."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self._place.turn()

    def read(self) -> tuple[bytes, str]:
        """Return all that was received, and whether the connection is ``open``, ``closed`` or ``reset``."""
        with contextlib.suppress(BlockingIOError):
            try:
                while data := self.sock.recv(65536):
                    self.received += data
                self.end = "closed"
            except ConnectionError:
                self.end = "reset"
        return self.received, self.end


class Place:
    """A listening socket, and the world behind it."""

    def __init__(self, reactor: Any, world: World, *, has_door: bool, interface: str = LOCALHOST) -> None:
        self.reactor = reactor
        self.world = world
        self.port: Any
        if has_door:
            self.port = Acceptor(reactor, 0, world.http_factory, 128, interface)
            self.port.startListening()
        else:
            self.port = reactor.listenTCP(0, world.http_factory, interface=interface)
        self.address = (interface, self.port.getHost().port)
        self._peers: list[Peer] = []

    def turn(self, turns: int = TURNS) -> None:
        """Run a few turns of the reactor."""
        for _ in range(turns):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0)

    def hand_over_silence(self) -> None:
        """Let the kernel hand over connections before their first byte, as it does after a timeout."""
        if hasattr(socket, "TCP_DEFER_ACCEPT"):
            # A plain port gets every connection at once.
            self.port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)

    def connect(self, source: str = LOCALHOST, *, buffer_bytes: int | None = None) -> Peer:
        """Return a peer that has sent nothing yet; ``buffer_bytes`` is what the kernel holds for it."""
        peer = Peer(self, source, buffer_bytes)
        self._peers.append(peer)
        return peer

    def ask(self, data: bytes, source: str = LOCALHOST) -> tuple[bytes, str]:
        """Connect, send, and return the answer and state; the connection stays as it is."""
        peer = self.connect(source)
        peer.send(data)
        return peer.read()

    def leave(self) -> None:
        """Close all peers one after the other, so that their endings have an order."""
        for peer in self._peers:
            peer.sock.close()
            self.turn()
        self._peers.clear()

    def close(self) -> None:
        """Close all peers, and check that no connection is left."""
        self.leave()
        self.port.stopListening()
        self.turn()
        self.world.assert_empty()


@dataclass
class Seen:
    """What can be seen of a world from outside, besides answers and endings of connections."""

    answers: list[tuple[bytes, str]]
    refusals: list[tuple[str | None, int, str, str]]
    attempts: list[tuple[str, Via]]
    decisions: int
    connections: int
    tracked: int
    http_requests: list[HttpRequest]
    tokens: dict[str, int] = field(default_factory=dict)


def seen(world: World, answers: Sequence[tuple[bytes, str]], sources: Sequence[str]) -> Seen:
    """Return everything that the two kinds must have in common."""
    return Seen(
        list(answers),
        list(world.observer.refusals),
        list(world.observer.attempts),
        len(world.observer.decisions),
        world.gate.leases.connections,
        world.gate.tracked,
        list(world.application.http_requests),
        {source: world.tokens_spent(source) for source in sources} if world.gate.config.upgrade_quota else {},
    )


@contextlib.contextmanager
def own_reactor() -> Iterator[Any]:
    """A reactor of its own."""
    reactor = SelectReactor()
    try:
        yield reactor
    finally:
        for left in reactor.removeAll():
            left.connectionLost(None)
