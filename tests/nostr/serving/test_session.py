"""What messages mean, in order."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from tests.support.nostr_relay import CLIENT, FakePeer, World, as_dict, event
from twisted.internet.defer import Deferred

from pyryrelay.guard import Quota
from pyryrelay.nostr.serving import recent
from pyryrelay.nostr.serving import session as session_module
from pyryrelay.nostr.serving.queries import querying
from pyryrelay.nostr.serving.session import NostrSession


def test_messages_of_a_chunk_are_taken_in_order() -> None:
    """A REQ and its CLOSE in one chunk leave nothing."""
    world = World()
    client = world.client()
    one = event()
    answers = client.ask(["REQ", "s", {"limit": 0}], ["EVENT", as_dict(one)], ["CLOSE", "s"], b"  ", b"{")
    assert answers == [["EOSE", "s"], ["OK", one.id, True, ""], ["NOTICE", "invalid: not JSON"]]
    assert world.relay.counts.received["REQ"] == 1
    assert world.relay.counts.received["other"] == 2


def test_the_rest_of_a_chunk_is_dropped_once_the_connection_is_closed() -> None:
    """Nothing is done for a client that was closed in the middle of it."""
    world = World(nostr_invalid_quota=None)
    client = world.client()
    client.session._connection.outgoing.close(1008, "")
    client.send(["REQ", "s", {}], ["EVENT", as_dict(event())])
    assert world.readers.opened == []
    assert world.writer.stored == []


def test_an_event_with_a_wrong_shape_is_answered_with_its_id() -> None:
    """It costs an invalid token, and is counted as a refused event."""
    world = World(nostr_invalid_quota=Quota(1, 3600.0, 1))
    client, bad = world.client(), as_dict(event()) | {"kind": -1}
    ((verb, id_, accepted, text),) = client.ask(["EVENT", bad])
    assert (verb, id_, accepted) == ("OK", bad["id"], False)
    assert text.startswith("invalid: kind must be ")
    assert world.relay.counts.events["shape"] == 1
    assert world.relay.counts.invalid_closed == 0
    client.send(["EVENT", bad])
    assert world.relay.counts.invalid_closed == 1


def test_what_is_unsupported_costs_nothing() -> None:
    """A filter key that we do not know is an honest question."""
    world = World(nostr_invalid_quota=Quota(1, 3600.0, 1))
    client = world.client()
    for _ in range(3):
        assert client.ask(["REQ", "s", {"search": "x"}])[0][0] == "CLOSED"
    assert world.relay.counts.invalid_closed == 0
    assert world.relay.counts.closed["unsupported"] == 3


def test_negentropy_is_refused() -> None:
    """With the error that its clients understand."""
    answers = World().client().ask(["NEG-OPEN", "n", {}, "61"])
    assert answers == [["NEG-ERR", "n", "unsupported: negentropy is off here"]]


def test_binary_messages_are_not_understood() -> None:
    """They are malformed."""
    world = World()
    client = world.client()
    client.session.messages([(b"[]", True)])
    assert client.take() == [["NOTICE", "invalid: binary messages are not understood"]]


def test_a_fault_behind_an_authentication_reaches_the_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Deferred fails, and the transport closes the connection."""
    world = World(nostr_auth_challenge="connect")
    world.verifiers.is_prompt = False
    client = world.client()
    client.session.challenge()
    ((_, challenge),) = client.take()
    credential = event(kind=22242, tags=[["relay", "wss://relay.example.com/"], ["challenge", challenge]])
    waiting = client.session.messages([(_encoded(["AUTH", as_dict(credential)]), False), (b"[]", False)])
    failures: list[Any] = []
    assert waiting is not None
    waiting.addErrback(failures.append)

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(session_module, "parse", broken)
    world.verifiers.answer()
    assert failures[0].check(RuntimeError)


