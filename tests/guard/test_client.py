"""Names of clients."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

import pytest

from pyryrelay.guard.address.clientip import client_address
from pyryrelay.guard.client import named
from pyryrelay.guard.errors import AddressError


@pytest.mark.parametrize("name", ["192.0.2.1", ip_address("192.0.2.1"), "::ffff:192.0.2.1", " 192.0.2.1:4711"])
def test_an_address_or_its_text_is_its_client(name: object) -> None:
    """An address and every text of it stand for the same client."""
    assert named(name) == client_address("192.0.2.1")


@pytest.mark.parametrize("name", ["2001:db8::7", ip_address("2001:db8::7")])
def test_clients_of_ipv6_are_their_subnet(name: object) -> None:
    """An IPv6 address stands for its /64, as in `client_address`."""
    neighbour = client_address("2001:db8::1")
    assert neighbour is not None
    assert named(name).key == neighbour.key


@pytest.mark.parametrize("name", ["example.org", "", "192.0.2.0/24", b"192.0.2.1", 3221225985])
def test_what_is_no_client_is_told_what_is(name: Any) -> None:
    """The error for a name that is no address says what to pass instead."""
    with pytest.raises(AddressError, match=rf"^{re.escape(repr(name))} is no client: give an address such as"):
        named(name)
