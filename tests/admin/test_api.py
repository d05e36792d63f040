"""The admin API: what it answers, and whom it does not answer. Real requests to the real site, in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from pyryrelay.admin.api import JailEntry, JailListing, ReloadOutcome, api_resources
from pyryrelay.admin.site import admin_site
from pyryrelay.guard.address.lists import IPNetwork
from pyryrelay.guard.errors import AddressError
from pyryrelay.protocol import Page

PEER = IPv4Address("TCP", "127.0.0.1", 50_000)
JAILED = JailEntry("192.0.2.7/32", 599.5, 2)
GOOD_BODY = '{"address": "192.0.2.7", "seconds": 60}'


@dataclass
class FakeActions:
    """Remembers what it was asked, and answers as it is told."""

    forwarding_header: str = "x-forwarded-for"
    jailed: list[JailEntry] = field(default_factory=lambda: [JAILED])
    outcome: Deferred[ReloadOutcome] = field(default_factory=lambda: succeed(ReloadOutcome()))
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

    def explain(self, peer: str | None, lines: Sequence[str]) -> Sequence[str]:
        self.explained.append((peer, list(lines)))
        return [f"peer {peer} is a trusted proxy", "entry 1 <b> \x1b is the client"]


@dataclass(frozen=True)
class Reply:
    """A parsed response."""

    status: int
    fields: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> str:
        error = self.json["error"]
        assert isinstance(error, str)
        return error


class Client:
    """Speaks HTTP to an admin site with these actions."""

    def __init__(self, actions: FakeActions, names: Sequence[str] = (), peer: IAddress = PEER) -> None:
        pages = {"/healthz": lambda: Page(200, (), b"ok")}
        self.site = admin_site(pages, Clock(), api_resources(actions, names))
        self.peer = peer

    def send(self, content: str) -> tuple[Any, StringTransport]:
        """A connection on which these bytes arrived, one at a time."""
        channel = self.site.buildProtocol(self.peer)
        transport = StringTransport(peerAddress=self.peer)
        channel.makeConnection(transport)
        for byte in content.encode("latin-1"):
            channel.dataReceived(bytes([byte]))
        return channel, transport

    def ask(self, method: str, path: str, body: str = "", host: str = "127.0.0.1:9090", **fields: str) -> Reply:
        """One whole exchange; `fields` have underscores for hyphens."""
        channel, transport = self.send(_request(method, path, body, host, fields))
        channel.connectionLost(Failure(ConnectionLost()))
        return _parsed(transport)

    def change(self, method: str, path: str, body: str = "", **fields: str) -> Reply:
        """An exchange with the field that changes need."""
        return self.ask(method, path, body, X_Pyryrelay_Admin="1", **fields)


def _request(method: str, path: str, body: str, host: str, fields: dict[str, str]) -> str:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body])


def _parsed(transport: StringTransport) -> Reply:
    head, _, text = transport.value().decode().partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    parsed = dict(line.split(": ", 1) for line in fields)
    assert not any(name.lower().startswith("access-control") for name in parsed)
    return Reply(int(status.split()[1]), parsed, text)


@pytest.fixture
def actions() -> FakeActions:
    """What the API does."""
    return FakeActions()


@pytest.fixture
def client(actions: FakeActions) -> Client:
    """Who asks."""
    return Client(actions)


# The jail


def test_lists_the_jail(client: Client) -> None:
    """GET /jail lists network, seconds left and sentences in a row, and is not cached or sniffed."""
    reply = client.ask("GET", "/jail")
    assert (reply.status, reply.json) == (200, [{"network": "192.0.2.7/32", "seconds_left": 599.5, "times": 2}])
    assert reply.fields["Content-Type"] == "application/json; charset=utf-8"
    assert reply.fields["Cache-Control"] == "no-store"
    assert reply.fields["X-Content-Type-Options"] == "nosniff"
    assert reply.fields["X-Total-Count"] == "1"


def test_a_listing_is_bounded(client: Client, actions: FakeActions) -> None:
    """At most `limit` entries are listed, 1000 unless asked otherwise; the total is told."""
    actions.jailed = [JAILED] * 1_500
    for path, count in (("/jail", 1_000), ("/jail?limit=2", 2), ("/jail?limit=10000", 1_500)):
        reply = client.ask("GET", path)
        assert (len(reply.json), reply.fields["X-Total-Count"]) == (count, "1500")
    for text in ("0", "10001", "-1", "1e3", "", "x", "1&limit=2", "9" * 5_000):
        reply = client.ask("GET", f"/jail?limit={text}")
        assert (reply.status, "use 1 to 10000" in reply.error) == (400, True)


def test_head_is_get_without_a_body(client: Client) -> None:
    """HEAD has the fields of GET, and no body."""
    reply = client.ask("HEAD", "/jail")
    assert (reply.status, reply.text) == (200, "")
    assert int(reply.fields["Content-Length"]) == len(client.ask("GET", "/jail").text)


def test_jails_an_address(client: Client, actions: FakeActions) -> None:
    """POST /jail jails an address or a network for so many seconds, and answers with the entry."""
    reply = client.change("POST", "/jail", GOOD_BODY)
    assert (reply.status, reply.json) == (201, {"network": "192.0.2.7/32", "seconds_left": 60.0, "times": 0})
    client.change("POST", "/jail", '{"address": "2001:db8::/64", "seconds": 0.5}')
    assert actions.added == [("192.0.2.7/32", 60.0), ("2001:db8::/64", 0.5)]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "the body is not JSON"),
        ("address=192.0.2.7", "the body is not JSON"),
        ("[" * 4_000, "the body is not JSON"),
        ('{"address": "\xff"', "the body is not JSON"),
        ("[]", "no object with address and seconds"),
        ('{"address": "192.0.2.7"}', "no object with address and seconds"),
        ('{"address": "192.0.2.7", "seconds": 1, "why": ""}', "no object with address and seconds"),
        ('{"address": 7, "seconds": 1}', "address is no text"),
        ('{"address": "192.0.2.7", "seconds": "1"}', "seconds is no number"),
        ('{"address": "192.0.2.7", "seconds": true}', "seconds is no number"),
        ('{"address": "192.0.2.7", "seconds": 0}', "seconds is no number"),
        ('{"address": "192.0.2.7", "seconds": NaN}', "seconds is no number"),
        ('{"address": "192.0.2.7", "seconds": Infinity}', "seconds is no number"),
        ('{"address": "192.0.2.7", "seconds": 1' + "0" * 400 + "}", "up to 31622400"),
        ('{"address": "localhost", "seconds": 1}', "'localhost' is not a network"),
        ('{"address": "10.0.0.1/8", "seconds": 1}', "write '10.0.0.0/8'"),
        ('{"address": "10.0.0.0/8", "seconds": 1}', "more than one client"),
        ('{"address": "' + "1" * 500 + '", "seconds": 1}', "is no address: write"),
    ],
)
def test_a_bad_sentence_is_refused_with_the_fix(client: Client, actions: FakeActions, body: str, problem: str) -> None:
    """What cannot be meant is answered 400 with one line that says what to send."""
    reply = client.change("POST", "/jail", body)
    assert reply.status == 400
    assert problem in reply.error
    assert len(reply.error) < 400
    assert actions.added == []


@pytest.mark.parametrize("path", ["/jail/192.0.2.7", "/jail/192.0.2.7/32", "/jail/192.0.2.7%2F32"])
def test_releases_an_address(client: Client, path: str) -> None:
    """DELETE /jail/ADDRESS releases, whether the slash of a prefix length is escaped or not."""
    reply = client.change("DELETE", path)
    assert (reply.status, reply.json) == (200, {"network": "192.0.2.7/32"})


def test_who_is_not_jailed_cannot_be_released(client: Client) -> None:
    """Releasing somebody else is 404, nobody 404, and nonsense 400."""
    for path, status in (
        ("/jail/192.0.2.8", 404),
        ("/jail", 404),
        ("/jail/", 404),
        ("/jail/nonsense", 400),
        ("/jail/%ff%1b[2J", 400),
        (f"/jail/{'1' * 1000}", 400),
    ):
        reply = client.change("DELETE", path)
        assert reply.status == status
        assert reply.error.isprintable()


# Reload


def test_reload_tells_what_changed(client: Client, actions: FakeActions) -> None:
    """POST /reload answers 200 with what changed and what needs a restart."""
    actions.outcome = succeed(ReloadOutcome(("upgrade-quota",), ("listen",)))
    reply = client.change("POST", "/reload")
    assert reply.status == 200
    assert reply.json == {"changed": ["upgrade-quota"], "needs_restart": ["listen"], "error": None}


def test_a_configuration_that_is_refused_is_422(client: Client, actions: FakeActions) -> None:
    """A reload that failed answers 422 with the error."""
    actions.outcome = succeed(ReloadOutcome(error="deny.txt:3: 'x' is not a network"))
    reply = client.change("POST", "/reload")
    assert (reply.status, reply.error) == (422, "deny.txt:3: 'x' is not a network")


def test_reload_is_answered_when_it_is_done(client: Client, actions: FakeActions) -> None:
    """The answer waits for the files to be read."""
    actions.outcome = Deferred()
    _, transport = client.send(_request("POST", "/reload", "", "localhost", {"X-Pyryrelay-Admin": "1"}))
    assert transport.value() == b""
    actions.outcome.callback(ReloadOutcome())
    assert _parsed(transport).status == 200


def test_whoever_leaves_gets_no_answer(client: Client, actions: FakeActions) -> None:
    """A client that is gone when the reload is done is no error."""
    actions.outcome = Deferred()
    channel, transport = client.send(_request("POST", "/reload", "", "localhost", {"X-Pyryrelay-Admin": "1"}))
    channel.connectionLost(Failure(ConnectionLost()))
    actions.outcome.callback(ReloadOutcome())
    assert transport.value() == b""


def test_a_failure_tells_nothing_of_its_inside(client: Client, actions: FakeActions) -> None:
    """What nobody foresaw is 500 without details, and stands in the log."""
    actions.outcome = fail(RuntimeError("the secret"))
    events: list[LogEvent] = []
    remember = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(remember)
    try:
        reply = client.change("POST", "/reload")
    finally:
        globalLogPublisher.removeObserver(remember)
    assert (reply.status, reply.error) == (500, "the relay could not do that: see its log")
    assert [event["log_failure"].type for event in events if "log_failure" in event] == [RuntimeError]


# Who am I?


def test_explains_given_headers(client: Client, actions: FakeActions) -> None:
    """GET /whoami explains a peer and header lines that are given, as lines of text that a terminal can bear."""
    reply = client.ask("GET", "/whoami?peer=10.0.0.7&header=203.0.113.9,+10.0.0.7", X_Forwarded_For="6.6.6.6")
    assert actions.explained == [("10.0.0.7", ["203.0.113.9, 10.0.0.7"])]
    assert reply.text == "peer 10.0.0.7 is a trusted proxy\nentry 1 <b> \\x1b is the client\n"
    assert reply.fields["Content-Type"] == "text/plain; charset=utf-8"
    assert reply.fields["X-Content-Type-Options"] == "nosniff"


def test_explains_as_json(client: Client) -> None:
    """Who accepts JSON gets the steps as a list."""
    reply = client.ask("GET", "/whoami?peer=unix", Accept="application/json")
    assert reply.json == {"steps": ["peer None is a trusted proxy", "entry 1 <b> \\x1b is the client"]}


def test_explains_this_very_request(client: Client, actions: FakeActions) -> None:
    """Without parameters the request itself is explained: its peer, and its lines of the header that counts."""
    client.ask("GET", "/whoami", X_Forwarded_For="203.0.113.9", X_Real_IP="6.6.6.6")
    assert actions.explained == [("127.0.0.1", ["203.0.113.9"])]


def test_a_peer_on_a_unix_socket_has_no_address(actions: FakeActions) -> None:
    """A request through a UNIX socket is explained as one."""
    Client(actions, peer=UNIXAddress(None)).ask("GET", "/whoami")
    assert actions.explained == [(None, [])]


def test_the_peer_is_this_one_unless_given(client: Client, actions: FakeActions) -> None:
    """With header lines alone, the peer of the request stands in for the proxy."""
    client.ask("GET", "/whoami?header=203.0.113.9&header=10.0.0.7", X_Forwarded_For="6.6.6.6")
    assert actions.explained == [("127.0.0.1", ["203.0.113.9", "10.0.0.7"])]


def test_header_lines_may_have_their_name(client: Client, actions: FakeActions) -> None:
    """A line with the name of the header that counts is taken, one with another name is named as not read."""
    path = "/whoami?header=X-Forwarded-For:+203.0.113.9&header=x-real-ip:6.6.6.6&header=2001:db8::1&header=fe80::1"
    reply = client.ask("GET", path)
    assert actions.explained == [("127.0.0.1", ["203.0.113.9", "2001:db8::1", "fe80::1"])]
    assert reply.text.startswith("x-real-ip is not read: client addresses are taken from x-forwarded-for\n")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("peer=nonsense", "peer 'nonsense' is not one address: write peer=192.0.2.7, or peer=unix"),
        ("peer=", "is not one address"),
        ("peer=192.0.2.1&peer=192.0.2.2", "is not one address"),
        ("peer=" + "1" * 5000, "is not one address"),
        ("hedaer=x", "'hedaer' is no parameter here: use peer and header"),
        ("%1b[2J=x", "'\\x1b[2J' is no parameter here"),
    ],
)
def test_a_bad_question_is_refused_with_the_fix(client: Client, query: str, problem: str) -> None:
    """Parameters that cannot be meant are answered 400."""
    reply = client.ask("GET", f"/whoami?{query}")
    assert reply.status == 400
    assert problem in reply.error
    assert len(reply.error) < 400


# Who is not answered


@pytest.mark.parametrize(("method", "path"), [("POST", "/jail"), ("DELETE", "/jail/192.0.2.7"), ("POST", "/reload")])
def test_changes_need_a_field_that_no_page_can_send(
    client: Client, actions: FakeActions, method: str, path: str
) -> None:
    """Without `X-Pyryrelay-Admin: 1` nothing is changed, whatever else the request says."""
    actions.outcome = Deferred()
    for fields in ({}, {"X_Pyryrelay_Admin": "yes"}, {"Origin": "http://127.0.0.1:9090"}):
        reply = client.ask(method, path, GOOD_BODY, **fields)
        assert reply.status == 403
        assert "X-Pyryrelay-Admin: 1" in reply.error
    assert actions.added == []


def test_preflights_are_granted_to_nobody(client: Client) -> None:
    """OPTIONS is 405 without any CORS field, so a browser never sends what would change something."""
    reply = client.ask("OPTIONS", "/jail", Origin="http://a.example", Access_Control_Request_Method="POST")
    assert (reply.status, reply.fields["Allow"]) == (405, "GET, POST, DELETE")
    assert client.ask("GET", "/reload").error == "use one of POST here"
    assert client.change("BREW", "/whoami").status == 405


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9090", "10.0.0.5:80", "[::1]:9090", "localhost", "LOCALHOST:1", "relay.internal:9090"],
)
def test_hosts_that_nobody_can_point_here_are_answered(actions: FakeActions, host: str) -> None:
    """Addresses, localhost and the listener's own names are good in Host."""
    assert Client(actions, ["Relay.Internal"]).ask("GET", "/jail", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "a.example",
        "localhost.a.example",
        "127.0.0.1.a.example:9090",
        "",
        "[::1",
        "relay.internal",
        "a\r\nHost: localhost",
    ],
)
def test_names_of_others_are_refused(client: Client, actions: FakeActions, host: str) -> None:
    """A page that points its own name at this machine (DNS rebinding) reads and changes nothing."""
    for path in ("/jail", "/whoami"):
        reply = client.ask("GET", path, host=host)
        assert reply.status in (400, 421)
        assert "192.0.2.7" not in reply.text
    assert client.change("POST", "/jail", GOOD_BODY, host=host).status in (400, 421)
    assert actions.added == []


