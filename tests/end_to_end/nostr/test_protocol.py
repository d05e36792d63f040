"""Messages on the wire, valid or not, in any chunks; plain HTTP on the same path; both protocols at once."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, GENEROUS, LOCALHOST, Relay, asynchronous, http_get
from tests.end_to_end.nostr.conftest import health
from tests.end_to_end.nostr.peers import Author, Message, client, encoded, ids_of
from tests.end_to_end.peers import pair
from tests.end_to_end.raw import BINARY, CLOSE, SAMPLE_ACCEPT, TEXT, UPGRADE, Raw, frame, head, raw

VECTORS = json.loads((Path(__file__).parents[2] / "data/nostr-malformed.json").read_text(encoding="utf-8"))
EVENTS = json.loads((Path(__file__).parents[2] / "data/nostr-events.json").read_text(encoding="utf-8"))
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
}


def text(*message: object) -> bytes:
    """Return a frame with one message."""
    return frame(TEXT, encoded(message).encode())


@contextlib.asynccontextmanager
async def raw_client(relay: Relay, *fields: tuple[str, str], path: str = "/") -> AsyncIterator[Raw]:
    """Connect a client that can send any bytes."""
    async with raw(relay.address) as peer:
        await peer.send(head(path, *UPGRADE, *fields))
        answer = await peer.response()
        assert (answer.status, answer.fields["sec-websocket-accept"]) == (101, SAMPLE_ACCEPT)
        yield peer


async def until_end_of(peer: Raw, name: str) -> list[Message]:
    """Return the messages before the EOSE of that subscription, the EOSE not among them."""
    messages: list[Message] = []
    while True:
        opcode, payload = await peer.message()
        assert opcode == TEXT, (opcode, payload)
        message = json.loads(payload)
        if message[:2] == ["EOSE", name]:
            return messages
        messages.append(message)


@asynchronous
async def test_malformed_messages(relay: Relay) -> None:
    """Every row of the table of malformed messages gets its reply, or none, and the connection stays open."""
    async with raw_client(relay) as peer:
        for number, row in enumerate(VECTORS):
            mark = f"mark-{number}"
            await peer.send(frame(TEXT, row["received"].encode()) + text("REQ", mark, {"limit": 0}))
            expected = [] if row["reply"] is None else [row["reply"]]
            assert await until_end_of(peer, mark) == expected, row
            await peer.send(text("CLOSE", mark))


@asynchronous
async def test_a_binary_message(relay: Relay) -> None:
    """A binary message gets a NOTICE."""
    async with raw_client(relay) as peer:
        await peer.send(frame(BINARY, b'["CLOSE","x"]') + text("REQ", "mark", {"limit": 0}))
        assert await until_end_of(peer, "mark") == [["NOTICE", "invalid: binary messages are not understood"]]


@pytest.mark.parametrize(("payload", "code"), [(b'["CLOSE","\xff"]', 1007), (b" " * 262_145, 1009)])
@asynchronous
async def test_what_ends_a_connection(payload: bytes, code: int, relay: Relay) -> None:
    """Text that is no UTF-8, and a message over the limit, end the connection; no message is sent before."""
    async with raw_client(relay) as peer:
        await peer.send(frame(TEXT, payload))
        opcode, reason = await peer.message()
        assert (opcode, int.from_bytes(reason[:2], "big")) == (CLOSE, code)


@asynchronous
async def test_the_largest_message(relay: Relay) -> None:
    """A message of exactly the limit is taken."""
    async with raw_client(relay) as peer:
        await peer.send(frame(TEXT, b" " * 262_144) + text("REQ", "mark", {"limit": 0}))
        assert await until_end_of(peer, "mark") == []


@pytest.mark.parametrize("vector", EVENTS, ids=lambda vector: vector["name"])
@asynchronous
async def test_canonical_events(vector: Mapping[str, Any], relay: Relay) -> None:
    """Events of the vectors come back byte for byte in the canonical form, whatever form they were sent in."""
    event = vector["event"]
    async with raw_client(relay) as peer:
        await peer.send(frame(TEXT, json.dumps(["EVENT", event], ensure_ascii=True, indent=1).encode()))
        opcode, payload = await peer.message()
        assert (opcode, json.loads(payload)[:3]) == (TEXT, ["OK", event["id"], True])
        await peer.send(text("REQ", "s", {"ids": [event["id"]]}))
        assert await peer.message() == (TEXT, encoded(["EVENT", "s", event]).encode())


@asynchronous
async def test_close_in_the_chunk_of_its_req(relay: Relay) -> None:
    """After a CLOSE nothing with that id is sent, and the id can be used again at once."""
    author = Author()
    async with client(relay.uri) as publisher, raw_client(relay) as peer:
        notes = author.notes(50)
        assert all(accepted for accepted, _ in await publisher.publish_all(notes))
        everything = text("REQ", "s", {"authors": [author.pubkey]})
        for _ in range(20):
            await peer.send(everything + text("CLOSE", "s") + text("REQ", "mark", {"limit": 0}))
            assert await until_end_of(peer, "mark") == []
        await peer.send(everything + text("CLOSE", "s") + text("REQ", "s", {"ids": [notes[7]["id"]]}))
        assert await until_end_of(peer, "s") == [["EVENT", "s", notes[7]]]


@asynchronous
async def test_the_same_id_twice_in_a_chunk(relay: Relay) -> None:
    """A REQ with the id of an open one starts again: only the second one's events and EOSE are sent."""
    author = Author()
    async with client(relay.uri) as publisher, raw_client(relay) as peer:
        notes = author.notes(20)
        await publisher.publish_all(notes)
        one, mark = text("REQ", "s", {"ids": [notes[3]["id"]]}), text("REQ", "mark", {"limit": 0})
        await peer.send(text("REQ", "s", {"authors": [author.pubkey]}) * 5 + one + mark)
        messages = await until_end_of(peer, "mark")
        if ["EVENT", "s", notes[3]] not in messages:
            messages += await until_end_of(peer, "s")
        assert [message for message in messages if message[:2] != ["EOSE", "s"]] == [["EVENT", "s", notes[3]]]
        assert len([message for message in messages if message[0] == "EOSE"]) <= 1


