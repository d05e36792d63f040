"""PROXY headers of HTTP connections: from a trusted proxy only, in bounded time, and their source is the client."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from tests.support.asking import HEALTH, SMALL, answered, status, use_up
from tests.support.frames import frame
from tests.support.harness import ALICE, BOB, PATH, Connection, World, client_of, request_head
from tests.support.transports import Transport
from twisted.internet.address import UNIXAddress

from pyryrelay.guard import CidrSet, GateConfig, LeaseLimits, Reason, TrustPolicy
from pyryrelay.guard.address.clientip import Via
from pyryrelay.http.answering import LINGER_S
from pyryrelay.http.listener_context import HEAD_TIMEOUT_S
from pyryrelay.runtime.timer_wheel import SLOT_S

PROXY, INNER_PROXY = "10.0.0.1", "10.0.0.2"
TRUST = TrustPolicy(proxies=CidrSet([PROXY, INNER_PROXY]))
FORWARDING = TrustPolicy(trust_forwarded=True, proxies=TRUST.proxies)
V6 = "2001:db8::7"


def v1(source: str) -> bytes:
    """Return a version 1 header."""
    family, destination = ("TCP6", "2001:db8::1") if ":" in source else ("TCP4", "192.0.2.1")
    return f"PROXY {family} {source} {destination} 40000 443\r\n".encode("ascii")


def v2(source: str | None) -> bytes:
    """Return a version 2 header; None is the proxy's own connection (LOCAL)."""
    signature = bytes.fromhex("0D0A0D0A000D0A515549540A")
    if source is None:
        return signature + b"\x20\x00\x00\x00"
    packed = ip_address(source).packed
    block = packed * 2 + struct.pack("!HH", 40000, 443)
    return signature + (b"\x21\x11" if len(packed) == 4 else b"\x21\x21") + struct.pack("!H", len(block)) + block


UNKNOWN = b"PROXY UNKNOWN\r\n"


def world_behind(trust: TrustPolicy = TRUST, gate: GateConfig | None = None) -> World:
    """Return a world whose connections begin with a PROXY header."""
    return World(trust=trust, gate=gate, proxy_protocol=True)


def arrive(world: World, data: bytes, host: str = PROXY) -> Connection:
    """Return a connection of the proxy that has sent ``data``."""
    connection = world.connect(host)
    connection.feed(data)
    return connection


def end(world: World, *connections: Connection) -> None:
    """Lose what is left, and check that nothing is held."""
    for connection in connections:
        connection.settle()
        connection.transport.lose()
    world.assert_empty()


def assert_dropped(connection: Connection) -> None:
    """Check that the connection is cut off without a byte, whatever else arrives."""
    assert connection.is_cut_off()
    connection.protocol.dataReceived(HEALTH)
    assert connection.take() == b""


# The client address


@pytest.mark.parametrize("source", [BOB, V6])
@pytest.mark.parametrize("header", [v1, v2])
def test_the_source_is_the_client(header: Callable[[str], bytes], source: str) -> None:
    """Both versions name the client, of either family, and the attempt is the client's."""
    world = world_behind()
    connection = arrive(world, header(source) + request_head())
    assert connection.take().startswith(b"HTTP/1.1 101 ")
    assert str(world.application.sessions[0].request.client) == source
    assert (world.tokens_spent(source), world.tokens_spent(PROXY)) == (1, 0)
    end(world, connection)


@pytest.mark.parametrize("header", [UNKNOWN, v2(None), b"PROXY UNKNOWN whatever it says\r\n"])
def test_a_header_without_a_source_is_the_proxys_own_connection(header: bytes) -> None:
    """For LOCAL and UNKNOWN the client is the peer itself."""
    world = world_behind()
    connection = arrive(world, header + request_head())
    assert connection.take().startswith(b"HTTP/1.1 101 ")
    assert str(world.application.sessions[0].request.client) == PROXY
    end(world, connection)


