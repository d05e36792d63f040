"""The client of the exchange: what this worker tells the others that is not stored, and hears from them.

An exchange that hangs is left, and connected to again: what it does not read would fill the memory of this worker.

All callbacks are called in a later turn of the reactor than the call that they answer. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec
from twisted.internet.defer import Deferred

from pyryrelay.nostr.workers.shared.exchange import ALL_OTHERS, HUB, NUMBER_BYTES, QUESTION
from pyryrelay.nostr.workers.wire import encode
from pyryrelay.nostr.workers.worker_process import ChildServices, WorkerProcess

__all__ = ["ANSWER_S", "LOOK_S", "MISSED", "Others", "OthersEvents"]

ANSWER_S: Final = 1.0
"""How long to wait for the others' answers to an ephemeral event."""
LOOK_S: Final = 1.0
"""How often the exchange is asked whether it goes on."""
MISSED: Final = 5
"""An exchange that has not answered when it was to be asked again so often hangs. It is a number and no time, so that a
worker that was stopped itself first reads what has come meanwhile."""


class Ephemeral(msgspec.Struct, array_like=True, tag="ephemeral", frozen=True, gc=False):
    """Deliver an ephemeral event, and say whether a subscription has matched if ``number`` is not 0."""

    number: int
    event: bytes


class Heard(msgspec.Struct, array_like=True, tag="heard", frozen=True, gc=False):
    """The answer to an `Ephemeral`."""

    number: int
    is_heard: bool


class Charges(msgspec.Struct, array_like=True, tag="charges", frozen=True, gc=False):
    """Tokens of a quota that were spent, of all keys ``keys``, each of the same length."""

    quota: str
    keys: list[bytes]
    tokens: list[int]


class Behind(msgspec.Struct, array_like=True, tag="behind", frozen=True, gc=False):
    """Whether live delivery is behind in a worker, so that nobody should publish."""

    is_behind: bool


Message: TypeAlias = Ephemeral | Heard | Charges | Behind
_decode: Final = msgspec.msgpack.Decoder(Message).decode


class OthersEvents(Protocol):
    """What the user of the exchange is told."""

    def ephemeral_elsewhere(self, event: bytes) -> bool:
        """Deliver an ephemeral event that another worker has accepted; whether a subscription matches."""

    def charged_elsewhere(self, quota: str, keys: Sequence[bytes], tokens: Sequence[int]) -> None:
        """Tokens were spent in another worker."""

    def behind_elsewhere(self, is_behind: bool) -> None:
        """Live delivery is behind in another worker, or in none any more."""


class _Ask:
    """An ephemeral event, and who still has to answer."""

    __slots__ = ("asked_s", "done", "left")

    def __init__(self, left: int, asked_s: float, done: Callable[[bool], None]) -> None:
        self.left = left
        self.asked_s = asked_s
        self.done = done


class Others:
    """The other workers. Nothing is done before `start`."""

    def __init__(self, services: ChildServices, events: OthersEvents) -> None:
        self._process = WorkerProcess(services, "hub", None, self)
        self._now = services.now
        self._events = events
        self._asks: dict[int, _Ask] = {}
        self._number = 0
        self._behind: set[int] = set()
        self._is_behind = False
        self._closed: Deferred[None] | None = None
        self._looked_s = services.now()
        self._missed: int | None = None
        """How often the exchange should have been asked again, and had not answered; None if no answer is awaited."""
        self.count = 0
        """How many others are connected."""

    def start(self) -> None:
        """Connect."""
        self._process.start()

    def close(self) -> Deferred[None]:
        """Disconnect; the Deferred fires when that is done."""
        if self._closed is None:
            self._closed = Deferred()
            self._process.close()
        return self._closed

    def tick(self, now: float) -> None:
        """Answer what nobody has answered in time; call it a few times a second."""
        late = [number for number, ask in self._asks.items() if now - ask.asked_s >= ANSWER_S]
        for number in late:
            self._asks.pop(number).done(True)
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            self._look()

    def _look(self) -> None:
        """Ask the exchange whether it goes on, and leave one that does not."""
        if not self._process.is_running:
            return
        if self._missed is None:
            self._missed = 0
            self._process.send(QUESTION)
            return
        self._missed += 1
        if self._missed >= MISSED:
            self._process.replace("it does not answer")

    # To the others

    def deliver(self, event: bytes) -> None:
        """Have an ephemeral event delivered by the others."""
        if self.count:
            self._tell(Ephemeral(0, event))

    def ask(self, event: bytes, done: Callable[[bool], None]) -> bool:
        """Have an ephemeral event delivered by the others; ``done`` is told whether any subscription matches there.

        It is told so too if that is not known in time. Returns False, and calls nothing, if there are no others.
        """
        if not self.count:
            return False
        self._number += 1
        self._asks[self._number] = _Ask(self.count, self._now(), done)
        self._tell(Ephemeral(self._number, event))
        return True

    def charge(self, quota: str, keys: Sequence[bytes], tokens: Sequence[int]) -> None:
        """Tell the others what was spent here."""
        if self.count:
            self._tell(Charges(quota, list(keys), list(tokens)))

    def set_behind(self, is_behind: bool) -> None:
        """Tell the others whether live delivery is behind here."""
        if is_behind != self._is_behind:
            self._is_behind = is_behind
            self._tell(Behind(is_behind))

    def _tell(self, message: Message, to: int = ALL_OTHERS) -> None:
        self._process.send(to.to_bytes(NUMBER_BYTES, "big") + encode(message))

    # From the others; see `pyryrelay.nostr.workers.worker_process.Client`

    def started(self) -> None:
        """Wait until the hub says how many others there are."""
        self._missed = None

    def received(self, body: bytes) -> None:
        """Process what the hub or another worker says."""
        sender = int.from_bytes(body[:NUMBER_BYTES], "big")
        if body == QUESTION:
            self._missed = None
            return
        if sender == HUB:
            self._counted(int.from_bytes(body[NUMBER_BYTES:], "big"))
            return
        match _decode(memoryview(body)[NUMBER_BYTES:]):
            case Ephemeral(number, event):
                is_heard = self._events.ephemeral_elsewhere(event)
                if number:
                    self._tell(Heard(number, is_heard), sender)
            case Heard(number, is_heard):
                self._heard(number, is_heard)
            case Charges(quota, keys, tokens):
                self._events.charged_elsewhere(quota, keys, tokens)
            case Behind(is_behind):
                (self._behind.add if is_behind else self._behind.discard)(sender)
                self._events.behind_elsewhere(bool(self._behind))

    def lost(self, delay_s: float) -> None:
        """Go on alone until there is a connection again."""
        self._counted(0)

    def ended(self) -> None:
        """The connection has ended as it was told to."""
        self._counted(0)
        if self._closed is not None and not self._closed.called:
            self._closed.callback(None)

    def _counted(self, count: int) -> None:
        """Take note of how many others there are. Those that have left do not answer any more."""
        is_less, self.count = count < self.count, count
        if is_less:
            asks, self._asks = self._asks, {}
            for ask in asks.values():
                ask.done(True)
        if self._behind:
            self._behind.clear()
            self._events.behind_elsewhere(False)
        if self._is_behind and count:
            self._tell(Behind(True))

    def _heard(self, number: int, is_heard: bool) -> None:
        ask = self._asks.get(number)
        if ask is not None:
            ask.left -= 1
            if is_heard or not ask.left:
                del self._asks[number]
                ask.done(is_heard)
