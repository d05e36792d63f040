"""What may be missing is asked for until others have surely heard it; what they ask for is announced again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.broadcasts import FakeServers
from tests.support.nostr_hosts import HostLog
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pyryrelay.nostr.replication.entries import AGAIN, ONLY, Wish
from pyryrelay.nostr.replication.gaps import ASKED_S, CALM_S, MARGIN_S, SURE_S, Gaps
from pyryrelay.nostr.replication.history import History
from pyryrelay.nostr.replication.outbox import Outbox
from pyryrelay.nostr.replication.progress import Progress
from pyryrelay.nostr.replication.totals import Totals

WALL_S = 100_000


class Bench:
    """A host that has announced 100 events, one a minute, and the servers."""

    def __init__(self, kept: str = "") -> None:
        self.clock = Clock()
        self.servers = FakeServers(self.clock)
        self.broadcast = self.servers.member()
        self.totals, self.log = Totals(), HostLog()
        progress = Progress(0, 0, 0.0)
        progress.advance(100, 0.0)
        progress.advance(100, 100.0)
        progress.advance(100, 200.0)
        self.outbox = Outbox(
            self.broadcast, self, progress, self.clock.seconds, self.clock.callLater, self.totals, self.log
        )
        self.history = History("", 0, 0, is_first=True)
        for seq in range(1, 101):
            self.history.note(seq, seq, 0, WALL_S - 60 * (100 - seq))
        self.gaps = Gaps(
            self.broadcast,
            self.outbox,
            self.history,
            lambda: WALL_S + int(self.clock.seconds()),
            self.totals,
            self.log,
            kept,
        )

    def call(self, name: str, arguments: dict[str, object] | None = None) -> Deferred[Any]:
        """Answer nothing: the store is slow."""
        return Deferred()

    def pass_s(self, seconds: float) -> None:
        """Let time pass, with its ticks at the end."""
        self.clock.advance(seconds)
        self.gaps.tick()
        self.servers.settle()

    @property
    def said(self) -> list[bytes]:
        """What was announced."""
        return self.broadcast.added


def test_a_short_gap_is_nobodys_business() -> None:
    """The others announce the last minute again anyway."""
    bench = Bench()
    bench.gaps.lost(SURE_S)
    bench.pass_s(1)
    assert (bench.said, bench.gaps.text) == ([], "")


@pytest.mark.parametrize("since_s", [300.0, 299.2])
def test_a_longer_one_is_asked_for(since_s: float) -> None:
    """And again whenever a server has lost entries within an hour, since the same time; also by the next process."""
    bench = Bench()
    bench.gaps.lost(since_s)
    bench.servers.settle()
    assert bench.said == [AGAIN + b"300"]
    bench.pass_s(10)
    bench.gaps.lost(0.0)
    bench.pass_s(10)
    heir = Bench(bench.gaps.text)
    heir.gaps.lost(70.0)
    heir.servers.settle()
    assert heir.said == [AGAIN + b"300"]
    assert bench.said == [AGAIN + b"300", AGAIN + b"310"]
    bench.pass_s(ASKED_S + 1)
    bench.gaps.lost(0.0)
    bench.servers.settle()
    assert (len(bench.said), bench.gaps.text) == (2, "")
    assert bench.totals.asked_again == 2
    assert bench.log.lines == [("asking", 300), ("asking", 310)]


def test_a_question_waits_for_a_server() -> None:
    """And is asked once when there is one."""
    bench = Bench()
    bench.servers.down()
    bench.gaps.lost(float("inf"))
    bench.pass_s(1)
    bench.servers.up()
    bench.pass_s(1)
    bench.pass_s(1)
    assert bench.said == [AGAIN + b"%d" % (WALL_S + 2)]


def test_what_others_ask_for_is_announced_again() -> None:
    """A little more of it, as clocks may differ; and what waits for its turn anyway is not begun again."""
    bench = Bench()
    bench.gaps.heard(Wish(is_answer=False, seconds=590), 10.0)
    assert bench.outbox.progress.announced == 100 - 10 - 1
    assert bench.log.lines == [("once more", 11)]
    assert bench.said == []
    bench.pass_s(CALM_S)
    bench.gaps.heard(Wish(is_answer=False, seconds=300), 0.0)
    assert bench.outbox.progress.announced == 89
    assert len(bench.log.lines) == 1


def test_all_may_ask_at_once() -> None:
    """They are answered together, after the first one."""
    bench = Bench()
    for seconds in (300, 900, 600):
        bench.gaps.heard(Wish(is_answer=False, seconds=seconds), 0.0)
    assert bench.outbox.progress.announced == 94
    bench.outbox.progress.advance(100, 0.0)
    bench.pass_s(CALM_S - 1)
    assert bench.outbox.progress.announced == 100
    bench.pass_s(1)
    assert bench.outbox.progress.announced == 84


def test_an_answer_is_ended_before_the_next_one() -> None:
    """Whoever repeats a question without end does not keep the others from hearing the rest."""
    bench = Bench()
    for _ in range(5):
        bench.gaps.heard(Wish(is_answer=False, seconds=300), 0.0)
        bench.outbox.progress.advance(bench.outbox.progress.announced + 1, 0.0)
        bench.pass_s(CALM_S)
    assert bench.outbox.progress.announced == 99
    bench.outbox.progress.advance(100, 0.0)
    bench.pass_s(CALM_S)
    assert bench.outbox.progress.announced == 94


def test_who_cannot_go_back_so_far_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has asked since before then counts that, once; others do not."""
    monkeypatch.setattr("pyryrelay.nostr.replication.history.MAX_AGAIN", 10)
    bench, asking, other = Bench(), Bench(), Bench()
    bench.gaps.heard(Wish(is_answer=False, seconds=6000), 0.0)
    bench.servers.settle()
    assert bench.outbox.progress.announced == 90
    assert bench.said == [ONLY + b"600"]
    asking.gaps.lost(6000.0)
    for each in (asking, other):
        for _ in range(2):
            each.gaps.heard(Wish(is_answer=True, seconds=600), 5.0)
    assert (asking.totals.missed, other.totals.missed) == (1, 0)
    assert asking.log.lines == [("missed",)]
    asking.gaps.lost(600.0 + MARGIN_S)
    asking.gaps.heard(Wish(is_answer=True, seconds=600), 0.0)
    assert asking.totals.missed == 1
