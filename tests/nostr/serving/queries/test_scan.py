"""The answers to a REQ: stored events, ephemeral ones in memory, EOSE, and what was held back."""

from __future__ import annotations

from tests.support.nostr_queries import OTHER, opened, sent
from tests.support.nostr_relay import WALL_S, World, as_dict, event, json_of


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


def test_what_a_limit_of_0_leaves_out_is_unknown() -> None:
    """Beside filters that are scanned to their end, EOSE does not say that everything was sent."""
    world, client = opened({"limit": 0}, {"kinds": [1]})
    world.readers.running[0].done("finish")
    assert client.take() == [["EOSE", "s"]]
    assert client.ask(["REQ", "t", {"limit": 0, "ids": []}]) == [["EOSE", "t", ["finish"]]]


def test_what_is_committed_before_the_scan_begins_is_live_beside_a_limit_of_0() -> None:
    """Nobody looks for what only that filter matches, so the scan stops at the last event before the REQ."""
    world = World()
    client, publisher = world.client(), world.client(OTHER)
    publisher.publish(event("before"))
    client.send(["REQ", "s", {"limit": 0, "kinds": [7]}, {"kinds": [1]}], ["REQ", "t", {"kinds": [7]}])
    scan, other = world.readers.running
    assert (scan.query.limits.max_seq, other.query.limits.max_seq) == (1, None)
    only_live, both = event("reaction", kind=7), event("note")
    publisher.publish(only_live, both)
    scan.listener.snapshot(1)
    scan.done("finish")
    other.answer(only_live, seq=2)
    assert client.take() == [
        ["EOSE", "s"],
        *sent("s", only_live, both),
        *sent("t", only_live),
        ["EOSE", "t", ["finish"]],
    ]


def test_only_filters_that_can_match_are_scanned() -> None:
    """Filters with limit 0, and those that match nothing, are left out."""
    world, _ = opened({"limit": 0}, {"authors": []}, {"kinds": [1]})
    assert [one.kinds for one in world.readers.running[0].query.filters] == [(1,)]


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


def test_the_id_is_found_in_canonical_json() -> None:
    """Rows that were deleted are recognised by the id at its place."""
    one = event("x")
    assert json_of(one)[7:71].decode() == one.id
