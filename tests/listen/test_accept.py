"""The door and the entrance give the same answers, count the same and tell the same; the door's own failures."""

from __future__ import annotations

import errno
import functools
import gc
import os
import socket
import struct
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.asking import HEALTH, SMALL
from tests.support.frames import frame
from tests.support.harness import ALICE, BOB, PATH, FakeSession, LogReader, World, client_of, request_head
from tests.support.heads import HEADS
from tests.support.listening import LOCALHOST, Peer, Place, own_reactor, seen
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from pyryrelay.guard import CidrSet, ClientAddress, GateConfig, LeaseLimits, Quota, Reason, Refusal, TrustPolicy
from pyryrelay.http import connection as http_connection
from pyryrelay.http.answering import ANSWER_TIMEOUT_S, LINGER_S
from pyryrelay.http.connection import HttpConnection
from pyryrelay.listen import accept
from pyryrelay.listen.accept import BATCH, Acceptor, AcceptReactor
from pyryrelay.listen.accept_pacing import LOOK_S, PACED_PER_S, QUIET_ACCEPTS, SAMPLE
from pyryrelay.listen.exhaustion import PAUSE_S, TELL_S
from pyryrelay.listen.sockets import RECEIVE_BYTES, SEND_BYTES
from pyryrelay.protocol import HttpAnswer, HttpRefusal, HttpRequest, Page, only_value
from pyryrelay.runtime.socket_options import NOTSENT_BYTES, RECEIVE_BUFFER_BYTES
from pyryrelay.websocket.connection import Connection

OTHER, THIRD = "127.0.0.2", "127.0.0.3"
DENIED = "192.0.2.66"
SOURCES = (LOCALHOST, OTHER)
PROXIED = TrustPolicy(trust_forwarded=True, proxies=CidrSet([LOCALHOST]))


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """One for all tests here."""
    with own_reactor() as reactor:
        yield reactor


@pytest.fixture
def world() -> World:
    """A world in which three attempts use up an address."""
    return World(gate=SMALL)


@pytest.fixture
def place(reactor: Any, world: World) -> Iterator[Place]:
    """A door to `world`."""
    place = Place(reactor, world, has_door=True)
    yield place
    place.close()


@pytest.fixture
def everybody_is_jailed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's addresses are exempt from the jail, and these tests have no others."""
    monkeypatch.setattr(ClientAddress, "is_loopback", property(lambda self: False))


def adopted(place: Place) -> list[Any]:
    """What is accepted into a protocol from now on."""
    place.world.accepted.clear()
    return place.world.accepted


def use_up(place: Place, source: str = LOCALHOST) -> None:
    """Leave no token."""
    place.world.tokens_spent(source)


# Both ways in

Scenario = Callable[[Place], list[tuple[bytes, str]]]
SCENARIOS: dict[str, tuple[dict[str, Any], Scenario]] = {}


