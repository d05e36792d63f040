"""The acceptor of TLS endpoints, with real sockets on loopback."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.harness import PATH, LogReader, World, client_of, request_head
from tests.support.listening import LOCALHOST, Peer, Place, own_reactor
from tests.support.tls_peers import client_context, store_of
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from pyryrelay.guard import CidrSet, ClientAddress, GateConfig, LeaseLimits, Quota, Reason, TrustPolicy
from pyryrelay.listen.accept import Acceptor
from pyryrelay.listen.tls.accept import SendingConnection, TlsAcceptReactor
from pyryrelay.listen.tls.transport import TlsTransport

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
OTHER = "127.0.0.2"


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """One reactor for all tests here."""
    with own_reactor() as reactor:
        yield reactor


class TlsPlace(Place):
    """A TLS acceptor, and the world behind it."""

    def __init__(self, reactor: Any, world: World) -> None:
        super().__init__(reactor, world, has_acceptor=True)
        self.port.stopListening()
        accept_reactor = TlsAcceptReactor(reactor, store_of())
        self.port = accept_reactor.listenTCP(0, world.http_factory, interface=LOCALHOST)
        self.address = (LOCALHOST, self.port.getHost().port)

    def hello(self, source: str = LOCALHOST) -> tuple[bytes, str]:
        """Begin a handshake, and return what came back and the state of the connection."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(incoming, outgoing)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        return self.ask(outgoing.read(), source)

    def request(self, data: bytes, source: str = LOCALHOST) -> tuple[bytes, str]:
        """Send a request behind a handshake, and return the answer and the state of the connection."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(incoming, outgoing)
        peer = self.connect(source)
        is_shaken = False
        answer = b""
        for _ in range(6):
            try:
                if not is_shaken:
                    tls.do_handshake()
                    is_shaken = True
                    tls.write(data)
                answer += tls.read(65536)
            except ssl.SSLWantReadError:
                pass
            peer.send(outgoing.read())
            self.world.clock.advance(0)
            peer.received = b""
            peer.read()
            incoming.write(peer.received)
        return answer, peer.end


@pytest.fixture
def place(reactor: Any, request: pytest.FixtureRequest) -> Iterator[TlsPlace]:
    """A place whose world the parameters of the test make."""
    place = TlsPlace(reactor, World(**getattr(request, "param", {})))
    yield place
    place.close()


def world_of(**arguments: Any) -> pytest.MarkDecorator:
    """Parametrize `place` with the arguments of its world."""
    return pytest.mark.parametrize("place", [arguments], indirect=True)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[TlsTransport]:
    """Return every transport for which TLS was begun."""
    found: list[TlsTransport] = []
    begin = TlsTransport.makeConnection

    def made(transport: TlsTransport, below: Any) -> None:
        found.append(transport)
        begin(transport, below)

    monkeypatch.setattr(TlsTransport, "makeConnection", made)
    return found


@pytest.fixture
def loopback_can_be_jailed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let addresses of loopback be jailed."""
    monkeypatch.setattr(ClientAddress, "is_loopback", property(lambda self: False))


def test_requests_go_through(place: TlsPlace, built: list[TlsTransport]) -> None:
    """Pages and upgrades are answered."""
    assert place.request(request_head("/healthz"))[0].startswith(b"HTTP/1.1 200 ")
    assert place.request(request_head(PATH))[0].startswith(b"HTTP/1.1 101 ")
    assert len(built) == 2


@world_of(gate=GateConfig(tls_quota=Quota.parse("1/10s burst 2")))
def test_the_quota_of_handshakes(place: TlsPlace, built: list[TlsTransport]) -> None:
    """Handshakes over the quota are reset before any TLS, recorded once, and observed."""
    assert [place.hello()[1] for _ in range(4)] == ["open", "open", "reset", "reset"]
    assert len(built) == 2
    assert place.world.observer.counts[Reason.TLS_RATE_LIMIT] == 2
    assert place.world.observer.refusals == [(None, 429, "tls_rate_limit", LOCALHOST)] * 2
    assert place.hello(OTHER)[1] == "open"
    place.world.clock.advance(10.0)
    assert place.hello()[1] == "open"


@world_of(
    gate=GateConfig(tls_quota=Quota.parse("1/10s burst 1"), jail_exempt=CidrSet([LOCALHOST])),
    trust=TrustPolicy(proxies=CidrSet([LOCALHOST])),
)
def test_a_balancer_speaks_for_many(place: TlsPlace) -> None:
    """A trusted proxy that passes TLS on has no quota of handshakes."""
    assert {place.hello()[1] for _ in range(5)} == {"open"}


