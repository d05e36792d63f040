"""Functions on transports of any kind: find the socket below TLS, tune it, and detect hang-ups."""

from __future__ import annotations

import contextlib
import select
from typing import cast

from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper

from pyryrelay.runtime.socket_options import tune_socket

__all__ = ["IStreamTransport", "has_hung_up", "socket_transport", "tune"]

_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class IStreamTransport(ITCPTransport, IPushProducer, IConsumer):
    """The methods of TCP, TLS and UNIX-domain transports that this package uses."""


def socket_transport(transport: IStreamTransport) -> IStreamTransport:
    """Return the transport that has the socket, below those that handle TLS or PROXY headers."""
    while isinstance(transport, ProtocolWrapper):
        transport = cast(IStreamTransport, transport.transport)
    return transport


def has_hung_up(transport: IStreamTransport) -> bool:
    """Return whether the peer has ended its side of the connection, or all of it, even if data is still unread."""
    if not isinstance(transport, Connection):
        return False
    poll = select.poll()
    poll.register(transport.fileno(), _HUNG_UP)
    return bool(poll.poll(0))


def tune(transport: IStreamTransport) -> None:
    """Tune the socket of a transport, if it has one that has not inherited the options of its listening socket."""
    bottom = socket_transport(transport)
    if not getattr(bottom, "is_tuned", False):
        with contextlib.suppress(AttributeError):
            tune_socket(bottom.getHandle())  # type: ignore[attr-defined]
