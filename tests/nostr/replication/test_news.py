"""The fast lane: at once, bounded, and left out when its turn comes."""

from __future__ import annotations

import pytest
from tests.support.broadcasts import FakeServers
from tests.support.nostr_relay import event, json_of
from twisted.internet.task import Clock

from pyryrelay.broadcast import MAX_BODY_BYTES
from pyryrelay.nostr.replication import news as module
from pyryrelay.nostr.replication.news import News
from pyryrelay.nostr.replication.progress import Progress
from pyryrelay.nostr.replication.totals import Totals


class Bench:
    """A lane past 100 events that wait, and a server."""

    def __init__(self) -> None:
        self.servers = FakeServers(Clock())
        self.broadcast = self.servers.member()
        self.progress = Progress(0, 100, 0.0)
        self.totals = Totals()
        self.news = News(self.broadcast, self.progress, self.totals)

    def publish(self, *seqs: int) -> None:
        """Announce events with these numbers."""
        for seq in seqs:
            self.news.put(seq, json_of(event(str(seq))))
        self.news.send()
        self.servers.settle()

    @property
    def added(self) -> list[bytes]:
        """The events that were announced, in order."""
        return [body[1:] for body in self.broadcast.added]


def test_it_is_announced_past_what_waits() -> None:
    """And left out later, while the others wait on."""
    bench = Bench()
    bench.progress.stored(102)
    bench.publish(101, 102)
    assert bench.added == [json_of(event("101")), json_of(event("102"))]
    assert (bench.progress.announced, bench.progress.waiting) == (0, 102)
    assert [bench.progress.is_told(seq) for seq in (100, 101, 102)] == [False, True, True]
    bench.progress.advance(100, 1.0)
    assert bench.progress.waiting == 0
    assert bench.totals.announced == 2
    assert len(bench.news) == 0


def test_what_is_on_its_way_is_known() -> None:
    """So nobody announces it a second time meanwhile."""
    bench = Bench()
    bench.news.put(101, json_of(event("x")))
    assert not bench.news.are_under_way([101])
    bench.news.send()
    assert bench.news.are_under_way([100, 101])
    assert not bench.news.are_under_way([100, 102])
    bench.servers.settle()
    assert not bench.news.are_under_way([101])


def test_it_waits_for_a_server() -> None:
    """And is forgotten if it was announced in its turn by then."""
    bench = Bench()
    bench.servers.down()
    bench.publish(101, 102)
    assert bench.added == []
    assert len(bench.news) == 2
    bench.progress.advance(101, 1.0)
    bench.servers.up()
    bench.news.send()
    bench.servers.settle()
    assert bench.added == [json_of(event("102"))]
    assert len(bench.news) == 0


def test_what_a_server_may_have_lost_is_announced_in_its_turn() -> None:
    """Whether it was on its way or there when the server ended."""
    bench = Bench()
    bench.progress.stored(102)
    bench.publish(101)
    bench.news.put(102, json_of(event("102")))
    bench.news.send()
    bench.progress.rewind(1.0)
    bench.servers.settle()
    assert not bench.progress.is_told(101)
    assert not bench.progress.is_told(102)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number, in bytes, and in what is remembered; the rest waits in the store."""
    bench = Bench()
    monkeypatch.setattr(module, "MAX_NEWS", 2)
    assert [bench.news.put(seq, b"{}") for seq in (101, 102, 103)] == [True, True, False]
    bench = Bench()
    assert not bench.news.put(101, b"x" * MAX_BODY_BYTES)
    monkeypatch.setattr(module, "MAX_NEWS", 100)
    monkeypatch.setattr(module, "MAX_NEWS_BYTES", 1000)
    assert [bench.news.put(seq, b"x" * 500) for seq in (101, 102)] == [True, False]
    monkeypatch.setattr("pyryrelay.nostr.replication.progress.MAX_AHEAD", 0)
    assert not bench.news.put(103, b"x")
