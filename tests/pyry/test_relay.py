"""The relay: who holds a server-id, and who is closed with what."""

from __future__ import annotations

import itertools
import re

import pytest
from tests.support.pyry import (
    A,
    B,
    Link,
    RecordedEvents,
    World,
    assert_closed,
    assert_open,
    envelope,
    notice,
    wrapped,
)

from pyryrelay.pyry.relay import ENDPOINTS, OUTCOMES

TOKEN = "a-token-that-nobody-may-see"


# Binary leg


def test_the_first_claim_wins(world: World) -> None:
    """A binary holds its server-id from the upgrade on, by the header alone."""
    binary = world.binary(version="9.9")
    assert_open(binary.peer)
    assert (binary.peer.sent, binary.peer.pings, world.timers) == ([], [], [])
    assert world.registry.binaries == 1
    assert [event[:3] for event in world.events.log] == [("claimed", A, "9.9")]
    assert world.counters.upgrades["server", "accept"] == 1


def test_a_second_claim_waits_for_a_ping(world: World) -> None:
    """The incumbent is pinged, the newcomer neither seated nor closed, and the phones notice nothing."""
    incumbent, phone = world.binary(), world.phone()
    newcomer = world.binary()
    assert len(incumbent.peer.pings) == 1
    assert newcomer.peer.pings == []
    for link in (incumbent, newcomer, phone):
        assert_open(link.peer)
    assert len(world.events.named("claimed")) == 1
    assert world.counters.upgrades["server", "accept"] == 1


def test_an_incumbent_that_answers_stays(world: World) -> None:
    """The newcomer is closed with 4409, up to the last moment of the 10 s."""
    incumbent, phone = world.binary(), world.phone()
    newcomer = world.binary()
    world.clock.advance(9.99)
    incumbent.peer.answer()
    assert_closed(newcomer.peer, 4409, "server-id already claimed")
    world.clock.advance(60)
    assert_open(incumbent.peer)
    assert_open(phone.peer)
    assert world.timers == []
    assert world.counters.upgrades["server", "reject_409"] == 1
    assert world.counters.register_failures["server_in_use"] == 1
    assert ("closed_by_registry", A, 4409, "server-id already claimed") in world.events.log


def test_an_incumbent_that_does_not_answer_is_taken_over(world: World) -> None:
    """After 10 s it is closed with 1011, its phones with 4404, and the newcomer is seated."""
    incumbent, phone = world.binary(version="old"), world.phone()
    newcomer = world.binary(version="new")
    world.clock.advance(10)
    assert_closed(incumbent.peer, 1011, "heartbeat timeout")
    assert_closed(phone.peer, 4404, "binary reclaimed server-id")
    assert_open(newcomer.peer)
    assert [event[2] for event in world.events.named("claimed")] == ["old", "new"]
    assert (world.registry.binaries, world.registry.phone_count) == (1, 0)


def test_evictions_are_no_rejections(world: World) -> None:
    """Who was let in and is closed later counts as an accepted upgrade, and as nothing else."""
    world.binary()
    world.phone()
    world.binary()
    world.clock.advance(10)
    counted = {key: count for key, count in world.counters.upgrades.items() if count}
    assert counted == {("server", "accept"): 2, ("client", "accept"): 1}
    assert not any(world.counters.register_failures.values())


def test_a_binary_that_was_taken_over_has_no_say(world: World) -> None:
    """Its late pong and its loss neither disturb the new holder nor arm a grace."""
    incumbent = world.binary()
    newcomer = world.binary()
    world.clock.advance(10)
    incumbent.peer.answer()
    incumbent.drops(1011)
    phone = world.phone()
    assert world.timers == []
    world.clock.advance(60)
    assert_open(newcomer.peer)
    assert_open(phone.peer)


def test_a_challenger_that_leaves_ends_its_probe(world: World) -> None:
    """Nobody is taken over for a peer that is gone, and its claim is not reported as released.

    Its upgrade came to nothing because another held the server-id, and is counted so.
    """
    incumbent = world.binary()
    world.binary().drops()
    assert world.timers == []
    world.clock.advance(60)
    assert_open(incumbent.peer)
    assert world.events.named("released") == []
    assert world.counters.upgrades["server", "reject_409"] == 1
    assert world.counters.register_failures["server_in_use"] == 1
    assert sum(world.counters.upgrades.values()) == 2


