"""The mixin in front of a plain Autobahn server: what it sends, and when leases are released."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import txaio
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.frames import close_frame, close_of, decode, frame
from tests.support.harness import ALICE, client_of, request_head
from tests.support.plain_server import plain_server
from tests.support.transports import Transport, tcp_address
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from pyryrelay.guard import (
    CidrSet,
    ClientAddress,
    Gate,
    GateConfig,
    JailPolicy,
    Lease,
    LeaseLimits,
    Quota,
    Reason,
    Refusal,
    Sentence,
    TrustPolicy,
)
from pyryrelay.websocket.guarded import Guarded, peer_host, refusal_fields

SMALL = GateConfig(upgrade_quota=Quota.parse("1/10s burst 2"))
DATED = re.compile(rb"\r\nDate: [A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT\r\n")


def undated(answer: bytes) -> bytes:
    """Return an answer without the date, which is right behind its status line."""
    first, found, rest = answer.partition(b"\r\n")
    date = DATED.match(found + rest)
    assert date is not None
    return first + b"\r\n" + (found + rest)[date.end() :]


class Counting(Gate):
    """A gate that records the end of its leases."""

    def __init__(self, config: GateConfig | None = None) -> None:
        super().__init__(config)
        self.asked = 0
        self.releases: list[bool] = []

    def admit(self, address: Any, route: str, now: float) -> Lease | Refusal:
        """Ask the real gate, and watch the lease."""
        self.asked += 1
        outcome = super().admit(address, route, now)
        return Watched(outcome, self.releases) if isinstance(outcome, Lease) else outcome


class Watched(Lease):
    """A lease that records each release, and whether the place was still held."""

    def __init__(self, lease: Lease, releases: list[bool]) -> None:  # It stands for another lease.
        self._lease, self._releases = lease, releases

    def release(self) -> None:
        """Release the real one."""
        self._releases.append(self._lease._leases is not None)
        self._lease.release()


class Echo(Guarded, WebSocketServerProtocol):  # type: ignore[misc]  # Autobahn's own bases disagree
    """An echo server, as another program would have it."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Echo the message."""
        self.sendMessage(payload, isBinary)  # type: ignore[no-untyped-call]


class Rig:
    """Connections to one guarded echo server."""

    def __init__(
        self,
        config: GateConfig | None = None,
        trust: TrustPolicy = TrustPolicy(),  # noqa: B008
        base: type[Echo] = Echo,
    ) -> None:
        self.clock = Clock()
        self.gate = gate = Counting(config)
        now, policy = self.clock.seconds, trust

        self.told: list[str] = []
        told = self.told

        class Server(base):  # type: ignore[valid-type,misc]
            def on_refused(self, client: ClientAddress | None, refusal: Refusal, now: float) -> Sentence | None:
                told.append(refusal.reason)
                sentence: Sentence | None = super().on_refused(client, refusal, now)
                return sentence

        Server.gate, Server.trust, Server.now = gate, policy, staticmethod(now)
        self.server = Server

    def connect(self, head: bytes | None = None, peer: IAddress | None = None) -> tuple[Echo, Transport]:
        """Return a connection that has sent ``head``, by default an upgrade."""
        protocol, transport = plain_server(self.clock, self.server, peer)
        protocol.dataReceived(request_head("/") if head is None else head)
        return protocol, transport

    def use_up(self) -> None:
        """Spend the burst."""
        while self.gate.peek(client_of(ALICE), "websocket", self.clock.seconds()) is None:
            _, transport = self.connect()
            transport.lose()
        self.gate.asked = 0
        self.gate.releases.clear()
        self.told.clear()


def is_upgraded(transport: Transport) -> bool:
    """Tell whether the handshake was completed."""
    return bytes(transport.taken).startswith(b"HTTP/1.1 101 ")


@pytest.fixture(autouse=True)
def _no_reactor() -> Iterator[None]:
    """Let Autobahn's timers run on no clock at all."""
    config: Any = txaio.config  # type: ignore[attr-defined]  # made when a framework is chosen
    loop, config.loop = config.loop, Clock()
    yield
    config.loop = loop


def test_an_admitted_client_talks() -> None:
    """Within the quota the server behaves as without the mixin."""
    rig = Rig()
    protocol, transport = rig.connect()
    assert is_upgraded(transport)
    transport.taken.clear()
    protocol.dataReceived(frame(b"hello"))
    assert [bytes(found.data) for found in decode(bytes(transport.taken))] == [b"hello"]
    assert rig.gate.leases.connections_by_route == {"websocket": 1}


