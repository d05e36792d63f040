"""Samples of a running relay: taken once a second, for ``GET /status``.

A sample costs the same however many connections there are. What does not, the number of connections per address, is
looked up on request only, and at most once in `PER_ADDRESS_S`. Times are seconds of a monotonic clock, sizes are bytes.
"""

from __future__ import annotations

import os
import resource
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final

from pyryrelay.guard import Gate
from pyryrelay.observe.metrics import PER_ADDRESS_BUCKETS
from pyryrelay.observe.refusals import Refusals
from pyryrelay.protocol import Figure
from pyryrelay.websocket.context import Traffic

__all__ = ["PER_ADDRESS_S", "PROBE_S", "SAMPLE_S", "Sampler", "Snapshot", "Sources", "memory_bytes"]

SAMPLE_S: Final = 1.0
PROBE_S: Final = 0.25
"""How often the lag of the reactor is measured."""
PER_ADDRESS_S: Final = 5.0
DECISIONS_S: Final = 60
"""The time of a decision is the mean of this many samples."""

_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def memory_bytes() -> int:
    """Return the memory of this process: what it has now, or the most that it had where the system tells no more."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from: ``traffic`` of each application and ``protocols`` have them by name."""

    gate: Gate
    refusals: Refusals
    traffic: Mapping[str, Traffic]
    protocols: Mapping[str, Callable[[], Mapping[str, Figure]]] = field(default_factory=dict)
    memory_bytes: Callable[[], int] = memory_bytes
    cpu_s: Callable[[], float] = time.process_time


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of one moment, ``at_s``. What counts, counts since the start.

    ``reactor_lag_s`` is the longest delay of a timer since the sample before. ``decisions`` is the number of request
    heads that were decided about, which took ``decisions_s`` in all.
    """

    at_s: float
    connections: Mapping[str, int]
    handshakes: int
    admitted: Mapping[str, int]
    refused: Mapping[str, int]
    messages: tuple[int, int]
    bytes: tuple[int, int]
    tracked: int
    jailed: int
    memory_bytes: int
    cpu_s: float
    reactor_lag_s: float
    decisions: int
    decisions_s: float
    protocols: Mapping[str, Mapping[str, Figure]]


class Sampler:
    """Takes the samples. Call `probe` every `PROBE_S` and `take` every `SAMPLE_S`."""

    def __init__(self, sources: Sources, now: Callable[[], float]) -> None:
        self._sources = sources
        self._now = now
        self._probed_at_s: float | None = None
        self._lag_s = 0.0
        self._decided: deque[tuple[int, float]] = deque([(0, 0.0)], maxlen=DECISIONS_S + 1)
        self._per_address: list[tuple[int | None, int]] = []
        self._per_address_at_s = -inf
        self._sampled_lag_s = 0.0

    def probe(self) -> None:
        """Measure how late this call is."""
        now = self._now()
        if self._probed_at_s is not None:
            self._lag_s = max(self._lag_s, now - self._probed_at_s - PROBE_S)
        self._probed_at_s = now

    def take(self) -> Snapshot:
        """Take a sample."""
        sample = self.look(self._lag_s)
        self._sampled_lag_s, self._lag_s = self._lag_s, 0.0
        self._decided.append((sample.decisions, sample.decisions_s))
        return sample

    def look(self, lag_s: float | None = None) -> Snapshot:
        """Return the figures of this moment, between two samples. The default of ``lag_s`` is that of the last one."""
        sources, now = self._sources, self._now()
        gate, traffic, decisions = sources.gate, sources.traffic, sources.refusals.decisions
        totals = traffic.values()
        return Snapshot(
            at_s=now,
            connections={route: gate.leases.connections_by_route.get(route, 0) for route in traffic},
            handshakes=gate.leases.handshakes,
            admitted={route: one.admitted for route, one in traffic.items()},
            refused=dict(sources.refusals.by_reason()),
            messages=(sum(one.messages_in for one in totals), sum(one.messages_out for one in totals)),
            bytes=(sum(one.bytes_in for one in totals), sum(one.bytes_out for one in totals)),
            tracked=gate.tracked,
            jailed=gate.jail.running(now),
            memory_bytes=sources.memory_bytes(),
            cpu_s=sources.cpu_s(),
            reactor_lag_s=max(self._sampled_lag_s, self._lag_s) if lag_s is None else lag_s,
            decisions=sum(decisions.counts),
            decisions_s=decisions.total,
            protocols={name: figures() for name, figures in sources.protocols.items()},
        )

    @property
    def decision_s(self) -> float | None:
        """The mean time of a decision in the last minute, or before if there was none; None if there never was one."""
        number, total_s = self._decided_lately()
        return total_s / number if number else None

    @property
    def decided(self) -> int:
        """The number of decisions that `decision_s` is the mean of."""
        return self._decided_lately()[0]

    def _decided_lately(self) -> tuple[int, float]:
        """Return the number of decisions in the last minute, or before if there was none, and the time for them."""
        (number, total_s), (before, before_s) = self._decided[-1], self._decided[0]
        if number == before:
            before, before_s = 0, 0.0
        return number - before, total_s - before_s

    def per_address(self) -> Sequence[tuple[int | None, int]]:
        """Return how many addresses have up to so many connections, and more than before; None is any number.

        Takes time in the number of addresses, so the answer may be `PER_ADDRESS_S` old.
        """
        now = self._now()
        if now - self._per_address_at_s >= PER_ADDRESS_S:
            counts = [0] * (len(PER_ADDRESS_BUCKETS) + 1)
            for number, addresses in self._sources.gate.leases.per_address().items():
                counts[bisect_left(PER_ADDRESS_BUCKETS, number)] += addresses
            self._per_address = list(zip((*PER_ADDRESS_BUCKETS, None), counts, strict=True))
            self._per_address_at_s = now
        return self._per_address
