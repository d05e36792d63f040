"""TLS between a socket and what speaks HTTP and WebSocket: records in, plaintext out, and the other way round.

It takes the place of Twisted's own layer, `twisted.protocols.tls`, which decrypts all that was read whatever that
costs, hands on each record by itself, and forgets what it holds of a paused peer once that sends close_notify. Here:

* The plaintext of all records that were read together is handed on together.
* What records cost is measured, and charged to the client's address in the `FairQueue` that WebSocket frames are
  charged to. Expensive ones are decrypted a few at a time, in their turn, and meanwhile nothing is read from the
  socket. So are handshakes: each takes as long as a hundred messages.
* OpenSSL is given whole records only. So those that carried no data (key updates, refused renegotiations, empty ones)
  can be counted. A protocol that has a method ``received_below(size, records)`` is told so before its `dataReceived`,
  which is called even with nothing then: so many bytes were no plaintext, and so many records carried none. If it has
  ``ask_socket()``, that is called now and then where much is spent on a peer that may be gone. If it has
  ``ended_below()``, that is called when nothing more can come.
* A peer that is paused is not heard at all. Its data, its close_notify and the end of its connection come in that order
  when it is resumed, as on a plain socket.
* The end of our side is a close_notify alert and the end of the TCP stream. What the peer still sends is discarded.

Nothing internal to Twisted or pyOpenSSL is used. Sizes are bytes, times are seconds of a fine clock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolNegotiationFactory
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from pyryrelay.runtime.fair_queue import CHEAP_ALLOWANCE_S, COSTLY_FOR_S, FairQueue
from pyryrelay.runtime.transports import has_hung_up, socket_transport
from pyryrelay.websocket.reading.hangup import HangupBudget

_log = Logger()

__all__ = ["FIRST_BYTES", "MAX_RECORD_BYTES", "TlsFactory", "TlsTransport", "server_context"]

_HEADER_BYTES: Final = 5
MAX_RECORD_BYTES: Final = _HEADER_BYTES + (1 << 14) + 2048
"""What one record may have (RFC 5246 section 6.2.3; RFC 8446 section 5.2 allows less)."""
_CONTENT_TYPES: Final = range(20, 25)
_PLAINTEXT_BYTES: Final = 1 << 14
_OUTPUT_BYTES: Final = 1 << 17
"""What is taken from OpenSSL at once: nearly always all that there is."""

FIRST_BYTES: Final = 1024
"""How much is decrypted at once of what costs much, or is a stranger's; records are not cut."""
MOST_BYTES: Final = 16384
MOST_RECORDS: Final = 128
"""A key update costs 13 µs, however cheap everything before it was."""
_WORTH: Final = 0.6
"""What a byte of TLS may cost, compared with one of frames. A record of 64 bytes costs two thirds of it for each, and
one of a single byte twice as much."""
SLICE_S: Final = 0.00005
"""What a part of a chunk may take after which the next one may be twice as long."""


class NoSharedProtocolError(Exception):
    """The client offers protocols by ALPN, and none that is spoken here."""


def server_context(options: CertificateOptions, protocols: Sequence[bytes]) -> SSL.Context:
    """The context of an ``ssl:`` endpoint: its key and certificates, and nothing older than TLS 1.2.

    Sessions are resumed by tickets, which saves the server's signature. Renegotiation, which would let a client ask for
    any number of handshakes, is refused. A client that offers none of ``protocols`` by ALPN is told so by an alert (RFC
    7301 section 3.2); one that offers nothing is welcome.
    """
    ours = CertificateOptions(
        privateKey=options.privateKey,
        certificate=options.certificate,
        extraCertChain=options.extraCertChain or None,
        dhParameters=options.dhParameters,
        enableSessionTickets=True,
        method=None if options.method == SSL.TLS_METHOD else options.method,
    )

    def select(_: SSL.Connection, offered: Sequence[bytes]) -> bytes:
        for protocol in protocols:
            if protocol in offered:
                return protocol
        raise NoSharedProtocolError

    context = ours.getContext()
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    if protocols:
        context.set_alpn_select_callback(select)
    return context


