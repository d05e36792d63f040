"""Bulk load in a process of its own, which is cheap enough to keep several instances busy.

    python -m tests.chaos.bulk.generator SEED ADDRESS...

It has a flow of each size from each instance to each, peers that come and go, and from each ``ADDRESS`` one that asks
for too much. Each line of the standard input is a JSON object: where instances are that are healthy, by name, for all
and for those that ask for too much, and the rate. Each line of the output is what was counted since the start. It ends
with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Coroutine
from itertools import product
from typing import Any, Final

from tests.chaos.bulk.flow import SIZES, Flow, Orders
from tests.chaos.bulk.visitors import keep_asking, keep_coming

__all__ = ["COMING", "main"]

COMING: Final = 6
"""How many binaries that come and go there are at a time."""
TELL_S: Final = 1.0


def _peers(
    orders: Orders, names: list[str], sources: list[str], draw: random.Random
) -> list[Coroutine[Any, Any, None]]:
    sizes = list(SIZES)
    pairs = enumerate(product(names, names))
    return [
        *(Flow(orders, *pair, sizes[(at + more) % len(sizes)], draw).keep() for at, pair in pairs for more in range(2)),
        *(keep_coming(orders, draw) for _ in range(COMING)),
        *(keep_asking(orders, source, draw) for source in sources),
    ]


async def _run(seed: int, sources: list[str]) -> None:
    orders, tasks = Orders(), list[asyncio.Task[None]]()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    telling = loop.create_task(_tell(orders))
    while line := await reader.readline():
        told = json.loads(line)
        orders.addresses = {name: (host, port) for name, (host, port) in told["addresses"].items()}
        orders.strict = [(host, port) for host, port in told["strict"].values()]
        orders.rate = told["rate"]
        if not tasks:
            tasks += map(loop.create_task, _peers(orders, told["names"], sources, random.Random(seed)))
    for task in (*tasks, telling):
        task.cancel()
    await asyncio.gather(*tasks, telling, return_exceptions=True)


async def _tell(orders: Orders) -> None:
    while True:
        await asyncio.sleep(TELL_S)
        told = {"counts": orders.counts, "problems": orders.problems[:10], "cpu_s": time.process_time()}
        os.write(1, json.dumps(told).encode() + b"\n")


def main() -> None:
    """Serve until the standard input ends."""
    asyncio.run(_run(int(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    main()
