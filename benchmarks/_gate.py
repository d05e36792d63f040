"""Measure what a million addresses cost the guard, in a program of its own, so that its memory holds nothing else.

Usage: ``_gate.py COUNT PER_PREFIX``. ``COUNT`` addresses, ``PER_PREFIX`` in each /24, spend a token each within a
minute of the guard's clock. Then all of them expire while new addresses keep spending. As in the relay, the gate is
swept four times per second. Prints one JSON object: bytes per address, and the longest time (of this thread's CPU, in
milliseconds) of a call while addresses arrive and while they expire.
"""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from pyryrelay.guard import ClientAddress, Gate, GateConfig, Quota, address_key
from pyryrelay.service import SWEEP_S

ARRIVE_S = 60.0
LATECOMERS_EACH_SWEEP = 50


def addresses(per_prefix: int) -> Iterator[ClientAddress]:
    """Yield addresses, ``per_prefix`` of each /24."""
    prefix = int(IPv4Address("11.0.0.0"))
    while True:
        for number in range(1, per_prefix + 1):
            ip = IPv4Address(prefix + number)
            yield ClientAddress(ip, address_key(ip, 32))
        prefix += 256


def resident_bytes() -> int:
    """Return the resident memory of this process; see `_rig.Server.resident_bytes`."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(encoding="ascii"), re.M)
    assert found is not None
    return int(found[1]) * 1024


class Run:
    """A gate and its clock. ``longest_s`` is the longest call since it was last read."""

    def __init__(self, count: int, per_prefix: int) -> None:
        quotas = Quota.parse("10/minute burst 20"), Quota.parse("100/minute burst 200")
        self.gate = Gate(GateConfig(*quotas, max_tracked=max(2 * count, 10_000)))
        self.clients = addresses(per_prefix)
        self.now = 1000.0
        self.longest_s = 0.0

    def sweep(self) -> None:
        """Sweep once, timed."""
        self.now += SWEEP_S
        began_s = time.thread_time()
        self.gate.sweep(self.now)
        self.longest_s = max(self.longest_s, time.thread_time() - began_s)

    def spend(self, count: int) -> None:
        """Spend a token of each of ``count`` new addresses, timed."""
        clock = time.thread_time
        for _ in range(count):
            client = next(self.clients)
            began_s = clock()
            self.gate.spend(client, self.now)
            taken_s = clock() - began_s
            if taken_s > self.longest_s:
                self.longest_s = taken_s

    def take_longest_ms(self) -> float:
        """Return the longest call since the last time."""
        longest_s, self.longest_s = self.longest_s, 0.0
        return longest_s * 1000


def main() -> None:
    """Measure, and print the result."""
    count, per_prefix = map(int, sys.argv[1:])
    run = Run(count, per_prefix)
    run.spend(100)
    run.sweep()
    run.take_longest_ms()
    gc.collect()
    before_bytes = resident_bytes()
    sweeps = int(ARRIVE_S / SWEEP_S)
    for _ in range(sweeps):
        run.spend(count // sweeps)
        run.sweep()
    each_bytes = (resident_bytes() - before_bytes) / (count // sweeps * sweeps)
    arriving_ms = run.take_longest_ms()
    latecomers = 0
    while run.gate.tracked > 2 * latecomers + 200:
        run.spend(LATECOMERS_EACH_SWEEP)
        latecomers += LATECOMERS_EACH_SWEEP
        run.sweep()
    found = {"bytes": each_bytes, "arriving_ms": arriving_ms, "expiring_ms": run.take_longest_ms()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
