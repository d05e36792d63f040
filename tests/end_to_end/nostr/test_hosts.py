"""Two hosts are one relay: what one stores, the other has, whatever happens to Redis."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import Relay, asynchronous, eventually
from tests.end_to_end.nostr.conftest import OPEN
from tests.end_to_end.nostr.peers import Author, client, ids_of
from tests.support.redis_server import RedisServer, needs_redis, running

pytestmark = needs_redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the cluster."""
    server = RedisServer(tmp_path / "redis")
    with running(server):
        yield server


@pytest.fixture
def hosts(tmp_path: Path, redis: RedisServer, start_relay: StartRelay) -> list[Relay]:
    """Two relays that share events."""
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 4, encoding="ascii")
    secret.chmod(0o600)
    options = (*OPEN, "--cluster", redis.url, "--cluster-secret-file", str(secret))
    return [start_relay(*options) for _ in range(2)]


def stored(host: Relay) -> set[str]:
    """Return the ids of the events in a database."""
    with contextlib.closing(sqlite3.connect(host.directory / "pyryrelay-nostr.sqlite")) as database:
        return {row[0].hex() for row in database.execute("SELECT id FROM event")}


@asynchronous
async def test_events_reach_the_subscribers_of_the_other_host(hosts: list[Relay], redis: RedisServer) -> None:
    """Once each, stored or ephemeral, deleted ones no more; also after Redis was killed and has started empty."""
    author = Author()
    async with client(hosts[0].uri) as here, client(hosts[1].uri) as there:
        for peer in (here, there):
            assert await peer.subscribe("s", {"authors": [author.pubkey]}) == []
        first, gone, passing = author.event("first"), author.event("gone"), author.event("", 20_001)
        for event in (first, gone, passing):
            assert await here.publish(event) == (True, "")
        heard = [(await there.live("s"))["id"] for _ in range(3)]
        assert sorted(heard) == sorted(ids_of([first, gone, passing]))
        deletion = author.event("", 5, [["e", gone["id"]]])
        assert await there.publish(deletion) == (True, "")
        await eventually(lambda: stored(hosts[0]) == {first["id"], deletion["id"]}, "the deletion has arrived")

        redis.kill()
        meanwhile = [author.notes(20), author.notes(20)]
        for peer, notes in zip((here, there), meanwhile, strict=True):
            assert all(accepted for accepted, _ in await peer.publish_all(notes))
        redis.start()
        last = author.event("last")
        assert await here.publish(last) == (True, "")
        wanted = {first["id"], deletion["id"], last["id"], *ids_of(meanwhile[0]), *ids_of(meanwhile[1])}
        await eventually(lambda: all(stored(host) == wanted for host in hosts), "both have everything")
        expected = [deletion["id"], last["id"], *ids_of(meanwhile[0]), *ids_of(meanwhile[1])]
        # What is stored already may still be on its way to subscribers.
        live = Counter([(await there.live("s"))["id"] for _ in expected])
        assert live == dict.fromkeys(expected, 1)
        await there.settled()
        assert there.waiting("EVENT", "s") == []
        await hosts[0].metric_will_be("pyryrelay_nostr_cluster_waiting_events", 0)
        assert hosts[0].metrics()['pyryrelay_nostr_cluster_announced_total{kind="stored"}'] >= 23