def test_what_follows_an_authentication_may_have_to_wait_as_well() -> None:
    """The first Deferred fires when the second does."""
    world = World(nostr_auth_challenge="connect", nostr_max_pending_events=1)
    world.verifiers.is_prompt = world.writer.is_prompt = False
    client = world.client()
    client.session.challenge()
    ((_, challenge),) = client.take()
    credential = event(kind=22242, tags=[["relay", "wss://relay.example.com/"], ["challenge", challenge]])
    client.send(["AUTH", as_dict(credential)], ["EVENT", as_dict(event("1"))], ["EVENT", as_dict(event("2"))])
    world.verifiers.answer()
    assert client.is_paused
    world.verifiers.answer()
    world.writer.commit()
    assert client.is_read


def test_searches_through_ephemerals_are_spread_over_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of REQs in one chunk do not hold up other peers, and are answered in order as before."""
    for module in (recent, querying):
        monkeypatch.setattr(module, "MAX_EXAMINED", 4)
    world = World(nostr_ephemeral_lifetime_s=60, nostr_max_scans=None)
    world.client().publish(*(event(str(number), kind=20001) for number in range(2)))
    client = world.client()
    requests = [["REQ", str(number), {"kinds": [20001]}] for number in range(7)]
    client.send(*requests, ["REQ", "last", {"limit": 0}])
    received = world.relay.counts.received
    assert (received["REQ"], client.is_paused) == (2, True)
    for expected in (4, 6, 8):
        world.one_turn()
        assert received["REQ"] == expected
    assert client.is_read
    assert len(world.readers.running) == 7


def test_searches_that_wait_end_with_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not processed yet never is."""
    for module in (recent, querying):
        monkeypatch.setattr(module, "MAX_EXAMINED", 1)
    world = World(nostr_ephemeral_lifetime_s=60)
    world.client().publish(event(kind=20001))
    client = world.client()
    client.send(["REQ", "a", {}], ["REQ", "b", {}])
    client.leave()
    world.turn()
    assert world.relay.counts.received["REQ"] == 1


def test_a_session_that_never_did_anything_can_leave() -> None:
    """There is nothing to end."""
    world = World()
    client = world.client()
    client.session.tick(0)
    client.session.drain()
    client.leave()
    assert not world.relay.members


def test_allowed_clients_are_counted() -> None:
    """Each connection of one counts."""
    world = World()
    world.exempt.add(CLIENT)
    world.client()
    world.client()
    assert world.relay.counts.exempt == 2


def test_an_idle_session_with_subscriptions_is_small() -> None:
    """A connection with ten subscriptions may take 16 KiB in all; the session has a part of it."""
    world = World()
    session = NostrSession(world.relay, FakePeer(), CLIENT)
    batch = [(b'["REQ","s%d",{"kinds":[1],"authors":["%064x"],"limit":0}]' % (n, n), False) for n in range(10)]
    assert not isinstance(session.messages(batch), Deferred)
    connection = session._connection
    parts: list[object] = [session, connection, connection.outgoing, connection.quotas, session._querying]
    assert session._querying is not None
    parts.append(session._querying.subscriptions)
    for one in session._querying.subscriptions.values():
        parts += [one, one.before, one.id_json]
    assert not any(hasattr(part, "__dict__") for part in parts)
    assert sum(map(sys.getsizeof, parts)) < 5000


def _encoded(message: object) -> bytes:
    import json

    return json.dumps(message).encode()


def test_ids_and_texts_follow_the_options() -> None:
    """The length of ids and the texts of refusals are the operator's, also where a message is malformed."""
    texts = {
        "invalid no filter": "kein Filter",
        "invalid subscription id must have 1 to N characters": "über N Zeichen",
    }
    client = World(nostr_max_subscription_id_chars=100, nostr_text=texts).client()
    answers = client.ask(["REQ", "x" * 100], ["REQ", "x" * 101, {}], ["REQ", "x" * 100, {"limit": 0}])
    assert answers == [
        ["CLOSED", "x" * 100, "invalid: kein Filter"],
        ["CLOSED", "x" * 101, "invalid: über 100 Zeichen"],
        ["EOSE", "x" * 100],
    ]
