"""How callers of the gate name a client."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from types import NoneType
from typing import Final

from pyryrelay.guard.address.clientip import ClientAddress, client_address
from pyryrelay.guard.address.lists import IPAddress
from pyryrelay.guard.errors import AddressError

__all__ = ["READY", "Client", "named"]

Client = ClientAddress | IPAddress | str | None
"""A client as `client_address` or `TrustPolicy.derive` read it, or its address, or the text of that.

None is a client without an address.
"""

READY: Final = (ClientAddress, NoneType)
"""The types that `named` need not read."""


def named(client: object) -> ClientAddress:
    """Read a client; clients of IPv6 are their /64. Raises `AddressError` for what is not an address."""
    found = client_address(str(client)) if isinstance(client, str | IPv4Address | IPv6Address) else None
    if found is None:
        raise AddressError(
            f"{client!r} is no client: give an address such as '192.0.2.7', what client_address or TrustPolicy.derive "
            "returns, or None for a client without an address"
        )
    return found
