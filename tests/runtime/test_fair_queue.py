"""Fair shares of the processor, in turns of a reactor on a clock that only work moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.runtime.fair_queue import (
    CHEAP_ALLOWANCE_S,
    COSTLY_S,
    INTERACTIVE_S,
    LONG_TURN_S,
    SHORT_TURN_S,
    FairQueue,
    Share,
)

SLACK_S = 1e-9
"""Tolerance for rounding."""
CHEAP_CHUNK_S = COSTLY_S * 0.9


@dataclass
class Reactor:
    """Call in the next turn what was asked for; work takes the time that a test says."""

    now_s: float = 100.0
    soon: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = FairQueue(lambda: self.now_s, self.soon.append)

    def turn(self) -> float:
        """Run the timers of one turn, and return how long they took."""
        began_s, calls = self.now_s, self.soon[:]
        self.soon.clear()
        self.queue.begin_turn()
        for call in calls:
            call()
        return self.now_s - began_s

    def work(self, share: Share, spent_s: float, *, is_costly: bool = True) -> bool:
        """Process a chunk that takes this long, and tell whether that was expensive."""
        began_s = self.now_s
        self.now_s += spent_s
        return self.queue.charge(share, began_s, self.now_s, is_costly)

    def may_run(self, share: Share, *, is_costly: bool) -> bool:
        """Tell whether a chunk may be processed as it is read."""
        return self.queue.may_run(share, self.now_s, is_costly=is_costly)

    def be_active(self) -> None:
        """Let a cheap peer be active, so that turns are short for a while."""
        share = self.queue.join("an address")
        self.work(share, COSTLY_S / 10, is_costly=False)
        self.queue.leave(share)


@pytest.fixture
def reactor() -> Reactor:
    """A reactor to which no peer has sent anything."""
    return Reactor()


class Flood:
    """A peer that always has a next piece of work."""

    def __init__(self, reactor: Reactor, share: Share, spent_s: float) -> None:
        self._reactor = reactor
        self._share = share
        self._spent_s = spent_s
        self.turns = 0
        self._wait()

    def _wait(self) -> None:
        self._reactor.queue.enqueue(self._share, self._job)

    def _job(self) -> None:
        self.turns += 1
        self._reactor.work(self._share, self._spent_s)
        self._wait()

    @property
    def used_s(self) -> float:
        """Return how long it made the relay work."""
        return self.turns * self._spent_s


def test_cheap_chunks_need_not_ask(reactor: Reactor) -> None:
    """Cheap chunks use a fraction of what an address may have in a turn, and each turn starts anew."""
    share = reactor.queue.join("a")
    for _ in range(3):
        assert not any(reactor.work(share, CHEAP_CHUNK_S / 2, is_costly=False) for _ in range(10))
        assert share.spent_s < CHEAP_ALLOWANCE_S
        reactor.turn()
        assert share.spent_s == 0
    assert reactor.work(share, 1.1 * COSTLY_S)


def test_an_address_with_many_cheap_chunks_waits(reactor: Reactor) -> None:
    """An address with many cheap chunks waits once others are active, and in any case after a long turn's worth."""
    share, other = reactor.queue.join("a"), reactor.queue.join("b")
    for _ in range(15):
        reactor.work(share, CHEAP_CHUNK_S, is_costly=False)
    assert reactor.may_run(share, is_costly=False)
    reactor.work(other, CHEAP_CHUNK_S, is_costly=False)
    assert not reactor.may_run(share, is_costly=False)
    reactor.turn()
    reactor.work(share, LONG_TURN_S, is_costly=False)
    assert not reactor.may_run(share, is_costly=False)


def test_expensive_peers_together_have_a_bounded_part_of_a_turn(reactor: Reactor) -> None:
    """An expensive peer waits if others have used up the part of the turn for such peers."""
    reactor.be_active()
    first, second = reactor.queue.join("a"), reactor.queue.join("b")
    assert reactor.may_run(first, is_costly=True)
    reactor.work(first, SHORT_TURN_S + SLACK_S)
    assert not reactor.may_run(first, is_costly=True)
    assert not reactor.may_run(second, is_costly=True)
    reactor.turn()
    assert reactor.may_run(second, is_costly=True)


def test_queued_peers_are_not_overtaken(reactor: Reactor) -> None:
    """While any peer is queued, an expensive peer is queued behind it."""
    share = reactor.queue.join("a")
    reactor.queue.enqueue(share, lambda: None)
    assert not reactor.may_run(reactor.queue.join("b"), is_costly=True)
    reactor.turn()
    assert reactor.may_run(share, is_costly=True)


@pytest.mark.parametrize("count", [1, 16, 100])
def test_a_turn_takes_a_bounded_time(reactor: Reactor, count: int) -> None:
    """A turn is short while cheap peers are active, and longer otherwise, plus one piece of work."""
    piece_s = SHORT_TURN_S / 2
    for number in range(count):
        Flood(reactor, reactor.queue.join(number % 7), piece_s)
    reactor.now_s += INTERACTIVE_S
    assert LONG_TURN_S - SLACK_S <= reactor.turn() <= LONG_TURN_S + piece_s + SLACK_S
    for _ in range(50):
        reactor.be_active()
        assert SHORT_TURN_S - SLACK_S <= reactor.turn() <= SHORT_TURN_S + piece_s + SLACK_S


