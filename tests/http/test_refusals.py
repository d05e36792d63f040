"""Refusals: what is recorded and observed, which quota pays, and the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.asking import PAGES, SMALL
from tests.support.harness import ALICE, BOB, DATE, World, client_of

from pyryrelay.guard import CidrSet, GateConfig, LeaseLimits, Reason, Refusal, TrustPolicy
from pyryrelay.guard.address.clientip import Via
from pyryrelay.http.refusals import (
    record_departure,
    refuse,
    refuse_admission,
    refuse_arrival,
    refuse_attempt,
    refuse_request,
    refuse_unread,
)

FORWARDING = TrustPolicy(True, proxies=CidrSet(["10.0.0.0/8"]), trust_unix=True)
CAPPED = Refusal(503, Reason.HANDSHAKE_CAP, 5.0)


def test_a_refusal_is_observed_once_answered_or_not() -> None:
    """A refusal is observed once, and its answer is empty for a dropped reason or without a status."""
    world = World(gate=SMALL)
    world.drop("slow_head", Reason.DENIED)
    assert refuse(world.context, None, 408, "slow_head", None) == b""
    assert refuse(world.context, None, 0, "untrusted_proxy", None) == b""
    assert refuse(world.context, "server", 431, "head_too_large", client_of(ALICE)).startswith(b"HTTP/1.1 431 ")
    assert refuse_admission(world.context, None, Refusal(403, Reason.DENIED, None), None) == b""
    answer = refuse_admission(world.context, None, Refusal(429, Reason.UNATTRIBUTABLE, 5.0), None)
    assert b"\r\nRetry-After: 5\r\n" in answer
    assert world.observer.statuses == [408, 0, 431, 403, 429]
    assert (world.observer.counts[Reason.DENIED], world.observer.counts[Reason.UNATTRIBUTABLE]) == (1, 1)


@pytest.mark.parametrize(
    ("status", "fields", "found"),
    [
        (405, (), b"Allow: GET\r\n"),
        (405, (("Allow", "GET, HEAD"),), b"Allow: GET, HEAD\r\n"),
        (426, (), b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        (426, (("Link", "</>"),), b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nLink: </>\r\n"),
        (404, (("Link", "</>"),), b"Link: </>\r\n"),
    ],
)
def test_a_status_has_the_fields_that_it_requires(
    status: int, fields: tuple[tuple[str, str], ...], found: bytes
) -> None:
    """RFC 9110 requires fields with 405 and 426, and a given field replaces the one of its name."""
    world = World()
    head = refuse(world.context, None, status, "a_reason", None, fields)
    connection = b"Upgrade, close" if status == 426 else b"close"
    assert head.partition(DATE)[2] == found + b"Content-Length: 0\r\nConnection: " + connection + b"\r\n\r\n"


def test_an_attempt_is_observed_only_if_it_is_refused() -> None:
    """An attempt is observed only if it is refused; without an address it is no attempt of a client."""
    world = World(gate=SMALL)
    arguments = (Via.UNTRUSTED_HEADERS, world.clock.seconds())
    assert refuse_attempt(world.context, "server", client_of(ALICE), *arguments) is None
    assert (world.observer.attempts, world.observer.refusals) == ([], [])
    world.tokens_spent()
    answer = refuse_attempt(world.context, "server", client_of(ALICE), *arguments)
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert world.observer.attempts == [(ALICE, Via.UNTRUSTED_HEADERS)]
    assert refuse_attempt(world.context, "server", None, *arguments) is not None
    assert world.observer.attempts == [(ALICE, Via.UNTRUSTED_HEADERS)]
    assert world.observer.refusals == [("server", 429, "rate_limit", ALICE), ("server", 429, "unattributable", "None")]


def test_a_request_is_paid_once() -> None:
    """Each call takes one token of the quota of requests, until there is none."""
    world = World(gate=PAGES)
    answers = [refuse_request(world.context, "server", client_of(ALICE), world.clock.seconds()) for _ in range(4)]
    assert answers[:3] == [None] * 3
    assert answers[3] is not None
    assert world.observer.refusals == [("server", 429, "http_rate_limit", ALICE)]


def test_a_crowd_is_not_answered() -> None:
    """An arrival is refused without an answer while more than twice as many connections wait as may."""
    world = World(gate=GateConfig(limits=LeaseLimits(max_handshakes=2, max_handshakes_per_address=1)))
    assert refuse_arrival(world.context, CAPPED, client_of(ALICE), 4).startswith(b"HTTP/1.1 503 ")
    assert refuse_arrival(world.context, CAPPED, client_of(ALICE), 5) == b""
    assert world.observer.refusals == [(None, 503, "handshake_cap", ALICE)] * 2


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", None])
def test_the_sender_pays_for_what_cannot_be_read(raw: bytes | None) -> None:
    """An invalid head costs a token of the quota of requests."""
    world = World(gate=PAGES)
    for _ in range(4):
        refuse_unread(world.context, raw, ALICE, 400, "bad_head")
    assert world.observer.refusals == [(None, 400, "bad_head", ALICE)] * 3 + [(None, 429, "http_rate_limit", ALICE)]
    refuse_unread(world.context, raw, BOB, 400, "bad_head")
    assert world.observer.refusals[-1] == (None, 400, "bad_head", BOB)


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
    """An invalid head without a client has a quota of its own, apart from that of the proxy's health checks."""
    world = World(gate=PAGES, trust=FORWARDING)
    for _ in range(4):
        refuse_unread(world.context, raw, peer, 400, "bad_head")
    assert world.observer.refusals == [(None, 400, "bad_head", named)] * 3 + [(None, 429, "http_rate_limit", named)]
    assert world.gate.request(client_of("10.0.0.7"), world.clock.seconds()) is None


