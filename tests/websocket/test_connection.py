"""Connections as they open: what the upgrade answers, and what may follow it."""

from __future__ import annotations

from tests.support.frames import Decoder
from tests.support.harness import PATH, World, request_head
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri


def test_an_independent_client_converses() -> None:
    """Another implementation completes the handshake, exchanges messages, is pinged and closes cleanly."""
    world = World()
    world.application.on_messages = lambda session, batch: session.peer.send([payload for payload, _ in batch])
    client = ClientProtocol(parse_uri(f"ws://relay.example{PATH}"))
    client.send_request(client.connect())
    connection = world.connect()

    def exchange() -> list[Frame]:
        for data in client.data_to_send():
            connection.feed(data)
        client.receive_data(connection.take())
        return [event for event in client.events_received() if isinstance(event, Frame)]

    exchange()
    assert client.handshake_exc is None
    client.send_text(b"hello")
    client.send_binary(b"x" * 70_000)
    assert [bytes(event.data) for event in exchange()] == [b"hello", b"x" * 70_000]
    client.send_ping(b"are you there")
    assert [(event.opcode, bytes(event.data)) for event in exchange()] == [(Opcode.PONG, b"are you there")]
    client.send_close(1000, "bye")
    exchange()
    connection.settle()
    assert world.application.sessions[0].closes == [(1000, "bye")]
    world.assert_empty()


def test_the_upgrade_answer_has_no_optional_fields() -> None:
    """The 101 has no product name and no extensions."""
    world = World()
    connection = world.connect()
    connection.feed(request_head(PATH, "Sec-WebSocket-Extensions: permessage-deflate", "Origin: null"))
    lines = connection.take().decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert {line.partition(":")[0].lower() for line in lines[1:-2]} == {"upgrade", "connection", "sec-websocket-accept"}


def test_a_session_may_speak_first() -> None:
    """Messages that are sent while a session opens follow the 101."""
    world = World()
    world.application.on_opened = lambda session: session.peer.send([b"welcome"])
    connection = world.connect()
    connection.feed(request_head())
    head, _, rest = connection.take().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert [bytes(found.data) for found in Decoder().decode(rest)] == [b"welcome"]
