"""The servers of a cluster, and which of them has a partition. Each member has to list them in the same order."""

from __future__ import annotations

from collections.abc import Sequence

from pyryrelay.cluster.redis.client import RedisClient

__all__ = ["Shards"]


class Shards:
    """One or more servers, each with its own partitions."""

    def __init__(self, clients: Sequence[RedisClient]) -> None:
        self.clients = tuple(clients)

    def __len__(self) -> int:
        """Count the servers."""
        return len(self.clients)

    def number_of(self, partition: int) -> int:
        """Return the number of the server that has a partition."""
        return partition % len(self.clients)

    def of(self, partition: int) -> RedisClient:
        """Return the server that has a partition."""
        return self.clients[partition % len(self.clients)]

    def start(self) -> None:
        """Begin to connect to all of them."""
        for client in self.clients:
            client.start()

    def stop(self) -> None:
        """End all connections."""
        for client in self.clients:
            client.stop()
