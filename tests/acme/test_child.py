"""The program of the child process, with a socket in place of the relay."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.odd_servers import read_head, serving

import pyryrelay
from pyryrelay.acme import ordering
from pyryrelay.acme.child import Frames, GoneError, serve
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
)

ORDER = Order("https://ca.example", "a.example", "", ("http-01",), "")
CHALLENGE = Challenge("http-01", "a.example", "token", "text")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Frames]]:
    """The relay's end, and the child's."""
    relay, child = socket.socketpair()
    relay.settimeout(10)
    with relay, child:
        yield relay, Frames(child)


def send(relay: socket.socket, message: Request | Answered) -> None:
    """Send a frame in pieces."""
    body = encode(message)
    frame = len(body).to_bytes(4, "big") + body
    for start in range(0, len(frame), 3):
        relay.sendall(frame[start : start + 3])


def receive(relay: socket.socket) -> Reply:
    """Return the next message of the child."""
    return read_reply(Frames(relay).receive())


def test_an_order_waits_for_the_answer_to_its_challenge(
    ends: tuple[socket.socket, Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authority is told only when the relay answers."""
    relay, child = ends
    steps: list[str] = []

    def order(request: Order, answer: Callable[[Challenge], None]) -> Issued:
        steps.append("ordered")
        answer(CHALLENGE)
        steps.append("answered")
        return Issued("pem", "account")

    monkeypatch.setattr(ordering, "order", order)
    thread = threading.Thread(target=serve, args=(child,))
    thread.start()
    send(relay, ORDER)
    assert receive(relay) == CHALLENGE
    assert steps == ["ordered"]
    send(relay, Answered())
    assert receive(relay) == Issued("pem", "account")
    thread.join(10)


def test_an_order_that_fails_is_reported(ends: tuple[socket.socket, Frames], monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay gets the problem, and the account if one was registered."""
    relay, child = ends

    def order(request: Order, answer: Callable[[Challenge], None]) -> Issued:
        raise ordering.OrderError("rateLimited: too many", "account")

    monkeypatch.setattr(ordering, "order", order)
    send(relay, ORDER)
    serve(child)
    assert receive(relay) == Failed("rateLimited: too many", "account")


def test_the_window_is_asked_for(ends: tuple[socket.socket, Frames], monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of the authority is passed on."""
    relay, child = ends
    monkeypatch.setattr(ordering, "ask_window", lambda request: Window(1.0, 2.0))
    send(relay, AskWindow("https://ca.example", "pem"))
    serve(child)
    assert receive(relay) == Window(1.0, 2.0)


def test_an_answer_to_nothing_is_an_error(ends: tuple[socket.socket, Frames]) -> None:
    """The first frame is a request."""
    relay, child = ends
    send(relay, Answered())
    serve(child)
    assert receive(relay) == Failed("the relay sent an answer to nothing")


def test_the_child_ends_with_the_relay(ends: tuple[socket.socket, Frames]) -> None:
    """A relay that is gone, in the middle of a frame too, ends the child."""
    relay, child = ends
    relay.sendall(b"\0\0\0\x10half")
    relay.shutdown(socket.SHUT_WR)
    with pytest.raises(GoneError):
        serve(child)


def test_the_memory_of_the_child_is_limited() -> None:
    """An authority that sends without end makes its order fail; the relay's machine does not notice."""

    def endless(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65_536)

    relay, child = socket.socketpair()
    relay.settimeout(30)
    with relay, serving(endless) as port:
        with child:
            environ = os.environ | {"PYTHONPATH": str(Path(pyryrelay.__file__).parent.parent)}
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pyryrelay.acme.child"],
                stdin=child.fileno(),
                env=environ,
            )
        send(relay, AskWindow(f"http://127.0.0.1:{port}/dir", "pem"))
        assert receive(relay) == Failed("the authority answered in an unexpected way (MemoryError)")
        assert process.wait(30) == 0
