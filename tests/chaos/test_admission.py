"""How much may be admitted of one address."""

from __future__ import annotations

import pytest
from tests.chaos.admission import Quota, bound
from tests.chaos.timeline import Fault

QUOTA = Quota(10, 1.0)


def test_the_bound_is_that_of_the_design() -> None:
    """Without faults: the quota, and for each other instance what it admits until it knows."""
    assert bound(QUOTA, 1, 5.0, 60.0, []) == 70
    assert bound(QUOTA, 3, 5.0, 60.0, []) == 70 + 2 * 3.5
    assert bound(QUOTA, 3, 500.0, 60.0, []) == 70 + 2 * 10


@pytest.mark.parametrize(
    ("fault", "more"),
    [
        (Fault("redis-stop", "redis", 10.0, 14.0), 2 * (6 + 1)),
        (Fault("cut-clients", "a", 10.0, 14.0), 0),
        (Fault("kill", "a", 10.0, 12.0), 10),
        (Fault("redis-kill", "redis", 10.0, 14.0), 10 + 2 * (6 + 1)),
        (Fault("failover", "redis", 10.0, 14.0), 2 * (6 + 1) + 9),
    ],
)
def test_faults_that_keep_instances_apart_add_to_it(fault: Fault, more: float) -> None:
    """As much as the others admit alone meanwhile."""
    assert bound(QUOTA, 3, 5.0, 60.0, [fault]) - bound(QUOTA, 3, 5.0, 60.0, []) == more


def test_faults_at_the_same_time_count_once() -> None:
    """Instances are alone for as long as any of them lasts."""
    faults = [Fault("loss", "a", 10.0, 14.0), Fault("loss", "b", 11.0, 13.0), Fault("loss", "c", 15.0, 20.0)]
    assert bound(QUOTA, 3, 5.0, 60.0, faults) - bound(QUOTA, 3, 5.0, 60.0, []) == 2 * (12 + 3)


def test_the_quota_is_an_option() -> None:
    """As the relay reads it."""
    assert QUOTA.option == "60/minute burst 10"
