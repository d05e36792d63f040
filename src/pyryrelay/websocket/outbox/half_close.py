"""End the write side of a connection, which is how a WebSocket connection is closed (RFC 6455 section 7.1.1).

Closing a socket that holds unread bytes sends a reset, and a reset destroys what the peer has not read yet, such as the
close frame. Therefore the write side is ended first, behind everything that was written. What the peer still sends is
read and discarded until it ends its own side, or for `LINGER_S`.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from pyryrelay.runtime.timer_wheel import SLOT_S

LINGER_S: Final = 1.0 - SLOT_S
"""How long to wait until the peer ends its side. The wheel adds up to one slot, so it is a second at most."""


def end_socket_writing(plain: socket.socket) -> None:
    """End the write side of a socket whose transport holds no data."""
    with contextlib.suppress(OSError):  # the peer is gone; the transport will find out
        plain.shutdown(socket.SHUT_WR)
