"""How much a late machine explains."""

from __future__ import annotations

import pytest
from tests.chaos.lateness.excuses import (
    LEAST_BUSY_S,
    MOST_SHARE,
    RECOVERS_S,
    alone,
    blind_s,
    extended,
    is_busy,
    outages,
    written_late_s,
)
from tests.chaos.lateness.late import Late


@pytest.mark.parametrize(
    ("lates", "is_outage"),
    [
        ([Late("redis", 1.0, 1.5)], True),
        ([Late("switch", 1.0, 1.5)], True),
        ([Late("machine", 1.0, 1.5)], True),
        ([Late("redis", 1.0, 1.3)], False),
        ([Late("redis", 1.0, 1.2), Late("switch", 1.25, 1.35), Late("a", 1.35, 1.5)], True),
        ([Late("redis", 1.0, 1.2), Late("switch", 1.0, 1.2)], False),
        ([Late("redis", 1.0, 1.3), Late("redis", 2.0, 2.3)], False),
        ([Late("a", 1.0, 2.0)], False),
        ([Late("a", 1.0, 3.0)], True),
        ([Late("redis", 1.0, 1.2), Late("c", 1.2, 1.5)], False),
        ([Late("driver", 1.0, 9.0)], False),
        ([Late("switch from redis", 1.0, 1.5)], True),
        ([Late("switch from b", 1.0, 1.5)], True),
        ([Late("switch from c", 1.0, 1.5)], False),
        ([Late("switch from clients", 1.0, 9.0)], False),
    ],
)
def test_the_path_to_redis_must_be_late_without_a_pause(lates: list[Late], is_outage: bool) -> None:
    """For as long as instances wait for an answer; one that only is late itself reads what has come."""
    assert bool(outages(lates, ["a", "b"])) is is_outage


def test_instances_are_alone_once_at_a_time() -> None:
    """However many of them are."""
    lates = [Late("redis", 1.0, 2.0), Late("a", 1.9, 2.2), Late("b", 0.8, 1.1)]
    (span,) = alone(lates, ["a", "b"])
    assert (span.since, span.until) == (0.8, 2.2)


def test_lateness_makes_a_recovery_longer_by_itself() -> None:
    """Also what comes while it is longer, but not what came before, or comes afterwards."""
    lates = [Late("a", 9.0, 10.5), Late("redis", 13.0, 15.0), Late("a", 15.5, 16.0), Late("a", 30.0, 31.0)]
    assert extended(10.0, 14.0, lates) == 14.0 + 0.5 + 2.0 + 0.5
    assert extended(10.0, 12.0, lates) == 12.5


def test_a_line_is_written_late_by_its_own_instance() -> None:
    """Or because nothing ran; Redis and the switch write none of the lines."""
    lates = [Late("a", 1.0, 1.5), Late("machine", 1.2, 1.6), Late("redis", 1.0, 3.0), Late("c", 1.0, 3.0)]
    assert written_late_s(lates, ("a", "b"), 1.1, 9.0) == pytest.approx(0.5)
    assert written_late_s(lates, ("b",), 2.0, 9.0) == 0.0


def test_a_run_is_blind_while_lateness_would_excuse_something() -> None:
    """After an outage until instances have recovered; the driver itself excuses nothing."""
    assert blind_s([Late("driver", 0.0, 50.0)], ["a"]) == 0.0
    assert blind_s([Late("a", 1.0, 1.2), Late("redis", 1.1, 1.3)], ["a"]) == pytest.approx(0.3)
    assert blind_s([Late("redis", 1.0, 2.0), Late("a", 8.0, 8.5)], ["a"]) == pytest.approx(1.0 + RECOVERS_S + 0.5)


def test_too_much_of_a_run_may_not_be_blind() -> None:
    """One outage does not cost a short run its verdict."""
    assert not is_busy(LEAST_BUSY_S, 10.0)
    assert is_busy(LEAST_BUSY_S + 0.1, 10.0)
    assert not is_busy(36.0, 36.0 / MOST_SHARE)
    assert is_busy(36.1, 36.0 / MOST_SHARE)
