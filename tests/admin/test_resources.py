"""Responses of an API path, and the requests that it refuses. Real requests to a real site, in memory."""

from __future__ import annotations

import pytest
from tests.support.admin import Client, chunked, open_access
from tests.support.capture import captured
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.server import Request

from pyryrelay.admin.resources import MAX_BODY_BYTES, ApiError, ApiResource, ApiResponse, alternatives
from pyryrelay.admin.site import admin_site
from pyryrelay.guard.errors import AddressError


class Thing:
    """A path ``/thing`` that can be read and changed; ``response`` is what its handlers answer or raise."""

    def __init__(self) -> None:
        self.response: ApiResponse | Deferred[ApiResponse] | Exception = ApiResponse(200, {"is": "here"})
        self.bodies: list[bytes] = []
        handlers = {"GET": self._handle, "POST": self._handle, "DELETE": self._handle}
        self.client = Client(admin_site({}, Clock(), {"/thing": ApiResource(handlers)}, open_access()))

    def _handle(self, request: Request) -> ApiResponse | Deferred[ApiResponse]:
        assert request.content is not None
        request.content.seek(0)
        self.bodies.append(request.content.read())
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


@pytest.fixture
def thing() -> Thing:
    """A path with handlers."""
    return Thing()


@pytest.fixture
def client(thing: Thing) -> Client:
    """A client of the site with that path."""
    return thing.client


# Responses


def test_a_body_is_sent_as_json(client: Client) -> None:
    """A body that is no string is sent as one line of JSON that is neither cached nor sniffed."""
    response = client.request("GET", "/thing")
    assert (response.status, response.text) == (200, '{"is": "here"}\n')
    assert response.fields["Content-Type"] == "application/json; charset=utf-8"
    assert response.fields["Content-Length"] == "15"
    assert response.fields["Cache-Control"] == "no-store"
    assert response.fields["X-Content-Type-Options"] == "nosniff"


def test_a_string_is_sent_as_plain_text(thing: Thing, client: Client) -> None:
    """A body that is a string is sent unchanged, in UTF-8."""
    thing.response = ApiResponse(200, "one\ntwö\n")
    response = client.request("GET", "/thing")
    assert response.text == "one\ntwö\n"
    assert response.fields["Content-Type"] == "text/plain; charset=utf-8"
    assert response.fields["Content-Length"] == "9"


def test_header_fields_of_the_response(thing: Thing, client: Client) -> None:
    """Fields of a response are added to the usual ones, and replace them."""
    thing.response = ApiResponse(201, [], {"X-Total-Count": "0", "Cache-Control": "private"})
    response = client.request("GET", "/thing")
    assert response.status == 201
    assert (response.fields["X-Total-Count"], response.fields["Cache-Control"]) == ("0", "private")


def test_head_is_get_without_a_body(client: Client) -> None:
    """HEAD is answered with the fields of GET, and without a body."""
    response = client.request("HEAD", "/thing")
    assert (response.status, response.text) == (200, "")
    assert response.fields["Content-Length"] == "15"


def test_a_response_may_be_deferred(thing: Thing, client: Client) -> None:
    """A handler may return a Deferred: the response is sent when it fires."""
    thing.response = later = Deferred[ApiResponse]()
    exchange = client.begin("GET", "/thing")
    assert exchange.sent == b""
    later.callback(ApiResponse(200, "done"))
    assert exchange.response.text == "done"


def test_nothing_is_sent_to_a_client_that_has_disconnected(thing: Thing, client: Client) -> None:
    """A response that is ready after the client has disconnected is dropped, and is no error."""
    thing.response = later = Deferred[ApiResponse]()
    exchange = client.begin("GET", "/thing")
    exchange.disconnect()
    with captured() as log:
        later.callback(ApiResponse(200, "done"))
    assert (exchange.sent, log.events) == (b"", [])


# Errors


def test_an_api_error_has_its_status_and_fields(thing: Thing, client: Client) -> None:
    """An `ApiError` is answered as JSON with its status, its text and its header fields."""
    thing.response = ApiError(404, "no such thing: make one", Location="elsewhere")
    response = client.request("GET", "/thing")
    assert (response.status, response.json) == (404, {"error": "no such thing: make one"})
    assert response.fields["Location"] == "elsewhere"


def test_a_guard_error_is_the_clients_mistake(thing: Thing, client: Client) -> None:
    """A `GuardError` is answered 400 with its text."""
    thing.response = AddressError("'x' is not an address")
    response = client.request("GET", "/thing")
    assert (response.status, response.error) == (400, "'x' is not an address")


