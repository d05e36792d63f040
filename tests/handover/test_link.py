"""The connection between two processes: the first message with its descriptors, and what is wrong with others."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from twisted.internet.testing import StringTransport

from pyryrelay.handover import link as link_module
from pyryrelay.handover.link import Greeting, GreetingError, Link, receive_greeting, send_greeting
from pyryrelay.listen.inherited import Inherited


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def greeting(**sockets: socket.socket) -> Greeting:
    return Greeting("26.11.0", 7, ("in use",), Inherited(sockets, sockets), 3, 1 << 127)


def test_the_greeting(pair: tuple[socket.socket, socket.socket]) -> None:
    """The other process gets the same sockets by their endpoints, in descriptors that no child inherits."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        send_greeting(pair[0], greeting(public=listening))
        found = receive_greeting(pair[1])
        assert (found.version, found.pid, found.conflicts) == ("26.11.0", 7, ("in use",))
        assert (found.workers, found.seed) == (3, 1 << 127)
        assert found.sockets.endpoints == {"public"}
        copies = (found.sockets.take("public"), found.sockets.take_drop_socket("public"))
        for copy in copies:
            assert copy is not None
            assert copy.getsockname() == listening.getsockname()
            assert not os.get_inheritable(copy.fileno())
            copy.close()


def sent(pair: tuple[socket.socket, socket.socket], body: bytes, *, length: int | None = None) -> str:
    """Return the error about a message."""
    pair[0].sendall(struct.pack("!I", len(body) if length is None else length) + body)
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(GreetingError) as caught:
        receive_greeting(pair[1])
    return str(caught.value)


def test_greetings_that_are_not_understood(pair: tuple[socket.socket, socket.socket]) -> None:
    """A message of another format names the version that sent it."""
    text = sent(pair, json.dumps({"format": 2, "version": "99.1"}).encode())
    assert text == "the process before, of version 99.1, hands over in another format"


@pytest.mark.parametrize(
    ("body", "length", "text"),
    [
        (b"{", None, "is not understood"),
        (b"[]", None, "is not understood"),
        (b"{}", 5, "has ended"),
        (b"", 1 << 30, "too long"),
        (
            b'{"format": 1, "version": "1", "pid": 1, "conflicts": [], "sockets": [["listening", "x"]]}',
            None,
            "handed over 0 of 1 sockets",
        ),
    ],
)
def test_bad_greetings(pair: tuple[socket.socket, socket.socket], body: bytes, length: int | None, text: str) -> None:
    """A message that is cut, too long, no JSON, or lacks descriptors is one line."""
    assert text in sent(pair, body, length=length)


def test_a_process_that_ends_before_it_greets(pair: tuple[socket.socket, socket.socket]) -> None:
    """Without a message there is one line, too."""
    pair[0].close()
    with pytest.raises(GreetingError, match="has not handed its sockets over"):
        receive_greeting(pair[1])


def test_too_many_sockets(pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the kernel passes at once are refused."""
    monkeypatch.setattr(link_module, "MAX_SOCKETS", 1)
    with pytest.raises(GreetingError, match="2 sockets are more than a process can hand over"):
        send_greeting(pair[0], greeting(public=pair[0]))


def test_messages() -> None:
    """Messages arrive whole, others than objects are ignored, and nothing is sent after the end."""
    received: list[Mapping[str, Any]] = []
    lost: list[None] = []
    link, transport = Link(received.append, lambda: lost.append(None)), StringTransport()
    link.send("early")
    link.makeConnection(transport)  # type: ignore[no-untyped-call]
    link.send("ready", pid=7)
    wire = transport.value()
    assert wire == b"\x00\x00\x00\x18" + b'{"type":"ready","pid":7}'
    for byte in wire + b"\x00\x00\x00\x02[]":
        link.dataReceived(bytes([byte]))  # type: ignore[no-untyped-call]
    assert received == [{"type": "ready", "pid": 7}]
    link.close()
    assert transport.disconnecting
    link.connectionLost()
    assert lost == [None]
