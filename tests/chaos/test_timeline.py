"""What the chaos driver allows."""

from __future__ import annotations

import math

import pytest
from tests.chaos.timeline import Fault, Overlap, Rules, Seat, Timeline, longest

LOCAL, REFUSE = Rules(refuses_on_outage=False), Rules(refuses_on_outage=True)


def twice(since: float = 10.0, until: float = 20.0) -> list[Seat]:
    """Return two seats of one key that overlap in that time."""
    return [Seat("x", "a", 0.0, until), Seat("x", "b", since, math.inf), Seat("y", "b", 0.0, math.inf)]


def test_overlaps_are_between_instances() -> None:
    """Seats that follow each other, or are at one instance, are none."""
    assert Timeline(twice()).overlaps() == [Overlap("x", ("a", "b"), 10.0, 20.0)]
    assert Timeline([Seat("x", "a", 0, 5), Seat("x", "b", 5, 9), Seat("x", "b", 6, 9)]).overlaps() == []
    assert longest(Timeline(twice()).overlaps()) == 10.0
    assert longest([]) == 0.0


def test_an_overlap_without_a_fault_is_a_violation() -> None:
    """Under either policy, unless it is too short to be told."""
    for rules in (LOCAL, REFUSE):
        assert len(Timeline(twice()).violations(rules)) == 1
        assert Timeline(twice(until=10.2)).violations(rules) == []


@pytest.mark.parametrize(
    ("fault", "local", "refuse"),
    [
        (Fault("stop", "a", 2.0, 16.0), 0, 0),
        (Fault("stop", "a", 2.0, 15.0), 1, 1),
        (Fault("stop", "a", 9.0, 17.0), 1, 1),
        (Fault("stop", "c", 2.0, 16.0), 1, 1),
        (Fault("kill", "a", 2.0, 16.0), 1, 1),
        (Fault("kill", "redis", 8.0, 16.0), 0, 1),
        (Fault("redis-stop", "redis", 10.0, 16.0), 0, 1),
        (Fault("redis-stop", "redis", 11.0, 19.0), 1, 1),
        (Fault("redis-stop", "redis", 2.0, 11.0), 1, 1),
        (Fault("cut-redis", "a", 6.5, 16.0), 0, 0),
        (Fault("cut-redis", "a", 8.0, 16.0), 0, 1),
        (Fault("one-way-redis", "b", 6.5, 16.0), 0, 0),
        (Fault("one-way-clients", "a", 2.0, 16.0), 1, 1),
        (Fault("cut-clients", "a", 2.0, 16.0), 1, 1),
        (Fault("delay", "a", 2.0, 16.0), 1, 1),
    ],
)
def test_what_excuses_an_overlap(fault: Fault, local: int, refuse: int) -> None:
    """A long stop of one of the two does, or a cut; an outage of Redis only if claims are served meanwhile.

    With a balancer that always chooses the same instance, nothing does.
    """
    timeline = Timeline(twice(), [fault])
    assert len(timeline.violations(Rules(refuses_on_outage=False, is_steady=True))) == 1
    assert (len(timeline.violations(LOCAL)), len(timeline.violations(REFUSE))) == (local, refuse)


@pytest.mark.parametrize(
    ("stop", "is_excused"),
    [
        (Fault("stop", "b", 14.0, 17.0), True),
        (Fault("stop", "b", 10.5, 17.0), True),
        (Fault("stop", "b", 15.5, 17.0), False),
        (Fault("stop", "c", 14.0, 17.0), False),
        (Fault("stop", "b", 14.0, 15.5), False),
    ],
)
def test_faults_in_a_chain_excuse_together(stop: Fault, is_excused: bool) -> None:
    """An instance that stops while Redis comes back learns afterwards that it has lost its keys."""
    outage = Fault("redis-kill", "redis", 9.0, 11.0)
    assert (Timeline(twice(), [stop, outage]).violations(LOCAL) == []) is is_excused
    assert len(Timeline(twice(), [stop, outage]).violations(REFUSE)) == 1
