"""Lateness as the driver collects it: of a watchdog beside Redis, of the switch, and its own. Times are seconds.

What was done to a process on purpose is no lateness of it: see `Watch.lates`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.chaos.lateness.late import DRIVER, LEAST_S, Late, without
from tests.chaos.lateness.pressure import Pressure
from tests.chaos.timeline import Fault
from tests.end_to_end.harness import environment

__all__ = ["Watch"]

TICK_S: Final = 0.05
TELL_S: Final = 0.25
"""How often the watchdog is told the numbers of processes."""


class Watch:
    """See the module's docstring.

    ``prefix`` is a command that executes its arguments on the machine of Redis, ``addresses`` are those of all Redis
    there, and ``pids`` returns the numbers of processes by their places.
    """

    def __init__(
        self, prefix: Sequence[str], addresses: Sequence[tuple[str, int]], pids: Callable[[], dict[str, list[int]]]
    ) -> None:
        words = [f"{host}:{port}" for host, port in addresses]
        self._command = [*prefix, sys.executable, "-m", "tests.chaos.lateness.watchdog", *words]
        self._pids = pids
        self._found: list[Late] = []
        self._began = Pressure.now()
        self.has_ended = False
        """Whether the watchdog ended before it was told to."""

    async def keep(self) -> None:
        """Measure until this is cancelled."""
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment()
        )
        assert process.stdin is not None
        tasks = [asyncio.create_task(self._listen(process)), asyncio.create_task(self._measure())]
        try:
            while True:
                process.stdin.write(json.dumps(self._pids()).encode() + b"\n")
                await asyncio.sleep(TELL_S)
        finally:
            for task in tasks:
                task.cancel()
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 10.0)
            except TimeoutError:
                process.kill()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self._found.append(Late(*json.loads(line)))
        self.has_ended = True

    async def _measure(self) -> None:
        """Note when this program is late itself."""
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            if (late_s := time.monotonic() - due) >= LEAST_S:
                now = time.time()
                self._found.append(Late(DRIVER, now - late_s, now))

    def lates(self, faults: Sequence[Fault], of_switch: Sequence[Late] = ()) -> list[Late]:
        """Return what was late until now, without the times of faults that were made at that place."""
        found = [*self._found, *of_switch]
        pieces = [
            piece for late in found for piece in without(late, [fault for fault in faults if fault.what == late.place])
        ]
        return sorted(pieces, key=lambda late: late.since)

    def pressure(self) -> str:
        """Return for people how busy processors and disks were."""
        return Pressure.now().since(self._began)
