"""What the dashboard is told of a cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.cluster.operating.test_actions import LISTED, ROW
from tests.cluster.redis.test_sentinels import HOSTS, Group
from tests.cluster.test_instance import OWNER, instance
from twisted.internet.defer import Deferred, fail, succeed

from pyryrelay.cluster.operating.overview import LINK_S, LIST_S, Overview
from pyryrelay.cluster.outages import Outages
from pyryrelay.cluster.redis.interface import DownError

SERVER = {
    "name": "10.0.0.9:6379",
    "address": "10.0.0.9:6379",
    "problem": "",
    "away_s": 0.0,
    "used_s": 0.0,
    "sentinels": [],
}


class Shown:
    """An overview whose directory answers what a test wants."""

    def __init__(self) -> None:
        self.instance, self.clock = instance()
        self.outages = Outages(self.clock.seconds, lambda line: None)
        self.client: Any = SimpleNamespace(
            name="10.0.0.9:6379", problem="", place="10.0.0.9:6379", used_since=0.0, sentinels=None
        )
        self.answer: Deferred[Any] = succeed([LISTED])
        self.asked = 0
        shared: Any = SimpleNamespace(
            shards=SimpleNamespace(clients=[self.client]),
            members=SimpleNamespace(count=2, is_secret_shared=True),
            outages=self.outages,
        )
        self.overview = Overview("relay", shared, self.instance, self.clock.seconds)
        self.limits_alone = Overview("relay", shared, None, self.clock.seconds)

    def begin(self) -> None:
        """Have an instance."""
        self.instance.begin("boot")
        self.instance.directory.members = self._members  # type: ignore[method-assign]

    def _members(self) -> Deferred[Any]:
        self.asked += 1
        return self.answer


@pytest.fixture
def shown() -> Shown:
    """An overview."""
    return Shown()


def test_a_relay_that_shares_limits_alone(shown: Shown) -> None:
    """It has servers and members, and no instances."""
    found = {
        "name": "relay",
        "members": 2,
        "is_secret_shared": True,
        "servers": [SERVER],
        "here": [],
        "lease_age_s": None,
        "on_outage": "local",
        "instances": None,
        "listed_s": None,
    }
    assert shown.limits_alone.object() == found
    assert shown.overview.object() == found  # before the instance has begun


def test_instances_are_asked_for_now_and_then(shown: Shown) -> None:
    """Each `LIST_S` at most, and not if nobody wants them."""
    shown.begin()
    assert shown.overview.object(with_instances=False)["instances"] is None
    found = shown.overview.object()
    assert (found["here"], found["instances"], found["listed_s"]) == (["10.0.0.1:7000"], [ROW], 0.0)
    shown.clock.advance(LIST_S / 2)
    assert shown.overview.object()["listed_s"] == LIST_S / 2
    shown.clock.advance(LIST_S / 2)
    shown.overview.object()
    assert shown.asked == 2


def test_an_outage(shown: Shown) -> None:
    """The last list stays, with its age, and the server is told of."""
    shown.begin()
    shown.overview.object()
    shown.client.problem = "Connection refused"
    shown.outages.changed(shown.client.name, "Connection refused")
    shown.answer = fail(DownError("away"))
    shown.clock.advance(30.0)
    found = shown.overview.object()
    assert found["servers"] == [SERVER | {"problem": "Connection refused", "away_s": 30.0, "used_s": None}]
    # As it was then: nobody renews a lease now, and nobody is gone for that.
    assert (found["instances"], found["listed_s"]) == ([ROW], 30.0)


def test_a_fresh_list(shown: Shown) -> None:
    """It waits for the answer; a server that is away is no error, and without an instance there is none to ask."""
    results: list[Any] = []
    shown.overview.fresh().addCallback(results.append)
    assert results.pop()["instances"] is None  # it has not begun
    shown.begin()
    shown.answer = late = Deferred[Any]()
    shown.overview.fresh().addCallback(results.append)
    assert results == []
    late.callback([LISTED])
    assert results.pop()["instances"] == [ROW]
    shown.answer = fail(DownError("away"))
    shown.clock.advance(9.0)
    shown.overview.fresh().addCallback(results.append)
    assert (results[0]["instances"], results[0]["listed_s"]) == ([ROW], 9.0)


def test_an_instance_that_has_left_or_cannot_be_reached(shown: Shown) -> None:
    """It was seen last when it left; what cannot be reached is told for a while."""
    shown.begin()
    shown.answer = succeed([LISTED._replace(left_s=-7.0, has_left=True)])
    shown.instance.splicing.links.failed(OWNER.address, "Connection refused")
    shown.clock.advance(2.0)
    rows = shown.overview.object()["instances"]
    link = {"problem": "Connection refused", "since_s": 2.0, "last_s": 2.0, "failures": 1}
    assert rows == [
        ROW | {"state": "left", "lease_s": -7.0, "renewed_s": 7.0, "gone_s": 7.0, "link": link},
    ]
    shown.clock.advance(LINK_S)
    assert shown.overview.object()["instances"][0]["link"] is None


def test_sentinels_of_a_server(shown: Shown) -> None:
    """Each with what it said last, and since when it says nothing."""
    group = Group()
    group.answers[HOSTS[1]] = DownError("Connection refused")
    group.sentinels.look()
    shown.client.sentinels = group.sentinels
    shown.clock.advance(3.0)
    good = {"name": "s1:26379", "problem": "", "away_s": 0.0, "primary": "p:6379"}
    away = {"name": "s2:26379", "problem": "Connection refused", "away_s": 3.0, "primary": ""}
    assert shown.overview.object()["servers"][0]["sentinels"] == [good, away, good | {"name": "s3:26379"}]


def test_an_answer_that_is_late(shown: Shown) -> None:
    """The instances are not known until it comes."""
    shown.begin()
    shown.answer = late = Deferred[Any]()
    assert shown.overview.object()["instances"] is None
    late.callback([])
    assert shown.overview.object()["instances"] == []


def test_the_age_of_the_lease(shown: Shown) -> None:
    """It is not known before the first renewal, which JSON could not hold as infinity."""
    shown.begin()
    assert shown.overview.object()["lease_age_s"] is None
    for shard in shown.instance.directory.shards:
        shard.renewed_at = shown.clock.seconds()
    shown.clock.advance(1.23)
    assert shown.overview.object()["lease_age_s"] == 1.2


def test_a_summary(shown: Shown) -> None:
    """It has what is wrong, and no instances."""
    assert shown.overview.summary() == {"name": "relay", "members": 2, "problems": []}
    shown.client.problem = "Connection refused"
    (problem,) = shown.overview.summary()["problems"]
    assert problem["kind"] == "server_away"
