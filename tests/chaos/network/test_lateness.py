"""When the switch was late."""

from __future__ import annotations

from tests.chaos.network.lateness import ALL, LEAST_S, RESEND_S, TICK_S, Lateness


def test_ticks_frames_and_losses_tell_that_it_was_late() -> None:
    """Each as long as it explains, and for the machine whose frames these are; what is short is left out."""
    lateness = Lateness(100.0, (1, 2))
    assert not lateness.is_due(100.04)
    assert lateness.is_due(100.06)
    assert lateness.is_due(99.0), "the clock was set back"
    lateness.ticked(100.125)
    lateness.taken(1, 100.0, 100.0 + LEAST_S / 2)
    assert lateness.times() == []
    lateness.ticked(101.0)
    lateness.taken(2, 110.0, 110.5)
    lateness.lost(1, 120.0)
    assert lateness.times() == [
        (ALL, 100.125 + TICK_S, 101.0),
        (1, 120.0 - TICK_S, 120.0 + RESEND_S),
        (2, 110.0, 110.5),
    ]


def test_times_are_joined() -> None:
    """If they overlap, or almost do, however far back the next one reaches; each machine has its own."""
    lateness = Lateness(100.0, (1, 2))
    lateness.taken(1, 101.0, 101.2)
    lateness.taken(2, 101.0, 105.0)
    lateness.taken(1, 103.0, 103.2)
    lateness.taken(1, 103.1, 103.4)
    assert lateness.times() == [(1, 101.0, 101.2), (1, 103.0, 103.4), (2, 101.0, 105.0)]
    lateness.taken(1, 101.1, 104.0)
    assert lateness.times() == [(1, 101.0, 104.0), (2, 101.0, 105.0)]
