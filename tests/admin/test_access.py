"""Who may use the admin listener: hosts, origins, tokens and sessions. Real requests to a real site, in memory."""

from __future__ import annotations

import re

import pytest
from tests.support.admin import Client, Response
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from pyryrelay.admin.access import FAILURES, MAX_SOURCES, Access, Failures
from pyryrelay.admin.dashboard.pages import Login, logout_resource, read_assets
from pyryrelay.admin.resources import ApiResource, ApiResponse
from pyryrelay.admin.sessions import LIFETIME_S
from pyryrelay.admin.site import admin_site
from pyryrelay.admin.tokens import Token
from pyryrelay.guard import ClientAddress
from pyryrelay.protocol import Page

SECRET = "correct-horse-battery-staple"
BEARER = f"Bearer {SECRET}"
PEER = IPv4Address("TCP", "127.0.0.1", 50_000)


class Listener:
    """An admin listener with a page, a thing that can be read and changed, and a dashboard."""

    def __init__(self, secret: str | None = SECRET) -> None:
        self.clock = Clock()
        self.changes = 0
        self.refused: list[ClientAddress | None] = []
        self.access = Access(self.clock.seconds, self.refused.append)
        self.access.configure(None if secret is None else Token(secret.encode()), ["Relay.Internal"])
        assets = read_assets()
        self._site = admin_site(
            {"/healthz": lambda: Page(200, (), b"ok"), "/metrics": lambda: Page(200, (), b"figures")},
            self.clock,
            {"/thing": ApiResource({"GET": lambda _: ApiResponse(200, {"is": "here"}), "POST": self._change})},
            self.access,
            {
                "/": assets["index.html"],
                "/login": Login(self.access, assets["login.html"]),
                "/logout": logout_resource(self.access),
            },
        )

    def _change(self, request: object) -> ApiResponse:
        self.changes += 1
        return ApiResponse(200, {})

    def client(self, peer: IAddress = PEER) -> Client:
        """Return a client."""
        return Client(self._site, peer)

    def log_in(self, text: str = SECRET, **fields: str) -> Response:
        """Send the form of the login page."""
        return self.client().request(
            "POST", "/login", f"token={text}", Content_Type="application/x-www-form-urlencoded", **fields
        )

    def cookie(self) -> str:
        """Log in, and return what the browser sends from then on."""
        return self.log_in().fields["Set-Cookie"].partition(";")[0]


@pytest.fixture
def listener() -> Listener:
    """A listener with a token."""
    return Listener()


@pytest.fixture
def free() -> Listener:
    """A listener without a token."""
    return Listener(None)


# Hosts


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9090", "10.0.0.5:80", "[::1]:9090", "localhost", "LOCALHOST:1", "relay.internal:9090"],
)
def test_addresses_and_own_names_are_answered(free: Listener, host: str) -> None:
    """IP addresses, ``localhost`` and the listener's host names are accepted in ``Host``."""
    assert free.client().request("GET", "/thing", host=host).status == 200


@pytest.mark.parametrize("path", ["/", "/thing", "/metrics", "/login", "/paths", "/nothing"])
@pytest.mark.parametrize(
    "host",
    ["a.example", "localhost.a.example", "127.0.0.1.a.example:9090", "", "[::1", "relay", "a\r\nHost: localhost"],
)
def test_other_host_names_are_refused(free: Listener, path: str, host: str) -> None:
    """Requests to any other name are answered 421 or 400, so DNS rebinding neither reads nor changes anything."""
    for method in ("GET", "POST"):
        response = free.client().change(method, path, host=host)
        assert response.status in (400, 421)
        assert "here" not in response.text + response.text
    assert free.changes == 0


def test_the_right_token_excuses_a_host_name(listener: Listener) -> None:
    """No web page can know the token, so a scrape by any name is answered with it."""
    client = listener.client()
    assert client.request("GET", "/metrics", host="relay:9090", Authorization=BEARER).text == "figures"
    assert client.request("GET", "/metrics", host="relay:9090", Authorization="Bearer no").status == 401
    assert client.request("GET", "/metrics", host="relay:9090").status == 421


def test_health_is_for_everybody(listener: Listener) -> None:
    """Load balancers need neither a name nor a token."""
    response = listener.client().request("GET", "/healthz", host="a.example", Origin="http://b.example")
    assert (response.status, response.text) == (200, "ok")


# Other sites


@pytest.mark.parametrize(
    "fields",
    [
        {"Origin": "http://a.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9091"},
        {"Origin": "https://127.0.0.1"},
        {"Origin": "http://127.0.0.1:9090.a.example"},
        {"Origin": "http://["},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
        {"Sec_Fetch_Site": "anything"},
    ],
)
def test_other_sites_are_refused(free: Listener, fields: dict[str, str]) -> None:
    """What a browser asks for in the name of another site is answered 403, even with the header field of changes."""
    for method in ("GET", "POST"):
        response = free.client().change(method, "/thing", **fields)
        assert (response.status, "another site" in response.error) == (403, True)
    assert free.changes == 0


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Origin": "http://127.0.0.1:9090"},
        {"Origin": "https://127.0.0.1:9090"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
    ],
)
def test_its_own_pages_are_answered(free: Listener, fields: dict[str, str]) -> None:
    """The dashboard's own requests, and those of programs, pass; a proxy may have ended TLS."""
    assert free.client().change("POST", "/thing", **fields).status == 200


