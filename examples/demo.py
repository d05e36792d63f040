"""Demonstrate the relay: ``python examples/demo.py``, or ``make demo``. Exits with 0 if all checks pass, else with 1.

It starts a real relay (twistd, on free ports of the loopback interface). A binary and two phones exchange frames
through it, first undisturbed, then while another address, 127.0.0.2, floods it. A summary shows what each observed.

The script is a client of the relay: it uses the relay's protocol, command line, log and metrics, and Autobahn's client
side, and imports nothing of the relay. Linux answers on all of 127.0.0.0/8; on other systems, first add 127.0.0.2 to
the loopback interface. Times are seconds of `time.perf_counter`, shown as milliseconds.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred, DeferredQueue, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

DEADLINE_S = 20.0
SERVER_ID, GUESSED_ID, FLOODER = "demo", "guessed-server-id", "127.0.0.2"
PHONES, FRAMES, PAUSE_S = 2, 25, 0.02  # frames of each phone in each of the two rounds
ATTEMPTS, CONCURRENCY, BURST = 150, 10, 20  # the burst of the default quota, which then admits one attempt every 6 s
GREEN, RED, BLUE, FAINT = "32", "31", "36", "2"


def paint(colour: str, text: str) -> str:
    """Colour a text on terminals, unless the environment has NO_COLOR (https://no-color.org)."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{colour}m{text}\x1b[0m" if wanted else text


def report(role: str, event: str) -> None:
    """Print one line about an event."""
    print(f"{paint(BLUE, f'{role:<8}')}{event}", flush=True)


def in_ms(times_s: Sequence[float]) -> str:
    return f"median {statistics.median(times_s) * 1000:.1f} ms, worst {max(times_s) * 1000:.1f} ms"


async def together(*coroutines: Coroutine[Any, Any, None]) -> None:
    await gatherResults([ensureDeferred(coroutine) for coroutine in coroutines], consumeErrors=True)


class RelayProcess(ProcessProtocol):
    """The relay in a process of its own. ``ready`` fires with its ports, ``ended`` with its exit code."""

    def __init__(self) -> None:
        self.log = ""
        self.ready: Deferred[list[int]] = Deferred()
        self.ended: Deferred[int | None] = Deferred()

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N802, N803
        self.log += data.decode("utf-8", "replace")
        if not self.ready.called and "metrics on" in self.log:
            self.ready.callback([int(port) for port in re.findall(r" starting on (\d+)", self.log)])

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        if not self.ready.called:
            self.ready.errback(RuntimeError(f"the relay did not start\n{self.log}"))
        self.ended.callback(cast(Any, reason.value).exitCode)


class Peer(WebSocketClientProtocol):
    """A connection of the binary, of a phone, or of the flood."""

    http_headers: dict[str, str]
    http_status_line: str

    def __init__(self) -> None:
        super().__init__()
        self.answered: Deferred[None] = Deferred()
        self.gone: Deferred[int | None] = Deferred()
        self.messages: DeferredQueue[Any] = DeferredQueue()

    def onOpen(self) -> None:
        self.answered.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.messages.put(json.loads(payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str) -> None:
        if not self.answered.called:
            self.answered.callback(None)
        self.gone.callback(code)

    def send(self, message: object) -> None:
        cast(Any, self).sendMessage(json.dumps(message).encode())


@dataclass
class Observed:
    """What the demonstration has observed, for the summary."""

    to_binary_s: list[float] = field(default_factory=list)
    to_phone_s: list[float] = field(default_factory=list)
    admitted: int = 0  # attempts of the flood, like the next two
    refused: int = 0
    retry_after_s: set[int] = field(default_factory=set)
    log_lines: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    close_codes: list[int | None] = field(default_factory=list)
    exit_code: int | None = None


def start_relay(reactor: Any) -> RelayProcess:
    """Start a relay with default options except for the ports. It is killed when this process ends."""
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
    command += ["pyryrelay", "--listen", "tcp:0:interface=127.0.0.1", "--admin-listen", "tcp:0:interface=127.0.0.1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYRYRELAY_")}
    relay = RelayProcess()
    process = reactor.spawnProcess(relay, sys.executable, command, environment)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: process.pid and process.signalProcess("KILL"))
    return relay


async def connect(reactor: Any, port: int, path: str, server_id: str, source: str = "127.0.0.1") -> Peer:
    """Connect from the address ``source``, and return when the upgrade has succeeded or failed."""
    headers = {"x-pyrycode-server": server_id, "x-pyrycode-version": "demo"}
    factory = WebSocketClientFactory(f"ws://127.0.0.1:{port}{path}", headers=headers, useragent="demo", reactor=reactor)
    factory.protocol, factory.noisy = Peer, False
    peer = cast(Peer, await TCP4ClientEndpoint(reactor, "127.0.0.1", port, 5, (source, 0)).connect(factory))
    await peer.answered
    return peer


async def talk(reactor: Any, phone: Peer, observed: Observed) -> None:
    """Send frames from a phone, each after the answer to the previous one."""
    for _ in range(FRAMES):
        phone.send({"sent": time.perf_counter()})
        answer = await phone.messages.get()
        observed.to_phone_s.append(time.perf_counter() - answer["sent"])
        await deferLater(reactor, PAUSE_S)


async def serve(binary: Peer, observed: Observed) -> None:
    """Answer each frame, addressed to the phone that the relay names."""
    for number in range(2 * PHONES * FRAMES):
        envelope = await binary.messages.get()
        observed.to_binary_s.append(time.perf_counter() - envelope["frame"]["sent"])
        answer = {"conn_id": envelope["conn_id"], "frame": {"sent": time.perf_counter()}}
        if number == 0:
            report("phone", f"sends   {json.dumps(envelope['frame'])}")
            report("binary", f"gets    {json.dumps(envelope)}")
        binary.send(answer)


