"""Peers that come and go quickly, and some that are refused. Times are seconds."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable
from typing import Final

from tests.chaos.bulk.flow import Orders
from tests.chaos.bulk.link import TROUBLES, Address, Refused, opened
from tests.support.frames import frame

__all__ = ["keep_asking", "keep_coming"]

PHONES: Final = 8
"""How many phones a binary is visited by before it leaves."""
MOST_PAUSE_S: Final = 0.2

_numbers = itertools.count()


def _place(places: Iterable[Address], draw: random.Random) -> Address | None:
    some = list(places)
    return draw.choice(some) if some else None


async def keep_coming(orders: Orders, draw: random.Random) -> None:
    """Be binaries that come one after the other, each with some phones that only say hello."""
    while True:
        try:
            await _come(orders, f"brief-{next(_numbers)}", draw)
        except TROUBLES as error:
            orders.failed(error)
        await asyncio.sleep(draw.uniform(0.0, MOST_PAUSE_S))


async def _come(orders: Orders, server_id: str, draw: random.Random) -> None:
    if (home := _place(orders.addresses.values(), draw)) is None:
        return
    binary = await opened(home, "/v1/server", server_id)
    orders.counts["upgrades"] += 1
    try:
        for _ in range(PHONES):
            if (away := _place(orders.addresses.values(), draw)) is None:
                return
            phone = await opened(away, "/v1/client", server_id)
            orders.counts["upgrades"] += 1
            phone.write(frame(b'"hello"'))
            await asyncio.sleep(draw.uniform(0.0, MOST_PAUSE_S))
            await (phone.leave() if draw.random() < 0.5 else asyncio.sleep(0))
            phone.abort()
    finally:
        binary.abort()


async def keep_asking(orders: Orders, source: str, draw: random.Random) -> None:
    """Be one address that asks for too much: valid upgrades, phones of nobody, and requests that are wrong."""
    targets = itertools.cycle(("/v1/client", "/v1/server", "/v1/nothing"))
    while True:
        if (place := _place(orders.strict, draw)) is not None:
            try:
                link = await opened(place, next(targets), f"brief-{next(_numbers)}", source=source)
                orders.counts["upgrades"] += 1
                link.abort()
            except Refused as refused:
                orders.counts[f"refused {refused.status}"] += 1
            except TROUBLES as error:
                orders.failed(error)
        await asyncio.sleep(draw.uniform(0.0, MOST_PAUSE_S))
