"""Admission of HTTP connections: caps at accept, then quota, caps and headers in this order."""

from __future__ import annotations

import pytest
from tests.support.asking import HEALTH, SMALL, answered, ask, status, use_up
from tests.support.harness import ALICE, BOB, DATE, PATH, World, client_of, request_head
from tests.support.transports import Transport
from twisted.internet.address import UNIXAddress

from pyryrelay.guard import CidrSet, GateConfig, LeaseLimits, Reason, TrustPolicy
from pyryrelay.http.answering import LINGER_S
from pyryrelay.protocol import HttpRefusal
from pyryrelay.runtime.timer_wheel import SLOT_S

# Refused at accept


@pytest.mark.parametrize(
    ("limits", "code", "reason"),
    [
        (LeaseLimits(max_handshakes=2, max_handshakes_per_address=2), 503, Reason.HANDSHAKE_CAP),
        (LeaseLimits(max_handshakes=9, max_handshakes_per_address=2), 429, Reason.HANDSHAKE_ADDRESS_CAP),
    ],
)
def test_handshake_caps(limits: LeaseLimits, code: int, reason: Reason) -> None:
    """A connection over a cap on handshakes is answered once its request arrives, and counted once."""
    world = World(gate=GateConfig(limits=limits))
    held = [world.connect(), world.connect()]
    connection = world.connect()
    assert connection.take() == b""
    connection.feed(request_head()[:1])
    answer = answered(connection)
    assert answer.startswith(f"HTTP/1.1 {code} ".encode())
    assert b"\r\nRetry-After: 5\r\n" in answer
    assert world.observer.refusals == [(None, code, reason.value, ALICE)]
    assert world.observer.counts[reason] == 1
    assert world.tokens_spent() == 0
    for other in [*held, connection]:
        other.transport.lose()
    world.assert_empty()


def test_one_addresss_handshakes_are_not_anothers() -> None:
    """The cap of one address does not affect others."""
    world = World(gate=GateConfig(limits=LeaseLimits(max_handshakes_per_address=1)))
    world.connect(ALICE)
    assert status(ask(world, HEALTH, ALICE)) == 429
    assert status(ask(world, HEALTH, BOB)) == 200


def test_denied_at_accept() -> None:
    """A denied address gets 403 before its head is parsed."""
    world = World(gate=GateConfig(deny=CidrSet([ALICE])))
    connection = ask(world, b"\x16\x03\x01")
    answer = answered(connection)
    assert answer == b"HTTP/1.1 403 Forbidden" + DATE + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    assert world.observer.refusals == [(None, 403, "denied", ALICE)]
    assert world.observer.counts[Reason.DENIED] == 1


def test_denied_at_accept_and_slow() -> None:
    """A denied peer whose request comes a second later is answered as well, once."""
    world = World(gate=GateConfig(deny=CidrSet([ALICE])))
    connection = world.connect()
    world.pass_time(1.0)
    assert not connection.is_cut_off()
    connection.feed(request_head()[:1])
    assert answered(connection).startswith(b"HTTP/1.1 403 Forbidden\r\n")
    connection.feed(request_head()[1:])
    assert connection.take() == b""
    assert world.observer.refusals == [(None, 403, "denied", ALICE)]
    connection.settle()
    world.assert_empty()


def test_refused_at_accept_and_silent() -> None:
    """A refused connection that sends nothing is dropped after the linger time, without an answer."""
    world = World(gate=GateConfig(deny=CidrSet([ALICE])))
    connection = world.connect()
    world.pass_time(LINGER_S + 2 * SLOT_S)
    assert connection.is_cut_off()
    assert connection.take() == b""
    connection.settle()
    world.assert_empty()


def test_refused_connections_are_bounded_too() -> None:
    """If too many refused connections wait, further ones are cut off at once."""
    world = World(gate=GateConfig(limits=LeaseLimits(max_handshakes=4, max_handshakes_per_address=4)))
    connections = [world.connect() for _ in range(10)]
    assert [connection.is_cut_off() for connection in connections] == [False] * 8 + [True] * 2
    for connection in connections:
        connection.settle()
        connection.transport.lose()
    world.assert_empty()


# Quota, caps, headers: in this order, and one token for each attempt


def bad_headers(world: World) -> None:
    """Let the header gate refuse everything."""
    world.application.gate = lambda request: HttpRefusal(400, "missing_header")


def full(world: World) -> None:
    """Take the only place."""
    world.gate.leases.limits = LeaseLimits(max_connections=1)
    world.upgraded(BOB)


def test_the_quota_goes_before_caps_and_headers() -> None:
    """Without a token the answer is 429 with the time until the next one, and spends nothing."""
    world = World(gate=SMALL)
    full(world)
    bad_headers(world)
    use_up(world)
    world.clock.advance(4.0)
    answer = answered(ask(world, request_head(without=["Sec-WebSocket-Key"])))
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 6\r\n" in answer
    assert world.observer.refusals == [("server", 429, "rate_limit", ALICE)]
    assert world.observer.counts[Reason.RATE_LIMIT] == 1
    world.clock.advance(6.0)
    assert world.gate.peek(client_of(ALICE), "server", world.clock.seconds()) is not None  # The cap.
    assert status(ask(world, request_head())) == 503


