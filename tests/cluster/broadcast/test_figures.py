"""What is counted about entries."""

from __future__ import annotations

from dataclasses import asdict

from pyryrelay.cluster.broadcast.figures import Figures


def test_everything_begins_at_zero() -> None:
    """Each figure is a total."""
    assert set(asdict(Figures()).values()) == {0}