def test_a_refusal_is_one_complete_answer() -> None:
    """429 has `Retry-After`, no body and `Connection: close`, and no 101 follows it."""
    rig = Rig(SMALL)
    rig.use_up()
    rig.clock.advance(3.5)
    protocol, transport = rig.connect()
    expected = (
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n"
        b'RateLimit-Policy: "rate_limit";q=1;w=10\r\nRateLimit: "rate_limit";r=0;t=7\r\n'
        b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert undated(bytes(transport.taken)) == expected
    assert transport.disconnecting
    protocol.dataReceived(request_head("/") + frame(b"more"))
    transport.settle()
    assert undated(bytes(transport.taken)) == expected
    assert rig.gate.asked == 1
    assert rig.told == ["rate_limit"]
    assert rig.gate.releases == []


def test_refusals_are_strikes_and_jail() -> None:
    """A client that does not wait is jailed by the mixin alone, and the last refusal is counted like the others."""
    limits = LeaseLimits(max_connections_per_address=2)
    rig = Rig(replace(SMALL, limits=limits, jail=JailPolicy(refusals=20, first_s=60)))
    answers = [bytes(rig.connect()[1].taken) for _ in range(2 + 2 + 10)]
    assert [answer[9:12] for answer in answers] == [b"101"] * 2 + [b"429"] * 12
    assert bytes(rig.connect()[1].taken).startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert rig.told == ["rate_limit"] * 2 + ["queue_full"] * 10 + ["jailed"]
    rig.clock.advance(61)
    assert rig.gate.peek(client_of(ALICE), "websocket", rig.clock.seconds()) != Refusal(403, Reason.JAILED, None)


class Telling(Echo):
    """A server that records what it refuses."""

    told: ClassVar[list[tuple[str, str, int | None]]] = []

    def on_refused(self, client: ClientAddress | None, refusal: Refusal, now: float) -> Sentence | None:
        """Record the refusal."""
        sentence = super().on_refused(client, refusal, now)
        self.told.append((str(client), refusal.reason, None if sentence is None else sentence.times))
        return sentence


def test_refusals_are_reported() -> None:
    """`on_refused` gets each refusal, and whether that led to jail."""
    rig = Rig(replace(SMALL, deny=CidrSet(ALICE), jail=JailPolicy(refusals=2)), base=Telling)
    for _ in range(3):
        rig.connect()
    assert Telling.told == [(ALICE, "denied", None), (ALICE, "denied", 1), (ALICE, "jailed", None)]


@implementer(ILogObserver)
class Lines:
    """All events that are logged."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.texts.append(formatEvent(event))


def test_refusals_write_no_lines() -> None:
    """Refusals log nothing, and errors in a request are still logged."""
    rig, lines = Rig(SMALL), Lines()
    rig.use_up()
    globalLogPublisher.addObserver(lines)
    try:
        for _ in range(3):
            rig.connect()[1].settle()
        assert lines.texts == []
        rig.connect(b"nonsense\r\n\r\n")
        assert lines.texts != []
    finally:
        globalLogPublisher.removeObserver(lines)


def test_it_is_swept_as_clients_come() -> None:
    """The gate is swept as clients connect, at most one slice a second."""
    rig = Rig(SMALL)
    sweeps: list[float] = []

    def sweep(now: float) -> None:
        sweeps.append(now)
        Gate.sweep(rig.gate, now)

    rig.gate.sweep = sweep  # type: ignore[method-assign]
    for _ in range(30):
        rig.connect()[1].lose()
        rig.clock.advance(0.25)
    assert sweeps == [float(second) for second in range(8)]


@pytest.mark.parametrize(
    ("config", "peer", "answer"),
    [
        (GateConfig(deny=CidrSet([ALICE])), tcp_address(ALICE), b"403 Forbidden\r\nContent-Length: 0"),
        (None, UNIXAddress("/run/socket"), b"429 Too Many Requests\r\nRetry-After: 5\r\nContent-Length: 0"),
    ],
)
def test_other_refusals(config: GateConfig | None, peer: IAddress, answer: bytes) -> None:
    """A denied client gets 403 without `Retry-After`, and one without an address 429."""
    _, transport = Rig(config).connect(peer=peer)
    assert undated(bytes(transport.taken)) == b"HTTP/1.1 " + answer + b"\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("limits", "answer"),
    [
        (LeaseLimits(max_connections=1), b"503 Service Unavailable\r\nRetry-After: 5\r\n"),
        (LeaseLimits(max_connections_per_address=1), b"429 Too Many Requests\r\nRetry-After: 5\r\n"),
    ],
)
def test_caps(limits: LeaseLimits, answer: bytes) -> None:
    """A connection over a cap is refused until another one has ended."""
    rig = Rig(GateConfig(limits=limits))
    _, first = rig.connect()
    _, second = rig.connect()
    assert answer in undated(bytes(second.taken))
    second.lose()
    assert rig.gate.leases.connections == 1
    first.lose()
    assert is_upgraded(rig.connect()[1])


def test_the_lease_comes_back_once_when_the_socket_is_lost() -> None:
    """A lost connection releases its lease exactly once."""
    rig = Rig()
    _, transport = rig.connect()
    transport.lose(ConnectionLost())
    assert rig.gate.releases == [True]
    assert rig.gate.leases.connections == 0


def test_the_lease_comes_back_once_after_a_clean_close() -> None:
    """The lease is held through the closing handshake until the transport is gone."""
    rig = Rig()
    protocol, transport = rig.connect()
    protocol.dataReceived(close_frame())
    assert rig.gate.releases == []
    transport.settle()
    assert rig.gate.releases == [True]


@pytest.mark.parametrize("code", [1000, 1013, 1014, 3000])
def test_close_codes_of_the_registry(code: int) -> None:
    """1014 is answered and reported like the close codes that Autobahn lists."""
    protocol, transport = Rig().connect()
    transport.taken.clear()
    protocol.dataReceived(close_frame(code, b"why"))
    (found,) = decode(bytes(transport.taken))
    assert close_of(found) == (1000, "")
    assert (protocol.remoteCloseCode, protocol.remoteCloseReason) == (code, "why")
    assert protocol.wasClean


@pytest.mark.parametrize("data", [close_frame(1015), close_frame(1016), close_frame(1014, b"\xff")])
def test_invalid_close_frames(data: bytes) -> None:
    """Other codes, and a reason that is no UTF-8, fail the connection, which plain Autobahn drops."""
    protocol, transport = Rig().connect()
    transport.taken.clear()
    protocol.dataReceived(data)
    assert (bytes(transport.taken), transport.aborted) == (b"", True)
    assert not protocol.wasClean


def test_a_refused_handshake_releases_nothing() -> None:
    """A connection without a lease releases none."""
    rig = Rig(SMALL)
    rig.use_up()
    _, transport = rig.connect()
    transport.settle()
    assert rig.gate.releases == []


class Failing(Echo):
    """A server whose own code fails after the gate has admitted the client."""

    error: Exception = RuntimeError("secret")

    def onConnect(self, request: ConnectionRequest) -> Any:
        """Fail after admission."""
        super().onConnect(request)
        raise self.error


@pytest.mark.parametrize(
    ("error", "status_line"),
    [
        (RuntimeError("secret"), b"HTTP/1.1 500 Internal Server Error\r\n"),
        (ConnectionDeny(404, "secret"), b"HTTP/1.1 404 Not Found\r\n"),
        (ConnectionDeny(499, "secret"), b"HTTP/1.1 499 "),
    ],
)
def test_a_handshake_that_fails_after_admission(error: Exception, status_line: bytes) -> None:
    """Any failure is a complete answer without the error's text, and releases the lease."""
    rig = Rig(base=Failing)
    rig.server.error = error
    _, transport = rig.connect()
    answer = bytes(transport.taken)
    assert answer.startswith(status_line)
    assert answer.endswith(b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"secret" not in answer
    assert b"Retry-After" not in answer
    transport.settle()
    assert rig.gate.releases == [True]


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: <script>\r\n\r\n",
        request_head("/", "Sec-WebSocket-Key: <script>", without=["Sec-WebSocket-Key"]),
        request_head("/", "Sec-WebSocket-Version: <script>", without=["Sec-WebSocket-Version"]),
        request_head("/", "Sec-WebSocket-Version: 99", without=["Sec-WebSocket-Version"]),
        request_head("/", "Origin: <script>"),
    ],
)
def test_a_failed_handshake_echoes_nothing(head: bytes) -> None:
    """Refusals of Autobahn are complete answers without client text, and the gate is not asked."""
    rig = Rig()
    _, transport = rig.connect(head)
    answer = bytes(transport.taken)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"Content-Length: 0\r\nConnection: close\r\n\r\n")
    assert b"<script>" not in answer
    assert rig.gate.asked == 0