def scenario(**world: Any) -> Callable[[Scenario], Scenario]:
    """Both kinds of places go through this, in worlds made like that."""

    def register(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = (world, function)
        return function

    return register


@scenario(gate=SMALL)
def exhausted(place: Place) -> list[tuple[bytes, str]]:
    """Over the quota there is 429, for this address alone; `Retry-After` counts down, and a token comes back."""
    answers = [place.ask(request_head()) for _ in range(5)]
    place.world.clock.advance(3.5)
    answers += [place.ask(request_head()), place.ask(request_head(), OTHER)]
    place.world.clock.advance(6.5)
    return [*answers, place.ask(request_head()), place.ask(request_head())]


@scenario(gate=SMALL)
def heads_that_are_not_plain(place: Place) -> list[tuple[bytes, str]]:
    """Whoever has no token gets 429 for every head that can be read, and for the others what is wrong with them."""
    use_up(place)
    head = request_head()
    odd = [
        request_head(method="POST"),
        request_head(without=["Host"]),
        request_head(without=["Upgrade"]),
        request_head(PATH, "Host: again"),
        request_head(PATH, "X-A : b"),
        request_head(PATH, "X-A: a\nb"),
        request_head(f"{PATH}?a=b"),
        request_head(f"{PATH}#a"),
        request_head(f"http://relay.example{PATH}"),
        request_head("/nowhere"),
        HEALTH,
        b"\r\n" + head,
        head.replace(b"HTTP/1.1", b"HTTP/1.0"),
        head.replace(b"HTTP/1.1", b"HTTP/2.0"),
        head + b"\x81\x85more, and more",
        head + head,
        b"\0",
    ]
    return [place.ask(data) for data in odd]


@scenario(gate=GateConfig(http_quota=Quota.parse("1/10s burst 3"), upgrade_quota=Quota.parse("1/10s burst 3")))
def requests_that_ask_for_no_upgrade(place: Place) -> list[tuple[bytes, str]]:
    """426 from a quota of their own, which attempts do not touch, and heads that cannot be read share."""
    plain = request_head(without=["Upgrade"])
    answers = [place.ask(plain), place.ask(plain[:9] + b"x\0" + plain[9:]), place.ask(request_head("/nowhere"))]
    answers += [place.ask(plain), place.ask(request_head()), place.ask(plain + b"more"), place.ask(plain, OTHER)]
    place.world.clock.advance(10.0)
    return [*answers, place.ask(plain), place.ask(plain)]


@scenario(
    gate=GateConfig(http_quota=Quota.parse("1/10s burst 1"), deny=CidrSet([DENIED])),
    trust=TrustPolicy(True, proxies=CidrSet([LOCALHOST])),
)
def requests_that_ask_for_no_upgrade_behind_a_proxy(place: Place) -> list[tuple[bytes, str]]:
    """The quota is the client's whom the proxy names; a denied one hears that, whatever else is wrong."""
    plain = [request_head(PATH, f"X-Forwarded-For: {client}", without=["Upgrade"]) for client in (ALICE, BOB, DENIED)]
    broken = [head.replace(b"Host", b"Ho\x01st") for head in plain]
    return [place.ask(head) for head in (*plain, *plain, *broken, request_head(without=["Upgrade"]))]


@scenario(gate=SMALL)
def heads_in_pieces(place: Place) -> list[tuple[bytes, str]]:
    """A head that comes in two pieces is one head, also for whoever has no token."""
    use_up(place)
    answers = []
    for cut in (1, 20, len(request_head()) - 1):
        peer = place.connect()
        for piece in (request_head()[:cut], request_head()[cut:]):
            peer.send(piece)
            answers.append(peer.read())
    return answers


@scenario(gate=SMALL)
def much_at_once(place: Place) -> list[tuple[bytes, str]]:
    """A head with more behind it, and heads that are large or too large, all beyond what the door reads."""
    use_up(place)
    large = request_head(PATH, *[f"X-{number}: {'x' * 500}" for number in range(12)])
    return [place.ask(data) for data in (request_head() + b"x" * RECEIVE_BYTES, large, b"x" * 17_000)]


@scenario(gate=GateConfig(limits=LeaseLimits(max_connections_per_address=2)))
def caps(place: Place) -> list[tuple[bytes, str]]:
    """Who meets a cap has spent a token; after one has gone there is a place again."""
    answers = [place.ask(request_head()) for _ in range(4)]
    answers.append(place.ask(request_head(), OTHER))
    place.leave()
    return [*answers, place.ask(request_head())]


@scenario(gate=GateConfig(limits=LeaseLimits(max_connections=1, max_connections_per_address=1)))
def full(place: Place) -> list[tuple[bytes, str]]:
    """A relay without a place answers 503."""
    return [place.ask(request_head()), place.ask(request_head(), OTHER), place.ask(HEALTH, OTHER)]


@scenario(gate=GateConfig(limits=LeaseLimits(max_handshakes=2, max_handshakes_per_address=1)))
def too_many_handshakes(place: Place) -> list[tuple[bytes, str]]:
    """Refused at accept on every path, for the address and then for all; a place that is given back is free."""
    answers = [place.ask(b"GET"), place.ask(HEALTH), place.ask(b"x")]
    answers += [place.ask(b"GET", OTHER), place.ask(request_head(), THIRD)]
    place.leave()
    return [*answers, place.ask(HEALTH)]


@scenario(gate=GateConfig(deny=CidrSet([OTHER]), limits=LeaseLimits(max_handshakes=1, max_handshakes_per_address=1)))
def a_crowd(place: Place) -> list[tuple[bytes, str]]:
    """While twice as many wait as may, one more is not even answered."""
    place.hand_over_silence()
    answers = [place.ask(b"GET"), place.ask(HEALTH, OTHER), place.ask(HEALTH, THIRD)]
    place.connect(OTHER)
    place.turn()
    return [*answers, place.ask(HEALTH, OTHER), place.ask(HEALTH, THIRD)]


@scenario(gate=GateConfig(deny=CidrSet([OTHER]), allow=CidrSet([THIRD]), upgrade_quota=Quota.parse("1/10s burst 1")))
def lists(place: Place) -> list[tuple[bytes, str]]:
    """Denied addresses get 403 for whatever they send first; allowed ones have no quota."""
    answers = [place.ask(data, OTHER) for data in (request_head(), HEALTH, b"x", b"y" * (RECEIVE_BYTES + 1))]
    return answers + [place.ask(request_head(), source) for source in (THIRD, THIRD, LOCALHOST, LOCALHOST)]


@scenario(gate=GateConfig(deny=CidrSet([LOCALHOST])))
def refused_and_gone(place: Place) -> list[tuple[bytes, str]]:
    """Refused at accept is refused, also for who ends its side without a word, and hears nothing."""
    peer = place.connect()
    peer.finish()
    return [peer.read()]


@scenario(gate=SMALL)
def an_attempt_and_the_end(place: Place) -> list[tuple[bytes, str]]:
    """Who sends a request and then ends its side is answered."""
    use_up(place)
    peer = place.connect()
    peer.sock.send(request_head())
    peer.finish()
    other = place.connect()
    other.finish()
    return [peer.read(), other.read()]


@scenario(gate=GateConfig(deny=CidrSet([OTHER]), upgrade_quota=Quota.parse("1/10s burst 1")))
def reset_before_accept(place: Place) -> list[tuple[bytes, str]]:
    """Who crashes before it is accepted is counted by what it sent, and nothing is left behind."""
    use_up(place)
    for source in (LOCALHOST, OTHER):
        peer = place.connect(source)
        peer.sock.send(request_head())
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.close()
        place.turn()
    return [place.ask(HEALTH)]


def in_jail(place: Place) -> None:
    """Jail `OTHER`."""
    place.world.gate.jail.add(client_of(OTHER).key, 100.0, place.world.clock.seconds())


@scenario()
def jailed(place: Place) -> list[tuple[bytes, str]]:
    """Reset without an answer, until the sentence is over."""
    in_jail(place)
    answers = [place.ask(request_head(), OTHER), place.ask(b"x", OTHER), place.ask(request_head())]
    place.hand_over_silence()
    silent = place.connect(OTHER)
    place.turn()
    answers.append(silent.read())
    place.world.clock.advance(100.0)
    return [*answers, place.ask(request_head(), OTHER)]


@scenario()
def jailed_and_answered(place: Place) -> list[tuple[bytes, str]]:
    """Where the jail's refusals are answered it is 403, and what else is dropped is dropped."""
    in_jail(place)
    place.world.drop(Reason.RATE_LIMIT)
    use_up(place)
    return [place.ask(request_head(), OTHER), place.ask(HEALTH, OTHER), place.ask(request_head())]


@scenario(trust=PROXIED, gate=SMALL)
def behind_a_trusted_proxy(place: Place) -> list[tuple[bytes, str]]:
    """It is whom the proxy names, the jail included; a stranger that forwards is itself, and is pointed out."""
    in_jail(place)
    world, named = place.world, "192.0.2.1"
    world.gate.jail.add(client_of("192.0.2.9").key, 100.0, world.clock.seconds())
    world.tokens_spent(named)
    fields = [
        (f"X-Forwarded-For: {named}",),
        ("x-forwarded-for: 192.0.2.2", f"X-Forwarded-For:  {named}\t"),
        (f"X-Forwarded-For: {named}, 192.0.2.3",),
        ("X-Forwarded-For: unknown",),
        ("X-Forwarded-For: 192.0.2.9",),
        (),
    ]
    answers = [place.ask(request_head(PATH, *lines)) for lines in fields]
    use_up(place, THIRD)
    return [*answers, *(place.ask(request_head(PATH, f"{name}: {named}"), THIRD) for name in ("X-Real-IP", "X-A"))]


@scenario(trust=TrustPolicy(trust_forwarded=True, header="x-real-ip"), gate=SMALL)
def behind_any_proxy(place: Place) -> list[tuple[bytes, str]]:
    """Also with another header, and where whoever connects is believed."""
    place.world.tokens_spent("192.0.2.1")
    fields = [("X-Real-IP: 192.0.2.1",), ("X-Real-IP: 192.0.2.1", "X-Real-IP: 192.0.2.1"), ("X-Real-IP: x",)]
    return [place.ask(request_head(PATH, *lines)) for lines in fields]


@scenario(proxy_protocol=True, trust=TrustPolicy(proxies=CidrSet([LOCALHOST])), gate=SMALL)
def with_a_proxy_header(place: Place) -> list[tuple[bytes, str]]:
    """It is read first; who is no trusted proxy is dropped."""
    place.world.tokens_spent("192.0.2.1")
    use_up(place)
    header = b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"
    return [place.ask(header + request_head()), place.ask(header + request_head(), OTHER), place.ask(request_head())]


@scenario(gate=SMALL)
def draining(place: Place) -> list[tuple[bytes, str]]:
    """Attempts get 503 before any quota, pages go on."""
    use_up(place)
    place.world.live.drain()
    return [place.ask(request_head()), place.ask(HEALTH)]


@scenario(gate=GateConfig(upgrade_quota=Quota.parse("1/10s burst 9"), prefix_quota=Quota.parse("1/30s burst 2")))
def of_one_prefix(place: Place) -> list[tuple[bytes, str]]:
    """The quota of the whole prefix, whose wait is the longer one."""
    return [place.ask(request_head(), f"127.0.0.{host}") for host in (4, 5, 6, 7)]


def application(place: Place, on_http: Callable[[HttpRequest], HttpAnswer | Deferred[HttpAnswer]]) -> None:
    """Have the application answer requests for no upgrade."""
    place.world.application.on_http = on_http


def read_to_the_end(place: Place, peer: Peer, turns: int = 200) -> tuple[bytes, str]:
    """Read until the connection has ended."""
    for _ in range(turns):
        found = peer.read()
        if found[1] != "open":
            break
        place.turn(1)
    return found


PLAIN = request_head(PATH, "X-A: b", without=["Upgrade"])
PAGE = Page(200, (("Content-Type", "text/plain"), ("X-B", "c")), b"of the application")


@scenario(gate=GateConfig(http_quota=Quota.parse("1/10s burst 4")))
def answers_of_an_application(place: Place) -> list[tuple[bytes, str]]:
    """It answers at once, with a page or a refusal, and each request is paid once; other methods are its own matter."""
    application(place, lambda request: PAGE)
    answers = [place.ask(PLAIN), place.ask(PLAIN.replace(b"GET", b"HEAD")), place.ask(PLAIN.replace(b"GET", b"POST"))]
    application(place, lambda request: HttpRefusal(451, "bad_method", (("Link", "</>"),)))
    return [*answers, place.ask(PLAIN), place.ask(PLAIN), place.ask(PLAIN, OTHER)]


@scenario(gate=GateConfig(http_quota=Quota.parse("1/10s burst 3")))
def answers_of_an_application_that_fails(place: Place) -> list[tuple[bytes, str]]:
    """A header that is repeated is the client's fault, and any other failure ours; both have been paid for."""

    def fail(request: HttpRequest) -> HttpAnswer:
        assert only_value(request.headers, "x-a") == "b"
        raise RuntimeError("planted")

    application(place, fail)
    return [
        place.ask(head) for head in (PLAIN, request_head(PATH, "X-A: a", "X-A: b", without=["Upgrade"]), PLAIN, PLAIN)
    ]


@scenario(gate=GateConfig(http_quota=Quota.parse("1/10s burst 3")))
def answers_that_come_later(place: Place) -> list[tuple[bytes, str]]:
    """A connection whose answer is awaited holds a lease; the answer may be a page, a refusal or a failure."""
    awaited: list[Deferred[HttpAnswer]] = []

    def later(request: HttpRequest) -> Deferred[HttpAnswer]:
        awaited.append(Deferred())
        return awaited[-1]

    application(place, later)
    peers = [place.connect() for _ in range(3)]
    for peer in peers:
        peer.send(PLAIN)
    assert place.world.gate.leases.handshakes == 3
    answers = [*(peer.read() for peer in peers), place.ask(PLAIN)]
    awaited[0].callback(PAGE)
    awaited[1].callback(HttpRefusal(404, "unknown_path"))
    awaited[2].errback(RuntimeError("planted"))
    place.turn()
    return [*answers, *(peer.read() for peer in peers)]


@scenario()
def an_answer_that_never_comes(place: Place) -> list[tuple[bytes, str]]:
    """It is 503 in the end, and the application is told that nothing waits for it any more."""
    answer: Deferred[HttpAnswer] = Deferred()
    application(place, lambda request: answer)
    peer = place.connect()
    peer.send(PLAIN)
    place.world.pass_time(ANSWER_TIMEOUT_S + 1.0)
    place.turn()
    assert answer.called
    return [peer.read()]


@scenario()
def a_large_page(place: Place) -> list[tuple[bytes, str]]:
    """It arrives whole, though it is more than a socket takes at once."""
    application(place, lambda request: replace(PAGE, body=bytes(range(256)) * 4096))
    peer = place.connect()
    peer.send(PLAIN)
    return [read_to_the_end(place, peer)]


def played(reactor: Any, name: str, interface: str = LOCALHOST, *, has_door: bool) -> object:
    """What is seen of a scenario."""
    made, play = SCENARIOS[name]
    place = Place(reactor, World(**made), has_door=has_door, interface=interface)
    answers = play(place)
    result = seen(place.world, answers, SOURCES)
    place.close()
    return result


@pytest.mark.usefixtures("everybody_is_jailed_alike")
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_through_both(reactor: Any, name: str) -> None:
    """Bytes, endings, refusals, attempts, counts, leases and tokens are the same with and without a door."""
    assert played(reactor, name, has_door=True) == played(reactor, name, has_door=False)


def test_the_same_over_ipv6(reactor: Any) -> None:
    """An address of six hexadecimal groups is refused like one of four numbers."""

    def ask(*, has_door: bool) -> object:
        world = World(gate=SMALL)
        world.tokens_spent("::1")
        place = Place(reactor, world, has_door=has_door, interface="::1")
        answers = [place.ask(data, "::1") for data in (request_head(), HEALTH, request_head("/nowhere"))]
        result = seen(world, answers, ["::1"])
        place.close()
        return result

    assert ask(has_door=True) == ask(has_door=False)


GATES = {
    "fresh": GateConfig(),
    "exhausted": SMALL,
    "denied": GateConfig(deny=CidrSet([LOCALHOST])),
    "full": GateConfig(limits=LeaseLimits(max_connections=1, max_connections_per_address=1)),
}


@settings(max_examples=120, deadline=None)
@given(data=HEADS, state=st.sampled_from(sorted(GATES)), trust=st.sampled_from([TrustPolicy(), PROXIED]))
def test_any_head_through_both(reactor: Any, data: bytes, state: str, trust: TrustPolicy) -> None:
    """Whatever comes first, whole or cut, plain or damaged, has the same consequences."""

    def ask(*, has_door: bool) -> object:
        world = World(gate=GATES[state], trust=trust)
        place = Place(reactor, world, has_door=has_door)
        if state == "exhausted":
            for source in (LOCALHOST, "192.0.2.1"):
                world.tokens_spent(source)
        elif state == "full":
            place.ask(request_head(), THIRD)
        result = seen(world, [place.ask(data)], ["192.0.2.1"])
        place.close()
        return result

    assert ask(has_door=True) == ask(has_door=False)


# What the door is for


@pytest.mark.parametrize("data", [request_head(), request_head() + b"more", request_head(f"{PATH}?a")])
def test_whoever_is_refused_gets_no_protocol(place: Place, data: bytes) -> None:
    """A plain attempt without a token is answered and closed, and nothing was built or waits for anything."""
    use_up(place)
    built = adopted(place)
    answer, end = place.ask(data)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert end == "closed"
    assert not built
    assert len(place.world.wheel) == 0


@pytest.mark.parametrize("reason", [Reason.DENIED, Reason.JAILED])
@pytest.mark.usefixtures("everybody_is_jailed_alike")
def test_whoever_is_shut_out_gets_no_protocol(reactor: Any, reason: Reason) -> None:
    """Denied or jailed, it is over at accept."""
    place = Place(reactor, World(gate=GateConfig(deny=CidrSet([OTHER]))), has_door=True)
    built = adopted(place)
    if reason is Reason.JAILED:
        in_jail(place)
    answer, end = place.ask(b"anything", OTHER)
    assert (answer[9:12], end) == ((b"", "reset") if reason is Reason.JAILED else (b"403", "closed"))
    assert place.world.observer.counts[reason] == 1
    assert not built
    place.close()


def test_the_jail_at_the_door_can_be_seen_there(everybody_is_jailed_alike: None, place: Place) -> None:
    """A jailed client whom a trusted proxy names is cut off without a protocol too."""
    place.world.live.configure(PROXIED, place.world.live.dropped)
    built = adopted(place)
    in_jail(place)
    assert place.ask(request_head(PATH, f"X-Forwarded-For: {OTHER}")) == (b"", "reset")
    assert place.ask(request_head(PATH, f"X-Forwarded-For: {THIRD}"))[0].startswith(b"HTTP/1.1 101 ")
    assert len(built) == 1


def test_everybody_else_is_adopted_once(place: Place) -> None:
    """What was read goes on in order, and the first bytes are not lost."""
    built = adopted(place)
    peer = place.connect()
    for byte in request_head():
        peer.send(bytes([byte]))
    answer, end = peer.read()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert (end, len(built)) == ("open", 1)


def test_a_connection_that_says_nothing_is_adopted_in_the_end(place: Place) -> None:
    """Whom the kernel does not keep back any longer, the entrance drops in its own time."""
    place.hand_over_silence()
    peer = place.connect()
    place.turn()
    assert place.world.gate.leases.handshakes == 1
    place.world.pass_time(6.0)
    place.turn()
    assert peer.read()[1] in ("closed", "reset")
    assert place.world.gate.leases.handshakes == 0


def test_silence_is_left_to_the_kernel(place: Place) -> None:
    """Before its first byte a connection takes no place here."""
    if not hasattr(socket, "TCP_DEFER_ACCEPT"):
        pytest.skip("this system has no TCP_DEFER_ACCEPT")
    peer = place.connect()
    place.turn()
    assert place.world.gate.leases.handshakes == 0
    peer.send(b"G")
    assert place.world.gate.leases.handshakes == 1


def test_a_turn_accepts_a_bounded_number(place: Place) -> None:
    """However many wait, others get their turn after `BATCH`; nobody is forgotten."""
    use_up(place)
    peers = [place.connect() for _ in range(4 * BATCH)]
    for peer in peers:
        peer.sock.send(request_head())
    before = 0
    most = 0
    for _ in range(20):
        place.port.doRead()
        answered = sum(peer.read()[0] != b"" for peer in peers)
        most = max(most, answered - before)
        before = answered
    assert before == len(peers)
    assert most == BATCH


# The port itself


def test_what_it_provides(place: Place) -> None:
    """It is a listening port, and something that a reactor reads from."""
    verifyObject(IListeningPort, place.port)
    verifyObject(IReadDescriptor, place.port)
    host = place.port.getHost()
    assert (host.type, host.host, host.port) == ("TCP", LOCALHOST, place.address[1])
    assert place.port.fileno() == place.port.socket.fileno()
    assert place.port.logPrefix() == "Acceptor"


def test_accepted_sockets_are_no_childs_and_do_not_block(place: Place) -> None:
    """Close-on-exec and non-blocking, as Twisted's are; and they are tuned, because the one that listens is."""
    built = adopted(place)
    place.ask(b"GET")
    (transport,) = built
    sock = transport.getHandle()
    assert not os.get_inheritable(sock.fileno())
    assert not os.get_blocking(sock.fileno())
    assert transport.is_tuned
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.IPPROTO_TCP, 25) == NOTSENT_BYTES  # TCP_NOTSENT_LOWAT
    # Linux takes twice as much, for what it needs around the bytes.
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * RECEIVE_BUFFER_BYTES


