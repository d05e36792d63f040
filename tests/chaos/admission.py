"""One address that asks for too much at every instance, and how much of that may be admitted. Times are seconds.

The bound is that of the design: with N instances, burst B, interval T, attempts a per second at each instance and L
until others know, at most B + W/T + (N - 1) min(B, 1 + a L) in a window W. Each time that instances cannot know of
each other adds what the others admit alone meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.chaos.timeline import Fault

__all__ = ["Hammer", "Quota", "bound"]

TELLS_S: Final = 0.5
"""How long an instance may take until others know what it has admitted, while nothing fails."""
RECOVERS_S: Final = 2.0
"""How long after a fault limits may not be shared yet."""
ALONE: Final = frozenset(
    {"redis-kill", "redis-stop", "failover", "cut-redis", "one-way-redis", "delay", "loss", "stop", "late"}
)
"""Kinds of faults during which an instance may not hear of what others admit. The last one is no fault that was made,
but an outage because the machine was late."""
FORGETS: Final = frozenset({"kill", "end", "kill-worker", "redis-kill"})
"""Kinds of faults after which an instance, or Redis, does not know what was admitted. An instance hears of it. An empty
Redis does not: until it has heard of a burst again, instances that know what they admitted themselves admit as much as
they would alone, which is a burst more in all."""
RICHER_S: Final = 3.0
"""By how much the clock of a new primary may be ahead: buckets are that much fuller."""


class Quota(NamedTuple):
    """A burst, and the interval at which one more attempt is free."""

    burst: int = 10
    interval_s: float = 1.0

    @property
    def option(self) -> str:
        """Return it as the option of a relay."""
        return f"{60 / self.interval_s:g}/minute burst {self.burst}"


def bound(quota: Quota, instances: int, attempts_per_s: float, window_s: float, faults: Sequence[Fault]) -> float:
    """Return the most that may be admitted in a window with these faults of an address that always asks for more.

    Its buckets are empty, so while instances do not hear of each other, each admits one attempt in an interval.
    """
    others, at_once = instances - 1, min(quota.burst, 1 + attempts_per_s * TELLS_S)
    most = quota.burst + window_s / quota.interval_s + others * at_once
    alone = [fault for fault in faults if fault.kind in ALONE]
    most += others * (_together_s(alone) / quota.interval_s + len(alone))
    most += quota.burst * sum(fault.kind in FORGETS for fault in faults)
    return most + instances * RICHER_S / quota.interval_s * sum(fault.kind == "failover" for fault in faults)


def _together_s(faults: Sequence[Fault]) -> float:
    """Return for how long there is at least one of these faults, or what comes after it."""
    found, covered = 0.0, -math.inf
    for fault in sorted(faults, key=lambda fault: fault.since):
        until = fault.until + RECOVERS_S
        found += max(0.0, until - max(fault.since, covered))
        covered = max(covered, until)
    return found


@dataclass
class Hammer:
    """Asks each instance for an upgrade again and again, from the address ``source``.

    ``addresses`` are those of the instances that are healthy.
    """

    source: str
    addresses: Callable[[], Iterable[tuple[str, int]]]
    attempts_per_s: float = 5.0
    admitted: int = 0
    refused: int = 0
    unanswered: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

    async def keep_on(self) -> None:
        """Ask until this is cancelled."""
        running: set[asyncio.Task[None]] = set()
        while True:
            for address in self.addresses():
                task = asyncio.create_task(self._ask(address))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.sleep(1 / self.attempts_per_s)

    async def _ask(self, address: tuple[str, int]) -> None:
        status = 0
        with contextlib.suppress(OSError, TimeoutError, asyncio.TimeoutError, ValueError, IndexError, EOFError):
            async with asyncio.timeout(5.0):
                status = await self._status(address)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if not status:
            self.unanswered += 1
        elif status == 429:
            self.refused += 1
        else:
            self.admitted += 1

    async def _status(self, address: tuple[str, int]) -> int:
        reader, writer = await asyncio.open_connection(*address, local_addr=(self.source, 0))
        try:
            head = (
                "GET /v1/client HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "X-Pyrycode-Server: nobody\r\n\r\n"
            )
            writer.write(head.encode("ascii"))
            return int((await reader.readline()).split()[1])
        finally:
            writer.transport.abort()
