"""A transport in memory that behaves as a TCP connection does whose peer reads, or does not.

Nothing happens by itself: with `Transport.read` the peer takes bytes, and `Transport.settle` is the reactor's next
turn. Sizes are bytes.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IProtocol, IPushProducer
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

HIGH_WATER_BYTES = 65536


def tcp_address(host: str) -> IAddress:
    """Return the address of a TCP peer."""
    return IPv6Address("TCP", host, 50000) if ":" in host else IPv4Address("TCP", host, 50000)


class Transport(StringTransport):
    """What a protocol sees of a TCP connection (compare `twisted.internet.abstract.FileDescriptor`).

    While ``peer_reads``, what is written is in ``taken`` at once; otherwise it waits until `read`, and the producer is
    paused for each write that leaves more than the high-water mark waiting.
    """

    def __init__(self, peer: IAddress, *, peer_reads: bool = True) -> None:
        StringTransport.__init__(self, peerAddress=peer)
        self.peer_reads = peer_reads
        self.taken = bytearray()
        self.waiting = bytearray()
        self.reading = True
        self.peer_stays = False
        """Whether the peer keeps its side open when ours has ended."""
        self.writing_ended = False
        self.aborted = False
        self.producer_paused = False
        self.protocol: IProtocol | None = None

    def connect(self, protocol: IProtocol) -> None:
        """Begin, as an accepting port does."""
        self.protocol = protocol
        protocol.makeConnection(self)

    # ITransport and ITCPTransport

    def write(self, data: bytes) -> None:
        """Take bytes; a connection that is gone discards them."""
        assert not (self.writing_ended and data), "written after the end"
        if not self.connected or self.aborted:
            return
        self.waiting += data
        if self.peer_reads and not self.producer_paused:
            self._take(len(self.waiting))
        elif self.producer is not None and len(self.waiting) > HIGH_WATER_BYTES:
            self.producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        """Take bytes from many places."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close once everything is written; reading ends at once."""
        self.disconnecting = True
        self.reading = False

    def loseWriteConnection(self) -> None:  # noqa: N802
        """End the write side once everything is written."""
        assert self.producer is None, "the producer would be waited for"
        self.writing_ended = True

    def abortConnection(self) -> None:
        """Close now."""
        self.aborted = True
        self.reading = False

    # IConsumer

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Register the only producer."""
        StringTransport.registerProducer(self, producer, streaming)
        self.producer_paused = False

    def unregisterProducer(self) -> None:
        """Unregister the producer, if there is one, as TCP transports do."""
        self.producer = None

    # IPushProducer

    def pauseProducing(self) -> None:
        """Stop reading."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Read again, unless the connection is ending."""
        self.reading = self.connected and not (self.disconnecting or self.aborted)

    # What the peer and the reactor do

    def read(self, size: int | None = None) -> None:
        """Let the peer take ``size`` bytes, or all that wait; an empty buffer resumes the producer."""
        self._take(len(self.waiting) if size is None else size)
        if not self.waiting and self.producer_paused and self.producer is not None:
            self.producer_paused = False
            self.producer.resumeProducing()

    def read_all(self) -> None:
        """Let the peer take whatever comes, until nothing does."""
        while self.waiting:
            self.read()

    def _take(self, size: int) -> None:
        self.taken += self.waiting[:size]
        del self.waiting[:size]

    def settle(self) -> None:
        """Report the end of a connection that was aborted, or closed with everything written, by us or by both."""
        is_written = not self.waiting and not (self.producer is not None and self.producer_paused)
        if self.aborted:
            self.lose(ConnectionAborted())
        elif is_written and (self.disconnecting or (self.writing_ended and not self.peer_stays)):
            self.lose(ConnectionDone())

    def lose(self, error: Exception | None = None) -> None:
        """Lose the connection, which is reported once."""
        if not self.connected:
            return
        self.connected = False
        self.reading = False
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        if self.protocol is not None:
            self.protocol.connectionLost(Failure(ConnectionLost() if error is None else error))
