"""One process of a relay shares events with other hosts, while it has the store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.broadcasts import FakeServers
from tests.support.children import FakeChild, FakeChildren
from tests.support.nostr_settings import settings
from tests.support.scrape import key, samples_of
from tests.support.services import services
from twisted.internet.task import Clock

from pyryrelay.nostr.mount import NOSTR
from pyryrelay.nostr.observe.panel import PANEL
from pyryrelay.nostr.running import Nostr
from pyryrelay.nostr.workers.wire import Answer, Call, Ready, ToWriter
from pyryrelay.observe.metrics import exposition


class Mounted:
    """A protocol in a worker of a relay in a cluster; its children are fakes."""

    def __init__(self, index: int = 0, *, is_clustered: bool = True, count: int = 1, **options: Any) -> None:
        self.children = FakeChildren()
        self.clock = Clock()
        self.servers = FakeServers(self.clock)
        start_child: Any = self.children.services.start_child
        made = replace(
            services(self.clock),
            start_child=start_child,
            start_shared=lambda name, received, ended: start_child([name], received, ended),
            worker_index=index,
            worker_count=count,
            broadcast=(lambda subject: self.servers.member()) if is_clustered else None,
        )
        built = NOSTR.build(settings(**options), made)
        assert isinstance(built, Nostr)
        self.nostr = built

    @property
    def writer(self) -> FakeChild:
        """The last writer."""
        return next(child for child in reversed(self.children.started) if child.arguments[-1].endswith("writer"))

    def open(self) -> None:
        """Let the store be open."""
        self.nostr.start()
        self.writer.answer(Ready(5, 3, "sqlite:/found"))

    def calls(self, *names: str) -> list[Call]:
        """Return the calls of these names that the writer has got since this was asked before; the others fail."""
        found = [one for one in self.writer.take(ToWriter) if isinstance(one, Call)]
        for one in found:
            if one.name not in names:
                self.writer.answer(Answer(one.number, None, "it is busy"))
        return [one for one in found if one.name in names]

    def begin(self, **positions: str) -> None:
        """Tell it where to go on."""
        (asked,) = self.calls("positions")
        self.writer.answer(Answer(asked.number, {"positions": positions, "last_seq": 5}))
        self.servers.settle()


@pytest.mark.parametrize("mounted", [Mounted(is_clustered=False), Mounted(nostr_share_events=False)])
def test_without_a_cluster_nothing_is_shared(mounted: Mounted) -> None:
    """The store is not asked for anything, and nothing is shown of it; the same if the operator wants it so."""
    mounted.open()
    mounted.clock.advance(60)
    assert mounted.calls("positions", "since", "keep_positions") == []
    assert len([*mounted.nostr.collectors()]) == 1
    assert not [name for name in mounted.nostr.figures() if name.startswith("cluster")]
    assert mounted.nostr.panel() is PANEL
    assert not mounted.nostr.relay.is_clustered


def test_it_begins_when_the_store_is_open() -> None:
    """With what the store knows; it goes on with the same when the writer was started again."""
    mounted = Mounted()
    mounted.nostr.start()
    assert mounted.servers.members == []
    mounted.writer.answer(Ready(5, 3))
    mounted.begin(announced="2")
    (asked,) = mounted.calls("since")
    assert asked.arguments["seq"] == 2
    mounted.writer.answer(Ready(5, 3))
    mounted.servers.settle()
    assert len(mounted.servers.members) == 1


def test_a_store_that_cannot_tell_is_asked_again() -> None:
    """Until it can."""
    mounted = Mounted()
    mounted.open()
    (asked,) = mounted.calls("positions")
    mounted.writer.answer(Answer(asked.number, None, "it is locked"))
    mounted.clock.advance(1.0)
    mounted.begin()
    assert len(mounted.servers.members) == 1


def test_one_worker_speaks_for_its_host() -> None:
    """The others know that there are other hosts, and show the same."""
    first, second = Mounted(0, count=2), Mounted(1, count=2)
    for mounted in (first, second):
        mounted.open()
    first.begin()
    assert second.calls("positions") == []
    assert second.nostr.relay.is_clustered
    assert first.nostr.figures().keys() == second.nostr.figures().keys()
    assert len(first.nostr.panel().plots) > len(PANEL.plots)
    samples = samples_of(exposition(first.nostr.collectors())().decode())
    assert samples[key("pyryrelay_nostr_cluster_waiting_events", {})] == 5
    assert len([*second.nostr.collectors()]) == 1


def test_the_positions_are_kept_before_the_store_is_closed() -> None:
    """At a hand-over as at the end; afterwards nothing is read or announced."""
    for end in ("stop", "hand_over"):
        mounted = Mounted()
        mounted.open()
        mounted.begin(announced="2")
        (at_start,) = mounted.calls("keep_positions")
        assert "announced before" in str(at_start.arguments)
        mounted.writer.answer(Answer(at_start.number, None))
        other = mounted.servers.member()
        other.add(b"k", b"?")
        mounted.servers.settle()
        getattr(mounted.nostr, end)(*([0.0] if end == "hand_over" else []))
        (kept,) = mounted.calls("keep_positions")
        assert kept.arguments == {"positions": {"taken in from 0": "1/1/0.0"}}
        is_closed = [mounted.writer.is_closed]
        mounted.writer.answer(Answer(kept.number, None))
        assert [*is_closed, mounted.writer.is_closed] == [False, True]
        assert mounted.servers.members[0].is_stopped


def test_a_relay_that_is_taken_back_shares_again() -> None:
    """With a new broadcast."""
    mounted = Mounted()
    mounted.open()
    mounted.begin()
    mounted.nostr.hand_over(0.0)
    for one in mounted.calls("keep_positions", "since"):
        mounted.writer.answer(Answer(one.number, None, "it is busy"))
    for child in list(mounted.children.started):
        child.end("")
    mounted.nostr.take_back()
    mounted.clock.advance(0)
    mounted.writer.answer(Ready(6, 4))
    mounted.begin()
    assert [member.is_stopped for member in mounted.servers.members] == [True, False]


def test_the_last_events_are_announced_before_the_end() -> None:
    """For as long as that takes, up to two seconds."""
    mounted = Mounted()
    mounted.open()
    mounted.begin(announced="4")
    draining = mounted.nostr.drain()
    assert draining is not None
    is_drained = [bool(draining.called)]
    mounted.clock.advance(2.0)
    assert [*is_drained, bool(draining.called)] == [False, True]
