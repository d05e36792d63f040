"""One writer for several workers: what one has stored reaches all others once and in order, whatever fails."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.model_store import ModelStore
from tests.support.nostr_relay import ALICE, BOB, WALL_S, Client, as_dict, event, json_of
from tests.support.nostr_workers import Host, received

from pyryrelay.nostr.storage.interface import StoreError, StoreInUseError
from pyryrelay.nostr.workers.shared.writer import IN_USE_S, RETRY_S, Opened, SharedWriter
from pyryrelay.nostr.workers.wire import Call, FromWriter, Join, Ready, Removed, Write, WriterConfig, Written, encode
from pyryrelay.nostr.workers.writer import SWEEP_S

EVERYTHING: dict[str, Any] = {"kinds": [1, 0, 20001]}


def test_what_one_worker_stores_reaches_the_others() -> None:
    """Once, with what each knows of it: the number of events, recent ids, and the subscription."""
    host = Host(3)
    host.settle()
    listeners = [worker.client() for worker in host.workers]
    for client in listeners:
        client.send(["REQ", "s", EVERYTHING])
    host.settle()
    one = event("hello")
    publisher = host.workers[1].client()
    publisher.send(["EVENT", as_dict(one)])
    host.settle()
    assert publisher.take() == [["OK", one.id, True, ""]]
    for client, worker in zip(listeners, host.workers, strict=True):
        assert received(client.take(), "s") == ["EOSE", one.id]
        assert worker.relay.stored_events == 1
        assert worker.relay.recent.has(one.id, host.clock.seconds())
    again = host.workers[2].client()
    again.send(["EVENT", as_dict(one)])
    host.settle()
    assert again.take() == [["OK", one.id, True, "duplicate: already have this event"]]


def test_events_that_are_gone_are_gone_everywhere() -> None:
    """Replaced ones, and those that an operator deletes; one worker counts them."""
    host = Host(2)
    host.settle()
    old, new = event("old", kind=0), event("new", kind=0, created_at=WALL_S + 1)
    publisher = host.workers[0].client()
    publisher.send(["EVENT", as_dict(old)])
    host.settle()
    publisher.send(["EVENT", as_dict(new)])
    host.settle()
    for worker in host.workers:
        assert worker.relay.stored_events == 1
        assert not worker.relay.recent.has(old.id, host.clock.seconds())
    assert [worker.relay.counts.deleted for worker in host.workers] == [1, 0]
    gone = host.workers[1].writer.call("delete", {"ids": [bytes.fromhex(new.id)], "forever": False})
    gone.addCallback(lambda ids: host.workers[1].relay.removed("tool", msgspec.convert(ids, list[bytes])))
    host.settle()
    assert [worker.relay.stored_events for worker in host.workers] == [0, 0]
    assert [worker.relay.counts.deleted for worker in host.workers] == [1, 1]


def test_a_worker_that_comes_later_knows_how_much_is_stored() -> None:
    """It hears of what is stored from then on, and of nothing that was stored before."""
    host = Host(2)
    host.settle()
    publisher = host.workers[0].client()
    publisher.send(*[["EVENT", as_dict(event(str(number)))] for number in range(3)])
    host.settle()
    later = type(host.workers[0])(host, host.workers[0].relay.options)
    host.settle()
    assert later.relay.stored_events == 3
    client = later.client()
    client.send(["REQ", "s", {"limit": 0}])
    host.settle()
    assert received(client.take(), "s") == ["EOSE"]


def test_a_worker_that_leaves_gets_its_answers_first() -> None:
    """What it has asked is answered, and the store is closed with the last worker."""
    host = Host(1)
    host.settle()
    worker = host.workers[0]
    client = worker.client()
    client.send(["EVENT", as_dict(event("last"))])
    host.clock.advance(0)
    closing = worker.writer.close()
    host.settle()
    assert client.take()[0][2] is True
    assert closing.called
    assert not host.writer.ends


def test_what_a_worker_has_missed_is_sent_again() -> None:
    """The writer dies when it has committed, before it could tell anybody: subscriptions get the event all the same."""
    host = Host(2)
    host.settle()
    listeners = [worker.client() for worker in host.workers]
    for client in listeners:
        client.send(["REQ", "s", {"limit": 0}])
    first, second = event("first"), event("second")
    publisher = host.workers[0].client()
    publisher.send(["EVENT", as_dict(first)])
    host.settle()
    publisher.send(["EVENT", as_dict(second)])
    for end in host.writer.ends.values():
        while end.up:
            end.pass_up()
    host.writer.worker.work()
    assert second.id in host.store.events
    host.restart_writer(-2)
    host.settle()
    assert [answer[2] for answer in publisher.take()] == [True, False]
    for client in listeners:
        assert received(client.take(), "s") == ["EOSE", first.id, second.id]
    assert {worker.relay.stored_events for worker in host.workers} == {2}


class Wires:
    """Keeps what is sent to whom."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Any]] = []
        self.closed: list[int] = []

    def send(self, number: int, body: bytes) -> None:
        """Keep a message."""
        self.sent.append((number, msgspec.msgpack.decode(body, type=FromWriter)))

    def close(self, number: int) -> None:
        """Keep that."""
        self.closed.append(number)


