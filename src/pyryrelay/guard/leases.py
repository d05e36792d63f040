"""Concurrent connections: how many there are, of which addresses, and how many there may be.

A connection holds a *handshake* lease from accept until it is upgraded or gone, and a *connection* lease from its
admission until it is gone. Each lease is released exactly once, however often `Lease.release` is called.

There are caps on all connections, on those of an address, of a covering prefix (a /24 or a /48, which neighbours
share), of a route, and of an address on one route; and on all handshakes and on those of an address. The last tenth of
all places, of either kind, is for addresses that hold few: when the server is nearly full, these still get in.

Invariants: every gauge equals the number of leases that are held; a key, prefix or route without leases takes no
memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, Self, TypeVar

from pyryrelay.guard.address.keys import AddressKey, covering_prefix
from pyryrelay.guard.errors import LimitError

__all__ = ["FEW_LEASES", "RESERVED_SHARE", "CapReason", "Held", "Lease", "LeaseLimits", "Leases"]

RESERVED_SHARE: Final = 0.1
"""The share of all places that is reserved for addresses that hold fewer than `FEW_LEASES`."""

FEW_LEASES: Final = 4

_CROWDED_ADDRESSES: Final = 8

_Name = TypeVar("_Name", bound=Hashable)


class CapReason(StrEnum):
    """Which cap is reached."""

    GLOBAL_CONNECTIONS = "global_connections"
    ADDRESS_CONNECTIONS = "address_connections"
    PREFIX_CONNECTIONS = "prefix_connections"
    ROUTE_CONNECTIONS = "route_connections"
    GLOBAL_HANDSHAKES = "global_handshakes"
    ADDRESS_HANDSHAKES = "address_handshakes"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLimits:
    """Caps on what may be held at the same time. Raises `LimitError` for a cap below 1.

    The maps cap single routes: in all, and per address. A route that is not in them has no cap of its own.
    """

    max_connections: int = 10_000
    max_connections_per_address: int = 64
    max_handshakes: int = 1_024
    max_handshakes_per_address: int = 64
    max_connections_per_prefix: int | None = None
    max_per_route: Mapping[str, int] = field(default_factory=dict)
    max_per_route_and_address: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse caps under which no client could ever connect."""
        for limit in fields(self):
            value = getattr(self, limit.name)
            for number in value.values() if isinstance(value, Mapping) else (value,):
                if number is not None and number < 1:
                    raise LimitError(f"{limit.name} {number!r} would refuse all clients: use 1 or more")

    @property
    def max_waiting_per_prefix(self) -> int:
        """The number of clients of one prefix that may wait: as many as may connect, or as fill some addresses."""
        return self.max_connections_per_prefix or min(
            self.max_connections, _CROWDED_ADDRESSES * self.max_connections_per_address
        )


class Held(NamedTuple):
    """What one address holds: connections, those of its prefix, unfinished handshakes, and connections by route.

    ``elsewhere`` has the connections that other servers have told of; its cap holds for all of them together.
    """

    connections: int
    by_prefix: int
    handshakes: int
    by_route: Mapping[str, int]
    elsewhere: int = 0


class Lease:
    """The right to one place. Call `release` when it is not used any more, or use it in a ``with`` statement."""

    __slots__ = ("_leases", "key", "route")

    def __init__(self, leases: Leases, key: AddressKey | None, route: str | None) -> None:
        """Belong to ``leases``; ``route`` is None for a handshake."""
        self._leases: Leases | None = leases
        self.key = key
        self.route = route

    def __enter__(self) -> Self:
        """Hold the place for the time of a ``with`` statement."""
        return self

    def __exit__(self, *error: object) -> None:
        """Release the place, whatever happened."""
        self.release()

    def release(self) -> None:
        """Release the place. The first call counts; later ones do nothing."""
        leases, self._leases = self._leases, None
        if leases is not None:
            leases._release(self.key, self.route)