@asynchronous
async def test_events_around_a_req(relay: Relay) -> None:
    """An event in the chunk of the REQ that asks for it, before or after it, is delivered exactly once."""
    author = Author()
    before, after = author.notes(10), author.notes(10)
    async with raw_client(relay) as peer:
        await peer.send(
            b"".join(text("EVENT", note) for note in before)
            + text("REQ", "s", {"authors": [author.pubkey]})
            + b"".join(text("EVENT", note) for note in after)
        )
        delivered: list[str] = []
        accepted: list[str] = []
        while len(delivered) < 20 or len(accepted) < 20:
            message = json.loads((await peer.message())[1])
            match message[0]:
                case "EVENT":
                    delivered.append(message[2]["id"])
                case "OK":
                    accepted.append(message[1])
        await peer.send(text("REQ", "mark", {"limit": 0}))
        assert [message for message in await until_end_of(peer, "mark") if message[0] == "EVENT"] == []
        assert sorted(delivered) == sorted(ids_of(before + after))
        assert accepted == ids_of(before + after)


@asynchronous
async def test_byte_by_byte(relay: Relay) -> None:
    """Messages may arrive in single bytes."""
    note = Author().event("in pieces")
    async with raw_client(relay) as peer:
        for byte in text("EVENT", note) + text("REQ", "s", {"ids": [note["id"]]}):
            await peer.send(bytes([byte]))
        answers = {json.loads((await peer.message())[1])[0] for _ in range(2)}
        assert "OK" in answers


@asynchronous
async def test_a_browser(relay: Relay) -> None:
    """Any Origin is accepted, no subprotocol is agreed on, and a query string and Accept are ignored."""
    fields = (("Origin", "https://example.com"), ("Accept", "application/nostr+json"))
    async with raw_client(relay, *fields, path="/?token=x") as peer:
        await peer.send(text("REQ", "s", {"limit": 0}))
        assert await until_end_of(peer, "s") == []


