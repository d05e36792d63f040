"""One upgraded connection: from what its peer sends to an application's session, and back.

The HTTP connection has checked the request, and `pyryrelay.websocket.frames.reader` reads frames a hundred times as
fast as Autobahn. Autobahn keeps what it is good at: `onConnect` is asked for admission, close frames and invalid
headers are judged (`pyryrelay.websocket.autobahn_base`).

A connection is one object in layers, each a subclass of the one before it: `Lifecycle` (the states, and how it ends),
`Sending`, `Turns`, `Receiving`, `Deadlines`, and here the opening. Calls from the transport and the application reach
the layer that answers them without any step between.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import urandom

from autobahn.websocket.types import ConnectionDeny, ConnectionRequest

from pyryrelay.guard import ClientAddress, Refusal
from pyryrelay.protocol import Request
from pyryrelay.runtime.transports import IStreamTransport, tune
from pyryrelay.websocket.autobahn_base import connection_request
from pyryrelay.websocket.context import ConnectionContext
from pyryrelay.websocket.deadlines import Deadlines
from pyryrelay.websocket.frames.deflate import deflater, encode_deflated
from pyryrelay.websocket.frames.deflated_reader import DeflatedFrameReader
from pyryrelay.websocket.frames.negotiation import Compression
from pyryrelay.websocket.frames.reader import FrameReader
from pyryrelay.websocket.frames.writer import Encoded
from pyryrelay.websocket.handshake import switching_protocols
from pyryrelay.websocket.liveness import Liveness
from pyryrelay.websocket.outbox.outbox import Outbox
from pyryrelay.websocket.reading.read_pause import ReadPause
from pyryrelay.websocket.reading.read_size import ReadSize
from pyryrelay.websocket.reading.turns import FIRST_FRAMES
from pyryrelay.websocket.states import Event

__all__ = ["Connection", "DeflatedConnection"]

_ADMITTED = Event.ADMITTED


class Connection(Deadlines):
    """One upgraded connection; to the application it is the `pyryrelay.protocol.Peer`."""

    _extensions = ""  # what the handshake has agreed upon

    def __init__(self, context: ConnectionContext, request: Request) -> None:
        """Begin with what is known before the upgrade."""
        # None of the bases' own initialisers runs: see `AutobahnBase`.
        self.context = context
        self.client = request.client
        self.gate = context.gate
        self.now = context.now
        self.route = context.application.name
        limits, now = context.limits, context.now()
        self._reader = FrameReader(context.max_message_bytes, limits.fragments)
        self._reader.most_frames = FIRST_FRAMES
        self._read_pause = ReadPause(context.throttle)
        self._liveness = Liveness(
            limits.ping_interval_s, limits.pong_timeout_s, limits.message_timeout_s, now, _draw_key
        )

    def upgrade(self, transport: IStreamTransport, request: Request, key: str, early: bytes) -> None:
        """Complete a handshake that has been checked, then take what the peer sent right behind it.

        The answer, and whatever else the peer is sent by then, is sent by `flush`.
        Nothing of what the client wrote is kept. What it sent early is charged to it.
        """
        self.transport = transport
        try:
            self.onConnect(connection_request(request.path))
        except ConnectionDeny as denial:
            self.failHandshake(denial.reason or "", denial.code)
            self._fire(Event.DENIED)
            return
        self._fire(_ADMITTED)
        self._ask_application(self._open_session, request, switching_protocols(key, self._extensions))
        self.dataReceived(early)

    def _open_session(self, request: Request, answer: bytes) -> None:
        context = self.context
        self._share = context.fair_queue.join(self.client.key)
        tune(self.transport)
        self._read_size = ReadSize(self.transport, context.wide_slot)
        self._outbox = Outbox(self.transport, context.application.policy, self.now, self._drained, self._source_drained)
        self._outbox.postpone(answer)
        self._arm()
        self._session = context.application.opened(self, request)

    # Actions of the states

    def _open(self) -> None:
        self.context.open.add(self)
        self.context.traffic.admitted += 1
        super()._open()

    def _release_all(self) -> None:
        self.context.open.discard(self)
        super()._release_all()

    # What `Guarded` asks

    def onConnect(self, request: ConnectionRequest) -> None:
        """Spend one token and take one lease, or raise `ConnectionDeny`. No other place decides this."""
        self.admit(request)

    def client_address(self, request: ConnectionRequest) -> ClientAddress | None:
        """Return the address that was derived from the original request head."""
        return self.client

    def on_refused(self, client: ClientAddress | None, refusal: Refusal, now: float) -> None:
        """Do nothing: the HTTP connection tells its observer, which counts the refusal and strikes."""


class DeflatedConnection(Connection):
    """A connection whose messages may be compressed (RFC 7692); others do not pay for what these need."""

    def __init__(self, context: ConnectionContext, request: Request, agreed: Compression) -> None:
        """Begin with what is known before the upgrade."""
        super().__init__(context, request)
        self._extensions = agreed.answer
        self._deflate = deflater(agreed)
        most_frames = self._reader.most_frames
        self._reader = DeflatedFrameReader(context.max_message_bytes, context.limits.fragments, agreed)
        self._reader.most_frames = most_frames

    def _encode(
        self, payloads: Sequence[bytes], *, binary: bool = False, before: bytes = b"", after: bytes = b""
    ) -> list[Encoded]:
        return encode_deflated(payloads, self._deflate, binary=binary, before=before, after=after)


def _draw_key() -> bytes:
    """Draw the key of a connection's pings."""
    return urandom(16)
