"""Client addresses: parsing, keys, prefixes, and trust in forwarding headers."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.clientip import (
    CHAIN_HEADERS,
    FORWARDING_HEADERS,
    MAX_FORWARDED_ENTRIES,
    ClientAddress,
    TrustPolicy,
    Via,
    client_address,
)
from pyryrelay.guard.address.embedded import Nat64Prefix, embedded_ipv4
from pyryrelay.guard.address.keys import address_key
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.errors import AddressError, TrustError

INPUTS = Path(__file__).parents[2] / "inputs"
PROXIES = CidrSet(["10.0.0.0/8", "2001:db8:ffff::/48"])
BEHIND_PROXIES = TrustPolicy(trust_forwarded=True, proxies=PROXIES)
ONE_HOP = TrustPolicy(trust_forwarded=True)
SINGLES = tuple(header for header in FORWARDING_HEADERS if header not in CHAIN_HEADERS)
HEADERS = (*CHAIN_HEADERS, "x-real-ip", "x-whatever")
NAT64 = (Nat64Prefix.parse("2001:db8:64::/96"),)

PUBLIC = st.ip_addresses().filter(lambda ip: ip not in PROXIES and (ip.version == 4 or embedded_ipv4(int(ip)) is None))
PEERS = st.none() | st.sampled_from(["10.0.0.1", "192.0.2.1", "2001:db8:ffff::1", "2001:db8::5"]) | st.text(max_size=30)
PROXY = st.integers(0, 2**24 - 1).map(lambda low: str(IPv4Address((10 << 24) + low)))
HEADER_TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=40)


def derived(policy: TrustPolicy, peer: str | None, *forwarded: str) -> str | None:
    """Return the text of the client that the policy derives."""
    client = policy.derive(peer, forwarded)
    return None if client is None else str(client)


def behind(header: str) -> TrustPolicy:
    """Return a policy that trusts the configured proxies with a header."""
    return TrustPolicy(trust_forwarded=True, proxies=PROXIES, header=header)


@st.composite
def policies(draw: st.DrawFn) -> TrustPolicy:
    """Draw any policy."""
    proxies = draw(st.sampled_from([CidrSet(), PROXIES]))
    switches = draw(st.booleans()), draw(st.booleans())
    prefix, header = draw(st.sampled_from([1, 48, 64, 128])), draw(st.sampled_from(HEADERS))
    return TrustPolicy(switches[0], proxies, switches[1], prefix, header)


@st.composite
def header_lines(draw: st.DrawFn) -> list[str]:
    """Draw lines of a header in which valid entries, invalid ones and garbage are mixed."""
    address = PROXY | PUBLIC.map(str) | st.sampled_from(["unknown", "_x", "", "10.0.0.9:80", "[2001:db8:ffff::7]:1"])
    node = address.map(lambda text: f'for="{text}"') | st.sampled_from(["proto=http", 'for="', "for=10.0.0.2"])
    line = st.lists(draw(st.sampled_from([address, node])), max_size=4).map(", ".join)
    return draw(st.lists(line | st.text(max_size=60), max_size=3))


class TestParsing:
    """`client_address` reads one address in the forms that headers use."""

    @pytest.mark.parametrize(
        ("text", "ip"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("  192.0.2.1\t", "192.0.2.1"),
            ("192.0.2.1:443", "192.0.2.1"),
            ("192.0.2.1:0", "192.0.2.1"),
            ("192.0.2.1:65535", "192.0.2.1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25en0.7]:80", "fe80::1"),
            ("::", "::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:c000:201]:80", "192.0.2.1"),
        ],
    )
    def test_accepts_brackets_port_zone_and_mapped(self, text: str, ip: str) -> None:
        """An address may have brackets, a port or a zone, or be IPv4-mapped."""
        client = client_address(text)
        assert client is not None
        assert str(client) == ip
        assert client.ip == ip_address(ip)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "unknown",
            "_hidden",
            "_gazonk:80",
            "localhost",
            "192.0.2",
            "192.0.2.1.5",
            "192.0.2.256",
            "192.0.2.01",
            "1234567",
            "192.0.2.1:",
            "192.0.2.1:65536",
            "192.0.2.1:080",
            "192.0.2.1:-1",
            "192.0.2.1/32",
            "192.0.2.1%eth0",
            "[192.0.2.1]",
            "192.0.2.1, 192.0.2.2",
            "192.0.2.1\n",
            '"[2001:db8::1]"',
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]443",
            "[2001:db8::1]:99999",
            "2001:db8:::1",
            "2001:db8::12345",
            "fe80::1%",
            "fe80::1%eth 0",
            "\u0661\u0669\u0662.0.2.1",
            "::\uff11",
            "\ud800",
            "1" * 100_000,
            " " * 200 + "192.0.2.1",
        ],
    )
    def test_everything_else_is_no_address(self, text: str) -> None:
        """Names, garbage, leading zeros, impossible ports and foreign digits are no address."""
        assert client_address(text) is None

    @given(st.text() | st.text("0123456789abcdef.:[]%/ -", max_size=50))
    def test_never_raises(self, text: str) -> None:
        """Any text gives an address or None."""
        assert isinstance(client_address(text), ClientAddress | None)

    @given(st.ip_addresses(), st.none() | st.integers(0, 65_535))
    def test_every_address_round_trips(self, ip: IPv4Address | IPv6Address, port: int | None) -> None:
        """The canonical text of an address, with or without a port, gives the same address."""
        host = str(ip) if ip.version == 4 or port is None else f"[{ip}]"
        client = client_address(host if port is None else f"{host}:{port}")
        assert client is not None
        inside = embedded_ipv4(int(ip)) if ip.version == 6 else None
        assert client.ip == (ip if inside is None else IPv4Address(inside))
        assert str(client) == str(client.ip)

    @given(st.lists(st.integers(0, 300).map(str) | st.from_regex("[0-9]{0,4}", fullmatch=True), min_size=3, max_size=5))
    def test_four_numbers_are_an_address_where_the_library_says_so(self, octets: list[str]) -> None:
        """Four numbers are an address exactly if the standard library says so."""
        text = ".".join(octets)
        try:
            expected = IPv4Address(text)
        except ValueError:
            assert client_address(text) is None
        else:
            client = client_address(text)
            assert client is not None
            assert client.ip == expected

    def test_privacy_reduced_text(self) -> None:
        """The reduced form of an address is its /24 or /48."""
        texts = [client_address(text) for text in ("203.0.113.77", "2001:db8:1:2::3")]
        assert [text and text.prefix_text() for text in texts] == ["203.0.113.0/24", "2001:db8:1::/48"]


class TestKeys:
    """An address key holds family, prefix length and prefix."""

    @given(st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1))
    def test_ipv6_clients_are_folded(self, value: int, low: int) -> None:
        """All addresses of a /64 are one client, and each IPv4 address is a client of its own."""
        one = client_address(f"[{IPv6Address(value | 1 << 127)}]")
        other = client_address(f"[{IPv6Address((value | 1 << 127) >> 64 << 64 | low)}]")
        assert one is not None
        assert other is not None
        assert one.key == other.key

    def test_the_folding_prefix_can_be_chosen(self) -> None:
        """With a prefix of 48 two /64 of one site are one client; with 128 every address is its own."""
        texts = ("2001:db8:1:2::3", "2001:db8:1:3::3")
        for prefix, clients in ((48, 1), (56, 1), (64, 2), (128, 2)):
            found = [client_address(text, prefix) for text in texts]
            assert len({client.key for client in found if client}) == clients
        assert client_address("192.0.2.1", 48) != client_address("192.0.2.2", 48)


class TestTrust:
    """`TrustPolicy.is_proxy` tells which peers may set forwarding headers."""

    @pytest.mark.parametrize("prefix", [0, -1, 129])
    def test_a_prefix_out_of_range_is_refused(self, prefix: int) -> None:
        """A policy with an IPv6 prefix out of range is an error."""
        with pytest.raises(AddressError, match=repr(prefix)):
            TrustPolicy(ipv6_prefix=prefix)

    @pytest.mark.parametrize("header", ["", "Forwarded", "x forwarded", "x-forwarded-for:", "x\n", "x" * 65, "h\xe9"])
    def test_what_names_no_header_is_refused(self, header: str) -> None:
        """The header of a policy must be a name in lower case."""
        with pytest.raises(TrustError, match="is no header name in lower case: use one such as 'x-forwarded-for'"):
            TrustPolicy(header=header)

    def test_proxies_are_no_text(self) -> None:
        """A text instead of a set of proxies is an error."""
        with pytest.raises(TrustError, match=r"proxies '10\.0\.0\.0/8' is a text: write CidrSet\('10\.0\.0\.0/8'\)"):
            TrustPolicy(proxies="10.0.0.0/8")  # type: ignore[arg-type]

    @pytest.mark.parametrize("peer", ["10.0.0.1", "192.0.2.1", None])
    def test_no_peer_is_trusted_by_default(self, peer: str | None) -> None:
        """Without the option no peer may set forwarding headers, configured proxies included."""
        assert not TrustPolicy().is_proxy(peer)
        assert not TrustPolicy(proxies=PROXIES, trust_unix=True).is_proxy(peer)

    @pytest.mark.parametrize("peer", ["10.0.0.1", "192.0.2.1", "garbage", None])
    def test_every_peer_is_trusted_without_configured_proxies(self, peer: str | None) -> None:
        """With the option alone every peer is trusted."""
        assert ONE_HOP.is_proxy(peer)

    @pytest.mark.parametrize(
        ("peer", "believed"),
        [
            ("10.0.0.1", True),
            ("::ffff:10.0.0.1", True),
            ("2001:db8:ffff::1", True),
            ("192.0.2.1", False),
            ("garbage", False),
            (None, False),
        ],
    )
    def test_only_configured_proxies_are_trusted(self, peer: str | None, believed: bool) -> None:
        """With proxies configured, only they are trusted."""
        assert BEHIND_PROXIES.is_proxy(peer) is believed

    def test_unix_peers_are_trusted_if_configured(self) -> None:
        """Configured UNIX peers are trusted beside configured proxies, and other peers are not."""
        unix_only = TrustPolicy(trust_forwarded=True, trust_unix=True)
        assert unix_only.is_proxy(None)
        assert not unix_only.is_proxy("10.0.0.1")
        both = TrustPolicy(trust_forwarded=True, trust_unix=True, proxies=PROXIES)
        assert both.is_proxy(None)
        assert both.is_proxy("10.0.0.1")


class TestDerive:
    """`TrustPolicy.derive` finds the client behind the peer."""

    @pytest.mark.parametrize("policy", [TrustPolicy(), BEHIND_PROXIES, TrustPolicy(True, trust_unix=True)])
    def test_headers_of_untrusted_peers_are_ignored(self, policy: TrustPolicy) -> None:
        """A peer that is not trusted is the client itself, whatever its headers say."""
        assert derived(policy, "192.0.2.1", "198.51.100.1") == "192.0.2.1"

    def test_an_untrusted_unix_peer_has_no_address(self) -> None:
        """A UNIX peer without trust has no client address."""
        assert derived(TrustPolicy(), None, "198.51.100.1") is None
        assert derived(BEHIND_PROXIES, None, "198.51.100.1") is None

    @pytest.mark.parametrize("lines", [(), ("",), (" , ,,\t",), ("", ",")])
    def test_without_entries_the_peer_is_the_client(self, lines: tuple[str, ...]) -> None:
        """A trusted peer that forwards no address is the client itself."""
        assert derived(BEHIND_PROXIES, "10.0.0.1", *lines) == "10.0.0.1"
        assert derived(ONE_HOP, "192.0.2.1", *lines) == "192.0.2.1"
        assert derived(ONE_HOP, None, *lines) is None

    def test_one_hop_takes_the_right_most_entry(self) -> None:
        """Without configured proxies exactly the last entry counts, even if it is no address."""
        assert derived(ONE_HOP, "192.0.2.1", "198.51.100.1, 198.51.100.2") == "198.51.100.2"
        assert derived(ONE_HOP, "192.0.2.1", "198.51.100.1", "198.51.100.2") == "198.51.100.2"
        assert derived(ONE_HOP, None, "198.51.100.1,198.51.100.2 , ,") == "198.51.100.2"
        assert derived(ONE_HOP, "192.0.2.1", "198.51.100.1, unknown") is None

    def test_trusted_unix_peers_forward(self) -> None:
        """The last entry of a trusted UNIX peer counts, and configured proxies are skipped there too."""
        assert derived(TrustPolicy(True, trust_unix=True), None, "a, 198.51.100.2") == "198.51.100.2"
        both = TrustPolicy(True, trust_unix=True, proxies=PROXIES)
        assert derived(both, None, "198.51.100.2, 10.0.0.9") == "198.51.100.2"

    @pytest.mark.parametrize(
        ("lines", "client"),
        [
            (["198.51.100.1"], "198.51.100.1"),
            (["6.6.6.6, 198.51.100.1, 10.0.0.2, 2001:db8:ffff::7"], "198.51.100.1"),
            (["6.6.6.6", "198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            (["10.0.0.4, 10.0.0.3:80, [2001:db8:ffff::7]:9"], "10.0.0.4"),
            (["198.51.100.1, unknown, 10.0.0.2"], None),
            (["198.51.100.1, 10.0.0.999"], None),
        ],
    )
    def test_proxies_are_skipped_from_the_right(self, lines: list[str], client: str | None) -> None:
        """The client is the first entry from the right that is no proxy, or the left-most if all are."""
        assert derived(BEHIND_PROXIES, "10.0.0.1", *lines) == client

    def test_work_is_bounded(self) -> None:
        """A chain of proxies that is longer than any real one has no client."""
        chain = ["10.0.0.2"] * (MAX_FORWARDED_ENTRIES - 1)
        assert derived(BEHIND_PROXIES, "10.0.0.1", ",".join(["198.51.100.1", *chain])) == "198.51.100.1"
        assert derived(BEHIND_PROXIES, "10.0.0.1", ",".join(["198.51.100.1", "10.0.0.2", *chain])) is None

    def test_derived_clients_are_folded_by_the_policy(self) -> None:
        """The IPv6 prefix of the policy applies to peers and to forwarded entries."""
        policy = TrustPolicy(True, proxies=PROXIES, ipv6_prefix=48)
        clients = [
            policy.derive("2001:db8:1:2::3", []),
            policy.derive("10.0.0.1", ["2001:db8:1:ffff::9"]),
        ]
        assert len({client.key for client in clients if client}) == 1

    @given(
        spoofed=st.lists(HEADER_TEXT, max_size=4),
        client=PUBLIC,
        chain=st.lists(PROXY, max_size=3),
        apart=st.booleans(),
    )
    def test_what_a_client_writes_never_changes_who_it_is(
        self, spoofed: list[str], client: IPv4Address | IPv6Address, chain: list[str], apart: bool
    ) -> None:
        """Behind proxies that append, entries further left do not change the client."""
        appended = [str(client), *chain]
        lines = [*spoofed, ", ".join(appended)] if apart else [", ".join([*spoofed, *appended])]
        assert BEHIND_PROXIES.derive("10.0.0.1", lines) == client_address(str(client))
        assert ONE_HOP.derive("192.0.2.1", lines) == client_address(appended[-1])

    @given(PEERS, policies(), st.lists(st.text(max_size=60), max_size=5) | header_lines())
    def test_never_raises(self, peer: str | None, policy: TrustPolicy, lines: list[str]) -> None:
        """Any peer and headers give a client or None."""
        assert isinstance(policy.derive(peer, lines), ClientAddress | None)


class TestOtherHeaders:
    """`TrustPolicy.header` chooses the header that counts."""

    @pytest.mark.parametrize("header", HEADERS)
    def test_headers_of_untrusted_peers_are_ignored(self, header: str) -> None:
        """A peer that is not trusted is the client itself, whichever header it sends."""
        assert derived(behind(header), "192.0.2.1", "198.51.100.1") == "192.0.2.1"
        assert derived(TrustPolicy(header=header), "10.0.0.1", "for=198.51.100.1") == "10.0.0.1"

    @pytest.mark.parametrize("header", HEADERS)
    def test_without_a_header_the_peer_is_the_client(self, header: str) -> None:
        """A trusted peer that forwards no address is the client itself."""
        assert derived(behind(header), "10.0.0.1") == "10.0.0.1"

    @pytest.mark.parametrize(
        ("lines", "client"),
        [
            (["for=198.51.100.1"], "198.51.100.1"),
            (['for=6.6.6.6, for=198.51.100.1;proto=http, for=10.0.0.2, For="[2001:db8:ffff::7]:_x"'], "198.51.100.1"),
            (["for=6.6.6.6", 'for="[2001:db8::7]:4711"', "for=10.0.0.2"], "2001:db8::7"),
            (['for=10.0.0.4, for="10.0.0.3:80"'], "10.0.0.4"),
            (["for=whatever, for=198.51.100.1"], "198.51.100.1"),
            (["for=198.51.100.1, for=unknown, for=10.0.0.2"], None),
            (["for=198.51.100.1, proto=http"], None),
            (["for=198.51.100.1, for=_hidden"], None),
            (['for="2001:db8::7"'], None),
            (['for=" 198.51.100.1"'], None),
            (['for=""'], None),
            (['for="', "for=198.51.100.1"], "198.51.100.1"),
            (["for=198.51.100.1, for="], None),
            (["198.51.100.1"], None),
            ([""], "10.0.0.1"),
            ([" , "], "10.0.0.1"),
        ],
    )
    def test_forwarded_is_walked_from_the_right(self, lines: list[str], client: str | None) -> None:
        """In ``Forwarded`` the client is the first node from the right that is no proxy, if it is well-formed."""
        assert derived(behind("forwarded"), "10.0.0.1", *lines) == client

    def test_one_hop_takes_the_right_most_node(self) -> None:
        """Without configured proxies exactly the last node counts."""
        one_hop = TrustPolicy(trust_forwarded=True, header="forwarded")
        assert derived(one_hop, "192.0.2.1", "for=198.51.100.1, for=198.51.100.2") == "198.51.100.2"
        assert derived(one_hop, None, "for=198.51.100.2") == "198.51.100.2"

    def test_work_on_forwarded_is_bounded(self) -> None:
        """A chain of nodes that is longer than any real one has no client."""
        chain = ["for=10.0.0.2"] * (MAX_FORWARDED_ENTRIES - 1)
        assert derived(behind("forwarded"), "10.0.0.1", ",".join(["for=6.6.6.6", *chain])) == "6.6.6.6"
        assert derived(behind("forwarded"), "10.0.0.1", ",".join(["for=6.6.6.6", "for=10.0.0.2", *chain])) is None

    @pytest.mark.parametrize("header", SINGLES)
    @pytest.mark.parametrize(
        ("lines", "client"),
        [
            (["198.51.100.1"], "198.51.100.1"),
            (["2001:db8::7"], "2001:db8::7"),
            (["10.0.0.9"], "10.0.0.9"),
            (["198.51.100.1", "198.51.100.1"], None),
            (["198.51.100.1", "198.51.100.2"], None),
            (["198.51.100.1, 198.51.100.2"], None),
            (["198.51.100.1,"], None),
            (["unknown"], None),
            ([""], None),
        ],
    )
    def test_one_address_or_none(self, header: str, lines: list[str], client: str | None) -> None:
        """A header for one address must occur once and hold one address, else there is no client."""
        assert derived(behind(header), "10.0.0.1", *lines) == client

    @given(
        spoofed=st.lists(
            HEADER_TEXT | st.sampled_from(["for=6.6.6.6", 'for="', 'by="\\"', "for=10.0.0.2;"]), max_size=3
        ),
        client=PUBLIC,
        chain=st.lists(PROXY, max_size=3),
    )
    def test_what_a_client_writes_never_changes_its_node(
        self, spoofed: list[str], client: IPv4Address | IPv6Address, chain: list[str]
    ) -> None:
        """Behind proxies that append nodes, nodes further left do not change the client."""
        node = str(client) if client.version == 4 else f"[{client}]"
        appended = [f'for="{node}"', *(f"for={proxy};proto=http" for proxy in chain)]
        for lines in ([*spoofed, ", ".join(appended)], [", ".join([*spoofed, *appended])]):
            assert behind("forwarded").derive("10.0.0.1", lines) == client_address(str(client))
        assert behind("forwarded").derive("10.0.0.1", appended) == client_address(str(client))

    @given(PUBLIC, PROXY)
    def test_policies_fold_whatever_the_header(self, client: IPv4Address | IPv6Address, proxy: str) -> None:
        """A client has the same key in every header."""
        node = str(client) if client.version == 4 else f"[{client}]"
        written = [str(client), f'for="{node}"', str(client), str(client)]
        found = {behind(header).derive(proxy, [line]) for header, line in zip(HEADERS, written, strict=True)}
        assert found == {client_address(str(client))}


class TestTranslators:
    """Clients behind an IPv6 translator count as the IPv4 clients that they are."""

    @pytest.mark.parametrize(
        "text",
        [
            "64:ff9b::203.0.113.9",
            "[64:ff9b::cb00:7109]:443",
            "::ffff:0:203.0.113.9",
            "2002:cb00:7109:1::5",
            "2001:db8:64::203.0.113.9",
        ],
    )
    def test_they_are_one_client(self, text: str) -> None:
        """The key is the same, whether the client connects itself or is forwarded."""
        policy = TrustPolicy(True, proxies=PROXIES, nat64=NAT64)
        client = client_address("203.0.113.9")
        assert policy.derive("10.0.0.7", [f"6.6.6.6, {text}"]) == client
        assert policy.derive(text.strip("[]").partition("]")[0], []) == client
        assert policy.explain("10.0.0.7", [text])[-1] == "entry 1 from the right, 203.0.113.9, is the client"

    @pytest.mark.parametrize("inside", ["127.0.0.1", "10.0.0.7", "0.0.0.0", "192.168.1.1"])
    def test_special_addresses_inside_make_no_difference(self, inside: str) -> None:
        """A special IPv4 address inside makes no difference: the client stays IPv6."""
        low = int(IPv4Address(inside))
        proxies = CidrSet(["10.0.0.0/8", "127.0.0.0/8", "0.0.0.0/8", "192.168.0.0/16"])
        policy = TrustPolicy(True, proxies=proxies, nat64=NAT64)
        for value in (0x64FF9B << 96 | low, 0xFFFF << 48 | low, 0x2002 << 112 | low << 80, NAT64[0].first | low):
            peer = str(IPv6Address(value))
            client = policy.derive(peer, ["6.6.6.6"])
            assert client is not None
            assert client.ip == IPv6Address(value)
            assert not client.is_loopback
            assert not policy.is_proxy(peer)
            assert not policy.is_listed(peer)

    def test_neighbours_behind_a_translator_share_nothing(self) -> None:
        """A client that stays IPv6 in a translator's prefix is counted alone, since its /64 is shared by all."""
        policy = TrustPolicy(nat64=NAT64)
        found = [policy.read(f"{start}{low}") for start in ("64:ff9b::a00:", "2001:db8:64::a00:") for low in (1, 2)]
        assert len({client.key for client in found if client}) == 4
        assert policy.explain("64:ff9b::a00:1", [])[-1] == "IPv6 folded to 64:ff9b::a00:1/128"

    def test_proxies_behind_a_translator_are_trusted(self) -> None:
        """A proxy may be named as IPv4, or as the translator shows it."""
        for text in ("203.0.113.9", "2001:db8:64::203.0.113.9", "64:ff9b::203.0.113.9"):
            policy = TrustPolicy(True, proxies=CidrSet([text]), nat64=NAT64)
            assert policy.is_proxy("2001:db8:64::203.0.113.9")
            assert policy.is_proxy("203.0.113.9")


