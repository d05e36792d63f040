"""Decisions about request heads, without a connection: an upgrade, an answer, or none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.asking import HEALTH, SMALL
from tests.support.harness import ALICE, BOB, KEY, PATH, World, client_of, request_head

from pyryrelay.guard import CidrSet, GateConfig, Quota, Reason, Refusal, TrustPolicy
from pyryrelay.http.routing import Upgrade, decide, refuse, refuse_admission, refuse_unread

PAGES = GateConfig(http_quota=Quota.parse("1/10s burst 3"))


def test_an_upgrade_has_all_that_it_needs() -> None:
    """The application's factory, the request with its client, and the key; no token is spent for it yet."""
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
    """A whole response, ready to be sent."""
    world = World()
    decision = decide(world.context, raw, ALICE)
    assert isinstance(decision, bytes)
    assert decision.startswith(start)
    assert b"\r\nConnection: close\r\n\r\n" in decision


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", None])
def test_what_cannot_be_read_is_paid_by_whoever_sent_it(raw: bytes | None) -> None:
    """Out of the quota of requests that ask for no upgrade; a strike it is only far beyond that."""
    world = World(gate=PAGES)
    for _ in range(4):
        refuse_unread(world.context, raw, ALICE, 400, "bad_head")
    assert world.observer.refusals == [(None, 400, "bad_head", ALICE)] * 3 + [(None, 429, "http_rate_limit", ALICE)]
    refuse_unread(world.context, raw, BOB, 400, "bad_head")
    assert world.observer.refusals[-1] == (None, 400, "bad_head", BOB)


FORWARDING = TrustPolicy(True, proxies=CidrSet(["10.0.0.0/8"]), trust_unix=True)
BAD = [
    b"GET /v1/server HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6, " + ALICE.encode() + b"\r\nA: \x01\r\n\r\n",
    b"GET /v1/server HTTP/1.1\r\nx-forwarded-for:6.6.6.6\r\nX-Forwarded-For:" + ALICE.encode() + b"\r\n\r\n",
    b"\x16\x03\r\nX-FORWARDED-FOR: \x01, " + ALICE.encode() + b", 10.0.0.9\r\n" + b"A: b\r\n" * 200 + b"\r\n",
]


@pytest.mark.parametrize("raw", BAD)
@pytest.mark.parametrize("peer", ["10.0.0.7", None])
def test_behind_a_proxy_the_client_is_read_from_what_can_be_read(raw: bytes, peer: str | None) -> None:
    """Its own quota pays, and if it is denied or in jail it hears that, or nothing, as with a good head."""
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


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"\x16\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nX-Forwarded-For: unknown\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nX-Forwarded-For: 198.51.100.7\r\n\r\n",
        b"GET / HTTP/1.1\r\nX-Forwarded-For : 198.51.100.7\r\n\r\n",
    ],
)
@pytest.mark.parametrize(("peer", "named"), [("10.0.0.7", "10.0.0.7"), (None, "None")])
def test_what_only_the_proxy_can_be_blamed_for(raw: bytes | None, peer: str | None, named: str) -> None:
    """It is paid from a quota of its own: the proxy's checks of our health must not suffer from its clients."""
    world = World(gate=PAGES, trust=FORWARDING)
    for _ in range(4):
        refuse_unread(world.context, raw, peer, 400, "bad_head")
    assert world.observer.refusals == [(None, 400, "bad_head", named)] * 3 + [(None, 429, "http_rate_limit", named)]
    assert world.gate.request(client_of("10.0.0.7"), world.clock.seconds()) is None


def test_a_proxy_that_was_not_named_is_not_blamed() -> None:
    """Believed for one hop, it could be jailed, and its checks with it: nobody is named."""
    world = World(gate=PAGES, trust=TrustPolicy(True))
    refuse_unread(world.context, None, "10.0.0.7", 431, "head_too_large")
    assert world.observer.refusals == [(None, 431, "head_too_large", "None")]


PLAIN = request_head(without=["Upgrade"])


def test_requests_that_ask_for_no_upgrade_have_their_own_quota() -> None:
    """On an application's path too: they spend no token of attempts, and none of theirs makes an attempt fail."""
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
    """It would be taken for frames: 400."""
    world = World()
    decide(world.context, request_head(PATH, field), ALICE)
    assert world.observer.refusals == [("server", 400, "bad_handshake", ALICE)]
    assert isinstance(decide(world.context, request_head(PATH, "Content-Length: 0"), ALICE), Upgrade)


def test_an_upgrade_that_expects_something() -> None:
    """RFC 9110 section 10.1.1: what is expected is not given, and the answer says so."""
    world = World()
    answer = decide(world.context, request_head(PATH, "Expect: 100-continue"), ALICE)
    assert isinstance(answer, bytes)
    assert answer.startswith(b"HTTP/1.1 417 Expectation Failed\r\n")


def test_a_refusal_is_observed_once_answered_or_not() -> None:
    """An answer is empty for a reason that is dropped, and for a status that has none."""
    world = World(gate=SMALL)
    world.drop("slow_head", Reason.DENIED)
    assert refuse(world.context, None, 408, "slow_head", None) == b""
    assert refuse(world.context, None, 0, "untrusted_proxy", None) == b""
    assert refuse(world.context, "server", 431, "head_too_large", client_of(ALICE)).startswith(b"HTTP/1.1 431 ")
    assert refuse_admission(world.context, None, Refusal(403, Reason.DENIED, None), None) == b""
    answer = refuse_admission(world.context, None, Refusal(429, Reason.UNATTRIBUTABLE, 5.0), None)
    assert b"\r\nRetry-After: 5\r\n" in answer
    assert world.observer.statuses == [408, 0, 431, 403, 429]
    assert (world.gate.counts[Reason.DENIED], world.gate.counts[Reason.UNATTRIBUTABLE]) == (1, 1)