@pytest.mark.parametrize("header", [v1(BOB), v2(BOB), v2(V6), v2(None), UNKNOWN])
def test_the_header_may_come_in_pieces(header: bytes) -> None:
    """Header, head and first frame may be cut at any byte, and may be one chunk."""
    data = header + request_head() + frame(b"early")
    for cut in range(len(data) + 1):
        world = world_behind()
        connection = arrive(world, data[:cut])
        connection.feed(data[cut:])
        assert world.application.sessions[0].received == [(b"early", False)], cut
        end(world, connection)
    world = world_behind()
    connection = world.connect(PROXY)
    for at in range(len(data)):
        connection.feed(data[at : at + 1])
    assert world.application.sessions[0].received == [(b"early", False)]
    end(world, connection)


def test_a_proxy_on_a_unix_socket() -> None:
    """If UNIX sockets are trusted, their header names the client, and without one there is no client address."""
    for header, code in ((v1(BOB), b"101"), (UNKNOWN, b"429")):
        world = world_behind(TrustPolicy(trust_unix=True))
        transport = Transport(UNIXAddress(None))
        connection = world.http_factory.buildProtocol(None)
        transport.connect(connection)
        connection.dataReceived(header + request_head())
        assert bytes(transport.taken).startswith(b"HTTP/1.1 " + code)
        transport.lose()
        world.assert_empty()


def test_a_trusted_source_may_forward() -> None:
    """A source that is a trusted proxy itself may forward, and its handshakes are not capped by address."""
    limits = LeaseLimits(max_handshakes_per_address=1)
    world = world_behind(FORWARDING, GateConfig(limits=limits))
    head = request_head(PATH, f"X-Forwarded-For: 192.0.2.66, {BOB}")
    first, second = arrive(world, v2(INNER_PROXY) + head[:-1]), arrive(world, v2(INNER_PROXY) + head[:-1])
    assert world.gate.leases.handshakes == 2
    for connection in (first, second):
        connection.feed(head[-1:])
        assert connection.take().startswith(b"HTTP/1.1 101 ")
    assert {str(session.request.client) for session in world.application.sessions} == {BOB}
    assert world.observer.attempts == [(BOB, Via.FURTHER_HOPS), (BOB, Via.FURTHER_HOPS)]
    end(world, first, second)


def test_any_other_source_may_not_forward() -> None:
    """What another source forwards is not trusted, although its proxy is."""
    world = world_behind(FORWARDING)
    connection = arrive(world, v1(ALICE) + request_head(PATH, f"X-Forwarded-For: {BOB}"))
    assert str(world.application.sessions[0].request.client) == ALICE
    assert world.observer.attempts == [(ALICE, Via.UNTRUSTED_HEADERS)]
    end(world, connection)


# Dropped connections


@pytest.mark.parametrize("trust", [TRUST, TrustPolicy(), TrustPolicy(trust_forwarded=True)])
def test_untrusted_peers_are_dropped(trust: TrustPolicy) -> None:
    """An untrusted peer is cut off at accept without a byte, counted once, and holds nothing."""
    world = world_behind(trust)
    connection = world.connect(ALICE)
    assert_dropped(connection)
    assert world.gate.leases.handshakes == 0
    assert world.observer.refusals == [(None, 0, "untrusted_proxy", ALICE)]
    end(world, connection)


NO_HEADERS = [HEALTH, b"\x16", b"PROXY TCP4 nonsense\r\n" + HEALTH, v2(BOB)[:12] + b"\x11" + HEALTH]


@pytest.mark.parametrize("data", NO_HEADERS)
def test_a_malformed_header_is_dropped(data: bytes) -> None:
    """A malformed header is cut off without a byte, counted once, and is no strike."""
    world = world_behind()
    connection = arrive(world, data)
    assert_dropped(connection)
    assert world.observer.refusals == [(None, 0, "bad_proxy_header", "None")]
    end(world, connection)


@pytest.mark.parametrize("data", [b"", v1(BOB)[:-1], v2(BOB)[:-1]])
def test_a_slow_header_is_dropped(data: bytes) -> None:
    """A header that does not come in time is cut off without a byte."""
    world = world_behind()
    connection = arrive(world, data)
    world.pass_time(HEAD_TIMEOUT_S - 0.25)
    assert not connection.is_cut_off()
    world.pass_time(0.25 + 2 * SLOT_S)
    assert_dropped(connection)
    assert world.observer.refusals == []
    end(world, connection)


