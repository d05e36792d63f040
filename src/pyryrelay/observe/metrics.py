"""Prometheus metrics: read from plain counters when they are scraped, so that counting costs an addition.

The registry is our own. Every label value exists from the first scrape, and all of them are fixed words of this
package: no client input ever becomes a label. Names that begin with ``pyrycode_relay_`` are the specification's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pyryrelay.guard import Gate, Reason
from pyryrelay.observe.refusals import RATE_LIMIT, Refusals
from pyryrelay.pyry.relay import ENDPOINTS, Relay
from pyryrelay.refusal_words import RefusalWord

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"

PUSH_OUTCOMES = ("sent", "unregistered", "send_failed", "token_fetch_failed", "dropped")

REASONS = (*(reason.value for reason in Reason), *sorted([*RefusalWord, "bad_server_id", "missing_header"]))

PER_ADDRESS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True, eq=False)
class RelayCollector(Collector):
    """Turns the counters into metric families. ``uptime_s`` gives the seconds since the start."""

    relay: Relay
    gate: Gate
    refusals: Refusals
    uptime_s: Callable[[], float]

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        yield from self._specified()
        yield from self._ours()

    def _specified(self) -> Iterator[Metric]:
        registry, counters = self.relay.registry, self.relay.counters
        yield _gauge("pyrycode_relay_connected_binaries", "Binaries that hold a server-id.", registry.binaries)
        yield _gauge("pyrycode_relay_connected_phones", "Phones that are paired.", registry.phone_count)
        upgrades = CounterMetricFamily(
            "pyrycode_relay_ws_upgrade_attempts",
            "Upgrade attempts, by endpoint and how they ended.",
            labels=["endpoint", "outcome"],
        )
        refused = self.refusals.outcomes()
        for (endpoint, outcome), count in (counters.upgrades | refused).items():
            upgrades.add_metric([endpoint, outcome], count)
        yield upgrades
        failures = counters.register_failures | {"ratelimit": sum(refused[name, RATE_LIMIT] for name in ENDPOINTS)}
        yield _counters("pyrycode_relay_register_failures", "Why a peer was not paired.", "kind", failures)
        yield _counters(
            "pyrycode_relay_frames_forwarded",
            "Frames that were passed on.",
            "direction",
            {"phone_to_binary": counters.phone_to_binary, "binary_to_phone": counters.binary_to_phone},
        )
        expiries = "Server-ids whose binary did not come back within the grace."
        yield _counter("pyrycode_relay_grace_expiries", expiries, registry.grace_expiries)
        wakes = dict.fromkeys(PUSH_OUTCOMES, 0) | {"dropped": counters.push_wakes_dropped}
        yield _counters("pyrycode_relay_push_wakes", "Push wakes by outcome.", "outcome", wakes)

    def _ours(self) -> Iterator[Metric]:
        gate, leases = self.gate, self.gate.leases
        counts = self.refusals.by_reason()
        by_reason = {reason: counts[reason] for reason in REASONS}
        yield _counters("pyryrelay_refusals", "Requests that were refused before an upgrade.", "reason", by_reason)
        refused = CounterMetricFamily(
            "pyryrelay_refused_upgrades",
            "Those of them that were sent to the path of an endpoint.",
            labels=["endpoint", "reason"],
        )
        for endpoint, reason in product(ENDPOINTS, REASONS):
            refused.add_metric([endpoint, reason], self.refusals.counts[endpoint, reason])
        yield refused
        yield _counters(
            "pyryrelay_envelopes_dropped",
            "Envelopes of binaries that could not be delivered.",
            "kind",
            self.relay.counters.envelopes_dropped,
        )
        connections = GaugeMetricFamily(
            "pyryrelay_connections", "Open connections: upgraded, by endpoint, or not yet.", labels=["kind"]
        )
        for endpoint in ENDPOINTS:
            connections.add_metric([endpoint], leases.connections_by_route.get(endpoint, 0))
        connections.add_metric(["handshake"], leases.handshakes)
        yield connections
        yield _gauge("pyryrelay_tracked_addresses", "Addresses and prefixes whose quota is not full.", gate.tracked)
        yield _gauge("pyryrelay_jailed_addresses", "Addresses in jail.", gate.jail.running(self.refusals.now()))
        yield self._per_address()
        decisions = self.refusals.decisions
        yield HistogramMetricFamily(
            "pyryrelay_decision_seconds",
            "Time to decide about a complete request head.",
            buckets=_buckets(decisions.bounds, decisions.counts),
            sum_value=decisions.total,
        )
        yield _gauge("pyryrelay_uptime_seconds", "Seconds since the start.", self.uptime_s())

    def _per_address(self) -> Metric:
        """How many addresses hold how many connections, now."""
        held = self.gate.leases.per_address()
        counts = [0] * (len(PER_ADDRESS_BUCKETS) + 1)
        for number, addresses in held.items():
            counts[bisect_left(PER_ADDRESS_BUCKETS, number)] += addresses
        return GaugeHistogramMetricFamily(
            "pyryrelay_connections_per_address",
            "Addresses by the number of connections they hold.",
            buckets=_buckets(PER_ADDRESS_BUCKETS, counts),
            gsum_value=sum(number * addresses for number, addresses in held.items()),
        )


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    return list(zip([*(str(float(bound)) for bound in bounds), "+Inf"], accumulate(counts), strict=True))


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    family = CounterMetricFamily(name, text)
    family.add_metric([], value)
    return family


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def exposition(collectors: Iterable[Collector]) -> Callable[[], bytes]:
    """A function that renders one scrape in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return lambda: generate_latest(registry)
