"""See the relay at work: `python examples/demo.py`, or `make demo`. Exit code 0 if all was seen as promised, else 1.

A real relay is started (twistd, on free ports of the loopback interface). A binary and two phones talk through it,
first in quiet, then while another address, 127.0.0.2, floods it. At the end stands what each of them saw.

This is a client, an application on the outside: it knows the relay's protocol, command line, log and metrics, uses
Autobahn's client side, and imports nothing of the relay. Linux answers on all of 127.0.0.0/8; elsewhere 127.0.0.2 has
to be given to the loopback interface first. Times are seconds of `time.perf_counter`, shown as milliseconds.
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
SERVER_ID, GUESSED_ID, FLOODER = "demo", "is-anybody-there", "127.0.0.2"
PHONES, FRAMES, PAUSE_S = 2, 25, 0.02  # frames of each phone in each of the two rounds
ATTEMPTS, AT_ONCE, BURST = 150, 10, 20  # the burst of the default quota, after which it lets one in each 6 s
GREEN, RED, BLUE, FAINT = "32", "31", "36", "2"


def paint(colour: str, text: str) -> str:
    """Colour for terminals, unless the environment asks for none (https://no-color.org)."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{colour}m{text}\x1b[0m" if wanted else text


def say(who: str, what: str) -> None:
    """One line of what somebody saw."""
    print(f"{paint(BLUE, f'{who:<8}')}{what}", flush=True)


def in_ms(times_s: Sequence[float]) -> str:
    return f"median {statistics.median(times_s) * 1000:.1f} ms, worst {max(times_s) * 1000:.1f} ms"


async def together(*coroutines: Coroutine[Any, Any, None]) -> None:
    await gatherResults([ensureDeferred(coroutine) for coroutine in coroutines], consumeErrors=True)


class RelayProcess(ProcessProtocol):
    """The relay in a process of its own. ``ready`` gives the ports that it listens on, ``ended`` its exit code."""

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
    """One connection: the binary's, a phone's, or an attempt of the flood."""

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

    def say(self, message: object) -> None:
        cast(Any, self).sendMessage(json.dumps(message).encode())


@dataclass
class Seen:
    """What the demonstration saw, for the summary."""

    to_binary_s: list[float] = field(default_factory=list)
    to_phone_s: list[float] = field(default_factory=list)
    admitted: int = 0  # attempts of the flood, as are the next three
    refused: int = 0
    retry_after_s: set[int] = field(default_factory=set)
    log_lines: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    close_codes: list[int | None] = field(default_factory=list)
    exit_code: int | None = None


def start_relay(reactor: Any) -> RelayProcess:
    """A relay with every option at its default but the ports; it does not outlive this process."""
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
    command += ["pyryrelay", "--listen", "tcp:0:interface=127.0.0.1", "--admin-listen", "tcp:0:interface=127.0.0.1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYRYRELAY_")}
    relay = RelayProcess()
    process = reactor.spawnProcess(relay, sys.executable, command, environment)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: process.pid and process.signalProcess("KILL"))
    return relay


async def connect(reactor: Any, port: int, path: str, server_id: str, source: str = "127.0.0.1") -> Peer:
    """A connection from the address ``source``, once its upgrade was answered with yes or no."""
    headers = {"x-pyrycode-server": server_id, "x-pyrycode-version": "demo"}
    factory = WebSocketClientFactory(f"ws://127.0.0.1:{port}{path}", headers=headers, useragent="demo", reactor=reactor)
    factory.protocol, factory.noisy = Peer, False
    peer = cast(Peer, await TCP4ClientEndpoint(reactor, "127.0.0.1", port, 5, (source, 0)).connect(factory))
    await peer.answered
    return peer


async def talk(reactor: Any, phone: Peer, seen: Seen) -> None:
    """A phone sends frames, each after the answer to the one before."""
    for _ in range(FRAMES):
        phone.say({"sent": time.perf_counter()})
        answer = await phone.messages.get()
        seen.to_phone_s.append(time.perf_counter() - answer["sent"])
        await deferLater(reactor, PAUSE_S)


async def serve(binary: Peer, seen: Seen) -> None:
    """The binary answers each frame to the phone that the relay names."""
    for number in range(2 * PHONES * FRAMES):
        envelope = await binary.messages.get()
        seen.to_binary_s.append(time.perf_counter() - envelope["frame"]["sent"])
        answer = {"conn_id": envelope["conn_id"], "frame": {"sent": time.perf_counter()}}
        if number == 0:
            say("phone", f"sends   {json.dumps(envelope['frame'])}")
            say("binary", f"gets    {json.dumps(envelope)}")
        binary.say(answer)


async def attempt(reactor: Any, port: int, seen: Seen) -> None:
    """One guess at a server-id."""
    peer = await connect(reactor, port, "/v1/client", GUESSED_ID, FLOODER)
    if peer.http_status_line.split()[1] == "429" and "retry-after" in peer.http_headers:
        seen.refused += 1
        seen.retry_after_s.add(int(peer.http_headers["retry-after"]))
    elif await peer.gone == 4404:
        seen.admitted += 1


