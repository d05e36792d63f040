"""What the chaos driver allows."""

from __future__ import annotations

import math

import pytest
from tests.chaos.lateness.late import Late
from tests.chaos.timeline import FAULTS, SHORT, Fault, Overlap, Rules, Seat, Timeline, longest

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


OVERLAP = Overlap("x", ("a", "b"), 10.0, 11.1)
"""As it comes from an outage of half a second."""


@pytest.mark.parametrize(
    ("lates", "is_excused"),
    [
        ([Late("redis", 9.5, 10.1)], True),
        ([Late("switch", 9.5, 10.1)], True),
        ([Late("machine", 9.5, 10.1)], True),
        ([Late("redis", 9.5, 9.75), Late("switch", 9.8, 10.1)], True),
        ([Late("switch from a", 9.5, 10.1)], True),
        ([Late("switch from clients", 9.0, 11.5)], False),
        ([Late("switch from c", 9.0, 11.5)], False),
        ([], False),
        ([Late("redis", 4.0, 5.0)], False),
        ([Late("redis", 11.2, 13.0)], False),
        ([Late("redis", 9.9, 10.6)], False),
        ([Late("redis", 9.5, 9.8)], False),
        ([Late("redis", 8.5, 9.1)], False),
        ([Late("c", 9.0, 11.5)], False),
        ([Late("driver", 9.0, 11.5)], False),
        ([Late("a", 9.5, 10.1)], False),
    ],
)
def test_a_machine_that_was_late_excuses_what_that_explains(lates: list[Late], is_excused: bool) -> None:
    """One of the two must have been out of reach of Redis just before, for half a second; nothing else is an excuse."""
    excuse = LOCAL.excuse([], OVERLAP, lates)
    assert bool(excuse) is is_excused, excuse
    assert ("late for" in excuse) is is_excused
    assert Rules(refuses_on_outage=False, is_steady=True).excuse([], OVERLAP, lates) == ""
    assert REFUSE.excuse([], OVERLAP, lates) == "", "an instance that refuses serves nothing in an outage"


def test_lateness_excuses_no_more_than_it_lasts() -> None:
    """An overlap that goes on is a violation, and so is a second one for which there is no other lateness."""
    lates = [Late("redis", 9.5, 10.1)]
    assert LOCAL.excuse([], OVERLAP._replace(until=11.6), lates)
    assert not LOCAL.excuse([], OVERLAP._replace(until=11.7), lates)
    assert LOCAL.excuse([], OVERLAP._replace(until=11.7), [*lates, Late("b", 11.0, 11.2)])
    assert not LOCAL.excuse([], OVERLAP._replace(until=12.7), [*lates, Late("b", 11.0, 11.2)])
    assert not LOCAL.excuse([], OVERLAP._replace(until=11.7), [*lates, Late("c", 11.0, 11.2)])
    seats = [*twice(10.0, 11.0), Seat("x", "a", 30.0, 31.0)]
    assert Timeline(seats, [], lates).violations(LOCAL) == [Overlap("x", ("b", "a"), 30.0, 31.0)]


@pytest.mark.parametrize(
    ("late", "is_excused"),
    [
        (Late("a", 10.5, 10.9), True),
        (Late("machine", 10.5, 10.9), True),
        (Late("a", 10.5, 10.7), False),
        (Late("a", 11.5, 11.9), False),
        (Late("redis", 10.5, 10.8), False),
    ],
)
def test_an_instance_that_was_late_wrote_its_line_late(late: Late, is_excused: bool) -> None:
    """So the overlap may be as long as that, and what is too short anyway."""
    overlap = OVERLAP._replace(until=10.6)
    for rules in (LOCAL, REFUSE):
        assert bool(rules.excuse([], overlap, [late])) is is_excused


@pytest.mark.parametrize(
    ("late", "is_excused"),
    [
        (Late("redis", 14.0, 15.2), True),
        (Late("a", 14.0, 15.2), True),
        (Late("a", 13.5, 14.3), False),
        (Late("c", 14.0, 15.2), False),
        (Late("a", 16.2, 17.0), False),
        (Late("a", 10.0, 11.0), False),
    ],
)
def test_a_recovery_from_a_fault_takes_longer_if_the_machine_is_late(late: Late, is_excused: bool) -> None:
    """By as much as it is late after the fault, at a place that has to do with it."""
    faults = [Fault("redis-stop", "redis", 9.0, 11.0)]
    overlap = OVERLAP._replace(until=16.0)
    assert LOCAL.excuse(faults, OVERLAP, [late]) == FAULTS
    assert bool(LOCAL.excuse(faults, overlap, [late])) is is_excused


def test_people_are_told_which_place_was_late() -> None:
    """And for how long, without places that it does not depend on."""
    lates = [Late("redis", 9.5, 9.8), Late("switch", 9.8, 10.0), Late("switch", 10.0, 10.1), Late("c", 9.0, 10.0)]
    assert LOCAL.excuse([], OVERLAP, lates) == "redis late for 0.30 s, switch late for 0.30 s"
    assert LOCAL.excuse([], OVERLAP._replace(until=10.1), []) == SHORT
