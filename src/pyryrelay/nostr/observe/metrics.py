"""The metrics of the Nostr relay (spec section 18), read from plain counters at each scrape.

Every label value exists from the first scrape. Kinds of events appear as classes only, because a client could use all
65,536 of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pyryrelay.metric_families import buckets, counter, counters, gauge, histogram
from pyryrelay.nostr.observe.figures import StoreFigures
from pyryrelay.nostr.policies import refusal
from pyryrelay.nostr.serving.counts import Counts
from pyryrelay.nostr.serving.relay import Relay
from pyryrelay.protocol import Figure

PREFIX: Final = "pyryrelay_nostr_"
SUBSCRIPTION_BUCKETS: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True, eq=False)
class NostrCollector(Collector):
    """Turns the counters of a relay, and the figures of its store, into metric families.

    ``reload_failures`` returns how many reloads and list files could not be applied.
    """

    relay: Relay
    figures: StoreFigures
    reload_failures: Callable[[], int]

    def collect(self) -> Iterator[Metric]:
        """Return the metric families of one scrape."""
        counts = self.relay.counts
        yield from _messages(counts)
        yield from self._events(counts)
        yield from self._subscriptions(counts)
        yield from self._work(counts)
        yield from self._limits(counts)

    def _events(self, counts: Counts) -> Iterator[Metric]:
        yield counters(f"{PREFIX}events", "Events that clients sent, by outcome.", "outcome", counts.events)
        stored = GaugeMetricFamily(f"{PREFIX}events_stored", "Stored events by class of kinds.", labels=["class"])
        for name, number in self.figures.events.items():
            stored.add_metric([name], number)
        yield stored
        yield gauge(
            f"{PREFIX}database_bytes", "Size of the database with its log, on disk.", self.figures.database_bytes
        )
        yield counter(f"{PREFIX}expired", "Events that were removed because they had expired.", counts.expired)
        yield counter(
            f"{PREFIX}deleted",
            "Events that were removed by deletions, newer versions, retention and tools.",
            counts.deleted,
        )

    def _subscriptions(self, counts: Counts) -> Iterator[Metric]:
        yield counters(
            f"{PREFIX}closed", "Subscriptions and counts that were refused or ended.", "reason", counts.closed
        )
        yield gauge(f"{PREFIX}subscriptions", "Open subscriptions.", self.relay.subscriptions)
        yield self._per_connection()
        yield counter(f"{PREFIX}fanout_deliveries", "Live events that were sent.", counts.fanout_deliveries)
        yield gauge(
            f"{PREFIX}outbox_bytes",
            "Bytes that wait for clients that do not keep up.",
            self.relay.outboxes.waiting_bytes,
        )
        yield counter(
            f"{PREFIX}slow_clients_closed",
            "Clients that were closed for reading too slowly.",
            counts.slow_clients_closed,
        )

    def _per_connection(self) -> Metric:
        numbers = [0] * (len(SUBSCRIPTION_BUCKETS) + 1)
        total = 0
        for member in self.relay.members.values():
            held = member.subscriptions
            numbers[bisect_left(SUBSCRIPTION_BUCKETS, held)] += 1
            total += held
        return GaugeHistogramMetricFamily(
            f"{PREFIX}subscriptions_per_connection",
            "Connections by the number of subscriptions they have open.",
            buckets=buckets(SUBSCRIPTION_BUCKETS, numbers),
            gsum_value=total,
        )

    def _work(self, counts: Counts) -> Iterator[Metric]:
        yield gauge(f"{PREFIX}queries_running", "Queries that a reader works on.", counts.queries_running)
        yield gauge(f"{PREFIX}queries_waiting", "Queries that wait for their turn.", counts.queries_waiting)
        seconds = HistogramMetricFamily(
            f"{PREFIX}query_seconds",
            "Time from a query to its first event, and to its end.",
            labels=["kind"],
        )
        for kind, times in (("first", counts.query_first_s), ("whole", counts.query_whole_s)):
            seconds.add_metric([kind], buckets(times.bounds, times.counts), times.total)
        yield seconds
        yield counter(f"{PREFIX}query_work_units", "Index entries examined and events loaded.", counts.query_work_units)
        yield counters(f"{PREFIX}query_aborted", "Queries that ended before their end.", "reason", counts.query_aborted)
        batch, written, verified = counts.write_batch_events, counts.write_s, counts.verify_s
        yield histogram(
            f"{PREFIX}write_batch_events", "Events in one transaction.", batch.bounds, batch.counts, batch.total
        )
        yield histogram(
            f"{PREFIX}write_seconds",
            "Time of a transaction, until it is on the disk.",
            written.bounds,
            written.counts,
            written.total,
        )
        yield gauge(
            f"{PREFIX}write_queue",
            "Events that wait to be verified or written, by weight.",
            self.relay.congestion.total,
        )
        yield histogram(
            f"{PREFIX}verify_seconds",
            "Time to verify a batch of signatures.",
            verified.bounds,
            verified.counts,
            verified.total,
        )

    def _limits(self, counts: Counts) -> Iterator[Metric]:
        yield counters(f"{PREFIX}auth", "Authentications by outcome.", "outcome", counts.auth)
        yield gauge(
            f"{PREFIX}authed_connections", "Connections that have authenticated a key.", counts.authed_connections
        )
        yield counters(f"{PREFIX}rate_limited", "What was refused because of a quota.", "limit", rate_limited(counts))
        yield counter(f"{PREFIX}exempt", "Connections of addresses that no quota holds for.", counts.exempt)
        yield counter(
            f"{PREFIX}reload_failures", "Reloads and list files that could not be applied.", self.reload_failures()
        )


def _messages(counts: Counts) -> Iterator[Metric]:
    yield counters(f"{PREFIX}messages_received", "Messages from clients, by verb.", "verb", counts.received)
    yield counters(f"{PREFIX}messages_sent", "Messages to clients, by verb.", "verb", counts.sent)


def rate_limited(counts: Counts) -> Mapping[str, int]:
    """Return what was refused because of a quota, by what the quota is about."""
    return {
        "events": counts.events[refusal.TOO_MANY_EVENTS.word],
        "events_of_key": counts.events[refusal.TOO_MANY_OF_KEY.word],
        "repeated_content": counts.events[refusal.REPEATED.word],
        "queries": counts.closed[refusal.TOO_MANY_REQUESTS.word],
        "subscriptions": counts.closed[refusal.TOO_MANY_SUBSCRIPTIONS.word],
        "open_values": counts.closed[refusal.TOO_MANY_OPEN_VALUES.word],
        "authentications": counts.auth[refusal.TOO_MANY_AUTHS.word],
        "invalid_messages": counts.invalid_closed,
    }


def figures(relay: Relay, store: StoreFigures) -> Mapping[str, Figure]:
    """Return the figures of `pyryrelay.protocol.RunningProtocol.figures`. The store's are some seconds old."""
    counts = relay.counts
    return {
        "events": sum(store.events.values()),
        "database_bytes": store.database_bytes,
        "subscriptions": relay.subscriptions,
        "queries_running": counts.queries_running,
        "queries_waiting": counts.queries_waiting,
        "write_queue": relay.congestion.total,
        "outbox_bytes": relay.outboxes.waiting_bytes,
        "authed_connections": counts.authed_connections,
        "fanout_total": counts.fanout_deliveries,
        "slow_clients_closed_total": counts.slow_clients_closed,
        **{f"events_total.{outcome}": count for outcome, count in counts.events.items()},
        **{f"closed_total.{reason}": count for reason, count in counts.closed.items()},
    }
