"""Requests to the services, whatever they answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.push import ACCESS, PUSH_PORT, PUSH_URL, TOKEN, Line, PushServices, Received, answer_bytes
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.error import DNSLookupError, NoRouteError
from twisted.internet.error import TimeoutError as ConnectTimeoutError

from pyryrelay.pyry.push.outcomes import Answer
from pyryrelay.pyry.push.requests import ANSWER_S, MAX_BODY_BYTES, RequestError
from pyryrelay.runtime.outgoing.agent import IDLE_S

URL = f"{PUSH_URL}/v1/x"


class Request:
    """A request on its way, and the services."""

    def __init__(self) -> None:
        self.services = PushServices()
        self.results: list[Any] = []
        headers = {"Authorization": f"Bearer {ACCESS}", "Content-Type": "application/json"}
        self.answer: Deferred[Any] = self.services.requests.post(URL, headers, TOKEN.encode())
        self.answer.addCallbacks(self.results.append, lambda failure: self.results.append(failure.value))

    def arrived(self) -> tuple[Line, Received]:
        """Return the request at the service."""
        return self.services.next(PUSH_PORT)

    def word(self) -> str:
        """Return why there is no answer."""
        (error,) = self.results
        assert isinstance(error, RequestError), error
        assert error.__cause__ is None
        assert error.__context__ is None
        assert str(error) == error.word
        return error.word

    def assert_over(self) -> None:
        """Check that nothing of the request is left to be done."""
        self.services.clock.advance(0)
        calls = [call for call in self.services.clock.getDelayedCalls() if call.active()]
        # The one that ends idle connections may be left, whose time began with the answer.
        assert all(call.getTime() - self.services.clock.seconds() >= IDLE_S - ANSWER_S for call in calls)


@pytest.fixture
def request_() -> Request:
    """A request that has been sent."""
    return Request()


def test_what_is_sent(request_: Request) -> None:
    """The request has a length, and asks for neither compression nor cookies."""
    _, received = request_.arrived()
    assert received.target == "/v1/x"
    assert received.body == TOKEN.encode()
    assert received.fields == {
        "host": f"127.0.0.1:{PUSH_PORT}",
        "authorization": f"Bearer {ACCESS}",
        "content-type": "application/json",
        "content-length": str(len(TOKEN)),
    }


@pytest.mark.parametrize("status", [200, 302, 307, 404, 503])
def test_an_answer(request_: Request, status: int) -> None:
    """Every status is an answer, and redirects are not followed."""
    line, _ = request_.arrived()
    line.answer(status, b"{}", "Location: http://127.0.0.1:1/\r\nRetry-After: 7\r\n")
    assert request_.results == [Answer(status, "7", b"{}")]
    assert request_.services.is_quiet()
    request_.assert_over()


def test_a_connection_is_used_again(request_: Request) -> None:
    """The second request needs no new connection, and no cookie of the first is sent."""
    line, _ = request_.arrived()
    line.answer(fields="Set-Cookie: id=7; Path=/\r\n")
    services = request_.services
    services.requests.post(URL, {}, b"second")
    assert services.accept() == []
    again, received = services.next()
    assert again is line
    assert received.body == b"second"
    assert "cookie" not in received.fields


def test_an_answer_in_chunks_and_without_length(request_: Request) -> None:
    """Both ways of HTTP to end a body without a length are understood."""
    line, _ = request_.arrived()
    line.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
    other = Request()
    line, _ = other.arrived()
    line.feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}")
    line.lose()
    assert request_.results == other.results == [Answer(200, "", b"{}")]


@pytest.mark.parametrize("size", [MAX_BODY_BYTES, MAX_BODY_BYTES + 1])
@pytest.mark.parametrize("has_length", [True, False])
def test_bodies_are_bounded(request_: Request, size: int, has_length: bool) -> None:
    """A body may have 4 KiB; of a longer one the rest is not read, and one that is announced is not read at all."""
    line, _ = request_.arrived()
    head = f"Content-Length: {size}\r\n" if has_length else "Transfer-Encoding: chunked\r\n"
    body = b"x" * size if has_length else f"{size:x}\r\n".encode() + b"x" * size + b"\r\n0\r\n\r\n"
    line.feed(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
    line.feed(body)
    if size > MAX_BODY_BYTES:
        assert request_.word() == "too_large"
        assert line.was_aborted
    else:
        assert request_.results == [Answer(200, "", b"x" * size)]
    request_.assert_over()


def test_a_compressed_answer_is_refused(request_: Request) -> None:
    """It was not asked for, and a few bytes could become many."""
    line, _ = request_.arrived()
    line.feed(answer_bytes(fields="Content-Encoding: gzip\r\n", body=b"x" * 100))
    assert request_.word() == "compressed"
    request_.assert_over()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
def test_half_an_answer(request_: Request, sent: bytes) -> None:
    """An answer that ends early is none."""
    line, _ = request_.arrived()
    line.feed(sent)
    line.lose()
    assert request_.word() == "connection_lost"
    request_.assert_over()


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"HTTP/1.1 100 C\r\n\r\n"]
)
def test_a_slow_answer(request_: Request, sent: bytes) -> None:
    """The time for an answer includes its body, and the connection is cut off."""
    line, _ = request_.arrived()
    line.feed(sent)
    request_.services.clock.advance(ANSWER_S - 0.1)
    assert request_.results == []
    request_.services.clock.advance(0.1)
    assert request_.word() == "timeout"
    assert line.was_aborted
    request_.assert_over()


def test_drops_of_an_answer(request_: Request) -> None:
    """A byte now and then does not extend the time."""
    line, _ = request_.arrived()
    line.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
    for _ in range(11):
        line.feed(b"x")
        request_.services.clock.advance(1)
    assert request_.word() == "timeout"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (RefusedError(), "refused"),
        (ConnectTimeoutError(), "timeout"),
        (DNSLookupError(), "name_not_found"),
        (NoRouteError(), "unreachable"),
        (ValueError(TOKEN), "failed"),
    ],
)
def test_no_connection(request_: Request, error: Exception, word: str) -> None:
    """Each way not to reach a service has a word."""
    request_.services.refuse(error)
    request_.services.clock.advance(1)
    assert request_.word() == word
    request_.assert_over()


def test_no_answer_to_a_connection(request_: Request) -> None:
    """Where nobody accepts, the time is over too."""
    request_.services.clock.advance(ANSWER_S)
    assert request_.word() == "timeout"
    request_.assert_over()


@pytest.mark.parametrize("sent", [None, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
def test_cancelling(request_: Request, sent: bytes | None) -> None:
    """A request can be cancelled while it connects, waits and reads."""
    if sent is not None:
        line, _ = request_.arrived()
        line.feed(sent)
    request_.answer.cancel()
    (error,) = request_.results
    assert isinstance(error, CancelledError)
    request_.assert_over()


def test_a_tls_server_that_speaks_plain_text() -> None:
    """What fails in TLS has a word of its own."""
    services, results = PushServices(), list[Any]()
    answer = services.requests.post(f"https://127.0.0.1:{PUSH_PORT}/x", {}, b"")
    answer.addCallbacks(results.append, lambda failure: results.append(failure.value.word))
    (line,) = services.accept()
    line.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    services.clock.advance(0)
    assert results == ["tls"]


heads = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 999999999999 OK\r\n",
        b"HTTP/9 x\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Retry-After: \xff\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"{}",
        b"ffffffff\r\n",
        b"0\r\n\r\n",
        b" folded\r\n",
    ]
)


@given(st.lists(heads | st.binary(max_size=20), max_size=10), st.booleans())
def test_any_answer_ends(parts: list[bytes], is_lost: bool) -> None:
    """Whatever arrives in whatever pieces: there is one answer or one word, no exception, and nothing is left."""
    request = Request()
    line, _ = request.arrived()
    for part in parts:
        line.feed(part)
    if is_lost:
        line.lose()
    request.services.clock.advance(ANSWER_S)
    (result,) = request.results
    if not isinstance(result, Answer):
        assert TOKEN not in request.word()
    request.assert_over()
