"""An acceptor and a plain port of Twisted's give the same answers, counts and observations."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.asking import HEALTH, SMALL
from tests.support.harness import ALICE, BOB, PATH, World, client_of, request_head
from tests.support.heads import HEADS
from tests.support.listening import (
    LOCALHOST,
    OTHER,
    PAGE,
    PLAIN,
    PROXIED,
    THIRD,
    Peer,
    Place,
    application,
    jail_other,
    seen,
    use_up,
)
from twisted.internet.defer import Deferred

from pyryrelay.guard import CidrSet, GateConfig, LeaseLimits, Quota, Reason, TrustPolicy
from pyryrelay.http.answering import ANSWER_TIMEOUT_S
from pyryrelay.listen.sockets import RECEIVE_BYTES
from pyryrelay.protocol import HttpAnswer, HttpRefusal, HttpRequest, only_value

DENIED = "192.0.2.66"


SOURCES = (LOCALHOST, OTHER)


Scenario = Callable[[Place], list[tuple[bytes, str]]]


SCENARIOS: dict[str, tuple[dict[str, Any], Scenario]] = {}


def scenario(**world: Any) -> Callable[[Scenario], Scenario]:
    """Register a scenario for both kinds of places, in worlds made with these arguments."""

    def register(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = (world, function)
        return function

    return register


@scenario(gate=SMALL)
def exhausted(place: Place) -> list[tuple[bytes, str]]:
    """Beyond the quota an address gets 429, and other addresses do not; `Retry-After` counts down to the next token."""
    answers = [place.ask(request_head()) for _ in range(5)]
    place.world.clock.advance(3.5)
    answers += [place.ask(request_head()), place.ask(request_head(), OTHER)]
    place.world.clock.advance(6.5)
    return [*answers, place.ask(request_head()), place.ask(request_head())]


@scenario(gate=SMALL)
def heads_that_are_not_plain(place: Place) -> list[tuple[bytes, str]]:
    """A client without a token gets 429 for every head that can be read, and 400 or more for others."""
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
    """They have a quota of their own, which heads that cannot be read share, and attempts do not."""
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
    """The client that the proxy names pays, and a denied one is told so, whatever else is wrong."""
    plain = [request_head(PATH, f"X-Forwarded-For: {client}", without=["Upgrade"]) for client in (ALICE, BOB, DENIED)]
    broken = [head.replace(b"Host", b"Ho\x01st") for head in plain]
    return [place.ask(head) for head in (*plain, *plain, *broken, request_head(without=["Upgrade"]))]


@scenario(gate=SMALL)
def heads_in_pieces(place: Place) -> list[tuple[bytes, str]]:
    """A head in two pieces is one head, also for a client without a token."""
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
    """Heads with more behind them, and large ones, exceed what is read at accept."""
    use_up(place)
    large = request_head(PATH, *[f"X-{number}: {'x' * 500}" for number in range(12)])
    return [place.ask(data) for data in (request_head() + b"x" * RECEIVE_BYTES, large, b"x" * 17_000)]


@scenario(gate=GateConfig(limits=LeaseLimits(max_connections_per_address=2)))
def caps(place: Place) -> list[tuple[bytes, str]]:
    """An attempt that meets a cap has spent a token; a connection that ends makes room."""
    answers = [place.ask(request_head()) for _ in range(4)]
    answers.append(place.ask(request_head(), OTHER))
    place.leave()
    return [*answers, place.ask(request_head())]


@scenario(gate=GateConfig(limits=LeaseLimits(max_connections=1, max_connections_per_address=1)))
def full(place: Place) -> list[tuple[bytes, str]]:
    """A relay without room for another connection answers 503."""
    return [place.ask(request_head()), place.ask(request_head(), OTHER), place.ask(HEALTH, OTHER)]


@scenario(gate=GateConfig(limits=LeaseLimits(max_handshakes=2, max_handshakes_per_address=1)))
def too_many_handshakes(place: Place) -> list[tuple[bytes, str]]:
    """Connections beyond the caps are refused at accept on every path, until another one ends."""
    answers = [place.ask(b"GET"), place.ask(HEALTH), place.ask(b"x")]
    answers += [place.ask(b"GET", OTHER), place.ask(request_head(), THIRD)]
    place.leave()
    return [*answers, place.ask(HEALTH)]


@scenario(gate=GateConfig(deny=CidrSet([OTHER]), limits=LeaseLimits(max_handshakes=1, max_handshakes_per_address=1)))
def many_waiting(place: Place) -> list[tuple[bytes, str]]:
    """While twice as many wait as may, further refusals are not answered."""
    place.hand_over_silence()
    answers = [place.ask(b"GET"), place.ask(HEALTH, OTHER), place.ask(HEALTH, THIRD)]
    place.connect(OTHER)
    place.turn()
    return [*answers, place.ask(HEALTH, OTHER), place.ask(HEALTH, THIRD)]


@scenario(gate=GateConfig(deny=CidrSet([OTHER]), allow=CidrSet([THIRD]), upgrade_quota=Quota.parse("1/10s burst 1")))
def lists(place: Place) -> list[tuple[bytes, str]]:
    """Denied addresses get 403 for anything that they send first, and allowed ones have no quota."""
    answers = [place.ask(data, OTHER) for data in (request_head(), HEALTH, b"x", b"y" * (RECEIVE_BYTES + 1))]
    return answers + [place.ask(request_head(), source) for source in (THIRD, THIRD, LOCALHOST, LOCALHOST)]


@scenario(gate=GateConfig(deny=CidrSet([LOCALHOST])))
def refused_and_gone(place: Place) -> list[tuple[bytes, str]]:
    """A client that is refused at accept, and ends its side without a request, is refused and not answered."""
    peer = place.connect()
    peer.finish()
    return [peer.read()]


@scenario(gate=SMALL)
def an_attempt_and_the_end(place: Place) -> list[tuple[bytes, str]]:
    """A client that sends a request and then ends its side is answered."""
    use_up(place)
    peer = place.connect()
    peer.sock.send(request_head())
    peer.finish()
    other = place.connect()
    other.finish()
    return [peer.read(), other.read()]


@scenario(gate=GateConfig(deny=CidrSet([OTHER]), upgrade_quota=Quota.parse("1/10s burst 1")))
def reset_before_accept(place: Place) -> list[tuple[bytes, str]]:
    """A client that resets before it is accepted is counted by what it sent, and leaves nothing behind."""
    use_up(place)
    for source in (LOCALHOST, OTHER):
        peer = place.connect(source)
        peer.sock.send(request_head())
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.close()
        place.turn()
    return [place.ask(HEALTH)]


@scenario()
def jailed(place: Place) -> list[tuple[bytes, str]]:
    """A jailed client is reset without an answer, until its sentence is over."""
    jail_other(place)
    answers = [place.ask(request_head(), OTHER), place.ask(b"x", OTHER), place.ask(request_head())]
    place.hand_over_silence()
    silent = place.connect(OTHER)
    place.turn()
    answers.append(silent.read())
    place.world.clock.advance(100.0)
    return [*answers, place.ask(request_head(), OTHER)]


@scenario()
def jailed_and_answered(place: Place) -> list[tuple[bytes, str]]:
    """If refusals of the jail are answered it gets 403, and refusals for other reasons may be dropped."""
    jail_other(place)
    place.world.drop(Reason.RATE_LIMIT)
    use_up(place)
    return [place.ask(request_head(), OTHER), place.ask(HEALTH, OTHER), place.ask(request_head())]


@scenario(trust=PROXIED, gate=SMALL)
def behind_a_trusted_proxy(place: Place) -> list[tuple[bytes, str]]:
    """The client is the one that the proxy names, also for the jail; other peers count as themselves, and are noted."""
    jail_other(place)
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
    """The header may be another one, and every peer may be trusted."""
    place.world.tokens_spent("192.0.2.1")
    fields = [("X-Real-IP: 192.0.2.1",), ("X-Real-IP: 192.0.2.1", "X-Real-IP: 192.0.2.1"), ("X-Real-IP: x",)]
    return [place.ask(request_head(PATH, *lines)) for lines in fields]


@scenario(proxy_protocol=True, trust=TrustPolicy(proxies=CidrSet([LOCALHOST])), gate=SMALL)
def with_a_proxy_header(place: Place) -> list[tuple[bytes, str]]:
    """The PROXY header is read first, and peers that are no trusted proxies are dropped."""
    place.world.tokens_spent("192.0.2.1")
    use_up(place)
    header = b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"
    return [place.ask(header + request_head()), place.ask(header + request_head(), OTHER), place.ask(request_head())]


@scenario(gate=SMALL)
def draining(place: Place) -> list[tuple[bytes, str]]:
    """While draining, attempts get 503 whatever their quota, and pages are answered."""
    use_up(place)
    place.world.live.drain()
    return [place.ask(request_head()), place.ask(HEALTH)]


@scenario(gate=GateConfig(upgrade_quota=Quota.parse("1/10s burst 9"), prefix_quota=Quota.parse("1/30s burst 2")))
def of_one_prefix(place: Place) -> list[tuple[bytes, str]]:
    """A prefix has a quota, too, and the longer wait is told."""
    return [place.ask(request_head(), f"127.0.0.{host}") for host in (4, 5, 6, 7)]


def read_to_the_end(place: Place, peer: Peer, turns: int = 200) -> tuple[bytes, str]:
    """Read until the connection has ended."""
    for _ in range(turns):
        found = peer.read()
        if found[1] != "open":
            break
        place.turn(1)
    return found


@scenario(gate=GateConfig(http_quota=Quota.parse("1/10s burst 4")))
def answers_of_an_application(place: Place) -> list[tuple[bytes, str]]:
    """An application answers pages and refusals, to any method, and each request is paid once."""
    application(place, lambda request: PAGE)
    answers = [place.ask(PLAIN), place.ask(PLAIN.replace(b"GET", b"HEAD")), place.ask(PLAIN.replace(b"GET", b"POST"))]
    application(place, lambda request: HttpRefusal(451, "bad_method", (("Link", "</>"),)))
    return [*answers, place.ask(PLAIN), place.ask(PLAIN), place.ask(PLAIN, OTHER)]


@scenario(gate=GateConfig(http_quota=Quota.parse("1/10s burst 3")))
def answers_of_an_application_that_fails(place: Place) -> list[tuple[bytes, str]]:
    """A repeated header is answered with 400, and any other failure with 500; both are paid for."""

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


def played(reactor: Any, name: str, interface: str = LOCALHOST, *, has_acceptor: bool) -> object:
    """Play a scenario, and return what is seen of it."""
    made, play = SCENARIOS[name]
    place = Place(reactor, World(**made), has_acceptor=has_acceptor, interface=interface)
    answers = play(place)
    result = seen(place.world, answers, SOURCES)
    place.close()
    return result


@pytest.mark.usefixtures("loopback_can_be_jailed")
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_through_both(reactor: Any, name: str) -> None:
    """Bytes, endings, refusals, attempts, counts, leases and tokens are the same with and without an acceptor."""
    assert played(reactor, name, has_acceptor=True) == played(reactor, name, has_acceptor=False)


def test_the_same_over_ipv6(reactor: Any) -> None:
    """IPv6 clients are refused like IPv4 clients."""

    def ask(*, has_acceptor: bool) -> object:
        world = World(gate=SMALL)
        world.tokens_spent("::1")
        place = Place(reactor, world, has_acceptor=has_acceptor, interface="::1")
        answers = [place.ask(data, "::1") for data in (request_head(), HEALTH, request_head("/nowhere"))]
        result = seen(world, answers, ["::1"])
        place.close()
        return result

    assert ask(has_acceptor=True) == ask(has_acceptor=False)


GATES = {
    "fresh": GateConfig(),
    "exhausted": SMALL,
    "denied": GateConfig(deny=CidrSet([LOCALHOST])),
    "full": GateConfig(limits=LeaseLimits(max_connections=1, max_connections_per_address=1)),
}


@settings(max_examples=120, deadline=None)
@given(data=HEADS, state=st.sampled_from(sorted(GATES)), trust=st.sampled_from([TrustPolicy(), PROXIED]))
def test_any_head_through_both(reactor: Any, data: bytes, state: str, trust: TrustPolicy) -> None:
    """Any first bytes, whole or cut, plain or damaged, have the same consequences on both ways."""

    def ask(*, has_acceptor: bool) -> object:
        world = World(gate=GATES[state], trust=trust)
        place = Place(reactor, world, has_acceptor=has_acceptor)
        if state == "exhausted":
            for source in (LOCALHOST, "192.0.2.1"):
                world.tokens_spent(source)
        elif state == "full":
            place.ask(request_head(), THIRD)
        result = seen(world, [place.ask(data)], ["192.0.2.1"])
        place.close()
        return result

    assert ask(has_acceptor=True) == ask(has_acceptor=False)