async def flood(reactor: Any, port: int, seen: Seen) -> None:
    """As fast as the answers come, a few at a time."""
    for _ in range(ATTEMPTS // AT_ONCE):
        await together(*(attempt(reactor, port, seen) for _ in range(AT_ONCE)))


def scrape(port: int) -> list[str]:
    """The lines of /metrics; blocks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics", headers={"Connection": "close"})
    return connection.getresponse().read().decode().splitlines()


async def watch(reactor: Any) -> Seen:
    """The whole demonstration."""
    seen = Seen()
    relay = start_relay(reactor)
    port, admin_port = await relay.ready
    say("relay", f"twistd pyryrelay listens on 127.0.0.1:{port}, metrics on 127.0.0.1:{admin_port}")
    binary = await connect(reactor, port, "/v1/server", SERVER_ID)
    phones = [await connect(reactor, port, "/v1/client", SERVER_ID) for _ in range(PHONES)]
    say("binary", f"holds the server-id {SERVER_ID!r}; {PHONES} phones came for it")
    serving = ensureDeferred(serve(binary, seen))
    await together(*(talk(reactor, phone, seen) for phone in phones))
    say("phones", f"{PHONES * FRAMES} frames there and back in quiet; back: {in_ms(seen.to_phone_s)}")
    say("flood", f"{ATTEMPTS} attempts from {FLOODER} begin, and the phones go on")
    await together(flood(reactor, port, seen), *(talk(reactor, phone, seen) for phone in phones))
    say("flood", f"{seen.admitted} came in and found nobody, {seen.refused} were refused with 429")
    say("phones", f"{PHONES * FRAMES} frames meanwhile; back: {in_ms(seen.to_phone_s[PHONES * FRAMES :])}")
    await serving
    seen.metrics = await deferToThread(scrape, admin_port)
    cast(Any, relay.transport).signalProcess("TERM")
    seen.close_codes = [await peer.gone for peer in (binary, *phones)]
    seen.exit_code = await relay.ended
    say("relay", f"SIGTERM: everybody closed with {seen.close_codes[0]}, exit code {seen.exit_code}\n")
    lines = [line.partition("] ")[2] for line in relay.log.splitlines()]
    seen.log_lines = [line for line in lines if FLOODER in line or GUESSED_ID in line]
    return seen


def summary(seen: Seen) -> list[tuple[bool, str, list[str]]]:
    """What was promised: whether it was seen, in one line, and details."""
    frames, lines = 2 * PHONES * FRAMES, len(seen.log_lines)
    reasons = (f'pyryrelay_refusals_total{{reason="{reason}"}}' for reason in ("rate_limit", "queue_full"))
    counters = ("pyrycode_relay_frames_forwarded_total", *reasons)
    metrics = [line for line in seen.metrics if line.startswith(counters)]
    numbers = [int(float(line.rpartition(" ")[2])) for line in metrics]
    counted = numbers[:2] == [frames, frames] and len(numbers) == 4 and sum(numbers[2:]) == seen.refused
    waits = f"{min(seen.retry_after_s, default=0)} to {max(seen.retry_after_s, default=0)} s"
    flood = f"{seen.admitted} of {ATTEMPTS} came in, {seen.refused} were refused with 429 and Retry-After of {waits}"
    burst_kept = BURST <= seen.admitted <= BURST + DEADLINE_S / 6 and seen.admitted + seen.refused == ATTEMPTS
    return [
        (len(seen.to_binary_s) == frames, f"phones to binary: {frames} frames, {in_ms(seen.to_binary_s)}", []),
        (len(seen.to_phone_s) == frames, f"binary to phones: {frames} frames, {in_ms(seen.to_phone_s)}", []),
        (burst_kept, f"flood: {flood}", []),
        (0 < lines <= 5, f"log: {ATTEMPTS} attempts wrote {lines} lines", seen.log_lines),
        (counted, "metrics: they counted the same", metrics),
        ({*seen.close_codes} == {1001} and seen.exit_code == 0, "end: everybody closed with 1001, exit code 0", []),
    ]


async def main(reactor: Any) -> None:
    """Run it, for a bounded time. Exits with 1 unless everything was seen."""
    started = time.perf_counter()
    try:
        seen = await ensureDeferred(watch(reactor)).addTimeout(DEADLINE_S, reactor)
    except Exception as error:
        print(f"\nThe demonstration broke off: {error!r}", file=sys.stderr)
        raise SystemExit(1) from None
    promises = summary(seen)
    for kept, line, details in promises:
        print(paint(GREEN, "seen  ") if kept else paint(RED, "MISSED"), line)
        for detail in details:
            print(paint(FAINT, f"         {detail}"))
    well = all(kept for kept, _, _ in promises)
    print(f"\n{'All' if well else 'Not all'} as promised, in {time.perf_counter() - started:.1f} s.")
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    react(lambda reactor: ensureDeferred(main(reactor)))
