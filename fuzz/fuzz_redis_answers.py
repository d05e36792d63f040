"""Answers of a server of a cluster: whatever comes, calls fail in one way or get what fits, and each has one outcome.

Input: one byte for the size of the pieces, one that says whether the greeting comes first, then what the server sends.
"""

from __future__ import annotations

from collections.abc import Callable

from harness import ensure, instrumented, main

with instrumented():
    from twisted.internet.defer import Deferred, succeed
    from twisted.internet.error import ConnectionDone
    from twisted.internet.interfaces import IDelayedCall
    from twisted.internet.task import Clock
    from twisted.internet.testing import StringTransport
    from twisted.python.failure import Failure

    from pyryrelay.cluster.redis.answers import are_numbers, are_words
    from pyryrelay.cluster.redis.client import RedisClient
    from pyryrelay.cluster.redis.connection import Connection
    from pyryrelay.cluster.redis.interface import RedisError, Script

HELLO = b"*4\r\n$7\r\nversion\r\n$5\r\n7.0.1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n*2\r\n$10\r\n1790000000\r\n$1\r\n5\r\n"
SCRIPTS = (
    Script("return 1", lambda answer, keys: are_words(answer, keys)),
    Script("return 2", lambda answer, keys: are_numbers(answer, keys)),
    Script("return 3"),
)


class Server:
    """What a client needs, in memory; it makes one connection."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wire = StringTransport()
        self.wire.abortConnection = lambda: None  # type: ignore[method-assign]
        self.connection: Connection | None = None
        self.client = RedisClient(self.connect, lambda: ("HELLO", "2"), self, lambda problem: None)

    def now(self) -> float:
        """Return the time of this input."""
        return float(self.clock.seconds())

    def call_later(self, delay_s: float, call: Callable[[], object]) -> IDelayedCall:
        """Schedule by the time of this input."""
        later: IDelayedCall = self.clock.callLater(delay_s, call)
        return later

    def connect(self, connection: Connection) -> Deferred[str]:
        """Connect at once."""
        self.connection = connection
        connection.makeConnection(self.wire)  # type: ignore[no-untyped-call]
        return succeed("fuzz:1")


def check(data: bytes) -> None:
    """Greet, ask, and feed the input in pieces; then end the connection."""
    piece_bytes, greets, sent = (data[0] if data else 0) or 1, bool(data[1:2] > b"\x7f"), data[2:]
    server = Server()
    server.client.start()
    connection = server.connection
    if connection is None:
        ensure(False, "a client connects")
        return
    if greets:
        connection.dataReceived(HELLO)
        ensure(server.client.is_up, "a server that greets is used")
    outcomes: list[object] = []
    calls = [server.client.call(script, ["a", "b"]) for script in SCRIPTS]
    calls.append(server.client.command("GET", "a"))
    for call in calls:
        call.addBoth(outcomes.append)
    for start in range(0, len(sent), piece_bytes):
        if not connection.is_open:
            break
        connection.dataReceived(sent[start : start + piece_bytes])
    ensure(
        not (connection.is_open and server.client.is_up) or greets or b"version" in sent, "who does not greet is none"
    )
    if connection.is_open:
        connection.connectionLost(Failure(ConnectionDone()))
    ensure(len(outcomes) == len(calls), "each call has one outcome")
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            ensure(isinstance(outcome.value, RedisError), f"calls fail in one way, and not by {outcome.value!r}")
    ensure(bool(server.client.problem), "a connection that has ended is a problem")
    server.client.stop()
    ensure(not server.clock.getDelayedCalls(), "nothing goes on behind the end")


if __name__ == "__main__":
    main(check)
