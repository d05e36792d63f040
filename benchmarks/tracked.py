"""Resident bytes per address that the guard tracks, and the longest stall while a million of them expire.

A process of its own uses the guard like the relay, with its default quotas and a simulated clock: a million addresses
spend a token each, then only a few new ones arrive until all others have expired. A stall is the CPU time of one call:
a sweep (four per second) or an attempt. Crowded subnets send from 200 addresses of each /24, which is what the quota
of a /24 admits at once. Scattered addresses have a /24 each, which is tracked as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from _rig import OURS, ROOT, Row, arguments, pin_server, publish

CROWDED, SCATTERED = 200, 1


def measure(count: int, per_prefix: int) -> dict[str, float]:
    """Run `_gate` once."""
    command = [sys.executable, str(Path(__file__).with_name("_gate.py")), str(count), str(per_prefix)]
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=pin_server,
    )
    found: dict[str, float] = json.loads(run.stdout)
    return found


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    count, rounds = (100_000, 1) if options.quick else (1_000_000, 1)
    rows = []
    for kind, per_prefix in (("crowded subnets", CROWDED), ("scattered", SCATTERED)):
        runs = [measure(count, per_prefix) for _ in range(options.rounds or rounds)]
        for what, unit, key, target in (
            ("address remembered", "resident bytes", "bytes", "at most 160"),
            ("longest stall while addresses expire", "ms", "expiring_ms", "at most 5"),
            ("longest stall while addresses arrive", "ms", "arriving_ms", ""),
        ):
            rows.append(Row(f"{what}, {count:,}, {kind}", unit, {OURS: [run[key] for run in runs]}, target))
    publish(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
