"""REQ and CLOSE: subscriptions are opened, replaced, refused and ended."""

from __future__ import annotations

from tests.support.nostr_queries import OTHER, opened, sent
from tests.support.nostr_relay import ALICE, BOB, CLIENT, World, as_dict, event

from pyryrelay.guard import Quota
from pyryrelay.nostr.options.types.rules import WorkQuota


def test_an_event_that_waits_for_delivery_is_not_sent_twice() -> None:
    """A subscription whose scan is over before an older commit is delivered does not get it again."""
    world = World()
    reader, publisher = world.client(), world.client(OTHER)
    one = event()
    publisher.send(["EVENT", as_dict(one)])  # committed; its delivery is scheduled
    reader.send(["REQ", "s", {}])
    world.readers.running[0].answer(one, seq=1)
    assert reader.take() == [*sent("s", one), ["EOSE", "s", ["finish"]]]


def test_the_same_id_again_replaces_the_subscription() -> None:
    """The old one ends without a word: no CLOSED, no EOSE, no rows."""
    world, client = opened({"kinds": [1]})
    (first,) = world.readers.running
    client.send(["REQ", "s", {"kinds": [2]}])
    assert not first.is_open
    (second,) = world.readers.running
    second.answer()
    assert client.take() == [["EOSE", "s", ["finish"]]]
    world.client(OTHER).publish(event(kind=1))
    assert client.take() == []


def test_close_ends_a_scan_without_a_word() -> None:
    """Nothing with that id is sent afterwards, and the id can be used again."""
    world, client = opened()
    assert client.ask(["CLOSE", "s"], ["CLOSE", "unknown"]) == []
    assert world.readers.running == []
    world.client(OTHER).publish(event())
    assert client.take() == []
    client.send(["REQ", "s", {}])
    world.readers.running[0].answer()
    assert client.take() == [["EOSE", "s", ["finish"]]]


def test_close_drops_what_waits() -> None:
    """Rows that the client has not read yet are not sent after CLOSE."""
    world, client = opened()
    client.peer.blocks, client.peer.buffered_bytes = True, 1
    world.readers.running[0].answer(event())
    client.send(["CLOSE", "s"])
    client.peer.drain()
    assert client.take() == []


def test_limit_0_is_only_live() -> None:
    """EOSE at once, without a scan, and live events afterwards."""
    world, client = opened({"limit": 0})
    assert world.readers.opened == []
    assert client.take() == [["EOSE", "s"]]
    world.client(OTHER).publish(one := event())
    assert client.take() == sent("s", one)


def test_an_event_that_was_answered_is_not_new() -> None:
    """A subscription that is opened between the OK of an event and its delivery is not sent it."""
    world, client = opened({"limit": 0})
    client.take()
    late, publisher = world.client(OTHER), world.client(OTHER)
    publisher.send(["EVENT", as_dict(one := event())])
    late.send(["REQ", "late", {"limit": 0}])
    assert client.take() == sent("s", one)
    assert late.take() == [["EOSE", "late"]]
    publisher.publish(two := event(content="two"))
    assert late.take() == sent("late", two)


def test_limit_0_does_not_skip_access_checks() -> None:
    """A filter for private kinds is refused whatever its limit."""
    _, client = opened({"kinds": [4], "limit": 0})
    challenge, refused = client.take()
    assert challenge[0] == "AUTH"
    assert refused == ["CLOSED", "s", "auth-required: these kinds are for their recipients"]


def test_a_filter_that_matches_nothing_needs_no_scan() -> None:
    """EOSE says that nothing is missing, and the subscription stays open."""
    world, client = opened({"ids": []})
    assert client.take() == [["EOSE", "s", ["finish"]]]
    assert world.relay.subscriptions == 1
    assert world.readers.opened == []


def test_an_event_of_the_same_connection_is_delivered_to_it() -> None:
    """Publishers get their own events too."""
    world, client = opened({"limit": 0})
    client.take()
    one = event()
    assert client.publish(one) == [["OK", one.id, True, ""], *sent("s", one)]
    assert world.relay.counts.fanout_deliveries == 1


def test_a_message_with_a_bad_filter_closes_the_open_subscription() -> None:
    """A refused REQ ends what was open under its id."""
    world, client = opened()
    world.readers.running[0].answer()
    client.take()
    assert client.ask(["REQ", "s", {"kinds": "x"}])[0][:2] == ["CLOSED", "s"]
    assert world.relay.subscriptions == 0


def test_a_refused_req_closes_the_open_subscription() -> None:
    """The same for a refusal by a policy."""
    world, client = opened()
    client.send(["REQ", "s", {"kinds": [4]}])
    assert world.relay.subscriptions == 0
    assert world.readers.running == []


def test_subscriptions_of_a_connection_are_limited() -> None:
    """One more is refused; replacing one is not, and nothing is charged for a refusal."""
    world = World(nostr_max_subscriptions=16, nostr_req_quota=Quota.parse("17/hour burst 17"))
    client = world.client()
    for number in range(16):
        client.send(["REQ", str(number), {"limit": 0}])
    client.take()
    assert client.ask(["REQ", "x", {}]) == [["CLOSED", "x", "rate-limited: more than 16 subscriptions"]]
    assert client.ask(["REQ", "0", {"limit": 0}]) == [["EOSE", "0"]]


def test_subscriptions_of_an_address_are_limited() -> None:
    """All connections of a client count together, and closing releases."""
    world = World(nostr_max_subscriptions_per_address=16)
    first, second = world.client(), world.client()
    for number in range(16):
        first.send(["REQ", str(number), {"limit": 0}])
    refused = [["CLOSED", "x", "rate-limited: more than 16 subscriptions"]]
    assert second.ask(["REQ", "x", {}]) == refused
    first.send(["CLOSE", "3"])
    assert second.ask(["REQ", "x", {"limit": 0}]) == [["EOSE", "x"]]
    assert second.ask(["REQ", "y", {}])[0][0] == "CLOSED"
    first.leave()
    assert second.ask(["REQ", "y", {"limit": 0}]) == [["EOSE", "y"]]


