"""TLS between a socket and the protocol above it: records in, plaintext out, and the reverse.

It takes the place of Twisted's own layer, `twisted.protocols.tls`. That one decrypts everything that was read whatever
it costs, delivers each record separately, and loses what it holds of a paused peer that sends close_notify. Here:

* The plaintext of all records that were read together is delivered together.
* The time that records take is measured, and charged to the client's address in the `FairQueue` that WebSocket frames
  are charged to. Expensive records are decrypted a few at a time, in turns, and meanwhile nothing is read from the
  socket. So are handshakes, each of which takes as long as a hundred messages.
* OpenSSL is given whole records only (`pyryrelay.listen.tls.records`). So those that carried no data can be counted:
  key updates, refused renegotiations, empty records. The innermost protocol is told of them by
  ``received_below(size, records)`` if it has that method: so many bytes were no plaintext, and so many records carried
  none. Then its `dataReceived` is called, even without data. If it has ``send_unsolicited_pong()``, that is called now
  and then while much is spent on a peer that may be gone; ``ended_below()`` is called when nothing more can come.
* Nothing is delivered from a paused peer. Its data, its close_notify and the end of its connection are delivered in
  that order when it is resumed, as on a plain socket.
* Our side ends with a close_notify alert and the end of the TCP stream. What the peer still sends is discarded.

Nothing internal to Twisted or pyOpenSSL is used. Sizes are bytes, times are seconds of a fine clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from pyryrelay.listen.tls.certificates import CertificateStore
from pyryrelay.listen.tls.context import NoSharedProtocolError
from pyryrelay.listen.tls.records import whole_records
from pyryrelay.listen.tls.sender import PLAINTEXT_BYTES, TlsSender
from pyryrelay.runtime.fair_queue import CHEAP_ALLOWANCE_S, COSTLY_FOR_S, FairQueue
from pyryrelay.runtime.transports import has_hung_up, socket_transport
from pyryrelay.websocket.reading.hangup import HangupLimit

__all__ = ["FIRST_BYTES", "TlsFactory", "TlsTransport"]

_log = Logger(namespace="pyryrelay")


FIRST_BYTES: Final = 1024
"""Bytes that are decrypted at once at first, and while they are expensive; records are not cut."""
MOST_BYTES: Final = 16384
_WORTH: Final = 0.6
"""Cost of a byte of TLS that is regarded as cheap, relative to a byte of frames. In a record of 64 bytes each costs two
thirds of that, in a record of one byte twice as much."""
SLICE_S: Final = 0.00005
"""A part that takes less time than this is followed by one that is twice as long."""


@dataclass(slots=True)
class _Found:
    """The plaintext of ``size`` bytes of records, of which ``controls`` carried none."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    controls: int = 0


