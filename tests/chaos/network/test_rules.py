"""What becomes of frames."""

from __future__ import annotations

from tests.chaos.network.rules import CUT, WELL, Path, Paths, State, mac_of

THERE, BACK = Path(1, 2), Path(2, 1)


def test_a_path_fails_alone() -> None:
    """The way back is another path, and a path that is well again has no state."""
    paths = Paths(1)
    paths.set(THERE, CUT)
    assert (paths.delay(THERE), paths.delay(BACK)) == (None, 0.0)
    paths.set(THERE, WELL)
    assert paths.delay(THERE) == 0.0


def test_frames_are_lost_and_late_as_told() -> None:
    """The same ones for the same seed."""
    outcomes = []
    for seed in (1, 1, 2):
        paths = Paths(seed)
        paths.set(THERE, State(loss=0.2, delay_s=0.1))
        outcomes.append([paths.delay(THERE) for _ in range(1000)])
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert set(outcomes[0]) == {None, 0.1}
    assert 150 < outcomes[0].count(None) < 250


def test_each_machine_has_its_hardware_address() -> None:
    """Locally administered, and not one for groups."""
    assert mac_of(258) == b"\x02\x00\x00\x00\x01\x02"
