"""Answers of the admin listener: JSON, and only to those who mean it.

Whoever can connect may ask, except the web pages that the operator's own browser happens to show:

* A request that changes something needs the field ``X-Pyryrelay-Admin: 1``. A page can add it only after a CORS
  preflight, which nothing here ever grants.
* ``Host`` must be an IP address, ``localhost`` or a name that was given, so that no page can come in by pointing a name
  of its own at this machine (DNS rebinding).

Bodies longer than `MAX_BODY_BYTES` are never kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from pyryrelay.guard.errors import GuardError

__all__ = ["GUARD_HEADER", "MAX_BODY_BYTES", "Answer", "ApiResource", "BoundedRequest", "Handler", "Rejected"]

_log = Logger(namespace="pyryrelay")

MAX_BODY_BYTES: Final = 4096
"""Longest request body on the admin listener."""

GUARD_HEADER: Final = "X-Pyryrelay-Admin"
"""What a request that changes something carries, with the value 1."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, and a body: text as it is, anything else as JSON."""

    status: int
    body: object
    fields: Mapping[str, str] = field(default_factory=dict)


class Rejected(Exception):
    """A request that is not followed, with what to do about it."""

    def __init__(self, status: int, problem: str, **fields: str) -> None:
        super().__init__(problem)
        self.answer = Answer(status, {"error": problem}, fields)


class BoundedRequest(Request):
    """A request whose body is dropped once it is longer than `MAX_BODY_BYTES`; `is_too_long` tells."""

    is_too_long = False

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        """Make room for the body; a longer one gets none."""
        self.is_too_long = (length or 0) > MAX_BODY_BYTES
        super().gotLength(0)  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """Keep what fits."""
        assert self.content is not None
        self.is_too_long = self.is_too_long or self.content.tell() + len(data) > MAX_BODY_BYTES
        if not self.is_too_long:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]


Handler = Callable[[Request], "Answer | Deferred[Answer]"]


class ApiResource(Resource):
    """One path: checks who asks, calls the handler of the method, and writes what it answers.

    A handler may raise `Rejected`; a `GuardError` is the asker's mistake and is told in full.
    """

    isLeaf = True

    def __init__(self, handlers: Mapping[str, Handler], names: Collection[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._handlers = handlers
        self._names = frozenset(name.lower() for name in names)

    def render(self, request: Request) -> int:
        """Answer, now or when the handler's Deferred fires."""
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        answered: Deferred[Answer] = succeed(request).addCallback(self._handle)
        answered.addErrback(_failed).addCallback(_write, request, gone)
        return NOT_DONE_YET

    def _handle(self, request: Request) -> Answer | Deferred[Answer]:
        _check_host(request, self._names)
        method = request.method.decode("ascii", "replace")
        handler = self._handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            allowed = ", ".join(self._handlers)
            raise Rejected(405, f"use one of {allowed} here", Allow=allowed)
        if method not in ("GET", "HEAD"):
            _check_intent(request)
        return handler(request)


def _check_host(request: Request, names: Collection[str]) -> None:
    """Only names that nobody else can point at this machine."""
    hosts = request.requestHeaders.getRawHeaders("host", [])
    try:
        name = urlsplit(f"//{hosts[0]}").hostname if len(hosts) == 1 else None
    except ValueError:
        name = None
    if name is None or not (name == "localhost" or name in names or _is_address(name)):
        raise Rejected(421, "the Host field names somebody else: use the relay's IP address, or localhost, in the URL")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _check_intent(request: Request) -> None:
    if request.requestHeaders.getRawHeaders(GUARD_HEADER) != ["1"]:
        raise Rejected(403, f"what changes something needs the header field {GUARD_HEADER}: 1")
    if getattr(request, "is_too_long", False):
        raise Rejected(413, f"the body is longer than {MAX_BODY_BYTES} bytes: send one JSON object")


def _failed(failure: Failure) -> Answer:
    error = failure.value
    if isinstance(error, Rejected):
        return error.answer
    if isinstance(error, GuardError):
        return Answer(400, {"error": str(error)})
    _log.failure("the admin API failed", failure)
    return Answer(500, {"error": "the relay could not do that: see its log"})


def _write(answer: Answer, request: Request, gone: Sequence[Failure]) -> None:
    """Send the answer, unless nobody waits for it any more."""
    if gone:
        return
    is_text = isinstance(answer.body, str)
    text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body) + "\n"
    body = text.encode()
    request.setResponseCode(answer.status, HTTPStatus(answer.status).phrase.encode("ascii"))
    fields = {
        "Content-Type": "text/plain; charset=utf-8" if is_text else "application/json; charset=utf-8",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **answer.fields,
    }
    for name, value in fields.items():
        request.setHeader(name, value)
    request.write(body)
    request.finish()