def test_caps_go_before_headers_and_spend() -> None:
    """A full relay answers 503 with `Retry-After`, and the attempt spends its token."""
    world = World(gate=SMALL)
    full(world)
    bad_headers(world)
    answer = answered(ask(world, request_head(without=["Sec-WebSocket-Key"])))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 5\r\n" in answer
    assert world.observer.refusals == [("server", 503, "global_cap", ALICE)]
    assert world.observer.counts[Reason.GLOBAL_CAP] == 1
    assert world.tokens_spent() == 1


def test_the_cap_per_address() -> None:
    """A connection over the cap of its address is 429, and spends its token."""
    world = World(gate=GateConfig(limits=LeaseLimits(max_connections_per_address=2)))
    world.upgraded()
    world.upgraded()
    assert status(ask(world, request_head())) == 429
    assert world.observer.refusals == [("server", 429, "address_cap", ALICE)]
    assert world.tokens_spent() == 3


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (request_head(), 101),
        (request_head(method="POST"), 405),
        (request_head(without=["Connection"]), 426),
        (request_head(PATH, "Upgrade: h2c", without=["Upgrade"]), 426),
        (request_head(without=["Sec-WebSocket-Key"]), 400),
    ],
)
def test_every_attempt_spends_one_token(data: bytes, code: int) -> None:
    """An attempt spends exactly one token, whatever is wrong with it."""
    world = World()
    assert int(ask(world, data).take().split()[1]) == code
    assert world.tokens_spent() == 1


def test_refused_headers_spend_one_token() -> None:
    """A 400 of the header gate costs what an upgrade costs."""
    world = World()
    bad_headers(world)
    assert status(ask(world, request_head())) == 400
    assert world.tokens_spent() == 1


@pytest.mark.parametrize("data", [request_head("/nowhere"), b"nonsense\r\n\r\n", HEALTH])
def test_what_is_no_attempt_spends_nothing(data: bytes) -> None:
    """Requests on other paths are no attempts."""
    world = World()
    ask(world, data)
    assert world.tokens_spent() == 0


def test_the_burst_is_spent_exactly() -> None:
    """As many upgrades as the burst has tokens succeed at once, and the next is refused."""
    world = World()
    codes = [int(ask(world, request_head()).take().split()[1]) for _ in range(21)]
    assert codes == [101] * 20 + [429]


# The client address


PROXIED = TrustPolicy(trust_forwarded=True, proxies=CidrSet([ALICE]), trust_unix=True)


def test_a_trusted_proxy_names_the_client() -> None:
    """Behind a proxy the quota is the client's, whose address may be on any line of the header."""
    world = World(gate=SMALL, trust=PROXIED)
    lines = [f"X-Forwarded-For: 192.0.2.9, {BOB}", "X-Forwarded-For:"]
    codes = [int(ask(world, request_head(PATH, *lines)).take().split()[1]) for _ in range(4)]
    assert codes == [101, 101, 101, 429]
    assert str(world.application.sessions[0].request.client) == BOB
    assert world.tokens_spent("192.0.2.9") == 0
    assert world.observer.refusals == [("server", 429, "rate_limit", BOB)]


def test_a_proxys_handshakes_are_not_capped_per_address() -> None:
    """Handshakes of a trusted proxy count for the global cap only."""
    limits = LeaseLimits(max_handshakes=4, max_handshakes_per_address=1)
    world = World(gate=GateConfig(limits=limits), trust=PROXIED)
    for _ in range(4):
        world.connect()
    assert world.gate.leases.handshakes == 4
    assert status(ask(world, HEALTH)) == 503


def test_an_unattributable_attempt_is_429_and_spends_nothing() -> None:
    """If a proxy names no client, the answer is 429 with a wait, and no bucket is touched."""
    world = World(trust=PROXIED)
    answer = answered(ask(world, request_head(PATH, "X-Forwarded-For: unknown")))
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 5\r\n" in answer
    assert world.observer.refusals == [("server", 429, "unattributable", "None")]
    assert world.gate.tracked == 0
    assert status(ask(world, HEALTH)) == 200


def test_a_unix_socket_without_a_proxy_is_unattributable() -> None:
    """A peer on a UNIX socket without a trusted proxy has no client address."""
    world = World()
    transport = Transport(UNIXAddress(None))
    connection = world.http_factory.buildProtocol(None)
    transport.connect(connection)
    connection.dataReceived(request_head())
    assert bytes(transport.taken).startswith(b"HTTP/1.1 429 ")
    transport.settle()
    world.assert_empty()


def test_behind_the_proxy_protocol_no_address_is_counted_at_accept() -> None:
    """At accept a peer behind the PROXY protocol is neither denied nor capped."""
    limits = LeaseLimits(max_handshakes_per_address=1)
    world = World(gate=GateConfig(limits=limits, deny=CidrSet([ALICE])), behind_proxy_protocol=True)
    connections = [world.connect(), world.connect()]
    assert world.observer.refusals == []
    connections[0].feed(request_head())
    assert status(connections[0]) == 403
