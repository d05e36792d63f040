"""Decisions about request heads, without a connection: an upgrade, an answer, or none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.asking import HEALTH, PAGES, SMALL
from tests.support.harness import ALICE, BOB, KEY, PATH, World, client_of, request_head

from pyryrelay.guard import CidrSet, TrustPolicy
from pyryrelay.http.hosts import HostPolicy
from pyryrelay.http.routing import Upgrade, decide


def test_an_upgrade_has_all_that_it_needs() -> None:
    """An upgrade has the factory, the request with its client, and the key, and has spent no token yet."""
    world = World()
    decision = decide(world.context, request_head(PATH, "X-A: b"), ALICE)
    assert isinstance(decision, Upgrade)
    assert decision.factory is world.factory
    assert (decision.request.path, decision.request.client, decision.key) == (PATH, client_of(ALICE), KEY)
    assert decision.request.headers["x-a"] == ["b"]
    assert world.tokens_spent() == 0
    assert world.gate.leases.connections == 0


@pytest.mark.parametrize(
    ("raw", "start"),
    [
        (HEALTH, b"HTTP/1.1 200 OK\r\n"),
        (request_head("/nowhere"), b"HTTP/1.1 404 Not Found\r\n"),
        (request_head(method="PUT"), b"HTTP/1.1 405 Method Not Allowed\r\n"),
        (request_head(without=["Host"]), b"HTTP/1.1 400 Bad Request\r\n"),
    ],
)
def test_everything_else_is_an_answer(raw: bytes, start: bytes) -> None:
    """Any other decision is a whole response, ready to be sent."""
    world = World()
    decision = decide(world.context, raw, ALICE)
    assert isinstance(decision, bytes)
    assert decision.startswith(start)
    assert b"\r\nConnection: close\r\n\r\n" in decision


FORWARDING = TrustPolicy(True, proxies=CidrSet(["10.0.0.0/8"]), trust_unix=True)
BAD = [
    b"GET /v1/server HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6, " + ALICE.encode() + b"\r\nA: \x01\r\n\r\n",
    b"GET /v1/server HTTP/1.1\r\nx-forwarded-for:6.6.6.6\r\nX-Forwarded-For:" + ALICE.encode() + b"\r\n\r\n",
    b"\x16\x03\r\nX-FORWARDED-FOR: \x01, " + ALICE.encode() + b", 10.0.0.9\r\n" + b"A: b\r\n" * 200 + b"\r\n",
]


@pytest.mark.parametrize("raw", BAD)
@pytest.mark.parametrize("peer", ["10.0.0.7", None])
def test_behind_a_proxy_the_client_is_read_from_what_can_be_read(raw: bytes, peer: str | None) -> None:
    """An invalid head behind a proxy is paid, denied or jailed for its client like a valid one."""
    world = World(gate=replace(PAGES, deny=CidrSet([BOB])), trust=FORWARDING)
    for _ in range(4):
        decide(world.context, raw, peer)
    assert [entry[1:] for entry in world.observer.refusals] == [
        *[(world.observer.refusals[0][1], "bad_head", ALICE)] * 3,
        (429, "http_rate_limit", ALICE),
    ]
    decide(world.context, raw.replace(ALICE.encode(), BOB.encode()), peer)
    assert world.observer.refusals[-1] == (None, 403, "denied", BOB)
    world.gate.jail.add(client_of(ALICE).key, 60.0, world.clock.seconds())
    assert decide(world.context, raw, peer) == b""
    assert world.observer.refusals[-1] == (None, 403, "jailed", ALICE)


PLAIN = request_head(without=["Upgrade"])


def test_requests_that_ask_for_no_upgrade_have_their_own_quota() -> None:
    """Requests and attempts spend no token of each other, on an application's path too."""
    world = World(gate=replace(SMALL, http_quota=PAGES.http_quota))
    for _ in range(4):
        decide(world.context, PLAIN, ALICE)
    decide(world.context, request_head(method="POST", without=["Upgrade"]), BOB)
    assert world.observer.refusals == [
        *[("server", 426, "no_upgrade", ALICE)] * 3,
        ("server", 429, "http_rate_limit", ALICE),
        ("server", 405, "bad_method", BOB),
    ]
    assert world.observer.attempts == []
    assert isinstance(decide(world.context, request_head(), ALICE), Upgrade)
    assert world.tokens_spent() == 0


