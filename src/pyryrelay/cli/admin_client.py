"""A client of the admin API, for the command line; see docs/reference/admin-api.md. Standard library only.

It uses no proxies, follows no redirects, and bounds responses. All failures are raised as `CommandError`, whose text is
one line with the fix. Times are seconds, sizes bytes.
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

from pyryrelay.cli.arguments import TOKEN_VARIABLE, UNIX
from pyryrelay.cli.protocol_commands import ACTION_TIMEOUT_S, CommandError, NotRunningError
from pyryrelay.text import quoted

__all__ = ["ACTION_TIMEOUT_S", "MAX_RESPONSE_BYTES", "AdminClient", "AdminResponse"]

MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024


MAX_TOKEN_BYTES: Final = 4096


def _read_token(path: str) -> str:
    """Return the token in a file, without blanks around it. Raises `CommandError`, which quotes no content."""
    try:
        with open(path, "rb") as file:
            token = file.read(MAX_TOKEN_BYTES + 1).strip()
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


class _NoRedirects(HTTPRedirectHandler):
    """Follow no redirects: an admin listener sends none."""

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
    """Open every URL over one UNIX-domain socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def http_open(self, req: Request) -> HTTPResponse:
        """Open a URL; called for each request."""
        return self.do_open(partial(_UnixConnection, self._path), req)


class AdminClient:
    """A client of the admin API at a URL, or at ``unix:PATH``.

    If the listener asks for a token, ``token_file`` holds it; the file is read when the first request is sent.
    """

    def __init__(self, url: str, token_file: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._token: str | None = None
        handlers: list[BaseHandler] = [ProxyHandler({}), _NoRedirects()]
        self._base = self._url
        if url.startswith(UNIX):
            handlers.append(_UnixHandler(url.removeprefix(UNIX)))
            self._base = "http://localhost"
        self._opener = build_opener(*handlers)

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
        try:
            with self._opener.open(request, timeout=timeout_s) as response:
                return self._parse(response.status, response.read(MAX_RESPONSE_BYTES), response.headers)
        except HTTPError as error:
            with error:
                return self._parse(error.code, error.read(MAX_RESPONSE_BYTES), error.headers)
        except URLError as error:
            raise self._connection_error(error.reason, timeout_s) from None
        except (OSError, HTTPException, UnicodeError) as error:
            raise self._connection_error(error, timeout_s) from None

    def _parse(self, status: int, content: bytes, headers: Message) -> AdminResponse:
        try:
            body = json.loads(content)
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
            raise CommandError(problem)
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
