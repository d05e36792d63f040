"""The snippets of docs/howto/protect-your-own-server.md, taken from the page and run."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock, LoopingCall
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure

from pyryrelay.guard import Gate, Reason, Refusal

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "protect-your-own-server.md"
SERVER = IPv4Address("TCP", "192.0.2.1", 80)
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: chat.example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n%s\r\n"
)
REPORT = b"GET / HTTP/1.1\r\nHost: reports.example.org\r\n%s\r\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of Autobahn and of `time.monotonic`."""
    clock = Clock()
    monkeypatch.setattr("txaio.config.loop", clock)
    monkeypatch.setattr("time.monotonic", clock.seconds)
    return clock


@pytest.fixture
def snippets(clock: Clock) -> list[dict[str, Any]]:
    """Return the namespace after each of the page's code blocks; the last two run on their own."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    shared: dict[str, Any] = {"__name__": "howto"}
    other: dict[str, Any] = {"__name__": "howto"}
    namespaces = [shared, shared, shared, shared, other, other]
    for number, (block, namespace) in enumerate(zip(blocks, namespaces, strict=True), 1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), namespace)
    namespaces[0]["GuardedEcho"].now = staticmethod(clock.seconds)
    namespaces[0]["GuardedChat"].now = staticmethod(clock.seconds)
    return namespaces


class Transport(StringTransportWithDisconnection):
    """The transport of a TCP connection, with what Twisted's stand-in lacks."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: nothing is delayed in memory."""

    def unregisterProducer(self) -> None:
        """Accept that there was no producer, as TCP does."""
        self.producer = None


class Attempt:
    """One connection to a factory, in memory."""

    def __init__(self, factory: Any, request: bytes, host: str, fields: bytes = b"") -> None:
        address = IPv4Address("TCP", host, 40000)
        self.transport: Any = Transport(SERVER, address)  # type: ignore[no-untyped-call]
        self.protocol = factory.buildProtocol(address)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        self.protocol.dataReceived(request % fields)

    @property
    def answer(self) -> tuple[int, bytes]:
        """Return the status and everything that was written."""
        wire = self.transport.value()
        return int(wire.split()[1]), wire

    def leave(self) -> None:
        """Lose the connection, unless the server has ended it."""
        if self.transport.connected:
            self.transport.connected = False
            self.protocol.connectionLost(Failure(ConnectionDone()))


def test_an_autobahn_server_is_guarded(snippets: list[dict[str, Any]], clock: Clock) -> None:
    """20 upgrades of one address pass and the 21st is answered 429; others pass, and no lease remains."""
    factory = snippets[0]["factory"]
    factory.protocol = snippets[0]["GuardedEcho"]
    gate: Gate = factory.protocol.gate
    attempts = [Attempt(factory, UPGRADE, "198.51.100.7") for _ in range(21)]
    assert [attempt.answer[0] for attempt in attempts] == [101] * 20 + [429]
    head = attempts[-1].answer[1]
    assert head.endswith(b"\r\n\r\n")
    assert b"\r\nRetry-After: 6\r\n" in head
    assert not attempts[-1].transport.connected
    assert gate.leases.connections == 20
    attempts.append(Attempt(factory, UPGRADE, "198.51.100.8"))
    assert attempts[-1].answer[0] == 101
    clock.advance(6)
    attempts.append(Attempt(factory, UPGRADE, "198.51.100.7"))
    assert attempts[-1].answer[0] == 101
    for attempt in attempts:
        attempt.leave()
    assert gate.leases.connections == 0


def test_the_guarded_server_still_does_its_work(snippets: list[dict[str, Any]]) -> None:
    """The guarded echo server answers a message with the same message."""
    attempt = Attempt(snippets[0]["factory"], UPGRADE, "198.51.100.7")
    attempt.transport.clear()
    attempt.protocol.dataReceived(b"\x81\x82\x00\x00\x00\x00hi")
    assert attempt.transport.value() == b"\x81\x02hi"
    attempt.leave()


def test_the_sweep_forgets(snippets: list[dict[str, Any]], clock: Clock) -> None:
    """The loop of the fifth snippet lets the gate forget an address whose bucket is full again."""
    gate: Gate = snippets[4]["Report"].gate
    Attempt(snippets[4]["site"], REPORT, "198.51.100.7", b"Connection: close\r\n")
    assert gate.tracked == 1
    sweeping: LoopingCall = snippets[4]["sweeping"]
    sweeping.clock = clock
    sweeping.start(1)
    clock.pump([1.0] * 300)
    sweeping.stop()
    assert gate.tracked == 0


