"""Members of a cluster on a real server, in one process: gates that share their limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from pyryrelay.cluster.membership import Membership
from pyryrelay.guard import Gate, GateConfig
from pyryrelay.mounts import Settings

DEADLINE_S = 30.0
SECRET = b"0123456789abcdefghij"


async def until(condition: Callable[[], object], what: object = "") -> None:
    """Wait until a condition holds."""
    from twisted.internet import reactor

    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, what
        await deferLater(reactor, 0.005)


@dataclass
class Member:
    """A gate, and its part in the cluster. ``warnings`` are what operators would read."""

    gate: Gate
    membership: Membership
    warnings: list[str]

    async def is_up(self) -> None:
        """Wait until all servers can be used."""
        await until(lambda: all(client.is_up for client in self.membership.shards.clients), self.warnings)

    async def has_lost(self) -> None:
        """Wait until the first server was lost once."""
        await until(lambda: self.membership.shards.of(0).figures.outages)

    async def is_idle(self) -> None:
        """Wait until everything that was spent is charged."""
        quotas = self.membership.quotas
        assert quotas is not None
        await until(lambda: not quotas.pending and not quotas._in_flight and not quotas._is_due)

    def sync(self) -> Deferred[Any]:
        """Exchange what is exchanged once a second."""
        return self.membership.sync()


@contextmanager
def members(
    count: int, *urls: str, config: GateConfig | None = None, secret: bytes = SECRET, wall: Any = time.time
) -> Iterator[list[Member]]:
    """Start members of one cluster, and stop them afterwards."""
    from twisted.internet import reactor

    settings = Settings(cluster=urls, cluster_secret_file="-")
    made = []
    for _ in range(count):
        warnings: list[str] = []
        one = Membership(settings, secret, Path("/"), reactor, time.monotonic, wall, warnings.append)
        gate = Gate(config, one.wake)
        one.join(gate)
        one.start()
        one.share_jail()
        made.append(Member(gate, one, warnings))
    try:
        yield made
    finally:
        for member in made:
            member.membership.stop()


def together(*coroutines: Coroutine[Any, Any, Any]) -> list[Deferred[Any]]:
    """Start coroutines at the same time."""
    return [Deferred.fromCoroutine(each) for each in coroutines]