class Leases:
    """Hand out leases under ``limits``, which may be replaced at any time: lower limits end no lease.

    ``connections`` and ``handshakes`` are gauges of what is held. A key of None stands for a peer that is not counted
    per address, such as a trusted proxy.
    """

    __slots__ = (
        "_connections_by_key",
        "_connections_by_prefix",
        "_connections_by_route",
        "_connections_by_route_and_key",
        "_handshakes_by_key",
        "connections",
        "handshakes",
        "limits",
    )

    def __init__(self, limits: LeaseLimits) -> None:
        """Start without leases."""
        self.limits = limits
        self.connections = 0
        self.handshakes = 0
        self._connections_by_key: dict[AddressKey, int] = {}
        self._connections_by_prefix: dict[AddressKey, int] = {}
        self._connections_by_route: dict[str, int] = {}
        self._connections_by_route_and_key: dict[tuple[str, AddressKey], int] = {}
        self._handshakes_by_key: dict[AddressKey, int] = {}

    @property
    def connections_by_route(self) -> Mapping[str, int]:
        """Connection leases that are held per route, as a live read-only view; routes without any are absent."""
        return MappingProxyType(self._connections_by_route)

    def take_handshake(self, key: AddressKey | None) -> Lease | CapReason:
        """Take a place for a connection that is not upgraded yet, or return the cap that is reached."""
        reason = self.would_refuse_handshake(key)
        if reason is not None:
            return reason
        if key is not None:
            _add(self._handshakes_by_key, key)
        self.handshakes += 1
        return Lease(self, key, None)

    def would_refuse_handshake(self, key: AddressKey | None) -> CapReason | None:
        """Return the cap that `take_handshake` would name now, or None."""
        limits = self.limits
        held = 0 if key is None else self._handshakes_by_key.get(key, 0)
        if self.handshakes >= _places(limits.max_handshakes, held):
            return CapReason.GLOBAL_HANDSHAKES
        if held >= limits.max_handshakes_per_address:
            return CapReason.ADDRESS_HANDSHAKES
        return None

    def take_connection(self, key: AddressKey | None, route: str) -> Lease | CapReason:
        """Take a place for an upgraded connection on ``route``, or return the cap that is reached."""
        reason = self.would_refuse_connection(key, route)
        if reason is not None:
            return reason
        self.connections += 1
        _add(self._connections_by_route, route)
        if key is not None:
            _add(self._connections_by_key, key)
            _add(self._connections_by_prefix, covering_prefix(key))
            _add(self._connections_by_route_and_key, (route, key))
        return Lease(self, key, route)

    def would_refuse_connection(self, key: AddressKey | None, route: str) -> CapReason | None:
        """Return the cap that `take_connection` would name now, or None; caps on all clients together go first."""
        limits = self.limits
        held = 0 if key is None else self._connections_by_key.get(key, 0)
        if self.connections >= _places(limits.max_connections, held):
            return CapReason.GLOBAL_CONNECTIONS
        if self._connections_by_route.get(route, 0) >= limits.max_per_route.get(route, limits.max_connections):
            return CapReason.ROUTE_CONNECTIONS
        if key is None:
            return None
        return self._address_cap(key, route, held)

    def _address_cap(self, key: AddressKey, route: str, held: int) -> CapReason | None:
        limits = self.limits
        on_route = self._connections_by_route_and_key.get((route, key), 0)
        if held >= limits.max_connections_per_address or on_route >= limits.max_per_route_and_address.get(
            route, limits.max_connections
        ):
            return CapReason.ADDRESS_CONNECTIONS
        per_prefix = limits.max_connections_per_prefix
        if per_prefix is not None and self._connections_by_prefix.get(covering_prefix(key), 0) >= per_prefix:
            return CapReason.PREFIX_CONNECTIONS
        return None

    def held(self, key: AddressKey) -> Held:
        """Return what an address holds, with the connections of its whole prefix beside its own. Changes nothing."""
        by_route = {
            route: self._connections_by_route_and_key.get((route, key), 0) for route in self.connections_by_route
        }
        return Held(
            self._connections_by_key.get(key, 0),
            self._connections_by_prefix.get(covering_prefix(key), 0),
            self._handshakes_by_key.get(key, 0),
            {route: count for route, count in by_route.items() if count},
        )

    def per_address(self) -> Counter[int]:
        """Count addresses by the number of their connections. Takes time in the number of addresses."""
        return Counter(self._connections_by_key.values())

    def _release(self, key: AddressKey | None, route: str | None) -> None:
        """End one lease. The lease itself calls it, once."""
        if route is None:
            self.handshakes -= 1
            if key is not None:
                _remove(self._handshakes_by_key, key)
            return
        self.connections -= 1
        _remove(self._connections_by_route, route)
        if key is not None:
            _remove(self._connections_by_key, key)
            _remove(self._connections_by_prefix, covering_prefix(key))
            _remove(self._connections_by_route_and_key, (route, key))


def _places(most: int, held: int) -> int:
    """Return how many of ``most`` places there are for an address that holds so many."""
    return most if held < FEW_LEASES else most - int(most * RESERVED_SHARE)


def _add(counts: dict[_Name, int], name: _Name) -> None:
    counts[name] = counts.get(name, 0) + 1


def _remove(counts: dict[_Name, int], name: _Name) -> None:
    """Count one less, and forget a name that is down to none."""
    left = counts[name] - 1
    if left:
        counts[name] = left
    else:
        del counts[name]
