"""Who may use the admin listener: the checks that each request passes before anything else sees it.

* ``Host`` must be an IP address, ``localhost``, the listener's own name or one of ``--admin-host``, so that a web page
  cannot reach the listener by pointing its own name at this machine (DNS rebinding). A request with the right token in
  its header is excused: no page can know it.
* A request that a browser makes for a page of another origin (``Origin``, ``Sec-Fetch-Site``) is refused, unless it is
  the navigation to a page for people.
* With a token, each request needs it, or the cookie of a session that was opened with it. Wrong ones are counted by
  client address: one that has used up `FAILURES` is refused whatever it sends.

Requests that change something also need a header field, see `pyryrelay.admin.resources`. ``/healthz`` is for load
balancers, tells nothing that is secret, and passes without any check. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from ipaddress import ip_address
from math import ceil
from typing import Final
from urllib.parse import urlsplit

from twisted.web.server import Request

from pyryrelay.admin.resources import ApiError
from pyryrelay.admin.sessions import LIFETIME_S, Sessions
from pyryrelay.admin.tokens import Token
from pyryrelay.guard import ClientAddress, Quota, client_address
from pyryrelay.guard.rate.gcra import decide, wait_s

__all__ = ["FAILURES", "MAX_SOURCES", "Access", "Failures", "is_navigation"]

FAILURES: Final = Quota.parse("10/minute burst 10")
"""How many wrong tokens a client address may send."""
MAX_SOURCES: Final = 4096
FREE: Final = ("/healthz",)
"""Paths without any check."""
FOR_PEOPLE: Final = ("/", "/login")
"""Paths that a link on another site may lead to."""
LOGIN: Final = "/login"
ASSETS: Final = "/assets/"
"""The beginning of the paths of files that belong to every relay."""

_BEARER: Final = re.compile(rb"bearer[ \t]+(.*)", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Failures:
    """Wrong tokens by source. At most `MAX_SOURCES` are remembered; the one that failed longest ago goes first."""

    def __init__(self) -> None:
        self._tats: OrderedDict[object, float] = OrderedDict()

    def wait_s(self, source: object, now: float) -> float:
        """Return how long a source must wait before its token is looked at; 0 for no time."""
        return wait_s(FAILURES, self._tats.get(source), now)

    def add(self, source: object, now: float) -> None:
        """Count a wrong token of a source that need not wait."""
        self._tats[source] = decide(FAILURES, self._tats.get(source), now).tat
        self._tats.move_to_end(source)
        if len(self._tats) > MAX_SOURCES:
            self._tats.popitem(last=False)


def _nobody(client: ClientAddress | None) -> None:
    """Do nothing: the default for ``refused``."""


@dataclass(slots=True)
class Access:
    """Checks requests. ``refused`` is called with the client of each wrong token."""

    now: Callable[[], float]
    refused: Callable[[ClientAddress | None], None] = _nobody
    is_secure: bool = False
    """Whether the listener speaks TLS itself, so that cookies can be kept to TLS."""
    token: Token | None = None
    host_names: Collection[str] = ()
    sessions: Sessions = field(default_factory=Sessions)
    failures: Failures = field(default_factory=Failures)

    def configure(self, token: Token | None, host_names: Collection[str] = (), *, is_secure: bool = False) -> None:
        """Enforce this from now on. If the token is another one, all sessions end."""
        if token != self.token:
            self.sessions.close_all()
        self.token = token
        self.is_secure = is_secure
        self.host_names = frozenset(name.lower() for name in host_names)

    def check(self, request: Request) -> None:
        """Raises `ApiError` unless the request may be answered."""
        path = request.path.decode("latin-1")
        if path in FREE:
            return
        has_token = self._has_bearer(request)
        if not has_token:
            self._check_host(request)
        _check_origin(request, is_for_people=path in FOR_PEOPLE)
        if self.token is None or has_token or path == LOGIN or path.startswith(ASSETS) or self.has_session(request):
            return
        raise ApiError(
            401,
            "this needs the token of --admin-token-file: send Authorization: Bearer TOKEN, or log in at /login",
            **{"WWW-Authenticate": 'Bearer realm="pyryrelay"'},
        )

    def knows(self, request: Request) -> bool:
        """Return whether a request has the token or a session, or needs none; a wrong token is not counted."""
        found = _BEARER.fullmatch(request.getHeader(b"authorization") or b"")
        return self.token is None or (found is not None and self.token.matches(found[1])) or self.has_session(request)

    def _has_bearer(self, request: Request) -> bool:
        """Return whether the request shows the token in its header. Raises `ApiError` for a wrong one."""
        fields = request.requestHeaders.getRawHeaders(b"authorization", [])
        if self.token is None or not fields:
            return False
        found = _BEARER.fullmatch(fields[0].strip()) if len(fields) == 1 else None
        self.try_token(request, found[1] if found else b"")
        return True

    def try_token(self, request: Request, text: bytes) -> None:
        """Compare a text with the token. Raises `ApiError` if it is wrong, or came too soon after wrong ones."""
        host = getattr(request.getClientAddress(), "host", "")
        client = client_address(host) if host else None
        source = None if client is None else client.key
        now = self.now()
        too_soon_s = self.failures.wait_s(source, now)
        if too_soon_s:
            raise ApiError(
                429, "too many wrong tokens came from your address: wait", **{"Retry-After": str(ceil(too_soon_s))}
            )
        if self.token is None or not self.token.matches(text):
            self.failures.add(source, now)
            self.refused(client)
            raise ApiError(
                401,
                "the token is wrong: send that of --admin-token-file",
                **{"WWW-Authenticate": 'Bearer realm="pyryrelay", error="invalid_token"'},
            )

    def _check_host(self, request: Request) -> None:
        """Refuse host names that a stranger could point at this machine."""
        hosts = request.requestHeaders.getRawHeaders("host", [])
        try:
            name = urlsplit(f"//{hosts[0]}").hostname if len(hosts) == 1 else None
        except ValueError:
            name = None
        if name is None or not (name == "localhost" or name in self.host_names or _is_address(name)):
            raise ApiError(
                421,
                "the Host field names another host: use the relay's IP address or localhost in the URL, or name the "
                "host with --admin-host",
            )

    # Sessions

    def open_session(self, request: Request, text: str) -> None:
        """Begin a session of a browser with a random text, which becomes its cookie."""
        self.sessions.open(text.encode("ascii"), self.now())
        self._set_cookie(request, text, round(LIFETIME_S))

    def close_session(self, request: Request) -> None:
        """End the session of a browser."""
        self.sessions.close(request.getCookie(_cookie_name(request)) or b"")
        self._set_cookie(request, "", 0)

    def has_session(self, request: Request) -> bool:
        """Return whether the request has the cookie of an open session."""
        text = request.getCookie(_cookie_name(request))
        return text is not None and self.sessions.holds(text, self.now())

    def _set_cookie(self, request: Request, text: str, max_age_s: int) -> None:
        request.addCookie(
            _cookie_name(request),
            text,
            path="/",
            max_age=str(max_age_s),
            httpOnly=True,
            sameSite="Strict",
            secure=self.is_secure,
        )


def _cookie_name(request: Request) -> bytes:
    """Return a name that tells the relays on several ports of a host apart: cookies do not."""
    return b"pyryrelay-%d" % _host_and_port(f"http://{request.getHeader('host') or ''}")[1]


def is_navigation(request: Request) -> bool:
    """Return whether a browser asks for a page to show, and not a script or another page for a part of it."""
    mode = request.getHeader("sec-fetch-mode")
    if mode is not None:
        return mode == "navigate" and request.getHeader("sec-fetch-dest") == "document"
    return "text/html" in (request.getHeader("accept") or "")


def _check_origin(request: Request, *, is_for_people: bool) -> None:
    """Refuse what a browser asks for in the name of another site."""
    origin, site = request.getHeader("origin"), request.getHeader("sec-fetch-site")
    if origin is not None:
        host = request.getHeader("host") or ""
        is_ours = _host_and_port(origin) == _host_and_port(f"{origin.partition('://')[0]}://{host}")
    else:
        is_ours = site in (None, "same-origin", "none")
        is_link = is_for_people and request.method in (b"GET", b"HEAD") and is_navigation(request)
        is_ours = is_ours or is_link
    if not is_ours:
        raise ApiError(403, "requests of web pages of another site are refused: open the dashboard itself")


def _host_and_port(url: str) -> tuple[str, int]:
    """Return the host and the port of a URL; one that matches no other if it has none, such as ``null``."""
    try:
        parts = urlsplit(url)
        return parts.hostname or url, parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return url, -1


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