def test_header_and_head_have_one_deadline() -> None:
    """Header and head have one deadline; a late head is the source's."""
    world = world_behind()
    connection = world.connect(PROXY)
    world.pass_time(HEAD_TIMEOUT_S - 0.5)
    connection.feed(v1(BOB) + request_head()[:-1])
    world.pass_time(0.5 + 2 * SLOT_S)
    assert status(connection) == 408
    assert world.observer.refusals == [(None, 408, "slow_head", BOB)]
    end(world, connection)


# The handshake's lease


def test_the_handshake_becomes_the_sources() -> None:
    """Before its header a connection counts for the global cap only, afterwards for its source too, always once."""
    world = world_behind(gate=GateConfig(limits=LeaseLimits(max_handshakes_per_address=1)))
    first, second, third = (world.connect(PROXY) for _ in range(3))
    assert world.gate.leases.handshakes == 3
    first.feed(v1(ALICE))
    assert world.gate.leases.handshakes == 3
    second.feed(v1(ALICE))
    assert world.gate.leases.handshakes == 2
    assert second.take() == b""
    third.feed(v1(BOB) + HEALTH)
    assert status(third) == 200
    second.feed(HEALTH)
    answer = answered(second)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 5\r\n" in answer
    assert world.observer.refusals == [(None, 429, "handshake_address_cap", ALICE)]
    assert world.observer.counts[Reason.HANDSHAKE_ADDRESS_CAP] == 1
    first.transport.lose()
    assert world.gate.leases.handshakes == 1
    end(world, second, third)


def test_a_refused_source_has_the_linger_time() -> None:
    """A source that was refused and sends nothing is cut off after the linger time."""
    world = world_behind(gate=GateConfig(deny=CidrSet([ALICE])))
    connection = arrive(world, v1(ALICE))
    assert connection.take() == b""
    world.pass_time(LINGER_S + 2 * SLOT_S)
    assert_dropped(connection)
    assert world.observer.refusals == [(None, 403, "denied", ALICE)]
    end(world, connection)


def test_a_denied_source_gets_its_answer() -> None:
    """Request and header in one chunk are answered at once, and the proxy is not denied for it."""
    world = world_behind(gate=GateConfig(deny=CidrSet([ALICE])))
    connection = arrive(world, v2(ALICE) + HEALTH)
    assert status(connection) == 403
    assert status(arrive(world, v2(BOB) + HEALTH)) == 200


def test_a_jailed_source_is_dropped_right_after_its_header() -> None:
    """A jailed source is dropped without a byte, and other sources of the same proxy go on."""
    world = world_behind()
    world.gate.jail.add(client_of(ALICE).key, 100.0, world.clock.seconds())
    neighbour = arrive(world, v1(BOB))
    connection = arrive(world, v1(ALICE))
    assert_dropped(connection)
    assert world.observer.refusals == [(None, 403, "jailed", ALICE)]
    assert world.observer.counts[Reason.JAILED] == 1
    neighbour.feed(HEALTH)
    assert status(neighbour) == 200
    end(world, connection, neighbour)


def test_the_quota_is_the_sources() -> None:
    """A source without tokens does not affect another behind the same proxy."""
    world = world_behind(gate=SMALL)
    use_up(world, ALICE)
    assert status(arrive(world, v1(ALICE) + request_head())) == 429
    assert arrive(world, v1(BOB) + request_head()).take().startswith(b"HTTP/1.1 101 ")


# The end


@pytest.mark.parametrize("header", [v1(BOB), v2(BOB)])
@pytest.mark.parametrize("wait_s", [0.0, HEAD_TIMEOUT_S + LINGER_S + 2.0])
def test_a_peer_that_leaves_after_any_byte_leaves_nothing_behind(header: bytes, wait_s: float) -> None:
    """Nothing is held for a connection, wherever it ends."""
    script = header + HEALTH
    for stop in range(len(script) + 1):
        world = world_behind()
        connection = arrive(world, script[:stop])
        world.pass_time(wait_s, step_s=0.5)
        connection.transport.lose()
        world.assert_empty()