def test_expensive_peers_do_not_shorten_turns(reactor: Reactor) -> None:
    """Only chunks that are not part of expensive work shorten turns, for a while."""
    share = reactor.queue.join("a")
    reactor.work(share, COSTLY_S / 2)
    assert reactor.queue.turn_s(reactor.now_s) == LONG_TURN_S
    reactor.work(share, COSTLY_S / 2, is_costly=False)
    assert reactor.queue.turn_s(reactor.now_s) == SHORT_TURN_S
    assert reactor.queue.turn_s(reactor.now_s + INTERACTIVE_S + SLACK_S) == LONG_TURN_S


def test_an_address_counts_once_however_many_connections_it_has(reactor: Reactor) -> None:
    """Sixteen floods of one address get as much time together as one flood of another."""
    many = reactor.queue.join("many")
    floods = [Flood(reactor, many, SHORT_TURN_S / 3) for _ in range(16)]
    one = Flood(reactor, reactor.queue.join("one"), SHORT_TURN_S / 3)
    for _ in range(200):
        reactor.turn()
    assert one.used_s == pytest.approx(sum(flood.used_s for flood in floods), rel=0.05)
    assert {flood.turns for flood in floods} <= {one.turns // 16 + extra for extra in (-1, 0, 1)}


def test_whose_pieces_take_longer_has_fewer_of_them(reactor: Reactor) -> None:
    """Addresses share time, whatever one piece of work takes."""
    slow = Flood(reactor, reactor.queue.join("slow"), 10 * SHORT_TURN_S)
    quick = Flood(reactor, reactor.queue.join("quick"), SHORT_TURN_S)
    for _ in range(1000):
        reactor.turn()
    assert quick.used_s == pytest.approx(slow.used_s, rel=0.05)


def test_an_honest_address_waits_for_one_piece_of_work(reactor: Reactor) -> None:
    """An address that has used nothing is next, whatever others have queued."""
    floods = [Flood(reactor, reactor.queue.join(number), SHORT_TURN_S) for number in range(100)]
    for _ in range(300):
        reactor.turn()
    before, done = sum(flood.turns for flood in floods), list[int]()
    reactor.queue.enqueue(reactor.queue.join("honest"), lambda: done.append(sum(flood.turns for flood in floods)))
    while not done:
        reactor.turn()
    assert done[0] - before <= len(floods)


def test_having_been_idle_earns_nothing(reactor: Reactor) -> None:
    """An address that was idle for long gets its share, and nothing for the time before."""
    early, late = reactor.queue.join("early"), reactor.queue.join("late")
    first = Flood(reactor, early, SHORT_TURN_S)
    for _ in range(1000):
        reactor.turn()
    before = first.turns
    second = Flood(reactor, late, SHORT_TURN_S)
    for _ in range(20):
        reactor.turn()
    assert abs(first.turns - before - second.turns) <= 1


def test_the_queue_outlives_a_job_that_fails(reactor: Reactor) -> None:
    """A job that fails is logged by the reactor, and all other jobs go on."""
    share, done = reactor.queue.join("a"), list[str]()

    def fail() -> None:
        raise ZeroDivisionError

    reactor.queue.enqueue(share, fail)
    reactor.queue.enqueue(share, lambda: done.append("a"))
    reactor.queue.enqueue(reactor.queue.join("b"), lambda: done.append("b"))
    with pytest.raises(ZeroDivisionError):
        reactor.turn()
    reactor.turn()
    assert sorted(done) == ["a", "b"]
    assert not reactor.soon


def test_shares_go_with_their_last_connection(reactor: Reactor) -> None:
    """The share of an address without connections is forgotten, and a queued job is called once."""
    share, done = reactor.queue.join("a"), list[int]()
    assert reactor.queue.join("a") is share
    assert len(reactor.queue) == 1
    reactor.queue.enqueue(share, lambda: done.append(1))
    reactor.queue.leave(share)
    assert len(reactor.queue) == 1
    reactor.queue.leave(share)
    assert len(reactor.queue) == 0
    assert reactor.queue.join("a") is not share
    reactor.turn()
    reactor.turn()
    assert done == [1]


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(1e-6, 0.01)), max_size=60))
def test_every_job_is_done_once_and_in_order_for_its_address(jobs: list[tuple[int, float]]) -> None:
    """No job is lost or repeated, and jobs of an address stay in order."""
    reactor, done = Reactor(), Counter[int]()
    order: dict[int, list[int]] = {}

    def job(number: int, address: int, spent_s: float) -> None:
        reactor.now_s += spent_s
        done[number] += 1
        order.setdefault(address, []).append(number)

    for number, (address, spent_s) in enumerate(jobs):
        share = reactor.queue.join(address)
        reactor.queue.enqueue(share, lambda n=number, a=address, s=spent_s: job(n, a, s))  # type: ignore[misc]
    for _ in jobs:
        reactor.turn()
    assert not reactor.soon
    assert done == Counter(range(len(jobs)))
    assert all(numbers == sorted(numbers) for numbers in order.values())