def test_nobody_is_answered_before_all_who_wait_were_seen(place: Place) -> None:
    """Neither with the 101 nor with a close: who leaves at that and comes again must be known to have left."""
    place.port._most = BATCH
    peers = [place.connect() for _ in range(2)]
    for peer in peers:
        peer.sock.send(request_head())
    seen_by_first: list[bytes] = []

    def opened(session: FakeSession) -> None:
        session.peer.close(4404, "no server")
        seen_by_first.append(peers[0].read()[0])

    place.world.application.on_opened = opened
    place.turn()
    assert seen_by_first == [b"", b""]
    assert [peer.read()[0][:12] for peer in peers] == [b"HTTP/1.1 101"] * 2
    assert all(peer.read()[0].endswith(b"\x11\x34no server") for peer in peers)


def test_a_connection_that_has_ended_is_freed_at_once(place: Place) -> None:
    """Nothing is left for the garbage collector, which would hold everybody up where ten thousand have ended.

    Neither where its session waits for a drain and a pong, nor in the middle of a message.
    """
    assert place.ask(request_head())[0].startswith(b"HTTP/1.1 101 ")
    (session,) = place.world.application.sessions
    session.peer.on_drain = functools.partial(session.messages, ())
    session.peer.ping(functools.partial(session.messages, ()))
    (protocol,) = place.world.factory.open
    protocol.dataReceived(frame(b"x" * 1000)[:-1])
    ended = weakref.ref(protocol)
    assert repr(protocol.transport) == "<Connection,1,127.0.0.1>"
    del protocol, session
    gc.collect()
    gc.disable()
    try:
        place.leave()
        place.world.application.sessions.clear()
        assert ended() is None
    finally:
        gc.enable()


