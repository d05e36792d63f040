"""The answer to an opening handshake."""

from __future__ import annotations

import base64

from autobahn.twisted.websocket import WebSocketServerProtocol
from hypothesis import given
from hypothesis import strategies as st
from tests.support.harness import request_head
from tests.support.plain_server import plain_server
from twisted.internet.task import Clock

from pyryrelay.http.message import parse_head, websocket_key
from pyryrelay.websocket.handshake import accept_key, switching_protocols

SAMPLE_KEY, SAMPLE_ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The key and accept value of RFC 6455 section 1.3."""


def test_the_accepted_key_of_the_specification() -> None:
    """The accept value for the RFC's key is the RFC's."""
    assert accept_key(SAMPLE_KEY) == SAMPLE_ACCEPT


def test_the_whole_answer() -> None:
    """The answer is a 101 with the three fields of RFC 6455 section 4.2.2, and no others."""
    assert switching_protocols(SAMPLE_KEY) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + SAMPLE_ACCEPT + b"\r\n\r\n"
    )


def test_extensions_are_answered() -> None:
    """What was agreed upon is a field of its own."""
    answer = switching_protocols(SAMPLE_KEY, "permessage-deflate")
    assert answer == switching_protocols(SAMPLE_KEY)[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"


@given(nonce=st.binary(min_size=16, max_size=16), last=st.sampled_from("AQgwBRhx"))
def test_a_key_is_accepted_as_autobahn_accepts_it(nonce: bytes, last: str) -> None:
    """Every key that the parser accepts is accepted by Autobahn, with the same answer."""
    key = base64.b64encode(nonce).decode()[:21] + last + "=="
    request = request_head("/", f"Sec-WebSocket-Key: {key}", without=["Sec-WebSocket-Key"])
    assert websocket_key(parse_head(request)) == key
    protocol, transport = plain_server(Clock(), WebSocketServerProtocol)
    protocol.dataReceived(request)
    answer = bytes(transport.taken)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\n" in answer
