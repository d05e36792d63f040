"""A client of the admin API, for the command line; see docs/reference/admin-api.md. Standard library only.

It uses no proxies, follows no redirects, and bounds responses and the time that they take, however slowly they arrive.
All failures are raised as `CommandError`, whose text is one line with the fix. Times are seconds, sizes bytes.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Timer
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import (
    BaseHandler,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    ProxyHandler,
    Request,
    build_opener,
)

from pyryrelay.cli.arguments import TOKEN_VARIABLE, UNIX
from pyryrelay.cli.protocol_commands import ACTION_TIMEOUT_S, CommandError, NotRunningError, UnknownPathError
from pyryrelay.config.toml_file import content_of
from pyryrelay.text import quoted

__all__ = ["ACTION_TIMEOUT_S", "MAX_RESPONSE_BYTES", "AdminClient", "AdminResponse"]

MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024


MAX_TOKEN_BYTES: Final = 4096
MAX_DIGITS: Final = 100


def _read_token(path: str) -> str:
    """Return the token in a file, without blanks around it. Raises `CommandError`, which quotes no content."""
    try:
        token = content_of(path, MAX_TOKEN_BYTES).strip()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "it is no path"
        raise CommandError(
            f"--admin-token-file {quoted(path)} cannot be read ({cause}): name the file that holds the token"
        ) from None
    if not 0 < len(token) <= MAX_TOKEN_BYTES or not all(0x21 <= byte <= 0x7E for byte in token):
        raise CommandError(
            f"--admin-token-file {quoted(path)} holds no token: it must be one line of printable ASCII without blanks"
        )
    return token.decode("ascii")


@dataclass(frozen=True, slots=True)
class AdminResponse:
    """The status, the decoded JSON, and, where the body is a part of a list, the length of the whole list."""

    status: int
    body: Any
    total: int | None


def _whole_number(text: str) -> int:
    """Read a number. Raises `ValueError` for one that no relay sends, and that could not be made a float."""
    if len(text) > MAX_DIGITS:
        raise ValueError
    return int(text)


def _no_number(text: str) -> float:
    """Refuse ``NaN`` and ``Infinity``, which are no JSON. Raises `ValueError`."""
    raise ValueError


class _NoRedirects(HTTPRedirectHandler):
    """Follow no redirects: an admin listener sends none."""

    def redirect_request(self, *_args: object, **_options: object) -> None:
        return None


class _Deadline:
    """Cuts the connection of one request off when its time is over; timeouts of sockets are for each read alone."""

    def __init__(self) -> None:
        self.has_passed = False
        self._socket: socket.socket | None = None

    def watch(self, sock: socket.socket) -> None:
        """Cut this one off."""
        self._socket = sock

    def _cut(self) -> None:
        self.has_passed = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Give the requests in this block so much time, from now on."""
        timer = Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


