"""The side that peers arrive at while the process before still has some of them.

A binary whose server-id the predecessor has must ask it first, which takes a fraction of a millisecond, or the time of
a probe if the incumbent is connected there. A phone whose binary has not arrived yet is held for `HOLD_S` instead of
being closed with 4404, and the predecessor is asked to move its group at once. What held peers send is not read.

Invariant: without a predecessor, or for a server-id that it never had, nothing waits. Times are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Final

from twisted.internet.defer import Deferred

from pyryrelay.logger import ErrbackLogger
from pyryrelay.protocol import Cancellable, Message, Predecessor
from pyryrelay.pyry.handover.moving import HELD, send_away
from pyryrelay.pyry.registry import CLOSES, Close, CloseCause, State
from pyryrelay.pyry.relay import Admit, Opening, Relay
from pyryrelay.pyry.sessions import BinarySession

__all__ = ["HOLD_S", "Arriving"]

_log = ErrbackLogger(namespace="pyryrelay")
_log_failure: Final = _log.errback("A peer that moved could not be admitted")

HOLD_S: Final = 15.0
"""How long a phone waits for its binary. Daemons connect again within seconds."""


class Arrival:
    """A session that may have to wait before it is admitted; then everything goes to the real one."""

    def __init__(self, relay: Relay, session: Opening, admit: Admit) -> None:
        self._relay = relay
        self.session = session
        self._admit = admit
        self._is_admitted = self._is_closed = False
        self._batch: Sequence[Message] = ()
        self._waiting: Deferred[None] | None = None
        self.timer: Cancellable | None = None

    @property
    def server_id(self) -> str:
        """See `pyryrelay.pyry.relay.Opening`."""
        return self.session.server_id

    def admit(self) -> None:
        """Ask the registry, and deliver what was sent meanwhile. Does nothing if the peer has left."""
        if self._is_closed or self._is_admitted:
            return
        self.end_wait(self._admit)

    def refuse(self) -> None:
        """Close a binary because another one that is alive has the server-id."""
        if not (self._is_closed or self._is_admitted):
            close = Close(self.session.id, *CLOSES[CloseCause.CONFLICT], CloseCause.CONFLICT)
            self.end_wait(lambda: self.session.apply(close))

    def send_away(self) -> None:
        """Close a peer that still waits, because this process hands over, too."""
        if not (self._is_closed or self._is_admitted):
            self.end_wait(lambda: send_away(self.session))

    def end_wait(self, decide: Callable[[], None]) -> None:
        """Decide about the peer, and read from it again."""
        self._is_admitted = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        waiting, self._waiting = self._waiting, None
        batch, self._batch = self._batch, ()
        try:
            decide()
            if waiting is not None:
                self.session.messages(batch)
        except Exception:
            if waiting is None:
                raise
            waiting.errback()
        else:
            if waiting is not None:
                waiting.callback(None)

    def messages(self, batch: Sequence[Message]) -> Deferred[None] | None:
        """See `pyryrelay.protocol.Session`."""
        if self._is_admitted:
            self.session.messages(batch)
            return None
        self._batch, self._waiting = batch, Deferred()
        return self._waiting

    def closed(self, code: int, reason: str) -> None:
        """See `pyryrelay.protocol.Session`."""
        if self._is_admitted:
            self.session.closed(code, reason)
            return
        self._is_closed = True
        self._relay.forget(self.session.id)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Arriving:
    """See the module's docstring. ``ended`` is called when nobody needs this any more."""

    def __init__(self, relay: Relay, predecessor: Predecessor, ended: Callable[[], None]) -> None:
        """Ask the predecessor what it holds."""
        self._relay = relay
        self._predecessor = predecessor
        self._ended = ended
        self._there: set[str] | None = None
        self._unsorted: list[Callable[[], None]] = []
        self._phones: dict[str, dict[Arrival, None]] = {}
        self._last: Cancellable | None = None
        predecessor.ask(b"held").addCallback(self._learned).addErrback(_log_failure)
        predecessor.when_released().addCallback(self._released).addErrback(_log_failure)

    @property
    def expected(self) -> Collection[str]:
        """The server-ids that the predecessor had, and whose binaries have not come yet, as far as that is known."""
        return self._there or ()

    def _learned(self, answer: bytes | None) -> None:
        self._there = set(json.loads(answer)) if answer else set()
        unsorted, self._unsorted = self._unsorted, []
        for sort in unsorted:
            sort()

    def _released(self, _: None) -> None:
        # Phones may be faster than their binaries for so long.
        self._last = self._relay.call_later(HOLD_S, self._end)

    def _end(self) -> None:
        self._last = None
        self._ended()

    def stop(self) -> None:
        """Let nobody wait any longer."""
        if self._last is not None:
            self._last.cancel()
            self._last = None
        phones, self._phones = self._phones, {}
        for waiting in phones.values():
            for phone in list(waiting):
                phone.send_away()

    def opened(self, session: Opening, admit: Admit) -> Arrival:
        """Admit a peer, now or later. See `pyryrelay.pyry.relay.Handover`."""
        arrival = Arrival(self._relay, session, admit)
        sort = self._sort_binary if isinstance(session, BinarySession) else self._sort_phone
        if self._there is None:
            self._unsorted.append(lambda: sort(arrival))
        else:
            sort(arrival)
        return arrival

    def vacated(self) -> None:
        """Need nothing of that. See `pyryrelay.pyry.relay.Handover`."""

    def _sort_binary(self, arrival: Arrival) -> None:
        if self._is_there(arrival.server_id):
            answer = self._predecessor.ask(f"claim {arrival.server_id}".encode())
            answer.addCallback(self._claimed, arrival).addErrback(_log_failure)
        else:
            self._admit_binary(arrival)

    def _claimed(self, answer: bytes | None, arrival: Arrival) -> None:
        if answer == HELD:
            arrival.refuse()
        else:
            self._admit_binary(arrival)

    def _admit_binary(self, arrival: Arrival) -> None:
        arrival.admit()
        if self._relay.registry.state(arrival.server_id) is State.VACANT:
            return
        if self._there is not None:
            self._there.discard(arrival.server_id)
        for phone in self._phones.pop(arrival.server_id, ()):
            phone.admit()

    def _sort_phone(self, arrival: Arrival) -> None:
        server_id = arrival.server_id
        if self._relay.registry.state(server_id) is not State.VACANT or not self._is_there(server_id):
            arrival.admit()
            return
        self._predecessor.ask(f"move {server_id}".encode()).addErrback(_log_failure)
        self._phones.setdefault(server_id, {})[arrival] = None
        arrival.timer = self._relay.call_later(HOLD_S, lambda: self._give_up(arrival))

    def _give_up(self, arrival: Arrival) -> None:
        arrival.timer = None
        waiting = self._phones.get(arrival.server_id, {})
        waiting.pop(arrival, None)
        if not waiting:
            self._phones.pop(arrival.server_id, None)
        arrival.admit()

    def _is_there(self, server_id: str) -> bool:
        return self._there is not None and server_id in self._there
