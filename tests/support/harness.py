"""Clock, gate, HTTP connections and a mounted application that records what it is asked, all in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.support.frames import PONG, Decoder, close_of, frame
from tests.support.transports import Transport, tcp_address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from websockets.frames import Frame, Opcode
from zope.interface import implementer

from pyryrelay.guard import ClientAddress, Gate, GateConfig, ThrottlePolicy, TrustPolicy
from pyryrelay.guard.address.clientip import Via
from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.dates import Dates
from pyryrelay.http.listener_context import AcceptCallbacks, ListenerContext, LivePolicy, Observer
from pyryrelay.protocol import (
    HttpAnswer,
    HttpRefusal,
    HttpRequest,
    Message,
    Page,
    Peer,
    PeerPolicy,
    Request,
)
from pyryrelay.protocol_options import Deflate, RoutePolicy
from pyryrelay.runtime.fair_queue import FairQueue
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.websocket.context import WebSocketLimits
from pyryrelay.websocket.factory import RelayFactory

PATH = "/v1/server"
ALICE, BOB = "198.51.100.7", "203.0.113.9"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
START_S = 1000.0
DATE_S, DATE = 784_111_777.5, b"\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
"""The wall clock, which does not move."""
FOREVER_S = 600.0


def request_head(path: str = PATH, *fields: str, method: str = "GET", without: Sequence[str] = ()) -> bytes:
    """Return an upgrade request; ``without`` leaves out fields by name, ``fields`` are more lines."""
    usual = {
        "Host": "relay.example",
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in usual.items() if name not in without]
    return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1")


def client_of(host: str) -> ClientAddress:
    """Return the client at an address."""
    client = TrustPolicy().derive(host, ())
    assert client is not None
    return client


@dataclass
class FakeSession:
    """What an application was told about one connection."""

    application: FakeApplication
    peer: Peer
    request: Request
    batches: list[list[Message]] = field(default_factory=list)
    closes: list[tuple[int, str]] = field(default_factory=list)
    taken: Deferred[None] | None = None

    @property
    def received(self) -> list[Message]:
        """Return all messages, whatever the batches."""
        return [message for batch in self.batches for message in batch]

    def messages(self, batch: Sequence[Message]) -> Deferred[None] | None:
        """Record the batch, then do what the test wants."""
        assert not self.closes, "told about messages after the end"
        assert self.taken is None or self.taken.called, "got messages although the last ones are not taken"
        self.batches.append(list(batch))
        self.taken = self.application.on_messages(self, batch)
        return self.taken

    def closed(self, code: int, reason: str) -> None:
        """Record the end, then do what the test wants."""
        self.closes.append((int(code), reason))
        self.application.on_closed(self)


def nothing_but_upgrades(request: HttpRequest) -> HttpAnswer:
    """Answer as an application does that has nothing but upgrades."""
    if request.method == "GET":
        return HttpRefusal(426, "no_upgrade")
    return HttpRefusal(405, "bad_method", (("Allow", "GET"),))


@dataclass
class FakeApplication:
    """An application whose behaviour is set by the test."""

    name: str = "server"
    policy: PeerPolicy = field(default_factory=PeerPolicy)
    gate: Callable[[Request], HttpRefusal | None] = lambda request: None
    key_of: Callable[[Request], str | None] = lambda request: None
    on_opened: Callable[[FakeSession], None] = lambda session: None
    on_messages: Callable[[FakeSession, Sequence[Message]], Deferred[None] | None] = lambda session, batch: None
    on_closed: Callable[[FakeSession], None] = lambda session: None
    on_http: Callable[[HttpRequest], HttpAnswer | Deferred[HttpAnswer]] = nothing_but_upgrades
    asked: list[Request] = field(default_factory=list)
    http_requests: list[HttpRequest] = field(default_factory=list)
    sessions: list[FakeSession] = field(default_factory=list)

    def gate_headers(self, request: Request) -> HttpRefusal | None:
        """Record the request, and answer what the test wants."""
        self.asked.append(request)
        return self.gate(request)

    def place_key(self, request: Request) -> str | None:
        """Answer what the test wants."""
        return self.key_of(request)

    def http(self, request: HttpRequest) -> HttpAnswer | Deferred[HttpAnswer]:
        """Record, and answer what the test wants."""
        self.http_requests.append(request)
        return self.on_http(request)

    def opened(self, peer: Peer, request: Request) -> FakeSession:
        """Record the peer, and return its session."""
        session = FakeSession(self, peer, request)
        self.sessions.append(session)
        self.on_opened(session)
        return session


@dataclass
class RefusalLog:
    """The observer of listeners: refusals with their clients, attempts, and how long decisions took, in seconds."""

    refusals: list[tuple[str | None, int, str, str]] = field(default_factory=list)
    attempts: list[tuple[str, Via]] = field(default_factory=list)
    decisions: list[float] = field(default_factory=list)

    def refused(self, route: str | None, status: int, reason: str, client: ClientAddress | None) -> None:
        """Record a refusal."""
        self.refusals.append((route, status, str(reason), str(client)))

    def attempted(self, client: ClientAddress, via: Via) -> None:
        """Record an attempt."""
        self.attempts.append((str(client), via))

    def decided(self, seconds: float) -> None:
        """Record a duration."""
        self.decisions.append(seconds)

    @property
    def counts(self) -> Counter[str]:
        """Return how often each reason was refused."""
        return Counter(reason for _, _, reason, _ in self.refusals)

    @property
    def statuses(self) -> list[int]:
        """Return the statuses alone."""
        return [status for _, status, _, _ in self.refusals]


class Connection:
    """One accepted connection, from the peer's end."""

    def __init__(self, world: World, host: str, *, peer_reads: bool) -> None:
        self.world = world
        self.transport = Transport(tcp_address(host), peer_reads=peer_reads)
        self.protocol = world.http_factory.buildProtocol(None)
        self._decoder = Decoder()
        self.transport.connect(self.protocol)

    def feed(self, data: bytes) -> None:
        """Receive bytes from the peer; they arrive while the relay reads."""
        if self.transport.reading:
            self.protocol.dataReceived(data)

    def take(self) -> bytes:
        """Return what the peer received since the last call."""
        taken = bytes(self.transport.taken)
        self.transport.taken.clear()
        return taken

    def frames(self) -> list[Frame]:
        """Return the frames that the peer received since the last call."""
        return self._decoder.decode(self.take())

    def payloads(self) -> list[bytes]:
        """Return the payloads of the frames that the peer received since the last call."""
        return [bytes(frame.data) for frame in self.frames()]

    def settle(self) -> None:
        """Run the reactor's next turn."""
        self.transport.settle()

    def is_lost(self) -> bool:
        """Tell whether the protocol was told that the connection is gone."""
        return not self.transport.connected

    def is_cut_off(self) -> bool:
        """Tell whether the transport was aborted."""
        return self.transport.aborted

    def has_ended(self) -> bool:
        """Tell whether the relay has ended its side, after everything that was written."""
        return self.transport.writing_ended

    def is_closed(self) -> bool:
        """Tell whether the relay has closed the connection in order."""
        return self.transport.disconnecting

    def is_read(self) -> bool:
        """Tell whether bytes from the peer are read."""
        return self.transport.reading