def ask(relay: Relay, method: str, path: str = "/", body: bytes | None = None, **fields: str) -> tuple[int, Any, bytes]:
    """Return status, fields and body of a plain request; underscores of field names are hyphens."""
    connection = http.client.HTTPConnection(LOCALHOST, relay.port, DEADLINE_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def assert_cors(fields: Mapping[str, str]) -> None:
    """Check what every answer on the path carries."""
    assert {name: fields[name] for name in CORS} == CORS
    assert fields["Connection"] == "close"


@pytest.mark.parametrize(
    "accept", ["application/nostr+json", "text/html, Application/Nostr+JSON;q=0.5", "*/*,application/nostr+json ; a=b"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_information_document(method: str, accept: str, relay: Relay) -> None:
    """A request that accepts it gets NIP-11's document, wherever in the list it is named."""
    status, fields, body = ask(relay, method, "/?x=y", accept=accept)
    assert (status, fields["Content-Type"]) == (200, "application/nostr+json")
    assert_cors(fields)
    if method == "GET":
        document = json.loads(body)
        assert document["supported_nips"] == [1, 2, 4, 9, 11, 13, 17, 28, 40, 42, 45, 59, 65, 67, 70]
    else:
        assert body == b""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_page(method: str, relay: Relay) -> None:
    """Any other request for the path gets a page that may load nothing."""
    status, fields, body = ask(relay, method, accept="text/html, application/nostr")
    assert (status, fields["Content-Type"].partition(";")[0]) == (200, "text/html")
    assert fields["Content-Security-Policy"] == "default-src 'none'"
    assert_cors(fields)
    assert bool(body) == (method == "GET")


def test_options(relay: Relay) -> None:
    """OPTIONS gets 204 without a body."""
    status, fields, body = ask(relay, "OPTIONS", origin="https://example.com")
    assert (status, body) == (204, b"")
    assert_cors(fields)


@pytest.mark.parametrize(
    ("method", "content_type", "status"),
    [
        ("POST", "application/json", 415),
        ("POST", "application/nostr+json+rpc", 404),
        ("PUT", "text/plain", 405),
        ("DELETE", "text/plain", 405),
        ("PATCH", "application/nostr+json+rpc", 405),
    ],
)
def test_other_methods(method: str, content_type: str, status: int, relay: Relay) -> None:
    """POST is for a management that this relay does not have; other methods are not allowed."""
    found, fields, _ = ask(relay, method, body=b"{}", content_type=content_type)
    assert found == status
    assert_cors(fields)
    assert fields["Allow"] == ("GET, HEAD, POST, OPTIONS" if status == 405 else None)


@pytest.mark.parametrize("path", ["/relay", "//", "/index.html", "/v1/server", "/v1/client"])
def test_other_paths(path: str, relay: Relay) -> None:
    """There is a relay on one path only."""
    assert ask(relay, "GET", path, accept="application/nostr+json")[0] == 404


@asynchronous
async def test_another_path(start_nostr: StartRelay) -> None:
    """The path can be chosen."""
    relay = start_nostr("--nostr-path", "/nostr")
    assert http_get(relay.port, "/")[0] == 404
    async with client(relay.uri, path="/nostr") as peer:
        assert (await peer.publish(Author().event("hello")))[0]


@asynchronous
async def test_both_protocols(start_relay: StartRelay) -> None:
    """Both protocols run at once on the same listener, and end together."""
    relay = start_relay("--nostr", *GENEROUS, "--nostr-preset", "open")
    async with pair(relay.uri) as siblings, client(relay.uri) as peer:
        note = Author().event("next to another protocol")
        await siblings.exchange()
        assert await peer.publish(note) == (True, "")
        await siblings.exchange()
        assert await peer.fetch({}) == [note]
        found = health(relay)
        assert (found["connected_binaries"], found["connected_phones"], found["nostr_subscriptions"]) == (1, 1, 0)


@asynchronous
async def test_figures(start_nostr: StartRelay) -> None:
    """/healthz says how many events are stored and how many subscriptions are open."""
    relay = start_nostr()
    async with client(relay.uri) as peer:
        for note in Author().notes(3):
            assert await peer.publish(note) == (True, "")
        await peer.subscribe("one", {})
        await peer.subscribe("two", {"limit": 0})
        assert (health(relay)["nostr_events"], health(relay)["nostr_subscriptions"]) == (3, 2)
