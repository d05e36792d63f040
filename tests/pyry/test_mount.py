"""Pyry as it is mounted: its paths, what its options become, its part of health and metrics, and its end."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import cast

import pytest
from tests.support.pyry import A, FakePeer, address
from tests.support.services import services
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from pyryrelay.guard import Quota, ThrottlePolicy
from pyryrelay.guard.rate.quota import ByteQuota
from pyryrelay.mounts import Settings
from pyryrelay.protocol import Request
from pyryrelay.protocol_options import RoutePolicy
from pyryrelay.pyry.applications import REFUSAL_WORDS
from pyryrelay.pyry.log import LOG_FIELDS
from pyryrelay.pyry.metrics import PyryCollector
from pyryrelay.pyry.mount import PYRY, Pyry
from pyryrelay.pyry.relay import ENDPOINTS

PHONE, BINARY = "/v1/client", "/v1/server"
MOVED = [(1001, "shutting down")]
HEADERS = {"x-pyrycode-server": (A,), "x-pyrycode-version": ("1",), "user-agent": ("x",)}


@pytest.fixture
def clock() -> Clock:
    """The clock of the relay."""
    return Clock()


@pytest.fixture
def pyry(clock: Clock) -> Pyry:
    """The protocol of a relay with the default settings, to which no peer has connected."""
    protocol = PYRY.build(Settings(), services(clock))
    protocol.configure(Settings())
    return protocol


def connect(pyry: Pyry, path: str) -> FakePeer:
    """Return a new peer that was upgraded on a path."""
    peer = FakePeer()
    pyry.routes[path].opened(peer, Request(path, HEADERS, address()))
    return peer


def test_paths_lead_to_the_two_applications(pyry: Pyry) -> None:
    """Version 1 and version 2 of a path have the same application."""
    assert {path: application.name for path, application in pyry.routes.items()} == {
        "/v1/server": "server",
        "/v2/server": "server",
        "/v1/client": "client",
        "/v2/client": "client",
    }
    assert pyry.routes["/v1/server"] is pyry.routes["/v2/server"]
    assert pyry.routes["/v1/client"] is pyry.routes["/v2/client"]


def test_a_phone_of_one_version_meets_a_binary_of_the_other(pyry: Pyry) -> None:
    """All paths share one registry."""
    connect(pyry, "/v1/server")
    assert connect(pyry, "/v2/client").closes == []
    assert pyry.registry.phone_count == 1


def test_options_become_policies() -> None:
    """Binaries and phones have caps and quotas of their own, and share the bound on messages and the ping quota."""
    frames, pings, size = Quota(1, 1.0, 1), Quota(2, 1.0, 2), ByteQuota(1024, 1.0, 1024)
    settings = Settings(
        max_binary_connections=6,
        max_phone_connections=5,
        max_binaries_per_address=4,
        binary_frame_quota=frames,
        binary_byte_quota=None,
        frame_quota=None,
        byte_quota=size,
        ping_quota=pings,
        excess_timeout_s=60.0,
        max_message_bytes=2048,
    )
    assert PYRY.routes(settings) == {
        "server": RoutePolicy(
            6, 4, ThrottlePolicy(frames=frames, pings=pings, excess_timeout_s=60.0), 2048, claims_key=True
        ),
        "client": RoutePolicy(5, None, ThrottlePolicy(bytes=size, pings=pings, excess_timeout_s=60.0), 2048),
    }
    assert tuple(PYRY.routes(settings)) == ENDPOINTS


def test_options_reach_the_registry(pyry: Pyry) -> None:
    """The grace, the cap on phones and the quota of dropped envelopes change while the relay runs."""
    quota = Quota(3, 1.0, 3)
    pyry.configure(Settings(grace_s=5.0, max_phones=2, dropped_envelope_quota=quota))
    assert (pyry.registry.grace_s, pyry.registry.max_phones) == (5.0, 2)
    assert pyry.relay.dropped_envelope_quota is quota


def test_health_counts_peers(pyry: Pyry) -> None:
    """`/healthz` has the number of binaries and of phones, under the keys of the specification."""
    assert pyry.health() == {"connected_binaries": 0, "connected_phones": 0}
    connect(pyry, "/v1/server")
    connect(pyry, "/v1/client")
    connect(pyry, "/v1/client")
    assert pyry.health() == {"connected_binaries": 1, "connected_phones": 2}


def test_metrics_count_refusals_of_the_transport(clock: Clock) -> None:
    """The collector reads the refusals that the transport counts."""
    refused: Counter[tuple[str | None, str]] = Counter()
    (collector,) = PYRY.build(Settings(), services(clock, refused)).collectors()
    assert isinstance(collector, PyryCollector)
    assert collector.refused() is refused


def test_no_timer_is_left_at_the_end(pyry: Pyry, clock: Clock) -> None:
    """A grace that runs at the end leaves no delayed call, and none is started afterwards."""
    peer = FakePeer()
    session = pyry.routes["/v1/server"].opened(peer, Request("/v1/server", HEADERS, address()))
    session.closed(1006, "")
    assert clock.getDelayedCalls()
    pyry.stop()
    assert not clock.getDelayedCalls()
    connect(pyry, "/v1/server")
    assert not clock.getDelayedCalls()


def test_what_the_protocol_is_called() -> None:
    """Its name, words and log fields are those of the modules that use them."""
    assert (PYRY.name, PYRY.refusal_words, PYRY.log_fields) == ("pyry", REFUSAL_WORDS, LOG_FIELDS)


def test_what_is_held(clock: Clock) -> None:
    """A server-id is held until its grace is over, and that is told once."""
    vacated: list[str] = []
    pyry = PYRY.build(Settings(), replace(services(clock), vacated=vacated.append))
    pyry.configure(Settings())
    assert not pyry.holds(A)
    binary = FakePeer()
    session = pyry.routes["/v1/server"].opened(binary, Request("/v1/server", HEADERS, address()))
    assert pyry.holds(A)
    assert list(pyry.held_keys()) == [A]
    session.closed(1006, "")
    assert pyry.holds(A)
    assert vacated == []
    clock.advance(Settings().grace_s)
    assert not pyry.holds(A)
    assert vacated == [A]
    assert list(pyry.held_keys()) == []


def test_a_server_id_that_is_held_elsewhere(pyry: Pyry) -> None:
    """The binary is closed with 1011 and its phones with 4404; to give up what is not held is nothing."""
    binary, phone = connect(pyry, "/v1/server"), connect(pyry, "/v1/client")
    pyry.evict("another")
    assert binary.closes == phone.closes == []
    pyry.evict(A)
    assert binary.closes == [(1011, "server-id is held elsewhere")]
    assert phone.closes == [(4404, "binary reclaimed server-id")]
    assert not pyry.holds(A)


def test_questions_of_a_successor_before_anything_moves(pyry: Pyry) -> None:
    """The first one changes nothing, and a group that is asked for moves at once; the process can take it all back."""
    binary, phone = connect(pyry, BINARY), connect(pyry, PHONE)
    assert json.loads(cast(bytes, pyry.answer(b"held"))) == [A]
    assert connect(pyry, PHONE).closes == []
    assert pyry.answer(f"move {A}".encode()) == b""
    assert binary.closes == phone.closes == MOVED
    assert json.loads(cast(bytes, pyry.answer(b"held"))) == [A]
    late = connect(pyry, PHONE)
    assert late.closes == MOVED  # it was accepted before
    assert pyry.hand_over(0.0).called
    pyry.take_back()
    again = connect(pyry, BINARY)
    assert again.closes == []


class Before:
    """A process before this one, which held some server-ids."""

    def __init__(self, *held: str) -> None:
        self.asked: list[bytes] = []
        self._held = json.dumps(held).encode()

    def ask(self, question: bytes) -> Deferred[bytes | None]:
        """Answer what is held; nobody else is there any more."""
        self.asked.append(question)
        return succeed(self._held if question == b"held" else b"free")

    def when_released(self) -> Deferred[None]:
        """Never."""
        return Deferred()


@pytest.mark.parametrize("is_moving", [False, True])
def test_two_successions_in_a_row(pyry: Pyry, is_moving: bool) -> None:
    """A binary that has not come here goes to the next process, where its phones wait for it."""
    pyry.start(Before(A, "other"))
    phone = connect(pyry, PHONE)
    assert phone.closes == []
    if is_moving:
        assert pyry.hand_over(0.0).called
        assert phone.closes == MOVED
    assert json.loads(cast(bytes, pyry.answer(b"held"))) == sorted([A, "other"])


def test_a_binary_that_has_come(pyry: Pyry) -> None:
    """It is held, and not expected any more."""
    pyry.start(Before(A))
    connect(pyry, BINARY)
    assert json.loads(cast(bytes, pyry.answer(b"held"))) == [A]
    pyry.evict(A)
    assert json.loads(cast(bytes, pyry.answer(b"held"))) == []


def test_a_server_id_that_moves(pyry: Pyry) -> None:
    """The binary and its phones are closed with 1001, so that they connect again; others stay."""
    binary, phone = connect(pyry, "/v1/server"), connect(pyry, "/v1/client")
    pyry.move("another")
    assert binary.closes == phone.closes == []
    pyry.move(A)
    assert [code for code, _ in (*binary.closes, *phone.closes)] == [1001, 1001]
    assert not pyry.holds(A)
