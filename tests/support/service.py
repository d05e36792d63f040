"""A machine in memory for the assembled relay: its reactor, its listening ports and its connections."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorTime, IReactorUNIX
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer, implementer_only

from pyryrelay.pyry.mount import Pyry
from pyryrelay.service import RelayService

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@implementer(IListeningPort)
class Port:
    """A listening port that starts and stops its factory, as real ones do, and records it in the machine's history."""

    def __init__(self, machine: Machine, place: object, factory: Factory) -> None:
        self._machine = machine
        self.place = place
        self.factory = factory
        self.listening = False

    def startListening(self) -> None:
        self.listening = True
        self.factory.doStart()
        self._machine.history.append(("listen", self.place))

    def stopListening(self) -> None:
        assert self.listening
        self.listening = False
        self.factory.doStop()
        self._machine.history.append(("stop listening", self.place))

    def stopReading(self) -> None:
        self._machine.history.append(("pause", self.place))

    def startReading(self) -> None:
        self._machine.history.append(("resume", self.place))

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 1)


class Threads:
    """A thread pool whose threads take no time, unless they are `held`: then each call waits for `go_on`."""

    def __init__(self) -> None:
        self.held = False
        self.calls = 0
        """How many calls were made, or wait."""
        self._waiting: list[Callable[[], None]] = []

    def defer(self, call: Callable[[], Any]) -> Deferred[Any]:
        """Return the outcome of a call in a thread, as `twisted.internet.threads` does."""
        outcome: Deferred[Any] = Deferred()
        self.callInThreadWithCallback(
            lambda is_good, result: outcome.callback(result) if is_good else outcome.errback(result), call
        )
        return outcome

    def callInThreadWithCallback(  # noqa: N802
        self, done: Callable[[bool, Any], None], call: Callable[[], object]
    ) -> None:
        def run() -> None:
            try:
                outcome: tuple[bool, object] = True, call()
            except Exception:
                outcome = False, Failure()
            done(*outcome)

        self.calls += 1
        if self.held:
            self._waiting.append(run)
        else:
            run()

    def go_on(self) -> None:
        """Make the calls that wait, and later ones at once."""
        self.held = False
        while self._waiting:
            self._waiting.pop(0)()


@implementer_only(IReactorTCP, IReactorUNIX, IReactorTime)
class Machine(MemoryReactorClock):
    """A reactor without descriptors. ``history`` has what happened to its ports and transports, in order."""

    def __init__(self) -> None:
        MemoryReactorClock.__init__(self)
        self.history: list[tuple[object, ...]] = []
        self.ports: dict[object, Port] = {}
        self.taken: dict[object, Exception] = {}
        self.stops = 0
        self.threads = Threads()

    def stop(self) -> None:
        self.stops += 1

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:  # noqa: N802
        call(*arguments)

    def getThreadPool(self) -> Threads:  # noqa: N802
        return self.threads

    def take(self, port: int) -> None:
        """Let another process have this port."""
        self.taken[port] = CannotListenError("127.0.0.1", port, OSError(98, "Address already in use"))

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:  # noqa: N802
        return self._listen(port, factory)

    def listenUNIX(self, address: Any, factory: Any, *arguments: Any, **others: Any) -> Any:  # noqa: N802
        return self._listen(address, factory)

    def _listen(self, place: object, factory: Factory) -> Port:
        if place in self.taken:
            raise self.taken[place]
        assert place not in self.ports
        port = self.ports[place] = Port(self, place, factory)
        port.startListening()
        return port

    @property
    def listening(self) -> list[object]:
        """Return the addresses that are listened on."""
        return [place for place, port in self.ports.items() if port.listening]

    def connect(self, place: object, host: str = "192.0.2.7") -> Connection:
        """Return the peer's end of a new connection."""
        assert self.ports[place].listening
        return Connection(self, self.ports[place].factory, host)


class Transport(StringTransport):
    """The relay's end of a connection: it reports its loss a moment after it was closed, as sockets do."""

    protocol: Any = None

    def __init__(self, machine: Machine, host: str) -> None:
        StringTransport.__init__(self, peerAddress=IPv4Address("TCP", host, 50000), lenient=True)
        self._machine = machine
        self._host = host
        self.lost = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        assert enabled

    def write(self, data: bytes) -> None:
        self._machine.history.append(("write", self._host))
        StringTransport.write(self, data)

    def loseConnection(self) -> None:
        if not self.disconnecting:
            StringTransport.loseConnection(self)
            self._machine.callLater(0, self._lose)

    def loseWriteConnection(self) -> None:  # noqa: N802
        # The peer closes as soon as it sees the end of our side.
        self.loseConnection()

    def abortConnection(self) -> None:
        self._machine.history.append(("abort", self._host))
        StringTransport.abortConnection(self)
        self._machine.callLater(0, self._lose)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            if self.producer is not None:
                self.producer.stopProducing()
            self.protocol.connectionLost(Failure(ConnectionDone()))


class Connection:
    """The peer's end of a connection."""

    def __init__(self, machine: Machine, factory: Factory, host: str) -> None:
        self._machine = machine
        build: Any = factory.buildProtocol
        self.protocol: Any = build(IPv4Address("TCP", host, 50000))
        self.transport = Transport(machine, host)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    @property
    def lost(self) -> bool:
        """Tell whether the connection is over."""
        return self.transport.lost

    def received(self) -> bytes:
        """Return what has arrived since the last call."""
        if not self.transport.io.tell():
            # The fair queue measures real time: on a busy machine it leaves a part of the work to the next turn.
            self._machine.advance(0)
        io, self.transport.io = self.transport.io, BytesIO()
        return io.getvalue()

    def ask(self, path: str, **fields: str) -> bytes:
        """Send a request head, and return the answer."""
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: localhost",
            *(f"{name.replace('_', '-')}: {fields[name]}" for name in fields),
        ]
        self.protocol.dataReceived("\r\n".join([*lines, "", ""]).encode())
        return self.received()

    def upgrade(self, path: str, server_id: str = "sid", **fields: str) -> bytes:
        """Ask for a WebSocket connection with all headers that the relay requires, and return the answer."""
        return self.ask(
            path,
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key=KEY,
            User_Agent="test",
            X_Pyrycode_Server=server_id,
            X_Pyrycode_Version="1",
            **fields,
        )

    def send(self, text: bytes) -> None:
        """Send one text message, masked with zeros."""
        assert len(text) < 126
        self.protocol.dataReceived(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)

    def send_close(self, code: int) -> None:
        """Send the peer's close frame."""
        self.protocol.dataReceived(bytes([0x88, 0x82]) + bytes(4) + code.to_bytes(2, "big"))


def status(answer: bytes) -> int:
    """Return the status code of an HTTP answer."""
    return int(answer.split(b" ", 2)[1])


def body(answer: bytes) -> Any:
    """Return the JSON of an HTTP answer."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame of the relay."""
    text = reason.encode()
    return bytes([0x88, 2 + len(text)]) + code.to_bytes(2, "big") + text


def text_frame(text: bytes) -> bytes:
    """Return a short text message of the relay."""
    assert len(text) < 126
    return bytes([0x81, len(text)]) + text


def pyry(service: RelayService) -> Pyry:
    """The pyry protocol of a relay."""
    (found,) = [protocol for protocol in service.protocols if isinstance(protocol, Pyry)]
    return found