def test_other_limits_and_a_proxy(snippets: list[dict[str, Any]]) -> None:
    """The second snippet trusts only its proxy, refuses denied networks, and caps connections at 8."""
    factory = snippets[0]["factory"]
    factory.protocol = snippets[0]["GuardedChat"]
    forwarded = b"X-Forwarded-For: 203.0.113.9, %s\r\n"
    denied = Attempt(factory, UPGRADE, "127.0.0.1", forwarded % b"198.51.100.4")
    assert denied.answer[0] == 403
    forger = Attempt(factory, UPGRADE, "198.51.100.4", forwarded % b"192.0.2.77")
    assert forger.answer[0] == 403
    attempts = [Attempt(factory, UPGRADE, "127.0.0.1", forwarded % b"192.0.2.77") for _ in range(9)]
    assert [attempt.answer[0] for attempt in attempts] == [101] * 8 + [429]
    for attempt in [denied, forger, *attempts]:
        attempt.leave()
    assert factory.protocol.gate.leases.connections == 0


def test_the_jail_of_the_second_snippet(
    snippets: list[dict[str, Any]], clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client that goes on is jailed for ten minutes by the address that the proxy names; the proxy never is."""
    factory = snippets[0]["factory"]
    factory.protocol = snippets[0]["GuardedChat"]
    gate: Gate = factory.protocol.gate
    for host, forwarded in (("127.0.0.1", b"X-Forwarded-For: 192.0.2.77\r\n"), ("127.0.0.1", b"")):
        for _ in range(125):
            Attempt(factory, UPGRADE, host, forwarded).leave()
    assert [str(sentence.network) for sentence in gate.jail.entries(clock.seconds())] == ["192.0.2.77/32"]
    assert capsys.readouterr().out == "jailed 192.0.2.77/32 for 600 s\n"
    jailed = Attempt(factory, UPGRADE, "127.0.0.1", b"X-Forwarded-For: 192.0.2.77\r\n")
    assert jailed.answer[0] == 403
    jailed.leave()
    clock.advance(600)
    freed = Attempt(factory, UPGRADE, "127.0.0.1", b"X-Forwarded-For: 192.0.2.77\r\n")
    assert freed.answer[0] == 101
    freed.leave()


def test_limits_that_change_while_it_runs(snippets: list[dict[str, Any]], clock: Clock) -> None:
    """A cap that the third snippet lowers closes no connection, refuses the next one, and gives no token back."""
    factory = snippets[0]["factory"]
    factory.protocol = snippets[0]["GuardedChat"]
    gate: Gate = factory.protocol.gate
    attempts = [Attempt(factory, UPGRADE, "192.0.2.77") for _ in range(6)]
    tracked = gate.tracked
    snippets[2]["tighten"](clock.seconds())
    assert gate.tracked == tracked
    assert gate.leases.connections_by_route == {"chat": 6}
    attempts.append(Attempt(factory, UPGRADE, "192.0.2.77"))
    assert [attempt.answer[0] for attempt in attempts] == [101] * 6 + [429]
    for attempt in attempts:
        attempt.leave()


def test_metrics(snippets: list[dict[str, Any]]) -> None:
    """The fourth snippet shows current refusals and leases."""
    factory = snippets[0]["factory"]
    factory.protocol = snippets[0]["GuardedChat"]
    attempts = [Attempt(factory, UPGRADE, "192.0.2.77") for _ in range(9)]
    answer = Attempt(snippets[3]["metrics"], REPORT, "127.0.0.1", b"Connection: close\r\n").answer[1]
    lines = answer.decode().partition("\r\n\r\n")[2].splitlines()
    assert lines.count('guard_refusals_total{reason="address_cap"} 1') == 1
    assert lines.count('guard_refusals_total{reason="rate_limit"} 0') == 1
    assert lines[-3:] == ['guard_connections{route="chat"} 8', "guard_jailed 0", "guard_tracked 2"]
    for attempt in attempts:
        attempt.leave()


def test_jitter(snippets: list[dict[str, Any]]) -> None:
    """The last snippet adds up to ten seconds to a wait."""
    refusal = Refusal(503, Reason.GLOBAL_CAP, 5.0)
    assert all(5.0 <= snippets[5]["spread"](refusal).retry_after_s <= 15.0 for _ in range(100))


def test_a_server_that_is_not_autobahn(snippets: list[dict[str, Any]]) -> None:
    """A plain server sends 20 pages to an address, then 429, and releases the place of each page that is sent."""
    site = snippets[4]["site"]
    gate: Gate = snippets[4]["Report"].gate
    attempts = [Attempt(site, REPORT, "198.51.100.7", b"Connection: close\r\n") for _ in range(21)]
    assert [attempt.answer[0] for attempt in attempts] == [200] * 20 + [429]
    assert attempts[0].answer[1].endswith(b"the report\n")
    assert b"\r\nRetry-After: 6\r\n" in attempts[-1].answer[1]
    assert gate.leases.connections == 0