def test_several_challengers(world: World) -> None:
    """They share one probe; the first takes over, the others are closed with 4409."""
    incumbent = world.binary()
    first, second = world.binary(), world.binary()
    assert len(incumbent.peer.pings) == 1
    world.clock.advance(10)
    assert_open(first.peer)
    assert_closed(second.peer, 4409, "server-id already claimed")


def test_the_loss_of_a_probed_incumbent_seats_the_challenger(world: World) -> None:
    """There is no grace to wait for, and the phones are evicted."""
    incumbent, phone = world.binary(version="old"), world.phone()
    newcomer = world.binary(version="new")
    incumbent.drops()
    assert_open(newcomer.peer)
    assert_closed(phone.peer, 4404, "binary reclaimed server-id")
    assert [event[0] for event in world.events.named("claimed", "released")] == ["claimed", "released", "claimed"]
    assert world.timers == []


# Grace


def test_a_grace_keeps_the_phones(world: World) -> None:
    """For 30 s they stay connected, and new ones may register."""
    binary, phone = world.binary(), world.phone()
    binary.drops(1001)
    assert ("released", A, 1001) in world.events.log
    world.clock.advance(29.99)
    late = world.phone()
    assert late.conn_id
    assert_open(phone.peer)
    assert_open(late.peer)
    assert (world.registry.binaries, world.registry.phone_count) == (0, 2)


def test_a_grace_that_expires_closes_the_phones(world: World) -> None:
    """With 1000; after that the server-id is unknown."""
    binary, phone = world.binary(), world.phone()
    binary.drops()
    world.clock.advance(30)
    assert_closed(phone.peer, 1000)
    assert world.registry.grace_expiries == 1
    assert_closed(world.phone().peer, 4404, "no server with that id")
    assert world.timers == []


def test_a_claim_within_the_grace_reclaims(world: World) -> None:
    """At once and without a ping; every phone is evicted, since a restarted daemon has lost its cipher state."""
    binary, phone = world.binary(), world.phone()
    binary.drops()
    late = world.phone()
    back = world.binary()
    assert_open(back.peer)
    assert back.peer.pings == []
    for link in (phone, late):
        assert_closed(link.peer, 4404, "binary reclaimed server-id")
    assert world.timers == []
    fresh = world.phone()
    world.clock.advance(60)
    assert_open(fresh.peer)


def test_no_grace(world: World) -> None:
    """With a grace of 0 the phones go with their binary."""
    world.registry.grace_s = 0
    binary, phone = world.binary(), world.phone()
    binary.drops()
    assert_closed(phone.peer, 1000)
    assert world.timers == []


# Phone leg


def test_a_phone_gets_a_conn_id(world: World) -> None:
    """It holds the server-id and 8 random hex digits, and is all that a binary learns of a phone."""
    world.binary()
    phone = world.phone(fields={"x-pyrycode-device-name": "Pixel"})
    assert re.fullmatch(f"client-{A}-[0-9a-f]{{8}}", phone.conn_id)
    assert [event[1:4] for event in world.events.named("registered")] == [(A, phone.conn_id, "Pixel")]
    assert phone.peer.sent == []
    assert world.counters.upgrades["client", "accept"] == 1


def test_conn_ids_are_unique() -> None:
    """No two phones share one."""
    world = World(max_phones=1000)
    world.binary()
    assert len({world.phone().conn_id for _ in range(1000)}) == 1000


