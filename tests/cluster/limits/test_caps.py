"""Reporting who holds many connections of an address."""

from __future__ import annotations

from typing import Any

from tests.support.fake_redis import FakeServer
from twisted.internet.defer import Deferred

from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.limits.caps import REPEAT_S, CapExchange
from pyryrelay.cluster.redis.interface import RedisError
from pyryrelay.cluster.shards import Shards
from pyryrelay.guard import LeaseLimits
from pyryrelay.guard.sharing.leases import SharedLeases

KEYS = Keys("relay", b"0123456789abcdefghij")


class Case:
    """A member whose server a test plays."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.wire = self.server.begin()
        self.leases = SharedLeases(LeaseLimits(max_connections_per_address=8))
        self.caps = CapExchange(Shards([self.server.client]), KEYS, self.leases, b"me")
        self.failed: list[str] = []

    def sync(self, now: float) -> Deferred[Any]:
        """Exchange."""
        done: Deferred[Any] = self.caps.sync(now)
        return done.addErrback(lambda failure: self.failed.append(failure.trap(RedisError).__name__))


def test_only_what_has_changed_is_reported() -> None:
    """And everything again every few seconds, as it would end otherwise."""
    case = Case()
    case.sync(100.0)
    held = [case.leases.take_connection(500, "/") for _ in range(5)]
    case.sync(101.0)
    (words,) = case.wire.asked
    assert words[-3:] == [b"me", b"15000", b"5"]
    case.wire.answer(b"*1\r\n:3\r\n")
    assert case.leases.elsewhere(500) == 3
    assert len(held) == 5
    case.sync(102.0)
    assert len(case.wire.asked) == 1
    case.sync(100.0 + REPEAT_S)
    assert len(case.wire.asked) == 2
    case.wire.answer(b"*1\r\n:0\r\n")
    assert case.leases.elsewhere(500) == 0
    assert case.caps.reported == 2


def test_what_cannot_be_asked_does_not_count() -> None:
    """Then the cap holds for each member alone, and what others hold is asked for again."""
    case = Case()
    for _ in range(5):
        case.leases.take_connection(500, "/")
    case.sync(101.0)
    case.wire.answer(b"*1\r\n:3\r\n")
    case.sync(110.0)
    case.wire.answer(b"-ERR no\r\n")
    assert case.failed == ["RedisError"]
    assert case.leases.elsewhere(500) == 0
    case.sync(120.0)
    case.wire.answer(b"*1\r\n:4\r\n")
    assert case.leases.elsewhere(500) == 4


def test_many_addresses_are_reported_in_portions() -> None:
    """Each call has a bounded number of keys."""
    case = Case()
    for key in range(1000, 1450):
        for _ in range(4):
            case.leases.take_connection(key, "/")
    case.sync(101.0)
    for count in (200, 200, 50):
        assert int(case.wire.asked[-1][2]) == count
        case.wire.answer(b"*%d\r\n" % count + b":0\r\n" * count)
    assert case.caps.reported == 450
