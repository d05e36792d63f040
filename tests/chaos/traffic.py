"""Competing binaries and phones, which connect again and again to instances that a balancer would choose.

They use the `websockets` library. Times are seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from tests.end_to_end.peers import binary, phone
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

PEER_OPTIONS: dict[str, Any] = {"ping_interval": None, "open_timeout": 8.0, "close_timeout": 2.0}
RETRY_S = (0.1, 0.6)
STAYS_S = (2.0, 20.0)
TROUBLES = (ConnectionClosed, InvalidStatus, InvalidMessage, OSError, TimeoutError, asyncio.TimeoutError, EOFError)


@dataclass
class Balancer:
    """Chooses an instance among those that are healthy: by the key (``has_affinity``), or any."""

    uris: Callable[[], Sequence[str]]
    random: random.Random
    has_affinity: bool = False

    def choose(self, key: str) -> str | None:
        """Return the URI of an instance; None while there is none."""
        uris = self.uris()
        if not uris:
            return None
        if not self.has_affinity:
            return self.random.choice(uris)
        # Rendezvous hashing: a change of the set moves only what it must.
        return max(uris, key=lambda uri: blake2b(f"{uri} {key}".encode()).digest())


@dataclass
class Counts:
    """What peers saw."""

    seats: int = 0
    answers: int = 0
    closes: dict[int, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def closed(self, code: int | None) -> None:
        """Count a close."""
        number = int(code or 0)  # an IntEnum would be printed with its name
        self.closes[number] = self.closes.get(number, 0) + 1

    def failed(self, error: BaseException) -> None:
        """Count an attempt that was not served."""
        word = str(error.response.status_code) if isinstance(error, InvalidStatus) else type(error).__name__
        self.refused[word] = self.refused.get(word, 0) + 1


@dataclass
class Traffic:
    """All peers of a run."""

    balancer: Balancer
    counts: Counts = field(default_factory=Counts)
    passing: Iterator[int] = field(default_factory=itertools.count)
    is_over: bool = False
    is_quiet: bool = False
    """Whether binaries stay, instead of leaving after a while."""

    async def keep_binary(self, key: str, number: int) -> None:
        """Be a binary that claims a key, answers its phones, and comes again whenever it is closed."""
        while not self.is_over:
            uri = self.balancer.choose(key)
            try:
                if uri is not None:
                    await self._serve(uri, key, number)
            except TROUBLES as error:
                self.counts.failed(error)
            await asyncio.sleep(self.balancer.random.uniform(*RETRY_S))

    async def _serve(self, uri: str, key: str, number: int) -> None:
        peer = await binary(uri, key, **PEER_OPTIONS)
        self.counts.seats += 1
        try:
            async with asyncio.timeout(None if self.is_quiet else self.balancer.random.uniform(*STAYS_S)):
                await self._answer(peer, number)
        except (ConnectionClosed, TimeoutError):
            pass
        finally:
            with contextlib.suppress(*TROUBLES):
                await peer.close()
            self.counts.closed(peer.close_code)

    async def _answer(self, peer: ClientConnection, number: int) -> None:
        async for message in peer:
            envelope = json.loads(message)
            if "frame" in envelope:
                answer = {"conn_id": envelope["conn_id"], "frame": {"by": number, "to": envelope["frame"]}}
                await peer.send(json.dumps(answer))

    async def keep_passing(self) -> None:
        """Be binaries that come once, each for a key of its own, and leave: what is kept of them must go, too."""
        while not self.is_quiet:
            key = f"passing-{next(self.passing)}"
            uri = self.balancer.choose(key)
            with contextlib.suppress(*TROUBLES):
                if uri is not None:
                    async with binary(uri, key, **PEER_OPTIONS):
                        await asyncio.sleep(self.balancer.random.uniform(0.0, 1.0))
            await asyncio.sleep(0.1)

    async def keep_phoning(self, keys: Sequence[str]) -> None:
        """Be phones that come one after the other, each to some key."""
        while not self.is_over:
            key = self.balancer.random.choice(keys)
            uri = self.balancer.choose(key)
            if uri is not None and await asked(uri, key) is not None:
                self.counts.answers += 1
            await asyncio.sleep(self.balancer.random.uniform(0.0, 0.1))


async def asked(uri: str, key: str, within_s: float = 5.0) -> int | None:
    """Return the number of the binary that answers a phone which comes to an instance; None if none does."""
    with contextlib.suppress(*TROUBLES):
        async with asyncio.timeout(within_s):
            peer = await phone(uri, key, **PEER_OPTIONS)
            try:
                await peer.send('"who"')
                return int(json.loads(await peer.recv())["by"])
            finally:
                peer.transport.abort()
    return None