def test_a_conn_id_in_use_is_drawn_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come from the source of randomness for secrets, and a collision is not a mix-up."""
    drawn = iter(["0" * 8, "0" * 8, "0" * 8, "1" * 8])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(drawn) if size == 4 else "")
    world.binary()
    assert [world.phone().conn_id for _ in range(2)] == [f"client-{A}-00000000", f"client-{A}-11111111"]


def test_no_server(world: World) -> None:
    """A phone whose server-id nobody holds is closed with 4404, and no such slot comes to be."""
    phone = world.phone()
    assert_closed(phone.peer, 4404, "no server with that id")
    assert world.counters.upgrades["client", "reject_404"] == 1
    assert world.counters.register_failures["no_server"] == 1
    phone.drops(4404)
    assert world.events.named("registered", "unregistered") == []
    assert len(world.registry) == 0


def test_too_many_phones(world: World) -> None:
    """The seventeenth is closed with 4429, the others stay, and a place that is free again can be had."""
    world.binary()
    phones = [world.phone() for _ in range(16)]
    surplus = world.phone()
    assert_closed(surplus.peer, 4429, "too many phones for server-id")
    for phone in phones:
        assert_open(phone.peer)
    assert world.counters.upgrades["client", "reject_429"] == 1
    assert world.counters.register_failures["phones_at_cap"] == 1
    surplus.drops(4429)
    assert_closed(world.phone().peer, 4429, "too many phones for server-id")
    phones[3].drops()
    assert_open(world.phone().peer)


def test_phones_of_one_stranger(world: World) -> None:
    """They may fill a server-id; a phone from another address takes the place of the newest of them, which is closed.

    Its /64 is one address; the binary hears of the phone that is gone.
    """
    binary = world.binary()
    strangers = [world.phone(source=f"2001:db8:0:1::{number}") for number in range(1, 17)]
    assert_closed(world.phone(source="2001:db8:0:1::ffff").peer, 4429, "too many phones for server-id")
    phone = world.phone(source="2001:db8:0:2::1")
    assert_open(phone.peer)
    assert_closed(strangers[-1].peer, 4429, "too many phones for server-id")
    assert_open(strangers[-2].peer)
    assert binary.peer.sent == [notice(strangers[-1], 1001)]
    strangers[-1].says(b"1")
    strangers[-1].drops(4429)
    phone.says(b"2")
    assert binary.peer.sent == [notice(strangers[-1], 1001), wrapped(phone, b"2")]
    assert world.registry.phone_count == 16
    assert world.counters.upgrades["client", "accept"] == 17
    assert world.counters.upgrades["client", "reject_429"] == world.counters.register_failures["phones_at_cap"] == 1


def test_strangers_in_the_grace(world: World) -> None:
    """While there is no binary, nobody has to be told."""
    binary = world.binary()
    binary.drops()
    strangers = [world.phone() for _ in range(16)]
    assert_open(world.phone(source="198.51.100.1").peer)
    assert_closed(strangers[-1].peer, 4429, "too many phones for server-id")
    assert binary.peer.sent == []


def test_no_server_precedes_too_many_phones() -> None:
    """4404 where both would hold."""
    assert_closed(World(max_phones=0).phone().peer, 4404, "no server with that id")


def test_a_phone_that_leaves(world: World) -> None:
    """Its end is reported once, with the close code, and it is counted no more."""
    world.binary()
    phone = world.phone()
    phone.drops(4999)
    assert world.events.named("unregistered") == [("unregistered", A, phone.conn_id, 4999)]
    assert world.registry.phone_count == 0


def test_device_names_may_repeat(world: World) -> None:
    """All of them are told, as one value."""
    world.binary()
    world.phone(fields={"x-pyrycode-device-name": ("one", "two")})
    assert world.events.named("registered")[0][3] == "one, two"


# Server-ids, timers, totals


def test_server_ids_do_not_notice_each_other(world: World) -> None:
    """What happens to one changes nothing for another."""
    other, other_phone = world.binary(B), world.phone(B)
    binary, _ = world.binary(), world.phone()
    world.binary()
    world.clock.advance(10)
    binary.drops()
    world.clock.advance(60)
    assert_open(other.peer)
    assert_open(other_phone.peer)


def test_one_timer_for_the_earliest_deadline(world: World) -> None:
    """However many server-ids wait for something, the relay has one delayed call."""
    for server_id, seconds in (("c", 3), ("b", 2), ("a", 1)):
        world.binary(server_id).drops()
        world.clock.advance(seconds)
    world.binary("d")
    world.binary("d")
    assert world.timers == [16.0]
    world.clock.advance(10)
    assert world.timers == [30.0]
    for due in (30.0, 33.0, 35.0):
        assert world.timers == [due]
        world.clock.advance(due - world.clock.seconds())
    assert world.timers == []
    assert world.registry.grace_expiries == 3


def test_stop_leaves_no_timer(world: World) -> None:
    """A relay that was stopped waits for nothing, and may be stopped twice."""
    world.binary().drops()
    assert world.timers == [30.0]
    world.relay.stop()
    world.relay.stop()
    assert world.timers == []


def test_stop_is_final(world: World) -> None:
    """Connections that are lost afterwards do not start it again."""
    binary = world.binary()
    world.relay.stop()
    binary.drops()
    assert world.timers == []


def test_sessions_are_forgotten(world: World) -> None:
    """Whoever is gone is not kept, whatever became of them."""
    links = [world.binary(), world.phone(), world.binary(), world.phone(B), world.phone()]
    assert any(world.relay.session(peer_id) for peer_id in range(10))
    for link in links:
        link.drops()
    assert not any(world.relay.session(peer_id) for peer_id in range(10))


def test_all_counters_exist_from_the_start(world: World) -> None:
    """Every word that can be counted is there with 0."""
    assert world.counters.upgrades == dict.fromkeys(itertools.product(ENDPOINTS, OUTCOMES), 0)
    assert set(world.counters.register_failures) == {"no_server", "server_in_use", "phones_at_cap"}
    assert {str(kind) for kind in world.counters.envelopes_dropped} == {
        "malformed",
        "missing_conn_id",
        "nothing_to_do",
        "bad_close_code",
        "unknown_conn_id",
    }


def test_events_name_their_connection(world: World) -> None:
    """Each by a number of its own, in the order of the upgrades, so that two of one server-id can be told apart."""
    world.phone()  # the first, and nobody is there for it
    old, new = world.binary(), world.binary()
    phone = world.phone()
    old.says(envelope("nobody", b"1"))
    phone.drops()
    old.drops()
    new.drops()
    told = [(event[0], number) for event, number in zip(world.events.log, world.events.connections, strict=True)]
    assert told == [
        ("closed_by_registry", 1),
        ("claimed", 2),
        ("registered", 4),
        ("envelope_dropped", 2),
        ("unregistered", 4),
        ("released", 2),
        ("claimed", 3),
        ("released", 3),
    ]


def test_the_token_is_not_kept(world: World) -> None:
    """No event, counter or session holds it."""
    world.binary(**{"x-pyrycode-token": TOKEN})
    phone = world.phone(fields={"x-pyrycode-token": TOKEN, "x-pyrycode-device-name": "d"})
    phone.says(b'{"token":"%s"}' % TOKEN.encode())
    sessions = [world.relay.session(peer_id) for peer_id in range(10)]
    kept = [vars(session) for session in sessions if session is not None]
    assert len(kept) == 2
    phone.drops()
    assert TOKEN not in repr((world.events.log, world.counters, kept))


def test_a_relay_that_was_held_up_takes_nothing_over() -> None:
    """When the verdict on a probe comes late, the answer may wait unread: the incumbent gets its time again."""
    world = World()
    incumbent, challenger = world.binary(), world.binary()
    world.clock.advance(27.0)
    assert (incumbent.peer.closes, challenger.peer.closes) == ([], [])
    incumbent.peer.answer()
    assert_closed(challenger.peer, 4409, "server-id already claimed")
    assert incumbent.peer.closes == []


@pytest.mark.parametrize("kind", ["binary", "phone"])
def test_a_session_that_cannot_be_opened_leaves_nothing(
    world: World, binary: Link, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault while a connection joins is its own: nobody holds a place for it afterwards."""

    def fail(*_: object) -> None:
        raise RuntimeError("a fault in a log")

    monkeypatch.setattr(RecordedEvents, "claimed" if kind == "binary" else "registered", fail)
    with pytest.raises(RuntimeError):
        world.binary(B) if kind == "binary" else world.phone()
    assert len(world.relay._sessions) == 1
    assert world.registry.phone_count == 0
    assert world.registry.binaries == 1
