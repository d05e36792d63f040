"""Which process serves an upgrade, and how a connection gets there.

A relay may consist of several processes, on one host or on several. Connections with the same key (see
`pyryrelay.protocol.Application.place_key`) are served by one of them, which owns the key. The process that accepted a
connection reads its request head, and the gate has to let it pass; then it asks its `Placement`, before the upgrade:

* `HERE`: the connection is upgraded here. An application without a key is never asked about.
* a `Carrier` takes the connection to its owner. The token is spent and the lease is taken here, because this is where
  the client's other connections are counted, and the carrier gets the lease with the connection.
* an `HttpRefusal` or a `Page` is the answer. The attempt costs a token, unless the reason of the refusal is one that no
  client is to blame for, such as that of `UNAVAILABLE`.
* a Deferred of one of these: the connection waits. Nothing is spent meanwhile, the time for the head runs on, and the
  client may leave; then the Deferred is cancelled. A failure is logged, and answered with 500.

Invariant: a lease that a carrier got is released exactly once, by the carrier, when the connection has ended.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from twisted.internet.defer import Deferred

from pyryrelay.guard import ClientAddress
from pyryrelay.protocol import HttpRefusal, Page, Request
from pyryrelay.refusal_words import RefusalWord
from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.websocket.guarded import HeldLease

__all__ = ["HERE", "UNAVAILABLE", "Attempt", "Carrier", "Here", "OnlyHere", "Place", "Placement"]

UNAVAILABLE: Final = HttpRefusal(503, RefusalWord.OWNER_UNAVAILABLE, (("Retry-After", "1"),))
"""The answer if the process that serves a key cannot take a connection now, or is not known."""


class Here(Enum):
    """The type of `HERE`."""

    HERE = "here"


HERE: Final = Here.HERE
"""The connection is to be served by this process."""


class Attempt(NamedTuple):
    """A connection whose upgrade is due, and which belongs to the carrier from now on.

    ``head`` is the request head up to and including its empty line, as it was received, and ``rest`` is what was read
    behind it. ``request`` and ``websocket_key`` are what was understood of the head and found to be in order. ``route``
    is the application's name, and ``key`` what the place depends on.

    ``connection`` is a socket that nothing else uses, if the head came from a bare socket, and ``address`` is then that
    of its other end: None on a UNIX socket. If there is a layer in between that only this process has, such as TLS,
    ``connection`` is the transport: nothing is read from it until its protocol is replaced (see
    `pyryrelay.runtime.splice`).

    ``refuse`` gives the connection back: the client is answered, the connection ends, and the lease is released. It may
    be called at any time instead of carrying, as long as nothing was sent to the client or read from it.

    ``at_end`` makes a call when all connections that were accepted together have been seen to, or at once if this one
    came alone.
    """

    head: bytes
    rest: bytes
    route: str
    key: str
    request: Request
    websocket_key: str
    lease: HeldLease
    connection: socket.SocketType | IStreamTransport
    address: tuple[Any, ...] | None
    refuse: Callable[[HttpRefusal], None]
    at_end: Callable[[Callable[[], None]], None]

    @property
    def client(self) -> ClientAddress:
        """Who has asked for the upgrade."""
        return self.request.client


class Carrier(Protocol):
    """Takes connections to the process that serves them."""

    def carry(self, attempt: Attempt) -> None:
        """Take over a connection and its lease, or call ``attempt.refuse``."""


Place: TypeAlias = Here | Carrier | HttpRefusal | Page
"""Where an upgrade is served, or the answer to it."""


class Placement(Protocol):
    """Knows which process serves an upgrade."""

    def place(self, route: str, key: str) -> Place | Deferred[Place]:
        """Return where an upgrade is to be served: that of the application ``route`` with this key."""


class OnlyHere:
    """A placement for connections that have been carried already: those that belong elsewhere are refused.

    So a connection makes one hop, and never two.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def place(self, route: str, key: str) -> Place | Deferred[Place]:
        """See `Placement`."""
        place = self._placement.place(route, key)
        if isinstance(place, Deferred):
            return place.addCallback(_only_here)
        return _only_here(place)


def _only_here(place: Place) -> Place:
    return place if place is HERE or isinstance(place, HttpRefusal) else UNAVAILABLE
