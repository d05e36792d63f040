"""Sets of networks: their members, and entries that are refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.clientip import ClientAddress, client_address
from pyryrelay.guard.address.embedded import Nat64Prefix
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.errors import CidrError, GuardError

NETWORKS_V4 = st.builds(
    lambda value, bits: IPv4Network((value, bits), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
NETWORKS_V6 = st.builds(
    lambda value, bits: IPv6Network((value, bits), strict=False),
    st.integers(0, 2**128 - 1).filter(lambda value: value >> 48),
    st.integers(0, 128),
)


def test_addresses_of_both_families_are_found() -> None:
    """An address is in the set if a network of its family contains it."""
    networks = CidrSet(["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"])
    for inside in ("192.0.2.0", "192.0.2.255", "2001:db8::", "2001:db8:ffff::1", "198.51.100.7"):
        assert ip_address(inside) in networks
    for outside in ("192.0.1.255", "192.0.3.0", "2001:db7::1", "2001:db9::", "198.51.100.8", "0.0.0.0"):
        assert ip_address(outside) not in networks


@pytest.mark.parametrize("network", ["10.0.0.0/8", IPv4Network("10.0.0.0/8")])
def test_one_network_needs_no_list(network: str | IPv4Network) -> None:
    """One network, or its text, makes a set of one."""
    assert CidrSet(network) == CidrSet(["10.0.0.0/8"])
    assert str(CidrSet(network)) == "CidrSet(['10.0.0.0/8'])"
    with pytest.raises(CidrError, match=r"'10\.0\.0\.0/8, 11\.0\.0\.0/8' needs a prefix length"):
        CidrSet("10.0.0.0/8, 11.0.0.0/8")


def test_texts_can_be_looked_up() -> None:
    """An address may be looked up as text; another text is an error of the caller."""
    networks = CidrSet(["10.0.0.0/8", "2001:db8::/32"])
    for inside in ("10.1.2.3", "2001:db8::1", "::ffff:10.1.2.3", " 10.1.2.3"):
        assert inside in networks
    assert "11.0.0.1" not in networks
    with pytest.raises(CidrError, match=r"'10\.0\.0\.0/8' is not an address: ask for one such as"):
        "10.0.0.0/8" in networks  # noqa: B015  # it raises


def test_overlapping_and_adjacent_networks_are_one_range() -> None:
    """Networks inside or next to each other do not hide one another."""
    networks = CidrSet(["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "10.0.0.1"])
    for inside in ("10.0.0.0", "10.1.2.3", "10.255.255.255", "11.0.0.0", "11.255.255.255"):
        assert ip_address(inside) in networks
    assert ip_address("12.0.0.0") not in networks


def test_client_addresses_can_be_looked_up() -> None:
    """A client address is in the set if its IP address is, whatever its prefix."""
    client = client_address("2001:db8::1")
    assert isinstance(client, ClientAddress)
    assert client in CidrSet(["2001:db8::1"])
    assert client not in CidrSet(["2001:db8::2"])


def test_ipv4_mapped_is_ipv4_on_both_sides() -> None:
    """IPv4-mapped addresses and networks are IPv4, and an IPv6 network contains no IPv4 address."""
    assert IPv6Address("::ffff:192.0.2.9") in CidrSet(["192.0.2.0/24"])
    mapped = CidrSet(["::ffff:192.0.2.0/120", IPv6Network("::ffff:198.51.100.1/128")])
    assert list(mapped) == [IPv4Network("192.0.2.0/24"), IPv4Network("198.51.100.1/32")]
    assert IPv4Address("192.0.2.9") in mapped
    assert IPv4Address("192.0.2.9") not in CidrSet(["::/0"])
    assert IPv6Address("::ffff:192.0.2.9") not in CidrSet(["::/0"])


def test_clients_behind_translators_are_found_by_their_ipv4_address() -> None:
    """Addresses and networks of translators are IPv4; a whole prefix contains only clients that stay IPv6."""
    networks = CidrSet(["198.51.100.0/24", "64:ff9b::203.0.113.9", "2002::/16", "64:ff9b::/96"])
    for text in ("64:ff9b::198.51.100.7", "::ffff:0:198.51.100.7", "2002:c633:6407::1", "::ffff:203.0.113.9"):
        assert IPv6Address(text) in networks
    assert IPv4Address("203.0.113.9") in networks
    assert IPv4Address("192.0.2.1") not in networks
    assert IPv6Address("64:ff9b::192.0.2.1") not in networks
    assert IPv6Address("64:ff9b::10.0.0.1") in networks
    assert IPv4Address("10.0.0.1") not in networks


def test_translators_of_an_operator() -> None:
    """Entries inside the operator's prefixes become IPv4, and other sets are unchanged."""
    prefixes = [Nat64Prefix.parse("2001:db8:64::/96"), Nat64Prefix.parse("2001:db8:1::/48")]
    networks = CidrSet(["192.0.2.0/24", "2001:db8:64::198.51.100.0/120", "2001:db8:2::/48", "2001:db8:64::10.0.0.1"])
    assert list(map(str, networks.translated(prefixes))) == [
        "192.0.2.0/24",
        "198.51.100.0/24",
        "2001:db8:2::/48",
        "2001:db8:64::a00:1/128",
    ]
    for texts in ([], ["192.0.2.0/24"], ["2001:db8:2::/48", "2001:db8:0:ffff::/64"]):
        others = CidrSet(texts)
        assert others.translated(prefixes) is others
    assert networks.translated(()) is networks
    assert IPv6Address("2001:db8:64::1") in CidrSet(["2001:db8::/32"]).translated(prefixes)