def test_a_place_that_is_taken(reactor: Any, place: Place, world: World) -> None:
    """It is the error that Twisted's own ports raise."""
    with pytest.raises(CannotListenError) as caught:
        AcceptReactor(reactor).listenTCP(place.address[1], world.http_factory, interface=LOCALHOST)
    assert caught.value.socketError.errno == errno.EADDRINUSE


def test_listening_ends_once(reactor: Any, world: World) -> None:
    """The socket is closed, who waited is reset, and a second end changes nothing."""
    port = AcceptReactor(reactor).listenTCP(0, world.http_factory, interface=LOCALHOST)
    address = (LOCALHOST, port.getHost().port)
    for _ in range(2):
        assert port.stopListening().called
    assert (port.socket, port.fileno()) == (None, -1)
    assert port not in reactor.getReaders()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    port.doRead()
    port.connectionLost(None)  # type: ignore[arg-type]


def test_the_reactors_end_is_the_doors(reactor: Any, world: World) -> None:
    """A reactor that shuts down tells its readers, and the socket is closed."""
    port = AcceptReactor(reactor).listenTCP(0, world.http_factory, interface=LOCALHOST)
    reactor.removeReader(port)
    port.connectionLost(None)  # type: ignore[arg-type]
    assert port.socket is None


def test_where_a_door_fits(reactor: Any) -> None:
    """Under reactors that read from descriptors."""
    assert AcceptReactor.fit(reactor)
    assert not AcceptReactor.fit(Clock())


