"""The verifiers' client: signatures are verified in other processes, in batches of what waits.

A single event is sent at once to a verifier that is idle. Under load, batches grow by themselves, because each verifier
has at most two of them: one that it works on and one that waits for it. One that does not answer is replaced. All
callbacks are called in a later turn of the reactor than the call that they answer. Times are in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final, NamedTuple

import msgspec
from twisted.internet.defer import Deferred, DeferredList

from pyryrelay.nostr.workers.wire import FromVerifier, Verdicts, VerifierConfig, Verify, encode
from pyryrelay.nostr.workers.worker_process import ChildServices, Watch, WorkerProcess

__all__ = ["HANGS_S", "Signed", "Verifiers"]

MAX_BATCH: Final = 128
"""Events that end a batch: about 4 ms of work, so that another event does not wait longer than that for its turn."""
MAX_UNDER_WAY: Final = 2
HANGS_S: Final = 30.0
"""A verifier that has not answered for so long is replaced, though a batch may wait long for a busy processor."""

Signed = tuple[str, str, str]
"""The id, the public key and the signature of an event, in lower-case hex digits."""

Done = Callable[[Sequence[int] | None], None]

_decode = msgspec.msgpack.Decoder(FromVerifier).decode


class _Waiting(NamedTuple):
    digits: str
    events: int
    done: Done


class _Verifier:
    """One verifier's process, and the batches that it has."""

    def __init__(self, services: ChildServices, config: VerifierConfig, verifiers: Verifiers) -> None:
        self.process = WorkerProcess(services, "verifier", config, self)
        self.batches: deque[list[_Waiting]] = deque()
        self.gone: Deferred[None] = Deferred()
        self.since_s = services.now()
        """Since when it works on its oldest batch."""
        self._now = services.now
        self._verifiers = verifiers

    def give(self, batch: list[_Waiting]) -> None:
        """Have a batch verified."""
        if not self.batches:
            self.since_s = self._now()
        self.batches.append(batch)
        self.process.send(encode(Verify(0, "".join([waiting.digits for waiting in batch]))))

    def started(self) -> None:
        """Send what waits."""
        self._verifiers._send_waiting()

    def received(self, body: bytes) -> None:
        message = _decode(body)
        if isinstance(message, Verdicts):
            batch = self.batches.popleft()
            self.since_s = self._now()
            self._verifiers._answered(batch, message)

    def watch(self, now: float) -> None:
        """Replace the process if it hangs."""
        if self.batches and now - self.since_s >= HANGS_S:
            self.process.replace("it did not answer")

    def lost(self, delay_s: float) -> None:
        lost, self.batches = self.batches, deque()
        for waiting in chain.from_iterable(lost):
            waiting.done(None)
        self._verifiers._lost(delay_s)

    def ended(self) -> None:
        self.lost(1)
        self.gone.callback(None)


class Verifiers:
    """The processes that verify signatures. Nothing is done before `start`, and what is asked before it fails.

    ``verified`` is told of each batch: its size, and how long it took.
    """

    def __init__(
        self,
        services: ChildServices,
        config: VerifierConfig,
        number: int,
        verified: Callable[[int, float], None] = lambda events, took_s: None,
    ) -> None:
        self._services = services
        self._verified = verified
        self._verifiers = [_Verifier(services, config, self) for _ in range(number)]
        self._waiting: deque[_Waiting] = deque()
        self._watch = Watch(services, self._look)

    def start(self) -> None:
        """Start the verifiers' processes; the store must exist."""
        for verifier in self._verifiers:
            verifier.process.start()
        self._watch.start()

    def verify(self, items: Sequence[Signed], done: Done) -> None:
        """Verify events whose ids are right, and call ``done`` once with a `Verdict` for each, in order.

        The verdicts are whole numbers; None means that they could not be verified. Answers to different calls may come
        in another order than the calls.
        """
        if not self.is_available:
            self._services.call_later(0, lambda: done(None))
            return
        self._waiting.append(_Waiting("".join(chain.from_iterable(items)), len(items), done))
        self._send_waiting()

    def close(self) -> Deferred[None]:
        """End all processes; what they have not verified fails. The Deferred fires when they have ended."""
        self._watch.stop()
        for verifier in self._verifiers:
            verifier.process.close()
        return DeferredList([verifier.gone for verifier in self._verifiers]).addCallback(lambda results: None)

    @property
    def is_available(self) -> bool:
        """Whether events can be verified now, or in the next turn of the reactor."""
        return any(verifier.process.is_available for verifier in self._verifiers)

    def _send_waiting(self) -> None:
        while self._waiting:
            running = [verifier for verifier in self._verifiers if verifier.process.is_running]
            verifier = min(running, key=lambda verifier: len(verifier.batches), default=None)
            if verifier is None or len(verifier.batches) >= MAX_UNDER_WAY:
                return
            batch, count = [], 0
            while self._waiting and count < MAX_BATCH:
                batch.append(self._waiting.popleft())
                count += batch[-1].events
            verifier.give(batch)

    def _look(self, now: float) -> None:
        for verifier in self._verifiers:
            verifier.watch(now)

    def _answered(self, batch: Sequence[_Waiting], message: Verdicts) -> None:
        self._send_waiting()
        self._verified(len(message.verdicts), message.took_s)
        start = 0
        for waiting in batch:
            end = start + waiting.events
            waiting.done(message.verdicts[start:end])
            start = end

    def _lost(self, delay_s: float) -> None:
        """Fail what waits if no verifier is left, and none is started at once."""
        if delay_s and not self.is_available:
            waiting, self._waiting = self._waiting, deque()
            for lost in waiting:
                lost.done(None)
