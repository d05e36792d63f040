"""JSON responses of the admin listener, to requests that `pyryrelay.admin.access` has let through.

A request that changes something needs the header field ``X-Pyryrelay-Admin: 1``. A web page of another site can add it
only after a CORS preflight, which is never granted here.

Request bodies longer than `MAX_BODY_BYTES` are discarded as they arrive, and with the header field of a change those
longer than `MAX_ACTION_BYTES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from pyryrelay.guard.errors import GuardError
from pyryrelay.protocol import ActionError
from pyryrelay.text import quoted

__all__ = [
    "CSRF_HEADER",
    "MAX_ACTION_BYTES",
    "MAX_BODY_BYTES",
    "ApiError",
    "ApiResource",
    "ApiResponse",
    "BoundedRequest",
    "Folder",
    "Handler",
    "RefusalResource",
    "SeeOther",
    "alternatives",
    "body_of",
    "subpath_of",
]

_log = Logger(namespace="pyryrelay")

MAX_BODY_BYTES: Final = 4096
"""Longest request body on the admin listener, except for those of protocols' actions."""

MAX_ACTION_BYTES: Final = 8 * 1024 * 1024
"""Longest request body of a protocol's action."""

CSRF_HEADER: Final = "X-Pyryrelay-Admin"
"""The header field, with the value 1, of requests that change something."""


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A status, a body, and header fields beyond the usual ones.

    A string is sent as plain text, bytes are JSON already, and other bodies are sent as JSON.
    """

    status: int
    body: object
    fields: Mapping[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """A request that is refused, with one line that tells the client what to do about it."""

    def __init__(self, status: int, problem: str, **fields: str) -> None:
        super().__init__(problem)
        self.response = ApiResponse(status, {"error": problem}, fields)


class BoundedRequest(Request):
    """A request that discards a body that no path accepts, and then sets ``is_too_long``.

    Long bodies are read only from those whom the site `knows`: strangers could fill the memory with them.
    """

    is_too_long = False
    _max_bytes = MAX_BODY_BYTES

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        """Prepare for a body of this length; None if the length is unknown. The header fields are known by now."""
        site: Any = self.channel.site  # type: ignore[attr-defined]
        if _has_csrf_header(self) and site.knows(self):
            self._max_bytes = MAX_ACTION_BYTES
        self.is_too_long = (length or 0) > self._max_bytes
        super().gotLength(0)  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """Keep a part of the body, unless the body has become too long."""
        assert self.content is not None
        self.is_too_long = self.is_too_long or self.content.tell() + len(data) > self._max_bytes
        if not self.is_too_long:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]


Handler: TypeAlias = Callable[[Request], "ApiResponse | Deferred[ApiResponse]"]


class ApiResource(Resource):
    """One path of the API: it checks a request, calls the handler of its method, and sends the response.

    A handler may raise `ApiError`. A `GuardError` or `ActionError` is the client's mistake, and its text is sent.
    ``max_bytes`` is the longest body.
    """

    isLeaf = True

    def __init__(self, handlers: Mapping[str, Handler], max_bytes: int = MAX_BODY_BYTES) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._handlers = handlers
        self._max_bytes = max_bytes

    def render(self, request: Request) -> int:
        """Send the response now, or when the handler's Deferred fires."""
        disconnects: list[Failure] = []
        request.notifyFinish().addErrback(disconnects.append)
        response: Deferred[ApiResponse] = succeed(request).addCallback(self._handle)
        response.addErrback(_error_response).addCallback(_send, request, disconnects)
        return NOT_DONE_YET

    def _handle(self, request: Request) -> ApiResponse | Deferred[ApiResponse]:
        method = request.method.decode("ascii", "replace")
        handler = self._handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            problem = f"{quoted(method)} is not allowed here: use {alternatives(self._handlers)}"
            raise ApiError(405, problem, Allow=", ".join(self._handlers))
        if method not in ("GET", "HEAD"):
            _check_csrf_header(request)
            _check_length(request, self._max_bytes)
        return handler(request)


def alternatives(words: Iterable[str]) -> str:
    """Join words as in ``/jail, /reload or /whoami``."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _has_csrf_header(request: Request) -> bool:
    return request.requestHeaders.getRawHeaders(CSRF_HEADER) == ["1"]


def _check_csrf_header(request: Request) -> None:
    if not _has_csrf_header(request):
        raise ApiError(403, f"requests that change something need a header field: send {CSRF_HEADER}: 1")


def _check_length(request: Request, max_bytes: int) -> None:
    if getattr(request, "is_too_long", False) or len(body_of(request)) > max_bytes:
        raise ApiError(413, f"the body is longer than {max_bytes} bytes: send one JSON object")


def body_of(request: Request) -> bytes:
    """Return the body of a request."""
    assert request.content is not None
    request.content.seek(0)
    body: bytes = request.content.read()
    return body


def subpath_of(request: Request) -> str:
    """Return the part of the path below the resource."""
    return b"/".join(request.postpath or []).decode("utf-8", "replace")


def _error_response(failure: Failure) -> ApiResponse:
    error = failure.value
    if isinstance(error, ApiError):
        return error.response
    if isinstance(error, GuardError | ActionError):
        return ApiResponse(400, {"error": str(error)})
    _log.failure("the admin API failed", failure)
    return ApiResponse(500, {"error": "the relay failed to handle the request: see its log"})


class RefusalResource(Resource):
    """Answers a request that was refused."""

    isLeaf = True

    def __init__(self, response: ApiResponse) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._response = response

    def render(self, request: Request) -> int:
        """Send the refusal, whatever the method."""
        _send(self._response, request, ())
        return NOT_DONE_YET


class Folder(Resource):
    """A path with others below it."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return the answer where there is nothing."""
        return RefusalResource(ApiError(404, "there is nothing at this path: GET /paths lists what there is").response)

    def render(self, request: Request) -> int:
        """There is nothing at the path itself."""
        return RefusalResource(ApiError(404, "there is nothing at this path").response).render(request)


class SeeOther(Resource):
    """Leads a browser to another page (RFC 9110 section 15.4.4)."""

    isLeaf = True

    def __init__(self, path: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._path = path

    def render(self, request: Request) -> bytes:
        """Send the answer, whatever the method."""
        request.setResponseCode(303)
        request.setHeader("Location", self._path)
        request.setHeader("Cache-Control", "no-store")
        return b""


def _send(response: ApiResponse, request: Request, disconnects: Sequence[Failure]) -> None:
    """Send a response, unless the client has disconnected."""
    if disconnects:
        return
    is_text = isinstance(response.body, str)
    if isinstance(response.body, bytes):
        body = response.body
    else:
        text = response.body if isinstance(response.body, str) else json.dumps(response.body) + "\n"
        body = text.encode()
    request.setResponseCode(response.status, HTTPStatus(response.status).phrase.encode("ascii"))
    fields = {
        "Content-Type": "text/plain; charset=utf-8" if is_text else "application/json; charset=utf-8",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **response.fields,
    }
    for name, value in fields.items():
        request.setHeader(name, value)
    request.write(body)
    request.finish()
