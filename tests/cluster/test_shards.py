"""The servers of a cluster."""

from __future__ import annotations

from tests.support.fake_redis import FakeServer

from pyryrelay.cluster.keys import PARTITIONS
from pyryrelay.cluster.shards import Shards


def test_each_partition_is_on_one_server() -> None:
    """All servers have as many of them."""
    servers = [FakeServer(), FakeServer()]
    shards = Shards([server.client for server in servers])
    assert len(shards) == 2
    found = [shards.of(partition) for partition in range(PARTITIONS)]
    assert [found.count(server.client) for server in servers] == [32, 32]
    assert all(shards.clients[shards.number_of(each)] is shards.of(each) for each in range(PARTITIONS))


def test_all_start_and_stop_together() -> None:
    """A cluster is one thing."""
    servers = [FakeServer(), FakeServer()]
    shards = Shards([server.client for server in servers])
    shards.start()
    for server in servers:
        server.wire.greet()
    assert [client.is_up for client in shards.clients] == [True, True]
    shards.stop()
    assert [client.is_up for client in shards.clients] == [False, False]
