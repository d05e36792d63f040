"""Which hosts requests may ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.http.hosts import HostPolicy

POLICY = HostPolicy(["relay.example.org", "*.example.net", "192.0.2.7", "[2001:db8::7]"])


@pytest.mark.parametrize(
    "authority",
    [
        "relay.example.org",
        "Relay.Example.ORG",
        "relay.example.org:443",
        "relay.example.org.:8443",
        "relay.example.org:",
        "a.example.net",
        "A.EXAMPLE.NET:1",
        "192.0.2.7",
        "192.0.2.7:80",
        "[2001:db8::7]",
        "[2001:DB8::7]:8443",
    ],
)
def test_allowed(authority: str) -> None:
    """Names are compared in any case, without their port and without the dot at their end."""
    assert POLICY.allows(authority)


@pytest.mark.parametrize(
    "authority",
    [
        "",
        ".",
        ":443",
        "example.org",
        "relay.example.org.evil.test",
        "evil.test",
        "relay.example.org..",
        "relay.example.org:443:443",
        "relay.example.org:x",
        "relay.example.org:\u0661",
        "user@relay.example.org",
        "relay.example.org, evil.test",
        "relay.example.org/",
        "example.net",
        ".example.net",
        "a.b.example.net",
        "*.example.net.evil",
        "2001:db8::7",
        "[2001:db8::7",
        "[2001:db8::7]x",
        "[2001:db8::8]",
        "relay.example.org\x00",
        "192.0.2.8",
    ],
)
def test_refused(authority: str) -> None:
    """Everything else is refused, whatever a lenient parser might take it for."""
    assert not POLICY.allows(authority)


def test_no_names() -> None:
    """A policy without names is false: nobody asks it."""
    assert not HostPolicy()
    assert POLICY
    assert HostPolicy(["*.example.org"]).allows("a.example.org")


@given(st.text(st.sampled_from("relayxmp.og*:[]@/, \t\0\xff1"), max_size=30), st.sampled_from(POLICY.names))
def test_only_forms_of_the_names_pass(around: str, name: str) -> None:
    """What passes is a name in some case, perhaps with a dot and a port, whatever was put around it."""
    for authority in (around, around + name, name + around, f"{around}.{name}"):
        if POLICY.allows(authority):
            host = authority.lower()
            if not host.endswith("]"):
                host = host.rpartition(":")[0] if host.rstrip("0123456789").endswith(":") else host
            host = host.removesuffix(".")
            assert host in POLICY.names or (host.endswith(".example.net") and host.count(".") == 2)
