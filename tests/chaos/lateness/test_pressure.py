"""What the kernel tells of how busy the machine is."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.lateness.pressure import Pressure


def test_shares_are_of_the_time_between(tmp_path: Path) -> None:
    """Of each resource that the kernel has, in both looks."""
    (tmp_path / "cpu").write_text("some avg10=6.81 avg60=4.53 avg300=24.30 total=2500000\nfull avg10=0.0 total=7\n")
    assert Pressure.now(tmp_path).waited_s == {"cpu": 2.5}
    before = Pressure(10.0, {"cpu": 1.0})
    assert Pressure(20.0, {"cpu": 3.0, "io": 4.0}).since(before) == "something waited for cpu in 20% of the time"
    assert Pressure(20.0, {}).since(before) == ""
