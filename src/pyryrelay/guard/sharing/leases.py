"""Leases of which several servers know: the cap per address holds for all of them together.

A server reports an address only from `SharedLeases.threshold` connections on, so most addresses are never reported.
With N servers and the cap C an address never has more than ``C + (N - 1)*t`` connections, with ``t = max(2, C/(2*N))``,
and what is taken before the others know: the connection with which a server begins to report is taken unasked, too.
Other caps protect one process, and stay its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pyryrelay.guard.address.keys import AddressKey
from pyryrelay.guard.leases import CapReason, Held, Lease, LeaseLimits, Leases

__all__ = ["LEAST_REPORTED", "SharedLeases"]

LEAST_REPORTED: Final = 2
"""The fewest connections of an address that are reported."""


class SharedLeases(Leases):
    """`Leases` that count what other servers hold for an address. ``servers`` says how many there are, with this one.

    Everything that was reported is reported again, so `reports` is asked for until it is empty after `repeat`.
    """

    __slots__ = ("_changed", "_elsewhere", "_reported", "servers")

    def __init__(self, limits: LeaseLimits) -> None:
        """Start without leases, and alone."""
        super().__init__(limits)
        self.servers = 1
        self._elsewhere: dict[AddressKey, int] = {}
        self._reported: set[AddressKey] = set()
        self._changed: set[AddressKey] = set()

    @property
    def threshold(self) -> int:
        """From how many connections on an address is reported."""
        return max(LEAST_REPORTED, self.limits.max_connections_per_address // (2 * self.servers))

    def take_connection(self, key: AddressKey | None, route: str) -> Lease | CapReason:
        """Take a place for an upgraded connection on ``route``, or return the cap that is reached."""
        taken = super().take_connection(key, route)
        if key is not None and isinstance(taken, Lease):
            held = self._connections_by_key[key]
            if held >= LEAST_REPORTED and held >= self.threshold:
                self._changed.add(key)
        return taken

    def elsewhere(self, key: AddressKey) -> int:
        """Return how many connections of an address other servers hold, as far as this one has heard."""
        return self._elsewhere.get(key, 0)

    def held(self, key: AddressKey) -> Held:
        """See `Leases.held`."""
        return super().held(key)._replace(elsewhere=self.elsewhere(key))

    def reports(self, most: int) -> list[tuple[AddressKey, int]]:
        """Return at most ``most`` addresses that have changed, and what they hold here; 0 is below the threshold."""
        keys = [self._changed.pop() for _ in range(min(most, len(self._changed)))]
        found = []
        for key in keys:
            held = self._connections_by_key.get(key, 0)
            if held >= self.threshold:
                self._reported.add(key)
            elif key in self._reported:
                self._reported.discard(key)
                self._elsewhere.pop(key, None)
                held = 0
            else:
                continue
            found.append((key, held))
        return found

    def repeat(self) -> None:
        """Report everything again: what others know of this server ends if it is not repeated."""
        self._changed |= self._reported

    def heard(self, sums: Iterable[tuple[AddressKey, int]]) -> None:
        """Note what others hold for addresses that were reported."""
        for key, held in sums:
            if held > 0 and key in self._reported:
                self._elsewhere[key] = held
            else:
                self._elsewhere.pop(key, None)

    def alone(self) -> None:
        """Forget what others hold: they cannot be asked."""
        self._elsewhere.clear()
        self.repeat()

    def _address_cap(self, key: AddressKey, route: str, held: int) -> CapReason | None:
        return super()._address_cap(key, route, held + self._elsewhere.get(key, 0))

    def _release(self, key: AddressKey | None, route: str | None) -> None:
        super()._release(key, route)
        if route is not None and key in self._reported:
            self._changed.add(key)