def test_the_supported_version_is_kept_in_the_answer() -> None:
    """Header fields that Autobahn adds to a refusal are kept."""
    head = request_head("/", "Sec-WebSocket-Version: 99", without=["Sec-WebSocket-Version"])
    assert b"\r\nSec-WebSocket-Version: " in bytes(Rig().connect(head)[1].taken)


TRUST = TrustPolicy(trust_forwarded=True, proxies=CidrSet([ALICE, "10.0.0.0/8"]))


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["203.0.113.66, 192.0.2.1"], "192.0.2.1"),
        (["203.0.113.66", "192.0.2.1"], "192.0.2.1"),
        (["203.0.113.66", "192.0.2.1, 10.0.0.1"], "192.0.2.1"),
        (["203.0.113.66, 192.0.2.1", "10.0.0.1", "10.0.0.2"], "192.0.2.1"),
        (["192.0.2.1", "unknown"], None),
        ([], ALICE),
    ],
)
def test_trusted_proxies_name_the_client(lines: list[str], client: str | None) -> None:
    """The right-most entry that is no proxy counts, over all lines of the header, and only for trusted peers."""
    rig = Rig(trust=TRUST)
    protocol, transport = rig.connect(request_head("/", *[f"X-Forwarded-For: {line}" for line in lines]))
    assert is_upgraded(transport) is (client is not None)
    key = None if protocol._lease is None else protocol._lease._lease.key  # type: ignore[attr-defined]
    expected = None if client is None else TrustPolicy().derive(client, ())
    assert key == (None if expected is None else expected.key)