def test_values_of_an_address_are_limited() -> None:
    """Closing a subscription, replacing it and leaving give its values back; a refused one takes none."""
    world = World(nostr_max_open_values_per_address=1000)
    first, second, stranger = world.client(), world.client(), world.client(OTHER)
    many = {"authors": [f"{number:064x}" for number in range(600)], "limit": 0}
    refused = "rate-limited: more than 1000 values in open subscriptions"
    answered = [["EOSE", "s"]]
    assert first.ask(["REQ", "s", many]) == answered
    assert second.ask(["REQ", "s", many]) == [["CLOSED", "s", refused]]
    assert stranger.ask(["REQ", "s", many]) == answered
    assert first.ask(["REQ", "s", many]) == answered
    first.send(["CLOSE", "s"])
    assert second.ask(["REQ", "s", many]) == answered
    assert first.ask(["REQ", "s", many]) == [["CLOSED", "s", refused]]
    second.session.closed(1000, "")
    assert first.ask(["REQ", "s", many]) == answered
    world.configure(nostr_max_open_values_per_address=None)
    assert first.ask(["REQ", "t", many]) == [["EOSE", "t"]]
    assert world.relay.counts.closed["open_values"] == 2


def test_a_refused_quota_gives_values_back() -> None:
    """A REQ that the quota of filters refuses holds nothing."""
    world = World(nostr_max_open_values_per_address=1000, nostr_req_quota=Quota.parse("1/hour burst 1"))
    client = world.client()
    many = {"authors": [f"{number:064x}" for number in range(600)], "limit": 0}
    client.ask(["REQ", "s", {"limit": 0}])
    assert client.ask(["REQ", "t", many])[0][2].startswith("rate-limited: too many filters")
    world.configure(nostr_req_quota=None)
    assert client.ask(["REQ", "t", many]) == [["EOSE", "t"]]


def test_filters_have_a_quota() -> None:
    """Each filter costs a token; a refusal releases the place of the subscription."""
    world = World(nostr_req_quota=Quota.parse("2/hour burst 2"), nostr_max_subscriptions_per_address=16)
    client = world.client()
    client.send(["REQ", "a", {"limit": 0}, {"limit": 0}])
    client.take()
    for _ in range(20):
        ((verb, _, text),) = client.ask(["REQ", "b", {}])
        assert (verb, text) == ("CLOSED", "rate-limited: too many filters, try again in 1800 s")
    assert world.relay.subscriptions == 1


def test_an_exempt_client_has_no_quota_of_filters() -> None:
    """The allow list pays nothing."""
    world = World(nostr_req_quota=Quota.parse("1/hour burst 1"))
    world.exempt.add(CLIENT)
    client = world.client()
    assert client.ask(*[["REQ", str(number), {"limit": 0}] for number in range(3)]) == [
        ["EOSE", "0"],
        ["EOSE", "1"],
        ["EOSE", "2"],
    ]


def test_a_search_in_memory_is_charged() -> None:
    """It costs a look at each event; filters that name other kinds cost nothing."""
    world = World(
        nostr_ephemeral_lifetime_s=60,
        nostr_reject_ephemeral_older_s=None,
        nostr_work_quota=WorkQuota.parse("60/minute burst 60"),
    )
    world.client(OTHER).publish(*[event(str(number), kind=20001) for number in range(100)])
    client = world.client()
    client.send(["REQ", "a", {"kinds": [1]}], ["REQ", "b", {"kinds": [1]}])
    assert len(world.readers.running) == 2
    client.send(["REQ", "c", {}], ["REQ", "d", {"kinds": [1]}])
    assert len(world.readers.running) == 2


def test_a_drain_closes_everything() -> None:
    """Each open subscription and count is told, and new ones are refused."""
    world, client = opened()
    client.send(["COUNT", "c", {}], ["REQ", "live", {"limit": 0}])
    client.take()
    world.relay.drain()
    text = "error: the relay is shutting down"
    assert client.take() == [["CLOSED", "s", text], ["CLOSED", "live", text], ["CLOSED", "c", text]]
    assert world.readers.running == []
    assert client.ask(["REQ", "t", {}], ["COUNT", "d", {}]) == [["CLOSED", "t", text], ["CLOSED", "d", text]]


def test_a_client_that_leaves_leaves_nothing() -> None:
    """No scan, no subscription, no place in a queue."""
    world = World(nostr_max_scans=1)
    client = world.client()
    client.send(["REQ", "a", {}], ["REQ", "b", {}], ["COUNT", "c", {}])
    client.leave()
    relay = world.relay
    assert world.readers.running == []
    assert (relay.subscriptions, relay.counts.queries_running, relay.counts.queries_waiting) == (0, 0, 0)
    assert (len(relay.waiting), len(relay.members)) == (0, 0)


def test_private_events_are_delivered_to_their_parties_only() -> None:
    """Live delivery looks at the keys of each connection, at that moment."""
    world = World()
    alice, stranger = world.client(), world.client(OTHER)
    for client in (alice, stranger):
        client.send(["REQ", "s", {"limit": 0}])
        client.take()
    alice.session._connection.keys = frozenset({ALICE})
    secret = event(kind=4, author=BOB, tags=[["p", ALICE]])
    world.client(OTHER).publish(secret)
    assert alice.take() == sent("s", secret)
    assert stranger.take() == []
