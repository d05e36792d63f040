"""Sentinels are asked now and then, and one that is away is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.cluster.redis.test_sentinels import HOSTS, PRIMARY, Group
from tests.support.capture import Captured
from twisted.internet.defer import Deferred

from pyryrelay.cluster.redis.interface import DownError
from pyryrelay.cluster.redis.sentinel_watch import LOOK_S, SentinelWatch


def watched(group: Group) -> SentinelWatch:
    """Return a watch of a server with sentinels, and of one without."""
    clients: Any = [SimpleNamespace(sentinels=None), SimpleNamespace(sentinels=group.sentinels)]
    return SentinelWatch(clients, group.clock.seconds)


def look(group: Group, watch: SentinelWatch, seconds: float) -> None:
    """Let time pass, with a look each second."""
    for _ in range(round(seconds)):
        group.clock.advance(1.0)
        watch.look()


def test_a_sentinel_that_is_away_is_told(log: Captured) -> None:
    """Once, when it has not answered twice; and once when it answers again."""
    group = Group()
    watch = watched(group)
    watch.look()
    assert group.asked == ["s1", "s2", "s3"]
    group.answers[HOSTS[1]] = DownError("Connection refused")
    look(group, watch, LOOK_S)
    assert log.texts == []
    look(group, watch, 5 * LOOK_S)
    group.answers[HOSTS[1]] = PRIMARY
    look(group, watch, LOOK_S)
    assert log.texts == [
        "sentinel s2:26379 of the cluster does not answer: Connection refused; without most of the sentinels there is "
        "no failover",
        "sentinel s2:26379 of the cluster answers again, after 60.0 s",
    ]


def test_without_sentinels_nothing_is_asked() -> None:
    """Most servers have none."""
    clients: Any = [SimpleNamespace(sentinels=None)]
    found = SentinelWatch(clients, lambda: 0.0).look()
    assert isinstance(found, Deferred)
    assert found.called
