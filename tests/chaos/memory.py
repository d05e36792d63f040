"""The memory and the descriptors of instances that live as long as a run. Times are seconds, sizes bytes."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from tests.chaos.faults import workers_of
from tests.chaos.stage import Stage

__all__ = ["MIN_S", "Sample", "course", "cpu_s", "descriptors", "growth", "watch"]

LOOK_S: Final = 2.0
MIN_S: Final = 240.0
"""Shorter runs tell nothing about memory."""
SPARE_BYTES: Final = 6 * 1024 * 1024
"""What two states of a process that does the same may differ by."""


class Sample(NamedTuple):
    """What one process, or all workers of one, has resident, and how many descriptors are open."""

    at: float
    size_bytes: int
    descriptors: int = 0


async def watch(stage: Stage, name: str, samples: list[Sample]) -> None:
    """Collect samples of an instance until this is cancelled."""
    pid = stage.relay(name).process.pid
    while True:
        samples.append(Sample(time.monotonic(), sum(map(_rss_bytes, (pid, *workers_of(pid)))), descriptors(pid)))
        await asyncio.sleep(LOOK_S)


def _rss_bytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    return 0 if found is None else int(found[1]) * 1024


def cpu_s(pid: int) -> float:
    """Return the processor time that a process and its workers have used."""
    found = 0.0
    for one in (pid, *workers_of(pid)):
        words = Path(f"/proc/{one}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        found += (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return found


def descriptors(pid: int) -> int:
    """Return how many files and sockets a process and its workers have open."""
    return sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in (pid, *workers_of(pid)))


def growth(samples: Sequence[Sample]) -> tuple[int, int, str]:
    """Return the median sizes of the second and of the last quarter, and what is wrong with them, or ""."""
    quarter = len(samples) // 4
    early, late = (
        int(median(sample.size_bytes for sample in part))
        for part in (samples[quarter : 2 * quarter], samples[3 * quarter :])
    )
    if samples[-1].at - samples[0].at < MIN_S or late <= early * 1.05 + SPARE_BYTES:
        return early, late, ""
    return early, late, f"it grew from {early / 1e6:.1f} to {late / 1e6:.1f} MB"


def course(samples: Sequence[Sample], parts: int = 6) -> str:
    """Return the median sizes and numbers of descriptors of equal parts of the time, for people."""
    each = max(1, len(samples) // parts)
    some = [samples[at : at + each] for at in range(0, each * parts, each)]
    sizes = [f"{median(sample.size_bytes for sample in part) / 1e6:.1f}" for part in some if part]
    opened = [f"{median(sample.descriptors for sample in part):.0f}" for part in some if part]
    return f"{' '.join(sizes)} MB, {' '.join(opened)} descriptors"
