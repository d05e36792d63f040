"""Autobahn's own server, guarded by the mixin or not, on a transport in memory."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from tests.support.harness import ALICE
from tests.support.transports import Transport, tcp_address
from twisted.internet.interfaces import IAddress, IReactorTime

P = TypeVar("P", bound=WebSocketServerProtocol)


def plain_server(
    reactor: IReactorTime, protocol: type[P], peer: IAddress | None = None, **options: Any
) -> tuple[P, Transport]:
    """Return one accepted connection of a `WebSocketServerFactory` without timers; ``options`` are Autobahn's."""
    factory = WebSocketServerFactory(reactor=reactor)
    factory.protocol = protocol
    factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0, **options)
    built = cast(P, factory.buildProtocol(None))
    transport = Transport(tcp_address(ALICE) if peer is None else peer)
    transport.connect(built)
    return built, transport