@dataclass(slots=True)
class _Found:
    """What came of so many bytes of records; ``controls`` of those carried nothing."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    controls: int = 0


class TlsTransport(ProtocolWrapper):
    """One connection; to what is above it, a transport."""

    factory: TlsFactory
    transport: Any
    wrappedProtocol: Any  # noqa: N815  # Twisted's name for it

    def __init__(self, factory: TlsFactory, wrapped: IProtocol, key: Hashable) -> None:
        """``key`` is what the client's address is known by in the queue."""
        super().__init__(factory, wrapped)
        self._key = key
        self._tls: SSL.Connection | None = None
        self._is_handshake_done = False
        self._unread = bytearray()
        self._has_ended = self._is_clean = False  # of what the peer sends
        self._is_over = False
        self._is_paused = False  # from above
        self._is_queued = False
        self._is_reading = True
        self._costly_until_s = 0.0
        self._slice_bytes = FIRST_BYTES
        self._hangup_budget: HangupBudget | None = None

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
        """The socket is gone."""
        self._is_over = True
        self.connected = 0
        self._unread.clear()
        self.factory.queue.leave(self._share)
        super().connectionLost(reason)
        self._tls = None

    # Turns

    def _go_on(self) -> None:
        """Decrypt now, if the client's address has not had enough of this turn."""
        queue, share = self.factory.queue, self._share
        now_s = queue.clock()
        is_costly = not self._is_handshake_done or now_s < self._costly_until_s
        if (is_costly or share.spent_s > CHEAP_ALLOWANCE_S) and not queue.may_run(share, now_s, is_costly=is_costly):
            self._wait()
        else:
            self._hand_on(self._decrypt())

    def _wait(self) -> None:
        """Queue, and read nothing meanwhile. What is above may have asked for that by pausing and resuming."""
        if not self._is_queued:
            self._is_queued = True
            self.factory.queue.enqueue(self._share, self._take_turn)
        self._read_or_not()

    def _take_turn(self) -> None:
        """Decrypt what was put off; a fault costs this connection, as it does where Twisted hands on what was read."""
        self._is_queued = False
        try:
            if not (self._is_over or self._is_paused or self.disconnecting):
                self._work_for(self._hangup_budget or HangupBudget())
            self._read_or_not()
        except Exception:
            _log.failure("A connection failed in its turn")
            self.abortConnection()

    def _work_for(self, hangup: HangupBudget) -> None:
        """Decrypt for a peer that takes turns, unless it is gone and what it left has cost enough."""
        self._hangup_budget = hangup
        if not hangup.look(hangup.has_hung_up or has_hung_up(socket_transport(self.transport))):
            self.abortConnection()
            return
        queue = self.factory.queue
        began_s = queue.cpu_clock()
        found = self._decrypt()
        is_doubtful = hangup.worked(queue.cpu_clock() - began_s, int(found.size * _WORTH), queue.clock())
        self._hand_on(found)
        ask: Callable[[], None] | None = getattr(self._innermost(), "ask_socket", None)
        if is_doubtful and ask is not None:
            ask()

    def _read_or_not(self) -> None:
        """Read from the socket unless something of what was read has to wait."""
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
            size, records = self._whole_records()
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
            self._send_out(self._tls)  # some want an answer
        return found

    def _learn(self, spent_s: float) -> None:
        """Take longer parts of what is cheap."""
        if spent_s > 4 * SLICE_S:
            self._slice_bytes = FIRST_BYTES
        elif spent_s < SLICE_S and self._slice_bytes < MOST_BYTES:
            self._slice_bytes *= 2

    # Records

    def _whole_records(self) -> tuple[int, int]:
        """Where the whole records at the beginning of what is unread end, and how many: one at least, up to a bound."""
        unread, most = self._unread, self._slice_bytes
        size, at, records = len(unread), 0, 0
        while at < most and records < MOST_RECORDS and size - at >= _HEADER_BYTES:
            end = at + _HEADER_BYTES + (unread[at + 3] << 8 | unread[at + 4])
            if unread[at] not in _CONTENT_TYPES or end - at > MAX_RECORD_BYTES:
                return size, records  # OpenSSL knows what to say to that
            if end > size:
                break
            at = end
            records += 1
        return at, records

    def _feed(self, size: int, pieces: list[bytes]) -> None:
        """Decrypt so many bytes of whole records, and append what came of them."""
        tls = self._tls
        if tls is None:
            tls = self._tls = SSL.Connection(self.factory.context, None)
            tls.set_accept_state()
        tls.bio_write(bytes(self._unread[:size]))
        del self._unread[:size]
        try:
            if not self._is_handshake_done:
                tls.do_handshake()
                self._is_handshake_done = True
                self._send_out(tls)
            while True:
                pieces.append(tls.recv(_PLAINTEXT_BYTES))
        except SSL.WantReadError:
            if not self._is_handshake_done:
                self._send_out(tls)
        except SSL.ZeroReturnError:
            self._has_ended = self._is_clean = True
        except (SSL.Error, NoSharedProtocolError):
            self._has_ended = True

    def _hand_on(self, found: _Found) -> None:
        """Hand on what was decrypted, and go on with the rest in a later turn, or with the end."""
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
        elif self._whole_records()[0]:
            self._wait()

    def _innermost(self) -> Any:
        """The protocol above all that wraps it."""
        protocol = self.wrappedProtocol
        while isinstance(protocol, ProtocolWrapper):
            protocol = protocol.wrappedProtocol
        return protocol

    def _finish(self) -> None:
        """The peer sends nothing more: send close_notify, or the alert for what was wrong, and close."""
        if self._tls is not None:
            if self._is_clean:
                self._send_close_notify(self._tls)
            else:
                self._send_out(self._tls)
        self._is_over = True
        self.disconnecting = 1
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        # That waits until the peer has taken what is on its way, and it may never do so.
        ended: Callable[[], None] | None = getattr(self._innermost(), "ended_below", None)
        if ended is not None:
            ended()

    # From above

    def write(self, data: bytes) -> None:
        """Encrypt and send. Before the handshake, and after the end, there is nobody to send to."""
        tls = self._tls
        if tls is None or not self._is_handshake_done or self.disconnecting or self._is_over or not data:
            return
        try:
            for at in range(0, len(data), _PLAINTEXT_BYTES):
                tls.send(data[at : at + _PLAINTEXT_BYTES])
        except SSL.Error:
            self.abortConnection()
        else:
            self._send_out(tls)

    def writeSequence(self, data: Sequence[bytes]) -> None:
        """Encrypt and send what is in many places."""
        self.write(b"".join(data))

    def _send_out(self, tls: SSL.Connection) -> None:
        """Send what OpenSSL has to say."""
        try:
            while True:
                data = tls.bio_read(_OUTPUT_BYTES)
                self.transport.write(data)
                if len(data) < _OUTPUT_BYTES:
                    return
        except SSL.WantReadError:
            return

    def _send_close_notify(self, tls: SSL.Connection) -> None:
        with contextlib.suppress(SSL.Error):  # it had been said, or the connection is broken
            tls.shutdown()
        self._send_out(tls)

    def loseConnection(self) -> None:
        """End our side; the connection is over when the peer has ended its own, or by abort."""
        self.loseWriteConnection()

    def loseWriteConnection(self) -> None:  # noqa: N802
        """Send close_notify behind what was written, and end the stream below. What the peer sends then is lost."""
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
        """Hand on nothing for now."""
        self._is_paused = True
        self._read_or_not()

    def resumeProducing(self) -> None:
        """Hand on what has waited, in its turn, and read on."""
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

    def __init__(self, options: CertificateOptions, wrapped: Any, queue: FairQueue) -> None:
        """``options`` have the key and the certificates."""
        super().__init__(wrapped)
        negotiates = IProtocolNegotiationFactory.providedBy(wrapped)
        self.context = server_context(options, wrapped.acceptableProtocols() if negotiates else [])
        self.queue = queue

    def buildProtocol(self, addr: IAddress | None) -> TlsTransport:
        """For a port of Twisted's."""
        return self.wrap(self.wrappedFactory.buildProtocol(addr), getattr(addr, "host", None))

    def wrap(self, protocol: IProtocol, key: Hashable) -> TlsTransport:
        """Put TLS below a protocol whose client's address has that key."""
        return TlsTransport(self, protocol, key)
