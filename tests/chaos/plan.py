"""What the chaos driver can be asked to do. PURE. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["GATE", "PLANS", "PROCESS", "REDIS", "SOAK", "Plan"]

PROCESS: Final = ("kill", "end", "stop")
REDIS: Final = ("redis-kill", "redis-stop")
NETWORK: Final = (
    "cut-redis",
    "cut-instances",
    "cut-clients",
    "one-way-redis",
    "one-way-instances",
    "one-way-clients",
    "delay",
    "loss",
)
STEADY: Final = frozenset({*REDIS, "failover", "cut-redis", "cut-instances", "clock"})
"""Faults that change nothing for balancers, so that one with affinity goes on choosing the same instances."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run: faults for ``seconds``, each of which lasts up to ``longest_s``, and then at most ``quiet_s`` of quiet.

    ``network`` gives each instance, Redis and the clients a machine of their own; ``sentinels`` takes a primary, two
    replicas with clocks that are wrong, and three sentinels in the place of one Redis; ``clocks`` lets the wall clocks
    of instances be set; with ``nostr`` they are Nostr relays as well, each with a database. A fault begins each
    ``pause_s``, and is not done to a process of the first ``survivors`` instances. Pairs send a frame each ``frame_s``;
    there are ``crowd`` times as many as of instances. With ``is_busy``, bulk load keeps each instance at work for a
    ``share`` of a core, or as many cores allow if that is 0; see `bulk.load`.
    """

    name: str = "plan"
    seconds: float
    quiet_s: float = 20.0
    seed: int = 1
    instances: int = 3
    workers: int = 1
    keys: int = 12
    rivals: int = 2
    phones: int = 4
    faults: tuple[str, ...] = (*PROCESS, *REDIS)
    longest_s: float = 9.0
    pause_s: tuple[float, float] = (0.7, 2.5)
    survivors: int = 0
    crowd: int = 1
    frame_s: float = 0.1
    on_outage: str = "refuse"
    has_affinity: bool = False
    network: bool = False
    sentinels: bool = False
    clocks: bool = False
    nostr: bool = False
    is_busy: bool = False
    share: float = 0.0

    @property
    def is_steady(self) -> bool:
        """Whether the balancer sends each key to the same instance all the time."""
        return self.has_affinity and STEADY.issuperset(self.faults)


PLANS: Final = (
    Plan(name="refuse", seconds=60.0),
    Plan(name="local", seconds=60.0, on_outage="local"),
    Plan(
        name="affinity",
        seconds=60.0,
        on_outage="local",
        has_affinity=True,
        network=True,
        faults=(*REDIS, "cut-redis", "cut-instances"),
    ),
    Plan(name="network", seconds=90.0, network=True, faults=NETWORK),
    Plan(name="everything", seconds=90.0, network=True, faults=(*PROCESS, *REDIS, *NETWORK), on_outage="local"),
    Plan(
        name="failover",
        seconds=90.0,
        sentinels=True,
        nostr=True,
        faults=("failover", "failover", "kill"),
        on_outage="local",
    ),
    Plan(
        name="workers",
        seconds=60.0,
        workers=2,
        network=True,
        faults=(*PROCESS, *REDIS, "kill-worker", "kill-worker", "cut-redis", "cut-instances", "loss"),
    ),
    Plan(name="nostr", seconds=60.0, nostr=True, network=True, faults=(*PROCESS, *REDIS, "cut-redis", "loss")),
    Plan(name="clocks", seconds=30.0, clocks=True, faults=("clock", "clock", "redis-kill")),
)
"""What `make chaos` runs: ten minutes of faults."""

SOAK: Final = Plan(
    name="soak",
    seconds=3600.0,
    network=True,
    faults=(*PROCESS, *REDIS, *NETWORK),
    pause_s=(50.0, 70.0),
    survivors=2,
    crowd=2,
    keys=30,
    on_outage="local",
    is_busy=True,
)
"""An hour of steady load with a fault each minute. Two instances live all the time, and show whether memory grows."""

GATE: Final = (
    Plan(
        name="network",
        seconds=9.0,
        pause_s=(0.4, 1.5),
        seed=14,
        network=True,
        nostr=True,
        faults=(*PROCESS, *REDIS, *NETWORK),
        longest_s=5.0,
    ),
    Plan(
        name="failover",
        seconds=5.0,
        pause_s=(0.3, 1.0),
        seed=15,
        instances=2,
        workers=2,
        keys=8,
        sentinels=True,
        faults=("failover", "kill-worker"),
        longest_s=3.0,
        on_outage="local",
    ),
)
"""About a minute for each gate, with seeds that are always the same."""
