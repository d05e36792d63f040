"""Snapshots of a relay, one a second."""

from __future__ import annotations

from pyryrelay.observe.sampling import Snapshot


def snapshot(second: int) -> Snapshot:
    """Return the snapshot of a relay at a second after its start, in which as much happens in each second."""
    return Snapshot(
        at_s=float(second),
        connections={"client": 2},
        handshakes=1,
        admitted={"client": 2 * second},
        refused={"rate_limit": 3 * second},
        messages=(10 * second, 20 * second),
        bytes=(100 * second, 200 * second),
        tracked=5,
        jailed=1,
        memory_bytes=50_000_000,
        cpu_s=0.25 * second,
        reactor_lag_s=0.001,
        decisions=4 * second,
        decisions_s=0.0001 * second,
        protocols={"room": {"visitors": 2, "visits_total": second, "kept_bytes": 1_000}},
    )
