"""The relay: which binary holds a server-id, and which peers are closed with what."""

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

TOKEN = "a-token-that-must-stay-secret"


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
    """The incumbent is pinged, the challenger waits, and the phones are not affected."""
    incumbent, phone = world.binary(), world.phone()
    challenger = world.binary()
    assert len(incumbent.peer.pings) == 1
    assert challenger.peer.pings == []
    for link in (incumbent, challenger, phone):
        assert_open(link.peer)
    assert len(world.events.named("claimed")) == 1
    assert world.counters.upgrades["server", "accept"] == 1


def test_an_incumbent_that_answers_stays(world: World) -> None:
    """The challenger is closed with 4409 if the incumbent answers at any moment of the 10 s."""
    incumbent, phone = world.binary(), world.phone()
    challenger = world.binary()
    world.clock.advance(9.99)
    incumbent.peer.answer()
    assert_closed(challenger.peer, 4409, "server-id already claimed")
    world.clock.advance(60)
    assert_open(incumbent.peer)
    assert_open(phone.peer)
    assert world.timers == []
    assert world.counters.upgrades["server", "reject_409"] == 1
    assert world.counters.register_failures["server_in_use"] == 1
    assert ("closed_by_registry", A, 4409, "server-id already claimed") in world.events.log


def test_an_incumbent_that_does_not_answer_is_taken_over(world: World) -> None:
    """After 10 s the incumbent is closed with 1011, its phones with 4404, and the challenger takes over."""
    incumbent, phone = world.binary(version="old"), world.phone()
    challenger = world.binary(version="new")
    world.clock.advance(10)
    assert_closed(incumbent.peer, 1011, "heartbeat timeout")
    assert_closed(phone.peer, 4404, "binary reclaimed server-id")
    assert_open(challenger.peer)
    assert [event[2] for event in world.events.named("claimed")] == ["old", "new"]
    assert (world.registry.binaries, world.registry.phone_count) == (1, 0)


def test_evictions_are_no_rejections(world: World) -> None:
    """A peer that was accepted and is closed later counts as an accepted upgrade only."""
    world.binary()
    world.phone()
    world.binary()
    world.clock.advance(10)
    counted = {key: count for key, count in world.counters.upgrades.items() if count}
    assert counted == {("server", "accept"): 2, ("client", "accept"): 1}
    assert not any(world.counters.register_failures.values())


def test_a_binary_that_was_taken_over_has_no_effect(world: World) -> None:
    """The late pong and the loss of the old binary do not affect the new holder, and start no grace."""
    incumbent = world.binary()
    challenger = world.binary()
    world.clock.advance(10)
    incumbent.peer.answer()
    incumbent.drops(1011)
    phone = world.phone()
    assert world.timers == []
    world.clock.advance(60)
    assert_open(challenger.peer)
    assert_open(phone.peer)


