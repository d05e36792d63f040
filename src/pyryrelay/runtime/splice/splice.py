"""Pass the bytes of two connections on to each other, as they are.

A process does this that has accepted a connection which another process serves: ``near`` is the client's side, and
``far`` that of the other process. Either side may be connected first, in one of three ways::

    splice = Splice(wheel, now, ended)
    splice.near.take(transport, received)   # a transport that had another protocol, and what was read but not used
    splice.far.adopt(reactor, sock, peer)   # a socket without a transport
    endpoint.connect(...)                   # a factory that returns ``splice.far`` as the protocol of a new connection

* Nothing is read from a side while the other one is not connected, or has `HIGH_WATER_BYTES` waiting that its peer does
  not take. So a splice holds `MOST_HELD_BYTES` at most, in each direction.
* Between two plain sockets, bytes go through a buffer that all splices of a process share
  (`pyryrelay.runtime.splice.passing`). From a side that streams more is read at once, while the other one keeps up.
* If a side ends what it sends, that of the other side is ended behind everything that was passed on. If both have, or
  one is lost, both connections are closed, behind what is left to be sent. From the first end on they have `LINGER_S`,
  and as much again whenever bytes have moved meanwhile; then they are reset. So it is if a side has left that is not
  read from because the other one does not take what it had sent.
* A side is TLS as well as plain TCP or a UNIX socket. TLS records without data are not passed on, and a peer that
  sends little else is cut off.

There is no other time limit: the process that serves the connection pings the client, and closes what does not move.
A host that vanishes does not close anything, so connections between hosts need keep-alive or ``TCP_USER_TIMEOUT``.

Invariants: ``ended`` is called exactly once, when neither side is connected any more and none can come. A far side that
is connected after that is reset at once.

Sizes are bytes, times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from pyryrelay.runtime.socket_options import Socket
from pyryrelay.runtime.splice.passing import LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES, pass_on
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.runtime.transports import IStreamTransport, end_writing, has_hung_up, socket_transport
from pyryrelay.runtime.twisted_internals import (
    read_chunk,
    replace_protocol,
    replace_reading,
    server_transport,
    unsent_bytes,
    write_at_once,
)

__all__ = ["HIGH_WATER_BYTES", "LINGER_S", "MAX_CONTROLS", "MOST_HELD_BYTES", "Side", "Splice"]

HIGH_WATER_BYTES: Final = 65536
"""What Twisted's transports hold before they pause a producer (``FileDescriptor.bufferSize``)."""
MOST_HELD_BYTES: Final = max(MOST_CHUNK_BYTES, HIGH_WATER_BYTES + LEAST_CHUNK_BYTES)
"""The largest chunk, if a peer takes nothing any more in the middle of a fast stream. For slow peers it is the other
sum: a chunk behind as much as does not pause yet."""
LINGER_S: Final = 2.0
MAX_CONTROLS: Final = 10_000
"""TLS records without data before a side is cut off, unless it has sent `HIGH_WATER_BYTES` of data since the last
time that they were counted."""


@implementer(IPushProducer)
class _Valve:
    """Stops reading from a side while what was read from it waits at the other one."""

    __slots__ = ("_side",)

    def __init__(self, side: Side) -> None:
        self._side = side

    def pauseProducing(self) -> None:
        """Read no more from the side."""
        self._side.hold_back()

    def resumeProducing(self) -> None:
        """Read from the side again."""
        self._side.resume()

    def stopProducing(self) -> None:
        """Do nothing: the splice is told that the other side is lost."""


