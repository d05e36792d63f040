"""One upgraded connection: what its peer sends, on the way to an application's session, and back.

The entrance has checked the request, and `pyryrelay.websocket.frames.reader` reads frames a hundred times as fast as
Autobahn does. Autobahn keeps what it is good at: `onConnect` is asked for admission, close frames are judged and sent,
and headers that break the protocol are judged (`pyryrelay.websocket.autobahn_base`).

Invariants: the session is opened once, told `closed` once, and gets the whole messages of a chunk in one batch; the
gate's lease lives until the transport is lost; a peer that does not take part in the closing handshake is cut off.

Liveness is ours and not Autobahn's: one wheel for all connections, pings that a peer is spared whom we do not read
from, and a probe. Times are seconds of a monotonic clock, sizes are bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from os import urandom
from typing import Any

from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.close_codes import CloseCode
from pyryrelay.guard import ClientAddress, Refusal, ThrottlePolicy
from pyryrelay.protocol import Request, Session
from pyryrelay.runtime.fair_queue import (
    CHEAP_ALLOWANCE_S,
    COSTLY_FOR_S,
    COSTLY_S,
    NO_ALLOWANCE_S,
    UNLIMITED_ALLOWANCE_S,
    Share,
)
from pyryrelay.runtime.transports import IStreamTransport, has_hung_up, socket_transport, tune
from pyryrelay.websocket.autobahn_base import AutobahnBase, connection_request
from pyryrelay.websocket.context import ConnectionContext
from pyryrelay.websocket.frames.reader import MANY_FRAMES, BadHeader, Breach, CloseFrame, FrameReader, Stop
from pyryrelay.websocket.frames.writer import encode, pongs
from pyryrelay.websocket.guarded import Guarded
from pyryrelay.websocket.handshake import switching_protocols
from pyryrelay.websocket.liveness import Action, Liveness
from pyryrelay.websocket.outbox.half_close import LINGER_S
from pyryrelay.websocket.outbox.outbox import Outbox
from pyryrelay.websocket.reading.hangup import HangupBudget
from pyryrelay.websocket.reading.read_pause import ReadPause
from pyryrelay.websocket.reading.read_size import EXPENSIVE_S, ReadSize

_log = Logger()

FIRST_FRAMES, LEAST_FRAMES = 512, 32
"""How many are taken in one turn from a peer whose frames have not been measured, and from one whose are expensive."""
PROBE_LOOK_S = 1.0
"""How often it is looked whether a peer whose pong is awaited takes what is on its way to it."""
DEBTOR_LOOK_S = 1.0
"""How often it is looked whether a peer has hung up that is not read from because of its quotas, and for how long yet
that must be. What such a peer has sent is dropped: else it would be connected for minutes after it has left."""


class Connection(Guarded, AutobahnBase):  # type: ignore[misc]  # Autobahn's own bases disagree
    """One upgraded connection; to the application it is the `pyryrelay.protocol.Peer`."""

    wheel_slot: int | None = None
    on_drain: Callable[[], None] | None = None
    on_source_drain: Callable[[Hashable], None] | None = None
    _session: Session | None = None
    _outbox: Outbox | None = None
    _closing: tuple[int, str] | None = None  # what to close with once the outbox is empty
    _cut_off_at_s: float = math.inf
    _is_dropped = False
    _lingers = False  # the write side has ended, and the peer's end is waited for
    _stopped = False  # reading
    _held = b""  # what arrived nevertheless: the chunk that was under way
    _is_processing = False  # a chunk, the application included
    _messages = 0
    _read_size: ReadSize | None = None
    _share: Share | None = None  # of the processor
    _allowance_s = CHEAP_ALLOWANCE_S
    _cheap_at_s = -math.inf
    _frame_s: float | None = None  # what one costs, as far as that is known
    _hangup_budget: HangupBudget | None = None  # once it has taken turns
    _owed_pong: bytes | None = None
    _probe_position: tuple[int, int] | None = None  # of a probe's ping: what was taken, and what is when it arrives

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

    # Opening

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
            self._drop()
            return
        self.allow_messages()
        self._ask_application(self._open, request, switching_protocols(key))
        self.dataReceived(early)

    def onConnect(self, request: ConnectionRequest) -> None:
        """The authority: one token and one lease, or `ConnectionDeny`."""
        self.admit(request)

    def on_refused(self, client: ClientAddress | None, refusal: Refusal, now: float) -> None:
        """Do nothing: the HTTP connection tells its observer, which counts the refusal and strikes."""

    def client_address(self, request: ConnectionRequest) -> ClientAddress | None:
        """The entrance has derived it from the original head."""
        return self.client

    def _ask_application(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call into the application; its faults cost this connection and nothing else."""
        try:
            call(*arguments)
        except Exception:
            _log.failure("An application failed")
            self._fail(CloseCode.INTERNAL_ERROR, "internal error")

    def flush(self) -> None:
        """Send the answer to the opening handshake, if it is not on its way, and what comes behind it."""
        if self._outbox is not None:
            self._outbox.flush()

    def _open(self, request: Request, answer: bytes) -> None:
        context = self.context
        context.open.add(self)
        self._share = context.fair_queue.join(self.client.key)
        tune(self.transport)
        self._read_size = ReadSize(self.transport, context.wide_slot)
        self._outbox = Outbox(self.transport, context.application.policy, self.now, self._drained, self._source_drained)
        self._outbox.postpone(answer)
        self._arm()
        self._session = context.application.opened(self, request)

    # Receiving

    def received_below(self, size: int, records: int) -> None:
        """Charge what TLS needed beside the plaintext, and records without any like pings, which are as useful."""
        self._read_pause.below_bytes += size
        self._read_pause.pings += records

    def ended_below(self) -> None:
        """End as a plain connection does whose peer has left, and in bounded time, whatever is still on its way."""
        self._drop()
        self._leave()

    def dataReceived(self, data: bytes) -> None:
        """Process a chunk now, or in its turn where the peer's address has had enough of this one."""
        if self.state == self.STATE_CLOSED:
            return
        share = self._share
        if self._stopped:
            self._held += data
        elif share is not None and share.spent_s > self._allowance_s and not self._may_run(share):
            self._held = data
            self._put_off(share)
        else:
            self._process(data, share)

    def _may_run(self, share: Share) -> bool:
        now_s = self.context.fair_queue.clock()
        if now_s > self._cheap_at_s:
            self._allowance_s = CHEAP_ALLOWANCE_S
            if share.spent_s <= CHEAP_ALLOWANCE_S:
                return True
        is_costly = self._allowance_s == NO_ALLOWANCE_S
        if self.context.fair_queue.may_run(share, now_s, is_costly=is_costly):
            if is_costly:
                self._limit_frames(now_s)
            return True
        return False

    def _process(self, data: bytes, share: Share | None) -> None:
        """Read the chunk's frames, then deliver its messages as one batch."""
        queue, frames = self.context.fair_queue, self._read_pause.frames
        began_s = queue.clock()
        self._is_processing = True
        if data and self.state == self.STATE_OPEN:
            self._ask_application(self._liveness.heard)
        self._read(data)
        frames = self._read_pause.frames - frames
        if self._reader.messages:
            self._deliver()
        self._is_processing = False
        if self.state == self.STATE_OPEN:
            self._note_progress()
            if self._read_pause.is_metered and self._read_pause.charge(len(data), self.now()):
                self._stop_or_go()
                self._arm()
        elif self._session is not None:
            self._leave()
        ended_s, read_size = queue.clock(), self._read_size
        if read_size is not None and (len(data) >= read_size.telling_bytes or ended_s - began_s > EXPENSIVE_S):
            read_size.chunk(began_s, ended_s)
        if share is None:
            return
        spent_s, is_full = ended_s - began_s, self._reader.is_full
        if share.spent_s and spent_s <= COSTLY_S and not is_full:
            share.spent_s += spent_s  # what `charge` would do, without a call for each chunk
            return
        was_costly = queue.charge(share, began_s, ended_s, self._allowance_s != CHEAP_ALLOWANCE_S)
        if was_costly or is_full:
            self._note_cost(share, spent_s / max(1, frames), ended_s, was_costly=was_costly)

    def _read(self, data: bytes) -> None:
        """Take in a chunk, and act upon everything in it that is no message."""
        reader, read_pause = self._reader, self._read_pause
        stop: Stop | None = None
        while self.state != self.STATE_CLOSED:
            reader.discarding = reader.discarding or self.state != self.STATE_OPEN
            stop = reader.read(data)
            read_pause.frames += reader.frames
            reader.frames = 0
            if reader.pings:
                pings, reader.pings = reader.pings, []
                read_pause.pings += len(pings)
                self._answer(pings)
            if reader.pongs:
                answers, reader.pongs = reader.pongs, []
                self._ask_application(self._liveness.pongs, answers)
            if stop is None:
                return
            if reader.messages:
                # Whoever says goodbye, or stumbles, can still be answered what it said before.
                self._deliver()
            self._act_upon(stop)
            data = b""

    def _note_cost(self, share: Share, frame_s: float, now_s: float, *, was_costly: bool) -> None:
        """Remember what a chunk cost, and put off what is left of it."""
        self._frame_s = frame_s
        if was_costly:
            self._allowance_s, self._cheap_at_s = NO_ALLOWANCE_S, now_s + COSTLY_FOR_S
        if self._reader.is_full and self.state != self.STATE_CLOSED:
            self._limit_frames(now_s)
            self._put_off(share)

    def _limit_frames(self, now_s: float) -> None:
        """Take as many frames next as one turn has time for."""
        if self._frame_s is not None:
            turn_s = self.context.fair_queue.turn_s(now_s)
            most = MANY_FRAMES if self._frame_s * MANY_FRAMES < turn_s else int(turn_s / self._frame_s)
            self._reader.most_frames = max(LEAST_FRAMES, most)

    def _put_off(self, share: Share) -> None:
        """Let others go first: the peer is not read from until it is its turn."""
        self._read_pause.put_off = True
        self._stop_or_go()
        self.context.fair_queue.enqueue(share, self._take_turn)

    def _take_turn(self) -> None:
        """Process what was put off; a fault costs this connection, as it does where Twisted hands on what was read."""
        try:
            self._process_put_off()
        except Exception:
            _log.failure("A connection failed in its turn")
            self.transport.abortConnection()

    def _process_put_off(self) -> None:
        if self.state == self.STATE_CLOSED:
            return
        hangup = self._hangup_budget = self._hangup_budget or HangupBudget()
        if not hangup.look(hangup.has_hung_up or has_hung_up(socket_transport(self.transport))):
            self.transport.abortConnection()
            return
        queue, size = self.context.fair_queue, len(self._held) + self._reader.kept_bytes
        began_s = queue.cpu_clock()
        self._limit_frames(queue.clock())
        allowance_s, self._allowance_s = self._allowance_s, UNLIMITED_ALLOWANCE_S
        self._read_pause.put_off = False
        self._stop_or_go()
        if self._allowance_s == UNLIMITED_ALLOWANCE_S:
            self._allowance_s = allowance_s
        size -= len(self._held) + self._reader.kept_bytes
        if hangup.worked(queue.cpu_clock() - began_s, size, self.now()):
            self.ask_socket()

    def ask_socket(self) -> None:
        """Send something that a peer need not answer (RFC 6455 section 5.5.3), and a socket without an owner does."""
        if self.state == self.STATE_OPEN and self._outbox is not None and not self._outbox.blocked:
            self._outbox.write_now(pongs([b""]))

    def _act_upon(self, stop: Stop) -> None:
        match stop:
            case CloseFrame(payload):
                self.judge_close_frame(payload)
                self._drop()
            case Breach(code, reason):
                if self.state == self.STATE_OPEN:
                    self.send_close(code, reason)
                    self._drop()
            case BadHeader(raw, inside_message):
                if self.state == self.STATE_OPEN:
                    self.judge_header(raw, inside_message)
                # Where the protocol is broken even while closing, no frame can be found any more to wait for.
                self._drop()

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
            self.context.wide_slot.narrow()
            self._arm()

    def _deliver(self) -> None:
        """Hand over what is whole, as one batch."""
        batch, self._reader.messages = self._reader.messages, []
        self._messages += len(batch)
        if self._session is not None and self._closing is None:
            self._ask_application(self._session.messages, batch)

    def _note_progress(self) -> None:
        """Start, keep or stop the clock of the message that is being received."""
        if self._liveness.received(self._messages, self._reader.incomplete, self.now()):
            self._arm()

    def configure(self, throttle: ThrottlePolicy) -> None:
        """Enforce other quotas from the next chunk on. A peer that is in debt with the previous ones is read again."""
        self._read_pause.meter(throttle)
        self._stop_or_go()

    # Sending (application.Peer)

    @property
    def buffered_bytes(self) -> int:
        """See `pyryrelay.protocol.Peer`."""
        return 0 if self._outbox is None else self._outbox.buffered_bytes

    def waiting_bytes(self, source: Hashable) -> int:
        """See `pyryrelay.protocol.Peer`."""
        return 0 if self._outbox is None else self._outbox.waiting_of(source)

    def send(
        self,
        batch: Sequence[bytes],
        *,
        binary: bool = False,
        before: bytes = b"",
        after: bytes = b"",
        source: Hashable = None,
    ) -> None:
        """See `pyryrelay.protocol.Peer`."""
        outbox = self._outbox
        if outbox is None or self.state != self.STATE_OPEN or self._closing is not None:
            return
        if not outbox.write(encode(batch, binary=binary, before=before, after=after), source):
            self._fail(CloseCode.INTERNAL_ERROR, self.context.application.policy.outbox_reason)
        else:
            self._watch(outbox)

    def write_control(self, data: bytes) -> None:
        """Send a ping, a close frame, or the answer to an upgrade that was denied."""
        if self._outbox is None:
            self.transport.write(data)
        else:
            self._outbox.write_now(data)

    def close(self, code: int, reason: str = "") -> None:
        """See `pyryrelay.protocol.Peer`."""
        if self.state != self.STATE_OPEN or self._closing is not None:
            return
        self._closing = (code, reason)
        self._limit_ending()
        if self._outbox is None or self._outbox.empty:
            self._send_close()

    def _send_close(self) -> None:
        code, reason = self._closing or (CloseCode.NORMAL, "")
        self.send_close(code, reason)

    def _drained(self) -> None:
        owed_pong, self._owed_pong = self._owed_pong, None
        if owed_pong is not None:
            self._answer([owed_pong])
        if self._closing is not None:
            if self.state == self.STATE_OPEN:
                self._send_close()
        elif self.on_drain is not None:
            self._ask_application(self.on_drain)

    def _source_drained(self, source: Hashable) -> None:
        if self._closing is None and self.on_source_drain is not None:
            self._ask_application(self.on_source_drain, source)

    def pause(self) -> None:
        """See `pyryrelay.protocol.Peer`."""
        self._read_pause.paused = True
        self._stop_or_go()

    def resume(self) -> None:
        """See `pyryrelay.protocol.Peer`."""
        self._read_pause.paused = False
        self._stop_or_go()

    def _stop_or_go(self) -> None:
        """Read from the peer or not, as the intake wants it; a closing peer is always read from."""
        stop = self._read_pause.put_off or (self._cut_off_at_s == math.inf and not self._read_pause.is_open)
        if stop == self._stopped:
            return
        self._stopped = stop
        if stop:
            self._liveness.suspend(self.now())
            self.transport.pauseProducing()
        else:
            self._go()

    def _go(self) -> None:
        """Take what was held, and read on unless that was a reason to stop again.

        An application that pauses and resumes while it is handed messages gets those behind them in a later turn.
        """
        self._liveness.resume(self.now())
        held, self._held = self._held, b""
        if held or (self._reader.is_full and not self._is_processing):
            self.dataReceived(held)
        if not self._stopped:
            self.transport.resumeProducing()
            self._note_progress()
            self._arm()

    def ping(self, answered: Callable[[], None]) -> None:
        """See `pyryrelay.protocol.Peer`."""
        if self.state != self.STATE_OPEN:
            return
        if self._stopped:
            # Whoever is too busy to be read from is alive, and could not be heard to say so.
            answered()
        else:
            self.sendPing(self._liveness.ping(answered))
            self._probe_position = None if self._outbox is None else self._outbox.position()
            self._arm()

    # Deadlines

    def _arm(self) -> None:
        """See to it that the wheel looks here when the earliest deadline is due. An earlier look does no harm."""
        due_s = self._cut_off_at_s
        if due_s == math.inf:
            due_s = min(self._liveness.due_s, self._stalled_at_s(), self._read_pause.due_s)
            if self._probe_position is not None:
                due_s = min(due_s, self.now() + PROBE_LOOK_S)
            if self._read_pause.due_s < math.inf:
                due_s = min(due_s, self.now() + DEBTOR_LOOK_S)
        if due_s < math.inf:
            self.context.wheel.arm_by(self, due_s)

    def _stalled_at_s(self) -> float:
        return math.inf if self._outbox is None else self._outbox.stalled_at_s

    def deadline_reached(self, now: float) -> None:
        """Some deadline may have passed; see which."""
        if now >= self._cut_off_at_s:
            self._cut_off()
            return
        if self._cut_off_at_s == math.inf:
            self._check(now)
        self._arm()

    def _look_for_progress(self) -> None:
        """Take it for the answer to a probe if the peer takes what is before the ping, which cannot be answered yet."""
        position, outbox = self._probe_position, self._outbox
        if position is None or outbox is None:
            return
        before, (acknowledged, _) = position[0], outbox.position() or position
        if acknowledged > before:
            self._probe_position = None
            if acknowledged < position[1]:
                self._ask_application(self._liveness.heard)

    def _check(self, now: float) -> None:
        self._look_for_progress()
        if self._outbox is not None and self._outbox.has_stalled():
            self._fail(CloseCode.INTERNAL_ERROR, self.context.application.policy.stall_reason)
            return
        if not self._read_pause.check(now):
            self._fail(CloseCode.POLICY_VIOLATION, "quota exceeded")
            return
        if self._read_pause.debt_s(now) > DEBTOR_LOOK_S and has_hung_up(socket_transport(self.transport)):
            self.transport.abortConnection()
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
        """Fail the connection for a reason of our own, without waiting for what is buffered, and tell the session."""
        if self.state == self.STATE_OPEN:
            if self._outbox is not None:
                self._outbox.clear()
            self._owed_pong = None
            if self._closing is None:
                self._closing = (code, reason)
            self._send_close()
        self._drop()
        self._leave(int(code), reason)

    def _limit_ending(self) -> None:
        """The end has begun: from now on its time is limited, and a peer that was not read from is read again."""
        if self._cut_off_at_s == math.inf:
            self._cut_off_at_s = self.now() + self.context.limits.close_timeout_s
            self._stop_or_go()
            self._arm()

    def _leave(self, code: int | None = None, reason: str = "") -> None:
        """The connection is past its open state: tell the session once, and see to it that the transport ends."""
        self._limit_ending()
        if self._outbox is not None:
            self._outbox.clear()
        session, self._session = self._session, None
        if session is None:
            return
        if code is None:
            code, reason = self.close_status()
        self._ask_application(session.closed, code, reason)

    def _drop(self) -> None:
        """Close the WebSocket connection (RFC 6455 section 7.1.1): end the write side, then wait for the peer's end.

        What arrives meanwhile is read and discarded. A reset would destroy the close frame on its way.
        """
        if self._is_dropped:
            return
        self._is_dropped = True
        self.end_messages()
        self._held = b""
        self._read_pause.put_off = False  # what is only discarded needs no turn
        self._limit_ending()
        self._stop_or_go()
        if self._outbox is None:
            self.transport.loseConnection()  # the upgrade was denied, or failed
        else:
            self._outbox.finish(self._written)

    def _written(self) -> None:
        """Our close frame is out, and the write side has ended."""
        self._lingers = True
        self._cut_off_at_s = self.now() + LINGER_S
        self._arm()

    def abort(self) -> None:
        """Reset the connection."""
        self.transport.abortConnection()

    def _cut_off(self) -> None:
        """The time for the end is over."""
        if self._lingers:
            self._lingers = False
            self._cut_off_at_s = self.now() + self.context.limits.close_timeout_s
            self._arm()
            socket_transport(self.transport).loseConnection()
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone. There is nothing in Autobahn that would have to learn it."""
        self.end_messages()
        self._is_dropped = True
        self._cut_off_at_s = 0.0
        self._stopped = False  # there is nothing that could be read again
        self.context.open.discard(self)
        if self._read_size is not None:
            self._read_size.end()
        share, self._share = self._share, None
        if share is not None:
            self.context.fair_queue.leave(share)
        self.release()
        self._leave()
        self.context.wheel.cancel(self)
        # What knows this connection must not be known by it any more: then all of it is freed at once, and ten thousand
        # that come and go leave the garbage collector nothing to do.
        self._outbox = self._read_size = self.on_drain = self.on_source_drain = None
        self._liveness.forget_probes()
        self._held = b""


def _draw_key() -> bytes:
    """The key of a connection's pings."""
    return urandom(16)
