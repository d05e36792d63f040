"""REQ, COUNT and CLOSE."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.nostr_relay import ALICE, BOB, CLIENT, WALL_S, Client, World, as_dict, event, json_of

from pyryrelay.guard import Quota
from pyryrelay.guard.client import named
from pyryrelay.nostr.events import Event
from pyryrelay.nostr.options.types.rules import WorkQuota
from pyryrelay.nostr.serving.outgoing import LOW_WATER_BYTES
from pyryrelay.nostr.serving.querying import LEAST_BYTES, MOST_WINDOW_BYTES, WINDOW_BYTES

OTHER = named("198.51.100.1")


def sent(subscription: str, *events: Event) -> list[list[Any]]:
    """Return what a subscription is sent of events."""
    return [["EVENT", subscription, as_dict(one)] for one in events]


def opened(*filters: dict[str, Any], **options: Any) -> tuple[World, Client]:
    """Return a relay, and a client whose subscription ``s`` is being scanned."""
    world = World(**options)
    client = world.client()
    client.send(["REQ", "s", *(filters or ({},))])
    return world, client


# REQ


def test_stored_events_then_eose_then_live_ones() -> None:
    """Rows in the order of the reader, EOSE once with its hint, then what is committed."""
    world, client = opened({"kinds": [1]})
    old, new = event("old"), event("new")
    world.readers.running[0].answer(old, hint="more")
    assert client.take() == [*sent("s", old), ["EOSE", "s", ["more"]]]
    world.client(OTHER).publish(new, event(kind=2))
    assert client.take() == sent("s", new)


def test_a_hint_that_is_not_known_is_left_out() -> None:
    """EOSE has two elements then."""
    world, client = opened()
    world.readers.running[0].answer(hint=None)
    assert client.take() == [["EOSE", "s"]]


def test_what_is_committed_during_the_scan_follows_eose() -> None:
    """Events that the snapshot has are not sent again, later ones are held back."""
    world, client = opened()
    (scan,) = world.readers.running
    publisher = world.client(OTHER)
    before, after = event("before"), event("after")
    publisher.publish(before)
    scan.listener.snapshot(1)
    publisher.publish(after)
    scan.rows(before)
    assert client.take() == sent("s", before)
    scan.done("finish")
    assert client.take() == [["EOSE", "s", ["finish"]], *sent("s", after)]


def test_an_event_that_waits_for_delivery_is_not_sent_twice() -> None:
    """A subscription whose scan is over before an older commit is delivered does not get it again."""
    world = World()
    reader, publisher = world.client(), world.client(OTHER)
    one = event()
    publisher.send(["EVENT", as_dict(one)])  # committed; its delivery is scheduled
    reader.send(["REQ", "s", {}])
    world.readers.running[0].answer(one, seq=1)
    assert reader.take() == [*sent("s", one), ["EOSE", "s", ["finish"]]]


def test_what_is_deleted_during_the_scan_is_not_sent_after_it() -> None:
    """Neither rows that still arrive nor events that were held back."""
    world, client = opened()
    (scan,) = world.readers.running
    scan.listener.snapshot(0)
    row, other = event("row"), event("other")
    publisher = world.client(OTHER)
    publisher.publish(held := event("held"))
    world.relay.removed("written", [bytes.fromhex(row.id), bytes.fromhex(held.id)])
    scan.rows(row, other)
    scan.done("finish")
    assert client.take() == [*sent("s", other), ["EOSE", "s", ["finish"]]]


def test_what_is_removed_is_forgotten_once_no_scan_runs() -> None:
    """An event that was removed before a scan began may be there again."""
    world, client = opened()
    one = event()
    world.relay.removed("retention", [bytes.fromhex(one.id)])
    world.pass_s(1)
    assert len(world.relay.removals) == 1
    world.client(OTHER).send(["REQ", "s", {}])
    world.readers.running[1].rows(one)
    world.readers.running[0].rows(one)
    assert client.take() == []
    for scan in world.readers.running:
        scan.done("finish")
    world.pass_s(1)
    assert len(world.relay.removals) == 0


def test_a_client_that_does_not_read_is_closed_for_what_its_scan_holds_back() -> None:
    """Live events wait for the end of a scan, which waits for its client: that is limited as all that waits."""
    world, client = opened(nostr_outbox_bytes=10_000)
    publisher = world.client(OTHER)
    for number in range(4):
        publisher.publish(event(str(number) + "x" * 3000))
        world.turn()
    assert client.peer.closed_with == (1008, "reads too slowly")
    assert world.relay.outboxes.waiting_bytes == 0


def test_what_expires_during_the_scan_is_not_sent_after_it() -> None:
    """An event that was held back may be over by the end of the scan."""
    world, client = opened()
    world.readers.running[0].listener.snapshot(0)
    world.client(OTHER).publish(event(tags=[["expiration", str(WALL_S + 10)]]))
    world.wall_s += 10
    world.readers.running[0].done("finish")
    assert client.take() == [["EOSE", "s", ["finish"]]]


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


def test_what_a_limit_of_0_leaves_out_is_unknown() -> None:
    """Beside filters that are scanned to their end, EOSE does not say that everything was sent."""
    world, client = opened({"limit": 0}, {"kinds": [1]})
    world.readers.running[0].done("finish")
    assert client.take() == [["EOSE", "s"]]
    assert client.ask(["REQ", "t", {"limit": 0, "ids": []}]) == [["EOSE", "t", ["finish"]]]


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


def test_only_filters_that_can_match_are_scanned() -> None:
    """Filters with limit 0, and those that match nothing, are left out."""
    world, _ = opened({"limit": 0}, {"authors": []}, {"kinds": [1]})
    assert [one.kinds for one in world.readers.running[0].query.filters] == [(1,)]


def test_an_event_of_the_same_connection_is_delivered_to_it() -> None:
    """Publishers get their own events too."""
    world, client = opened({"limit": 0})
    client.take()
    one = event()
    assert client.publish(one) == [["OK", one.id, True, ""], *sent("s", one)]
    assert world.relay.counts.fanout_deliveries == 1


@pytest.mark.parametrize(
    ("aborted", "text"),
    [
        ("expensive", "error: query too expensive, name authors, kinds, tags or times"),
        ("timeout", "error: query took too long"),
        ("error", "error: could not read the store"),
    ],
)
def test_a_query_that_fails_closes_its_subscription(aborted: Any, text: str) -> None:
    """The client is told, and nothing is delivered any more."""
    world, client = opened()
    world.readers.running[0].done(None, aborted=aborted)
    assert client.take() == [["CLOSED", "s", text]]
    assert world.relay.subscriptions == 0
    world.client(OTHER).publish(event())
    assert client.take() == []


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


# Turns


def test_a_connection_scans_so_many_at_a_time() -> None:
    """Further queries wait in order, and count as open."""
    world = World(nostr_max_scans=2)
    client = world.client()
    client.send(*[["REQ", str(number), {"kinds": [number]}] for number in range(4)])
    assert [one.query.filters[0].kinds for one in world.readers.running] == [(0,), (1,)]
    assert world.relay.counts.queries_waiting == 2
    client.send(["CLOSE", "2"])
    world.readers.running[0].answer()
    assert [one.query.filters[0].kinds for one in world.readers.running] == [(1,), (3,)]
    assert world.relay.counts.queries_waiting == 0
    assert world.relay.subscriptions == 3


def test_a_client_in_debt_waits() -> None:
    """Work is charged when it is done; the next query waits until it is paid."""
    world, client = opened(nostr_work_quota=Quota.parse("60/minute burst 60"))
    world.readers.running[0].done("finish", work=70)
    client.send(["REQ", "t", {}])
    assert world.readers.running == []
    world.pass_s(5)
    assert world.readers.running == []
    world.pass_s(6)
    assert len(world.readers.running) == 1


def test_what_waits_too_long_is_closed() -> None:
    """Queries never disappear without a word."""
    world, client = opened(nostr_work_quota=Quota.parse("1/minute burst 1"), nostr_query_timeout_s=10)
    world.readers.running[0].done("finish", work=1000)
    client.take()
    client.send(["REQ", "t", {}], ["COUNT", "c", {}])
    world.pass_s(9)
    assert client.take() == []
    world.pass_s(1)
    text = "error: query took too long"
    assert client.take() == [["CLOSED", "t", text], ["CLOSED", "c", text]]
    assert world.relay.counts.queries_waiting == 0
    assert not world.relay.waiting


def test_a_cancelled_scan_is_charged_by_its_time() -> None:
    """Closing before the end is no way around the work quota."""
    world, client = opened(nostr_work_quota=Quota.parse("1000/minute burst 1000"))
    world.pass_s(1)
    client.send(["CLOSE", "s"], ["REQ", "t", {}])
    assert world.readers.running == []


def test_readers_are_told_the_limits_and_the_eyes() -> None:
    """A query has what the connection may see, and the time that is left."""
    world, _ = opened({"limit": 7}, nostr_max_results=33)
    query = world.readers.running[0].query
    assert query.view.keys == frozenset()
    assert query.view.private_kinds == {4, 1059, 21059}
    assert query.view.wall_s == WALL_S
    assert (query.limits.max_limit, query.limits.max_results, query.timeout_s) == (500, 33, 30)
    assert query.client == str(CLIENT.key)
    assert query.count is None


# Credit


def test_a_scan_goes_on_while_the_client_reads() -> None:
    """Credit that was used is given again before it is gone."""
    world, _ = opened()
    (scan,) = world.readers.running
    assert scan.credit == WINDOW_BYTES * 3 // 4
    scan.rows(*[event("x" * 50_000, created_at=number) for number in range(2)])
    assert scan.credit == WINDOW_BYTES * 3 // 4
    scan.rows(*[event("x" * 70_000, created_at=number) for number in range(20)])
    assert scan.credit == MOST_WINDOW_BYTES * 3 // 4


def test_a_scan_pauses_while_the_client_does_not_read() -> None:
    """Nothing beyond the first credit is read from the store; it goes on when little waits."""
    world, client = opened()
    client.peer.blocks, client.peer.buffered_bytes = True, 1
    (scan,) = world.readers.running
    scan.rows(*[event("x" * 50_000, created_at=number) for number in range(3)])
    assert scan.credit < 0
    client.peer.trickle()
    assert scan.credit < 0
    client.peer.trickle()
    client.peer.trickle()
    assert scan.credit > LEAST_BYTES
    assert world.relay.outboxes.waiting_bytes < LOW_WATER_BYTES


def test_scans_of_one_connection_share_the_credit() -> None:
    """A client that reads nothing costs no more for having many subscriptions."""
    world = World()
    client = world.client()
    client.send(*[["REQ", str(number), {}] for number in range(4)])
    given = [one.credit for one in world.readers.running]
    assert given == sorted(given, reverse=True)
    assert min(given) >= LEAST_BYTES
    assert sum(given) <= WINDOW_BYTES + LEAST_BYTES


def test_a_scan_of_a_client_that_does_not_read_is_not_begun() -> None:
    """It begins once the client reads, or ends without having been given to a reader."""
    world = World()
    client = world.client()
    client.peer.blocks, client.peer.buffered_bytes = True, 1
    client.send(["REQ", "first", {}])
    world.readers.running[0].rows(*[event("x" * 50_000, created_at=number) for number in range(3)])
    client.send(["REQ", "second", {}], ["REQ", "third", {}])
    assert len(world.readers.running) == 1
    assert world.relay.counts.queries_running == 3
    client.send(["CLOSE", "third"])
    assert world.relay.counts.queries_running == 2
    for _ in range(3):
        client.peer.trickle()
    assert len(world.readers.running) == 2


# COUNT


def test_count_is_answered() -> None:
    """The number that the reader found."""
    world = World()
    client = world.client()
    client.send(["COUNT", "c", {"kinds": [1]}])
    (query,) = world.readers.running
    assert query.query.count is not None
    assert query.query.count.max_count == 1_000_000
    query.listener.counted(42, False, None)
    query.done()
    assert client.take() == [["COUNT", "c", {"count": 42}]]
    assert world.relay.subscriptions == 0


@pytest.mark.parametrize(
    ("filters", "options", "expected"),
    [
        ([{"#e": ["e" * 64]}], {}, True),
        ([{"#e": ["e" * 64]}], {"nostr_hll": False}, False),
        ([{"kinds": [7]}], {}, False),
        ([{"#e": ["e" * 64]}, {"#t": ["x"]}], {}, False),
    ],
)
def test_registers_are_made_for_one_filter_with_a_tag(
    filters: list[dict[str, Any]], options: dict[str, Any], expected: bool
) -> None:
    """HyperLogLog needs one filter with a tag, and can be turned off."""
    world = World(**options)
    world.client().send(["COUNT", "c", *filters])
    count = world.readers.running[0].query.count
    assert count is not None
    assert count.hll is expected


def test_an_approximate_count_says_so() -> None:
    """The answer has the third member then."""
    world = World()
    client = world.client()
    client.send(["COUNT", "c", {}])
    world.readers.running[0].listener.counted(9, True, None)
    world.readers.running[0].done()
    assert client.take() == [["COUNT", "c", {"count": 9, "approximate": True}]]


def test_counting_can_be_off() -> None:
    """With a limit of 0 there is no counting."""
    client = World(nostr_max_count=0).client()
    assert client.ask(["COUNT", "c", {}]) == [["CLOSED", "c", "unsupported: counting is off here"]]


def test_counts_have_a_quota() -> None:
    """Refused with CLOSED, as always."""
    world = World(nostr_count_quota=Quota.parse("1/hour burst 1"))
    client = world.client()
    client.send(["COUNT", "a", {}])
    assert client.ask(["COUNT", "b", {}]) == [["CLOSED", "b", "rate-limited: too many counts"]]


def test_close_cancels_a_count() -> None:
    """There is no answer then."""
    world = World()
    client = world.client()
    client.send(["COUNT", "c", {}], ["CLOSE", "c"])
    assert world.readers.running == []
    assert client.take() == []


def test_a_count_of_private_kinds_needs_authentication() -> None:
    """The challenge comes first."""
    client = World().client()
    challenge, refused = client.ask(["COUNT", "c", {"kinds": [4]}])
    assert challenge[0] == "AUTH"
    assert refused == ["CLOSED", "c", "auth-required: these kinds are for their recipients"]


def test_counts_count_as_open() -> None:
    """Waiting counts are bounded with the subscriptions."""
    world = World(nostr_max_subscriptions=16)
    client = world.client()
    client.send(*[["COUNT", str(number), {}] for number in range(16)])
    assert client.ask(["COUNT", "x", {}]) == [["CLOSED", "x", "rate-limited: more than 16 subscriptions"]]


# Ephemerals in memory


def test_ephemerals_in_memory_are_merged_in_order() -> None:
    """REQ finds them for their lifetime, between the stored events; live ones are not sent twice."""
    world = World(nostr_ephemeral_lifetime_s=60, nostr_reject_ephemeral_older_s=None)
    publisher, client = world.client(OTHER), world.client()
    middle = event("middle", kind=20001, created_at=WALL_S - 5)
    publisher.send(["EVENT", as_dict(middle)])
    client.send(["REQ", "s", {}])
    newest, oldest = event("newest"), event("oldest", created_at=WALL_S - 9)
    last = event("last", kind=20001, created_at=WALL_S - 10)
    publisher.publish(last)
    (scan,) = world.readers.running
    scan.rows(newest, oldest)
    scan.done("finish")
    assert client.take() == [*sent("s", newest, middle, oldest), ["EOSE", "s", ["finish"]], *sent("s", last)]


def test_ephemerals_behind_the_last_row_are_sent_before_eose() -> None:
    """The oldest come last."""
    world = World(nostr_ephemeral_lifetime_s=60)
    one = event(kind=20001, created_at=WALL_S - 5)
    world.client(OTHER).publish(one)
    client = world.client()
    client.send(["REQ", "s", {}])
    world.readers.running[0].answer()
    assert client.take() == [*sent("s", one), ["EOSE", "s", ["finish"]]]


def test_a_limit_holds_for_stored_events_and_ephemerals_together() -> None:
    """A filter yields its newest, wherever they are, and EOSE says that there are more."""
    world = World(nostr_ephemeral_lifetime_s=60)
    middle, last = event("1", kind=20001, created_at=WALL_S - 5), event("2", kind=20001, created_at=WALL_S - 10)
    world.client(OTHER).publish(middle, last)
    client = world.client()
    client.send(["REQ", "s", {"limit": 2}])
    newest, oldest = event("newest"), event("oldest", created_at=WALL_S - 9)
    world.readers.running[0].answer(newest, oldest)
    assert client.take() == [*sent("s", newest, middle), ["EOSE", "s", ["more"]]]


def test_ephemerals_beyond_a_limit_are_hinted_at() -> None:
    """The limit cuts them as it does stored events, for each filter by itself."""
    world = World(nostr_ephemeral_lifetime_s=60)
    first, second = event("1", kind=20001), event("2", kind=20001, created_at=WALL_S - 1)
    world.client(OTHER).publish(first, second)
    client = world.client()
    client.send(
        ["REQ", "s", {"kinds": [20001], "limit": 1}], ["REQ", "t", {"limit": 1}, {"kinds": [20001], "limit": 2}]
    )
    for scan in list(world.readers.running):
        scan.answer()
    assert client.take() == [
        *sent("s", first),
        ["EOSE", "s", ["more"]],
        *sent("t", first, second),
        ["EOSE", "t", ["finish"]],
    ]


def test_count_counts_ephemerals_in_memory() -> None:
    """What REQ would send is counted."""
    world = World(nostr_ephemeral_lifetime_s=60)
    world.client(OTHER).publish(event("1", kind=20001), event("2", kind=20001))
    client = world.client()
    client.send(["COUNT", "c", {"kinds": [20001], "limit": 1}])
    world.readers.running[0].listener.counted(0, False, None)
    world.readers.running[0].done()
    assert client.take() == [["COUNT", "c", {"count": 2}]]


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


# The end


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


def test_the_id_is_found_in_canonical_json() -> None:
    """Rows that were deleted are recognised by the id at its place."""
    one = event("x")
    assert json_of(one)[7:71].decode() == one.id
