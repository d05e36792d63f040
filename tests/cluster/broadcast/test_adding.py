"""Entries on their way to a server."""

from __future__ import annotations

from typing import Any

from tests.support.scripted_redis import ScriptedRedis
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pyryrelay.broadcast import MAX_BODY_BYTES, BroadcastError
from pyryrelay.cluster.broadcast.adding import CALL_ENTRIES, INTERVAL_S, LIVES_S, MAX_WAITING_BYTES, Adder
from pyryrelay.cluster.broadcast.scripts import ADD
from pyryrelay.cluster.broadcast.seals import Seals
from pyryrelay.cluster.broadcast.stream import stream_of
from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.redis.interface import AnswerError

KEYS = Keys("relay", b"0123456789abcdefghij")


class Case:
    """One stream, to which a test adds."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(100.0)
        self.redis = ScriptedRedis()
        self.stream = stream_of(KEYS, "test", 0, Seals(KEYS.sealing_key))
        self.refused: list[str] = []
        self.adder = Adder(
            self.redis, self.stream, 1_000_000, self.clock.seconds, self.clock.callLater, self.refused.append
        )
        self.outcomes: list[object] = []

    def add(self, *bodies: bytes) -> None:
        """Add entries."""
        for body in bodies:
            done: Deferred[Any] = self.adder.add(body)
            done.addBoth(lambda outcome: self.outcomes.append(getattr(outcome, "value", outcome)))

    def sent(self) -> list[bytes]:
        """Return the bodies of the call that waits for its answer."""
        ((script, words),) = self.redis.asked
        assert script is ADD
        assert words[:2] == (1_000_000, LIVES_S * 1000)
        opened = [Seals(KEYS.sealing_key).opened(word, self.stream.names[0]) for word in words[2:]]  # type: ignore[arg-type]
        assert all(each is not None and each.sent_at > 1_790_000_000 for each in opened)
        return [each.body for each in opened if each is not None]


def test_entries_of_one_turn_leave_together_and_others_later() -> None:
    """One call is in flight, and calls keep their distance; the first one leaves at once."""
    case = Case()
    case.add(b"1", b"2")
    assert case.redis.asked == []
    case.clock.advance(0.0)
    case.add(b"3")
    case.clock.advance(1.0)
    assert case.sent() == [b"1", b"2"]
    case.redis.answer(b"1-1")
    assert case.outcomes == [None, None]
    case.clock.advance(0.0)
    assert case.sent() == [b"3"]
    case.redis.answer(b"1-2")
    case.add(b"4")
    case.clock.advance(INTERVAL_S - 0.001)
    case.add(b"5")
    assert case.redis.asked == []
    case.clock.advance(0.001)
    assert case.sent() == [b"4", b"5"]
    assert case.stream.figures.added == 3


def test_full_calls_follow_each_other() -> None:
    """A call has a bounded number of entries and of bytes; one large entry goes alone."""
    case = Case()
    case.add(*[b"x"] * (CALL_ENTRIES + 1), b"y" * MAX_BODY_BYTES, b"z")
    case.clock.advance(0.0)
    sizes = []
    for _ in range(3):
        sizes.append(len(case.sent()))
        case.redis.answer(b"1-1")
        case.clock.advance(0.0)
    assert sizes == [CALL_ENTRIES, 1, 1]
    case.clock.advance(INTERVAL_S)
    assert case.sent() == [b"z"]


def test_what_cannot_be_added_fails_at_once() -> None:
    """The server is down, its clock is not known, the body is too large, or too much waits already."""
    case = Case()
    case.redis.is_up = False
    case.add(b"down")
    case.redis.is_up = True
    case.redis.ahead_s = None
    case.add(b"no time")
    case.redis.ahead_s = 1.0
    case.add(b"x" * (MAX_BODY_BYTES + 1))
    assert [type(each) for each in case.outcomes] == [BroadcastError] * 3
    case.add(*[b"x" * MAX_BODY_BYTES] * (MAX_WAITING_BYTES // MAX_BODY_BYTES + 1))
    assert str(case.outcomes[-1]) == "too many entries wait for the server"
    assert len(case.outcomes) == case.stream.figures.failed == 4


def test_what_is_lost_on_its_way_fails() -> None:
    """With the reason; the next is tried. What the server refuses is told to the operator, too."""
    case = Case()
    case.add(b"1")
    case.clock.advance(0.0)
    case.add(b"2")
    case.redis.answer(AnswerError("OOM no memory"))
    case.clock.advance(INTERVAL_S)
    assert case.sent() == [b"2"]
    case.add(b"3")
    case.redis.end()
    case.clock.advance(INTERVAL_S)
    assert [str(each) for each in case.outcomes] == ["OOM no memory", "test", "test"]
    assert case.refused == ["OOM no memory"]
    case.redis.is_up = True
    case.add(b"4")
    case.clock.advance(INTERVAL_S)
    assert case.sent() == [b"4"]


def test_after_the_end_everything_fails() -> None:
    """What waits, and what comes. What is in flight may still arrive."""
    case = Case()
    case.add(b"1")
    case.clock.advance(0.0)
    case.add(b"2")
    case.adder.stop()
    case.add(b"3")
    assert [type(each) for each in case.outcomes] == [BroadcastError] * 2
    case.redis.answer(b"1-1")
    case.clock.advance(1.0)
    assert case.outcomes[2:] == [None]
    assert case.redis.asked == []
    assert case.clock.getDelayedCalls() == []


def test_an_end_before_anything_has_left() -> None:
    """Nothing is sent any more."""
    case = Case()
    case.add(b"1")
    case.adder.stop()
    case.clock.advance(1.0)
    assert case.redis.asked == []
    assert [type(each) for each in case.outcomes] == [BroadcastError]
