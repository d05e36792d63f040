"""What the admin API answers. Real requests to the real site, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.admin import PEER, Client, open_access
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from pyryrelay.admin import api
from pyryrelay.admin.api import ROUTES, JailEntry, JailListing, ReloadOutcome, Route, UpgradeOutcome, api_resources
from pyryrelay.admin.resources import ApiResponse
from pyryrelay.admin.site import admin_site
from pyryrelay.guard.address.lists import IPNetwork
from pyryrelay.guard.errors import AddressError
from pyryrelay.protocol import Page

JAILED = JailEntry("192.0.2.7/32", 599.5, 2)
GOOD_BODY = '{"address": "192.0.2.7", "seconds": 60}'
PATHS = list(dict.fromkeys(route.resource for route in ROUTES))


@dataclass
class FakeActions:
    """Actions that record their arguments and return what a test has set."""

    forwarding_header: str = "x-forwarded-for"
    jailed: list[JailEntry] = field(default_factory=lambda: [JAILED])
    outcome: Deferred[ReloadOutcome] = field(default_factory=lambda: succeed(ReloadOutcome()))
    upgraded: Deferred[UpgradeOutcome] = field(default_factory=lambda: succeed(UpgradeOutcome(8, "26.12.0", 30.0)))
    added: list[tuple[str, float]] = field(default_factory=list)
    explained: list[tuple[str | None, list[str]]] = field(default_factory=list)

    def jail_entries(self, limit: int) -> JailListing:
        return JailListing(self.jailed[:limit], len(self.jailed))

    def jail_add(self, network: IPNetwork, seconds: float) -> JailEntry:
        if network.prefixlen < 32:
            raise AddressError(f"{str(network)!r} holds more than one client")
        self.added.append((str(network), seconds))
        return JailEntry(str(network), seconds, 0)

    def jail_release(self, network: IPNetwork) -> str | None:
        found = [entry for entry in self.jailed if entry.network == str(network)]
        return found[0].network if found else None

    def reload(self) -> Deferred[ReloadOutcome]:
        return self.outcome

    def upgrade(self) -> Deferred[UpgradeOutcome]:
        return self.upgraded

    def status(self) -> Mapping[str, object]:
        return {"version": "26.11", "state": "running"}

    def explain(self, peer: str | None, lines: Sequence[str]) -> Sequence[str]:
        self.explained.append((peer, list(lines)))
        return [f"peer {peer} is a trusted proxy", "entry 1 <b> \x1b is the client"]

    def explain_client(self, address: str) -> Mapping[str, object]:
        if address.startswith("x"):
            raise AddressError(f"{address!r} is not a network")
        return {"address": address, "verdict": "admitted"}

    def effective_settings(self) -> Sequence[Mapping[str, str]]:
        return [{"name": "--grace", "value": "30", "source": "default"}]


def client_of(actions: FakeActions, host_names: Sequence[str] = (), peer: IAddress = PEER) -> Client:
    """A client of an admin site with these actions."""
    pages = {"/healthz": lambda: Page(200, (), b"ok")}
    return Client(admin_site(pages, Clock(), api_resources(actions), open_access(*host_names)), peer)


@pytest.fixture
def actions() -> FakeActions:
    """The actions of the API."""
    return FakeActions()


@pytest.fixture
def client(actions: FakeActions) -> Client:
    """A client of the API."""
    return client_of(actions)


# The jail


def test_the_status() -> None:
    """The status is answered as JSON, and takes no parameters below its path."""
    client = client_of(FakeActions())
    assert client.request("GET", "/status").json == {"version": "26.11", "state": "running"}
    assert client.request("GET", "/status/x").status == 404
    assert client.request("POST", "/status").status == 405


def test_lists_the_jail(client: Client) -> None:
    """GET /jail lists network, seconds left and sentences in a row, and the number of jailed clients."""
    response = client.request("GET", "/jail")
    assert (response.status, response.json) == (
        200,
        [{"network": "192.0.2.7/32", "seconds_left": 599.5, "times": 2, "origin": ""}],
    )
    assert response.fields["X-Total-Count"] == "1"


def test_a_listing_is_bounded(client: Client, actions: FakeActions) -> None:
    """At most ``limit`` entries are listed, 1000 by default; ``X-Total-Count`` has the number of all of them."""
    actions.jailed = [JAILED] * 1_500
    for path, count in (("/jail", 1_000), ("/jail?limit=2", 2), ("/jail?limit=10000", 1_500)):
        response = client.request("GET", path)
        assert (len(response.json), response.fields["X-Total-Count"]) == (count, "1500")
    for text in ("0", "10001", "-1", "1e3", "", "x", "1&limit=2", "9" * 5_000):
        response = client.request("GET", f"/jail?limit={text}")
        assert (response.status, "use 1 to 10000" in response.error) == (400, True)


def test_jails_an_address(client: Client, actions: FakeActions) -> None:
    """POST /jail jails an address or a network for a number of seconds, and answers with the entry."""
    response = client.change("POST", "/jail", GOOD_BODY)
    assert (response.status, response.json) == (
        201,
        {"network": "192.0.2.7/32", "seconds_left": 60.0, "times": 0, "origin": ""},
    )
    client.change("POST", "/jail", '{"address": "2001:db8::/64", "seconds": 0.5}')
    assert actions.added == [("192.0.2.7/32", 60.0), ("2001:db8::/64", 0.5)]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "the body is not JSON"),
        ("address=192.0.2.7", "the body is not JSON"),
        ("[" * 4_000, "the body is not JSON"),
        ('{"address": "\xff"', "the body is not JSON"),
        ("[]", "not an object with the keys address and seconds"),
        ('{"address": "192.0.2.7"}', "not an object with the keys address and seconds"),
        ('{"address": "192.0.2.7", "seconds": 1, "why": ""}', "not an object with the keys address and seconds"),
        ('{"address": 7, "seconds": 1}', "address is not a string"),
        ('{"address": "192.0.2.7", "seconds": "1"}', "seconds is not a number"),
        ('{"address": "192.0.2.7", "seconds": true}', "seconds is not a number"),
        ('{"address": "192.0.2.7", "seconds": 0}', "seconds is not a number"),
        ('{"address": "192.0.2.7", "seconds": NaN}', "seconds is not a number"),
        ('{"address": "192.0.2.7", "seconds": Infinity}', "seconds is not a number"),
        ('{"address": "192.0.2.7", "seconds": 1' + "0" * 400 + "}", "up to 31622400"),
        ('{"address": "localhost", "seconds": 1}', "'localhost' is not a network"),
        ('{"address": "10.0.0.1/8", "seconds": 1}', "write '10.0.0.0/8'"),
        ('{"address": "10.0.0.0/8", "seconds": 1}', "more than one client"),
        ('{"address": "' + "1" * 500 + '", "seconds": 1}', "is not an address: write"),
    ],
)
def test_a_bad_body_is_refused_with_the_fix(client: Client, actions: FakeActions, body: str, problem: str) -> None:
    """A body that makes no sense is answered 400 with one line that says what to send."""
    response = client.change("POST", "/jail", body)
    assert response.status == 400
    assert problem in response.error
    assert len(response.error) < 400
    assert actions.added == []


@pytest.mark.parametrize("path", ["/jail/192.0.2.7", "/jail/192.0.2.7/32", "/jail/192.0.2.7%2F32"])
def test_releases_an_address(client: Client, path: str) -> None:
    """DELETE /jail/ADDRESS releases, whether the slash of a prefix length is escaped or not."""
    response = client.change("DELETE", path)
    assert (response.status, response.json) == (200, {"network": "192.0.2.7/32"})


def test_only_jailed_clients_can_be_released(client: Client) -> None:
    """Releasing a client that is not jailed, or no client, is answered 404, and text that is no address 400."""
    for path, status in (
        ("/jail/192.0.2.8", 404),
        ("/jail", 404),
        ("/jail/", 404),
        ("/jail/nonsense", 400),
        ("/jail/%ff%1b[2J", 400),
        (f"/jail/{'1' * 1000}", 400),
    ):
        response = client.change("DELETE", path)
        assert response.status == status
        assert response.error


# Reload


def test_reload_tells_what_changed(client: Client, actions: FakeActions) -> None:
    """POST /reload answers 200 with what changed and what needs a restart."""
    actions.outcome = succeed(ReloadOutcome(("upgrade-quota",), ("listen",)))
    response = client.change("POST", "/reload")
    assert response.status == 200
    assert response.json == {"changed": ["upgrade-quota"], "needs_restart": ["listen"], "error": None}


def test_a_configuration_that_is_refused_is_422(client: Client, actions: FakeActions) -> None:
    """A reload that failed answers 422 with the error."""
    actions.outcome = succeed(ReloadOutcome(error="deny.txt:3: 'x' is not a network"))
    response = client.change("POST", "/reload")
    assert (response.status, response.error) == (422, "deny.txt:3: 'x' is not a network")


def test_reload_is_answered_when_it_is_complete(client: Client, actions: FakeActions) -> None:
    """The response is sent after the files have been read."""
    actions.outcome = Deferred()
    exchange = client.begin("POST", "/reload", X_Pyryrelay_Admin="1")
    assert exchange.sent == b""
    actions.outcome.callback(ReloadOutcome())
    assert exchange.response.status == 200


# Client addresses


def test_explains_given_headers(client: Client, actions: FakeActions) -> None:
    """GET /whoami explains a peer and header lines that are given, as printable lines of text."""
    response = client.request("GET", "/whoami?peer=10.0.0.7&header=203.0.113.9,+10.0.0.7", X_Forwarded_For="6.6.6.6")
    assert actions.explained == [("10.0.0.7", ["203.0.113.9, 10.0.0.7"])]
    assert response.text == "peer 10.0.0.7 is a trusted proxy\nentry 1 <b> \\x1b is the client\n"
    assert response.fields["Content-Type"] == "text/plain; charset=utf-8"
    assert response.fields["Vary"] == "Accept"


def test_explains_as_json(client: Client) -> None:
    """Clients that accept JSON get the steps as a list."""
    response = client.request("GET", "/whoami?peer=unix", Accept="application/json")
    assert response.json == {"steps": ["peer None is a trusted proxy", "entry 1 <b> \\x1b is the client"]}


def test_explains_this_very_request(client: Client, actions: FakeActions) -> None:
    """Without parameters the request itself is explained: its peer, and the header lines that the relay reads."""
    client.request("GET", "/whoami", X_Forwarded_For="203.0.113.9", X_Real_IP="6.6.6.6")
    assert actions.explained == [("127.0.0.1", ["203.0.113.9"])]


def test_a_peer_on_a_unix_socket_has_no_address(actions: FakeActions) -> None:
    """A request through a UNIX socket is explained as one."""
    client_of(actions, peer=UNIXAddress(None)).request("GET", "/whoami")
    assert actions.explained == [(None, [])]


def test_the_peer_defaults_to_that_of_the_request(client: Client, actions: FakeActions) -> None:
    """If only header lines are given, they are explained as if the peer of the request had sent them."""
    client.request("GET", "/whoami?header=203.0.113.9&header=10.0.0.7", X_Forwarded_For="6.6.6.6")
    assert actions.explained == [("127.0.0.1", ["203.0.113.9", "10.0.0.7"])]


def test_header_lines_may_have_their_name(client: Client, actions: FakeActions) -> None:
    """A line of the header that the relay reads is used; for a line of another header there is a note."""
    path = "/whoami?header=X-Forwarded-For:+203.0.113.9&header=x-real-ip:6.6.6.6&header=2001:db8::1&header=fe80::1"
    response = client.request("GET", path)
    assert actions.explained == [("127.0.0.1", ["203.0.113.9", "2001:db8::1", "fe80::1"])]
    assert response.text.startswith("x-real-ip is not read: client addresses are taken from x-forwarded-for\n")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("peer=nonsense", "peer 'nonsense' is not one address: write peer=192.0.2.7, or peer=unix"),
        ("peer=", "is not one address"),
        ("peer=192.0.2.1&peer=192.0.2.2", "is not one address"),
        ("peer=" + "1" * 5000, "is not one address"),
        ("hedaer=x", "'hedaer' is not a parameter of this path: use peer and header"),
        ("%1b[2J=x", "'\\x1b[2J' is not a parameter of this path"),
    ],
)
def test_bad_parameters_are_refused_with_the_fix(client: Client, query: str, problem: str) -> None:
    """Parameters that make no sense are answered 400 with one line that says what to write."""
    response = client.request("GET", f"/whoami?{query}")
    assert response.status == 400
    assert problem in response.error
    assert len(response.error) < 400


# Explaining clients, and settings


def test_explains_a_client(client: Client) -> None:
    """GET /explain hands one address over, and answers with the explanation."""
    assert client.request("GET", "/explain?address=192.0.2.7").json == {"address": "192.0.2.7", "verdict": "admitted"}


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("", "name one address: GET /explain?address=192.0.2.7"),
        ("?address=192.0.2.7&address=192.0.2.8", "name one address"),
        ("?address=" + "1" * 5_000, "is not an address"),
        ("?address=x%1b", r"'x\x1b' is not a network"),
        ("?adress=192.0.2.7", "'adress' is not a parameter of this path: use address"),
    ],
)
def test_what_is_not_one_address_is_not_explained(client: Client, query: str, problem: str) -> None:
    """A request that does not name one address is answered 400 with the fix."""
    response = client.request("GET", f"/explain{query}")
    assert response.status == 400
    assert problem in response.error


def test_lists_the_settings(client: Client) -> None:
    """GET /settings lists each setting with its value and its source."""
    assert client.request("GET", "/settings").json == [{"name": "--grace", "value": "30", "source": "default"}]


# Paths


def test_a_route_is_all_that_a_path_needs(actions: FakeActions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new line of `ROUTES` is served, listed at ``/`` and named in errors."""
    route = Route("GET", "/clock", lambda actions, request: ApiResponse(200, "now"))
    monkeypatch.setattr(api, "ROUTES", (*ROUTES, route))
    client = client_of(actions)
    assert client.request("GET", "/clock").text == "now"
    assert "/clock" in client.request("GET", "/").text.split()
    assert client.request("GET", "/clock/x").error.endswith(" or /clock")


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method != "GET"], ids=str)
def test_every_change_needs_the_header_field(client: Client, actions: FakeActions, route: Route) -> None:
    """Without ``X-Pyryrelay-Admin: 1`` no request changes anything."""
    actions.outcome = Deferred()
    path = route.path.replace("ADDRESS", "192.0.2.7")
    response = client.request(route.method, path, GOOD_BODY)
    assert response.status == 403
    assert "X-Pyryrelay-Admin: 1" in response.error
    assert actions.added == []


