"""The end of a connection's write side, which is how a WebSocket connection is closed (RFC 6455 section 7.1.1).

Closing a socket while it holds unread bytes sends a reset, and a reset destroys what the peer has not read yet: the
close frame. So the write side is ended first, behind everything that was written, and what the peer still sends is read
and discarded until it ends its own side, or for `LINGER_S`.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final, cast

from twisted.protocols.policies import ProtocolWrapper

from pyryrelay.runtime.timer_wheel import SLOT_S

LINGER_S: Final = 1.0 - SLOT_S
"""How long to wait for the peer's end. The wheel adds up to one slot: a second at most."""


def end_socket_writing(plain: socket.socket) -> None:
    """End the write side of a socket whose transport holds nothing."""
    with contextlib.suppress(OSError):  # the peer is gone; the transport will find out
        plain.shutdown(socket.SHUT_WR)


def end_writing(transport: object) -> None:
    """End the write side of a transport, behind what it holds. TLS ends that of the connection below it.

    No producer may be registered. Reading goes on.
    """
    layer = transport
    while isinstance(layer, ProtocolWrapper) and not hasattr(type(layer), "loseWriteConnection"):
        layer = cast(object, layer.transport)
    layer.loseWriteConnection()  # type: ignore[attr-defined]  # IHalfCloseableTransport is not said by all that do it
