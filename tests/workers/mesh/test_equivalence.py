"""A connection that is handed over behaves as one that is served where it was accepted, byte for byte."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.asking import SMALL
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, close_frame, frame, header
from tests.support.harness import PATH, World, request_head
from tests.support.heads import HEADS
from tests.support.listening import LOCALHOST, OTHER, PROXIED, THIRD, TURNS, Place, jail_other, own_reactor, use_up
from tests.support.two_workers import TwoWorkers, echo, open_sockets

from pyryrelay.guard import CidrSet, ClientAddress, GateConfig, LeaseLimits, Quota, Reason, TrustPolicy
from pyryrelay.listen.accept import BATCH
from pyryrelay.protocol import HttpRefusal


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """A reactor for the tests of this module."""
    with own_reactor() as reactor:
        yield reactor


@dataclass
class Outcome:
    """What can be seen of some connections from outside, and by the application."""

    answers: list[tuple[bytes, str]]
    refusals: list[tuple[str | None, int, str, str]]
    attempts: list[Any]
    sessions: list[Any]
    connections: int
    tokens: int


Play = Callable[[Place], list[tuple[bytes, str]]]


def played(reactor: Any, play: Play, *, is_handed_over: bool, **made: Any) -> Outcome:
    """Play, and return what is seen of it, with one process or through two."""
    before = open_sockets()
    if is_handed_over:
        workers = TwoWorkers(reactor, **made)
        place, worlds = workers.accepting(reactor), list(workers.worlds)
    else:
        worlds = [World(**made)]
        place = Place(reactor, worlds[0], has_acceptor=True)
    for world in worlds:
        world.application.on_messages = echo
        world.application.gate = lambda request: HttpRefusal(400, "bad") if "x-bad" in request.headers else None
    answers = play(place)
    place.turn()
    connections = worlds[0].gate.leases.connections
    assert all(world.gate.leases.connections == 0 for world in worlds[1:])
    place.leave()
    outcome = Outcome(
        answers,
        [refusal for world in worlds for refusal in world.observer.refusals],
        [attempt for world in worlds for attempt in world.observer.attempts],
        [
            (session.request, session.received, session.closes)
            for world in worlds
            for session in world.application.sessions
        ],
        connections,
        worlds[0].tokens_spent(LOCALHOST) if worlds[0].gate.config.upgrade_quota else 0,
    )
    place.close()
    if is_handed_over:
        workers.close()
        assert not any(world.application.sessions for world in worlds[:1])
    place.turn()
    assert open_sockets() == before
    return outcome


def both(reactor: Any, play: Play, **made: Any) -> Outcome:
    """Check that both ways have the same outcome, and return it."""
    direct = played(reactor, play, is_handed_over=False, **made)
    assert played(reactor, play, is_handed_over=True, **made) == direct
    return direct


FRAMES = [
    frame(b"text"),
    frame(b"\x00\xff" * 40, BINARY),
    frame(b"", PING),
    frame(b"x" * 126, PING),
    frame(b"part", fin=False) + frame(b"ed", CONTINUATION),
    frame(b"x" * 70_000, BINARY),
    close_frame(1000, b"bye"),
    close_frame(None),
    close_frame(999),
    frame(b"\xff"),
    frame(b"unmasked", mask=None),
    frame(b"reserved", rsv=4),
    frame(b"lone", CONTINUATION),
    header(2**40),
    b"\x00",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\xff" * 20,
    frame(b"x", CLOSE),
]


@settings(max_examples=80)
@given(
    sent=st.lists(st.sampled_from(FRAMES), max_size=5).map(b"".join),
    cuts=st.lists(st.integers(0, 400), max_size=4),
    first=st.integers(-40, 90),
    ends=st.booleans(),
)
def test_any_stream(reactor: Any, sent: bytes, cuts: list[int], first: int, ends: bool) -> None:
    """Frames and garbage behind a head, pipelined or not, in pieces that may cut the head, have the same outcome."""
    head = request_head(PATH, "X-A: b")
    stream = head + sent
    places = sorted({max(0, len(head) + first), *cuts})

    def play(place: Place) -> list[tuple[bytes, str]]:
        peer = place.connect()
        for begin, end in zip([0, *places], [*places, len(stream)], strict=True):
            peer.send(stream[begin:end])
        answers = [peer.read()]
        if ends:
            peer.finish()
        return [*answers, peer.read()]

    assert both(reactor, play).attempts


@settings(max_examples=60)
@given(data=HEADS, trust=st.sampled_from([TrustPolicy(), PROXIED]), is_exhausted=st.booleans())
def test_any_head(reactor: Any, data: bytes, trust: TrustPolicy, is_exhausted: bool) -> None:
    """Whatever the head is, and whoever it comes from, it has the same answer, and costs the same."""

    def play(place: Place) -> list[tuple[bytes, str]]:
        if is_exhausted:
            place.world.tokens_spent("192.0.2.1")
            use_up(place)
        return [place.ask(data), place.ask(data)]

    both(reactor, play, trust=trust, gate=SMALL)


@settings(max_examples=40)
@given(
    sent=st.lists(
        st.tuples(HEADS | st.just(request_head(PATH, "X-A: b")), st.lists(st.sampled_from(FRAMES[:5]), max_size=2)),
        min_size=2,
        max_size=40,
    ),
)
def test_any_burst(reactor: Any, sent: list[tuple[bytes, list[bytes]]]) -> None:
    """Connections that are accepted together, each with its own head and frames, have the same outcome as well."""

    def play(place: Place) -> list[tuple[bytes, str]]:
        place.port._most = BATCH
        peers = [place.connect() for _ in sent]
        for peer, (head, frames) in zip(peers, sent, strict=True):
            peer.sock.send(b"".join((head, *frames)))
        place.turn(2 * TURNS)
        return [peer.read() for peer in peers]

    both(reactor, play)


def asked(place: Place, data: bytes, source: str) -> tuple[bytes, str]:
    """Ask, and wait until there is an answer or an end: a reset may need a moment."""
    found = place.ask(data, source)
    until_s = time.monotonic() + 60.0
    while found == (b"", "open") and time.monotonic() < until_s:
        place.turn()
        found = place._peers[-1].read()
    return found


def quotas_and_caps(place: Place) -> list[tuple[bytes, str]]:
    """Each attempt costs one token, and each connection one place, where it was accepted."""
    answers = [place.ask(request_head()) for _ in range(4)]
    place.leave()
    return [*answers, place.ask(request_head()), place.ask(request_head(), OTHER)]


def bad_headers(place: Place) -> list[tuple[bytes, str]]:
    """What the application refuses is refused where it was accepted."""
    return [place.ask(request_head(PATH, "X-Bad: 1")), place.ask(request_head(method="POST"))]


def behind_proxies(place: Place) -> list[tuple[bytes, str]]:
    """The client is the one that the proxy names."""
    heads = [request_head(PATH, f"X-Forwarded-For: {name}") for name in ("192.0.2.1", "2001:db8::1", "unknown")]
    return [place.ask(head) for head in (*heads, *heads)]


def with_a_proxy_header(place: Place) -> list[tuple[bytes, str]]:
    """The PROXY header is read where it arrives, and what follows goes on, in whichever pieces."""
    version_1 = b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"
    stream = version_1 + request_head() + frame(b"first")
    peer = place.connect()
    for at in range(0, len(stream), 7):
        peer.send(stream[at : at + 7])
    return [asked(place, stream, LOCALHOST), peer.read(), asked(place, stream, OTHER)]


def large_heads(place: Place) -> list[tuple[bytes, str]]:
    """Heads that are not read at once are handed over with all that follows."""
    large = request_head(PATH, *[f"X-{number}: {'x' * 500}" for number in range(20)])
    return [place.ask(large + frame(b"x" * 60_000, BINARY)), place.ask(large[:-1]), place.ask(b"\r\n" + large)]


def a_silent_start(place: Place) -> list[tuple[bytes, str]]:
    """A connection that was accepted before it sent anything."""
    place.hand_over_silence()
    peer = place.connect()
    place.turn()
    peer.send(request_head() + frame(b"first"))
    return [peer.read()]


@pytest.mark.parametrize(
    ("play", "made"),
    [
        (quotas_and_caps, {"gate": GateConfig(limits=LeaseLimits(max_connections_per_address=2))}),
        (quotas_and_caps, {"gate": GateConfig(upgrade_quota=Quota.parse("1/10s burst 3"))}),
        (bad_headers, {}),
        (behind_proxies, {"trust": PROXIED, "gate": SMALL}),
        (with_a_proxy_header, {"proxy_protocol": True, "trust": TrustPolicy(proxies=CidrSet([LOCALHOST]))}),
        (large_heads, {}),
        (a_silent_start, {}),
    ],
)
def test_the_same_both_ways(reactor: Any, play: Play, made: dict[str, Any]) -> None:
    """Bytes, endings, refusals, attempts, leases, tokens and sessions are the same."""
    both(reactor, play, **made)


def test_the_jail_both_ways(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients in jail are dropped where they arrive."""
    monkeypatch.setattr(ClientAddress, "is_loopback", property(lambda self: False))

    def play(place: Place) -> list[tuple[bytes, str]]:
        jail_other(place)
        return [place.ask(request_head(), OTHER), place.ask(request_head(), THIRD)]

    assert [reason for _, _, reason, _ in both(reactor, play).refusals] == [Reason.JAILED]