# Failures


class Failing:
    """A listening socket that fails to accept; then there is nobody."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    def accept(self) -> object:
        """Fail."""
        number = self.errors.pop(0) if self.errors else errno.EAGAIN
        raise OSError(number, os.strerror(number))

    def fileno(self) -> int:
        """None."""
        return -1

    def close(self) -> None:
        """Nothing to close."""


class Readers(Clock):
    """A reactor with nothing but a clock and a list of readers; connections may be more than it can take."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[object] = []
        self.full = False

    def addReader(self, reader: object) -> None:  # noqa: N802
        """One more."""
        assert reader not in self.readers
        if self.full and not isinstance(reader, Acceptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.readers.append(reader)

    def removeReader(self, reader: object) -> None:  # noqa: N802
        """One less."""
        if reader in self.readers:
            self.readers.remove(reader)


@pytest.fixture
def readers() -> Readers:
    """A reactor that does nothing by itself."""
    return Readers()


@pytest.fixture
def port(readers: Readers, world: World) -> Iterator[Acceptor]:
    """A door under `readers`."""
    port = Acceptor(readers, 0, world.http_factory, 5, LOCALHOST)
    port.startListening()
    yield port
    port.stopListening()
    assert not readers.getDelayedCalls()


def failing(port: Acceptor, *errors: int) -> None:
    """Let the door's socket fail like this."""
    assert port.socket is not None
    port.socket.close()
    port.socket = Failing(*errors)  # type: ignore[assignment]


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETUNREACH])
def test_what_is_over_with_one_connection(port: Acceptor, readers: Readers, number: int) -> None:
    """The next one is accepted at once, and nothing is logged."""
    failing(port, number, number)
    with LogReader() as log:
        for _ in range(3):
            port.doRead()
    assert not port.socket.errors  # type: ignore[union-attr]
    assert readers.readers == [port]
    assert not log.events


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EIO])
def test_what_is_not_over_at_once(port: Acceptor, readers: Readers, world: World, number: int) -> None:
    """Nobody is accepted for a moment, instead of asking in a circle; one line in ten seconds tells of it."""
    failing(port, *[number] * 4)
    with LogReader() as log:
        for seconds in (0.0, 1.0, TELL_S):
            world.clock.advance(seconds)
            port.doRead()
            assert readers.readers == []
            port.doRead()
            readers.advance(PAUSE_S)
            assert readers.readers == [port]
    assert [(event["reason"], event["left_out"]) for event in log.events] == [
        (os.strerror(number), 0),
        (os.strerror(number), 1),
    ]
    assert len(port.socket.errors) == 1  # type: ignore[union-attr]


