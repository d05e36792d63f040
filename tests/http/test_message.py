"""The head parser against RFC 9112, and the answers that end a connection."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.harness import KEY, request_head

from pyryrelay.http.message import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LIST_BYTES,
    Head,
    HeadError,
    asks_for_websocket,
    has_body,
    may_begin,
    parse_head,
    response,
    websocket_key,
)


def status_of(data: bytes) -> int:
    """Return the status that a malformed head is refused with."""
    with pytest.raises(HeadError) as error:
        parse_head(data)
    return error.value.status


def head_with(*lines: str) -> Head:
    """Return a head that must be accepted."""
    return parse_head("\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, "", ""]).encode("latin-1"))


def test_a_head_is_taken_apart() -> None:
    """A head has method, path, version and fields, with names in lower case and values in order."""
    head = parse_head(b"GET /v1/server?x=1 HTTP/1.1\r\nHOST: a\r\nX-A: one\r\nx-a:\ttwo \r\nEmpty:\r\n\r\n")
    assert (head.method, head.path, head.version) == ("GET", "/v1/server", (1, 1))
    assert head.fields == {"host": ["a"], "x-a": ["one", "two"], "empty": [""]}


def test_one_empty_line_before_the_request_is_skipped() -> None:
    """RFC 9112 section 2.2: a server ignores at least one empty line received before the request line."""
    assert parse_head(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").path == "/"
    assert status_of(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n") == 400


@pytest.mark.parametrize(
    "line",
    [
        "",
        "GET",
        "GET /",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /a b HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.",
        "GET / HTTP/11.1",
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\r",
        "GET /\x00 HTTP/1.1",
        "GET /\xe4 HTTP/1.1",
        "GET /#fragment HTTP/1.1",
    ],
)
def test_request_lines_that_are_malformed(line: str) -> None:
    """RFC 9112 section 3: anything but `method SP target SP version` is 400."""
    assert status_of(f"{line}\r\nHost: a\r\n\r\n".encode("latin-1")) == 400


@pytest.mark.parametrize("version", ["0.9", "2.0", "3.0", "9.9"])
def test_other_major_versions(version: str) -> None:
    """Another major version of HTTP is 505."""
    assert status_of(f"GET / HTTP/{version}\r\nHost: a\r\n\r\n".encode()) == 505


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/v1/server", "/v1/server"),
        ("/v1/server?", "/v1/server"),
        ("/v1/server?a=/b?c", "/v1/server"),
        ("http://relay.example/v1/server?x", "/v1/server"),
        ("HTTPS://relay.example:8080/v1/server", "/v1/server"),
        ("http://relay.example", "/"),
        ("*", "*"),
        ("//v1/server", "//v1/server"),
        ("/v1/ser%76er", "/v1/ser%76er"),
    ],
)
def test_targets(target: str, path: str) -> None:
    """RFC 9112 section 3.2: origin, absolute and asterisk form are accepted; the query is no part of the path."""
    assert parse_head(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).path == path


@pytest.mark.parametrize(
    ("target", "hosts"),
    [
        ("/", ["a"]),
        ("*", ["a"]),
        ("http://Relay.example:80/x", ["a", "Relay.example:80"]),
        ("HTTPS://u@b?http://c", ["a", "u@b"]),
        ("http:///x", ["a", ""]),
        ("/http://b/", ["a"]),
    ],
)
def test_all_hosts_that_a_request_names(target: str, hosts: list[str]) -> None:
    """RFC 9112 section 3.2.2: the host of a target in absolute form counts, and some servers go by that of Host."""
    assert list(parse_head(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).hosts) == hosts


def test_an_absolute_target_with_a_query_alone_asks_for_the_root() -> None:
    """RFC 9112 section 3.2.1: an empty path in an absolute target means `/`."""
    assert parse_head(b"GET http://relay.example?x HTTP/1.1\r\nHost: a\r\n\r\n").path == "/"


@pytest.mark.parametrize(
    "line",
    [
        "X A: b",
        "X-A : b",
        " X-A: b",
        "\tfolded",
        "X-A",
        ": b",
        "X-A: b\x00",
        "X-A: b\x7f",
        "X-A: b\rX-B: c",
        "X-A: b\nX-B: c",
        "X-A: b\x0bc",
        "X-\xc4: b",
        "X-A: b\r\n c",
        "(X): b",
    ],
)
def test_fields_that_are_malformed(line: str) -> None:
    """RFC 9112 section 5: folding, space before the colon, bare CR or LF and control characters are 400."""
    assert status_of(f"GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n".encode("latin-1")) == 400


def test_values_may_hold_what_iso_8859_1_can() -> None:
    """RFC 9110 section 5.5: spaces and tabs inside, and octets from 0x80, are part of a value."""
    assert head_with("X-A:  b \t c\x80\xff \t").fields["x-a"] == ["b \t c\x80\xff"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", 400),
    ],
)
def test_host_is_sent_once(data: bytes, status: int) -> None:
    """RFC 9112 section 3.2: a missing Host (1.1) or more than one is 400."""
    assert status_of(data) == status


def test_http_1_0_needs_no_host() -> None:
    """A request of HTTP/1.0 may have no Host."""
    assert parse_head(b"GET /healthz HTTP/1.0\r\n\r\n").version == (1, 0)


def test_fields_are_limited_in_number() -> None:
    """One field more than the limit is 431."""
    fill = ["X: y"] * (MAX_FIELDS - 1)
    assert len(head_with(*fill).fields["x"]) == MAX_FIELDS - 1
    assert status_of("\r\n".join(["GET / HTTP/1.1", "Host: a", *fill, "X: y", "", ""]).encode()) == 431


def test_members_are_read_over_all_lines() -> None:
    """RFC 9110 section 5.6.1: a list is its lines joined by commas, without empty members."""
    head = head_with("Connection: Keep-Alive,, Upgrade ,", "connection:\tX", "Connection:")
    assert head.members("connection") == ["keep-alive", "upgrade", "x"]
    assert head.members("upgrade") == []


def test_members_of_an_endless_list() -> None:
    """A list that is longer than any real one has no members."""
    assert head_with(f"Connection: {'a,' * 500}Upgrade").members("connection")[-1] == "upgrade"
    assert head_with(f"Connection: Upgrade{',' * MAX_LIST_BYTES}").members("connection") == []


@pytest.mark.parametrize(
    ("lines", "there"),
    [
        ([], False),
        (["Content-Length: 0"], False),
        (["Content-Length: 000"], False),
        (["Content-Length: 1"], True),
        (["Content-Length: 0", "Content-Length: 10"], True),
        (["Content-Length:"], True),
        (["Content-Length: -0"], True),
        (["Content-Length: x"], True),
        (["Transfer-Encoding: chunked"], True),
        (["Transfer-Encoding: identity", "Content-Length: 0"], True),
    ],
)
def test_bodies(lines: list[str], there: bool) -> None:
    """RFC 9112 section 6.3: a length other than zero and any transfer coding announce a body."""
    assert has_body(head_with(*lines)) is there


@pytest.mark.parametrize(
    ("data", "may"),
    [
        (b"", True),
        (b"\r", True),
        (b"\r\n", True),
        (b"\r\nG", True),
        (b"G", True),
        (b"SSH-2.0-Probe\r\n", True),
        (b"\r\r", False),
        (b"\n", False),
        (b"\r\n\r", True),
        (b"\r\n\r\n", False),
        (b" GET", False),
        (b"\x16\x03\x01", False),
        (b"\0", False),
        (b"\xff", False),
    ],
)
def test_beginnings(data: bytes, may: bool) -> None:
    """Bytes that no method can begin with are no head."""
    assert may_begin(data) is may
    if not may:
        assert status_of(data + b" / HTTP/1.1\r\nHost: a\r\n\r\n") == 400


def test_single_values() -> None:
    """A field that is missing or repeated has no single value."""
    head = head_with("A: 1", "B: 1", "B: 1")
    assert (head.single("a"), head.single("b"), head.single("c")) == ("1", None, None)


@pytest.mark.parametrize(
    ("data", "asks"),
    [
        (request_head(), True),
        (request_head("/", "Upgrade: WebSocket", without=["Upgrade"]), True),
        (request_head("/", "Upgrade: h2c, websocket", without=["Upgrade"]), True),
        (request_head("/", "Upgrade: websockets", without=["Upgrade"]), False),
        (request_head("/", without=["Upgrade"]), False),
        (request_head("/", without=["Connection"]), False),
        (request_head("/", "Connection: close", without=["Connection"]), False),
        (request_head("/", without=["Sec-WebSocket-Version"]), False),
        (request_head("/", "Sec-WebSocket-Version: 8", without=["Sec-WebSocket-Version"]), False),
        (request_head("/", "Sec-WebSocket-Version: 13"), False),
        (request_head().replace(b"HTTP/1.1", b"HTTP/1.0"), False),
    ],
)
def test_who_asks_for_websocket(data: bytes, asks: bool) -> None:
    """RFC 6455 section 4.2.1: a handshake has upgrade, connection and version 13, over HTTP/1.1."""
    assert asks_for_websocket(parse_head(data)) is asks


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ([f"Sec-WebSocket-Key: {KEY}"], KEY),
        ([], None),
        ([f"Sec-WebSocket-Key: {KEY}", f"Sec-WebSocket-Key: {KEY}"], None),
        (["Sec-WebSocket-Key:"], None),
        (["Sec-WebSocket-Key: c2hvcnQ="], None),
        ([f"Sec-WebSocket-Key: {base64.b64encode(bytes(17)).decode()}"], None),
        ([f"Sec-WebSocket-Key: {KEY}=="], None),
        (["Sec-WebSocket-Key: dGhlIHNh bXBsZSBub25jZQ=="], None),
        (["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ\xe4=="], None),
        (["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ__"], None),
    ],
)
def test_keys(lines: list[str], key: str | None) -> None:
    """RFC 6455 section 4.2.1: there is exactly one key, base64 of 16 bytes."""
    assert websocket_key(head_with(*lines)) == key


@given(data=st.binary(max_size=400))
def test_garbage_is_a_head_error_or_a_head(data: bytes) -> None:
    """No bytes raise anything but `HeadError`, with a status that has a phrase."""
    try:
        head = parse_head(data)
    except HeadError as error:
        response(error.status)
    else:
        assert_harmless(head)


_PIECES = st.sampled_from(
    ["GET", " ", "/", "HTTP/1.1", "\r\n", "\r", "\n", "Host", ":", "a", ",", "\t", "\x00", "\xff", "#", "?", "http://"]
)


@given(text=st.lists(_PIECES, max_size=40).map("".join))
@example(text="GET / HTTP/1.1\r\nHost:\xffa\r\n")
def test_almost_heads_are_a_head_error_or_a_head(text: str) -> None:
    """Heads made of a request's own pieces, in any order, raise nothing but `HeadError`."""
    try:
        head = parse_head(text.encode("latin-1") + b"\r\n\r\n")
    except HeadError:
        return
    assert_harmless(head)