@pytest.mark.parametrize("field", ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: x"])
def test_an_upgrade_with_a_body(field: str) -> None:
    """An upgrade with a body is 400, since the body would be read as frames."""
    world = World()
    decide(world.context, request_head(PATH, field), ALICE)
    assert world.observer.refusals == [("server", 400, "bad_handshake", ALICE)]
    assert isinstance(decide(world.context, request_head(PATH, "Content-Length: 0"), ALICE), Upgrade)


def test_an_upgrade_that_expects_something() -> None:
    """RFC 9110 section 10.1.1: an expectation is not met, and the answer says so."""
    world = World()
    answer = decide(world.context, request_head(PATH, "Expect: 100-continue"), ALICE)
    assert isinstance(answer, bytes)
    assert answer.startswith(b"HTTP/1.1 417 Expectation Failed\r\n")


HOSTS = HostPolicy(["relay.example.org"])


def asked(world: World, host: str, *, path: str = PATH, plain: bool = False, server_name: bytes | None = None) -> int:
    """Return the status of the answer to a request for a host; 101 for an upgrade."""
    without = ["Host", *(["Upgrade"] if plain else [])]
    head = request_head(path, f"Host: {host}", without=without)
    decision = decide(world.context, head, ALICE, server_name=server_name)
    return 101 if isinstance(decision, Upgrade) else int(bytes(decision)[9:12])  # type: ignore[arg-type]


def hosted(**options: Any) -> World:
    """Return a world with one host."""
    world = World(**options)
    world.live.configure(world.live.trust, world.live.dropped, HOSTS)
    return world


def test_other_hosts_are_refused() -> None:
    """RFC 9110 section 15.5.20: requests for other hosts get 421, with or without an upgrade, on any path."""
    world = hosted()
    assert [asked(world, "relay.example.org:443"), asked(world, "evil.test")] == [101, 421]
    assert [asked(world, "RELAY.example.org", plain=True), asked(world, "evil.test", plain=True)] == [426, 421]
    assert [asked(world, "relay.example.org", path="/x"), asked(world, "192.0.2.1", path="/x")] == [404, 421]
    assert [entry[1:3] for entry in world.observer.refusals if entry[1] == 421] == [(421, "wrong_host")] * 3
    assert world.tokens_spent() == 1


def test_health_is_told_under_any_name() -> None:
    """A load balancer that asks for an address gets /healthz."""
    assert asked(hosted(), "10.0.0.5", path="/healthz") == 200


def test_requests_for_other_hosts_are_paid() -> None:
    """Quotas come first, so a flood of such requests gets 429."""
    world = hosted(gate=replace(SMALL, http_quota=PAGES.http_quota))
    assert [asked(world, "evil.test", path=path, plain=True) for path in ("/x", PATH, "/x", "/x")] == [
        421,
        421,
        421,
        429,
    ]
    assert {asked(world, "evil.test") for _ in range(20)} == {421, 429}


def test_a_request_without_a_host() -> None:
    """HTTP/1.0 may leave out the host, but it is not one of ours then."""
    head = request_head(without=["Host", "Upgrade"]).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert bytes(decide(hosted().context, head, ALICE)).startswith(b"HTTP/1.1 421 Misdirected Request\r\n")  # type: ignore[arg-type]
    assert bytes(decide(World().context, head, ALICE)).startswith(b"HTTP/1.1 426 ")  # type: ignore[arg-type]


@pytest.mark.parametrize(("target", "status"), [("http://evil.test", 421), ("HTTPS://relay.example.org:1", 426)])
def test_a_target_in_absolute_form(target: str, status: int) -> None:
    """RFC 9112 section 3.2.2: a server goes by the host of the target, so it must be ours as well as that of Host."""
    head = request_head(f"{target}{PATH}", "Host: relay.example.org", without=["Host", "Upgrade"])
    assert bytes(decide(hosted().context, head, ALICE))[9:12] == str(status).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "status"), [(None, 101), (b"relay.example.org", 101), (b"evil.test", 421)])
def test_the_name_of_tls(name: bytes | None, status: int) -> None:
    """TLS may be begun without a name or with one of ours; with another one, nothing is answered but 421."""
    assert asked(hosted(), "relay.example.org", server_name=name) == status


def test_the_name_of_tls_is_another_one_of_ours() -> None:
    """The name of TLS and Host may differ if both are ours."""
    world = World()
    world.live.configure(world.live.trust, world.live.dropped, HostPolicy(["*.example.org"]))
    assert asked(world, "a.example.org", server_name=b"b.example.org") == 101
