"""Decisions about request heads, without a connection: an upgrade, an answer, or none."""

from __future__ import annotations

import pytest
from tests.wire.asking import HEALTH, SMALL
from tests.wire.harness import ALICE, BOB, KEY, PATH, World, client_of, request_head

from pyryrelay.guard import Reason, Refusal
from pyryrelay.wire.decision import Upgrade, decide, refuse, refuse_admission


def test_an_upgrade_has_all_that_it_needs() -> None:
    """The application's factory, the request with its client, and the key; no token is spent for it yet."""
    world = World()
    decision = decide(world.config, request_head(PATH, "X-A: b"), ALICE, client_of(ALICE))
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
        (request_head(method="PUT"), b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n"),
        (request_head(without=["Host"]), b"HTTP/1.1 400 Bad Request\r\n"),
    ],
)
def test_everything_else_is_an_answer(raw: bytes, start: bytes) -> None:
    """A whole response, ready to be sent."""
    world = World()
    decision = decide(world.config, raw, ALICE, client_of(ALICE))
    assert isinstance(decision, bytes)
    assert decision.startswith(start)
    assert b"\r\nConnection: close\r\n\r\n" in decision


def test_a_head_that_cannot_be_read_is_the_nearest_clients() -> None:
    """Whoever is known without a head is who sent it."""
    world = World()
    decide(world.config, b"nonsense\r\n\r\n", ALICE, client_of(BOB))
    decide(world.config, b"nonsense\r\n\r\n", ALICE, None)
    assert [client for _, _, _, client in world.observer.refusals] == [BOB, "None"]


def test_a_refusal_is_observed_once_answered_or_not() -> None:
    """An answer is empty for a reason that is dropped, and for a status that has none."""
    world = World(gate=SMALL)
    world.config.dropped = frozenset({"slow_head", Reason.DENIED})
    assert refuse(world.config, None, 408, "slow_head", None) == b""
    assert refuse(world.config, None, 0, "untrusted_proxy", None) == b""
    assert refuse(world.config, "server", 431, "head_too_large", client_of(ALICE)).startswith(b"HTTP/1.1 431 ")
    assert refuse_admission(world.config, None, Refusal(403, Reason.DENIED, None), None) == b""
    answer = refuse_admission(world.config, None, Refusal(429, Reason.UNATTRIBUTABLE, 5.0), None)
    assert b"\r\nRetry-After: 5\r\n" in answer
    assert world.observer.statuses == [408, 0, 431, 403, 429]
    assert (world.gate.counts[Reason.DENIED], world.gate.counts[Reason.UNATTRIBUTABLE]) == (1, 1)
