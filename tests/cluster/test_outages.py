"""What operators are told of servers."""

from __future__ import annotations

from tests.support.capture import Captured

from pyryrelay.cluster.outages import REPEAT_S, Outages


def test_an_outage_has_two_lines(log: Captured) -> None:
    """One when it begins, one when it ends, however often the server was tried meanwhile."""
    clock = [100.0]
    outages = Outages(lambda: clock[0], log.texts.append)
    outages.changed("a:1", "")
    for _ in range(50):
        clock[0] += 1.0
        outages.changed("a:1", "Connection refused")
    assert (outages.away_s("a:1"), outages.away_s("b:1")) == (49.0, 0.0)
    outages.changed("a:1", "")
    assert outages.away_s("a:1") == 0.0
    assert log.texts == [
        "server a:1 of the cluster is used",
        "server a:1 of the cluster cannot be used: Connection refused; limits hold for each process alone",
        "server a:1 of the cluster can be used, after 49.0 s without",
    ]


def test_another_reason_is_told_at_most_once_a_minute(log: Captured) -> None:
    """A wrong password, after the server has come back, must not be hidden by the outage."""
    clock, warnings = [0.0], list[str]()
    outages = Outages(lambda: clock[0], warnings.append)
    outages.changed("a:1", "Connection refused")
    for _ in range(200):
        clock[0] += 1.0
        outages.changed("a:1", "it refuses the user name or the password")
    assert warnings == ["server a:1 of the cluster still cannot be used: it refuses the user name or the password"]
    outages.changed("b:1", "Connection refused")
    assert len(log.texts) == 2


def test_warnings_of_one_kind_are_told_once_a_minute() -> None:
    """Those of another kind are not held back by them."""
    clock, warnings = [0.0], list[str]()
    outages = Outages(lambda: clock[0], warnings.append)
    for _ in range(100):
        outages.warn("clock", "apart")
        outages.warn("secret", "another")
        clock[0] += REPEAT_S / 50
    assert warnings == ["apart", "another"] * 2


def test_the_primary_is_told_when_it_is_another_one(log: Captured) -> None:
    """After a failover, and once at the start."""
    outages = Outages(lambda: 0.0, log.texts.append)
    for place in ("p:1", "p:1", "q:1", "q:1"):
        outages.leads_to("m@s:1", place)
    assert log.texts == [
        "the primary of the cluster is p:1, as its sentinels say",
        "the primary of the cluster is q:1, as its sentinels say",
    ]