def test_a_proxy_that_was_not_named_is_not_blamed() -> None:
    """For a proxy that was not configured the refusal names no client, so that it is not jailed."""
    world = World(gate=PAGES, trust=TrustPolicy(True))
    refuse_unread(world.context, None, "10.0.0.7", 431, "head_too_large")
    assert world.observer.refusals == [(None, 431, "head_too_large", "None")]


def test_a_head_behind_a_proxy_names_its_client() -> None:
    """The client that a whole head names pays for it, and a denied one gets its refusal."""
    world = World(gate=replace(PAGES, deny=CidrSet([BOB])), trust=FORWARDING)
    for client in (ALICE, BOB):
        raw = f"GET / HTTP/1.1\r\nX-Forwarded-For: {client}\r\nA: \x01\r\n\r\n".encode()
        refuse_unread(world.context, raw, "10.0.0.7", 400, "bad_head")
    assert world.observer.refusals == [(None, 400, "bad_head", ALICE), (None, 403, "denied", BOB)]


@pytest.mark.parametrize(("has_begun", "reasons"), [(False, ["no_request"] * 2), (True, ["unfinished_head"] * 62)])
def test_departures_without_a_request(has_begun: bool, reasons: list[str]) -> None:
    """A departure that had begun a request is refused, and so are others beyond one a second."""
    world = World()
    for _ in range(62):
        record_departure(world.context, client_of(ALICE), has_begun=has_begun)
    assert [(status, reason) for _, status, reason, _ in world.observer.refusals] == [(0, reason) for reason in reasons]


def test_departures_of_unknown_clients() -> None:
    """Refusals for departures of unknown clients name no client."""
    world = World()
    for has_begun in (False, True):
        record_departure(world.context, None, has_begun=has_begun)
    assert world.observer.refusals == []


def test_fields_of_a_route_are_in_its_refusals() -> None:
    """Fields that a route wants in every answer are in all refusals on its paths, once, and nowhere else."""
    fields = (("Access-Control-Allow-Origin", "*"), ("Vary", "Origin"))
    world = World(gate=SMALL, answer_fields=fields)
    refused = Refusal(429, Reason.RATE_LIMIT, 5.0)
    for answer in (
        refuse(world.context, "server", 503, "slow_answer", None),
        refuse(world.context, "server", 405, "bad_method", None, (("Vary", "Origin"), ("Allow", "GET, HEAD"))),
        refuse_admission(world.context, "server", refused, None),
    ):
        assert answer.count(b"\r\nAccess-Control-Allow-Origin: *\r\n") == answer.count(b"\r\nVary: Origin\r\n") == 1
    assert b"\r\nRetry-After: 5\r\n" in refuse_admission(world.context, "server", refused, None)
    assert b"Access-Control" not in refuse(world.context, None, 404, "unknown_path", None)
    assert b"Access-Control" not in refuse_admission(world.context, None, refused, None)
    assert World().context.answer_fields == {}
