"""The announcing: order, size, pace, and what happens when the store or a server fails."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from tests.support.broadcasts import FakeServers
from tests.support.nostr_hosts import HostLog
from tests.support.nostr_relay import event, json_of
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from pyryrelay.broadcast import MAX_BODY_BYTES, BroadcastError
from pyryrelay.nostr.replication.outbox import MANY, MANY_PER_S, MAX_BYTES, MOST, NEWS_S, RETRY_S, Outbox
from pyryrelay.nostr.replication.progress import Progress
from pyryrelay.nostr.replication.totals import Totals
from pyryrelay.nostr.workers.store_writer import WriterError


class Bench:
    """An outbox, a server, and a store that has what the test says. ``asked`` are the arguments of its calls."""

    def __init__(self, announced: int = 0, events: Sequence[bytes] = ()) -> None:
        self.clock = Clock()
        self.servers = FakeServers(self.clock)
        self.broadcast = self.servers.member()
        self.rows = dict(enumerate(events, 1))
        self.asked: list[dict[str, object]] = []
        self.fails = False
        self.totals = Totals()
        self.log = HostLog()
        self.progress = Progress(announced, len(events), 0.0)
        self.outbox = Outbox(
            self.broadcast,
            self,
            self.progress,
            self.clock.seconds,
            self.clock.callLater,
            self.totals,
            self.log,
        )

    def call(self, name: str, arguments: dict[str, object] | None = None) -> Deferred[object]:
        """See `pyryrelay.nostr.replication.outbox.Caller`."""
        assert name == "since"
        assert arguments is not None
        self.asked.append(arguments)
        if self.fails:
            return fail(WriterError("the disk is full"))
        seq, most = msgspec.convert(arguments["seq"], int), msgspec.convert(arguments["most"], int)
        return succeed([[number, json] for number, json in self.rows.items() if number > seq][:most])

    def store(self, *events: bytes) -> None:
        """Store events."""
        for one in events:
            self.rows[len(self.rows) + 1] = one
        self.outbox.stored(len(self.rows))
        self.servers.settle()

    def publish(self, one: bytes) -> None:
        """Have a client publish an event."""
        self.rows[len(self.rows) + 1] = one
        self.outbox.published([(len(self.rows), one)])
        self.outbox.stored(len(self.rows))
        self.servers.settle()

    @property
    def added(self) -> list[bytes]:
        """The events that were announced, in order."""
        return [body[1:] for body in self.broadcast.added]


def has_fired(deferred: Deferred[None]) -> bool:
    """Tell whether a Deferred has fired."""
    return bool(deferred.called)


def texts(count: int, size: int = 0) -> list[bytes]:
    """Return events of a size."""
    return [json_of(event(f"{number}" + "x" * size)) for number in range(count)]


def test_nothing_is_announced_before_there_is_a_server() -> None:
    """And everything in order when there is one, in pieces."""
    events = texts(MOST + 10)
    bench = Bench(5, events)
    bench.outbox.wake()
    bench.store()
    assert bench.asked == []
    bench.outbox.connected()
    bench.servers.settle()
    assert bench.added == events[5:]
    assert [one["seq"] for one in bench.asked] == [5, MOST + 5]
    assert bench.asked[0] == {"seq": 5, "most": MOST, "max_bytes": MAX_BYTES}
    assert bench.totals.announced == MOST + 5


def test_what_comes_meanwhile_is_announced_next() -> None:
    """One piece after the other."""
    bench = Bench()
    bench.outbox.connected()
    first, *rest = texts(4)
    bench.rows[1] = first
    bench.outbox.stored(1)
    assert bench.asked == []  # an OK goes first
    bench.outbox.wake()
    for one in rest:
        bench.rows[len(bench.rows) + 1] = one
        bench.outbox.stored(len(bench.rows))
    bench.servers.settle()
    assert bench.added == [first, *rest]
    assert len(bench.asked) == 2


def test_events_that_are_gone_are_left_out() -> None:
    """Numbers without an event do not wait for ever."""
    bench = Bench(0, texts(3))
    bench.rows.clear()
    bench.outbox.connected()
    bench.servers.settle()
    assert bench.progress.waiting == 0
    assert bench.added == []


def test_events_that_are_too_large_are_left_out() -> None:
    """They are counted and logged, and those behind them are announced."""
    small = json_of(event("small"))
    bench = Bench(0, [*texts(1, MAX_BODY_BYTES), small])
    bench.outbox.connected()
    bench.servers.settle()
    assert bench.added == [small]
    assert bench.totals.too_large == 1
    assert bench.log.lines[0][0] == "too large"


def test_a_store_that_fails_is_asked_again() -> None:
    """Later and later; nothing is asked meanwhile for what comes."""
    bench = Bench(0, texts(1))
    bench.fails = True
    bench.outbox.connected()
    bench.store(*texts(2)[1:])
    assert len(bench.asked) == 1
    for seconds in (RETRY_S, 2 * RETRY_S):
        bench.clock.advance(seconds)
    assert len(bench.asked) == 3
    bench.fails = False
    bench.clock.advance(4 * RETRY_S)
    bench.servers.settle()
    assert bench.added == texts(2)
    assert bench.log.lines == [("stopped", "the disk is full"), ("again", 0)]


def test_a_server_that_is_back_is_used_at_once() -> None:
    """The time for another try is not waited for. What it may have lost is announced again some seconds later."""
    bench = Bench(0, texts(1))
    bench.outbox.connected()
    bench.servers.down()
    bench.clock.advance(0)
    bench.servers.settle()
    assert bench.added == []
    bench.servers.up()
    bench.outbox.connected()
    bench.servers.settle()
    assert bench.added == texts(1)
    bench.clock.advance(60)
    bench.servers.settle()
    assert bench.added == texts(1) * 2


def test_very_many_events_are_announced_at_a_pace() -> None:
    """So that the others read them in time, and the servers do not forget them before."""
    bench = Bench(0, texts(1) * (2 * MANY))
    bench.outbox.connected()
    bench.servers.settle()
    assert len(bench.added) == MANY + MOST
    for passed in range(1, 4):
        bench.clock.advance(MOST / MANY_PER_S)
        bench.servers.settle()
        assert len(bench.added) == MANY + (1 + passed) * MOST
    bench.clock.pump([MOST / MANY_PER_S] * (MANY // MOST))
    assert len(bench.added) == 2 * MANY


def test_what_clients_publish_passes_what_waits() -> None:
    """At once, and once: also if it could not be announced at first, and when its turn comes."""
    backlog = texts(2 * MANY)
    bench = Bench(0, backlog)
    bench.outbox.connected()
    bench.servers.settle()
    first, second, third = (json_of(event(f"news {number}")) for number in range(3))
    bench.publish(first)
    assert bench.added[-1] == first
    bench.servers.down()
    bench.publish(second)
    assert bench.added[-1] == first
    bench.clock.advance(1.0)
    bench.servers.up()
    bench.outbox.wake()
    bench.servers.settle()
    assert second in bench.added
    bench.publish(third)
    assert bench.added[-1] == third
    bench.clock.pump([MOST / MANY_PER_S] * (2 * MANY // MOST))
    assert bench.progress.waiting == 0
    assert len(bench.added) == 2 * MANY + 3
    assert set(bench.added) == {*backlog, first, second, third}


def test_a_turn_waits_for_what_is_announced_ahead() -> None:
    """If it fails there, it is announced in its turn."""
    bench = Bench(0, texts(MOST + 2))
    adds: list[Deferred[None]] = []

    def add(key: bytes, body: bytes) -> Deferred[None]:
        adds.append(Deferred())
        return adds[-1]

    bench.broadcast.add = add  # type: ignore[method-assign]
    bench.outbox.connected()
    assert len(adds) == MOST
    bench.publish(json_of(event("news")))
    assert len(adds) == MOST + 1
    for added in adds[:MOST]:
        added.callback(None)
    assert bench.progress.waiting == 3
    assert len(adds) == MOST + 1
    adds[MOST].errback(BroadcastError("the server is down"))
    bench.clock.advance(NEWS_S)
    assert len(adds) == MOST + 4
    for added in adds[MOST + 1 :]:
        added.callback(None)
    assert bench.progress.waiting == 0


def test_without_a_backlog_there_is_one_order() -> None:
    """What clients publish is read from the store with the rest."""
    bench = Bench()
    bench.outbox.connected()
    bench.publish(texts(1)[0])
    assert bench.added == texts(1)
    assert len(bench.asked) == 1


def test_waiting_until_it_is_idle() -> None:
    """Fires when all is announced, when it cannot be announced, and at the end."""
    bench = Bench()
    assert bench.outbox.when_idle().called
    bench.outbox.connected()
    bench.rows[1] = texts(1)[0]
    bench.progress.stored(1)
    idle = bench.outbox.when_idle()
    assert not has_fired(idle)
    bench.servers.settle()
    assert has_fired(idle)
    bench.servers.down()
    bench.progress.stored(2)
    bench.rows[2] = texts(2)[1]
    assert bench.outbox.when_idle().called
    waiting: Deferred[object] = Deferred()
    bench.call = lambda name, arguments=None: waiting  # type: ignore[method-assign]
    stopping = bench.outbox.when_idle()
    assert not has_fired(stopping)
    bench.outbox.stop()
    assert has_fired(stopping)
    waiting.callback([[2, texts(2)[1]]])
    bench.servers.settle()
    assert len(bench.added) == 1
