"""Live delivery."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tests.support.nostr_relay import BOB, WALL_S, Client, World, as_dict, event, json_of

from pyryrelay.guard.client import named
from pyryrelay.nostr.events import Event
from pyryrelay.nostr.serving import fanout
from pyryrelay.nostr.serving.queries.subscription import Subscription


def listeners(world: World, count: int, *ids: str) -> list[Client]:
    """Return clients that have subscribed to everything live, under each id."""
    clients = [world.client(named(f"192.0.2.{number}")) for number in range(count)]
    for client in clients:
        client.send(*[["REQ", id_, {"limit": 0}] for id_ in ids or ("s",)])
        client.take()
    return clients


def commit(world: World, *events: Event) -> None:
    """Tell the relay that events were committed."""
    first = world.writer.seq + 1
    world.writer.seq += len(events)
    world.relay.fanout.committed([(one, json_of(one), first + place) for place, one in enumerate(events)])


def test_publishers_do_not_wait_for_delivery() -> None:
    """Nothing is delivered in the turn of the commit."""
    world = World()
    (client,) = listeners(world, 1)
    commit(world, one := event())
    assert client.peer.wire == []
    assert client.take() == [["EVENT", "s", as_dict(one)]]


def test_events_of_one_commit_are_sent_together() -> None:
    """A subscriber is written to once, in the order of the commits."""
    world = World()
    (client,) = listeners(world, 1)
    events = [event(str(number)) for number in range(5)]
    sends = client.peer.sends
    commit(world, *events)
    world.turn()
    assert client.peer.sends == sends + 1
    assert client.take() == [["EVENT", "s", as_dict(one)] for one in events]


def test_turns_are_of_bounded_length(monkeypatch: Any) -> None:
    """Delivery to many goes on in later turns of the reactor."""
    world = World()
    clients = listeners(world, 100)
    delivered: list[Subscription] = []
    deliver = fanout.Fanout._deliver

    def slow(self: fanout.Fanout, subscription: Subscription, *rest: Any) -> None:
        delivered.append(subscription)
        world.clock.rightNow += 0.001
        deliver(self, subscription, *rest)

    monkeypatch.setattr(fanout.Fanout, "_deliver", slow)
    commit(world, event("1"), event("2"))
    turns = 0
    while len(delivered) < len(clients):
        world.one_turn()
        turns += 1
        assert len(delivered) <= 32 * turns
    assert all(len(client.peer.take()) == 2 for client in clients)


def test_a_subscription_that_is_closed_between_two_turns_gets_nothing(monkeypatch: Any) -> None:
    """It was matched, but is not sent anything."""
    world = World()
    clients = listeners(world, 40)
    monkeypatch.setattr(fanout, "TURN_S", 0.0)
    commit(world, event())
    world.one_turn()
    late = [client for client in clients if not client.peer.wire]
    assert len(late) == 8
    for client in late:
        client.send(["CLOSE", "s"])
    assert all(client.take() == [] for client in late)


def test_what_is_deleted_before_its_turn_is_not_delivered() -> None:
    """Neither if the deletion comes after the commit, nor if it is reported just before it."""
    world = World()
    (client,) = listeners(world, 1)
    first, second = event("1"), event("2")
    commit(world, first)
    world.relay.removed("written", [bytes.fromhex(first.id), bytes.fromhex(second.id)])
    commit(world, second)
    assert client.take() == []
    assert world.relay.counts.deleted == 2


def test_nothing_of_hidden_authors_is_delivered() -> None:
    """Neither what a tool imports nor ephemeral events, also if the author is denied after the REQ."""
    world = World()
    (client,) = listeners(world, 1)
    commit(world, before := event("before", author=BOB))
    assert client.take() == [["EVENT", "s", as_dict(before)]]
    world.configure(nostr_deny_pubkey=frozenset({BOB}))
    commit(world, event("after", author=BOB), other := event("other"))
    assert client.take() == [["EVENT", "s", as_dict(other)]]
    hidden = event(kind=20_001, author=BOB)
    assert not world.relay.fanout.ephemeral(hidden, json_of(hidden))
    world.configure(nostr_deny_hides=False)
    assert world.relay.fanout.ephemeral(hidden, json_of(hidden))


def test_what_expires_before_its_turn_is_not_delivered() -> None:
    """At the second of its expiration an event is sent to nobody."""
    world = World()
    (client,) = listeners(world, 1)
    commit(world, event(tags=[["expiration", str(WALL_S + 1)]]))
    world.wall_s += 1
    assert client.take() == []


def test_an_expiration_that_cannot_be_read_does_not_matter() -> None:
    """It cannot be stored by the rules of today, but perhaps by those of another day."""
    world = World()
    (client,) = listeners(world, 1)
    commit(world, one := event(tags=[["expiration", "soon"]]))
    assert client.take() == [["EVENT", "s", as_dict(one)]]


def test_an_ephemeral_before_a_stored_event_does_not_hide_its_number() -> None:
    """Events of one turn are compared with the snapshot one by one."""
    world = World()
    (client,) = listeners(world, 1)
    client.session._querying.subscriptions["s"].snapshot = 5  # type: ignore[union-attr]
    ephemeral, old = event("e", kind=20001), event("old")
    world.relay.fanout.ephemeral(ephemeral, json_of(ephemeral))
    commit(world, old)
    assert client.take() == [["EVENT", "s", as_dict(ephemeral)]]


def test_deliveries_are_counted() -> None:
    """One for each event and subscription."""
    world = World()
    listeners(world, 3, "a", "b")
    commit(world, event("1"), event("2"))
    world.turn()
    assert world.relay.counts.fanout_deliveries == 12
    assert world.relay.counts.sent["EVENT"] == 12


def test_publishers_wait_for_a_delivery_that_is_far_behind(monkeypatch: Any) -> None:
    """What waits to be delivered is bounded; publishers go on when half of it is delivered."""
    world = World()
    listeners(world, 1)
    monkeypatch.setattr(fanout, "MAX_WAITING_EVENTS", 100)
    publisher = world.client()
    publisher.send(*[["EVENT", as_dict(event(str(number)))] for number in range(101)])
    reads = [publisher.is_read]
    world.verifiers.is_prompt = False
    publisher.send(["EVENT", as_dict(event("next"))])
    reads.append(publisher.is_read)
    world.verifiers.answer()
    reads.append(publisher.is_read)
    world.turn()
    reads.append(publisher.is_read)
    assert reads == [True, False, False, True]


def test_large_filters_that_have_ended_are_cleared_in_turns() -> None:
    """A connection that ends does not hold the reactor while the values of its filters are forgotten."""
    world = World()
    client = world.client()
    for number in range(5):
        authors = [f"{number:032x}{author:032x}" for author in range(fanout.TIDIED_VALUES)]
        client.send(["REQ", str(number), {"authors": authors, "limit": 0}])
    client.leave()
    index = world.relay.fanout._index
    left = []
    while index.is_untidy:
        left.append(len(index._places["authors"]))
        world.one_turn()
    assert len(left) >= 4
    assert all(before - after <= fanout.TIDIED_VALUES for before, after in pairwise(left))
    assert (len(index), any(index._places.values())) == (0, False)
