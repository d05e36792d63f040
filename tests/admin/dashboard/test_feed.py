"""What the dashboard is sent by one process: its samples and its refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.support.pyry import address
from twisted.internet.task import Clock

from pyryrelay.admin.dashboard.feed import MAX_NEW_REFUSALS, RelayFeed
from pyryrelay.admin.status import Status
from pyryrelay.guard import Gate
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.refusals import MAX_RECENT, Refusals
from pyryrelay.observe.sampling import Sampler, Sources
from pyryrelay.websocket.context import Traffic

WALL_S = 1_800_000_000.0


class Running:
    """A relay with an application, at a moment that a test chooses."""

    def __init__(self, form: Any = "full", *, sees: bool = False) -> None:
        self.clock = Clock()
        now = self.clock.seconds
        gate, log = Gate(), EventLog(form, now)
        self.refusals = Refusals(gate, log, now)
        self.traffic = Traffic()
        self.is_draining = False
        sampler = Sampler(Sources(gate, self.refusals, {"client": self.traffic}), now)
        status = Status(sampler, now, lambda: self.is_draining, dict)
        self.asked: list[bool] = []
        self.feed = RelayFeed(status, self.refusals, log, now, lambda: WALL_S + now(), self._cluster if sees else None)
        self.cluster: Mapping[str, Any] | None = None
        self.sent: list[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]] = []

    def send(
        self,
        sample: Mapping[str, Any],
        refusals: Sequence[Mapping[str, Any]] = (),
        workers: Sequence[Mapping[str, Any]] = (),
        cluster: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep what a page would get."""
        assert not workers
        self.cluster = cluster
        self.sent.append((sample, refusals))

    def _cluster(self, with_instances: bool) -> Mapping[str, Any]:
        self.asked.append(with_instances)
        return {"name": "relay"}

    def second(self, *, is_watched: bool = True) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        """Pass a second, and return what is sent then."""
        self.clock.advance(1.0)
        self.feed.take(self.send, is_watched=is_watched)
        return self.sent[-1]


def test_a_sample_has_what_happened_since_the_last_one() -> None:
    """The first one has nothing, because nobody knows since when it counts."""
    running = Running()
    running.traffic.admitted = 5
    assert running.second()[0]["admitted"] == {}
    running.traffic.admitted = 7
    sample, _ = running.second()
    assert (sample["admitted"], sample["elapsed_s"], sample["at"]) == ({"client": 2}, 1.0, WALL_S + 2)
    running.is_draining = True
    assert running.second()[0]["state"] == "draining"


def test_new_refusals_are_sent_once() -> None:
    """Each one in the second in which it came, and no more than a page can show."""
    running = Running()
    running.refusals.refused("client", 429, "rate_limit", address())
    assert [one["reason"] for one in running.second()[1]] == ["rate_limit"]
    assert running.second()[1] == []
    for number in range(MAX_RECENT + 1):
        running.refusals.refused("client", 429, f"r{number}", address())
    found = running.second()[1]
    assert (len(found), found[-1]["reason"]) == (MAX_NEW_REFUSALS, f"r{MAX_RECENT}")
    assert len(running.feed.recent()) == MAX_RECENT


def test_nobody_watches() -> None:
    """Then refusals are not made ready for pages, and not sent later either."""
    running = Running()
    running.refusals.refused("client", 429, "rate_limit", address())
    assert running.second(is_watched=False)[1] == []
    assert running.second()[1] == []


def test_the_cluster_is_looked_at_for_pages() -> None:
    """While none is open, nobody is asked for its instances."""
    running = Running(sees=True)
    running.second(is_watched=False)
    assert (running.cluster, running.asked) == (None, [])
    running.second()
    assert (running.cluster, running.asked) == ({"name": "relay"}, [True])


@pytest.mark.parametrize(("form", "shown"), [("full", "192.0.2.7"), ("prefix", "192.0.2.0/24"), ("none", "-")])
def test_a_refusal(form: str, shown: str) -> None:
    """It has the address in the form of the log, and the time of the wall clock."""
    running = Running(form)
    running.clock.advance(0.5)
    running.refusals.refused(None, 403, "jailed", address())
    (found,) = running.feed.recent()
    assert found == {"at": WALL_S + 0.5, "client": shown, "status": 403, "reason": "jailed", "route": None}
    assert (running.feed.address_form, running.feed.uptime_s()) == (form, 0.5)
