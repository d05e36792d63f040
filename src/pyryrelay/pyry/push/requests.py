"""Send one HTTP request to the push service or the token service, and read its answer.

An answer is read up to `MAX_BODY_BYTES`, redirects are not followed, cookies are not kept, and compressed answers are
refused: they were not asked for, and could grow. Connecting, sending and answering must take at most `ANSWER_S`
together, in seconds. Errors have a fixed word and no cause, because others may quote the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from pyryrelay.protocol import Cancellable
from pyryrelay.pyry.push.outcomes import Answer

__all__ = ["ANSWER_S", "LOST", "MAX_BODY_BYTES", "TIMEOUT", "RequestError", "Requests"]

MAX_BODY_BYTES: Final = 4096
ANSWER_S: Final = 10.0

LOST: Final = "connection_lost"
"""The connection ended before the answer was complete. Servers close idle connections, perhaps as one is used."""
TIMEOUT: Final = "timeout"
_WORDS: Final[tuple[tuple[str, type[Exception] | tuple[type[Exception], ...]], ...]] = (
    ("tls", (TlsError, VerificationError)),
    ("refused", error.ConnectionRefusedError),
    (TIMEOUT, error.TimeoutError),
    ("name_not_found", error.DNSLookupError),
    ("unreachable", error.ConnectError),
    (LOST, error.ConnectionClosed),
    ("malformed", ResponseFailed),
)
"""What failed, by the first class that fits the failure or one of its reasons."""


class RequestError(Exception):
    """There is no usable answer; `word` says why."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Requests:
    """An HTTP client for requests that must not be repeated in a log."""

    def __init__(self, agent: IAgent, call_later: Callable[[float, Callable[[], None]], Cancellable]) -> None:
        self._client = HTTPClient(_PlainAgent(agent), data_to_body_producer=_Body)
        self._call_later = call_later

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Deferred[Answer]:
        """Return the answer to a POST request. Fails with `RequestError`, or with `CancelledError` if cancelled."""
        # treq would use the reactor for a timeout that leaves the body out.
        answer: Deferred[Any] = self._client.request(
            "POST",
            url,
            headers=Headers({name: [value] for name, value in headers.items()}),
            data=body,
            allow_redirects=False,
            unbuffered=True,
            reactor=_no_reactor,
        )
        answer.addCallback(_read)
        has_expired: list[bool] = []

        def expire() -> None:
            has_expired.append(True)
            answer.cancel()

        timer = self._call_later(ANSWER_S, expire)

        # Failures are returned, as what is raised here would have the error that caused it as its context.
        def conclude(result: Answer | Failure) -> Answer | Failure:
            if has_expired:
                return Failure(RequestError(TIMEOUT))
            timer.cancel()
            if isinstance(result, Answer):
                return result
            if any(failure.check(CancelledError, error.ConnectingCancelledError) for failure in _reasons(result)):
                return Failure(CancelledError())
            return Failure(RequestError(_word(result)))

        return answer.addBoth(conclude)


_no_reactor: Any = object()


def _reasons(failure: Failure) -> Iterator[Failure]:
    """Yield a failure and those that led to it."""
    yield failure
    for reason in getattr(failure.value, "reasons", ()):
        yield from _reasons(reason)


def _word(failure: Failure) -> str:
    if isinstance(failure.value, RequestError):
        return failure.value.word
    reasons = list(_reasons(failure))
    for word, errors in _WORDS:
        if any(isinstance(reason.value, errors) for reason in reasons):
            return word
    return "failed"


def _read(response: IResponse) -> Deferred[Answer]:
    """Read the body of an answer, whatever its status."""
    retry_after = response.headers.getRawHeaders("retry-after", [""])[0]
    body: Deferred[bytes] = Deferred()
    is_long = isinstance(response.length, int) and response.length > MAX_BODY_BYTES
    response.deliverBody(_Reader(body, "too_large" if is_long else ""))
    return body.addCallback(lambda content: Answer(response.code, retry_after, content))


_DONE: Final = Failure(ResponseDone())


class _Reader(Protocol):
    """Collects a body; with ``refusal``, or if the body is too long, cuts the connection off instead."""

    transport: Any

    def __init__(self, done: Deferred[bytes], refusal: str = "") -> None:
        self._done: Deferred[bytes] | None = done
        self._refusal = refusal
        self._parts = bytearray()
        done._canceller = self._cancelled

    def connectionMade(self) -> None:
        """Stop at once if the body is not wanted."""
        if self._refusal:
            self._fail(self._refusal)

    def dataReceived(self, data: bytes) -> None:
        """Add a part of the body."""
        if self._done is None:
            return
        self._parts += data
        if len(self._parts) > MAX_BODY_BYTES:
            self._fail("too_large")

    def _fail(self, word: str) -> None:
        done, self._done = self._done, None
        self.transport.stopProducing()
        if done is not None:
            done.errback(RequestError(word))

    def _cancelled(self, done: Deferred[bytes]) -> None:
        self._done = None
        self.transport.stopProducing()

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """Return the body if it is complete; without a length, the end of the connection ends it."""
        done, self._done = self._done, None
        if done is None:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            done.callback(bytes(self._parts))
        else:
            done.errback(RequestError(LOST))


@implementer(IAgent)
class _PlainAgent:
    """Removes what treq adds to requests and answers: compression and cookies."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """See `IAgent.request`."""
        plain = Headers() if headers is None else headers.copy()
        plain.removeHeader("accept-encoding")
        answer: Deferred[IResponse] = self._agent.request(method, uri, plain, bodyProducer)
        return answer.addCallback(_plain)


def _plain(response: IResponse) -> IResponse:
    """Refuse a compressed answer, and drop cookies."""
    response.headers.removeHeader("set-cookie")
    if response.headers.hasHeader("content-encoding"):
        refused: Deferred[bytes] = Deferred()
        refused.addErrback(lambda _: None)
        response.deliverBody(_Reader(refused, "compressed"))
        raise RequestError("compressed")
    return response


@implementer(IBodyProducer)
class _Body:
    """The body of a request, which is written at once and not kept."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Write the whole body."""
        body, self._body = self._body, b""
        consumer.write(body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to write."""

    def resumeProducing(self) -> None:
        """Nothing is left to write."""

    def stopProducing(self) -> None:
        """Nothing is left to write."""
        self._body = b""