class TlsTransport(TlsSender):
    """One connection; to the protocol above, it is the transport."""

    factory: TlsFactory
    wrappedProtocol: Any  # noqa: N815  # Twisted's name for it

    def __init__(self, factory: TlsFactory, wrapped: IProtocol, key: Hashable) -> None:
        """Create a transport; ``key`` stands for the client's address in the queue."""
        super().__init__(factory, wrapped)
        self._key = key
        self._tls: SSL.Connection | None = None
        self._is_handshake_done = False
        self._is_challenge = False
        self._unread = bytearray()
        self._has_ended = self._is_clean = False  # of what the peer sends
        self._is_over = False
        self._is_paused = False  # from above
        self._is_queued = False
        self._is_reading = True
        self._costly_until_s = 0.0
        self._slice_bytes = FIRST_BYTES
        self._hangup_limit: HangupLimit | None = None

    # From below

    def makeConnection(self, transport: Any) -> None:
        """Begin. OpenSSL is not needed before there is something to decrypt."""
        self._share = self.factory.queue.join(self._key)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Decrypt what was read, now or in its turn."""
        if self._is_over or self.disconnecting:
            return
        self._unread += data
        if not (self._is_queued or self._is_paused):
            self._go_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Release everything: the socket is gone."""
        self._is_over = True
        self.connected = 0
        self._unread.clear()
        self.factory.queue.leave(self._share)
        super().connectionLost(reason)
        self._tls = None

    # Turns

    def _go_on(self) -> None:
        """Decrypt now, unless the client's address has used up its share of this turn."""
        queue, share = self.factory.queue, self._share
        now_s = queue.clock()
        is_costly = not self._is_handshake_done or now_s < self._costly_until_s
        if (is_costly or share.spent_s > CHEAP_ALLOWANCE_S) and not queue.may_run(share, now_s, is_costly=is_costly):
            self._wait()
        else:
            self._deliver(self._decrypt())

    def _wait(self) -> None:
        """Wait for a turn, and read nothing meanwhile. Pausing and resuming from above may have been the cause."""
        if not self._is_queued:
            self._is_queued = True
            self.factory.queue.enqueue(self._share, self._take_turn)
        self._read_or_not()

    def _take_turn(self) -> None:
        """Decrypt what had to wait. A fault ends this connection, as one in `dataReceived` does."""
        self._is_queued = False
        try:
            if not (self._is_over or self._is_paused or self.disconnecting):
                self._work_for(self._hangup_limit or HangupLimit())
            self._read_or_not()
        except Exception:
            _log.failure("A connection failed in its turn")
            self.abortConnection()

    def _work_for(self, hangup: HangupLimit) -> None:
        """Decrypt for a peer that takes turns, unless it is gone and what it left has cost enough."""
        self._hangup_limit = hangup
        if not hangup.may_work(hangup.has_hung_up or has_hung_up(socket_transport(self.transport))):
            self.abortConnection()
            return
        queue = self.factory.queue
        began_s = queue.cpu_clock()
        found = self._decrypt()
        is_doubtful = hangup.record(queue.cpu_clock() - began_s, int(found.size * _WORTH), queue.clock())
        self._deliver(found)
        ask: Callable[[], None] | None = getattr(self._innermost(), "send_unsolicited_pong", None)
        if is_doubtful and ask is not None:
            ask()

    def _read_or_not(self) -> None:
        """Read from the socket unless something that was read has to wait."""
        wanted = not (self._is_paused or self._is_queued) or bool(self.disconnecting)
        if wanted != self._is_reading and not self._is_over:
            self._is_reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _decrypt(self) -> _Found:
        """Decrypt whole records for a bounded time, and charge it to the client's address."""
        queue, found = self.factory.queue, _Found()
        began_s = now_s = queue.clock()
        end_s = began_s + queue.turn_s(began_s)
        while now_s < end_s and not self._has_ended:
            size, records = whole_records(self._unread, self._slice_bytes)
            if not size:
                break
            was_shaken, had = self._is_handshake_done, len(found.pieces)
            self._feed(size, found.pieces)
            found.size += size
            if was_shaken:
                found.controls += records - (len(found.pieces) - had)
            before_s, now_s = now_s, queue.clock()
            self._learn(now_s - before_s)
        if queue.charge(self._share, began_s, now_s, is_costly=now_s < self._costly_until_s):
            self._costly_until_s = now_s + COSTLY_FOR_S
        if found.controls > 0 and self._tls is not None:
            self._send_out(self._tls)  # some require an answer
        return found

    def _learn(self, spent_s: float) -> None:
        """Adapt the length of parts to their cost."""
        if spent_s > 4 * SLICE_S:
            self._slice_bytes = FIRST_BYTES
        elif spent_s < SLICE_S and self._slice_bytes < MOST_BYTES:
            self._slice_bytes *= 2

    # Records

    def _feed(self, size: int, pieces: list[bytes]) -> None:
        """Decrypt so many bytes of whole records, and append their plaintext to ``pieces``."""
        tls = self._tls
        if tls is None:
            tls = self._tls = self._begin()
        tls.bio_write(bytes(self._unread[:size]))
        del self._unread[:size]
        try:
            if not self._is_handshake_done:
                tls.do_handshake()
                self._is_handshake_done = True
                self._send_out(tls)
                if self._is_challenge:
                    # RFC 8737 section 3: the client has seen what it wanted to see, and no data follows.
                    self._has_ended = self._is_clean = True
                    return
            while True:
                pieces.append(tls.recv(PLAINTEXT_BYTES))
        except SSL.WantReadError:
            if not self._is_handshake_done:
                self._send_out(tls)
        except SSL.ZeroReturnError:
            self._has_ended = self._is_clean = True
        except (SSL.Error, NoSharedProtocolError):
            self._has_ended = True

    def _begin(self) -> SSL.Connection:
        """Return OpenSSL's half of a connection of which the first record was received."""
        certificates = self.factory.certificates
        context = certificates.first_context(self._unread)
        self._is_challenge = certificates.is_challenge(context)
        tls = SSL.Connection(context, None)
        tls.set_accept_state()
        return tls

    @property
    def server_name(self) -> bytes | None:
        """The name that the client has asked for (SNI); None before the handshake, and if it asked for none."""
        return None if self._tls is None else self._tls.get_servername()

    def _deliver(self, found: _Found) -> None:
        """Deliver what was decrypted, and leave the rest to a later turn, or end the connection."""
        if found.size:
            plaintext = b"".join(found.pieces)
            innermost = self._innermost()
            meter: Callable[[int, int], None] | None = getattr(innermost, "received_below", None)
            if meter is not None:
                meter(found.size - len(plaintext), found.controls)
            if plaintext:
                self.wrappedProtocol.dataReceived(plaintext)
            elif meter is not None:
                innermost.dataReceived(plaintext)
        if self._is_over or self.disconnecting or self._is_paused:
            return
        if self._has_ended:
            self._finish()
        elif whole_records(self._unread, self._slice_bytes)[0]:
            self._wait()

    def _innermost(self) -> Any:
        """Return the protocol above all that wraps it."""
        protocol = self.wrappedProtocol
        while isinstance(protocol, ProtocolWrapper):
            protocol = protocol.wrappedProtocol
        return protocol

    def _finish(self) -> None:
        """The peer sends nothing more: send close_notify, or the alert for its error, and close."""
        if self._tls is not None:
            if self._is_clean:
                self._send_close_notify(self._tls)
            else:
                self._send_out(self._tls)
        self._is_over = True
        self.disconnecting = 1
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        # This waits until the peer has taken what was sent, which may never happen.
        ended: Callable[[], None] | None = getattr(self._innermost(), "ended_below", None)
        if ended is not None:
            ended()

    # Ending and pausing, from above

    def loseConnection(self) -> None:
        """End our side. The connection is lost when the peer has ended its own, or is aborted."""
        self.loseWriteConnection()

    def loseWriteConnection(self) -> None:  # noqa: N802
        """Send close_notify behind what was written, end the stream below, and discard what the peer still sends."""
        if self.disconnecting or self._is_over:
            return
        if self._tls is None or not self._is_handshake_done:
            self.abortConnection()
            return
        self._send_close_notify(self._tls)
        self.disconnecting = 1
        self._unread.clear()
        self._read_or_not()
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()

    def abortConnection(self) -> None:
        """Reset the connection."""
        self.disconnecting = 1
        self._unread.clear()
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """Deliver nothing for now."""
        self._is_paused = True
        self._read_or_not()

    def resumeProducing(self) -> None:
        """Deliver what has waited, in its turn, and read on."""
        if self._is_paused and not self._is_over:
            self._is_paused = False
            if not self._is_queued and (self._unread or self._has_ended):
                self._wait()
        self._read_or_not()


if TYPE_CHECKING:
    _Factory = WrappingFactory[TlsTransport]
else:
    _Factory = WrappingFactory


class TlsFactory(_Factory):
    """Puts `TlsTransport` below each protocol of another factory."""

    noisy = False

    def __init__(self, certificates: CertificateStore, wrapped: Any, queue: FairQueue) -> None:
        """Create a factory that takes the certificate of each connection from a store."""
        super().__init__(wrapped)
        self.certificates = certificates
        self.queue = queue

    def buildProtocol(self, addr: IAddress | None) -> TlsTransport:
        """Build a transport for a port of Twisted's."""
        return self.wrap(self.wrappedFactory.buildProtocol(addr), getattr(addr, "host", None))

    def wrap(self, protocol: IProtocol, key: Hashable) -> TlsTransport:
        """Put TLS below a protocol whose client's address has this key."""
        return TlsTransport(self, protocol, key)
