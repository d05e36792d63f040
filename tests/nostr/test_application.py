"""The relay on its path."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.nostr_relay import CLIENT, FakePeer, World

from pyryrelay.nostr.application import NostrApplication, media_types
from pyryrelay.protocol import HttpRefusal, HttpRequest, Page, Request

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
}


def application(**options: Any) -> NostrApplication:
    """Return an application with a document and a page."""
    return NostrApplication(World(**options).relay, lambda: b"document", lambda: b"page")


def asked(method: str, **headers: str) -> HttpRequest:
    """Return a plain request."""
    fields = {name.replace("_", "-"): [value] for name, value in headers.items()}
    return HttpRequest(method, "/", fields, CLIENT)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "accept", ["application/nostr+json", "text/html, Application/Nostr+JSON;q=0.5", "*/*,application/nostr+json "]
)
def test_the_document_is_asked_for_by_accept(method: str, accept: str) -> None:
    """Anywhere in the list, in any case, with parameters."""
    answer = application().http(asked(method, accept=accept))
    assert isinstance(answer, Page)
    assert (answer.status, answer.body) == (200, b"document")
    assert dict(answer.fields) == CORS | {"Content-Type": "application/nostr+json"}


@pytest.mark.parametrize("accept", ["", "text/html", "application/nostr+json+rpc", "xapplication/nostr+json"])
def test_anybody_else_gets_the_page(accept: str) -> None:
    """It may load nothing from anywhere."""
    answer = application().http(asked("GET", accept=accept))
    assert isinstance(answer, Page)
    assert answer.body == b"page"
    assert dict(answer.fields)["Content-Security-Policy"] == "default-src 'none'"
    assert dict(answer.fields)["Content-Type"].startswith("text/html")
    assert CORS.items() <= dict(answer.fields).items()


def test_options_are_answered_for_browsers() -> None:
    """204 with the fields of CORS."""
    assert application().http(asked("OPTIONS")) == Page(204, tuple(CORS.items()))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asked("POST", content_type="application/nostr+json+rpc"), 404),
        (asked("POST", content_type="application/json"), 415),
        (asked("POST"), 415),
        (asked("PUT"), 405),
        (asked("get"), 405),
    ],
)
def test_other_requests_are_refused(request_: HttpRequest, status: int) -> None:
    """Without admins there is no management; 405 says what there is."""
    answer = application().http(request_)
    assert isinstance(answer, HttpRefusal)
    assert answer.status == status
    assert CORS.items() <= dict(answer.fields).items()
    assert ("Allow" in dict(answer.fields)) is (status == 405)


def test_any_origin_is_welcome() -> None:
    """Nothing of an upgrade is looked at."""
    request = Request("/", {"origin": ["https://evil.example"]}, CLIENT)
    assert application().gate_headers(request) is None


@pytest.mark.parametrize(
    ("options", "is_challenged"),
    [
        ({}, False),
        ({"nostr_auth_challenge": "connect"}, True),
        ({"nostr_read": "auth", "nostr_write": "auth"}, True),
        ({"nostr_read": "auth"}, False),
        ({"nostr_auth_challenge": "connect", "nostr_url": ""}, False),
    ],
)
def test_the_challenge_is_sent_on_connect_where_it_is_needed(options: dict[str, Any], is_challenged: bool) -> None:
    """Where everybody must authenticate, or by option; never where nobody can."""
    peer = FakePeer()
    application(**options).opened(peer, Request("/", {}, CLIENT))
    assert [message[0] for message in peer.take()] == (["AUTH"] if is_challenged else [])


def test_media_types_have_no_parameters() -> None:
    """Lists over several fields are one list."""
    assert media_types(["a/b;q=1, C/D", "e/f"]) == ["a/b", "c/d", "e/f"]


def test_any_process_serves_a_connection() -> None:
    """Connections of one client need not meet."""
    assert application().place_key(Request("/", {}, CLIENT)) is None
