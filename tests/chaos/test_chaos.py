"""A minute of random faults, with a seed that is always the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chaos.driver import Plan, run
from tests.support.redis_server import needs_redis

pytestmark = [needs_redis, pytest.mark.thorough]


@pytest.mark.parametrize(
    "plan",
    [
        Plan(seconds=30.0, seed=14, on_outage="refuse"),
        Plan(seconds=20.0, seed=15, on_outage="local"),
        Plan(seconds=15.0, seed=16, on_outage="local", has_affinity=True, faults=("redis-kill", "redis-stop")),
    ],
    ids=["refuse", "local", "affinity"],
)
def test_a_run_of_random_faults(plan: Plan, tmp_path: Path) -> None:
    """Whatever fails, no key has two binaries but as the documentation says, and everything is right afterwards."""
    report = run(plan, tmp_path)
    assert report.problems == [], str(report)
    assert report.faults > 0
    assert report.seats > 0
