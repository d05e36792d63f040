"""What a connection receives: chunks of bytes, on the way to a session's messages.

Invariants: the session gets the whole messages of a chunk in one batch, in order, and none once the peer is being
closed. While the application takes a batch, whatever came behind it waits, a close frame or a protocol error too: the
outcome is the same wherever the network cut the stream. Chunks that must wait for their turn
(`pyryrelay.websocket.reading.turns`), or for a peer that is paused, are kept, and nothing is read meanwhile.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from math import inf

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.guard import ThrottlePolicy
from pyryrelay.runtime.fair_queue import CHEAP_ALLOWANCE_S, COSTLY_S, Share
from pyryrelay.websocket.frames.reader import BadHeader, Breach, CloseFrame, Stop
from pyryrelay.websocket.liveness import Liveness
from pyryrelay.websocket.reading.read_size import EXPENSIVE_S, ReadSize
from pyryrelay.websocket.reading.turns import Turns
from pyryrelay.websocket.states import Event, State

__all__ = ["Receiving"]

_log = Logger(namespace="pyryrelay")

_OPEN, _FLUSHING, _CLOSING, _DRAINING = State.OPEN, State.FLUSHING, State.CLOSING, State.DRAINING
_PEER_CLOSED = Event.PEER_CLOSED


class Receiving(Turns):
    """The layer that receives."""

    _liveness: Liveness
    _stopped = False  # reading
    _held_stop: Stop | None = None  # what came behind messages that the application is still taking
    _left_at_s = inf  # when a peer that is not read from was first seen to have left
    _is_processing = False  # a chunk, which includes what the application does with it
    _messages = 0
    _read_size: ReadSize | None = None

    def configure(self, throttle: ThrottlePolicy) -> None:
        """Enforce other quotas from the next chunk on. A peer that is in debt with the previous ones is read again."""
        self._read_pause.meter(throttle)
        self._update_reading()

    # Chunks

    def received_below(self, size: int, records: int) -> None:
        """Charge what TLS needed beside the plaintext. Records without any count as pings: they are as useful."""
        self._read_pause.below_bytes += size
        self._read_pause.pings += records

    def dataReceived(self, data: bytes) -> None:
        """Process a chunk now, or in its turn if the peer's address has used up what is its share of this one."""
        if self._state >= _DRAINING:
            return
        share = self._share
        if self._stopped:
            self._held += data
        elif share is not None and share.spent_s > self._allowance_s and not self._may_run(share):
            self._held = data
            self._put_off(share)
        else:
            self._process(data, share)

    def _process(self, data: bytes, share: Share | None) -> None:
        """Read the chunk's frames, then deliver its messages as one batch."""
        queue, frames = self.context.fair_queue, self._read_pause.frames
        self.context.traffic.bytes_in += len(data)
        began_s = queue.clock()
        self._is_processing = True
        if data and self._state <= _FLUSHING:
            self._ask_application(self._liveness.heard)
        self._read(data)
        frames = self._read_pause.frames - frames
        if self._reader.messages:
            self._deliver()
        self._is_processing = False
        if self._state <= _FLUSHING:
            self._note_progress()
            if self._read_pause.is_metered and self._read_pause.charge(len(data), self.now()):
                self._update_reading()
                self._arm()
        elif self._session is not None and self._state is _CLOSING:
            self._tell_session()
        ended_s, read_size = queue.clock(), self._read_size
        if read_size is not None and (len(data) >= read_size.recorded_bytes or ended_s - began_s > EXPENSIVE_S):
            read_size.record(began_s, ended_s)
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
        """Take in a chunk, and act upon everything in it but messages."""
        reader, read_pause = self._reader, self._read_pause
        stop: Stop | None = None
        while self._state < _DRAINING:
            reader.discarding = reader.discarding or self._state is _CLOSING
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
                # Deliver messages received before a close frame or a protocol error, so the application can still
                # reply.
                self._deliver()
                if self._read_pause.pending and self._state is _OPEN:
                    # As if it came in a later chunk.
                    self._held_stop = stop
                    return
            self._act_upon(stop)
            data = b""

    def _act_upon(self, stop: Stop) -> None:
        match stop:
            case CloseFrame(payload):
                if self._state < _DRAINING:
                    self.judge_close_frame(payload)
                    self._fire(_PEER_CLOSED)
            case Breach(code, reason):
                if self._state <= _FLUSHING:
                    self.send_close(code, reason)
                    self._fire(Event.FAILED)
            case BadHeader(raw, inside_message):
                if self._state <= _FLUSHING:
                    self.judge_header(raw, inside_message)
                if self._state < _DRAINING:
                    # After a bad header no frame can be found, not even the answer to our close frame.
                    self._fire(Event.FAILED)

    def _deliver(self) -> None:
        """Hand over all whole messages as one batch. Nothing more is read if the application needs time for it."""
        batch, self._reader.messages = self._reader.messages, []
        self._messages += len(batch)
        self.context.traffic.messages_in += len(batch)
        session = self._session
        if session is None or self._state is not _OPEN:
            return
        try:
            taken = session.messages(batch)
            # Most functions that may wait return a Deferred that has fired already.
            if taken is not None and not (taken.called and taken.result is None and not taken.paused):
                self._wait_for(taken)
        except Exception:
            self._application_failed()

    def _wait_for(self, taken: Deferred[None]) -> None:
        """Read nothing from the peer until the application has taken the batch."""
        self._read_pause.pending = True
        taken.addCallbacks(self._was_taken, self._was_not_taken)
        self._update_reading()

    def _was_taken(self, result: object) -> None:
        """Go on; a fault ends this connection, as it does where Twisted delivers what was read."""
        self._read_pause.pending = False
        try:
            self._update_reading()
        except Exception:
            _log.failure("A connection failed in its turn")
            self.abort()

    def _was_not_taken(self, failure: Failure) -> None:
        """End this connection, if it has not ended yet."""
        self._read_pause.pending = False
        self._application_failed(failure)

    def _note_progress(self) -> None:
        """Start, keep or stop the clock of the message that is being received."""
        if self._liveness.received(self._messages, self._reader.incomplete, self.now()):
            self._arm()

    # Pausing

    def pause(self) -> None:
        """See `pyryrelay.protocol.Peer`."""
        self._read_pause.paused = True
        self._update_reading()

    def resume(self) -> None:
        """See `pyryrelay.protocol.Peer`."""
        self._read_pause.paused = False
        self._update_reading()

    def _update_reading(self) -> None:
        """Read from the peer or not. A peer that is being closed is always read from, in its turn."""
        stop = self._read_pause.put_off or (self._state <= _OPEN and not self._read_pause.is_open)
        if stop == self._stopped:
            return
        self._stopped = stop
        if stop:
            now = self.now()
            self._liveness.suspend(now)
            self.transport.pauseProducing()
            self._look_again(now)
        else:
            self._go_on()

    @property
    def _has_more(self) -> bool:
        """Whether there is anything that was read and is not processed."""
        return bool(self._held) or self._held_stop is not None or self._reader.is_full

    def _go_on(self) -> None:
        """Process what was held, and read on unless that was a reason to stop again.

        An application that pauses and resumes while it is handed messages gets those behind them in a later turn.
        """
        self._liveness.resume(self.now())
        self._left_at_s = inf
        held, self._held = self._held, b""
        stop, self._held_stop = self._held_stop, None
        if stop is not None:
            self._act_upon(stop)
        if held or ((stop is not None or self._reader.is_full) and not self._is_processing):
            self.dataReceived(held)
        if not self._stopped:
            self.transport.resumeProducing()
            self._note_progress()
            self._arm()

    # Actions of the states

    def _end(self) -> None:
        self._held_stop = None
        super()._end()

    def _release_all(self) -> None:
        self._stopped = self._read_pause.put_off = False  # there is nothing that could be read again
        if self._read_size is not None:
            self._read_size.end()
        super()._release_all()
        self._read_size = self._held_stop = None
        self._liveness.forget_probes()
