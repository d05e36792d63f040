"""Which peers are configured proxies, and so must use the PROXY protocol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.clientip import TrustPolicy
from pyryrelay.guard.address.lists import CidrSet

PROXIES = CidrSet(["10.0.0.0/8", "2001:db8:ffff::/48"])
PEERS = st.none() | st.ip_addresses().map(str) | st.sampled_from(["10.0.0.1", "::ffff:10.0.0.1"]) | st.text(max_size=20)


@pytest.mark.parametrize("trust_forwarded", [False, True])
@pytest.mark.parametrize(
    ("peer", "listed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8:ffff::1", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("", False),
        ("example", False),
        (None, False),
    ],
)
def test_a_peer_is_listed_if_its_network_is(peer: str | None, listed: bool, trust_forwarded: bool) -> None:
    """A peer is listed by its network, whether or not forwarding headers are trusted."""
    assert TrustPolicy(trust_forwarded, PROXIES).is_listed(peer) is listed


@pytest.mark.parametrize("trust_unix", [False, True])
def test_a_unix_socket_is_listed_by_its_switch(trust_unix: bool) -> None:
    """A peer without an address is listed if UNIX sockets are trusted, and no other peer is then."""
    policy = TrustPolicy(trust_unix=trust_unix)
    assert policy.is_listed(None) is trust_unix
    assert not policy.is_listed("10.1.2.3")


def test_without_a_list_no_peer_is_listed() -> None:
    """Trust in the headers of any peer lists no proxy."""
    policy = TrustPolicy(trust_forwarded=True)
    assert policy.is_proxy("10.1.2.3")
    assert not policy.is_listed("10.1.2.3")
    assert not policy.is_listed(None)


@given(peer=PEERS, forwarded=st.booleans(), unix=st.booleans(), ipv6_prefix=st.integers(1, 128))
def test_with_a_list_only_listed_peers_are_trusted(
    peer: str | None, forwarded: bool, unix: bool, ipv6_prefix: int
) -> None:
    """With proxies configured, headers are trusted exactly of listed peers, if headers are trusted at all."""
    policy = TrustPolicy(forwarded, PROXIES, unix, ipv6_prefix)
    assert policy.is_proxy(peer) is (forwarded and policy.is_listed(peer))
