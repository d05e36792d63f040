"""The sockets between workers: messages with descriptors, which nobody waits for.

Each worker receives at one socket, and all send there (`pyryrelay.workers.place.MeshEnds`). The sockets keep messages
apart (SOCK_SEQPACKET), and hold what a worker has not received, also one that has died: the next one with its index
gets it.

* Sending never waits. If a socket is full, or too many descriptors are on their way, `Mesh.send` returns False.
* Messages without a descriptor must not be lost: `Mesh.tell_ended` collects them for each turn, and tries again.
* A turn of the reactor receives `BATCH` messages at most, and no more when it has `BATCH` connections.

Invariant: a descriptor that was received belongs to a socket that is given to exactly one handler, or is closed.
"""

from __future__ import annotations

import array
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pyryrelay.runtime.socket_options import Socket
from pyryrelay.workers.mesh.messages import (
    MAX_HEADS,
    MAX_MESSAGE_BYTES,
    MAX_NUMBERS,
    Ended,
    HandedOver,
    MessageError,
    decode,
    encode,
    join_heads,
)
from pyryrelay.workers.place import MeshEnds

__all__ = ["BATCH", "RETRY_S", "Mesh"]

_log = Logger(namespace="pyryrelay")

BATCH: Final = 32
"""Messages that are received in one turn, or connections, each of which may be an upgrade."""
RETRY_S: Final = 0.05
"""When what could not be told is told again."""
SEND_BYTES: Final = 1 << 20
"""What a socket may hold, as far as ``net.core.wmem_max`` permits: several hundred heads."""
V4_PARTS: Final = 2
"""Host and port; the address of a peer over IPv6 has four parts."""
_SPACE: Final = socket.CMSG_SPACE(MAX_HEADS * array.array("i").itemsize)
_FLAGS: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_TRUNCATED: Final = socket.MSG_TRUNC | socket.MSG_CTRUNC

ObjectHandler = Callable[[Mapping[str, Any], Socket], None]


