"""The same world behind two kinds of listening sockets: an `Acceptor`, and a plain port of Twisted's.

Both are real sockets on loopback, under a reactor of their own that only the test turns. Loopback delivers packets at
once, so what a peer sent is there in the next turn: nothing waits for time to pass.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.harness import PATH, World, client_of, request_head
from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock

from pyryrelay.guard import CidrSet, TrustPolicy
from pyryrelay.guard.address.clientip import Via
from pyryrelay.listen.accept import Acceptor
from pyryrelay.protocol import HttpAnswer, HttpRequest, Page

LOCALHOST, OTHER, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"
PROXIED = TrustPolicy(trust_forwarded=True, proxies=CidrSet([LOCALHOST]))
PLAIN = request_head(PATH, "X-A: b", without=["Upgrade"])
PAGE = Page(200, (("Content-Type", "text/plain"), ("X-B", "c")), b"of the application")
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

    def __init__(self, reactor: Any, world: World, *, has_acceptor: bool, interface: str = LOCALHOST) -> None:
        self.reactor = reactor
        self.world = world
        self.port: Any
        if has_acceptor:
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


def adopted(place: Place) -> list[Any]:
    """Return the transports that are accepted from now on, as a list that grows."""
    place.world.accepted.clear()
    return place.world.accepted


def use_up(place: Place, source: str = LOCALHOST) -> None:
    """Leave no token."""
    place.world.tokens_spent(source)


def jail_other(place: Place) -> None:
    """Jail `OTHER`."""
    place.world.gate.jail.add(client_of(OTHER).key, 100.0, place.world.clock.seconds())


def application(place: Place, on_http: Callable[[HttpRequest], HttpAnswer | Deferred[HttpAnswer]]) -> None:
    """Make the application answer requests that ask for no upgrade."""
    place.world.application.on_http = on_http


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


class Readers(Clock):
    """A reactor with nothing but a clock and a list of readers. If it is ``full``, it takes no connections."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[object] = []
        self.full = False

    def addReader(self, reader: object) -> None:  # noqa: N802
        """Add a reader."""
        assert reader not in self.readers
        if self.full and not isinstance(reader, Acceptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.readers.append(reader)

    def removeReader(self, reader: object) -> None:  # noqa: N802
        """Remove a reader."""
        if reader in self.readers:
            self.readers.remove(reader)
