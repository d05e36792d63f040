"""A Redis server on transports in memory, whose answers are what a test says."""

from __future__ import annotations

from collections.abc import Callable

import hiredis
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pyryrelay.cluster.redis.client import RedisClient
from pyryrelay.cluster.redis.connection import Connection
from pyryrelay.cluster.redis.interface import DownError

_SAID = (b"server", b"redis", b"version", b"7.0.1", b"mode", b"standalone", b"role", b"master")
HELLO = b"*8\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in _SAID)
TIME = b"*2\r\n$10\r\n1790000000\r\n$6\r\n250000\r\n"


class Wire(StringTransport):
    """One connection to the server, which notes what it was asked."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.protocol: Connection | None = None
        self.asked: list[list[bytes]] = []
        self.is_aborted = False
        self._reader = hiredis.Reader()

    def write(self, data: bytes) -> None:
        """Read commands."""
        self._reader.feed(data)
        while (command := self._reader.gets()) is not False:
            self.asked.append(command)

    def abortConnection(self) -> None:
        """End now."""
        self.is_aborted = True
        self.close()

    def close(self, reason: Exception | None = None) -> None:
        """End the connection from the server's side."""
        assert self.protocol is not None
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    def answer(self, data: bytes) -> None:
        """Send an answer, or a part of one."""
        assert self.protocol is not None
        self.protocol.dataReceived(data)

    def greet(self, hello: bytes = HELLO) -> None:
        """Answer the two commands with which each connection begins."""
        self.answer(hello)
        self.answer(TIME)

    @property
    def names(self) -> list[str]:
        """The commands without their arguments."""
        return [words[0].decode() for words in self.asked]


class FakeServer:
    """Accepts connections of one client, or refuses them while ``refusal`` says why."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(100.0)
        self.wires: list[Wire] = []
        self.refusal = ""
        self.changes: list[str] = []
        self.client = RedisClient(
            self.connect, lambda: ("HELLO", "2"), self, self.changes.append, "fake", 0, lambda: 1_790_000_000.0
        )

    def now(self) -> float:
        """Return the time of the test."""
        return float(self.clock.seconds())

    def call_later(self, delay_s: float, call: Callable[[], object]) -> IDelayedCall:
        """Schedule by the time of the test."""
        later: IDelayedCall = self.clock.callLater(delay_s, call)
        return later

    def connect(self, connection: Connection) -> Deferred[str]:
        """Connect at once, or refuse."""
        if self.refusal:
            return fail(DownError(self.refusal))
        wire = Wire()
        wire.protocol = connection
        self.wires.append(wire)
        connection.makeConnection(wire)  # type: ignore[no-untyped-call]
        return succeed("fake:1")

    @property
    def wire(self) -> Wire:
        """The newest connection."""
        return self.wires[-1]

    def begin(self) -> Wire:
        """Start the client, greet it, and forget what it asked for that."""
        self.client.start()
        self.wire.greet()
        self.wire.asked.clear()
        return self.wire