def test_long_bodies_are_dropped(client: Client, actions: FakeActions) -> None:
    """A body over 4 KiB is 413, with a length or in chunks, and is never kept; one of 4 KiB is read."""
    padded = f"{GOOD_BODY:<4096}"
    assert client.change("POST", "/jail", padded).status == 201
    assert client.change("POST", "/jail", padded + " ").status == 413
    chunks = "".join(f"400\r\n{'x' * 1024}\r\n" for _ in range(5)) + "0\r\n\r\n"
    head = "POST /jail HTTP/1.1\r\nHost: localhost\r\nX-Pyryrelay-Admin: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    _, transport = client.send(head + chunks)
    assert _parsed(transport).status == 413
    assert len(actions.added) == 1


def test_other_paths_are_not_found(client: Client) -> None:
    """Nothing is answered below a path that has nothing below it."""
    for path in ("/jail/192.0.2.7", "/whoami/x"):
        assert client.ask("GET", path).status == 404
    assert client.change("POST", "/jail/192.0.2.7", GOOD_BODY).status == 404
    assert client.change("POST", "/reload/x").status == 404


def test_the_site_lists_its_paths_beside_the_pages(client: Client) -> None:
    """Pages are served as before, and `/` lists them and the API."""
    assert client.ask("GET", "/healthz", host="relay.internal").text == "ok"
    assert client.ask("GET", "/").text.split() == ["/healthz", "/jail", "/reload", "/whoami"]
