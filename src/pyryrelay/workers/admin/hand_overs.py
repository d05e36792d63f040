"""The metrics about connections that one process of the relay gives to another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pyryrelay.metric_families import counter, counters

__all__ = ["NO_HAND_OVERS", "HandOverCollector", "HandOvers", "PassingCollector"]


class HandOvers(Protocol):
    """Counts them since the start."""

    @property
    def handed_over(self) -> int:
        """Connections that were given to other workers."""

    @property
    def received(self) -> int:
        """Connections that other workers have given to this one."""

    @property
    def refused(self) -> int:
        """Connections that were refused because their worker had no room."""


@dataclass(frozen=True, slots=True)
class _Nothing:
    handed_over: int = 0
    received: int = 0
    refused: int = 0


NO_HAND_OVERS: Final[HandOvers] = _Nothing()
"""What a relay has counted that is one process."""


class HandOverCollector(Collector):
    """Shows them."""

    def __init__(self, hand_overs: HandOvers) -> None:
        self._hand_overs = hand_overs

    def collect(self) -> Iterator[Metric]:
        """Return the metric families of one scrape."""
        counts = self._hand_overs
        yield counters(
            "pyryrelay_worker_handovers",
            "Connections between workers: given to the worker of their key, taken from another one, or refused because "
            "their worker had no room.",
            "outcome",
            {"sent": counts.handed_over, "received": counts.received, "refused": counts.refused},
        )


class PassingCollector(Collector):
    """Shows how many connections a process could not pass to the worker that serves their address."""

    def __init__(self, lost: Callable[[], int]) -> None:
        self._lost = lost

    def collect(self) -> Iterator[Metric]:
        """Return the metric families of one scrape."""
        text = (
            "Accepted connections that were reset, because the worker that serves their address had no room for more "
            "or had ended. Without a worker label: those that the supervisor has accepted."
        )
        yield counter("pyryrelay_worker_lost_connections", text, self._lost())
