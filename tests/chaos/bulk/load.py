"""Keep instances at a share of the processor by bulk load, and tell what they did. Times are seconds."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from statistics import quantiles
from typing import Any, Final

from tests.chaos.bulk.stream import Share
from tests.chaos.memory import cpu_s
from tests.end_to_end.harness import Relay, environment

__all__ = ["Load", "target_share"]

TELL_S: Final = 0.5
LOOK_S: Final = 4.0
WANTED: Final = 0.5
OF_CORES: Final = 0.5
"""How much of all cores instances may use together. The generator, the switch, and the clients need 0.3 to 0.4."""


def target_share(instances: int, cores: int) -> float:
    """Return which share of a core each instance shall use: half, if there are enough cores for that."""
    return min(WANTED, OF_CORES * cores / instances)


class Load:
    """See the module's docstring. ``relays`` returns the instances that are healthy, by name.

    ``host`` returns the address of one for most of the load. Peers that ask for too much, from ``sources``, come to its
    ordinary address.
    """

    def __init__(
        self,
        names: Sequence[str],
        relays: Callable[[], dict[str, Relay]],
        seed: int,
        sources: Sequence[str],
        share: float,
        host: Callable[[str], str],
    ) -> None:
        self.target = share
        self.shares: list[float] = []
        """What each instance used of a core in each while, in which it was healthy all the time."""
        self.told: dict[str, Any] = {"counts": {}, "problems": [], "cpu_s": 0.0}
        self._names = list(names)
        self._relays = relays
        self._host = host
        self._command = [sys.executable, "-m", "tests.chaos.bulk.generator", str(seed), *sources]
        self._share = Share(self.target)
        self._used: dict[int, tuple[float, float]] = {}
        self._began = time.monotonic()

    async def keep(self) -> None:
        """Make load until this is cancelled."""
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment()
        )
        self._began = time.monotonic()
        listening = asyncio.create_task(self._listen(process))
        try:
            looked_at = time.monotonic()
            while True:
                self._tell(process)
                await asyncio.sleep(TELL_S)
                if time.monotonic() - looked_at >= LOOK_S:
                    looked_at = time.monotonic()
                    self._look()
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 10.0)
            except TimeoutError:
                process.kill()
            listening.cancel()

    def _tell(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        relays = self._relays()
        told = {
            "names": self._names,
            "addresses": {name: (self._host(name), relay.port) for name, relay in relays.items()},
            "strict": {name: relay.address for name, relay in relays.items()},
            "rate": self._share.rate,
        }
        process.stdin.write(json.dumps(told).encode() + b"\n")

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.told = json.loads(line)

    def _look(self) -> None:
        """Find out what instances have used, and change the rate."""
        now, before = time.monotonic(), self._used
        self._used = {relay.process.pid: (now, cpu_s(relay.process.pid)) for relay in self._relays().values()}
        shares = [
            (used_s - before[pid][1]) / (at - before[pid][0])
            for pid, (at, used_s) in self._used.items()
            if pid in before
        ]
        if shares:
            self.shares += shares
            self._share.next(sum(shares) / len(shares))

    def __str__(self) -> str:
        """Return what the load was."""
        counts, wall_s = self.told["counts"], max(time.monotonic() - self._began, 1.0)
        if len(self.shares) < 2:
            return "too short"
        low, middle, high = quantiles(self.shares, n=4)
        refused = sum(count for name, count in counts.items() if name.startswith("refused"))
        rest = ", ".join(
            f"{name} {count}" for name, count in sorted(counts.items()) if name.startswith(("failed", "flows"))
        )
        return (
            f"each instance used {middle:.0%} of a core (middle half {low:.0%} to {high:.0%}, aim {self.target:.0%}), "
            f"the generator {self.told['cpu_s'] / wall_s:.0%}; {counts.get('frames', 0)} frames, "
            f"{counts.get('bytes', 0) / 1e9:.1f} GB, {counts.get('upgrades', 0)} upgrades, {refused} refusals; {rest}"
        )