async def attempt(reactor: Any, port: int, observed: Observed) -> None:
    """Guess a server-id once."""
    peer = await connect(reactor, port, "/v1/client", GUESSED_ID, FLOODER)
    if peer.http_status_line.split()[1] == "429" and "retry-after" in peer.http_headers:
        observed.refused += 1
        observed.retry_after_s.add(int(peer.http_headers["retry-after"]))
    elif await peer.gone == 4404:
        observed.admitted += 1


async def flood(reactor: Any, port: int, observed: Observed) -> None:
    """Make all attempts, `CONCURRENCY` at a time."""
    for _ in range(ATTEMPTS // CONCURRENCY):
        await together(*(attempt(reactor, port, observed) for _ in range(CONCURRENCY)))


def scrape(port: int) -> list[str]:
    """Return the lines of ``/metrics``. Blocks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics", headers={"Connection": "close"})
    return connection.getresponse().read().decode().splitlines()


async def watch(reactor: Any) -> Observed:
    """Run the demonstration."""
    observed = Observed()
    relay = start_relay(reactor)
    port, admin_port = await relay.ready
    report("relay", f"twistd pyryrelay listens on 127.0.0.1:{port}, metrics on 127.0.0.1:{admin_port}")
    binary = await connect(reactor, port, "/v1/server", SERVER_ID)
    phones = [await connect(reactor, port, "/v1/client", SERVER_ID) for _ in range(PHONES)]
    report("binary", f"claimed the server-id {SERVER_ID!r}; {PHONES} phones have connected to it")
    serving = ensureDeferred(serve(binary, observed))
    await together(*(talk(reactor, phone, observed) for phone in phones))
    quiet = in_ms(observed.to_phone_s)
    report("phones", f"{PHONES * FRAMES} frames in each direction without load; to the phones: {quiet}")
    report("flood", f"{ATTEMPTS} attempts from {FLOODER} start, and the phones continue")
    await together(flood(reactor, port, observed), *(talk(reactor, phone, observed) for phone in phones))
    report("flood", f"{observed.admitted} were admitted and found no binary, {observed.refused} were refused with 429")
    during = in_ms(observed.to_phone_s[PHONES * FRAMES :])
    report("phones", f"{PHONES * FRAMES} frames in each direction during the flood; to the phones: {during}")
    await serving
    observed.metrics = await deferToThread(scrape, admin_port)
    cast(Any, relay.transport).signalProcess("TERM")
    observed.close_codes = [await peer.gone for peer in (binary, *phones)]
    observed.exit_code = await relay.ended
    report("relay", f"SIGTERM: all peers were closed with {observed.close_codes[0]}, exit code {observed.exit_code}\n")
    lines = [line.partition("] ")[2] for line in relay.log.splitlines()]
    observed.log_lines = [line for line in lines if FLOODER in line or GUESSED_ID in line]
    return observed


def summary(observed: Observed) -> list[tuple[bool, str, list[str]]]:
    """Return the checks: whether each has passed, its text, and details."""
    frames, lines = 2 * PHONES * FRAMES, len(observed.log_lines)
    reasons = (f'pyryrelay_refusals_total{{reason="{reason}"}}' for reason in ("rate_limit", "queue_full"))
    counters = ("pyrycode_relay_frames_forwarded_total", *reasons)
    metrics = [line for line in observed.metrics if line.startswith(counters)]
    numbers = [int(float(line.rpartition(" ")[2])) for line in metrics]
    counted = numbers[:2] == [frames, frames] and len(numbers) == 4 and sum(numbers[2:]) == observed.refused
    waits = f"{min(observed.retry_after_s, default=0)} to {max(observed.retry_after_s, default=0)} s"
    flood = f"{observed.admitted} of {ATTEMPTS} were admitted, {observed.refused} were refused"
    burst_kept = (
        BURST <= observed.admitted <= BURST + DEADLINE_S / 6 and observed.admitted + observed.refused == ATTEMPTS
    )
    return [
        (len(observed.to_binary_s) == frames, f"phones to binary: {frames} frames, {in_ms(observed.to_binary_s)}", []),
        (len(observed.to_phone_s) == frames, f"binary to phones: {frames} frames, {in_ms(observed.to_phone_s)}", []),
        (burst_kept, f"flood: {flood} with 429 and Retry-After of {waits}", []),
        (0 < lines <= 5, f"log: {ATTEMPTS} attempts caused {lines} lines", observed.log_lines),
        (counted, "metrics: the counters agree", metrics),
        (
            {*observed.close_codes} == {1001} and observed.exit_code == 0,
            "end: all peers were closed with 1001, exit code 0",
            [],
        ),
    ]


async def main(reactor: Any) -> None:
    """Run the demonstration with a timeout, print the summary, and exit with 1 unless all checks have passed."""
    started = time.perf_counter()
    try:
        observed = await ensureDeferred(watch(reactor)).addTimeout(DEADLINE_S, reactor)
    except Exception as error:
        print(f"\nThe demonstration failed: {error!r}", file=sys.stderr)
        raise SystemExit(1) from None
    checks = summary(observed)
    for passed, line, details in checks:
        print(paint(GREEN, "passed") if passed else paint(RED, "FAILED"), line)
        for detail in details:
            print(paint(FAINT, f"         {detail}"))
    all_passed = all(passed for passed, _, _ in checks)
    print(f"\n{'All' if all_passed else 'Not all'} checks passed, in {time.perf_counter() - started:.1f} s.")
    raise SystemExit(0 if all_passed else 1)


if __name__ == "__main__":
    react(lambda reactor: ensureDeferred(main(reactor)))
