"""What the relay and the child that speaks ACME tell each other."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.acme.wire import (
    Answered,
    AskWindow,
    Challenge,
    Failed,
    Issued,
    Order,
    Reply,
    Request,
    Window,
    encode,
    read_reply,
    read_request,
)

REQUESTS: list[Request | Answered] = [
    Order("https://ca.example/dir", "relay.example.org", "", ("http-01", "tls-alpn-01"), '{"kty":"EC"}'),
    AskWindow("https://ca.example/dir", "-----BEGIN CERTIFICATE-----"),
    Answered(),
]
REPLIES: list[Reply] = [
    Challenge("http-01", "relay.example.org", "token", "token.thumbprint"),
    Issued("chain and key", "{}"),
    Window(None, 1.5),
    Window(3.0, 1.5),
    Failed("it was not to be"),
]


@pytest.mark.parametrize("message", REQUESTS)
def test_requests_round_trip(message: Request | Answered) -> None:
    """The child reads what the relay sent."""
    assert read_request(encode(message)) == message


@pytest.mark.parametrize("message", REPLIES)
def test_replies_round_trip(message: Reply) -> None:
    """The relay reads what the child sent."""
    assert read_reply(encode(message)) == message


@given(st.binary(max_size=60))
def test_other_frames_raise_one_kind_of_error(body: bytes) -> None:
    """A broken frame is an error of msgspec, or no valid UTF-8."""
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        read_reply(body)