class TestUnixEntries:
    """Entries that nginx writes for a client of a UNIX socket."""

    BOTH = TrustPolicy(True, proxies=PROXIES, trust_unix=True)

    @pytest.mark.parametrize(
        ("value", "client"),
        [
            ("203.0.113.9, unix:", "203.0.113.9"),
            ("203.0.113.9, unix:, 10.0.0.6, unix:", "203.0.113.9"),
            ("10.0.0.6, unix:", "10.0.0.6"),
            ("unix:", "10.0.0.7"),
            ("203.0.113.9, unix:/run/x", None),
            ("203.0.113.9, UNIX:", None),
        ],
    )
    def test_they_are_skipped(self, value: str, client: str | None) -> None:
        """Where UNIX peers are trusted, such an entry is skipped like a proxy."""
        assert derived(self.BOTH, "10.0.0.7", value) == client

    def test_only_where_they_are_trusted(self) -> None:
        """Elsewhere such an entry is no address."""
        assert derived(BEHIND_PROXIES, "10.0.0.7", "203.0.113.9, unix:") is None
        assert derived(ONE_HOP, "10.0.0.7", "203.0.113.9, unix:") is None

    def test_it_is_said(self) -> None:
        """The explanation names such entries, in ``Forwarded`` as well."""
        assert self.BOTH.explain(None, ["203.0.113.9, unix:"]) == [
            "peer on a UNIX socket is a trusted proxy",
            "entry 1 from the right, unix:, is a trusted proxy: skipped",
            "entry 2 from the right, 203.0.113.9, is the client",
        ]
        policy = TrustPolicy(True, trust_unix=True, header="forwarded")
        assert derived(policy, None, 'for=203.0.113.9, for="unix:"') == "203.0.113.9"
        assert derived(self.BOTH, None, "unix:") is None


