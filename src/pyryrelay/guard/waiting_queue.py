"""The queue of clients that wait for a token of their address and of its prefix.

There are as many places to wait as an address, or its prefix, may have connections. Each refused client is told a time
of its own, behind all that wait already (see `pyryrelay.guard.rate.reservations`). A client that comes earlier takes
another place each time, until there is none left.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from pyryrelay.guard.address.keys import AddressKey, covering_prefix
from pyryrelay.guard.leases import LeaseLimits
from pyryrelay.guard.rate.buckets import Buckets
from pyryrelay.guard.rate.reservations import LATEST_S
from pyryrelay.guard.refusal import Reason, Refusal, whole_s

__all__ = ["WaitingQueue"]


class WaitingQueue:
    """Tells clients when there will be a token for them in both ``own`` buckets and those of prefixes, ``shared``."""

    __slots__ = ("_longest_own_s", "_longest_shared_s", "_own", "_shared")

    def __init__(
        self, own: Buckets[AddressKey] | None, shared: Buckets[AddressKey] | None, limits: LeaseLimits
    ) -> None:
        """Have as many places as ``limits`` allow connections."""
        self._own, self._shared = own, shared
        self._longest_own_s = _longest_s(own, limits.max_connections_per_address)
        self._longest_shared_s = _longest_s(shared, limits.max_waiting_per_prefix)

    def refuse(self, key: AddressKey, now: float, *, reserve: bool) -> Refusal:
        """Refuse until both buckets will have a token for this client, behind all clients that wait already.

        Only where the client is told so, ``reserve`` that token for it.

        The length of the queue of an address is what it adds to the wait for the prefix, where others wait too.
        """
        own, shared = self._own, self._shared
        own_place = shared_place = None
        own_wait_s = shared_wait_s = 0.0
        if shared is not None:
            shared_place = shared.next_place(covering_prefix(key), now)
            shared_wait_s = shared_place[2]
            if shared_wait_s > self._longest_shared_s:
                shared_place, shared_wait_s = None, self._longest_shared_s
        if own is not None:
            own_place = own.next_place(key, now)
            own_wait_s = own_place[2]
            longest_s = shared_wait_s + self._longest_own_s
            if own_wait_s > longest_s:
                return Refusal(429, Reason.QUEUE_FULL, longest_s, own.quota)
        if reserve:
            if own is not None and own_place is not None:
                wait_s = max(own_wait_s, shared_wait_s)
                own.reserve(own_place, now + wait_s, now + whole_s(wait_s))
            if shared is not None and shared_place is not None:
                shared.reserve(shared_place, now + shared_wait_s, now + whole_s(shared_wait_s))
        if own is not None and own_wait_s >= shared_wait_s:
            return Refusal(429, Reason.RATE_LIMIT, own_wait_s, own.quota)
        reason = Reason.PREFIX_QUEUE_FULL if shared_place is None else Reason.PREFIX_RATE_LIMIT
        return Refusal(429, reason, shared_wait_s, None if shared is None else shared.quota)


def _longest_s(buckets: Buckets[AddressKey] | None, places: int) -> float:
    """Return how long the last of so many clients waits for the same bucket."""
    return 0.0 if buckets is None else places * buckets.spacing_s + LATEST_S + buckets.debt_s
