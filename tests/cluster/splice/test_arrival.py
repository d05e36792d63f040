"""Connections to ``--cluster-listen``: only those with a ticket are served, and only what belongs here."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import ip_address

import pytest
from tests.support.frames import frame
from tests.support.harness import ALICE, Connection, World, request_head
from twisted.internet.defer import Deferred

from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.splice.arrival import Arrival, ArrivalFactory, Arrivals, OneHop, QuietObserver
from pyryrelay.cluster.splice.figures import ArrivalProblem, Figures
from pyryrelay.cluster.splice.header import header
from pyryrelay.cluster.splice.strays import Strays
from pyryrelay.cluster.splice.ticket import NONCE_BYTES, Nonces, Ticket, TicketProblem, write
from pyryrelay.guard import CidrSet, GateConfig, LeaseLimits, Quota, TrustPolicy
from pyryrelay.http.listener_context import HEAD_TIMEOUT_S, LivePolicy
from pyryrelay.http.placement import HERE, Place
from pyryrelay.http.placing import EARLY_BYTES
from pyryrelay.protocol import HttpRefusal, Page, Request

SECRET = b"secret"
ME = Member("10.0.0.2:7000", "boot", "10.0.0.2:7000")
SENDER = "10.0.0.1"
KEY = "x-key"
WALL = 1_790_000_000.0
HEAD = request_head("/v1/server", f"{KEY}: x")


@dataclass
class FixedPlacement:
    """A placement that answers the same always."""

    answer: Place | Deferred[Place]

    def place(self, route: str, key: str) -> Place | Deferred[Place]:
        """See `Placement`."""
        assert (route, key) == ("server", "x")
        return self.answer


class ArrivalWorld(World):
    """A world whose connections come from other instances."""

    def __init__(
        self, place: Place | Deferred[Place] = HERE, *, gate: GateConfig | None = None, redirects: bool = False
    ) -> None:
        super().__init__(gate=gate)
        self.application.key_of = _key_of
        self.figures = Figures()
        here = OneHop(FixedPlacement(place), self.figures)
        self.context = replace(self.context, observer=QuietObserver(self.observer), pages={}, placement=here)
        trusting = LivePolicy(TrustPolicy(trust_forwarded=True, proxies=CidrSet([SENDER])))
        redirected = replace(self.context, live=trusting) if redirects else None
        self.arrivals = Arrivals(
            CidrSet(["10.0.0.0/24"]),
            False,
            ME,
            SECRET,
            Nonces(),
            self.figures,
            self.context,
            redirected,
            lambda: WALL,
            Strays(),
        )
        self.http_factory = ArrivalFactory(lambda: self.arrivals)  # type: ignore[assignment]

    def cut_off(self) -> list[str]:
        """Return the problems for which connections were cut off."""
        return [problem for problem, count in self.figures.cut_off.items() for _ in range(count)]


def _key_of(request: Request) -> str | None:
    return request.header(KEY) or None


def ticket(client: str = ALICE, number: int = 0, *, me: Member = ME) -> bytes:
    """Return a ticket that the sender has signed."""
    return write(Ticket(SENDER, client, WALL, number.to_bytes(NONCE_BYTES)), me, SECRET)


def opening(client: str = ALICE, number: int = 0) -> bytes:
    """Return the header of a spliced connection."""
    return header(ip_address(client), ticket(client, number))


def arrive(world: World, data: bytes, host: str = SENDER) -> Connection:
    """Return a connection of an instance that has sent ``data``."""
    connection = world.connect(host)
    connection.feed(data)
    return connection


def test_a_spliced_connection_is_served() -> None:
    """Its client is the one that the ticket names; it takes a lease but no token, and counts as no attempt."""
    world = ArrivalWorld()
    connection = arrive(world, opening() + HEAD + frame(b"hello"))
    assert connection.take().startswith(b"HTTP/1.1 101 ")
    (session,) = world.application.sessions
    assert str(session.request.client) == ALICE
    assert [payload for payload, _ in session.received] == [b"hello"]
    assert (world.gate.leases.connections, world.gate.leases.handshakes) == (1, 0)
    assert world.tokens_spent() == 0
    assert world.observer.attempts == []
    assert world.figures.arrived == 1
    assert "x" in world.arrivals.strays
    connection.transport.lose()
    world.assert_empty()


@pytest.mark.parametrize("size", [1, 7, 64])
def test_pieces_do_not_matter(size: int) -> None:
    """The ticket and the head may arrive in any pieces."""
    world = ArrivalWorld()
    data = opening("2001:db8::7") + HEAD
    connection = world.connect(SENDER)
    for at in range(0, len(data), size):
        connection.feed(data[at : at + size])
    assert connection.take().startswith(b"HTTP/1.1 101 ")
    assert str(world.application.sessions[0].request.client) == "2001:db8::7"


def _foreign_tlvs(client: str) -> bytes:
    packed = ip_address(client).packed
    block = packed * 2 + struct.pack("!HH", 1, 2) + b"\x04\x00\x01x"
    return bytes.fromhex("0D0A0D0A000D0A515549540A2111") + len(block).to_bytes(2) + block


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (HEAD, ArrivalProblem.NO_TICKET),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + HEAD, ArrivalProblem.NO_TICKET),
        (_foreign_tlvs(ALICE) + HEAD, ArrivalProblem.NO_TICKET),
        (header(ip_address("192.0.2.99"), ticket()) + HEAD, ArrivalProblem.NO_TICKET),
        (header(ip_address(ALICE), ticket(me=ME._replace(boot="old"))) + HEAD, TicketProblem.WRONG_MAC),
        (header(ip_address(ALICE), ticket()[:-1] + b"x") + HEAD, TicketProblem.WRONG_MAC),
        (header(ip_address(ALICE), b"") + HEAD, TicketProblem.UNREADABLE),
    ],
)
def test_nothing_else_is_answered(data: bytes, problem: str) -> None:
    """Whatever has no ticket for this instance, and this client, is cut off without a byte."""
    world = ArrivalWorld()
    connection = arrive(world, data)
    assert (connection.is_cut_off(), connection.take()) == (True, b"")
    connection.protocol.dataReceived(HEAD)
    assert connection.take() == b""
    assert world.cut_off() == [problem]
    assert world.application.sessions == []
    connection.transport.lose()
    world.assert_empty()


def test_only_peers_may_connect() -> None:
    """The address is checked before anything is read."""
    world = ArrivalWorld()
    connection = arrive(world, opening() + HEAD, "192.0.2.66")
    assert (connection.is_cut_off(), world.cut_off()) == (True, [ArrivalProblem.FOREIGN])
    assert not world.arrivals.accepts(None)


def test_a_replay_is_cut_off() -> None:
    """A ticket is good for one connection."""
    world = ArrivalWorld()
    arrive(world, opening() + HEAD)
    connection = arrive(world, opening() + HEAD)
    assert (connection.is_cut_off(), world.cut_off()) == (True, [TicketProblem.REPLAYED])


def test_a_sender_that_is_slow_is_cut_off() -> None:
    """The ticket and the head have the time of a head, and the sender is not punished as a client."""
    world = ArrivalWorld()
    slow = [arrive(world, b""), arrive(world, opening(number=1)), arrive(world, opening(number=2) + HEAD[:9])]
    left = arrive(world, opening(number=3))
    left.transport.lose()
    world.pass_time(HEAD_TIMEOUT_S + 1)
    assert all(connection.is_cut_off() for connection in slow)
    assert world.cut_off() == [ArrivalProblem.LATE] * 4
    assert world.observer.refusals == []


@pytest.mark.parametrize("data", [b"POST / \x00\r\n\r\n", b"x" * 20_000])
def test_a_head_that_no_instance_sends_is_cut_off(data: bytes) -> None:
    """Instances pass on heads that they have read."""
    world = ArrivalWorld()
    connection = arrive(world, opening() + data)
    assert connection.transport.connected
    assert connection.is_cut_off() or connection.take().startswith(b"HTTP/1.1 400 ")


def test_plain_requests_are_not_for_this_listener() -> None:
    """Only attempts to upgrade are passed on."""
    world = ArrivalWorld()
    world.application.on_http = lambda request: Deferred()
    connection = arrive(world, opening() + b"GET /v1/server HTTP/1.1\r\nHost: a\r\n\r\n")
    assert connection.is_cut_off()
    other = arrive(world, opening(number=1) + b"GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b" 404 " in other.take()


@pytest.mark.parametrize("place", [HttpRefusal(503, "busy"), Page(200)])
def test_there_is_no_second_hop(place: Place) -> None:
    """What belongs to a third instance is answered 503, and may be tried again soon."""
    world = ArrivalWorld(place)
    answer = arrive(world, opening() + HEAD).take()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in answer
    assert world.observer.counts == {"owner_unavailable": 1}
    assert (world.figures.sent_back, world.gate.leases.connections) == (1, 0)


def test_a_place_may_be_known_later() -> None:
    """Meanwhile the client may send on, up to a bound, and nothing is lost."""
    asked = Deferred[Place]()
    world = ArrivalWorld(asked)
    connection = arrive(world, opening() + HEAD + frame(b"1"))
    assert (connection.take(), world.gate.leases.connections) == (b"", 0)
    connection.feed(frame(b"2" * EARLY_BYTES))
    assert not connection.is_read()
    asked.callback(HERE)
    assert connection.take().startswith(b"HTTP/1.1 101 ")
    assert [len(payload) for payload, _ in world.application.sessions[0].received] == [1, EARLY_BYTES]


def test_a_place_that_is_not_found_in_time() -> None:
    """The time for the head runs on, and the question is given up."""
    cancelled: list[object] = []
    world = ArrivalWorld(Deferred(cancelled.append))
    connection = arrive(world, opening() + HEAD)
    world.pass_time(HEAD_TIMEOUT_S + 1)
    assert connection.take().startswith(b"HTTP/1.1 503 ")
    assert len(cancelled) == 1


def test_a_client_that_leaves_before_its_place_is_known() -> None:
    """The question is given up, and nothing is held."""
    cancelled: list[object] = []
    world = ArrivalWorld(Deferred(cancelled.append))
    connection = arrive(world, opening() + HEAD)
    connection.transport.lose()
    assert len(cancelled) == 1
    world.assert_empty()


def test_a_shutdown_gives_up_questions() -> None:
    """Connections that wait are ended."""
    world = ArrivalWorld(Deferred())
    connection = arrive(world, opening() + HEAD)
    world.context.waiting.shut_down()
    assert connection.is_closed()


def test_a_place_that_cannot_be_found_out_is_an_error() -> None:
    """A failure is logged, and answered."""
    asked = Deferred[Place]()
    world = ArrivalWorld(asked)
    connection = arrive(world, opening() + HEAD)
    asked.errback(RuntimeError("planted"))
    assert connection.take().startswith(b"HTTP/1.1 500 ")


def test_leases_protect_this_process() -> None:
    """A cap that is reached here is answered 503, whoever has admitted the client."""
    gate = GateConfig(limits=LeaseLimits(max_connections=1), upgrade_quota=Quota.parse("10/minute"))
    world = ArrivalWorld(gate=gate)
    arrive(world, opening() + HEAD)
    answer = arrive(world, opening(number=1) + HEAD).take()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert world.observer.counts == {"global_connections": 1}


def test_an_application_without_keys_is_served() -> None:
    """Nobody is asked about it."""
    world = ArrivalWorld(HttpRefusal(503, "busy"))
    assert arrive(world, opening() + request_head()).take().startswith(b"HTTP/1.1 101 ")


# Redirected by a proxy


def repeated(raw: bytes, *fields: str) -> bytes:
    """Return a request that a proxy repeats with a ticket."""
    return request_head("/v1/server", f"{KEY}: x", f"X-Pyryrelay-Ticket: {raw.hex()}", *fields)


def test_a_redirected_connection_is_served() -> None:
    """Its client is the one that the proxy names."""
    world = ArrivalWorld(redirects=True)
    connection = arrive(world, repeated(ticket(""), f"X-Forwarded-For: {ALICE}"))
    assert connection.take().startswith(b"HTTP/1.1 101 ")
    assert str(world.application.sessions[0].request.client) == ALICE
    connection.transport.lose()
    assert not world.arrivals.spliced.waiting


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (HEAD, ArrivalProblem.NO_TICKET),
        (repeated(ticket("")) + b"", None),
        (repeated(ticket(""), f"X-Pyryrelay-Ticket: {ticket('').hex()}"), ArrivalProblem.NO_TICKET),
        (repeated(b"\x01"), TicketProblem.UNREADABLE),
        (request_head("/v1/server", "X-Pyryrelay-Ticket: zz"), TicketProblem.UNREADABLE),
        (b"GET / HTTP/1.1\r\nbad\r\n\r\n", ArrivalProblem.NO_TICKET),
        (repeated(ticket("", me=ME._replace(boot="old"))), TicketProblem.WRONG_MAC),
    ],
)
def test_a_redirected_connection_needs_its_ticket(data: bytes, problem: str | None) -> None:
    """A request without one ticket for this instance is cut off."""
    world = ArrivalWorld(redirects=True)
    connection = arrive(world, data)
    assert world.cut_off() == ([] if problem is None else [problem])
    assert connection.is_cut_off() == (problem is not None)


def test_splices_go_on_beside_redirects() -> None:
    """An instance behind no proxy may splice to one behind a proxy."""
    world = ArrivalWorld(redirects=True)
    assert arrive(world, opening() + HEAD).take().startswith(b"HTTP/1.1 101 ")


def test_the_factory_builds_arrivals() -> None:
    """One for each connection."""
    assert isinstance(ArrivalWorld().http_factory.buildProtocol(None), Arrival)


def test_a_ticket_is_taken_by_one_of_two_processes() -> None:
    """After an upgrade, the process before serves nobody who comes late, and the new one no ticket of before."""
    before, after = ArrivalWorld(), ArrivalWorld()
    assert arrive(before, opening() + HEAD).take().startswith(b"HTTP/1.1 101 ")
    before.arrivals.nonces.end()
    after.arrivals = replace(after.arrivals, wall=lambda: WALL + 1.0)
    after.arrivals.nonces.begin(WALL + 0.5)
    for world in (before, after):
        assert arrive(world, opening(number=1) + HEAD).take() == b""
        assert arrive(world, opening() + HEAD).take() == b""
        assert world.cut_off() == ["taken_over"] * 2
