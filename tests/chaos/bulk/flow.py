"""A binary and its phones that stream both ways at a rate, and begin again after a while. Times are seconds."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.bulk.link import TROUBLES, Address, Link, opened
from tests.chaos.bulk.stream import Block, envelope, payload
from tests.support.frames import frame

__all__ = ["SIZES", "Flow", "Orders"]

SIZES: Final = {128: 1200.0, 1024: 800.0, 16384: 120.0}
"""Sizes of payloads, and how many such frames a flow sends in a second in both directions at the rate 1."""
PHONES: Final = 4
TICK_S: Final = 0.025
WINDOW_BYTES: Final = 1 << 18
"""What may be under way of one direction: at least four frames."""
LIVES_S: Final = (15.0, 90.0)
PAUSE_S: Final = (0.1, 1.0)
QUIET_S: Final = 20.0
"""How long nothing may arrive in a direction until the flow begins again: it may be cut off."""

_numbers = itertools.count()


@dataclass
class Orders:
    """What all flows are told, and what they count."""

    addresses: dict[str, Address] = field(default_factory=dict)
    """Where instances are that are healthy."""
    strict: list[Address] = field(default_factory=list)
    """The same for addresses that ask for too much."""
    rate: float = 1.0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def failed(self, error: BaseException) -> None:
        """Count an attempt that was not served."""
        self.counts[f"failed {getattr(error, 'status', type(error).__name__)}"] += 1


class _Direction:
    """Frames from some links to others: how many may be sent, and how many have arrived."""

    def __init__(self, senders: Sequence[tuple[Link, Block]], receivers: Sequence[Link]) -> None:
        self._senders = itertools.cycle(senders)
        self._count = len(senders)
        self._receivers = receivers
        self._sent = 0
        self._due = 0.0
        self._window = max(4, WINDOW_BYTES // senders[0][1].frame_bytes)
        self._before = self.arrived
        self._quiet_ticks = 0

    @property
    def arrived(self) -> int:
        return sum(receiver.inbox.texts for receiver in self._receivers)

    def tick(self, frames: float) -> bool:
        """Send what is due; return whether anything has arrived lately, or nothing had to."""
        arrived = self.arrived - self._before
        self._due = min(self._due + frames, 10 * frames + 1)
        room = self._window - (self._sent - arrived)
        due = min(int(self._due), room)
        self._due -= max(due, 0)
        for _ in range(self._count):
            sender, block = next(self._senders)
            while due > 0 and sender.may_send:
                data, count = block.take(due)
                sender.write(data)
                self._sent += count
                due -= count
        self._quiet_ticks = self._quiet_ticks + 1 if room <= 0 and arrived == self._last else 0
        self._last = arrived
        return self._quiet_ticks * TICK_S < QUIET_S

    _last = 0


class Flow:
    """See the module's docstring. The binary comes to ``home``, and the phones to ``away``."""

    def __init__(self, orders: Orders, home: str, away: str, size_bytes: int, draw: random.Random) -> None:
        self._orders = orders
        self._places = home, away
        self._size_bytes = size_bytes
        self._draw = draw

    async def keep(self) -> None:
        """Stream until this is cancelled."""
        while True:
            try:
                await self._attempt()
            except TROUBLES as error:
                self._orders.failed(error)
            await asyncio.sleep(self._draw.uniform(*PAUSE_S))

    async def _attempt(self) -> None:
        home, away = map(self._orders.addresses.get, self._places)
        if home is None or away is None:
            return
        links: list[Link] = []
        try:
            binary, phones, conn_ids = await self._meet(home, away, links)
            await self._stream(binary, phones, conn_ids)
        finally:
            for link in links:
                if link.wrong:
                    self._orders.problems.append(
                        f"{' and '.join(self._places)}, {self._size_bytes} bytes: {link.wrong}"
                    )
                self._orders.counts["bytes"] += link.inbox.size_bytes
                link.abort()

    async def _meet(self, home: Address, away: Address, links: list[Link]) -> tuple[Link, list[Link], list[str]]:
        server_id = f"bulk-{next(_numbers)}"
        links.append(await opened(home, "/v1/server", server_id, wanted=PHONES))
        for _ in range(PHONES):
            links.append(await opened(away, "/v1/client", server_id))
            links[-1].write(frame(b'"hello"'))
        self._orders.counts["upgrades"] += len(links)
        binary, *phones = links
        async with asyncio.timeout(8.0):
            while len(binary.inbox.kept) < PHONES and not binary.is_over.is_set():
                binary.arrived.clear()
                await binary.arrived.wait()
        conn_ids = [json.loads(text).get("conn_id", "") for text in binary.inbox.kept]
        if len(conn_ids) < PHONES:
            raise EOFError
        return binary, phones, conn_ids

    async def _stream(self, binary: Link, phones: list[Link], conn_ids: list[str]) -> None:
        data = payload(self._size_bytes)
        up = _Direction([(phone, Block([data])) for phone in phones], [binary])
        down = _Direction([(binary, Block([envelope(conn_id, data) for conn_id in conn_ids]))], phones)
        loop, links = asyncio.get_running_loop(), [binary, *phones]
        end = loop.time() + self._draw.uniform(*LIVES_S)
        while loop.time() < end:
            frames = SIZES[self._size_bytes] / 2 * TICK_S * self._orders.rate
            before = up.arrived + down.arrived
            await asyncio.sleep(TICK_S)
            self._orders.counts["frames"] += up.arrived + down.arrived - before
            if any(link.is_over.is_set() or link.inbox.is_closed for link in links):
                self._orders.counts["flows closed"] += 1
                return
            if not (up.tick(frames) and down.tick(frames)):
                self._orders.counts["flows stuck"] += 1
                return
        self._orders.counts["flows ended"] += 1
        # Half of them vanish without a word.
        if self._draw.random() < 0.5:
            await asyncio.gather(*(link.leave() for link in self._draw.sample(links, len(links))))
