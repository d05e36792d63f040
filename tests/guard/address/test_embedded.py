"""IPv4 inside IPv6: which addresses and networks stand for IPv4, and which only look like it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.embedded import Nat64Prefix, embedded_ipv4, embedded_network, hides_ipv4, is_translated
from pyryrelay.guard.errors import CidrError

SPECIAL = [
    "0.0.0.0",
    "0.255.255.255",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.1.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.168.1.1",
    "198.19.255.255",
    "224.0.0.1",
    "255.255.255.255",
]
PUBLIC = ["1.0.0.0", "9.255.255.255", "11.0.0.0", "172.32.0.0", "192.0.2.33", "198.51.100.7", "223.255.255.255"]

# RFC 6052 section 2.4, with 192.0.2.33.
EXAMPLES = [
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
]


def inside(text: str, *prefixes: str) -> str | None:
    """Return the text of the IPv4 address that an IPv6 address stands for."""
    value = embedded_ipv4(int(IPv6Address(text)), list(map(Nat64Prefix.parse, prefixes)))
    return None if value is None else str(IPv4Address(value))


def network_inside(text: str, *prefixes: str) -> str | None:
    """Return the text of the IPv4 network that an IPv6 network stands for."""
    network = IPv6Network(text)
    found = embedded_network(int(network.network_address), network.prefixlen, list(map(Nat64Prefix.parse, prefixes)))
    return None if found is None else f"{IPv4Address(found[0])}/{found[1]}"


def six_to_four(ipv4: str) -> str:
    """Return an address that 6to4 makes of an IPv4 address."""
    return str(IPv6Address(0x2002 << 112 | int(IPv4Address(ipv4)) << 80 | 7))


@pytest.mark.parametrize("ipv4", PUBLIC)
@pytest.mark.parametrize("form", ["::ffff:{}", "::ffff:0:{}", "64:ff9b::{}"])
def test_well_known_prefixes(form: str, ipv4: str) -> None:
    """Mapped addresses, SIIT, the well-known prefix of NAT64 and 6to4 are known by default."""
    assert inside(form.format(ipv4)) == ipv4
    assert inside(six_to_four(ipv4)) == ipv4


@pytest.mark.parametrize("ipv4", SPECIAL)
def test_special_addresses_stay_ipv6(ipv4: str) -> None:
    """A made-up address never becomes loopback or private, except a mapped one, which sockets report."""
    assert inside(f"::ffff:{ipv4}") == ipv4
    for text in (f"::ffff:0:{ipv4}", f"64:ff9b::{ipv4}", six_to_four(ipv4)):
        assert inside(text) is None
    assert inside(f"2001:db8:64::{ipv4}", "2001:db8:64::/96") is None


@pytest.mark.parametrize(
    "text", ["::", "::1", "::192.0.2.33", "64:ff9b:1::192.0.2.33", "64:ff9b::1:192.0.2.33", "2001:db8::1", "fe80::1"]
)
def test_other_addresses_are_none(text: str) -> None:
    """An address of an unknown prefix stays IPv6, and so do IPv4-compatible ones, which RFC 4291 deprecates."""
    assert inside(text) is None
    assert inside(text, "2001:db8:64::/96") is None


@pytest.mark.parametrize(("prefix", "address"), EXAMPLES)
def test_the_examples_of_rfc_6052(prefix: str, address: str) -> None:
    """Each prefix length has its own place for the IPv4 address, around the reserved octet."""
    assert inside(address, prefix) == "192.0.2.33"


@pytest.mark.parametrize(("prefix", "address"), EXAMPLES[:5])
def test_a_reserved_octet_that_is_set(prefix: str, address: str) -> None:
    """RFC 6052 section 2.2 reserves an octet, and an address with other bits there stays IPv6."""
    assert inside(str(IPv6Address(int(IPv6Address(address)) | 1 << 56)), prefix) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from(EXAMPLES), st.integers(0, 2**24 - 1))
def test_every_address_is_where_it_was_put(ipv4: int, example: tuple[str, str], suffix: int) -> None:
    """An IPv4 address that is put in is found again, whatever the suffix."""
    prefix = Nat64Prefix.parse(example[0])
    places = [bit for bit in range(prefix.bits, 128) if not 64 <= bit < 72 or prefix.bits == 96][:32]
    value = prefix.first
    for number, place in enumerate(places):
        value |= (ipv4 >> 31 - number & 1) << 127 - place
    value |= suffix & (1 << 127 - places[-1]) - 1
    assert prefix.holds(value)
    assert prefix.ipv4(value) == ipv4
    for bits in (prefix.bits, places[7] + 1, places[-1] + 1, 128):
        assert prefix.ipv4_bits(bits) == sum(place < bits for place in places)


def test_which_prefixes_are_shared() -> None:
    """A translator's prefix is known as shared; 6to4 gives each site a /48 of its own."""
    prefixes = [Nat64Prefix.parse("2001:db8:64::/96")]
    for text in ("64:ff9b::a00:1", "::ffff:0:a00:1", "2001:db8:64::a00:1"):
        assert is_translated(int(IPv6Address(text)), prefixes)
    for text in ("2002:a00:1::", "2001:db8:64:1::", "::1", "::ffff:10.0.0.1"):
        assert not is_translated(int(IPv6Address(text)), prefixes)