@world_of(gate=GateConfig(limits=LeaseLimits(max_handshakes_per_address=2)))
def test_caps_on_handshakes(place: TlsPlace, built: list[TlsTransport]) -> None:
    """An address with too many unfinished handshakes is reset, and spends nothing."""
    assert [place.hello()[1] for _ in range(3)] == ["open", "open", "reset"]
    assert place.world.observer.counts[Reason.HANDSHAKE_ADDRESS_CAP] == 1
    assert len(built) == 2


@pytest.mark.usefixtures("loopback_can_be_jailed")
def test_the_jailed(place: TlsPlace, built: list[TlsTransport]) -> None:
    """Jailed addresses are reset at accept, also where a drop socket has taken the connection."""
    place.world.gate.jail.add(client_of(OTHER).key, 100.0, place.world.clock.seconds())
    assert place.hello(OTHER) == (b"", "reset")
    assert not built
    assert place.world.observer.counts[Reason.JAILED] == 1


@world_of(gate=GateConfig(deny=CidrSet([OTHER]), tls_quota=Quota.parse("1/10s burst 1")))
def test_the_denied(place: TlsPlace, built: list[TlsTransport]) -> None:
    """Denied addresses get 403 within the quota of handshakes, and are reset without TLS if denials are dropped."""
    assert place.request(request_head(), OTHER)[0].startswith(b"HTTP/1.1 403 ")
    assert place.hello(OTHER) == (b"", "reset")
    place.world.clock.advance(10.0)
    place.world.drop(Reason.DENIED)
    assert place.hello(OTHER) == (b"", "reset")
    assert len(built) == 1
    assert [reason for _, _, reason, _ in place.world.observer.refusals] == ["denied", "tls_rate_limit", "denied"]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\0", b"\x80\x2e\x01"])
def test_what_is_no_tls(loopback_can_be_jailed: None, place: TlsPlace, built: list[TlsTransport], data: bytes) -> None:
    """Bytes that are no TLS get an alert, and the connection is closed."""
    assert place.ask(data) == (b"\x15\x03\x03\x00\x02\x02\x0a", "closed")
    assert not built
    assert place.world.gate.tracked == 1


@pytest.mark.usefixtures("loopback_can_be_jailed")
def test_a_client_that_sends_nothing(place: TlsPlace) -> None:
    """A client that sends nothing has the deadline of any head, and counts as a departure without a request."""
    place.hand_over_silence()
    peer: Peer = place.connect()
    place.turn()
    assert peer.read() == (b"", "open")
    place.world.pass_time(6.0)
    place.turn()
    assert peer.read()[1] in ("closed", "reset")
    assert place.world.gate.tracked == 1


def test_flights_cut_anywhere(place: TlsPlace) -> None:
    """A handshake may be cut anywhere, and its first bytes, read at accept, are not lost."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    peer = place.connect()
    for byte in outgoing.read():
        peer.send(bytes([byte]))
    assert peer.read()[0].startswith(b"\x16\x03\x03")


def test_no_descriptor_left(place: TlsPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor accepting pauses, with one line."""

    def accept(self: object) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    listening = place.port.socket
    monkeypatch.setattr(type(listening), "accept", accept)
    place.connect().sock.send(b"\x16")
    with LogReader() as log:
        place.turn(50)
    assert [event["log_format"][:25] for event in log.events] == ["cannot accept connections"]
    assert place.port not in place.reactor.getReaders()


def test_other_factories_get_tls_too(reactor: Any) -> None:
    """A factory such as one that reads PROXY headers gets Twisted's port with our TLS."""
    factory = Factory.forProtocol(Protocol)
    port = TlsAcceptReactor(reactor, store_of()).listenTCP(0, factory, interface=LOCALHOST)
    assert not isinstance(port, Acceptor)
    port.stopListening()
    reactor.runUntilCurrent()


def test_what_can_be_sent_is_sent_at_once(place: TlsPlace) -> None:
    """An answer is sent in the same turn as far as possible, since the next one may read the peer's end."""
    peer = place.connect()
    peer.send(b"\x16\3\1")
    (transport,) = (one for one in place.reactor.getReaders() if isinstance(one, SendingConnection))
    transport.write(b"at once")
    assert peer.read()[0] == b"at once"
    big = b"x" * 8_000_000
    transport.write(big)
    transport.write(b"behind it")
    for _ in range(1000):
        place.turn(1)
        if len(peer.read()[0]) == len(b"at once") + len(big) + len(b"behind it"):
            break
    assert peer.received.endswith(b"xbehind it")
    transport.write(b"!")
    assert peer.read()[0].endswith(b"it!")
    peer.sock.close()
    transport.socket.close()
    transport.write(b"not taken")
    transport.connectionLost(Failure(ConnectionDone()))
    transport.write(b"after the end")
