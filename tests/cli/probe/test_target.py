"""The URL of a relay."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from pyryrelay.cli.probe.target import Target, target


@pytest.mark.parametrize(
    ("text", "expected", "authority"),
    [
        ("wss://relay.example", Target("wss", "relay.example", 443, ""), "relay.example"),
        ("relay.example:8443/nostr/", Target("wss", "relay.example", 8443, "/nostr"), "relay.example:8443"),
        ("ws://[::1]:8080", Target("ws", "::1", 8080, ""), "[::1]:8080"),
        ("http://127.0.0.1/", Target("ws", "127.0.0.1", 80, ""), "127.0.0.1"),
        ("https://Relay.Example:443/x", Target("wss", "relay.example", 443, "/x"), "relay.example"),
    ],
)
def test_urls(text: str, expected: Target, authority: str) -> None:
    """Scheme, host, port and path are read; the Host field has no default port."""
    assert target(text) == expected
    assert target(text).authority == authority
    assert str(expected) == f"{expected.scheme}://{authority}{expected.path}"
    assert expected.url("") == f"{expected.scheme}://{authority}/"
    assert expected.is_tls is (expected.scheme == "wss")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not the URL of a relay: write wss://relay.example"),
        ("wss://", "is not the URL of a relay"),
        ("ftp://relay.example", "is not the URL of a relay"),
        ("wss://relay.example:0", "is not the URL of a relay"),
        ("wss://relay.example:99999", "is not the URL of a relay"),
        ("wss://relay example", "is not the URL of a relay"),
        ("wss://relay\x1b.example", "is not the URL of a relay"),
        ("wss://me:secret@relay.example", "the URL has a password in it"),
        ("wss://relay.example/?token=secret", "has a query or fragment: leave it out"),
    ],
)
def test_what_is_no_url(text: str, problem: str) -> None:
    """Other texts are refused with the fix; a password is not repeated."""
    with pytest.raises(ArgumentTypeError, match=problem) as raised:
        target(text)
    assert "me:secret" not in str(raised.value)