@implementer(IHalfCloseableProtocol)
class Side(Protocol):
    """One of the two connections. ``passed_bytes`` came from it."""

    transport: Any = None
    other: Side
    _chunk_bytes = LEAST_CHUNK_BYTES
    """How much is read at once."""

    def __init__(self, splice: Splice) -> None:
        self._splice = splice
        self.passed_bytes = 0
        self._held = b""  # for its peer, before it is connected
        self.has_ended = False  # nothing comes from it any more
        self.is_lost = False
        self._is_finished = False  # nothing is sent to it any more
        self.is_held_back = False  # not read from, because the other side is slow
        self._controls = 0
        self._controls_since_bytes = 0

    # Connecting

    def take(self, transport: IStreamTransport, received: bytes = b"") -> None:
        """Be a connection whose head was read by another protocol; ``received`` is what came behind it."""
        replace_protocol(transport, self)
        self.makeConnection(transport)  # type: ignore[no-untyped-call]
        if received:
            self.dataReceived(received)

    def adopt(self, reactor: Any, sock: Socket, peer: tuple[Any, ...] | None) -> None:
        """Be a connected socket, of a ``peer`` with that address, None on a UNIX socket. Raises `OSError`."""
        transport = server_transport(sock, cast(IProtocol, self), peer, reactor)
        self.makeConnection(transport)  # type: ignore[no-untyped-call]

    def connectionMade(self) -> None:
        """Begin to pass on, if the other side is connected, too."""
        self._splice.connected(self)

    def pass_on_at_once(self) -> None:
        """Read from now on without the detour over `dataReceived`, where both sides are plain sockets."""
        if isinstance(self.transport, Connection) and isinstance(self.other.transport, Connection):
            replace_reading(self.transport, self._read)

    # From its peer

    def _read(self) -> Exception | None:
        """Read a chunk and pass it on; return why the connection is lost, as a transport tells its reactor."""
        other = self.other
        if other.is_lost or other._is_finished:
            return read_chunk(self.transport)
        if unsent_bytes(other.transport):
            self._chunk_bytes = LEAST_CHUNK_BYTES
            return read_chunk(self.transport)
        passed = pass_on(self.transport, other.transport, self._chunk_bytes)
        if not isinstance(passed, int):
            return passed
        self.passed_bytes += passed
        if passed == self._chunk_bytes < MOST_CHUNK_BYTES:
            self._chunk_bytes *= 2
        return None

    def dataReceived(self, data: bytes) -> None:
        """Pass a chunk on."""
        if data and self.other.send(data):
            self.passed_bytes += len(data)

    def received_below(self, size: int, records: int) -> None:
        """Count TLS records that carried no data; see `pyryrelay.listen.tls.transport`."""
        self._controls += records
        if self._controls > MAX_CONTROLS:
            moved = self.passed_bytes - self._controls_since_bytes
            self._controls, self._controls_since_bytes = 0, self.passed_bytes
            if moved < HIGH_WATER_BYTES:
                self.abort()

    def readConnectionLost(self) -> None:
        """Nothing more comes from the peer, who may still read."""
        self._splice.side_ended(self)

    def ended_below(self) -> None:
        """Nothing more comes from the peer of a TLS connection."""
        self._splice.side_ended(self)

    def writeConnectionLost(self) -> None:
        """Do nothing: everything was sent, and the write side is ended."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report that the connection is gone."""
        self.is_lost = True
        self._splice.side_lost(self)

    # To its peer

    def send(self, data: bytes) -> bool:
        """Send bytes, now or once it is connected. Nothing can be sent behind the end, which returns False."""
        if self.is_lost or self._is_finished:
            return False
        if not self.connected:
            self._held += data
        else:
            write_at_once(self.transport, data)
        return True

    def send_held(self) -> None:
        """Send what came before it was connected."""
        held, self._held = self._held, b""
        if held:
            self.send(held)

    def finish(self) -> None:
        """End what is sent to the peer, behind everything."""
        if self.is_connected and not self._is_finished:
            self._is_finished = True
            self.transport.unregisterProducer()
            end_writing(self.transport)

    def close(self) -> None:
        """Close the connection, behind what is left to be sent."""
        if self.is_connected:
            self.finish()
            # TLS would wait for the peer's end.
            socket_transport(self.transport).loseConnection()

    def abort(self) -> None:
        """Reset the connection."""
        if self.is_connected:
            self._is_finished = True
            self.transport.abortConnection()

    def hold_back(self) -> None:
        """Read nothing until the other side's peer has taken what was passed on."""
        self.is_held_back = True
        self._chunk_bytes = LEAST_CHUNK_BYTES
        self.pause()
        self._splice.watch()

    @property
    def may_have_left(self) -> bool:
        """Whether its peer has ended its side, or all of it, which is not noticed while it is held back."""
        return self.is_held_back and self.is_connected and has_hung_up(socket_transport(self.transport))

    def pause(self) -> None:
        """Read nothing for now."""
        if self.is_connected:
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self.is_held_back = False
        if self.is_connected and not self.has_ended:
            self.transport.resumeProducing()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return bool(self.connected) and not self.is_lost

    @property
    def unsent_bytes(self) -> int:
        """How much the kernel has not taken yet, as far as that is known."""
        if not self.is_connected:
            return 0
        bottom = socket_transport(self.transport)
        return unsent_bytes(bottom) if isinstance(bottom, Connection) else 0


