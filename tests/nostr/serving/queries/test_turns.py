"""Which queries of a connection run, and how much they may send."""

from __future__ import annotations

from tests.support.nostr_queries import opened
from tests.support.nostr_relay import CLIENT, WALL_S, World, event

from pyryrelay.guard import Quota
from pyryrelay.nostr.serving.outgoing import LOW_WATER_BYTES
from pyryrelay.nostr.serving.queries.turns import LEAST_BYTES, MOST_WINDOW_BYTES, WINDOW_BYTES


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
