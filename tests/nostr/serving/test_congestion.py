"""Which publishers are not read from."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from pyryrelay.nostr.serving.congestion import Congestion


@dataclass(eq=False)
class Publisher:
    """A publisher that notes when it goes on."""

    key: Hashable = "client"
    pending: int = 0
    went_on: int = 0

    def go_on(self) -> None:
        """Count the call."""
        self.went_on += 1


def congestion(max_pending: int | None = 4, max_queue: int | None = 100) -> Congestion:
    """Return one with limits."""
    made = Congestion()
    made.max_pending, made.max_queue = max_pending, max_queue
    return made


def test_a_publisher_goes_on_with_as_many_as_its_limit() -> None:
    """Exactly the limit may wait."""
    limits, publisher = congestion(), Publisher()
    limits.add(publisher, 4)
    assert limits.may_go_on(publisher)
    limits.add(publisher, 1)
    assert not limits.may_go_on(publisher)


def test_a_stopped_publisher_goes_on_once() -> None:
    """It is called when its events are answered, and not again."""
    limits, publisher = congestion(), Publisher()
    limits.add(publisher, 5)
    limits.stop(publisher)
    limits.wake()
    assert publisher.went_on == 0
    assert limits.stopped == 1
    limits.remove(publisher, 1)
    assert publisher.went_on == 1
    limits.wake()
    assert publisher.went_on == 1
    assert limits.stopped == 0


def test_a_client_holds_at_most_a_quarter_of_the_queue() -> None:
    """All connections of a client count together; others are not stopped."""
    limits = congestion(max_pending=None)
    first, second, stranger = Publisher(), Publisher(), Publisher("other")
    limits.add(first, 13)
    limits.add(second, 13)
    limits.add(stranger, 25)
    assert [limits.may_go_on(one) for one in (first, second, stranger)] == [False, False, True]
    limits.remove(first, 1)
    assert limits.may_go_on(second)


def test_a_stopped_connection_waits_for_the_others_of_its_client() -> None:
    """That its own events are answered is not enough: with many connections a client could fill the queue."""
    limits = congestion(max_pending=None)
    first, second = Publisher(), Publisher()
    limits.add(first, 20)
    limits.add(second, 20)
    limits.stop(first)
    limits.stop(second)
    limits.add(other := Publisher(), 10)
    limits.remove(first, 20)
    assert first.went_on == 0
    limits.remove(other, 10)
    limits.wake()
    assert (first.went_on, second.went_on) == (1, 1)


def test_those_with_the_most_waiting_are_stopped_first() -> None:
    """The fuller the queue, the fewer may wait of one connection."""
    limits = congestion(max_pending=None, max_queue=100)
    big, small = Publisher("big"), Publisher("small")
    limits.add(big, 20)
    limits.add(small, 2)
    for number in range(4):
        limits.add(Publisher(number), 17)
    assert limits.total == 90
    assert [limits.may_go_on(one) for one in (big, small)] == [False, True]


def test_whoever_has_nothing_waiting_goes_on() -> None:
    """A full queue stops publishers, not those who only read."""
    limits = congestion(max_queue=16)
    limits.add(Publisher("a"), 100)
    assert limits.may_go_on(Publisher("b"))


def test_without_limits_nobody_is_stopped() -> None:
    """Limits that are off do nothing."""
    limits, publisher = Congestion(), Publisher()
    limits.add(publisher, 10**6)
    assert limits.may_go_on(publisher)


def test_a_publisher_that_left_is_not_called() -> None:
    """It is forgotten; its events are still counted until they are answered."""
    limits, publisher = congestion(), Publisher()
    limits.add(publisher, 5)
    limits.stop(publisher)
    limits.forget(publisher)
    limits.remove(publisher, 5)
    limits.wake()
    assert publisher.went_on == 0
    assert limits.total == 0


def test_going_on_may_stop_others_again() -> None:
    """A publisher that fills the queue when it goes on keeps the next one waiting."""
    limits = congestion(max_pending=None, max_queue=16)

    class Greedy(Publisher):
        def go_on(self) -> None:
            super().go_on()
            limits.add(self, 16)

    greedy, other = Greedy("greedy"), Publisher("other")
    limits.add(greedy, 1)
    limits.add(other, 2)
    limits.add(filler := Publisher("filler"), 14)
    limits.stop(greedy)
    limits.stop(other)
    limits.remove(filler, 12)
    limits.wake()
    assert (greedy.went_on, other.went_on) == (1, 0)


def test_publishers_stop_while_delivery_is_behind() -> None:
    """Also with nothing waiting any more, once they were stopped; whoever only reads is not."""
    limits, publisher, reader = congestion(), Publisher(), Publisher("reader")
    limits.is_behind = True
    limits.add(publisher, 1)
    assert not limits.may_go_on(publisher)
    assert limits.may_go_on(reader)
    limits.stop(publisher)
    limits.remove(publisher, 1)
    limits.wake()
    assert publisher.went_on == 0
    limits.is_behind = False
    limits.wake()
    assert publisher.went_on == 1
