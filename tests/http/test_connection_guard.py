"""The guard in HTTP connections: dropped instead of answered, further quotas, and what is observed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.asking import HEALTH, SMALL, answered, ask, status, use_up
from tests.support.harness import ALICE, BOB, DATE, PATH, Connection, World, client_of, request_head
from tests.support.transports import Transport, tcp_address
from twisted.internet.address import UNIXAddress
from twisted.protocols.policies import WrappingFactory

from pyryrelay.guard import CidrSet, GateConfig, LeaseLimits, Quota, Reason, TrustPolicy
from pyryrelay.guard.address.clientip import Via
from pyryrelay.http import connection as http_connection
from pyryrelay.http.hosts import HostPolicy
from pyryrelay.http.listener_context import HEAD_TIMEOUT_S
from pyryrelay.http.message import MAX_HEAD_BYTES
from pyryrelay.protocol import HttpRefusal
from pyryrelay.runtime.timer_wheel import SLOT_S

PROXY = "10.0.0.1"
PROXIED = TrustPolicy(trust_forwarded=True, proxies=CidrSet([PROXY, "127.0.0.1"]))


def forwarded(client: str, path: str = PATH) -> bytes:
    """Return a request that a proxy forwards."""
    return request_head(path, f"X-Forwarded-For: {client}")


def end(world: World, *connections: Connection) -> None:
    """Lose what is left, and check that nothing is held."""
    for connection in connections:
        connection.settle()
        connection.transport.lose()
    world.assert_empty()


# Dropped


def no_tokens(world: World) -> Connection:
    """Be over the quota."""
    use_up(world)
    return ask(world, request_head())


def no_place(world: World) -> Connection:
    """Be over a cap."""
    world.gate.leases.limits = LeaseLimits(max_connections_per_address=1)
    world.upgraded()
    return ask(world, request_head())


def no_handshake(world: World) -> Connection:
    """Be over a cap at accept."""
    world.gate.leases.limits = LeaseLimits(max_handshakes_per_address=1)
    world.connect()
    return world.connect()


def bad_headers(world: World) -> Connection:
    """Be refused by the application."""
    world.application.gate = lambda request: HttpRefusal(400, "missing_header")
    return ask(world, request_head())


def slow_head(world: World) -> Connection:
    """Send half a head, and nothing more."""
    connection = ask(world, request_head()[:-1])
    world.pass_time(HEAD_TIMEOUT_S + 2 * SLOT_S)
    return connection


def draining(world: World) -> Connection:
    """Come while draining."""
    world.live.drain()
    return ask(world, request_head())


def wrong_host(world: World) -> Connection:
    """Ask for another host."""
    world.live.configure(world.live.trust, world.live.dropped, HostPolicy(["relay.example.org"]))
    return ask(world, request_head())


DROPS: dict[str, Callable[[World], Connection]] = {
    "rate_limit": no_tokens,
    "address_cap": no_place,
    "handshake_address_cap": no_handshake,
    "missing_header": bad_headers,
    "slow_head": slow_head,
    "draining": draining,
    "unknown_path": lambda world: ask(world, request_head("/nowhere")),
    "wrong_host": wrong_host,
    "bad_head": lambda world: ask(world, b"nonsense\r\n\r\n"),
    "bad_method": lambda world: ask(world, HEALTH.replace(b"GET", b"POST")),
    "no_upgrade": lambda world: ask(world, request_head(without=["Upgrade"])),
    "head_too_large": lambda world: ask(world, b"x" * (MAX_HEAD_BYTES + 1)),
}


@pytest.mark.parametrize("reason", DROPS)
def test_a_reason_may_be_dropped_instead_of_answered(reason: str) -> None:
    """Refusals for a dropped reason are aborted without a byte, and recorded and observed once like others."""
    for dropped, answers in ((frozenset({reason}), 0), (frozenset(DROPS) - {reason}, 1)):
        world = World(gate=SMALL)
        world.drop(*dropped)
        connection = DROPS[reason](world)
        connection.feed(b"\r\n")
        assert connection.is_cut_off() is not bool(answers)
        assert connection.take().count(b"HTTP/1.1 ") == answers
        assert [found for _, _, found, _ in world.observer.refusals] == [reason]
        connection.settle()
        assert connection.protocol not in world.context.waiting


def test_what_is_dropped_costs_its_token() -> None:
    """An attempt that is dropped spends its token."""
    world = World()
    world.drop("bad_handshake")
    connection = ask(world, request_head(without=["Sec-WebSocket-Key"]))
    assert world.tokens_spent() == 1
    end(world, connection)


# Jailed


def test_a_jailed_peer_is_dropped_at_accept() -> None:
    """A jailed peer is neither read nor answered, and holds nothing."""
    world = World()
    world.gate.jail.add(client_of(ALICE).key, 100.0, world.clock.seconds())
    connection = world.connect()
    assert connection.is_cut_off()
    assert world.gate.leases.handshakes == 0
    assert world.observer.refusals == [(None, 403, "jailed", ALICE)]
    assert world.observer.counts[Reason.JAILED] == 1
    connection.protocol.dataReceived(HEALTH)
    assert connection.take() == b""
    assert len(world.observer.refusals) == 1
    world.pass_time(100.0)
    later = ask(world, HEALTH)
    assert status(later) == 200
    end(world, connection, later)


@pytest.mark.parametrize(("path", "route"), [(PATH, "server"), ("/healthz", None), ("/nowhere", None)])
@pytest.mark.parametrize("quota", [None, Quota.parse("1/10s burst 3")])
def test_a_jailed_client_behind_a_proxy_is_dropped_at_its_head(
    path: str, route: str | None, quota: Quota | None
) -> None:
    """Only the request of the jailed client is cut off, and the proxy goes on for others and itself."""
    world = World(trust=PROXIED, gate=GateConfig(http_quota=quota))
    world.gate.jail.add(client_of(BOB).key, 100.0, world.clock.seconds())
    neighbour = world.connect(PROXY)
    connection = ask(world, forwarded(BOB, path), PROXY)
    assert connection.is_cut_off()
    assert connection.take() == b""
    assert world.observer.refusals == [(route, 403, "jailed", BOB)]
    assert world.observer.counts[Reason.JAILED] == 1
    assert (world.gate.tracked, world.gate.leases.connections) == (0, 0)
    neighbour.feed(forwarded(ALICE))
    assert neighbour.take().startswith(b"HTTP/1.1 101 ")
    other = ask(world, HEALTH, PROXY)
    assert status(other) == 200
    end(world, connection, neighbour, other)


# Quotas of requests and of prefixes

REQUESTS = GateConfig(http_quota=Quota.parse("1/10s burst 3"))


def test_requests_without_an_upgrade_have_a_quota() -> None:
    """Pages and unknown paths share a quota; over it the answer is 429 with `Retry-After` and the quota."""
    world = World(gate=REQUESTS)
    codes = [status(ask(world, data)) for data in (HEALTH, request_head("/nowhere"), HEALTH)]
    assert codes == [200, 404, 200]
    world.clock.advance(3.5)
    for data in (HEALTH, request_head("/nowhere")):
        answer = answered(ask(world, data))
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 7\r\n" in answer
        assert b'\r\nRateLimit-Policy: "http_rate_limit";q=1;w=10\r\n' in answer
        assert b'\r\nRateLimit: "http_rate_limit";r=0;t=7\r\n' in answer
    assert world.observer.refusals[1:] == [(None, 429, "http_rate_limit", ALICE)] * 2
    assert world.observer.counts[Reason.HTTP_RATE_LIMIT] == 2
    assert status(ask(world, HEALTH, BOB)) == 200
    world.clock.advance(6.5)
    assert status(ask(world, HEALTH)) == 200


def test_upgrades_and_requests_do_not_count_as_each_other() -> None:
    """Attempts spend no token of requests, and requests none of attempts."""
    world = World(gate=REQUESTS)
    for _ in range(5):
        ask(world, request_head())
        ask(world, request_head(without=["Sec-WebSocket-Key"]))
    assert [status(ask(world, HEALTH)) for _ in range(4)] == [200, 200, 200, 429]
    assert world.tokens_spent() == 10


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1"])
def test_this_machines_probes_are_exempt(host: str) -> None:
    """Pages are exempt from the quota for loopback, and unknown paths are not."""
    world = World(gate=REQUESTS)
    assert [status(ask(world, HEALTH, host)) for _ in range(9)] == [200] * 9
    assert [status(ask(world, request_head("/nowhere"), host)) for _ in range(4)] == [404, 404, 404, 429]
    assert status(ask(world, HEALTH, host)) == 200


def test_clients_of_a_proxy_on_this_machine_are_not_exempt() -> None:
    """The exemption is for a client on loopback, and not for clients of a proxy there."""
    world = World(gate=REQUESTS, trust=PROXIED)
    codes = [status(ask(world, forwarded(BOB, "/healthz"), "127.0.0.1")) for _ in range(4)]
    assert codes == [200, 200, 200, 429]
    assert world.observer.refusals == [(None, 429, "http_rate_limit", BOB)]


@pytest.mark.parametrize(
    ("gate", "data", "code"),
    [
        (REQUESTS, HEALTH, b"200"),
        (REQUESTS, request_head("/nowhere"), b"429"),
        (REQUESTS, forwarded("unknown", "/healthz"), b"429"),
        (GateConfig(), forwarded("unknown", "/healthz"), b"200"),
    ],
)
def test_requests_through_a_unix_socket(gate: GateConfig, data: bytes, code: bytes) -> None:
    """A request through a UNIX socket is exempt if it was not forwarded, and else needs an address."""
    world = World(gate=gate, trust=TrustPolicy(trust_forwarded=True, trust_unix=True))
    transport = Transport(UNIXAddress(None))
    connection = world.http_factory.buildProtocol(None)
    transport.connect(connection)
    connection.dataReceived(data)
    assert bytes(transport.taken).startswith(b"HTTP/1.1 " + code)
    transport.settle()
    world.assert_empty()


def test_a_prefix_has_a_quota_in_http() -> None:
    """Addresses of a prefix share a quota, and a refusal by it spends no token of the address."""
    world = World(gate=GateConfig(prefix_quota=Quota.parse("1/30s burst 2")))
    codes = [ask(world, request_head(), f"198.51.100.{host}").take().split()[1] for host in (1, 2)]
    assert codes == [b"101", b"101"]
    world.clock.advance(10.0)
    answer = answered(ask(world, request_head(), "198.51.100.3"))
    assert answer.startswith(
        b"HTTP/1.1 429 Too Many Requests" + DATE + b"Retry-After: 20\r\n"
        b'RateLimit-Policy: "prefix_rate_limit";q=1;w=30\r\nRateLimit: "prefix_rate_limit";r=0;t=20\r\n'
    )
    assert world.observer.refusals == [("server", 429, "prefix_rate_limit", "198.51.100.3")]
    assert ask(world, request_head(), "198.51.101.3").take().startswith(b"HTTP/1.1 101 ")


def test_the_fields_tell_the_clients_own_quota() -> None:
    """`RateLimit-Policy` has the steady rate, `RateLimit` what is left and when there is more."""
    world = World(gate=GateConfig(upgrade_quota=Quota.parse("10/minute burst 20")))
    use_up(world)
    answer = answered(ask(world, request_head()))
    assert b'\r\nRateLimit-Policy: "rate_limit";q=10;w=60\r\nRateLimit: "rate_limit";r=0;t=6\r\n' in answer


# What is observed


@pytest.mark.parametrize("field", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP"])
def test_an_attempt_that_forwards_without_our_trust(field: str) -> None:
    """An untrusted peer that sends any of the usual headers is reported, and a trusted one is not."""
    line = f"{field}: {BOB}"
    for trust, host, expected in (
        (TrustPolicy(), ALICE, (ALICE, Via.UNTRUSTED_HEADERS)),
        (PROXIED, ALICE, (ALICE, Via.UNTRUSTED_HEADERS)),
        (PROXIED, PROXY, (BOB if field == "X-Forwarded-For" else PROXY, Via.DIRECT)),
        (TrustPolicy(trust_forwarded=True), ALICE, (BOB if field == "X-Forwarded-For" else ALICE, Via.DIRECT)),
    ):
        world = World(trust=trust)
        connection = ask(world, request_head(PATH, line), host)
        assert world.observer.attempts == [expected]
        end(world, connection)


def test_every_attempt_is_observed_once() -> None:
    """Each attempt is observed once, refused or not, and whether it forwards."""
    world = World(gate=SMALL)
    for _ in range(5):
        ask(world, request_head())
    ask(world, request_head(without=["Sec-WebSocket-Key"]), BOB)
    ask(world, request_head(without=["Upgrade"]), BOB)
    assert world.observer.attempts == [(ALICE, Via.DIRECT)] * 5 + [(BOB, Via.DIRECT)]


@pytest.mark.parametrize(
    ("data", "host"),
    [
        (HEALTH, PROXY),
        (request_head("/nowhere", f"X-Forwarded-For: {BOB}"), ALICE),
        (b"nonsense\r\n\r\n", ALICE),
        (request_head(PATH, "X-Forwarded-For: unknown"), PROXY),
    ],
)
def test_other_requests_are_not_observed_as_attempts(data: bytes, host: str) -> None:
    """Pages, unknown paths, garbage and requests without an address are not observed as attempts."""
    world = World(trust=PROXIED)
    ask(world, data, host)
    assert world.observer.attempts == []


@pytest.mark.parametrize(
    "data",
    [
        request_head(),
        request_head(without=["Upgrade"]),
        request_head("/nowhere"),
        HEALTH,
        b"nonsense\r\n\r\n",
        b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_a_decision_takes_its_time_once(data: bytes) -> None:
    """Each complete head has one duration, whatever is decided, failures included."""

    def fail() -> None:
        raise RuntimeError("planted")

    world = World()
    world.pages["/broken"] = fail
    connection = world.connect()
    connection.feed(data[:-1])
    assert world.observer.decisions == []
    connection.feed(data[-1:])
    connection.feed(data)
    (seconds,) = world.observer.decisions
    assert seconds >= 0.0
    world.pass_time(10.0)
    end(world, connection)
    assert len(world.observer.decisions) == 1


@pytest.mark.parametrize("data", [HEALTH, request_head(), request_head("/nowhere")])
def test_how_long_a_decision_took(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The duration is from the complete head to the end of what was decided, in seconds."""
    clock = iter([10.0, 10.25])
    world = World()
    connection = world.connect()
    connection.feed(data[:-1])
    monkeypatch.setattr(http_connection, "perf_counter", lambda: next(clock))
    connection.feed(data[-1:])
    assert world.observer.decisions == [0.25]


