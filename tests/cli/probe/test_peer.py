"""One WebSocket connection of the probe, against servers that speak WebSocket well, badly, slowly, or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from tests.support.odd_servers import answering, read_head, serving
from websockets.sync.server import ServerConnection, serve

from pyryrelay.cli.probe import peer as peer_module
from pyryrelay.cli.probe.peer import MAX_HEAD_BYTES, MAX_PARTS, Peer, open_peer
from pyryrelay.protocol_options import ProbeError

LONG_S = 60.0


@contextmanager
def visiting(handle: Callable[[ServerConnection], None], timeout_s: float = LONG_S) -> Iterator[Peer]:
    """Open a connection to a real server, whose side of it ``handle`` does."""
    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.socket.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as sock:
            yield open_peer(sock, f"ws://127.0.0.1:{port}/", {"X-A": "b"}, {4000: "go away"}, timeout_s)
        server.shutdown()
    thread.join(LONG_S)


def opened(handle: Callable[[socket.socket], None], timeout_s: float = LONG_S) -> ProbeError:
    """Return the problem of an upgrade that fails."""
    with serving(handle) as port, socket.create_connection(("127.0.0.1", port)) as sock:
        try:
            open_peer(sock, f"ws://127.0.0.1:{port}/", {}, {404: "no such door"}, timeout_s)
        except ProbeError as error:
            return error
    raise AssertionError("it was upgraded")


def wait_for_end(connection: ServerConnection) -> None:
    """Serve by waiting for the client to leave."""
    for _ in connection:
        pass


def cut_off(connection: ServerConnection) -> None:
    """End the connection without a close frame."""
    connection.socket.shutdown(socket.SHUT_RDWR)


# The upgrade


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "it was answered 404 Not Found: no such door"),
        (b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\n\r\n", "it was answered 429 Too Many Requests"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", "with a page (text/html)"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "the answer is no upgrade to WebSocket"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: AAAA\r\n\r\n",
            "the answer is no upgrade to WebSocket",
        ),
        (b"HTTP/1.1 abc\r\n\r\n", "the server does not speak HTTP"),
        (b"HTTP/1.1\r\n\r\n", "the server does not speak HTTP"),
        (b"HTT", "the server does not speak HTTP"),
        (b"SSH-2.0-x\r\n", "the server does not speak HTTP: it says 'SSH-2.0-x"),
        (b"", "the server closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD_BYTES, f"the head of the answer is longer than {MAX_HEAD_BYTES}"),
    ],
)
def test_answers_that_are_no_upgrade(answer: bytes, problem: str) -> None:
    """Whatever is answered, the problem is one line."""
    assert problem in opened(answering(answer)).problem


def test_a_page_that_never_ends() -> None:
    """The head of an answer is enough: a body without end is not waited for."""

    def handle(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        connection.recv(1)

    assert "502" in opened(handle).problem


def test_a_server_that_drips() -> None:
    """Single bytes that keep coming do not prolong the deadline."""

    def handle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not stop.wait(0.01):
            connection.sendall(b"a")

    stop = threading.Event()
    assert opened(handle, 0.2).problem == "the answer to the request did not arrive within 0.2 s"
    stop.set()


def test_a_reset_is_a_connection_that_was_closed() -> None:
    """A server that resets the connection has dropped it without an answer."""

    def handle(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    assert "without an answer" in opened(handle).problem


# Messages


def test_messages_pings_and_an_end_in_order() -> None:
    """Messages in fragments and of both types arrive; pings are answered on both sides; the end has code and reason."""

    def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.headers["X-A"] == "b"
        connection.ping().wait(LONG_S)
        connection.send(["one", "two"])
        connection.send(b"\xc3\xa9")
        assert connection.recv() == "hello"
        connection.send("three")
        connection.close(4001, "bye\x1b")

    with visiting(handle) as peer:
        assert peer.receive() == "onetwo"
        peer.ping()
        peer.send("hello")
        assert peer.receive() == "\u00e9"
        assert peer.receive() == "three"
        with pytest.raises(ProbeError, match="closed with 4001"):
            peer.receive()
        assert peer.close() == "4001 'bye\\x1b'"


def test_closing_first() -> None:
    """The relay's answer to the close is told."""
    with visiting(wait_for_end) as peer:
        assert peer.close() == "1000"


