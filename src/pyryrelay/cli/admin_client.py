"""Asking a relay's admin API, for the command line: docs/reference/admin-api.md. Standard library only.

The admin listener is at a URL, or at ``unix:PATH``.

No proxies, no redirects, bounded answers. Whatever goes wrong is a `CommandError`, one line that says what to do. Times
are seconds, sizes bytes.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from email.message import Message
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import BaseHandler, HTTPHandler, HTTPRedirectHandler, ProxyHandler, Request, build_opener

__all__ = ["MAX_ANSWER_BYTES", "TIMEOUT_S", "UNIX", "AdminClient", "Answer", "CommandError"]

UNIX: Final = "unix:"

TIMEOUT_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


class CommandError(Exception):
    """What could not be done; `str()` is one line with the fix."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the relay said: the status, decoded JSON, and how many there are where the body is a part."""

    status: int
    body: Any
    total: int | None


class _NoRedirects(HTTPRedirectHandler):
    """An admin listener sends nobody elsewhere."""

    def redirect_request(self, *_args: object, **_options: object) -> None:
        return None


class _UnixConnection(HTTPConnection):
    """HTTP over a UNIX-domain socket."""

    def __init__(self, path: str, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of to the host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _UnixHandler(HTTPHandler):
    """Opens every URL over one UNIX-domain socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def http_open(self, req: Request) -> HTTPResponse:
        """Called for each request."""
        return self.do_open(partial(_UnixConnection, self._path), req)


class AdminClient:
    """A relay's admin API at a URL, or at ``unix:PATH``."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        handlers: list[BaseHandler] = [ProxyHandler({}), _NoRedirects()]
        self._base = self._url
        if url.startswith(UNIX):
            handlers.append(_UnixHandler(url.removeprefix(UNIX)))
            self._base = "http://localhost"
        self._opener = build_opener(*handlers)

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Send one request. Raises `CommandError` unless a relay answered that it was done."""
        headers = {"Accept": "application/json", "X-Pyryrelay-Admin": "1"}
        data = None if body is None else json.dumps(body).encode("ascii")
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = Request(self._base + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                return self._answer(response.status, response.read(MAX_ANSWER_BYTES), response.headers)
        except HTTPError as error:
            with error:
                return self._answer(error.code, error.read(MAX_ANSWER_BYTES), error.headers)
        except URLError as error:
            raise self._unreachable(error.reason) from None
        except (OSError, HTTPException, UnicodeError) as error:
            raise self._unreachable(error) from None

    def _answer(self, status: int, content: bytes, headers: Message) -> Answer:
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            raise self._stranger() from None
        if not isinstance(body, dict | list):
            raise self._stranger()
        problem = body.get("error") if isinstance(body, dict) else None
        if status >= 400 or problem:
            if not isinstance(problem, str):
                raise self._stranger()
            raise CommandError(problem)
        total = headers.get("X-Total-Count", "")
        return Answer(status, body, int(total) if total.isascii() and total.isdigit() else None)

    def _stranger(self) -> CommandError:
        return CommandError(
            f"{self._url} answers, but not as a relay's admin listener: name its --admin-listen with --admin URL"
        )

    def _unreachable(self, reason: object) -> CommandError:
        if isinstance(reason, ConnectionRefusedError):
            problem = "nobody listens there: start the relay, or name its --admin-listen with --admin URL"
        elif isinstance(reason, TimeoutError):
            problem = f"no answer within {TIMEOUT_S:.0f} s: see whether the relay is busy, or a firewall is in between"
        elif isinstance(reason, ConnectionResetError | HTTPException):
            problem = "what listens there hung up, or speaks no HTTP: name the relay's --admin-listen with --admin URL"
        elif isinstance(reason, FileNotFoundError):
            problem = "there is no such socket: start the relay, or name its --admin-listen with --admin unix:PATH"
        elif isinstance(reason, PermissionError):
            problem = "this user may not connect to it: run the command as the relay's user, or as root"
        else:
            problem = f"it cannot be reached ({reason}): check --admin URL"
        return CommandError(f"{self._url}: {problem}")