def test_what_has_no_complete_head_is_not_decided_about() -> None:
    """Heads that are too large or too slow, and refusals at accept, have no duration."""
    world = World(gate=GateConfig(deny=CidrSet([BOB])))
    ask(world, b"x" * (MAX_HEAD_BYTES + 1))
    ask(world, HEALTH[:-1])
    ask(world, HEALTH, BOB)
    world.pass_time(10.0)
    assert world.observer.statuses == [431, 403, 408]
    assert world.observer.decisions == []


def test_each_accepted_transport_is_reported_once() -> None:
    """Each accepted transport is reported once, even if its peer is dropped at once."""
    world = World()
    world.gate.jail.add(client_of(BOB).key, 100.0, world.clock.seconds())
    first, second = ask(world, request_head()), world.connect(BOB)
    assert world.accepted == [first.transport, second.transport]
    end(world, first, second)


def test_the_accepted_transport_is_that_of_the_socket() -> None:
    """The reported transport is the innermost one, also under TLS."""
    world = World()
    transport = Transport(tcp_address(ALICE))
    stack = WrappingFactory(WrappingFactory(world.http_factory)).buildProtocol(tcp_address(ALICE))
    transport.connect(stack)
    assert world.accepted == [transport]
    stack.dataReceived(HEALTH)
    assert bytes(transport.taken).startswith(b"HTTP/1.1 200 ")
    transport.lose()
    world.assert_empty()
