"""Whose turn it is: expensive chunks of one connection wait until other peers were served.

What one client address makes the relay do in a turn of the reactor is bounded (`pyryrelay.runtime.fair_queue`). A
connection measures what its frames cost. If that is much, it takes only as many in one turn as there is time for, and
waits in the queue for the rest; nothing is read from its peer meanwhile.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from math import inf

from twisted.logger import Logger

from pyryrelay.runtime.fair_queue import (
    CHEAP_ALLOWANCE_S,
    COSTLY_FOR_S,
    NO_ALLOWANCE_S,
    UNLIMITED_ALLOWANCE_S,
    Share,
)
from pyryrelay.runtime.transports import has_hung_up, socket_transport
from pyryrelay.websocket.frames.reader import MANY_FRAMES, FrameReader
from pyryrelay.websocket.reading.hangup import HangupLimit
from pyryrelay.websocket.reading.read_pause import ReadPause
from pyryrelay.websocket.sending import Sending
from pyryrelay.websocket.states import State

__all__ = ["FIRST_FRAMES", "LEAST_FRAMES", "Turns"]

_log = Logger(namespace="pyryrelay")

FIRST_FRAMES, LEAST_FRAMES = 512, 32
"""Frames taken in one turn from a peer whose frames were not measured yet, and from one whose frames are expensive."""

_DRAINING = State.DRAINING


class Turns(Sending):
    """The layer that waits for its turn. `_put_off` makes it wait; the layer above processes what was put off."""

    _reader: FrameReader
    _read_pause: ReadPause
    _held = b""  # what arrived although nothing is read: the chunk that was on its way
    _share: Share | None = None  # of the processor
    _allowance_s = CHEAP_ALLOWANCE_S
    _cheap_at_s = -inf
    _frame_s: float | None = None  # what one frame costs, as far as that is known
    _hangup_limit: HangupLimit | None = None  # once it has taken turns

    def _may_run(self, share: Share) -> bool:
        """Tell whether to process a chunk as it is read, although its address has spent more than is allowed."""
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

    def _note_cost(self, share: Share, frame_s: float, now_s: float, *, was_costly: bool) -> None:
        """Remember what a chunk cost, and put off what is left of it."""
        self._frame_s = frame_s
        if was_costly:
            self._allowance_s, self._cheap_at_s = NO_ALLOWANCE_S, now_s + COSTLY_FOR_S
        if self._reader.is_full and self._state < _DRAINING:
            self._limit_frames(now_s)
            self._put_off(share)

    def _limit_frames(self, now_s: float) -> None:
        """Take as many frames next as one turn has time for."""
        if self._frame_s is not None:
            turn_s = self.context.fair_queue.turn_s(now_s)
            most = MANY_FRAMES if self._frame_s * MANY_FRAMES < turn_s else int(turn_s / self._frame_s)
            self._reader.most_frames = max(LEAST_FRAMES, most)

    def _put_off(self, share: Share) -> None:
        """Let others go first: nothing is read from the peer until it is its turn."""
        self._read_pause.put_off = True
        self._update_reading()
        self.context.fair_queue.enqueue(share, self._take_turn)

    def _take_turn(self) -> None:
        """Process what was put off; a fault ends this connection, as it does where Twisted delivers what was read."""
        try:
            self._process_put_off()
        except Exception:
            _log.failure("A connection failed in its turn")
            self.abort()

    def _process_put_off(self) -> None:
        if self._state >= _DRAINING:
            return
        limit = self._hangup_limit = self._hangup_limit or HangupLimit()
        if not limit.may_work(limit.has_hung_up or has_hung_up(socket_transport(self.transport))):
            self.abort()
            return
        queue, size = self.context.fair_queue, len(self._held) + self._reader.kept_bytes
        began_s = queue.cpu_clock()
        self._limit_frames(queue.clock())
        allowance_s, self._allowance_s = self._allowance_s, UNLIMITED_ALLOWANCE_S
        self._read_pause.put_off = False
        self._update_reading()
        if self._allowance_s == UNLIMITED_ALLOWANCE_S:
            self._allowance_s = allowance_s
        size -= len(self._held) + self._reader.kept_bytes
        if limit.record(queue.cpu_clock() - began_s, size, self.now()):
            self.send_unsolicited_pong()

    # Actions of the states

    def _end(self) -> None:
        self._held = b""
        self._read_pause.put_off = False  # what is only discarded needs no turn
        super()._end()

    def _release_all(self) -> None:
        share, self._share = self._share, None
        if share is not None:
            self.context.fair_queue.leave(share)
        super()._release_all()
        self._held = b""
