"""Prometheus metrics, read from plain counters at each scrape, so that counting an event costs one addition.

The registry is this module's own. Every label value exists from the first scrape, and is a fixed word of this package:
input from clients never becomes a label.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pyryrelay.guard import Gate
from pyryrelay.metric_families import buckets, counters, gauge, histogram
from pyryrelay.observe.refusals import Refusals

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"

PER_ADDRESS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Expiring(Protocol):
    """A certificate: a `CertificateInfo`."""

    @property
    def names(self) -> Sequence[str]:
        """Its names."""

    @property
    def expires_at(self) -> float:
        """When it expires, in seconds since 1970."""

    @property
    def source(self) -> str:
        """The file that it comes from."""


@dataclass(frozen=True, slots=True, eq=False)
class RelayCollector(Collector):
    """Turns the counters of the shared rooms into metric families. Each protocol has its own collector.

    ``routes`` are the names of the applications, ``reasons`` all reasons for which a request can be refused, and
    ``uptime_s`` returns the seconds since the start, and
    ``certificates`` those in use.
    """

    gate: Gate
    refusals: Refusals
    routes: Sequence[str]
    reasons: Sequence[str]
    uptime_s: Callable[[], float]
    certificates: Callable[[], Sequence[Expiring]] = tuple

    def collect(self) -> Iterator[Metric]:
        """Return the metric families of one scrape."""
        gate, leases = self.gate, self.gate.leases
        counts = self.refusals.by_reason()
        by_reason = {reason: counts[reason] for reason in self.reasons}
        yield counters("pyryrelay_refusals", "Requests that were refused before an upgrade.", "reason", by_reason)
        refused = CounterMetricFamily(
            "pyryrelay_refused_upgrades",
            "Refused requests for the path of an endpoint.",
            labels=["endpoint", "reason"],
        )
        for endpoint, reason in product(self.routes, self.reasons):
            refused.add_metric([endpoint, reason], self.refusals.counts[endpoint, reason])
        yield refused
        connections = GaugeMetricFamily(
            "pyryrelay_connections",
            "Open connections: upgraded ones by endpoint, others as handshake.",
            labels=["kind"],
        )
        for endpoint in self.routes:
            connections.add_metric([endpoint], leases.connections_by_route.get(endpoint, 0))
        connections.add_metric(["handshake"], leases.handshakes)
        yield connections
        yield gauge("pyryrelay_tracked_addresses", "Addresses and prefixes whose quota is not full.", gate.tracked)
        yield gauge("pyryrelay_jailed_addresses", "Addresses in jail.", gate.jail.running(self.refusals.now()))
        yield self._per_address()
        decisions = self.refusals.decisions
        yield histogram(
            "pyryrelay_decision_seconds",
            "Time to decide about a complete request head.",
            decisions.bounds,
            decisions.counts,
            decisions.total,
        )
        yield gauge("pyryrelay_uptime_seconds", "Seconds since the start.", self.uptime_s())
        yield self._expiries()

    def _expiries(self) -> Metric:
        """Tell when each certificate expires. Its labels come from the operator, never from clients."""
        family = GaugeMetricFamily(
            "pyryrelay_tls_certificate_expiry_timestamp_seconds",
            "When a TLS certificate expires, in seconds since 1970.",
            labels=["name", "source"],
        )
        for info in self.certificates():
            family.add_metric(["".join(info.names[:1]), info.source], info.expires_at)
        return family

    def _per_address(self) -> Metric:
        """Count the addresses by the number of connections that they hold."""
        held = self.gate.leases.per_address()
        counts = [0] * (len(PER_ADDRESS_BUCKETS) + 1)
        for number, addresses in held.items():
            counts[bisect_left(PER_ADDRESS_BUCKETS, number)] += addresses
        return GaugeHistogramMetricFamily(
            "pyryrelay_connections_per_address",
            "Addresses by the number of connections they hold.",
            buckets=buckets(PER_ADDRESS_BUCKETS, counts),
            gsum_value=sum(number * addresses for number, addresses in held.items()),
        )


def exposition(collectors: Iterable[Collector]) -> Callable[[], bytes]:
    """Return a function that renders one scrape in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return lambda: generate_latest(registry)