def test_listening_can_end_during_a_pause(port: Acceptor, readers: Readers) -> None:
    """Nothing wakes up afterwards."""
    failing(port, errno.EMFILE)
    port.doRead()
    port.stopListening()
    assert not readers.getDelayedCalls()
    assert readers.readers == []


class Crowd(Failing):
    """A listening socket with so many who wait; each is accepted, and its other end is gone."""

    def __init__(self, waiting: int = 0) -> None:
        super().__init__()
        self.waiting = waiting

    def accept(self) -> object:
        """One of them."""
        if not self.waiting:
            return super().accept()
        self.waiting -= 1
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours, (LOCALHOST, 0)


@pytest.fixture
def crowd(port: Acceptor) -> Crowd:
    """Who waits at the door."""
    failing(port)
    port.socket = crowd = Crowd()  # type: ignore[assignment]
    return crowd


def pacing(port: Acceptor, crowd: Crowd, readers: Readers) -> None:
    """Let as many come at once as make a rush; the next look is `LOOK_S` away."""
    crowd.waiting = 10 * SAMPLE
    while readers.readers:
        port.doRead()
    crowd.waiting = QUIET_ACCEPTS
    readers.advance(0)
    assert crowd.waiting == 0


def test_a_rush_is_accepted_by_the_clock(port: Acceptor, crowd: Crowd, readers: Readers) -> None:
    """Some come, and wait together for the next look; with the first look that finds nobody it is over."""
    pacing(port, crowd, readers)
    assert readers.readers == []
    for _ in range(3):
        crowd.waiting = QUIET_ACCEPTS
        readers.advance(LOOK_S * 0.9)
        assert crowd.waiting == QUIET_ACCEPTS
        readers.advance(LOOK_S * 0.11)
        assert crowd.waiting == 0
        assert readers.readers == []
    readers.advance(LOOK_S)
    assert readers.readers == [port]
    assert not readers.getDelayedCalls()


