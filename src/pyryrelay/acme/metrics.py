"""The metric of automatic certificates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pyryrelay.metric_families import counters

__all__ = ["NO_ORDERS", "AcmeCollector"]

NO_ORDERS: Final[Mapping[str, int]] = MappingProxyType({"issued": 0, "failed": 0})
"""The orders of a relay without ``--acme``."""


class AcmeCollector(Collector):
    """Shows how many orders of certificates had which outcome."""

    def __init__(self, orders: Mapping[str, int]) -> None:
        self._orders = orders

    def collect(self) -> Iterator[Metric]:
        """Yield the metric."""
        text = "Certificates ordered by ACME (--acme), by outcome: issued or failed."
        yield counters("pyryrelay_acme_orders", text, "outcome", self._orders)