@pytest.mark.parametrize("path", PATHS)
def test_every_path_checks_the_host(actions: FakeActions, path: str) -> None:
    """Every path answers the listener's own host names, and refuses others (DNS rebinding)."""
    client = client_of(actions, ["relay.internal"])
    assert client.request("HEAD", path, host="relay.internal:9090").status != 421
    assert client.request("GET", path, host="a.example").status == 421


def test_allowed_methods_are_those_of_the_path(client: Client) -> None:
    """A method that a path does not answer is 405, and ``Allow`` names those that it answers."""
    for path, allowed in (("/jail", "GET, POST, DELETE"), ("/reload", "POST"), ("/whoami", "GET")):
        response = client.change("PATCH", path)
        assert (response.status, response.fields["Allow"]) == (405, allowed)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.path == route.resource], ids=str)
def test_paths_below_are_not_found(client: Client, actions: FakeActions, route: Route) -> None:
    """A path below one that takes no argument is answered 404, with the paths that exist."""
    response = client.change(route.method, f"{route.path}/192.0.2.7", GOOD_BODY)
    assert response.status == 404
    assert response.error.startswith("there is nothing at this path: use /status, /jail, ")
    assert all(path in response.error for path in PATHS)
    assert actions.added == []


def test_the_site_lists_its_paths_beside_the_pages(client: Client) -> None:
    """Pages are served to any host name, and ``/`` lists them and the API."""
    assert client.request("GET", "/healthz", host="relay.internal").text == "ok"
    assert client.request("GET", "/").text.split() == ["/healthz", *PATHS]