class _Connection(HTTPConnection):
    """HTTP until a deadline, to a host or, if there is a ``path``, over a UNIX-domain socket."""

    def __init__(self, deadline: _Deadline, path: str | None, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._deadline = deadline
        self._path = path

    def connect(self) -> None:
        """Connect to the socket or to the host."""
        if self._path is None:
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        self._deadline.watch(self.sock)


class _TlsConnection(HTTPSConnection):
    """HTTPS until a deadline."""

    def __init__(self, deadline: _Deadline, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._deadline = deadline

    def connect(self) -> None:
        """Connect to the host."""
        super().connect()
        self._deadline.watch(self.sock)


class _Handler(HTTPHandler):
    """Opens URLs until a deadline."""

    def __init__(self, deadline: _Deadline, path: str | None) -> None:
        super().__init__()
        self._deadline = deadline
        self._path = path

    def http_open(self, req: Request) -> HTTPResponse:
        """Open a URL; called for each request."""
        return self.do_open(partial(_Connection, self._deadline, self._path), req)


class _TlsHandler(HTTPSHandler):
    """Opens URLs with HTTPS until a deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: Request) -> HTTPResponse:
        """Open a URL; called for each request."""
        return self.do_open(partial(_TlsConnection, self._deadline), req)


class AdminClient:
    """A client of the admin API at a URL, or at ``unix:PATH``.

    If the listener asks for a token, ``token_file`` holds it; the file is read when the first request is sent.
    """

    def __init__(self, url: str, token_file: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._token: str | None = None
        self._path = url.removeprefix(UNIX) if url.startswith(UNIX) else None
        self._base = self._url if self._path is None else "http://localhost"

    def request(self, method: str, path: str, body: object = None, timeout_s: float | None = None) -> AdminResponse:
        """Send one request. Raises `CommandError` unless a relay answers that it has succeeded."""
        data = None if body is None else json.dumps(body).encode("ascii")
        return self._send(method, path, data, ACTION_TIMEOUT_S if timeout_s is None else timeout_s)

    def act(self, protocol: str, action: str, body: bytes = b"", timeout_s: float = ACTION_TIMEOUT_S) -> Any:
        """See `pyryrelay.cli.protocol_commands.Relay`."""
        return self._send("POST", f"/{protocol}/{action}", body, timeout_s).body

    def _send(self, method: str, path: str, data: bytes | None, timeout_s: float) -> AdminResponse:
        headers = {"Accept": "application/json", "X-Pyryrelay-Admin": "1"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = Request(self._base + path, data, headers, method=method)
        if self._token_file is not None:
            self._token = self._token or _read_token(self._token_file)
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        deadline = _Deadline()
        try:
            with deadline.within(timeout_s):
                status, content, fields = self._exchange(request, deadline, timeout_s)
        except URLError as error:
            reason = TimeoutError() if deadline.has_passed else error.reason
            raise self._connection_error(reason, timeout_s) from None
        except (OSError, HTTPException, UnicodeError) as error:
            raise self._connection_error(TimeoutError() if deadline.has_passed else error, timeout_s) from None
        if deadline.has_passed:
            raise self._connection_error(TimeoutError(), timeout_s)
        return self._parse(status, content, fields)

    def _exchange(self, request: Request, deadline: _Deadline, timeout_s: float) -> tuple[int, bytes, Message]:
        """Return status, body and fields of the answer."""
        handlers: list[BaseHandler] = [ProxyHandler({}), _NoRedirects()]
        handlers += [_Handler(deadline, self._path), _TlsHandler(deadline)]
        try:
            with build_opener(*handlers).open(request, timeout=timeout_s) as response:
                return response.status, response.read(MAX_RESPONSE_BYTES), response.headers
        except HTTPError as error:
            with error:
                return error.code, error.read(MAX_RESPONSE_BYTES), error.headers

    def _parse(self, status: int, content: bytes, headers: Message) -> AdminResponse:
        try:
            body = json.loads(content, parse_int=_whole_number, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise self._not_a_relay() from None
        if not isinstance(body, dict | list):
            raise self._not_a_relay()
        problem = body.get("error") if isinstance(body, dict) else None
        if status == 401:
            raise CommandError(self._token_problem())
        if status >= 400 or problem:
            if not isinstance(problem, str):
                raise self._not_a_relay()
            raise (UnknownPathError if status == 404 else CommandError)(problem)
        total = headers.get("X-Total-Count", "")
        return AdminResponse(status, body, int(total) if total.isascii() and total.isdigit() else None)

    def _token_problem(self) -> str:
        fix = f"name the relay's --admin-token-file with --admin-token-file, or in {TOKEN_VARIABLE}"
        has_none = self._token is None
        return f"{self._url} {'asks for a token' if has_none else 'does not accept this token'}: {fix}"

    def _not_a_relay(self) -> CommandError:
        return CommandError(
            f"{self._url} is not the admin listener of a relay: give the relay's --admin-listen address with --admin"
        )

    def _connection_error(self, reason: object, timeout_s: float) -> CommandError:
        if isinstance(reason, ConnectionRefusedError | FileNotFoundError):
            refused = isinstance(reason, ConnectionRefusedError)
            problem = "connection refused" if refused else "the socket does not exist"
            fix = "start the relay, or give its --admin-listen address with --admin"
            return NotRunningError(f"{self._url}: {problem}: {fix}")
        if isinstance(reason, TimeoutError):
            problem = (
                f"no answer within {timeout_s:.0f} s: check whether the relay is overloaded, "
                "or a firewall drops the connection"
            )
        elif isinstance(reason, ConnectionResetError | HTTPException):
            problem = (
                "the server closed the connection or does not speak HTTP: "
                "give the relay's --admin-listen address with --admin"
            )
        elif isinstance(reason, PermissionError):
            problem = "permission denied: run the command as the relay's user, or as root"
        else:
            problem = f"cannot connect ({reason}): check --admin"
        return CommandError(f"{self._url}: {problem}")
