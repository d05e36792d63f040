"""Signatures are verified in batches, and every call is answered once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.support.children import FakeChild, FakeChildren

from pyryrelay.nostr.workers.verifiers import HANGS_S, MAX_BATCH, Signed, Verifiers
from pyryrelay.nostr.workers.wire import Ready, ToVerifier, Verdicts, VerifierConfig, Verify
from pyryrelay.nostr.workers.worker_process import WATCH_S

CONFIG = VerifierConfig(database="sqlite:x")


class Relay:
    """Verifiers with fake children, and the answers."""

    def __init__(self, number: int = 1) -> None:
        self.children = FakeChildren()
        self.batches: list[tuple[int, float]] = []
        self.told: list[tuple[object, list[int] | None]] = []
        self.verifiers = Verifiers(
            self.children.services, CONFIG, number, lambda events, took_s: self.batches.append((events, took_s))
        )
        self.verifiers.start()
        for child in self.children.started:
            child.answer(Ready())
            child.take(ToVerifier)

    def verify(self, name: int, events: int = 1) -> None:
        """Ask for so many events, whose ids have the name in them."""
        self.verifiers.verify(signed(name, events), self._done(name))

    def _done(self, name: int) -> Callable[[Sequence[int] | None], None]:
        return lambda verdicts: self.told.append((name, None if verdicts is None else list(verdicts)))


def signed(name: int, events: int) -> list[Signed]:
    """Return what would be verified."""
    return [(f"{name:064x}", "b" * 64, "c" * 128)] * events


def batches(child: FakeChild) -> list[list[int]]:
    """Return the names in the batches that a child was sent since the last call."""
    messages = [message for message in child.take(ToVerifier) if isinstance(message, Verify)]
    return [[int(m.digits[i : i + 64], 16) for i in range(0, len(m.digits), 256)] for m in messages]


def test_a_single_event_goes_at_once() -> None:
    """An idle verifier gets a batch of one."""
    relay = Relay()
    relay.verify(7)
    (message,) = relay.children.last.take(ToVerifier)
    assert message.digits == "".join(signed(7, 1)[0])
    relay.children.last.answer(Verdicts(0, bytes([2]), 0.5))
    assert relay.told == [(7, [2])]
    assert relay.batches == [(1, 0.5)]


def test_batches_grow_under_load() -> None:
    """Two batches are under way, and the rest waits for the next; each caller gets its own verdicts."""
    relay = Relay()
    for name in range(1, 6):
        relay.verify(name, 2)
    child = relay.children.last
    assert batches(child) == [[1, 1], [2, 2]]
    child.answer(Verdicts(0, bytes([0, 1]), 0.1))
    assert batches(child) == [[3, 3, 4, 4, 5, 5]]
    child.answer(Verdicts(0, bytes([0, 0]), 0.1))
    child.answer(Verdicts(0, bytes([0, 0, 0, 3, 3, 0]), 0.1))
    assert relay.told == [(1, [0, 1]), (2, [0, 0]), (3, [0, 0]), (4, [0, 3]), (5, [3, 0])]


def test_batches_are_bounded() -> None:
    """A batch ends with the call that fills it."""
    relay = Relay()
    for name in (1, 2, 3, 4, 5):
        relay.verify(name, MAX_BATCH - 1)
    child = relay.children.last
    assert [len(batch) for batch in batches(child)] == [MAX_BATCH - 1] * 2
    child.answer(Verdicts(0, bytes(MAX_BATCH - 1), 0.1))
    assert [sorted(set(batch)) for batch in batches(child)] == [[3, 4]]


def test_the_least_busy_verifier_is_next() -> None:
    """Batches are spread over all of them."""
    relay = Relay(2)
    first, second = relay.children.started
    for name in (1, 2, 3):
        relay.verify(name)
    assert (batches(first), batches(second)) == ([[1], [3]], [[2]])


def test_a_dead_verifier_fails_what_it_had() -> None:
    """The rest waits for the next one, which is started at once."""
    relay = Relay()
    for name in (1, 2, 3):
        relay.verify(name)
    relay.children.last.end("signal 9")
    assert relay.told == [(1, None), (2, None)]
    relay.children.clock.advance(0)
    assert batches(relay.children.last) == [[3]]


def test_without_a_verifier_all_fails() -> None:
    """If the next one is started only later, nothing waits for it."""
    relay = Relay()
    relay.children.last.end("exit code 1")
    relay.children.clock.advance(0)
    for name in (1, 2, 3):
        relay.verify(name)
    relay.children.last.end("exit code 1")
    relay.verify(4)
    assert relay.told == [(1, None), (2, None), (3, None)]
    relay.children.clock.advance(0)
    assert relay.told[3:] == [(4, None)]


def test_another_verifier_takes_over() -> None:
    """What waits does not fail while one is left."""
    relay = Relay(2)
    relay.children.started[0].end("exit code 1")
    relay.children.clock.advance(0)
    _, steady, failing = relay.children.started
    for name in range(1, 6):
        relay.verify(name)
    failing.end("exit code 1")
    assert [verdicts for _, verdicts in relay.told] == [None, None]
    assert len(batches(steady)) == 2
    steady.answer(Verdicts(0, bytes(1), 0.1))
    assert batches(steady) == [[5]]


def test_closing_ends_all() -> None:
    """What has not been verified fails, and the Deferred fires when the last process has ended."""
    relay = Relay(2)
    for name in range(5):
        relay.verify(name)
    closed: list[object] = []
    relay.verifiers.close().addCallback(closed.append)
    for child in relay.children.started:
        assert child.is_closed
        assert closed == []
        child.end("exit code 0")
    assert closed == [None]
    assert sorted(relay.told, key=str) == [(name, None) for name in range(5)]


def test_a_verifier_that_hangs_is_replaced() -> None:
    """What it had fails, and the next one goes on with what waits."""
    relay = Relay()
    hanging = relay.children.last
    for name in (1, 2, 3):
        relay.verify(name)
    relay.children.clock.pump([WATCH_S] * int(HANGS_S / WATCH_S - 1))
    hanging.answer(Verdicts(0, bytes([0]), 0.1))
    assert relay.told == [(1, [0])]
    relay.children.clock.pump([WATCH_S] * int(HANGS_S / WATCH_S - 1))
    assert relay.children.restarts == []
    relay.children.clock.pump([WATCH_S] * 2)
    assert hanging.is_killed
    assert relay.children.restarts == [("verifier", "it did not answer", 0.0)]
    assert relay.told[1:] == [(2, None), (3, None)]
    relay.verify(4)
    relay.children.last.answer(Ready())
    relay.children.last.answer(Verdicts(0, bytes([0]), 0.1))
    assert relay.told[3:] == [(4, [0])]


def test_a_verifier_is_not_blamed_for_a_process_that_was_stopped() -> None:
    """What has arrived meanwhile is read first; an idle verifier owes nothing."""
    relay = Relay()
    relay.children.clock.pump([WATCH_S] * int(2 * HANGS_S / WATCH_S))
    relay.verify(1)
    relay.children.clock.advance(HANGS_S + 5)
    relay.children.last.answer(Verdicts(0, bytes([0]), 0.1))
    relay.children.clock.pump([WATCH_S] * 3)
    assert relay.told == [(1, [0])]
    assert relay.children.restarts == []