def test_nobody_waits_for_a_look_while_there_are_more(
    port: Acceptor, crowd: Crowd, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full batch is followed by the next one as soon as the others had their turn."""
    pacing(port, crowd, readers)
    crowd.waiting = 2 * BATCH + 1
    left: list[int] = []
    look = port.doRead

    def watched() -> None:
        look()
        left.append(crowd.waiting)

    monkeypatch.setattr(port, "doRead", watched)
    readers.advance(LOOK_S)
    assert left == [BATCH + 1, 1, 0]


def test_no_rush_without_hurry(port: Acceptor, crowd: Crowd, readers: Readers, world: World) -> None:
    """Whoever comes now and then is accepted as soon as it is there."""
    for _ in range(5 * SAMPLE):
        crowd.waiting = 1
        port.doRead()
        world.clock.advance(1.1 / PACED_PER_S)
        assert readers.readers == [port]


def test_listening_can_end_in_a_rush(port: Acceptor, crowd: Crowd, readers: Readers) -> None:
    """Nothing wakes up afterwards."""
    pacing(port, crowd, readers)
    port.stopListening()
    assert not readers.getDelayedCalls()
    assert readers.readers == []


def test_failing_in_a_rush(port: Acceptor, crowd: Crowd, readers: Readers) -> None:
    """Nobody is accepted for a moment as at any time, and then who has come meanwhile."""
    pacing(port, crowd, readers)
    crowd.errors.append(errno.EMFILE)
    with LogReader() as log:
        readers.advance(LOOK_S)
    assert len(log.events) == 1
    crowd.waiting = 1
    readers.advance(PAUSE_S * 0.9)
    assert readers.readers == []
    readers.advance(PAUSE_S * 0.11)
    assert readers.readers == [port]
    port.doRead()
    assert crowd.waiting == 0


def test_failing_elsewhere_in_a_rush(port: Acceptor, crowd: Crowd, readers: Readers) -> None:
    """Whoever was accepted by somebody else cannot be taken: there is one pause, and one next time."""
    pacing(port, crowd, readers)
    readers.full = True
    ours, theirs = socket.socketpair()
    with theirs, LogReader() as log:
        port.receive(ours, (LOCALHOST, 0))
        assert theirs.recv(1) == b""
    assert len(log.events) == 1
    (call,) = readers.getDelayedCalls()
    assert call.getTime() == readers.seconds() + PAUSE_S


def test_a_fault_in_a_rush_closes_no_door(
    port: Acceptor, crowd: Crowd, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong, who comes next is accepted."""
    pacing(port, crowd, readers)
    monkeypatch.setattr(crowd, "accept", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        readers.advance(LOOK_S)
    assert readers.readers == [port]


def arriving(port: Acceptor) -> socket.socket:
    """Somebody at the door."""
    peer = socket.create_connection((LOCALHOST, port.getHost().port))
    peer.sendall(b"x")
    return peer


def test_a_reactor_that_can_take_nobody(port: Acceptor, readers: Readers) -> None:
    """The system refuses to watch one more descriptor: the connection ends, and the others wait."""
    readers.full = True
    with arriving(port) as peer, LogReader() as log:
        peer.settimeout(60.0)
        port.doRead()
        assert peer.recv(1) == b""
    assert readers.readers == []
    assert len(log.events) == 1
    readers.advance(PAUSE_S)


def test_our_own_fault_ends_one_connection(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged with its traceback; the next one is served."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("planted")

    use_up(place)
    with monkeypatch.context() as patch, LogReader() as log:
        patch.setattr(accept, "refuse_attempt", fail)
        assert place.ask(request_head())[0] == b""
        patch.setattr(place.world.http_factory.buildProtocol(None).__class__, "dataReceived", fail)
        answer, end = place.ask(b"GET")
        assert (answer, end) == (b"", "reset")
    assert log.failures == ["A connection could not be accepted"] * 2
    assert place.ask(request_head())[0].startswith(b"HTTP/1.1 429 ")


def test_an_application_that_fails_is_answered_for(place: Place) -> None:
    """As in the entrance: 500, one logged failure, and the next one is served."""

    def fail(request: object) -> HttpRefusal | None:
        raise RuntimeError("planted")

    gate, place.world.application.gate = place.world.application.gate, fail
    with LogReader() as log:
        assert place.ask(request_head())[0].startswith(b"HTTP/1.1 500 ")
    assert log.failures == ["A request could not be answered"]
    place.world.application.gate = gate
    assert place.ask(request_head())[0].startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("size", [0, SEND_BYTES // 2])
def test_an_answer_that_is_there_at_once_needs_no_protocol(place: Place, size: int) -> None:
    """It is sent and the connection is closed, if it fits into one send."""
    built = adopted(place)
    application(place, lambda request: replace(PAGE, body=bytes(size)))
    answer, end = place.ask(PLAIN)
    assert answer.endswith(b"\r\n\r\n" + bytes(size))
    assert end == "closed"
    assert not built
    assert len(place.world.wheel) == 0


@pytest.mark.parametrize("answer", [lambda: replace(PAGE, body=bytes(SEND_BYTES)), Deferred])
def test_other_answers_are_handed_over(place: Place, answer: Callable[[], Any]) -> None:
    """To one protocol, with everything that was decided: the application is asked once, and the request paid once."""
    built = adopted(place)
    application(place, lambda request: answer())
    place.ask(PLAIN)
    assert len(built) == 1
    assert len(place.world.application.http_requests) == 1
    assert len(place.world.observer.decisions) == 1


def test_an_answer_to_a_connection_that_is_refused_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate has the last word when the connection takes its lease; the application's answer is cancelled."""
    cancelled: list[object] = []
    application(place, lambda request: Deferred(cancelled.append))
    monkeypatch.setattr(place.world.gate, "arrive", lambda *arguments: Refusal(503, Reason.HANDSHAKE_CAP, 5.0))
    answer, end = place.ask(PLAIN)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert end == "closed"
    assert len(cancelled) == 1
    assert place.world.observer.refusals == [(None, 503, "handshake_cap", LOCALHOST)]


def test_an_answer_to_a_connection_that_is_dropped_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gate's refusal is not answered, nothing is."""
    application(place, lambda request: replace(PAGE, body=bytes(SEND_BYTES)))
    monkeypatch.setattr(place.world.gate, "arrive", lambda *arguments: Refusal(403, Reason.JAILED, None))
    assert place.ask(PLAIN) == (b"", "reset")


def test_an_answer_that_cannot_be_handed_over_is_cancelled(port: Acceptor, readers: Readers, world: World) -> None:
    """The reactor can take no connection: accepting pauses, and the application need not answer."""
    cancelled: list[object] = []
    world.application.on_http = lambda request: Deferred(cancelled.append)
    readers.full = True
    ours, theirs = socket.socketpair()
    with theirs, LogReader():
        theirs.send(PLAIN)
        port.receive(ours, (LOCALHOST, 0))
        assert theirs.recv(1) == b""
    assert len(cancelled) == 1
    readers.advance(PAUSE_S)


def test_an_answer_of_an_application_that_cannot_be_given(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own fault in handing it over ends the connection, and is logged."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("planted")

    application(place, lambda request: replace(PAGE, body=bytes(SEND_BYTES)))
    monkeypatch.setattr(HttpConnection, "take_answer", fail)
    with LogReader() as log:
        assert place.ask(PLAIN) == (b"", "reset")
    assert log.failures == ["A connection could not be accepted"]


def test_a_denial_at_the_last_moment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first question let pass and the authority does not is answered once, told once, and cut off in time."""
    world = place.world
    denied = Refusal(429, Reason.ADDRESS_CAP, 5.0)
    monkeypatch.setattr(world.gate, "admit", lambda *arguments: denied)
    peer = place.connect()
    peer.send(request_head())
    answer, _ = peer.read()
    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"Retry-After: 5\r\n" in answer
    assert world.observer.refusals == [("server", 429, "address_cap", LOCALHOST)]
    assert world.observer.counts[Reason.ADDRESS_CAP] == 1
    assert world.application.sessions == []
    world.pass_time(LINGER_S + 1)
    place.turn()
    assert peer.read()[1] in ("closed", "reset")


def test_an_upgrade_that_fails_ends_its_connection(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a 101 there is no HTTP left to answer in."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patch, LogReader() as log:
        patch.setattr(Connection, "upgrade", fail)
        assert place.ask(request_head()) == (b"", "reset")
    assert log.failures == ["A connection could not be accepted"]
    assert place.ask(request_head())[0].startswith(b"HTTP/1.1 101 ")


def test_an_answer_that_cannot_be_sent_ends_its_connection(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails at the end of the batch, when the others have not been answered yet; they are."""
    flush, failed = Connection.flush, list[Connection]()

    def fail_once(websocket: Connection) -> None:
        if not failed:
            failed.append(websocket)
            raise RuntimeError("planted")
        flush(websocket)

    monkeypatch.setattr(Connection, "flush", fail_once)
    place.port._most = BATCH
    peers = [place.connect() for _ in range(3)]
    for peer in peers:
        peer.sock.send(request_head())
    with LogReader() as log:
        place.turn()
    assert log.failures == ["A connection could not be accepted"]
    answers = [peer.read() for peer in peers]
    assert [(answer[:12], end) for answer, end in answers] == [(b"", "reset"), *[(b"HTTP/1.1 101", "open")] * 2]
    assert [codes for codes, _ in place.world.application.sessions[0].closes] == [1006]


@pytest.mark.parametrize("data", [request_head(), request_head(PATH, "X-A : b")])
def test_how_long_a_decision_took(place: Place, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """From the complete head until what was decided is done, in seconds, wherever it is decided."""
    clock = iter([10.0, 10.25, 10.5, 10.75])
    monkeypatch.setattr(accept, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(http_connection, "perf_counter", lambda: next(clock))
    place.ask(data)
    assert place.world.observer.decisions == [0.25]
