"""What a gate knows about one client at one moment, for an operator who asks why it is refused.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyryrelay.guard.address.keys import AddressKey
from pyryrelay.guard.address.lists import IPAddress
from pyryrelay.guard.jail import Sentence
from pyryrelay.guard.leases import Held
from pyryrelay.guard.rate.buckets import Level
from pyryrelay.guard.refusal import Refusal

__all__ = ["Range", "Standing"]

Range = tuple[IPAddress, IPAddress]
"""The first and the last address of a range of networks."""


@dataclass(frozen=True, slots=True)
class Standing:
    """All that decides about a client. What is None does not apply: the list does not hold it, the quota is off.

    ``levels`` are those of the buckets of its address, and ``prefix_levels`` those of its /24 or /48, by the names of
    the fields of `pyryrelay.guard.gate_config.GateConfig`. ``arrival`` is the refusal of a connection as such, and
    ``refusals`` has that of an upgrade on each route. ``strikes`` are those of the address itself.
    """

    is_loopback: bool
    is_proxy: bool
    allowed: Range | None
    denied: Range | None
    sentence: Sentence | None
    strikes: int
    levels: Mapping[str, Level[AddressKey] | None]
    prefix_levels: Mapping[str, Level[AddressKey] | None]
    held: Held
    arrival: Refusal | None
    refusals: Mapping[str, Refusal | None]

    @property
    def is_known(self) -> bool:
        """Whether the address itself has left a trace: a connection, a quota that is not full, or strikes.

        A sentence is none: all processes of a relay have it.
        """
        spent = any(level is not None and level.tokens < level.quota.burst for level in self.levels.values())
        return spent or self.strikes > 0 or self.held.connections > 0 or self.held.handshakes > 0
