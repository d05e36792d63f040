"""A worker's connection to a child that all workers share; see `pyryrelay.workers.shared_children`.

It looks like a child that this process has started itself. Its end is that of the connection; to connect again, make
another one. Times are seconds of the reactor's clock.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from pyryrelay.runtime.child_process import BUFFER_BYTES, CLOSE_S, READ_BYTES, FrameReader
from pyryrelay.runtime.twisted_internals import set_read_bytes

__all__ = ["SharedChild", "connect"]

LOST: Final = "the connection to the shared process has ended"


class SharedChild(Protocol):
    """The worker's end of the connection; implements `pyryrelay.protocol.Child`. Made by `connect`."""

    pid: int | None = None
    """None: the process belongs to the supervisor."""

    def __init__(self, reactor: Any, received: Callable[[bytes], None], ended: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._received = received
        self._ended = ended
        self._frames = FrameReader()
        self._is_closed = False
        self._deadline: IDelayedCall | None = None

    def send(self, body: bytes) -> None:
        """Send one frame. Does nothing once the connection has ended, or was closed."""
        if self.transport is not None and not self._is_closed:
            self.transport.writeSequence((len(body).to_bytes(4, "big"), body))

    def close(self) -> None:
        """Say that nothing more will be sent; the child answers what was sent before, and ends the connection."""
        if self.transport is not None and not self._is_closed:
            self._is_closed = True
            self.transport.loseWriteConnection()  # type: ignore[attr-defined]
            self._deadline = self._reactor.callLater(CLOSE_S, self.kill)

    def kill(self) -> None:
        """End the connection at once. The process goes on: others use it."""
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    # Called by Twisted

    def connectionMade(self) -> None:
        transport: object = self.transport
        if isinstance(transport, Connection):
            set_read_bytes(transport, READ_BYTES)

    def dataReceived(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            self._received(body)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.transport = None
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._ended(LOST)

    def failed(self, problem: str) -> None:
        """Record that there is no connection."""
        self._reactor.callLater(0, self._ended, problem)


class _Factory(Factory):
    noisy = False

    def __init__(self, child: SharedChild) -> None:
        self._child = child

    def buildProtocol(self, addr: IAddress | None) -> SharedChild:
        return self._child


def connect(reactor: Any, address: str, received: Callable[[bytes], None], ended: Callable[[str], None]) -> SharedChild:
    """Connect to a shared child at the name of its UNIX socket; see `pyryrelay.protocol.Services`.

    Never raises: if there is no connection, ``ended`` is called in a later turn.
    """
    child = SharedChild(reactor, received, ended)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            end.setblocking(False)
            end.connect(address)
            reactor.adoptStreamConnection(end.fileno(), end.family, _Factory(child))
    except OSError as error:
        child.failed(f"no connection to {os.path.basename(address)}: {error.strerror}")
    return child
