"""Authentication: which URLs are ours, and what an AUTH event must be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_policies import WALL_S, event

from pyryrelay.nostr.policies.authentication import RelayUrls, check_auth

LOCAL = "tcp:8080:interface=127.0.0.1"
URLS = RelayUrls("wss://relay.example.com/")


@pytest.mark.parametrize(
    ("ours", "theirs", "is_ours"),
    [
        ("wss://relay.example.com/", "wss://relay.example.com", True),
        ("wss://relay.example.com/", "WSS://Relay.Example.COM:443/", True),
        ("wss://relay.example.com", "ws://relay.example.com:80/", True),
        ("wss://relay.example.com", "wss://relay.example.com:80", False),
        ("wss://relay.example.com:8443", "wss://relay.example.com:8443/", True),
        ("wss://relay.example.com/", "wss://relay.example.com/nostr", False),
        ("wss://relay.example.com/nostr/", "wss://relay.example.com/nostr", True),
        ("wss://relay.example.com/nostr", "wss://relay.example.com/NOSTR", False),
        ("wss://relay.example.com/", "wss://relay.example.com.evil.com/", False),
        ("wss://relay.example.com/", "wss://evil.com/relay.example.com", False),
        ("wss://relay.example.com/", "https://relay.example.com/", False),
        ("wss://relay.example.com/", "wss://relay.example.com/?x", False),
        ("wss://relay.example.com/", "wss://relay.example.com/#x", False),
        ("wss://relay.example.com/", "relay.example.com", False),
        ("wss://relay.example.com/", "wss://", False),
        ("wss://relay.example.com/", "wss://relay.example.com:port", False),
        ("wss://relay.example.com/", "wss://[", False),
        ("wss://relay.example.com/", "wss://" + "x" * 2000, False),
        ("nonsense", "wss://relay.example.com/", False),
    ],
)
def test_urls_are_compared_by_their_parts(ours: str, theirs: str, *, is_ours: bool) -> None:
    """Scheme, case of the host, default port and final slash make no difference; everything else does."""
    assert RelayUrls(ours).has(theirs) is is_ours


@given(st.text())
def test_no_text_raises(text: str) -> None:
    """Whatever a client signs is a URL of ours or not."""
    assert not URLS.has(text)


@pytest.mark.parametrize(
    ("listen", "theirs", "is_ours"),
    [
        ([LOCAL], "ws://localhost:8080", True),
        ([LOCAL], "ws://127.0.0.1:8080/", True),
        ([LOCAL], "ws://127.9.9.9:8080/", True),
        ([LOCAL], "ws://[::1]:8080/", True),
        ([LOCAL], "ws://localhost:8081", False),
        ([LOCAL], "ws://localhost", False),
        ([LOCAL], "ws://localhost:8080/x", False),
        ([LOCAL], "ws://relay.example.com:8080/", False),
        ([LOCAL, "tcp:80:interface=localhost"], "ws://localhost", True),
        (["tcp:0:interface=127.0.0.1"], "ws://localhost:12345", True),
        (["unix:/run/x"], "ws://localhost", True),
        (["tcp:8080"], "ws://localhost:8080", False),
        ([LOCAL, "tcp:8080:interface=192.0.2.1"], "ws://localhost:8080", False),
    ],
)
def test_urls_of_loopback_interfaces(listen: list[str], theirs: str, *, is_ours: bool) -> None:
    """Without a URL, a relay that only its machine can reach is at the loopback addresses."""
    assert RelayUrls.of("", "/", listen).has(theirs) is is_ours


def test_who_can_authenticate() -> None:
    """Clients can with a URL, or if all endpoints are local; the URL wins."""
    assert RelayUrls.of("wss://x/", "/", ["tcp:8080"])
    assert RelayUrls.of("", "/", [LOCAL])
    assert RelayUrls.of("", "/", ["unix:/run/x"])
    assert not RelayUrls.of("", "/", ["tcp:8080"])
    assert not RelayUrls.of("wss://x/", "/", [LOCAL]).has("ws://localhost:8080")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"kind": 22243}, "invalid: kind must be 22242"),
        ({"created_at": WALL_S + 600}, None),
        ({"created_at": WALL_S + 601}, "invalid: created_at is more than 600 s from now"),
        ({"created_at": WALL_S - 601}, "invalid: created_at is more than 600 s from now"),
        ({"tags": []}, "invalid: challenge does not match"),
        ({"tags": [["challenge", "other"], ["relay", URLS.url]]}, "invalid: challenge does not match"),
        ({"tags": [["challenge", "abc"]]}, "invalid: relay does not match"),
        ({"tags": [["challenge", "abc"], ["relay", "wss://other/"]]}, "invalid: relay does not match"),
    ],
)
def test_auth_events(change: dict[str, object], expected: str | None) -> None:
    """Kind, time, challenge and relay are looked at, in this order."""
    fields: dict[str, object] = {"kind": 22242, "tags": [["relay", "wss://RELAY.example.com"], ["challenge", "abc"]]}
    refused = check_auth(event(**{**fields, **change}), "abc", URLS, WALL_S)  # type: ignore[arg-type]
    assert (refused.text if refused else None) == expected


def test_without_a_challenge_nothing_matches() -> None:
    """A client that was sent no challenge cannot have signed it."""
    one = event(22242, tags=[["relay", URLS.url], ["challenge", ""]])
    refused = check_auth(one, None, URLS, WALL_S)
    assert refused is not None
    assert refused.text == "invalid: challenge does not match"