class LateActions(FakeActions):
    """Actions of a relay whose answers come from another process."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[Any]] = []

    def _later(self) -> Deferred[Any]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def jail_entries(self, limit: int) -> Deferred[JailListing]:  # type: ignore[override]
        return self._later()

    def jail_add(self, network: IPNetwork, seconds: float) -> Deferred[JailEntry]:  # type: ignore[override]
        return self._later()

    def jail_release(self, network: IPNetwork) -> Deferred[str | None]:  # type: ignore[override]
        return self._later()

    def status(self) -> Deferred[Mapping[str, object]]:  # type: ignore[override]
        return self._later()

    def explain_client(self, address: str) -> Deferred[Mapping[str, object]]:  # type: ignore[override]
        return self._later()


@pytest.mark.parametrize(
    ("method", "path", "body", "answer", "status", "expected"),
    [
        ("GET", "/jail", "", JailListing([JAILED], 1), 200, [JAILED._asdict()]),
        ("POST", "/jail", GOOD_BODY, JAILED, 201, JAILED._asdict()),
        ("DELETE", "/jail/192.0.2.7", "", "192.0.2.7/32", 200, {"network": "192.0.2.7/32"}),
        ("GET", "/status", "", {"state": "running"}, 200, {"state": "running"}),
        ("GET", "/explain?address=192.0.2.7", "", {"verdict": "jailed"}, 200, {"verdict": "jailed"}),
    ],
)
def test_answers_that_come_later(
    method: str, path: str, body: str, answer: object, status: int, expected: object
) -> None:
    """They are those that come at once."""
    actions = LateActions()
    client = Client(admin_site({}, Clock(), api_resources(actions), open_access()))
    exchange = client.begin(method, path, body, X_Pyryrelay_Admin="1")
    assert exchange.sent == b""
    actions.waiting.pop().callback(answer)
    assert (exchange.response.status, exchange.response.json) == (status, expected)


def test_a_late_answer_that_nobody_is_jailed() -> None:
    """It is 404 as always, and a mistake of the operator is told as one."""
    actions = LateActions()
    client = Client(admin_site({}, Clock(), api_resources(actions), open_access()))
    exchange = client.begin("DELETE", "/jail/192.0.2.7", X_Pyryrelay_Admin="1")
    actions.waiting.pop().callback(None)
    assert exchange.response.status == 404
    exchange = client.begin("DELETE", "/jail/192.0.2.7", X_Pyryrelay_Admin="1")
    actions.waiting.pop().errback(AddressError("holds more than one client"))
    assert (exchange.response.status, exchange.response.error) == (400, "holds more than one client")