def test_keeps_what_was_given() -> None:
    """Length, iteration and truth are those of the networks as given, overlaps included."""
    given_texts = ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::1"]
    networks = CidrSet.parse(given_texts)
    assert len(networks) == 3
    assert [str(network) for network in networks] == ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::1/128"]
    assert repr(networks) == "CidrSet(['10.0.0.0/8', '10.1.0.0/16', '2001:db8::1/128'])"
    assert networks
    assert not CidrSet()
    assert IPv4Address("10.0.0.1") not in CidrSet()


def test_is_a_value() -> None:
    """Sets of the same addresses are equal and have the same hash, and sets are immutable."""
    networks = CidrSet(["10.0.0.0/8"])
    assert networks == CidrSet([IPv4Network("10.0.0.0/8")])
    assert hash(networks) == hash(CidrSet.parse([" 10.0.0.0/8 "]))
    assert networks != CidrSet(["10.0.0.0/9"])
    with pytest.raises(AttributeError):
        networks.networks = ()  # type: ignore[misc]


@given(networks=st.lists(NETWORKS_V4 | NETWORKS_V6, min_size=1, max_size=8), data=st.data())
def test_how_it_was_given_does_not_matter(networks: list[IPv4Network | IPv6Network], data: st.DataObject) -> None:
    """Order, repetitions and split networks do not change the value."""
    once = CidrSet(networks)
    other = data.draw(st.permutations(networks))
    halves = [half for net in networks for half in (net.subnets() if net.prefixlen < net.max_prefixlen else [net])]
    for again in (CidrSet(other), CidrSet(networks + other), CidrSet(halves), once | CidrSet(other[:1])):
        assert again == once
        assert hash(again) == hash(once)
    assert {once: 1}[CidrSet(other)] == 1


