"""Address keys: their networks, and the keys that share a bucket."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.keys import (
    ADDRESS_LADDER,
    AddressKey,
    address_key,
    coarser,
    covering_prefix,
    network_of,
)
from pyryrelay.guard.errors import AddressError, GuardError
from pyryrelay.guard.jail import Sentence

NETWORKS = st.one_of(
    st.builds(lambda n, bits: IPv4Network((n, bits), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(lambda n, bits: IPv6Network((n, bits), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)),
)


def key_of(network: str | IPv4Network | IPv6Network) -> AddressKey:
    """Return the key of a network."""
    network = ip_network(network)
    return address_key(network.network_address, network.prefixlen)


@given(st.ip_addresses(), st.ip_addresses(), st.data())
def test_keys_are_equal_only_for_the_same_prefix(
    one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, data: st.DataObject
) -> None:
    """Two prefixes have the same key if and only if family, length and bits are the same."""
    lengths = [data.draw(st.integers(0, ip.max_prefixlen)) for ip in (one, other)]
    prefixes = [
        (ip.version, bits, int(ip) >> (ip.max_prefixlen - bits)) for ip, bits in zip((one, other), lengths, strict=True)
    ]
    keys = [address_key(one, lengths[0]), address_key(other, lengths[1])]
    assert (keys[0] == keys[1]) == (prefixes[0] == prefixes[1])
    assert min(keys) >= 2


@given(st.ip_addresses(), st.data())
def test_coarser_keeps_the_first_bits(ip: IPv4Address | IPv6Address, data: st.DataObject) -> None:
    """The coarser key is the key of the shorter prefix; a prefix that is short enough stays."""
    bits = data.draw(st.integers(0, ip.max_prefixlen))
    wanted = data.draw(st.integers(0, 140))
    assert coarser(address_key(ip, bits), wanted) == address_key(ip, min(bits, wanted))


@pytest.mark.parametrize(("text", "bits"), [("192.0.2.1", 33), ("2001:db8::1", 129), ("::", -1)])
def test_lengths_that_do_not_fit_are_errors(text: str, bits: int) -> None:
    """The error for a prefix length outside the family's range names it."""
    with pytest.raises(AddressError, match=repr(bits)):
        address_key(ip_address(text), bits)


def test_a_negative_length_is_an_error() -> None:
    """A negative prefix length is an error."""
    with pytest.raises(GuardError, match="-1"):
        coarser(address_key(IPv4Address("192.0.2.1"), 32), -1)


@given(NETWORKS)
def test_a_key_tells_its_network(network: IPv4Network | IPv6Network) -> None:
    """The network of a key is the one that the key was made of."""
    key = key_of(network)
    assert network_of(key) == network
    assert Sentence(key, 0.0, 1).network == network


@pytest.mark.parametrize("number", [0, 1, 1 << 34, (1 << 130) | 1])
def test_a_number_that_is_no_key_has_no_network(number: int) -> None:
    """The error for a number with a bad prefix length names it."""
    with pytest.raises(AddressError, match=str(number)):
        network_of(number)


@pytest.mark.parametrize(
    ("network", "prefix"),
    [
        ("192.0.2.77/32", "192.0.2.0/24"),
        ("2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db8:1:2::/128", "2001:db8:1::/48"),
        ("2001:db8:1::/48", "2001:db8:1::/48"),
        ("2001:db8::/32", "2001:db8::/32"),
    ],
)
def test_the_covering_prefix(network: str, prefix: str) -> None:
    """The covering prefix is the /24 or /48 around a key, or the key itself if that is coarser."""
    assert covering_prefix(key_of(network)) == key_of(prefix)


@pytest.mark.parametrize(
    ("network", "ladder"),
    [
        ("203.0.113.7/32", ["203.0.113.0/24", "203.0.0.0/16", "203.0.0.0/8", "0.0.0.0/0"]),
        ("2001:db8:1:2::/64", ["2001:db8:1::/48", "2001:db8::/32", "2001::/16", "::/0"]),
        ("2001:db8::/32", ["2001:db8::/32", "2001:db8::/32", "2001::/16", "::/0"]),
        ("2000::/8", ["2000::/8", "2000::/8", "2000::/8", "::/0"]),
    ],
)
def test_the_ladder_of_addresses(network: str, ladder: list[str]) -> None:
    """The ladder has three prefixes, which are never finer than the key, and the family."""
    assert [str(network_of(key)) for key in ADDRESS_LADDER(key_of(network))] == ladder


@given(NETWORKS)
def test_the_ladder_is_made_of_coarser_keys(network: IPv4Network | IPv6Network) -> None:
    """The ladder has the announced number of steps, each of which `coarser` makes."""
    key = key_of(network)
    bits = (24, 16, 8, 0) if network.version == 4 else (48, 32, 16, 0)
    assert list(ADDRESS_LADDER(key)) == [coarser(key, length) for length in bits]
    assert (ADDRESS_LADDER.steps, ADDRESS_LADDER.last_keys) == (4, 2)