@pytest.mark.parametrize("is_deferred", [False, True])
def test_other_failures_are_logged_and_not_sent(thing: Thing, client: Client, is_deferred: bool) -> None:
    """Any other exception is answered 500 without details, and logged with its traceback."""
    failure = RuntimeError("the secret")
    thing.response = later = Deferred[ApiResponse]()
    if not is_deferred:
        thing.response = failure
    with captured() as log:
        exchange = client.begin("GET", "/thing")
        if is_deferred:
            later.errback(failure)
    response = exchange.response
    assert (response.status, response.error) == (500, "the relay failed to handle the request: see its log")
    assert [event["log_failure"].value for event in log.events] == [failure]
    assert log.texts == ["the admin API failed"]


def test_other_methods_are_refused(thing: Thing, client: Client) -> None:
    """A method without a handler is answered 405; the text and ``Allow`` name those that have one."""
    response = client.change("PATCH", "/thing")
    assert (response.status, response.fields["Allow"]) == (405, "GET, POST, DELETE")
    assert response.error == "'PATCH' is not allowed here: use GET, POST or DELETE"
    assert client.change("BREW", "/thing").status == 405
    assert thing.bodies == []


@pytest.mark.parametrize(
    ("words", "text"),
    [(["a"], "a"), (["a", "b"], "a or b"), (["/jail", "/reload", "/whoami"], "/jail, /reload or /whoami")],
)
def test_alternatives(words: list[str], text: str) -> None:
    """Words are joined by commas, and the last one by "or"."""
    assert alternatives(words) == text


# Web pages


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("fields", [{}, {"X_Pyryrelay_Admin": "yes"}, {"Origin": "http://127.0.0.1:9090"}])
def test_changes_need_a_header_field(thing: Thing, client: Client, method: str, fields: dict[str, str]) -> None:
    """A request that changes something is answered 403 without ``X-Pyryrelay-Admin: 1``, whatever else it says."""
    response = client.request(method, "/thing", **fields)
    assert response.status == 403
    assert "X-Pyryrelay-Admin: 1" in response.error
    assert thing.bodies == []
    assert client.change(method, "/thing").status == 200


def test_the_header_field_must_be_sent_once(thing: Thing, client: Client) -> None:
    """A request that repeats the field is refused."""
    content = "POST /thing HTTP/1.1\r\nHost: localhost\r\n" + "X-Pyryrelay-Admin: 1\r\n" * 2 + "\r\n"
    assert client.send(content).response.status == 403


def test_cors_preflights_are_not_granted(thing: Thing, client: Client) -> None:
    """OPTIONS is refused without any CORS field, so that a browser never sends the request itself."""
    for origin, status in (("http://a.example", 403), ("http://127.0.0.1:9090", 405)):
        response = client.request("OPTIONS", "/thing", Origin=origin, Access_Control_Request_Method="POST")
        assert response.status == status
    assert thing.bodies == []


# Long bodies


def test_a_body_of_the_largest_length_is_read(thing: Thing, client: Client) -> None:
    """A body of `MAX_BODY_BYTES` reaches the handler as a whole."""
    assert client.change("POST", "/thing", "x" * MAX_BODY_BYTES).status == 200
    assert thing.bodies == [b"x" * MAX_BODY_BYTES]


def test_a_longer_body_is_refused(thing: Thing, client: Client) -> None:
    """A body over `MAX_BODY_BYTES` is answered 413, whether its length is known in advance or not."""
    response = client.change("POST", "/thing", "x" * (MAX_BODY_BYTES + 1))
    assert (response.status, response.error) == (413, "the body is longer than 4096 bytes: send one JSON object")
    head = "POST /thing HTTP/1.1\r\nHost: localhost\r\nX-Pyryrelay-Admin: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for chunks, status in ((4, 200), (5, 413)):
        assert client.send(head + "".join(chunked(*["x" * 1024] * chunks))).response.status == status
    assert list(map(len, thing.bodies)) == [4096]


def test_a_long_body_is_not_kept(thing: Thing, client: Client) -> None:
    """The part of a body beyond `MAX_BODY_BYTES` is discarded as it arrives, also where the body is not used."""
    content = f"GET /thing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n{'x' * 9000}"
    assert client.send(content).response.status == 200
    assert len(thing.bodies[0]) <= MAX_BODY_BYTES
