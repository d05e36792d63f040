"""What a server did not keep is asked for once, when the rest is read, and counted if nobody announces it again."""

from __future__ import annotations

from math import inf

import pytest
from tests.support.broadcasts import FakeServers
from tests.support.nostr_hosts import HostLog
from twisted.internet.task import Clock

from pyryrelay.nostr.replication.entries import AGAIN, Wish
from pyryrelay.nostr.replication.history import Span
from pyryrelay.nostr.replication.totals import Totals
from pyryrelay.nostr.replication.trimmed import CALM_S, GIVEN_S, SPREAD_S, Trimmed, span_of

WALL_S = 100_000


class Bench:
    """A host that has missed something, and the servers."""

    def __init__(self, kept: str = "", chance: float = 0.0) -> None:
        self.clock = Clock()
        self.servers = FakeServers(self.clock)
        self.broadcast = self.servers.member()
        self.totals, self.log = Totals(), HostLog()
        self.trimmed = Trimmed(self.broadcast, self.wall_s, lambda: chance, self.totals, self.log, kept)

    def wall_s(self) -> int:
        """Return the time of day."""
        return WALL_S + int(self.clock.seconds())

    def pass_s(self, seconds: int = 2, *, is_behind: bool = False) -> None:
        """Let time pass, with its ticks."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.trimmed.tick(is_behind=is_behind)
            self.servers.settle()

    @property
    def said(self) -> list[bytes]:
        """What was announced."""
        return self.broadcast.added


def question(since: int, until: int) -> Wish:
    """Return a question of another host."""
    return Wish(is_answer=False, seconds=since, until=until)


def end(since: int, until: int) -> Wish:
    """Return the end of an answer."""
    return Wish(is_answer=True, seconds=since, until=until)


def test_it_is_asked_for_when_the_rest_is_read() -> None:
    """Once, and by seconds that count back from then."""
    bench = Bench()
    bench.trimmed.missed(300.5, 100.9)
    bench.pass_s(20, is_behind=True)
    assert bench.said == []
    bench.pass_s(2)
    assert bench.said == [AGAIN + b"323 122"]
    bench.pass_s(100)
    assert len(bench.said) == bench.totals.asked_again == 1
    assert bench.log.lines == [("asking for trimmed", 323, 122)]


def test_what_is_missed_before_that_is_one_question() -> None:
    """Such as on several servers."""
    bench = Bench()
    bench.trimmed.missed(300.0, 100.0)
    bench.trimmed.missed(200.0, 50.0)
    bench.pass_s(2)
    assert bench.said == [AGAIN + b"302 52"]


def test_without_a_clock_all_is_asked_for() -> None:
    """The others bound what they announce."""
    bench = Bench()
    bench.trimmed.missed(inf, 0.0)
    bench.pass_s(2)
    assert bench.said == [AGAIN + b"%d 2" % (WALL_S + 2)]


def test_the_next_process_goes_on() -> None:
    """It asks if the one before it has not, and else waits for the end of the answer."""
    bench = Bench()
    bench.trimmed.missed(300.0, 100.0)
    heir = Bench(bench.trimmed.text)
    heir.pass_s(2)
    assert heir.said == [AGAIN + b"302 102"]
    second = Bench(heir.trimmed.text)
    second.pass_s(100)
    assert second.said == []
    second.trimmed.heard(end(400, 200), 0.0)
    assert (second.log.lines, second.trimmed.text) == ([("given",)], "")
    assert Bench("nonsense").trimmed.text == ""


def test_a_question_waits_for_a_server() -> None:
    """And is asked once when there is one."""
    bench = Bench()
    bench.servers.down()
    bench.trimmed.missed(300.0, 100.0)
    bench.pass_s(10)
    bench.servers.up()
    bench.pass_s(10)
    assert bench.said == [AGAIN + b"311 111"]


def test_hosts_that_come_back_together_ask_once() -> None:
    """One that hears the question of another which covers its own, and was asked after its gap, does not ask."""
    bench = Bench(chance=1.0)
    bench.trimmed.missed(300.0, 100.0)
    bench.pass_s(SPREAD_S)
    for other in (question(200, 50), question(400, 200)):
        bench.trimmed.heard(other, 0.0)
    bench.trimmed.heard(question(300, 0), 150.0)
    assert bench.trimmed.text.endswith(" 0")
    bench.trimmed.heard(question(305, 105), 0.0)
    bench.pass_s(100)
    assert bench.said == []
    bench.trimmed.heard(end(420, 190), 0.0)
    assert bench.log.lines == [("given",)]
    alone = Bench(chance=1.0)
    alone.trimmed.missed(300.0, 100.0)
    alone.pass_s(SPREAD_S)
    assert alone.said == []
    alone.pass_s(1)
    assert len(alone.said) == 1


@pytest.mark.parametrize("answer", [None, end(200, 100), end(400, 250), question(400, 50)])
def test_what_nobody_announces_again_is_missed(answer: Wish | None) -> None:
    """If no host has told in time that it has announced all of it; that is counted once."""
    bench = Bench()
    bench.trimmed.missed(300.0, 100.0)
    bench.trimmed.heard(end(400, 50), 0.0)
    bench.pass_s(2)
    if answer is not None:
        bench.trimmed.heard(answer, 0.0)
    bench.pass_s(GIVEN_S - 1)
    assert bench.totals.missed == 0
    bench.pass_s(CALM_S + 10)
    assert (bench.totals.missed, len(bench.said), bench.trimmed.text) == (1, 1, "")
    assert bench.log.lines[1:] == [("missed",)]


def test_a_host_that_is_too_slow_does_not_ask_for_the_same_again() -> None:
    """What it may have missed of the answer is counted; what it has missed since then is asked for after a while."""
    bench = Bench()
    bench.trimmed.missed(300.0, 100.0)
    bench.pass_s(2)
    for _ in range(3):
        bench.trimmed.missed(1.0, 0.0)
    bench.pass_s(CALM_S - 1)
    assert (len(bench.said), bench.totals.missed) == (1, 1)
    bench.pass_s(2)
    assert bench.said[1:] == [AGAIN + b"602 601"]


def test_a_server_that_loses_entries_may_have_lost_the_question() -> None:
    """It is asked once more, after a while, unless the answer has come."""
    bench = Bench()
    bench.trimmed.missed(300.0, 100.0)
    bench.pass_s(2)
    bench.trimmed.lost()
    bench.pass_s(CALM_S + 2)
    assert bench.said[1:] == [AGAIN + b"903 703"]
    bench.trimmed.heard(end(1000, 700), 0.0)
    bench.trimmed.lost()
    bench.pass_s(2 * CALM_S)
    assert len(bench.said) == 2


def test_what_is_missed_while_the_question_leaves_is_asked_for_too() -> None:
    """The question on its way did not cover it."""
    bench = Bench()
    bench.trimmed.missed(300.0, 100.0)
    bench.pass_s(1)
    bench.clock.advance(1.0)
    bench.trimmed.tick(is_behind=False)
    bench.trimmed.missed(50.0, 20.0)
    bench.pass_s(3)
    assert bench.said == [AGAIN + b"302 102", AGAIN + b"303 21"]


def test_it_knows_what_it_lacks() -> None:
    """So that its own answers do not promise that."""
    bench = Bench()
    assert not bench.trimmed.lacks(Span(0, WALL_S))
    bench.trimmed.missed(300.0, 100.0)
    assert bench.trimmed.lacks(Span(WALL_S - 150, WALL_S))
    assert not bench.trimmed.lacks(Span(WALL_S - 50, WALL_S))


def test_times_of_others_are_those_of_when_they_said_so() -> None:
    """And none is before the beginning of all times."""
    assert span_of(question(300, 100), 49.5, WALL_S) == (WALL_S - 350, WALL_S - 150)
    assert span_of(question(10**11, 10**11), 0.0, WALL_S) == (0, 0)
