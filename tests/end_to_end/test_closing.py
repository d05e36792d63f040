"""How connections end on real sockets (RFC 6455 section 7.1.1): our close frame, our end, then the peer's.

Over TCP a reset in place of the end is an error of `recv`; over TLS a missing close_notify is one.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable

import pytest
from tests.end_to_end.harness import DEADLINE_S, Relay, until
from tests.end_to_end.peers import fresh_id
from tests.end_to_end.raw import BINARY, CLOSE, MASK, TEXT, close_frame, frame, upgrade
from tests.end_to_end.test_listeners import tls  # noqa: F401  # a fixture

JUNK = frame(BINARY, bytes(150_000))
"""More than one read takes, so that some of it is unread when the relay closes without reading on."""

ENDINGS = {
    "close frame": (1000, close_frame(1000)),
    "close frame with one byte": (1002, frame(CLOSE, b"\x03")),
    "close frame of 126 bytes": (1002, frame(CLOSE, bytes(126))),
    "close frame with a bad code": (1002, close_frame(1005)),
    "close frame with a bad reason": (1007, close_frame(1000, b"\xff")),
    "unmasked": (1002, frame(TEXT, b"{}", mask=False)),
    "two faults": (1002, frame(TEXT, b"{}", mask=False, rsv=4)),
    "invalid text": (1007, frame(TEXT, b"\xff")),
    "too long": (1009, b"\x82\xff" + (1 << 40).to_bytes(8, "big") + MASK),
}


def _peer(relay: Relay, context: ssl.SSLContext | None = None) -> socket.socket:
    """Return a binary of its own, after its upgrade."""
    sock = socket.create_connection(relay.address, DEADLINE_S)
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname=relay.address[0], suppress_ragged_eofs=False)
    sock.sendall(upgrade("/v1/server", fresh_id()))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    return sock


def _rest(sock: socket.socket) -> bytes:
    """Return everything up to the end."""
    found = b""
    while more := sock.recv(65536):
        found += more
    return found


def _code(data: bytes) -> int:
    """Return the code of the close frame that is all the relay has sent."""
    assert (data[0], data[1]) == (0x88, len(data) - 2)
    return int.from_bytes(data[2:4], "big")


def _no_leases(relay: Relay) -> Callable[[], bool]:
    return lambda: not any(relay.connections().values())


@pytest.mark.parametrize("name", ENDINGS)
def test_the_end_comes_in_order(name: str, relay: Relay) -> None:
    """A peer that went on sending gets our close frame and end, and no reset; one that stays is cut off soon."""
    code, data = ENDINGS[name]
    with contextlib.closing(_peer(relay)) as peer:
        peer.sendall(data + JUNK)
        assert _code(_rest(peer)) == code
        until(_no_leases(relay), "the relay closes the connection")


@pytest.mark.parametrize("name", ["close frame", "two faults", "invalid text"])
def test_the_end_comes_in_order_below_tls(name: str, tls: tuple[Relay, ssl.SSLContext]) -> None:  # noqa: F811
    """Our close_notify follows our close frame, and a peer that never sends its own is not waited for long."""
    relay, context = tls
    code, data = ENDINGS[name]
    with contextlib.closing(_peer(relay, context)) as peer:
        peer.sendall(data + JUNK)
        assert _code(_rest(peer)) == code
        until(_no_leases(relay), "the relay closes the connection")


def test_a_peer_that_ends_its_side_first(relay: Relay) -> None:
    """A peer that ends its side right behind its close frame still gets our close frame."""
    for _ in range(20):
        with contextlib.closing(_peer(relay)) as peer:
            peer.sendall(close_frame(1000))
            peer.shutdown(socket.SHUT_WR)
            assert _code(_rest(peer)) == 1000