class Splice:
    """See the module's docstring."""

    wheel_slot: int | None = None

    def __init__(self, wheel: TimerWheel, now: Callable[[], float], ended: Callable[[], None]) -> None:
        """Prepare for two connections; ``ended`` is called when both are gone."""
        self._wheel = wheel
        self._now = now
        self._ended: Callable[[], None] | None = ended
        self.near, self.far = Side(self), Side(self)
        self.near.other, self.far.other = self.far, self.near
        self._is_ending = False
        self._moved_bytes = self._waited_bytes = 0

    @property
    def is_over(self) -> bool:
        """Whether ``ended`` was called."""
        return self._ended is None

    def abort(self) -> None:
        """Reset both connections, or forget those that are still to come."""
        self.near.abort()
        self.far.abort()
        if not (self.near.is_connected or self.far.is_connected):
            self._end()

    # What happens to the sides

    def connected(self, side: Side) -> None:
        """Connect the sides, if both are there."""
        if self.is_over:
            side.abort()
            return
        other = side.other
        if not other.is_connected:
            side.pause()
            return
        side.transport.registerProducer(_Valve(other), True)
        other.transport.registerProducer(_Valve(side), True)
        side.send_held()
        other.send_held()
        side.pass_on_at_once()
        other.pass_on_at_once()
        other.resume()
        if other.has_ended:
            side.finish()

    def side_ended(self, side: Side) -> None:
        """Nothing more comes from a side: end what the other one is sent, and both when that has ended, too."""
        if side.has_ended:
            return
        side.has_ended = True
        self._limit_end()
        if side.other.has_ended:
            side.close()
            side.other.close()
        else:
            side.other.finish()

    def side_lost(self, side: Side) -> None:
        """A side is gone: let the other one have the rest, and end."""
        other = side.other
        if not other.is_connected:
            self._end()
            return
        self.side_ended(side)
        # What it still sends is discarded, so that its end is seen.
        other.resume()

    def deadline_reached(self, now: float) -> None:
        """Give a splice that ends more time if bytes have moved, or reset it."""
        if self.is_over:
            return
        moved_bytes = self.near.passed_bytes + self.far.passed_bytes
        waiting_bytes = self.near.unsent_bytes + self.far.unsent_bytes
        has_moved = moved_bytes > self._moved_bytes or waiting_bytes < self._waited_bytes
        self._moved_bytes, self._waited_bytes = moved_bytes, waiting_bytes
        is_held_back = self.near.is_held_back or self.far.is_held_back
        if not (has_moved or self._is_ending):
            self._is_ending = self.near.may_have_left or self.far.may_have_left
        elif not has_moved:
            self.abort()
            return
        if self._is_ending or is_held_back:
            self._wheel.arm(self, now + LINGER_S)

    def watch(self) -> None:
        """Look after a side that is held back: it may leave meanwhile."""
        if self.wheel_slot is None and not self.is_over:
            self._wheel.arm(self, self._now() + LINGER_S)

    def _limit_end(self) -> None:
        if self._is_ending or self.is_over:
            return
        self._is_ending = True
        self._moved_bytes = self.near.passed_bytes + self.far.passed_bytes
        self._waited_bytes = self.near.unsent_bytes + self.far.unsent_bytes
        self._wheel.arm(self, self._now() + LINGER_S)

    def _end(self) -> None:
        """Tell that it is over."""
        self._wheel.cancel(self)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()