CONFIG = WriterConfig(database="sqlite:x")


def test_the_store_is_opened_when_another_process_lets_go_of_it() -> None:
    """Workers wait meanwhile, with all that they have sent; but not for ever."""
    wires, now = Wires(), [100.0]
    host = Host(1)
    tries: list[float] = []

    def open_store(config: WriterConfig) -> Opened:
        tries.append(now[0])
        if len(tries) < 3:
            raise StoreInUseError("in use")
        return Opened(host.store, "sqlite:/found")

    writer = SharedWriter(wires, open_store, lambda: now[0], lambda: WALL_S)
    writer.work()
    assert writer.wait_s() is None
    writer.joined(1)
    for message in (CONFIG, Join(), Write(7, [event("x").content.encode()][:0]), Call(8, "statistics", {})):
        writer.receive(1, encode(message))
    writer.work()
    writer.work()
    assert len(tries) == 1
    assert writer.wait_s() == pytest.approx(RETRY_S)
    for _ in range(2):
        now[0] += RETRY_S
        writer.work()
    writer.work()
    assert [type(message) for _, message in wires.sent][:2] == [Ready, Written]
    assert wires.sent[0][1].database == "sqlite:/found"
    writer.left(1)
    assert wires.closed == [1]
    writer.work()
    assert writer.wait_s() is None


def test_a_store_that_stays_in_use_is_an_error() -> None:
    """After a minute the child ends with the reason, and is started again later."""
    now = [0.0]

    def open_store(config: WriterConfig) -> Opened:
        raise StoreInUseError("in use")

    writer = SharedWriter(Wires(), open_store, lambda: now[0], lambda: WALL_S)
    writer.joined(1)
    writer.receive(1, encode(CONFIG))
    writer.work()
    now[0] += IN_USE_S
    with pytest.raises(StoreError, match="in use"):
        writer.work()


def test_a_worker_that_leaves_before_the_store_is_open_is_let_go() -> None:
    """Unless it waits for answers."""
    wires = Wires()

    def open_store(config: WriterConfig) -> Opened:
        raise StoreInUseError("in use")

    writer = SharedWriter(wires, open_store, lambda: 0.0, lambda: WALL_S)
    for number in (1, 2):
        writer.joined(number)
        writer.receive(number, encode(CONFIG))
        writer.receive(number, encode(Join()))
    writer.receive(2, encode(Write(1, [b"x"])))
    writer.left(1)
    writer.left(2)
    assert wires.closed == [1]


def test_housekeeping_is_counted_by_one_worker() -> None:
    """What the writer removes by itself is known to all, and counted once."""
    store, wires, now = ModelStore(), Wires(), [0.0]
    expiring = event("gone soon", tags=[["expiration", str(WALL_S + 1)]])
    store.write([json_of(expiring)], received_s=WALL_S)
    writer = SharedWriter(wires, lambda config: Opened(store, "x"), lambda: now[0], lambda: WALL_S + now[0])
    for number in (1, 2, 3):
        writer.joined(number)
        writer.receive(number, encode(CONFIG))
        writer.receive(number, encode(Join()))
    writer.work()
    now[0] += SWEEP_S
    writer.work()
    removed = [(number, message.is_counted) for number, message in wires.sent if isinstance(message, Removed)]
    assert removed == [(1, True), (2, False), (3, False)]


# Interleavings


class Listener:
    """A subscription of a test, and what must have been delivered to it."""

    def __init__(self, client: Client, number: int, filters: dict[str, Any], known: set[str]) -> None:
        self.client = client
        self.id = f"s{number}"
        self.is_live_only = filters.get("limit") == 0
        self.before = known
        self.closed_at: int | None = None
        self.messages: list[Any] = []
        client.send(["REQ", self.id, filters])

    def take(self) -> None:
        """Keep what has come."""
        self.messages += self.client.peer.take()

    def close(self) -> None:
        """Close the subscription."""
        self.take()
        self.client.send(["CLOSE", self.id])
        self.take()
        self.closed_at = len(self.messages)


