"""Demonstrate the Nostr relay: ``python examples/demo_nostr.py``, or ``make demo-nostr``. Exits with 0 if all is well.

It starts a real relay (twistd, on free ports of the loopback interface, with a database in a temporary directory).
Alice publishes notes and Bob follows her, first undisturbed, then while a spammer at another address, 127.0.0.2, sends
whatever it can. Then the relay is killed as by a power failure, and started again. A summary shows what each has seen.

The script is a client of the relay: it knows NIP-01 and imports nothing of the relay. Linux answers on all of
127.0.0.0/8; on other systems, first add 127.0.0.2 to the loopback interface. Times are seconds of
`time.perf_counter`, shown as milliseconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coincurve import PrivateKey, PublicKeyXOnly
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

DEADLINE_S = 60.0
SPAMMER = "127.0.0.2"
NOTES, PAUSE_S = 20, 0.02  # of Alice in each of the two rounds
SPAM, FORGED, BURST = 300, 20, 120  # the burst of the default quota of events, which then admits one a second
GREEN, RED, BLUE, FAINT = "32", "31", "36", "2"

Event = dict[str, Any]


def paint(colour: str, text: str) -> str:
    """Colour a text on terminals, unless the environment has NO_COLOR (https://no-color.org)."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{colour}m{text}\x1b[0m" if wanted else text


def report(role: str, event: str) -> None:
    """Print one line about an event."""
    print(f"{paint(BLUE, f'{role:<8}')}{event}", flush=True)


def in_ms(times_s: Sequence[float]) -> str:
    return f"median {statistics.median(times_s) * 1000:.1f} ms, worst {max(times_s) * 1000:.1f} ms"


class Person:
    """Somebody with a key."""

    def __init__(self) -> None:
        self._secret = PrivateKey()
        self.pubkey = PublicKeyXOnly.from_secret(self._secret.secret).format().hex()

    def event(self, content: str, kind: int = 1, tags: Sequence[Sequence[str]] = ()) -> Event:
        """Return a signed event (NIP-01)."""
        event: Event = {"pubkey": self.pubkey, "created_at": int(time.time()), "kind": kind, "tags": tags}
        signed = [0, self.pubkey, event["created_at"], kind, tags, content]
        digest = hashlib.sha256(json.dumps(signed, separators=(",", ":"), ensure_ascii=False).encode()).digest()
        return event | {"content": content, "id": digest.hex(), "sig": self._secret.sign_schnorr(digest).hex()}


@dataclass
class Observed:
    """What the demonstration has observed, for the summary."""

    quiet_s: list[float] = field(default_factory=list)
    """From Alice's EVENT until Bob has it, without the spammer; then with it."""
    spammed_s: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """What the spammer was told, without figures."""
    strangers: list[Any] = field(default_factory=list)
    """What somebody was told that asked for a private message."""
    promised: set[str] = field(default_factory=set)
    """The ids of what was answered with OK true, except for what Alice has deleted."""
    found: set[str] = field(default_factory=set)
    deleted: str = ""
    log_lines: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    farewells: list[tuple[str, int | None]] = field(default_factory=list)
    """The last text of the relay, and the close code, of each client."""
    exit_code: int | None = None


class Relay:
    """The relay in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._reading: asyncio.Task[None] | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.log = ""
        self.port, self.admin_port = 0, 0

    async def start(self) -> None:
        """Start it with default options except for the ports, and wait until it has opened its database."""
        began = len(self.log)
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="),
            *("pyryrelay", "--nostr", "--no-pyry", "--listen", "tcp:0:interface=127.0.0.1"),
            *("--admin-listen", "tcp:0:interface=127.0.0.1"),
            cwd=self._directory,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYRYRELAY_")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reading = asyncio.create_task(self._read())
        while "database of events is open" not in self.log[began:]:
            if self._reading.done():
                raise RuntimeError(f"the relay did not start\n{self.log}")
            await asyncio.sleep(0.02)
        self.port, self.admin_port = map(int, re.findall(r" starting on (\d+)", self.log[began:])[:2])

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(65536):
            self.log += data.decode("utf-8", "replace")

    async def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        assert self.process is not None
        assert self._reading is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        await self._reading
        return await self.process.wait()


class Client:
    """A connection. What arrives is sorted: OKs by their event, events and the end of stored ones by subscription."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._oks: dict[str, asyncio.Future[tuple[bool, str]]] = {}
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.last = ""
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def to(cls, port: int, source: str = "127.0.0.1") -> Client:
        """Connect from the address ``source``."""
        return cls(await connect(f"ws://127.0.0.1:{port}/", local_addr=(source, 0), compression=None))

    async def _read(self) -> None:
        try:
            async for text in self._connection:
                message = json.loads(text)
                self.last = str(message[-1])
                if message[0] == "OK" and message[1] in self._oks:
                    self._oks.pop(message[1]).set_result((message[2], message[3]))
                else:
                    self.messages.put_nowait(message)
        except ConnectionClosed:
            pass

    async def send(self, *message: object) -> None:
        await self._connection.send(json.dumps(message))

    async def publish(self, event: Event) -> tuple[bool, str]:
        """Publish an event, and return whether the relay has it, and the text of its answer."""
        answer: asyncio.Future[tuple[bool, str]] = asyncio.get_running_loop().create_future()
        self._oks[event["id"]] = answer
        await self.send("EVENT", event)
        return await answer

    async def stored(self, *filters: object) -> list[Any]:
        """Ask for stored events, and return everything up to the end."""
        await self.send("REQ", "stored", *filters)
        messages = [await self.messages.get()]
        while messages[-1][0] not in ("EOSE", "CLOSED"):
            messages.append(await self.messages.get())
        await self.send("CLOSE", "stored")
        return messages

    async def farewell(self) -> tuple[str, int | None]:
        """Return the last text that the relay has sent, and its close code, once it has closed the connection."""
        await self._reading
        return self.last, self._connection.close_code

    async def leave(self) -> None:
        await self._connection.close()


async def converse(alice: Person, writer: Client, reader: Client, observed: Observed, times_s: list[float]) -> None:
    """Let Alice publish notes, each after Bob has read the one before."""
    for _ in range(NOTES):
        event = alice.event(f"note {len(observed.promised)}")
        began = time.perf_counter()
        answer = asyncio.create_task(writer.publish(event))
        while (await reader.messages.get())[2]["id"] != event["id"]:
            pass
        times_s.append(time.perf_counter() - began)
        if (await answer)[0]:
            observed.promised.add(event["id"])
        await asyncio.sleep(PAUSE_S)


async def spam(port: int, observed: Observed) -> None:
    """Send events with forged signatures, in somebody else's name, then more of its own than anybody may."""
    spammer, victim = Person(), Person()
    client = await Client.to(port, SPAMMER)
    events = [victim.event(f"forged {number}") | {"sig": "00" * 64} for number in range(FORGED)]
    events += [spammer.event(f"buy {number}") for number in range(SPAM)]
    for answer in [asyncio.create_task(client.publish(event)) for event in events]:
        accepted, text = await answer
        observed.answers["OK" if accepted else re.sub(r"\d+", "N", text)] += 1
    await client.leave()


async def whisper(bob: Person, alice: Person, client: Client, port: int, observed: Observed) -> None:
    """Let Bob write to Alice in private, and somebody else ask for it."""
    message = bob.event("(encrypted)", kind=4, tags=[["p", alice.pubkey]])
    await client.publish(message)
    stranger = await Client.to(port)
    observed.strangers += await stranger.stored({"kinds": [4]})
    observed.strangers += await stranger.stored({"ids": [message["id"]]})
    await stranger.leave()


async def watch(directory: Path) -> Observed:
    """Run the demonstration."""
    observed = Observed()
    relay = Relay(directory)
    try:
        await play(relay, observed)
    finally:
        if relay.process is not None:
            await relay.end(signal.SIGKILL)
    return observed


async def play(relay: Relay, observed: Observed) -> None:
    """Let everybody play their part."""
    alice, bob = Person(), Person()
    await relay.start()
    report("relay", f"twistd pyryrelay --nostr listens on ws://127.0.0.1:{relay.port}, metrics on {relay.admin_port}")
    writer, reader = await Client.to(relay.port), await Client.to(relay.port)
    await reader.send("REQ", "alice", {"authors": [alice.pubkey]})
    report("bob", f"follows alice, and gets {json.dumps(await reader.messages.get())}")
    await converse(alice, writer, reader, observed, observed.quiet_s)
    report("alice", f"publishes {NOTES} notes; from her to bob, over the disk: {in_ms(observed.quiet_s)}")
    report("spammer", f"sends {FORGED} forged events and {SPAM} of its own from {SPAMMER}, and alice continues")
    await asyncio.gather(spam(relay.port, observed), converse(alice, writer, reader, observed, observed.spammed_s))
    for text, number in observed.answers.most_common():
        report("spammer", f"is told {number} times: {text}")
    report("alice", f"has published {NOTES} more meanwhile; to bob: {in_ms(observed.spammed_s)}")
    await whisper(bob, alice, writer, relay.port, observed)
    refusal = next(message for message in observed.strangers if message[0] == "CLOSED")
    report("bob", f"writes to alice in private; somebody asks for it, and gets {json.dumps(refusal)}")
    observed.deleted = min(observed.promised)
    regret = alice.event("", kind=5, tags=[["e", one] for one in sorted(observed.promised)[:1]])
    if (await writer.publish(regret))[0]:
        observed.promised = observed.promised - {observed.deleted} | {regret["id"]}
    report("alice", "deletes one of her notes")
    await relay.end(signal.SIGKILL)
    await relay.start()
    report("relay", "was killed with SIGKILL, and started again")
    await check_store(alice, relay.port, observed)
    await say_goodbye(relay, observed)


async def check_store(alice: Person, port: int, observed: Observed) -> None:
    """Look for everything that the relay has promised."""
    client = await Client.to(port)
    everything = await client.stored({"authors": [alice.pubkey]})
    observed.found = {message[2]["id"] for message in everything if message[0] == "EVENT"}
    report("carol", f"finds {len(observed.found)} events of alice: {len(observed.promised)} were promised")
    await client.leave()


async def say_goodbye(relay: Relay, observed: Observed) -> None:
    """Stop the relay while somebody listens, and collect what it has logged and counted."""
    client = await Client.to(relay.port)
    await client.stored({"limit": 0})
    await client.send("REQ", "live", {"limit": 0})
    await client.messages.get()
    url = f"http://127.0.0.1:{relay.admin_port}/metrics"
    observed.metrics = (await asyncio.to_thread(scrape, url)).splitlines()
    observed.exit_code = await relay.end(signal.SIGTERM)
    observed.farewells = [await client.farewell()]
    lines = [line.partition("] ")[2] for line in relay.log.splitlines()]
    observed.log_lines = [line for line in lines if SPAMMER in line]
    report("relay", f"SIGTERM: {observed.farewells[0][0]!r}, close code {observed.farewells[0][1]}\n")


def scrape(url: str) -> str:
    """Return the page of metrics. Blocks."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def summary(observed: Observed) -> list[tuple[bool, str, list[str]]]:
    """Return the checks: whether each has passed, its text, and details."""
    accepted = observed.answers["OK"]
    refused = observed.answers["rate-limited: too many events, try again in N s"]
    forged = observed.answers["invalid: signature does not verify"]
    names = ("events_stored", "subscriptions ", "database_bytes")
    metrics = [line for line in observed.metrics if line.startswith(tuple(f"pyryrelay_nostr_{name}" for name in names))]
    private = [message for message in observed.strangers if message[0] == "EVENT"]
    closed = [message[2] for message in observed.strangers if message[0] == "CLOSED"]
    return [
        (len(observed.quiet_s) == NOTES, f"live: {NOTES} notes, {in_ms(observed.quiet_s)}", []),
        (len(observed.spammed_s) == NOTES, f"live, under spam: {NOTES} notes, {in_ms(observed.spammed_s)}", []),
        (
            0 < accepted <= BURST + DEADLINE_S and accepted + refused + forged == SPAM + FORGED,
            f"spam: {accepted} of {SPAM} were accepted, {refused} were over the quota",
            [],
        ),
        (forged == FORGED, f"forgery: {forged} of {FORGED} forged signatures were refused", []),
        (
            not private and closed == ["auth-required: these kinds are for their recipients"],
            "privacy: nobody else has seen the private message",
            [],
        ),
        (
            bool(observed.promised) and observed.promised == observed.found,
            f"durability: all {len(observed.promised)} promised events are there after the kill",
            [],
        ),
        (observed.deleted not in observed.found, "deletion: the deleted note is gone", []),
        (0 < len(observed.log_lines) <= 5, f"log: {len(observed.log_lines)} lines about spam", observed.log_lines),
        (len(metrics) >= len(names), "metrics: there are figures for each class of events", metrics),
        (
            observed.farewells == [("error: the relay is shutting down", 1001)] and observed.exit_code == 0,
            "end: clients were told, and closed with 1001, exit code 0",
            [],
        ),
    ]


def main() -> int:
    """Run the demonstration with a timeout, print the summary, and return the exit code."""
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as directory:
            observed = asyncio.run(asyncio.wait_for(watch(Path(directory)), DEADLINE_S))
    except Exception as error:
        print(f"\nThe demonstration failed: {error!r}", file=sys.stderr)
        return 1
    checks = summary(observed)
    for passed, line, details in checks:
        print(paint(GREEN, "passed") if passed else paint(RED, "FAILED"), line)
        for detail in details:
            print(paint(FAINT, f"         {detail}"))
    all_passed = all(passed for passed, _, _ in checks)
    print(f"\n{'All' if all_passed else 'Not all'} checks passed, in {time.perf_counter() - started:.1f} s.")
    return 0 if all_passed else 1


if __name__ == "__main__":
    sys.exit(main())
