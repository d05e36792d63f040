"""What a million addresses cost the guard: a program of its own, so that its memory is theirs alone.

Usage: ``_gate.py COUNT PER_PREFIX``. So many addresses spend a token each, within a minute of the guard's clock,
``PER_PREFIX`` of each /24; then all of them expire while one new address after the other spends. As in the relay, the
gate is swept four times a second. Prints one JSON object: bytes for each address, and the longest time (of this
thread's CPU, in milliseconds) that one call took while they arrived and while they expired.
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
    """Addresses, so many of each /24."""
    prefix = int(IPv4Address("11.0.0.0"))
    while True:
        for number in range(1, per_prefix + 1):
            ip = IPv4Address(prefix + number)
            yield ClientAddress(ip, address_key(ip, 32))
        prefix += 256


def resident_bytes() -> int:
    """Of this process; see `_rig.Server.resident_bytes`."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(encoding="ascii"), re.M)
    assert found is not None
    return int(found[1]) * 1024


class Run:
    """One gate and its clock; `longest_s` is of the calls since it was last taken."""

    def __init__(self, count: int, per_prefix: int) -> None:
        quotas = Quota.parse("10/minute burst 20"), Quota.parse("100/minute burst 200")
        self.gate = Gate(GateConfig(*quotas, max_tracked=max(2 * count, 10_000)))
        self.clients = addresses(per_prefix)
        self.now = 1000.0
        self.longest_s = 0.0

    def sweep(self) -> None:
        """One sweep, timed."""
        self.now += SWEEP_S
        began_s = time.thread_time()
        self.gate.sweep(self.now)
        self.longest_s = max(self.longest_s, time.thread_time() - began_s)

    def spend(self, count: int) -> None:
        """So many new addresses, each timed."""
        clock = time.thread_time
        for _ in range(count):
            client = next(self.clients)
            began_s = clock()
            self.gate.spend(client, self.now)
            taken_s = clock() - began_s
            if taken_s > self.longest_s:
                self.longest_s = taken_s

    def take_longest_ms(self) -> float:
        """The longest call since the last time this was asked."""
        longest_s, self.longest_s = self.longest_s, 0.0
        return longest_s * 1000


def main() -> None:
    """Measure."""
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
