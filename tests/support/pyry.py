"""A pyry relay on a clock that only the test moves, and peers that record what was done to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from twisted.internet.task import Clock

from pyryrelay.guard import ClientAddress, client_address
from pyryrelay.protocol import Application, Message, Request, Session
from pyryrelay.pyry.applications import BinaryApplication, PhoneApplication
from pyryrelay.pyry.registry import Registry
from pyryrelay.pyry.relay import Relay
from pyryrelay.pyry.sessions import HIGH_WATER_BYTES

A = "server-a"
B = "server-b"


def address(text: str = "192.0.2.7") -> ClientAddress:
    """Return a client address, from its text."""
    client = client_address(text)
    assert client is not None
    return client


def request(fields: Mapping[str, str | Sequence[str]], path: str = "/v1/server", source: str = "192.0.2.7") -> Request:
    """Return an upgrade request with these header fields, from the address ``source``."""
    headers = {name: (value,) if isinstance(value, str) else tuple(value) for name, value in fields.items()}
    return Request(path, headers, address(source))


class FakePeer:
    """An open connection that records what the relay does to it.

    While it is blocked, what is sent to it waits and counts in ``buffered_bytes``, and in ``waiting`` for its source;
    `drain` ends that, and `drain_source` for one source. As with every peer, nothing is sent once it is closing.
    """

    def __init__(self) -> None:
        self.on_drain: Callable[[], None] | None = None
        self.on_source_drain: Callable[[Hashable], None] | None = None
        self.waiting: dict[Hashable, int] = {}
        self.sources: list[Hashable] = []  # Of the batches.
        self.on_resume: Callable[[], None] = lambda: None  # What the peer had sent before arrives.
        self.batches: list[list[bytes]] = []
        self.closes: list[tuple[int, str]] = []
        self.done: list[str] = []
        self.pings: list[Callable[[], None]] = []
        self.paused = False
        self.buffered_bytes = 0
        self._message_bytes = 0

    @property
    def sent(self) -> list[bytes]:
        """Return all messages, in order."""
        return [message for batch in self.batches for message in batch]

    def block(self, message_bytes: int = HIGH_WATER_BYTES + 1) -> None:
        """Stop reading, with something waiting already.

        Each message counts as ``message_bytes`` from now on; one alone is more than may wait from one phone.
        """
        self._message_bytes = message_bytes
        self.buffered_bytes += 1

    def drain_source(self, source: Hashable) -> None:
        """Read everything of one source."""
        self.buffered_bytes -= self.waiting.pop(source)
        if self.on_source_drain is not None:
            self.on_source_drain(source)

    def drain(self) -> None:
        """Read everything; what is sent because of that may block the peer again."""
        self._message_bytes = self.buffered_bytes = 0
        waiting, self.waiting = self.waiting, {}
        for source in waiting:
            if self.on_source_drain is not None:
                self.on_source_drain(source)
        if self.on_drain is not None and not self.buffered_bytes:
            self.on_drain()

    def answer(self) -> None:
        """Send a pong for every ping so far."""
        pings, self.pings = self.pings, []
        for answered in pings:
            answered()

    # pyryrelay.protocol.Peer

    def waiting_bytes(self, source: Hashable) -> int:
        return self.waiting.get(source, 0)

    def send(
        self,
        batch: Sequence[bytes],
        *,
        binary: bool = False,
        before: bytes = b"",
        after: bytes = b"",
        source: Hashable = None,
    ) -> None:
        """Record the messages: envelopes and frames are text."""
        assert batch
        assert not binary
        if not self.closes:
            messages = [before + payload + after for payload in batch]
            self.batches.append(messages)
            self.sources.append(source)
            self.done.append("send")
            size = len(messages) * self._message_bytes
            if size:
                self.buffered_bytes += size
                self.waiting[source] = self.waiting.get(source, 0) + size

    def close(self, code: int, reason: str = "") -> None:
        self.closes.append((code, reason))
        self.done.append("close")

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self.on_resume()

    def ping(self, answered: Callable[[], None]) -> None:
        self.pings.append(answered)


def assert_open(peer: FakePeer) -> None:
    """Check that the connection was not closed."""
    assert peer.closes == []


def assert_closed(peer: FakePeer, code: int, reason: str = "") -> None:
    """Check that the connection was closed once, with this code and reason."""
    assert peer.closes == [(code, reason)]


@dataclass
class RecordedEvents:
    """`pyryrelay.pyry.relay.Events` as a list of tuples: the event's name, then its arguments.

    The connection is not among these, but in ``connections``, at the same place.
    """

    log: list[tuple[object, ...]] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)

    def named(self, *names: str) -> list[tuple[object, ...]]:
        """Return the events with one of these names."""
        return [event for event in self.log if event[0] in names]

    def _note(self, connection: int, *event: object) -> None:
        self.log.append(event)
        self.connections.append(connection)

    def claimed(self, server_id: str, version: str, client: ClientAddress, connection: int) -> None:
        self._note(connection, "claimed", server_id, version, client)

    def released(self, server_id: str, code: int, connection: int) -> None:
        self._note(connection, "released", server_id, code)

    def registered(
        self, server_id: str, conn_id: str, device_name: str, client: ClientAddress, connection: int
    ) -> None:
        self._note(connection, "registered", server_id, conn_id, device_name, client)

    def unregistered(self, server_id: str, conn_id: str, code: int, connection: int) -> None:
        self._note(connection, "unregistered", server_id, conn_id, code)

    def closed_by_registry(self, server_id: str, code: int, reason: str, connection: int) -> None:
        self._note(connection, "closed_by_registry", server_id, code, reason)

    def envelope_dropped(self, server_id: str, kind: str, count: int, connection: int) -> None:
        self._note(connection, "envelope_dropped", server_id, str(kind), count)

    def push_wake_dropped(self, server_id: str, count: int, connection: int) -> None:
        self._note(connection, "push_wake_dropped", server_id, count)

    def push_wake_failed(self, server_id: str, outcome: str, reason: str, connection: int) -> None:
        self._note(connection, "push_wake_failed", server_id, str(outcome), str(reason))


@dataclass(eq=False)
class Link:
    """One connection: the peer that the relay sees, and the session that it keeps."""

    peer: FakePeer
    session: Session
    conn_id: str = ""

    def says(self, *messages: bytes, binary: bool = False) -> None:
        """Receive these messages in one chunk."""
        batch: list[Message] = [(message, binary) for message in messages]
        self.session.messages(batch)

    def drops(self, code: int = 1006) -> None:
        """Lose the connection."""
        self.session.closed(code, "")


class World:
    """A relay, its clock, and the peers that connect."""

    def __init__(self, *, grace_s: float = 30.0, max_phones: int = 16) -> None:
        self.clock = Clock()
        self.events = RecordedEvents()
        self.registry = Registry(grace_s=grace_s, max_phones=max_phones)
        self.relay = Relay(self.registry, self.events, self.clock.seconds, self.clock.callLater)
        self.binaries, self.phones = BinaryApplication(self.relay), PhoneApplication(self.relay)
        self.counters = self.relay.counters

    def binary(self, server_id: str = A, version: str = "1.2.3", **fields: str) -> Link:
        """Connect a binary."""
        headers = {"x-pyrycode-server": server_id, "x-pyrycode-version": version, "user-agent": "pyry"}
        return self._connect(self.binaries, headers | fields)

    def phone(
        self,
        server_id: str = A,
        fields: Mapping[str, str | Sequence[str]] | None = None,
        source: str = "192.0.2.7",
    ) -> Link:
        """Connect a phone; its conn_id is "" if the relay refused it."""
        before = len(self.events.named("registered"))
        headers = {"x-pyrycode-server": server_id, "user-agent": "app"} | dict(fields or {})
        link = self._connect(self.phones, headers, source)
        for event in self.events.named("registered")[before:]:
            link.conn_id = str(event[2])
        return link

    def _connect(
        self, application: Application, fields: Mapping[str, str | Sequence[str]], source: str = "192.0.2.7"
    ) -> Link:
        arriving = request(fields, source=source)
        assert application.gate_headers(arriving) is None
        peer = FakePeer()
        return Link(peer, application.opened(peer, arriving))

    @property
    def timers(self) -> list[float]:
        """Return when the relay's delayed calls are due."""
        return sorted(call.getTime() for call in self.clock.getDelayedCalls())


def wrapped(phone: Link, frame: bytes) -> bytes:
    """Return what the binary gets for a frame of this phone."""
    return b'{"conn_id":"%s","frame":%s}' % (phone.conn_id.encode(), frame)


def notice(phone: Link, code: int) -> bytes:
    """Return what the binary gets when the connection of this phone ends by itself."""
    return b'{"conn_id":"%s","close_code":%d}' % (phone.conn_id.encode(), code)


def envelope(conn_id: str | None, frame: bytes | None = None, close_code: int | None = None) -> bytes:
    """Return what a binary sends."""
    parts = [] if conn_id is None else [b'"conn_id":' + json.dumps(conn_id).encode()]
    parts += [] if frame is None else [b'"frame":' + frame]
    parts += [] if close_code is None else [b'"close_code":%d' % close_code]
    return b"{" + b",".join(parts) + b"}"
