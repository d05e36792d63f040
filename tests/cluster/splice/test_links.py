"""Whether other instances can be reached."""

from __future__ import annotations

from tests.support.capture import Captured
from twisted.internet.task import Clock

from pyryrelay.cluster.splice.links import MOST, REPEAT_S, Links

OWNER = "10.0.0.2:7000"


def test_a_link_that_fails_and_works_again(log: Captured) -> None:
    """One line for each, however often it was tried; meanwhile it is known since when and why."""
    clock = Clock()
    links = Links(clock.seconds)
    links.worked(OWNER)
    for _ in range(5):
        links.failed(OWNER, "Connection refused")
        clock.advance(1.0)
    link = links.of(OWNER)
    assert link is not None
    assert (link.problem, link.since, link.last, link.failures) == ("Connection refused", 0.0, 4.0, 5)
    links.worked(OWNER)
    assert links.of(OWNER) is None
    assert log.texts == [
        f"instance {OWNER} of the cluster cannot be reached: Connection refused; connections that belong there are "
        "answered 503",
        f"instance {OWNER} of the cluster can be reached again, after 5.0 s",
    ]


def test_a_link_that_comes_and_goes(log: Captured) -> None:
    """There are two lines in a minute, and no more."""
    clock = Clock()
    links = Links(clock.seconds)
    while clock.seconds() < REPEAT_S:
        links.failed(OWNER, "Connection refused")
        links.worked(OWNER)
        clock.advance(0.5)
    assert len(log.texts) == 2
    links.failed(OWNER, "Connection refused")
    assert len(log.texts) == 3


def test_instances_that_are_remembered_are_bounded() -> None:
    """Those that failed last stay."""
    links = Links(Clock().seconds)
    for number in range(3 * MOST):
        links.failed(str(number), "no")
    assert links.of("0") is None
    assert links.of(str(3 * MOST - 1)) is not None
    assert len(links._failing) == MOST
    assert len(links._told_at) <= MOST
