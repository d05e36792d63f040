"""Clients that publish Nostr events at every instance, and what must become of these. Times are seconds.

Each instance has a database of its own. An event that was answered with OK true must be in all of them in the end, and
a subscription gets no event twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.traffic import PEER_OPTIONS, TROUBLES
from tests.end_to_end.nostr.peers import Author
from websockets.asyncio.client import ClientConnection, connect

__all__ = ["Notes", "batches", "missing_at"]

PUBLISH_S: Final = 0.1
STAYS_S: Final = (2.0, 8.0)
BATCH: Final = 200
"""How many ids a filter has."""


@dataclass
class Notes:
    """Publishers and subscribers of a run. ``uri`` is the address of an instance; None while it is not healthy."""

    names: Sequence[str]
    uri: Callable[[str], str | None]
    random: random.Random
    accepted: dict[str, str] = field(default_factory=dict)
    """The instances at which events were accepted, by their ids."""
    heard: int = 0
    is_quiet: bool = False
    problems: list[str] = field(default_factory=list)

    async def keep_publishing(self) -> None:
        """Publish at one instance after the other."""
        author = Author()
        while not self.is_quiet:
            with contextlib.suppress(*TROUBLES):
                await self._publish(author, self.random.choice(self.names))
            await asyncio.sleep(PUBLISH_S)

    async def _publish(self, author: Author, name: str) -> None:
        uri = self.uri(name)
        if uri is None:
            return
        async with asyncio.timeout(self.random.uniform(*STAYS_S)), connect(uri, proxy=None, **PEER_OPTIONS) as peer:
            while not self.is_quiet:
                event = author.notes(1)[0]
                await peer.send(json.dumps(["EVENT", event]))
                answer = await _answer(peer, "OK")
                if answer[1:3] == [event["id"], True]:
                    self.accepted[event["id"]] = name
                await asyncio.sleep(PUBLISH_S)

    async def keep_listening(self, name: str) -> None:
        """Subscribe to all new events at an instance."""
        while True:
            with contextlib.suppress(*TROUBLES):
                if (uri := self.uri(name)) is not None:
                    async with connect(uri, proxy=None, **PEER_OPTIONS) as peer:
                        await self._listen(peer, name)
            await asyncio.sleep(0.3)

    async def _listen(self, peer: ClientConnection, name: str) -> None:
        seen: set[str] = set()
        await peer.send(json.dumps(["REQ", "all", {"kinds": [1], "limit": 0}]))
        async for text in peer:
            message = json.loads(text)
            if message[0] == "EVENT":
                self.heard += 1
                if message[2]["id"] in seen:
                    self.problems.append(f"a subscription at {name} gets {message[2]['id']} twice")
                seen.add(message[2]["id"])


async def _answer(peer: ClientConnection, kind: str) -> list[Any]:
    while True:
        message: list[Any] = json.loads(await peer.recv())
        if message[0] == kind:
            return message


def batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield ids, as many at a time as a filter may have."""
    for at in range(0, len(ids), BATCH):
        yield ids[at : at + BATCH]


async def missing_at(uri: str, ids: Sequence[str]) -> list[str]:
    """Return the ids of the events that an instance does not have. Raises one of `TROUBLES`."""
    found: set[str] = set()
    async with asyncio.timeout(20.0), connect(uri, proxy=None, **PEER_OPTIONS) as peer:
        for some in batches(ids):
            await peer.send(json.dumps(["REQ", "some", {"ids": list(some), "limit": len(some)}]))
            while (message := json.loads(await peer.recv()))[0] != "EOSE":
                if message[0] == "EVENT":
                    found.add(message[2]["id"])
                elif message[0] == "CLOSED":
                    raise TimeoutError(str(message))
            await peer.send(json.dumps(["CLOSE", "some"]))
    return [id_ for id_ in ids if id_ not in found]
