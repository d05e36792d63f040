"""A relay at its latest moments."""

from __future__ import annotations

from tests.support.fake_relay import FakeRelay
from tests.support.status import status, workers

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.live.watch import HISTORY, Watch, curve


def test_moments_give_rates_and_curves(relay: FakeRelay) -> None:
    """Each look gives the rates since the one before; the history is bounded."""
    watch = Watch(AdminClient(relay.url), status())
    assert (watch.rates, watch.reasons, watch.connections) == (None, [], 92)
    relay.body = status(uptime_s=90_001.0, refused={"rate_limit": 60, "jailed": 7_000}, connections={"client": 4})
    watch.look()
    assert watch.rates is not None
    assert watch.rates.refused == 10.0
    assert watch.reasons == [("rate_limit", 10.0)]
    assert (list(watch.open), list(watch.refused)) == ([4.0], [10.0])
    for _ in range(HISTORY + 1):
        watch.look()
    assert len(watch.open) == HISTORY
    assert "limits in force" not in [section.title for section in watch.sections()]


def test_a_relay_that_goes_and_comes_back(relay: FakeRelay) -> None:
    """While it cannot be asked, the problem says so; a new process has no rates at first."""
    watch = Watch(AdminClient(relay.url), status())
    relay.status, relay.body = 500, {"error": "no"}
    watch.look()
    assert (watch.problem, watch.rates, watch.body["pid"]) == ("no", None, 4242)
    relay.status, relay.body = 200, status(pid=7, uptime_s=1.0, refused={"jailed": 5})
    watch.look()
    assert (watch.problem, watch.rates, watch.reasons) == ("", None, [])
    assert watch.title().startswith("pyryrelay 26.11.0, process 7, running for 1s")


def test_workers(relay: FakeRelay) -> None:
    """Their shares of a processor are those between two looks."""
    watch = Watch(AdminClient(relay.url), status(workers=workers()))
    relay.body = status(uptime_s=90_001.0, workers=[workers()[0] | {"uptime_s": 90_001.0, "cpu_s": 61.0}])
    watch.look()
    assert [row[6] for row in watch.workers()] == ["100%"]
    assert watch.title().endswith(", 1 of 1 workers serve")


def test_curves() -> None:
    """The largest value has full height, and nothing is flat."""
    assert curve([]) == ""
    assert curve([0.0, 0.0]) == "  "
    assert curve([0.0, 1.0, 4.0, 8.0]) == " ▁▄█"
