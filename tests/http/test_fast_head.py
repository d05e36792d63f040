"""What the fast scan recognizes is a strict subset of what the parser accepts, with the same outcome."""

from __future__ import annotations

import pytest
from hypothesis import given
from tests.support.harness import request_head
from tests.support.heads import HEADS

from pyryrelay.http import message
from pyryrelay.http.fast_head import FastHeadParser, field_values

NAMES = {"/v1/server": "server", "/v1/client": "client", "/a.c": "dotted"}
MARKED = ("x-forwarded-for", "x-real-ip")
parse_fast = FastHeadParser(NAMES, MARKED)


@pytest.mark.parametrize("path", NAMES)
@pytest.mark.parametrize("query", ["", "?", "?a=b&c=%20/?"])
def test_a_plain_head(path: str, query: str) -> None:
    """The scan gives the application's name, marked fields and the head's end, whatever follows."""
    head = request_head(path + query)
    assert parse_fast(head) == parse_fast(head + b"\x81\x00 more\r\n\r\n") == (NAMES[path], False, True, len(head))


@pytest.mark.parametrize("line", ["X-Forwarded-For: 192.0.2.1", "x-real-ip:", "X-REAL-IP:\t1"])
def test_a_marked_field(line: str) -> None:
    """A marked field is found by its name in any case, and only as a name."""
    assert parse_fast(request_head("/v1/server", line)) == ("server", True, True, len(request_head("/v1/server", line)))
    others = request_head("/v1/server", f"X-{line}", f"X-A: {line}")
    assert parse_fast(others) == ("server", False, True, len(others))


@pytest.mark.parametrize("line", ["Upgrade: websocket", "UPGRADE:", "upgrade: h2c"])
def test_who_asks_for_an_upgrade(line: str) -> None:
    """A field ``Upgrade`` asks for an upgrade, once or repeated; one whose name only begins like it does not."""
    plain = request_head("/v1/server", "Upgrade-Insecure-Requests: 1", "X-Real-IP: 1", without=["Upgrade"])
    assert parse_fast(plain) == ("server", True, False, len(plain))
    for lines in ([line], [line, line]):
        head = request_head("/v1/server", *lines, without=["Upgrade"])
        assert parse_fast(head) == ("server", False, True, len(head))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request_head()[:-1],
        b"\r\n" + request_head(),
        request_head("/v1/serve"),
        request_head("/v1/server/"),
        request_head("/abc"),
        request_head("/v1/server#a"),
        request_head("/v1/server?a#b"),
        request_head("http://relay.example/v1/server"),
        request_head(method="POST"),
        request_head(method="get"),
        request_head().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request_head().replace(b"HTTP/1.1", b"HTTP/1.1 "),
        request_head(without=["Host"]),
        request_head("/v1/server", "host: again"),
        request_head("/v1/server", "X-A : b"),
        request_head("/v1/server", " folded"),
        request_head("/v1/server", ": nameless"),
        request_head("/v1/server", "X-A: a\nb"),
        request_head("/v1/server", "X-A: a\rb"),
        request_head("/v1/server", "X-A: a\0b"),
        request_head("/v1/server", "X-A: \x7f"),
        request_head("/v1/server", "X-\xe9: a"),
        request_head("/v1/server", *["X-A: b"] * (message.MAX_FIELDS - 4)),
        b"GET /v1/server HTTP/1.1\r\n\r\n",
    ],
)
def test_anything_else(data: bytes) -> None:
    """Heads that are incomplete, malformed or of another form are not recognized."""
    assert parse_fast(data) is None


@pytest.mark.parametrize("line", ["Content-Length: 0", "content-length: 5", "Transfer-Encoding: chunked"])
def test_a_body_is_not_plain(line: str) -> None:
    """A head that announces a body is left to a connection that ends in order behind it."""
    assert parse_fast(request_head("/v1/server", line)) is None
    assert parse_fast(request_head("/v1/server", line, without=("Upgrade",))) is None


def test_as_many_fields_as_the_parser_takes() -> None:
    """The limit on fields is the parser's."""
    assert parse_fast(request_head("/v1/server", *["X-A: b"] * (message.MAX_FIELDS - 5))) is not None


def test_the_values_of_a_field() -> None:
    """The values of a field are all of its lines in order, without blanks around them."""
    head = request_head("/v1/server", "X-Forwarded-For: a, b \t", "x-forwarded-for:", "X-FORWARDED-FOR:\t\xe9")
    assert field_values(head + head, len(head), "x-forwarded-for") == ["a, b", "", "\xe9"]
    assert field_values(head, len(head), "forwarded") == []


@given(HEADS)
def test_the_parser_agrees(data: bytes) -> None:
    """The parser reads each recognized head with the same path, marked fields and values."""
    seen = parse_fast(data)
    if seen is None:
        return
    name, is_marked, asks, end = seen
    assert data.find(message.HEAD_END) + len(message.HEAD_END) == end
    head = message.parse_head(data[:end])
    assert (head.method, head.version, NAMES[head.path]) == ("GET", (1, 1), name)
    assert is_marked is not head.fields.keys().isdisjoint(MARKED)
    assert asks is ("upgrade" in head.fields)
    for field in MARKED:
        assert field_values(data, end, field) == list(head.fields.get(field, ()))