def test_links_of_other_sites(free: Listener) -> None:
    """A link on another site may lead to the page itself, but no frame, script or form of it does."""
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    client = free.client()
    assert client.request("GET", "/", Accept="text/html", **link).status == 200
    for change in ({"Sec_Fetch_Dest": "iframe"}, {"Sec_Fetch_Mode": "no-cors"}):
        assert client.request("GET", "/", Accept="text/html", **{**link, **change}).status == 403
    assert client.request("POST", "/login", **link).status == 403


# Tokens


@pytest.mark.parametrize(
    "path", ["/", "/thing", "/metrics", "/paths", "/logout", "/nothing", "//healthz", "/login/..", "/assets"]
)
def test_every_path_needs_the_token(listener: Listener, path: str) -> None:
    """Without the token nothing is answered but 401, and nothing is changed."""
    for method in ("GET", "POST"):
        response = listener.client().change(method, path)
        assert response.status == 401
        assert "here" not in response.text.partition("/login")[0]
        assert "figures" not in response.text
    assert listener.changes == 0
    assert listener.client().request("GET", "/thing").fields["WWW-Authenticate"] == 'Bearer realm="pyryrelay"'


def test_the_right_token(listener: Listener) -> None:
    """It is read whatever the case of the scheme, and once only."""
    client = listener.client()
    for text in (BEARER, f"bearer   {SECRET}"):
        assert client.request("GET", "/thing", Authorization=text).json == {"is": "here"}
        assert client.change("POST", "/thing", Authorization=text).status == 200
    twice = f"GET /thing HTTP/1.1\r\nHost: localhost\r\nAuthorization: {BEARER}\r\nAuthorization: {BEARER}\r\n\r\n"
    assert client.send(twice).response.status == 401


@pytest.mark.parametrize("text", ["Bearer", "Bearer ", "Bearer x", SECRET, f"Basic {SECRET}", f"Bearer {SECRET} x"])
def test_wrong_tokens(listener: Listener, text: str) -> None:
    """A wrong token is answered 401, reported with its client, and never shown."""
    response = listener.client().request("GET", "/thing", Authorization=text)
    assert response.status == 401
    assert 'error="invalid_token"' in response.fields["WWW-Authenticate"]
    assert SECRET not in response.text
    assert list(map(str, listener.refused)) == ["127.0.0.1"]


def test_a_change_still_needs_its_header_field(listener: Listener) -> None:
    """The token alone changes nothing: a session is sent by the browser, whoever has it send a request."""
    assert listener.client().request("POST", "/thing", Authorization=BEARER).status == 403
    assert listener.changes == 0


def test_wrong_tokens_are_limited_by_client(listener: Listener) -> None:
    """A client that has sent too many is refused for a while whatever it sends, and others are not."""
    client, other = listener.client(), listener.client(IPv4Address("TCP", "192.0.2.7", 1))
    for _ in range(FAILURES.burst):
        assert client.request("GET", "/thing", Authorization="Bearer x").status == 401
    response = client.request("GET", "/thing", Authorization=BEARER)
    assert (response.status, response.fields["Retry-After"]) == (429, "6")
    assert listener.log_in().status == 429
    assert other.request("GET", "/thing", Authorization=BEARER).status == 200
    listener.clock.advance(6)
    assert client.request("GET", "/thing", Authorization=BEARER).status == 200
    assert len(listener.refused) == FAILURES.burst


def test_a_session_goes_on_while_its_address_is_refused(listener: Listener) -> None:
    """Others at the operator's address cannot lock out a browser that is logged in."""
    cookie = listener.cookie()
    for _ in range(FAILURES.burst + 1):
        listener.client().request("GET", "/thing", Authorization="Bearer x")
    assert listener.client().request("GET", "/thing", Cookie=cookie).status == 200


def test_peers_without_an_address_share_a_limit(listener: Listener) -> None:
    """Peers of a UNIX socket count as one client."""
    client = listener.client(UNIXAddress(None))
    for _ in range(FAILURES.burst):
        assert client.request("GET", "/thing", Authorization="Bearer x").status == 401
    assert client.request("GET", "/thing", Authorization="Bearer x").status == 429
    assert listener.refused[0] is None


def test_the_memory_for_wrong_tokens_is_bounded() -> None:
    """The source that failed longest ago is forgotten first."""
    failures = Failures()
    for source in range(MAX_SOURCES + 1):
        for _ in range(FAILURES.burst):
            failures.add(source, 0.0)
    assert failures.wait_s(0, 0.0) == 0
    assert failures.wait_s(1, 0.0) > 0
    assert len(failures._tats) == MAX_SOURCES


