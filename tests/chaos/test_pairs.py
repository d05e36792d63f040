"""What pairs count as a fault of the relay."""

from __future__ import annotations

import pytest
from tests.chaos.pairs import Closed, Pair, Talk
from tests.chaos.timeline import Fault


def test_frames_must_come_in_order_and_once() -> None:
    """Each way is counted by itself; one that is lost is told once."""
    talk = Talk()
    assert [talk.next() for _ in range(4)] == [1, 2, 3, 4]
    assert [talk.received(number, by_binary=True) for number in (1, 2, 4)] == ["", "", "frame 4 came where 3 was due"]
    assert talk.received(1, by_binary=False) == ""
    assert talk.received(1, by_binary=False) == "frame 1 came where 2 was due"


@pytest.mark.parametrize(
    ("fault", "is_excused"),
    [
        (Fault("kill", "a", 9.0, 11.0), True),
        (Fault("end", "b", 9.0, 9.5), True),
        (Fault("kill", "c", 9.0, 11.0), False),
        (Fault("kill", "a", 10.5, 11.0), False),
        (Fault("redis-kill", "redis", 9.0, 11.0), False),
        (Fault("stop", "a", 2.0, 11.0), False),
        (Fault("cut-clients", "a", 2.0, 11.0), False),
    ],
)
def test_only_the_end_of_an_instance_may_close_a_pair(fault: Fault, is_excused: bool) -> None:
    """One of its two, just before."""
    closed = Closed("x", ("a", "b"), "phone", 1006, 10.0)
    assert closed.is_excused([fault]) is is_excused
    pair = Pair("x", ("a", "b"), lambda name: None, answered_at=21.0, closed=[closed])
    assert len(pair.problems([fault], 20.0)) == (0 if is_excused else 1)


def test_a_pair_that_does_not_talk_in_the_end_is_a_problem() -> None:
    """Even if both sockets are open."""
    pair = Pair("x", ("a", "b"), lambda name: None, answered_at=19.0, wrong=["frame"])
    assert pair.problems([], 20.0) == ["x (a and b) does not talk after the faults", "frame"]