class TestVia:
    """`Via` tells whether the chain goes on behind the client."""

    @pytest.mark.parametrize(
        ("header", "lines", "via"),
        [
            ("x-forwarded-for", [], Via.DIRECT),
            ("x-forwarded-for", ["198.51.100.1"], Via.DIRECT),
            ("x-forwarded-for", ["198.51.100.1, 10.0.0.6"], Via.DIRECT),
            ("x-forwarded-for", ["10.0.0.4, 198.51.100.1"], Via.DIRECT),
            ("x-forwarded-for", ["unknown, 198.51.100.1"], Via.DIRECT),
            ("x-forwarded-for", ["198.51.100.1, 198.51.100.1:80"], Via.DIRECT),
            ("x-forwarded-for", ["198.51.100.1, unknown"], Via.DIRECT),
            ("x-forwarded-for", ["192.0.2.1, 198.51.100.1"], Via.FURTHER_HOPS),
            ("x-forwarded-for", ["192.0.2.1", "198.51.100.1, 10.0.0.6"], Via.FURTHER_HOPS),
            ("forwarded", ["for=192.0.2.1;proto=http, for=198.51.100.1"], Via.FURTHER_HOPS),
            ("forwarded", ["for=198.51.100.1, for=10.0.0.6"], Via.DIRECT),
            ("forwarded", ["for=_hidden, for=198.51.100.1"], Via.DIRECT),
            ("forwarded", ['for=", for=198.51.100.1'], Via.DIRECT),
            ("forwarded", [",for=198.51.100.1"], Via.DIRECT),
            ("x-real-ip", ["198.51.100.1"], Via.DIRECT),
        ],
    )
    def test_a_chain_that_goes_on(self, header: str, lines: list[str], via: Via) -> None:
        """If the client is a proxy that was not configured, an entry left of it may be the real client."""
        policy = behind(header)
        assert policy.via(lines, policy.derive("10.0.0.7", lines)) is via


