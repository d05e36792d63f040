"""Client addresses: no exception is raised, and `explain` agrees with `derive`.

Input, as lines of ISO 8859-1: the first byte selects the policy, the rest of the first line is the peer (empty: a UNIX
socket), and each further line is a line of the forwarding header.
"""

from __future__ import annotations

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.guard.address.clientip import CHAIN_HEADERS, ClientAddress, TrustPolicy
    from pyryrelay.guard.address.embedded import Nat64Prefix
    from pyryrelay.guard.address.lists import CidrSet

PROXIES = (CidrSet(), CidrSet(["10.0.0.0/8", "2001:db8:ffff::/48"]))
HEADERS = (*CHAIN_HEADERS, "x-real-ip", "cf-connecting-ip")
NAT64 = ((), (Nat64Prefix.parse("2001:db8:64::/96"), Nat64Prefix.parse("2001:db8:1::/48")))
PREFIXES = (64, 48, 128, 1)
POLICIES = [
    TrustPolicy(bool(number & 1), PROXIES[number >> 1 & 1], bool(number & 4), PREFIXES[number >> 5 & 3], header, nat64)
    for nat64 in NAT64
    for number in range(128)
    for header in [HEADERS[number >> 3 & 3]]
]


def check(data: bytes) -> None:
    """Derive a client, and explain it."""
    policy = POLICIES[data[0] % len(POLICIES)] if data else POLICIES[0]
    first, *lines = data[1:].decode("latin-1").split("\n")
    peer = first or None
    client = policy.derive(peer, lines)
    steps = policy.explain(peer, lines)
    ensure(all(text.isascii() and text.isprintable() for text in steps), "steps are printable")
    is_attributed = "the client cannot be attributed to an address" not in steps
    ensure(is_attributed == (client is not None), "explain and derive agree on whether there is a client")
    if client is not None:
        ensure(any(str(client) in text for text in steps[-2:]), "the last steps name the client")
        _check_client(client, policy)
    for text in (first, *lines):
        found = policy.read(text)
        if found is not None:
            _check_client(found, policy)


def _check_client(client: ClientAddress, policy: TrustPolicy) -> None:
    ensure(policy.read(str(client)) == client, "the text of an address parses to the same address")
    ensure(getattr(client.ip, "ipv4_mapped", None) is None, "a client is never an IPv4-mapped IPv6 address")
    ensure(client.key & 1 == (client.ip.version == 6), "the key has the address family")


if __name__ == "__main__":
    main(check)
