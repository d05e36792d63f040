"""One upgraded connection: what its peer sends, on the way to an application's session, and back.

Autobahn completes the handshake, sends and judges close frames, and judges headers that break the protocol; frames are
read by `pyryrelay.wire.frames`, which is a hundred times as fast.

Invariants: the session is opened once, told `closed` once, and gets the whole messages of a chunk in one batch; the
gate's lease lives until the transport is lost; a peer that does not take part in the closing handshake is cut off.

Liveness is ours and not Autobahn's: one wheel for all connections, pings that a peer is spared whom we do not read
from, and a probe. Times are seconds of a monotonic clock, sizes are bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import txaio
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.util import encode_truncate
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.application import Message, Request, Session
from pyryrelay.guard import ClientAddress, ThrottlePolicy
from pyryrelay.wire.closecode import CloseCode
from pyryrelay.wire.flow import Outbox, tune
from pyryrelay.wire.frames import BadHeader, Breach, CloseFrame, FrameReader, Stop, encode, pongs
from pyryrelay.wire.guarded import Guarded
from pyryrelay.wire.http import canonical_upgrade
from pyryrelay.wire.intake import Intake
from pyryrelay.wire.liveness import Action, Liveness

if TYPE_CHECKING:
    from pyryrelay.wire.websocket import RelayFactory

_log = Logger()


class RelayProtocol(Guarded, WebSocketServerProtocol):  # type: ignore[misc]  # Autobahn's own bases disagree
    """One upgraded connection; to the application it is the `pyryrelay.application.Peer`."""

    log = txaio.make_logger(level="critical")  # type: ignore[attr-defined]
    state: int
    data: bytes
    inside_message: bool
    localCloseCode: Any  # noqa: N815
    remoteCloseCode: Any  # noqa: N815
    remoteCloseReason: Any  # noqa: N815
    factory: RelayFactory

    wheel_slot: int | None = None
    on_drain: Callable[[], None] | None = None
    _session: Session | None = None
    _outbox: Outbox | None = None
    _liveness: Liveness
    _closing: tuple[int, str] | None = None  # what to close with once the outbox is empty
    _cut_off_at_s: float = math.inf
    _intake: Intake
    _stopped = False  # reading
    _held = b""  # what arrived nevertheless: the chunk that was under way
    _messages = 0
    _owed_pong: bytes | None = None

    def prepare(self, request: Request) -> None:
        """What the entrance knows about this connection."""
        self.request = request
        limits = self.factory.limits
        self._reader = FrameReader(limits.message_bytes, limits.fragments)
        self.gate = self.factory.gate
        self.now = self.factory.now
        self.route = self.factory.application.name
        self._intake = Intake(self.factory.throttle)

    # Opening

    def upgrade(self, key: str, early: bytes) -> None:
        """Complete a handshake that has been checked, then take what the peer sent right behind it.

        What Autobahn is fed for the handshake is ours, and not charged to the peer.
        """
        self._dataReceived(canonical_upgrade(key))
        self.data = b""
        self.dataReceived(early)

    def client_address(self, request: ConnectionRequest) -> ClientAddress | None:
        """The entrance has derived it from the original head."""
        return self.request.client

    def onOpen(self) -> None:
        """The upgrade is complete: open the session."""
        self._ask_application(self._open)

    def _ask_application(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call into the application; its faults cost this connection and nothing else."""
        try:
            call(*arguments)
        except Exception:
            _log.failure("An application failed")
            self._fail(CloseCode.INTERNAL_ERROR, "internal error")

    def _open(self) -> None:
        factory = self.factory
        now = self.now()
        factory.open.add(self)
        tune(self.transport)
        self._outbox = Outbox(self.transport, factory.application.policy, self.now, self._drained)
        limits = factory.limits
        self._liveness = Liveness(limits.ping_interval_s, limits.pong_timeout_s, limits.message_timeout_s, now)
        self._arm()
        self._session = factory.application.opened(self, self.request)

    # Receiving

    def dataReceived(self, data: bytes) -> None:
        """Read the chunk's frames, then deliver its messages as one batch."""
        if self.state == self.STATE_CLOSED:
            return
        if self._stopped:
            self._held += data
            return
        if data and self.state == self.STATE_OPEN:
            self._ask_application(self._liveness.heard)
        self._read(data)
        if self._reader.messages:
            batch, self._reader.messages = self._reader.messages, []
            self._messages += len(batch)
            self._deliver(batch)
        if self.state == self.STATE_OPEN:
            self._note_progress()
            if self._intake.is_metered and self._intake.charge(len(data), self.now()):
                self._stop_or_go()
                self._arm()
        elif self._session is not None:
            self._leave()

    def _read(self, data: bytes) -> None:
        """Take in a chunk, and act upon everything in it that is no message."""
        reader, intake = self._reader, self._intake
        stop: Stop | None = None
        while self.state != self.STATE_CLOSED:
            reader.discarding = reader.discarding or self.state != self.STATE_OPEN
            stop = reader.read(data)
            intake.frames += reader.frames
            reader.frames = 0
            if reader.pings:
                pings, reader.pings = reader.pings, []
                intake.pings += len(pings)
                self._answer(pings)
            if reader.pongs:
                answers, reader.pongs = reader.pongs, []
                self._ask_application(self._liveness.pongs, answers)
            if stop is None:
                return
            self._act_upon(stop)
            data = b""

    def _act_upon(self, stop: Stop) -> None:
        match stop:
            case CloseFrame(payload):
                code = int.from_bytes(payload[:2], "big") if payload else None
                self.onCloseFrame(code, payload[2:] or None)  # type: ignore[arg-type]  # None is what Autobahn passes
            case Breach(code, reason):
                self._fail_connection(int(code), reason)
            case BadHeader(raw, inside_message):
                self.inside_message = inside_message
                self._dataReceived(raw)
                self.data = b""
                if self.state == self.STATE_OPEN:
                    self._fail_connection(int(CloseCode.PROTOCOL_ERROR), "bad frame header")

    def onFrameBegin(self) -> None:
        """Autobahn judges headers here, and takes in no frame."""

    def onFrameData(self, payload: bytes) -> Any:
        """Neither what is in one."""
        return False

    def _answer(self, pings: Sequence[bytes]) -> None:
        """Answer, unless the peer does not read: then only the latest ping, once it does (RFC 6455 section 5.5.3)."""
        if self._outbox is None or self.state != self.STATE_OPEN:
            return
        if self._outbox.blocked:
            self._owed_pong = pings[-1]
        else:
            self._outbox.write_now(pongs(pings))
            self._watch(self._outbox)

    def _watch(self, outbox: Outbox) -> None:
        """Something was written: a peer that does not read has a deadline from now on."""
        if outbox.blocked:
            self._arm()

    def _deliver(self, batch: Sequence[Message]) -> None:
        if self._session is not None and self._closing is None:
            self._ask_application(self._session.messages, batch)

    def _note_progress(self) -> None:
        """Start, keep or stop the clock of the message that is being received."""
        if self._liveness.received(self._messages, self._reader.incomplete, self.now()):
            self._arm()

    def set_throttle(self, policy: ThrottlePolicy) -> None:
        """Enforce other quotas from the next chunk on; whoever is in debt with the old ones goes on."""
        self._intake.meter(policy)
        self._stop_or_go()

    # Sending (application.Peer)

    @property
    def buffered_bytes(self) -> int:
        """See `pyryrelay.application.Peer`."""
        return 0 if self._outbox is None else self._outbox.buffered_bytes

    def send(self, batch: Sequence[bytes], *, binary: bool = False, before: bytes = b"", after: bytes = b"") -> None:
        """See `pyryrelay.application.Peer`."""
        outbox = self._outbox
        if outbox is None or self.state != self.STATE_OPEN or self._closing is not None:
            return
        if not outbox.write(encode(batch, binary=binary, before=before, after=after)):
            self._fail(CloseCode.INTERNAL_ERROR, self.factory.application.policy.outbox_reason)
        else:
            self._watch(outbox)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """What Autobahn sends: the answer to the handshake, pings and close frames."""
        if self._outbox is None:
            self.transport.write(data)
        else:
            self._outbox.write_now(data)

    def close(self, code: int, reason: str = "") -> None:
        """See `pyryrelay.application.Peer`."""
        if self.state != self.STATE_OPEN or self._closing is not None:
            return
        self._closing = (code, reason)
        self._cut_off_at_s = self.now() + self.factory.limits.close_timeout_s
        self._stop_or_go()
        if self._outbox is None or self._outbox.empty:
            self._send_close()
        self._arm()

    def _send_close(self) -> None:
        code, reason = self._closing or (CloseCode.NORMAL, "")
        self.sendCloseFrame(code=int(code), reasonUtf8=encode_truncate(reason, 123))

    def _drained(self) -> None:
        owed_pong, self._owed_pong = self._owed_pong, None
        if owed_pong is not None:
            self._answer([owed_pong])
        if self._closing is not None:
            if self.state == self.STATE_OPEN:
                self._send_close()
        elif self.on_drain is not None:
            self._ask_application(self.on_drain)

    def pause(self) -> None:
        """See `pyryrelay.application.Peer`."""
        self._intake.paused = True
        self._stop_or_go()

    def resume(self) -> None:
        """See `pyryrelay.application.Peer`."""
        self._intake.paused = False
        self._stop_or_go()

    def _stop_or_go(self) -> None:
        """Read from the peer or not, as the intake wants it; a closing peer is always read from."""
        stop = self._cut_off_at_s == math.inf and not self._intake.is_open
        if stop == self._stopped:
            return
        self._stopped = stop
        if stop:
            self._liveness.suspend(self.now())
            self.transport.pauseProducing()
        else:
            self._go()

    def _go(self) -> None:
        """Take what was held, and read on unless that was a reason to stop again."""
        self._liveness.resume(self.now())
        held, self._held = self._held, b""
        if held:
            self.dataReceived(held)
        if not self._stopped:
            self.transport.resumeProducing()
            self._note_progress()
            self._arm()

    def ping(self, answered: Callable[[], None]) -> None:
        """See `pyryrelay.application.Peer`."""
        if self.state != self.STATE_OPEN:
            return
        if self._stopped:
            # Whoever is too busy to be read from is alive, and could not be heard to say so.
            answered()
        else:
            self.sendPing(self._liveness.ping(answered))

    # Deadlines

    def _arm(self) -> None:
        """See to it that the wheel looks here when the earliest deadline is due. An earlier look does no harm."""
        due_s = self._cut_off_at_s
        if due_s == math.inf:
            due_s = min(self._liveness.due_s, self._stalled_at_s(), self._intake.due_s)
        if due_s < math.inf:
            self.factory.wheel.arm_by(self, due_s)

    def _stalled_at_s(self) -> float:
        return math.inf if self._outbox is None else self._outbox.stalled_at_s

    def deadline_reached(self, now: float) -> None:
        """Some deadline may have passed; see which."""
        if now >= self._cut_off_at_s:
            self.transport.abortConnection()
            return
        if self._cut_off_at_s == math.inf:
            self._check(now)
        self._arm()

    def _check(self, now: float) -> None:
        if now >= self._stalled_at_s():
            self._fail(CloseCode.INTERNAL_ERROR, self.factory.application.policy.stall_reason)
            return
        if not self._intake.check(now):
            self._fail(CloseCode.POLICY_VIOLATION, "quota exceeded")
            return
        self._stop_or_go()
        match self._liveness.check(now):
            case Action.PING:
                self.sendPing(self._liveness.ping())
            case Action.HEARTBEAT_TIMEOUT as action:
                self._fail(CloseCode.INTERNAL_ERROR, action.value)
            case Action.MESSAGE_TIMEOUT as action:
                self._fail(CloseCode.POLICY_VIOLATION, action.value)

    # Closing

    def _fail(self, code: int, reason: str) -> None:
        """Close for a reason of our own, without waiting for what is buffered, and tell the session."""
        if self._outbox is not None:
            self._outbox.clear()
        self._owed_pong = None
        self.close(code, reason)
        self._leave(int(code), reason)

    def _leave(self, code: int | None = None, reason: str = "") -> None:
        """The connection is past its open state: tell the session once, and see to it that the transport ends."""
        if self._cut_off_at_s == math.inf:
            self._cut_off_at_s = self.now() + self.factory.limits.close_timeout_s
            self._arm()
        if self._outbox is not None:
            self._outbox.clear()
        session, self._session = self._session, None
        if session is None:
            return
        if code is None:
            code, reason = self._close_status()
        self._ask_application(session.closed, code, reason)

    def _close_status(self) -> tuple[int, str]:
        """What ended the connection: the peer's close frame, our own, or neither."""
        if self.closedByMe:
            return self.localCloseCode or CloseCode.NO_STATUS, ""
        if self.wasClean:
            return self.remoteCloseCode or CloseCode.NO_STATUS, self.remoteCloseReason or ""
        return CloseCode.ABNORMAL, ""

    def dropConnection(self, abort: bool = False) -> None:
        """Close in order: a reset would destroy the close frame on its way. The wheel sees to peers that stay."""
        super().dropConnection(abort=False)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone."""
        self._cut_off_at_s = 0.0
        self._stopped = False  # there is nothing that could be read again
        self.factory.open.discard(self)
        super().connectionLost(reason)
        self._leave()
        self.factory.wheel.cancel(self)
