"""From EVENT to OK."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tests.support.nostr_relay import ALICE, CLIENT, WALL_S, Client, World, as_dict, event, json_of

from pyryrelay.guard import Quota
from pyryrelay.guard.client import named
from pyryrelay.nostr.events import Event
from pyryrelay.nostr.policies import refusal
from pyryrelay.nostr.policies.refusal import Refused
from pyryrelay.nostr.storage.interface import Outcome

BAD_SIG = "0" * 128
DUPLICATE = "duplicate: already have this event"


def ok(one: Event, text: str = "", accepted: bool | None = None) -> list[object]:
    """Return the answer to an event: true without a text, unless said."""
    return ["OK", one.id, not text if accepted is None else accepted, text]


def slow(**options: object) -> tuple[World, Client]:
    """Return a relay whose verifiers and writer answer when they are told to, and a client of it."""
    world = World(**options)
    world.verifiers.is_prompt = world.writer.is_prompt = False
    return world, world.client()


def test_ok_comes_after_the_commit() -> None:
    """OK true means durable: there is no answer before the writer has one."""
    world, client = slow()
    one = event()
    assert client.publish(one) == []
    world.verifiers.answer()
    assert client.take() == []
    world.writer.commit()
    assert client.take() == [ok(one)]
    assert world.relay.counts.events["stored"] == 1


def test_events_of_one_chunk_are_verified_and_written_together() -> None:
    """One call to the verifiers and one to the writer, in order."""
    world, client = slow()
    events = [event(str(number)) for number in range(5)]
    client.publish(*events)
    ((items, _),) = world.verifiers.waiting
    assert [item[0] for item in items] == [one.id for one in events]
    world.verifiers.answer()
    ((jsons, _),) = world.writer.waiting
    assert [json[7:71].decode() for json in jsons] == [one.id for one in events]


def test_oks_of_stored_events_come_in_order() -> None:
    """However the verifiers answer, events reach the writer in the order in which they came."""
    world, client = slow()
    first, second, third = event("1"), event("2"), event("3")
    for one in (first, second, third):
        client.publish(one)
    world.verifiers.answer(2)
    world.verifiers.answer(1)
    assert world.writer.waiting == []
    world.verifiers.answer(0)
    for _ in range(3):
        world.writer.commit()
    assert client.take() == [ok(first), ok(second), ok(third)]


def test_refusals_do_not_wait_for_the_store() -> None:
    """What is refused by itself is answered at once."""
    world, client = slow()
    good, bad = event(), event(kind=22242)
    assert client.publish(good, bad) == [ok(bad, "blocked: kind 22242 is never published")]
    assert len(world.verifiers.waiting) == 1


def test_nothing_is_done_after_a_refusal_by_shape() -> None:
    """An event that a cheap check refuses costs no quota, no verification and no write."""
    world = World(nostr_event_quota=Quota.parse("1/hour burst 1"), nostr_max_tags=1)
    client = world.client()
    bad = event(tags=[["a"], ["b"]])
    assert client.publish(bad) == [ok(bad, "invalid: event has more than 1 tags")]
    assert world.verifiers.asked == 0
    assert client.publish(good := event()) == [ok(good)]


def test_the_quota_of_the_client_comes_before_the_hash() -> None:
    """Over quota, neither the id nor the signature is looked at, and it is no strike."""
    world = World(nostr_event_quota=Quota.parse("1/hour burst 1"))
    client = world.client()
    wrong = msgspec.structs.replace(event("x"), id="e" * 64)
    client.publish(event())
    assert client.publish(wrong) == [ok(wrong, "rate-limited: too many events, try again in 3600 s")]
    assert world.strikes == []
    assert world.verifiers.asked == 1


def test_a_wrong_id_is_refused_and_strikes() -> None:
    """It costs an invalid token and is never verified."""
    world = World(nostr_invalid_quota=Quota.parse("1/hour burst 1"))
    client = world.client()
    wrong = msgspec.structs.replace(event("x"), id="e" * 64)
    assert client.publish(wrong) == [ok(wrong, "invalid: id is not the hash of the event")]
    assert (len(world.strikes), world.verifiers.asked, client.peer.close_code) == (1, 0, None)
    client.publish(wrong, event("never looked at"))
    assert client.peer.closed_with == (1008, "too many invalid messages")
    assert world.verifiers.asked == 0


def test_a_bad_signature_costs_an_invalid_token_and_no_author_quota() -> None:
    """Forged events do not use up the quota of their victim."""
    world = World(nostr_pubkey_quota=Quota.parse("1/hour burst 1"))
    client = world.client()
    forged, own, second = event("forged", sig=BAD_SIG), event("own"), event("second")
    assert client.publish(forged) == [ok(forged, "invalid: signature does not verify")]
    assert world.strikes == ["nostr_invalid"]
    assert client.publish(own) == [ok(own)]
    assert client.publish(second) == [ok(second, "rate-limited: too many events of this key, try again in 3600 s")]


def test_a_key_that_is_no_point_is_refused() -> None:
    """The verifiers find out whether a key is on the curve."""
    world = World()
    client = world.client()
    bad = event(author="f" * 64)
    assert client.publish(bad) == [ok(bad, "invalid: pubkey is not on the curve")]


def test_bad_signatures_beyond_the_quota_close_the_connection() -> None:
    """Without an invalid token left, the connection is closed with 1008, once."""
    world = World(nostr_invalid_quota=Quota.parse("1/hour burst 1"))
    client = world.client()
    client.publish(*[event(str(number), sig=BAD_SIG) for number in range(4)])
    assert client.peer.closed_with == (1008, "too many invalid messages")
    assert len(world.strikes) == 2


def test_what_was_just_stored_is_a_duplicate_without_verifying() -> None:
    """An event that comes again is answered from memory, and not delivered again."""
    world = World()
    client = world.client()
    one = event()
    assert client.publish(one) == [ok(one)]
    assert client.publish(one) == [ok(one, DUPLICATE, accepted=True)]
    assert world.verifiers.asked == 1


def test_what_the_verifiers_know_is_a_duplicate() -> None:
    """An event that is stored already is true, and neither written nor delivered."""
    world = World()
    client = world.client()
    one = event()
    world.verifiers.known.add(one.id)
    assert client.publish(one) == [ok(one, DUPLICATE, accepted=True)]
    assert world.writer.stored == []


@pytest.mark.parametrize(
    ("outcome", "text", "accepted"),
    [
        (Outcome.DUPLICATE, DUPLICATE, True),
        (Outcome.SUPERSEDED, "duplicate: have a newer version", False),
        (Outcome.DELETED, "blocked: deleted by its author", False),
        (Outcome.FAILED, "error: could not store the event", False),
    ],
)
def test_the_writers_outcome_is_the_answer(outcome: Outcome, text: str, accepted: bool) -> None:
    """The transaction decides about duplicates, versions and tombstones; nothing of it is delivered."""
    world = World()
    client, reader = world.client(), world.client(named("192.0.2.8"))
    reader.send(["REQ", "s", {}])
    world.readers.running[0].answer()
    reader.take()
    one = event()
    world.writer.outcomes[one.id] = outcome
    assert client.publish(one) == [ok(one, text, accepted)]
    assert reader.take() == []


def test_an_event_that_was_deleted_is_no_duplicate_any_more() -> None:
    """The memory of ids forgets what the store has deleted; the store decides again."""
    world = World()
    client = world.client()
    one = event()
    client.publish(one)
    world.relay.removed("written", [bytes.fromhex(one.id)])
    world.writer.stored.clear()
    world.writer.outcomes[one.id] = Outcome.DELETED
    assert client.publish(one) == [ok(one, "blocked: deleted by its author")]


def test_failures_of_children_are_errors() -> None:
    """Without a verifier or a writer the event is refused, and the client may try again."""
    world, client = slow()
    one, two = event("1"), event("2")
    client.publish(one)
    world.verifiers.fail()
    assert client.take() == [ok(one, "error: could not store the event")]
    client.publish(two)
    world.verifiers.answer()
    world.writer.fail()
    assert client.take() == [ok(two, "error: could not store the event")]
    assert world.relay.congestion.total == 0


def test_rules_of_the_kind_come_after_the_author_quota() -> None:
    """Step 16 is asked last of what the reactor asks."""
    world = World(nostr_pubkey_quota=Quota.parse("1/hour burst 1"))
    client = world.client()
    one, two = event(kind=5), event(kind=5, created_at=WALL_S - 1)
    assert client.publish(one) == [ok(one, "invalid: deletion names nothing")]
    assert client.publish(two) == [ok(two, "rate-limited: too many events of this key, try again in 3600 s")]


def test_hooks_are_asked_before_the_writer() -> None:
    """A policy of a Python user refuses with its own text."""
    world = World()
    refused = Refused(refusal.NOT_ACCEPTED.word, "blocked: not on a Sunday")
    rules = world.relay.rules
    world.relay.configure(
        replace(rules, events=replace(rules.events, hooks=(lambda event, canonical, context: refused,)))
    )
    client = world.client()
    one = event()
    assert client.publish(one) == [ok(one, "blocked: not on a Sunday")]
    assert world.writer.stored == []


def test_auth_required_sends_the_challenge_first_and_once() -> None:
    """A refusal that authentication can mend comes behind a challenge, unless one is outstanding."""
    world = World(nostr_write="auth")
    client = world.client()
    one, two = event("1"), event("2")
    challenge, refused = client.publish(one)
    assert challenge[0] == "AUTH"
    assert len(challenge[1]) == 64
    assert refused == ok(one, "auth-required: authenticate to publish here")
    assert client.publish(two) == [ok(two, "auth-required: authenticate to publish here")]


def test_exempt_clients_spend_nothing() -> None:
    """Clients of the allow list have no quotas, but sizes bind them too."""
    world = World(nostr_event_quota=Quota.parse("1/hour burst 1"), nostr_max_tags=1)
    world.exempt.add(CLIENT)
    client = world.client()
    events = [event(str(number)) for number in range(3)]
    assert client.publish(*events) == [ok(one) for one in events]
    bad = event(tags=[["a"], ["b"]])
    assert client.publish(bad)[0][2] is False


# Ephemerals


def test_ephemerals_are_delivered_and_not_stored() -> None:
    """With a listener the answer is true and empty."""
    world = World()
    client, reader = world.client(), world.client(named("192.0.2.8"))
    reader.send(["REQ", "s", {"kinds": [20001]}])
    world.readers.running[0].answer()
    reader.take()
    one = event(kind=20001)
    assert client.publish(one) == [ok(one)]
    assert reader.take() == [["EVENT", "s", as_dict(one)]]
    assert world.writer.stored == []


def test_ephemerals_without_a_listener_are_mute() -> None:
    """True, since clients retry what is false."""
    world = World()
    one = event(kind=20001)
    assert world.client().publish(one) == [ok(one, "mute: nobody was listening", accepted=True)]


def test_an_ephemeral_that_comes_again_is_a_duplicate_for_ten_minutes() -> None:
    """Two copies in flight count as well; afterwards it is delivered again."""
    world = World(nostr_reject_ephemeral_older_s=None)
    client = world.client()
    one = event(kind=20001)
    first, second = client.publish(one, one)
    assert first == ok(one, "mute: nobody was listening", accepted=True)
    assert second == ok(one, DUPLICATE, accepted=True)
    world.pass_s(599)
    assert client.publish(one) == [ok(one, DUPLICATE, accepted=True)]
    world.pass_s(1)
    assert client.publish(one) == [ok(one, "mute: nobody was listening", accepted=True)]


def test_somebody_may_hear_an_ephemeral_on_another_host() -> None:
    """In a cluster nobody knows that nobody hears it; each is announced once."""
    world = World()
    announced: list[tuple[str, bytes]] = []
    world.relay.is_clustered = True
    world.relay.on_ephemeral = lambda event_id, json: announced.append((event_id, json))
    one = event(kind=20_001)
    assert world.client().publish(one) == [ok(one)]
    assert world.client().publish(one) == [ok(one, "duplicate: already have this event", accepted=True)]
    assert announced == [(one.id, json_of(one))]


def test_an_ephemeral_for_nobody_s_eyes_is_mute() -> None:
    """A subscription that may not see the event is no listener."""
    world = World()
    reader = world.client()
    reader.send(["REQ", "s", {}])
    world.readers.running[0].answer()
    one = event(kind=21059, tags=[["p", ALICE]])
    assert world.client().publish(one) == [ok(one, "mute: nobody was listening", accepted=True)]


# Backpressure


def test_the_connection_is_not_read_from_while_too_many_wait() -> None:
    """Up to the limit it is; one more stops it, until the number is down to the limit again."""
    world, client = slow(nostr_max_pending_events=2)
    client.publish(event("1"), event("2"))
    assert client.is_read
    client.publish(event("3"))
    assert client.is_paused
    world.verifiers.answer()
    world.writer.commit()
    assert client.is_read


def test_a_full_queue_stops_only_those_who_publish() -> None:
    """A client may hold a quarter of the queue; whoever only reads is not stopped."""
    world, client = slow(nostr_max_pending_events=None, nostr_write_queue=16)
    other = world.client()
    client.publish(*[event(str(number)) for number in range(4)])
    assert client.is_read
    other.publish(event("x"))
    assert other.is_paused
    reader = world.client()
    reader.send(["REQ", "s", {}])
    assert reader.is_read
    world.verifiers.answer()
    world.writer.commit()
    world.turn()
    assert other.is_read


def test_events_of_a_client_that_left_are_stored_all_the_same() -> None:
    """Many clients do not wait for their OK. Nothing is sent any more."""
    world, client = slow(nostr_max_pending_events=1)
    client.publish(event("1"), event("2"))
    client.leave()
    client.peer.wire.clear()
    world.verifiers.answer()
    world.writer.commit()
    assert len(world.writer.stored) == 2
    assert client.peer.wire == []
    assert world.relay.congestion.total == world.relay.congestion.stopped == 0


def test_events_with_many_tags_count_as_many() -> None:
    """One always passes, and stops its connection until it is answered; nothing is left over then."""
    world, client = slow(nostr_max_pending_events=64)
    heavy = event("1", tags=[["t", "x"]] * 400)
    client.publish(heavy)
    assert world.relay.congestion.total == 100
    assert client.is_paused
    world.verifiers.answer()
    world.writer.commit()
    assert client.take() == [ok(heavy)]
    assert client.is_read
    assert world.relay.congestion.total == 0


def test_heavy_events_of_a_chunk_are_written_in_pieces() -> None:
    """So one transaction is short, and the OKs keep their order."""
    world, client = slow(nostr_max_pending_events=None, nostr_write_queue=None)
    events = [event(str(number), tags=[["t", "x"]] * 2000) for number in range(3)]
    client.publish(*events)
    assert [len(items) for items, _ in world.verifiers.waiting] == [2, 1]
    for _ in range(2):
        world.verifiers.answer()
    for _ in range(2):
        world.writer.commit()
    assert client.take() == [ok(one) for one in events]


def test_chunks_with_very_many_events_are_written_in_pieces() -> None:
    """The writer takes at most 1,000 events in a call."""
    world, client = slow(nostr_max_pending_events=None, nostr_write_queue=None)
    client.publish(*[event(str(number)) for number in range(1001)])
    assert [len(items) for items, _ in world.verifiers.waiting] == [1000, 1]


# The end


def test_a_drain_refuses_what_is_not_yet_with_the_writer() -> None:
    """Events that the writer has are committed and answered; then the drain is over."""
    world, client = slow()
    handed, waiting, late = event("1"), event("2"), event("3")
    client.publish(handed)
    world.verifiers.answer()
    client.publish(waiting)
    done: list[None] = []
    world.relay.drain().addCallback(done.append)
    shutting_down = "error: the relay is shutting down"
    assert client.take() == [ok(waiting, shutting_down)]
    assert client.publish(late) == [ok(late, shutting_down)]
    assert done == []
    world.writer.commit()
    assert client.take() == [ok(handed)]
    assert done == [None]
    world.verifiers.answer()
    assert client.take() == []


def test_a_drain_without_events_is_over_at_once() -> None:
    """Nothing to wait for."""
    done: list[None] = []
    World().relay.drain().addCallback(done.append)
    assert done == [None]


def test_texts_are_the_operators_and_prefixes_stay() -> None:
    """``--nostr-text`` replaces what follows the prefix."""
    world = World(nostr_text={"mute nobody was listening": "niemand da"})
    one = event(kind=20001)
    assert world.client().publish(one) == [ok(one, "mute: niemand da", accepted=True)]