def test_waiting_for_what_may_not_come() -> None:
    """What arrives in time is returned, and nothing else; the connection can be used afterwards."""
    go = threading.Event()

    def handle(connection: ServerConnection) -> None:
        go.wait(LONG_S)
        connection.send("late")
        connection.recv()

    with visiting(handle) as peer:
        assert peer.receive_within(0.05) is None
        go.set()
        assert peer.receive_within(LONG_S) == "late"
        assert peer.receive_within(0.0) is None
        peer.send("bye")


@pytest.mark.parametrize(
    ("handle", "problem"),
    [
        (lambda connection: connection.close(4000, "x"), "closed with 4000 'x': go away"),
        (lambda connection: connection.close(1008, "rule"), "closed with 1008 'rule': it says that this client"),
        (cut_off, "the connection was lost without a close"),
        (lambda connection: connection.send("x" * 2_000_000), "the relay breaks the WebSocket protocol: "),
        (lambda connection: connection.socket.sendall(b"\xff\xff"), "the relay breaks the WebSocket protocol: "),
    ],
)
def test_connections_that_end(handle: Callable[[ServerConnection], None], problem: str) -> None:
    """The end of a connection is explained, whatever is done with it."""
    with visiting(handle) as peer:
        acts: list[Callable[[], object]] = [peer.receive, peer.ping, partial(peer.send, "x")]
        acts.append(partial(peer.receive_within, LONG_S))
        for act in acts:
            with pytest.raises(ProbeError) as raised:
                act()
            assert raised.value.problem.startswith(problem)


def test_a_close_that_is_not_answered() -> None:
    """If the connection ends instead of the answer to the close, that is a problem."""
    with visiting(cut_off) as peer:
        for act in (partial(peer.receive_within, LONG_S), peer.close):
            with pytest.raises(ProbeError, match="lost without a close frame"):
                act()


def test_messages_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that floods the probe is a problem, and takes no more memory than some messages."""
    monkeypatch.setattr(peer_module, "MAX_WAITING", 2)

    def handle(connection: ServerConnection) -> None:
        connection.socket.sendall(b"\x81\x04spam" * 3)
        wait_for_end(connection)

    # They may arrive with the answer to the upgrade.
    with pytest.raises(ProbeError, match="messages that nobody asked for"), visiting(handle) as peer:
        peer.receive_within(LONG_S)


@pytest.mark.parametrize(
    ("flood", "problem"),
    [
        ([b"x" * 1_000_000] * 6, "messages that nobody asked for"),
        ([[b"a"] + [b""] * MAX_PARTS], "in more than 1000 fragments"),
    ],
    ids=["long messages", "empty fragments"],
)
def test_what_is_kept_is_bounded(flood: list[bytes | list[bytes]], problem: str) -> None:
    """However few the messages are, and however short."""

    def handle(connection: ServerConnection) -> None:
        for message in flood:
            connection.send(message)
        wait_for_end(connection)

    def visit() -> None:
        with visiting(handle) as peer:
            while True:
                peer.ping()

    # The flood may arrive together with the answer to the upgrade.
    with pytest.raises(ProbeError, match=problem):
        visit()


def test_pongs_that_nobody_asked_for_are_not_kept() -> None:
    """Only the answer to the ping counts, and the messages before it are kept."""

    def handle(connection: ServerConnection) -> None:
        for number in range(100):
            connection.pong(b"%d" % number)
        connection.send("text")
        wait_for_end(connection)

    with visiting(handle) as peer:
        peer.ping()
        assert peer._awaited_pong is None
        assert peer.receive() == "text"
        assert peer._waiting_chars == 0
        peer.ping()


def test_a_relay_that_says_nothing() -> None:
    """A message or pong that does not come in time is a problem."""
    with (
        visiting(wait_for_end, 0.1) as peer,
        pytest.raises(ProbeError, match=r"the message did not arrive within 0\.1 s"),
    ):
        peer.receive()