def test_long_bodies_of_strangers_are_not_kept(listener: Listener) -> None:
    """The body of an action may have 8 MiB, but only if its sender has shown the token."""
    head = f"POST /thing HTTP/1.1\r\nHost: localhost\r\nX-Pyryrelay-Admin: 1\r\nContent-Length: {5000}\r\n"

    def kept(field: str) -> int:
        exchange = listener.client().send(f"{head}{field}\r\n{'x' * 4999}")
        request = exchange._channel.requests[0]
        size: int = request.content.tell()
        return size

    assert kept("") == 0
    assert kept("Authorization: Bearer x\r\n") == 0
    assert kept(f"Authorization: {BEARER}\r\n") == 4999
    assert kept(f"Cookie: {listener.cookie()}\r\n") == 0, "the cookie is that of another port"


# Sessions


def test_login(listener: Listener) -> None:
    """The right token opens a session: a random cookie that scripts cannot read and other sites cannot use."""
    response = listener.log_in()
    assert (response.status, response.fields["Location"]) == (303, "/")
    cookie = response.fields["Set-Cookie"]
    found = re.fullmatch(r"(pyryrelay-9090=[\w-]{43}); Path=/; Max-Age=43200; HttpOnly; SameSite=strict", cookie)
    assert found is not None, cookie
    assert SECRET not in cookie
    client = listener.client()
    assert client.request("GET", "/thing", Cookie=found[1]).status == 200
    assert client.change("POST", "/thing", Cookie=found[1]).status == 200
    assert client.request("POST", "/thing", Cookie=found[1]).status == 403
    assert client.request("GET", "/thing", Cookie=found[1] + "x").status == 401
    assert listener.cookie() != found[1]


def test_login_over_tls() -> None:
    """Where the listener speaks TLS itself, the cookie is sent over TLS alone."""
    listener = Listener()
    listener.access.configure(Token(SECRET.encode()), is_secure=True)
    assert "; Secure" in listener.log_in().fields["Set-Cookie"]


def test_a_wrong_login(listener: Listener) -> None:
    """A wrong token is answered with the form again, and sets no cookie."""
    response = listener.log_in("wrong")
    assert (response.status, "Set-Cookie" in response.fields) == (401, False)
    assert "That was not the token" in response.text
    assert "wrong</" not in response.text


@pytest.mark.parametrize("origin", ["http://a.example", "null"])
def test_no_other_site_logs_in(listener: Listener, origin: str) -> None:
    """A form on another site is refused, even with the right token."""
    assert listener.log_in(Origin=origin).status == 403


def test_logout(listener: Listener) -> None:
    """A logout ends the session at the relay, not only in the browser."""
    cookie = listener.cookie()
    client = listener.client()
    response = client.change("POST", "/logout", Cookie=cookie)
    assert response.status == 200
    assert "Max-Age=0" in response.fields["Set-Cookie"]
    assert client.request("GET", "/thing", Cookie=cookie).status == 401


def test_sessions_end(listener: Listener) -> None:
    """A session ends after twelve hours, and with another token; a reload without changes ends none."""
    cookie, client = listener.cookie(), listener.client()
    listener.access.configure(Token(SECRET.encode()))
    assert client.request("GET", "/thing", Cookie=cookie).status == 200
    listener.clock.advance(LIFETIME_S)
    assert client.request("GET", "/thing", Cookie=cookie).status == 401
    cookie = listener.cookie()
    listener.access.configure(Token(b"another-secret-of-operators"))
    assert client.request("GET", "/thing", Cookie=cookie).status == 401


def test_the_cookies_of_two_relays_differ(listener: Listener) -> None:
    """Browsers send a cookie to every port of a host, so its name has the port."""
    name = listener.cookie().partition("=")[0]
    assert name == "pyryrelay-9090"
    response = listener.client().request(
        "POST", "/login", f"token={SECRET}", "localhost", Content_Type="application/x-www-form-urlencoded"
    )
    assert response.fields["Set-Cookie"].startswith("pyryrelay-80=")


def test_browsers_are_led_to_the_login(listener: Listener) -> None:
    """A browser that opens the dashboard is led to the login page; programs get 401."""
    client = listener.client()
    for fields in ({"Accept": "text/html"}, {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}):
        response = client.request("GET", "/", **fields)
        assert (response.status, response.fields["Location"]) == (303, "/login")
    assert client.request("GET", "/", Accept="*/*").status == 401
    assert client.request("GET", "/login").status == 200
    assert client.request("GET", "/login", Cookie=listener.cookie()).fields["Location"] == "/"


def test_there_is_no_login_without_a_token(free: Listener) -> None:
    """Then the login page leads to the dashboard, and takes no token."""
    assert free.client().request("GET", "/login").fields["Location"] == "/"
    assert free.log_in().status == 400