def test_the_header_is_that_of_the_policy() -> None:
    """The client is named by the header of the policy, and by no other."""
    rig = Rig(trust=TrustPolicy(trust_forwarded=True, proxies=CidrSet([ALICE]), header="x-real-ip"))
    protocol, _ = rig.connect(request_head("/", "X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.2"))
    expected = TrustPolicy().derive("192.0.2.2", ())
    assert expected is not None
    assert protocol._lease is not None
    assert protocol._lease._lease.key == expected.key  # type: ignore[attr-defined]


def test_forwarding_headers_of_untrusted_peers_do_not_count() -> None:
    """Without trust the peer itself is counted, whatever it sends."""
    rig = Rig(SMALL)
    rig.use_up()
    _, transport = rig.connect(request_head("/", "X-Forwarded-For: 192.0.2.1"))
    assert b" 429 " in bytes(transport.taken)


@given(data=st.data())
def test_leases_come_back_wherever_the_connection_ends(data: st.DataObject) -> None:
    """A client that leaves after any byte of handshake, message and close leaves no lease behind."""
    rig = Rig()
    script = request_head("/") + frame(b"hello") + close_frame()
    end = data.draw(st.integers(0, len(script)))
    cut = data.draw(st.integers(0, end))
    protocol, transport = rig.connect(script[:cut])
    protocol.dataReceived(script[cut:end])
    transport.lose(ConnectionDone())
    assert rig.gate.leases.connections == 0
    assert rig.gate.releases == [True] * rig.gate.asked
    assert rig.gate.asked == (end >= len(request_head("/")))


def test_peer_hosts() -> None:
    """TCP peers have a host, of either family; others have none."""
    assert peer_host(tcp_address(ALICE)) == ALICE
    assert peer_host(tcp_address("2001:db8::1")) == "2001:db8::1"
    assert peer_host(UNIXAddress(None)) is None


UPGRADES = Quota.parse("10/minute burst 20")


@pytest.mark.parametrize(
    ("refusal", "fields"),
    [
        (Refusal(403, Reason.DENIED, None), []),
        (Refusal(429, Reason.UNATTRIBUTABLE, 5.0), [("Retry-After", "5")]),
        (
            Refusal(429, Reason.RATE_LIMIT, 5.2, UPGRADES),
            [
                ("Retry-After", "6"),
                ("RateLimit-Policy", '"rate_limit";q=10;w=60'),
                ("RateLimit", '"rate_limit";r=0;t=6'),
            ],
        ),
        (
            Refusal(429, Reason.PREFIX_RATE_LIMIT, 0.1, Quota.parse("2/3h burst 9")),
            [
                ("Retry-After", "1"),
                ("RateLimit-Policy", '"prefix_rate_limit";q=2;w=10800'),
                ("RateLimit", '"prefix_rate_limit";r=0;t=1'),
            ],
        ),
        (Refusal(429, Reason.RATE_LIMIT, math.inf, UPGRADES), []),
    ],
)
def test_refusal_fields(refusal: Refusal, fields: list[tuple[str, str]]) -> None:
    """`Retry-After` is present where waiting helps, and the quota that was exceeded if it was one."""
    assert refusal_fields(refusal) == fields
