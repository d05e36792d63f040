"""A minute of random faults, with seeds that are always the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chaos.clocks import needs_compiler
from tests.chaos.driver import run
from tests.chaos.plan import GATE, Plan
from tests.support.redis_server import needs_redis

pytestmark = [needs_redis, needs_compiler, pytest.mark.thorough]


@pytest.mark.parametrize("plan", GATE, ids=[plan.name for plan in GATE])
def test_a_run_of_random_faults(plan: Plan, tmp_path: Path) -> None:
    """Whatever fails, all that `tests.chaos.report.INVARIANTS` names holds, as far as a busy machine lets one tell."""
    report = run(plan, tmp_path)
    assert report.failed == [], str(report)
    assert report.faults
    assert report.seats > 0