class TestWork:
    """Text that a client writes in front of a header costs no work, and hides no entry."""

    @pytest.mark.parametrize("front", ["," * 16_000, "a, " * 5_000, 'for="' * 3_000, "10.0.0.2, " * 1_600])
    @pytest.mark.parametrize(("header", "back"), [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9")])
    def test_the_front_is_not_read(self, front: str, header: str, back: str) -> None:
        """The client is what the proxy appended."""
        assert derived(behind(header), "10.0.0.7", f"{front},{back}") == "203.0.113.9"

    @pytest.mark.parametrize("header", CHAIN_HEADERS)
    def test_empty_elements_are_bounded(self, header: str) -> None:
        """A header that ends in too many empty elements is malformed."""
        back = "203.0.113.9" if header == "x-forwarded-for" else "for=203.0.113.9"
        assert derived(behind(header), "10.0.0.7", f"{back}{',' * 64}") == "203.0.113.9"
        assert derived(behind(header), "10.0.0.7", f"{back}{',' * 65}") is None
        assert f"{header} is malformed" in behind(header).explain("10.0.0.7", ["," * 16_000])


@pytest.mark.parametrize("case", json.loads((INPUTS / "forwarding-headers.json").read_text()))
def test_headers_from_the_field(case: dict[str, str | None]) -> None:
    """Headers of real gateways, routers and proxies, sent by the trusted peer 10.0.0.7, give their client."""
    policy = TrustPolicy(True, proxies=CidrSet(["10.0.0.0/8"]), trust_unix=True, header=str(case["header"]))
    assert derived(policy, "10.0.0.7", str(case["value"])) == case["right"], case["what"]


class TestExplain:
    """`TrustPolicy.explain` explains the derivation step by step."""

    @pytest.mark.parametrize(
        ("policy", "peer", "lines", "sentences"),
        [
            (
                BEHIND_PROXIES,
                "10.0.0.7",
                ["6.6.6.6, 2001:db8::1", "::ffff:10.0.0.9"],
                [
                    "peer 10.0.0.7 is a trusted proxy",
                    "entry 1 from the right, 10.0.0.9, is a trusted proxy: skipped",
                    "entry 2 from the right, 2001:db8::1, is the client",
                    "IPv6 folded to 2001:db8::/64",
                ],
            ),
            (
                BEHIND_PROXIES,
                "10.0.0.7",
                ["10.0.0.8, 10.0.0.9"],
                [
                    "peer 10.0.0.7 is a trusted proxy",
                    "entry 1 from the right, 10.0.0.9, is a trusted proxy: skipped",
                    "entry 2 from the right, 10.0.0.8, is a trusted proxy: skipped",
                    "all entries are trusted proxies: the left-most, 10.0.0.8, is the client",
                ],
            ),
            (
                BEHIND_PROXIES,
                "10.0.0.7",
                ["6.6.6.6, unkn\x1b\xf6wn"],
                [
                    "peer 10.0.0.7 is a trusted proxy",
                    "entry 1 from the right, 'unkn\\x1b\\xf6wn', is no address",
                    "the client cannot be attributed to an address",
                ],
            ),
            (
                BEHIND_PROXIES,
                "10.0.0.7",
                [],
                ["peer 10.0.0.7 is a trusted proxy", "x-forwarded-for names no client: peer 10.0.0.7 is the client"],
            ),
            (
                BEHIND_PROXIES,
                "192.0.2.1",
                ["6.6.6.6"],
                ["peer 192.0.2.1 is no trusted proxy: it is the client, whatever it forwards"],
            ),
            (
                TrustPolicy(ipv6_prefix=48),
                "2001:db8:1:2::3",
                ["6.6.6.6"],
                [
                    "forwarding headers are not trusted: peer 2001:db8:1:2::3 is the client",
                    "IPv6 folded to 2001:db8:1::/48",
                ],
            ),
            (
                TrustPolicy(),
                None,
                [],
                [
                    "forwarding headers are not trusted: peer on a UNIX socket is the client",
                    "the client cannot be attributed to an address",
                ],
            ),
            (
                ONE_HOP,
                "192.0.2.1",
                ["6.6.6.6"],
                [
                    "peer 192.0.2.1 is believed for one hop: no trusted proxies are given",
                    "entry 1 from the right, 6.6.6.6, is the client",
                ],
            ),
            (
                TrustPolicy(True, trust_unix=True),
                None,
                ["6.6.6.6"],
                ["peer on a UNIX socket is a trusted proxy", "entry 1 from the right, 6.6.6.6, is the client"],
            ),
            (
                behind("forwarded"),
                "10.0.0.7",
                ['for="'],
                [
                    "peer 10.0.0.7 is a trusted proxy",
                    "forwarded is malformed",
                    "the client cannot be attributed to an address",
                ],
            ),
            (
                behind("forwarded"),
                "10.0.0.7",
                ["for=6.6.6.6, for=10.0.0.9"],
                [
                    "peer 10.0.0.7 is a trusted proxy",
                    "entry 1 from the right, 10.0.0.9, is a trusted proxy: skipped",
                    "entry 2 from the right, 6.6.6.6, is the client",
                ],
            ),
            (
                behind("x-real-ip"),
                "10.0.0.7",
                ["6.6.6.6"],
                ["peer 10.0.0.7 is a trusted proxy", "x-real-ip names 6.6.6.6, which is the client"],
            ),
            (
                behind("x-real-ip"),
                "10.0.0.7",
                ["6.6.6.6", "6.6.6.6"],
                [
                    "peer 10.0.0.7 is a trusted proxy",
                    "x-real-ip occurs more than once",
                    "the client cannot be attributed to an address",
                ],
            ),
            (
                behind("cf-connecting-ip"),
                "10.0.0.7",
                ["6.6.6.6, 7.7.7.7"],
                [
                    "peer 10.0.0.7 is a trusted proxy",
                    "cf-connecting-ip is '6.6.6.6, 7.7.7.7', which is not one address",
                    "the client cannot be attributed to an address",
                ],
            ),
        ],
    )
    def test_sentences(self, policy: TrustPolicy, peer: str | None, lines: list[str], sentences: list[str]) -> None:
        """Each step is one sentence: the peer, each entry, and the prefix of an IPv6 client."""
        assert policy.explain(peer, lines) == sentences

    def test_the_bound_is_named(self) -> None:
        """The explanation of a chain that is too long says where reading stops."""
        sentences = BEHIND_PROXIES.explain("10.0.0.7", [",".join(["10.0.0.2"] * 100)])
        assert len(sentences) == 1 + MAX_FORWARDED_ENTRIES + 2
        assert (
            sentences[-2] == f"x-forwarded-for has more than {MAX_FORWARDED_ENTRIES} entries, which no real chain has"
        )

    @given(PEERS, policies(), header_lines())
    def test_it_agrees_with_derive(self, peer: str | None, policy: TrustPolicy, lines: list[str]) -> None:
        """The last sentences name the client of `derive` and its network, or say that there is none."""
        client, sentences = policy.derive(peer, lines), policy.explain(peer, lines)
        if client is None:
            assert sentences[-1] == "the client cannot be attributed to an address"
            return
        if client.ip.version == 6:
            network = sentences.pop().removeprefix("IPv6 folded to ")
            address, _, bits = network.partition("/")
            assert address_key(ip_address(address), int(bits)) == client.key
        assert f" {client} " in sentences[-1].replace(",", " ")
        assert "client" in sentences[-1]

    @given(PEERS, policies(), header_lines())
    def test_sentences_are_fit_for_a_terminal(self, peer: str | None, policy: TrustPolicy, lines: list[str]) -> None:
        """Each sentence is one short line of printable ASCII, whatever was sent."""
        for sentence in policy.explain(peer, lines):
            assert sentence.isascii()
            assert sentence.isprintable()
            assert len(sentence) < 160


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "126.0.0.1", "128.0.0.1", "::2"]
)
def test_loopback_is_this_machine(text: str) -> None:
    """Loopback is all of 127.0.0.0/8 and ::1, as in the standard library."""
    client = client_address(text)
    assert client is not None
    assert client.is_loopback is client.ip.is_loopback