def test_a_challenger_that_leaves_ends_its_probe(world: World) -> None:
    """The incumbent stays if its challenger leaves, and the claim is not reported as released.

    The upgrade of the challenger is counted as one that another holder prevented.
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
    """Challengers share one probe; the first takes over, and the others are closed with 4409."""
    incumbent = world.binary()
    first, second = world.binary(), world.binary()
    assert len(incumbent.peer.pings) == 1
    world.clock.advance(10)
    assert_open(first.peer)
    assert_closed(second.peer, 4409, "server-id already claimed")


def test_the_loss_of_a_probed_incumbent(world: World) -> None:
    """If a probed incumbent is lost, the challenger holds the server-id at once, and the phones are closed."""
    incumbent, phone = world.binary(version="old"), world.phone()
    challenger = world.binary(version="new")
    incumbent.drops()
    assert_open(challenger.peer)
    assert_closed(phone.peer, 4404, "binary reclaimed server-id")
    assert [event[0] for event in world.events.named("claimed", "released")] == ["claimed", "released", "claimed"]
    assert world.timers == []


# Grace


def test_a_grace_keeps_the_phones(world: World) -> None:
    """For 30 s the phones stay connected, and new ones may register."""
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
    """When the grace expires, phones are closed with 1000 and the server-id is unknown."""
    binary, phone = world.binary(), world.phone()
    binary.drops()
    world.clock.advance(30)
    assert_closed(phone.peer, 1000)
    assert world.registry.grace_expiries == 1
    assert_closed(world.phone().peer, 4404, "no server with that id")
    assert world.timers == []


def test_a_claim_within_the_grace_reclaims(world: World) -> None:
    """A reclaim needs no ping and closes every phone, since a restarted daemon has lost its cipher state."""
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
    """With a grace of 0 the phones are closed with their binary."""
    world.registry.grace_s = 0
    binary, phone = world.binary(), world.phone()
    binary.drops()
    assert_closed(phone.peer, 1000)
    assert world.timers == []


# Phone leg


def test_a_phone_gets_a_conn_id(world: World) -> None:
    """A conn_id holds the server-id and 8 random hex digits, and is all that a binary learns of a phone."""
    world.binary()
    phone = world.phone(fields={"x-pyrycode-device-name": "Pixel"})
    assert re.fullmatch(f"client-{A}-[0-9a-f]{{8}}", phone.conn_id)
    assert [event[1:4] for event in world.events.named("registered")] == [(A, phone.conn_id, "Pixel")]
    assert phone.peer.sent == []
    assert world.counters.upgrades["client", "accept"] == 1


def test_conn_ids_are_unique() -> None:
    """No two phones have the same conn_id."""
    world = World(max_phones=1000)
    world.binary()
    assert len({world.phone().conn_id for _ in range(1000)}) == 1000


def test_a_conn_id_in_use_is_drawn_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conn_ids are drawn from the source of secrets, and drawn again if in use."""
    drawn = iter(["0" * 8, "0" * 8, "0" * 8, "1" * 8])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(drawn) if size == 4 else "")
    world.binary()
    assert [world.phone().conn_id for _ in range(2)] == [f"client-{A}-00000000", f"client-{A}-11111111"]


def test_no_server(world: World) -> None:
    """A phone whose server-id has no binary is closed with 4404, and no slot is created."""
    phone = world.phone()
    assert_closed(phone.peer, 4404, "no server with that id")
    assert world.counters.upgrades["client", "reject_404"] == 1
    assert world.counters.register_failures["no_server"] == 1
    phone.drops(4404)
    assert world.events.named("registered", "unregistered") == []
    assert len(world.registry) == 0


def test_too_many_phones(world: World) -> None:
    """The seventeenth phone is closed with 4429, the others stay, and a place that becomes free can be taken."""
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


def test_phones_of_one_address(world: World) -> None:
    """A phone of another address takes the place of the newest phone of an address that fills a server-id.

    An IPv6 address counts by its /64; the binary gets a notice for the phone that was closed.
    """
    binary = world.binary()
    of_one_address = [world.phone(source=f"2001:db8:0:1::{number}") for number in range(1, 17)]
    assert_closed(world.phone(source="2001:db8:0:1::ffff").peer, 4429, "too many phones for server-id")
    phone = world.phone(source="2001:db8:0:2::1")
    assert_open(phone.peer)
    assert_closed(of_one_address[-1].peer, 4429, "too many phones for server-id")
    assert_open(of_one_address[-2].peer)
    assert binary.peer.sent == [notice(of_one_address[-1], 1001)]
    of_one_address[-1].says(b"1")
    of_one_address[-1].drops(4429)
    phone.says(b"2")
    assert binary.peer.sent == [notice(of_one_address[-1], 1001), wrapped(phone, b"2")]
    assert world.registry.phone_count == 16
    assert world.counters.upgrades["client", "accept"] == 17
    assert world.counters.upgrades["client", "reject_429"] == world.counters.register_failures["phones_at_cap"] == 1