def test_different_networks_are_different_values() -> None:
    """One address more or less, or of the other family, makes another value."""
    values = [[], ["10.0.0.0/8"], ["10.0.0.0/8", "11.0.0.0"], ["10.0.0.0/9"], ["a00::/8"], ["10.0.0.0/8", "a00::/8"]]
    assert len({CidrSet(networks) for networks in values}) == len(values)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("", "192.0.2.0/24"),
        ("localhost", "192.0.2.0/24"),
        ("10", "192.0.2.0/24"),
        ("010.0.0.1", "192.0.2.0/24"),
        ("10.0.0.256/8", "192.0.2.0/24"),
        ("2001:db8:::/32", "192.0.2.0/24"),
        ("10.0.0.0/", "from 0 to 32"),
        ("10.0.0.0/33", "from 0 to 32"),
        ("10.0.0.0/-1", "from 0 to 32"),
        ("10.0.0.0/255.0.0.0", "'10.0.0.0/32'"),
        ("10.0.0.0/\u0668", "from 0 to 32"),
        ("10.0.0.0/0000000008", "from 0 to 32"),
        ("2001:db8::/129", "from 0 to 128"),
        ("fe80::1%eth0/64", "zone"),
        ("10.0.0.1/8", "'10.0.0.0/8', or '10.0.0.1'"),
        ("2001:db8::1/32", "'2001:db8::/32', or '2001:db8::1'"),
    ],
)
def test_bad_entries_are_refused_by_name(text: str, fix: str) -> None:
    """An entry that is no network is refused in one line with the entry and the fix."""
    with pytest.raises(CidrError) as caught:
        CidrSet.parse(["192.0.2.0/24", text])
    assert isinstance(caught.value, GuardError)
    assert repr(text) in str(caught.value)
    assert fix in str(caught.value)
    assert "\n" not in str(caught.value)


@given(networks=st.lists(NETWORKS_V4 | NETWORKS_V6, max_size=12), data=st.data())
def test_agrees_with_asking_every_network(networks: list[IPv4Network | IPv6Network], data: st.DataObject) -> None:
    """A look-up has the same result as asking each network, at and around every edge."""
    found = CidrSet(networks)
    edges = [edge for net in networks for edge in (net.network_address, net.broadcast_address)]
    address = data.draw(st.sampled_from(edges) if edges else st.ip_addresses())
    top = 2**address.max_prefixlen - 1
    for value in {max(0, int(address) - 1), int(address), min(top, int(address) + 1)}:
        near = type(address)(value)
        assert (near in found) == any(near in net for net in networks)


def test_a_union_holds_the_networks_of_both() -> None:
    """The union of two sets has all their networks, those of the first one first."""
    union = CidrSet(["10.0.0.0/8", "2001:db8::/32"]) | CidrSet(["192.0.2.1"])
    assert [str(network) for network in union] == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]
    assert IPv4Address("192.0.2.1") in union
    assert IPv6Address("2001:db8::1") in union
    for empty in (union | CidrSet(), CidrSet() | union):
        assert empty == union


def test_networks_are_given_back() -> None:
    """The networks are objects of the standard library, in the order given."""
    assert CidrSet(["10.0.0.0/8", "::/0"]).networks == (IPv4Network("10.0.0.0/8"), IPv6Network("::/0"))


def test_long_lists_are_sorted_in_runs() -> None:
    """A list that is longer than one run of the sort is searched like any other."""
    networks = CidrSet(IPv4Network((value << 8, 25)) for value in reversed(range(10_000)))
    assert len(networks) == 10_000
    for value in (0, 1, 4095, 4096, 9_999):
        assert IPv4Address((value << 8) + 127) in networks
        assert IPv4Address((value << 8) + 128) not in networks


def test_the_range_around_an_address() -> None:
    """It has the first and the last address of adjacent networks, in the family of the address inside."""
    networks = CidrSet(["192.0.2.0/25", "192.0.2.128/25", "2001:db8::/64", "198.51.100.7"])
    assert networks.range_around(IPv4Address("192.0.2.7")) == (IPv4Address("192.0.2.0"), IPv4Address("192.0.2.255"))
    assert networks.range_around(client_address("2001:db8::7")) == (  # type: ignore[arg-type]
        IPv6Address("2001:db8::"),
        IPv6Address("2001:db8::ffff:ffff:ffff:ffff"),
    )
    alone = IPv4Address("198.51.100.7")
    assert networks.range_around(IPv6Address("::ffff:198.51.100.7")) == (alone, alone)
    assert networks.range_around(IPv4Address("192.0.3.0")) is None
    assert CidrSet().range_around(IPv4Address("192.0.3.0")) is None