class Play:
    """A host under a random course of events."""

    def __init__(self, count: int) -> None:
        self.host = Host(count)
        self.host.settle()
        self.publishers = [worker.client() for worker in self.host.workers]
        self.listeners: list[Listener] = []
        self.published: dict[str, int] = {}

    def publish(self, worker: int, kind: int) -> None:
        """Publish a new event."""
        number = len(self.published)
        one = event(str(number), kind=kind, author=(ALICE, BOB)[number % 2], created_at=WALL_S + number)
        self.published[one.id] = kind
        self.publishers[worker].send(["EVENT", as_dict(one)])

    def listen(self, worker: int, *, is_live_only: bool) -> None:
        """Open a subscription."""
        filters = EVERYTHING | ({"limit": 0} if is_live_only else {})
        client = self.host.workers[worker].client()
        self.listeners.append(Listener(client, len(self.listeners), filters, set(self.published)))

    def check(self) -> None:
        """Check what everybody has received."""
        host = self.host
        host.settle()
        for _ in range(8):
            host.pass_s(1.0)
        stored = {id_ for id_, kind in self.published.items() if kind == 1 and id_ in host.store.events}
        for listener in self.listeners:
            listener.take()
            got = received(listener.messages, listener.id)
            counts = Counter(got)
            assert counts["EOSE"] <= 1
            assert max(counts.values(), default=0) <= 1, "something was sent twice"
            if listener.closed_at is not None:
                assert len(listener.messages) == listener.closed_at, "something was sent after CLOSE"
                continue
            assert counts["EOSE"] == 1
            wanted = {id_ for id_ in stored if not listener.is_live_only or id_ not in listener.before}
            assert wanted <= set(got), "something was lost"
            passing = {id_ for id_, kind in self.published.items() if kind == 20001}
            assert passing - listener.before <= set(got), "an ephemeral event was lost"
            live = [host.store.seqs[id_] for id_ in got[got.index("EOSE") + 1 :] if id_ in stored]
            assert live == sorted(live), "live events are out of order"
        answers = [one for client in self.publishers for one in client.peer.take() if one[0] == "OK"]
        assert sorted(one[1] for one in answers) == sorted(self.published), "each event is answered once"
        for _, id_, is_good, _ in answers:
            if is_good and self.published[id_] == 1:
                assert id_ in host.store.events
        assert {worker.relay.stored_events for worker in host.workers} == {len(host.store.events)}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 2), st.sampled_from([1, 1, 1, 0, 20001])),
        st.tuples(st.just("listen"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("close"), st.integers(0, 9), st.none()),
        st.tuples(st.just("up"), st.integers(0, 9), st.none()),
        st.tuples(st.just("down"), st.integers(0, 9), st.none()),
        st.tuples(st.just("down"), st.integers(0, 9), st.none()),
        st.tuples(st.just("work"), st.none(), st.none()),
        st.tuples(st.just("commit"), st.none(), st.none()),
        st.tuples(st.just("answer"), st.none(), st.none()),
        st.tuples(st.just("turn"), st.none(), st.none()),
        st.tuples(st.just("query"), st.integers(0, 9), st.none()),
        st.tuples(st.just("kill"), st.integers(0, 4), st.none()),
    ),
    max_size=60,
)


def step(play: Play, what: str, where: Any, how: Any) -> None:
    """Take one step."""
    host = play.host
    match what:
        case "publish":
            play.publish(where % len(host.workers), how)
        case "listen":
            play.listen(where % len(host.workers), is_live_only=how)
        case "close":
            open_ = [one for one in play.listeners if one.closed_at is None]
            if open_:
                open_[where % len(open_)].close()
        case "turn":
            host.clock.advance(0)
        case "query":
            queries = [query for worker in host.workers for query in worker.readers.running]
            if queries:
                queries[where % len(queries)].go_on()
        case "kill":
            host.restart_writer(where)
        case _:
            move(host, what, where)


def move(host: Host, what: str, where: Any) -> None:
    """Pass frames on, and let the writer work."""
    if what == "commit":  # all that is on its way to the writer
        for end in list(host.writer.ends.values()):
            while end.up:
                end.pass_up()
    if what == "answer":  # all that is on its way to the workers
        for end in host.ends:
            while end.down:
                end.pass_down()
    if what in ("work", "commit"):
        host.writer.worker.work()
    ends = [end for end in host.ends if (end.up if what == "up" else end.down)]
    if what in ("up", "down") and ends:
        end = ends[where % len(ends)]
        (end.pass_up if what == "up" else end.pass_down)()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(count=st.integers(2, 3), steps=STEPS)
def test_everything_arrives_once_in_any_interleaving(count: int, steps: list[tuple[str, Any, Any]]) -> None:
    """Events, subscriptions, queries, commits and deaths of the writer, in any order.

    Each open subscription gets each stored event once, before or behind its one EOSE, live ones in the order of their
    numbers; a closed one gets nothing more; each event is answered once, and what was answered true is there.
    """
    play = Play(count)
    for what, where, how in steps:
        step(play, what, where, how)
    play.check()