def test_phones_of_one_address_in_the_grace(world: World) -> None:
    """Without a binary, phones displace each other without a notice."""
    binary = world.binary()
    binary.drops()
    of_one_address = [world.phone() for _ in range(16)]
    assert_open(world.phone(source="198.51.100.1").peer)
    assert_closed(of_one_address[-1].peer, 4429, "too many phones for server-id")
    assert binary.peer.sent == []


def test_no_server_precedes_too_many_phones() -> None:
    """Where both 4404 and 4429 apply, 4404 is sent."""
    assert_closed(World(max_phones=0).phone().peer, 4404, "no server with that id")


def test_a_phone_that_leaves(world: World) -> None:
    """The end of a phone is reported once, with the close code, and the phone is not counted any more."""
    world.binary()
    phone = world.phone()
    phone.drops(4999)
    assert world.events.named("unregistered") == [("unregistered", A, phone.conn_id, 4999)]
    assert world.registry.phone_count == 0


def test_device_names_may_repeat(world: World) -> None:
    """Repeated device names are logged as one value."""
    world.binary()
    world.phone(fields={"x-pyrycode-device-name": ("one", "two")})
    assert world.events.named("registered")[0][3] == "one, two"


# Server-ids, timers, totals


def test_server_ids_do_not_notice_each_other(world: World) -> None:
    """Events of one server-id do not affect another."""
    other, other_phone = world.binary(B), world.phone(B)
    binary, _ = world.binary(), world.phone()
    world.binary()
    world.clock.advance(10)
    binary.drops()
    world.clock.advance(60)
    assert_open(other.peer)
    assert_open(other_phone.peer)


def test_one_timer_for_the_earliest_deadline(world: World) -> None:
    """The relay has one delayed call, however many server-ids wait."""
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
    """A stopped relay has no delayed call, and may be stopped twice."""
    world.binary().drops()
    assert world.timers == [30.0]
    world.relay.stop()
    world.relay.stop()
    assert world.timers == []


def test_stop_is_final(world: World) -> None:
    """Connections that are lost after the stop start no timer."""
    binary = world.binary()
    world.relay.stop()
    binary.drops()
    assert world.timers == []


def test_sessions_are_forgotten(world: World) -> None:
    """Sessions of ended connections are forgotten, whatever their end was."""
    links = [world.binary(), world.phone(), world.binary(), world.phone(B), world.phone()]
    assert any(world.relay.session(peer_id) for peer_id in range(10))
    for link in links:
        link.drops()
    assert not any(world.relay.session(peer_id) for peer_id in range(10))


def test_all_counters_exist_from_the_start(world: World) -> None:
    """Every word that can be counted exists with 0."""
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
    """Each event has the number of its connection, in the order of upgrades."""
    world.phone()  # The first one, which finds no binary.
    old, new = world.binary(), world.binary()
    phone = world.phone()
    old.says(envelope("unknown", b"1"))
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
    """No event, counter or session holds the token."""
    world.binary(**{"x-pyrycode-token": TOKEN})
    phone = world.phone(fields={"x-pyrycode-token": TOKEN, "x-pyrycode-device-name": "d"})
    phone.says(b'{"token":"%s"}' % TOKEN.encode())
    sessions = [world.relay.session(peer_id) for peer_id in range(10)]
    kept = [vars(session) for session in sessions if session is not None]
    assert len(kept) == 2
    phone.drops()
    assert TOKEN not in repr((world.events.log, world.counters, kept))


def test_a_relay_that_was_held_up_takes_nothing_over() -> None:
    """If the end of a probe is processed late, the incumbent gets its time again: its answer may be unread."""
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
    """A connection whose session fails to open holds no place afterwards."""

    def fail(*_: object) -> None:
        raise RuntimeError("a fault in a log")

    monkeypatch.setattr(RecordedEvents, "claimed" if kind == "binary" else "registered", fail)
    with pytest.raises(RuntimeError):
        world.binary(B) if kind == "binary" else world.phone()
    assert len(world.relay._sessions) == 1
    assert world.registry.phone_count == 0
    assert world.registry.binaries == 1