@pytest.mark.parametrize(
    ("network", "ipv4"),
    [
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("64:ff9b::198.51.100.0/120", "198.51.100.0/24"),
        ("64:ff9b::198.51.100.7/128", "198.51.100.7/32"),
        ("::ffff:0:198.51.100.0/120", "198.51.100.0/24"),
        ("2002:c633::/32", "198.51.0.0/16"),
        ("2002:c633:6407::/48", "198.51.100.7/32"),
        ("2002:c633:6407:1::/64", "198.51.100.7/32"),
        ("2002:c633:6407::1/128", "198.51.100.7/32"),
        ("2001:db8:64::198.51.100.0/120", "198.51.100.0/24"),
        ("2001:db8:48:c633:64::/80", "198.51.100.0/24"),
        ("2001:db8:48:c633::/68", "198.51.0.0/16"),
        # All of a prefix, or more, which does not mean all of IPv4.
        ("64:ff9b::/96", None),
        ("64:ff9b::/64", None),
        ("::ffff:0:0:0/96", None),
        ("2002::/16", None),
        ("2001:db8:64::/96", None),
        ("2001:db8:64::/48", None),
        # Special addresses, or networks that hold some.
        ("64:ff9b::10.0.0.0/104", None),
        ("64:ff9b::127.0.0.1/128", None),
        ("64:ff9b::8.0.0.0/102", None),
        ("2002::/17", None),
        ("2002:7f00:1::/48", None),
        ("2001:db8:48:c633:100::/128", None),
        ("2001:db8::/32", None),
        ("::/0", None),
    ],
)
def test_networks(network: str, ipv4: str | None) -> None:
    """A network inside a translator's prefix is the IPv4 network whose clients use it."""
    assert network_inside(network, "2001:db8:64::/96", "2001:db8:48::/48") == ipv4


@pytest.mark.parametrize(
    ("network", "hides"),
    [
        # All of a prefix, or a part that has special and other addresses.
        ("2002::/16", True),
        ("64:ff9b::/96", True),
        ("::ffff:0:0:0/96", True),
        ("2001:db8:64::/96", True),
        ("2001:db8:48::/48", True),
        ("2002::/17", True),
        ("2002:c000::/18", True),
        ("64:ff9b::8.0.0.0/102", True),
        ("2001:db8:48:c000::/50", True),
        # Networks that stand for an IPv4 network, which they match.
        ("::ffff:0:0/96", False),
        ("2002:c633::/32", False),
        ("64:ff9b::198.51.100.0/120", False),
        ("2001:db8:64::198.51.100.0/120", False),
        # Special addresses alone, and reserved bits: these stay IPv6, and the network matches them.
        ("2002:7f00::/24", False),
        ("64:ff9b::10.0.0.0/104", False),
        ("2002:e000::/19", False),
        ("2001:db8:48:c633:100::/72", False),
        # Other networks, and those that hold more than a prefix.
        ("2001:db8:1::/48", False),
        ("2002::/15", False),
        ("64:ff9b::/64", False),
        ("2001:db8::/32", False),
        ("::/0", False),
    ],
)
def test_networks_that_match_hardly_any_client(network: str, hides: bool) -> None:
    """A network that matches hardly any client is told from one that stands for IPv4, or stays IPv6."""
    parsed = IPv6Network(network)
    prefixes = list(map(Nat64Prefix.parse, ("2001:db8:64::/96", "2001:db8:48::/48")))
    assert hides_ipv4(int(parsed.network_address), parsed.prefixlen, prefixes) is hides


@given(st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_a_network_hides_what_it_does_not_match(bits: int, ipv4: int) -> None:
    """A part of 6to4 hides IPv4 exactly if it stays IPv6 itself and an address in it counts as IPv4."""
    first = ipv4 >> 32 - bits << 32 - bits
    last = first | (1 << 32 - bits) - 1
    edges = [int(IPv4Address(text)) for text in PUBLIC] + [first, last]
    counts = [embedded_ipv4(0x2002 << 112 | edge << 80) is not None for edge in edges if first <= edge <= last]
    network = 0x2002 << 112 | first << 80, 16 + bits
    assert hides_ipv4(*network) is (any(counts) and embedded_network(*network) is None)


@pytest.mark.parametrize("text", ["2001:db8::/32", "64:ff9b::/96", "::/96"])
def test_a_prefix_reads_as_it_is_written(text: str) -> None:
    """The text of a prefix gives the same prefix again."""
    assert str(Nat64Prefix.parse(f" {text} ")) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no IPv6 network"),
        ("192.0.2.0/24", "no IPv6 network"),
        ("2001:db8::", "no length of RFC 6052"),
        ("2001:db8::/33", "no length of RFC 6052"),
        ("2001:db8::/ 96", "no length of RFC 6052"),
        ("2001:db8::1/96", None),
        ("2001:db8::1:0:0/64", "host bits set"),
        ("2001:db8:1::/32", "host bits set"),
        ("2001:db8:0:0:100::/96", "bits set from 64 to 71"),
    ],
)
def test_what_is_no_prefix(text: str, problem: str | None) -> None:
    """The error has the text and the problem."""
    with pytest.raises(CidrError, match=problem or "host bits set") as raised:
        Nat64Prefix.parse(text)
    assert str(raised.value).startswith(repr(text))