@implementer(IReadDescriptor)
class Mesh:
    """See the module's docstring. The reactor must provide `IReactorFDSet` and `IReactorTime`."""

    def __init__(self, reactor: Any, ends: MeshEnds) -> None:
        """Prepare; nothing is received before `start`."""
        self._reactor = reactor
        self._receiving = ends.receiving
        self._sending = ends.sending
        for sock in (ends.receiving, *ends.sending):
            sock.setblocking(False)
        for sock in ends.sending:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self._buffer = bytearray(MAX_MESSAGE_BYTES)
        self._objects: dict[str, ObjectHandler] = {}
        self._ended: dict[tuple[int, int], list[int]] = {}
        self._later: Any = None
        self._is_started = False
        # As many as there were the last time, and more if that was all: finding out that there is no other one costs
        # as much as receiving one.
        self._most = 1
        self.on_handed_over: Callable[[HandedOver, Socket], None] | None = None
        """Called with each connection that another worker has admitted."""
        self.on_turn: Callable[[], Callable[[], None]] = lambda: _nothing
        """Called before anything is received in a turn; what it returns is called at the end."""
        self.on_ended: Callable[[Ended], None] | None = None
        """Called with the numbers of leases whose connections are over."""
        self.refused = 0
        """Messages for which there was no room."""

    def on_object(self, kind: str, handler: ObjectHandler) -> None:
        """Have objects of that ``type`` handled, with the socket that came with them, which is the handler's then."""
        self._objects[kind] = handler

    def start(self) -> None:
        """Receive from now on."""
        if not self._is_started:
            self._is_started = True
            self._reactor.addReader(self)

    def stop(self) -> None:
        """Receive no more, and tell what is left to tell, if there is room. The sockets stay open."""
        if self._is_started:
            self._is_started = False
            self._reactor.removeReader(self)
        self._tell()
        self._ended.clear()
        self._cancel()

    # Sending

    def send(self, index: int, heads: Sequence[bytes], socks: Sequence[Socket]) -> bool:
        """Send connections to a worker, with their heads as `join_heads` takes them, and return whether there was room.

        Closes nothing.
        """
        return self._send(index, join_heads(heads), socks)

    def send_object(self, index: int, message: Mapping[str, object], sock: Socket) -> bool:
        """Send a JSON object with a connection, and return whether there was room. Closes nothing."""
        try:
            data = encode(message)
        except MessageError:
            self.refused += 1
            return False
        return self._send(index, [data], [sock])

    def _send(self, index: int, pieces: Sequence[bytes], socks: Sequence[Socket]) -> bool:
        rights = array.array("i", [sock.fileno() for sock in socks])
        try:
            self._sending[index].sendmsg(pieces, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError:
            self.refused += 1
            return False
        return True

    def tell_ended(self, index: int, boot: int, number: int) -> None:
        """Tell a worker that a connection is over which its process ``boot`` had handed over."""
        self._ended.setdefault((index, boot), []).append(number)
        if self._later is None:
            self._later = self._reactor.callLater(0, self._tell)

    def forget(self, index: int) -> None:
        """Tell a worker nothing of what its last process had handed over: it has ended."""
        for key in [key for key in self._ended if key[0] == index]:
            del self._ended[key]

    def _tell(self) -> None:
        self._cancel()
        for (index, boot), numbers in list(self._ended.items()):
            while numbers:
                try:
                    self._sending[index].send(encode(Ended(boot, numbers[:MAX_NUMBERS])))
                except OSError:
                    break
                del numbers[:MAX_NUMBERS]
            if not numbers:
                del self._ended[index, boot]
        if self._ended and self._is_started:
            self._later = self._reactor.callLater(RETRY_S, self._tell)

    def _cancel(self) -> None:
        later, self._later = self._later, None
        if later is not None and later.active():
            later.cancel()

    # IReadDescriptor

    def fileno(self) -> int:
        """Return the descriptor of the receiving socket."""
        return self._receiving.fileno()

    def logPrefix(self) -> str:
        """Return what the log calls this."""
        return "mesh"

    def doRead(self) -> None:
        """Receive what has come. A fault of one message ends nothing."""
        end = self.on_turn()
        try:
            self._receive()
        finally:
            end()

    def _receive(self) -> None:
        connections = 0
        for received in range(self._most):
            try:
                size, ancillary, flags, _ = self._receiving.recvmsg_into([self._buffer], _SPACE, _FLAGS)
            except OSError:
                self._most = max(1, received)
                return
            descriptors = _descriptors(ancillary)
            connections += len(descriptors)
            try:
                self._received(memoryview(self._buffer)[:size], descriptors, is_whole=not flags & socket.MSG_TRUNC)
            except Exception:
                _log.failure("A message of another worker failed")
            finally:
                for descriptor in descriptors:
                    with contextlib.suppress(OSError):
                        socket.close(descriptor)
            if connections >= BATCH:
                return
        self._most = min(BATCH, 2 * self._most)

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the supervisor has both ends, so this does not happen while it lives."""

    def _received(self, data: memoryview, descriptors: list[int], *, is_whole: bool) -> None:
        """Handle a message; descriptors that are left in the list are closed."""
        message = decode(data) if is_whole else None
        if isinstance(message, Ended):
            if self.on_ended is not None:
                self.on_ended(message)
        elif isinstance(message, Mapping):
            handler = self._objects.get(message.get("type", ""))
            if handler is not None and descriptors:
                handler(message, socket.socket(fileno=descriptors.pop()))
        elif message is not None:
            self._handed_over(message, descriptors)

    def _handed_over(self, heads: Sequence[HandedOver], descriptors: list[int]) -> None:
        descriptors.reverse()
        for head in heads:
            if not descriptors or self.on_handed_over is None:
                # There was no room for another descriptor here.
                self.tell_ended(head.sender, head.boot, head.number)
                continue
            try:
                self.on_handed_over(head, _socket(descriptors.pop(), head.peer))
            except Exception:
                _log.failure("A message of another worker failed")


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _socket(descriptor: int, peer: Sequence[object] | None) -> Socket:
    """Return the socket of a descriptor, whose family follows from its peer: asking the kernel costs three calls."""
    if peer is None:
        family = socket.AF_UNIX
    else:
        family = socket.AF_INET if len(peer) == V4_PARTS else socket.AF_INET6
    return socket.SocketType(family, socket.SOCK_STREAM, 0, descriptor)


def _nothing() -> None:
    """Do nothing at the end of a turn."""
