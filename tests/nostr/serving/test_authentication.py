"""AUTH: from the challenge to the key."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.support.nostr_relay import ALICE, BOB, WALL_S, Client, World, as_dict, event

from pyryrelay.guard import Quota
from pyryrelay.nostr.events import Event

URL = "wss://relay.example.com/"


def challenged(**options: Any) -> tuple[World, Client, str]:
    """Return a relay, a client, and the challenge that it was sent."""
    world = World(nostr_auth_challenge="connect", **options)
    client = world.client()
    client.session.challenge()
    ((verb, challenge),) = client.take()
    assert verb == "AUTH"
    return world, client, challenge


def credential(challenge: str, *, url: str = URL, **fields: Any) -> Event:
    """Return an AUTH event."""
    return event(**{"kind": 22242, "tags": [["relay", url], ["challenge", challenge]], **fields})


def test_a_good_credential_adds_its_key() -> None:
    """The answer is an OK that is true, and policies see the key from then on."""
    world, client, challenge = challenged(nostr_write="auth")
    one = credential(challenge)
    assert client.ask(["AUTH", as_dict(one)]) == [["OK", one.id, True, ""]]
    assert client.publish(note := event()) == [["OK", note.id, True, ""]]
    assert world.relay.counts.authed_connections == 1
    assert world.writer.stored
    client.leave()
    assert world.relay.counts.authed_connections == 0


def test_the_same_credential_again_is_accepted() -> None:
    """A client that repeats itself does no harm."""
    world, client, challenge = challenged()
    one = credential(challenge)
    for _ in range(2):
        assert client.ask(["AUTH", as_dict(one)]) == [["OK", one.id, True, ""]]
    assert world.relay.counts.authed_connections == 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"kind": 1}, "invalid: kind must be 22242"),
        ({"created_at": WALL_S - 601}, "invalid: created_at is more than 600 s from now"),
        ({"tags": [["relay", URL], ["challenge", "other"]]}, "invalid: challenge does not match"),
        ({"url": "wss://other.example.com"}, "invalid: relay does not match"),
    ],
)
def test_a_credential_that_is_not_for_us_is_refused_and_strikes(fields: dict[str, Any], text: str) -> None:
    """Its signature is not even looked at."""
    world, client, challenge = challenged()
    one = credential(challenge, **fields)
    assert client.ask(["AUTH", as_dict(one)]) == [["OK", one.id, False, text]]
    assert world.strikes == ["nostr_invalid"]
    assert world.verifiers.asked == 0


def test_the_signature_of_a_credential_is_verified() -> None:
    """Anybody can copy a challenge."""
    _, client, challenge = challenged()
    one = credential(challenge, sig="0" * 128)
    assert client.ask(["AUTH", as_dict(one)]) == [["OK", one.id, False, "invalid: signature does not verify"]]


def test_a_credential_that_is_known_is_not_verified_and_does_not_count() -> None:
    """Whatever the store knows says nothing about this connection."""
    world, client, challenge = challenged()
    one = credential(challenge)
    world.verifiers.known.add(one.id)
    assert client.ask(["AUTH", as_dict(one)])[0][2] is False
    assert world.relay.counts.authed_connections == 0


def test_the_id_of_a_credential_is_verified() -> None:
    """A wrong id is refused."""
    _, client, challenge = challenged()
    one = msgspec.structs.replace(credential(challenge), id="e" * 64)
    assert client.ask(["AUTH", as_dict(one)]) == [["OK", one.id, False, "invalid: id is not the hash of the event"]]


def test_without_a_challenge_nothing_matches() -> None:
    """A credential for no challenge is refused."""
    world = World()
    one = credential("")
    answer = world.client().ask(["AUTH", as_dict(one)])
    assert answer == [["OK", one.id, False, "invalid: challenge does not match"]]


def test_keys_add_up_to_a_limit() -> None:
    """A connection can have several keys, but not any number."""
    _, client, challenge = challenged(nostr_max_auth_keys=1)
    first, second = credential(challenge), credential(challenge, author=BOB)
    assert client.ask(["AUTH", as_dict(first)])[0][2] is True
    text = "restricted: more than 1 keys on one connection"
    assert client.ask(["AUTH", as_dict(second)]) == [["OK", second.id, False, text]]


def test_authentications_have_a_quota() -> None:
    """It is asked before anything else, and is no strike."""
    world, client, challenge = challenged(nostr_auth_quota=Quota.parse("1/hour burst 1"))
    one = credential(challenge)
    client.ask(["AUTH", as_dict(one)])
    text = "rate-limited: too many authentications"
    assert client.ask(["AUTH", as_dict(one)]) == [["OK", one.id, False, text]]
    assert world.strikes == []


def test_what_comes_behind_auth_waits_for_it() -> None:
    """Messages are taken in order: a REQ in the same chunk sees the key."""
    world, client, challenge = challenged()
    world.verifiers.is_prompt = False
    client.send(["AUTH", as_dict(credential(challenge))], ["REQ", "s", {"kinds": [4]}])
    assert client.is_paused
    assert world.readers.opened == []
    world.verifiers.answer()
    assert client.is_read
    assert world.readers.opened[0].query.view.keys == {ALICE}


def test_a_client_that_leaves_meanwhile_is_not_answered() -> None:
    """The verdict comes too late."""
    world, client, challenge = challenged()
    world.verifiers.is_prompt = False
    client.send(["AUTH", as_dict(credential(challenge))], ["REQ", "s", {}])
    client.leave()
    world.verifiers.answer()
    assert client.take() == []
    assert world.readers.opened == []
    assert world.relay.counts.authed_connections == 0


def test_trusted_keys_are_exempt_from_quotas() -> None:
    """Once a trusted key is proved, nothing is spent."""
    _, client, challenge = challenged(nostr_trusted=frozenset({ALICE}), nostr_event_quota=Quota.parse("1/hour burst 1"))
    client.ask(["AUTH", as_dict(credential(challenge))])
    assert all(answer[2] for answer in client.publish(*[event(str(number)) for number in range(3)]))


def test_authentication_is_refused_at_the_end() -> None:
    """A relay that shuts down takes no keys."""
    world, client, challenge = challenged()
    world.relay.drain()
    one = credential(challenge)
    assert client.ask(["AUTH", as_dict(one)]) == [["OK", one.id, False, "error: the relay is shutting down"]]
