"""Functions on transports of any kind: find the socket below TLS, tune it, end its write side, and detect hang-ups."""

from __future__ import annotations

import contextlib
import select
import socket
from enum import Enum
from typing import cast

from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper

from pyryrelay.runtime.socket_options import tune_socket

__all__ = ["Departure", "IStreamTransport", "departure", "end_writing", "has_hung_up", "socket_transport", "tune"]

_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class IStreamTransport(ITCPTransport, IPushProducer, IConsumer):
    """The methods of TCP, TLS and UNIX-domain transports that this package uses."""


def socket_transport(transport: IStreamTransport) -> IStreamTransport:
    """Return the transport that has the socket, below those that handle TLS or PROXY headers."""
    while isinstance(transport, ProtocolWrapper):
        transport = cast(IStreamTransport, transport.transport)
    return transport


def end_writing(transport: object) -> None:
    """End the write side of a transport behind the data that it holds. TLS also ends that of the connection below it.

    No producer may be registered. Reading continues.
    """
    layer = transport
    while isinstance(layer, ProtocolWrapper) and not hasattr(type(layer), "loseWriteConnection"):
        layer = cast(object, layer.transport)
    layer.loseWriteConnection()  # type: ignore[attr-defined]  # IHalfCloseableTransport is not said by all that do it


def has_hung_up(transport: IStreamTransport) -> bool:
    """Return whether the peer has ended its side of the connection, or all of it, even if data is still unread."""
    if not isinstance(transport, Connection):
        return False
    poll = select.poll()
    poll.register(transport.fileno(), _HUNG_UP)
    return bool(poll.poll(0))


class Departure(Enum):
    """Whether the peer of a connection that is not read from has left, and what would be lost by ending it."""

    CONNECTED = "connected"
    UNREAD = "the peer has ended its side, and bytes that it sent before are unread"
    ENDED = "the peer has ended its side, and nothing but that is left to be read"
    RESET = "the connection is reset"


def departure(transport: IStreamTransport) -> Departure:
    """Return whether the peer of a transport has left, without reading anything.

    A UNIX-domain socket whose peer has closed it is hung up with bytes unread, which for TCP only a reset does.
    """
    if not isinstance(transport, Connection):
        return Departure.CONNECTED
    poll = select.poll()
    poll.register(transport.fileno(), _HUNG_UP)
    found = poll.poll(0)
    if not found:
        return Departure.CONNECTED
    ((_, events),) = found
    plain: socket.socket = transport.getHandle()
    if events & select.POLLERR or (events & select.POLLHUP and plain.family != socket.AF_UNIX):
        return Departure.RESET
    try:
        return Departure.UNREAD if plain.recv(1, socket.MSG_PEEK) else Departure.ENDED
    except OSError:
        return Departure.RESET


def tune(transport: IStreamTransport) -> None:
    """Tune the socket of a transport, if it has one that has not inherited the options of its listening socket."""
    bottom = socket_transport(transport)
    if not getattr(bottom, "is_tuned", False):
        with contextlib.suppress(AttributeError):
            tune_socket(bottom.getHandle())  # type: ignore[attr-defined]
