"""The words of ``/readyz``."""

from __future__ import annotations

import pytest

from pyryrelay.observe.readiness import READY, readiness


@pytest.mark.parametrize("is_degraded", [False, True])
@pytest.mark.parametrize("is_ready", [False, True])
def test_connections_should_come_to_what_accepts_and_does_not_end(is_ready: bool, is_degraded: bool) -> None:
    """Whether or not something is away; the end is told rather than anything else."""
    assert (readiness(is_ready, False, is_degraded) in READY) is is_ready
    assert readiness(is_ready, True, is_degraded) == "draining"
    assert readiness(True, False, is_degraded) == ("degraded" if is_degraded else "ready")
