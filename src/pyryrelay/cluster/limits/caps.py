"""Share the caps per address: members tell one another who holds many connections of an address.

Each address has a hash of counts, by member, which end if they are not repeated: so those of a member that died do.
Times are seconds.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from twisted.internet.defer import Deferred, inlineCallbacks

from pyryrelay.cluster.keys import Keys, partition_of
from pyryrelay.cluster.limits.scripts import HOLD
from pyryrelay.cluster.redis.interface import Argument, RedisError
from pyryrelay.cluster.shards import Shards
from pyryrelay.guard import AddressKey
from pyryrelay.guard.sharing.leases import SharedLeases

__all__ = ["LIVES_S", "REPEAT_S", "CapExchange"]

REPEAT_S: Final = 5.0
LIVES_S: Final = 15.0
"""How long a count holds that is not repeated."""
_MOST: Final = 200
_MOST_CALLS: Final = 50
"""Calls of one `CapExchange.sync`; more addresses than fit in them wait for the next."""


class CapExchange:
    """Reports what ``leases`` hold as the member ``me``. Call `sync` about once a second."""

    def __init__(self, shards: Shards, keys: Keys, leases: SharedLeases, me: bytes) -> None:
        self.reported = 0
        self._shards = shards
        self._keys = keys
        self._leases = leases
        self._me = me
        self._repeated_at = 0.0

    @inlineCallbacks
    def sync(self, now: float) -> Generator[Deferred[Any], Any, None]:
        """Report what has changed, and hear what others hold. Fails with a `RedisError`."""
        if now >= self._repeated_at + REPEAT_S:
            self._repeated_at = now
            self._leases.repeat()
        for _ in range(_MOST_CALLS):
            reports = self._leases.reports(_MOST)
            if not reports:
                return
            yield from self._report(reports)

    def _report(self, reports: list[tuple[AddressKey, int]]) -> Generator[Deferred[Any], Any, None]:
        batches: dict[int, tuple[list[Argument], list[Argument], list[AddressKey]]] = {}
        for key, held in reports:
            hashed = self._keys.hashed(b"cap", key.to_bytes(17, "big"))
            partition = partition_of(hashed)
            names, counts, meant = batches.setdefault(self._shards.number_of(partition), ([], [], []))
            names.append(self._keys.key(partition, "c:", hashed))
            counts.append(held)
            meant.append(key)
        for number, (names, counts, meant) in batches.items():
            arguments = [self._me, int(LIVES_S * 1000), *counts]
            try:
                sums = yield self._shards.clients[number].call(HOLD, names, arguments)
            except RedisError:
                # They cannot be asked, so what they hold does not count. It is asked for again soon.
                self._leases.heard([(key, 0) for key in meant])
                raise
            self.reported += len(meant)
            self._leases.heard(zip(meant, sums, strict=True))
