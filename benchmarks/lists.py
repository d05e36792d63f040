"""CPU time of one lookup in a list of 10 networks and of 100,000.

The guard's own set is measured in this process, pinned to the server's core, with random IPv4 and IPv6 networks and
random addresses, half of which are inside. The cost must not depend on the number of networks.
"""

from __future__ import annotations

import random
import sys
import time
from ipaddress import IPv4Address, IPv6Address

from _rig import OURS, Row, arguments, pin_server, publish
from pyryrelay.guard import CidrSet

LOOKUPS, QUICK_LOOKUPS = 200_000, 20_000
FEW, MANY = 10, 100_000


def measure(networks: int, lookups: int, seed: int) -> float:
    """Return the microseconds per lookup."""
    chance = random.Random(seed)
    v4 = [chance.randrange(1 << 24) << 8 for _ in range(networks // 2)]
    v6 = [chance.randrange(1 << 48) << 80 for _ in range(networks - len(v4))]
    texts = [f"{IPv4Address(number)}/24" for number in v4] + [f"{IPv6Address(number)}/48" for number in v6]
    cidrs = CidrSet(texts)
    inside = [IPv4Address(number + 7) for number in v4] + [IPv6Address(number + 7) for number in v6]
    outside = [IPv4Address(chance.randrange(1 << 32)) for _ in range(len(inside))]
    asked = [chance.choice(inside if number % 2 else outside) for number in range(lookups)]
    began_s = time.process_time()
    for address in asked:
        address in cidrs  # noqa: B015
    return (time.process_time() - began_s) / lookups * 1e6


def main() -> int:
    """Measure, and print the results."""
    options = arguments(__doc__ or "")
    pin_server()
    rounds = options.rounds or (1 if options.quick else 5)
    lookups = QUICK_LOOKUPS if options.quick else LOOKUPS
    found: dict[int, list[float]] = {FEW: [], MANY: []}
    for seed in range(rounds):
        for networks, figures in found.items():
            figures.append(measure(networks, lookups, seed))
    results = {OURS: found[MANY], f"{FEW} networks": found[FEW]}
    publish([Row(f"lookup in a list of {MANY:,} networks", "µs", results, "at most 2")], options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
