"""Nostr clients for tests, by `websockets`, `json` and `coincurve`: they share no code with the relay.

Events are dictionaries as JSON has them. Messages that nobody has asked for yet wait in a `Peer` until they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from coincurve import PrivateKey, PublicKeyXOnly
from tests.end_to_end.harness import DEADLINE_S
from websockets.asyncio.client import ClientConnection, connect

Event = dict[str, Any]
Message = list[Any]

_numbers = itertools.count(1)


def encoded(value: object) -> str:
    """Return JSON as NIP-01 has it: no white space, and all of Unicode as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def ids_of(events: Sequence[Event]) -> list[str]:
    """Return the ids of events, in their order."""
    return [event["id"] for event in events]


@dataclass(frozen=True)
class Author:
    """A key that signs events."""

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def pubkey(self) -> str:
        """Return the public key as 64 hex digits."""
        return PublicKeyXOnly.from_secret(self.secret).format().hex()

    def event(
        self,
        content: str = "",
        kind: int = 1,
        tags: Sequence[Sequence[str]] = (),
        created_at: int | None = None,
        pubkey: str = "",
    ) -> Event:
        """Return a signed event of now; ``pubkey`` claims that somebody else is the author."""
        author, at = pubkey or self.pubkey, int(time.time()) if created_at is None else created_at
        digest = hashlib.sha256(encoded([0, author, at, kind, tags, content]).encode()).digest()
        return {
            "id": digest.hex(),
            "pubkey": author,
            "created_at": at,
            "kind": kind,
            "tags": [list(tag) for tag in tags],
            "content": content,
            "sig": PrivateKey(self.secret).sign_schnorr(digest, b"").hex(),
        }

    def notes(self, count: int, size: int = 20) -> list[Event]:
        """Return that many different notes."""
        return [self.event(f"{next(_numbers)} {'x' * size}") for _ in range(count)]

    def proof(self, url: str, challenge: str, created_at: int | None = None) -> Event:
        """Return what answers a challenge (NIP-42)."""
        return self.event("", 22242, [["relay", url], ["challenge", challenge]], created_at)


class Peer:
    """A connected client. Every wait has a deadline."""

    def __init__(self, connection: ClientConnection, url: str) -> None:
        self.connection = connection
        self.url = url
        self._waiting: list[Message] = []
        self._challenge = ""

    async def send(self, *message: object) -> None:
        """Send one message."""
        await self.connection.send(encoded(message))

    async def take(self, wanted: Callable[[Message], bool]) -> Message:
        """Return the first message that is ``wanted``; others stay for later calls."""
        for index, waiting in enumerate(self._waiting):
            if wanted(waiting):
                return self._waiting.pop(index)
        while True:
            async with asyncio.timeout(DEADLINE_S):
                message: Message = json.loads(await self.connection.recv())
            if message[0] == "AUTH":
                self._challenge = message[1]
            if wanted(message):
                return message
            self._waiting.append(message)

    async def answer(self, *beginning: object) -> Message:
        """Return the first message that begins with these elements."""
        return await self.take(lambda message: message[: len(beginning)] == list(beginning))

    async def publish(self, event: Event) -> tuple[bool, str]:
        """Publish an event, and return what its OK says."""
        await self.send("EVENT", event)
        _, _, accepted, text = await self.answer("OK", event["id"])
        return accepted, text

    async def publish_all(self, events: Sequence[Event]) -> list[tuple[bool, str]]:
        """Publish events without waiting in between, and return the answers in the order of the events."""
        for event in events:
            await self.send("EVENT", event)
        return [tuple((await self.answer("OK", event["id"]))[2:]) for event in events]

    async def subscribe(self, subscription_id: str, *filters: Event) -> list[Event]:
        """Open a subscription, and return what was stored. Fails if it is refused."""
        events, end = await self.request(subscription_id, *filters)
        assert end[0] == "EOSE", end
        return events

    async def request(self, subscription_id: str, *filters: Event) -> tuple[list[Event], Message]:
        """Send a REQ, and return the stored events and the EOSE or CLOSED after them."""
        await self.send("REQ", subscription_id, *filters)
        events: list[Event] = []
        while True:
            message = await self.take(lambda one: one[0] in ("EVENT", "EOSE", "CLOSED") and one[1] == subscription_id)
            if message[0] != "EVENT":
                return events, message
            events.append(message[2])

    async def fetch(self, *filters: Event) -> list[Event]:
        """Return the stored events that match."""
        name = f"fetch-{next(_numbers)}"
        events = await self.subscribe(name, *filters)
        await self.send("CLOSE", name)
        return events

    async def live(self, subscription_id: str) -> Event:
        """Return the next event of an open subscription."""
        event: Event = (await self.answer("EVENT", subscription_id))[2]
        return event

    async def count(self, *filters: Event) -> Message:
        """Return the answer to a COUNT without its id."""
        name = f"count-{next(_numbers)}"
        await self.send("COUNT", name, *filters)
        verb, _, *rest = await self.take(lambda one: one[0] in ("COUNT", "CLOSED") and one[1] == name)
        return [verb, *rest]

    async def settled(self) -> None:
        """Wait until the relay has answered everything before; what it sent meanwhile waits."""
        await self.fetch({"limit": 0})

    def waiting(self, *beginning: object) -> list[Message]:
        """Return the messages that arrived, were not asked for, and begin with these elements."""
        return [message for message in self._waiting if message[: len(beginning)] == list(beginning)]

    async def challenge(self) -> str:
        """Return the relay's challenge, which it has sent or will send."""
        if not self._challenge:
            await self.take(lambda message: message[0] == "AUTH")
        return self._challenge

    async def authenticate(self, author: Author, url: str = "") -> tuple[bool, str]:
        """Answer the challenge, and return what the OK says."""
        proof = author.proof(url or self.url, await self.challenge())
        await self.send("AUTH", proof)
        _, _, accepted, text = await self.answer("OK", proof["id"])
        return accepted, text

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait until the relay has closed the connection, and return code and reason."""
        await asyncio.wait_for(self.connection.wait_closed(), DEADLINE_S)
        return self.connection.close_code, self.connection.close_reason

    async def last_messages(self) -> list[Message]:
        """Return everything up to the end of the connection."""
        async for text in self.connection:
            self._waiting.append(json.loads(text))
        return self._waiting


@contextlib.asynccontextmanager
async def client(uri: str, *, source: str = "", path: str = "/", **options: Any) -> AsyncIterator[Peer]:
    """Connect a client from the address ``source``, if there is one; other options go to the library."""
    if source:
        options["local_addr"] = (source, 0)
    options = {"compression": None, "proxy": None, "open_timeout": DEADLINE_S, "ping_interval": None} | options
    async with connect(uri + path, max_size=None, max_queue=None, **options) as connection:
        yield Peer(connection, uri + path)
