"""Plain requests that a protocol of a real relay answers later, as programs such as netcat send them."""

from __future__ import annotations

import json
import socket
import sys

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, Launch, Relay

PROGRAM = (sys.executable, "-m", "tests.end_to_end.with_room")


@pytest.fixture
def relay(start_relay: StartRelay) -> Relay:
    """A relay with the echo room, whose plain answers come from a thread."""
    return start_relay(launch=Launch(program=PROGRAM))


def ask(relay: Relay, request: bytes, *, ends: bool) -> bytes:
    """Send a request, and end the write side behind it if wanted; return all that comes."""
    with socket.create_connection(relay.address, DEADLINE_S) as asking:
        asking.sendall(request)
        if ends:
            asking.shutdown(socket.SHUT_WR)
        answer = b""
        while data := asking.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_late_answer(relay: Relay, method: bytes, ends: bool) -> None:
    """A peer that ends its write side behind its request gets the answer as any other does."""
    answer = ask(relay, method + b" /room HTTP/1.1\r\nHost: x\r\n\r\n", ends=ends)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == (b"" if method == b"HEAD" else json.dumps({"kept": 0}).encode())


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("size", [4, 60_000])
def test_a_request_with_a_body(relay: Relay, size: int, ends: bool) -> None:
    """A body that nobody reads is no obstacle to the answer."""
    head = f"POST /room HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    assert ask(relay, head + bytes(size), ends=ends).startswith(b"HTTP/1.1 415 ")