def assert_harmless(head: Head) -> None:
    """Check that an accepted head holds no character that a second parser could read differently."""
    for text in [head.method, head.path, *head.fields, *(value for values in head.fields.values() for value in values)]:
        assert not any(ord(char) < 32 and char != "\t" for char in text)
    asks_for_websocket(head)
    websocket_key(head)


@pytest.mark.parametrize(
    "body",
    [
        b" " * MAX_HEAD_BYTES + b"\x01",
        b":" * MAX_HEAD_BYTES + b"\x01",
        b"," * MAX_HEAD_BYTES + b"\x01",
        b"X: " + b"\t " * (MAX_HEAD_BYTES // 2) + b"\x01",
        b"a" * MAX_HEAD_BYTES,
        b"X" + b" " * MAX_HEAD_BYTES + b":",
    ],
)
def test_a_full_head_of_one_character_is_refused(body: bytes) -> None:
    """16 KiB of one character are refused in linear time."""
    for data in (b"GET / HTTP/1.1\r\nHost: a\r\n" + body + b"\r\n\r\n", body + b"\r\n\r\n"):
        for _ in range(20):
            assert status_of(data) == 400


def test_a_full_list_is_read() -> None:
    """16 KiB of commas are a list without members."""
    assert head_with("Upgrade: " + "," * MAX_HEAD_BYTES).members("upgrade") == []


def test_a_refusal_is_framed_completely() -> None:
    """RFC 9112 section 9.6: a refusal has status line, length and `Connection: close`, and nothing else by itself.

    RFC 9110 section 7.8: a field ``Upgrade`` is named in ``Connection``.
    """
    assert response(429, [("Retry-After", "6")]) == (
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 6\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert response(426, [("Upgrade", "websocket")]) == (
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n"
        b"Connection: Upgrade, close\r\n\r\n"
    )


def test_an_answer_to_head_has_the_length_and_no_body() -> None:
    """RFC 9110 section 9.3.2: HEAD is answered as GET would be, without the content."""
    whole = response(200, [], b"ok")
    assert whole.endswith(b"Content-Length: 2\r\nConnection: close\r\n\r\nok")
    assert response(200, [], b"ok", head_only=True) == whole[:-2]


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_content_has_no_length(status: int) -> None:
    """RFC 9110 section 8.6: 204 must not have ``Content-Length``, and for 304 it would be that of a page."""
    assert response(status, [("A", "b")]).partition(b"\r\n")[2] == b"A: b\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("status", [400, 431, 505])
def test_a_head_error_says_only_its_status(status: int) -> None:
    """The error's text is the phrase of its status and nothing that a client sent."""
    assert str(HeadError(status)) in response(status).decode()