@implementer(ILogObserver)
class LogReader:
    """Collect the log events of a ``with`` block."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        """Record one event."""
        self.events.append(event)

    def __enter__(self) -> LogReader:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        globalLogPublisher.removeObserver(self)

    @property
    def failures(self) -> list[str]:
        """Return the formats of the events that carry a traceback."""
        return [event["log_format"] for event in self.events if "log_failure" in event]


class World:
    """Everything that ``service`` would put together, on a clock that only the test moves."""

    def __init__(
        self,
        *,
        gate: GateConfig | None = None,
        limits: WebSocketLimits = WebSocketLimits(),  # noqa: B008
        max_message_bytes: int = 262_144,
        policy: PeerPolicy = PeerPolicy(),  # noqa: B008
        trust: TrustPolicy = TrustPolicy(),  # noqa: B008
        throttle: ThrottlePolicy = ThrottlePolicy(),  # noqa: B008
        behind_proxy_protocol: bool = False,
        proxy_protocol: bool = False,
        deflate: Deflate | None = None,
        answer_fields: tuple[tuple[str, str], ...] = (),
        new_observer: Callable[[Gate, Callable[[], float]], Observer] | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(START_S)
        self.gate = Gate(gate)
        self.wheel = TimerWheel(self.clock, self.clock.seconds)
        self.application = FakeApplication(policy=policy)
        # Processing takes no time, unless the test moves this clock meanwhile.
        self.work_clock = Clock()
        self.fair_queue = FairQueue(self.work_clock.seconds, partial(self.clock.callLater, 0))
        self.factory = RelayFactory(
            self.application,
            RoutePolicy(
                throttle=throttle,
                max_message_bytes=max_message_bytes,
                deflate=deflate,
                answer_fields=answer_fields,
            ),
            limits,
            self.gate,
            self.wheel,
            self.clock.seconds,
            self.fair_queue,
        )
        self.observer = RefusalLog()
        self.accepted: list[Any] = []
        self.live = LivePolicy(trust)
        self.routes = {PATH: self.factory}
        self.pages: dict[str, Any] = {"/healthz": lambda: Page(200, (("Content-Type", "text/plain"),), b"ok")}
        self.context = ListenerContext(
            gate=self.gate,
            routes=self.routes,
            pages=self.pages,
            observer=new_observer(self.gate, self.clock.seconds) if new_observer is not None else self.observer,
            wheel=self.wheel,
            now=self.clock.seconds,
            live=self.live,
            callbacks=AcceptCallbacks(self.accepted.append),
            behind_proxy_protocol=behind_proxy_protocol,
            proxy_protocol=proxy_protocol,
            dated=Dates(lambda: DATE_S),
        )
        self.http_factory = HttpFactory(self.context)

    def drop(self, *reasons: str) -> None:
        """Answer refusals for these reasons no longer, and all others."""
        self.live.configure(self.live.trust, frozenset(reasons))

    def connect(self, host: str = ALICE, *, peer_reads: bool = True) -> Connection:
        """Accept a connection."""
        return Connection(self, host, peer_reads=peer_reads)

    def upgraded(self, host: str = ALICE, *, peer_reads: bool = True) -> tuple[Connection, FakeSession]:
        """Accept a connection and complete its upgrade; ``peer_reads`` counts from then on."""
        connection = self.connect(host)
        connection.feed(request_head())
        assert connection.take().startswith(b"HTTP/1.1 101 ")
        connection.transport.peer_reads = peer_reads
        return connection, self.application.sessions[-1]

    def pass_time(self, seconds: float, step_s: float = 0.25) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)

    def tokens_spent(self, host: str = ALICE) -> int:
        """Return how many tokens of the client's bucket are spent; changes nothing that the test can see."""
        client, quota, left = client_of(host), self.gate.config.upgrade_quota, 0
        assert quota is not None
        # A refused attempt would reserve a place in the queue, and delay the next one.
        while self.gate._over_quota(client, self.clock.seconds()) is None and (
            self.gate.spend(client, self.clock.seconds()) is None
        ):
            left += 1
        return quota.burst - left

    def assert_empty(self) -> None:
        """Check that no lease is held and no timer is set."""
        leases = self.gate.leases
        assert (leases.handshakes, leases.connections) == (0, 0)
        assert not self.factory.open
        assert not self.context.waiting
        assert len(self.wheel) == 0
        assert len(self.fair_queue) == 0
        self.clock.advance(FOREVER_S)
        assert not self.clock.getDelayedCalls()


def assert_closing(connection: Connection, code: int, reason: str = "") -> None:
    """Check that the last frame that the peer received is a close frame, and the only one."""
    frames = connection.frames()
    assert [frame.opcode.name for frame in frames].count("CLOSE") == 1
    assert close_of(frames[-1]) == (code, reason)


def answer_pings(connection: Connection) -> int:
    """Answer every ping that the peer received, and return how many there were."""
    pings = [bytes(found.data) for found in connection.frames() if found.opcode is Opcode.PING]
    for payload in pings:
        connection.feed(frame(payload, PONG))
    return len(pings)
