"""The actions of protocols in the admin API. Real requests to a real site, in memory."""

from __future__ import annotations

import pytest
from tests.support.admin import Client, open_access
from tests.support.capture import captured
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pyryrelay.admin.protocol_actions import action_resources, unknown_action
from pyryrelay.admin.resources import MAX_ACTION_BYTES
from pyryrelay.admin.site import admin_site
from pyryrelay.protocol import ActionError


class Room:
    """A protocol with two actions, of which one takes its time."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.asked: Deferred[bytes] = Deferred()

    def echo(self, body: bytes) -> bytes:
        """Answer at once, or refuse."""
        if not body:
            raise ActionError("there is nothing to echo: send some JSON")
        self.bodies.append(body)
        return b"[1]"

    def ask(self, body: bytes) -> Deferred[bytes]:
        """Answer later."""
        return self.asked


@pytest.fixture
def room() -> Room:
    """A protocol."""
    return Room()


@pytest.fixture
def client(room: Room) -> Client:
    """A client of the site of a relay with that protocol, and with one that has no actions."""
    resources = action_resources({"echo": {"echo": room.echo, "ask": room.ask}, "pyry": {}})
    return Client(admin_site({}, Clock(), resources, open_access("relay.internal")))


def test_an_action_gets_the_body_and_answers_json(client: Client, room: Room) -> None:
    """The body is handed over as it is, and so is the JSON that the action returns."""
    response = client.change("POST", "/echo/echo", '{"a": 1}')
    assert (response.status, response.text) == (200, "[1]")
    assert response.fields["Content-Type"] == "application/json; charset=utf-8"
    assert room.bodies == [b'{"a": 1}']


def test_an_action_may_take_its_time(client: Client, room: Room) -> None:
    """The answer waits for the Deferred of an action."""
    exchange = client.begin("POST", "/echo/ask", X_Pyryrelay_Admin="1")
    assert exchange.sent == b""
    room.asked.callback(b"{}")
    assert exchange.response.text == "{}"


def test_refusals_and_failures(client: Client, room: Room) -> None:
    """An `ActionError` is answered with 400 and its text, at once or later; anything else is a fault of the relay."""
    response = client.change("POST", "/echo/echo")
    assert (response.status, response.error) == (400, "there is nothing to echo: send some JSON")
    room.asked.errback(OSError(28, "the secret"))
    with captured() as log:
        response = client.change("POST", "/echo/ask")
    assert (response.status, "secret" in response.text) == (500, False)
    assert log.texts == ["the admin API failed"]


@pytest.mark.parametrize("path", ["/echo", "/echo/", "/echo/other", "/echo/echo/more"])
def test_other_paths_are_no_actions(client: Client, path: str) -> None:
    """A path that names no action is answered with 404 and those that there are."""
    response = client.change("POST", path, "[]")
    assert (response.status, response.error) == (404, "there is no such action: use /echo/echo or /echo/ask")


def test_a_protocol_without_actions_has_no_path(room: Room) -> None:
    """Nothing is served for a protocol that has no actions."""
    assert list(action_resources({"echo": {"echo": room.echo}, "pyry": {}})) == ["/echo"]


def test_actions_are_protected(client: Client, room: Room) -> None:
    """Actions change something: they need the header field, the method and the host that all such requests need."""
    assert client.request("POST", "/echo/echo", "[]").status == 403
    assert client.change("GET", "/echo/echo").status == 405
    assert client.change("POST", "/echo/echo", "[]", host="evil.example").status == 421
    assert client.change("POST", "/echo/echo", "[]", host="relay.internal").status == 200
    assert room.bodies == [b"[]"]


def test_bodies_are_long_but_bounded(room: Room) -> None:
    """A body may have 8 MiB."""
    (resource,) = action_resources({"echo": {"echo": room.echo}}).values()
    site = admin_site({}, Clock(), {"/echo": resource}, open_access())
    for size, status in ((MAX_ACTION_BYTES, b"200"), (MAX_ACTION_BYTES + 1, b"413")):
        head = f"POST /echo/echo HTTP/1.1\r\nHost: localhost\r\nX-Pyryrelay-Admin: 1\r\nContent-Length: {size}\r\n\r\n"
        exchange = Client(site).send(head)
        for _ in range(0, size, 65536):
            exchange.receive(b"x" * min(65536, size))
            size -= 65536
        assert exchange.sent.split(b" ", 2)[1] == status
    assert list(map(len, room.bodies)) == [MAX_ACTION_BYTES]


def test_a_protocol_whose_actions_are_not_known() -> None:
    """The error names none then."""
    assert str(unknown_action("room", ["a", "b"])) == "there is no such action: use /room/a or /room/b"
    assert str(unknown_action("room", [])) == "there is no such action"
